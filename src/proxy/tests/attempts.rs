//! Attempts that go wrong at awkward moments.

use super::resiliency::{FAILED, OK, SPEC, TO};
use super::*;
use crate::http2::ErrorCode;

/// The stream of an attempt that is over may live on for a while, as its reset waits its turn: what
/// becomes of it is nothing to the attempt that follows.
#[test]
fn what_becomes_of_an_earlier_attempt_is_not_heard() {
    let codes = [ErrorCode::NO_ERROR, ErrorCode::REFUSED_STREAM, ErrorCode::CANCEL];
    for (code, meanwhile) in codes.into_iter().flat_map(|code| [(code, false), (code, true)]) {
        let mut bench = Bench::with_spec(SPEC);
        let caller = bench.accept(Listener::Api);
        let stream = bench.call(caller, &TO, None);
        bench.resolve();
        let callee = bench.dial_done();
        // More callers vanish at once than may be told of at once.
        for _ in 0..60 {
            let other = bench.call(caller, &TO, None);
            bench.reset(caller, other.0, ErrorCode::CANCEL.0);
        }
        bench.send(caller, stream, MESSAGE, false);
        bench.say(callee, 1, &FAILED, true);
        if meanwhile {
            bench.ms(100);
        }
        bench.reset(callee, 1, code.0);
        assert_eq!((bench.proxy.calls(), bench.last(caller)), (1, ""), "{code:?}");
        bench.ms(100);
        assert_eq!(bench.attempts(callee), 62, "61 calls, one of them twice: {code:?}");
        bench.send(caller, stream, &[], true);
        bench.answer(callee, 123, MESSAGE);
        assert!(bench.last(caller).ends_with(OK), "{:?}", bench.seen[&caller]);
        for _ in 0..9 {
            bench.ms(100);
        }
        assert_eq!(bench.ends[&callee].streams(), 0);
    }
}

/// An attempt's time may be over when its stream could be opened at last, and nobody has looked at
/// the clock yet: the request is there for the next attempt.
#[test]
fn an_attempt_that_is_late_as_it_begins_is_followed_by_another() {
    let mut bench = Bench::with_spec(SPEC);
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &[TO[0], ("x-mine", "1")], Some(MESSAGE));
    bench.resolve();
    bench.now += Duration::from_secs(1);
    let callee = bench.dial_done();
    assert_eq!((bench.attempts(callee), bench.last(caller)), (0, ""));
    bench.ms(100);
    assert_eq!(bench.bodies[&(callee, 1)], MESSAGE);
    assert!(bench.seen[&callee][0].contains(" x-mine=1 "), "{:?}", bench.seen[&callee]);
    bench.answer(callee, 1, MESSAGE);
    assert!(bench.last(caller).ends_with(OK), "{:?}", bench.seen[&caller]);
    assert!(bench.proxy.keeper.is_empty() && bench.proxy.guards.is_empty());
}

/// As it was: its end on the head, or apart from it, which some peers wait for.
#[test]
fn a_request_without_a_message_is_sent_again() {
    for (apart, refused) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut bench = Bench::with_spec(SPEC);
        let caller = bench.accept(Listener::Api);
        let fields = [(":method", "POST"), (":scheme", "http"), (":path", "/a.B/C")];
        let fields = section(&[&fields[..], &[("content-type", "application/grpc")], &TO].concat());
        let end = bench.ends.get_mut(&caller).unwrap();
        let stream = end.open(fields, !apart, 0).unwrap();
        bench.run();
        bench.resolve();
        let callee = bench.dial_done();
        if apart {
            bench.send(caller, stream, &[], true);
        }
        match refused {
            true => bench.reset(callee, 1, ErrorCode::REFUSED_STREAM.0),
            false => bench.say(callee, 1, &FAILED, true),
        }
        bench.ms(100);
        let seen = &bench.seen[&callee];
        let (first, second) = seen.split_at(seen.len() / 2);
        let parts = if apart { 2 } else { 1 };
        assert_eq!((first.len(), second.len()), (parts, parts), "{seen:?}");
        for (first, second) in first.iter().zip(second) {
            assert_eq!(first.strip_prefix('1'), second.strip_prefix('3'));
        }
        assert!(second[parts - 1].ends_with("END"), "{seen:?}");
        bench.answer(callee, 3, MESSAGE);
        assert!(bench.last(caller).ends_with(OK), "{:?}", bench.seen[&caller]);
    }
}

/// `--ringside-retry-budget`: a share of the calls, and ten in a second.
#[test]
fn retries_are_budgeted() {
    let mut bench = Bench::with_spec(SPEC);
    bench.proxy.budget_retries(25);
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &TO, Some(MESSAGE));
    bench.resolve();
    let callee = bench.dial_done();
    for _ in 1..16 {
        bench.call(caller, &TO, Some(MESSAGE));
    }
    for call in 0..16 {
        bench.say(callee, 1 + 2 * call, &FAILED, true);
    }
    // 16 calls have paid in for 4, and 10 are free.
    assert_eq!((bench.count(caller, "grpc-status=14"), bench.proxy.calls()), (2, 14));
    assert_eq!(bench.lines, 15, "each call's first retry, and the limit once");
    let line =
        "Limit retry_budget reached by server: retries are refused: too many of its calls fail";
    assert_eq!(bench.last_line, line);
    bench.ms(100);
    assert_eq!(bench.attempts(callee), 30);
    for call in 16..30 {
        bench.say(callee, 1 + 2 * call, &FAILED, true);
    }
    assert_eq!(bench.proxy.calls(), 1, "a tenth of a second gave one more");
    assert_eq!(counted(&mut bench).limits(), [("retry_budget", 15)]);
}

/// Neither the app's calls to itself nor those that come in, whose caller's sidecar has policies of
/// its own, get any here.
#[test]
fn policies_are_for_calls_to_other_apps() {
    let all = "policies: {timeouts: {t: 1s}, retries: {r: {duration: 100ms}}, \
               circuitBreakers: {c: {trip: totalFailures > 0}}}, \
               targets: {apps: {client: {timeout: t, retry: r, circuitBreaker: c}}}";
    for listener in [Listener::Api, Listener::Internal] {
        let mut bench = Bench::with_spec(all);
        let caller = bench.accept(listener);
        bench.call(caller, &[("dapr-app-id", "client")], Some(MESSAGE));
        let app = bench.dial_done();
        for stream in [1, 3] {
            assert!(!bench.seen[&app].join(" ").contains("grpc-timeout"), "{:?}", bench.seen[&app]);
            bench.say(app, stream, &FAILED, true);
            assert!(bench.last(caller).contains("grpc-status=14"), "{:?}", bench.seen[&caller]);
            assert_eq!(bench.attempts(app), stream as usize / 2 + 1);
            bench.call(caller, &[("dapr-app-id", "client")], Some(MESSAGE));
        }
        assert_eq!((bench.attempts(app), bench.proxy.guards.len()), (3, 0));
    }
}
