//! The 9-octet frame header and the fixed-layout control frames (RFC 9113 §4.1, §6).
//!
//! 1. Writers append whole frames to a byte vector; none of them fails or reads.
//! 2. The reserved bit is dropped on receipt and never set (§4.1, §5.1.1, §6.9).
//!
//! Refuses to know streams and windows: this file is bytes to numbers and back.

use super::StreamId;
use super::error::ErrorCode;

/// RFC 9113 §3.4: what a client says first.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Octets of a frame header.
pub const HEADER_LEN: usize = 9;

/// RFC 9113 §4.2: the smallest and largest legal SETTINGS_MAX_FRAME_SIZE.
pub const FRAME_SIZE_MIN: u32 = 1 << 14;
pub const FRAME_SIZE_MAX: u32 = (1 << 24) - 1;

/// RFC 9113 §6.9.1.
pub const WINDOW_MAX: u32 = (1 << 31) - 1;

/// RFC 9113 §6; types that it does not define must be ignored (§5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameType {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    PushPromise,
    Ping,
    Goaway,
    WindowUpdate,
    Continuation,
    Unknown(u8),
}

impl FrameType {
    pub const fn from_octet(octet: u8) -> Self {
        match octet {
            0x0 => Self::Data,
            0x1 => Self::Headers,
            0x2 => Self::Priority,
            0x3 => Self::RstStream,
            0x4 => Self::Settings,
            0x5 => Self::PushPromise,
            0x6 => Self::Ping,
            0x7 => Self::Goaway,
            0x8 => Self::WindowUpdate,
            0x9 => Self::Continuation,
            other => Self::Unknown(other),
        }
    }

    pub const fn octet(self) -> u8 {
        match self {
            Self::Data => 0x0,
            Self::Headers => 0x1,
            Self::Priority => 0x2,
            Self::RstStream => 0x3,
            Self::Settings => 0x4,
            Self::PushPromise => 0x5,
            Self::Ping => 0x6,
            Self::Goaway => 0x7,
            Self::WindowUpdate => 0x8,
            Self::Continuation => 0x9,
            Self::Unknown(octet) => octet,
        }
    }
}

/// Flags, by the frames that have them (RFC 9113 §6).
pub mod flag {
    /// SETTINGS, PING.
    pub const ACK: u8 = 0x1;
    /// DATA, HEADERS.
    pub const END_STREAM: u8 = 0x1;
    /// HEADERS, CONTINUATION.
    pub const END_HEADERS: u8 = 0x4;
    /// DATA, HEADERS.
    pub const PADDED: u8 = 0x8;
    /// HEADERS.
    pub const PRIORITY: u8 = 0x20;
}

/// RFC 9113 §4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    pub len: u32,
    pub kind: FrameType,
    pub flags: u8,
    pub stream: StreamId,
}

impl FrameHeader {
    pub const fn new(len: u32, kind: FrameType, flags: u8, stream: StreamId) -> Self {
        Self { len, kind, flags, stream }
    }

    pub const fn parse(octets: &[u8; HEADER_LEN]) -> Self {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = *octets;
        // One load, and shifts.
        let word = u64::from_be_bytes([a, b, c, kind, flags, s0, s1, s2]);
        let stream = (word as u32) << 8 | s3 as u32;
        Self {
            len: (word >> 40) as u32,
            kind: FrameType::from_octet((word >> 32) as u8),
            flags: (word >> 24) as u8,
            stream: StreamId(stream & WINDOW_MAX),
        }
    }

    pub const fn octets(self) -> [u8; HEADER_LEN] {
        debug_assert!(self.len <= FRAME_SIZE_MAX);
        let [_, a, b, c] = self.len.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.0.to_be_bytes();
        [a, b, c, self.kind.octet(), self.flags, s0, s1, s2, s3]
    }

    pub const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.octets());
    }
}

/// The whole payload as one 32-bit number: RST_STREAM, WINDOW_UPDATE.
pub fn parse_u32(payload: &[u8]) -> Option<u32> {
    payload.try_into().ok().map(u32::from_be_bytes)
}

/// The stream dependency in front of HEADERS with PRIORITY, or in PRIORITY (§6.2, §6.3).
pub fn parse_dependency(octets: [u8; 4]) -> StreamId {
    StreamId(u32::from_be_bytes(octets) & WINDOW_MAX)
}

fn write_u32_frame(out: &mut Vec<u8>, kind: FrameType, stream: StreamId, value: u32) {
    FrameHeader::new(4, kind, 0, stream).write(out);
    out.extend_from_slice(&value.to_be_bytes());
}

pub fn write_rst_stream(out: &mut Vec<u8>, stream: StreamId, code: ErrorCode) {
    write_u32_frame(out, FrameType::RstStream, stream, code.0);
}

pub fn write_window_update(out: &mut Vec<u8>, stream: StreamId, increment: u32) {
    debug_assert!((1..=WINDOW_MAX).contains(&increment), "RFC 9113 §6.9");
    write_u32_frame(out, FrameType::WindowUpdate, stream, increment);
}

pub fn write_ping(out: &mut Vec<u8>, payload: [u8; 8], ack: bool) {
    let flags = if ack { flag::ACK } else { 0 };
    FrameHeader::new(8, FrameType::Ping, flags, StreamId(0)).write(out);
    out.extend_from_slice(&payload);
}

pub fn write_settings_ack(out: &mut Vec<u8>) {
    FrameHeader::new(0, FrameType::Settings, flag::ACK, StreamId(0)).write(out);
}

/// RFC 9113 §6.8. `debug` is ours and short.
pub fn write_goaway(out: &mut Vec<u8>, last: StreamId, code: ErrorCode, debug: &'static str) {
    debug_assert!(debug.len() + 8 <= FRAME_SIZE_MIN as usize);
    let len = 8 + debug.len() as u32;
    FrameHeader::new(len, FrameType::Goaway, 0, StreamId(0)).write(out);
    out.extend_from_slice(&last.0.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
    out.extend_from_slice(debug.as_bytes());
}

/// Writes one field block as HEADERS and, where it is longer than `frame_max`, CONTINUATION
/// (RFC 9113 §4.3). `encode` appends the block.
pub fn write_field_block(
    out: &mut Vec<u8>,
    stream: StreamId,
    end_stream: bool,
    frame_max: usize,
    encode: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_LEN]);
    encode(out);
    let end_stream = if end_stream { flag::END_STREAM } else { 0 };
    let block_len = out.len() - start - HEADER_LEN;
    if block_len <= frame_max {
        let flags = end_stream | flag::END_HEADERS;
        let header = FrameHeader::new(block_len as u32, FrameType::Headers, flags, stream);
        out[start..start + HEADER_LEN].copy_from_slice(&header.octets());
        return;
    }
    // COPY: blocks longer than a frame, once, to make room for the headers between the parts.
    let block = out.split_off(start + HEADER_LEN);
    out.truncate(start);
    let parts = block.len().div_ceil(frame_max);
    for (index, part) in block.chunks(frame_max).enumerate() {
        let (kind, mut flags) = match index {
            0 => (FrameType::Headers, end_stream),
            _ => (FrameType::Continuation, 0),
        };
        if index + 1 == parts {
            flags |= flag::END_HEADERS;
        }
        FrameHeader::new(part.len() as u32, kind, flags, stream).write(out);
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_layout_and_reserved_bit() {
        // RFC 9113 §4.1: length 24, type 8, flags 8, reserved 1, stream 31.
        let octets = [0x00, 0x40, 0x01, 0x01, 0x25, 0x80, 0x00, 0x00, 0x03];
        let header = FrameHeader::parse(&octets);
        let expected = FrameHeader::new(0x4001, FrameType::Headers, 0x25, StreamId(3));
        assert_eq!(header, expected);
        assert_eq!(header.octets(), [0x00, 0x40, 0x01, 0x01, 0x25, 0x00, 0x00, 0x00, 0x03]);
        assert!(header.has(flag::PRIORITY) && header.has(flag::END_HEADERS));
        assert!(!header.has(flag::PADDED));
    }

    #[test]
    fn every_type_octet_round_trips() {
        for octet in 0..=255 {
            assert_eq!(FrameType::from_octet(octet).octet(), octet);
        }
    }

    #[test]
    fn control_frames_by_the_book() {
        let mut out = Vec::new();
        write_rst_stream(&mut out, StreamId(5), ErrorCode::CANCEL);
        assert_eq!(out, [0, 0, 4, 3, 0, 0, 0, 0, 5, 0, 0, 0, 8]);
        out.clear();
        write_window_update(&mut out, StreamId(0), 0x1234);
        assert_eq!(out, [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34]);
        out.clear();
        write_ping(&mut out, *b"12345678", true);
        assert_eq!(out, *b"\0\0\x08\x06\x01\0\0\0\x0012345678");
        out.clear();
        write_goaway(&mut out, StreamId(7), ErrorCode::NO_ERROR, "ok");
        assert_eq!(out, *b"\0\0\x0a\x07\0\0\0\0\0\0\0\0\x07\0\0\0\0ok");
        out.clear();
        write_settings_ack(&mut out);
        assert_eq!(out, [0, 0, 0, 4, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn long_blocks_continue() {
        let mut out = vec![0xff];
        write_field_block(&mut out, StreamId(1), true, 4, |out| {
            out.extend_from_slice(b"abcdefghi");
        });
        let expected = [
            &b"\xff\0\0\x04\x01\x01\0\0\0\x01abcd"[..],
            &b"\0\0\x04\x09\x00\0\0\0\x01efgh"[..],
            &b"\0\0\x01\x09\x04\0\0\0\x01i"[..],
        ];
        assert_eq!(out, expected.concat());
    }

    #[test]
    fn short_blocks_are_one_frame() {
        let mut out = Vec::new();
        write_field_block(&mut out, StreamId(1), false, 4, |out| out.push(b'a'));
        assert_eq!(out, *b"\0\0\x01\x01\x04\0\0\0\x01a");
    }
}
