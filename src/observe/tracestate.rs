//! `tracestate`: what vendors say of a trace beside its context (W3C Trace Context §3.3).
//!
//! Source: OpenTelemetry's `trace.ParseTraceState`, which daprd asks: what is malformed anywhere is
//! nothing at all.

const MEMBERS_MAX: usize = 32;
const VALUE_OCTETS_MAX: usize = 256;
/// daprd sends no longer one (`diagnostics/consts.go`).
pub const SENT_OCTETS_MAX: usize = 512;

/// As it is written down again; `None` says nothing.
pub fn parse(text: &[u8]) -> Option<String> {
    let mut members: Vec<(&str, &str)> = Vec::new();
    for member in std::str::from_utf8(text).ok()?.split(',').filter(|member| !member.is_empty()) {
        let (key, value) = member.split_once('=')?;
        let key = key.trim_start_matches([' ', '\t']);
        let value = value.trim_end_matches([' ', '\t']);
        let known = members.iter().any(|(other, _)| *other == key);
        if !is_key(key) || !is_value(value) || known || members.len() == MEMBERS_MAX {
            return None;
        }
        members.push((key, value));
    }
    let texts: Vec<_> = members.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Some(texts.join(",")).filter(|text| !text.is_empty())
}

fn is_key(key: &str) -> bool {
    let inner = |octet: u8| matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/');
    let is = |text: &str, octets_max: usize, digits: bool| {
        let begins = |first: &u8| first.is_ascii_lowercase() || digits && first.is_ascii_digit();
        text.len() <= octets_max
            && text.as_bytes().first().is_some_and(begins)
            && text.bytes().all(inner)
    };
    match key.split_once('@') {
        None => is(key, 256, false),
        Some((tenant, system)) => is(tenant, 241, true) && is(system, 14, false),
    }
}

fn is_value(value: &str) -> bool {
    let is_of_value = |octet: u8| matches!(octet, b' '..=b'~') && octet != b',' && octet != b'=';
    !value.is_empty()
        && value.len() <= VALUE_OCTETS_MAX
        && value.bytes().all(is_of_value)
        && !value.ends_with(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_down_again() {
        let parse = |text: &str| parse(text.as_bytes());
        assert_eq!(parse("a=b , \tc=d e,,"), Some("a=b,c=d e".to_owned()));
        assert_eq!(parse("1a-*/_@b=!~"), Some("1a-*/_@b=!~".to_owned()));
        let longest = format!("{}=v", "k".repeat(256));
        assert_eq!(parse(&longest), Some(longest));
        let many = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>();
        assert_eq!(parse(&many(32).join(",")), Some(many(32).join(",")));
        for wrong in [
            "",
            ",",
            "a",
            "a=",
            "=b",
            "1a=b",
            "A=b",
            "a=b,a=c",
            "a=b=c",
            "a=\u{e4}",
            "a =b",
            " ",
            "a@=b",
            "@a=b",
            "a@1b=c",
            "a=\t",
            "a=b\x01",
            &many(33).join(","),
            &format!("k{}=v", "k".repeat(256)),
            &format!("{}@a=v", "k".repeat(242)),
            &format!("a@{}=v", "k".repeat(15)),
            &format!("a={}", "v".repeat(257)),
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert_eq!(super::parse(b"a=\xff"), None);
    }
}
