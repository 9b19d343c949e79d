//! What new TLS connections of one snapshot are made with.
//!
//! 1. A rotation makes new contexts; live sessions keep theirs.
//! 2. TLS 1.2 and 1.3, ALPN `h2`, no tickets, no stored sessions, AES-128-GCM first.
//! 3. The internal port requires a client certificate.
//! 4. Secrets can be taken out of a connection: the record layer is ours (`records`).

use super::verify::SvidVerifier;
use super::{ALPN_H2, Handshake};
use crate::identity::{AnyServer, Identity, Target};
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ClientConfig, Error, ServerConfig, SupportedProtocolVersion};
use std::net::IpAddr;
use std::sync::Arc;

const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// See the file's text. Without an identity only unverified dials work.
#[derive(Debug)]
pub(in crate::io) struct Contexts {
    identity: Option<Arc<Identity>>,
    server: Option<Arc<ServerConfig>>,
    client: Option<Arc<ClientConfig>>,
    unverified: Arc<ClientConfig>,
    provider: Arc<CryptoProvider>,
}

impl Contexts {
    pub(in crate::io) fn new(identity: Option<&Arc<Identity>>) -> Result<Self, Error> {
        let provider = Arc::new(provider());
        let anyone = Arc::new(AnyServer(provider.signature_verification_algorithms));
        let unverified = client_builder(&provider)?
            .dangerous()
            .with_custom_certificate_verifier(anyone)
            .with_no_client_auth();
        let mut contexts = Self {
            identity: None,
            server: None,
            client: None,
            unverified: Arc::new(ours(unverified)),
            provider,
        };
        if let Some(identity) = identity {
            contexts.server = Some(Arc::new(server(&contexts.provider, identity)?));
            contexts.client = Some(Arc::new(client(&contexts.provider, identity)?));
            contexts.identity = Some(Arc::clone(identity));
        }
        Ok(contexts)
    }

    /// True when the snapshot's identity is the one that these were made from.
    pub(in crate::io) fn are_of(&self, identity: Option<&Arc<Identity>>) -> bool {
        match (&self.identity, identity) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// A handshake with who connected to the internal port; `None` as long as we have no SVID.
    pub(in crate::io) fn accept(&self) -> Option<Result<Handshake, Error>> {
        let config = Arc::clone(self.server.as_ref()?);
        Some(UnbufferedServerConnection::new(config).map(Handshake::from))
    }

    /// A handshake with the sidecar of `target`.
    pub(in crate::io) fn connect(&self, target: &Target, ip: IpAddr) -> Result<Handshake, Error> {
        let (Some(base), Some(identity)) = (&self.client, &self.identity) else {
            return Err(Error::General("no SVID yet".to_owned()));
        };
        let verifier = SvidVerifier::path(
            Arc::clone(&identity.trust_anchors),
            self.provider.signature_verification_algorithms,
            target.spiffe_path(),
        );
        let mut config = ClientConfig::clone(base);
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        // No SNI goes out for an address (RFC 6066 §3).
        let connection = UnbufferedClientConnection::new(Arc::new(config), ServerName::from(ip));
        connection.map(Handshake::from)
    }

    /// A handshake with an app that speaks TLS.
    pub(in crate::io) fn connect_unverified(
        &self,
        host: &str,
        ip: IpAddr,
    ) -> Result<Handshake, Error> {
        let name = ServerName::try_from(host.to_owned()).unwrap_or_else(|_| ServerName::from(ip));
        UnbufferedClientConnection::new(Arc::clone(&self.unverified), name).map(Handshake::from)
    }
}

/// aws-lc-rs with AES-128-GCM in front: the fastest of the suites on CPUs with AES instructions.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 0,
        _ => 1,
    });
    provider
}

fn server(provider: &Arc<CryptoProvider>, identity: &Identity) -> Result<ServerConfig, Error> {
    let verifier = SvidVerifier::any(
        Arc::clone(&identity.trust_anchors),
        provider.signature_verification_algorithms,
    );
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(VERSIONS)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(identity.chain.clone(), key(identity))?;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.enable_secret_extraction = true;
    Ok(config)
}

/// With a verifier that is replaced for each target.
fn client(provider: &Arc<CryptoProvider>, identity: &Identity) -> Result<ClientConfig, Error> {
    let verifier = SvidVerifier::any(
        Arc::clone(&identity.trust_anchors),
        provider.signature_verification_algorithms,
    );
    let config = client_builder(provider)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(identity.chain.clone(), key(identity))?;
    Ok(ours(config))
}

fn client_builder(
    provider: &Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Error> {
    ClientConfig::builder_with_provider(Arc::clone(provider)).with_protocol_versions(VERSIONS)
}

fn ours(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_secret_extraction = true;
    config
}

fn key(identity: &Identity) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(identity.key.clone_key())
}
