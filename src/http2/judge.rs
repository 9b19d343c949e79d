//! What RFC 9113 §8.2 says of one name and one value, as bits of [`Field::flags`].
//!
//! Refuses to know what a message needs: [`super::message`] does.
//!
//! [`Field::flags`]: super::field::Field::flags

use super::field::{NameKind, flag};

/// All flags of one field.
pub fn judge(name: &[u8], value: &[u8]) -> u8 {
    let of_name = judge_name(name);
    of_name | judge_value(of_name, value)
}

/// What the name alone says: [`NameKind`], [`flag::BAD_NAME`], [`flag::CONNECTION`].
pub(super) fn judge_name(name: &[u8]) -> u8 {
    let (token, regular) = match name {
        [b':', rest @ ..] => (rest, NameKind::UnknownPseudo),
        _ => (name, NameKind::Regular),
    };
    if token.is_empty() || !token.iter().all(|&octet| LOWER_TOKEN[octet as usize]) {
        return regular as u8 | flag::BAD_NAME;
    }
    match name {
        b":authority" => NameKind::Authority as u8,
        b":method" => NameKind::Method as u8,
        b":path" => NameKind::Path as u8,
        b":scheme" => NameKind::Scheme as u8,
        b":status" => NameKind::Status as u8,
        b":protocol" => NameKind::Protocol as u8,
        b"te" => NameKind::Te as u8,
        b"content-length" => NameKind::ContentLength as u8,
        b"host" => NameKind::Host as u8,
        b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade" => {
            flag::CONNECTION
        }
        _ => regular as u8,
    }
}

/// What the value adds, given what [`judge_name`] said.
#[inline]
pub(super) fn judge_value(of_name: u8, value: &[u8]) -> u8 {
    let mut flags = if has_control(value) { flag::BAD_VALUE } else { 0 };
    let blank = |octet: Option<&u8>| matches!(octet, Some(b' ' | b'\t'));
    if blank(value.first()) || blank(value.last()) {
        flags |= flag::PADDED_VALUE;
    }
    if of_name & 0xf0 == NameKind::Te as u8 && !value.eq_ignore_ascii_case(b"trailers") {
        flags |= flag::CONNECTION;
    }
    flags
}

/// A control octet other than HTAB. Many octets at a time, some of them twice.
#[inline]
fn has_control(value: &[u8]) -> bool {
    match value.len() {
        33..=64 => ends_have_control::<32>(value),
        16..=32 => ends_have_control::<16>(value),
        8..16 => ends_have_control::<8>(value),
        ..8 => value.iter().any(|octet| are_control(&[*octet])),
        _ => {
            let (pieces, _) = value.as_chunks::<32>();
            pieces.iter().chain(value.last_chunk()).any(are_control)
        }
    }
}

/// For `N` to `2 * N` octets.
#[inline]
fn ends_have_control<const N: usize>(value: &[u8]) -> bool {
    let ends = value.first_chunk::<N>().zip(value.last_chunk::<N>());
    ends.is_none_or(|(first, last)| are_control(first) | are_control(last))
}

/// Any of them is; without a branch, so that all are looked at at once.
#[inline(always)] // Some ten instructions.
fn are_control<const N: usize>(octets: &[u8; N]) -> bool {
    let mut found = 0_u8;
    for octet in octets {
        let low = if *octet < b' ' { 0xff } else { 0 };
        let tab = if *octet == b'\t' { 0xff } else { 0 };
        let del = if *octet == 0x7f { 0xff } else { 0 };
        found |= low & !tab | del;
    }
    found != 0
}

/// RFC 9110 §5.6.2 `tchar` without the upper-case letters.
const LOWER_TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut octet = 0;
    while octet < 256 {
        table[octet] = matches!(octet as u8, b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%'
            | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        octet += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judges_names() {
        for name in [&b"grpc-timeout"[..], b"x", b"a!#$%&'*+-.^_`|~0"] {
            assert_eq!(judge(name, b"v"), 0, "{name:?}");
        }
        for name in [&b""[..], b"X", b"a b", b"a:b", b"a\0", b"\xe9", b"a\x7f", b"a("] {
            assert_eq!(judge(name, b"v"), flag::BAD_NAME, "{name:?}");
        }
        for name in [&b":"[..], b":Path", b"::path", b":a b"] {
            let flags = judge(name, b"v");
            assert_eq!(flags & flag::FAULTS, flag::BAD_NAME, "{name:?}");
            assert_eq!(NameKind::of_flags(flags), NameKind::UnknownPseudo, "{name:?}");
        }
        for name in [
            &b"connection"[..],
            b"keep-alive",
            b"proxy-connection",
            b"transfer-encoding",
            b"upgrade",
        ] {
            assert_eq!(judge(name, b"v"), flag::CONNECTION, "{name:?}");
        }
    }

    #[test]
    fn judges_kinds() {
        let cases: [(&[u8], NameKind, bool); 11] = [
            (b":authority", NameKind::Authority, true),
            (b":method", NameKind::Method, true),
            (b":path", NameKind::Path, true),
            (b":scheme", NameKind::Scheme, true),
            (b":status", NameKind::Status, true),
            (b":protocol", NameKind::Protocol, true),
            (b":other", NameKind::UnknownPseudo, true),
            (b"te", NameKind::Te, false),
            (b"content-length", NameKind::ContentLength, false),
            (b"host", NameKind::Host, false),
            (b"accept", NameKind::Regular, false),
        ];
        for (name, kind, pseudo) in cases {
            let flags = judge(name, b"trailers");
            assert_eq!(flags & flag::FAULTS, 0, "{name:?}");
            assert_eq!(NameKind::of_flags(flags), kind);
            assert_eq!(kind.is_pseudo(), pseudo);
        }
        assert_eq!(judge(b"te", b"gzip") & flag::FAULTS, flag::CONNECTION);
    }

    #[test]
    fn judges_values() {
        for octet in 0..=255u8 {
            let legal = octet == b'\t' || (octet >= b' ' && octet != 0x7f);
            let expected = if legal { 0 } else { flag::BAD_VALUE };
            assert_eq!(judge(b"x", &[b'a', octet, b'z']), expected, "{octet}");
            for at in 1..19 {
                let mut value = [b'\xff'; 20];
                value[at] = octet;
                assert_eq!(judge(b"x", &value), expected, "{octet} at {at}");
                value[19 - at] = b'\t';
                if at != 19 - at {
                    assert_eq!(judge(b"x", &value), expected, "{octet} at {at} beside a tab");
                }
            }
        }
        for len in 0..200 {
            let mut value = vec![b'v'; len];
            assert_eq!(judge(b"x", &value), 0, "{len} octets");
            for at in 0..len {
                value[at] = 0x7f;
                assert_eq!(judge(b"x", &value), flag::BAD_VALUE, "{len} octets, {at}");
                value[at] = b'v';
            }
        }
        for value in [&b" a"[..], b"a ", b"\ta", b"a\t", b" "] {
            assert_eq!(judge(b"x", value), flag::PADDED_VALUE);
        }
        assert_eq!(judge(b"x", b""), 0);
    }
}
