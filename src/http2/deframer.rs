//! Bytes to frames (RFC 9113 §3.4, §4.1).
//!
//! Owns what was received and not yet cut. DATA comes out piece by piece, as slices of what came
//! in; other frames come out whole: lent from the chunk they lie in, or gathered when they
//! straddle chunks.
//!
//! 1. What is gathered is one frame header or one frame other than DATA: at most
//!    `max_frame_size` octets.
//! 2. A frame lent by [`Deframer::payload`] must be [`Deframer::done`] before the next cut.
//! 3. For every DATA frame: [`Cut::Frame`] with its whole length, then pieces that make up its
//!    data, the last one marked, be it empty. Padding is dropped here.
//! 4. Frames of unknown type are announced and their payload dropped.
//!
//! Refuses to know streams, windows and what payloads mean.

use super::error::{ConnectionError, ErrorCode};
use super::frame::{FrameHeader, FrameType, HEADER_LEN, PREFACE, flag};
use bytes::{Buf, Bytes};
use std::collections::VecDeque;

/// A gathering buffer larger than this is not kept.
const CARRY_KEPT_MAX: usize = 512;

/// One step of cutting.
#[derive(Debug)]
pub enum Cut {
    /// All that was received is cut.
    Hungry,
    /// A frame. DATA has begun: see [`Deframer::data_left`] and [`Deframer::piece`]; of unknown
    /// type: its payload is dropped; else it is whole: see [`Deframer::payload`].
    Frame(FrameHeader),
    /// The DATA frame that began last goes on: take the [`Deframer::piece`].
    Data,
}

/// Part of the data of the frame that began last.
#[derive(Debug)]
pub struct Piece {
    pub data: Bytes,
    pub last: bool,
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
    /// The frame is gathered, and lent.
    Gathered,
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
    /// Octets in front of the chunk that are lent.
    lent: usize,
    max_frame_size: u32,
    /// Frame headers that were put together, or whose frames were; wraps.
    straddled: u32,
}

impl Deframer {
    pub fn new(expect_preface: bool, max_frame_size: u32) -> Self {
        let state = if expect_preface { State::Preface { seen: 0 } } else { State::Header };
        let (chunk, carry) = (Bytes::new(), Vec::new());
        Self { state, chunk, more: VecDeque::new(), carry, lent: 0, max_frame_size, straddled: 0 }
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
        self.lent = 0;
    }

    /// Octets of data and padding still to come of the DATA frame that began last.
    pub fn data_left(&self) -> u32 {
        match self.state {
            State::Data { left, .. } => left,
            _ => 0,
        }
    }

    /// A frame other than DATA, or the header of any, has begun and its end has not come: a
    /// number for it, of all that came in several chunks.
    #[inline]
    pub fn amid_frame(&self) -> Option<u32> {
        let amid = match self.state {
            State::Header => !self.carry.is_empty(),
            State::Payload(_) | State::PadLength(_) => true,
            // The connection has a time of its own for its preface.
            State::Preface { .. } => false,
            State::Gathered | State::Data { .. } | State::Skip { .. } | State::Failed => false,
        };
        amid.then_some(self.straddled)
    }

    /// Of the frame that was cut last, until it is done.
    pub fn payload(&self) -> &[u8] {
        match self.state {
            State::Gathered => &self.carry,
            _ => self.chunk.get(..self.lent).unwrap_or_default(),
        }
    }

    /// COPY: none from a chunk; from the gathering buffer the payload, for what outlives the cut.
    pub fn keep_payload(&self) -> Bytes {
        match self.state {
            State::Gathered => Bytes::copy_from_slice(&self.carry),
            _ => self.chunk.slice(..self.lent),
        }
    }

    /// The frame that was cut last is dealt with.
    pub fn done(&mut self) {
        if self.state == State::Gathered {
            self.state = State::Header;
            match self.carry.capacity() <= CARRY_KEPT_MAX {
                true => self.carry.clear(),
                false => self.carry = Vec::new(),
            }
        }
        self.chunk.advance(std::mem::take(&mut self.lent));
    }

    #[inline]
    pub fn cut(&mut self) -> Result<Cut, ConnectionError> {
        match self.simple_frame() {
            Some(header) => Ok(Cut::Frame(header)),
            None => self.cut_by_pieces(),
        }
    }

    /// What nearly all frames are: a header, and a payload that lies whole behind it or is DATA
    /// without padding.
    #[inline]
    fn simple_frame(&mut self) -> Option<FrameHeader> {
        if self.state != State::Header || !self.carry.is_empty() {
            return None;
        }
        let header = FrameHeader::parse(self.chunk.first_chunk()?);
        let whole = header.len as usize <= self.chunk.len() - HEADER_LEN;
        if header.len > self.max_frame_size {
            return None;
        }
        match header.kind {
            FrameType::Data if !header.has(flag::PADDED) => {
                self.state = State::Data { left: header.len, padding: 0 };
            }
            FrameType::Data | FrameType::Unknown(_) => return None,
            _ if whole => self.lent = header.len as usize,
            _ => return None,
        }
        self.chunk.advance(HEADER_LEN);
        Some(header)
    }

    /// What straddles chunks, or is not simply one frame after the other.
    fn cut_by_pieces(&mut self) -> Result<Cut, ConnectionError> {
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
                State::Payload(header) => self.whole(header),
                State::PadLength(header) => Some(self.pad_length(header)?),
                State::Data { .. } => return Ok(Cut::Data),
                State::Skip { left } => self.skip(left),
                State::Gathered | State::Failed => return Ok(Cut::Hungry),
            };
            if let Some(cut) = cut {
                return Ok(cut);
            }
        }
    }

    /// The next piece of the DATA frame that began last, if there is one.
    pub fn piece(&mut self) -> Option<Piece> {
        match self.state {
            State::Data { left, padding } if left == 0 || !self.chunk.is_empty() => {
                Some(self.data(left, padding))
            }
            _ => None,
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
        self.gather(HEADER_LEN);
        let Some(octets) = self.carry.first_chunk() else { return Ok(None) };
        let header = FrameHeader::parse(octets);
        self.carry.clear();
        self.straddled = self.straddled.wrapping_add(1);
        self.begin(header)
    }

    fn begin(&mut self, header: FrameHeader) -> Result<Option<Cut>, ConnectionError> {
        if header.len > self.max_frame_size {
            return Err(wrong_size("frame larger than SETTINGS_MAX_FRAME_SIZE"));
        }
        match header.kind {
            FrameType::Data if header.has(flag::PADDED) => {
                if header.len == 0 {
                    return Err(wrong_size("padded DATA without a padding length"));
                }
                self.state = State::PadLength(header);
                Ok(None)
            }
            FrameType::Data => {
                self.state = State::Data { left: header.len, padding: 0 };
                Ok(Some(Cut::Frame(header)))
            }
            FrameType::Unknown(_) => {
                self.state = State::Skip { left: header.len };
                Ok(Some(Cut::Frame(header)))
            }
            _ => Ok(self.whole(header)),
        }
    }

    /// COPY: up to `len - carry.len()` octets of a header or frame that straddles chunks.
    fn gather(&mut self, len: usize) {
        let missing = len.saturating_sub(self.carry.len()).min(self.chunk.len());
        self.carry.reserve_exact(if len > HEADER_LEN { len - self.carry.len() } else { 0 });
        self.carry.extend_from_slice(self.chunk.get(..missing).unwrap_or_default());
        self.chunk.advance(missing);
    }

    fn whole(&mut self, header: FrameHeader) -> Option<Cut> {
        let len = header.len as usize;
        if self.carry.is_empty() && self.chunk.len() >= len {
            self.lent = len;
            self.state = State::Header;
            return Some(Cut::Frame(header));
        }
        self.gather(len);
        let whole = self.carry.len() == len;
        self.state = if whole { State::Gathered } else { State::Payload(header) };
        whole.then_some(Cut::Frame(header))
    }

    fn pad_length(&mut self, header: FrameHeader) -> Result<Cut, ConnectionError> {
        let padding = self.chunk.first().map_or(0, |octet| u32::from(*octet));
        self.chunk.advance(1);
        // RFC 9113 §6.1: padding as long as the payload or longer.
        if padding >= header.len {
            return Err(ConnectionError::protocol("padding longer than its DATA frame"));
        }
        self.state = State::Data { left: header.len - padding - 1, padding };
        Ok(Cut::Frame(header))
    }

    fn data(&mut self, left: u32, padding: u32) -> Piece {
        let len = self.chunk.len().min(left as usize);
        // Taking the chunk whole saves counting references up and down.
        let data = match len == self.chunk.len() {
            true => std::mem::take(&mut self.chunk),
            false => self.chunk.split_to(len),
        };
        let left = left - len as u32;
        self.state = match (left, padding) {
            (0, 0) => State::Header,
            (0, padding) => State::Skip { left: padding },
            (left, padding) => State::Data { left, padding },
        };
        Piece { data, last: left == 0 }
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

#[cold]
fn wrong_size(reason: &'static str) -> ConnectionError {
    ConnectionError::new(ErrorCode::FRAME_SIZE_ERROR, reason)
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
                Cut::Frame(header) if header.kind == FrameType::Data => {
                    let padding = header.len - deframer.data_left();
                    out.push(format!("DATA {} {} {padding} ", header.stream.0, header.len));
                }
                Cut::Frame(header) if matches!(header.kind, FrameType::Unknown(_)) => {
                    out.push(format!("{:?}", header.kind));
                }
                Cut::Frame(header) => {
                    let text = String::from_utf8_lossy(deframer.payload()).into_owned();
                    assert_eq!(deframer.keep_payload(), deframer.payload());
                    out.push(format!("{:?} {} {text}", header.kind, header.stream.0));
                    deframer.done();
                }
                Cut::Data => {
                    let Piece { data, last } = deframer.piece().unwrap();
                    let text = String::from_utf8_lossy(&data).into_owned();
                    let open = out.last_mut().unwrap();
                    open.push_str(&text);
                    open.push_str(if last { "." } else { "" });
                }
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
        assert!(matches!(deframer.cut(), Ok(Cut::Frame(_))));
        let Some(Piece { data, last: true }) = deframer.piece() else { panic!() };
        assert_eq!(data.as_ptr(), bytes[HEADER_LEN..].as_ptr());
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
