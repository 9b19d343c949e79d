//! Baggage: what is refused, what comes back, and where.

use super::*;
use crate::observe::cells::Hop;

const HEAD: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/grpc+proto")];
const GIVEN: [(&str, &str); 3] =
    [("dapr-app-id", "client"), ("baggage", "k = v;p=1"), ("baggage", "x=y%20z")];
const BACK: &str = "baggage=k=v;p=1,x=y%20z";
const NONE: [(&str, &str); 2] = [("dapr-app-id", "client"), ("baggage", "kv")];
const REFUSED: &str = "grpc-status=3 grpc-message=invalid baggage header: invalid baggage \
                       list-member: \"kv\" END";

/// A call to our own app, by the API port.
fn begin(bench: &mut Bench) -> (ConnId, ConnId) {
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &GIVEN, Some(MESSAGE));
    (caller, bench.dial_done())
}

#[test]
fn comes_back_in_the_head() {
    let mut bench = Bench::new(config());
    let (caller, app) = begin(&mut bench);
    // What came goes on.
    let seen = bench.seen[&app].join("\n");
    assert!(seen.contains("baggage=k = v;p=1 baggage=x=y%20z"), "{seen}");
    bench.answer(app, 1, MESSAGE);
    let head = format!("1 HEADERS :status=200 content-type=application/grpc {BACK}");
    let rest = ["1 DATA 7", "1 HEADERS grpc-status=0 END"];
    assert_eq!(bench.seen[&caller], [&head, rest[0], rest[1]]);
    // The next call has none.
    bench.call(caller, &GIVEN[..1], Some(MESSAGE));
    bench.answer(app, 3, MESSAGE);
    assert_eq!(bench.count(caller, "baggage"), 1);
}

/// By the callee's sidecar, which may be daprd; other baggage is the app's own.
#[test]
fn what_is_said_is_not_said_again() {
    let mut bench = Bench::new(config());
    let (caller, app) = begin(&mut bench);
    bench.say(app, 1, &[&HEAD[..], &[("baggage", "k=v;p=1,x=y%20z")]].concat(), false);
    bench.call(caller, &GIVEN, Some(MESSAGE));
    bench.say(app, 3, &[&HEAD[..], &[("baggage", "mine=1")]].concat(), false);
    let [one, two] = &bench.seen[&caller][..] else { panic!("{:?}", bench.seen[&caller]) };
    assert_eq!(one.matches("baggage=").count(), 1, "{one}");
    assert!(two.ends_with(&format!("baggage=mine=1 {BACK}")), "{two}");
}

/// Callers look for it in a head, so a failure gets one: the callee's, and ours.
#[test]
fn a_failed_call_has_a_head_of_its_own() {
    let mut bench = Bench::new(config());
    let (caller, app) = begin(&mut bench);
    let head = format!("HEADERS :status=200 content-type=application/grpc {BACK}");
    let end = [("grpc-status", "5"), ("grpc-message", "no"), ("x-mine", "1")];
    bench.say(app, 1, &[&HEAD[..], &end].concat(), true);
    let trailers = "1 HEADERS grpc-status=5 grpc-message=no x-mine=1 END".to_owned();
    assert_eq!(bench.seen[&caller], [format!("1 {head}"), trailers]);
    // Of an app that says no content type.
    bench.call(caller, &GIVEN, Some(MESSAGE));
    bench.say(app, 3, &[HEAD[0], end[0]], true);
    let trailers = "3 HEADERS grpc-status=5 END".to_owned();
    assert_eq!(bench.seen[&caller][2..], [format!("3 {head}"), trailers]);
    bench.call(caller, &GIVEN, Some(MESSAGE));
    bench.reset(app, 5, 2);
    let seen = &bench.seen[&caller][4..];
    assert_eq!(seen[0], format!("5 {head}"));
    assert!(seen[1].starts_with("5 HEADERS grpc-status=13 ") && seen[1].ends_with(" END"));
    assert_eq!((seen.len(), bench.proxy.calls()), (2, 0));
}

/// As daprd's unary interceptor does, with the context of the span.
#[test]
fn daprs_own_methods_tell_it_too() {
    let context = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let own = "grpc-trace-bin=AABL+S81d7NNpqPOkp0ODkc2AQDwZ6oLqQK3AgE";
    for (tracing, expected) in [
        (Tracing::Off, vec![]),
        (Tracing::Passed, vec![BACK, own]),
        // A span of its own, in the same trace.
        (Tracing::Sampled { rate: 0.0, exported: false }, vec![BACK, &own[..38]]),
    ] {
        let mut bench = Bench::new(Config { tracing, ..config() });
        let caller = bench.accept(Listener::Api);
        let mut fields = FieldSection::new();
        let path = (":path", "/dapr.proto.runtime.v1.Dapr/GetMetadata");
        let grpc = [("content-type", "application/grpc"), context];
        for (name, value) in [(":method", "POST"), (":scheme", "http"), path].iter().chain(&grpc) {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        GIVEN.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value.as_bytes()));
        let stream = bench.ends.get_mut(&caller).unwrap().open(fields, false, 0).unwrap();
        bench.send(caller, stream, &[0; 5], true);
        let call = bench.asked.last().expect("a question").call;
        bench.handle(Input::Answered { call, answer: Ok(Bytes::new()) });
        let head = bench.seen[&caller][0].split(' ').skip(4).collect::<Vec<_>>();
        assert_eq!(head.len(), expected.len(), "{tracing:?}: {head:?}");
        for (field, expected) in head.iter().zip(expected) {
            assert!(field.starts_with(expected), "{tracing:?}: {field}");
        }
    }
}

/// By both ports that daprd has, before there is a look at the target; behind the token.
#[test]
fn what_is_none_is_refused() {
    let mut bench = Bench::new(Config {
        tracing: Tracing::Sampled { rate: 1.0, exported: true },
        api_token: Some("s3cret".into()),
        ..config()
    });
    let (api, internal) = (bench.accept(Listener::Api), bench.accept(Listener::Internal));
    bench.call(api, &NONE, Some(MESSAGE));
    assert!(bench.last(api).contains("grpc-status=16"), "{}", bench.last(api));
    bench.call(api, &[("dapr-api-token", "s3cret"), NONE[1]], Some(MESSAGE));
    assert!(bench.last(api).ends_with(REFUSED), "{}", bench.last(api));
    bench.call(internal, &[("dapr-callee-app-id", "client"), NONE[1]], Some(MESSAGE));
    assert!(bench.last(internal).ends_with(REFUSED), "{}", bench.last(internal));
    // Nobody behind that interceptor hears of it: no series, no span.
    bench.wait(Duration::from_secs(1));
    assert!(bench.spans.is_empty() && bench.dialed.is_empty());
    let cells = counted(&mut bench);
    let told: usize = cells.methods().map(|(.., told)| told.completed.len()).sum();
    assert_eq!(told, 1, "the call without a token");
    assert_eq!(cells.hop(Hop::Outbound).calls[3], 1, "our own series tell it");
}

/// Where nobody looks at traces, where nobody knows of Dapr, and from sidecar to sidecar.
#[test]
fn elsewhere_it_passes() {
    let off = Config { tracing: Tracing::Off, ..config() };
    for (config, listener, given) in
        [(off, Listener::Api, NONE[1]), (config(), Listener::Internal, GIVEN[1])]
    {
        let mut bench = Bench::new(config);
        let caller = bench.accept(listener);
        bench.call(caller, &[("dapr-app-id", "client"), given], Some(MESSAGE));
        let app = bench.dial_done();
        let passed = format!("baggage={}", given.1);
        assert_eq!(bench.count(app, &passed), 1, "{listener:?}");
        bench.answer(app, 1, MESSAGE);
        assert_eq!(bench.seen[&caller][0], "1 HEADERS :status=200 content-type=application/grpc");
    }
}
