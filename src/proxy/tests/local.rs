//! Calls that end in the sidecar: what control is asked, and what comes of its answers.

use super::*;
use crate::proxy::Question;

const EMPTY: &[u8] = &[0; 5];
const METADATA: &str = "/dapr.proto.runtime.v1.Dapr/GetMetadata";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// `SetMetadataRequest { key: "k", value: "v" }`, framed.
const SET: &[u8] = b"\x00\x00\x00\x00\x06\x0a\x01k\x12\x01v";

fn begin(bench: &mut Bench, conn: ConnId, path: &str, more: &[(&str, &str)]) -> StreamId {
    let mut fields = FieldSection::new();
    let fixed = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x")];
    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    for (name, value) in fixed.iter().chain(&grpc).chain(more) {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    bench.ends.get_mut(&conn).unwrap().open(fields, false, 0).unwrap()
}

fn questions(bench: &Bench) -> Vec<Question> {
    bench.asked.iter().map(|request| request.question.clone()).collect()
}

/// Control answers what it was asked last.
fn reply(bench: &mut Bench, answer: Result<&'static [u8], &'static str>) {
    let call = bench.asked.last().expect("a question").call;
    bench.handle(Input::Answered { call, answer: answer.map(Bytes::from_static) });
}

#[test]
fn control_is_asked_and_its_answer_is_sent() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    let stream = begin(&mut bench, caller, METADATA, &[("dapr-app-id", "server")]);
    bench.send(caller, stream, EMPTY, true);
    assert_eq!(questions(&bench), [Question::Metadata]);
    assert!(bench.resolves.is_empty() && bench.dialed.is_empty());
    reply(&mut bench, Ok(b"told"));
    let seen = &bench.seen[&caller];
    assert_eq!(seen[0], "1 HEADERS :status=200 content-type=application/grpc");
    assert_eq!(seen[1..], ["1 DATA 9", "1 HEADERS grpc-status=0 grpc-message= END"]);
    assert_eq!(bench.bodies[&(caller, 1)], b"\x00\x00\x00\x00\x04told");
    assert_eq!(bench.proxy.calls(), 0);
    // As daprd's unary methods it is told, but as no invocation.
    let cells = counted(&mut bench);
    let mut methods = cells.methods();
    let found = methods.find(|(label, path, _)| label.is_empty() && *path == METADATA.as_bytes());
    let (.., told) = found.expect("the method");
    assert_eq!(told.completed.iter().map(|(code, _)| *code).collect::<Vec<_>>(), [0]);
    assert_eq!((told.sent, told.received.len()), ([0, 0], 0));
}

/// However the request is cut.
#[test]
fn a_request_may_come_octet_by_octet() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    let stream = begin(&mut bench, caller, "/dapr.proto.runtime.v1.Dapr/SetMetadata", &[]);
    for octet in SET {
        assert!(bench.asked.is_empty());
        bench.send(caller, stream, &[*octet], false);
    }
    bench.send(caller, stream, b"", true);
    let (key, value) = ("k".to_owned(), "v".to_owned());
    assert_eq!(questions(&bench), [Question::SetMetadata { key, value }]);
    reply(&mut bench, Err("full"));
    let last = bench.last(caller);
    assert!(last.contains("grpc-status=8 grpc-message=full"), "{last}");
}

#[test]
fn force_is_said_in_the_metadata() {
    for (value, force) in [("TRUE", true), ("true", true), ("1", false)] {
        let mut bench = Bench::new(config());
        let caller = bench.accept(Listener::Api);
        let more = [("dapr-force-shutdown", value)];
        let stream = begin(&mut bench, caller, "/dapr.proto.runtime.v1.Dapr/Shutdown", &more);
        bench.send(caller, stream, EMPTY, true);
        assert_eq!(questions(&bench), [Question::Shutdown { force }], "{value}");
    }
}

/// Questions of a stream are asked one by one, in order; its end is the call's.
#[test]
fn reflection_is_a_conversation() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    let stream = begin(&mut bench, caller, REFLECTION, &[]);
    bench.send(caller, stream, b"\x00\x00\x00\x00\x01a\x00\x00\x00\x00\x01b", false);
    let question = |text: &'static [u8]| Question::Reflection(Bytes::from_static(text));
    assert_eq!(questions(&bench), [question(b"a")]);
    reply(&mut bench, Ok(b"1"));
    assert_eq!(questions(&bench), [question(b"a"), question(b"b")]);
    reply(&mut bench, Ok(b"2"));
    assert_eq!(bench.bodies[&(caller, 1)], b"\x00\x00\x00\x00\x011\x00\x00\x00\x00\x012");
    assert_eq!(bench.proxy.calls(), 1);
    bench.send(caller, stream, b"", true);
    assert_eq!(bench.last(caller), "1 HEADERS grpc-status=0 grpc-message= END");
    assert_eq!(bench.proxy.calls(), 0);
}

/// What is no unary request, with what is said of it.
#[test]
fn what_is_malformed_is_told_so() {
    for (body, status) in [
        (&b""[..], "grpc-status=13"),
        (&EMPTY[..4], "grpc-status=13"),
        (b"\x00\x00\x00\x00\x02x", "grpc-status=13"),
        (b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "grpc-status=13"),
        (b"\x01\x00\x00\x00\x00", "grpc-status=12"),
    ] {
        let mut bench = Bench::new(config());
        let caller = bench.accept(Listener::Api);
        let stream = begin(&mut bench, caller, METADATA, &[]);
        bench.send(caller, stream, body, true);
        let last = bench.last(caller);
        assert!(last.contains(status) && last.ends_with("END"), "{body:?}: {last}");
        assert!(bench.asked.is_empty());
    }
}

/// An answer that comes too late is nobody's.
#[test]
fn a_call_that_is_over_hears_no_answer() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    let stream = begin(&mut bench, caller, METADATA, &[("grpc-timeout", "50m")]);
    bench.send(caller, stream, EMPTY, true);
    bench.wait(Duration::from_millis(50));
    assert!(bench.last(caller).contains("grpc-status=4"), "{}", bench.last(caller));
    let seen = bench.seen[&caller].len();
    reply(&mut bench, Ok(b"late"));
    let stream = begin(&mut bench, caller, METADATA, &[]);
    bench.send(caller, stream, EMPTY, true);
    bench.reset(caller, 3, 8);
    reply(&mut bench, Ok(b"late"));
    assert_eq!((bench.seen[&caller].len(), bench.proxy.calls()), (seen, 0));
}

/// Control is not asked more than it may be; each answer makes room.
#[test]
fn questions_are_bounded() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    for _ in 0..17 {
        let stream = begin(&mut bench, caller, METADATA, &[]);
        bench.send(caller, stream, EMPTY, true);
    }
    assert_eq!((bench.asked.len(), bench.proxy.calls()), (16, 16));
    assert!(bench.last(caller).contains("33 HEADERS :status=200"), "{}", bench.last(caller));
    assert!(bench.last(caller).contains("grpc-status=8"), "{}", bench.last(caller));
    assert_eq!(counted(&mut bench).limits(), [("local_calls", 1)]);
    reply(&mut bench, Ok(b""));
    let stream = begin(&mut bench, caller, METADATA, &[]);
    bench.send(caller, stream, EMPTY, true);
    assert_eq!(bench.asked.len(), 17);
}

/// Requests that never end take bounded memory, and give it back.
#[test]
fn requests_take_bounded_memory() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    let piece = vec![0; 64 << 10];
    let set = "/dapr.proto.runtime.v1.Dapr/SetMetadata";
    let mut streams = Vec::new();
    // Each begins a message of 4 MiB and does not end it.
    for _ in 0..5 {
        let stream = begin(&mut bench, caller, set, &[]);
        bench.send(caller, stream, &[0, 0, 64, 0, 0], false);
        for _ in 0..63 {
            bench.send(caller, stream, &piece, false);
        }
        streams.push(stream.0);
    }
    assert_eq!(bench.count(caller, "grpc-status=8"), 1, "the fifth was too much");
    let limits = counted(&mut bench);
    assert_eq!(limits.limits().first().map(|(name, _)| *name), Some("local_octets"));
    for stream in streams.iter().take(4) {
        bench.reset(caller, *stream, 8);
    }
    assert_eq!(bench.proxy.calls(), 0);
    // `check_invariants` has looked at the sum after each step.
    let stream = begin(&mut bench, caller, set, &[]);
    bench.send(caller, stream, SET, true);
    assert_eq!(bench.asked.len(), 1);
}

/// A drain waits for what control was asked.
#[test]
fn a_drain_waits_for_an_answer() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    let stream = begin(&mut bench, caller, METADATA, &[]);
    bench.send(caller, stream, EMPTY, true);
    bench.handle(Input::Drain);
    assert!(!bench.drained);
    reply(&mut bench, Ok(b"told"));
    bench.wait(Duration::from_secs(2));
    assert!(bench.drained);
    assert_eq!(bench.count(caller, "grpc-status=0"), 1);
}

/// One span, as daprd's unary interceptor makes it.
#[test]
fn a_method_is_a_span() {
    use crate::config::Tracing;
    use crate::observe::span::SpanKind;
    let tracing = Tracing::Sampled { rate: 1.0, exported: true };
    let mut bench = Bench::new(Config { tracing, ..config() });
    let caller = bench.accept(Listener::Api);
    let stream = begin(&mut bench, caller, METADATA, &[("dapr-app-id", "server")]);
    bench.send(caller, stream, EMPTY, true);
    reply(&mut bench, Ok(b"told"));
    bench.wait(Duration::from_secs(1));
    let [span] = &bench.spans[..] else { panic!("{:?}", bench.spans) };
    assert_eq!((span.name.as_str(), span.kind, &span.error), (METADATA, SpanKind::Client, &None));
    let tags = [("dapr-app-id", "server"), ("dapr.protocol", "grpc"), ("dapr.api", METADATA)];
    let tags = tags.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(span.attributes, tags);
}
