//! Every kind of call against the app under test: what is counted.

use super::peer::{Answer, Peer, app, plan};
use bytes::Bytes;
use loadtest::generate::{self, Mark, run_blocking};
use loadtest::outcome::Outcome;
use loadtest::plan::{End, Expect, Plan, Schedule, Segment, Shape};
use loadtest::serve::message::Counts;
use loadtest::serve::{COLLECT, PING_PONG, STREAM};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn run(plan: &Plan) -> Outcome {
    let outcome = run_blocking(plan).expect("an outcome");
    assert_eq!(outcome.errors, BTreeMap::new());
    assert_eq!(outcome.statuses, BTreeMap::from([(0, outcome.calls)]));
    outcome
}

#[test]
fn unary_calls_are_counted_once_each() {
    let plan = Plan { connections: 3, streams: 4, end: End::Calls(1001), ..plan(app()) };
    let outcome = run(&plan);
    assert_eq!((outcome.calls, outcome.messages), (1001, 1001));
    assert_eq!((outcome.latency.len(), outcome.service.len()), (1001, 1001));
    assert_eq!((outcome.request_octets, outcome.response_octets), (100_100, 100_100));
    assert!(outcome.lateness.is_empty(), "a closed loop is never late");
}

#[test]
fn messages_larger_than_windows_come_back_whole() {
    let request = loadtest::serve::message::payload(10 << 20);
    let outcome = run(&Plan { request, streams: 2, end: End::Calls(4), ..plan(app()) });
    assert_eq!(outcome.response_octets, 40 << 20);
}

#[test]
fn empty_messages_are_messages() {
    let outcome = run(&Plan { request: Bytes::new(), end: End::Calls(5), ..plan(app()) });
    assert_eq!((outcome.messages, outcome.response_octets), (5, 0));
}

#[test]
fn a_client_stream_arrives_whole() {
    let messages = 3000;
    let counts = Counts { messages, octets: 100 * messages };
    let outcome = run(&Plan {
        path: COLLECT.to_owned(),
        shape: Shape::ClientStream { messages },
        expect: Expect::Each(counts.encode()),
        streams: 2,
        end: End::Calls(4),
        ..plan(app())
    });
    assert_eq!((outcome.calls, outcome.messages, outcome.latency.len()), (4, 4, 4));
    assert_eq!(outcome.request_octets, 4 * 100 * messages);
}

#[test]
fn a_server_stream_is_counted_by_message() {
    let outcome = run(&Plan {
        path: STREAM.to_owned(),
        shape: Shape::ServerStream,
        request: Counts { messages: 10_000, octets: 100 }.encode(),
        expect: Expect::Messages { count: 10_000, octets: 100 },
        streams: 2,
        end: End::Calls(4),
        ..plan(app())
    });
    assert_eq!((outcome.calls, outcome.messages), (4, 40_000));
    assert_eq!(outcome.response_octets, 4_000_000);
}

#[test]
fn round_trips_of_ping_pong_have_latencies() {
    let outcome = run(&Plan {
        path: PING_PONG.to_owned(),
        shape: Shape::PingPong { round_trips: 50 },
        streams: 2,
        end: End::Calls(6),
        ..plan(app())
    });
    assert_eq!((outcome.calls, outcome.messages, outcome.latency.len()), (6, 300, 300));
    assert_eq!((outcome.request_octets, outcome.response_octets), (30_000, 30_000));
}

#[test]
fn a_long_ping_pong_ends_with_the_run() {
    let outcome = run(&Plan {
        path: PING_PONG.to_owned(),
        shape: Shape::PingPong { round_trips: u64::MAX },
        end: End::After(Duration::from_millis(50)),
        ..plan(app())
    });
    assert_eq!(outcome.calls, 1);
    assert!(outcome.messages > 0 && outcome.messages == outcome.latency.len());
    assert!(outcome.elapsed >= Duration::from_millis(50));
}

#[test]
fn marks_frame_exactly_the_calls_that_count() {
    for schedule in [
        Schedule::Closed,
        Schedule::Open(vec![Segment { from: 2000.0, to: 2000.0, length: Duration::ZERO }]),
    ] {
        let seen = Arc::new(AtomicU64::new(0));
        let counter = seen.clone();
        let peer = Peer::start(move |_, _| {
            counter.fetch_add(1, Ordering::SeqCst);
            Answer::Echo
        });
        let plan = Plan {
            connections: 2,
            streams: 3,
            schedule,
            warmup: Duration::from_millis(40),
            end: End::Calls(200),
            ..plan(peer.address)
        };
        let mut marks = Vec::new();
        let mut mark = |mark: Mark| marks.push((mark, seen.load(Ordering::SeqCst)));
        let outcome = generate::run_blocking_marked(&plan, &mut mark).expect("an outcome");
        let [(Mark::Begin, before), (Mark::End, after)] = marks[..] else { panic!("{marks:?}") };
        assert!(before > 0, "there was a warm-up");
        assert_eq!((after - before, outcome.calls), (200, 200));
    }
}

#[test]
fn metadata_and_deadline_are_sent() {
    let peer = Peer::start(|_, fields| {
        let of = |name| fields.get(name).map_or(&b""[..], |value| value.as_bytes());
        assert_eq!(of("dapr-app-id"), b"server");
        assert_eq!(of("token-bin"), b"//79AQ");
        assert_eq!(of("grpc-timeout"), b"20000000u");
        assert_eq!((of("te"), of("content-type")), (&b"trailers"[..], &b"application/grpc"[..]));
        Answer::Echo
    });
    run(&Plan {
        metadata: vec![
            ("dapr-app-id".to_owned(), b"server".to_vec()),
            ("token-bin".to_owned(), vec![0xff, 0xfe, 0xfd, 0x01]),
        ],
        timeout: Some(Duration::from_secs(20)),
        ..plan(peer.address)
    });
}
