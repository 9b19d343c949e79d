//! Full method names: what daprd refuses before it looks at any policy.
//!
//! Source: method normalisation in Dapr's `pkg/messaging` (texts in spec 02 §2.5) and grpc-go's
//! `handleStream` (malformed names).

use std::fmt::Write;

/// Why a `:path` names no method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodError {
    /// No leading or no second slash.
    Malformed,
    /// `#` or `?`.
    ForbiddenCharacter,
    /// A control octet, at this position.
    Control(usize),
    /// A space, or an octet that a reader may decode (`%`) or take for a slash (`\\`).
    Ambiguous,
    /// `//`, `/./`, `/../`, a slash at the end: path cleaning makes another path of it.
    Unclean,
}

/// grpc-go: `/service/method`; the service may be empty but not absent.
pub fn check_shape(path: &[u8]) -> Result<(), MethodError> {
    match path.strip_prefix(b"/") {
        Some(rest) if rest.contains(&b'/') => Ok(()),
        Some(_) | None => Err(MethodError::Malformed),
    }
}

/// What a port that knows nothing of methods asks.
pub fn check_absolute(path: &[u8]) -> Result<(), MethodError> {
    match path.first() {
        Some(b'/') => Ok(()),
        Some(_) | None => Err(MethodError::Malformed),
    }
}

/// What Go's `path.Clean` would leave as it is, and what nobody decodes. daprd judges the cleaned
/// path and dispatches the one it got; here both are one, or nothing.
pub fn check_clean(path: &[u8]) -> Result<(), MethodError> {
    if path.iter().any(|b| matches!(b, b' ' | b'%' | b'\\')) {
        return Err(MethodError::Ambiguous);
    }
    let segments = path.strip_prefix(b"/").unwrap_or(path);
    let mut each = segments.split(|b| *b == b'/');
    match segments.is_empty() || each.all(|segment| !matches!(segment, b"" | b"." | b"..")) {
        true => Ok(()),
        false => Err(MethodError::Unclean),
    }
}

/// What the callee's side of daprd refuses.
pub fn check_characters(path: &[u8]) -> Result<(), MethodError> {
    if path.iter().any(|b| matches!(b, b'#' | b'?')) {
        return Err(MethodError::ForbiddenCharacter);
    }
    match path.iter().position(|b| *b < 0x20 || *b == 0x7f) {
        Some(at) => Err(MethodError::Control(at)),
        None => Ok(()),
    }
}

/// The gRPC message for an error, with the path quoted as Go's `%q` does.
pub fn error_message(path: &[u8], error: MethodError) -> String {
    let quoted = quote(path);
    match error {
        MethodError::Malformed => format!("malformed method name: {quoted}"),
        MethodError::ForbiddenCharacter => {
            format!("invalid method: method contains forbidden character: {quoted}")
        }
        MethodError::Control(at) => {
            format!("invalid method: method contains control character at position {at}: {quoted}")
        }
        MethodError::Ambiguous => {
            format!(
                "invalid method: method contains a space, a percent sign or a backslash: {quoted}"
            )
        }
        MethodError::Unclean => {
            format!("invalid method: method is not the same when its path is cleaned: {quoted}")
        }
    }
}

/// Go's `%q` for what a header value can hold.
pub fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for c in String::from_utf8_lossy(bytes).chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts observed on daprd 1.18.1 (spec 14).
    #[test]
    fn speaks_as_daprd() {
        let error = check_shape(b"/xyz").unwrap_err();
        assert_eq!(error_message(b"/xyz", error), "malformed method name: \"/xyz\"");
        let error = check_characters(b"/p.S/Ec#ho").unwrap_err();
        assert_eq!(
            error_message(b"/p.S/Ec#ho", error),
            "invalid method: method contains forbidden character: \"/p.S/Ec#ho\""
        );
        assert_eq!(check_shape(b"p.S/Echo"), Err(MethodError::Malformed));
        assert_eq!(check_shape(b"/p.S//Echo"), Ok(()));
    }

    #[test]
    fn only_what_everybody_reads_alike_is_clean() {
        let good: [&[u8]; 6] = [b"/", b"/a", b"/a.B/C", b"/a.B/C/d", b"/a.B/..C", b"/.a/C..."];
        for path in good {
            assert_eq!(check_clean(path), Ok(()), "{}", quote(path));
        }
        let unclean: [&[u8]; 9] = [
            b"//",
            b"/a.B//C",
            b"//a.B/C",
            b"/a.B/C/",
            b"/./a.B/C",
            b"/a.B/./C",
            b"/a.B/../C",
            b"/a.B/C/..",
            b"/..",
        ];
        for path in unclean {
            assert_eq!(check_clean(path), Err(MethodError::Unclean), "{}", quote(path));
        }
        let ambiguous: [&[u8]; 4] = [b"/a.B/%2e%2E/C", b"/a.B%2fC", b"/a.B\\C", b"/a.B/C d"];
        for path in ambiguous {
            assert_eq!(check_clean(path), Err(MethodError::Ambiguous), "{}", quote(path));
        }
        assert_eq!(check_absolute(b"*"), Err(MethodError::Malformed));
        assert_eq!(check_absolute(b""), Err(MethodError::Malformed));
        assert_eq!(check_absolute(b"/"), Ok(()));
    }

    #[test]
    fn finds_control_octets() {
        assert_eq!(check_characters(b"/a/\x01"), Err(MethodError::Control(3)));
        assert_eq!(check_characters(b"/a/\x7f"), Err(MethodError::Control(3)));
    }
}
