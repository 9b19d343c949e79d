//! The HTTP API's requests: what its answers say of traces, and the spans that a real collector
//! gets of them, as daprd's.

use super::collector::{Collector, sorted};
use super::{SPAN, TRACE};
use crate::peer::sidecar::{Options, http_request};
use crate::peer::{Kind, Sidecar, World};
use serde_json::{Value, json};

/// What is asked: a request's first line, its headers, its body.
const ASKED: [(&str, &str, &[&str]); 10] = [
    ("GET", "/v1.0/metadata", &["tracestate: a=b"]),
    ("GET", "/v1.0/metadata?x=y", &["dapr-x: 1", "Dapr-X: 2", "dapr-y-bin: AA", "dapr-z:"]),
    ("PUT", "/v1.0/metadata/a%20b", &["PARENT", "tracestate: a=b , c=d", "tracestate: e=f"]),
    ("GET", "/v1.0/metadata/", &["PARENT", "tracestate: a=b,a=c"]),
    ("GET", "/v1.0/metadata", &["baggage: k=v;p=1, x = y%20z", "baggage: m=n"]),
    ("GET", "//nothing//x?y=1", &["PARENT"]),
    ("GET", "/v1.0/metadata", &["baggage: kv, =", "PARENT"]),
    ("GET", "/v1.0/healthz", &["baggage: kv", "PARENT"]),
    ("GET", "/v1.0/nothing/healthz/x", &["PARENT"]),
    // With it all others have been told of, if they ever are.
    ("GET", "/v1.0/metadata", &["PARENT"]),
];

/// Status and the headers that speak of traces; what is drawn by lot is left out.
fn answered(answer: &str, parent: &str) -> Value {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.lines();
    let status = lines.next().expect("a status line").split(' ').nth(1);
    let mut told = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(": ").expect("a header");
        match name.to_ascii_lowercase().as_str() {
            "traceparent" => {
                let (trace, rest) = value[3..].split_at(32);
                assert_eq!((rest.len(), &rest[17..]), (20, "-01"), "{value}");
                assert!(!parent.contains(&rest[1..17]), "the answer is told of a span of its own");
                told.push(format!("traceparent in the trace: {}", parent.contains(trace)));
            }
            name @ ("tracestate" | "baggage") => told.push(format!("{name}: {value}")),
            _ => {}
        }
    }
    told.sort();
    let body = if status == Some("400") { body } else { "" };
    json!({ "status": status, "told": told, "body": body })
}

/// Answers, and the spans of that trace, in the order of what was asked.
fn asks(collector: &mut Collector, kind: Kind) -> Value {
    let name = format!("tracing-http-{}", kind.name());
    let mut world = World::new(&name);
    world.reserve(&["app"]);
    let spec = format!(
        "tracing:\n  samplingRate: \"1\"\n  otel: {{protocol: http, isSecure: false, \
         endpointAddress: \"127.0.0.1:{}\"}}",
        collector.http
    );
    let env = vec![("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let options = Options { spec: &spec, env, ..Options::default() };
    let sidecar = Sidecar::start(&world, kind, "app", options);
    let mut answers = Vec::new();
    for (number, (verb, path, headers)) in ASKED.into_iter().enumerate() {
        let trace = trace(sidecar.ports.http, number);
        let parent = format!("00-{trace}-{SPAN}-01");
        let lines = headers.iter().map(|line| match *line {
            "PARENT" => format!("traceparent: {parent}\r\n"),
            line => format!("{line}\r\n"),
        });
        let lines: String = lines.collect();
        let answer = http_request(sidecar.ports.http, verb, path, &lines, "");
        answers.push(answered(&answer.expect("an answer"), &parent));
    }
    collector.spans(&trace(sidecar.ports.http, ASKED.len() - 1), 1);
    let mut all = Vec::new();
    for (number, answer) in answers.into_iter().enumerate() {
        let spans = collector.spans(&trace(sidecar.ports.http, number), 0);
        let spans: Vec<_> = spans.iter().map(|told| shape(&told.span)).collect();
        all.push(json!({ "asked": ASKED[number].1, "answer": answer, "spans": spans }));
    }
    all.into()
}

fn trace(port: u16, number: usize) -> String {
    format!("{:032x}", u128::from(port) << 16 | (1 << 8 | number as u128))
}

fn shape(span: &Value) -> Value {
    let mut attributes = sorted(&span["attributes"]);
    for attribute in attributes.as_array_mut().expect("a list") {
        if attribute["key"] == "server.port" {
            let port =
                attribute["value"]["stringValue"].as_str().and_then(|port| port.parse().ok());
            assert!(port.is_some_and(|port: u16| port > 0), "{attribute}");
            attribute["value"] = Value::Null;
        }
    }
    json!({
        "name": span["name"], "kind": span["kind"], "status": span["status"],
        "parent": span["parentSpanId"], "flags": span["flags"], "state": span["traceState"],
        "attributes": attributes,
    })
}

/// Which are spans, what they say, what is answered: the same.
#[test]
fn requests_are_spans_as_daprds() {
    let world = World::new("tracing-http");
    let mut collector = Collector::start(&world, None);
    let daprds = asks(&mut collector, Kind::Daprd);
    let told = |number: usize| &daprds[number]["answer"]["told"];
    assert_eq!(*told(0), json!(["traceparent in the trace: false"]));
    assert_eq!(*told(2), json!(["traceparent in the trace: true", "tracestate: a=b,c=d"]));
    assert_eq!(*told(8), json!([]), "whatever has /healthz in its path");
    assert_eq!(daprds[5]["spans"][0]["status"]["message"], "Code(404): Not Found");
    assert_eq!(asks(&mut collector, Kind::Ringside), daprds);
}

/// Without an exporter and a rate no span is made: the caller's own context comes back. daprd tells
/// zeros where there is none.
#[test]
fn a_callers_context_comes_back() {
    for kind in [Kind::Daprd, Kind::Ringside] {
        let mut world = World::new(&format!("tracing-http-passed-{}", kind.name()));
        world.reserve(&["app"]);
        let sidecar = Sidecar::start(&world, kind, "app", Options::default());
        let ask = |headers: &str| {
            let answer = http_request(sidecar.ports.http, "GET", "/v1.0/metadata", headers, "");
            let answer = answer.expect("an answer").to_ascii_lowercase();
            let told = answer.lines().filter(|line| line.starts_with("trace"));
            told.map(str::to_owned).collect::<Vec<_>>()
        };
        let parent = format!("traceparent: 00-{TRACE}-{SPAN}-01");
        let told = ask(&format!("{parent}\r\ntracestate: a=b\r\n"));
        assert_eq!(told, [parent.as_str(), "tracestate: a=b"], "{kind:?}");
        let zeros = match kind {
            Kind::Daprd => {
                vec![format!("traceparent: 00-{}-{}-00", "0".repeat(32), "0".repeat(16))]
            }
            Kind::Ringside => Vec::new(),
        };
        assert_eq!(ask("tracestate: a=b\r\n"), zeros, "{kind:?}");
        // Nor is baggage looked at where there is no tracing at all.
        let refused =
            http_request(sidecar.ports.http, "GET", "/v1.0/metadata", "baggage: kv\r\n", "");
        assert!(refused.is_some_and(|answer| answer.starts_with("HTTP/1.1 400 ")), "{kind:?}");
        let options = Options { spec: "tracing: {samplingRate: \"0\"}", ..Options::default() };
        world.reserve(&["off"]);
        let off = Sidecar::start(&world, kind, "off", options);
        let headers = format!("baggage: kv\r\n{parent}\r\n");
        let answer = http_request(off.ports.http, "GET", "/v1.0/metadata", &headers, "");
        let answer = answer.expect("an answer").to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 200 "), "{kind:?}: {answer}");
        assert!(!answer.contains("traceparent") && !answer.contains("baggage"), "{answer}");
    }
}
