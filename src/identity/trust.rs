//! Trust anchors: the roots that we believe, prepared for chain verification.
//!
//! Owns the reading of a PEM bundle (`DAPR_TRUST_ANCHORS`).
//! 1. A bundle holds at least one certificate, and each of them parsed.
//! 2. One bundle serves every trust domain, as in daprd (`kit/crypto/spiffe/trustanchors`).
//! 3. Each anchor keeps its own validity period: Go's verifier judges the root as well, webpki
//!    does not, so `svid` asks here.
//!
//! Knows neither files nor the time.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::fmt;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A bundle never legitimately holds more: root rotation wants two, federation a handful.
pub const TRUST_ANCHORS_MAX: usize = 256;

/// The prepared bundle.
#[derive(Debug)]
pub struct TrustAnchors {
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    terms: Vec<Terms>,
}

/// What a trust anchor says of itself and webpki forgets.
#[derive(Clone, Copy, Debug)]
struct Terms {
    not_before: i64,
    not_after: i64,
    may_sign: bool,
}

/// What was wrong with a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustError {
    Empty,
    TooMany,
    Pem(String),
    Certificate { index: usize, cause: String },
}

impl TrustAnchors {
    /// Certificates of a PEM bundle; sections of other kinds are refused with it.
    pub fn from_pem(bundle: &[u8]) -> Result<Self, TrustError> {
        Self::from_der(certificates(bundle)?)
    }

    pub fn from_der(certificates: Vec<CertificateDer<'static>>) -> Result<Self, TrustError> {
        if certificates.is_empty() {
            return Err(TrustError::Empty);
        }
        if certificates.len() > TRUST_ANCHORS_MAX {
            return Err(TrustError::TooMany);
        }
        let mut anchors = Vec::with_capacity(certificates.len());
        let mut terms = Vec::with_capacity(certificates.len());
        for (index, certificate) in certificates.iter().enumerate() {
            let anchor = webpki::anchor_from_trusted_cert(certificate)
                .map_err(|cause| TrustError::Certificate { index, cause: cause.to_string() })?;
            anchors.push(anchor.to_owned());
            terms.push(Terms::read(certificate, index)?);
        }
        Ok(Self { certificates, anchors, terms })
    }

    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    pub(super) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// Whether this anchor, or another with the same name and key, may vouch now.
    pub(super) fn vouches(&self, anchor: &TrustAnchor<'_>, now: UnixTime) -> bool {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let same = |ours: &TrustAnchor<'_>| {
            ours.subject == anchor.subject
                && ours.subject_public_key_info == anchor.subject_public_key_info
        };
        self.anchors.iter().zip(&self.terms).any(|(ours, terms)| {
            same(ours) && terms.may_sign && terms.not_before <= now && now <= terms.not_after
        })
    }
}

impl Terms {
    fn read(certificate: &CertificateDer<'_>, index: usize) -> Result<Self, TrustError> {
        let broken = |cause: String| TrustError::Certificate { index, cause };
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|e| broken(e.to_string()))?;
        Ok(Self {
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            may_sign: may_sign(&parsed),
        })
    }
}

/// As Go's `CheckSignatureFrom`: a v3 issuer says that it is a CA, and its key usage, when it has
/// one, allows signing certificates.
pub(super) fn may_sign(certificate: &X509Certificate<'_>) -> bool {
    let key_usage_ok = match certificate.key_usage() {
        Ok(Some(usage)) => usage.value.key_cert_sign(),
        Ok(None) => true,
        Err(_) => false,
    };
    certificate.is_ca() && key_usage_ok
}

/// The certificates of a PEM text, as `kit/crypto/pem` reads them: other sections are an error.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let mut found = Vec::new();
    for section in <(rustls_pki_types::pem::SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let (kind, der) = section.map_err(|e| TrustError::Pem(e.to_string()))?;
        if kind != rustls_pki_types::pem::SectionKind::Certificate {
            return Err(TrustError::Pem(format!("unexpected PEM section {kind:?}")));
        }
        if found.len() == TRUST_ANCHORS_MAX {
            return Err(TrustError::TooMany);
        }
        found.push(CertificateDer::from(der));
    }
    if found.is_empty() { Err(TrustError::Empty) } else { Ok(found) }
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no certificates found"),
            Self::TooMany => write!(f, "more than {TRUST_ANCHORS_MAX} certificates"),
            Self::Pem(cause) => write!(f, "not PEM: {cause}"),
            Self::Certificate { index, cause } => {
                write!(f, "certificate {} of the bundle: {cause}", index + 1)
            }
        }
    }
}

impl std::error::Error for TrustError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_needs_a_certificate() {
        assert_eq!(TrustAnchors::from_pem(b"").unwrap_err(), TrustError::Empty);
        assert_eq!(TrustAnchors::from_pem(b"hello\n").unwrap_err(), TrustError::Empty);
    }

    #[test]
    fn says_which_certificate_is_broken() {
        let pem = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let text = TrustAnchors::from_pem(pem).unwrap_err().to_string();
        assert!(text.starts_with("certificate 1 of the bundle: "), "{text}");
    }

    #[test]
    fn refuses_other_sections() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let error = TrustAnchors::from_pem(key.serialize_pem().as_bytes()).unwrap_err();
        assert!(matches!(error, TrustError::Pem(_)), "{error}");
    }
}
