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
use super::endpoint::Endpoint;
use super::failure::Failure;
use super::head;
use super::local::{Aside, Local};
use super::memo::Route;
use super::peer::Side;
use super::pending::Parked;
use super::repeated::may_repeat;
use super::replay::Kept;
use super::rewrite::{self, ContentType};
use super::route;
use super::tally::Tally;
use super::tracer::{Begun, Callee, Caller, Said};
use super::witness::Witness;
use super::{CallKey, ConnKey, Leg, PoolKey, Proxy, Reminder};
use crate::grpc::{self, Code, MessageScanner};
use crate::http2::field::PreparedField;
use crate::http2::{ErrorCode, FieldSection, Repeat, StreamId};
use crate::observe::cells::Gauge;
use crate::observe::span::Span;
use bytes::Bytes;
use slotmap::Key;
use std::rc::Rc;
use std::time::{Duration, Instant};

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

impl Up {
    pub(super) fn leg(&self) -> Option<Leg> {
        match self {
            Self::Open(leg) => Some(*leg),
            Self::Parked(_) | Self::Local(_) | Self::None => None,
        }
    }
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
    pub(super) deadline: Option<Instant>,
    pub(super) content_type: ContentType,
    pub(super) request_scanner: MessageScanner,
    pub(super) response_scanner: MessageScanner,
    pub(super) begun: Instant,
    pub(super) tally: Tally,
    /// What somebody will be told of it.
    pub(super) witness: Option<Box<Witness>>,
    /// What is recorded of it, if it is.
    pub(super) span: Option<Box<Span>>,
    /// Of its trace, what nobody has been told: see [`super::unsaid`].
    pub(super) unsaid: Option<u64>,
    /// What its caller finds in the head.
    pub(super) baggage: Option<Box<PreparedField>>,
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
    /// The policy for it.
    pub(super) endpoint: Option<Rc<Endpoint>>,
    pub(super) witness: Option<Box<Witness>>,
    pub(super) span: Option<Box<Span>>,
    /// Of its trace, what nobody has been told: see [`super::unsaid`].
    pub(super) unsaid: Option<u64>,
    pub(super) baggage: Option<Box<PreparedField>>,
}

impl Proxy {
    /// A request head arrived.
    pub(super) fn begin_call(
        &mut self,
        (conn, stream): (ConnKey, StreamId),
        mut fields: FieldSection,
        end_stream: bool,
        repeat: Option<Repeat>,
        now: Instant,
    ) {
        let Some(peer) = self.peers.get(conn) else { return };
        let Side::Downstream { listener, caller, .. } = &peer.side else { return };
        let (listener, door, from) = (*listener, caller.door(), peer.may_say());
        let mut plan = match self.plan(&mut fields, (door, from), conn, repeat, now) {
            Ok(plan) => plan,
            Err(Aside::Local(method)) => {
                return self.begin_local((conn, stream), method, fields, end_stream, now);
            }
            Err(Aside::Failed(failure)) => {
                self.tally_rejected(&fields, listener, &failure);
                if self.witnesses.listen(listener) {
                    self.witness_rejected(conn, &fields, listener, &failure, now);
                }
                self.trace_rejected(&fields, (listener, from), &failure, now);
                self.reject(conn, stream, fields, end_stream, &failure);
                return;
            }
        };
        let (pool, endpoint) = (plan.pool, plan.endpoint.take());
        let Some(key) = self.enter(conn, stream, end_stream, plan, Up::None, now) else { return };
        match endpoint {
            None => self.dispatch(key, pool, fields, Vec::new(), now),
            Some(endpoint) => self.begin_guarded(key, endpoint, fields, now),
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
            witness: plan.witness,
            span: plan.span,
            unsaid: plan.unsaid,
            baggage: plan.baggage,
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
        (door, from): (Door, Caller),
        conn: ConnKey,
        repeat: Option<Repeat>,
        now: Instant,
    ) -> Result<Plan, Aside> {
        let listener = door.listener;
        self.make_room(listener, conn, now)?;
        if let Some(repeat) = repeat
            && let Some(plan) = self.plan_again(repeat, fields, (door, from), conn, now)
        {
            return Ok(plan);
        }
        let head = head::read_request(fields);
        let baggage = match head.baggage {
            true => self.baggage(&head, fields, listener)?,
            false => None,
        };
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
        let to = match self.pools.callee(route.pool) {
            Some(_) => Callee::Sidecar,
            None => Callee::App,
        };
        let begun = self.tracer.begin(&head, fields, from, to);
        let witness = match self.witnesses.listen(listener) {
            true => self.witness(conn, fields, Some(route.pool), now),
            false => None,
        };
        let span = self.tracer.record(begun.as_ref(), fields, to.span_kind(), now);
        let unsaid = begun.as_ref().and_then(Begun::unsaid);
        let may_repeat = repeat.is_some() && may_repeat(&head);
        self.strip(fields, door, &route, begun.as_ref().and_then(Begun::said));
        if let Some(repeat) = repeat.filter(|_| may_repeat) {
            let found = (&content_type, request_scanner, tally);
            self.keep_plan((conn, repeat), &route, found, begun.as_ref(), fields);
        }
        let Route { pool, endpoint, .. } = route;
        Ok(Plan {
            pool,
            deadline,
            content_type,
            request_scanner,
            tally,
            endpoint,
            witness,
            span,
            unsaid,
            baggage,
        })
    }

    /// The fields become those for its callee.
    #[inline]
    fn strip(&mut self, fields: &mut FieldSection, door: Door, route: &Route, said: Option<&Said>) {
        if let Some(callee) = self.pools.callee(route.pool) {
            let drop_token = self.snapshot.config.api_token.is_some();
            let forced = matches!(door.listener, Listener::Forward(_));
            rewrite::strip_outbound(fields, &self.fixed, callee, drop_token, forced, said);
            return;
        }
        self.count_caller(door, route.ruling);
        rewrite::strip_inbound(fields, &self.fixed, said);
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
            peer.prove(failure, &mut fields);
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

    /// Ends a call with a status of our making.
    #[cold]
    pub(super) fn fail(&mut self, key: CallKey, failure: &Failure, now: Instant) {
        if self.calls.get(key).is_some_and(|call| call.baggage.is_some()) {
            self.send_baggage(key);
        }
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
                peer.prove(failure, &mut fields);
            }
            peer.h2.send_headers(stream, fields, true);
        }
        if let Some(span) = &mut call.span
            && failure.code != Code::Ok
        {
            span.fail(&failure.message);
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
        self.free(key, call, status, now);
    }

    /// The caller is gone: so is the call, upstream too.
    pub(super) fn cancel(&mut self, key: CallKey, now: Instant) {
        if let Some(call) = self.calls.remove(key) {
            // Callers' own timers ring with ours.
            let code = if call.is_late(now) { Code::DeadlineExceeded } else { Code::Canceled };
            self.free(key, call, code as u8, now);
        }
    }

    pub(super) fn free(&mut self, key: CallKey, mut call: Call, status: u8, now: Instant) {
        let latency = now.saturating_duration_since(call.begun);
        self.unguard(key, &mut call, status, latency, now);
        if let Some(kept) = call.kept.take() {
            self.keeper.forget(kept);
        }
        if status != Code::Ok as u8 && call.tally.is_inbound() {
            self.caller_failed(call.down.conn);
        }
        self.leave(call.down, now);
        call.tally.ended(&mut self.cells, status, latency);
        if let Some(witness) = call.witness.take() {
            self.testify(witness, status, latency);
        }
        if let Some(span) = call.span.take() {
            self.end_span(*span, status, now);
        }
        let passed_on = match &call.up {
            Up::Parked(parked) => {
                self.unpark(call.down.conn, parked.octets);
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

    #[cold]
    fn caller_failed(&mut self, conn: ConnKey) {
        if let Some(Side::Downstream { caller, .. }) = self.peers.get(conn).map(|peer| &peer.side) {
            self.cells.callers.failed(caller.door().caller);
        }
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
    pub(super) fn part(&mut self, up: Leg, done: bool, status: u8, now: Instant) -> bool {
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
    grpc::timeout::parse(value).ok_or_else(|| {
        let value = String::from_utf8_lossy(value);
        let message = format!("malformed grpc-timeout: transport: timeout is malformed: {value:?}");
        Failure::new(Code::Internal, message)
    })
}
