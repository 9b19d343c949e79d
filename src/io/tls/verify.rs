//! rustls' questions about a peer's certificate, handed on to `identity::svid`.
//!
//! Source: `kit/crypto/spiffe` and `pkg/security` of Dapr: both sides of the internal port judge
//! a chain alike; the client also wants one path, the server takes any SPIFFE ID.

use crate::identity::{TrustAnchors, svid};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Believes an SVID of our trust anchors; as a client's verifier also asks for `path`.
#[derive(Debug)]
pub(super) struct SvidVerifier {
    anchors: Arc<TrustAnchors>,
    algorithms: WebPkiSupportedAlgorithms,
    path: Option<String>,
}

/// go-spiffe's text for a peer that is somebody else.
struct UnexpectedId(String);

impl fmt::Display for UnexpectedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unexpected SPIFFE ID: \"{}\"", self.0)
    }
}

impl SvidVerifier {
    pub(super) fn any(anchors: Arc<TrustAnchors>, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { anchors, algorithms, path: None }
    }

    pub(super) fn path(
        anchors: Arc<TrustAnchors>,
        algorithms: WebPkiSupportedAlgorithms,
        path: String,
    ) -> Self {
        Self { anchors, algorithms, path: Some(path) }
    }

    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let id =
            svid::verify_peer(end_entity, intermediates, &self.anchors, now).map_err(refused)?;
        match &self.path {
            Some(path) if path != id.path() => Err(refused(UnexpectedId(id.as_str().to_owned()))),
            _ => Ok(()),
        }
    }
}

/// rustls chooses the alert by the variant. Go sends `bad_certificate` for whatever a verification
/// callback refuses, and daprd shows the alert's name to its caller; this is the one variant with
/// that alert and room for a text.
fn refused(error: impl fmt::Display) -> Error {
    let expected = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
    let presented = vec![error.to_string()];
    Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented })
}

/// What both of rustls' traits ask besides the chain, in the same words: that the peer holds the
/// key of the certificate it showed.
macro_rules! check_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, cert, dss, &self.algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, dss, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for SvidVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    check_signatures!();
}

impl ClientCertVerifier for SvidVerifier {
    /// None named: SVID issuers need not have a distinguished name.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    check_signatures!();
}
