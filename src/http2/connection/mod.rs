//! One HTTP/2 connection: what ties frames, streams, windows, HPACK and budgets together.
//!
//! Owns the state that the parts share; `recv` judges what the peer sends, `message` its field
//! sections and DATA, `send` does what the owner decides. The contract is in `http2`.
//!
//! 1. Input is cut when the owner polls, not when it arrives: so the owner's answer to one event
//!    is in force before the next frame is looked at.
//! 2. A stream is live (in the table), idle (its ID was not used yet) or closed; see [`Known`].
//! 3. Whatever leaves the table has given its held octets back and has left the outbox.
//! 4. After a failure the table is empty and only control octets are left to write.
//!
//! Refuses to know sockets, clocks, and what a field means.

mod idle;
mod message;
mod recv;
mod rest;
mod said;
mod send;
#[cfg(test)]
mod tests;
mod time;

pub(super) use time::UNENDED_TIMEOUT;

use super::abuse::Budgets;
use super::closed::{Closed, ClosedStreams};
use super::deframer::Deframer;
use super::error::{ConnectionError, ErrorCode};
use super::field::{Classify, FieldSection};
use super::frame::{self, FRAME_SIZE_MAX, FRAME_SIZE_MIN, PREFACE, WINDOW_MAX};
use super::hpack::{Decoder, Encoder, TABLE_SIZE_DEFAULT};
use super::outbox::Outbox;
use super::settings::{self, INITIAL_WINDOW_DEFAULT, PeerSettings};
use super::table::{Slot, Table};
use super::window::{ConnectionWindow, SendWindow};
use super::{Event, Limits, Role, StreamId, Tag};
use bytes::Bytes;
pub use said::Said;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long the peer may take for its preface and for the acknowledgement of our SETTINGS.
pub(super) const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams that a client opens before it knows the peer's limit (RFC 9113 §6.5.2 recommends
/// limits of at least this).
const STREAMS_ASSUMED: u32 = 100;
/// Request heads that nobody has asked for yet may hold so many times `control_bytes_max` before no
/// stream is opened: they are not compressed yet, and all that came in one turn.
const UNSENT_FACTOR: usize = 8;
/// Octets of field sections kept for reuse: a few hundred, as trailers wait in them for their DATA.
const SPARES_OCTETS_MAX: usize = 256 << 10;
/// A larger one is not kept.
const SPARE_OCTETS_MAX: usize = 16 << 10;
/// How far the connection's life has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Active,
    /// GOAWAY seen or sent: no stream is opened by us any more.
    Retired,
    Failed,
}

/// What both sides must say first (RFC 9113 §3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settling {
    /// Neither the peer's SETTINGS nor its acknowledgement of ours.
    Fresh,
    /// Its SETTINGS, not the acknowledgement.
    Unacknowledged,
    /// Both.
    Settled,
}

/// What a stream ID stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Live(Slot),
    Idle,
    Closed(Closed),
}

/// A field block whose CONTINUATION frames are still coming (§4.3): nothing may come between.
#[derive(Debug)]
struct OpenBlock {
    stream: StreamId,
    end_stream: bool,
    self_dependent: bool,
    continuations: u32,
    since: Instant,
    octets: Vec<u8>,
}

/// Client: a request head that nobody has asked for yet.
#[derive(Debug)]
struct UnsentHead {
    stream: StreamId,
    tag: Tag,
    /// Of the fields.
    octets: usize,
    end_stream: bool,
    /// The stream's end follows.
    then_end: bool,
    /// None: the owner lends them.
    given: Option<FieldSection>,
}

/// The DATA frame whose pieces come now.
#[derive(Clone, Copy, Debug)]
struct OpenData {
    stream: StreamId,
    end_stream: bool,
}

/// The contract is in the module's parent.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    phase: Phase,
    settling: Settling,
    limits: Limits,
    now: Instant,
    /// Reads so far, as a name for the last one.
    breath: u32,
    /// What the last one brought has not been cut to its end.
    uncut: bool,
    /// Until settled: by when that must be. Then: when `idle` looks again.
    deadline: Option<Instant>,
    /// A frame has begun and not ended, since then: which, as the deframer counts them.
    unended: Option<(u32, Instant)>,
    peer: PeerSettings,
    deframer: Deframer,
    block: Option<Box<OpenBlock>>,
    data: OpenData,
    decoder: Decoder,
    encoder: Encoder,
    table: Table,
    closed: ClosedStreams,
    /// Client: the next stream to open. Server: above the highest that the peer used.
    next_id: u32,
    /// Client: the highest stream of which a response's head has come.
    answered: StreamId,
    /// Server: the highest stream that was not refused.
    accepted: StreamId,
    /// Server: streams above are refused, since GOAWAY said so.
    accept_max: StreamId,
    send_window: SendWindow,
    recv_window: ConnectionWindow,
    /// Receive window of new streams: ours, or the default until ours is known to hold.
    stream_window: u32,
    outbox: Outbox,
    /// In the order of their streams; see `send`.
    heads: VecDeque<UnsentHead>,
    /// What their fields hold, whoever keeps them.
    heads_octets: usize,
    /// What trailers hold that wait behind their DATA.
    trailers_octets: usize,
    /// DATA waits because the connection's window is closed; it was compacted.
    stalled: bool,
    /// A PING that was heard and not answered yet, and when.
    held_ping: Option<([u8; 8], Instant)>,
    budgets: Budgets,
    said: Option<Box<Said>>,
    events: VecDeque<Event>,
    spares: Vec<FieldSection>,
    /// What `spares` keep.
    spare_octets: u32,
}

impl Connection {
    /// Queues the preface (client), SETTINGS and, if the window asks for it, WINDOW_UPDATE.
    pub fn new(role: Role, limits: Limits, classify: Classify, now: Instant) -> Self {
        let limits = within_bounds(limits);
        let mut outbox = Outbox::new();
        let control = outbox.control();
        if role == Role::Client {
            control.extend_from_slice(PREFACE);
        }
        settings::write_settings(control, role, &limits);
        if limits.connection_window > INITIAL_WINDOW_DEFAULT {
            let increment = limits.connection_window - INITIAL_WINDOW_DEFAULT;
            frame::write_window_update(control, StreamId(0), increment);
        }
        let decoder_table = limits.header_table_size.max(TABLE_SIZE_DEFAULT);
        Self {
            role,
            phase: Phase::Active,
            settling: Settling::Fresh,
            now,
            breath: 0,
            uncut: false,
            deadline: Some(now + SETTLE_TIMEOUT),
            unended: None,
            peer: PeerSettings::default(),
            deframer: Deframer::new(role == Role::Server, limits.max_frame_size),
            block: None,
            data: OpenData { stream: StreamId(0), end_stream: false },
            decoder: Decoder::new(decoder_table, classify),
            encoder: Encoder::new(limits.encoder_table_size_max),
            table: Table::new(),
            closed: ClosedStreams::default(),
            next_id: 1,
            answered: StreamId(0),
            accepted: StreamId(0),
            accept_max: StreamId(WINDOW_MAX),
            send_window: SendWindow::new(INITIAL_WINDOW_DEFAULT),
            recv_window: ConnectionWindow::new(limits.connection_window, limits.held_bytes_max),
            stream_window: limits.stream_window.max(INITIAL_WINDOW_DEFAULT),
            outbox,
            heads: VecDeque::new(),
            heads_octets: 0,
            trailers_octets: 0,
            stalled: false,
            held_ping: None,
            budgets: Budgets::new(&limits, now),
            said: None,
            events: VecDeque::new(),
            spares: Vec::new(),
            spare_octets: 0,
            limits,
        }
    }

    /// Takes what was read. Call `poll_event` until `None` afterwards.
    pub fn recv(&mut self, bytes: Bytes, now: Instant) {
        self.now = now;
        self.breath = self.breath.wrapping_add(1);
        self.uncut = true;
        if !bytes.is_empty() {
            self.deframer.push(bytes);
        }
    }

    /// What the peer did next.
    #[inline]
    pub fn poll_event(&mut self) -> Option<Event> {
        let mut event = None;
        // Bounded: each turn uses up octets of the peer, or ends.
        while event.is_none() && self.next_event(&mut event) {}
        event
    }

    /// One turn; false when there is nothing to come. An event is written in place, since events
    /// are large, and handed on from here many times per call.
    fn next_event(&mut self, event: &mut Option<Event>) -> bool {
        if !self.events.is_empty() {
            *event = self.events.pop_front();
            return true;
        }
        match self.step(event) {
            Ok(true) => true,
            Ok(false) => {
                self.note_kept();
                false
            }
            Err(error) => {
                self.fail(error);
                true
            }
        }
    }

    /// Every later event of the stream carries `tag`.
    pub fn set_tag(&mut self, stream: StreamId, tag: Tag) {
        if let Some(slot) = self.table.find(stream) {
            self.table.stream_mut(slot).tag = tag;
        }
    }

    /// Client: the highest stream that the peer has begun to answer.
    pub fn answered(&self) -> StreamId {
        self.answered
    }

    /// Live streams, those included whose last octets are still queued.
    pub fn streams(&self) -> usize {
        self.table.len()
    }

    /// No stream will be opened on this connection any more: GOAWAY was seen or sent, or it
    /// failed, or its stream IDs ran out.
    pub fn is_retired(&self) -> bool {
        self.phase != Phase::Active || self.next_id > WINDOW_MAX
    }

    /// What a peer of our kind said of itself ([`Limits::kinship`]).
    pub fn kinship(&self) -> u8 {
        self.peer.kinship
    }

    pub fn has_failed(&self) -> bool {
        self.phase == Phase::Failed
    }

    /// The peer's SETTINGS have come.
    pub fn is_settled(&self) -> bool {
        self.settling != Settling::Fresh
    }

    /// An empty field section, with memory if there is some to reuse.
    pub fn spare(&mut self) -> FieldSection {
        let spare = self.spares.pop().unwrap_or_default();
        self.spare_octets -= spare.kept() as u32;
        spare
    }

    /// Takes a field section back. Sections wander with what is relayed, so the owner may give
    /// one connection what it got from another.
    #[inline]
    pub fn recycle(&mut self, mut fields: FieldSection) {
        let kept = fields.kept();
        let octets = self.spare_octets as usize + kept;
        if kept == 0 || kept > SPARE_OCTETS_MAX || octets > SPARES_OCTETS_MAX {
            return drop(fields);
        }
        fields.clear();
        self.spares.push(fields);
        self.spare_octets = octets as u32;
    }

    #[inline]
    fn known(&self, id: StreamId) -> Known {
        if id.0 >= self.next_id || self.is_unsent(id) {
            return Known::Idle;
        }
        match self.table.find(id) {
            Some(slot) => Known::Live(slot),
            None => self.known_closed(id),
        }
    }

    #[cold]
    fn known_closed(&self, id: StreamId) -> Known {
        if id.0.is_multiple_of(2) {
            return Known::Idle;
        }
        match (self.closed.how(id), self.role) {
            (Closed::Skipped, Role::Client) => Known::Closed(Closed::Forgotten),
            (closed, Role::Client | Role::Server) => Known::Closed(closed),
        }
    }

    /// RST_STREAM for a live stream; it is gone.
    #[cold]
    fn reset_stream(&mut self, slot: Slot, code: ErrorCode) {
        let id = self.remove(slot);
        self.reset_unseen(id, code);
    }

    /// RST_STREAM for a stream that is not in the table.
    #[cold]
    fn reset_unseen(&mut self, id: StreamId, code: ErrorCode) {
        self.say_reset(id, code);
        self.closed.reset(id);
    }

    /// Takes a stream out of the table and all that belongs to it (invariant 3).
    fn remove(&mut self, slot: Slot) -> StreamId {
        self.outbox.unlink(&mut self.table, slot);
        let stream = self.table.stream_mut(slot);
        self.outbox.clear(&mut stream.queue);
        self.trailers_octets -= stream.trailers_octets();
        self.recv_window.release(stream.recv_window.held());
        let id = stream.id;
        self.table.remove(slot);
        self.update_connection_window();
        id
    }

    /// Takes a stream out of the table if nothing is left of it: then it has left the outbox.
    #[inline]
    fn remove_if_closed(&mut self, slot: Slot) {
        if self.table.stream(slot).is_closed() {
            self.remove_closed(slot);
        }
    }

    fn remove_closed(&mut self, slot: Slot) {
        let stream = self.table.stream(slot);
        debug_assert!(stream.queue.is_empty() && stream.link.is_none());
        let held = stream.recv_window.held();
        self.closed.ended(stream.id);
        self.table.remove(slot);
        self.budgets.complete();
        if held > 0 {
            self.recv_window.release(held);
            self.update_connection_window();
        }
    }

    #[inline]
    fn update_connection_window(&mut self) {
        if let Some(increment) = self.recv_window.take_due() {
            frame::write_window_update(self.outbox.control(), StreamId(0), increment);
        }
    }

    #[inline]
    fn update_stream_window(&mut self, slot: Slot) {
        let stream = self.table.stream_mut(slot);
        if stream.is_receiving()
            && let Some(increment) = stream.recv_window.take_due(self.stream_window)
        {
            frame::write_window_update(self.outbox.control(), stream.id, increment);
        }
    }

    /// RFC 9113 §5.4.1.
    #[cold]
    fn fail(&mut self, error: ConnectionError) {
        if self.phase == Phase::Failed {
            return;
        }
        self.phase = Phase::Failed;
        self.deadline = None;
        self.unended = None;
        self.deframer.fail();
        self.block = None;
        self.table = Table::new();
        self.outbox.drop_data();
        self.heads = VecDeque::new();
        self.heads_octets = 0;
        self.trailers_octets = 0;
        self.say_goaway(self.accepted, error.code, error.reason);
        self.events.push_back(Event::Failed(error));
    }

    /// What must hold between any two calls; for tests.
    pub fn check_invariants(&self) {
        self.table.check_invariants();
        self.outbox.check_invariants(&self.table);
        let (mut held, mut trailers) = (0, 0);
        let unread = self.deframer.data_left();
        for slot in self.table.slots() {
            let stream = self.table.stream(slot);
            assert!(!stream.is_closed(), "closed streams leave the table");
            held += u64::from(stream.recv_window.held());
            trailers += stream.trailers_octets();
            let unread = if self.data.stream == stream.id { unread } else { 0 };
            if stream.is_receiving() {
                stream.recv_window.check(self.stream_window, unread);
            }
            if stream.is_end_queued() {
                let waits = !stream.queue.is_empty() || self.is_unsent(stream.id);
                assert!(waits, "an end waits only behind DATA or the head");
            }
        }
        if self.phase != Phase::Failed {
            self.recv_window.check(held, unread);
        }
        assert_eq!(trailers, self.trailers_octets);
        assert!(self.heads.is_empty() || self.role == Role::Client);
        assert!(self.heads.iter().is_sorted_by_key(|head| head.stream));
        assert!(self.heads.iter().all(|head| self.table.find(head.stream).is_some()));
        let octets: usize = self.heads.iter().map(|head| head.octets).sum();
        assert_eq!(octets, self.heads_octets);
        let kept: usize = self.spares.iter().map(FieldSection::kept).sum();
        assert_eq!(kept, self.spare_octets as usize);
    }
}

/// Values that RFC 9113 §6.5.2 and §6.9.1 allow.
fn within_bounds(mut limits: Limits) -> Limits {
    limits.max_frame_size = limits.max_frame_size.clamp(FRAME_SIZE_MIN, FRAME_SIZE_MAX);
    limits.stream_window = limits.stream_window.min(WINDOW_MAX);
    limits.connection_window = limits.connection_window.clamp(INITIAL_WINDOW_DEFAULT, WINDOW_MAX);
    limits
}
