//! Short strings copied and compared without a call: names and values have some tens of octets,
//! which two loads of a fixed size cover, the second of them overlapping the first.
//!
//! Refuses to know what the octets mean.

/// Appends `octets`.
#[inline(always)] // Or else the registers that growing needs are saved and restored each time.
pub(in crate::http2) fn append(out: &mut Vec<u8>, octets: &[u8]) {
    match octets.len() {
        16..=32 => append_ends::<16>(out, octets),
        8..16 => append_ends::<8>(out, octets),
        33..=64 => append_ends::<32>(out, octets),
        _ => out.extend_from_slice(octets),
    }
}

/// For `N` to `2 * N` octets.
#[inline]
fn append_ends<const N: usize>(out: &mut Vec<u8>, octets: &[u8]) {
    let (Some(first), Some(last)) = (octets.first_chunk::<N>(), octets.last_chunk::<N>()) else {
        return out.extend_from_slice(octets);
    };
    let last_at = out.len() + octets.len() - N;
    out.extend_from_slice(first);
    out.truncate(last_at);
    out.extend_from_slice(last);
}

#[inline]
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    match a.len() {
        16..=32 => same_ends::<16>(a, b),
        8..16 => same_ends::<8>(a, b),
        33..=64 => same_ends::<32>(a, b),
        _ => a == b,
    }
}

/// For `N` to `2 * N` octets, as many in `a` as in `b`.
#[inline]
fn same_ends<const N: usize>(a: &[u8], b: &[u8]) -> bool {
    a.first_chunk::<N>() == b.first_chunk::<N>() && a.last_chunk::<N>() == b.last_chunk::<N>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_copied_and_compared_whole() {
        let octets: Vec<u8> = (1..=150).collect();
        for len in 0..octets.len() {
            let mut out = b"before".to_vec();
            append(&mut out, &octets[..len]);
            assert_eq!(out, [b"before", &octets[..len]].concat());
            let copy = &mut out[6..];
            assert!(same(copy, &octets[..len]));
            assert!(!same(copy, &octets[..len + 1]));
            for at in 0..len {
                copy[at] ^= 0x80;
                assert!(!same(copy, &octets[..len]), "{len} octets, {at}");
                copy[at] ^= 0x80;
            }
        }
    }
}
