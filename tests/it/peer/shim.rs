//! TLS for a program that has none to offer: what it says in plaintext goes on to a sidecar's
//! internal port with an identity from the test's Sentry, octet by octet, and so do ends.

use super::sidecar::{Sentry, loopback};
use crate::sentry::{of, run};
use ringside::control::rpc::client_config_as;
use ringside::control::sentry;
use rustls_pki_types::ServerName;
use std::net::Ipv4Addr;
use std::sync::mpsc;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

/// Listens until the process ends, as a daemon thread. The sidecar at `internal` must be
/// `callee`'s; the answer is the port to speak to.
pub fn start(sentry: &Sentry, internal: u16, callee: &str) -> u16 {
    let own = run(sentry::fetch(&of(sentry, "shim"))).expect("an SVID for the shim");
    let expected = format!("spiffe://public/ns/default/{callee}");
    let config = client_config_as(expected, &own).expect("a TLS configuration");
    let connector = TlsConnector::from(config);
    let (told, port) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            let listener = TcpListener::bind(loopback(0)).await.expect("a port for the shim");
            let _ = told.send(listener.local_addr().expect("its address").port());
            while let Ok((plain, _)) = listener.accept().await {
                tokio::spawn(relay(plain, internal, connector.clone()));
            }
        });
    });
    port.recv().expect("the shim listens")
}

/// One connection, to its end. Whatever breaks one side is an end to the other.
async fn relay(mut plain: TcpStream, internal: u16, connector: TlsConnector) {
    let socket = TcpStream::connect(loopback(internal)).await.expect("the internal port accepts");
    let _ = (plain.set_nodelay(true), socket.set_nodelay(true));
    let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
    let mut secured = connector.connect(name, socket).await.expect("a handshake");
    let _ = copy_bidirectional(&mut plain, &mut secured).await;
}
