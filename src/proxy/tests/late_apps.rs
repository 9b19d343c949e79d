//! An app on the `h2` crate, which counts resets of streams that it has not accepted yet.

use super::*;
use crate::http2::ErrorCode;
use h2::server::{Connection as Server, SendResponse};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

const WIRE_OCTETS: usize = 1 << 20;
const TO_SELF: [(&str, &str); 1] = [("dapr-callee-app-id", "client")];
/// More than twice what it bears unseen.
const CALLS: usize = 60;

fn idle() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// The proxy, a caller, and the app, which does nothing unless it is woken.
struct Late {
    bench: Bench,
    caller: ConnId,
    app: ConnId,
    wire: DuplexStream,
    server: Server<DuplexStream, Bytes>,
    accepted: Vec<SendResponse<Bytes>>,
}

impl Late {
    fn new() -> Self {
        let mut bench = Bench::new(config());
        let caller = bench.accept(Listener::Internal);
        bench.call(caller, &TO_SELF, Some(MESSAGE));
        let (app, ..) = *bench.dialed.last().expect("a dial");
        bench.handle(Input::Dialed { conn: app });
        let (mut wire, end) = duplex(WIRE_OCTETS);
        let server = {
            let mut shaken = pin!(h2::server::handshake(end));
            let mut turns = 0..10;
            loop {
                exchange(&mut bench, app, &mut wire);
                if let Poll::Ready(server) = shaken.as_mut().poll(&mut idle()) {
                    break server.expect("HTTP/2");
                }
                turns.next().expect("both shake hands");
            }
        };
        let mut late = Self { bench, caller, app, wire, server, accepted: Vec::new() };
        // The first call shows that all is well.
        late.wake().expect("a call");
        late.answer_last();
        late
    }

    fn exchange(&mut self) {
        exchange(&mut self.bench, self.app, &mut self.wire);
    }

    /// The app does all that it has to.
    fn wake(&mut self) -> Result<(), h2::Error> {
        for _ in 0..10 {
            self.exchange();
            while let Poll::Ready(call) = self.server.poll_accept(&mut idle()) {
                let (_, respond) = call.expect("the connection lives")?;
                self.accepted.push(respond);
            }
        }
        Ok(())
    }

    fn answer_last(&mut self) {
        let mut respond = self.accepted.pop().expect("a call");
        let head = http::Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "0");
        respond.send_response(head.body(()).expect("a head"), true).expect("an answer");
        let before = self.bench.count(self.caller, "grpc-status=0 END");
        self.wake().expect("the connection lives");
        assert_eq!(self.bench.count(self.caller, "grpc-status=0 END"), before + 1);
    }

    fn wait(&mut self, time: Duration) {
        const STEP: Duration = Duration::from_millis(5);
        for _ in 0..time.as_millis() / STEP.as_millis() {
            self.bench.wait(STEP);
            self.exchange();
        }
    }

    /// Calls that were sent on and are cancelled while nobody accepts them.
    fn storm(&mut self) {
        self.bench.calls(self.caller, &[], CALLS);
        self.exchange();
        let end = self.bench.ends.get_mut(&self.caller).expect("the caller");
        for n in 1..=CALLS as u32 {
            end.send_reset(StreamId(1 + 2 * n), ErrorCode::CANCEL);
        }
        self.bench.run();
        assert_eq!(self.bench.proxy.calls(), 0);
    }

    fn cancelled(&mut self) -> usize {
        let is_reset = |respond: &mut SendResponse<Bytes>| match respond.poll_reset(&mut idle()) {
            Poll::Ready(reason) => {
                assert_eq!(reason.expect("a reset"), h2::Reason::CANCEL);
                true
            }
            Poll::Pending => false,
        };
        self.accepted.iter_mut().filter_map(|respond| is_reset(respond).then_some(())).count()
    }
}

/// What either has said goes to the other.
fn exchange(bench: &mut Bench, app: ConnId, wire: &mut DuplexStream) {
    for _ in 0..10 {
        bench.run();
        let said = bench.raw.remove(&app).unwrap_or_default();
        if !said.is_empty() {
            let written = Pin::new(&mut *wire).poll_write(&mut idle(), &said);
            assert!(matches!(written, Poll::Ready(Ok(len)) if len == said.len()));
        }
        let mut room = [0; 4096];
        let mut read = ReadBuf::new(&mut room);
        let done = Pin::new(&mut *wire).poll_read(&mut idle(), &mut read);
        if done.is_pending() && said.is_empty() {
            return;
        }
        let bytes = Bytes::copy_from_slice(read.filled());
        if !bytes.is_empty() {
            bench.handle(Input::Received { conn: app, bytes });
        }
    }
}

/// Half a second in which nobody accepts, and sixty calls that are cancelled meanwhile: at the 21st
/// reset it would answer ENHANCE_YOUR_CALM and take all calls with it.
#[test]
fn an_app_that_is_late_to_accept_keeps_its_connection() {
    let mut late = Late::new();
    late.storm();
    late.wait(Duration::from_millis(500));
    late.wake().expect("no GOAWAY");
    assert_eq!(late.accepted.len(), CALLS);
    let unseen = late.cancelled();
    assert!((5..=20).contains(&unseen), "{unseen}: some are not held back");
    // The answer to a later call shows that all of them were accepted.
    late.bench.call(late.caller, &TO_SELF, Some(MESSAGE));
    late.wake().expect("no GOAWAY");
    late.answer_last();
    late.wait(Duration::from_millis(400));
    late.wake().expect("no GOAWAY");
    assert_eq!(late.cancelled(), CALLS);
    assert!(late.bench.closed.is_empty());
}

/// Who answers nothing hears of it all the same, two seconds later at most.
#[test]
fn an_app_that_answers_nothing_hears_of_each_cancelled_call() {
    let mut late = Late::new();
    late.storm();
    late.wake().expect("no GOAWAY");
    late.wait(Duration::from_millis(500));
    late.wake().expect("no GOAWAY");
    let early = late.cancelled();
    assert!(early < CALLS, "{early}");
    late.wait(Duration::from_millis(2000));
    late.wake().expect("no GOAWAY");
    assert_eq!(late.cancelled(), CALLS);
}
