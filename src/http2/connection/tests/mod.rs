//! Tests of the connection speak frames: a peer that is nothing but octets, written and read
//! here without the code under test.

mod abuse;
mod basics;
mod chaos;
mod flow;
mod pair;
mod rules;

use super::super::field::classify_none;
use super::*;
use crate::http2::{Limit, SectionKind, StreamError, Transmit};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
pub(super) const WITH_PRIORITY: u8 = 0x20;

/// RFC 9113 §3.4.
pub(super) const CLIENT_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame as it stands on the wire.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, flags, stream, payload } = self;
        let payload = String::from_utf8_lossy(payload);
        write!(f, "frame({kind}, {flags:#x}, {stream}, {payload:?})")
    }
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Frame {
    Frame { kind, flags, stream, payload: payload.as_ref().to_vec() }
}

impl Frame {
    pub fn octets(&self) -> Vec<u8> {
        let len = (self.payload.len() as u32).to_be_bytes();
        let stream = self.stream.to_be_bytes();
        let head = [&len[1..], &[self.kind, self.flags], &stream[..]].concat();
        [head, self.payload.clone()].concat()
    }

    /// The frames in `octets`, which must end with one.
    pub fn parse_all(mut octets: &[u8]) -> Vec<Self> {
        let mut frames = Vec::new();
        while let [a, b, c, kind, flags, s0, s1, s2, s3, rest @ ..] = octets {
            let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let stream = u32::from_be_bytes([*s0, *s1, *s2, *s3]);
            frames.push(frame(*kind, *flags, stream, &rest[..len]));
            octets = &rest[len..];
        }
        assert!(octets.is_empty(), "octets that are no frame: {octets:?}");
        frames
    }
}

/// A field block of literals without indexing (RFC 7541 §6.2.2), not Huffman-coded.
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for string in [name, value] {
            assert!(string.len() < 127, "one octet says the length");
            out.push(string.len() as u8);
            out.extend_from_slice(string.as_bytes());
        }
    }
    out
}

pub(super) const REQUEST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":path", "/a.B/C"), (":authority", "x")];

pub(super) fn request(stream: u32, flags: u8) -> Frame {
    frame(HEADERS, flags | END_HEADERS, stream, block(&REQUEST))
}

/// A request that has more fields than [`REQUEST`].
pub(super) fn request_and(stream: u32, flags: u8, more: &[(&'static str, &'static str)]) -> Frame {
    let fields = [&REQUEST[..], more].concat();
    frame(HEADERS, flags | END_HEADERS, stream, block(&fields))
}

pub(super) fn response(stream: u32, flags: u8) -> Frame {
    frame(HEADERS, flags | END_HEADERS, stream, block(&[(":status", "200")]))
}

pub(super) fn trailers(stream: u32) -> Frame {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, block(&[("grpc-status", "0")]))
}

pub(super) fn data(stream: u32, flags: u8, payload: impl AsRef<[u8]>) -> Frame {
    frame(DATA, flags, stream, payload)
}

pub(super) fn rst(stream: u32, code: ErrorCode) -> Frame {
    frame(RST_STREAM, 0, stream, code.0.to_be_bytes())
}

pub(super) fn update(stream: u32, increment: u32) -> Frame {
    frame(WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
}

pub(super) fn settings(values: &[(u16, u32)]) -> Frame {
    let values =
        values.iter().map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat());
    frame(SETTINGS, 0, 0, values.collect::<Vec<_>>().concat())
}

pub(super) fn settings_ack() -> Frame {
    frame(SETTINGS, ACK, 0, [])
}

pub(super) fn goaway(last: u32, code: ErrorCode, debug: &str) -> Frame {
    let payload = [&last.to_be_bytes()[..], &code.0.to_be_bytes(), debug.as_bytes()].concat();
    frame(GOAWAY, 0, 0, payload)
}

pub(super) fn section(fields: &[(&str, &str)]) -> FieldSection {
    let mut section = FieldSection::new();
    for (name, value) in fields {
        section.push(name.as_bytes(), value.as_bytes());
    }
    section
}

#[expect(clippy::disallowed_methods, reason = "an arbitrary instant to count from")]
pub(super) fn start() -> Instant {
    Instant::now()
}

/// What an owner sees, in a form to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Headers(u32, SectionKind, Vec<(String, String)>, bool),
    Data(u32, Vec<u8>, bool),
    Reset(u32, ErrorCode),
    StreamFailed(u32, ErrorCode),
    Goaway(u32, ErrorCode, Vec<u8>),
    Refused(u32),
    Pong([u8; 8]),
    Settings,
    Limited(Limit),
    Failed(ErrorCode),
}

pub(super) fn seen(event: &Event) -> Seen {
    match event {
        Event::Headers { stream, kind, fields, end_stream, .. } => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let fields = fields.iter().map(|field| (text(field.name), text(field.value)));
            Seen::Headers(stream.0, *kind, fields.collect(), *end_stream)
        }
        Event::Data { stream, data, end_stream, .. } => {
            Seen::Data(stream.0, data.to_vec(), *end_stream)
        }
        Event::Reset { stream, code, .. } => Seen::Reset(stream.0, *code),
        Event::StreamFailed { stream, error: StreamError { code, .. }, .. } => {
            Seen::StreamFailed(stream.0, *code)
        }
        Event::Goaway { last, code, debug } => Seen::Goaway(last.0, *code, debug.to_vec()),
        Event::Refused { stream, .. } => Seen::Refused(stream.0),
        Event::Pong { payload } => Seen::Pong(*payload),
        Event::Settings => Seen::Settings,
        Event::Limited(limit) => Seen::Limited(*limit),
        Event::Failed(error) => Seen::Failed(error.code),
    }
}

pub(super) fn head(stream: u32, kind: SectionKind, fields: &[(&str, &str)], end: bool) -> Seen {
    let fields = fields.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    Seen::Headers(stream, kind, fields.collect(), end)
}

/// A connection and what surrounds it.
pub(super) struct Bench {
    pub conn: Connection,
    pub now: Instant,
    /// What was written and nobody has looked at: a peer answers only what it was sent.
    sent: Vec<u8>,
}

impl Bench {
    /// Nothing exchanged yet.
    pub fn fresh(role: Role, limits: Limits) -> Self {
        let now = start();
        Self { conn: Connection::new(role, limits, classify_none, now), now, sent: Vec::new() }
    }

    /// After both prefaces.
    pub fn settled(role: Role, limits: Limits) -> Self {
        let mut bench = Self::fresh(role, limits);
        if role == Role::Server {
            bench.conn.recv(Bytes::from_static(CLIENT_PREFACE), bench.now);
        }
        assert_eq!(bench.give(&[settings(&[]), settings_ack()]), [Seen::Settings]);
        bench.take_octets();
        bench
    }

    pub fn server() -> Self {
        Self::settled(Role::Server, Limits::default())
    }

    pub fn client() -> Self {
        Self::settled(Role::Client, Limits::default())
    }

    pub fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.conn.poll_event() {
            self.conn.check_invariants();
            events.push(event);
        }
        self.conn.check_invariants();
        events
    }

    pub fn give_octets(&mut self, octets: &[u8]) -> Vec<Seen> {
        if self.conn.is_unsent(StreamId(u32::MAX)) {
            self.sent = self.take_octets();
        }
        self.conn.recv(Bytes::copy_from_slice(octets), self.now);
        self.events().iter().map(seen).collect()
    }

    pub fn give(&mut self, frames: &[Frame]) -> Vec<Seen> {
        let octets: Vec<u8> = frames.iter().flat_map(Frame::octets).collect();
        self.give_octets(&octets)
    }

    pub fn take_octets(&mut self) -> Vec<u8> {
        let mut out = Transmit::new();
        self.conn.poll_transmit(&mut out, usize::MAX);
        self.conn.check_invariants();
        assert!(!self.conn.wants_transmit());
        let octets = out.slices().collect::<Vec<_>>().concat();
        assert_eq!(octets.len(), out.len);
        [std::mem::take(&mut self.sent), octets].concat()
    }

    /// What the connection wants to say.
    pub fn take(&mut self) -> Vec<Frame> {
        Frame::parse_all(&self.take_octets())
    }

    /// As [`Self::take`], without payload where that is a field block.
    pub fn take_shapes(&mut self) -> Vec<(u8, u8, u32)> {
        self.take().iter().map(|frame| (frame.kind, frame.flags, frame.stream)).collect()
    }

    pub fn open(&mut self, end_stream: bool) -> u32 {
        self.conn.open(section(&REQUEST), end_stream, 7).unwrap().0
    }

    pub fn respond(&mut self, stream: u32, end_stream: bool) {
        self.conn.send_headers(StreamId(stream), section(&[(":status", "200")]), end_stream);
    }

    pub fn send(&mut self, stream: u32, payload: impl AsRef<[u8]>, end_stream: bool) {
        let payload = Bytes::copy_from_slice(payload.as_ref());
        self.conn.send_data(StreamId(stream), payload, end_stream);
    }

    pub fn send_trailers(&mut self, stream: u32) {
        self.conn.send_headers(StreamId(stream), section(&[("grpc-status", "0")]), true);
    }

    /// The frames break the connection with `code`.
    #[track_caller]
    pub fn expect_failure(&mut self, frames: &[Frame], code: ErrorCode) {
        let events = self.give(frames);
        assert_eq!(events.last(), Some(&Seen::Failed(code)), "{events:?}");
        assert!(self.conn.has_failed() && self.conn.is_retired());
        let said = self.take();
        let last = said.last().expect("GOAWAY");
        assert_eq!((last.kind, &last.payload[4..8]), (GOAWAY, &code.0.to_be_bytes()[..]));
    }

    /// The frames reset `stream` with `code`, and the connection lives.
    #[track_caller]
    pub fn expect_reset(&mut self, frames: &[Frame], stream: u32, code: ErrorCode) {
        self.give(frames);
        assert!(self.take().contains(&rst(stream, code)));
        let ping = frame(PING, 0, 0, b"12345678");
        self.give(&[ping]);
        assert_eq!(self.take(), [frame(PING, ACK, 0, b"12345678")]);
    }
}

/// A seed is a whole run; a failure prints it.
pub(super) struct Seed(pub u64);

impl Seed {
    pub fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Seeds of a sweep: `RINGSIDE_ENGINE_SEEDS` for a long one, else what a test run can afford.
fn sweep_seeds(default: u64) -> u64 {
    let given = std::env::var("RINGSIDE_ENGINE_SEEDS").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(default)
}
