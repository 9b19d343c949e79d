//! What TLS costs a proxied call: application data sealed and opened, by the record layer that
//! `io` uses and by rustls' buffered API, between the same two ends.
//!
//! `cargo bench --bench tls` prints the best and the median of some rounds, both ways of a size in
//! turn. For instruction counts (`scripts/instructions`): the binary with `--one WAY SIZE
//! [EXCHANGES]` (`ours` or `rustls`), 1,000 exchanges if nothing is said.

#![allow(clippy::disallowed_methods)] // A benchmark may ask for the time.

use bytes::{Bytes, BytesMut};
use rcgen::{CertificateParams, KeyPair};
use ringside::http2::{Segment, Transmit};
use ringside::io::{Handshake, Session};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::UnbufferedServerConnection;
use rustls::version::TLS13;
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, DigitallySignedStruct, Error, ServerConfig,
    ServerConnection, SignatureScheme,
};
use std::hint::black_box;
use std::io::{BufRead, IoSlice, Write};
use std::sync::Arc;
use std::time::Instant;

const SIZES: [usize; 5] = [100, 200, 1400, 16_384, 131_072];
const ROUNDS: usize = 21;
/// Octets of one round, roughly.
const OCTETS: usize = 8 << 20;
const EXCHANGES_MAX: usize = 20_000;

/// What is read at once.
const READ_OCTETS: usize = 64 << 10;

trait Way {
    /// Seals at one end, opens at the other; how many octets came out.
    fn exchange(&mut self, transmit: &Transmit) -> usize;
}

struct Ours {
    client: Session,
    server: Session,
    wire: Vec<u8>,
    room: BytesMut,
}

impl Way for Ours {
    #[inline(never)]
    fn exchange(&mut self, transmit: &Transmit) -> usize {
        self.wire.clear();
        self.client.seal(transmit, &mut self.wire).unwrap();
        let mut octets = 0;
        for piece in self.wire.chunks(READ_OCTETS) {
            // Stands for the socket's read.
            self.room.reserve(READ_OCTETS);
            self.room.extend_from_slice(piece);
            self.server.push(self.room.split());
            while let Some(plain) = self.server.open().unwrap() {
                octets += black_box(plain).len();
            }
        }
        octets
    }
}

struct Theirs {
    client: ClientConnection,
    server: ServerConnection,
    wire: Vec<u8>,
    plain: BytesMut,
}

impl Way for Theirs {
    /// As `io` did it until ADR 95.
    #[inline(never)]
    fn exchange(&mut self, transmit: &Transmit) -> usize {
        let mut slices = [IoSlice::new(&[]); 64];
        let mut count = 0;
        for (place, slice) in slices.iter_mut().zip(transmit.slices()) {
            *place = IoSlice::new(slice);
            count += 1;
        }
        let mut slices = &mut slices[..count];
        while !slices.is_empty() {
            let octets = self.client.writer().write_vectored(slices).unwrap();
            IoSlice::advance_slices(&mut slices, octets);
        }
        self.wire.clear();
        while self.client.wants_write() {
            self.client.write_tls(&mut self.wire).unwrap();
        }
        let mut octets = 0;
        for mut piece in self.wire.chunks(READ_OCTETS) {
            while !piece.is_empty() {
                self.server.read_tls(&mut piece).unwrap();
                self.server.process_new_packets().unwrap();
                let mut reader = self.server.reader();
                while let Ok(chunk @ [_, ..]) = reader.fill_buf() {
                    self.plain.extend_from_slice(chunk);
                    let octets = chunk.len();
                    reader.consume(octets);
                }
            }
            octets += black_box(self.plain.split().freeze()).len();
        }
        octets
    }
}

/// Frames as `http2` gives them: nine octets of framing, then a payload.
fn transmit(octets: usize) -> Transmit {
    let mut transmit = Transmit::new();
    while transmit.len < octets {
        let start = u32::try_from(transmit.framing.len()).unwrap();
        transmit.framing.extend_from_slice(b"framehead");
        transmit.segments.push(Segment::Framing(start..start + 9));
        let payload = (octets - transmit.len).saturating_sub(9).min(16_384);
        transmit.segments.push(Segment::Payload(Bytes::from(vec![7; payload])));
        transmit.len += 9 + payload;
    }
    transmit
}

#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

fn configs() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
    let provider: Arc<CryptoProvider> = Arc::new(provider);
    let key = KeyPair::generate().unwrap();
    let chain = vec![CertificateParams::default().self_signed(&key).unwrap().der().clone()];
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec()];
    client.resumption = Resumption::disabled();
    client.enable_secret_extraction = true;
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec()];
    server.send_tls13_tickets = 0;
    server.enable_secret_extraction = true;
    (Arc::new(client), Arc::new(server))
}

fn name() -> ServerName<'static> {
    "127.0.0.1".try_into().unwrap()
}

fn ours() -> Ours {
    let (client, server) = configs();
    let client = UnbufferedClientConnection::new(client, name()).unwrap();
    let server = UnbufferedServerConnection::new(server).unwrap();
    let (mut client, mut server) = (Handshake::from(client), Handshake::from(server));
    while !(client.advance().unwrap() & server.advance().unwrap()) {
        server.push(&std::mem::take(client.output()));
        client.push(&std::mem::take(server.output()));
    }
    let (client, server) = (client.finish().unwrap().session, server.finish().unwrap().session);
    Ours { client, server, wire: Vec::new(), room: BytesMut::new() }
}

fn theirs() -> Theirs {
    let (client, server) = configs();
    let mut client = ClientConnection::new(client, name()).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        hand(&mut server, &wire);
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        hand(&mut client, &wire);
    }
    client.set_buffer_limit(None);
    Theirs { client, server, wire: Vec::new(), plain: BytesMut::new() }
}

fn hand<Data: rustls::SideData>(
    end: &mut impl std::ops::DerefMut<Target = rustls::ConnectionCommon<Data>>,
    mut wire: &[u8],
) {
    while !wire.is_empty() {
        end.read_tls(&mut wire).unwrap();
        end.process_new_packets().unwrap();
    }
}

/// Nanoseconds of one exchange.
fn round(way: &mut dyn Way, transmit: &Transmit) -> f64 {
    let exchanges = (OCTETS / transmit.len).min(EXCHANGES_MAX);
    let begun = Instant::now();
    for _ in 0..exchanges {
        assert_eq!(way.exchange(transmit), transmit.len);
    }
    begun.elapsed().as_nanos() as f64 / exchanges as f64
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let (mut ours, mut theirs) = (ours(), theirs());
    if let Some(at) = arguments.iter().position(|argument| argument == "--one") {
        let transmit = transmit(arguments[at + 2].parse().unwrap());
        let way: &mut dyn Way = if arguments[at + 1] == "ours" { &mut ours } else { &mut theirs };
        let count = arguments.get(at + 3).map_or(1000, |text| text.parse().unwrap());
        for _ in 0..count {
            way.exchange(&transmit);
        }
        return;
    }
    println!("{:>8}  {:>22}  {:>22}", "octets", "ours, ns: best median", "rustls: best median");
    for size in SIZES {
        let transmit = transmit(size);
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            times[0].push(round(&mut ours, &transmit));
            times[1].push(round(&mut theirs, &transmit));
        }
        let [ours, theirs] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            format!("{:.0} {:.0}", times[0], times[ROUNDS / 2])
        });
        println!("{size:>8}  {ours:>22}  {theirs:>22}");
    }
}
