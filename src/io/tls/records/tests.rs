//! The record layer against rustls' own, and against a peer who breaks every rule.

use super::super::tests::{End, meet};
use super::super::{Fault, Handshake, ROOM_KEPT_MAX, Session, failure, sealed_len_max};
use super::*;
use crate::http2::{Segment, Transmit};
use crate::identity::AnyServer;
use crate::io::socket::Socket;
use crate::io::tests::{Authority, on_each_driver, unix_pair};
use crate::io::tls::cipher::record_len;
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription as Alert, ClientConfig, ClientConnection, Connection, ServerConfig,
    ServerConnection, SupportedCipherSuite,
};
use std::io::{Read, Write};
use std::sync::Arc;

const SUITES: [SupportedCipherSuite; 3] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

use Role::{Client, Server};

/// Numbers without order (Marsaglia's xorshift), the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }

    /// Mostly small, sometimes more than two records.
    fn size(&mut self) -> usize {
        let bound = [1, 30, 300, 3000, 17_000, 40_000][self.below(6)];
        1 + self.below(bound)
    }

    fn octets(&mut self) -> Vec<u8> {
        let first = self.below(256);
        (0..self.size()).map(|at| (first + at * 7) as u8).collect()
    }
}

fn configs(suite: SupportedCipherSuite) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let version = if suite.tls13().is_some() { &TLS13 } else { &TLS12 };
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![suite];
    let algorithms = provider.signature_verification_algorithms;
    let provider: Arc<CryptoProvider> = Arc::new(provider);
    let identity = Authority::new().identity("callee");
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(algorithms)))
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec()];
    client.resumption = Resumption::disabled();
    client.enable_secret_extraction = true;
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(identity.chain.clone(), identity.key.clone_key().into())
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.enable_secret_extraction = true;
    // Data of the server's right behind its Finished.
    server.send_half_rtt_data = true;
    (Arc::new(client), Arc::new(server))
}

fn our_client(config: &Arc<ClientConfig>) -> Handshake {
    let name = "127.0.0.1".try_into().unwrap();
    UnbufferedClientConnection::new(Arc::clone(config), name).unwrap().into()
}

fn our_server(config: &Arc<ServerConfig>) -> Handshake {
    UnbufferedServerConnection::new(Arc::clone(config)).unwrap().into()
}

/// A session of ours in this role, and rustls in the other.
fn with_rustls(suite: SupportedCipherSuite, role: Role) -> (Session, Connection) {
    let (client, server) = configs(suite);
    let (ours, theirs) = match role {
        Client => {
            let theirs: Connection = ServerConnection::new(server).unwrap().into();
            meet(our_client(&client), theirs).unwrap()
        }
        Server => {
            let name = "127.0.0.1".try_into().unwrap();
            let theirs: Connection = ClientConnection::new(client, name).unwrap().into();
            let (theirs, ours) = meet(theirs, our_server(&server)).unwrap();
            (ours, theirs)
        }
    };
    let (End::Ours(ours), End::Theirs(mut theirs)) = (ours, theirs) else { unreachable!() };
    theirs.set_buffer_limit(None);
    (ours.finish().unwrap().session, *theirs)
}

/// Both ends are ours: this role's, and the other's, which can be made to say anything.
fn with_ourselves(role: Role) -> (Records, Records) {
    let (client, server) = configs(SUITES[0]);
    let ends = meet(our_client(&client), our_server(&server)).unwrap();
    let (End::Ours(client), End::Ours(server)) = ends else { unreachable!() };
    let [client, server] = [client, server].map(|end| end.finish().unwrap().session.into_records());
    if role == Client { (client, server) } else { (server, client) }
}

impl Session {
    fn into_records(self) -> Records {
        match self.layer {
            super::super::Layer::Records(records) => *records,
            super::super::Layer::Legacy(_) => panic!("TLS 1.2"),
        }
    }

    fn records_mut(&mut self) -> &mut Records {
        match &mut self.layer {
            super::super::Layer::Records(records) => records,
            super::super::Layer::Legacy(_) => panic!("TLS 1.2"),
        }
    }

    /// Everything that waits to be sent, which it then is.
    fn take_rest(&mut self) -> Vec<u8> {
        if let super::super::Layer::Records(records) = &mut self.layer {
            records.settled();
        }
        std::mem::take(&mut self.rest)
    }
}

fn transmit(octets: &[u8], numbers: &mut Numbers) -> Transmit {
    let mut transmit = Transmit::new();
    let mut left = octets;
    while !left.is_empty() {
        let (now, later) = left.split_at(numbers.size().min(left.len()));
        transmit.len += now.len();
        transmit.segments.push(Segment::Payload(Bytes::copy_from_slice(now)));
        left = later;
    }
    transmit
}

/// Gives `wire` to a session in pieces of any size, and opens after each.
fn recv(session: &mut Session, wire: &[u8], numbers: &mut Numbers) -> Result<Vec<u8>, Fault> {
    let (mut plain, mut left) = (Vec::new(), wire);
    while !left.is_empty() {
        let (now, later) = left.split_at(numbers.size().min(left.len()));
        session.push(BytesMut::from(now));
        while let Some(piece) = session.open()? {
            assert!(!piece.is_empty());
            plain.extend_from_slice(&piece);
        }
        left = later;
    }
    Ok(plain)
}

fn rustls_recv(theirs: &mut Connection, mut wire: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while !wire.is_empty() {
        theirs.read_tls(&mut wire).unwrap();
        let state = theirs.process_new_packets().unwrap();
        let start = plain.len();
        plain.resize(start + state.plaintext_bytes_to_read(), 0);
        theirs.reader().read_exact(&mut plain[start..]).unwrap();
    }
    plain
}

fn rustls_sent(theirs: &mut Connection) -> Vec<u8> {
    let mut wire = Vec::new();
    while theirs.wants_write() {
        theirs.write_tls(&mut wire).unwrap();
    }
    wire
}

/// Data both ways, key updates of both, any cut; then both say goodbye.
fn converse(suite: SupportedCipherSuite, role: Role, seed: u64) {
    let mut numbers = Numbers(seed);
    let (mut ours, mut theirs) = with_rustls(suite, role);
    let tls13 = suite.tls13().is_some();
    for round in 0..40 {
        if tls13 {
            ours.records_mut().sealed_by_key_max = 1 + numbers.below(20) as u64;
        }
        let octets = numbers.octets();
        let mut wire = ours.take_rest();
        ours.seal(&transmit(&octets, &mut numbers), &mut wire).unwrap();
        assert_eq!(rustls_recv(&mut theirs, &wire), octets, "{suite:?} {role:?} {seed} {round}");

        if tls13 && numbers.below(6) == 0 {
            theirs.refresh_traffic_keys().unwrap();
        }
        let octets = numbers.octets();
        theirs.writer().write_all(&octets).unwrap();
        let wire = rustls_sent(&mut theirs);
        let opened = recv(&mut ours, &wire, &mut numbers).unwrap();
        assert_eq!(opened, octets, "{suite:?} {role:?} {seed} {round}");
    }
    theirs.send_close_notify();
    assert!(!ours.is_closed_by_peer());
    recv(&mut ours, &rustls_sent(&mut theirs), &mut numbers).unwrap();
    assert!(ours.is_closed_by_peer());
    ours.close();
    let wire = ours.take_rest();
    theirs.read_tls(&mut wire.as_slice()).unwrap();
    assert!(theirs.process_new_packets().unwrap().peer_has_closed());
}

#[test]
fn rustls_understands_and_is_understood() {
    for suite in SUITES {
        for role in [Client, Server] {
            for seed in 1..=4 {
                converse(suite, role, seed * 0x9E37_79B9);
            }
        }
    }
}

#[test]
fn tls12_is_left_to_rustls() {
    for suite in [
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ] {
        for role in [Client, Server] {
            converse(suite, role, 77);
        }
    }
}

/// What a peer of bad will sends: a record of this type and content, padded.
fn record(peer: &mut Records, kind: u8, content: &[u8], padding: usize) -> Vec<u8> {
    let mut out = vec![0; HEADER_LEN];
    out.extend_from_slice(content);
    if padding > 0 {
        out.push(kind);
        out.resize(out.len() + padding - 1, 0);
    }
    peer.sealer.seal(if padding > 0 { 0 } else { kind }, &mut out, 0).unwrap();
    out
}

fn open_all(ours: &mut Records, wire: &[u8], owed: &mut Vec<u8>) -> Result<Vec<u8>, Fault> {
    ours.push(BytesMut::from(wire));
    let mut plain = Vec::new();
    while let Some(piece) = ours.open(owed)? {
        plain.extend_from_slice(&piece);
    }
    Ok(plain)
}

/// `wire` ends the connection by this alert, of which the peer is told; and that is the end.
fn assert_refused(role: Role, wires: impl Fn(&mut Records) -> Vec<Vec<u8>>, alert: Alert) {
    let (mut ours, mut peer) = with_ourselves(role);
    let mut owed = Vec::new();
    let wires = wires(&mut peer);
    let (last, good) = wires.split_last().unwrap();
    for wire in good {
        open_all(&mut ours, wire, &mut owed).unwrap();
    }
    let outcome = open_all(&mut ours, last, &mut owed);
    assert_eq!(outcome, Err(Fault::Local(alert)));
    assert_eq!(open_all(&mut peer, &owed, &mut Vec::new()), Err(Fault::Remote(alert)));
    // Nothing is opened any more, and nothing sealed.
    let more = record(&mut peer, APPLICATION_DATA, b"more", 0);
    let mut out = Vec::new();
    assert_eq!(open_all(&mut ours, &more, &mut out), Ok(Vec::new()));
    ours.seal([b"data".as_slice()].into_iter(), &mut out).unwrap();
    ours.close(&mut out).unwrap();
    assert!(out.is_empty() && !ours.is_closed_by_peer());
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = (body.len() as u32).to_be_bytes();
    [&[kind, high, middle, low], body].concat()
}

/// Lifetime, age, nonce, ticket, extensions (RFC 8446 §4.6.1).
fn ticket(octets: usize) -> Vec<u8> {
    let mut body = vec![0, 0, 1, 0, 1, 2, 3, 4, 1, 9];
    body.extend_from_slice(&(octets as u16).to_be_bytes());
    body.resize(body.len() + octets, 5);
    body.extend_from_slice(&[0, 0]);
    message(NEW_SESSION_TICKET, &body)
}

fn key_update(request: u8) -> Vec<u8> {
    message(KEY_UPDATE, &[request])
}

#[test]
fn a_changed_record_is_refused() {
    // Each octet of a short record; its length octets make it another one.
    for at in 0..HEADER_LEN + 4 + 1 + 16 {
        for bit in [1, 0x80] {
            let alert = match at {
                0 => Alert::UnexpectedMessage,
                1 | 2 => Alert::ProtocolVersion,
                3 if bit == 0x80 => Alert::RecordOverflow,
                // Longer: the rest is waited for.
                3 => continue,
                4 if bit == 0x80 => continue,
                _ => Alert::BadRecordMac,
            };
            let change = |peer: &mut Records| {
                let mut wire = record(peer, APPLICATION_DATA, b"data", 0);
                wire[at] ^= bit;
                vec![wire]
            };
            assert_refused(Client, change, alert);
        }
    }
}

#[test]
fn order_and_number_of_records_are_kept() {
    let two = |peer: &mut Records| {
        let one = record(peer, APPLICATION_DATA, b"one", 0);
        (one, record(peer, APPLICATION_DATA, b"two", 0))
    };
    let swapped = |peer: &mut Records| vec![two(peer).1];
    assert_refused(Server, swapped, Alert::BadRecordMac);
    let repeated = |peer: &mut Records| {
        let (one, _) = two(peer);
        vec![one.clone(), one]
    };
    assert_refused(Server, repeated, Alert::BadRecordMac);
    // Our own, sent back to us.
    let (mut ours, _) = with_ourselves(Client);
    let mut wire = Vec::new();
    ours.seal([b"data".as_slice()].into_iter(), &mut wire).unwrap();
    let outcome = open_all(&mut ours, &wire, &mut Vec::new());
    assert_eq!(outcome, Err(Fault::Local(Alert::BadRecordMac)));
}

#[test]
fn sizes_are_bounded() {
    // No room for a tag, or for a type.
    for sealed in [0, 1, 15] {
        let short = |_: &mut Records| vec![[&[23, 3, 3, 0, sealed][..], &[7; 15]].concat()];
        assert_refused(Server, short, Alert::BadRecordMac);
    }
    // Announced too large: refused by its header alone.
    let announced = |_: &mut Records| vec![vec![23, 3, 3, 0x41, 0x01]];
    assert_refused(Server, announced, Alert::RecordOverflow);
    let content = vec![7; CONTENT_MAX];
    let (mut ours, mut peer) = with_ourselves(Client);
    let full = record(&mut peer, APPLICATION_DATA, &content, 0);
    assert_eq!(open_all(&mut ours, &full, &mut Vec::new()).unwrap(), content);
    // Padding counts too.
    for (octets, padding) in [(CONTENT_MAX, 1), (CONTENT_MAX - 100, 101), (1, CONTENT_MAX)] {
        let large = |peer: &mut Records| {
            let mut out = vec![0; HEADER_LEN];
            out.resize(HEADER_LEN + octets, 7);
            out.push(APPLICATION_DATA);
            out.resize(out.len() + padding - 1, 0);
            vec![peer.sealer.seal_unbounded(0, out)]
        };
        assert_refused(Client, large, Alert::RecordOverflow);
    }
}

#[test]
fn padding_is_dropped() {
    let (mut ours, mut peer) = with_ourselves(Server);
    let mut owed = Vec::new();
    for (content, padding) in [(&b"data"[..], 1), (b"zeros\0\0", 300), (b"\0", 1), (b"x", 16_383)] {
        let wire = record(&mut peer, APPLICATION_DATA, content, padding);
        assert_eq!(wire.len(), HEADER_LEN + content.len() + 1 + padding + 16);
        assert_eq!(open_all(&mut ours, &wire, &mut owed).unwrap(), content);
    }
    for padding in [0, 1, 300] {
        let untyped = |peer: &mut Records| vec![record(peer, 0, &[], padding)];
        assert_refused(Client, untyped, Alert::UnexpectedMessage);
    }
}

/// To whom, records by type and content, the alert.
type Case = (Role, &'static [(u8, &'static [u8])], Alert);

#[test]
fn only_what_may_come_comes() {
    use Alert::{DecodeError, IllegalParameter, UnexpectedMessage};
    let cases: &[Case] = &[
        // change_cipher_spec, a heartbeat, no such type.
        (Client, &[(20, &[1])], UnexpectedMessage),
        (Client, &[(24, &[1, 0, 0])], UnexpectedMessage),
        (Server, &[(255, b"data")], UnexpectedMessage),
        // Alerts.
        (Server, &[(ALERT, &[])], UnexpectedMessage),
        (Server, &[(ALERT, &[2])], DecodeError),
        (Server, &[(ALERT, &[1, 0, 1, 0])], DecodeError),
        (Server, &[(ALERT, &[3, 0])], IllegalParameter),
        // Handshake messages.
        (Server, &[(HANDSHAKE, &[])], UnexpectedMessage),
        (Server, &[(HANDSHAKE, &[1, 0, 0, 0])], UnexpectedMessage),
        (Client, &[(HANDSHAKE, &[0, 0, 0, 0])], UnexpectedMessage),
        (Client, &[(HANDSHAKE, &[13, 0, 0, 3, 0, 0, 0])], UnexpectedMessage),
        (Client, &[(HANDSHAKE, &[20])], UnexpectedMessage),
        (Client, &[(HANDSHAKE, &[NEW_SESSION_TICKET, 1, 0, 0])], DecodeError),
        (Client, &[(HANDSHAKE, &[NEW_SESSION_TICKET, 0, 0, 2, 0, 0])], DecodeError),
        // A server gets no tickets.
        (Server, &[(HANDSHAKE, &[NEW_SESSION_TICKET])], UnexpectedMessage),
        (Client, &[(HANDSHAKE, &[KEY_UPDATE, 0, 0, 0])], DecodeError),
        (Client, &[(HANDSHAKE, &[KEY_UPDATE, 0, 0, 2])], DecodeError),
        (Client, &[(HANDSHAKE, &[KEY_UPDATE, 1, 0, 1])], DecodeError),
        (Client, &[(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 2])], IllegalParameter),
        (Client, &[(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0, KEY_UPDATE])], UnexpectedMessage),
        // Nothing comes between the pieces of a message.
        (Client, &[(HANDSHAKE, &[KEY_UPDATE]), (APPLICATION_DATA, b"data")], UnexpectedMessage),
        (Client, &[(HANDSHAKE, &[KEY_UPDATE]), (ALERT, &[1, 0])], UnexpectedMessage),
        (Client, &[(HANDSHAKE, &[KEY_UPDATE, 0]), (HANDSHAKE, &[])], UnexpectedMessage),
    ];
    for (role, records, alert) in cases {
        let wires = |peer: &mut Records| {
            records.iter().map(|(kind, content)| record(peer, *kind, content, 0)).collect()
        };
        assert_refused(*role, wires, *alert);
    }
    // Unsealed alerts and change_cipher_spec, as before the handshake's end.
    for wire in [[20, 3, 3, 0, 1, 1].as_slice(), &[21, 3, 3, 0, 2, 1, 0], &[22, 3, 3, 0, 1, 20]] {
        assert_refused(Client, |_| vec![wire.to_vec()], UnexpectedMessage);
    }
}

#[test]
fn alerts_of_the_peer_end_it() {
    for (level, alert) in
        [(2, Alert::BadRecordMac), (1, Alert::InternalError), (2, Alert::Unknown(199))]
    {
        let (mut ours, mut peer) = with_ourselves(Client);
        let mut wire = record(&mut peer, APPLICATION_DATA, b"data", 0);
        wire.extend(record(&mut peer, ALERT, &[level, alert.into()], 0));
        let mut owed = Vec::new();
        ours.push(BytesMut::from(wire.as_slice()));
        assert_eq!(ours.open(&mut owed).unwrap().unwrap(), b"data"[..]);
        assert_eq!(ours.open(&mut owed), Err(Fault::Remote(alert)));
        // An alert is not answered by one.
        assert!(owed.is_empty() && !ours.is_closed_by_peer());
        // Nor does anything else follow.
        ours.seal([b"late".as_slice()].into_iter(), &mut owed).unwrap();
        ours.close(&mut owed).unwrap();
        assert!(owed.is_empty());
    }
    let (mut ours, mut peer) = with_ourselves(Client);
    let mut wire = record(&mut peer, APPLICATION_DATA, b"data", 0);
    wire.extend(record(&mut peer, ALERT, &[1, 0], 0));
    wire.extend(b"whatever follows");
    let mut owed = Vec::new();
    assert_eq!(open_all(&mut ours, &wire, &mut owed).unwrap(), b"data");
    assert!(ours.is_closed_by_peer() && owed.is_empty());
    assert_eq!(open_all(&mut ours, b"and more", &mut owed).unwrap(), b"");
    // Our direction stays open until we close it, once.
    ours.seal([b"late".as_slice()].into_iter(), &mut owed).unwrap();
    ours.close(&mut owed).unwrap();
    ours.close(&mut owed).unwrap();
    assert_eq!(open_all(&mut peer, &owed, &mut Vec::new()).unwrap(), b"late");
    assert!(peer.is_closed_by_peer());
    // Without close_notify there is no clean end.
    let (mut ours, mut peer) = with_ourselves(Server);
    let wire = record(&mut peer, APPLICATION_DATA, b"data", 0);
    assert_eq!(open_all(&mut ours, &wire[..wire.len() - 1], &mut owed).unwrap(), b"");
    assert!(!ours.is_closed_by_peer());
}

#[test]
fn floods_are_refused() {
    let many = |peer: &mut Records, count: usize, kind: u8, content: &[u8]| -> Vec<Vec<u8>> {
        (0..count).map(|_| record(peer, kind, content, 0)).collect()
    };
    let empty = |peer: &mut Records| many(peer, 33, APPLICATION_DATA, &[]);
    assert_refused(Server, empty, Alert::UnexpectedMessage);
    let warnings = |peer: &mut Records| many(peer, 5, ALERT, &[1, 90]);
    assert_refused(Server, warnings, Alert::UnexpectedMessage);
    let tickets = |peer: &mut Records| many(peer, 33, HANDSHAKE, &ticket(20));
    assert_refused(Client, tickets, Alert::UnexpectedMessage);
    let updates = |peer: &mut Records| {
        let update = |peer: &mut Records| {
            let mut wire = Vec::new();
            peer.update_sealer(UPDATE_NOT_REQUESTED, &mut wire).unwrap();
            wire
        };
        (0..33).map(|_| update(peer)).collect()
    };
    assert_refused(Client, updates, Alert::UnexpectedMessage);

    // What comes with data is no flood.
    let (mut ours, mut peer) = with_ourselves(Server);
    let (mut owed, data) = (Vec::new(), vec![1; CONTENT_MAX]);
    for _ in 0..100 {
        let mut wire = Vec::new();
        for content in [&[][..], &data] {
            wire.extend(record(&mut peer, APPLICATION_DATA, content, 0));
        }
        peer.update_sealer(UPDATE_REQUESTED, &mut wire).unwrap();
        assert_eq!(open_all(&mut ours, &wire, &mut owed).unwrap(), data);
    }
    // As long as it is not sent, one answer is enough.
    assert_eq!(record_len(&owed).unwrap(), Some(owed.len()));
    ours.seal([b"data".as_slice()].into_iter(), &mut owed).unwrap();
    assert_eq!(open_all(&mut peer, &owed, &mut Vec::new()).unwrap(), b"data");
}

/// Gives a session the peer's request for new keys; all that it owes then.
fn ask_for_keys(ours: &mut Session, peer: &mut Records) -> Vec<u8> {
    let mut wire = Vec::new();
    peer.update_sealer(UPDATE_REQUESTED, &mut wire).unwrap();
    ours.push(BytesMut::from(wire.as_slice()));
    assert_eq!(ours.open(), Ok(None));
    ours.rest.clone()
}

/// RFC 8446 §4.6.3: each request, though we have nothing to say; those that come before an answer
/// could leave by that one.
#[test]
fn requests_for_keys_are_answered() {
    on_each_driver(async |runtime| {
        let (socket, _theirs) = unix_pair(&runtime);
        let (ours, mut peer) = with_ourselves(Server);
        let mut ours = Session::records(ours);
        for flushed in [true, true, false, false, true, true] {
            let owed = ask_for_keys(&mut ours, &mut peer);
            assert_eq!(record_len(&owed).unwrap(), Some(owed.len()), "one answer");
            if flushed {
                // Were there none, or one too many, its number would be wrong.
                assert_eq!(open_all(&mut peer, &owed, &mut Vec::new()).unwrap(), b"");
                assert!(ours.send_rest(&socket).unwrap());
            }
        }
        let mut wire = Vec::new();
        ours.seal(&transmit(b"data", &mut Numbers(1)), &mut wire).unwrap();
        assert_eq!(open_all(&mut peer, &wire, &mut Vec::new()).unwrap(), b"data");
    });
}

fn fill(socket: &Socket) {
    let full = (0..1 << 20).find_map(|_| socket.send_octets(&[0]).err()).unwrap();
    assert_eq!(full.kind(), std::io::ErrorKind::WouldBlock);
}

/// A little that a full socket leaves behind does not hold a worker's room.
#[test]
fn what_is_left_takes_no_more_room_than_it_needs() {
    on_each_driver(async |runtime| {
        let (socket, _theirs) = unix_pair(&runtime);
        fill(&socket);
        let (ours, _) = with_ourselves(Client);
        let mut ours = Session::records(ours);
        let mut room = Vec::with_capacity(128 << 10);
        let small = transmit(b"data", &mut Numbers(1));
        assert!(!ours.send(&socket, &small, &mut room).unwrap());
        assert!(ours.wants_send() && ours.rest.capacity() < 100);
        assert_eq!(room.capacity(), 128 << 10);
        // Nothing overtakes it.
        assert!(ours.send(&socket, &small, &mut room).is_err());
        assert_eq!(record_len(&ours.take_rest()).unwrap(), Some(4 + 22));
        // Much is not copied.
        let large = transmit(&vec![7; 100 << 10], &mut Numbers(1));
        assert!(!ours.send(&socket, &large, &mut room).unwrap());
        assert!(ours.rest.len() > 100 << 10 && room.capacity() == 0);
    });
}

/// Whatever is sealed fits in what is reserved, keys that change on the way too.
#[test]
fn rooms_are_made_to_measure() {
    const { assert!(sealed_len_max((128 + 16) << 10) <= ROOM_KEPT_MAX) };
    let full = CONTENT_MAX;
    for octets in [0, 1, full - 1, full, full + 1, 8 * full - 1, 8 * full, 8 * full + 1] {
        let (ours, _) = with_ourselves(Client);
        let data = transmit(&vec![1; octets], &mut Numbers(5));
        let mut ours = Session::records(ours);
        // The keys change before the next record, and once.
        for _ in 0..10 {
            ours.seal(&transmit(b"x", &mut Numbers(5)), &mut Vec::new()).unwrap();
        }
        ours.records_mut().sealed_by_key_max = 10;
        let mut out = Vec::new();
        ours.seal(&data, &mut out).unwrap();
        let by_key = if octets == 0 { 10 } else { octets.div_ceil(full) as u64 };
        assert_eq!(ours.records_mut().sealer.used(), by_key);
        assert!(out.len() <= sealed_len_max(octets), "{octets}");
        let capacity = out.capacity();
        out.clear();
        ours.seal(&data, &mut out).unwrap();
        assert_eq!(out.capacity(), capacity);
    }
}

/// In one read, data and what is wrong: the data first.
#[test]
fn tls12_gives_data_that_came_before_a_fault() {
    let suite = cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    let (mut ours, mut theirs) = with_rustls(suite, Client);
    theirs.writer().write_all(b"data").unwrap();
    let mut wire = rustls_sent(&mut theirs);
    theirs.writer().write_all(b"more").unwrap();
    wire.extend(rustls_sent(&mut theirs));
    *wire.last_mut().unwrap() ^= 1;
    ours.push(BytesMut::from(wire.as_slice()));
    assert_eq!(ours.open().unwrap().unwrap(), b"data"[..]);
    let fault = ours.open().unwrap_err();
    assert_eq!(fault, Fault::Rustls(Error::DecryptError));
    assert_eq!(ours.open(), Ok(None));
    // The peer is told.
    theirs.read_tls(&mut ours.take_rest().as_slice()).unwrap();
    let told = theirs.process_new_packets().unwrap_err();
    assert_eq!(told, Error::AlertReceived(Alert::BadRecordMac));
}

#[test]
fn our_own_errors_are_not_blamed_on_the_peer() {
    let text = failure(&Fault::Local(Alert::InternalError));
    assert_eq!(text, "local error: tls: internal error");
}

/// Messages in one record, over many, and right behind each other.
#[test]
fn messages_come_in_any_pieces() {
    let mut stream = [ticket(300), ticket(1), ticket(0xff00), ticket(20_000)].concat();
    stream.extend(key_update(UPDATE_NOT_REQUESTED));
    for piece in [1, 2, 3, 5, 309, 1000, CONTENT_MAX] {
        let (mut ours, mut peer) = with_ourselves(Client);
        let mut wire = Vec::new();
        for content in stream.chunks(piece) {
            wire.extend(record(&mut peer, HANDSHAKE, content, 0));
        }
        peer.sealer = peer.kernel.next_sealer().unwrap();
        wire.extend(record(&mut peer, APPLICATION_DATA, b"data", 0));
        assert_eq!(open_all(&mut ours, &wire, &mut Vec::new()).unwrap(), b"data", "{piece}");
        assert_eq!(ours.message.capacity(), 0);
    }
}

#[test]
fn our_keys_do_not_seal_too_much() {
    const { assert!(SEALED_BY_KEY_MAX < 1 << 24) };
    let (mut ours, mut theirs) = with_rustls(SUITES[0], Client);
    ours.records_mut().sealed_by_key_max = 3;
    let data = vec![7; 5 * CONTENT_MAX];
    for _ in 0..10 {
        let mut wire = Vec::new();
        ours.seal(&transmit(&data, &mut Numbers(9)), &mut wire).unwrap();
        assert!(ours.records_mut().sealer.used() <= 4);
        assert_eq!(rustls_recv(&mut theirs, &wire), data);
    }
    // rustls follows, as it was asked to.
    theirs.writer().write_all(b"data").unwrap();
    let wire = rustls_sent(&mut theirs);
    assert!(wire.len() > HEADER_LEN + b"data".len() + 1 + 16);
    assert_eq!(recv(&mut ours, &wire, &mut Numbers(9)).unwrap(), b"data");
}

/// Data that comes in the same read as the handshake's end, on both sides, however it is cut.
#[test]
fn what_comes_behind_the_handshake_is_kept() {
    let mut numbers = Numbers(0xBEEF);
    for _ in 0..30 {
        let data = numbers.octets();
        // The server speaks first: data behind its Finished, before it has seen ours.
        let (client, server) = configs(SUITES[0]);
        let mut ours = our_client(&client);
        let mut theirs: Connection = ServerConnection::new(server).unwrap().into();
        theirs.set_buffer_limit(None);
        assert!(!ours.advance().unwrap());
        rustls_recv(&mut theirs, &std::mem::take(ours.output()));
        theirs.writer().write_all(&data).unwrap();
        let session = shake_in_pieces(ours, &rustls_sent(&mut theirs), &mut numbers, &mut theirs);
        assert_eq!(session, data);

        // The client's first words behind its Finished.
        let (client, server) = configs(SUITES[1]);
        let name = "127.0.0.1".try_into().unwrap();
        let mut theirs: Connection = ClientConnection::new(client, name).unwrap().into();
        theirs.set_buffer_limit(None);
        let mut ours = our_server(&server);
        ours.push(&rustls_sent(&mut theirs));
        assert!(!ours.advance().unwrap());
        rustls_recv(&mut theirs, &std::mem::take(ours.output()));
        theirs.writer().write_all(&data).unwrap();
        let session = shake_in_pieces(ours, &rustls_sent(&mut theirs), &mut numbers, &mut theirs);
        assert_eq!(session, data);
    }
}

/// What is opened of a flight that ends the handshake and has data behind.
fn shake_in_pieces(
    mut ours: Handshake,
    mut wire: &[u8],
    numbers: &mut Numbers,
    theirs: &mut Connection,
) -> Vec<u8> {
    while {
        let (now, later) = wire.split_at(numbers.size().min(wire.len()));
        ours.push(now);
        wire = later;
        !ours.advance().unwrap()
    } {}
    rustls_recv(theirs, &std::mem::take(ours.output()));
    assert!(!theirs.is_handshaking());
    let mut session = ours.finish().unwrap().session;
    let mut plain = Vec::new();
    while let Some(piece) = session.open().unwrap() {
        plain.extend_from_slice(&piece);
    }
    plain.extend(recv(&mut session, wire, numbers).unwrap());
    plain
}

/// Plaintext is lent from where it was read, and no buffer stays behind.
#[test]
fn nothing_is_copied_that_came_whole() {
    let (mut ours, mut peer) = with_ourselves(Client);
    let mut wire = record(&mut peer, APPLICATION_DATA, b"first", 0);
    wire.extend(record(&mut peer, APPLICATION_DATA, b"second", 9));
    let mut room = BytesMut::with_capacity(1000);
    room.extend_from_slice(&wire);
    let read = room.split();
    let place = read.as_ptr() as usize..read.as_ptr() as usize + read.len();
    ours.push(read);
    let mut owed = Vec::new();
    for expected in [&b"first"[..], b"second"] {
        let piece = ours.open(&mut owed).unwrap().unwrap();
        assert_eq!(piece, expected);
        assert!(place.contains(&(piece.as_ptr() as usize)));
    }
    assert_eq!(ours.open(&mut owed), Ok(None));
    // All slices are gone: the room can be used again from its start.
    room.reserve(1000);
    room.extend_from_slice(b"x");
    assert_eq!(room.as_ptr() as usize, place.start);
}

/// Whatever happens on the way: what is opened is how the data began, and nobody panics.
#[test]
fn a_changed_stream_gives_a_prefix() {
    let mut numbers = Numbers(0xF00D);
    let (mut refused, mut whole) = (0, 0);
    for _ in 0..300 {
        let (mut ours, mut peer) =
            with_ourselves(if numbers.below(2) == 0 { Client } else { Server });
        let (mut wire, mut data) = (Vec::new(), Vec::new());
        for _ in 0..1 + numbers.below(5) {
            match numbers.below(4) {
                0 => peer.update_sealer(UPDATE_REQUESTED, &mut wire).unwrap(),
                1 => wire.extend(record(&mut peer, APPLICATION_DATA, &[], numbers.below(50))),
                _ => {
                    let octets = numbers.octets();
                    peer.seal([octets.as_slice()].into_iter(), &mut wire).unwrap();
                    data.extend(octets);
                }
            }
        }
        let at = numbers.below(wire.len().max(1));
        match numbers.below(5) {
            0 => wire[at] ^= 1 << numbers.below(8),
            1 => wire.truncate(at),
            2 => wire.insert(at, numbers.below(256) as u8),
            3 => drop(wire.remove(at)),
            _ => {
                let end = (at + numbers.size()).min(wire.len());
                let again = wire[at..end].to_vec();
                wire.splice(at..at, again);
            }
        }
        let (mut opened, mut left, mut owed) = (Vec::new(), wire.as_slice(), Vec::new());
        while !left.is_empty() {
            let (now, later) = left.split_at(numbers.size().min(left.len()));
            left = later;
            ours.push(BytesMut::from(now));
            loop {
                match ours.open(&mut owed) {
                    Ok(Some(piece)) => opened.extend_from_slice(&piece),
                    Ok(None) => break,
                    Err(fault) => {
                        assert!(matches!(fault, Fault::Local(_)), "{fault:?}");
                        refused += 1;
                    }
                }
            }
        }
        assert!(data.starts_with(&opened));
        whole += usize::from(opened == data);
    }
    assert!(refused > 100 && whole < 100, "{refused} {whole}");
}
