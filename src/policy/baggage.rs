//! `baggage`: what it must look like, and how daprd writes it down again.
//!
//! 1. Whatever is wrong with it is told, a line for each mistake, [`MISTAKES_OCTETS_MAX`] at most.
//! 2. Members are written in the order in which their keys came first.
//!
//! Sources: the W3C's "Baggage" recommendation; OpenTelemetry's `baggage.Parse` and
//! `Baggage.String`, which daprd asks and whose texts these are.

use super::method::quote;
use std::fmt::Write;

/// Members that are told apart by their keys.
const MEMBERS_MAX: usize = 64;
/// Of all of them, written down.
const OCTETS_MAX: usize = 8192;
/// daprd has no limit.
const MISTAKES_OCTETS_MAX: usize = 4 << 10;

/// As it is written down again; or why it is none.
pub fn parse(text: &[u8]) -> Result<String, String> {
    let mut members: Vec<Member<'_>> = Vec::new();
    let mut octets = 0;
    let mut mistakes = String::new();
    if text.is_empty() {
        return Ok(String::new());
    }
    for text in text.split(|octet| *octet == b',') {
        if mistakes.len() >= MISTAKES_OCTETS_MAX {
            break;
        }
        if members.len() >= MEMBERS_MAX {
            add(&mut mistakes, "too many list-members in baggage-string");
            break;
        }
        let mut member = match Member::parse(text) {
            Ok(member) => member,
            Err(mistake) => {
                add(&mut mistakes, &mistake);
                continue;
            }
        };
        let known = members.iter().position(|other| other.key == member.key);
        // With the comma before it, which who takes another's place does not need.
        member.octets += usize::from(known.is_none() && !members.is_empty());
        let replaced = known.map_or(0, |at| members[at].octets);
        if octets - replaced + member.octets > OCTETS_MAX {
            add(&mut mistakes, "baggage-string too large");
            break;
        }
        octets = octets - replaced + member.octets;
        match known {
            Some(at) => members[at] = member,
            None => members.push(member),
        }
    }
    if !mistakes.is_empty() {
        let mut len = mistakes.len().min(MISTAKES_OCTETS_MAX);
        while !mistakes.is_char_boundary(len) {
            len -= 1;
        }
        mistakes.truncate(len);
        return Err(mistakes);
    }
    let texts: Vec<_> = members.into_iter().map(|member| member.text).collect();
    Ok(texts.join(","))
}

fn add(mistakes: &mut String, mistake: &str) {
    if !mistakes.is_empty() {
        mistakes.push('\n');
    }
    mistakes.push_str(mistake);
}

struct Member<'a> {
    key: &'a [u8],
    /// As it is written down.
    text: String,
    /// What it takes of [`OCTETS_MAX`].
    octets: usize,
}

impl<'a> Member<'a> {
    fn parse(text: &'a [u8]) -> Result<Self, String> {
        let mut pieces = text.split(|octet| *octet == b';');
        let pair = pieces.next().unwrap_or_default();
        let mut properties = Vec::new();
        let mut several = false;
        for piece in pieces {
            several = true;
            if !piece.is_empty() {
                let invalid = || format!("invalid baggage list-member property: {}", quote(piece));
                properties.push(property(piece).ok_or_else(invalid)?);
            }
        }
        let (key, given) = cut(pair, b'=')
            .ok_or_else(|| format!("invalid baggage list-member: {}", quote(text)))?;
        let key = key.trim_ascii();
        if key.is_empty() || !key.iter().all(is_of_key) {
            return Err(format!("invalid key: {}", quote(key)));
        }
        let value = given.trim_ascii();
        if !value.iter().all(is_of_value) {
            return Err(format!("invalid value: {}", quote(given)));
        }
        let value = unescaped(value)
            .map_err(|bad| format!("invalid value: invalid URL escape {}", quote(bad)))?;
        let mut text = String::from_utf8_lossy(key).into_owned();
        text.push('=');
        escape(&mut text, &value);
        if several {
            text.push(';');
            text.push_str(&properties.join(";"));
        }
        let octets = text.len();
        Ok(Self { key, text, octets })
    }
}

/// `key`, or `key = value`.
fn property(text: &[u8]) -> Option<String> {
    let blank = |octet: &u8| matches!(octet, b' ' | b'\t');
    let trimmed = |text: &[u8]| {
        let begin = text.iter().position(|octet| !blank(octet)).unwrap_or(text.len());
        let end = text.iter().rposition(|octet| !blank(octet)).map_or(begin, |last| last + 1);
        begin..end
    };
    let (key, value) = match cut(text, b'=') {
        Some((key, value)) => (key, Some(value)),
        None => (text, None),
    };
    let key = &key[trimmed(key)];
    if key.is_empty() || !key.iter().all(is_of_key) {
        return None;
    }
    let mut written = String::from_utf8_lossy(key).into_owned();
    if let Some(value) = value {
        let value = &value[trimmed(value)];
        if !value.iter().all(is_of_value) {
            return None;
        }
        written.push('=');
        escape(&mut written, &unescaped(value).ok()?);
    }
    Some(written)
}

fn cut(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|octet| *octet == at)?;
    Some((&text[..at], &text[at + 1..]))
}

/// RFC 9110 §5.6.2: a token.
fn is_of_key(octet: &u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(octet)
}

/// `baggage-octet` of the recommendation.
fn is_of_value(octet: &u8) -> bool {
    octet.is_ascii_graphic() && !b"\",;\\".contains(octet)
}

/// Go's `url.PathUnescape`; the error is what is no escape. What is no UTF-8 then is replaced,
/// octet by octet.
fn unescaped(text: &[u8]) -> Result<String, &[u8]> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, more @ ..] = rest {
        if *first != b'%' {
            octets.push(*first);
            rest = more;
            continue;
        }
        let digit = |octet: &u8| char::from(*octet).to_digit(16).map(|digit| digit as u8);
        match more {
            [high, low, after @ ..] if digit(high).is_some() && digit(low).is_some() => {
                octets.push(digit(high).unwrap_or(0) << 4 | digit(low).unwrap_or(0));
                rest = after;
            }
            _ => return Err(&rest[..rest.len().min(3)]),
        }
    }
    let mut text = String::with_capacity(octets.len());
    for chunk in octets.utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|_| text.push(char::REPLACEMENT_CHARACTER));
    }
    Ok(text)
}

fn escape(out: &mut String, value: &str) {
    for octet in value.as_bytes() {
        match is_of_value(octet) && *octet != b'%' {
            true => out.push(char::from(*octet)),
            // A `String` takes any text.
            false => drop(write!(out, "%{octet:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        parse(text.as_bytes()).unwrap_or_else(|mistakes| panic!("{text}: {mistakes}"))
    }

    fn mistakes(text: &str) -> String {
        parse(text.as_bytes()).expect_err(text)
    }

    /// What daprd 1.18.1 answers to the same.
    #[test]
    fn is_written_as_daprd_writes_it() {
        assert_eq!(written(""), "");
        assert_eq!(written("k=v;p=1, x = y%20z"), "k=v;p=1,x=y%20z");
        assert_eq!(written("k=v%20a%25%41,x=1;a=%20;b ; c = d"), "k=v%20a%25A,x=1;a=%20;b;c=d");
        // OpenTelemetry's rules, where they surprise: the last of a key counts, in the first's
        // place; empty properties leave their mark; a value may hold what ends a key.
        assert_eq!(written("a=1,b=2,a=3;p"), "a=3;p,b=2");
        assert_eq!(written("a=b;,c=d;;e"), "a=b;,c=d;e");
        assert_eq!(written("a=b=c,d="), "a=b=c,d=");
        assert_eq!(written("a=%E2%82%20"), "a=%EF%BF%BD%EF%BF%BD%20");
    }

    #[test]
    fn mistakes_are_told_in_daprds_words() {
        assert_eq!(mistakes("kv"), r#"invalid baggage list-member: "kv""#);
        assert_eq!(mistakes("k=v,"), r#"invalid baggage list-member: """#);
        let several = "invalid value: invalid URL escape \"%zz\"\n\
                       invalid baggage list-member: \"b\"\ninvalid key: \"\"";
        assert_eq!(mistakes("k=%zz,b,=\""), several);
        assert_eq!(mistakes("a=b; = c"), r#"invalid baggage list-member property: " = c""#);
        assert_eq!(mistakes("a=b;c d"), r#"invalid baggage list-member property: "c d""#);
        assert_eq!(mistakes("a=b;c=%4"), r#"invalid baggage list-member property: "c=%4""#);
        assert_eq!(mistakes("a b=c"), r#"invalid key: "a b""#);
        assert_eq!(mistakes("a= b c"), r#"invalid value: " b c""#);
        assert_eq!(mistakes("a=%4"), r#"invalid value: invalid URL escape "%4""#);
        assert_eq!(mistakes("a=\u{e4}"), "invalid value: \"\u{e4}\"");
    }

    #[test]
    fn is_bounded() {
        let many = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>();
        assert_eq!(written(&many(64).join(",")), many(64).join(","));
        assert_eq!(mistakes(&many(65).join(",")), "too many list-members in baggage-string");
        // Two octets of key and sign, and the comma between the two.
        let sized = |octets: usize| format!("a=,b={}", "v".repeat(octets - 5));
        assert_eq!(written(&sized(8192)).len(), 8192);
        assert_eq!(mistakes(&sized(8193)), "baggage-string too large");
        // An escape may become longer than it was.
        assert_eq!(mistakes(&format!("a={}", "%ff".repeat(911))), "baggage-string too large");
        assert_eq!(mistakes(&",".repeat(1 << 20)).len(), MISTAKES_OCTETS_MAX);
        let long = mistakes(&"\u{e4}".repeat(1 << 20));
        assert!((MISTAKES_OCTETS_MAX - 2..=MISTAKES_OCTETS_MAX).contains(&long.len()));
    }

    /// Whatever comes, what is written is read again as the same.
    #[test]
    fn what_is_written_is_baggage() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut good = 0;
        for _ in 0..20_000 {
            let mut text = Vec::new();
            for _ in 0..seed % 12 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                text.push(b"ab=;, %2f0\xff\t\"="[seed as usize % 14]);
            }
            seed = seed.wrapping_add(1);
            if let Ok(once) = parse(&text) {
                good += 1;
                assert_eq!(parse(once.as_bytes()).as_ref(), Ok(&once), "{text:?}");
            }
        }
        assert!(good > 1000, "{good}");
    }
}
