//! Calls that carry a number: an app on the `h2` crate that remembers which ones reached it, and
//! callers who judge what came back. What the app has seen was accepted.

use super::ports::claim;
use super::process::PATIENCE;
use super::sidecar::loopback;
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use std::collections::HashSet;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Of a request: its number, and how long the app is to think about it.
const TAG: &str = "x-tag";
const PAUSE: &str = "x-pause-ms";
/// After so many messages the app resets the stream.
const RESET_AFTER: &str = "x-reset-after";

pub fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime")
}

/// gRPC message number `n` of a call, of `size` octets: nobody else's equals it.
pub fn message(tag: u64, n: u64, size: usize) -> Bytes {
    let mut message = BytesMut::with_capacity(5 + size);
    message.put_u8(0);
    message.put_u32(u32::try_from(size).expect("a small message"));
    message.put_u64(tag);
    message.resize(5 + size, filler(tag, n));
    message.freeze()
}

fn filler(tag: u64, n: u64) -> u8 {
    (tag ^ (tag >> 8) ^ n).to_le_bytes()[0]
}

/// Reads one direction of a call, however it is cut, and finds every octet that is not its own.
#[derive(Debug)]
pub struct Checker {
    tag: u64,
    /// Whole messages so far.
    pub messages: u64,
    /// The prefix and the number, as far as they are here.
    head: Vec<u8>,
    left: usize,
}

const HEAD: usize = 13;

impl Checker {
    pub fn new(tag: u64) -> Self {
        Self { tag, messages: 0, head: Vec::with_capacity(HEAD), left: 0 }
    }

    pub fn feed(&mut self, mut data: &[u8]) -> Result<(), String> {
        while !data.is_empty() {
            if self.head.len() < HEAD {
                let (part, rest) = data.split_at(data.len().min(HEAD - self.head.len()));
                self.head.extend_from_slice(part);
                data = rest;
                if self.head.len() == HEAD {
                    let len = u32::from_be_bytes(self.head[1..5].try_into().expect("four octets"));
                    let tag = u64::from_be_bytes(self.head[5..].try_into().expect("eight octets"));
                    if (self.head[0], tag) != (0, self.tag) || len < 8 {
                        return Err(format!("call {} has {:?}", self.tag, self.head));
                    }
                    self.left = len as usize - 8;
                }
            } else {
                let (part, rest) = data.split_at(data.len().min(self.left));
                let own = filler(self.tag, self.messages);
                if part.iter().any(|octet| *octet != own) {
                    return Err(format!("call {}, message {}", self.tag, self.messages));
                }
                self.left -= part.len();
                data = rest;
            }
            if self.head.len() == HEAD && self.left == 0 {
                self.messages += 1;
                self.head.clear();
            }
        }
        Ok(())
    }

    /// Nothing is left of a message that began.
    pub fn is_between(&self) -> bool {
        self.head.is_empty()
    }
}

/// What the app knows, over all its lives.
#[derive(Debug, Default)]
pub struct Book {
    seen: Mutex<HashSet<u64>>,
    /// Connections made to it.
    pub connections: AtomicUsize,
    /// How long it thinks about every call, whatever the caller asks.
    pub slow_ms: AtomicU64,
    /// How connections ended that did not end well.
    broken: Mutex<Vec<String>>,
}

impl Book {
    pub fn has_seen(&self, tag: u64) -> bool {
        self.seen.lock().expect("a whole book").contains(&tag)
    }

    pub fn count(&self) -> usize {
        self.seen.lock().expect("a whole book").len()
    }

    fn note(&self, what: String) {
        self.broken.lock().expect("a whole book").push(what);
    }

    pub fn broken(&self) -> Vec<String> {
        self.broken.lock().expect("a whole book").clone()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    No,
    /// No new connections, GOAWAY, and the end when every call is answered.
    Gracefully,
    AtOnce,
}

/// Echoes what it gets, and answers `grpc-status: 0`.
#[derive(Debug)]
pub struct App {
    pub port: u16,
    pub book: Arc<Book>,
    stop: watch::Sender<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl App {
    pub fn start() -> Self {
        Self::start_at(claim(), Arc::default())
    }

    fn start_at(port: u16, book: Arc<Book>) -> Self {
        let listener = std::net::TcpListener::bind(loopback(port)).expect("the app's port");
        listener.set_nonblocking(true).expect("a non-blocking listener");
        let (stop, stopped) = watch::channel(Stop::No);
        let theirs = Arc::clone(&book);
        let thread =
            std::thread::spawn(move || runtime().block_on(serve(listener, theirs, stopped)));
        Self { port, book, stop, thread: Some(thread) }
    }

    /// As a gRPC server's graceful stop; until then every call is answered.
    pub fn stop(&mut self) {
        let _ = self.stop.send(Stop::Gracefully);
        self.thread.take().map(JoinHandle::join).transpose().expect("an app that ends well");
    }

    /// Again on its port.
    pub fn begin_again(&mut self) {
        *self = Self::start_at(self.port, Arc::clone(&self.book));
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.stop.send(Stop::AtOnce);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<Stop>) {
    let _ = stop.wait_for(|stop| *stop != Stop::No).await;
}

async fn serve(listener: std::net::TcpListener, book: Arc<Book>, mut stop: watch::Receiver<Stop>) {
    let listener = TcpListener::from_std(listener).expect("the app's port");
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    book.connections.fetch_add(1, Ordering::Relaxed);
                    connections.spawn(connection(stream, Arc::clone(&book), stop.clone()));
                }
            }
            () = stopped(&mut stop) => break,
        }
    }
    drop(listener);
    if *stop.borrow() == Stop::Gracefully {
        while connections.join_next().await.is_some() {}
    }
}

async fn connection(stream: TcpStream, book: Arc<Book>, mut stop: watch::Receiver<Stop>) {
    let _ = stream.set_nodelay(true);
    let mut server = h2::server::Builder::new();
    server.initial_window_size(1 << 18).initial_connection_window_size(1 << 24);
    let Ok(mut connection) = server.handshake(stream).await else { return };
    let mut stopping = false;
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let book = Arc::clone(&book);
                    tokio::spawn(async move {
                        // A caller that went away is the caller's test to judge.
                        let _ = answer(request, respond, &book).await;
                    });
                }
                Some(Err(error)) => {
                    book.note(error.to_string());
                    return;
                }
                None => return,
            },
            () = stopped(&mut stop), if !stopping => {
                stopping = true;
                connection.graceful_shutdown();
            }
        }
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    book: &Book,
) -> Result<(), h2::Error> {
    let tag = number(request.headers(), TAG).expect("every call carries its number");
    let fresh = book.seen.lock().expect("a whole book").insert(tag);
    if !fresh {
        book.note(format!("call {tag} reaches the app twice"));
    }
    let head = Response::builder().header("content-type", "application/grpc").body(());
    let mut out = respond.send_response(head.expect("a response head"), false)?;
    let slow = book.slow_ms.load(Ordering::Relaxed);
    let pause = number(request.headers(), PAUSE).unwrap_or(0).max(slow);
    if pause > 0 {
        sleep(Duration::from_millis(pause)).await;
    }
    let reset_after = number(request.headers(), RESET_AFTER);
    let mut checker = Checker::new(tag);
    let mut body = request.into_body();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        if let Err(what) = checker.feed(&data) {
            book.note(what);
        }
        send(&mut out, data).await?;
        if reset_after.is_some_and(|after| checker.messages >= after) {
            out.send_reset(h2::Reason::INTERNAL_ERROR);
            return Ok(());
        }
    }
    if !checker.is_between() {
        book.note(format!("call {tag} is cut short"));
    }
    let status = ("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"));
    out.send_trailers(HeaderMap::from_iter([status]))
}

/// Sends as the window allows, piece by piece.
pub async fn send(out: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        out.reserve_capacity(data.len());
        let room = poll_fn(|cx| out.poll_capacity(cx)).await;
        let room = room.ok_or(h2::Reason::CANCEL)??;
        out.send_data(data.split_to(room.min(data.len())), false)?;
    }
    Ok(())
}

/// How a call ended for its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// As it should: all octets are its own.
    Ok,
    Status(u64, String),
    /// Of a stream or of the connection, by HTTP/2's word.
    Lost(String),
}

pub async fn connect(port: u16) -> std::io::Result<SendRequest<Bytes>> {
    let (client, connection) = handshake(TcpStream::connect(loopback(port)).await?).await?;
    tokio::spawn(connection);
    Ok(client)
}

pub async fn handshake(
    stream: TcpStream,
) -> std::io::Result<(SendRequest<Bytes>, h2::client::Connection<TcpStream>)> {
    stream.set_nodelay(true)?;
    let mut client = h2::client::Builder::new();
    client.initial_window_size(1 << 18).initial_connection_window_size(1 << 24);
    client.handshake(stream).await.map_err(|error| std::io::Error::other(error.to_string()))
}

/// What a call asks of the sidecars and of the app.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    pub pause_ms: u64,
    pub deadline_ms: Option<u64>,
    pub reset_after: Option<u64>,
}

/// Opens call `tag` to `app_id`.
pub async fn open(
    client: &SendRequest<Bytes>,
    app_id: &str,
    tag: u64,
    wish: Wish,
) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>), h2::Error> {
    let mut request = Request::post("http://server/tagged/Echo")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("dapr-app-id", app_id)
        .header(TAG, tag)
        .header(PAUSE, wish.pause_ms);
    if let Some(deadline) = wish.deadline_ms {
        request = request.header("grpc-timeout", format!("{deadline}m"));
    }
    if let Some(after) = wish.reset_after {
        request = request.header(RESET_AFTER, after);
    }
    let request = request.body(()).expect("a request");
    client.clone().ready().await?.send_request(request, false)
}

pub fn status(headers: &HeaderMap) -> Option<End> {
    let status = number(headers, "grpc-status")?;
    let message = headers.get("grpc-message").map(HeaderValue::as_bytes).unwrap_or_default();
    let message = String::from_utf8_lossy(message).into_owned();
    Some(if status == 0 { End::Ok } else { End::Status(status, message) })
}

/// The rest of a response, which must begin with `sent`; what follows is the status.
pub async fn rest(mut body: RecvStream, sent: &[u8]) -> Result<End, h2::Error> {
    let mut got = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        got.extend_from_slice(&data);
        assert!(sent.starts_with(&got), "octets of somebody else");
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    let end = status(&trailers).unwrap_or_else(|| panic!("no status in {trailers:?}"));
    assert!(end != End::Ok || got == sent, "octets are missing");
    Ok(end)
}

/// One message there and back.
pub async fn unary(client: &SendRequest<Bytes>, app_id: &str, tag: u64, pause_ms: u64) -> End {
    let size = 16 + (tag % 2000) as usize;
    let called = async {
        let sent = message(tag, 0, size);
        let (response, mut out) =
            open(client, app_id, tag, Wish { pause_ms, ..Wish::default() }).await?;
        send(&mut out, sent.clone()).await?;
        out.send_data(Bytes::new(), true)?;
        let (head, body) = response.await?.into_parts();
        assert_eq!(head.status.as_u16(), 200);
        match status(&head.headers) {
            Some(end) => Ok(end),
            None => rest(body, &sent).await,
        }
    };
    match timeout(PATIENCE, called).await {
        Ok(Ok(end)) => end,
        Ok(Err(error)) => End::Lost(h2_text(&error)),
        Err(_) => panic!("call {tag} hangs"),
    }
}

pub fn h2_text(error: &h2::Error) -> String {
    let remote = if error.is_remote() { " by the sidecar" } else { "" };
    format!("{error}{remote}")
}

/// What became of one call.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub tag: u64,
    pub end: End,
    pub begun: Instant,
    pub took: Duration,
}

/// A constant load: callers that call, each on a connection of its own, one call after the other,
/// whatever becomes of them.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    thread: Option<JoinHandle<Vec<Outcome>>>,
}

/// Between two calls of a caller, and before a refused connection is tried again.
const PACE: Duration = Duration::from_millis(4);

impl Load {
    /// The first one begins with number `from`; at most `callers` << 32 of them.
    pub fn start(port: u16, app_id: &'static str, callers: u64, from: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let made = Arc::new(AtomicU64::new(0));
        let (theirs, counted) = (Arc::clone(&stop), Arc::clone(&made));
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let mut all = JoinSet::new();
                for caller in from..from + callers {
                    let (stop, made) = (Arc::clone(&theirs), Arc::clone(&counted));
                    all.spawn(call_on(port, app_id, caller << 32, stop, made));
                }
                all.join_all().await.concat()
            })
        });
        Self { stop, made, thread: Some(thread) }
    }

    /// Waits until so many calls more have ended.
    pub fn wait_for(&self, calls: u64) {
        let goal = self.made.load(Ordering::Relaxed) + calls;
        let end = Instant::now() + PATIENCE;
        while self.made.load(Ordering::Relaxed) < goal {
            assert!(Instant::now() < end, "the load stands still");
            std::thread::sleep(PACE);
        }
    }

    pub fn stop(mut self) -> Vec<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("a load is stopped once");
        thread.join().expect("no caller is disappointed")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn call_on(
    port: u16,
    app_id: &str,
    first: u64,
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut tag = first;
    while !stop.load(Ordering::Relaxed) {
        let Ok(client) = connect(port).await else {
            sleep(PACE).await;
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            tag += 1;
            let begun = Instant::now();
            // One in four is with the app for a while.
            let pause = if tag.is_multiple_of(4) { tag % 60 } else { 0 };
            let end = unary(&client, app_id, tag, pause).await;
            let lost = matches!(end, End::Lost(_));
            outcomes.push(Outcome { tag, end, begun, took: begun.elapsed() });
            made.fetch_add(1, Ordering::Relaxed);
            sleep(PACE).await;
            if lost {
                break;
            }
        }
    }
    outcomes
}
