//! API tokens, compared in constant time.
//!
//! Source: Dapr's `pkg/api/grpc/auth.go` (first value, exact).

use subtle::ConstantTimeEq;

/// Time depends on the length of `given` only.
pub fn matches(expected: &str, given: &[u8]) -> bool {
    expected.as_bytes().ct_eq(given).into()
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn exact() {
        assert!(matches("secret", b"secret"));
        assert!(!matches("secret", b"Secret"));
        assert!(!matches("secret", b"secret "));
        assert!(!matches("secret", b""));
    }
}
