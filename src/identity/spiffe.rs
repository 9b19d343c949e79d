//! SPIFFE IDs: `spiffe://<trust domain>/ns/<namespace>/<app ID>`.
//!
//! Rules of the SPIFFE ID standard as go-spiffe enforces them: scheme `spiffe`, trust domain of
//! `[a-z0-9._-]`, path segments of `[A-Za-z0-9._-]`, none empty, none `.` or `..`.

use std::fmt;
use std::sync::Arc;

/// A valid SPIFFE ID, kept as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    text: Arc<str>,
    path_start: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpiffeError {
    Scheme,
    TrustDomain,
    Path,
}

const SCHEME: &str = "spiffe://";

impl SpiffeId {
    pub fn parse(text: &str) -> Result<Self, SpiffeError> {
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeError::Scheme)?;
        let (domain, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let domain_ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        if domain.is_empty() || !domain.bytes().all(domain_ok) {
            return Err(SpiffeError::TrustDomain);
        }
        if !path.is_empty() && !path[1..].split('/').all(segment_ok) {
            return Err(SpiffeError::Path);
        }
        Ok(Self { text: text.into(), path_start: SCHEME.len() + domain.len() })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..self.path_start]
    }

    /// With its leading slash, or empty.
    pub fn path(&self) -> &str {
        &self.text[self.path_start..]
    }
}

fn segment_ok(segment: &str) -> bool {
    let byte_ok = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(byte_ok)
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for SpiffeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "scheme is missing or invalid",
            Self::TrustDomain => "trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores",
            Self::Path => "path segment characters are limited to letters, numbers, dots, dashes, and underscores",
        })
    }
}

impl std::error::Error for SpiffeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits() {
        let id = SpiffeId::parse("spiffe://public/ns/default/server").unwrap();
        assert_eq!(id.trust_domain(), "public");
        assert_eq!(id.path(), "/ns/default/server");
        assert_eq!(SpiffeId::parse("spiffe://public").unwrap().path(), "");
    }

    #[test]
    fn refuses() {
        for bad in ["", "http://a/b", "spiffe://", "spiffe://A/b", "spiffe://a//b", "spiffe://a/"] {
            assert!(SpiffeId::parse(bad).is_err(), "{bad}");
        }
        assert!(SpiffeId::parse("spiffe://a/ns/../b").is_err());
        assert!(SpiffeId::parse("spiffe://a/ns/b%20").is_err());
    }
}
