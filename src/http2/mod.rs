//! HTTP/2 without I/O: RFC 9113 and RFC 7541 for both roles, as a state machine.
//!
//! # Contract of [`Connection`]
//! Bytes in by [`Connection::recv`], then [`Connection::poll_event`] until `None`; what the owner
//! decides goes in by `open`, `send_*`, `release`; [`Connection::poll_transmit`] gives what to
//! write. [`Connection::poll_timeout`] says when to call [`Connection::handle_timeout`]. Time is an
//! argument.
//!
//! 1. `recv` never fails: a peer that breaks the rules makes a stream reset or a GOAWAY with
//!    [`Event::StreamFailed`] or [`Event::Failed`]. Input never panics.
//! 2. A frame's DATA payload is a slice of the bytes given to `recv`; it is not copied. A DATA
//!    frame may come out as several [`Event::Data`], piece by piece as bytes arrive.
//! 3. Windows (§5.2): a stream's window is given back by `release`, when the owner has passed the
//!    bytes on. The connection's window is given back on receipt as long as what the owner holds
//!    (received, not released) is within `held_bytes_max`, else by `release`: so a stalled
//!    stream stops its own sender and nobody else.
//! 4. Padding, DATA on streams that are reset or unknown, and all else that never reaches the
//!    owner give their window back at once.
//! 5. Field blocks are encoded in the order in which they leave: HPACK state and stream IDs
//!    are in wire order. Trailers wait for their stream's DATA.
//! 6. Every queue has a limit in [`Limits`].
//! 7. Stream IDs never wrap: when they run out `can_open` is 0 and the connection retires.
//!
//! Refuses to know sockets, clocks, and what a field means (see [`Classify`]).

mod abuse;
mod allowance;
mod closed;
pub mod connection;
#[cfg(not(fuzzing))]
mod deframer;
#[cfg(fuzzing)] // fuzz/targets/deframer.rs
pub mod deframer;
pub mod error;
pub mod field;
mod frame;
pub mod hpack;
mod judge;
mod message;
mod outbox;
mod prepared;
mod settings;
mod stream;
mod table;
mod window;

use bytes::Bytes;
use std::ops::Range;
use std::time::Duration;

pub use allowance::Allowance;
pub use connection::{Connection, Said};
pub use error::{ConnectionError, ErrorCode, Limit, StreamError};
pub use field::{Classify, Field, FieldSection, NameKind, PreparedField};
pub use hpack::Repeat;

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// RFC 9113 §5.1.1. Odd: opened by the client; 0: the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// What the owner wrote on a stream, given back with each of its events: its own index, usually.
pub type Tag = u64;

/// The tag of a stream on which the owner has not written one yet.
pub const NO_TAG: Tag = Tag::MAX;

/// What we allow the peer, and ourselves. Sizes in octets.
#[derive(Clone, Debug)]
pub struct Limits {
    /// SETTINGS_INITIAL_WINDOW_SIZE: receive window of each stream.
    pub stream_window: u32,
    /// Receive window of the connection.
    pub connection_window: u32,
    /// SETTINGS_MAX_FRAME_SIZE that we accept.
    pub max_frame_size: u32,
    /// SETTINGS_MAX_CONCURRENT_STREAMS that we announce (server) and enforce by REFUSED_STREAM.
    /// `None`: not announced, `streams_max` bounds.
    pub max_concurrent_streams: Option<u32>,
    /// Streams in the table, whoever opened them.
    pub streams_max: u32,
    /// SETTINGS_MAX_HEADER_LIST_SIZE, enforced while decoding: for a section that was sent in
    /// full.
    pub header_list_size: u32,
    /// What a section may take when decoded whatever its block is: so many octets, and
    /// [`HEADER_LIST_EXPANSION`] for each octet of the block, up to `header_list_size`. References
    /// to a table are what makes more of less, and a table of 4,096 octets holds no more of them:
    /// whoever has a larger section to say must send it.
    pub header_list_assured: u32,
    /// Fields in one section, enforced while decoding.
    pub fields_max: u32,
    /// What we tell peers of our kind, in a setting of our own; 0: nothing.
    pub kinship: u8,
    /// SETTINGS_HEADER_TABLE_SIZE for our decoder.
    pub header_table_size: u32,
    /// Upper bound for our encoder's table, whatever the peer announces.
    pub encoder_table_size_max: u32,
    /// CONTINUATION frames after one HEADERS.
    pub continuations_max: u32,
    /// Received and not yet released, over all streams, before the connection window closes.
    pub held_bytes_max: u32,
    /// What waits to be written of all but messages, when the peer does not read: the connection
    /// ends. Client: half as much, field blocks included, and no stream is opened.
    pub control_bytes_max: u32,
    /// How long the acknowledgement of a PING may wait for a send that goes anyway; it goes by
    /// itself after [`PING_ACK_PATIENCE`] times that. Zero: at once. Peers that probe the
    /// bandwidth send a PING with every message, and each answer of its own is a send and a wake.
    pub ping_ack_delay: Duration,
    /// Streams that the peer may reset in the read that opened them, in a burst / per second
    /// (rapid reset).
    pub resets_burst: u32,
    pub resets_per_second: u32,
    /// Streams that it may reset later.
    pub cancels_burst: u32,
    pub cancels_per_second: u32,
    /// DATA frames too small for a message's prefix cost something. Not for peers that relay what
    /// others send, a piece at a time.
    pub tiny_data_limited: bool,
    /// PING, SETTINGS, PRIORITY, empty frames in a burst / per second.
    pub control_burst: u32,
    pub control_per_second: u32,
}

/// See [`Limits::header_list_assured`].
pub const HEADER_LIST_EXPANSION: u32 = 8;

/// See [`Limits::ping_ack_delay`].
pub const PING_ACK_PATIENCE: u32 = 3;

impl Default for Limits {
    fn default() -> Self {
        Self {
            stream_window: 256 << 10,
            connection_window: 4 << 20,
            max_frame_size: 16 << 10,
            max_concurrent_streams: None,
            streams_max: 16 << 10,
            header_list_size: 64 << 10,
            header_list_assured: 64 << 10,
            kinship: 0,
            fields_max: 128,
            header_table_size: 4096,
            encoder_table_size_max: 4096,
            continuations_max: 8,
            held_bytes_max: 16 << 20,
            control_bytes_max: 1 << 20,
            ping_ack_delay: Duration::ZERO,
            resets_burst: 1000,
            resets_per_second: 33,
            // All that there can be at once.
            cancels_burst: 16 << 10,
            cancels_per_second: 1000,
            tiny_data_limited: false,
            control_burst: 1000,
            control_per_second: 100,
        }
    }
}

/// Where a field section stands in its message (RFC 9113 §8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// Server role: a new stream.
    Request,
    /// Client role: 1xx; another head follows.
    Informational,
    /// Client role: the final head.
    Response,
    Trailers,
}

/// What the peer did, in order.
#[derive(Debug)]
pub enum Event {
    /// A checked field section (§8.1 to §8.3: pseudo-header fields, lower case, no
    /// connection-specific fields). Give it back by [`Connection::recycle`] when done.
    Headers {
        stream: StreamId,
        tag: Tag,
        kind: SectionKind,
        fields: FieldSection,
        end_stream: bool,
        /// Those of its fields that came on this connection before.
        repeat: Option<Repeat>,
    },
    /// `data` may be empty when it carries `end_stream`. Owes `release(stream, data.len())`.
    Data { stream: StreamId, tag: Tag, data: Bytes, end_stream: bool },
    /// RST_STREAM from the peer; the stream is gone.
    Reset { stream: StreamId, tag: Tag, code: ErrorCode },
    /// The peer broke a rule on this stream: we have queued RST_STREAM; the stream is gone.
    /// Not given for streams that the owner never saw.
    StreamFailed { stream: StreamId, tag: Tag, error: StreamError },
    /// GOAWAY: our streams above `last` were not and will not be processed; each of
    /// them follows as a [`Event::Refused`]. No stream can be opened any more.
    Goaway { last: StreamId, code: ErrorCode, debug: Bytes },
    /// A stream of ours that the peer's GOAWAY left out; it is gone and may be tried elsewhere.
    Refused { stream: StreamId, tag: Tag },
    /// Acknowledgement of our [`Connection::ping`].
    Pong { payload: [u8; 8] },
    /// The peer's SETTINGS took effect: `can_open` may have changed. The first one is the preface.
    Settings,
    /// The peer hit a limit and the connection lives: a stream was refused or reset.
    Limited(Limit),
    /// The connection broke a rule: GOAWAY is queued, no more events follow; close after writing.
    Failed(ConnectionError),
}

/// Bytes to write, gathered: framing in one scratch buffer, payloads by reference.
#[derive(Debug, Default)]
pub struct Transmit {
    pub framing: Vec<u8>,
    pub segments: Vec<Segment>,
    /// Octets in all segments.
    pub len: usize,
}

/// In the order of the wire.
#[derive(Debug)]
pub enum Segment {
    /// A range of `framing`.
    Framing(Range<u32>),
    Payload(Bytes),
}

impl Transmit {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn clear(&mut self) {
        self.framing.clear();
        self.segments.clear();
        self.len = 0;
    }

    /// The slices to write, in order.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.segments.iter().map(|segment| match segment {
            Segment::Framing(range) => &self.framing[range.start as usize..range.end as usize],
            Segment::Payload(bytes) => &bytes[..],
        })
    }
}

/// DATA octets of one stream that a `poll_transmit` handed out: the owner may release as many
/// on the other leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub stream: StreamId,
    pub tag: Tag,
    pub octets: u32,
}

/// Why no stream could be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The peer's SETTINGS_MAX_CONCURRENT_STREAMS, or our own `streams_max`.
    Full,
    /// GOAWAY seen or sent, an error, or no stream IDs left: use another connection.
    Retired,
}
