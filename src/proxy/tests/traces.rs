//! What callees are told of the trace that a call belongs to.

use super::replays::part;
use super::resiliency::{BREAKER, FAILED, SPEC, TO, policies};
use super::*;
use crate::config::Tracing;
use crate::http2::ErrorCode;
use crate::observe::span::SpanKind;
use crate::observe::trace::Context;

const CALLERS: (&str, &str) =
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");

fn bench(tracing: Tracing) -> Bench {
    Bench::new(Config { tracing, ..config() })
}

/// The context in the latest head, in both its forms.
fn told(bench: &Bench, conn: ConnId) -> [Option<String>; 2] {
    let mut heads = bench.seen[&conn].iter().filter(|word| word.contains("HEADERS :method"));
    let head = heads.next_back().expect("a request");
    ["traceparent=", "grpc-trace-bin="].map(|name| {
        let mut values = head.split(' ').filter_map(|field| field.strip_prefix(name));
        let value = values.next().map(str::to_owned);
        assert_eq!(values.next(), None, "one of them: {head}");
        value
    })
}

#[test]
fn a_callers_context_passes_where_no_spans_are_made() {
    for tracing in [Tracing::Off, Tracing::Passed] {
        let mut bench = bench(tracing);
        let caller = bench.accept(Listener::Internal);
        bench.call(caller, &[("dapr-callee-app-id", "client"), CALLERS], Some(MESSAGE));
        let app = bench.dial_done();
        assert_eq!(told(&bench, app), [Some(CALLERS.1.to_owned()), None]);
        bench.call(caller, &[("dapr-callee-app-id", "client")], Some(MESSAGE));
        assert_eq!(told(&bench, app), [None, None]);
    }
}

/// Made again unseen, a call is still the same span.
#[test]
fn every_attempt_is_told_the_same() {
    let mut bench = bench(Tracing::Sampled { rate: 0.0, exported: true });
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &[("dapr-callee-app-id", "client"), CALLERS], Some(MESSAGE));
    let app = bench.dial_done();
    let first = told(&bench, app);
    let text = first[0].as_deref().expect("a context");
    assert!(text.starts_with(&CALLERS.1[..36]) && text.ends_with("-01"), "{text}");
    assert_ne!(text, CALLERS.1);
    let end = bench.ends.get_mut(&app).expect("the app");
    end.send_reset(StreamId(1), ErrorCode(7));
    bench.run();
    assert_eq!(bench.seen[&app].iter().filter(|word| word.contains("HEADERS")).count(), 2);
    assert_eq!(told(&bench, app), first);
    // The next call is another span.
    bench.call(caller, &[("dapr-callee-app-id", "client"), CALLERS], Some(MESSAGE));
    assert_ne!(told(&bench, app), first);
}

fn exported() -> Bench {
    bench(Tracing::Sampled { rate: 1.0, exported: true })
}

fn tags(span: &Span) -> Vec<(&str, &str)> {
    span.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// Spec 10 §10.4: name, kind, attributes, status; told together after a while.
#[test]
fn a_call_is_one_span() {
    let mut bench = exported();
    let caller = bench.accept(Listener::Internal);
    let more = [
        ("dapr-callee-app-id", "client"),
        ("dapr-caller-app-id", "other"),
        ("dapr-caller-app-id", "again"),
        ("dapr-api-token", "secret"),
        ("dapr-blob-bin", "AAEC"),
        ("dapr-empty", ""),
        ("x-mine", "1"),
        CALLERS,
    ];
    bench.call(caller, &more, Some(MESSAGE));
    let app = bench.dial_done();
    let begun = bench.now;
    bench.now += Duration::from_millis(3);
    bench.answer(app, 1, MESSAGE);
    bench.call(caller, &more[..1], Some(MESSAGE));
    let end = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "5")];
    bench.say(app, 3, &[&end[..], &[("grpc-message", "not%20here")]].concat(), true);
    assert!(bench.spans.is_empty());
    bench.wait(Duration::from_secs(1));
    let [one, two] = &bench.spans[..] else { panic!("{:?}", bench.spans) };
    assert_eq!((one.name.as_str(), one.kind), ("/a.B/C", SpanKind::Server));
    assert_eq!(tags(one), [("dapr-callee-app-id", "client"), ("dapr-caller-app-id", "other")]);
    assert_eq!(one.parent, Some(0x00f0_67aa_0ba9_02b7_u64.to_be_bytes()));
    assert_eq!((one.begun, one.ended - one.begun), (begun, Duration::from_millis(3)));
    assert_eq!((&one.error, two.parent), (&None, None));
    assert_eq!(two.error.as_deref(), Some("not here"));
    assert_ne!(one.context.trace_id, two.context.trace_id);
}

#[test]
fn who_leaves_and_who_comes_late_is_told() {
    let mut bench = exported();
    let caller = bench.accept(Listener::Api);
    let stream = bench.call(caller, &[("dapr-app-id", "client"), ("grpc-timeout", "5S")], None);
    bench.ends.get_mut(&caller).unwrap().send_reset(stream, ErrorCode::CANCEL);
    bench.run();
    bench.call(caller, &[("dapr-app-id", "server"), ("grpc-timeout", "1S")], None);
    bench.wait(Duration::from_secs(2));
    bench.wait(Duration::from_secs(2));
    let told: Vec<_> = bench.spans.iter().map(|s| (s.kind, s.error.as_deref().unwrap())).collect();
    assert_eq!(told[0], (SpanKind::Server, "context canceled"));
    assert_eq!(told[1], (SpanKind::Client, "context deadline exceeded"));
    assert_eq!(told.len(), 2);
}

/// What daprd's interceptor sees, and nothing that is refused before it.
#[test]
fn refused_calls_are_spans_where_daprd_saw_them() {
    let mut bench = exported();
    let api = bench.accept(Listener::Api);
    let internal = bench.accept(Listener::Internal);
    bench.call(api, &[("dapr-app-id", "a.b.c")], None);
    bench.call(api, &[], None);
    bench.call(internal, &[("dapr-callee-app-id", "other")], None);
    bench.call(api, &[("dapr-app-id", "x"), ("grpc-timeout", "soon")], None);
    bench.wait(Duration::from_secs(1));
    let told: Vec<_> = bench.spans.iter().map(|s| (s.kind, s.error.as_deref().unwrap())).collect();
    assert_eq!(told[0], (SpanKind::Client, "invalid app id a.b.c"));
    assert_eq!(told[1].0, SpanKind::Server);
    assert!(told[1].1.starts_with("this is the sidecar of app id client, not of other"));
    assert_eq!(told.len(), 2);
}

/// They leave when there are many, and before the end; never more are kept.
#[test]
fn spans_leave_in_bounded_numbers() {
    let mut bench = exported();
    let api = bench.accept(Listener::Api);
    for _ in 0..300 {
        bench.call(api, &[("dapr-app-id", "a.b.c")], None);
    }
    assert_eq!(bench.spans.len(), 256);
    bench.handle(Input::Drain);
    assert!(bench.drained);
    assert_eq!(bench.spans.len(), 300);
}

#[test]
fn what_nobody_wants_is_not_recorded() {
    for tracing in [
        Tracing::Sampled { rate: 1.0, exported: false },
        Tracing::Sampled { rate: 0.0, exported: true },
    ] {
        let mut bench = bench(tracing);
        let api = bench.accept(Listener::Api);
        bench.call(api, &[("dapr-app-id", "a.b.c")], None);
        bench.wait(Duration::from_secs(1));
        assert!(bench.spans.is_empty(), "{tracing:?}");
    }
}

/// Flags that nobody has given a meaning yet say nothing about that, whatever their digit.
#[test]
fn a_parent_with_other_flags_decides_as_any() {
    for (flags, sampled) in [("02", 0), ("0a", 0), ("0b", 1), ("0C", 0), ("ff", 1)] {
        let mut bench = exported();
        let api = bench.accept(Listener::Api);
        let parent = CALLERS.1.replace("-01", &format!("-{flags}"));
        bench.call(api, &[("dapr-app-id", "client"), ("traceparent", &parent)], Some(MESSAGE));
        let app = bench.dial_done();
        bench.answer(app, 1, MESSAGE);
        bench.wait(Duration::from_secs(1));
        assert_eq!(bench.spans.len(), sampled, "{flags}");
    }
}

/// What a sidecar says that makes spans, or does not.
fn sidecar_that(tracing: Tracing) -> Limits {
    Limits { kinship: kinship::of(tracing), ..Limits::default() }
}

/// As the callee's sidecar sees it.
fn told_with(bench: &mut Bench, callee: Limits, more: &[(&str, &str)]) -> [Option<String>; 2] {
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &[&[("dapr-app-id", "server")], more].concat(), Some(MESSAGE));
    bench.resolve();
    let conn = bench.dial_done_with(callee);
    // A call that goes before its SETTINGS are here says it all; the next one knows.
    bench.call(caller, &[&[("dapr-app-id", "server")], more].concat(), Some(MESSAGE));
    told(bench, conn)
}

/// At rates of nothing and of everything, from an app that says a context and one that does not.
#[test]
fn what_nobody_records_is_left_unsaid_to_a_sidecar_that_knows() {
    let spans = |rate| Tracing::Sampled { rate, exported: true };
    for (rate, callee, said, expected) in [
        (0.0, spans(1.0), None, None),
        (0.0, Tracing::Passed, None, Some("-00")),
        (1.0, spans(1.0), None, Some("-01")),
        (0.0, spans(1.0), Some(CALLERS), Some("-01")),
        (1.0, Tracing::Off, Some(CALLERS), Some("-01")),
    ] {
        let mut bench = bench(spans(rate));
        let more: Vec<_> = said.into_iter().collect();
        let [text, binary] = told_with(&mut bench, sidecar_that(callee), &more);
        let ends = text.as_deref().map(|text| &text[52..]);
        assert_eq!(ends, expected, "{rate}, {callee:?}, {said:?}");
        assert_eq!(binary.is_some(), expected == Some("-01"), "{rate}, {callee:?}, {said:?}");
        if let (Some((_, said)), Some(text)) = (said, &text) {
            assert!(text[..36] == said[..36] && text != said, "{text}");
        }
    }
    // daprds say nothing of themselves.
    let mut bench = bench(spans(0.0));
    let [text, binary] = told_with(&mut bench, Limits::default(), &[]);
    assert!(text.is_some_and(|text| text.ends_with("-00")) && binary.is_none());
}

/// Its app may see several attempts, each of which its sidecar would make a trace for.
#[test]
#[allow(clippy::disallowed_methods)]
fn what_may_be_tried_again_is_said() {
    let spans = Tracing::Sampled { rate: 0.0, exported: true };
    for (spec, said) in [(SPEC, true), (BREAKER, false)] {
        let policies = policies(spec, 1, Instant::now());
        let mut bench = Bench::with_policies(Config { tracing: spans, ..config() }, policies);
        let caller = bench.accept(Listener::Api);
        bench.call(caller, &TO, Some(MESSAGE));
        bench.resolve();
        let callee = bench.dial_done_with(sidecar_that(spans));
        bench.answer(callee, 1, MESSAGE);
        // Now its SETTINGS are here.
        bench.call(caller, &TO, Some(MESSAGE));
        let first = told(&bench, callee);
        assert_eq!(first[0].is_some(), said, "{spec}");
        if said {
            bench.say(callee, 3, &FAILED, true);
            bench.ms(100);
            assert_eq!(bench.attempts(callee), 3);
            assert_eq!(told(&bench, callee), first);
        }
    }
}

/// Its app is told of one all the same; a trace that was left unsaid is not sampled here either.
#[test]
fn an_app_is_told_what_was_left_unsaid() {
    for (caller, rate, sampled) in [
        (sidecar_that(Tracing::Sampled { rate: 0.0, exported: true }), 1.0, false),
        (sidecar_that(Tracing::Passed), 1.0, true),
        (sidecar_that(Tracing::Passed), 0.0, false),
        (Limits::default(), 1.0, true),
    ] {
        let mut bench = bench(Tracing::Sampled { rate, exported: true });
        let conn = bench.accept(Listener::Internal);
        let h2 = Connection::new(Role::Client, caller, head::classify, bench.now);
        bench.ends.insert(conn, h2);
        bench.call(conn, &[("dapr-callee-app-id", "client")], Some(MESSAGE));
        let app = bench.dial_done();
        let [text, binary] = told(&bench, app);
        let context = Context::from_text(text.expect("a context").as_bytes()).expect("one");
        assert_eq!((context.is_sampled(), binary.is_some()), (sampled, sampled));
        bench.answer(app, 1, MESSAGE);
        bench.wait(Duration::from_secs(1));
        assert_eq!(bench.spans.len(), usize::from(sampled));
    }
}

/// A second attempt may meet another sidecar than the first.
#[test]
fn an_attempt_at_a_sidecar_that_knows_nothing_is_told_after_all() {
    let spans = Tracing::Sampled { rate: 0.0, exported: true };
    let mut bench = bench(spans);
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &[("dapr-app-id", "server")], Some(MESSAGE));
    bench.resolve();
    let first = bench.dial_done_with(sidecar_that(spans));
    let (_, goodbye) = part(&mut bench, first);
    bench.call(caller, &[("dapr-app-id", "server")], Some(MESSAGE));
    bench.handle(Input::Received { conn: first, bytes: goodbye });
    let second = bench.dial_done();
    assert_eq!(bench.seen[&second].iter().filter(|word| word.contains("HEADERS")).count(), 1);
    assert!(told(&bench, second)[0].as_deref().is_some_and(|text| text.ends_with("-00")));
}
