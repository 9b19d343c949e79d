//! Calls that somebody wants to hear of: what is kept of them while they run, and then told.
//!
//! 1. While nobody listens a call costs one look at a flag of the worker when it begins, and one
//!    at its own empty place when octets pass and when it ends. So does one that no tap may want,
//!    but for comparing what the taps ask for.
//! 2. Of the octets of messages no more is kept than `Config::logging` says, of at most
//!    [`CONTENTS_HELD_MAX`] calls at a time; other calls are told without them.
//! 3. Fields are never kept, but for the path and the user agent.

use super::contract::{Listener, Output};
use super::failure::Failure;
use super::head::{self, RequestHead};
use super::peer::Side;
use super::{ConnKey, PoolKey, Proxy, call, route};
use crate::config::CallLogging;
use crate::http2::FieldSection;
use crate::identity::Target;
use crate::observe::account::{Account, Filter};
use crate::observe::cells::Hop;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Calls of a worker whose messages are held for the log at the same time.
pub(super) const CONTENTS_HELD_MAX: usize = 256;
/// Octets of a path or a user agent that are told.
const TEXT_OCTETS_MAX: usize = 1 << 10;

/// Who listens.
#[derive(Debug, Default)]
pub(super) struct Witnesses {
    logging: CallLogging,
    /// What those who tap want to see.
    taps: Vec<Arc<Filter>>,
    /// Calls whose messages are held.
    holding: usize,
}

impl Witnesses {
    pub(super) fn new(logging: CallLogging) -> Self {
        Self { logging, taps: Vec::new(), holding: 0 }
    }

    /// The configuration changed: for calls that begin from now on.
    pub(super) fn follow(&mut self, logging: CallLogging) {
        self.logging = logging;
    }

    /// Does anybody want to hear of a call that comes in by this port?
    #[inline]
    pub(super) fn listen(&self, listener: Listener) -> bool {
        self.logs(listener) || !self.taps.is_empty()
    }

    /// The log tells all of them.
    #[inline]
    fn logs(&self, listener: Listener) -> bool {
        let logged = self.logging.api && listener != Listener::Internal;
        logged || self.logging.contents > 0
    }
}

/// What is kept of a call.
#[derive(Debug)]
pub(super) struct Witness {
    account: Account,
    begun: Instant,
    /// Octets kept each way.
    contents_max: usize,
}

impl Witness {
    /// A stream to the upstream was opened.
    #[cold]
    pub(super) fn opened(&mut self, upstream: String, now: Instant) {
        self.account.upstream = Some(upstream);
        self.account.waited = Some(now.saturating_duration_since(self.begun));
    }

    /// The upstream's final head came.
    #[cold]
    pub(super) fn answered(&mut self, now: Instant) {
        self.account.answered = Some(now.saturating_duration_since(self.begun));
    }

    #[cold]
    pub(super) fn saw_request(&mut self, data: &[u8]) {
        self.account.request_octets += data.len() as u64;
        if let Some(contents) = &mut self.account.contents {
            keep(&mut contents.request, data, self.contents_max);
        }
    }

    #[cold]
    pub(super) fn saw_response(&mut self, data: &[u8]) {
        self.account.response_octets += data.len() as u64;
        if let Some(contents) = &mut self.account.contents {
            keep(&mut contents.response, data, self.contents_max);
        }
    }
}

/// COPY: what the log was asked to show of messages, no more than that.
fn keep(kept: &mut Vec<u8>, data: &[u8], most: usize) {
    let room = most.saturating_sub(kept.len()).min(data.len());
    kept.extend_from_slice(data.get(..room).unwrap_or_default());
}

impl Proxy {
    /// Of calls that begin from now on, each that may fit one of these is told.
    pub fn set_taps(&mut self, filters: Vec<Arc<Filter>>) {
        self.witnesses.taps = filters;
    }

    /// A call begins: its fields are not rewritten yet. `None`: nobody wants to hear of this one.
    #[cold]
    pub(super) fn witness(
        &mut self,
        conn: ConnKey,
        fields: &FieldSection,
        pool: Option<PoolKey>,
        now: Instant,
    ) -> Option<Box<Witness>> {
        let peer = self.peers.get(conn)?;
        let Side::Downstream { listener, peer: address, caller } = &peer.side else { return None };
        let (head, logs) = (head::read_request(fields), self.witnesses.logs(*listener));
        if !logs && !self.concerns_tap(caller.name(), head.path, pool) {
            return None;
        }
        let callee = self.callee_shown(&head, *listener, pool);
        let caller = match (caller.name(), address) {
            (Some(id), _) => id.to_owned(),
            (None, Some(address)) => address.to_string(),
            (None, None) => "unix".to_owned(),
        };
        let hop = Hop::from(*listener);
        let mut account = Account::new(hop, caller, callee, text(head.path));
        account.logged = self.witnesses.logging.api && hop == Hop::Outbound;
        account.user_agent = user_agent(fields);
        let most = self.witnesses.logging.contents as usize;
        if most > 0 && self.witnesses.holding < CONTENTS_HELD_MAX {
            self.witnesses.holding += 1;
            account.contents = Some(Box::default());
        }
        Some(Box::new(Witness { account, begun: now, contents_max: most }))
    }

    /// Without a copy of anything: most taps want to see few calls. `None` for a pool: what a call
    /// asked for, which is looked at when it is told.
    fn concerns_tap(&self, caller: Option<&str>, path: &[u8], pool: Option<PoolKey>) -> bool {
        let config = &self.snapshot.config;
        let is_of = |app: &str| {
            let calls = caller.is_some_and(|id| id.rsplit('/').next() == Some(app));
            let is_called = match pool.map(|pool| self.pools.target(pool)) {
                None => true,
                Some(None) => config.app_id.as_str() == app,
                Some(Some(Target { app_id, namespace })) => {
                    let rest = app.strip_prefix(app_id.as_str());
                    rest.is_some_and(|rest| match rest.strip_prefix('.') {
                        None => rest.is_empty(),
                        Some(named) => named == namespace.as_str(),
                    })
                }
            };
            calls || is_called
        };
        self.witnesses.taps.iter().any(|filter| filter.may_fit(path, is_of))
    }

    /// A request that never became a call. daprd's log knows those that got as far as its proxy.
    #[cold]
    pub(super) fn witness_rejected(
        &mut self,
        conn: ConnKey,
        fields: &FieldSection,
        listener: Listener,
        failure: &Failure,
        now: Instant,
    ) {
        let head = head::read_request(fields);
        let config = &self.snapshot.config;
        let apis = &self.snapshot.policies.apis;
        let reached = !failure.untold
            && route::reaches_proxy(&head, listener, config, apis)
            && head.timeout.is_none_or(|value| call::parse_timeout(value).is_ok());
        if let Some(mut witness) = self.witness(conn, fields, None, now) {
            witness.account.logged &= reached;
            self.testify(witness, failure.code as u8, Duration::ZERO);
        }
    }

    /// A call that was listened to is over.
    #[cold]
    pub(super) fn testify(&mut self, witness: Box<Witness>, status: u8, total: Duration) {
        let mut account = witness.account;
        if account.contents.is_some() {
            self.witnesses.holding -= 1;
        }
        (account.status, account.total) = (status, total);
        self.outputs.push_back(Output::Heard(Box::new(account)));
    }

    fn callee_shown(
        &self,
        head: &RequestHead<'_>,
        listener: Listener,
        pool: Option<PoolKey>,
    ) -> String {
        let config = &self.snapshot.config;
        match (pool, listener) {
            (Some(pool), _) => match self.pools.target(pool) {
                Some(Target { app_id, namespace }) if *namespace == config.namespace => {
                    app_id.to_string()
                }
                Some(Target { app_id, namespace }) => format!("{app_id}.{}", namespace.as_str()),
                None => config.app_id.to_string(),
            },
            (None, Listener::Forward(index)) => {
                config.forwards.get(index).map(|forward| forward.app_id.clone()).unwrap_or_default()
            }
            (None, Listener::Api | Listener::Internal) => {
                text(head.callee_app_id.or(head.app_id).unwrap_or_default())
            }
        }
    }
}

/// The first one, as daprd tells it.
fn user_agent(fields: &FieldSection) -> Option<String> {
    fields.iter().find(|field| field.name == b"user-agent").map(|field| text(field.value))
}

fn text(octets: &[u8]) -> String {
    let octets = octets.get(..TEXT_OCTETS_MAX).unwrap_or(octets);
    String::from_utf8_lossy(octets).into_owned()
}

#[cfg(test)]
impl Witness {
    /// Does it hold octets of messages?
    pub(super) fn holds(&self) -> bool {
        self.account.contents.is_some()
    }
}
