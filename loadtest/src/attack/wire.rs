//! HTTP/2 octets by hand: frames and field blocks, right ones and wrong ones.
//!
//! 1. Nothing here keeps a rule: whoever calls it says what lies in a frame, and whether its
//!    length is true.
//! 2. Field blocks use the static table and literals without Huffman coding; the dynamic table
//!    only where an attack is about it.
//!
//! Refuses to know sockets.

use crate::framing;
use bytes::Bytes;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const HEAD_OCTETS: usize = 9;

/// Frame types (RFC 9113 §6).
pub const DATA: u8 = 0x0;
pub const HEADERS: u8 = 0x1;
pub const PRIORITY: u8 = 0x2;
pub const RST_STREAM: u8 = 0x3;
pub const SETTINGS: u8 = 0x4;
pub const PING: u8 = 0x6;
pub const GOAWAY: u8 = 0x7;
pub const WINDOW_UPDATE: u8 = 0x8;
pub const CONTINUATION: u8 = 0x9;

/// Flags.
pub const ACK: u8 = 0x1;
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;

/// Names in SETTINGS (RFC 9113 §6.5.2).
pub const HEADER_TABLE_SIZE: u16 = 0x1;
pub const MAX_CONCURRENT_STREAMS: u16 = 0x3;
pub const INITIAL_WINDOW_SIZE: u16 = 0x4;

pub const CANCEL: u32 = 0x8;
pub const WINDOW_MAX: u32 = (1 << 31) - 1;

/// A frame whose length is that of its payload.
pub fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    head(out, payload.len(), kind, flags, stream);
    out.extend_from_slice(payload);
}

/// The nine octets before a payload, with any length.
pub fn head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    out.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

pub fn settings(out: &mut Vec<u8>, values: &[(u16, u32)]) {
    head(out, values.len() * 6, SETTINGS, 0, 0);
    for (name, value) in values {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub fn window_update(out: &mut Vec<u8>, stream: u32, by: u32) {
    frame(out, WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
}

pub fn reset(out: &mut Vec<u8>, stream: u32, code: u32) {
    frame(out, RST_STREAM, 0, stream, &code.to_be_bytes());
}

/// The `turn`th stream that a client opens.
pub fn stream_id(turn: u32) -> u32 {
    turn.wrapping_mul(2) | 1
}

/// A whole gRPC message as DATA that ends the stream.
pub fn message(out: &mut Vec<u8>, stream: u32, body: &[u8]) {
    let framed: Bytes = framing::frame(body);
    frame(out, DATA, END_STREAM, stream, &framed);
}

/// Indexes into the static table (RFC 7541 appendix A).
const AUTHORITY: u64 = 1;
const METHOD_POST: u8 = 3;
const PATH: u64 = 4;
const SCHEME_HTTP: u8 = 6;
const STATUS_200: u8 = 8;
const CONTENT_TYPE: u64 = 31;
const INDEXED: u8 = 0x80;

/// An HPACK integer behind `flags` in a prefix of so many bits (RFC 7541 §5.1).
pub fn integer(out: &mut Vec<u8>, flags: u8, bits: u8, value: u64) {
    let most = (1_u64 << bits) - 1;
    if value < most {
        return out.push(flags | value as u8);
    }
    out.push(flags | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn string(out: &mut Vec<u8>, octets: &[u8]) {
    integer(out, 0, 7, octets.len() as u64);
    out.extend_from_slice(octets);
}

/// A literal that stays out of the dynamic table.
pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.push(0);
    string(out, name);
    string(out, value);
}

/// A literal that enters the dynamic table, as its newest entry: index 62.
pub fn kept_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.push(0x40);
    string(out, name);
    string(out, value);
}

/// The newest entry of the dynamic table.
pub const NEWEST: u8 = INDEXED | 62;

/// Dynamic table size update (RFC 7541 §6.3).
pub fn table_size(out: &mut Vec<u8>, size: u64) {
    integer(out, 0x20, 5, size);
}

fn named_by_index(out: &mut Vec<u8>, name: u64, value: &[u8]) {
    integer(out, 0, 4, name);
    string(out, value);
}

/// A path for [`call_block`], and what else the block must hold.
#[derive(Clone, Debug)]
pub struct Call {
    pub path: Vec<u8>,
    /// The app that is called, by both names: callers say one, sidecars the other.
    pub app: &'static str,
}

/// The field block of a right call.
pub fn call_block(call: &Call) -> Vec<u8> {
    let mut out = vec![INDEXED | METHOD_POST, INDEXED | SCHEME_HTTP];
    named_by_index(&mut out, PATH, &call.path);
    named_by_index(&mut out, AUTHORITY, b"loadtest");
    rest_of_call(&mut out, call.app);
    out
}

/// What follows the pseudo-fields.
pub fn rest_of_call(out: &mut Vec<u8>, app: &str) {
    named_by_index(out, CONTENT_TYPE, b"application/grpc");
    field(out, b"te", b"trailers");
    field(out, b"dapr-app-id", app.as_bytes());
    field(out, b"dapr-callee-app-id", app.as_bytes());
}

/// The field block of a right answer's head.
pub fn answer_block() -> Vec<u8> {
    let mut out = vec![INDEXED | STATUS_200];
    named_by_index(&mut out, CONTENT_TYPE, b"application/grpc");
    out
}

/// Trailers that say OK.
pub fn ok_block() -> Vec<u8> {
    let mut out = Vec::new();
    field(&mut out, b"grpc-status", b"0");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7541 appendix C.1.
    #[test]
    fn integers_are_those_of_the_rfc() {
        let coded = |bits, value| {
            let mut out = Vec::new();
            integer(&mut out, 0, bits, value);
            out
        };
        assert_eq!(coded(5, 10), [0b01010]);
        assert_eq!(coded(5, 1337), [0b11111, 0b1001_1010, 0b0000_1010]);
        assert_eq!(coded(8, 42), [0b0010_1010]);
    }

    /// RFC 7541 appendix C.2.1: `custom-key: custom-header`, with indexing.
    #[test]
    fn literals_are_those_of_the_rfc() {
        let mut out = Vec::new();
        kept_field(&mut out, b"custom-key", b"custom-header");
        assert_eq!(out, b"\x40\x0acustom-key\x0dcustom-header");
    }

    #[test]
    fn frames_tell_what_they_are_told() {
        let mut out = Vec::new();
        frame(&mut out, PING, ACK, 0, b"12345678");
        assert_eq!(out, b"\0\0\x08\x06\x01\0\0\0\x0012345678");
        out.clear();
        settings(&mut out, &[(INITIAL_WINDOW_SIZE, 65_535)]);
        assert_eq!(out, b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\xff\xff");
        out.clear();
        head(&mut out, 0xff_ffff, DATA, 0, 7);
        assert_eq!(out, b"\xff\xff\xff\0\0\0\0\0\x07");
        assert_eq!([0, 1, 2].map(stream_id), [1, 3, 5]);
    }
}
