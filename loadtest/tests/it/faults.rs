//! What goes wrong is counted, by cause, and never as a latency.

use super::peer::{Answer, Peer, app, only_error, plan};
use bytes::Bytes;
use h2::Reason;
use loadtest::framing::frame;
use loadtest::generate::{RunError, run_blocking};
use loadtest::outcome::Outcome;
use loadtest::plan::{End, Expect, Plan, Schedule, Segment, Shape};
use loadtest::serve::STREAM;
use loadtest::serve::message::{Counts, payload};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

/// Four calls, of which the third (number 2) is answered by `answer` and the rest echoed.
fn third(answer: fn() -> Answer) -> Outcome {
    let peer = Peer::start(move |number, _| if number == 2 { answer() } else { Answer::Echo });
    let plan = Plan { end: End::Calls(4), ..plan(peer.address) };
    run_blocking(&plan).expect("an outcome")
}

fn assert_error(outcome: &Outcome, text: &str, statuses: &[(u32, u64)]) {
    assert_eq!(only_error(outcome), (text, 1));
    assert_eq!((outcome.calls, outcome.latency.len()), (4, 3), "a failure has no latency");
    let found: Vec<_> = outcome.statuses.iter().map(|(code, count)| (*code, *count)).collect();
    assert_eq!(found, statuses);
}

#[test]
fn wrong_answers_are_errors() {
    let outcome = third(|| {
        let mut octets = vec![0; 105];
        octets[4] = 100;
        Answer::Octets(octets.into())
    });
    assert_error(&outcome, "received a message with other octets than expected", &[(0, 3)]);
    let outcome = third(|| Answer::Octets(frame(b"short")));
    assert_error(&outcome, "received a message of 5 octets in place of 100", &[(0, 3)]);
    let outcome = third(|| Answer::Octets(Bytes::new()));
    assert_error(&outcome, "the response has 0 messages in place of 1", &[(0, 4)]);
    let outcome = third(|| Answer::Octets(frame(&payload(100)).slice(..50)));
    assert_error(&outcome, "the response ends amid a message", &[(0, 4)]);
}

#[test]
fn statuses_are_counted_and_told() {
    let outcome = third(|| Answer::Status(14, "no%20app"));
    assert_error(&outcome, "status 14 UNAVAILABLE: no app", &[(0, 3), (14, 1)]);
    let outcome = third(|| Answer::Status(99, ""));
    assert_error(&outcome, "status 99 unknown to gRPC", &[(0, 3), (99, 1)]);
    let peer = Peer::start(|_, _| Answer::LateStatus(13));
    let plan = Plan { expect: Expect::Anything, ..plan(peer.address) };
    let outcome = run_blocking(&plan).expect("an outcome");
    assert_eq!(only_error(&outcome), ("status 13 INTERNAL", 1));
}

#[test]
fn what_is_no_grpc_is_an_error() {
    assert_error(&third(|| Answer::Http(502)), "HTTP status 502", &[(0, 3)]);
    let outcome = third(|| Answer::NoStatus);
    assert_error(&outcome, "the response ends without grpc-status", &[(0, 3)]);
}

#[test]
fn resets_and_goaways_are_told_by_name() {
    let outcome = third(|| Answer::Reset(Reason::REFUSED_STREAM));
    assert_error(&outcome, "stream reset by the peer: REFUSED_STREAM", &[(0, 3)]);
    let outcome = third(|| Answer::Goaway(Reason::ENHANCE_YOUR_CALM));
    let (text, _) = outcome.errors.first_key_value().expect("an error");
    assert_eq!(text, "connection ended by the peer's GOAWAY: ENHANCE_YOUR_CALM");
    assert!(outcome.errors.contains_key("no connection is left"), "{:?}", outcome.errors);
    assert_eq!(outcome.latency.len(), 2);
}

#[test]
fn a_lost_connection_is_an_error_and_the_others_go_on() {
    let peer = Peer::start(|number, _| if number == 10 { Answer::Cut } else { Answer::Echo });
    let plan = Plan { connections: 2, streams: 1, end: End::Calls(40), ..plan(peer.address) };
    let outcome = run_blocking(&plan).expect("an outcome");
    assert_eq!(outcome.calls, 40);
    // The call that was cut, and the one that found no connection.
    assert_eq!((outcome.failed(), outcome.latency.len()), (2, 38), "{:?}", outcome.errors);
}

#[test]
fn an_open_loop_without_connections_ends() {
    let peer = Peer::start(|_, _| Answer::Cut);
    let rate = Segment { from: 1000.0, to: 1000.0, length: Duration::ZERO };
    let plan = Plan {
        schedule: Schedule::Open(vec![rate]),
        end: End::Calls(1_000_000),
        ..plan(peer.address)
    };
    let outcome = run_blocking(&plan).expect("an outcome");
    assert!(outcome.errors.contains_key("no connection is left"), "{:?}", outcome.errors);
    assert!(outcome.calls < 1000 && outcome.latency.is_empty());
}

#[test]
fn a_deadline_ends_a_call() {
    let peer = Peer::start(|number, _| if number == 2 { Answer::Silence } else { Answer::Echo });
    let timeout = Some(Duration::from_millis(300));
    let plan = Plan { end: End::Calls(4), timeout, ..plan(peer.address) };
    let outcome = run_blocking(&plan).expect("an outcome");
    let text = "status 4 DEADLINE_EXCEEDED: no answer in time";
    assert_error(&outcome, text, &[(0, 3), (4, 1)]);
}

#[test]
fn too_few_messages_of_a_stream_are_an_error() {
    let outcome = run_blocking(&Plan {
        path: STREAM.to_owned(),
        shape: Shape::ServerStream,
        request: Counts { messages: 9, octets: 10 }.encode(),
        expect: Expect::Messages { count: 10, octets: 10 },
        ..plan(app())
    });
    let outcome = outcome.expect("an outcome");
    assert_eq!(only_error(&outcome), ("the response has 9 messages in place of 10", 1));
}

#[test]
fn the_app_refuses_what_it_does_not_have() {
    let target = app();
    let unknown = Plan { path: "/loadtest.Echo/Nothing".to_owned(), ..plan(target) };
    let outcome = run_blocking(&unknown).expect("an outcome");
    let text = "status 12 UNIMPLEMENTED: no method /loadtest.Echo/Nothing";
    assert_eq!(only_error(&outcome), (text, 1));
    let no_counts = Plan { path: STREAM.to_owned(), ..plan(target) };
    let outcome = run_blocking(&no_counts).expect("an outcome");
    let text = "status 3 INVALID_ARGUMENT: the request is no Counts that can be met";
    assert_eq!(only_error(&outcome), (text, 1));
}

#[test]
fn nobody_there_is_said_with_the_address() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let target = listener.local_addr().expect("bound");
    drop(listener);
    let error = run_blocking(&plan(target)).expect_err("nobody listens");
    assert!(matches!(error, RunError::Connect { .. }));
    assert!(error.to_string().starts_with(&format!("cannot connect to {target}: ")), "{error}");
}

#[test]
fn something_else_than_http2_is_said() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let target = listener.local_addr().expect("bound");
    let other = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the generator");
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        // Until it gives up; otherwise a reset may overtake the answer.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let error = run_blocking(&plan(target)).expect_err("no HTTP/2");
    let text = format!("{target} does not speak plaintext HTTP/2: ");
    assert!(error.to_string().starts_with(&text), "{error}");
    other.join().expect("the other ends");
}

#[test]
fn plans_that_cannot_be_are_refused() {
    let refused = |plan: Plan| run_blocking(&plan).expect_err("no plan").to_string();
    let good = plan(app());
    let none = refused(Plan { streams: 0, ..good.clone() });
    assert_eq!(none, "a run needs at least one connection and one stream");
    let path = refused(Plan { path: "a.B/C".to_owned(), ..good.clone() });
    assert_eq!(path, "the path \"a.B/C\" has no / in front");
    let rate = Segment { from: f64::NAN, to: 1.0, length: Duration::ZERO };
    let rate = refused(Plan { schedule: Schedule::Open(vec![rate]), ..good.clone() });
    assert_eq!(rate, "a rate must be a number of calls per second, not below 0");
    let nothing = refused(Plan { schedule: Schedule::Open(Vec::new()), ..good });
    assert_eq!(nothing, "an open schedule needs a segment whose rate is above 0");
}
