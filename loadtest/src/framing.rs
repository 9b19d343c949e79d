//! gRPC's length prefix (gRPC over HTTP/2, "Length-Prefixed-Message"), across DATA frames.
//!
//! 1. Nothing is assembled: a message's octets are lent from the frame they came in.
//! 2. A length over [`MESSAGE_OCTETS_MAX`] and a compressed message are faults, not allocations.
//!
//! Refuses to know what a message says.

use bytes::{BufMut, Bytes, BytesMut};
use std::fmt;

pub const PREFIX_OCTETS: usize = 5;

/// As large as anything a workload sends, with room.
pub const MESSAGE_OCTETS_MAX: usize = 64 << 20;

const COMPRESSED: u8 = 1;

/// `message` behind its prefix.
pub fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX_OCTETS + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("below MESSAGE_OCTETS_MAX"));
    framed.put_slice(message);
    framed.freeze()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A message of so many octets.
    Begins(usize),
    Body(&'a [u8]),
    Ends,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Compressed,
    /// Neither 0 nor 1.
    Flag(u8),
    TooLong(u32),
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compressed => out.write_str("a compressed message"),
            Self::Flag(flag) => write!(out, "a message whose compressed flag is {flag}"),
            Self::TooLong(octets) => {
                write!(out, "a message of {octets} octets, over {MESSAGE_OCTETS_MAX}")
            }
        }
    }
}

#[derive(Debug)]
pub struct Deframer {
    state: State,
}

#[derive(Debug)]
enum State {
    Prefix { octets: [u8; PREFIX_OCTETS], have: usize },
    Body { left: usize },
}

const START: State = State::Prefix { octets: [0; PREFIX_OCTETS], have: 0 };

impl Default for Deframer {
    fn default() -> Self {
        Self { state: START }
    }
}

impl Deframer {
    /// The next piece, and `data` shortened by it; `None`: feed more.
    pub fn next<'a>(&mut self, data: &mut &'a [u8]) -> Result<Option<Piece<'a>>, Fault> {
        match &mut self.state {
            State::Prefix { octets, have } => {
                let taken = data.len().min(PREFIX_OCTETS - *have);
                let (head, rest) = data.split_at(taken);
                octets[*have..*have + taken].copy_from_slice(head);
                *have += taken;
                *data = rest;
                if *have < PREFIX_OCTETS {
                    return Ok(None);
                }
                let left = length(*octets)?;
                self.state = State::Body { left };
                Ok(Some(Piece::Begins(left)))
            }
            State::Body { left: 0 } => {
                self.state = START;
                Ok(Some(Piece::Ends))
            }
            State::Body { left } => {
                if data.is_empty() {
                    return Ok(None);
                }
                let (body, rest) = data.split_at(data.len().min(*left));
                *left -= body.len();
                *data = rest;
                Ok(Some(Piece::Body(body)))
            }
        }
    }

    /// Between messages, so that a stream may end here.
    pub fn at_boundary(&self) -> bool {
        matches!(self.state, State::Prefix { have: 0, .. })
    }
}

fn length([flag, length @ ..]: [u8; PREFIX_OCTETS]) -> Result<usize, Fault> {
    let length = u32::from_be_bytes(length);
    match flag {
        0 if length as usize <= MESSAGE_OCTETS_MAX => Ok(length as usize),
        0 => Err(Fault::TooLong(length)),
        COMPRESSED => Err(Fault::Compressed),
        flag => Err(Fault::Flag(flag)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths of whole messages, and their octets in one.
    fn read(chunks: &[&[u8]]) -> Result<(Vec<usize>, Vec<u8>, bool), Fault> {
        let mut deframer = Deframer::default();
        let (mut lengths, mut body, mut ended) = (Vec::new(), Vec::new(), 0);
        for mut data in chunks.iter().copied() {
            while let Some(piece) = deframer.next(&mut data)? {
                match piece {
                    Piece::Begins(octets) => lengths.push(octets),
                    Piece::Body(octets) => body.extend_from_slice(octets),
                    Piece::Ends => ended += 1,
                }
            }
            assert!(data.is_empty());
        }
        let boundary = deframer.at_boundary();
        assert!(!boundary || ended == lengths.len());
        Ok((lengths, body, boundary))
    }

    #[test]
    fn cuts_anywhere_make_no_difference() {
        let wire = b"\0\0\0\0\x03abc\0\0\0\0\0\0\0\0\0\x02de";
        for first in 0..wire.len() {
            for second in first..wire.len() {
                let (a, b, c) = (&wire[..first], &wire[first..second], &wire[second..]);
                let (lengths, body, boundary) = read(&[a, b, c]).expect("well-formed");
                assert_eq!(
                    (lengths, body.as_slice(), boundary),
                    (vec![3, 0, 2], &b"abcde"[..], true)
                );
            }
        }
    }

    #[test]
    fn a_cut_message_is_no_boundary() {
        assert_eq!(read(&[b"\0\0\0\0\x03ab"]), Ok((vec![3], b"ab".to_vec(), false)));
        assert_eq!(read(&[b"\0\0"]), Ok((vec![], vec![], false)));
    }

    #[test]
    fn bad_prefixes_are_faults() {
        assert_eq!(read(&[b"\x01\0\0\0\x01a"]), Err(Fault::Compressed));
        assert_eq!(read(&[b"\x07\0\0\0\x01a"]), Err(Fault::Flag(7)));
        assert_eq!(read(&[b"\0\xff\xff\xff\xff"]), Err(Fault::TooLong(u32::MAX)));
    }

    #[test]
    fn a_frame_is_prefix_and_message() {
        assert_eq!(&frame(b"abc")[..], b"\0\0\0\0\x03abc");
    }
}
