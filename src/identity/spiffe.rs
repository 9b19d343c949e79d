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
    Empty,
    Scheme,
    NoTrustDomain,
    TrustDomain,
    Path,
    DotSegment,
    EmptySegment,
    TrailingSlash,
}

const SCHEME: &str = "spiffe://";

impl SpiffeId {
    pub fn parse(text: &str) -> Result<Self, SpiffeError> {
        if text.is_empty() {
            return Err(SpiffeError::Empty);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeError::Scheme)?;
        let (domain, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let domain_ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        if !domain.bytes().all(domain_ok) {
            return Err(SpiffeError::TrustDomain);
        }
        if domain.is_empty() {
            return Err(SpiffeError::NoTrustDomain);
        }
        if let Some(segments) = path.strip_prefix('/') {
            judge_path(segments)?;
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

    /// Namespace and app ID, if the path is `/ns/<namespace>/<app ID>`, whatever follows.
    ///
    /// Source: Dapr's `pkg/security/spiffe/spiffe.go`.
    pub fn workload(&self) -> Option<(&str, &str)> {
        let mut segments = self.path().strip_prefix("/ns/")?.split('/');
        Some((segments.next()?, segments.next()?)).filter(|(a, b)| !a.is_empty() && !b.is_empty())
    }
}

/// The first fault is named, in go-spiffe's order (`ValidatePath`).
fn judge_path(segments: &str) -> Result<(), SpiffeError> {
    let byte_ok = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let mut rest = Some(segments);
    while let Some(text) = rest {
        let (segment, after) = match text.split_once('/') {
            Some((segment, after)) => (segment, Some(after)),
            None => (text, None),
        };
        if !segment.bytes().all(byte_ok) {
            return Err(SpiffeError::Path);
        }
        match segment {
            "" if after.is_none() => return Err(SpiffeError::TrailingSlash),
            "" => return Err(SpiffeError::EmptySegment),
            "." | ".." => return Err(SpiffeError::DotSegment),
            _ => {}
        }
        rest = after;
    }
    Ok(())
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for SpiffeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "cannot be empty",
            Self::Scheme => "scheme is missing or invalid",
            Self::NoTrustDomain => "trust domain is missing",
            Self::TrustDomain => {
                "trust domain characters are limited to lowercase letters, numbers, dots, \
                 dashes, and underscores"
            }
            Self::Path => {
                "path segment characters are limited to letters, numbers, dots, dashes, and \
                 underscores"
            }
            Self::DotSegment => "path cannot contain dot segments",
            Self::EmptySegment => "path cannot contain empty segments",
            Self::TrailingSlash => "path cannot have a trailing slash",
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
        let fault = |text| SpiffeId::parse(text).unwrap_err();
        assert_eq!(fault("spiffe://a/ns/../b"), SpiffeError::DotSegment);
        assert_eq!(fault("spiffe://a/ns/b%20"), SpiffeError::Path);
        assert_eq!(fault("spiffe:///ns"), SpiffeError::NoTrustDomain);
        assert_eq!(fault("spiffe://a//b"), SpiffeError::EmptySegment);
        assert_eq!(fault("spiffe://a/b/"), SpiffeError::TrailingSlash);
    }

    #[test]
    fn names_a_workload() {
        let of = |path: &str| {
            let id = SpiffeId::parse(&format!("spiffe://public{path}")).unwrap();
            id.workload().map(|(namespace, app)| (namespace.to_owned(), app.to_owned()))
        };
        let named = Some(("default".to_owned(), "a".to_owned()));
        assert_eq!(of("/ns/default/a"), named);
        assert_eq!(of("/ns/default/a/b/c"), named);
        for path in ["", "/ns", "/ns/default", "/sa/default/a", "/nss/default/a", "/default/a/b"] {
            assert_eq!(of(path), None, "{path}");
        }
    }
}
