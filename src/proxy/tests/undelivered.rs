//! Calls that reached no app, and who says so.

use super::resiliency::{BREAKER, FAILED, HEAD, OK, SPEC, TO};
use super::*;
use crate::http2::ErrorCode;
use crate::proxy::kinship;

const PROOF: [(&str, &str); 1] = [("ringside-undelivered", "1")];
const TO_APP: [(&str, &str); 1] = [("dapr-callee-app-id", "client")];
const STREAM: [(&str, &str); 2] = [TO[0], ("dapr-stream", "true")];
const REFUSED: &str = "connection error: desc = \"transport: Error while dialing\"";

/// Of a ringside.
fn kin() -> Limits {
    Limits { kinship: kinship::PROOFS, ..Limits::default() }
}

fn proven() -> Vec<(&'static str, &'static str)> {
    [&FAILED[..], &PROOF].concat()
}

impl Bench {
    fn accept_kin(&mut self, listener: Listener) -> ConnId {
        let conn = self.accept(listener);
        let h2 = Connection::new(Role::Client, kin(), head::classify, self.now);
        self.ends.insert(conn, h2);
        conn
    }

    /// A caller, and a callee's sidecar to which it has a stream with one message.
    fn stream_to(spec: &str, limits: Limits) -> (Self, ConnId, ConnId, StreamId) {
        let mut bench = Self::with_spec(spec);
        let caller = bench.accept(Listener::Api);
        let stream = bench.call(caller, &STREAM, None);
        bench.resolve();
        let callee = bench.dial_done_with(limits);
        bench.send(caller, stream, MESSAGE, false);
        (bench, caller, callee, stream)
    }

    /// What the caller heard last but for a reset of what is left of its request.
    fn last_head(&self, caller: ConnId) -> &str {
        self.seen[&caller].iter().rfind(|seen| seen.contains("HEADERS")).map_or("", String::as_str)
    }

    fn is_proven(&self, caller: ConnId) -> bool {
        let last = self.last_head(caller);
        assert!(last.contains("grpc-status=14"), "{last}");
        last.contains(" ringside-undelivered=1")
    }
}

/// Only ringsides hear of it, and no app's client.
#[test]
fn a_sidecar_proves_that_no_app_was_reached() {
    for (listener, is_kin) in
        [(Listener::Internal, true), (Listener::Internal, false), (Listener::Api, true)]
    {
        let proves = is_kin && listener == Listener::Internal;
        let begin = || {
            let mut bench = Bench::new(config());
            let caller = if is_kin { bench.accept_kin(listener) } else { bench.accept(listener) };
            (bench, caller)
        };
        // Nobody listens.
        let (mut bench, caller) = begin();
        bench.call(caller, &TO_APP, Some(MESSAGE));
        let (conn, ..) = bench.dialed[0];
        bench.handle(Input::DialFailed { conn, error: REFUSED.to_owned() });
        assert_eq!(bench.is_proven(caller), proves);
        // It goes away, and then it is gone.
        bench.call(caller, &TO_APP, Some(MESSAGE));
        let app = bench.dial_done();
        let goodbye = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
        bench.handle(Input::Received { conn: app, bytes: Bytes::from_static(goodbye) });
        let (conn, ..) = *bench.dialed.last().unwrap();
        bench.handle(Input::DialFailed { conn, error: REFUSED.to_owned() });
        assert_eq!(bench.is_proven(caller), proves);
        // It refuses, and refuses again.
        bench.call(caller, &TO_APP, Some(MESSAGE));
        let app = bench.dial_done();
        bench.reset(app, 1, ErrorCode::REFUSED_STREAM.0);
        bench.reset(app, 3, ErrorCode::REFUSED_STREAM.0);
        assert_eq!(bench.is_proven(caller), proves);
        // It had the call: who knows what it did with it?
        bench.call(caller, &TO_APP, Some(MESSAGE));
        bench.handle(Input::Closed { conn: app, reason: CloseReason::Eof });
        assert!(!bench.is_proven(caller));
    }
    let mut bench = Bench::new(config());
    let caller = bench.accept_kin(Listener::Internal);
    bench.call(caller, &[("dapr-callee-app-id", "somebody-else")], Some(MESSAGE));
    assert!(bench.is_proven(caller), "it is not here");
}

/// Whatever it says of itself, and to whomever.
#[test]
fn an_app_cannot_prove_it() {
    for limits in [kin(), Limits::default()] {
        let mut bench = Bench::new(config());
        let caller = bench.accept_kin(Listener::Internal);
        bench.call(caller, &TO_APP, Some(MESSAGE));
        let app = bench.dial_done_with(limits);
        bench.say(app, 1, &proven(), true);
        assert!(!bench.is_proven(caller));
    }
    // Behind a daprd, which lets it pass.
    let (mut bench, caller, callee, _) = Bench::stream_to(SPEC, Limits::default());
    bench.say(callee, 1, &proven(), true);
    assert!(!bench.is_proven(caller));
    assert_eq!(bench.attempts(callee), 1);
}

/// By the retry policy, with all that the client sent; no client sees why.
#[test]
fn a_stream_that_reached_no_app_is_tried_again() {
    let (mut bench, caller, callee, stream) = Bench::stream_to(SPEC, kin());
    for (attempt, number) in [1, 3, 5, 7].into_iter().enumerate() {
        let messages = MESSAGE.repeat(attempt + 1);
        assert_eq!(bench.bodies[&(callee, number)], messages, "attempt {attempt}");
        assert_eq!((bench.attempts(callee), bench.last(caller)), (attempt + 1, ""));
        bench.say(callee, number, &proven(), true);
        bench.ms(99);
        assert_eq!(bench.attempts(callee), attempt + 1);
        if attempt < 3 {
            bench.send(caller, stream, MESSAGE, false);
        }
        bench.ms(1);
    }
    assert!(!bench.is_proven(caller));
    assert!(bench.proxy.keeper.is_empty() && bench.proxy.guards.is_empty());
    // Once more, and it is reached.
    let (mut bench, caller, callee, stream) = Bench::stream_to(SPEC, kin());
    bench.say(callee, 1, &proven(), true);
    bench.ms(100);
    bench.ms(10_000);
    bench.send(caller, stream, MESSAGE, true);
    bench.answer(callee, 3, MESSAGE);
    assert_eq!(bench.bodies[&(callee, 3)], MESSAGE.repeat(2));
    assert!(bench.last(caller).ends_with(OK), "{:?}", bench.seen[&caller]);
}

/// What HTTP/2 itself proves: REFUSED_STREAM, after it was made again unseen.
#[test]
fn a_stream_that_a_sidecar_refused_is_tried_again() {
    let (mut bench, caller, callee, _) = Bench::stream_to(SPEC, Limits::default());
    bench.reset(callee, 1, ErrorCode::REFUSED_STREAM.0);
    bench.reset(callee, 3, ErrorCode::REFUSED_STREAM.0);
    assert_eq!((bench.attempts(callee), bench.last(caller)), (2, ""));
    bench.ms(100);
    assert_eq!(bench.bodies[&(callee, 5)], MESSAGE);
}

/// A GOAWAY left it out, and nobody else is there: as at its first attempt.
#[test]
fn a_call_that_was_left_out_is_tried_again() {
    for stream in [false, true] {
        let mut bench = Bench::with_spec(SPEC);
        let caller = bench.accept(Listener::Api);
        let fields = if stream { &STREAM[..] } else { &TO };
        bench.call(caller, fields, Some(MESSAGE));
        bench.resolve();
        let callee = bench.dial_done();
        let goodbye = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
        bench.handle(Input::Received { conn: callee, bytes: Bytes::from_static(goodbye) });
        for _ in 0..9 {
            if bench.resolves.len() == 1 {
                let (conn, ..) = *bench.dialed.last().unwrap();
                bench.handle(Input::DialFailed { conn, error: REFUSED.to_owned() });
            }
        }
        let target = bench.resolves[1].clone();
        let result = Err("couldn't find service: server".into());
        bench.handle(Input::Resolved(Resolution { target, result }));
        assert_eq!((bench.proxy.calls(), bench.last(caller)), (1, ""), "{stream}");
        bench.ms(100);
        bench.resolve();
        bench.fail_dials();
        assert_eq!((bench.proxy.calls(), bench.last(caller)), (1, ""), "{stream}");
        bench.ms(100);
        bench.resolve();
        let callee = bench.dial_done();
        assert_eq!(bench.bodies[&(callee, 1)], MESSAGE);
        bench.answer(callee, 1, MESSAGE);
        assert!(bench.last(caller).ends_with(OK), "{:?}", bench.seen[&caller]);
    }
}

#[test]
fn other_streams_are_not_tried_again() {
    let only_8 = SPEC.replace("maxRetries: 3", "maxRetries: 3, matching: {gRPCStatusCodes: 8}");
    let no_policy = SPEC.replace("server: {timeout: t, retry: r}", "server: {timeout: t}");
    for spec in [&only_8, &no_policy] {
        let (mut bench, caller, callee, _) = Bench::stream_to(spec, kin());
        bench.say(callee, 1, &proven(), true);
        assert!(!bench.is_proven(caller), "{spec}");
        assert_eq!((bench.proxy.calls(), bench.attempts(callee)), (0, 1));
    }
    // Nothing is proven.
    let (mut bench, caller, callee, _) = Bench::stream_to(SPEC, kin());
    bench.say(callee, 1, &FAILED, true);
    assert!(!bench.is_proven(caller));
    // There was a response.
    let (mut bench, caller, callee, _) = Bench::stream_to(SPEC, kin());
    bench.say(callee, 1, &HEAD, false);
    bench.say(callee, 1, &[&[("grpc-status", "14")], &PROOF[..]].concat(), true);
    assert!(bench.last_head(caller).contains("grpc-status=14"));
    assert_eq!((bench.proxy.calls(), bench.attempts(callee)), (0, 1));
    // It is not at hand any more.
    let (mut bench, caller, callee, stream) = Bench::stream_to(SPEC, kin());
    let piece = [&[0, 0, 1, 0, 0][..], &[7; 1 << 16]].concat();
    for _ in 0..4 {
        bench.send(caller, stream, &piece, false);
    }
    bench.say(callee, 1, &proven(), true);
    assert!(!bench.is_proven(caller));
    assert_eq!(bench.attempts(callee), 1);
}

/// As much as a stream's window lets come while it waits; the caller has its window back once.
#[test]
fn what_comes_while_it_waits_goes_along() {
    let (mut bench, caller, callee, stream) = Bench::stream_to(SPEC, kin());
    let piece = [&[0, 0, 1, 0, 0][..], &[7; 1 << 16]].concat();
    for _ in 0..3 {
        bench.send(caller, stream, &piece, false);
    }
    bench.say(callee, 1, &proven(), true);
    for _ in 0..6 {
        bench.send(caller, stream, &piece, false);
    }
    assert!(bench.ends[&caller].queued(stream) > 0, "its window is closed");
    bench.ms(100);
    assert_eq!(bench.bodies[&(callee, 3)].len(), MESSAGE.len() + 9 * piece.len());
    bench.send(caller, stream, &[], true);
    bench.answer(callee, 3, MESSAGE);
    assert!(bench.last(caller).ends_with(OK), "{:?}", bench.seen[&caller]);
    assert!(bench.proxy.keeper.is_empty());
}

/// A breaker has its success when there is a stream to the callee's sidecar, whatever comes of it.
#[test]
fn breakers_count_handshakes() {
    let both = BREAKER.replace("policies: {", "policies: {retries: {r: {duration: 100ms}}, ");
    let both = both.replace("circuitBreaker: c", "circuitBreaker: c, retry: r");
    let (mut bench, caller, callee, _) = Bench::stream_to(&both, kin());
    for number in (1..20).step_by(2) {
        bench.say(callee, number, &proven(), true);
        bench.ms(100);
        assert_eq!((bench.last(caller), bench.proxy.calls()), ("", 1));
    }
    bench.answer(callee, 21, MESSAGE);
    assert!(bench.last_head(caller).ends_with(OK), "{:?}", bench.seen[&caller]);
}
