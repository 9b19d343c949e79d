//! Upstream connections per target: who may take a call, who waits, when to dial.
//!
//! 1. One dial at a time per pool for those who wait, who share it; one beside it that nobody waits
//!    for (`balance`).
//! 2. A pool grows only when every connection's streams are taken, up to [`CONNECTIONS_MAX`].
//! 3. The key is the target with its namespace: a connection made for one namespace never serves
//!    another (daprd's pool is keyed by address and does; docs/parity.md).
//! 4. A pool without connections and without waiting calls is dropped when its target fails to
//!    resolve, so that made-up app IDs leave nothing behind; when there are too many, all such
//!    pools are.

use super::balance::{Dice, Places};
use super::call::{Call, Up};
use super::contract::{CloseReason, Output, Security};
use super::failure::Failure;
use super::guard::Cause;
use super::peer::{Peer, Side, Stage};
use super::pending::Parked;
use super::waiting::Waiting;
use super::{CallKey, ConnKey, End, PoolKey, Proxy, head, limits, rewrite};
use crate::config::AppProtocol;
use crate::grpc::Code;
use crate::http2::field::PreparedField;
use crate::http2::{Connection, FieldSection, Role};
use crate::identity::{Namespace, Target};
use crate::observe::cells::Gauge;
use crate::resolve::Endpoint;
use crate::snapshot::Way;
use bytes::Bytes;
use slotmap::SlotMap;
use std::collections::HashMap;
use std::time::Instant;

/// Connections of one worker to one target.
const CONNECTIONS_MAX: usize = 64;
/// What the heads of all that wait in a worker may take: a head that takes some octets on the wire
/// may take a thousand times as many when decoded.
pub(super) const PARKED_OCTETS_MAX: usize = 64 << 20;
/// Targets of one worker.
const POOLS_MAX: usize = 4096;
/// Dials before those who wait are told, as long as there is an endpoint that has not failed just
/// now.
const DIALS_PER_ROUND: usize = 3;

#[derive(Debug)]
pub(super) struct Pool {
    /// `None`: our own app.
    pub(super) target: Option<Target>,
    callee: Option<PreparedField>,
    pub(super) conns: Vec<ConnKey>,
    /// Connections that take no more calls, and may have some that come back here.
    pub(super) leaving: usize,
    pub(super) dialing: Option<ConnKey>,
    pub(super) parked: Waiting,
    /// `pump` is at work: what it ends must not begin another one inside.
    pumping: bool,
    /// Endpoints are known, as far as we know.
    pub(super) resolved: bool,
    pub(super) places: Places,
    /// The endpoints were resolved for those who wait now.
    pub(super) fresh: bool,
    /// An `Output::Resolve` is out.
    pub(super) asked: Option<Instant>,
    /// Dials that failed in this round.
    pub(super) failed: usize,
}

impl Pool {
    fn new(target: Option<Target>) -> Self {
        Self {
            callee: target.as_ref().map(|target| rewrite::callee_app_id(&target.app_id)),
            target,
            conns: Vec::new(),
            leaving: 0,
            dialing: None,
            parked: Waiting::default(),
            pumping: false,
            resolved: false,
            places: Places::default(),
            fresh: false,
            asked: None,
            failed: 0,
        }
    }

    fn is_idle(&self) -> bool {
        let dials = self.dialing.is_some() || !self.places.probing.is_empty();
        self.conns.is_empty() && self.leaving == 0 && !dials && self.parked.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.conns.len() >= CONNECTIONS_MAX
    }
}

#[derive(Debug)]
pub struct Pools {
    pub(super) pools: SlotMap<PoolKey, Pool>,
    app: PoolKey,
    pub(super) by_target: HashMap<Target, PoolKey>,
    pub(super) dice: Dice,
}

impl Pools {
    pub fn new() -> Self {
        let mut pools = SlotMap::with_key();
        let app = pools.insert(Pool::new(None));
        Self { pools, app, by_target: HashMap::new(), dice: Dice(0) }
    }

    pub fn app(&self) -> PoolKey {
        self.app
    }

    pub fn exists(&self, pool: PoolKey) -> bool {
        self.pools.contains_key(pool)
    }

    /// What a target is told of its name; `None`: our own app.
    pub fn callee(&self, pool: PoolKey) -> Option<&PreparedField> {
        self.pools.get(pool)?.callee.as_ref()
    }

    /// Whom its connections lead to; `None`: our own app.
    pub fn target(&self, pool: PoolKey) -> Option<&Target> {
        self.pools.get(pool)?.target.as_ref()
    }

    /// The pool of a target as spelled, made when there is none.
    pub fn remote(&mut self, text: &str, own: &Namespace) -> Result<PoolKey, Failure> {
        self.of(Target::parse(text, own).map_err(|error| Failure::target(&error))?)
    }

    /// The pool of a target, made when there is none.
    pub fn of(&mut self, target: Target) -> Result<PoolKey, Failure> {
        if let Some(pool) = self.by_target.get(&target) {
            return Ok(*pool);
        }
        if !self.has_room() {
            let message = "ringside: calls to too many different app ids; try again later";
            return Err(Failure::new(Code::ResourceExhausted, message));
        }
        let pool = self.pools.insert(Pool::new(Some(target.clone())));
        self.by_target.insert(target, pool);
        Ok(pool)
    }

    /// Its next look at endpoints is then.
    pub fn heeds(&self, pool: PoolKey, at: Instant) -> bool {
        self.pools.get(pool).is_some_and(|pool| pool.places.heeds(at))
    }

    /// A call that waits in this pool has ended.
    pub fn one_died(&mut self, pool: PoolKey, caller: ConnKey) {
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.parked.one_died(caller);
        }
    }

    /// A call that waits in this pool leaves it and lives on.
    pub fn leave(&mut self, pool: PoolKey, caller: ConnKey, call: CallKey) {
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.parked.remove(caller, call);
        }
    }

    /// The connection that calls are given to first.
    pub fn is_first(&self, pool: PoolKey, conn: ConnKey) -> bool {
        self.pools.get(pool).is_some_and(|pool| pool.conns.first() == Some(&conn))
    }

    pub fn has_parked(&self, pool: PoolKey) -> bool {
        self.pools.get(pool).is_some_and(|pool| !pool.parked.is_empty())
    }

    /// Room for one target more; those that nobody uses make way.
    fn has_room(&mut self) -> bool {
        let before = self.pools.len();
        if before < POOLS_MAX {
            return true;
        }
        let Self { pools, app, by_target, .. } = self;
        pools.retain(|key, pool| key == *app || pool.asked.is_some() || !pool.is_idle());
        if pools.len() < before {
            by_target.retain(|_, key| pools.contains_key(*key));
        }
        pools.len() < POOLS_MAX
    }

    /// Invariant 4.
    pub(super) fn drop_if_idle(&mut self, key: PoolKey) {
        let idle = self.pools.get(key).is_some_and(|pool| pool.is_idle() && pool.asked.is_none());
        if key == self.app || !idle {
            return;
        }
        if let Some(target) = self.pools.remove(key).and_then(|pool| pool.target) {
            self.by_target.remove(&target);
        }
    }

    pub fn check_invariants(&self, lives: impl Fn(CallKey) -> bool) {
        self.pools.values().for_each(|pool| pool.parked.check_invariants(&lives));
        assert!(self.pools.len() <= POOLS_MAX);
        assert!(self.by_target.values().all(|key| self.pools.contains_key(*key)));
        assert!(self.pools.values().all(|pool| pool.conns.len() <= CONNECTIONS_MAX));
    }
}

impl Proxy {
    /// A connection of the pool that can take a call: the first, so that calls share sends; of
    /// several endpoints', one of those that have less to do.
    pub(super) fn pick(&mut self, key: PoolKey, now: Instant) -> Option<ConnKey> {
        let pool = self.pools.pools.get(key)?;
        if pool.target.is_none() && self.app_calls.is_full() {
            return None;
        }
        if pool.conns.len() > 1 && pool.places.are_several() {
            return self.pick_of_several(key, now);
        }
        pool.conns.iter().copied().find(|key| self.peers[*key].can_take())
    }

    pub(super) fn park(
        &mut self,
        pool: PoolKey,
        call: CallKey,
        fields: FieldSection,
        pending: Vec<Bytes>,
        now: Instant,
    ) {
        let Some(waiting) = self.pools.pools.get_mut(pool) else {
            debug_assert!(false, "a pool lives as long as calls may come to it");
            let message = "ringside: nobody knows where this call goes any more; try again";
            return self.fail(call, &Failure::unavailable(message), now);
        };
        let Some(caller) = self.calls.get(call).map(|call| call.down.conn) else { return };
        let Some(peer) = self.peers.get_mut(caller) else { return };
        let octets = fields.kept();
        // As of the places: as much for one caller as is left free.
        let fits = self.parked_octets + peer.parked_octets + octets <= PARKED_OCTETS_MAX;
        if !fits || !waiting.parked.admits(caller) {
            let limit = if fits { "parked" } else { "parked_octets" };
            self.limit_reached(limit, "too many of its calls wait for an app", caller, now);
            let message = "ringside: too many calls wait for this app; try again later";
            let failure = Failure::new(Code::ResourceExhausted, message).undelivered();
            self.fail(call, &failure, now);
            return;
        }
        let Some(parked) = self.calls.get_mut(call) else { return };
        parked.up = Up::Parked(Box::new(Parked { fields, octets, pending: pending.into() }));
        self.parked_octets += octets;
        peer.parked_octets += octets;
        self.cells.rise(Gauge::WaitingCalls);
        let calls = &self.calls;
        waiting.parked.push(caller, call, |call| calls.contains_key(call));
        self.pump(pool, now);
    }

    /// Streams of this connection became free.
    pub(super) fn pump_of(&mut self, conn: ConnKey, now: Instant) {
        let Some(peer) = self.peers.get(conn) else { return };
        if let Side::Upstream { pool, .. } = peer.side
            && self.pools.has_parked(pool)
        {
            self.pump(pool, now);
        }
    }

    /// Gives streams to those who wait; dials when that is not enough. A call that fails on the
    /// way (its deadline is over) comes back here by `free`: with thousands of them waiting, that
    /// must not nest.
    pub(super) fn pump(&mut self, key: PoolKey, now: Instant) {
        let Some(pool) = self.pools.pools.get_mut(key) else { return };
        if pool.parked.is_empty() || std::mem::replace(&mut pool.pumping, true) {
            return;
        }
        self.open_parked(key, now);
        if let Some(pool) = self.pools.pools.get_mut(key) {
            pool.pumping = false;
        }
    }

    fn open_parked(&mut self, key: PoolKey, now: Instant) {
        loop {
            let Some(pool) = self.pools.pools.get_mut(key) else { return };
            let calls = &self.calls;
            let Some(call) = pool.parked.first(|call| calls.contains_key(call)) else { return };
            let Some(conn) = self.pick(key, now) else { break };
            if let Some(pool) = self.pools.pools.get_mut(key) {
                pool.parked.take_first();
            }
            let Some(Call { up, down, .. }) = self.calls.get_mut(call) else { continue };
            if let Up::Parked(parked) = std::mem::replace(up, Up::None) {
                let Parked { fields, octets, pending } = *parked;
                let caller = down.conn;
                self.unpark(caller, octets);
                self.open(call, conn, fields, pending.into_pieces(), now);
            }
        }
        self.dial(key, now);
    }

    /// Starts a dial for those who wait, unless one is out or the pool is full.
    fn dial(&mut self, key: PoolKey, now: Instant) {
        let Some(pool) = self.pools.pools.get_mut(key) else { return };
        if pool.dialing.is_some() || pool.asked.is_some() || pool.is_full() {
            return;
        }
        let (remote, resolved) = (pool.target.is_some(), pool.resolved);
        if !remote && self.app_calls.is_full() {
            // Another connection is not what they wait for.
            return;
        }
        let way = match (remote, resolved) {
            (false, _) => self.snapshot.app.clone(),
            (true, false) => return self.ask(key, now),
            (true, true) => self.choose(key, now).map(Way::Tcp),
        };
        let Some(way) = way else {
            // `resolved` lets no empty list in.
            debug_assert!(!remote, "a list of endpoints is empty");
            return self.fail_parked(
                key,
                &Failure::no_app(&self.snapshot.config),
                Cause::Unreachable,
                now,
            );
        };
        let Some(pool) = self.pools.pools.get(key) else { return };
        let target = pool.target.clone();
        let conn = self.make_upstream(key, way.clone(), now);
        let security = self.security(target);
        if let Some(pool) = self.pools.pools.get_mut(key) {
            pool.dialing = Some(conn);
        }
        self.outputs.push_back(Output::Dial { conn: conn.into(), way, security });
        self.hedge(key, now);
    }

    pub(super) fn make_upstream(&mut self, pool: PoolKey, way: Way, now: Instant) -> ConnKey {
        let config = &self.snapshot.config;
        let authority = match (&config.app, pool == self.pools.app()) {
            (Some(app), true) => app.authority(),
            (Some(_) | None, _) => way.to_string(),
        };
        let to_app = pool == self.pools.app();
        let end = if to_app { End::App } else { End::Sidecar };
        let h2 = Connection::new(Role::Client, limits(config, end), head::classify, now);
        let side = Side::Upstream {
            pool,
            authority: rewrite::authority(&authority),
            to_app,
            far_app: to_app && !way.is_local(),
            way,
            stage: Stage::Dialing,
        };
        self.cells.rise(Gauge::UpstreamConnections);
        self.peers.insert(Peer::new(h2, side, now))
    }

    pub(super) fn security(&self, target: Option<Target>) -> Security {
        let config = &self.snapshot.config;
        match (target, &config.app) {
            (Some(target), _) if config.mtls => Security::Mtls(target),
            (None, Some(app)) if app.protocol == AppProtocol::Grpcs => {
                Security::Unverified { host: app.host().to_owned() }
            }
            (Some(_) | None, Some(_) | None) => Security::Plaintext,
        }
    }

    /// Connected, and verified if need be: the preface may go.
    pub(super) fn dialed(&mut self, key: ConnKey, now: Instant) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Side::Upstream { stage, to_app, .. } = &mut peer.side else { return };
        let end = if *to_app { End::App } else { End::Sidecar };
        let limits = limits(&self.snapshot.config, end);
        *stage = Stage::Greeting { since: now };
        // Nothing was said yet; the time that the peer has for its preface begins now.
        peer.h2 = Connection::new(Role::Client, limits, head::classify, now);
        peer.heard = now;
        peer.idle_since = now;
        self.remind_peer(key);
        self.touch(key);
    }

    /// The peer's SETTINGS are here: those who wait may go.
    pub(super) fn upstream_ready(
        &mut self,
        pool: PoolKey,
        conn: ConnKey,
        endpoint: Option<Endpoint>,
        now: Instant,
    ) {
        let Some(pool) = self.pools.pools.get_mut(pool) else { return };
        pool.dialing.take_if(|dial| *dial == conn);
        pool.places.probing.retain(|dial| *dial != conn);
        if let Some(endpoint) = endpoint {
            pool.places.up(endpoint, now);
        }
        pool.places.forget_tries();
        pool.conns.push(conn);
        pool.fresh = false;
        pool.failed = 0;
    }

    pub(super) fn dial_failed(&mut self, conn: ConnKey, error: String, now: Instant) {
        let Some(peer) = self.peers.remove(conn) else { return };
        self.tally_gone(&peer);
        self.upstream_left(&peer);
        if let Side::Upstream { pool, way, .. } = &peer.side {
            let (pool, endpoint) = (*pool, way.endpoint());
            let error = self.blame_peer(&peer, &error);
            self.place_down(pool, endpoint, now);
            self.dial_over(pool, conn, error, now);
        }
        self.check_drained(now);
    }

    /// A dial ended without a usable connection: the next endpoint, a fresh resolution, or bad
    /// news for those who wait.
    pub(super) fn dial_over(&mut self, key: PoolKey, conn: ConnKey, error: String, now: Instant) {
        let Some(pool) = self.pools.pools.get_mut(key) else { return };
        if pool.places.probing.contains(&conn) {
            pool.places.probing.retain(|dial| *dial != conn);
            return self.spread(key, now);
        }
        if pool.dialing != Some(conn) {
            return;
        }
        pool.dialing = None;
        pool.failed += 1;
        let remote = pool.target.is_some();
        // Nobody's round is over: whoever comes later has his own, from the question on.
        let waits = pool.parked.has_alive();
        let more = pool.places.has_ready(now) || pool.fresh && pool.places.has_untried();
        if remote && waits && pool.failed < DIALS_PER_ROUND && more {
            return self.pump(key, now);
        }
        pool.failed = 0;
        let stale = remote && !pool.fresh;
        if remote {
            pool.resolved = false;
        }
        if stale && waits {
            return self.pump(key, now);
        }
        pool.fresh = false;
        pool.places.forget_tries();
        if let Some(pool) = self.pools.pools.get(key) {
            for call in pool.parked.iter() {
                if let Some(call) = self.calls.get_mut(call) {
                    call.tally.refused(&mut self.cells);
                }
            }
        }
        let failure = Failure::unavailable(error).undelivered();
        self.fail_parked(key, &failure, Cause::Unreachable, now);
        self.pools.drop_if_idle(key);
    }

    /// An upstream connection is gone: its calls fail, its pool forgets it.
    pub(super) fn upstream_gone(
        &mut self,
        pool: PoolKey,
        conn: ConnKey,
        reason: CloseReason,
        now: Instant,
    ) {
        let what = reason.text();
        let Some(found) = self.pools.pools.get_mut(pool) else { return };
        let dialing = found.dialing == Some(conn) || found.places.probing.contains(&conn);
        let served = found.conns.contains(&conn);
        found.conns.retain(|key| *key != conn);
        if dialing || served {
            self.place_down(pool, self.endpoint_of(conn), now);
        }
        if dialing {
            let error =
                format!("connection error: desc = \"error reading server preface: {what}\"");
            let error = self.blame(conn, &error);
            self.dial_over(pool, conn, error, now);
        }
        // Those who wait may have waited for this one, or for room to make another.
        self.pump(pool, now);
        self.spread(pool, now);
    }

    /// A new snapshot may have moved the app.
    pub(super) fn app_moved(&mut self, now: Instant) {
        let app = self.pools.app();
        if let Some(there) = self.snapshot.app.clone() {
            self.retire_missing(app, |way| *way == there);
        }
        self.pump(app, now);
    }
}
