//! A development certificate authority that speaks Sentry's API.
//!
//! For `ringside demo` and for tests: it believes whoever asks, as Sentry's `insecure` validator
//! does, and its keys live and die with the process.

use super::serve::{Call, Service, serve};
use crate::control::rpc::Status;
use crate::control::rpc::messages::{SignCertificateRequest, SignCertificateResponse};
use crate::grpc::Code;
use crate::identity::Identity;
use crate::identity::trust::TrustAnchors;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use prost_types::Timestamp;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
    SignatureAlgorithm,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::{self, ServerConfig};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

const SIGN_CERTIFICATE: &str = "/dapr.proto.sentry.v1.CA/SignCertificate";
/// Sentry's `allowedClockSkew`.
const SKEW: Duration = Duration::from_secs(15 * 60);
/// The trust domain of sidecars.
const SIDECARS: &str = "public";

/// What a certificate says, with what tests may want wrong.
#[derive(Clone, Debug)]
pub struct Terms {
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// A root, an issuer under it, and the authority's own SVID.
pub struct Authority {
    root: Certificate,
    chain: String,
    issuer: Issuer<'static, KeyPair>,
    trust_domain: String,
    namespace: String,
    lifetime: Duration,
}

/// Keys or certificates could not be made, or TLS does not take them.
#[derive(Debug)]
pub struct AuthorityError(String);

impl Terms {
    /// Backdated as Sentry does, ending after `lifetime`.
    pub fn lasting(lifetime: Duration) -> Self {
        let now = now();
        Self { not_before: now - SKEW, not_after: now + lifetime }
    }
}

impl Authority {
    /// Its own SPIFFE ID is `spiffe://<trust_domain>/ns/<namespace>/dapr-sentry`; the leaves that
    /// it signs last for `lifetime`.
    pub fn new(
        trust_domain: &str,
        namespace: &str,
        lifetime: Duration,
    ) -> Result<Self, AuthorityError> {
        let terms = Terms::lasting(Duration::from_secs(24 * 3600).max(lifetime));
        let root_key = key()?;
        let root_params = authority_params(trust_domain, &terms);
        let root = root_params.self_signed(&root_key)?;
        let root_issuer = Issuer::new(root_params, root_key);
        let issuer_key = key()?;
        let name = format!("spiffe://{trust_domain}/ns/{namespace}/dapr-sentry");
        let params = authority_params(&name, &terms);
        let chain = params.signed_by(&issuer_key, &root_issuer)?.pem();
        Ok(Self {
            root,
            chain,
            issuer: Issuer::new(params, issuer_key),
            trust_domain: trust_domain.to_owned(),
            namespace: namespace.to_owned(),
            lifetime,
        })
    }

    /// What `DAPR_TRUST_ANCHORS` is to hold.
    pub fn anchors_pem(&self) -> String {
        self.root.pem()
    }

    /// An identity made here, key and all.
    pub fn identity(&self, spiffe_id: &str, terms: &Terms) -> Result<Identity, AuthorityError> {
        let key = key()?;
        let pem = self.leaf(&key, spiffe_id, terms)? + &self.chain;
        let private = PrivatePkcs8KeyDer::from(key.serialize_der());
        let anchors = TrustAnchors::from_pem(self.anchors_pem().as_bytes())?;
        Ok(Identity::from_pem(pem.as_bytes(), private, Arc::new(anchors))?)
    }

    /// Answers `SignCertificate` until dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) -> Result<(), AuthorityError> {
        let id = format!("spiffe://{}/ns/{}/dapr-sentry", self.trust_domain, self.namespace);
        let own = self.identity(&id, &Terms::lasting(self.lifetime))?;
        self.serve_as(listener, &own).await
    }

    /// The same under another SVID, which clients should refuse.
    pub async fn serve_as(
        self: Arc<Self>,
        listener: TcpListener,
        own: &Identity,
    ) -> Result<(), AuthorityError> {
        serve(listener, Some(Self::acceptor(own)?), self).await;
        Ok(())
    }

    /// TLS under an SVID, asking for no certificate, as Sentry does it.
    pub fn acceptor(own: &Identity) -> Result<TlsAcceptor, AuthorityError> {
        let mut tls = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(own.chain.clone(), own.key.clone_key().into())?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(tls)))
    }

    fn leaf(
        &self,
        key: &impl PublicKeyData,
        spiffe_id: &str,
        terms: &Terms,
    ) -> Result<String, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(spiffe_id.try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = OffsetDateTime::from(terms.not_before);
        params.not_after = OffsetDateTime::from(terms.not_after);
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }

    /// Sentry's rules for every request (`pkg/sentry/server/validator/internal`).
    fn sign(&self, request: &SignCertificateRequest) -> Result<SignCertificateResponse, Status> {
        let refuse =
            |text: &str| Status::new(Code::PermissionDenied, format!("invalid request: {text}"));
        if request.id.is_empty() || request.id.len() > 64 || request.id.contains(['.', '/']) {
            return Err(refuse("app ID is empty, too long, or no name"));
        }
        if request.namespace.is_empty() || request.namespace.contains('/') {
            return Err(refuse("namespace is required"));
        }
        let key = requested_key(&request.certificate_signing_request).map_err(|cause| {
            let text = format!("failed to parse certificate signing request: {cause}");
            Status::new(Code::InvalidArgument, text)
        })?;
        let id = format!("spiffe://{SIDECARS}/ns/{}/{}", request.namespace, request.id);
        let terms = Terms::lasting(self.lifetime);
        let leaf = self
            .leaf(&key, &id, &terms)
            .map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        Ok(SignCertificateResponse {
            workload_certificate: (leaf + &self.chain).into_bytes(),
            valid_until: Some(Timestamp::from(terms.not_after)),
        })
    }
}

impl Service for Authority {
    async fn call(self: Arc<Self>, mut call: Call) {
        if call.path != SIGN_CERTIFICATE {
            return call.unimplemented();
        }
        let answer = match call.reader.only().await {
            Ok(request) => self.sign(&request),
            Err(status) => Err(status),
        };
        let result = match answer {
            Ok(answer) => call.writer.send(&answer).await,
            Err(status) => Err(status),
        };
        call.writer.end(result);
    }
}

/// The public key of a signing request, as a certificate wants it.
struct RequestedKey(Vec<u8>);

impl PublicKeyData for RequestedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

/// Whoever asks has the private key: the request is signed with it. Ed25519 only, which is what
/// every sidecar sends.
fn requested_key(pem: &[u8]) -> Result<RequestedKey, String> {
    let (_, block) = parse_x509_pem(pem).map_err(|error| error.to_string())?;
    let (_, request) =
        X509CertificationRequest::from_der(&block.contents).map_err(|error| error.to_string())?;
    let info = &request.certification_request_info;
    if info.subject_pki.algorithm.algorithm != OID_SIG_ED25519 {
        return Err("its key is not Ed25519".to_owned());
    }
    let key = info.subject_pki.subject_public_key.data.to_vec();
    UnparsedPublicKey::new(&ED25519, &key)
        .verify(info.raw, &request.signature_value.data)
        .map_err(|_| "invalid signature".to_owned())?;
    Ok(RequestedKey(key))
}

fn key() -> Result<KeyPair, AuthorityError> {
    Ok(KeyPair::generate_for(&rcgen::PKCS_ED25519)?)
}

fn authority_params(organization: &str, terms: &Terms) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params.not_before = OffsetDateTime::from(terms.not_before);
    params.not_after = OffsetDateTime::from(terms.not_after);
    params
}

#[allow(clippy::disallowed_methods, reason = "certificates begin now")]
fn now() -> SystemTime {
    SystemTime::now()
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("trust_domain", &self.trust_domain).finish()
    }
}

impl fmt::Display for AuthorityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the development certificate authority failed: {}", self.0)
    }
}

impl std::error::Error for AuthorityError {}

macro_rules! from {
    ($($error:ty),*) => {
        $(impl From<$error> for AuthorityError {
            fn from(error: $error) -> Self {
                Self(error.to_string())
            }
        })*
    };
}

from!(
    rcgen::Error,
    rustls::Error,
    crate::identity::svid::ChainError,
    crate::identity::trust::TrustError
);
