//! When calls begin, and from when their latency counts.

use super::peer::{Answer, Peer, plan};
use loadtest::generate::run_blocking;
use loadtest::outcome::Outcome;
use loadtest::plan::{End, Plan, Schedule, Segment};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const STALL: Duration = Duration::from_millis(200);

fn constant(rate: f64) -> Schedule {
    Schedule::Open(vec![Segment { from: rate, to: rate, length: Duration::ZERO }])
}

/// 1000 calls, of which one meets a server that stands still for 200 ms.
fn with_a_stall(schedule: Schedule) -> Outcome {
    let stall = |number, _: &_| if number == 300 { Answer::Stall(STALL) } else { Answer::Echo };
    let peer = Peer::start(stall);
    let plan = Plan { schedule, end: End::Calls(1000), ..plan(peer.address) };
    let outcome = run_blocking(&plan).expect("an outcome");
    assert_eq!((outcome.calls, outcome.failed()), (1000, 0));
    assert!(outcome.latency.max() >= STALL.as_nanos() as u64, "one call saw the stall");
    outcome
}

#[test]
fn an_open_loop_does_not_omit_what_a_stall_delays() {
    // At 1000 calls/s some 200 of 1000 are due while it lasts.
    let outcome = with_a_stall(constant(1000.0));
    let p99 = Duration::from_nanos(outcome.latency.value_at_quantile(0.99));
    assert!(p99 >= STALL * 3 / 4, "p99 is {p99:?}");
    // From when they were sent one call alone was slow: the view that omits.
    let p98 = |latencies: &loadtest::outcome::Latencies| latencies.value_at_quantile(0.98);
    assert!(p98(&outcome.service) < p98(&outcome.latency) / 2);
}

#[test]
fn a_closed_loop_hides_a_stall() {
    let outcome = with_a_stall(Schedule::Closed);
    let p99 = Duration::from_nanos(outcome.latency.value_at_quantile(0.99));
    assert!(p99 < STALL / 2, "p99 is {p99:?}: one slow call in a thousand is no percentile");
}

#[test]
fn every_call_that_is_due_is_sent() {
    let peer = Peer::start(|_, _| Answer::Echo);
    let length = Duration::from_millis(200);
    let step = |rate| Segment { from: rate, to: rate, length };
    let steps = vec![step(100.0), step(20_000.0), Segment { from: 0.0, to: 1000.0, length }];
    let plan = Plan {
        connections: 2,
        streams: 10,
        schedule: Schedule::Open(steps),
        end: End::After(length * 3),
        ..plan(peer.address)
    };
    let outcome = run_blocking(&plan).expect("an outcome");
    // The integral of the rate: 20 + 4000 + 100. Gaps of 50 us are far below a timer's tick.
    assert_eq!((outcome.calls, outcome.failed()), (4120, 0));
    assert_eq!(outcome.latency.len(), 4120);
    assert!(outcome.elapsed >= length * 3);
    assert!(!outcome.lateness.is_empty());
}

#[test]
fn calls_arrive_at_the_rate() {
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let noted = arrivals.clone();
    let peer = Peer::start(move |_, _| {
        noted.lock().expect("no panic").push(Instant::now());
        Answer::Echo
    });
    let plan = Plan {
        streams: 50,
        schedule: constant(500.0),
        end: End::After(Duration::from_millis(600)),
        ..plan(peer.address)
    };
    let outcome = run_blocking(&plan).expect("an outcome");
    let arrivals = arrivals.lock().expect("no panic");
    assert_eq!((outcome.calls, arrivals.len()), (300, 300));
    assert!(outcome.elapsed >= Duration::from_millis(600));
    // No call is early: with the first one on time, the n-th has n periods at the least. Only the
    // first one's own lateness can shorten that.
    let late = Duration::from_nanos(outcome.latency.max());
    for (number, arrival) in arrivals.iter().enumerate() {
        let expected = Duration::from_millis(2) * number as u32;
        let found = arrival.duration_since(arrivals[0]);
        assert!(found + late >= expected, "call {number} after {found:?}");
        assert!(found <= expected + late, "call {number} after {found:?}");
    }
}
