//! Integers with a prefix (RFC 7541 §5.1).
//!
//! 1. A decoded integer fits `u32`; what does not is an error, as is one that goes on for more
//!    than `CONTINUATIONS_MAX` octets, be they zeros: nobody needs them and they cost us time.

/// Five groups of seven bits hold any `u32`.
const CONTINUATIONS_MAX: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IntegerError {
    /// The block ends inside.
    Truncated,
    TooLarge,
}

/// Reads an integer whose prefix is the low `prefix` bits (1 to 8) of the first octet. Gives it
/// and the rest of the input.
#[inline]
pub(super) fn decode(input: &[u8], prefix: u8) -> Result<(u32, &[u8]), IntegerError> {
    debug_assert!((1..=8).contains(&prefix));
    let Some((&first, rest)) = input.split_first() else { return Err(IntegerError::Truncated) };
    let mask = prefix_mask(prefix);
    let start = first & mask;
    if start < mask { Ok((u32::from(start), rest)) } else { decode_long(rest, mask) }
}

fn decode_long(input: &[u8], mask: u8) -> Result<(u32, &[u8]), IntegerError> {
    let mut value = u64::from(mask);
    for (count, &octet) in input.iter().enumerate().take(CONTINUATIONS_MAX) {
        value += u64::from(octet & 0x7f) << (7 * count);
        if octet & 0x80 == 0 {
            let value = u32::try_from(value).map_err(|_| IntegerError::TooLarge)?;
            return Ok((value, input.get(count + 1..).unwrap_or_default()));
        }
    }
    let short = input.len() < CONTINUATIONS_MAX;
    Err(if short { IntegerError::Truncated } else { IntegerError::TooLarge })
}

/// Appends `value` with `pattern` in the bits above the prefix.
#[inline]
pub(super) fn encode(value: u32, prefix: u8, pattern: u8, out: &mut Vec<u8>) {
    let mask = prefix_mask(prefix);
    debug_assert_eq!(pattern & mask, 0);
    if value < u32::from(mask) {
        out.push(pattern | value as u8);
    } else {
        encode_long(value - u32::from(mask), pattern | mask, out);
    }
}

fn encode_long(mut rest: u32, first: u8, out: &mut Vec<u8>) {
    out.push(first);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

const fn prefix_mask(prefix: u8) -> u8 {
    0xff >> (8 - prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: u32, prefix: u8) -> Vec<u8> {
        let mut out = Vec::new();
        encode(value, prefix, 0, &mut out);
        out
    }

    /// RFC 7541 C.1.1 to C.1.3.
    #[test]
    fn examples_of_the_rfc() {
        let cases: [(u32, u8, &[u8]); 3] =
            [(10, 5, &[0b01010]), (1337, 5, &[0b11111, 0b1001_1010, 0b0000_1010]), (42, 8, &[42])];
        for (value, prefix, octets) in cases {
            assert_eq!(encoded(value, prefix), octets);
            assert_eq!(decode(octets, prefix), Ok((value, &[][..])));
        }
    }

    #[test]
    fn edges_round_trip_under_every_prefix() {
        for prefix in 1..=8u8 {
            let mask = u32::from(prefix_mask(prefix));
            let mut values = vec![0, 1, mask - 1, mask, mask + 1, u32::MAX - 1, u32::MAX];
            for bits in 1..32 {
                values.extend([mask + (1 << bits) - 1, mask + (1 << bits)]);
            }
            for value in values {
                let mut octets = encoded(value, prefix);
                octets.push(0xaa);
                assert_eq!(decode(&octets, prefix), Ok((value, &[0xaa][..])));
            }
        }
    }

    #[test]
    fn the_bits_above_the_prefix_are_the_callers() {
        let mut out = Vec::new();
        encode(1337, 5, 0b0110_0000, &mut out);
        assert_eq!(out[0], 0b0111_1111);
        assert_eq!(decode(&out, 5), Ok((1337, &[][..])));
    }

    #[test]
    fn refuses_what_is_too_large_or_too_long() {
        // 2^32 with a 5-bit prefix: 31 + (2^32 - 31).
        let just_over: [u8; 6] = [0x1f, 0xe1, 0xff, 0xff, 0xff, 0x0f];
        assert_eq!(decode(&just_over, 5), Err(IntegerError::TooLarge));
        let just_under: [u8; 6] = [0x1f, 0xe0, 0xff, 0xff, 0xff, 0x0f];
        assert_eq!(decode(&just_under, 5), Ok((u32::MAX, &[][..])));
        let huge: [u8; 6] = [0x1f, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(decode(&huge, 5), Err(IntegerError::TooLarge));
        let zeros: [u8; 7] = [0x1f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00];
        assert_eq!(decode(&zeros, 5), Err(IntegerError::TooLarge));
        let zeros_allowed: [u8; 6] = [0x1f, 0x80, 0x80, 0x80, 0x80, 0x00];
        assert_eq!(decode(&zeros_allowed, 5), Ok((31, &[][..])));
    }

    #[test]
    fn refuses_what_is_cut_off() {
        for octets in [&[][..], &[0x1f], &[0x1f, 0x80], &[0x1f, 0xff, 0xff, 0xff]] {
            assert_eq!(decode(octets, 5), Err(IntegerError::Truncated));
        }
    }
}
