//! A certificate that sidecars believe, and TLS as they speak it.
//!
//! Signed with what the Sentry of this very run signs with: an attacker inside the mesh. Whom it
//! talks to is not checked.

use crate::topology::{Authority, StartError};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// As Sentry names its issuer (its credentials' subject); the octets must be the same.
const ISSUER: &str = "spiffe://localhost/ns/default/dapr-sentry";
const OWN: &str = "spiffe://public/ns/default/loadtest-attacker";

pub struct Identity {
    config: Arc<ClientConfig>,
}

impl Identity {
    pub fn of(authority: &Authority) -> Result<Self, String> {
        Self::signed(&authority.credentials)
            .map_err(|error| format!("no certificate for the attacker: {error}"))
    }

    fn signed(folder: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let mut issuing = CertificateParams::default();
        issuing.distinguished_name = DistinguishedName::new();
        let name = DnValue::PrintableString(ISSUER.try_into()?);
        issuing.distinguished_name.push(DnType::OrganizationName, name);
        let key = KeyPair::from_pem(&read(&folder.join("issuer.key"))?)?;
        let issuer = Issuer::from_params(&issuing, key);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(OWN.try_into()?)];
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = SystemTime::now();
        let hour = std::time::Duration::from_secs(3600);
        (params.not_before, params.not_after) = ((now - hour / 60).into(), (now + hour).into());
        let own_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let leaf = params.signed_by(&own_key, &issuer)?;
        let issuer_pem = read(&folder.join("issuer.crt"))?;
        let above = CertificateDer::pem_slice_iter(issuer_pem.as_bytes());
        let mut chain = vec![leaf.der().clone()];
        for certificate in above {
            chain.push(certificate.map_err(|error| error.to_string())?);
        }
        let key = PrivateKeyDer::try_from(own_key.serialize_der())?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.enable_secret_extraction = true;
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self { config: Arc::new(config) })
    }

    /// A handshake that has not begun.
    pub fn connection(&self, at: SocketAddr) -> Option<ClientConnection> {
        let name = ServerName::IpAddress(at.ip().into());
        let mut connection = ClientConnection::new(self.config.clone(), name).ok()?;
        connection.set_buffer_limit(Some(64 << 10));
        Some(connection)
    }
}

fn read(path: &Path) -> Result<String, StartError> {
    fs::read_to_string(path).map_err(|error| StartError::file(path, &error))
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
