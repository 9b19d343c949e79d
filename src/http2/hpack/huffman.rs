//! The Huffman code (RFC 7541 §5.2, Appendix B).
//!
//! The code is canonical: within one length, codes ascend with their symbols, and shorter codes
//! come before longer ones. So the lengths say everything and all tables are made from them at
//! compile time.
//!
//! 1. Padding is fewer than eight bits, all ones; EOS inside a string is an error (§5.2).
//! 2. A string is decoded to at most the room it is given, and is checked to its end all the same.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HuffmanError;

/// Bits of each symbol's code; the last is EOS.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, //
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, //
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, //
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, //
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, //
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, //
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, //
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, //
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, //
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, //
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, //
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, //
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, //
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, //
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, //
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, //
    30,
];

const SHORTEST: usize = 5;
const LONGEST: usize = 30;
const EOS: u16 = 256;

/// Most octets that `len` coded ones can hold.
pub(super) const fn decoded_len_max(len: usize) -> usize {
    len * 8 / SHORTEST
}

/// Appends the string that `coded` holds if it is at most `room` octets, and says whether it was.
pub(super) fn decode(coded: &[u8], room: usize, out: &mut Vec<u8>) -> Result<bool, HuffmanError> {
    if decoded_len_max(coded.len()) > room && walk(coded, |_| ())? > room {
        return Ok(false);
    }
    out.reserve(decoded_len_max(coded.len()).min(room));
    walk(coded, |octet| out.push(octet))?;
    Ok(true)
}

/// Gives each octet to `sink`, then their number.
#[inline]
fn walk(coded: &[u8], mut sink: impl FnMut(u8)) -> Result<usize, HuffmanError> {
    let mut count = 0;
    // The bits not yet understood, from the top; below `held` they are zero.
    let mut bits = 0u64;
    let mut held = 0usize;
    let mut input = coded.iter();
    loop {
        while held <= 56
            && let Some(&octet) = input.next()
        {
            bits |= u64::from(octet) << (56 - held);
            held += 8;
        }
        if held < SHORTEST {
            break;
        }
        let short = SHORT[(bits >> (64 - SHORT_BITS)) as usize];
        let (symbol, len) = if short.len != 0 {
            (u16::from(short.symbol), usize::from(short.len))
        } else {
            long(bits)
        };
        if len > held {
            break;
        }
        let Ok(octet) = u8::try_from(symbol) else { return Err(HuffmanError) };
        sink(octet);
        count += 1;
        bits <<= len;
        held -= len;
    }
    // Fewer than eight bits of ones (`held` zeros below them do not count).
    let padded = held < 8 && bits >> 56 == u64::from(PADDING[held.min(7)]);
    if padded { Ok(count) } else { Err(HuffmanError) }
}

const PADDING: [u8; 8] = [0, 0x80, 0xc0, 0xe0, 0xf0, 0xf8, 0xfc, 0xfe];

#[derive(Clone, Copy)]
struct Short {
    symbol: u8,
    /// 0: the code is longer than `SHORT_BITS`.
    len: u8,
}

const SHORT_BITS: usize = 10;
static SHORT: [Short; 1 << SHORT_BITS] = short_codes();

/// For each length: the first code above all of this length, aligned to the top of 32 bits.
static LIMITS: [u64; LONGEST + 1] = CODE.limits;
/// Symbols by code; for each length, where its first one stands and its first code.
static ORDER: [u16; 257] = CODE.order;

/// The symbol at the top of `bits`, whose code is longer than `SHORT_BITS`.
fn long(bits: u64) -> (u16, usize) {
    let top = bits >> 32;
    for len in SHORT_BITS + 1..=LONGEST {
        if top < LIMITS[len] {
            let code = (top >> (32 - len)) as u32;
            let at = code.wrapping_sub(CODE.first_code[len]) as usize + CODE.first_at[len];
            return (ORDER.get(at).copied().unwrap_or(EOS), len);
        }
    }
    (EOS, LONGEST)
}

/// Octets that the coded form would take.
pub(super) fn encoded_len(octets: &[u8]) -> usize {
    let bits: usize = octets.iter().map(|&octet| usize::from(LENGTHS[octet as usize])).sum();
    bits.div_ceil(8)
}

/// Appends the coded form.
pub(super) fn encode(octets: &[u8], out: &mut Vec<u8>) {
    let mut bits = 0u64;
    let mut held = 0usize;
    for &octet in octets {
        let len = usize::from(LENGTHS[octet as usize]);
        bits = bits << len | u64::from(CODES[octet as usize]);
        held += len;
        if held >= 32 {
            held -= 32;
            out.extend_from_slice(&((bits >> held) as u32).to_be_bytes());
        }
    }
    // Ones up to the octet's end (§5.2).
    let spare = held.next_multiple_of(8) - held;
    bits = bits << spare | ((1 << spare) - 1);
    held += spare;
    while held > 0 {
        held -= 8;
        out.push((bits >> held) as u8);
    }
}

static CODES: [u32; 257] = CODE.codes;
const CODE: Code = canonical();

struct Code {
    codes: [u32; 257],
    order: [u16; 257],
    limits: [u64; LONGEST + 1],
    first_code: [u32; LONGEST + 1],
    first_at: [usize; LONGEST + 1],
}

const fn canonical() -> Code {
    let mut made = Code {
        codes: [0; 257],
        order: [0; 257],
        limits: [0; LONGEST + 1],
        first_code: [0; LONGEST + 1],
        first_at: [0; LONGEST + 1],
    };
    let mut code = 0u32;
    let mut at = 0;
    let mut len = 1;
    while len <= LONGEST {
        code <<= 1;
        made.first_code[len] = code;
        made.first_at[len] = at;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == len {
                made.codes[symbol] = code;
                made.order[at] = symbol as u16;
                code += 1;
                at += 1;
            }
            symbol += 1;
        }
        made.limits[len] = (code as u64) << (32 - len);
        len += 1;
    }
    assert!(code == 1 << LONGEST, "the code is complete");
    made
}

const fn short_codes() -> [Short; 1 << SHORT_BITS] {
    let mut table = [Short { symbol: 0, len: 0 }; 1 << SHORT_BITS];
    let mut symbol = 0;
    while symbol < 256 {
        let len = LENGTHS[symbol] as usize;
        if len <= SHORT_BITS {
            let first = (CODE.codes[symbol] as usize) << (SHORT_BITS - len);
            let mut at = first;
            while at < first + (1 << (SHORT_BITS - len)) {
                table[at] = Short { symbol: symbol as u8, len: len as u8 };
                at += 1;
            }
        }
        symbol += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, HuffmanError> {
        let mut out = Vec::new();
        assert!(decode(coded, usize::MAX, &mut out)?);
        Ok(out)
    }

    fn encoded(octets: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(octets, &mut out);
        assert_eq!(out.len(), encoded_len(octets));
        out
    }

    /// Strings of RFC 7541 C.4 and C.6.
    #[test]
    fn examples_of_the_rfc() {
        let cases: [(&[u8], &str); 4] = [
            (b"www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
            (b"no-cache", "a8eb10649cbf"),
            (b"custom-value", "25a849e95bb8e8b4bf"),
            (b"302", "6402"),
        ];
        for (octets, hex) in cases {
            let coded: Vec<String> = encoded(octets).iter().map(|o| format!("{o:02x}")).collect();
            assert_eq!(coded.concat(), hex);
            assert_eq!(decoded(&encoded(octets)), Ok(octets.to_vec()));
        }
    }

    #[test]
    fn every_symbol_round_trips_alone_and_among_others() {
        for octet in 0..=255u8 {
            for string in [vec![octet], vec![octet; 7], vec![b'a', octet, b'z', octet, 0]] {
                assert_eq!(decoded(&encoded(&string)), Ok(string));
            }
        }
        let all: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        assert_eq!(decoded(&encoded(&all)), Ok(all));
    }

    #[test]
    fn padding_must_be_short_and_ones() {
        assert_eq!(decoded(&[]), Ok(vec![]));
        // '0' is 00000.
        assert_eq!(decoded(&[0b0000_0111]), Ok(vec![b'0']));
        for wrong in [0b0000_0110, 0b0000_0011, 0b0000_0000] {
            assert_eq!(decoded(&[wrong]), Err(HuffmanError));
        }
        // Eight bits of padding, after a symbol and alone.
        assert_eq!(decoded(&[0b0000_0111, 0xff]), Err(HuffmanError));
        assert_eq!(decoded(&[0xff]), Err(HuffmanError));
        // '&' is 11111000: no padding left.
        assert_eq!(decoded(&[0xf8]), Ok(vec![b'&']));
    }

    #[test]
    fn eos_is_an_error() {
        // Thirty ones, then padding of two.
        assert_eq!(decoded(&[0xff; 4]), Err(HuffmanError));
        // EOS between two symbols: 00000, thirty ones, 00000.
        assert_eq!(decoded(&[0x07, 0xff, 0xff, 0xff, 0xe0]), Err(HuffmanError));
        assert_eq!(decoded(&[0xff; 40]), Err(HuffmanError));
    }

    #[test]
    fn room_is_kept_and_the_rest_still_checked() {
        let coded = encoded(b"0123456789");
        let mut out = Vec::new();
        assert_eq!(decode(&coded, 9, &mut out), Ok(false));
        assert!(out.is_empty());
        assert_eq!(decode(&coded, 10, &mut out), Ok(true));
        assert_eq!(out, b"0123456789");
        assert_eq!(decode(&[&coded[..], &[0xff, 0xff]].concat(), 0, &mut out), Err(HuffmanError));
    }
}
