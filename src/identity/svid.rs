//! X.509-SVIDs: whether a peer's chain is to be believed, and reading our own.
//!
//! Rules and texts are those of go-spiffe's `x509svid.Verify` (v2.6.0) over Go's `x509.Verify`:
//! 1. Exactly one URI in the leaf, a valid SPIFFE ID; the leaf is no CA and signs nothing.
//! 2. The chain ends in a trust anchor; every certificate in it, the root too, is in its period.
//! 3. No name is checked and any extended key usage will do: who the peer must *be* is its
//!    caller's question, asked of the returned [`SpiffeId`].
//!
//! Knows neither TLS nor the clock.

use super::trust::{self, TrustAnchors, TrustError};
use super::{Identity, SpiffeError, SpiffeId};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Certificates that one chain may have: leaf and issuers.
pub const CHAIN_MAX: usize = 16;

/// Why a peer is not believed. `Display` gives daprd's text, `x509svid: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SvidError {
    /// No certificate at all.
    Empty,
    TooLong,
    /// Not a certificate.
    Malformed(String),
    NoUri,
    SeveralUris,
    Id(SpiffeError),
    Ca,
    KeyCertSign,
    KeyCrlSign,
    /// The leaf is not in its period; seconds since the Unix epoch.
    NotYet {
        now: u64,
        not_before: i64,
    },
    Expired {
        now: u64,
        not_after: i64,
    },
    /// No chain to a trust anchor; what stopped the likeliest one.
    UnknownAuthority(Option<String>),
    /// The leaf cannot be judged (an unknown critical extension, say).
    Unverifiable(String),
}

/// Verifies a peer's chain and gives its SPIFFE ID.
pub fn verify_peer(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    trust_anchors: &TrustAnchors,
    now: UnixTime,
) -> Result<SpiffeId, SvidError> {
    if intermediates.len() >= CHAIN_MAX {
        return Err(SvidError::TooLong);
    }
    let leaf = parse(end_entity)?;
    let id = spiffe_id(&leaf)?;
    judge_leaf(&leaf)?;
    judge_period(&leaf, now)?;
    verify_chain(end_entity, intermediates, trust_anchors, now)?;
    Ok(id)
}

/// The SPIFFE ID in a leaf that [`verify_peer`] has judged before: after a handshake, say.
pub fn peer_id(end_entity: &CertificateDer<'_>) -> Result<SpiffeId, SvidError> {
    spiffe_id(&parse(end_entity)?)
}

impl Identity {
    /// From a PEM chain, leaf first, as Sentry answers. The chain is *not* verified: it came over
    /// a connection that was.
    pub fn from_pem(
        chain: &[u8],
        key: PrivatePkcs8KeyDer<'static>,
        trust_anchors: Arc<TrustAnchors>,
    ) -> Result<Self, ChainError> {
        let chain = trust::certificates(chain).map_err(ChainError::Pem)?;
        let Some(first) = chain.first() else {
            return Err(ChainError::Pem(TrustError::Empty));
        };
        let leaf = parse(first).map_err(ChainError::Leaf)?;
        let spiffe_id = spiffe_id(&leaf).map_err(ChainError::Leaf)?;
        let not_before = system_time(leaf.validity().not_before.timestamp());
        let not_after = system_time(leaf.validity().not_after.timestamp());
        Ok(Self { spiffe_id, chain, key, trust_anchors, not_before, not_after })
    }
}

/// What is wrong with a chain that was given to us as our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainError {
    Pem(TrustError),
    Leaf(SvidError),
}

/// The SubjectPublicKeyInfo that a certificate is for.
pub fn public_key(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    parse(certificate).ok().map(|parsed| parsed.public_key().raw.to_vec())
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, SvidError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(SvidError::Malformed("trailing data".to_owned())),
        Err(error) => Err(SvidError::Malformed(error.to_string())),
    }
}

fn spiffe_id(leaf: &X509Certificate<'_>) -> Result<SpiffeId, SvidError> {
    let names = leaf
        .subject_alternative_name()
        .map_err(|error| SvidError::Malformed(error.to_string()))?
        .ok_or(SvidError::NoUri)?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let uri = uris.next().ok_or(SvidError::NoUri)?;
    if uris.next().is_some() {
        return Err(SvidError::SeveralUris);
    }
    SpiffeId::parse(uri).map_err(SvidError::Id)
}

fn judge_leaf(leaf: &X509Certificate<'_>) -> Result<(), SvidError> {
    let malformed = |error: x509_parser::error::X509Error| SvidError::Malformed(error.to_string());
    if leaf.basic_constraints().map_err(malformed)?.is_some_and(|basic| basic.value.ca) {
        return Err(SvidError::Ca);
    }
    if let Some(usage) = leaf.key_usage().map_err(malformed)? {
        if usage.value.key_cert_sign() {
            return Err(SvidError::KeyCertSign);
        }
        if usage.value.crl_sign() {
            return Err(SvidError::KeyCrlSign);
        }
    }
    Ok(())
}

/// Go judges the leaf's period before it looks for a chain.
fn judge_period(leaf: &X509Certificate<'_>, now: UnixTime) -> Result<(), SvidError> {
    let not_before = leaf.validity().not_before.timestamp();
    let not_after = leaf.validity().not_after.timestamp();
    let now = now.as_secs();
    let seconds = i64::try_from(now).unwrap_or(i64::MAX);
    if seconds < not_before {
        return Err(SvidError::NotYet { now, not_before });
    }
    if seconds > not_after {
        return Err(SvidError::Expired { now, not_after });
    }
    Ok(())
}

fn verify_chain(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    trust_anchors: &TrustAnchors,
    now: UnixTime,
) -> Result<(), SvidError> {
    let leaf = EndEntityCert::try_from(end_entity).map_err(|error| match error {
        webpki::Error::UnsupportedCriticalExtension => SvidError::Unverifiable(
            "unhandled critical extension".to_owned(), // Go's text
        ),
        other => SvidError::Malformed(other.to_string()),
    })?;
    // webpki trusts its anchors blindly and reads no key usage; Go does neither.
    let judge = |path: &webpki::VerifiedPath<'_>| {
        if !trust_anchors.vouches(path.anchor(), now) {
            return Err(webpki::Error::UnknownIssuer);
        }
        let sound = path.intermediate_certificates().all(|issuer| {
            let der = issuer.der();
            parse(&der).is_ok_and(|issuer| trust::may_sign(&issuer))
        });
        if sound { Ok(()) } else { Err(webpki::Error::EndEntityUsedAsCa) }
    };
    let verified = leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        trust_anchors.anchors(),
        intermediates,
        now,
        AnyUsage,
        None,
        Some(&judge),
    );
    match verified {
        Ok(_) => Ok(()),
        Err(webpki::Error::UnknownIssuer) => Err(SvidError::UnknownAuthority(None)),
        Err(error) => Err(SvidError::UnknownAuthority(Some(error.to_string()))),
    }
}

/// Go's `ExtKeyUsageAny`: whatever the certificates are for.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

fn system_time(seconds: i64) -> SystemTime {
    match u64::try_from(seconds) {
        // A certificate cannot say a year beyond 9999, which fits.
        Ok(after) => UNIX_EPOCH.checked_add(Duration::from_secs(after)).unwrap_or(UNIX_EPOCH),
        Err(_) => UNIX_EPOCH,
    }
}

/// As Go prints `time.RFC3339` where the zone is UTC.
fn rfc3339(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{seconds} seconds after 1970"))
}

impl fmt::Display for SvidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PERIOD: &str = "could not verify leaf certificate: x509: certificate has expired or \
                              is not yet valid: current time";
        const UNKNOWN: &str =
            "could not verify leaf certificate: x509: certificate signed by unknown authority";
        f.write_str("x509svid: ")?;
        match self {
            Self::Empty => f.write_str("empty certificates chain"),
            Self::TooLong => write!(f, "more than {CHAIN_MAX} certificates in the chain"),
            Self::Malformed(cause) => {
                write!(f, "unable to parse certificate: x509: malformed certificate: {cause}")
            }
            Self::NoUri => {
                f.write_str("could not get leaf SPIFFE ID: certificate contains no URI SAN")
            }
            Self::SeveralUris => f.write_str(
                "could not get leaf SPIFFE ID: certificate contains more than one URI SAN",
            ),
            Self::Id(error) => write!(f, "could not get leaf SPIFFE ID: {error}"),
            Self::Ca => f.write_str("leaf certificate with CA flag set to true"),
            Self::KeyCertSign => f.write_str("leaf certificate with KeyCertSign key usage"),
            Self::KeyCrlSign => f.write_str("leaf certificate with KeyCrlSign key usage"),
            Self::NotYet { now, not_before } => {
                let now = i64::try_from(*now).unwrap_or(i64::MAX);
                write!(f, "{PERIOD} {} is before {}", rfc3339(now), rfc3339(*not_before))
            }
            Self::Expired { now, not_after } => {
                let now = i64::try_from(*now).unwrap_or(i64::MAX);
                write!(f, "{PERIOD} {} is after {}", rfc3339(now), rfc3339(*not_after))
            }
            Self::UnknownAuthority(None) => f.write_str(UNKNOWN),
            Self::UnknownAuthority(Some(hint)) => {
                write!(f, "{UNKNOWN} (possibly because of {hint:?})")
            }
            Self::Unverifiable(cause) => {
                write!(f, "could not verify leaf certificate: x509: {cause}")
            }
        }
    }
}

impl std::error::Error for SvidError {}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem(error) => error.fmt(f),
            Self::Leaf(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ChainError {}

#[cfg(test)]
mod tests;
