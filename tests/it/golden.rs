//! Which fields leave a sidecar, hop by hop, beside what a real daprd 1.18.1 sends: names, values,
//! repetition, octet for octet. What differs is said here and in `docs/parity.md`.

use crate::peer::bare::{Answer, exchange};
use crate::peer::ports::claim;
use crate::peer::sidecar::loopback;
use crate::peer::{Kind, Sidecar, World};
use http::{HeaderMap, Request};
use std::sync::{Arc, Mutex};
use tokio::net::TcpStream;

/// Name and value, sorted by name; values of one name in their order.
type Lines = Vec<(String, String)>;

const MESSAGE: &[u8] = b"\0\0\0\0\x05hello";
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What callers send: custom keys, repeated, empty, binary with and without padding, and all that
/// a hop has something to say about.
const SENT: &[(&str, &str)] = &[
    ("te", "trailers"),
    ("content-type", "application/grpc"),
    ("user-agent", "golden/1"),
    ("grpc-accept-encoding", "gzip"),
    ("grpc-timeout", "20S"),
    ("dapr-app-id", "server"),
    ("dapr-stream", "true"),
    ("traceparent", TRACEPARENT),
    ("tracestate", "vendor=1"),
    ("x-one", "1"),
    ("x-one", ""),
    ("x-one", "1"),
    ("x-odd", "a,b; c=\"d\" %41 ~"),
    ("x-binary", "not base64"),
    ("x-data-bin", "AAEC/v8"),
    ("x-data-bin", "/w"),
    ("x-empty-bin", ""),
    ("x-padded-bin", "AAECAw=="),
];

/// And apps.
const HEADER: &[(&str, &str)] =
    &[("x-head", "early"), ("x-head", "again"), ("x-head-bin", "AAEC/v8")];
const TRAILER: &[(&str, &str)] = &[
    ("x-tail", "late"),
    ("x-tail", "later"),
    ("x-tail-bin", "/v8"),
    ("grpc-status-details-bin", "CAkSB25vdCBub3caHAoYdHlwZS5nb29nbGVhcGlzLmNvbS94LlkSAA"),
];

/// An app, or a sidecar's internal port, that keeps what fields it got.
struct Wire {
    port: u16,
    calls: Arc<Mutex<Vec<Lines>>>,
}

impl Wire {
    fn start() -> Self {
        let port = claim();
        let listener = std::net::TcpListener::bind(loopback(port)).expect("the port");
        listener.set_nonblocking(true).expect("a listener for tokio");
        let calls = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&calls);
        // Ends with the test run.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, Arc::clone(&told)));
                }
            });
        });
        Self { port, calls }
    }

    /// The fields of the only call.
    fn fields(&self) -> Lines {
        let calls = self.calls.lock().expect("no server panics").clone();
        assert_eq!(calls.len(), 1, "{calls:?}");
        calls.into_iter().flatten().collect()
    }
}

/// Echoes each call's message between our header and trailer.
async fn serve(stream: TcpStream, told: Arc<Mutex<Vec<Lines>>>) {
    // Whoever only looks whether somebody listens says nothing.
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut answer))) = connection.accept().await {
        let (head, mut body) = request.into_parts();
        let mut fields = lines(&head.headers);
        let uri = &head.uri;
        let text = |part: Option<String>| part.unwrap_or_default();
        fields.push((":method".into(), head.method.to_string()));
        fields.push((":scheme".into(), text(uri.scheme_str().map(str::to_owned))));
        fields.push((":authority".into(), text(uri.authority().map(ToString::to_string))));
        fields.push((":path".into(), text(uri.path_and_query().map(ToString::to_string))));
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        told.lock().expect("no server panics").push(fields);
        tokio::spawn(async move {
            let mut message = Vec::new();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                message.extend_from_slice(&data);
            }
            let mut head = http::Response::builder().header("content-type", "application/grpc");
            for (name, value) in HEADER {
                head = head.header(*name, *value);
            }
            let head = head.body(()).expect("a head");
            let mut out = answer.send_response(head, false).expect("the caller waits");
            out.send_data(message.into(), false).expect("the caller waits");
            let mut trailers = HeaderMap::new();
            for (name, value) in TRAILER.iter().chain(&[("grpc-status", "0")]) {
                trailers.append(*name, value.parse().expect("a value"));
            }
            out.send_trailers(trailers).expect("the caller waits");
        });
    }
}

fn ask(port: u16, more: &[(&str, &str)]) -> Answer {
    let mut request = Request::post(format!("http://127.0.0.1:{port}/probe.Probe/Echo"));
    for (name, value) in SENT.iter().chain(more) {
        request = request.header(*name, *value);
    }
    exchange(port, request.body(()).expect("a request"), MESSAGE).expect("an answer")
}

fn lines(fields: &HeaderMap) -> Lines {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut lines: Lines =
        fields.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    lines
}

fn owned(fields: &[(&str, &str)]) -> Lines {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What both send of a request, whatever the hop.
const SAME: &[(&str, &str)] = &[
    (":method", "POST"),
    (":path", "/probe.Probe/Echo"),
    (":scheme", "http"),
    ("content-type", "application/grpc+proto"),
    ("dapr-stream", "true"),
    ("te", "trailers"),
    ("tracestate", "vendor=1"),
    ("x-binary", "not base64"),
    ("x-data-bin", "AAEC/v8"),
    ("x-data-bin", "/w"),
    ("x-empty-bin", ""),
    ("x-odd", "a,b; c=\"d\" %41 ~"),
    ("x-one", "1"),
    ("x-one", ""),
    ("x-one", "1"),
];

/// What a call's answer is, whatever the hop.
fn check_answer(answer: &Answer, kind: Kind) {
    assert_eq!((answer.status, answer.body.as_slice()), (200, MESSAGE));
    let mut header = owned(HEADER);
    header.push(("content-type".into(), "application/grpc".into()));
    header.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(lines(&answer.header), header, "{kind:?}");
    let mut trailer = owned(TRAILER);
    trailer.push(("grpc-status".into(), "0".into()));
    if kind == Kind::Daprd {
        trailer.push(("grpc-message".into(), String::new()));
    }
    trailer.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(lines(&answer.trailer), trailer, "{kind:?}");
}

/// Takes the fields out of `got` of which the kinds make each their own.
fn split(got: Lines, own: &[&str]) -> (Lines, Lines) {
    got.into_iter().partition(|(name, _)| !own.contains(&name.as_str()))
}

const OWN: [&str; 6] = [
    "grpc-accept-encoding",
    "grpc-timeout",
    "grpc-trace-bin",
    "traceparent",
    "user-agent",
    "x-padded-bin",
];

/// Checks what each kind makes its own of, and returns nothing of it.
fn check_own(own: &Lines, kind: Kind, hop: usize) {
    let values = |name: &str| -> Vec<&str> {
        own.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    };
    let timeouts = values("grpc-timeout");
    assert_eq!(timeouts.len(), 1, "{own:?}");
    let left = ringside::grpc::timeout::parse(timeouts[0].as_bytes()).expect("a timeout");
    assert!((10..=20).contains(&left.as_secs()), "{left:?}");
    match kind {
        Kind::Ringside => {
            assert_eq!(values("user-agent"), ["golden/1"]);
            assert_eq!(values("x-padded-bin"), ["AAECAw=="]);
            assert_eq!(values("grpc-accept-encoding"), ["gzip"]);
            assert_eq!(values("traceparent"), [TRACEPARENT]);
            assert_eq!(values("grpc-trace-bin"), [""; 0]);
        }
        Kind::Daprd => {
            assert_eq!(values("x-padded-bin"), ["AAECAw"]);
            assert!(values("user-agent")[0].starts_with("grpc-go/"), "{own:?}");
            assert_eq!(values("grpc-accept-encoding"), ["gzip", "gzip"]);
            let traces = values("traceparent");
            assert_eq!(traces[0], TRACEPARENT);
            assert_eq!(traces.len(), if hop == 1 { 2 } else { 1 }, "{own:?}");
        }
    }
}

/// From a caller's sidecar to another one.
fn first_hop(kind: Kind) {
    let mut world = World::new(&format!("golden-first-{}", kind.name()));
    world.reserve(&["client"]);
    let other = Wire::start();
    world.host("server", other.port);
    let caller = Sidecar::caller(&world, kind, "client");
    let answer = ask(caller.ports.grpc, &[]);
    check_answer(&answer, kind);
    let (got, own) = split(other.fields(), &OWN);
    check_own(&own, kind, 1);
    let authority = format!("127.0.0.1:{}", other.port);
    let mut expected = owned(SAME);
    expected.extend(owned(&[
        (":authority", &authority),
        ("dapr-caller-app-id", "client"),
        ("dapr-callee-app-id", "server"),
    ]));
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(got, expected);
}

/// From a callee's sidecar to its app.
fn second_hop(kind: Kind) {
    let mut world = World::new(&format!("golden-second-{}", kind.name()));
    world.reserve(&["server"]);
    let app = Wire::start();
    let callee = Sidecar::callee(&world, kind, "server", app.port);
    let more = [("dapr-caller-app-id", "client"), ("dapr-callee-app-id", "server")];
    let answer = ask(callee.ports.internal, &more);
    check_answer(&answer, kind);
    let (got, own) = split(app.fields(), &OWN);
    check_own(&own, kind, 2);
    let authority = format!("127.0.0.1:{}", app.port);
    let mut expected = owned(SAME);
    expected.extend(owned(&more));
    expected.extend(owned(&[(":authority", &authority)]));
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(got, expected);
}

/// A `-bin` value that is no base64: daprd answers in HTTP, ringside leaves it to the callee.
fn judges_binary(kind: Kind) {
    let mut world = World::new(&format!("golden-binary-{}", kind.name()));
    world.reserve(&["client"]);
    let other = Wire::start();
    world.host("server", other.port);
    let caller = Sidecar::caller(&world, kind, "client");
    let bad = ("x-bad-bin", "not base64");
    let answer = ask(caller.ports.grpc, &[bad]);
    match kind {
        Kind::Daprd => {
            assert_eq!((answer.status, answer.last("grpc-status")), (400, "13"));
            assert!(other.calls.lock().expect("no server panics").is_empty());
        }
        Kind::Ringside => {
            assert_eq!((answer.status, answer.last("grpc-status")), (200, "0"));
            let bad = owned(&[bad]).remove(0);
            assert!(other.fields().contains(&bad));
        }
    }
}

#[test]
fn ringside_judges_no_binary() {
    judges_binary(Kind::Ringside);
}

#[test]
fn daprd_judges_binary() {
    judges_binary(Kind::Daprd);
}

#[test]
fn ringsides_first_hop() {
    first_hop(Kind::Ringside);
}

#[test]
fn daprds_first_hop() {
    first_hop(Kind::Daprd);
}

#[test]
fn ringsides_second_hop() {
    second_hop(Kind::Ringside);
}

#[test]
fn daprds_second_hop() {
    second_hop(Kind::Daprd);
}
