//! Many calls at once, and a reader that does not read: no cross-talk, no loss, bounded memory.

use crate::peer::ports::claim;
use crate::peer::process::{PATIENCE, QUARANTINE_KIB};
use crate::peer::sidecar::loopback;
use crate::peer::{Kind, Sidecar, World};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

const MIB: usize = 1 << 20;

/// What the app takes of a stream that it does not read.
const STREAM_WINDOW: u32 = 256 * 1024;

/// What RSS may differ by when a load is repeated: the allocator's slack, not a leak of the load.
const FLAT_KIB: usize = 12 * 1024 + QUARANTINE_KIB;

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .expect("a runtime")
        .block_on(async { timeout(4 * PATIENCE, future).await.expect("the load ends in time") })
}

/// A gRPC message of `size` octets which nobody else's equals.
fn message(tag: u64, size: usize) -> Bytes {
    let mut message = BytesMut::with_capacity(5 + size);
    message.put_u8(0);
    message.put_u32(u32::try_from(size).expect("a small message"));
    message.put_u64(tag);
    message.resize(5 + size, tag.to_le_bytes()[0]);
    message.freeze()
}

/// The app. Unary answers wait until `together` calls are here; `/load/Stalled` reads nothing
/// until `go` has a permit.
struct App {
    together: Barrier,
    go: Semaphore,
    peak: AtomicUsize,
}

impl App {
    fn start(together: usize) -> (Arc<Self>, u16) {
        let app = Arc::new(Self {
            together: Barrier::new(together),
            go: Semaphore::new(0),
            peak: AtomicUsize::new(0),
        });
        let port = claim();
        let (serving, listener) = (app.clone(), std::net::TcpListener::bind(loopback(port)));
        let listener = listener.expect("the app's port");
        listener.set_nonblocking(true).expect("a non-blocking listener");
        let listener = TcpListener::from_std(listener).expect("the app's port");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().connection(stream));
            }
        });
        (app, port)
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        // One stream that is not read must not use up the connection's window.
        let mut server = h2::server::Builder::new();
        server
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(64 * STREAM_WINDOW);
        let Ok(mut connection) = server.handshake(stream).await else { return };
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let app = self.clone();
            tokio::spawn(async move {
                let path = request.uri().path().to_owned();
                let head = Response::builder().header("content-type", "application/grpc").body(());
                let head = head.expect("a response head");
                let Ok(out) = respond.send_response(head, false) else { return };
                let body = request.into_body();
                let served = match path.as_str() {
                    "/load/Unary" => app.unary(body, out).await,
                    "/load/Bidi" => app.echo(body, out).await,
                    "/load/Stalled" => app.stall(body, out).await,
                    other => panic!("the app knows no {other}"),
                };
                // A caller that went away is the caller's test to judge.
                let _ = served;
            });
        }
    }

    async fn unary(&self, body: RecvStream, mut out: SendStream<Bytes>) -> Result<(), h2::Error> {
        let body = whole(body).await?.0;
        self.peak.fetch_add(1, Ordering::Relaxed);
        self.together.wait().await;
        out.send_data(body, false)?;
        out.send_trailers(trailers())
    }

    async fn echo(
        &self,
        mut body: RecvStream,
        mut out: SendStream<Bytes>,
    ) -> Result<(), h2::Error> {
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            send(&mut out, data).await?;
        }
        out.send_trailers(trailers())
    }

    async fn stall(&self, body: RecvStream, mut out: SendStream<Bytes>) -> Result<(), h2::Error> {
        let _permit = self.go.acquire().await.expect("an open semaphore");
        let count = drain(body).await?;
        out.send_data(message(count as u64, 8), false)?;
        out.send_trailers(trailers())
    }
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))])
}

/// Sends as the window allows, piece by piece.
async fn send(out: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        out.reserve_capacity(data.len());
        let room = poll_fn(|cx| out.poll_capacity(cx)).await;
        let room = room.ok_or(h2::Reason::CANCEL)??;
        out.send_data(data.split_to(room.min(data.len())), false)?;
    }
    Ok(())
}

async fn whole(mut body: RecvStream) -> Result<(Bytes, HeaderMap), h2::Error> {
    let mut all = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok((all.freeze(), body.trailers().await?.unwrap_or_default()))
}

async fn drain(mut body: RecvStream) -> Result<usize, h2::Error> {
    let mut count = 0;
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        count += data.len();
    }
    Ok(count)
}

/// Two ringsides with identities, between the caller and the app of this file.
struct Chain {
    _world: World,
    caller: Sidecar,
    callee: Sidecar,
}

impl Chain {
    fn start(name: &str, app_port: u16) -> Self {
        let mut world = World::with_sentry(&format!("load-{name}"));
        world.reserve(&["server", "client"]);
        let callee = Sidecar::callee(&world, Kind::Ringside, "server", app_port);
        let caller = Sidecar::caller(&world, Kind::Ringside, "client");
        Self { _world: world, caller, callee }
    }

    async fn connect(&self) -> SendRequest<Bytes> {
        let stream = TcpStream::connect(loopback(self.caller.ports.grpc)).await.expect("connects");
        stream.set_nodelay(true).expect("no delay");
        let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        client
    }

    fn rss_kib(&self) -> [usize; 2] {
        [self.caller.process.rss_kib(), self.callee.process.rss_kib()]
    }
}

type Open = (h2::client::ResponseFuture, SendStream<Bytes>);

async fn open(client: &SendRequest<Bytes>, method: &str) -> Result<Open, h2::Error> {
    let request = Request::post(format!("http://server/load/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("dapr-app-id", "server")
        .body(());
    client.clone().ready().await?.send_request(request.expect("a request"), false)
}

/// After three rounds of the same load.
fn assert_flat(after: &[[usize; 2]]) {
    for (side, first) in after[0].iter().enumerate() {
        let last = after[2][side];
        assert!(last < first + FLAT_KIB, "RSS of side {side} grows: {after:?} KiB");
    }
}

fn assert_ok(trailers: &HeaderMap) {
    assert_eq!(trailers.get("grpc-status").map(HeaderValue::as_bytes), Some(b"0".as_slice()));
}

/// One unary call, whose answer must be its own.
async fn unary(client: SendRequest<Bytes>, tag: u64) {
    let sent = message(tag, 100);
    let (response, mut out) = open(&client, "Unary").await.expect("a stream");
    out.send_data(sent.clone(), true).expect("a request");
    let response = response.await.expect("a response");
    let (got, trailers) = whole(response.into_body()).await.expect("a whole response");
    assert_eq!(got, sent, "call {tag} got another's answer");
    assert_ok(&trailers);
}

#[test]
fn ten_thousand_unary_calls_at_once() {
    const CONNECTIONS: u64 = 100;
    const EACH: u64 = 100;
    run(async {
        let all = (CONNECTIONS * EACH) as usize;
        let (app, port) = App::start(all);
        let chain = Chain::start("unary", port);
        let mut after = Vec::new();
        for round in 0..3 {
            let mut calls = JoinSet::new();
            for connection in 0..CONNECTIONS {
                let client = chain.connect().await;
                for call in 0..EACH {
                    let tag = (round << 32) | (connection * EACH + call);
                    calls.spawn(unary(client.clone(), tag));
                }
            }
            let done = calls.join_all().await.len();
            assert_eq!(done, all);
            // The app answered nobody before all were there.
            assert_eq!(app.peak.swap(0, Ordering::Relaxed), all);
            after.push(chain.rss_kib());
        }
        assert_flat(&after);
    });
}

#[test]
fn a_thousand_streams_at_once() {
    const CONNECTIONS: u64 = 10;
    const EACH: u64 = 100;
    const MESSAGES: u64 = 20;
    async fn stream(client: SendRequest<Bytes>, tag: u64, ready: Arc<Barrier>) {
        let piece = |n| message((tag << 16) | n, 16 + (tag as usize * 7 + n as usize) % 900);
        let (response, mut out) = open(&client, "Bidi").await.expect("a stream");
        send(&mut out, piece(0)).await.expect("a message goes");
        let mut body = response.await.expect("response headers").into_body();
        // Every stream is open before any goes on.
        ready.wait().await;
        for n in 0..MESSAGES {
            let sent = piece(n);
            if n > 0 {
                send(&mut out, sent.clone()).await.expect("a message goes");
            }
            let mut got = BytesMut::new();
            while got.len() < sent.len() {
                let data = body.data().await.expect("more data").expect("data");
                body.flow_control().release_capacity(data.len()).expect("window");
                got.extend_from_slice(&data);
            }
            assert_eq!(got, sent, "stream {tag} got another's message");
        }
        out.send_data(Bytes::new(), true).expect("the end goes");
        let (rest, trailers) = whole(body).await.expect("the end comes");
        assert!(rest.is_empty());
        assert_ok(&trailers);
    }
    run(async {
        let (_app, port) = App::start(1);
        let chain = Chain::start("bidi", port);
        let mut after = Vec::new();
        for _ in 0..3 {
            let ready = Arc::new(Barrier::new((CONNECTIONS * EACH) as usize));
            let mut streams = JoinSet::new();
            for connection in 0..CONNECTIONS {
                let client = chain.connect().await;
                for n in 0..EACH {
                    streams.spawn(stream(client.clone(), connection * EACH + n, ready.clone()));
                }
            }
            assert_eq!(streams.join_all().await.len(), (CONNECTIONS * EACH) as usize);
            after.push(chain.rss_kib());
        }
        assert_flat(&after);
    });
}

/// A caller that opens calls only to reset them (CVE-2023-44487), and one that vanishes with all
/// its calls open: the others on the same upstream connection are served all the time.
#[test]
fn resetting_callers_hurt_themselves_only() {
    const RESETS: u64 = 20_000;
    const VANISHING: usize = 100;
    run(async {
        let (app, port) = App::start(1);
        let chain = Chain::start("resets", port);
        let honest = chain.connect().await;
        for tag in 0..100 {
            unary(honest.clone(), tag).await;
        }
        let before = chain.rss_kib();
        let attacker = chain.connect().await;
        let attack = tokio::spawn(async move {
            for opened in 0..RESETS {
                let Ok((_response, mut out)) = open(&attacker, "Bidi").await else {
                    return opened;
                };
                out.send_reset(h2::Reason::CANCEL);
            }
            RESETS
        });
        let mut served = 0;
        while !attack.is_finished() || served < 500 {
            unary(honest.clone(), served).await;
            served += 1;
        }
        let opened = attack.await.expect("the attack ends");
        for _ in 0..20 {
            let caller = chain.connect().await;
            let mut open_calls = Vec::new();
            for _ in 0..VANISHING {
                open_calls.push(open(&caller, "Bidi").await.expect("a stream"));
            }
            drop((caller, open_calls));
            unary(honest.clone(), served).await;
            served += 1;
        }
        for tag in 0..100 {
            unary(honest.clone(), tag).await;
        }
        let after = chain.rss_kib();
        for (side, rss) in after.iter().enumerate() {
            let grown = rss.saturating_sub(before[side]);
            assert!(grown < FLAT_KIB, "after {opened} resets: {before:?} {after:?} KiB");
        }
        drop(app);
    });
}

/// 1 GiB towards an app that does not read: the sender is stopped by the windows, others are not,
/// and nothing is lost once the app reads.
#[test]
fn a_stalled_reader_stops_its_sender_only() {
    const TOTAL: usize = 1024 * MIB;
    const PIECE: usize = 64 * 1024;
    /// What may be under way: three connections' windows and socket buffers.
    const UNDER_WAY: usize = 32 * MIB;
    const HELD_KIB: usize = UNDER_WAY / 1024 + QUARANTINE_KIB;
    run(async {
        let (app, port) = App::start(1);
        let chain = Chain::start("stalled", port);
        let before = chain.rss_kib();
        let client = chain.connect().await;
        let (response, mut out) = open(&client, "Stalled").await.expect("a stream");
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = sent.clone();
        let sender = tokio::spawn(async move {
            let piece = message(7, PIECE - 5);
            for _ in 0..TOTAL / PIECE {
                send(&mut out, piece.clone()).await.expect("a piece goes");
                counter.fetch_add(PIECE, Ordering::Relaxed);
            }
            out.send_data(Bytes::new(), true).expect("the end goes");
        });
        // Calls on the same and on another connection still pass while the stream stands still.
        let other = chain.connect().await;
        let mut last = usize::MAX;
        for round in 0.. {
            for client in [&client, &other] {
                unary(client.clone(), round).await;
            }
            let now = sent.load(Ordering::Relaxed);
            if now == last && round > 50 {
                break;
            }
            last = now;
        }
        assert!(last < UNDER_WAY, "{} MiB went to a reader that does not read", last / MIB);
        let stalled = chain.rss_kib();
        for (side, rss) in stalled.iter().enumerate() {
            assert!(rss - before[side].min(*rss) < HELD_KIB, "{before:?} {stalled:?} KiB");
        }
        app.go.add_permits(1);
        sender.await.expect("the sender ends");
        let (got, trailers) =
            whole(response.await.expect("headers").into_body()).await.expect("ok");
        assert_eq!(got, message(TOTAL as u64, 8), "octets were lost");
        assert_ok(&trailers);
        let after = chain.rss_kib();
        for (side, rss) in after.iter().enumerate() {
            assert!(rss - before[side].min(*rss) < HELD_KIB, "{before:?} {after:?} KiB");
        }
    });
}
