//! Workers in this process: client, two sidecars' workers, app, over real sockets, with mTLS and
//! without, on each driver. The test plays control: it resolves, publishes, drains.

use crate::peer::workers;
use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::{Request, Response};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use ringside::config::{App, AppProtocol, Config, IoDriver, Tracing};
use ringside::identity::{AppId, Identity, Namespace, SpiffeId, TrustAnchors};
use ringside::io::{ListenSocket, Loads, WorkerOptions};
use ringside::mailbox::{Mailbox, Sender, ToControl, ToWorker, mailbox};
use ringside::observe::cells::Gauge;
use ringside::proxy::Listener;
use ringside::resolve::{Endpoint, Resolution};
use ringside::snapshot::{Epoch, Snapshot};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::collections::BTreeSet;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

const WAIT: Duration = Duration::from_secs(20);

/// `scripts/test` runs everything on each driver; otherwise both are tried here.
fn drivers() -> Vec<IoDriver> {
    match std::env::var("RINGSIDE_TEST_IO").as_deref() {
        Ok("uring") => vec![IoDriver::Uring],
        Ok("epoll") => vec![IoDriver::Epoll],
        _ => vec![IoDriver::Auto, IoDriver::Epoll],
    }
}

/// One sidecar's workers, and what control would hold.
struct Sidecar {
    api: SocketAddr,
    internal: SocketAddr,
    unix: std::path::PathBuf,
    to: Vec<Sender<ToWorker>>,
    from: Mailbox<ToControl>,
    threads: Vec<JoinHandle<()>>,
    snapshot: Snapshot,
}

fn config(app_id: &str, app: Option<SocketAddr>, mtls: bool) -> Config {
    Config {
        app_id: AppId::new(app_id).unwrap(),
        namespace: Namespace::new("default"),
        app: app
            .map(|address| App::at(&address.ip().to_string(), address.port(), AppProtocol::Grpc)),
        mtls,
        api_token: None,
        app_token: None,
        max_body_size: 64 << 20,
        header_list_size: 64 << 10,
        tracing: Tracing::Passed,
        drain_max: None,
        dapr_listen_addresses: Vec::new(),
        grpc_port: 0,
        http_port: 0,
        internal_port: 0,
        forwards: Vec::new(),
        io: IoDriver::Auto,
        logging: Default::default(),
    }
}

impl Sidecar {
    fn start(
        app_id: &str,
        app: Option<SocketAddr>,
        identity: Option<Arc<Identity>>,
        driver: IoDriver,
    ) -> Self {
        Self::start_with(app_id, app, identity, driver, workers().unwrap_or(1))
    }

    fn start_with(
        app_id: &str,
        app: Option<SocketAddr>,
        identity: Option<Arc<Identity>>,
        driver: IoDriver,
        workers: usize,
    ) -> Self {
        let config = Arc::new(config(app_id, app, identity.is_some()));
        let app = app.map(|address| Endpoint(address).into());
        let snapshot = Snapshot { identity, app, ..Snapshot::new(config) };
        let (control, from) = mailbox(64).unwrap();
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (api, internal) = (bind(), bind());
        let (api_address, internal_address) =
            (api.local_addr().unwrap(), internal.local_addr().unwrap());
        let unix = std::env::temp_dir().join(format!(
            "ringside-it-{}-{}.socket",
            std::process::id(),
            api_address.port()
        ));
        let unix_listener = UnixListener::bind(&unix).unwrap();
        let mut sockets = vec![
            ListenSocket::Tcp(api),
            ListenSocket::Unix(unix_listener),
            ListenSocket::Tcp(internal),
        ];
        let mail: Vec<_> = (0..workers).map(|_| mailbox(64).unwrap()).collect();
        let other = |(index, (to, _)): (usize, &(Sender<ToWorker>, Mailbox<ToWorker>))| {
            (index > 0).then(|| to.try_clone().unwrap())
        };
        let mut others: Vec<_> = mail.iter().enumerate().map(other).collect();
        let loads = Loads::new(workers);
        let (mut to, mut threads) = (Vec::new(), Vec::new());
        for (index, (sender, mailbox)) in mail.into_iter().enumerate() {
            let options = WorkerOptions {
                index,
                driver,
                busy_poll: None,
                cpu: None,
                listeners: vec![Listener::Api, Listener::Api, Listener::Internal],
                sockets: std::mem::take(&mut sockets),
                others: std::mem::take(&mut others),
                loads: Arc::clone(&loads),
                snapshot: Arc::new(snapshot.clone()),
                app_calls_max: None,
                retry_budget: None,
                mailbox,
                control: control.try_clone().unwrap(),
            };
            to.push(sender);
            threads.push(std::thread::spawn(move || ringside::io::run(options).unwrap()));
        }
        from.bell.set_nonblocking(false).unwrap();
        from.bell.set_read_timeout(Some(WAIT)).unwrap();
        Self { api: api_address, internal: internal_address, unix, to, from, threads, snapshot }
    }

    fn workers(&self) -> usize {
        self.to.len()
    }

    /// Every worker.
    fn tell(&self, message: impl Fn() -> ToWorker) {
        for to in &self.to {
            to.send(message()).unwrap();
        }
    }

    /// The worker's next message.
    fn hear(&self) -> ToControl {
        loop {
            if let Some(message) = self.from.try_recv() {
                return message;
            }
            let mut rung = [0; 64];
            assert!((&self.from.bell).read(&mut rung).unwrap() > 0);
        }
    }

    /// Answers the worker's next question.
    fn resolve(&self, expected: &str, endpoints: Result<&[SocketAddr], &str>) {
        let ToControl::Resolve(target) = self.hear() else { panic!("no question") };
        assert_eq!(target.app_id.as_str(), expected);
        let result = match endpoints {
            Ok(endpoints) => Ok(endpoints.iter().copied().map(Endpoint).collect()),
            Err(text) => Err(Arc::from(text)),
        };
        self.tell(|| {
            ToWorker::Resolved(Resolution { target: target.clone(), result: result.clone() })
        });
    }
}

impl Drop for Sidecar {
    /// Workers end with their mailboxes.
    fn drop(&mut self) {
        self.to.clear();
        let _ = std::fs::remove_file(&self.unix);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

struct Authority {
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { root, issuer: Issuer::new(params, key) }
    }

    fn identity(&self, app_id: &str) -> Arc<Identity> {
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
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
            trust_anchors: Arc::new(TrustAnchors::from_der(vec![self.root.clone()]).unwrap()),
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH,
        })
    }
}

/// An app that sends back what it gets, as it gets it.
async fn echo_app() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(serve_echo(stream));
        }
    });
    address
}

async fn serve_echo(stream: tokio::net::TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::task::spawn_local(async move {
            let head =
                Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut send = respond.send_response(head, false).unwrap();
            let mut body = request.into_body();
            while let Some(data) = body.data().await {
                let Ok(data) = data else { return };
                let _ = body.flow_control().release_capacity(data.len());
                if send_all(&mut send, data).await.is_none() {
                    return;
                }
            }
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            let _ = send.send_trailers(trailers);
        });
    }
}

/// Sends as the window allows; `None` when the stream is gone.
async fn send_all(send: &mut h2::SendStream<Bytes>, mut data: Bytes) -> Option<()> {
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        let room = std::future::poll_fn(|context| send.poll_capacity(context)).await?.ok()?;
        let now = data.split_to(room.min(data.len()));
        send.send_data(now, false).ok()?;
    }
    Some(())
}

async fn client<S>(stream: S) -> SendRequest<Bytes>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    client
}

async fn tcp_client(address: SocketAddr) -> SendRequest<Bytes> {
    client(tokio::net::TcpStream::connect(address).await.unwrap()).await
}

/// How a call ended.
#[derive(Debug, PartialEq, Eq)]
struct End {
    status: String,
    message: String,
    body: Bytes,
}

async fn call(mut client: SendRequest<Bytes>, app_id: &str, body: Bytes) -> End {
    std::future::poll_fn(|context| client.poll_ready(context)).await.unwrap();
    let request = Request::post("http://sidecar/test.Echo/Echo")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("dapr-app-id", app_id)
        .body(())
        .unwrap();
    let (response, mut send) = client.send_request(request, false).unwrap();
    tokio::task::spawn_local(async move {
        if send_all(&mut send, body).await.is_some() {
            let _ = send.send_data(Bytes::new(), true);
        }
    });
    let response = response.await.unwrap();
    let head = response.headers().clone();
    let mut incoming = response.into_body();
    let mut received = BytesMut::new();
    while let Some(data) = incoming.data().await {
        let data = data.unwrap();
        incoming.flow_control().release_capacity(data.len()).unwrap();
        received.extend_from_slice(&data);
    }
    let trailers = incoming.trailers().await.unwrap().unwrap_or(head);
    let text = |name| {
        trailers.get(name).map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
    };
    End { status: text("grpc-status"), message: text("grpc-message"), body: received.freeze() }
}

/// One gRPC message whose octets are all its own.
fn message(octets: usize, seed: usize) -> Bytes {
    let mut body = BytesMut::with_capacity(octets + 5);
    body.extend_from_slice(&[0]);
    body.extend_from_slice(&u32::try_from(octets).unwrap().to_be_bytes());
    body.extend((0..octets).map(|at| ((at + seed).wrapping_mul(0x9E37_79B1) >> 13) as u8));
    body.freeze()
}

fn run(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        tokio::time::timeout(2 * WAIT, test()).await.expect("the test takes too long");
    });
}

/// Client, caller's sidecar, callee's sidecar, app.
async fn chain(mtls: bool, driver: IoDriver) -> (Sidecar, Sidecar) {
    let app = echo_app().await;
    let authority = Authority::new();
    let identity = |app_id| mtls.then(|| authority.identity(app_id));
    let callee = Sidecar::start("callee", Some(app), identity("callee"), driver);
    let caller = Sidecar::start("caller", None, identity("caller"), driver);
    (caller, callee)
}

async fn echo_through_two_sidecars(mtls: bool, driver: IoDriver) {
    let (caller, callee) = chain(mtls, driver).await;
    let client = tcp_client(caller.api).await;
    let first = tokio::task::spawn_local(call(client.clone(), "callee", message(10, 0)));
    tokio::task::yield_now().await;
    let internal = [callee.internal];
    // The worker asks once its thread has seen the call; this thread drives the client meanwhile.
    let caller = blocking(caller, move |caller| caller.resolve("callee", Ok(&internal))).await;
    let ended = first.await.unwrap();
    assert_eq!(ended, End { status: "0".into(), message: String::new(), body: message(10, 0) });
    let sizes = [0, 1, 5_000, 70_000, 1 << 20, 3 << 20];
    let calls: Vec<_> = (0..60)
        .map(|number| {
            let body = message(sizes[number % sizes.len()], number);
            let made = call(client.clone(), "callee", body.clone());
            (body, tokio::task::spawn_local(made))
        })
        .collect();
    for (body, made) in calls {
        let ended = made.await.unwrap();
        assert_eq!(ended.status, "0", "{}", ended.message);
        assert!(ended.body == body, "{} octets came back other than sent", body.len());
    }
    drop((caller, callee));
}

/// Lets `work` block without stopping this thread's tasks.
async fn blocking(sidecar: Sidecar, work: impl FnOnce(&Sidecar) + Send + 'static) -> Sidecar {
    tokio::task::spawn_blocking(move || {
        work(&sidecar);
        sidecar
    })
    .await
    .unwrap()
}

#[test]
fn plaintext_calls_come_back_unchanged() {
    for driver in drivers() {
        run(async move || echo_through_two_sidecars(false, driver).await);
    }
}

#[test]
fn mtls_calls_come_back_unchanged() {
    for driver in drivers() {
        run(async move || echo_through_two_sidecars(true, driver).await);
    }
}

#[test]
fn a_unix_socket_is_an_api_port() {
    for driver in drivers() {
        run(async move || {
            let app = echo_app().await;
            let sidecar = Sidecar::start("callee", Some(app), None, driver);
            let stream = UnixStream::connect(&sidecar.unix).unwrap();
            stream.set_nonblocking(true).unwrap();
            let client = client(tokio::net::UnixStream::from_std(stream).unwrap()).await;
            let ended = call(client, "callee", message(100_000, 1)).await;
            assert_eq!((ended.status.as_str(), ended.body), ("0", message(100_000, 1)));
        });
    }
}

#[test]
fn failures_carry_daprs_texts() {
    for driver in drivers() {
        run(async move || {
            let authority = Authority::new();
            let caller = Sidecar::start("caller", None, Some(authority.identity("caller")), driver);
            let other = Sidecar::start("other", None, Some(authority.identity("other")), driver);
            let client = tcp_client(caller.api).await;
            let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let made = tokio::task::spawn_local(call(client.clone(), "down", message(1, 0)));
            let caller =
                blocking(caller, move |caller| caller.resolve("down", Ok(&[closed]))).await;
            let ended = made.await.unwrap();
            assert_eq!(ended.status, "14");
            let text = format!(
                "connection error: desc = \"transport: Error while dialing: dial tcp {closed}: \
                 connect: connection refused\""
            );
            assert!(ended.message.starts_with(&text), "{}", ended.message); // spec 14
            let made = tokio::task::spawn_local(call(client.clone(), "callee", message(1, 0)));
            let at = other.internal;
            let caller = blocking(caller, move |caller| caller.resolve("callee", Ok(&[at]))).await;
            let ended = made.await.unwrap();
            assert_eq!(ended.status, "14");
            let text = "connection error: desc = \"transport: authentication handshake failed: \
                        unexpected SPIFFE ID: \\\"spiffe://public/ns/default/other\\\"\"";
            assert!(ended.message.starts_with(text), "{}", ended.message); // spec 14
            drop((caller, other));
        });
    }
}

#[test]
fn drains_and_is_scraped() {
    for driver in drivers() {
        run(async move || {
            let app = echo_app().await;
            let sidecar = Sidecar::start("callee", Some(app), None, driver);
            let client = tcp_client(sidecar.api).await;
            let ended = call(client.clone(), "callee", message(5, 5)).await;
            assert_eq!(ended.status, "0");
            let sidecar = blocking(sidecar, |sidecar| {
                let every: BTreeSet<usize> = (0..sidecar.workers()).collect();
                sidecar.tell(|| ToWorker::Scrape(Box::default()));
                let answers = sidecar.workers();
                let (mut reads, mut writes) = (0, 0);
                let told = (0..answers).map(|_| match sidecar.hear() {
                    ToControl::Cells { worker, pace, .. } => {
                        // A turn may bring nothing to read: mail, or a connection.
                        reads += pace.turns.sum();
                        writes += pace.flushes.sum();
                        assert!(pace.flushes.count() <= pace.flushes.sum(), "{pace:?}");
                        worker
                    }
                    other => panic!("{other:?}"),
                });
                assert_eq!(told.collect::<BTreeSet<_>>(), every);
                // The caller's request and the app's answer; those, relayed.
                assert!(reads >= 2 && writes >= 2, "{reads} {writes}");
                let mut next = sidecar.snapshot.clone();
                next.epoch = Epoch(2);
                sidecar.tell(|| ToWorker::Snapshot(Arc::new(next.clone())));
                sidecar.tell(|| ToWorker::Drain);
                let told = (0..answers).map(|_| match sidecar.hear() {
                    ToControl::Drained { worker } => worker,
                    other => panic!("{other:?}"),
                });
                assert_eq!(told.collect::<BTreeSet<_>>(), every);
            })
            .await;
            assert!(tokio::net::TcpStream::connect(sidecar.api).await.is_err());
            drop(client);
        });
    }
}

/// What a scrape takes of a worker, all of it: the mail, what is handed over, the bell. On the
/// thread's own clock, as between two answers it does nothing else.
#[test]
fn a_scrape_takes_no_50_microseconds_of_a_worker() {
    const SCRAPES: usize = 101;
    const TIME_MAX: Duration = Duration::from_micros(50);
    for driver in drivers() {
        run(async move || {
            let app = echo_app().await;
            let sidecar = Sidecar::start_with("callee", Some(app), None, driver, 1);
            let visitors = visitors(sidecar.api, 20).await;
            let sidecar = blocking(sidecar, |sidecar| {
                let busy: Vec<Duration> = (0..SCRAPES)
                    .map(|_| {
                        sidecar.tell(|| ToWorker::Scrape(Box::default()));
                        let ToControl::Cells { pace, .. } = sidecar.hear() else {
                            panic!("no cells")
                        };
                        pace.busy
                    })
                    .collect();
                let mut taken: Vec<_> = busy.windows(2).map(|pair| pair[1] - pair[0]).collect();
                taken.sort_unstable();
                assert!(taken[taken.len() / 2] <= TIME_MAX, "{taken:?}");
            })
            .await;
            drop(visitors);
            drop(sidecar);
        });
    }
}

/// Downstream connections of each worker.
fn spread(sidecar: &Sidecar) -> Vec<i64> {
    sidecar.tell(|| ToWorker::Scrape(Box::default()));
    let mut spread = vec![0; sidecar.workers()];
    for _ in 0..sidecar.workers() {
        let ToControl::Cells { worker, increment, .. } = sidecar.hear() else { panic!("no cells") };
        spread[worker] = increment.gauge(Gauge::DownstreamConnections);
    }
    spread
}

/// Connections that do nothing yet, each of which has made a call.
async fn visitors(address: SocketAddr, count: usize) -> Vec<SendRequest<Bytes>> {
    let mut visitors = Vec::new();
    for number in 0..count {
        let visitor = tcp_client(address).await;
        let ended = call(visitor.clone(), "callee", message(10, number)).await;
        assert_eq!(ended.status, "0");
        visitors.push(visitor);
    }
    visitors
}

#[test]
fn connections_are_spread_over_workers() {
    for driver in drivers() {
        for workers in [2, 4] {
            run(async move || {
                let app = echo_app().await;
                let sidecar = Sidecar::start_with("callee", Some(app), None, driver, workers);
                let idle = visitors(sidecar.api, workers).await;
                let each = vec![1; workers];
                let sidecar = blocking(sidecar, move |at| assert_eq!(spread(at), each)).await;
                let more = visitors(sidecar.api, workers).await;
                let each = vec![2; workers];
                let sidecar = blocking(sidecar, move |at| assert_eq!(spread(at), each)).await;
                drop((sidecar, idle, more));
            });
        }
    }
}

/// The worker that has one connection full of calls gets none of those that come later.
#[test]
fn a_busy_connection_keeps_others_away() {
    for driver in drivers() {
        run(async move || {
            let app = echo_app().await;
            let sidecar = Sidecar::start_with("callee", Some(app), None, driver, 2);
            let busy = visitors(sidecar.api, 1).await.remove(0);
            let mut open = Vec::new();
            for _ in 0..50 {
                open.push(begin_call(busy.clone()).await);
            }
            let idle = visitors(sidecar.api, 15).await;
            let stays = |at: &Sidecar| assert_eq!(spread(at), [1, 15]);
            let sidecar = blocking(sidecar, stays).await;
            drop((sidecar, idle, open));
        });
    }
}

/// A call that has its response's head, and whose request does not end.
async fn begin_call(
    mut client: SendRequest<Bytes>,
) -> (h2::SendStream<Bytes>, Response<h2::RecvStream>) {
    std::future::poll_fn(|context| client.poll_ready(context)).await.unwrap();
    let request = Request::post("http://sidecar/test.Echo/Echo")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("dapr-app-id", "callee")
        .body(())
        .unwrap();
    let (response, send) = client.send_request(request, false).unwrap();
    (send, response.await.unwrap())
}

/// With every worker's connections, and one that is placed while they drain.
#[test]
fn all_workers_drain() {
    for driver in drivers() {
        run(async move || {
            let app = echo_app().await;
            let sidecar = Sidecar::start_with("callee", Some(app), None, driver, 4);
            let guests = visitors(sidecar.api, 8).await;
            let busy = begin_call(guests[3].clone()).await;
            let sidecar = blocking(sidecar, |sidecar| {
                // The first worker, which accepts, is told last.
                let (first, others) = sidecar.to.split_first().unwrap();
                others.iter().for_each(|to| to.send(ToWorker::Drain).unwrap());
                let mut drained: Vec<_> = (0..2).map(|_| drained(sidecar)).collect();
                let late = std::net::TcpStream::connect(sidecar.api).unwrap();
                first.send(ToWorker::Drain).unwrap();
                drained.push(self::drained(sidecar));
                drained.sort_unstable();
                assert_eq!(drained, [0, 1, 2], "the fourth has a call");
                assert!(std::net::TcpStream::connect(sidecar.api).is_err());
                drop(late);
            })
            .await;
            drop(busy);
            let sidecar = blocking(sidecar, |sidecar| assert_eq!(drained(sidecar), 3)).await;
            drop((sidecar, guests));
        });
    }
}

fn drained(sidecar: &Sidecar) -> usize {
    match sidecar.hear() {
        ToControl::Drained { worker } => worker,
        other => panic!("{other:?}"),
    }
}

/// Sockets of this process that are bound to `port` and hold a descriptor, the listener aside.
fn open_sockets(port: u16) -> usize {
    const LISTEN: &str = "0A";
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let local = format!(":{port:04X}");
    let held = |line: &&str| {
        let mut columns = line.split_whitespace();
        let at_port = columns.nth(1).is_some_and(|address| address.ends_with(&local));
        let state = columns.nth(1).unwrap_or_default();
        at_port && state != LISTEN && columns.nth(5).is_some_and(|inode| inode != "0")
    };
    table.lines().skip(1).filter(held).count()
}

/// Peers that come and go in every rude way leave no descriptor behind, and others are served.
#[test]
fn rude_peers_leave_nothing_behind() {
    use std::io::Write;
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for driver in drivers() {
        run(async move || {
            let app = echo_app().await;
            let sidecar = Sidecar::start("callee", Some(app), None, driver);
            let api = sidecar.api;
            let sidecar = blocking(sidecar, move |_| {
                let mut refused = Vec::new();
                for number in 0..400 {
                    let mut peer = std::net::TcpStream::connect(api).unwrap();
                    match number % 4 {
                        0 => {}
                        1 => peer.write_all(PREFACE).unwrap(),
                        2 => {
                            peer.write_all(PREFACE).unwrap();
                            // Closing then resets the connection.
                            socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
                        }
                        _ => {
                            peer.write_all(b"GET / HTTP/1.1\r\nHost: sidecar\r\n\r\n").unwrap();
                            peer.set_read_timeout(Some(WAIT)).unwrap();
                            refused.push(peer);
                        }
                    }
                }
                for mut peer in refused {
                    // Our SETTINGS and a GOAWAY, then the end; no reset.
                    let mut said = Vec::new();
                    peer.read_to_end(&mut said).unwrap();
                    assert!(!said.is_empty());
                }
            })
            .await;
            let client = tcp_client(api).await;
            let ended = call(client.clone(), "callee", message(5, 5)).await;
            assert_eq!(ended.status, "0");
            assert!(open_sockets(api.port()) >= 1);
            drop(client);
            let mut left = usize::MAX;
            for _ in 0..500 {
                left = open_sockets(api.port());
                if left == 0 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(left, 0, "sockets are left");
            drop(sidecar);
        });
    }
}
