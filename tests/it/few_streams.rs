//! A crowd of calls for an app that lets a connection have few at once: all are served, none is
//! tried in vain, and those that wait are counted.

use crate::peer::probe::ProbeApp;
use crate::peer::process::PATIENCE;
use crate::peer::sidecar::{Options, http_get, loopback};
use crate::peer::{Kind, Sidecar, World};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::Request;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// That the app takes of a connection.
const STREAMS: usize = 5;
/// Connections that one worker of ringside makes to its app.
const CONNECTIONS: usize = 64;
/// For whom there is no place.
const WAIT: usize = 50;
const CALLS: usize = STREAMS * CONNECTIONS + WAIT;

struct Crowd {
    /// Whose first message has come back.
    served: AtomicUsize,
    /// Who may end.
    go: Semaphore,
}

/// One call, whose answer must be its own. It keeps its place until it may go.
async fn call(client: SendRequest<Bytes>, tag: u32, crowd: Arc<Crowd>) {
    let request = Request::post("http://server/probe.Probe/Echo")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("dapr-app-id", "server")
        .body(());
    let mut client = client.ready().await.expect("a stream");
    let (response, mut out) =
        client.send_request(request.expect("a request"), false).expect("a stream");
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(4);
    message.put_u32(tag);
    let message = message.freeze();
    out.send_data(message.clone(), false).expect("a message");
    let mut body = response.await.expect("a response").into_body();
    let first = body.data().await.expect("a message").expect("a message");
    assert_eq!(first, message, "call {tag} got another's answer");
    crowd.served.fetch_add(1, Ordering::Relaxed);
    crowd.go.acquire().await.expect("an open semaphore").forget();
    out.send_data(Bytes::new(), true).expect("the end");
    assert!(body.data().await.is_none(), "call {tag} got more than it sent");
    let trailers = body.trailers().await.expect("trailers").expect("trailers");
    assert_eq!(trailers.get("grpc-status").map(|status| status.as_bytes()), Some(&b"0"[..]));
}

/// The value of a series without labels.
fn told(sidecar: &Sidecar, series: &str) -> Option<u64> {
    let metrics = http_get(sidecar.ports.metrics, "/metrics")?;
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    line.parse().ok()
}

async fn run(app: &ProbeApp, caller: &Sidecar, callee: &Sidecar, kind: Kind) {
    let stream = TcpStream::connect(loopback(caller.ports.grpc)).await.expect("connects");
    stream.set_nodelay(true).expect("no delay");
    let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let crowd = Arc::new(Crowd { served: AtomicUsize::new(0), go: Semaphore::new(0) });
    let mut calls = JoinSet::new();
    for tag in 0..CALLS as u32 {
        calls.spawn(call(client.clone(), tag, Arc::clone(&crowd)));
    }
    // daprd tells nobody who waits.
    if kind == Kind::Ringside {
        let held = CALLS - WAIT;
        while crowd.served.load(Ordering::Relaxed) < held
            || told(callee, "ringside_waiting_calls") != Some(WAIT as u64)
        {
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!((crowd.served.load(Ordering::Relaxed), app.seen().len()), (held, held));
    }
    crowd.go.add_permits(CALLS);
    assert_eq!(calls.join_all().await.len(), CALLS);
    let most = app.most_at_once();
    assert!(most.iter().all(|calls| *calls <= STREAMS), "{most:?}");
    if kind == Kind::Ringside {
        assert_eq!(most, [STREAMS; CONNECTIONS]);
        assert_eq!(told(callee, "ringside_waiting_calls"), Some(0));
        assert_eq!(told(callee, "ringside_calls_replayed_total"), Some(0), "none was refused");
    }
}

fn few_streams(caller: Kind, callee: Kind) {
    let mut world = World::with_sentry(&format!("few-{}-{}", caller.name(), callee.name()));
    world.reserve(&["server", "client"]);
    let app = ProbeApp::narrow(&world, STREAMS);
    let mut options = Options { app_port: Some(app.port), ..Options::default() };
    if callee == Kind::Ringside {
        // Each worker has connections of its own.
        options.args = vec!["--ringside-workers", "1"];
    }
    let far = Sidecar::start(&world, callee, "server", options);
    let near = Sidecar::caller(&world, caller, "client");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let crowd = async {
        timeout(4 * PATIENCE, run(&app, &near, &far, callee)).await.expect("the crowd is served");
    };
    runtime.expect("a runtime").block_on(crowd);
}

#[test]
fn ringside_to_ringside() {
    few_streams(Kind::Ringside, Kind::Ringside);
}

#[test]
fn daprd_to_ringside() {
    few_streams(Kind::Daprd, Kind::Ringside);
}

#[test]
fn ringside_to_daprd() {
    few_streams(Kind::Ringside, Kind::Daprd);
}
