//! Calls that are over, on their way to whoever asked to hear of them.
//!
//! 1. Nothing here waits: the log's queue is bounded and counts what it drops; a tap's is too,
//!    and what does not fit is counted for whoever taps.
//! 2. The proxy hears what taps ask for, and keeps nothing of calls that none of them may want.

use super::worker::Worker;
use crate::mailbox::{Tap, Tapped};
use crate::observe::account::{Account, Contents, Filter};
use crate::observe::cells::Hop;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Scopes; the first one is daprd's.
const API_CALLS: &str = "dapr.runtime.grpc.api-info";
const CONTENTS: &str = "ringside.contents";

/// Whoever looks on.
#[derive(Debug, Default)]
pub(super) struct Taps(Vec<Tap>);

impl Taps {
    fn filters(&self) -> Vec<Arc<Filter>> {
        self.0.iter().map(|tap| Arc::clone(&tap.filter)).collect()
    }
}

impl Worker {
    pub(super) fn tap(&self, tap: Tap) {
        let mut taps = self.taps.borrow_mut();
        taps.0.push(tap);
        self.core.borrow_mut().proxy.set_taps(taps.filters());
    }

    pub(super) fn untap(&self, id: u64) {
        let mut taps = self.taps.borrow_mut();
        taps.0.retain(|tap| tap.id != id);
        self.core.borrow_mut().proxy.set_taps(taps.filters());
    }

    /// A call that somebody listens to is over.
    #[cold]
    pub(super) fn heard(&self, account: Box<Account>) {
        log(&account);
        for tap in self.taps.borrow().0.iter().filter(|tap| tap.filter.fits(&account)) {
            // What calls carried is for the log alone.
            let account = Box::new(Account { contents: None, ..Account::clone(&account) });
            if tap.sender.send(Tapped { worker: self.index, account }).is_err() {
                tap.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The lines that the log shall have of a call.
fn log(account: &Account) {
    let (method, code) = (account.method.as_str(), u64::from(account.status));
    let duration = u64::try_from(account.total.as_millis()).unwrap_or(u64::MAX);
    if account.logged {
        let useragent = account.user_agent.as_deref();
        tracing::info!(scope = API_CALLS, method, code, duration, useragent, "gRPC API Called");
    }
    if let Some(contents) = &account.contents {
        let Contents { request, response } = &**contents;
        tracing::info!(
            scope = CONTENTS,
            method,
            code,
            duration,
            hop = match account.hop {
                Hop::Outbound => "outbound",
                Hop::Inbound => "inbound",
            },
            request = %request.escape_ascii(),
            request_octets = account.request_octets,
            response = %response.escape_ascii(),
            response_octets = account.response_octets,
            "Contents of a call"
        );
    }
}
