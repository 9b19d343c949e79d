//! Two sidecars' workers over real sockets, with mTLS between them: more calls, no more allocations.
//!
//! A worker is measured from its first turn to its last, and what it does once, like shaking hands,
//! is counted too; so runs of few and of many calls are compared.

use allocation_counter::measure;
use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{Request, Response};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use ringside::config::env::Environment;
use ringside::config::settings::Settings;
use ringside::config::{Config, Flags, IoDriver, Tracing};
use ringside::identity::{Identity, SpiffeId, TrustAnchors};
use ringside::io::{ListenSocket, Loads, WorkerOptions};
use ringside::mailbox::{Mailbox, Sender, ToControl, ToWorker, mailbox};
use ringside::proxy::Listener;
use ringside::resolve::{Endpoint, Resolution};
use ringside::snapshot::Snapshot;
use rustls_pki_types::PrivatePkcs8KeyDer;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

const WAIT: Duration = Duration::from_secs(60);

/// Calls of a short run, and how many more a long one has.
const FEW: usize = 500;
const MORE: usize = 2000;

/// What time may bring during those, like a timer that is set: far less than one for each call.
const BY_TIME_MAX: u64 = MORE as u64 / 50;

/// A worker on a thread of its own, which ends with its mailbox and gives what it allocated.
struct Sidecar {
    address: SocketAddr,
    to: Sender<ToWorker>,
    from: Mailbox<ToControl>,
    thread: JoinHandle<u64>,
}

impl Sidecar {
    fn start(
        listener: Listener,
        app: Option<SocketAddr>,
        identity: Arc<Identity>,
        driver: IoDriver,
    ) -> Self {
        let (_, app_id) = identity.spiffe_id.workload().expect("an app's");
        let app_id = app_id.to_owned();
        let port = app.map_or_else(String::new, |app| app.port().to_string());
        let flags = Flags { app_id, app_port: port, ..Flags::default() };
        let settings = Settings::new(&flags, &Environment::default()).expect("settings");
        let config = Config { mtls: true, tracing: Tracing::Passed, ..settings.config };
        let app = app.map(|address| Endpoint(address).into());
        let snapshot =
            Snapshot { identity: Some(identity), app, ..Snapshot::new(Arc::new(config)) };
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("its address");
        let (to, mail) = mailbox(64).expect("a mailbox");
        let (control, from) = mailbox(64).expect("a mailbox");
        let options = WorkerOptions {
            index: 0,
            driver,
            busy_poll: None,
            cpu: None,
            listeners: vec![listener],
            sockets: vec![ListenSocket::Tcp(socket)],
            others: vec![None],
            loads: Loads::new(1),
            snapshot: Arc::new(snapshot),
            app_calls_max: None,
            retry_budget: None,
            mailbox: mail,
            control,
        };
        let work = move || measure(|| ringside::io::run(options).expect("a worker")).count_total;
        from.bell.set_nonblocking(false).expect("a bell");
        from.bell.set_read_timeout(Some(WAIT)).expect("a bell");
        #[expect(clippy::disallowed_methods, reason = "what is measured is a thread")]
        let thread = std::thread::spawn(work);
        Self { address, to, from, thread }
    }

    /// Answers the worker's one question.
    fn resolve(&self, endpoint: SocketAddr) {
        let question = loop {
            if let Some(question) = self.from.try_recv() {
                break question;
            }
            assert!((&self.from.bell).read(&mut [0; 64]).expect("a question") > 0);
        };
        let ToControl::Resolve(target) = question else { panic!("another question") };
        let result = Ok(Arc::from([Endpoint(endpoint)]));
        let told = self.to.send(ToWorker::Resolved(Resolution { target, result }));
        assert!(told.is_ok());
    }

    fn end(self) -> u64 {
        drop(self.to);
        self.thread.join().expect("no panic")
    }
}

/// Of two apps that trust each other. Signatures by these keys have one size.
fn identities() -> [Arc<Identity>; 2] {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = params.self_signed(&key).expect("a root").der().clone();
    let issuer = Issuer::new(params, key);
    ["caller", "callee"].map(|app_id| {
        let id = format!("spiffe://public/ns/default/{app_id}");
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().expect("a name"))];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let leaf = params.signed_by(&key, &issuer).expect("a certificate");
        Arc::new(Identity {
            spiffe_id: SpiffeId::parse(&id).expect("an identity"),
            chain: vec![leaf.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
            trust_anchors: Arc::new(TrustAnchors::from_der(vec![root.clone()]).expect("anchors")),
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH,
        })
    })
}

/// Answers each message with itself, then with trailers.
async fn serve(listener: tokio::net::TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::task::spawn_local(async move {
            stream.set_nodelay(true).expect("a socket");
            let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                tokio::task::spawn_local(async move {
                    let head = Response::builder().header("content-type", "application/grpc");
                    let mut send = respond
                        .send_response(head.body(()).expect("a head"), false)
                        .expect("a stream");
                    let mut body = request.into_body();
                    while let Some(data) = body.data().await {
                        let data = data.expect("a message");
                        body.flow_control().release_capacity(data.len()).expect("room");
                        send.send_data(data, false).expect("a stream");
                    }
                    let mut trailers = http::HeaderMap::new();
                    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                    send.send_trailers(trailers).expect("a stream");
                });
            }
        });
    }
}

async fn begin(client: SendRequest<Bytes>) -> (ResponseFuture, SendStream<Bytes>) {
    let mut client = client.ready().await.expect("a connection");
    let request = Request::post("http://sidecar/test.Echo/Echo")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("dapr-app-id", "callee");
    client.send_request(request.body(()).expect("a head"), false).expect("a stream")
}

async fn call(client: SendRequest<Bytes>, message: Bytes) {
    let (response, mut send) = begin(client).await;
    send.send_data(message.clone(), true).expect("a stream");
    let mut body = response.await.expect("a response").into_body();
    let mut octets = 0;
    while let Some(data) = body.data().await {
        octets += data.expect("a message").len();
    }
    assert_eq!(octets, message.len());
    let trailers = body.trailers().await.expect("an end").expect("trailers");
    assert_eq!(trailers["grpc-status"], "0");
}

/// What both workers allocate in all, of a pair that carries so many calls, some of them at once.
fn allocated(driver: IoDriver, calls: usize, at_once: usize) -> [u64; 2] {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let carried = async {
        let app = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = app.local_addr().expect("its address");
        tokio::task::spawn_local(serve(app));
        let [caller, callee] = identities();
        let inbound = Sidecar::start(Listener::Internal, Some(address), callee, driver);
        let outbound = Sidecar::start(Listener::Api, None, caller, driver);
        let stream = tokio::net::TcpStream::connect(outbound.address).await.expect("a sidecar");
        stream.set_nodelay(true).expect("a socket");
        let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::task::spawn_local(async move { drop(connection.await) });
        let message = Bytes::from([&[0, 0, 0, 0, 100][..], &[7; 100]].concat());
        let first = tokio::task::spawn_local(call(client.clone(), message.clone()));
        let (resolving, to) = (outbound, inbound.address);
        let outbound = tokio::task::spawn_blocking(move || {
            resolving.resolve(to);
            resolving
        });
        let outbound = outbound.await.expect("an answer");
        first.await.expect("a call");
        // A stream that stays keeps connections from giving their memory back in between.
        let stays = begin(client.clone()).await;
        for _ in 0..calls / at_once {
            let calls: Vec<_> = (0..at_once)
                .map(|_| tokio::task::spawn_local(call(client.clone(), message.clone())))
                .collect();
            for call in calls {
                call.await.expect("a call");
            }
        }
        drop((stays, client));
        [outbound, inbound]
    };
    let local = tokio::task::LocalSet::new();
    let sidecars = runtime.expect("a runtime").block_on(
        local.run_until(async { tokio::time::timeout(WAIT, carried).await.expect("in time") }),
    );
    drop(local);
    sidecars.map(Sidecar::end)
}

#[test]
fn calls_over_sockets_allocate_nothing_once_warm() {
    for driver in [IoDriver::Auto, IoDriver::Epoll] {
        for at_once in [1, 20] {
            let few = allocated(driver, FEW, at_once);
            let many = allocated(driver, FEW + MORE, at_once);
            println!("{driver:?}, {at_once} at once: {few:?}, {many:?}");
            for (few, many) in few.into_iter().zip(many) {
                assert!(many <= few + BY_TIME_MAX, "{driver:?}, {at_once}: {few}, then {many}");
            }
        }
    }
}
