//! What the owner decides (RFC 9113 §5.1, §6), and what is written when.
//!
//! 1. A field block is encoded when its place in the order of the wire is certain: response heads,
//!    and trailers with no DATA before them, at once; other trailers right behind their DATA.
//!    Request heads wait until somebody writes: a call that is cancelled before costs the peer
//!    nothing, not even a number ([`Connection::is_unsent`]). Until then each is kept once: here,
//!    or by an owner who keeps it for longer ([`Connection::open_lent`]).
//! 2. DATA goes in turns, one frame of each stream, as far as both windows let it.
//! 3. The stream of an owner that has said END_STREAM stays until the last of it is handed out.
//!
//! Refuses to know when the socket takes octets.

use super::{Connection, Phase, STREAMS_ASSUMED, UNSENT_FACTOR, UnsentHead};
use crate::http2::error::ErrorCode;
use crate::http2::field::FieldSection;
use crate::http2::frame::{self, FrameHeader, FrameType, WINDOW_MAX, flag};
use crate::http2::message;
use crate::http2::outbox::{self, Queue};
use crate::http2::stream::{ContentLeft, RecvHalf, SendHalf, Stream};
use crate::http2::table::Slot;
use crate::http2::{Event, NO_TAG, OpenError, Role, Sent, StreamId, Tag, Transmit};
use bytes::Bytes;

impl Connection {
    /// Client: streams that may be opened right now.
    pub fn can_open(&self) -> u32 {
        let congested = self.outbox.control_len() > self.limits.control_bytes_max as usize / 2
            || self.heads_octets > self.limits.control_bytes_max as usize * UNSENT_FACTOR;
        if self.role == Role::Server || self.is_retired() || congested {
            return 0;
        }
        let ids = (WINDOW_MAX - self.next_id) / 2 + 1;
        let allowed = match (self.is_settled(), self.peer.max_concurrent_streams) {
            (false, _) => STREAMS_ASSUMED,
            (true, Some(max)) => max,
            (true, None) => u32::MAX,
        };
        let live = self.table.len() as u32;
        allowed.min(self.limits.streams_max).saturating_sub(live).min(ids)
    }

    /// Client: a new stream with this request head.
    pub fn open(
        &mut self,
        fields: FieldSection,
        end_stream: bool,
        tag: Tag,
    ) -> Result<StreamId, OpenError> {
        let stream = self.open_lent(&fields, end_stream, tag)?;
        if let Some(head) = self.heads.back_mut() {
            head.given = Some(fields);
        }
        Ok(stream)
    }

    /// As [`Self::open`]; the owner lends the head to [`Self::poll_transmit_lent`], by the tag.
    pub fn open_lent(
        &mut self,
        fields: &FieldSection,
        end_stream: bool,
        tag: Tag,
    ) -> Result<StreamId, OpenError> {
        if self.role == Role::Server || self.is_retired() {
            return Err(OpenError::Retired);
        }
        if self.can_open() == 0 {
            return Err(OpenError::Full);
        }
        let id = StreamId(self.next_id);
        self.next_id += 2;
        let send = if end_stream { SendHalf::Ended } else { SendHalf::Body };
        let send_window = self.peer.initial_window;
        let mut stream = Stream::new(id, RecvHalf::Head, send, send_window, self.stream_window);
        stream.tag = tag;
        if fields.value(b":method") == Some(b"HEAD") {
            stream.content_left = ContentLeft::Ignored;
        }
        self.table.insert(stream);
        let octets = fields.octets();
        self.heads_octets += octets;
        let (then_end, given) = (false, None);
        self.heads.push_back(UnsentHead { stream: id, tag, octets, end_stream, then_end, given });
        Ok(id)
    }

    /// The owner has no use any more for a head that it lends.
    #[cold]
    pub fn give_head(&mut self, stream: StreamId, fields: FieldSection) {
        match self.unsent_at(stream).and_then(|at| self.heads.get_mut(at)) {
            Some(head) => head.given = Some(fields),
            None => self.recycle(fields),
        }
    }

    /// Client: nothing of this stream was handed out. To the peer it is idle, and a reset takes it
    /// back.
    #[inline]
    pub fn is_unsent(&self, stream: StreamId) -> bool {
        self.heads.front().is_some_and(|head| head.stream <= stream)
    }

    /// Where the stream's head waits.
    fn unsent_at(&self, stream: StreamId) -> Option<usize> {
        if !self.is_unsent(stream) {
            return None;
        }
        self.heads.binary_search_by_key(&stream, |head| head.stream).ok()
    }

    /// Heads whose turn has come.
    fn write_heads<'a>(
        &mut self,
        octets_max: usize,
        lent: impl Fn(Tag) -> Option<&'a FieldSection>,
    ) {
        self.outbox.expect_heads(self.heads.len());
        while self.outbox.control_len() < octets_max
            && let Some(head) = self.heads.pop_front()
        {
            let UnsentHead { stream, tag, octets, end_stream, then_end, given } = head;
            debug_assert!(self.table.find(stream).is_some(), "heads go with their streams");
            self.heads_octets -= octets;
            match given.as_ref().or_else(|| lent(tag)) {
                Some(fields) => self.write_head(stream, fields, end_stream),
                None => {
                    self.head_is_lost(stream, tag);
                    continue;
                }
            }
            if let Some(fields) = given {
                self.recycle(fields);
            }
            if then_end {
                self.write_end_now(stream);
            }
        }
    }

    /// The owner lends what it does not have: nobody can make this request, and nobody has.
    #[cold]
    fn head_is_lost(&mut self, stream: StreamId, tag: Tag) {
        debug_assert!(false, "a lent head is kept until it is written");
        if let Some(slot) = self.table.find(stream) {
            self.remove(slot);
            self.events.push_back(Event::Refused { stream, tag });
        }
    }

    /// Takes a stream back that the peer has not heard of.
    #[cold]
    fn withdraw(&mut self, slot: Slot) {
        let id = self.remove(slot);
        self.forget_head(id);
    }

    /// The head of a stream that is gone, if it had not left.
    pub(super) fn forget_head(&mut self, stream: StreamId) {
        let unsent = self.unsent_at(stream).and_then(|at| self.heads.remove(at));
        if let Some(UnsentHead { octets, given, .. }) = unsent {
            self.heads_octets -= octets;
            self.recycle(given.unwrap_or_default());
        }
    }

    fn write_head(&mut self, id: StreamId, fields: &FieldSection, end_stream: bool) {
        let frame_max = self.peer.max_frame_size as usize;
        let encoder = &mut self.encoder;
        let control = self.outbox.control();
        let before = control.len();
        frame::write_field_block(control, id, end_stream, frame_max, |out| {
            encoder.encode(fields, out);
        });
        let octets = control.len() - before;
        self.outbox.note_block(octets);
    }

    /// The response head (several, if informational), or trailers; these wait behind the
    /// stream's DATA and always end it.
    pub fn send_headers(&mut self, stream: StreamId, fields: FieldSection, end_stream: bool) {
        let Some(slot) = self.table.find(stream) else { return self.recycle(fields) };
        let unsent = self.is_unsent(stream);
        let state = self.table.stream_mut(slot);
        let ended = match &state.send {
            _ if state.is_discarded() => return self.recycle(fields),
            SendHalf::EndQueued | SendHalf::TrailersQueued(_) | SendHalf::Ended => {
                return self.recycle(fields);
            }
            SendHalf::Body if !state.queue.is_empty() => {
                self.trailers_octets += fields.octets();
                state.send = SendHalf::TrailersQueued(fields);
                return;
            }
            SendHalf::Body if unsent => {
                self.trailers_octets += fields.octets();
                state.send = SendHalf::TrailersQueued(fields);
                return self.write_end(stream);
            }
            SendHalf::Body => true,
            SendHalf::Head => end_stream,
        };
        if ended {
            state.send = SendHalf::Ended;
        } else if !message::is_informational(&fields) {
            state.send = SendHalf::Body;
        }
        self.write_head(stream, &fields, ended);
        self.recycle(fields);
        if ended {
            self.send_ended(slot);
        }
    }

    /// Queues DATA, by reference.
    pub fn send_data(&mut self, stream: StreamId, data: Bytes, end_stream: bool) {
        let Some(slot) = self.table.find(stream) else { return };
        let state = self.table.stream_mut(slot);
        match state.send {
            SendHalf::Body if !state.is_discarded() => {}
            SendHalf::Head => return debug_assert!(false, "DATA before the head"),
            SendHalf::Body
            | SendHalf::EndQueued
            | SendHalf::TrailersQueued(_)
            | SendHalf::Ended => return,
        }
        if !data.is_empty() {
            let waits = self.stalled || state.send_window.available() == 0;
            self.outbox.push(&mut state.queue, data, waits);
            if end_stream {
                state.send = SendHalf::EndQueued;
            }
            if state.link.is_none() && state.is_sendable() {
                self.outbox.link(&mut self.table, slot);
            }
        } else if end_stream && state.queue.is_empty() {
            // Nothing of this stream waits: its end may go with the control frames.
            state.send = SendHalf::Ended;
            self.write_end(stream);
            self.send_ended(slot);
        } else if end_stream {
            state.send = SendHalf::EndQueued;
        }
    }

    /// The end of a stream of which no DATA waits, behind the head if that has not left.
    fn write_end(&mut self, stream: StreamId) {
        match self.unsent_at(stream).and_then(|at| self.heads.get_mut(at)) {
            Some(head) => head.then_end = true,
            None => self.write_end_now(stream),
        }
    }

    /// Trailers, or END_STREAM on a DATA frame of its own. Never on the head: the owner said it
    /// apart, and there are peers that wait for that frame for ever.
    fn write_end_now(&mut self, stream: StreamId) {
        if let Some(slot) = self.table.find(stream)
            && let SendHalf::TrailersQueued(fields) = &mut self.table.stream_mut(slot).send
        {
            let fields = std::mem::take(fields);
            self.trailers_octets -= fields.octets();
            self.table.stream_mut(slot).send = SendHalf::Ended;
            self.write_head(stream, &fields, true);
            self.recycle(fields);
            return self.send_ended(slot);
        }
        FrameHeader::new(0, FrameType::Data, flag::END_STREAM, stream).write(self.outbox.control());
    }

    /// The owner takes leave of the stream. RST_STREAM goes at once and queued DATA is dropped;
    /// but a server that has queued the end of its response says all of it first (RFC 9113
    /// §8.1). A client's request is not worth that: it could wait for a window for ever.
    pub fn send_reset(&mut self, stream: StreamId, code: ErrorCode) {
        let Some(slot) = self.table.find(stream) else { return };
        if self.is_unsent(stream) {
            return self.withdraw(slot);
        }
        let state = self.table.stream_mut(slot);
        let last_words = self.role == Role::Server && state.is_end_queued();
        match (last_words, state.recv) {
            (true, RecvHalf::Discarded(_) | RecvHalf::Ended) => {}
            (true, RecvHalf::Head | RecvHalf::Body) => {
                let held = state.recv_window.held();
                self.recv_window.release(state.recv_window.release(held));
                state.recv = RecvHalf::Discarded(code);
                self.update_connection_window();
            }
            // Discarded: it was abandoned.
            (false, RecvHalf::Head | RecvHalf::Body | RecvHalf::Ended | RecvHalf::Discarded(_)) => {
                self.reset_stream(slot, code);
            }
        }
    }

    /// The owner has passed on octets of [`Event::Data`](crate::http2::Event::Data).
    pub fn release(&mut self, stream: StreamId, octets: u32) {
        let Some(slot) = self.table.find(stream) else { return };
        let state = self.table.stream_mut(slot);
        if octets == 0 || state.is_discarded() {
            return;
        }
        let released = state.recv_window.release(octets);
        self.recv_window.release(released);
        self.update_stream_window(slot);
        self.update_connection_window();
    }

    /// Client: the owner has no use for the stream any more, and will say so later: what waits for
    /// the peer goes, what comes is thrown away, and what the owner holds goes back to the
    /// connection, not to the stream: soon the peer has no window to go on. Its tag is free.
    pub fn abandon(&mut self, stream: StreamId) {
        let Some(slot) = self.table.find(stream) else { return };
        self.outbox.unlink(&mut self.table, slot);
        let state = self.table.stream_mut(slot);
        self.outbox.clear(&mut state.queue);
        if state.is_end_queued() {
            self.trailers_octets -= state.trailers_octets();
            state.send = SendHalf::Body;
        }
        let held = state.recv_window.held();
        self.recv_window.release(state.recv_window.release(held));
        if state.is_receiving() {
            state.recv = RecvHalf::Discarded(ErrorCode::CANCEL);
        }
        state.tag = NO_TAG;
        self.update_connection_window();
    }

    /// Octets of DATA of all streams that the owner has, and has not released.
    #[inline]
    pub fn held_in_all(&self) -> u64 {
        self.recv_window.held()
    }

    /// The peer wants nothing of this stream, whatever it takes of others.
    pub fn is_window_closed(&self, stream: StreamId) -> bool {
        let slot = self.table.find(stream);
        slot.is_some_and(|slot| self.table.stream(slot).send_window.available() == 0)
    }

    pub fn ping(&mut self, payload: [u8; 8]) {
        if self.phase != Phase::Failed {
            frame::write_ping(self.outbox.control(), payload, false);
        }
    }

    /// Server: no new streams, please (RFC 9113 §6.8); those that come are still served.
    pub fn goaway_notice(&mut self) {
        if self.phase != Phase::Failed && self.accept_max == StreamId(WINDOW_MAX) {
            let (last, code) = (StreamId(WINDOW_MAX), ErrorCode::NO_ERROR);
            self.say_goaway(last, code, "");
        }
    }

    /// Streams from here on are refused; those in flight go on.
    pub fn goaway(&mut self, code: ErrorCode, debug: &'static str) {
        if self.phase != Phase::Failed {
            self.phase = Phase::Retired;
            self.accept_max = self.accepted;
            self.say_goaway(self.accepted, code, debug);
        }
    }

    /// The stream is live.
    pub fn has(&self, stream: StreamId) -> bool {
        self.table.find(stream).is_some()
    }

    /// Octets of DATA of a stream that the owner has, and has not released.
    pub fn held(&self, stream: StreamId) -> u32 {
        self.table.find(stream).map_or(0, |slot| self.table.stream(slot).recv_window.held())
    }

    /// Octets of DATA that wait on a stream.
    pub fn queued(&self, stream: StreamId) -> usize {
        self.table.find(stream).map_or(0, |slot| self.table.stream(slot).queue.octets())
    }

    /// Octets of messages, DATA, field blocks and trailers, that wait to be sent.
    pub fn queued_in_all(&self) -> usize {
        self.outbox.queued() + self.outbox.blocks_len() + self.trailers_octets
    }

    pub fn wants_transmit(&self) -> bool {
        let data = self.outbox.has_ready() && self.send_window.available() > 0;
        self.outbox.control_len() > 0 || data || !self.heads.is_empty()
    }

    /// Appends what may be written now, and stops near `octets_max`.
    pub fn poll_transmit(&mut self, out: &mut Transmit, octets_max: usize) {
        self.poll_transmit_lent(out, octets_max, |_| None);
    }

    /// As [`Self::poll_transmit`], for an owner who keeps heads: `lent` finds one by its tag.
    pub fn poll_transmit_lent<'a>(
        &mut self,
        out: &mut Transmit,
        octets_max: usize,
        lent: impl Fn(Tag) -> Option<&'a FieldSection>,
    ) {
        if self.wants_transmit() {
            self.answer_ping(self.limits.ping_ack_delay);
        }
        if !self.heads.is_empty() {
            self.write_heads(octets_max.saturating_sub(out.len), lent);
        }
        self.transmit(out, octets_max);
    }

    fn transmit(&mut self, out: &mut Transmit, octets_max: usize) {
        if !self.outbox.flush_control(out, octets_max) || !self.heads.is_empty() {
            return;
        }
        self.stalled &= self.send_window.available() == 0;
        // Bounded: each turn hands out octets.
        while out.len < octets_max && self.send_window.available() > 0 {
            let Some(slot) = self.outbox.first_ready() else { break };
            self.transmit_data(slot, out);
        }
        // What ended streams may have left behind: RST_STREAM.
        self.outbox.flush_control(out, usize::MAX);
        if self.send_window.available() == 0 && !self.stalled {
            self.stalled = true;
            self.compact_ready();
        }
    }

    /// One DATA frame of the stream whose turn it is.
    fn transmit_data(&mut self, slot: Slot, out: &mut Transmit) {
        let stream = self.table.stream_mut(slot);
        let window = self.send_window.available().min(stream.send_window.available());
        let quantum = window.min(self.peer.max_frame_size) as usize;
        let len = quantum.min(stream.queue.octets());
        let drained = len == stream.queue.octets();
        let end_stream = drained && matches!(stream.send, SendHalf::EndQueued);
        let (id, tag, octets) = (stream.id, stream.tag, len as u32);
        self.outbox.write_data(&mut stream.queue, id, len, end_stream, out);
        stream.send_window.take(octets);
        self.send_window.take(octets);
        self.budgets.earn();
        self.outbox.note_sent(Sent { stream: id, tag, octets });
        if !drained && stream.send_window.available() == 0 {
            self.outbox.compact(&mut stream.queue);
        }
        self.outbox.unlink(&mut self.table, slot);
        if !drained {
            return self.outbox.relink(&mut self.table, slot);
        }
        let stream = self.table.stream_mut(slot);
        match &mut stream.send {
            SendHalf::Body => {}
            SendHalf::EndQueued => {
                stream.send = SendHalf::Ended;
                self.send_ended(slot);
            }
            SendHalf::TrailersQueued(fields) => {
                let fields = std::mem::take(fields);
                self.trailers_octets -= fields.octets();
                stream.send = SendHalf::Ended;
                self.transmit_trailers(id, &fields, out);
                self.recycle(fields);
                self.send_ended(slot);
            }
            SendHalf::Head | SendHalf::Ended => unreachable!("DATA is queued in the body only"),
        }
    }

    fn transmit_trailers(&mut self, id: StreamId, fields: &FieldSection, out: &mut Transmit) {
        let from = out.framing.len();
        let frame_max = self.peer.max_frame_size as usize;
        frame::write_field_block(&mut out.framing, id, true, frame_max, |out| {
            self.encoder.encode(fields, out);
        });
        outbox::note_framing(out, from);
    }

    /// All of the owner's side of the stream has been handed out.
    fn send_ended(&mut self, slot: Slot) {
        match self.table.stream(slot).recv {
            RecvHalf::Discarded(code) => self.reset_stream(slot, code),
            RecvHalf::Ended => self.remove_if_closed(slot),
            RecvHalf::Head | RecvHalf::Body => {}
        }
    }

    /// The connection's window is closed: all that is ready waits.
    fn compact_ready(&mut self) {
        let mut at = self.outbox.first_ready();
        while let Some(slot) = at {
            let stream = self.table.stream_mut(slot);
            let mut queue: Queue = stream.queue;
            self.outbox.compact(&mut queue);
            stream.queue = queue;
            at = self.outbox.next_ready(stream);
        }
    }

    /// DATA octets of one stream that the last `poll_transmit` handed out.
    pub fn poll_sent(&mut self) -> Option<Sent> {
        self.outbox.poll_sent()
    }
}
