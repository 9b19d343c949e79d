//! What of a plaintext transmit the socket did not take yet.
//!
//! 1. Octets leave in order and once; payloads stay slices, they are not copied unless they are
//!    so small that this is cheaper than to tell the kernel of each.
//! 2. A connection that owes nothing holds nothing.
//!
//! Knows nothing of TLS, which keeps its own records.

use super::socket::Socket;
use crate::proxy::Transmit;
use std::io::{self, IoSlice};

/// Slices of an ordinary send, and of a large one (`IOV_MAX`).
const SLICES_FEW: usize = 64;
const SLICES_MAX: usize = 1024;

/// Up to here a transmit is copied together and leaves in a plain `send`.
const TOGETHER_OCTETS_MAX: usize = 1 << 10;

/// So does a larger one whose slices have no more than that on average: for each the kernel takes
/// longer than a copy does.
const SLICE_OCTETS_FEW: usize = 512;

/// A transmit, and how far it is written.
#[derive(Debug, Default)]
pub(super) struct Rest {
    transmit: Transmit,
    at: Cursor,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    segment: usize,
    octet: usize,
}

/// Writes `transmit` to `socket`, in `room` if it is small. What does not fit is left in `rest`,
/// and `transmit` is empty afterwards either way. True when all is written.
pub(super) fn send(
    socket: &Socket,
    transmit: &mut Transmit,
    room: &mut Vec<u8>,
    rest: &mut Option<Box<Rest>>,
) -> io::Result<bool> {
    debug_assert!(rest.is_none(), "the rest goes first");
    let mut at = Cursor::default();
    let outcome = if is_cheaper_together(transmit) {
        write_together(socket, transmit, room, &mut at)
    } else {
        write(socket, transmit, &mut at)
    };
    if let Ok(false) = outcome {
        *rest = Some(Box::new(Rest { transmit: std::mem::take(transmit), at }));
    }
    transmit.clear();
    outcome
}

/// Writes what is left. True when nothing is.
pub(super) fn send_rest(socket: &Socket, rest: &mut Option<Box<Rest>>) -> io::Result<bool> {
    let Some(left) = rest else {
        return Ok(true);
    };
    let done = write(socket, &left.transmit, &mut left.at)?;
    if done {
        *rest = None;
    }
    Ok(done)
}

fn is_cheaper_together(transmit: &Transmit) -> bool {
    let few = transmit.segments.len() * SLICE_OCTETS_FEW;
    transmit.len <= TOGETHER_OCTETS_MAX.max(few)
}

fn write_together(
    socket: &Socket,
    transmit: &Transmit,
    room: &mut Vec<u8>,
    at: &mut Cursor,
) -> io::Result<bool> {
    if transmit.is_empty() {
        return Ok(true);
    }
    room.clear();
    for slice in transmit.slices() {
        // COPY: once, of small slices.
        room.extend_from_slice(slice);
    }
    match socket.send_octets(room) {
        Ok(octets) if octets == transmit.len => Ok(true),
        Ok(octets) => {
            advance(transmit, at, octets);
            Ok(false)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

fn write(socket: &Socket, transmit: &Transmit, at: &mut Cursor) -> io::Result<bool> {
    // Not to initialise 16 KiB of slices for each small message.
    if transmit.segments.len() <= SLICES_FEW {
        return write_by::<SLICES_FEW>(socket, transmit, at);
    }
    write_by::<SLICES_MAX>(socket, transmit, at)
}

fn write_by<const N: usize>(
    socket: &Socket,
    transmit: &Transmit,
    at: &mut Cursor,
) -> io::Result<bool> {
    loop {
        let mut slices = [IoSlice::new(&[]); N];
        let (count, offered) = gather(transmit, *at, &mut slices);
        if offered == 0 {
            return Ok(true);
        }
        match socket.send(&slices[..count]) {
            Ok(octets) => {
                advance(transmit, at, octets);
                // A short send means a full socket.
                if octets < offered {
                    return Ok(false);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// Slices from `at` on: how many, and how many octets.
fn gather<'a>(transmit: &'a Transmit, at: Cursor, out: &mut [IoSlice<'a>]) -> (usize, usize) {
    let (mut count, mut offered, mut skip) = (0, 0, at.octet);
    for slice in transmit.slices().skip(at.segment) {
        let slice = slice.get(skip..).unwrap_or_default();
        skip = 0;
        if slice.is_empty() {
            continue;
        }
        let Some(place) = out.get_mut(count) else {
            break;
        };
        *place = IoSlice::new(slice);
        count += 1;
        offered += slice.len();
    }
    (count, offered)
}

fn advance(transmit: &Transmit, at: &mut Cursor, mut octets: usize) {
    for slice in transmit.slices().skip(at.segment) {
        let left = slice.len() - at.octet;
        if octets < left {
            at.octet += octets;
            return;
        }
        octets -= left;
        at.segment += 1;
        at.octet = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::Segment;
    use bytes::Bytes;

    fn transmit(parts: &[&'static str]) -> Transmit {
        let mut transmit = Transmit::new();
        for (number, part) in parts.iter().enumerate() {
            transmit.len += part.len();
            if number % 2 == 0 {
                let start = u32::try_from(transmit.framing.len()).unwrap();
                transmit.framing.extend_from_slice(part.as_bytes());
                let end = u32::try_from(transmit.framing.len()).unwrap();
                transmit.segments.push(Segment::Framing(start..end));
            } else {
                transmit.segments.push(Segment::Payload(Bytes::from_static(part.as_bytes())));
            }
        }
        transmit
    }

    #[test]
    fn small_slices_are_copied_together() {
        let of = |slices: usize, octets: usize| {
            let payload = || Segment::Payload(Bytes::from(vec![0; octets]));
            let segments = std::iter::repeat_with(payload).take(slices).collect();
            Transmit { segments, len: slices * octets, ..Transmit::new() }
        };
        for (slices, octets) in [(1, 1024), (3, 400), (300, 100), (200, 512)] {
            assert!(is_cheaper_together(&of(slices, octets)), "{slices} of {octets}");
        }
        for (slices, octets) in [(1, 1025), (2, 16 << 10), (200, 513)] {
            assert!(!is_cheaper_together(&of(slices, octets)), "{slices} of {octets}");
        }
    }

    /// Whatever the sizes of the sends, the octets come out in order and once.
    #[test]
    fn advances_over_any_cut() {
        let transmit = transmit(&["head", "", "", "payload", "x", "yz"]);
        for step in 1..=15 {
            let (mut at, mut out) = (Cursor::default(), Vec::new());
            loop {
                let mut slices = [IoSlice::new(&[]); 2];
                let (count, offered) = gather(&transmit, at, &mut slices);
                if offered == 0 {
                    break;
                }
                let flat: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
                assert_eq!(flat.len(), offered);
                let taken = step.min(flat.len());
                out.extend_from_slice(&flat[..taken]);
                advance(&transmit, &mut at, taken);
            }
            assert_eq!(out, b"headpayloadxyz", "step {step}");
        }
    }
}
