//! TLS towards the control plane.
//!
//! 1. A handshake ends well only when the server's chain reaches our trust anchors and its leaf
//!    names the one SPIFFE ID that we want.
//!
//! It shows no certificate of ours: Sentry asks for none.

use crate::identity::{Identity, SvidError, TrustAnchors, verify_peer};
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{Resumption, WantsClientCert};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, OtherError,
    SignatureScheme,
};

pub(super) const ALPN: &[u8] = b"h2";
pub const NO_ALPN: &str = "credentials: cannot check peer: missing selected ALPN property.";

/// Trusts the server that shows `spiffe_id` under `trust_anchors`, and no other.
pub fn client_config(
    spiffe_id: String,
    trust_anchors: Arc<TrustAnchors>,
) -> Result<Arc<ClientConfig>, Error> {
    Ok(finished(builder(spiffe_id, trust_anchors)?.with_no_client_auth()))
}

/// The same, showing `own` to servers that ask.
pub fn client_config_as(spiffe_id: String, own: &Identity) -> Result<Arc<ClientConfig>, Error> {
    let (chain, key) = (own.chain.clone(), own.key.clone_key());
    let builder = builder(spiffe_id, Arc::clone(&own.trust_anchors))?;
    Ok(finished(builder.with_client_auth_cert(chain, key.into())?))
}

fn builder(
    spiffe_id: String,
    trust_anchors: Arc<TrustAnchors>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = ExactServer { spiffe_id, trust_anchors, provider: Arc::clone(&provider) };
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

fn finished(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

#[derive(Debug)]
struct ExactServer {
    spiffe_id: String,
    trust_anchors: Arc<TrustAnchors>,
    provider: Arc<CryptoProvider>,
}

/// Why the server is not the one that we want.
#[derive(Debug)]
enum Refusal {
    Svid(SvidError),
    Unexpected(String),
}

impl ServerCertVerifier for ExactServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let refuse = |refusal: Refusal| {
            Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
        };
        let shown = verify_peer(end_entity, intermediates, &self.trust_anchors, now)
            .map_err(|error| refuse(Refusal::Svid(error)))?;
        if shown.as_str() != self.spiffe_id {
            return Err(refuse(Refusal::Unexpected(shown.to_string())));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What stopped a handshake, in our own words where the refusal is ours.
pub(super) fn cause(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(CertificateError::Other(refusal))) => refusal.0.to_string(),
        Some(other) => other.to_string(),
        None if error.raw_os_error().is_some() => super::system_text(error),
        None => error.to_string(),
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Svid(error) => error.fmt(f),
            // go-spiffe's authorizer (`spiffeid.MatchID`).
            Self::Unexpected(shown) => write!(f, "unexpected ID {shown:?}"),
        }
    }
}

impl StdError for Refusal {}
