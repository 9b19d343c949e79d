//! What waits to be written: control octets first, then DATA in turns.
//!
//! 1. Control frames and field blocks stand in one byte queue, in order of their making; no DATA
//!    goes before all of it. So a stream's HEADERS go before its DATA, and a reset at once.
//! 2. DATA stands in pieces, by reference, in one slab for all streams: a [`Queue`] is a list in
//!    it. Nothing is allocated per piece in steady state.
//! 3. A stream is linked in the ring if and only if it has DATA and its own window is open.
//! 4. A small piece that has to wait does not pin the read buffer it lies in: see
//!    [`Outbox::compact`].
//!
//! Refuses to know windows, HPACK and when a stream is done: `Connection` does.

mod kept;

use super::frame::{FrameHeader, FrameType, flag};
use super::stream::Stream;
use super::table::{Slot, Table};
use super::{Segment, Sent, StreamId, Transmit};
use bytes::Bytes;

const NONE: u32 = u32::MAX;
/// A piece smaller than this is copied when it has to wait for a window.
const COMPACT_BELOW: usize = 2 << 10;
/// What small pieces are gathered into.
const GATHERED_MAX: usize = 16 << 10;
/// Pieces of one stream from which on small ones are gathered though no window is closed: the
/// peer does not read.
const PIECES_BY_REFERENCE: u32 = 32;
/// Of a request head that repeats most of its fields, with its frame's header.
const HEAD_OCTETS: usize = 96;
/// Heads for which room is made at once.
const HEADS_EXPECTED_MAX: usize = 128;

/// DATA of one stream: a list of pieces.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    head: u32,
    tail: u32,
    pieces: u32,
    octets: usize,
}

impl Default for Queue {
    fn default() -> Self {
        Self { head: NONE, tail: NONE, pieces: 0, octets: 0 }
    }
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.octets == 0
    }

    pub fn octets(&self) -> usize {
        self.octets
    }
}

/// A stream's neighbours in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    previous: u32,
    next: u32,
}

#[derive(Debug)]
enum Piece {
    Vacant,
    Shared(Bytes),
    /// Small pieces put together; may grow.
    Gathered(Vec<u8>),
}

impl Piece {
    #[inline]
    fn into_bytes(self) -> Bytes {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Gathered(gathered) => Bytes::from(gathered),
            Self::Vacant => Bytes::new(),
        }
    }
}

#[derive(Debug)]
struct Node {
    piece: Piece,
    next: u32,
}

/// See the file's text.
#[derive(Debug)]
pub struct Outbox {
    control: Vec<u8>,
    /// Octets of `control` that are handed out.
    control_start: usize,
    /// Octets of `control` that are field blocks of messages; see [`Outbox::answers_len`].
    blocks: usize,
    nodes: Vec<Node>,
    vacant: u32,
    first: u32,
    last: u32,
    sent: Vec<Sent>,
    /// Of `sent`, those that were polled.
    told: usize,
    /// DATA octets in all queues.
    queued: usize,
}

impl Outbox {
    pub fn new() -> Self {
        Self {
            control: Vec::new(),
            control_start: 0,
            blocks: 0,
            nodes: Vec::new(),
            vacant: NONE,
            first: NONE,
            last: NONE,
            sent: Vec::new(),
            told: 0,
            queued: 0,
        }
    }

    /// Where control frames and field blocks are written.
    pub fn control(&mut self) -> &mut Vec<u8> {
        &mut self.control
    }

    /// Room for so many heads at once, rather than by doubling; each may need more or less.
    #[inline]
    pub fn expect_heads(&mut self, heads: usize) {
        if heads > 1 {
            self.control.reserve(HEAD_OCTETS * heads.min(HEADS_EXPECTED_MAX));
        }
    }

    /// DATA octets of all streams that wait.
    pub fn queued(&self) -> usize {
        self.queued
    }

    pub fn control_len(&self) -> usize {
        self.control.len() - self.control_start
    }

    /// Of the control octets, those of field blocks: what the peer asked us for, and that its
    /// windows do not bound. About, when some of them are handed out.
    pub fn blocks_len(&self) -> usize {
        self.blocks
    }

    /// The others: answers to frames of the peer's, and news of ours.
    #[inline]
    pub fn answers_len(&self) -> usize {
        self.control_len().saturating_sub(self.blocks)
    }

    /// The last so many octets of control are a field block.
    #[inline]
    pub fn note_block(&mut self, octets: usize) {
        self.blocks += octets;
    }

    /// COPY: control frames and field blocks into the framing buffer, tens of octets each.
    /// True when none is left.
    #[inline]
    pub fn flush_control(&mut self, out: &mut Transmit, octets_max: usize) -> bool {
        self.control.is_empty() || self.flush_some_control(out, octets_max)
    }

    fn flush_some_control(&mut self, out: &mut Transmit, octets_max: usize) -> bool {
        let room = octets_max.saturating_sub(out.len);
        let len = self.control_len().min(room);
        if len > 0 {
            // Field blocks and the rest leave in the order of their making; as if they were mixed.
            let blocks = self.blocks as u64 * len as u64 / self.control_len() as u64;
            self.blocks -= blocks as usize;
            let end = self.control_start + len;
            let from = out.framing.len();
            out.framing.extend_from_slice(&self.control[self.control_start..end]);
            note_framing(out, from);
            self.control_start = end;
        }
        let done = self.control_start == self.control.len();
        if done {
            self.control.clear();
            self.control_start = 0;
            self.blocks = 0;
        } else if self.control_start >= self.control.len() / 2 {
            // COPY: what is left to the front, or a peer that always leaves some unread would let
            // this grow for ever; each octet once on average.
            self.control.drain(..self.control_start);
            self.control_start = 0;
        }
        done
    }

    /// Appends to a stream's queue. `waits`: its window is closed, or the connection's.
    #[inline]
    pub fn push(&mut self, queue: &mut Queue, data: Bytes, waits: bool) {
        debug_assert!(!data.is_empty());
        let gather = data.len() < COMPACT_BELOW && (waits || queue.pieces >= PIECES_BY_REFERENCE);
        queue.octets += data.len();
        self.queued += data.len();
        if !gather {
            return self.append(queue, Piece::Shared(data));
        }
        self.gather(queue, &data);
    }

    /// Puts a small piece to the last one, if that is gathered.
    #[cold]
    fn gather(&mut self, queue: &mut Queue, data: &[u8]) {
        // COPY: a small piece that waits, so that it does not pin a read buffer; once per piece.
        if let Some(Node { piece: Piece::Gathered(gathered), .. }) =
            self.nodes.get_mut(queue.tail as usize)
            && gathered.len() + data.len() <= GATHERED_MAX
        {
            gathered.extend_from_slice(data);
            return;
        }
        self.append(queue, Piece::Gathered(data.to_vec()));
    }

    #[inline(always)]
    fn append(&mut self, queue: &mut Queue, piece: Piece) {
        let node = Node { piece, next: NONE };
        let at = match self.vacant {
            NONE => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
            at => {
                self.vacant = self.nodes[at as usize].next;
                self.nodes[at as usize] = node;
                at
            }
        };
        match queue.tail {
            NONE => queue.head = at,
            tail => self.nodes[tail as usize].next = at,
        }
        queue.tail = at;
        queue.pieces += 1;
    }

    /// Takes the first piece off, without counting its octets.
    #[inline]
    fn detach(&mut self, queue: &mut Queue) -> Option<Piece> {
        let at = queue.head;
        let node = self.nodes.get_mut(at as usize)?;
        queue.head = std::mem::replace(&mut node.next, self.vacant);
        self.vacant = at;
        queue.pieces -= 1;
        if queue.head == NONE {
            queue.tail = NONE;
        }
        Some(std::mem::replace(&mut node.piece, Piece::Vacant))
    }

    /// Up to `max` octets off the front, without counting them.
    fn split(&mut self, queue: &mut Queue, max: usize) -> Bytes {
        let Some(node) = self.nodes.get_mut(queue.head as usize) else { return Bytes::new() };
        if let Piece::Gathered(gathered) = &mut node.piece {
            node.piece = Piece::Shared(Bytes::from(std::mem::take(gathered)));
        }
        match &mut node.piece {
            Piece::Shared(bytes) if bytes.len() > max => bytes.split_to(max),
            Piece::Shared(_) | Piece::Gathered(_) | Piece::Vacant => {
                self.detach(queue).map_or(Bytes::new(), Piece::into_bytes)
            }
        }
    }

    /// One DATA frame of the first `len` octets of `queue`.
    pub fn write_data(
        &mut self,
        queue: &mut Queue,
        stream: StreamId,
        len: usize,
        end_stream: bool,
        out: &mut Transmit,
    ) {
        debug_assert!(0 < len && len <= queue.octets);
        let flags = if end_stream { flag::END_STREAM } else { 0 };
        let from = out.framing.len();
        FrameHeader::new(len as u32, FrameType::Data, flags, stream).write(&mut out.framing);
        note_framing(out, from);
        out.len += len;
        self.queued -= len;
        let drained = len == queue.octets;
        queue.octets -= len;
        if drained {
            while let Some(piece) = self.detach(queue) {
                out.segments.push(Segment::Payload(piece.into_bytes()));
            }
            return;
        }
        let mut left = len;
        while left > 0 {
            let bytes = self.split(queue, left);
            debug_assert!(!bytes.is_empty());
            left -= bytes.len().clamp(1, left);
            out.segments.push(Segment::Payload(bytes));
        }
    }

    /// Drops what is queued.
    pub fn clear(&mut self, queue: &mut Queue) {
        while self.detach(queue).is_some() {}
        self.queued -= queue.octets;
        queue.octets = 0;
        debug_assert_eq!(queue.pieces, 0);
    }

    /// COPY: small pieces of a queue that waits for a window, once each, so that what a stalled
    /// stream keeps alive is bounded by its window and not by the read buffers it lies in.
    pub fn compact(&mut self, queue: &mut Queue) {
        let mut old = std::mem::take(queue);
        self.queued -= old.octets;
        for _ in 0..old.pieces {
            match self.detach(&mut old) {
                Some(Piece::Shared(bytes)) => self.push(queue, bytes, true),
                Some(Piece::Gathered(gathered)) => {
                    queue.octets += gathered.len();
                    self.queued += gathered.len();
                    self.append(queue, Piece::Gathered(gathered));
                }
                Some(Piece::Vacant) | None => {}
            }
        }
        debug_assert_eq!(queue.octets, old.octets);
    }

    pub fn has_ready(&self) -> bool {
        self.first != NONE
    }

    /// The stream whose turn it is.
    pub fn first_ready(&self) -> Option<Slot> {
        self.has_ready().then_some(Slot(self.first))
    }

    /// The stream after this one in the ring.
    pub fn next_ready(&self, stream: &Stream) -> Option<Slot> {
        stream.link.filter(|link| link.next != NONE).map(|link| Slot(link.next))
    }

    /// Puts a stream at the end of the ring, or takes it out, as its state asks (invariant 3).
    pub fn relink(&mut self, table: &mut Table, slot: Slot) {
        let stream = table.stream(slot);
        match (stream.is_sendable(), stream.link.is_some()) {
            (true, false) => self.link(table, slot),
            (false, true) => self.unlink(table, slot),
            (true, true) | (false, false) => {}
        }
    }

    /// Puts a sendable stream at the end of the ring.
    #[inline]
    pub fn link(&mut self, table: &mut Table, slot: Slot) {
        let previous = self.last;
        match previous {
            NONE => self.first = slot.0,
            last => {
                let neighbour = table.stream_mut(Slot(last));
                if let Some(link) = &mut neighbour.link {
                    link.next = slot.0;
                }
            }
        }
        table.stream_mut(slot).link = Some(Link { previous, next: NONE });
        self.last = slot.0;
    }

    /// Takes a stream out of the ring, if it is in.
    #[inline]
    pub fn unlink(&mut self, table: &mut Table, slot: Slot) {
        let Some(Link { previous, next }) = table.stream_mut(slot).link.take() else { return };
        match previous {
            NONE => self.first = next,
            previous => {
                if let Some(link) = &mut table.stream_mut(Slot(previous)).link {
                    link.next = next;
                }
            }
        }
        match next {
            NONE => self.last = previous,
            next => {
                if let Some(link) = &mut table.stream_mut(Slot(next)).link {
                    link.previous = previous;
                }
            }
        }
    }

    #[inline]
    pub fn note_sent(&mut self, sent: Sent) {
        if let Some([.., last]) = self.sent.get_mut(self.told..)
            && last.stream == sent.stream
        {
            last.octets += sent.octets;
            return;
        }
        self.sent.push(sent);
    }

    pub fn poll_sent(&mut self) -> Option<Sent> {
        let sent = self.sent.get(self.told).copied();
        match sent {
            Some(_) => self.told += 1,
            None => {
                self.sent.clear();
                self.told = 0;
            }
        }
        sent
    }

    /// Forgets all DATA, with the streams it belonged to; control octets stay.
    pub fn drop_data(&mut self) {
        self.nodes = Vec::new();
        self.queued = 0;
        self.vacant = NONE;
        self.first = NONE;
        self.last = NONE;
    }

    /// Invariant 3, and what a queue says of itself.
    pub fn check_invariants(&self, table: &Table) {
        let mut linked = 0;
        let mut at = self.first_ready();
        while let Some(slot) = at {
            linked += 1;
            assert!(linked <= table.len());
            at = self.next_ready(table.stream(slot));
        }
        let sendable = table.slots().filter(|slot| table.stream(*slot).is_sendable()).count();
        assert_eq!(linked, sendable);
        let queued: usize = table.slots().map(|slot| table.stream(slot).queue.octets).sum();
        assert_eq!(queued, self.queued);
        for slot in table.slots() {
            let stream = table.stream(slot);
            assert_eq!(stream.link.is_some(), stream.is_sendable());
            self.check_queue(&stream.queue);
        }
    }

    fn check_queue(&self, queue: &Queue) {
        let (mut pieces, mut octets) = (0, 0);
        let mut at = queue.head;
        while at != NONE {
            let node = &self.nodes[at as usize];
            pieces += 1;
            octets += match &node.piece {
                Piece::Shared(bytes) => bytes.len(),
                Piece::Gathered(gathered) => gathered.len(),
                Piece::Vacant => unreachable!("a vacant node in a queue"),
            };
            at = node.next;
        }
        assert_eq!((pieces, octets), (queue.pieces, queue.octets));
    }
}

/// Counts what was appended to the framing buffer since `from`, in one segment with its
/// predecessor where they adjoin.
#[inline]
pub fn note_framing(out: &mut Transmit, from: usize) {
    let (from, end) = (from as u32, out.framing.len() as u32);
    out.len += (end - from) as usize;
    match out.segments.last_mut() {
        Some(Segment::Framing(range)) if range.end == from => range.end = end,
        Some(Segment::Framing(_) | Segment::Payload(_)) | None => {
            out.segments.push(Segment::Framing(from..end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream::{RecvHalf, SendHalf};
    use super::*;

    fn octets(out: &Transmit) -> Vec<u8> {
        let all = out.slices().collect::<Vec<_>>().concat();
        assert_eq!(all.len(), out.len);
        all
    }

    #[test]
    fn pieces_go_by_reference_whatever_their_size() {
        let mut outbox = Outbox::new();
        let mut queue = Queue::default();
        let large = Bytes::from(vec![7; 1000]);
        outbox.push(&mut queue, large.clone(), false);
        let small = Bytes::from(b"small".to_vec());
        outbox.push(&mut queue, small.clone(), false);
        let mut out = Transmit::new();
        outbox.write_data(&mut queue, StreamId(3), 1005, true, &mut out);
        assert!(queue.is_empty());
        outbox.check_queue(&queue);
        let [Segment::Framing(_), Segment::Payload(first), Segment::Payload(second)] =
            &out.segments[..]
        else {
            panic!("{} segments", out.segments.len())
        };
        assert_eq!((first.as_ptr(), second.as_ptr()), (large.as_ptr(), small.as_ptr()));
        let header = [0, 3, 237, 0, 1, 0, 0, 0, 3];
        assert_eq!(octets(&out), [&header[..], &large, b"small"].concat());
    }

    #[test]
    fn pieces_are_split_at_frame_ends() {
        let mut outbox = Outbox::new();
        let mut queue = Queue::default();
        outbox.push(&mut queue, Bytes::from_static(b"abcde"), false);
        outbox.push(&mut queue, Bytes::from_static(b"fgh"), false);
        let mut out = Transmit::new();
        for (len, end) in [(3, false), (3, false), (2, true)] {
            outbox.write_data(&mut queue, StreamId(1), len, end, &mut out);
            outbox.check_queue(&queue);
        }
        let expected = [
            &b"\0\0\x03\0\0\0\0\0\x01abc"[..],
            b"\0\0\x03\0\0\0\0\0\x01def",
            b"\0\0\x02\0\x01\0\0\0\x01gh",
        ];
        assert_eq!(octets(&out), expected.concat());
    }

    #[test]
    fn what_waits_is_gathered() {
        let buffer = Bytes::from(vec![1; 64 << 10]);
        let mut outbox = Outbox::new();
        let mut queue = Queue::default();
        for n in 0..10 {
            outbox.push(&mut queue, buffer.slice(n..n + 1), false);
        }
        outbox.push(&mut queue, buffer.slice(0..COMPACT_BELOW), false);
        outbox.push(&mut queue, buffer.slice(0..3), false);
        assert_eq!(queue.pieces, 12);
        outbox.compact(&mut queue);
        assert_eq!(queue.pieces, 3, "ten in one, the large one, the last");
        outbox.push(&mut queue, buffer.slice(0..3), true);
        assert_eq!(queue.pieces, 3);
        assert_eq!(queue.octets(), 10 + COMPACT_BELOW + 6);
        outbox.check_queue(&queue);
        outbox.clear(&mut queue);
        assert!(buffer.is_unique(), "nothing refers to the read buffer");
    }

    #[test]
    fn gathering_keeps_the_order() {
        let mut outbox = Outbox::new();
        let mut queue = Queue::default();
        outbox.push(&mut queue, Bytes::from_static(b"a"), false);
        outbox.push(&mut queue, Bytes::from_static(b"b"), true);
        outbox.compact(&mut queue);
        outbox.push(&mut queue, Bytes::from_static(b"c"), false);
        outbox.push(&mut queue, Bytes::from_static(b"d"), true);
        outbox.compact(&mut queue);
        let mut out = Transmit::new();
        outbox.write_data(&mut queue, StreamId(1), 4, false, &mut out);
        assert_eq!(octets(&out), b"\0\0\x04\0\0\0\0\0\x01abcd");
    }

    #[test]
    fn many_small_pieces_are_gathered_though_nothing_is_closed() {
        let mut outbox = Outbox::new();
        let mut queue = Queue::default();
        for _ in 0..10_000 {
            outbox.push(&mut queue, Bytes::from_static(b"0123456789"), false);
        }
        assert!(queue.pieces <= PIECES_BY_REFERENCE + 100_000 / GATHERED_MAX as u32 + 1);
        outbox.check_queue(&queue);
    }

    #[test]
    fn control_stops_at_the_limit_and_goes_on() {
        let mut outbox = Outbox::new();
        outbox.control().extend_from_slice(b"0123456789");
        let mut out = Transmit::new();
        assert!(!outbox.flush_control(&mut out, 4));
        assert_eq!(outbox.control_len(), 6);
        outbox.control().extend_from_slice(b"abc");
        assert!(outbox.flush_control(&mut out, 100));
        assert_eq!(octets(&out), b"0123456789abc");
        assert_eq!(out.segments.len(), 1);
    }

    /// A peer that reads steadily and never all of it.
    #[test]
    fn control_that_is_never_empty_does_not_grow() {
        let mut outbox = Outbox::new();
        let mut written = Vec::new();
        for round in 0..=255 {
            outbox.control().extend_from_slice(&[round; 100]);
            let mut out = Transmit::new();
            let done = outbox.flush_control(&mut out, if round == 0 { 50 } else { 100 });
            assert!(!done && outbox.control_len() == 50);
            written.extend(octets(&out));
        }
        assert!(outbox.control.capacity() <= 400, "{}", outbox.control.capacity());
        let expected: Vec<u8> = (0..=255).flat_map(|round| [round; 100]).collect();
        assert_eq!(written, expected[..written.len()]);
    }

    #[test]
    fn ring_survives_removal_in_the_middle() {
        let mut table = Table::new();
        let mut outbox = Outbox::new();
        let slots: Vec<Slot> = (0..4)
            .map(|n| {
                let id = StreamId(2 * n + 1);
                let mut stream = Stream::new(id, RecvHalf::Body, SendHalf::Body, 9, 9);
                outbox.push(&mut stream.queue, Bytes::from_static(b"x"), false);
                table.insert(stream)
            })
            .collect();
        for slot in &slots {
            outbox.relink(&mut table, *slot);
        }
        outbox.check_invariants(&table);
        for gone in [1, 3, 0] {
            outbox.unlink(&mut table, slots[gone]);
            outbox.clear(&mut table.stream_mut(slots[gone]).queue);
            outbox.check_invariants(&table);
        }
        assert_eq!(outbox.first_ready(), Some(slots[2]));
    }
}
