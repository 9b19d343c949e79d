//! Bytes to frames (RFC 9113 §3.4, §4.1).
//!
//! Owns what was received and not yet cut. DATA comes out piece by piece, as slices of what came
//! in; other frames come out whole: lent from the chunk they lie in, or gathered when they
//! straddle chunks.
//!
//! 1. What is gathered is one frame header or one frame other than DATA: at most
//!    `max_frame_size` octets.
//! 2. A payload lent must come back by [`Deframer::done`] before the next cut.
//! 3. For every DATA frame: [`Cut::DataBegins`] with its whole length, then pieces that make up
//!    its data, the last one marked, be it empty. Padding is dropped here.
//! 4. Frames of unknown type are announced and their payload dropped.
//!
//! Refuses to know streams, windows and what payloads mean.

use super::error::{ConnectionError, ErrorCode};
use super::frame::{FrameHeader, FrameType, HEADER_LEN, PREFACE, flag};
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::ops::Deref;

/// A gathering buffer larger than this is not kept.
const CARRY_KEPT_MAX: usize = 512;

/// One step of cutting.
#[derive(Debug)]
pub enum Cut {
    /// All that was received is cut.
    Hungry,
    /// A whole frame, neither DATA nor of unknown type.
    Frame(FrameHeader, Payload),
    /// `header.len` octets of flow control, `padding` of which (its length octet included) are
    /// not data.
    DataBegins {
        header: FrameHeader,
        padding: u32,
    },
    /// Part of the data of the frame that began last.
    Data {
        piece: Bytes,
        last: bool,
    },
    Unknown(FrameHeader),
}

/// The payload of one frame, lent.
#[derive(Debug)]
pub struct Payload {
    source: Source,
    len: usize,
}

#[derive(Debug)]
enum Source {
    /// The chunk, payload in front.
    Chunk(Bytes),
    Carry(Vec<u8>),
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let octets: &[u8] = match &self.source {
            Source::Chunk(chunk) => chunk,
            Source::Carry(carry) => carry,
        };
        octets.get(..self.len).unwrap_or_default()
    }
}

impl Payload {
    /// COPY: none from a chunk; from the gathering buffer `octets`, for what outlives the cut.
    pub fn keep(&self, octets: &[u8]) -> Bytes {
        match &self.source {
            Source::Chunk(chunk) => chunk.slice_ref(octets),
            Source::Carry(_) => Bytes::copy_from_slice(octets),
        }
    }
}

/// What is expected next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The client's preface, of which `seen` octets have come.
    Preface {
        seen: usize,
    },
    Header,
    /// The payload of a frame that is gathered.
    Payload(FrameHeader),
    /// The octet that says how much padding follows.
    PadLength(FrameHeader),
    Data {
        left: u32,
        padding: u32,
    },
    /// Octets that nobody wants.
    Skip {
        left: u32,
    },
    Failed,
}

/// See the file's text.
#[derive(Debug)]
pub struct Deframer {
    state: State,
    chunk: Bytes,
    /// Chunks that came before the first was cut; empty when the owner keeps to the contract.
    more: VecDeque<Bytes>,
    carry: Vec<u8>,
    max_frame_size: u32,
}

impl Deframer {
    pub fn new(expect_preface: bool, max_frame_size: u32) -> Self {
        let state = if expect_preface { State::Preface { seen: 0 } } else { State::Header };
        let (chunk, carry) = (Bytes::new(), Vec::new());
        Self { state, chunk, more: VecDeque::new(), carry, max_frame_size }
    }

    pub fn push(&mut self, bytes: Bytes) {
        match (self.state, self.chunk.is_empty()) {
            (State::Failed, _) => {}
            (_, true) => self.chunk = bytes,
            (_, false) => self.more.push_back(bytes),
        }
    }

    /// Drops everything, now and later.
    pub fn fail(&mut self) {
        self.state = State::Failed;
        self.chunk = Bytes::new();
        self.more = VecDeque::new();
        self.carry = Vec::new();
    }

    /// Octets of data and padding still to come of the DATA frame that began last.
    pub fn data_left(&self) -> u32 {
        match self.state {
            State::Data { left, .. } => left,
            _ => 0,
        }
    }

    /// Takes a payload back.
    pub fn done(&mut self, payload: Payload) {
        match payload.source {
            _ if self.state == State::Failed => {}
            Source::Chunk(mut chunk) => {
                chunk.advance(payload.len);
                debug_assert!(self.chunk.is_empty());
                self.chunk = chunk;
            }
            Source::Carry(mut carry) if carry.capacity() <= CARRY_KEPT_MAX => {
                carry.clear();
                self.carry = carry;
            }
            Source::Carry(_) => {}
        }
    }

    pub fn cut(&mut self) -> Result<Cut, ConnectionError> {
        // Bounded: each turn uses octets up or returns.
        loop {
            if self.chunk.is_empty() {
                match self.more.pop_front() {
                    Some(chunk) => self.chunk = chunk,
                    // The last piece of an empty frame needs no octets.
                    None if matches!(self.state, State::Data { left: 0, .. }) => {}
                    None => {
                        self.chunk = Bytes::new();
                        return Ok(Cut::Hungry);
                    }
                }
            }
            let cut = match self.state {
                State::Preface { seen } => self.preface(seen)?,
                State::Header => self.header()?,
                State::Payload(header) => self.payload(header),
                State::PadLength(header) => Some(self.pad_length(header)?),
                State::Data { left, padding } => Some(self.data(left, padding)),
                State::Skip { left } => self.skip(left),
                State::Failed => return Ok(Cut::Hungry),
            };
            if let Some(cut) = cut {
                return Ok(cut);
            }
        }
    }

    fn preface(&mut self, seen: usize) -> Result<Option<Cut>, ConnectionError> {
        let expected = PREFACE.get(seen..).unwrap_or_default();
        let len = expected.len().min(self.chunk.len());
        if self.chunk.get(..len) != expected.get(..len) {
            return Err(ConnectionError::protocol("client preface expected"));
        }
        self.chunk.advance(len);
        self.state = match len == expected.len() {
            true => State::Header,
            false => State::Preface { seen: seen + len },
        };
        Ok(None)
    }

    fn header(&mut self) -> Result<Option<Cut>, ConnectionError> {
        let header = match self.chunk.first_chunk::<HEADER_LEN>() {
            Some(octets) if self.carry.is_empty() => {
                let header = FrameHeader::parse(octets);
                self.chunk.advance(HEADER_LEN);
                header
            }
            _ => {
                self.gather(HEADER_LEN);
                let Some(octets) = self.carry.first_chunk::<HEADER_LEN>() else {
                    return Ok(None);
                };
                let header = FrameHeader::parse(octets);
                self.carry.clear();
                header
            }
        };
        if header.len > self.max_frame_size {
            let reason = "frame larger than SETTINGS_MAX_FRAME_SIZE";
            return Err(ConnectionError::new(ErrorCode::FRAME_SIZE_ERROR, reason));
        }
        match header.kind {
            FrameType::Data if header.has(flag::PADDED) => {
                if header.len == 0 {
                    let reason = "padded DATA without a padding length";
                    return Err(ConnectionError::new(ErrorCode::FRAME_SIZE_ERROR, reason));
                }
                self.state = State::PadLength(header);
                Ok(None)
            }
            FrameType::Data => Ok(Some(self.data_begins(header, 0))),
            FrameType::Unknown(_) => {
                self.state = State::Skip { left: header.len };
                Ok(Some(Cut::Unknown(header)))
            }
            _ => Ok(self.payload(header)),
        }
    }

    /// COPY: up to `len - carry.len()` octets of a header or frame that straddles chunks.
    fn gather(&mut self, len: usize) {
        let missing = len.saturating_sub(self.carry.len()).min(self.chunk.len());
        self.carry.reserve_exact(if len > HEADER_LEN { len - self.carry.len() } else { 0 });
        self.carry.extend_from_slice(self.chunk.get(..missing).unwrap_or_default());
        self.chunk.advance(missing);
    }

    fn payload(&mut self, header: FrameHeader) -> Option<Cut> {
        let len = header.len as usize;
        let source = if self.carry.is_empty() && self.chunk.len() >= len {
            Source::Chunk(std::mem::take(&mut self.chunk))
        } else {
            self.gather(len);
            if self.carry.len() < len {
                self.state = State::Payload(header);
                return None;
            }
            Source::Carry(std::mem::take(&mut self.carry))
        };
        self.state = State::Header;
        Some(Cut::Frame(header, Payload { source, len }))
    }

    fn pad_length(&mut self, header: FrameHeader) -> Result<Cut, ConnectionError> {
        let padding = self.chunk.first().map_or(0, |octet| u32::from(*octet));
        self.chunk.advance(1);
        // RFC 9113 §6.1: padding as long as the payload or longer.
        if padding >= header.len {
            return Err(ConnectionError::protocol("padding longer than its DATA frame"));
        }
        Ok(self.data_begins(header, padding + 1))
    }

    /// `padding` counts the octet that says its length.
    fn data_begins(&mut self, header: FrameHeader, padding: u32) -> Cut {
        let trailing = padding.saturating_sub(1);
        self.state = State::Data { left: header.len - padding, padding: trailing };
        Cut::DataBegins { header, padding }
    }

    fn data(&mut self, left: u32, padding: u32) -> Cut {
        let len = self.chunk.len().min(left as usize);
        // Taking the chunk whole saves counting references up and down.
        let piece = match len == self.chunk.len() {
            true => std::mem::take(&mut self.chunk),
            false => self.chunk.split_to(len),
        };
        let left = left - len as u32;
        self.state = match (left, padding) {
            (0, 0) => State::Header,
            (0, padding) => State::Skip { left: padding },
            (left, padding) => State::Data { left, padding },
        };
        Cut::Data { piece, last: left == 0 }
    }

    fn skip(&mut self, left: u32) -> Option<Cut> {
        let len = self.chunk.len().min(left as usize);
        self.chunk.advance(len);
        self.state = match left - len as u32 {
            0 => State::Header,
            left => State::Skip { left },
        };
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::StreamId;
    use super::*;

    const SIZE: u32 = 1 << 14;

    /// A readable form of what was cut, with the pieces of DATA joined.
    fn cut_all(deframer: &mut Deframer, out: &mut Vec<String>) -> Result<(), ConnectionError> {
        loop {
            match deframer.cut()? {
                Cut::Hungry => return Ok(()),
                Cut::Frame(header, payload) => {
                    let text = String::from_utf8_lossy(&payload).into_owned();
                    out.push(format!("{:?} {} {text}", header.kind, header.stream.0));
                    deframer.done(payload);
                }
                Cut::DataBegins { header, padding } => {
                    out.push(format!("DATA {} {} {padding} ", header.stream.0, header.len));
                }
                Cut::Data { piece, last } => {
                    let text = String::from_utf8_lossy(&piece).into_owned();
                    let open = out.last_mut().unwrap();
                    open.push_str(&text);
                    open.push_str(if last { "." } else { "" });
                }
                Cut::Unknown(header) => out.push(format!("{:?}", header.kind)),
            }
        }
    }

    fn frame(kind: FrameType, flags: u8, payload: &[u8]) -> Vec<u8> {
        let header = FrameHeader::new(payload.len() as u32, kind, flags, StreamId(1));
        [&header.octets()[..], payload].concat()
    }

    fn sample() -> (Vec<u8>, Vec<&'static str>) {
        let frames = [
            PREFACE.to_vec(),
            frame(FrameType::Ping, 0, b"12345678"),
            frame(FrameType::Data, 0, b"hello"),
            frame(FrameType::Data, flag::PADDED, b"\x03padded\0\0\0"),
            frame(FrameType::Data, flag::END_STREAM, b""),
            frame(FrameType::Data, flag::PADDED, b"\0"),
            frame(FrameType::Unknown(0xee), 0, b"whatever"),
            frame(FrameType::Unknown(0xef), 0, b""),
            frame(FrameType::Settings, 0, b""),
            frame(FrameType::Headers, flag::END_HEADERS, b"block"),
        ];
        let cuts = [
            "Ping 1 12345678",
            "DATA 1 5 0 hello.",
            "DATA 1 10 4 padded.",
            "DATA 1 0 0 .",
            "DATA 1 1 1 .",
            "Unknown(238)",
            "Unknown(239)",
            "Settings 1 ",
            "Headers 1 block",
        ];
        (frames.concat(), cuts.to_vec())
    }

    #[test]
    fn any_fragmentation_cuts_alike() {
        let (bytes, expected) = sample();
        for size in 1..=bytes.len() {
            for queue in [false, true] {
                let mut deframer = Deframer::new(true, SIZE);
                let mut out = Vec::new();
                for chunk in bytes.chunks(size) {
                    deframer.push(Bytes::copy_from_slice(chunk));
                    if !queue {
                        cut_all(&mut deframer, &mut out).unwrap();
                    }
                }
                cut_all(&mut deframer, &mut out).unwrap();
                assert_eq!(out, expected, "chunks of {size}");
                assert!(deframer.carry.is_empty() && deframer.chunk.is_empty());
            }
        }
    }

    #[test]
    fn data_is_not_copied() {
        let bytes = Bytes::from(frame(FrameType::Data, 0, b"hello"));
        let mut deframer = Deframer::new(false, SIZE);
        deframer.push(bytes.clone());
        assert!(matches!(deframer.cut(), Ok(Cut::DataBegins { .. })));
        let Ok(Cut::Data { piece, last: true }) = deframer.cut() else { panic!() };
        assert_eq!(piece.as_ptr(), bytes[HEADER_LEN..].as_ptr());
    }

    fn code_of(bytes: Vec<u8>, preface: bool) -> ErrorCode {
        let mut deframer = Deframer::new(preface, SIZE);
        deframer.push(bytes.into());
        cut_all(&mut deframer, &mut Vec::new()).unwrap_err().code
    }

    #[test]
    fn refuses_what_is_too_large_or_overpadded() {
        let large = FrameHeader::new(SIZE + 1, FrameType::Unknown(9), 0, StreamId(1));
        assert_eq!(code_of(large.octets().to_vec(), false), ErrorCode::FRAME_SIZE_ERROR);
        let padded = frame(FrameType::Data, flag::PADDED, b"\x05hello");
        let mut deframer = Deframer::new(false, SIZE);
        deframer.push(padded.into());
        cut_all(&mut deframer, &mut Vec::new()).unwrap();
        let overpadded = frame(FrameType::Data, flag::PADDED, b"\x06hello");
        assert_eq!(code_of(overpadded, false), ErrorCode::PROTOCOL_ERROR);
        let empty = frame(FrameType::Data, flag::PADDED, b"");
        assert_eq!(code_of(empty, false), ErrorCode::FRAME_SIZE_ERROR);
        assert_eq!(code_of(b"GET / HTTP/1.1\r\n".to_vec(), true), ErrorCode::PROTOCOL_ERROR);
    }
}
