//! No handshake of ours is ever cut short by an earlier one, whatever the peer offers.

use super::super::tests::{Authority, target};
use super::config::Contexts;
use super::verify::SvidVerifier;
use super::{Handshake, HandshakeError};
use crate::identity::AnyServer;
use crate::identity::Identity;
use rustls::HandshakeKind::{self, Full, Resumed};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::server::ServerSessionMemoryCache;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, CommonState, Connection, Error, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};
use std::sync::Arc;

const SESSIONS: usize = 64;
const ROUNDS: usize = 16;

type Version = &'static SupportedProtocolVersion;

/// Gives tickets and session ids to everybody, and takes them back. A sidecar wants callers whom
/// `trusting` would believe; an app wants nobody in particular.
fn generous_server(
    trusting: Option<&Identity>,
    identity: &Identity,
    version: Version,
) -> Arc<ServerConfig> {
    let provider = aws_lc_rs::default_provider();
    let algorithms = provider.signature_verification_algorithms;
    let builder = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap();
    let builder = match trusting.map(|trusting| Arc::clone(&trusting.trust_anchors)) {
        Some(anchors) => {
            builder.with_client_cert_verifier(Arc::new(SvidVerifier::any(anchors, algorithms)))
        }
        None => builder.with_no_client_auth(),
    };
    let mut config =
        builder.with_single_cert(identity.chain.clone(), identity.key.clone_key().into()).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    config.ticketer = Ticketer::new().unwrap();
    Arc::new(config)
}

/// A caller that keeps every session that it is given, and would resume it.
fn eager_client(identity: &Identity, version: Version) -> Arc<ClientConfig> {
    let provider = aws_lc_rs::default_provider();
    let anyone = Arc::new(AnyServer(provider.signature_verification_algorithms));
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(anyone)
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key().into())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Arc::new(config)
}

fn eager(config: &Arc<ClientConfig>) -> Connection {
    let name = "127.0.0.1".try_into().unwrap();
    ClientConnection::new(Arc::clone(config), name).unwrap().into()
}

fn generous(config: &Arc<ServerConfig>) -> Connection {
    ServerConnection::new(Arc::clone(config)).unwrap().into()
}

fn ours_to(contexts: &Contexts, callee: &str) -> Handshake {
    contexts.connect(&target(callee), "127.0.0.1".parse().unwrap()).unwrap()
}

/// One of the two who shake hands.
pub(super) enum End {
    Ours(Box<Handshake>),
    Theirs(Box<Connection>),
}

impl From<Handshake> for End {
    fn from(handshake: Handshake) -> Self {
        Self::Ours(Box::new(handshake))
    }
}

impl From<Connection> for End {
    fn from(connection: Connection) -> Self {
        Self::Theirs(Box::new(connection))
    }
}

impl End {
    fn send(&mut self) -> Vec<u8> {
        match self {
            Self::Ours(ours) => std::mem::take(ours.output()),
            Self::Theirs(theirs) => {
                let mut wire = Vec::new();
                while theirs.wants_write() {
                    theirs.write_tls(&mut wire).unwrap();
                }
                wire
            }
        }
    }

    /// Only what belongs to the handshake is opened on our side.
    fn recv(&mut self, mut wire: &[u8]) -> Result<(), Error> {
        match self {
            Self::Ours(ours) => {
                ours.push(wire);
                match ours.advance() {
                    Ok(_) => Ok(()),
                    Err(HandshakeError::Tls(error)) => Err(error),
                    Err(error) => panic!("{error}"),
                }
            }
            Self::Theirs(theirs) => {
                while !wire.is_empty() {
                    theirs.read_tls(&mut wire).unwrap();
                    theirs.process_new_packets()?;
                }
                Ok(())
            }
        }
    }

    fn state(&self) -> &CommonState {
        match self {
            Self::Ours(ours) => ours.driven().state(),
            Self::Theirs(theirs) => theirs,
        }
    }
}

/// Hands everything over, tickets too: how both sides came to their keys, or who objected.
pub(super) fn meet(client: impl Into<End>, server: impl Into<End>) -> Result<(End, End), Error> {
    let mut ends = [client.into(), server.into()];
    for _ in 0..ROUNDS {
        for (from, to) in [(0, 1), (1, 0)] {
            // Ours says its first words when it is asked.
            ends[from].recv(&[])?;
            let wire = ends[from].send();
            ends[to].recv(&wire)?;
        }
    }
    assert!(ends.iter().all(|end| !end.state().is_handshaking()));
    let [client, server] = ends;
    Ok((client, server))
}

fn kind(client: impl Into<End>, server: impl Into<End>) -> HandshakeKind {
    let (client, server) = meet(client, server).unwrap();
    assert_eq!(client.state().handshake_kind(), server.state().handshake_kind());
    client.state().handshake_kind().unwrap()
}

/// The two foreign ends do resume: what follows would show it.
#[test]
fn others_resume() {
    let authority = Authority::new();
    for version in [&TLS12, &TLS13] {
        let client = eager_client(&authority.identity("caller"), version);
        let callee = authority.identity("callee");
        let server = generous_server(Some(&callee), &callee, version);
        assert_eq!(kind(eager(&client), generous(&server)), Full);
        assert_eq!(kind(eager(&client), generous(&server)), Resumed);
    }
}

#[test]
fn our_client_never_resumes() {
    let authority = Authority::new();
    let (caller, renewed) = (authority.identity("caller"), authority.identity("caller"));
    for version in [&TLS12, &TLS13] {
        let server = generous_server(Some(&caller), &authority.identity("callee"), version);
        let app = generous_server(None, &authority.identity("app"), version);
        for identity in [&caller, &renewed] {
            let contexts = Contexts::new(Some(identity)).unwrap();
            for _ in 0..3 {
                assert_eq!(kind(ours_to(&contexts, "callee"), generous(&server)), Full);
            }
            // An app that speaks TLS asks for no certificate of ours; nor is it resumed.
            for _ in 0..2 {
                let address = "127.0.0.1".parse().unwrap();
                let to_app = contexts.connect_unverified("app", address).unwrap();
                assert_eq!(kind(to_app, generous(&app)), Full);
            }
        }
        // The server is judged anew: who was believed a moment ago is not, by other anchors or
        // under another id.
        let contexts = Contexts::new(Some(&Authority::new().identity("caller"))).unwrap();
        assert!(meet(ours_to(&contexts, "callee"), generous(&server)).is_err());
        let contexts = Contexts::new(Some(&caller)).unwrap();
        assert!(meet(ours_to(&contexts, "another"), generous(&server)).is_err());
    }
}

#[test]
fn our_server_lets_nobody_resume() {
    let authority = Authority::new();
    let (callee, renewed) = (authority.identity("callee"), authority.identity("callee"));
    for version in [&TLS12, &TLS13] {
        let client = eager_client(&authority.identity("caller"), version);
        for identity in [&callee, &renewed] {
            let contexts = Contexts::new(Some(identity)).unwrap();
            for _ in 0..3 {
                let server = contexts.accept().unwrap().unwrap();
                let (client, server) = meet(eager(&client), server).unwrap();
                assert_eq!(client.state().handshake_kind(), Some(Full));
                assert_eq!(server.state().handshake_kind(), Some(Full));
                let End::Theirs(client) = client else { unreachable!() };
                let Connection::Client(client) = *client else { unreachable!() };
                assert_eq!(client.tls13_tickets_received(), 0);
            }
        }
        // Other anchors refuse whom the old ones believed.
        let contexts = Contexts::new(Some(&Authority::new().identity("callee"))).unwrap();
        let server = contexts.accept().unwrap().unwrap();
        assert!(meet(eager(&client), server).is_err());
    }
}
