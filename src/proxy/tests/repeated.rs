//! Requests that come again, field for field, on one connection.

use super::*;
use std::collections::HashSet;

const TO: [(&str, &str); 1] = [("dapr-callee-app-id", "client")];

/// The latest head of a request but for its trace, and that.
fn told(bench: &Bench, app: ConnId) -> (Vec<String>, Option<String>) {
    let mut heads = bench.seen[&app].iter().filter(|word| word.contains("HEADERS :method"));
    let head = heads.next_back().expect("a request");
    let (_, fields) = head.split_once(' ').expect("a stream");
    let is_trace = |field: &&str| field.starts_with("traceparent=");
    let trace = fields.split(' ').find(is_trace).map(str::to_owned);
    let others = fields.split(' ').filter(|field| !is_trace(field));
    let others = others.filter(|field| !field.starts_with("grpc-trace-bin="));
    (others.map(str::to_owned).collect(), trace)
}

fn kept(bench: &Bench, conn: ConnId) -> usize {
    bench.proxy.peers[conn.into()].repeated.len()
}

/// Each call is told its own trace, and all else as the first one was.
#[test]
fn callees_are_told_what_they_were_told() {
    for (tracing, traced) in [
        (Tracing::Off, false),
        (Tracing::Sampled { rate: 0.0, exported: true }, true),
        (Tracing::Sampled { rate: 1.0, exported: true }, true),
    ] {
        let app_token = Some("apps".into());
        let mut bench = Bench::new(Config { tracing, app_token, ..config() });
        let caller = bench.accept(Listener::Internal);
        let some = [TO[0], ("x-a", "1"), ("dapr-api-token", "callers")];
        let others = [TO[0], ("x-a", "2"), ("te", "trailers")];
        bench.call(caller, &some, Some(MESSAGE));
        let app = bench.dial_done();
        let mut first = vec![told(&bench, app).0];
        let mut traces = HashSet::new();
        for _ in 0..8 {
            for (at, fields) in [&some, &others].into_iter().enumerate() {
                bench.call(caller, fields, Some(MESSAGE));
                let (head, trace) = told(&bench, app);
                if at == first.len() {
                    first.push(head.clone());
                }
                assert_eq!(head, first[at]);
                assert_eq!(trace.is_some(), traced);
                assert!(trace.is_none_or(|trace| traces.insert(trace)), "a trace of its own");
            }
        }
        let all_sampled = tracing == (Tracing::Sampled { rate: 1.0, exported: true });
        assert_eq!(kept(&bench, caller), if all_sampled { 0 } else { 2 });
        let has = |field: &str| first[0].iter().any(|other| other == field);
        assert!(has("dapr-api-token=apps") && !has("dapr-api-token=callers"), "{first:?}");
    }
}

/// What follows from a head follows from the configuration, too.
#[test]
fn another_configuration_is_heeded() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    let fields = [("dapr-app-id", "client")];
    bench.call(caller, &fields, Some(MESSAGE));
    let app = bench.dial_done();
    for _ in 0..5 {
        bench.call(caller, &fields, Some(MESSAGE));
    }
    assert_eq!((kept(&bench, caller), bench.count(app, "HEADERS")), (1, 6));
    let strict = Config { api_token: Some("t".into()), ..config() };
    let last = (*bench.proxy.snapshot).clone();
    let next = Snapshot { epoch: Epoch(last.epoch.0 + 1), config: Arc::new(strict), ..last };
    bench.handle(Input::Snapshot(Arc::new(next)));
    for _ in 0..3 {
        bench.call(caller, &fields, Some(MESSAGE));
    }
    assert_eq!((bench.count(app, "HEADERS"), bench.count(caller, "grpc-status=16 ")), (6, 3));
}

/// Deadlines, contexts and baggage belong to one call.
#[test]
fn what_is_a_calls_own_is_not_kept() {
    for own in [
        ("grpc-timeout", "1H"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"),
        ("grpc-trace-bin", "AABL+S81d7NNpqPOkp0ODkc2AQDwZ6oLqQK3AgE"),
        ("baggage", "a=1"),
    ] {
        let mut bench = Bench::new(config());
        let caller = bench.accept(Listener::Internal);
        for _ in 0..6 {
            bench.call(caller, &[TO[0], own], Some(MESSAGE));
        }
        assert_eq!(kept(&bench, caller), 0, "{own:?}");
    }
}
