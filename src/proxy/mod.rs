//! One worker's whole brain: connections, calls, routing, policy; no I/O.
//!
//! # Contract of [`Proxy`]
//! `io` gives bytes and facts by [`Proxy::accept`] and [`Proxy::handle`], then takes
//! [`Proxy::poll_output`] until `None`. For each [`Output::Dirty`] connection it calls
//! [`Proxy::transmit`] when the socket can take more, writes what it got, and comes again as
//! long as the answer says that more is waiting. [`Proxy::poll_timeout`] says when to send
//! [`Input::Tick`].
//!
//! 1. Nothing here fails: a bad peer is an `Output`.
//! 2. A connection is named by a [`ConnId`] from `accept` or [`Output::Dial`] until
//!    [`Output::Close`]; later facts about it are ignored.
//! 3. Backpressure is a chain: a leg's window is released when the other leg's bytes were
//!    handed to the socket.
//!
//! Refuses to know sockets, TLS, clocks, files.

mod access;
mod app_calls;
mod attempts;
mod baggage;
mod balance;
mod bounds;
mod budgets;
mod call;
mod contract;
mod dispatch;
mod endpoint;
mod failure;
mod farewell;
mod guard;
mod head;
mod in_force;
mod kinship;
mod local;
mod lookup;
mod memo;
mod peer;
mod peers;
mod pending;
mod pool;
mod relay;
mod repeated;
mod replay;
mod report;
mod resets;
mod rewrite;
mod route;
mod stalled;
mod tally;
mod timers;
mod told;
mod tracer;
mod undelivered;
mod unsaid;
mod waiting;
mod witness;

#[cfg(test)]
pub(crate) mod tests;

pub use contract::{
    Arrival, CloseReason, ConnId, ControlRequest, Input, Level, Listener, LogLine, Output,
    Question, Security,
};

pub use crate::http2::{Segment, Transmit};
pub use crate::resolve::{Endpoint, Resolution};

use crate::config::Config;
use crate::http2::Connection;
use crate::http2::{Event, Limits, Role, SectionKind, StreamId, Tag};
use crate::observe::cells::{Cells, Gauge};
use crate::snapshot::Snapshot;
use access::{Caller, Denials};
use app_calls::AppCalls;
use bounds::Bounds;
use budgets::Budgets;
use bytes::Bytes;
use call::{Call, Up};
use guard::{Guard, Guards};
use local::Locals;
use memo::Memo;
use peer::{Peer, Side, Stage};
use peers::Peers;
use pool::Pools;
use replay::Keeper;
use rewrite::Fixed;
use slotmap::{Key, KeyData, SlotMap, new_key_type};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use timers::Timers;
use told::Told;
use tracer::Tracer;
use witness::Witnesses;

new_key_type! {
    /// A call of this worker.
    struct CallKey;
    /// A connection; [`ConnId`] outside.
    struct ConnKey;
    /// An upstream pool.
    struct PoolKey;
}

impl From<ConnKey> for ConnId {
    fn from(key: ConnKey) -> Self {
        let ffi = key.data().as_ffi();
        Self { index: ffi as u32, generation: (ffi >> 32) as u32 }
    }
}

impl From<ConnId> for ConnKey {
    fn from(id: ConnId) -> Self {
        let ffi = u64::from(id.generation) << 32 | u64::from(id.index);
        Self::from(KeyData::from_ffi(ffi))
    }
}

/// The call that a stream's tag names.
fn call_of(tag: Tag) -> CallKey {
    CallKey::from(KeyData::from_ffi(tag))
}

/// What the heap of reminders is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reminder {
    Call(CallKey),
    Conn(ConnKey),
    Lookup(PoolKey),
    /// Of `balance`.
    Spread(PoolKey),
    DrainMax,
    /// Of `tracer`.
    Spans,
}

/// Acknowledgements of PINGs ride on what is sent anyway (docs/adr/0003).
const PING_ACK_DELAY: Duration = Duration::from_millis(10);

/// Fields of one request or response.
const FIELDS_MAX: u32 = 1024;
/// What a sidecar may add to a section that it took: fields, and octets of the list.
const ADDED_FIELDS: u32 = 64;
const ADDED_OCTETS: u32 = 16 << 10;

/// See the file's text.
#[derive(Debug)]
pub struct Proxy {
    snapshot: Arc<Snapshot>,
    peers: Peers,
    calls: SlotMap<CallKey, Call>,
    guards: Guards,
    pools: Pools,
    memo: Memo,
    fixed: Fixed,
    outputs: VecDeque<Output>,
    /// Taken by the heads of parked calls.
    parked_octets: usize,
    keeper: Keeper,
    locals: Locals,
    app_calls: AppCalls,
    timers: Timers<Reminder>,
    cells: Cells,
    draining: bool,
    drained: bool,
    told: Told,
    bounds: Bounds,
    budgets: Budgets,
    denials: Denials,
    tracer: Tracer,
    begun: Instant,
    /// Its number among the workers that share circuit breakers.
    seat: usize,
    witnesses: Witnesses,
}

impl Proxy {
    pub fn new(snapshot: Arc<Snapshot>, now: Instant) -> Self {
        let cells = Cells::new(&snapshot.latency_bounds);
        Self {
            fixed: Fixed::new(&snapshot.config),
            tracer: Tracer::new(snapshot.config.tracing),
            seat: snapshot.resiliency.as_ref().map_or(0, |targets| targets.join()),
            witnesses: Witnesses::new(snapshot.config.logging),
            snapshot,
            peers: Peers::new(),
            calls: SlotMap::with_key(),
            guards: Guards::new(),
            pools: Pools::new(),
            memo: Memo::default(),
            outputs: VecDeque::new(),
            parked_octets: 0,
            keeper: Keeper::default(),
            locals: Locals::default(),
            app_calls: AppCalls::default(),
            timers: Timers::new(),
            cells,
            draining: false,
            drained: false,
            told: Told::new(now),
            bounds: Bounds::default(),
            budgets: Budgets::default(),
            denials: Denials::default(),
            begun: now,
        }
    }

    /// At most so many calls at the same time are given to the app; the others wait.
    pub fn bound_app_calls(&mut self, most: usize) {
        self.app_calls = AppCalls::of_at_most(most);
    }

    /// Retries are at most so many percent of the calls to a target, and a few more.
    pub fn budget_retries(&mut self, percent: u32) {
        self.budgets = Budgets::of_percent(percent);
    }

    /// What its choices by chance and its IDs come from; without it, the same in each run.
    pub fn seed(&mut self, [seed, ids @ ..]: [u64; 3]) {
        self.pools.dice = balance::Dice(seed);
        self.tracer.seed(ids);
    }

    /// A downstream connection, its TLS handshake (if any) done.
    pub fn accept(&mut self, arrival: Arrival, now: Instant) -> ConnId {
        let limits = limits(&self.snapshot.config, End::of(arrival.listener));
        let h2 = Connection::new(Role::Server, limits, head::classify, now);
        let caller = Caller::new(&arrival, &self.snapshot.policies, &mut self.cells.callers);
        let side = Side::Downstream { listener: arrival.listener, peer: arrival.peer, caller };
        let key = self.peers.insert(Peer::new(h2, side, now));
        self.cells.rise(Gauge::DownstreamConnections);
        self.remind_peer(key);
        if self.draining {
            self.say_farewell(key, now);
        }
        self.touch(key);
        key.into()
    }

    pub fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::Received { conn, bytes } => self.receive(conn.into(), bytes, now),
            Input::Closed { conn, reason } => self.peer_gone(conn.into(), reason, now),
            Input::Dialed { conn } => self.dialed(conn.into(), now),
            Input::DialFailed { conn, error } => self.dial_failed(conn.into(), error, now),
            Input::HandshakeOverdue { listener, peer } => {
                self.handshake_overdue(listener, peer, now);
            }
            Input::Resolved(resolution) => self.resolved(resolution, now),
            Input::Answered { call, answer } => self.answered(call, answer, now),
            Input::Snapshot(snapshot) => self.publish(snapshot, now),
            Input::Drain => self.drain(now),
            Input::Tick => self.tick(now),
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Calls in flight.
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// Appends what `conn` has to send, about `octets_max` at most; true when more is waiting.
    pub fn transmit(&mut self, conn: ConnId, out: &mut Transmit, octets_max: usize) -> bool {
        let key = conn.into();
        let Some(peer) = self.peers.get_mut(key) else { return false };
        if peer.is_dialing() {
            return false;
        }
        peer.handed_over = peer.newest;
        let (calls, before) = (&self.calls, out.len);
        peer.h2.poll_transmit_lent(out, octets_max, |tag| calls.get(call_of(tag))?.request());
        self.cells.written(peer.is_downstream(), out.len - before);
        if let Some(said) = peer.h2.take_said() {
            self.tally_said(key, &said);
        }
        while let Some(sent) = self.peers.get_mut(key).and_then(Peer::poll_sent) {
            self.credit(key, call_of(sent.tag), sent.octets);
        }
        let Some(peer) = self.peers.get_mut(key) else { return false };
        if peer.h2.wants_transmit() {
            return true;
        }
        peer.dirty = false;
        self.close_if_done(key);
        false
    }

    /// DATA left by one leg of a call: it came in by the other, whose sender may go on.
    fn credit(&mut self, from: ConnKey, call: CallKey, mut octets: u32) {
        let Some(call) = self.calls.get_mut(call) else { return };
        let Up::Open(up) = &mut call.up else { return };
        let (left, Leg { conn, stream, .. }) = match from {
            _ if from == call.down.conn => (&mut call.down, *up),
            _ if from == up.conn => (up, call.down),
            _ => return,
        };
        left.sent = left.sent.wrapping_add(octets);
        if call.credited > 0 && conn == call.down.conn {
            // Sent again: the caller has had its window back.
            let again = octets.min(call.credited);
            call.credited -= again;
            octets -= again;
        }
        if let Some(peer) = self.peers.get_mut(conn) {
            peer.h2.release(stream, octets);
            peer.touch(conn, &mut self.outputs);
        }
    }

    /// Tells `io` that a connection has something to send, once.
    fn touch(&mut self, key: ConnKey) {
        if let Some(peer) = self.peers.get_mut(key) {
            peer.touch(key, &mut self.outputs);
        }
    }

    fn receive(&mut self, key: ConnKey, bytes: Bytes, now: Instant) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.heard = now;
        self.cells.read(peer.is_downstream(), bytes.len());
        // Anything heard proves life; the PING's own answer may come later.
        let proved = peer.pinged.take().is_some();
        let spoke = peer.spoke;
        peer.h2.recv(bytes, now);
        self.drain_events(key, now);
        self.note_held(key, now);
        // Only now: frames are judged as their events are taken.
        let Some(peer) = self.peers.get(key) else { return };
        let due = peer.h2.poll_timeout();
        if proved
            || peer.spoke != spoke
            || due.is_some_and(|at| peer.reminder.is_none_or(|known| at < known))
        {
            self.remind_peer(key);
        }
    }

    fn drain_events(&mut self, key: ConnKey, now: Instant) {
        while let Some((peer, event)) =
            self.peers.get_mut(key).and_then(|peer| peer.h2.poll_event().map(|e| (peer, e)))
        {
            peer.spoke |= matches!(event, Event::Headers { .. } | Event::Data { .. });
            self.on_event(key, event, now);
        }
        self.touch(key);
        self.close_if_done(key);
    }

    fn on_event(&mut self, key: ConnKey, event: Event, now: Instant) {
        match event {
            Event::Headers { stream, tag, kind, fields, end_stream, repeat } => match kind {
                SectionKind::Request => {
                    let whole = repeat.filter(|repeat| repeat.fields as usize == fields.len());
                    self.begin_call((key, stream), fields, end_stream, whole, now);
                }
                SectionKind::Response => {
                    self.relay_head(key, call_of(tag), fields, end_stream, now);
                }
                SectionKind::Trailers => self.relay_trailers(key, call_of(tag), fields, now),
                SectionKind::Informational => self.recycle(key, fields),
            },
            Event::Data { stream, tag, data, end_stream } => {
                self.relay_data(key, stream, call_of(tag), data, end_stream, now);
            }
            Event::Reset { tag, code, .. } => {
                self.tally_goodbye(key, false, code);
                self.stream_reset(key, call_of(tag), code, now);
            }
            Event::StreamFailed { tag, error, .. } => {
                self.stream_failed(key, call_of(tag), error, now);
            }
            Event::Refused { tag, .. } => self.stream_refused(call_of(tag), now),
            Event::Goaway { code, debug, .. } => {
                self.tally_goodbye(key, true, code);
                self.goaway_heard(key, code, &debug, now);
            }
            Event::Pong { payload } => self.pong(key, payload),
            Event::Settings => self.settings_heard(key, now),
            Event::Limited(limit) => self.limit_reached(limit.name(), limit.reason(), key, now),
            Event::Failed(error) => self.connection_failed(key, error, now),
        }
    }

    fn recycle(&mut self, key: ConnKey, fields: crate::http2::FieldSection) {
        if let Some(peer) = self.peers.get_mut(key) {
            peer.h2.recycle(fields);
        }
    }

    fn settings_heard(&mut self, key: ConnKey, now: Instant) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Side::Upstream { pool, way, stage, .. } = &mut peer.side else { return };
        let (pool, endpoint) = (*pool, way.endpoint());
        if let Stage::Greeting { .. } = stage {
            *stage = Stage::Ready;
            self.upstream_ready(pool, key, endpoint, now);
        }
        self.pump(pool, now);
        self.spread(pool, now);
    }

    fn publish(&mut self, snapshot: Arc<Snapshot>, now: Instant) {
        if snapshot.epoch > self.snapshot.epoch {
            let same = Arc::ptr_eq(&self.snapshot.policies, &snapshot.policies);
            if let Some(targets) = snapshot.resiliency_instead_of(&self.snapshot) {
                self.seat = targets.join();
            }
            self.snapshot = snapshot;
            if !same {
                self.stand_anew();
            }
            self.memo.clear();
            self.fixed = Fixed::new(&self.snapshot.config);
            self.witnesses.follow(self.snapshot.config.logging);
            self.app_moved(now);
        }
    }

    fn tick(&mut self, now: Instant) {
        while let Some(reminder) = self.timers.pop_due(now) {
            match reminder {
                Reminder::Call(key) => self.time_reached(key, now),
                Reminder::Conn(key) => self.look_after(key, now),
                Reminder::Lookup(key) => self.lookup_overdue(key, now),
                Reminder::Spread(key) => self.spread(key, now),
                Reminder::DrainMax => self.end_drain(now),
                Reminder::Spans => self.spans_due(),
            }
        }
    }

    /// Into the heap; and out of it with those that nobody would heed.
    fn remind(&mut self, at: Instant, what: Reminder) {
        self.timers.remind(at, what);
        let (calls, peers, pools) = (&self.calls, &self.peers, &self.pools);
        self.timers.sweep(calls.len() + peers.len(), |at, what| match what {
            Reminder::Call(key) => calls.contains_key(key),
            Reminder::Conn(key) => peers.get(key).is_some_and(|peer| peer.reminder == Some(at)),
            Reminder::Lookup(key) => pools.pools.contains_key(key),
            Reminder::Spread(key) => pools.heeds(key, at),
            Reminder::DrainMax | Reminder::Spans => true,
        });
    }

    /// The HTTP/2 state of a connection; for the simulator.
    pub fn connection(&self, conn: ConnId) -> Option<&Connection> {
        self.peers.get(conn.into()).map(|peer| &peer.h2)
    }

    /// Asserts what must hold between the rooms of this house; for the simulator.
    pub fn check_invariants(&self) {
        for (key, call) in &self.calls {
            let down = &self.peers[call.down.conn];
            assert_eq!(down.calls[call.down.slot as usize], key);
            match &call.up {
                Up::Open(up) => assert_eq!(self.peers[up.conn].calls[up.slot as usize], key),
                Up::Parked(_) | Up::Local(_) => {}
                Up::None => assert!(self.guards.get(key).is_some_and(Guard::is_between)),
            }
        }
        // One whose calls are over needs no pool any more.
        let counts = |peer: &&Peer| match peer.side {
            Side::Upstream { pool, .. } => peer.is_retired() && self.pools.exists(pool),
            Side::Downstream { .. } => false,
        };
        let leaving = self.peers.values().filter(counts).count();
        assert_eq!(self.pools.pools.values().map(|pool| pool.leaving).sum::<usize>(), leaving);
        let parked = self.calls.values().map(|call| match &call.up {
            Up::Parked(parked) => parked.octets,
            Up::Open(_) | Up::Local(_) | Up::None => 0,
        });
        assert_eq!(parked.sum::<usize>(), self.parked_octets);
        self.check_locals();
        let app = self.pools.app();
        let with_app = |call: &&Call| call.pool == app && matches!(call.up, Up::Open(_));
        self.app_calls.check_invariants(self.calls.values().filter(with_app).count());
        self.keeper.check_invariants(self.calls.values().filter_map(|call| call.kept.as_ref()));
        for peer in self.peers.values() {
            peer.h2.check_invariants();
            assert!(peer.calls.iter().all(|key| self.calls.contains_key(*key)));
        }
        let parked = self.peers.values().map(|peer| peer.parked_octets);
        assert_eq!(parked.sum::<usize>(), self.parked_octets);
        self.pools.check_invariants(|call| self.calls.contains_key(call));
        self.check_guards();
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// An app, which calls or is called: what it sends is its own.
    Caller,
    App,
    /// A sidecar, which relays what many send, and adds a little.
    Sidecar,
}

impl End {
    fn of(listener: Listener) -> Self {
        match listener {
            Listener::Api | Listener::Forward(_) => Self::Caller,
            Listener::Internal => Self::Sidecar,
        }
    }
}

/// What we let peers do, from the flags. A sidecar's connection is shared: where its callers are
/// judged by what they sent, it is not judged by what it made of that, or one caller could have
/// the connection of all closed.
fn limits(config: &Config, end: End) -> Limits {
    let defaults = Limits::default();
    let inner = end == End::Sidecar;
    let header_list_size = config.header_list_size + if inner { ADDED_OCTETS } else { 0 };
    Limits {
        header_list_size,
        header_list_assured: if inner { header_list_size } else { defaults.header_list_assured },
        // A section within the limit must fit in full frames, with a quarter to spare.
        continuations_max: defaults
            .continuations_max
            .max(header_list_size / defaults.max_frame_size * 5 / 4),
        // Neither daprd nor grpc-go counts fields; the list's size bounds what they cost.
        fields_max: FIELDS_MAX + if inner { ADDED_FIELDS } else { 0 },
        // What bounds a connection's streams is announced, so that a caller queues what is beyond
        // it, not tries it and is refused (docs/adr/0004).
        max_concurrent_streams: Some(defaults.streams_max),
        tiny_data_limited: end == End::Caller,
        held_bytes_max: match end {
            // Whoever stalls on a connection of his own stops himself.
            End::Caller => defaults.held_bytes_max,
            End::App | End::Sidecar => stalled::HELD_MAX,
        },
        ping_ack_delay: PING_ACK_DELAY,
        kinship: if inner { kinship::of(config.tracing) } else { 0 },
        ..defaults
    }
}

/// A call's stream on one of its two connections.
#[derive(Clone, Copy, Debug)]
struct Leg {
    conn: ConnKey,
    stream: StreamId,
    /// Index in the connection's `calls`.
    slot: u32,
    /// Octets of DATA that left by it; wraps.
    sent: u32,
}
