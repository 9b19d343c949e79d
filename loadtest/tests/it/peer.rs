//! A gRPC server that a test tells what to answer, on a thread of its own.

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use loadtest::framing::frame;
use loadtest::plan::{End, Expect, Plan, Schedule, Shape};
use loadtest::serve::message::payload;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
use tokio::runtime::LocalOptions;
use tokio::sync::{Notify, oneshot};

/// What to do with one call.
pub enum Answer {
    /// The request's messages, after all of them.
    Echo,
    /// The whole server stands still, then it echoes.
    Stall(Duration),
    /// These octets of DATA and status OK.
    Octets(Bytes),
    /// Trailers-Only.
    Status(u16, &'static str),
    /// A message, then trailers with this status.
    LateStatus(u16),
    Http(u16),
    NoStatus,
    Reset(Reason),
    /// Nothing, ever.
    Silence,
    /// The TCP connection is cut.
    Cut,
    /// GOAWAY with this code.
    Goaway(Reason),
}

/// Ends with the value.
pub struct Peer {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    /// `behave` is told the number of the call, from 0, and the request's fields.
    pub fn start(behave: impl Fn(u64, &HeaderMap) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel();
        let thread = Builder::new().name("peer".to_owned()).spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build_local(LocalOptions::default());
            let runtime = runtime.expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, Rc::new(behave)) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, stop: Some(stop), thread: Some(thread.expect("a thread")) }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().expect("taken here only").join();
        assert!(ended.is_ok() || std::thread::panicking(), "the peer panicked");
    }
}

type Behave = Rc<dyn Fn(u64, &HeaderMap) -> Answer>;

async fn accept(listener: TcpListener, behave: Behave) {
    listener.set_nonblocking(true).expect("a socket");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
    let calls = Rc::new(std::cell::Cell::new(0));
    loop {
        let (stream, _) = listener.accept().await.expect("connections");
        let (calls, behave) = (calls.clone(), behave.clone());
        tokio::task::spawn_local(async move {
            stream.set_nodelay(true).expect("a socket");
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            let cut = Rc::new(Notify::new());
            loop {
                let accepted = tokio::select! {
                    biased;
                    () = cut.notified() => return,
                    accepted = connection.accept() => accepted,
                };
                let Some(Ok((request, respond))) = accepted else { return };
                let number = calls.replace(calls.get() + 1);
                let answer = behave(number, request.headers());
                match answer {
                    Answer::Goaway(code) => connection.abrupt_shutdown(code),
                    Answer::Cut => cut.notify_one(),
                    Answer::Stall(time) => {
                        // The server's fault itself, not a wait for something.
                        #[allow(clippy::disallowed_methods)]
                        std::thread::sleep(time);
                        tokio::task::spawn_local(call(Answer::Echo, request, respond));
                    }
                    answer => {
                        tokio::task::spawn_local(call(answer, request, respond));
                    }
                }
            }
        });
    }
}

async fn call(answer: Answer, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut body = request.into_body();
    let mut octets = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        octets.extend_from_slice(&data);
    }
    let (octets, status) = match answer {
        Answer::Echo => (octets.into(), Some(0)),
        Answer::Octets(octets) => (octets, Some(0)),
        Answer::LateStatus(code) => (frame(b"late"), Some(code)),
        Answer::NoStatus => (octets.into(), None),
        Answer::Status(code, message) => {
            let mut response = head();
            response.headers_mut().insert("grpc-status", HeaderValue::from(code));
            let message = HeaderValue::from_static(message);
            response.headers_mut().insert("grpc-message", message);
            let _ = respond.send_response(response, true);
            return;
        }
        Answer::Http(code) => {
            let response = Response::builder().status(code).body(()).expect("a status");
            let _ = respond.send_response(response, true);
            return;
        }
        Answer::Reset(code) => return respond.send_reset(code),
        Answer::Silence | Answer::Stall(_) | Answer::Cut | Answer::Goaway(_) => {
            // Held until the peer's runtime ends.
            return std::future::pending().await;
        }
    };
    // The client may be gone.
    let Ok(mut send) = respond.send_response(head(), false) else { return };
    let _ = send.send_data(octets, status.is_none());
    if let Some(code) = status {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(code));
        let _ = send.send_trailers(trailers);
    }
}

fn head() -> Response<()> {
    let head = Response::builder().header("content-type", "application/grpc");
    head.body(()).expect("a head")
}

/// The app under test on a thread that ends with the process.
pub fn app() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("bound");
    let serve = move || loadtest::serve::serve(listener).expect("goes on");
    Builder::new().name("app".to_owned()).spawn(serve).expect("a thread");
    address
}

/// One unary call of 100 octets on one stream, whose answer must be an echo.
pub fn plan(target: SocketAddr) -> Plan {
    Plan {
        target,
        authority: "localhost".to_owned(),
        path: loadtest::serve::UNARY.to_owned(),
        metadata: Vec::new(),
        unique: Vec::new(),
        shape: Shape::Unary,
        request: payload(100),
        expect: Expect::Echo,
        connections: 1,
        streams: 1,
        schedule: Schedule::Closed,
        warmup: Duration::ZERO,
        end: End::Calls(1),
        timeout: None,
    }
}

/// Of one error only.
pub fn only_error(outcome: &loadtest::outcome::Outcome) -> (&str, u64) {
    let mut errors = outcome.errors.iter();
    let (text, count) = errors.next().expect("an error");
    assert_eq!(errors.next(), None, "one cause, one text");
    (text, *count)
}
