//! What callees are told of the trace that a call belongs to.

use super::*;
use crate::config::Tracing;
use crate::http2::ErrorCode;

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
    let mut bench = bench(Tracing::Sampled { rate: 0.0 });
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
