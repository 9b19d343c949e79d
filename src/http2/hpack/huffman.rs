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
    let most = decoded_len_max(coded.len());
    if most > room && walk(coded, |_, _| ())? > room {
        return Ok(false);
    }
    let start = out.len();
    out.resize(start + most.min(room) + GROUP, 0);
    let target = out.get_mut(start..).unwrap_or_default();
    let walked = walk(coded, |at, group| {
        if let Some(slot) = target.get_mut(at..at + GROUP) {
            slot.copy_from_slice(&group);
        }
    });
    out.truncate(start + walked.unwrap_or(0));
    walked.map(|_| true)
}

/// Octets that one step may give; of the last ones some may mean nothing.
const GROUP: usize = 2;

/// Gives octets with their position to `sink`, group by group, then their number.
#[inline]
fn walk(mut coded: &[u8], mut sink: impl FnMut(usize, [u8; GROUP])) -> Result<usize, HuffmanError> {
    let mut count = 0;
    // The bits not yet understood, from the top. Below the `held` first ones there are zeros or
    // already the right bits.
    let mut bits = 0u64;
    let mut held = 0;
    loop {
        (bits, held, coded) = refill(bits, held, coded);
        // While the longest code fits, no step can reach beyond what is held. When the input is
        // used up, zeros stand below, and a step that reaches into them is taken apart.
        let enough = if coded.is_empty() { SHORTEST } else { LONGEST };
        while held >= enough {
            let step = STEPS[(bits >> (64 - STEP_BITS)) as usize];
            let (group, symbols, len) = if step.count != 0 && usize::from(step.len) <= held {
                (step.octets, usize::from(step.count), usize::from(step.len))
            } else {
                let (symbol, len) = symbol(bits);
                if len > held {
                    break;
                }
                ([u8::try_from(symbol).map_err(|_| HuffmanError)?, 0], 1, len)
            };
            sink(count, group);
            count += symbols;
            bits <<= len;
            held -= len;
        }
        if coded.is_empty() {
            break;
        }
    }
    let padding = !0 << (64 - held.clamp(1, 63));
    let padded = held < 8 && bits == if held == 0 { 0 } else { padding };
    if padded { Ok(count) } else { Err(HuffmanError) }
}

/// Fills up from `coded`, to 56 bits at least unless the input ends. Gives what is left of it.
#[inline]
fn refill(mut bits: u64, mut held: usize, mut coded: &[u8]) -> (u64, usize, &[u8]) {
    debug_assert!(held < 56);
    if let Some(word) = coded.first_chunk::<8>() {
        bits |= u64::from_be_bytes(*word) >> held;
        let taken = (63 - held) / 8;
        return (bits, held + 8 * taken, coded.get(taken..).unwrap_or_default());
    }
    while held < 56
        && let Some((&octet, rest)) = coded.split_first()
    {
        bits |= u64::from(octet) << (56 - held);
        held += 8;
        coded = rest;
    }
    (bits, held, coded)
}

/// The symbols whose codes lie wholly in the first `STEP_BITS` bits; one or two of them.
#[derive(Clone, Copy)]
struct Step {
    octets: [u8; GROUP],
    /// 0: the first code is longer.
    count: u8,
    len: u8,
}

/// Enough for two of the commonest symbols.
const STEP_BITS: usize = 12;
static STEPS: [Step; 1 << STEP_BITS] = steps();

/// For each length: the first code above all of this length, aligned to the top of 32 bits.
static LIMITS: [u64; LONGEST + 1] = CODE.limits;
/// Symbols by code; for each length, where its first one stands and its first code.
static ORDER: [u16; 257] = CODE.order;
static FIRST_AT: [usize; LONGEST + 1] = CODE.first_at;
static FIRST_CODE: [u32; LONGEST + 1] = CODE.first_code;

/// The symbol at the top of `bits`, whatever the length of its code.
fn symbol(bits: u64) -> (u16, usize) {
    let top = bits >> 32;
    let len = LIMITS.iter().position(|&limit| top < limit).unwrap_or(LONGEST);
    let code = (top >> (32 - len)) as u32;
    let at = code.wrapping_sub(FIRST_CODE[len]) as usize + FIRST_AT[len];
    (ORDER.get(at).copied().unwrap_or(EOS), len)
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

const fn steps() -> [Step; 1 << STEP_BITS] {
    let one = singles();
    let mut table = one;
    let mut at = 0;
    while at < table.len() {
        let first = one[at];
        // The second code begins after the first; zeros stand for the bits that are not there.
        let second = one[(at << first.len) & (table.len() - 1)];
        if first.count == 1 && second.count == 1 && (first.len + second.len) as usize <= STEP_BITS {
            let octets = [first.octets[0], second.octets[0]];
            table[at] = Step { octets, count: 2, len: first.len + second.len };
        }
        at += 1;
    }
    table
}

/// Steps of one symbol.
const fn singles() -> [Step; 1 << STEP_BITS] {
    let mut table = [Step { octets: [0; GROUP], count: 0, len: 0 }; 1 << STEP_BITS];
    let mut symbol = 0;
    while symbol < 256 {
        let len = LENGTHS[symbol] as usize;
        if len <= STEP_BITS {
            let first = (CODE.codes[symbol] as usize) << (STEP_BITS - len);
            let mut at = first;
            while at < first + (1 << (STEP_BITS - len)) {
                table[at] = Step { octets: [symbol as u8, 0], count: 1, len: len as u8 };
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
