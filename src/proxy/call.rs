//! One RPC: two streams paired, fields rewritten, DATA passed on by reference.
//!
//! ```text
//!            begin_call                       pool has a stream
//! request ──────────────▶ Parked ───────────────────────────────▶ Open ──▶ None
//!                           │  reject, deadline, dial failed        │
//!                           └──────────────▶ freed ◀────────────────┘ response ended, reset, …
//! ```
//! 1. A call lives until its downstream stream has its end queued or is gone; then both slots are
//!    freed at once, whatever the engine still has to flush.
//! 2. DATA whose call is gone has its window returned where it came in.
//! 3. Nothing is sent downstream after the end; nothing twice.
//! 4. A call that ends in this sidecar (`local`) has no upstream leg, and else lives the same life.

use super::access::Door;
use super::balance::Health;
use super::contract::Listener;
use super::failure::Failure;
use super::head;
use super::local::{Aside, Local};
use super::peer::Side;
use super::pending::Parked;
use super::replay::Kept;
use super::rewrite::{self, ContentType};
use super::route;
use super::tally::Tally;
use super::{CallKey, ConnKey, Leg, PoolKey, Proxy, Reminder};
use crate::grpc::{Code, MessageScanner, timeout};
use crate::http2::{ErrorCode, FieldSection, OpenError, StreamId};
use crate::observe::cells::Gauge;
use bytes::Bytes;
use slotmap::Key;
use std::time::{Duration, Instant};

/// Octets of responses that wait for a caller before its connection gets no new calls: whole
/// responses have left their upstream, whose windows no longer bound them.
const UNREAD_MAX: usize = 32 << 20;
/// The same of another sidecar's connection, which many callers share: those who read must not pay
/// for those who do not, whom `stalled` sees to.
const UNREAD_SHARED_MAX: usize = 256 << 20;

/// The upstream leg.
#[derive(Debug)]
pub enum Up {
    /// Waits in its pool for a connection.
    Parked(Box<Parked>),
    Open(Leg),
    /// It is answered here.
    Local(Box<Local>),
    /// There is none: not yet, or not any more.
    None,
}

#[derive(Debug)]
pub struct Call {
    pub down: Leg,
    pub up: Up,
    pub(super) pool: PoolKey,
    pub(super) request_ended: bool,
    pub(super) response_ended: bool,
    pub(super) head_sent: bool,
    /// The request, as long as it may be made again.
    pub(super) kept: Option<Kept>,
    /// How often it was made again.
    pub(super) replays: u8,
    /// Request octets that are sent again, and whose window the caller has back already.
    pub(super) credited: u32,
    deadline: Option<Instant>,
    pub(super) content_type: ContentType,
    pub(super) request_scanner: MessageScanner,
    pub(super) response_scanner: MessageScanner,
    pub(super) begun: Instant,
    pub(super) tally: Tally,
}

impl Call {
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|at| at <= now)
    }
}

/// What a request's head decided, with nothing borrowed.
pub(super) struct Plan {
    pub(super) pool: PoolKey,
    pub(super) deadline: Option<Instant>,
    pub(super) content_type: ContentType,
    pub(super) request_scanner: MessageScanner,
    pub(super) tally: Tally,
}

impl Proxy {
    /// A request head arrived.
    pub(super) fn begin_call(
        &mut self,
        conn: ConnKey,
        stream: StreamId,
        mut fields: FieldSection,
        end_stream: bool,
        now: Instant,
    ) {
        let Some(peer) = self.peers.get(conn) else { return };
        let Side::Downstream { listener, caller, .. } = &peer.side else { return };
        let (listener, door) = (*listener, caller.door());
        let plan = match self.plan(&mut fields, door, conn, now) {
            Ok(plan) => plan,
            Err(Aside::Local(method)) => {
                return self.begin_local((conn, stream), method, fields, end_stream, now);
            }
            Err(Aside::Failed(failure)) => {
                self.tally_rejected(&fields, listener, &failure);
                self.reject(conn, stream, fields, end_stream, &failure);
                return;
            }
        };
        let pool = plan.pool;
        if let Some(key) = self.enter(conn, stream, end_stream, plan, Up::None, now) {
            self.dispatch(key, pool, fields, now);
        }
    }

    /// A request becomes a call.
    #[inline]
    pub(super) fn enter(
        &mut self,
        conn: ConnKey,
        stream: StreamId,
        end_stream: bool,
        plan: Plan,
        up: Up,
        now: Instant,
    ) -> Option<CallKey> {
        let peer = self.peers.get_mut(conn)?;
        let key = self.calls.insert(Call {
            down: Leg { conn, stream, slot: peer.calls.len() as u32, sent: 0 },
            up,
            pool: plan.pool,
            request_ended: end_stream,
            response_ended: false,
            head_sent: false,
            kept: None,
            replays: 0,
            credited: 0,
            deadline: plan.deadline,
            content_type: plan.content_type,
            request_scanner: plan.request_scanner,
            response_scanner: MessageScanner::default(),
            begun: now,
            tally: plan.tally,
        });
        peer.calls.push(key);
        self.cells.rise(Gauge::Streams);
        peer.h2.set_tag(stream, key.data().as_ffi());
        if let Some(at) = plan.deadline {
            self.remind(at, Reminder::Call(key));
        }
        Some(key)
    }

    /// Judges the head, finds the pool, strips the fields.
    fn plan(
        &mut self,
        fields: &mut FieldSection,
        door: Door,
        conn: ConnKey,
        now: Instant,
    ) -> Result<Plan, Aside> {
        let listener = door.listener;
        let unread_max = match listener {
            Listener::Api | Listener::Forward(_) => UNREAD_MAX,
            Listener::Internal => UNREAD_SHARED_MAX,
        };
        if self.peers.get(conn).is_some_and(|peer| peer.h2.queued_in_all() > unread_max) {
            self.limit_reached("unread_responses", "responses are not read", conn, now);
            let message = "ringside: too many responses on this connection are not read yet; \
                           read them, then call again";
            return Err(Failure::new(Code::ResourceExhausted, message).into());
        }
        if self.calls.len() >= self.bounds.calls {
            self.limit_reached("calls", "too many calls in flight", conn, now);
            let message = "ringside: too many calls in flight in this worker; try again";
            return Err(Failure::new(Code::ResourceExhausted, message).into());
        }
        let head = head::read_request(fields);
        let route = match self.memo.find(door, &head) {
            Some(route) if self.pools.exists(route.pool) => {
                route::admit(&head, listener, &self.snapshot.config)?;
                route
            }
            Some(_) | None => self.explore(&head, door, conn, now)?,
        };
        let deadline = match head.timeout {
            None => None,
            Some(value) => Some(now + parse_timeout(value)?),
        };
        let content_type = ContentType::new(head.content_type);
        let request_scanner = route::scanner(&head, listener);
        let tally = Tally::new(listener, route.method, head.stream);
        match self.pools.callee(route.pool) {
            Some(callee) => {
                let drop_token = self.snapshot.config.api_token.is_some();
                let forced = matches!(listener, Listener::Forward(_));
                rewrite::strip_outbound(fields, &self.fixed, callee, drop_token, forced);
            }
            None => {
                if let Some(ruling) = route.ruling {
                    self.cells.callers.ruled(door.caller, ruling);
                }
                rewrite::strip_inbound(fields, &self.fixed);
            }
        }
        Ok(Plan { pool: route.pool, deadline, content_type, request_scanner, tally })
    }

    /// Answers a stream that never became a call.
    fn reject(
        &mut self,
        conn: ConnKey,
        stream: StreamId,
        mut fields: FieldSection,
        end_stream: bool,
        failure: &Failure,
    ) {
        let content_type = ContentType::new(head::read_request(&fields).content_type);
        fields.clear();
        let Some(peer) = self.peers.get_mut(conn) else { return };
        if failure.http_status == 200 {
            failure.write_head(&mut fields, content_type.field(&self.fixed).value());
            peer.h2.send_headers(stream, fields, true);
        } else {
            // Not a gRPC client: somebody may look at this with curl, so the text is the body too.
            failure.write_head(&mut fields, b"text/plain; charset=utf-8");
            peer.h2.send_headers(stream, fields, false);
            let body = Bytes::from(format!("{}\n", failure.message));
            peer.h2.send_data(stream, body, true);
        }
        if !end_stream {
            peer.h2.send_reset(stream, ErrorCode::NO_ERROR);
        }
        self.touch(conn);
    }

    /// Opens the upstream stream, or parks the call until its pool can.
    fn dispatch(&mut self, key: CallKey, pool: PoolKey, fields: FieldSection, now: Instant) {
        // First come, first served: those who wait already go first.
        match self.pick(pool, now) {
            Some(conn) if !self.pools.has_parked(pool) => {
                self.open(key, conn, fields, Vec::new(), now);
            }
            Some(_) | None => self.park(pool, key, fields, Vec::new(), now),
        }
    }

    /// Sends HEADERS, and the DATA that is here already.
    pub(super) fn open(
        &mut self,
        key: CallKey,
        conn: ConnKey,
        mut fields: FieldSection,
        pending: Vec<Bytes>,
        now: Instant,
    ) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let Some(peer) = self.peers.get_mut(conn) else { return };
        let Side::Upstream { authority, far_app, .. } = &peer.side else { return };
        let wakes = *far_app && peer.calls.is_empty();
        let remaining = call.deadline.map(|at| at.saturating_duration_since(now));
        if remaining.is_some_and(|left| left.is_zero()) {
            self.fail(key, &Failure::deadline(), now);
            return;
        }
        let stamped_from = rewrite::stamp(&mut fields, &self.fixed, authority, remaining);
        let ends = call.request_ended && pending.is_empty();
        let tag = key.data().as_ffi();
        let opened = match self.keeper.keep(fields, stamped_from) {
            Ok(kept) => peer.h2.open_lent(call.kept.insert(kept).fields(), ends, tag),
            Err(fields) => {
                self.cells.limit_hit("replay");
                peer.h2.open(fields, ends, tag)
            }
        };
        let stream = match opened {
            Ok(stream) => stream,
            Err(OpenError::Full | OpenError::Retired) => {
                // `pick` asked this connection a moment ago, so this is a bug in one of the two.
                debug_assert!(false, "a picked connection takes a stream");
                let message = "ringside: the picked upstream connection took no stream; try again";
                self.fail(key, &Failure::unavailable(message), now);
                return;
            }
        };
        peer.newest = stream;
        let last = pending.len();
        for (index, data) in pending.into_iter().enumerate() {
            if let Some(fields) = self.keeper.data(&mut call.kept, &data) {
                peer.h2.give_head(stream, fields);
            }
            peer.h2.send_data(stream, data, call.request_ended && index + 1 == last);
        }
        call.up = Up::Open(Leg { conn, stream, slot: peer.calls.len() as u32, sent: 0 });
        self.app_calls.opened(call.pool == self.pools.app());
        call.tally.sent(&mut self.cells);
        peer.calls.push(key);
        self.cells.rise(Gauge::Streams);
        peer.touch(conn, &mut self.outputs);
        if wakes {
            // From now on its silence counts.
            self.remind_peer(conn);
        }
    }

    pub(super) fn deadline_reached(&mut self, key: CallKey, now: Instant) {
        if self.calls.get(key).is_some_and(|call| call.is_late(now)) {
            self.fail(key, &Failure::deadline(), now);
        }
    }

    /// Ends a call with a status of our making.
    #[cold]
    pub(super) fn fail(&mut self, key: CallKey, failure: &Failure, now: Instant) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let Leg { conn, stream, .. } = call.down;
        if let Some(peer) = self.peers.get_mut(conn) {
            let mut fields = match &mut call.up {
                Up::Parked(parked) => std::mem::take(&mut parked.fields),
                Up::Open(_) | Up::Local(_) | Up::None => peer.h2.spare(),
            };
            fields.clear();
            if call.head_sent {
                failure.write_trailers(&mut fields);
            } else {
                failure.write_head(&mut fields, call.content_type.field(&self.fixed).value());
            }
            peer.h2.send_headers(stream, fields, true);
        }
        self.complete(key, failure.code as u8, now);
        self.touch(conn);
    }

    /// The downstream end is queued: the call is over.
    pub(super) fn complete(&mut self, key: CallKey, status: u8, now: Instant) {
        let Some(call) = self.calls.remove(key) else { return };
        if !call.request_ended {
            // RFC 9113 §8.1: the response is whole, the rest of the request is not needed.
            let Leg { conn, stream, .. } = call.down;
            if let Some(peer) = self.peers.get_mut(conn) {
                peer.h2.send_reset(stream, ErrorCode::NO_ERROR);
                peer.touch(conn, &mut self.outputs);
            }
        }
        self.free(call, status, now);
    }

    /// The caller is gone: so is the call, upstream too.
    pub(super) fn cancel(&mut self, key: CallKey, now: Instant) {
        if let Some(call) = self.calls.remove(key) {
            // Callers' own timers ring with ours.
            let code = if call.is_late(now) { Code::DeadlineExceeded } else { Code::Canceled };
            self.free(call, code as u8, now);
        }
    }

    pub(super) fn free(&mut self, mut call: Call, status: u8, now: Instant) {
        if let Some(kept) = call.kept.take() {
            self.keeper.forget(kept);
        }
        self.leave(call.down, now);
        let latency = now.saturating_duration_since(call.begun);
        call.tally.ended(&mut self.cells, status, latency);
        let passed_on = match &call.up {
            Up::Parked(parked) => {
                self.parked_octets -= parked.octets;
                if let Some(peer) = self.peers.get_mut(call.down.conn) {
                    peer.parked_octets -= parked.octets;
                }
                self.cells.fall(Gauge::WaitingCalls);
                // It held no place that another could take.
                self.pools.one_died(call.pool, call.down.conn);
                false
            }
            Up::Open(up) => {
                self.app_calls.ended(call.pool == self.pools.app());
                let done = call.response_ended && call.request_ended;
                let passed_on = self.part(*up, done, status, now);
                self.pump(call.pool, now);
                passed_on
            }
            Up::Local(local) => {
                self.forget_local(local);
                true
            }
            Up::None => {
                self.pump(call.pool, now);
                false
            }
        };
        if !passed_on {
            self.return_held(call.down);
        }
        self.check_drained(now);
    }

    /// What of a request will not be passed on any more: its caller may take long to read the
    /// answer, and others need the connection.
    #[cold]
    fn return_held(&mut self, down: Leg) {
        let Leg { conn, stream, .. } = down;
        if let Some(peer) = self.peers.get_mut(conn) {
            peer.h2.release(stream, peer.h2.held(stream));
            peer.touch(conn, &mut self.outputs);
        }
    }

    /// The upstream stream loses its call; reset if it is not `done`. True if all of the request
    /// had left.
    fn part(&mut self, up: Leg, done: bool, status: u8, now: Instant) -> bool {
        self.leave(up, now);
        let Leg { conn, stream, .. } = up;
        let Some(peer) = self.peers.get_mut(conn) else { return false };
        let regular = done && peer.h2.queued(stream) == 0;
        if regular {
            peer.earn_reset();
        } else {
            if !peer.reset_paced(stream, now) {
                self.cells.limit_hit("paced_resets");
            }
            peer.touch(conn, &mut self.outputs);
        }
        let tells = status == Code::Unavailable as u8 || !matches!(peer.health, Health::Well);
        if peer.wants_reminder() {
            self.remind_peer(conn);
        }
        if tells {
            self.judge(up, status, now);
        }
        self.close_if_done(conn);
        regular
    }

    /// Takes a call off its upstream connection, whose stream is gone already.
    pub(super) fn detach(&mut self, from: ConnKey, key: CallKey) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let Up::Open(up) = call.up else { return };
        if up.conn == from {
            call.up = Up::None;
            self.app_calls.ended(call.pool == self.pools.app());
            let heard = self.peers.get(from).map_or(call.begun, |peer| peer.heard);
            self.leave(up, heard);
        }
    }

    /// Empties a slot in a connection's list and moves the last call into it.
    fn leave(&mut self, leg: Leg, now: Instant) {
        let Leg { conn, slot, .. } = leg;
        let Some(peer) = self.peers.get_mut(conn) else { return };
        peer.calls.swap_remove(slot as usize);
        self.cells.fall(Gauge::Streams);
        if peer.calls.is_empty() {
            peer.idle_since = now;
        }
        let Some(moved) = peer.calls.get(slot as usize) else { return };
        let Some(call) = self.calls.get_mut(*moved) else { return };
        if call.down.conn == conn {
            call.down.slot = slot;
        } else if let Up::Open(up) = &mut call.up {
            up.slot = slot;
        }
    }
}

/// daprd refuses a malformed `grpc-timeout` before anything else (grpc-go's `decodeTimeout`).
pub(super) fn parse_timeout(value: &[u8]) -> Result<Duration, Failure> {
    timeout::parse(value).ok_or_else(|| {
        let value = String::from_utf8_lossy(value);
        let message = format!("malformed grpc-timeout: transport: timeout is malformed: {value:?}");
        Failure::new(Code::Internal, message)
    })
}
