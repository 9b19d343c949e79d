//! A client and a server, both ours, joined by two pipes; the input says what each owner does and
//! which octets arrive when. What must hold: neither blames the other for anything; fields and
//! DATA arrive as they went and in order; a call that nobody cancelled ends whole on both sides;
//! in the end nothing is left anywhere; the invariants after each step.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ringside::http2::field::{FieldSection, classify_none};
use ringside::http2::{
    Connection, ErrorCode, Event, Limits, OpenError, Role, SectionKind, StreamId, Transmit,
};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// No waits of more than this in all: a SETTINGS that is not acknowledged in time is a fault.
const WAITS_MAX: Duration = Duration::from_secs(5);
/// Rounds that the end may take: windows of one octet make it long.
const ROUNDS_MAX: usize = 100_000;
/// Octets that one side of a call says at most, for the same reason.
const SAID_MAX: usize = 1000;

const CLIENT: usize = 0;
const SERVER: usize = 1;

/// One side of a call, and what has arrived of it at the other.
#[derive(Debug, Default)]
struct Half {
    head: bool,
    said: usize,
    ended: bool,
    heard_head: bool,
    heard: usize,
    heard_end: bool,
    /// The listener's: received and not released.
    held: u32,
}

#[derive(Debug, Default)]
struct Call {
    /// By speaker.
    halves: [Half; 2],
    /// Cancelled, refused or reset: nothing more is expected of it.
    broken: bool,
}

impl Call {
    fn is_over(&self) -> bool {
        self.broken || self.halves.iter().all(|half| half.heard_end)
    }
}

struct Pair {
    now: Instant,
    waited: Duration,
    ends: [Connection; 2],
    /// By speaker.
    pipes: [Vec<u8>; 2],
    calls: BTreeMap<u32, Call>,
    /// Request heads that the client's owner keeps, by their tags.
    lent: BTreeMap<u64, FieldSection>,
    retired: bool,
}

fn limits(control: u8) -> Limits {
    Limits {
        stream_window: [1, 100, 65_535, 256 << 10][usize::from(control & 3)],
        connection_window: 65_535,
        held_bytes_max: [0, 1000, 16 << 20, 16 << 20][usize::from(control >> 2 & 3)],
        max_concurrent_streams: [None, Some(1), Some(3), None][usize::from(control >> 4 & 3)],
        header_table_size: [4096, 0, 70, 16_384][usize::from(control >> 6 & 3)],
        ping_ack_delay: Duration::from_millis(u64::from(control & 16)),
        resets_burst: u32::MAX,
        control_burst: u32::MAX,
        ..Limits::default()
    }
}

fn fields(head: &[(&[u8], &[u8])], number: usize, value: u8) -> FieldSection {
    let mut fields = FieldSection::new();
    for (name, value) in head {
        fields.push(name, value);
    }
    fields.push(b"x-number", number.to_string().as_bytes());
    let value = [b'a' + value % 26].repeat(usize::from(value / 4));
    fields.push([&b"x-a"[..], b"x-b", b"cookie"][usize::from(value.len() as u8 % 3)], &value);
    fields
}

/// What a side of a stream says at a place.
fn octet(stream: u32, speaker: usize, at: usize) -> u8 {
    (at as u32).wrapping_mul(31).wrapping_add(stream + speaker as u32) as u8
}

impl Pair {
    fn new(first: u8, second: u8) -> Self {
        #[allow(clippy::disallowed_methods)] // an arbitrary instant to count from
        let now = Instant::now();
        let end = |role, control| Connection::new(role, limits(control), classify_none, now);
        Self {
            now,
            waited: Duration::ZERO,
            ends: [end(Role::Client, first), end(Role::Server, second)],
            pipes: [Vec::new(), Vec::new()],
            calls: BTreeMap::new(),
            lent: BTreeMap::new(),
            retired: false,
        }
    }

    fn open(&mut self, argument: u8) {
        let head: [(&[u8], &[u8]); 3] =
            [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a.B/C")];
        let bare = argument & 1 != 0;
        let client = &mut self.ends[CLIENT];
        let fields = fields(&head, self.calls.len(), argument);
        let tag = self.calls.len() as u64;
        let opened = if argument & 2 != 0 {
            let opened = client.open_lent(&fields, bare, tag);
            self.lent.insert(tag, fields);
            opened
        } else {
            client.open(fields, bare, tag)
        };
        match opened {
            Ok(stream) => {
                let mut call = Call::default();
                (call.halves[CLIENT].head, call.halves[CLIENT].ended) = (true, bare);
                self.calls.insert(stream.0, call);
            }
            Err(OpenError::Full) => assert_eq!(client.can_open(), 0),
            Err(OpenError::Retired) => assert!(self.retired),
        }
    }

    /// The call that `argument` chooses, if it is not over.
    fn chosen(&self, argument: u8) -> Option<u32> {
        let nth = usize::from(argument & 7);
        self.calls.iter().filter(|(_, call)| !call.is_over()).nth(nth).map(|(id, _)| *id)
    }

    fn say(&mut self, speaker: usize, argument: u8, how: u8) {
        let Some(id) = self.chosen(argument) else { return };
        let stream = StreamId(id);
        let end = &mut self.ends[speaker];
        let call = self.calls.get_mut(&id).expect("it was chosen");
        // The server knows only what it has heard of.
        if call.halves[speaker].ended || (speaker == SERVER && !call.halves[CLIENT].heard_head) {
            return;
        }
        let half = &mut call.halves[speaker];
        if !half.head {
            let early = fields(&[(b":status", b"103")], 0, argument);
            if how & 8 != 0 {
                end.send_headers(stream, early, false);
            }
            let only = how & 3 == 3;
            end.send_headers(stream, fields(&[(b":status", b"200")], 0, argument), only);
            (half.head, half.ended) = (true, only);
        } else {
            let len = (usize::from(argument >> 3) * 40).min(SAID_MAX - half.said.min(SAID_MAX));
            let from = half.said;
            let data: Vec<u8> = (from..from + len).map(|at| octet(id, speaker, at)).collect();
            half.said += len;
            half.ended = how & 1 != 0;
            end.send_data(stream, data.into(), how & 3 == 1);
            if how & 3 == 3 {
                end.send_headers(stream, fields(&[], 1, argument), true);
            }
        }
        if speaker == SERVER && half.ended && how & 4 != 0 && !call.halves[CLIENT].heard_end {
            // An early answer: the rest of the request is not wanted (RFC 9113 §8.1).
            end.send_reset(stream, ErrorCode::NO_ERROR);
            call.broken = true;
        }
    }

    fn reset(&mut self, speaker: usize, argument: u8) {
        let Some(id) = self.chosen(argument) else { return };
        let call = self.calls.get_mut(&id).expect("it was chosen");
        if speaker == CLIENT || call.halves[CLIENT].heard_head {
            self.ends[speaker].send_reset(StreamId(id), ErrorCode(u32::from(argument >> 3)));
            call.broken = true;
        }
    }

    fn release(&mut self, listener: usize, argument: u8) {
        let Some(id) = self.chosen(argument) else { return };
        let half = &mut self.calls.get_mut(&id).expect("it was chosen").halves[1 - listener];
        let octets = half.held.min(u32::from(argument >> 3) * 16);
        half.held -= octets;
        self.ends[listener].release(StreamId(id), octets);
    }

    fn transmit(&mut self, speaker: usize, octets_max: usize) {
        let mut out = Transmit::new();
        let end = &mut self.ends[speaker];
        let wanted = end.wants_transmit();
        end.poll_transmit_lent(&mut out, octets_max, |tag| self.lent.get(&tag));
        assert_eq!(wanted, !out.is_empty());
        let before = self.pipes[speaker].len();
        self.pipes[speaker].extend(out.slices().flatten());
        assert_eq!(self.pipes[speaker].len() - before, out.len);
        while end.poll_sent().is_some() {}
    }

    fn deliver(&mut self, speaker: usize, octets: usize) {
        let pipe = &mut self.pipes[speaker];
        let rest = pipe.split_off(octets.min(pipe.len()));
        let octets = std::mem::replace(pipe, rest);
        self.ends[1 - speaker].recv(octets.into(), self.now);
        while let Some(event) = self.ends[1 - speaker].poll_event() {
            self.hear(speaker, event);
        }
    }

    /// What the other side of `speaker` was told.
    fn hear(&mut self, speaker: usize, event: Event) {
        match event {
            Event::Headers { stream, kind, fields, end_stream, .. } => {
                let call = self.calls.get_mut(&stream.0).expect("a stream of ours");
                let half = &mut call.halves[speaker];
                assert!(half.head && !half.heard_end, "{stream:?} {kind:?}");
                match kind {
                    SectionKind::Trailers => assert!(half.heard_head && end_stream),
                    SectionKind::Informational => assert!(!half.heard_head && speaker == SERVER),
                    SectionKind::Request | SectionKind::Response => {
                        assert_eq!(speaker == SERVER, kind == SectionKind::Response);
                        assert!(!half.heard_head);
                        half.heard_head = true;
                    }
                }
                half.heard_end = end_stream;
                assert!(!end_stream || call.broken || half.heard == half.said);
                assert!(fields.value(b"x-number").is_some());
                self.ends[1 - speaker].recycle(fields);
            }
            Event::Data { stream, data, end_stream, .. } => {
                let call = self.calls.get_mut(&stream.0).expect("a stream of ours");
                let half = &mut call.halves[speaker];
                assert!(half.heard_head && !half.heard_end);
                for (at, heard) in data.iter().enumerate() {
                    assert_eq!(*heard, octet(stream.0, speaker, half.heard + at));
                }
                half.heard += data.len();
                half.held += data.len() as u32;
                half.heard_end = end_stream;
                assert!(!end_stream || call.broken || half.heard == half.said);
            }
            Event::Reset { stream, .. } => {
                let call = self.calls.get_mut(&stream.0).expect("a stream of ours");
                // Refused: beyond a limit that the client did not know yet, or a GOAWAY.
                assert!(call.broken || speaker == SERVER);
                call.broken = true;
            }
            Event::Refused { stream, .. } => {
                assert!(self.retired);
                self.calls.get_mut(&stream.0).expect("a stream of ours").broken = true;
            }
            Event::Goaway { code, .. } => assert!(self.retired && code == ErrorCode::NO_ERROR),
            // Streams beyond a limit that the client did not know yet.
            Event::Settings | Event::Pong { .. } | Event::Limited(_) => {}
            Event::StreamFailed { .. } | Event::Failed(_) => panic!("{event:?}"),
        }
    }

    fn wait(&mut self, argument: u8) {
        let time = Duration::from_millis(u64::from(argument)).min(WAITS_MAX - self.waited);
        self.waited += time;
        self.now += time;
        for end in &mut self.ends {
            if end.poll_timeout().is_some_and(|deadline| deadline <= self.now) {
                end.handle_timeout(self.now);
            }
        }
    }

    fn step(&mut self, what: u8, argument: u8) {
        let side = usize::from(what >> 7);
        match what & 15 {
            0 | 1 => self.open(argument),
            2..=5 => self.say(side, argument, what >> 3 & 15),
            6 => self.reset(side, argument),
            7 | 8 => self.release(side, argument),
            9 | 10 => self.transmit(side, 1 << (argument & 15)),
            11 | 12 => self.deliver(side, 1 << (argument & 15)),
            13 => self.ends[side].ping([argument; 8]),
            14 if argument > 240 => {
                self.retired = true;
                self.ends[SERVER].goaway(ErrorCode::NO_ERROR, "");
            }
            14 if argument > 220 => {
                self.retired = true;
                self.ends[SERVER].goaway_notice();
            }
            14 => {
                let spare = self.ends[side].spare();
                self.ends[side].recycle(spare);
            }
            _ => self.wait(argument),
        }
        self.check();
    }

    fn check(&self) {
        for end in &self.ends {
            end.check_invariants();
        }
    }

    /// Lets everything come to its end.
    fn finish(&mut self) {
        for _ in 0..ROUNDS_MAX {
            for speaker in [CLIENT, SERVER] {
                for id in self.calls.keys().copied().collect::<Vec<_>>() {
                    let call = self.calls.get_mut(&id).expect("it is there");
                    let held = std::mem::take(&mut call.halves[speaker].held);
                    self.ends[1 - speaker].release(StreamId(id), held);
                    let known = speaker == CLIENT || call.halves[CLIENT].heard_head;
                    let half = &mut call.halves[speaker];
                    if !half.ended && known && !call.broken {
                        if !half.head {
                            half.head = true;
                            let head = fields(&[(b":status", b"200")], 0, 0);
                            self.ends[speaker].send_headers(StreamId(id), head, false);
                        }
                        half.ended = true;
                        self.ends[speaker].send_data(StreamId(id), Bytes::new(), true);
                    }
                }
                self.transmit(speaker, usize::MAX);
                self.deliver(speaker, usize::MAX);
            }
            let still = self.calls.values().any(|call| !call.is_over());
            let moving = self.pipes.iter().any(|pipe| !pipe.is_empty())
                || self.ends.iter().any(Connection::wants_transmit);
            if !still && !moving {
                break;
            }
        }
        self.check();
        for call in self.calls.values() {
            assert!(call.is_over(), "{call:?}");
        }
        for end in &self.ends {
            assert_eq!((end.streams(), end.has_failed()), (0, false));
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some(([first, second], rest)) = data.split_first_chunk() else { return };
    let mut pair = Pair::new(*first, *second);
    for [what, argument] in rest.as_chunks().0 {
        pair.step(*what, *argument);
    }
    pair.finish();
});
