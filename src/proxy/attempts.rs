//! Calls under a Resiliency policy: retry( breaker( timeout( attempt ))).
//!
//! ```text
//!               breaker refuses, success, or a failure that is final
//!            ┌────────────────────────────────────────▶ ended
//! ──────▶ Trying ──────────────────────▶ Standing ────────▲
//!          │  ▲     a `dapr-stream`        │
//!   failed │  │     has its stream         │ proven that it
//!          ▼  │ wait over                  │ reached no app
//!         Waiting ◀────────────────────────┘
//! ```
//! 1. An attempt follows another one only while the caller has got nothing of a response and the
//!    request is still at hand whole (`replay`).
//! 2. While attempts are left, a response's head waits for its first message: until then a status
//!    may come instead. daprd's always does.
//! 3. A call that waits holds no stream, and no place in its pool's queue.
//! 4. Each permit of a breaker is given back, once, with what came of its attempt.
//! 5. A `dapr-stream` that stands is nobody's but the caller's and the app's; but one that reached
//!    no app, as its callee's sidecar proves (`undelivered`), may be tried again.
//! 6. Calls without a policy pay for nothing of this but a look at an empty table.
//!
//! Sources: `NewRunnerWithOptions` in Dapr's `pkg/resiliency/policy.go`, the handler in its
//! `pkg/api/grpc/proxy/handler.go`.

use super::call::{Call, Up};
use super::endpoint::Endpoint;
use super::failure::Failure;
use super::guard::{Cause, Guard, Stage};
use super::pending::Parked;
use super::replay::{KEPT_FOR_RETRY_MAX, Request};
use super::{CallKey, ConnKey, Level, PoolKey, Proxy, Reminder};
use crate::config::go;
use crate::grpc::{Code, MessageScanner};
use crate::http2::FieldSection;
use crate::observe::cells::Gauge;
use crate::observe::policies::Applied;
use crate::policy::breaker::{Change, Refusal};
use crate::policy::timeout;
use bytes::Bytes;
use slotmap::Key;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Logger of daprd's policies.
const SCOPE: &str = "dapr.runtime";

/// gRFC A6: when to come again, in milliseconds; anything else: not at all.
const PUSHBACK: &[u8] = b"grpc-retry-pushback-ms";

impl Proxy {
    /// A call whose target has a policy.
    pub(super) fn begin_guarded(
        &mut self,
        key: CallKey,
        endpoint: Rc<Endpoint>,
        fields: FieldSection,
        now: Instant,
    ) {
        let Some(call) = self.calls.get(key) else { return };
        let (pool, streaming) = (call.pool, call.tally.is_streaming());
        let cells = self.cells.policies();
        if endpoint.policy.timeout.is_some() {
            cells.applied(endpoint.told, Applied::Timeout);
        }
        if endpoint.policy.retry.is_some() {
            cells.applied(endpoint.told, Applied::Retry);
            self.budgets.pay_in(endpoint.told, now);
        }
        self.guards.insert(key, Guard::new(endpoint, streaming, now));
        self.attempt(key, pool, fields, Vec::new(), now);
    }

    /// Asks the breaker, sets the timeout, sends the request on its way.
    fn attempt(
        &mut self,
        key: CallKey,
        pool: PoolKey,
        fields: FieldSection,
        data: Vec<Bytes>,
        now: Instant,
    ) {
        let Some(guard) = self.guards.get_mut(key) else { return };
        let until = timeout::attempt_deadline(guard.endpoint.policy.timeout, now);
        let (granted, change) = guard.endpoint.begin(now);
        let (permit, refusal) = match granted {
            Ok(permit) => (permit, None),
            Err(refusal) => (None, Some(refusal)),
        };
        if guard.backoff.retries() == 0 {
            // As the other policies: once for each call.
            let met = permit.as_ref().map(|permit| permit.state);
            if let Some(state) = met.or(refusal.map(Refusal::state)) {
                self.cells.policies().breaker_applied(guard.endpoint.told, state as usize, now);
            }
        }
        guard.begun = now;
        guard.stage = Stage::Trying { permit, until };
        if change.is_some() {
            let endpoint = Rc::clone(&guard.endpoint);
            self.tell_change(&endpoint, change, now);
        }
        if let Some(refusal) = refusal {
            if let Some(caller) = self.calls.get(key).map(|call| call.down.conn) {
                self.recycle(caller, fields);
            }
            return self.fail(key, &Failure::new(Code::Unknown, refusal.text()), now);
        }
        if let Some(until) = until {
            self.remind(until, Reminder::Call(key));
        }
        self.dispatch(key, pool, fields, data, now);
    }

    /// A `dapr-stream` has its stream to the callee's sidecar: no policy concerns it any more.
    pub(super) fn handshake_done(&mut self, key: CallKey, now: Instant) {
        if self.guards.get(key).is_some_and(|guard| guard.streaming) {
            self.attempt_over(key, true, now);
            if let Some(guard) = self.guards.get_mut(key) {
                guard.stage = Stage::Standing;
            }
        }
    }

    /// Gives the permit back.
    fn attempt_over(&mut self, key: CallKey, success: bool, now: Instant) {
        let Some(guard) = self.guards.get_mut(key) else { return };
        let Some(permit) = guard.take_permit() else { return };
        let before = permit.state;
        let Some((after, change)) = guard.endpoint.end(permit, success, now) else { return };
        if before != after {
            self.cells.policies().breaker_changed(guard.endpoint.told, after as usize);
        }
        if change.is_some() {
            let endpoint = Rc::clone(&guard.endpoint);
            self.tell_change(&endpoint, change, now);
        }
    }

    #[cold]
    fn tell_change(&mut self, endpoint: &Endpoint, change: Option<Change>, now: Instant) {
        let Some(Change { from, to }) = change else { return };
        let message = format!(
            "Circuit breaker {:?} changed state from {} to {}",
            endpoint.method(),
            from.name(),
            to.name()
        );
        self.log(Level::Info, SCOPE, message, now);
    }

    /// A time has come that a policy set.
    pub(super) fn guard_due(&mut self, key: CallKey, now: Instant) {
        match self.guards.get(key).map(|guard| &guard.stage) {
            Some(Stage::Trying { until: Some(until), .. }) if *until <= now => {
                self.attempt_timed_out(key, now);
            }
            Some(Stage::Waiting { until, .. }) if *until <= now => self.come_again(key, now),
            Some(Stage::Trying { .. } | Stage::Waiting { .. } | Stage::Standing) | None => {}
        }
    }

    /// Is a status CANCELLED or DEADLINE_EXCEEDED, or a reset, the callee's answer to our time?
    pub(super) fn is_attempt_late(&self, key: CallKey, now: Instant) -> bool {
        let deadline = self.guards.get(key).and_then(Guard::deadline);
        deadline.is_some_and(|deadline| deadline <= now)
    }

    #[cold]
    pub(super) fn attempt_timed_out(&mut self, key: CallKey, now: Instant) {
        let Some(guard) = self.guards.get_mut(key) else { return };
        if !std::mem::replace(&mut guard.timeout_told, true) {
            let told = guard.endpoint.told;
            self.cells.policies().activated(told, Applied::Timeout);
        }
        self.fail_attempt(key, &Failure::deadline(), Cause::Timeout, now);
    }

    /// An attempt failed: there is another one, or the call ends so.
    #[cold]
    pub(super) fn fail_attempt(
        &mut self,
        key: CallKey,
        failure: &Failure,
        cause: Cause,
        now: Instant,
    ) {
        if !self.try_again(key, cause, None, now) {
            self.fail(key, failure, now);
        }
    }

    /// All that wait in a pool are told.
    pub(super) fn fail_parked(
        &mut self,
        key: PoolKey,
        failure: &Failure,
        cause: Cause,
        now: Instant,
    ) {
        let Some(pool) = self.pools.pools.get_mut(key) else { return };
        for call in std::mem::take(&mut pool.parked).iter() {
            self.fail_attempt(call, failure, cause, now);
        }
    }

    /// The same of a status that the callee told, maybe of a call that reached no app; the fields
    /// are still the caller's if there is no other attempt.
    #[cold]
    pub(super) fn status_again(
        &mut self,
        key: CallKey,
        code: u8,
        undelivered: bool,
        fields: &FieldSection,
        now: Instant,
    ) -> bool {
        if !self.guards.contains_key(key) {
            return false;
        }
        if let Some(call) = self.calls.get_mut(key) {
            call.response_ended = true;
        }
        let deadline = [Code::Canceled as u8, Code::DeadlineExceeded as u8].contains(&code);
        if deadline && self.is_attempt_late(key, now) {
            self.attempt_timed_out(key, now);
            return true;
        }
        let cause = if undelivered { Cause::Undelivered(code) } else { Cause::Status(code) };
        self.try_again(key, cause, fields.value(PUSHBACK), now)
    }

    fn try_again(
        &mut self,
        key: CallKey,
        cause: Cause,
        pushback: Option<&[u8]>,
        now: Instant,
    ) -> bool {
        let Some(wait) = self.wait_before(key, cause, pushback, now) else { return false };
        let endpoint = self.guards.get(key).map(|guard| Rc::clone(&guard.endpoint));
        let Some(endpoint) = endpoint.filter(|endpoint| self.may_retry(endpoint, now)) else {
            return false;
        };
        self.attempt_over(key, false, now);
        if !self.withdraw(key, cause, now) {
            return false;
        }
        let Some(call) = self.calls.get(key) else { return false };
        let target = self.pools.target(call.pool).cloned().map(Box::new);
        let Some(guard) = self.guards.get_mut(key) else { return false };
        let until = now + wait;
        guard.stage = Stage::Waiting { until, target };
        let told = std::mem::replace(&mut guard.retry_told, true);
        self.remind(until, Reminder::Call(key));
        if !told {
            self.cells.policies().activated(endpoint.told, Applied::Retry);
            let wait = go::format_duration(wait);
            let name = endpoint.name();
            let message = format!("Error processing operation {name}. Retrying in {wait}…");
            self.log(Level::Warn, SCOPE, message, now);
        }
        true
    }

    /// How long until the next attempt; `None`: there is none.
    fn wait_before(
        &mut self,
        key: CallKey,
        cause: Cause,
        pushback: Option<&[u8]>,
        now: Instant,
    ) -> Option<Duration> {
        let random = self.random(key, now);
        let guard = self.guards.get_mut(key)?;
        let retry = guard.endpoint.policy.retry?;
        match (&guard.stage, cause) {
            (Stage::Trying { .. }, _) => {}
            // A stream that stands is nobody's but the caller's and the app's, if it has an app;
            // the last two are of one that was left out and found nobody else.
            (Stage::Standing, Cause::Undelivered(_) | Cause::Unreachable | Cause::Unresolved) => {}
            (Stage::Standing | Stage::Waiting { .. }, _) => return None,
        }
        let call = self.calls.get(key)?;
        let whole = call.kept.is_some() || matches!(call.up, Up::Parked(_));
        match cause {
            Cause::Unresolved if guard.backoff.retries() == 0 && call.replays == 0 => {
                let permit = guard.take_permit();
                permit.into_iter().for_each(|permit| guard.endpoint.withdraw(permit));
                return None;
            }
            Cause::Status(code) | Cause::Undelivered(code) if !retry.matches(code) => return None,
            Cause::Status(_) | Cause::Undelivered(_) => {}
            Cause::Unresolved | Cause::Unreachable | Cause::Timeout => {}
        }
        if call.head_sent || !whole || call.is_late(now) {
            return None;
        }
        let wait = retry.next(&mut guard.backoff, random, now)?;
        match pushback {
            None => Some(wait),
            Some(text) => {
                let ms = std::str::from_utf8(text).ok()?.trim().parse::<u32>().ok()?;
                Some(Duration::from_millis(ms.into()))
            }
        }
    }

    /// Between 0 and 1, for backoff: no two calls of one moment wait alike.
    fn random(&self, key: CallKey, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.begun).as_nanos() as u64;
        let seed = since ^ key.data().as_ffi().rotate_left(17);
        // SplitMix64's finish.
        let mixed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Takes the call off its stream or its queue, its request kept; false if it is not.
    fn withdraw(&mut self, key: CallKey, cause: Cause, now: Instant) -> bool {
        let latency = self.guards.get(key).map(|guard| now.saturating_duration_since(guard.begun));
        let Some(call) = self.calls.get_mut(key) else { return false };
        let status = match cause {
            Cause::Status(code) | Cause::Undelivered(code) => code,
            Cause::Unreachable => Code::Unavailable as u8,
            Cause::Unresolved => Code::Unknown as u8,
            Cause::Timeout => Code::DeadlineExceeded as u8,
        };
        call.tally.attempt_ended(&mut self.cells, status, latency.unwrap_or_default());
        let done = call.response_ended && call.request_ended;
        (call.response_ended, call.response_scanner) = (false, MessageScanner::default());
        call.replays = 0;
        let pool = call.pool;
        match std::mem::replace(&mut call.up, Up::None) {
            Up::Parked(parked) => self.keep_parked(key, pool, *parked),
            Up::Open(up) => {
                self.part(up, done, status, now);
                self.pump(pool, now);
            }
            Up::Local(_) | Up::None => {}
        }
        self.drop_held(key);
        let kept = self.calls.get_mut(key).and_then(|call| call.kept.as_mut());
        // Meanwhile more may come of it, as far as its window lets it.
        kept.map(|kept| kept.allow(KEPT_FOR_RETRY_MAX)).is_some()
    }

    /// What waited for a stream waits for its next attempt.
    fn keep_parked(&mut self, key: CallKey, pool: PoolKey, parked: Parked) {
        let Some(caller) = self.calls.get(key).map(|call| call.down.conn) else { return };
        self.unpark(caller, parked.octets);
        self.pools.leave(pool, caller, key);
        self.keep_unsent(key, parked.fields, parked.pending.into_pieces());
    }

    /// Keeps a request of which nothing was sent, and which nothing else holds any more.
    pub(super) fn keep_unsent(&mut self, key: CallKey, fields: FieldSection, data: Vec<Bytes>) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let stamped_from = fields.len();
        let ends = call.request_ended && data.is_empty();
        match self.keeper.keep(fields, stamped_from, ends) {
            Ok(mut kept) => {
                kept.allow(KEPT_FOR_RETRY_MAX);
                call.kept = Some(kept);
            }
            Err(_) => self.cells.limit_hit("replay"),
        }
        for data in data {
            drop(self.keeper.data(&mut call.kept, &data));
        }
    }

    /// A parked call's head is parked no longer.
    pub(super) fn unpark(&mut self, caller: ConnKey, octets: usize) {
        self.parked_octets -= octets;
        if let Some(peer) = self.peers.get_mut(caller) {
            peer.parked_octets -= octets;
        }
        self.cells.fall(Gauge::WaitingCalls);
    }

    /// The wait is over.
    fn come_again(&mut self, key: CallKey, now: Instant) {
        let Some(Guard { stage: Stage::Waiting { target, .. }, .. }) = self.guards.get_mut(key)
        else {
            return;
        };
        let target = target.take();
        let Some(call) = self.calls.get_mut(key) else { return };
        let Some(kept) = call.kept.take() else {
            // More of it came meanwhile than is kept.
            let message = "ringside: the request is too large to be sent again";
            return self.fail(key, &Failure::new(Code::ResourceExhausted, message), now);
        };
        let Request { fields, data, octets } = self.keeper.take(kept, call.request_ended);
        let down = self.peers.get(call.down.conn);
        let held = down.map_or(0, |peer| peer.h2.held(call.down.stream)) as usize;
        call.credited = octets.saturating_sub(held) as u32;
        // Its pool may have been dropped while nobody was in it.
        let pool = match target {
            Some(target) if !self.pools.exists(call.pool) => match self.pools.of(*target) {
                Ok(pool) => pool,
                Err(failure) => return self.fail(key, &failure, now),
            },
            Some(_) | None => call.pool,
        };
        call.pool = pool;
        self.attempt(key, pool, fields, data, now);
    }

    /// A second message while attempts may follow (the handler's `errRetryOnStreamingRPC`).
    #[cold]
    pub(super) fn refuse_messages(&mut self, key: CallKey, now: Instant) {
        let message = "cannot use resiliency policies with retries on streaming RPCs";
        self.fail(key, &Failure::new(Code::FailedPrecondition, message), now);
    }

    /// The first octet of a response is here, or its end: from now on there is one attempt.
    pub(super) fn release_head(&mut self, key: CallKey, now: Instant) {
        let Some(held) = self.guards.get_mut(key).and_then(|guard| guard.held.take()) else {
            return;
        };
        if let Some(kept) = self.calls.get_mut(key).and_then(|call| call.kept.take()) {
            // The upstream connection has had another one for the head.
            let fields = self.keeper.forget(kept);
            self.keeper.give_section(fields);
        }
        self.send_head(key, held, false, now);
    }

    fn drop_held(&mut self, key: CallKey) {
        if let Some(fields) = self.guards.get_mut(key).and_then(|guard| guard.held.take()) {
            self.keeper.give_section(fields);
        }
    }

    /// Has its upstream begun to answer, though the caller has got nothing of it?
    pub(super) fn holds_head(&self, key: CallKey) -> bool {
        self.guards.get(key).is_some_and(|guard| guard.held.is_some())
    }

    /// The call is over.
    pub(super) fn unguard(
        &mut self,
        key: CallKey,
        call: &mut Call,
        status: u8,
        latency: Duration,
        now: Instant,
    ) {
        let Some(guard) = self.guards.get(key) else { return };
        let latency = match guard.backoff.retries() {
            0 => latency,
            _ => now.saturating_duration_since(guard.begun),
        };
        call.tally.attempt_ended(&mut self.cells, status, latency);
        let success = status == Code::Ok as u8;
        self.attempt_over(key, success, now);
        let Some(guard) = self.guards.remove(key) else { return };
        if success && guard.retry_told {
            let name = guard.endpoint.name();
            let attempts = guard.backoff.retries() + 1;
            let message =
                format!("Recovered processing operation {name} after {attempts} attempts");
            self.log(Level::Info, SCOPE, message, now);
        }
        if let Some(fields) = guard.held {
            self.keeper.give_section(fields);
        }
    }

    /// For the simulator.
    pub(super) fn check_guards(&self) {
        for (key, guard) in &self.guards {
            let call = &self.calls[key];
            assert!(guard.held.is_none() || (!call.head_sent && call.kept.is_some()));
            if let Stage::Waiting { .. } = guard.stage {
                assert!(matches!(call.up, Up::None) && guard.held.is_none() && !call.head_sent);
            }
            if let (Up::None, Stage::Standing) = (&call.up, &guard.stage) {
                panic!("a stream that stands has one");
            }
        }
    }
}
