//! Any octets in any pieces, cut into frames. What must hold: the frames are those that a reader
//! who has all octets at once would see, octet for octet, and so is the error that ends them;
//! DATA is marked complete exactly when it is; after the end nothing more comes.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ringside::http2::deframer::{Cut, Deframer};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const KNOWN_MAX: u8 = 9;
const PADDED: u8 = 8;

/// A frame as the owner of a deframer sees it; `octets` are its data or payload.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    len: u32,
    kind: u8,
    flags: u8,
    stream: u32,
    octets: Vec<u8>,
    whole: bool,
}

/// RFC 9113 §4.1 and §6.1, read plainly. The answer is also whether it ends with an error.
fn plainly(mut input: &[u8], preface: bool, max: u32) -> (Vec<Seen>, bool) {
    let mut all = Vec::new();
    if preface {
        let len = input.len().min(PREFACE.len());
        if input[..len] != PREFACE[..len] {
            return (all, true);
        }
        input = &input[len..];
    }
    while let Some((head, after)) = input.split_at_checked(9) {
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        if len > max {
            return (all, true);
        }
        let there = &after[..after.len().min(len as usize)];
        let whole = there.len() == len as usize;
        let seen = |octets: &[u8], whole| Seen {
            len,
            kind,
            flags,
            stream,
            octets: octets.to_vec(),
            whole,
        };
        match kind {
            DATA if flags & PADDED != 0 => match there.split_first() {
                None if len == 0 => return (all, true),
                None => return (all, false),
                Some((pad, _)) if u32::from(*pad) >= len => return (all, true),
                Some((pad, data)) => {
                    let wanted = len as usize - 1 - usize::from(*pad);
                    let got = wanted.min(data.len());
                    all.push(seen(&data[..got], got == wanted));
                }
            },
            DATA => all.push(seen(there, whole)),
            _ if kind > KNOWN_MAX => all.push(seen(&[], true)),
            _ if whole => all.push(seen(there, true)),
            _ => {}
        }
        if !whole {
            break;
        }
        input = &after[len as usize..];
    }
    (all, false)
}

/// Takes out what there is; false at an error.
fn take(deframer: &mut Deframer, all: &mut Vec<Seen>) -> bool {
    loop {
        match deframer.cut() {
            Err(_) => return false,
            Ok(Cut::Hungry) => return true,
            Ok(Cut::Frame(header)) => {
                let (kind, stream) = (header.kind.octet(), header.stream.0);
                let data = kind == DATA;
                let octets = if data { Vec::new() } else { deframer.payload().to_vec() };
                let (len, flags) = (header.len, header.flags);
                all.push(Seen { len, kind, flags, stream, octets, whole: !data });
                if !data {
                    deframer.done();
                    continue;
                }
            }
            Ok(Cut::Data) => {}
        }
        let frame = all.last_mut().expect("DATA goes on after it began");
        let left = deframer.data_left();
        if let Some(piece) = deframer.piece() {
            assert!(!frame.whole, "no piece follows the last one");
            assert!(piece.data.len() <= left as usize);
            frame.octets.extend_from_slice(&piece.data);
            frame.whole = piece.last;
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some(([first, second], mut rest)) = data.split_first_chunk() else { return };
    let preface = first & 1 != 0;
    let max = [16_384, 16_384, 100, 20][usize::from(first >> 1 & 3)];
    let input = match first & 8 != 0 {
        true => [PREFACE, rest].concat(),
        false => rest.to_vec(),
    };
    let expected = plainly(&input, preface, max);
    let mut deframer = Deframer::new(preface, max);
    let (mut all, mut random, mut failed) = (Vec::new(), u32::from(*second), false);
    rest = &input;
    while !rest.is_empty() && !failed {
        // Pieces of one octet, of some, or all that is left.
        random = random.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        let most = [1, 8, 40, usize::MAX][usize::from(first >> 4 & 3)];
        let (piece, after) = rest.split_at((1 + (random >> 16) as usize % most).min(rest.len()));
        rest = after;
        deframer.push(Bytes::copy_from_slice(piece));
        failed = !take(&mut deframer, &mut all);
    }
    assert_eq!((all, failed), expected);
    if failed {
        deframer.fail();
        deframer.push(Bytes::from_static(&[0; 9]));
        assert!(matches!(deframer.cut(), Ok(Cut::Hungry)));
    }
});
