//! Connections against connections, over real sockets, on each driver that there is.

use super::conn::{self, Conn, Written};
use super::dial::{self, Dialing};
use super::driver::tests::run;
use super::driver::{Driver, Runtime};
use super::load::{Loads, Number, OwnLoad};
use super::local::{Notify, Place, deadline};
use super::socket::{Shutdown, Socket};
use super::tls::{Contexts, Handshake, HandshakeError, Secured, Session, handshake};
use super::window::Window;
use crate::config::{IoDriver, SocketPath};
use crate::http2::{Segment, Transmit};
use crate::identity::{AppId, Identity, Namespace, SpiffeId, Target, TrustAnchors};
use crate::mailbox::Stream;
use crate::proxy::{Endpoint, Security};
use crate::snapshot::Way;
use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

mod reactor;
mod worker;

/// The drivers that tests run on.
const DRIVERS: [IoDriver; 2] = [IoDriver::Uring, IoDriver::Epoll];

fn driver(wanted: IoDriver) -> Driver {
    driver_with(wanted, Window::default())
}

fn driver_with(wanted: IoDriver, window: Window) -> Driver {
    Driver::build(wanted, window).expect("io_uring and epoll are both needed for these tests")
}

/// Runs a test on io_uring and on epoll.
pub(super) fn on_each_driver<F: Future<Output = ()> + 'static>(test: impl Fn(Rc<Runtime>) -> F) {
    for wanted in DRIVERS {
        let mut driver = driver(wanted);
        let runtime = Rc::clone(driver.runtime());
        driver.block_on(test(runtime));
    }
}

/// Two ends of a Unix connection.
pub(super) fn unix_pair(runtime: &Runtime) -> (Socket, Socket) {
    let adopt = |stream| Socket::adopt(&runtime.reactor, Stream::Unix(stream)).unwrap();
    let (one, other) = UnixStream::pair().unwrap();
    (adopt(one), adopt(other))
}

/// Two ends of a TCP connection; the first has a small send buffer.
fn tcp_pair(runtime: &Runtime) -> (Socket, Socket) {
    let adopt = |stream| Socket::adopt(&runtime.reactor, Stream::Tcp(stream)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    socket2::SockRef::from(&one).set_send_buffer_size(8 << 10).unwrap();
    let (other, _) = listener.accept().unwrap();
    (adopt(one), adopt(other))
}

fn conn(socket: Socket, session: Option<Session>, runtime: &Rc<Runtime>) -> Rc<Conn> {
    #[allow(clippy::disallowed_methods)]
    let load = Rc::new(OwnLoad::new(Loads::new(1), 0, std::time::Instant::now()));
    let place = Place::take(&load, Number::Connections);
    Rc::new(Conn::new(Rc::new(socket), session, runtime, place))
}

/// Numbers without order (Marsaglia's xorshift), the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

/// The octet at a place in the stream.
fn octet(at: usize) -> u8 {
    let at = at as u64;
    (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

fn octets(at: &mut usize, count: usize) -> Vec<u8> {
    let octets = (*at..*at + count).map(octet).collect();
    *at += count;
    octets
}

/// Framing and payloads of any size, none too.
fn transmit(numbers: &mut Numbers, at: &mut usize) -> Transmit {
    let mut transmit = Transmit::new();
    let all_small = numbers.below(2) == 0;
    for _ in 0..1 + numbers.below(40) {
        let head = octets(at, numbers.below(20));
        let start = u32::try_from(transmit.framing.len()).unwrap();
        transmit.framing.extend_from_slice(&head);
        transmit.segments.push(Segment::Framing(start..start + head.len() as u32));
        let size = if all_small || numbers.below(4) > 0 { 50 } else { 10_000 };
        let payload = octets(at, numbers.below(size));
        transmit.len += head.len() + payload.len();
        transmit.segments.push(Segment::Payload(Bytes::from(payload)));
    }
    transmit
}

const ROUNDS: usize = 120;

/// Writes until the end; gives how many octets, and how often the socket was full.
async fn write_stream(conn: &Rc<Conn>, seed: u64) -> (usize, usize) {
    let (mut numbers, mut at, mut full) = (Numbers(seed), 0, 0);
    let mut room = Vec::new();
    for _ in 0..ROUNDS {
        let mut next = transmit(&mut numbers, &mut at);
        let mut written = conn.send(&mut next, &mut room);
        assert!(next.is_empty());
        while written == Written::Blocked {
            full += 1;
            assert!(conn.is_blocked());
            conn.socket.writable().await;
            conn.unblock();
            written = conn.send_rest();
        }
        assert_eq!(written, Written::All);
    }
    conn.begin_close();
    while conn.finish() == Written::Blocked {
        conn.socket.writable().await;
        conn.unblock();
    }
    (at, full)
}

/// Reads to the end, slowly, and looks at every octet; gives how many there were.
async fn read_stream(socket: Socket, mut session: Option<Session>) -> usize {
    let mut at = 0;
    loop {
        let read = socket.read().await.unwrap();
        if read.is_empty() {
            break;
        }
        let opened = match &mut session {
            Some(session) => {
                session.push(read);
                let mut plain = Vec::new();
                while let Some(piece) = session.open().unwrap() {
                    plain.extend_from_slice(&piece);
                }
                plain
            }
            None => read.to_vec(),
        };
        for found in opened {
            assert_eq!(found, octet(at), "at {at}");
            at += 1;
        }
    }
    if let Some(session) = &mut session {
        assert!(session.is_closed_by_peer(), "no close_notify before the end");
    }
    at
}

async fn stress(
    runtime: &Rc<Runtime>,
    pair: (Socket, Socket),
    sessions: Option<(Session, Session)>,
) {
    let (ours, theirs) = sessions.unzip();
    let conn = conn(pair.0, ours, runtime);
    let reader = run(runtime, read_stream(pair.1, theirs));
    let (sent, full) = write_stream(&conn, 0x5EED).await;
    assert_eq!(reader.join().await, sent);
    assert!(sent > 1 << 20, "{sent}");
    assert!(full > 5, "the socket was never full: {full}");
}

#[test]
fn plaintext_arrives_in_order_through_a_full_socket() {
    on_each_driver(async |runtime| {
        stress(&runtime, unix_pair(&runtime), None).await;
        stress(&runtime, tcp_pair(&runtime), None).await;
    });
}

#[test]
fn tls_arrives_in_order_through_a_full_socket() {
    on_each_driver(async |runtime| {
        for pair in [unix_pair(&runtime), tcp_pair(&runtime)] {
            let authority = Authority::new();
            let (caller, callee) = (authority.identity("caller"), authority.identity("callee"));
            let sessions = shake(&pair, &caller, &callee, "callee").await;
            let (ours, theirs) = (sessions.0.unwrap().session, sessions.1.unwrap().session);
            stress(&runtime, pair, Some((ours, theirs))).await;
        }
    });
}

/// Sentry's shape: a root without a common name, an Ed25519 leaf without a subject.
pub(super) struct Authority {
    root: rustls_pki_types::CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { root, issuer: Issuer::new(params, key) }
    }

    pub(super) fn identity(&self, app_id: &str) -> Arc<Identity> {
        let id = format!("spiffe://public/ns/default/{app_id}");
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        Arc::new(Identity {
            spiffe_id: SpiffeId::parse(&id).unwrap(),
            chain: vec![leaf.der().clone()],
            key: rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()),
            trust_anchors: Arc::new(TrustAnchors::from_der(vec![self.root.clone()]).unwrap()),
            not_before: std::time::UNIX_EPOCH,
            not_after: std::time::UNIX_EPOCH,
        })
    }
}

pub(super) fn target(app_id: &str) -> Target {
    Target { app_id: AppId::new(app_id).unwrap(), namespace: Namespace::new("default") }
}

type Shaken = Result<Secured, HandshakeError>;

/// A handshake over `pair`: the client's outcome and the server's.
async fn shake(
    pair: &(Socket, Socket),
    caller: &Arc<Identity>,
    callee: &Arc<Identity>,
    expected: &str,
) -> (Shaken, Shaken) {
    let ip = "127.0.0.1".parse().unwrap();
    let client = Contexts::new(Some(caller)).unwrap().connect(&target(expected), ip).unwrap();
    let server = Contexts::new(Some(callee)).unwrap().accept().unwrap().unwrap();
    both(shake_one(&pair.0, client), shake_one(&pair.1, server)).await
}

async fn shake_one(socket: &Socket, ours: Handshake) -> Shaken {
    handshake(socket, ours).await
}

/// Both to their end.
async fn both<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> (A, B) {
    let (mut one, mut other) = (std::pin::pin!(one), std::pin::pin!(other));
    let (mut first, mut second) = (None, None);
    std::future::poll_fn(move |context| {
        use std::task::Poll;
        if first.is_none()
            && let Poll::Ready(output) = one.as_mut().poll(context)
        {
            first = Some(output);
        }
        if second.is_none()
            && let Poll::Ready(output) = other.as_mut().poll(context)
        {
            second = Some(output);
        }
        if first.is_none() || second.is_none() {
            return Poll::Pending;
        }
        Poll::Ready((first.take().unwrap(), second.take().unwrap()))
    })
    .await
}

#[test]
fn the_server_learns_who_calls() {
    on_each_driver(async |runtime| {
        let authority = Authority::new();
        let (caller, callee) = (authority.identity("caller"), authority.identity("callee"));
        let pair = unix_pair(&runtime);
        let (client, server) = shake(&pair, &caller, &callee, "callee").await;
        let leaf = server.unwrap().leaf.unwrap();
        let id = crate::identity::svid::peer_id(&leaf).unwrap();
        assert_eq!(id.as_str(), "spiffe://public/ns/default/caller");
        client.unwrap();
    });
}

#[test]
fn another_callee_is_refused() {
    on_each_driver(async |runtime| {
        let authority = Authority::new();
        let (caller, callee) = (authority.identity("caller"), authority.identity("impostor"));
        let (client, server) = shake(&unix_pair(&runtime), &caller, &callee, "callee").await;
        // spec 14: what daprd says.
        assert_eq!(
            client.unwrap_err().to_string(),
            "unexpected SPIFFE ID: \"spiffe://public/ns/default/impostor\""
        );
        // The server is told by an alert.
        assert!(server.unwrap_err().to_string().starts_with("remote error: tls: "));
    });
}

#[test]
fn another_authority_is_refused_by_both() {
    on_each_driver(async |runtime| {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let (caller, callee) = (ours.identity("caller"), theirs.identity("callee"));
        let (client, _) = shake(&unix_pair(&runtime), &caller, &callee, "callee").await;
        let text = client.unwrap_err().to_string();
        assert!(text.contains("x509: certificate signed by unknown authority"), "{text}");
        // A client that believes the server and is not believed.
        let mut stranger = ours.identity("caller");
        Arc::get_mut(&mut stranger).unwrap().trust_anchors = callee.trust_anchors.clone();
        let (_, server) = shake(&unix_pair(&runtime), &stranger, &callee, "callee").await;
        let text = server.unwrap_err().to_string();
        assert!(text.contains("x509: certificate signed by unknown authority"), "{text}");
    });
}

/// A peer that speaks HTTP/2 without TLS sees the end, and neither an alert nor a reset.
#[test]
fn a_plaintext_peer_sees_the_end() {
    on_each_driver(async |runtime| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let socket = Socket::adopt(&runtime.reactor, Stream::Tcp(stream)).unwrap();
        peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let reader = std::io::BufReader::new(peer.try_clone().unwrap());
        #[allow(clippy::disallowed_methods)] // A peer of another thread.
        let reader = std::thread::spawn(move || {
            let mut reader = reader;
            let mut seen = Vec::new();
            reader.read_to_end(&mut seen).map(|_| seen)
        });
        let callee = Authority::new().identity("callee");
        let ours = Contexts::new(Some(&callee)).unwrap().accept().unwrap().unwrap();
        let error = shake_one(&socket, ours).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "tls: first record does not look like a TLS handshake" // crypto/tls
        );
        // More that nobody will look at.
        peer.write_all(&[7; 1000]).unwrap();
        conn::part(&socket, &runtime.clock).await;
        assert_eq!(reader.join().unwrap().unwrap(), Vec::<u8>::new());
    });
}

#[test]
fn a_silent_peer_is_given_up() {
    on_each_driver(async |runtime| {
        let (socket, _silent) = unix_pair(&runtime);
        let callee = Authority::new().identity("callee");
        let ours = Contexts::new(Some(&callee)).unwrap().accept().unwrap().unwrap();
        let work = shake_one(&socket, ours);
        let (outcome, expired) =
            deadline(runtime.clock.sleep(Duration::from_millis(20)), &socket, work).await;
        assert!(expired);
        assert!(matches!(outcome, Err(HandshakeError::Eof)));
    });
}

#[test]
fn an_unverified_app_must_still_speak_h2() {
    on_each_driver(async |runtime| {
        let app = Authority::new().identity("app");
        for (protocols, accepted) in [(vec![b"h2".to_vec()], true), (vec![], false)] {
            let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(
                rustls::crypto::aws_lc_rs::default_provider(),
            ))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(app.chain.clone(), app.key.clone_key().into())
            .unwrap();
            config.alpn_protocols = protocols;
            config.enable_secret_extraction = true;
            let server = rustls::server::UnbufferedServerConnection::new(Arc::new(config)).unwrap();
            let client = Contexts::new(None).unwrap();
            let client = client.connect_unverified("app", "127.0.0.1".parse().unwrap()).unwrap();
            let pair = unix_pair(&runtime);
            let server = shake_one(&pair.1, Handshake::from(server));
            let (client, _) = both(shake_one(&pair.0, client), server).await;
            assert_eq!(client.is_ok(), accepted);
            if let Err(error) = client {
                assert!(error.to_string().starts_with(
                    "credentials: cannot check peer: missing selected ALPN property." // grpc-go
                ));
            }
        }
    });
}

#[test]
fn dials_and_says_why_not() {
    on_each_driver(async |runtime| {
        let contexts = Contexts::new(None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let dialing = Dialing::default();
        let dialed = dial::dial(
            &Way::Tcp(Endpoint(address)),
            &Security::Plaintext,
            &contexts,
            &dialing,
            &runtime,
        )
        .await
        .unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"hello").unwrap();
        assert_eq!(dialed.socket.read().await.unwrap(), &b"hello"[..]);
        drop((listener, peer));
        let refused = dial::dial(
            &Way::Tcp(Endpoint(address)),
            &Security::Plaintext,
            &contexts,
            &dialing,
            &runtime,
        )
        .await;
        assert_eq!(
            refused.unwrap_err(),
            format!(
                "connection error: desc = \"transport: Error while dialing: dial tcp {address}: \
                 connect: connection refused\""
            )
        );
    });
}

/// A backlog that is full makes a connect hang; taking the dial back ends it.
#[test]
fn a_hanging_dial_can_be_taken_back() {
    on_each_driver(async |runtime| {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let contexts = Rc::new(Contexts::new(None).unwrap());
        let mut hanging = Vec::new();
        for _ in 0..4 {
            let (dialing, contexts) = (Rc::new(Dialing::default()), Rc::clone(&contexts));
            let ended = Rc::new(Notify::default());
            hanging.push((Rc::clone(&dialing), Rc::clone(&ended)));
            let own = Rc::clone(&runtime);
            runtime.spawn(async move {
                let _ = dial::dial(
                    &Way::Tcp(Endpoint(address)),
                    &Security::Plaintext,
                    &contexts,
                    &dialing,
                    &own,
                )
                .await;
                ended.notify();
            });
        }
        runtime.clock.sleep(Duration::from_millis(1)).await;
        for (dialing, ended) in hanging {
            dialing.cancel();
            ended.wait().await;
            assert!(dialing.is_cancelled());
        }
    });
}

/// A socket in no file system, under a name that nobody else has.
fn abstract_socket() -> (SocketPath, UnixListener) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("ringside-io-{}-{number}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    (SocketPath::parse(&format!("@{name}")).unwrap(), listener)
}

#[test]
fn dials_unix_sockets_and_says_why_not() {
    on_each_driver(async |runtime| {
        let contexts = Contexts::new(None).unwrap();
        let dial = async |path: &SocketPath| {
            let (way, dialing) = (Way::Unix(path.clone()), Dialing::default());
            dial::dial(&way, &Security::Plaintext, &contexts, &dialing, &runtime).await
        };
        let (name, listener) = abstract_socket();
        let dialed = dial(&name).await.unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"hello").unwrap();
        assert_eq!(dialed.socket.read().await.unwrap(), &b"hello"[..]);
        drop((listener, peer));
        let missing = SocketPath::parse("no/such/socket").unwrap();
        for (path, cause) in [(name, "connection refused"), (missing, "no such file or directory")]
        {
            assert_eq!(
                dial(&path).await.unwrap_err(),
                format!(
                    "connection error: desc = \"transport: Error while dialing: dial unix {path}: \
                     connect: {cause}\""
                )
            );
        }
    });
}

/// The kernel refuses who comes to a full backlog, and does not try again by itself.
#[test]
fn a_full_backlog_of_a_unix_socket_is_waited_for() {
    on_each_driver(async |runtime| {
        let (path, listener) = abstract_socket();
        socket2::SockRef::from(&listener).listen(0).unwrap();
        let address = socket2::SockAddr::unix(path.for_kernel()).unwrap();
        let first = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
        let first = first.unwrap();
        first.connect(&address).unwrap();
        let contexts = Contexts::new(None).unwrap();
        let (way, dialing) = (Way::Unix(path), Dialing::default());
        let dial = dial::dial(&way, &Security::Plaintext, &contexts, &dialing, &runtime);
        // The dial comes first, and is refused; only then is there room.
        let room = async { listener.accept().unwrap() };
        let (dialed, _) = both(dial, room).await;
        assert!(dialed.is_ok(), "{}", dialed.unwrap_err());
        // Nobody makes room for this one, and it is taken back.
        let hanging = dial::dial(&way, &Security::Plaintext, &contexts, &dialing, &runtime);
        let (refused, ()) = both(hanging, async { dialing.cancel() }).await;
        assert!(refused.unwrap_err().contains("resource temporarily unavailable"));
    });
}

#[test]
fn a_broken_socket_ends_its_reader() {
    on_each_driver(async |runtime| {
        let (ours, theirs) = unix_pair(&runtime);
        theirs.shutdown(Shutdown::Both);
        drop(theirs);
        let conn = conn(ours, None, &runtime);
        let mut numbers = Numbers(3);
        let mut next = transmit(&mut numbers, &mut 0);
        assert_eq!(conn.send(&mut next, &mut Vec::new()), Written::Never);
        assert_eq!(conn.send_rest(), Written::Never);
        let read = conn.socket.read().await;
        assert!(read.is_err() || read.is_ok_and(|octets| octets.is_empty()));
    });
}
