//! The HTTP ports and the metrics, ringside's beside daprd's: the same requests and the same
//! calls, the same answers and the same series.

use crate::peer::app::App;
use crate::peer::probe::{Call, ProbeApp};
use crate::peer::process::until;
use crate::peer::sidecar::{Options, http_get, http_request, unchunked};
use crate::peer::{Kind, Sidecar, World};
use serde_json::Value;
use std::collections::BTreeMap;

/// Status, content type and body of an answer.
fn told(answer: &str) -> (String, String, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default();
    let named = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-type").then(|| value.to_owned())
    };
    (status.to_owned(), lines.find_map(named).unwrap_or_default(), body.to_owned())
}

/// Method, path and header lines of requests that both must answer alike.
const REQUESTS: [(&str, &str, &str); 20] = [
    ("GET", "/v1.0/healthz", ""),
    ("GET", "/v1.0/healthz/", ""),
    ("GET", "//v1.0//healthz", ""),
    ("GET", "/v1.0/x/../healthz", ""),
    ("GET", "/v1.0/healthz?appid=server", ""),
    ("GET", "/v1.0/healthz?appid=other", ""),
    ("GET", "/v1.0/healthz?appid", ""),
    ("GET", "/v1.0/healthz/outbound", ""),
    ("POST", "/v1.0/healthz", ""),
    ("HEAD", "/v1.0/healthz", ""),
    ("GET", "/", ""),
    ("GET", "/v1.0", ""),
    ("GET", "/v1.0/shutdown", ""),
    ("PUT", "/v1.0/metadata/key", ""),
    ("PUT", "/v1.0/metadata/a%2Fb+c", ""),
    ("PUT", "/v1.0/metadata/%zz", ""),
    ("PUT", "/v1.0/metadata/a/b", ""),
    ("DELETE", "/v1.0/metadata", ""),
    ("GET", "/v1.0/invoke/server", ""),
    ("GET", "/nowhere", "Authorization: Basic !!!\r\n"),
];

/// The same behind a token.
const GUARDED: [(&str, &str, &str); 7] = [
    ("GET", "/v1.0/healthz", ""),
    ("GET", "//v1.0/healthz/outbound", ""),
    ("POST", "/v1.0/healthz", ""),
    ("GET", "/v1.0/metadata", ""),
    ("GET", "/v1.0/metadata", "dapr-api-token: wrong\r\n"),
    ("GET", "/v1.0/x/../healthz", ""),
    ("GET", "/nowhere", "dapr-api-token: secret\r\n"),
];

fn compare(daprd: &Sidecar, ours: &Sidecar, requests: &[(&str, &str, &str)]) {
    for (method, path, header) in requests {
        let ask = |sidecar: &Sidecar| {
            let answer = http_request(sidecar.ports.http, method, path, header, "value");
            told(&answer.expect("an answer"))
        };
        assert_eq!(ask(ours), ask(daprd), "{method} {path} {header}");
    }
}

/// The metadata, without what differs by nature: versions, and an order that daprd leaves open.
fn metadata(sidecar: &Sidecar) -> (Vec<String>, Value) {
    let answer = http_get(sidecar.ports.http, "/v1.0/metadata").expect("an answer");
    let (status, kind, body) = told(&answer);
    assert_eq!((status.as_str(), kind.as_str()), ("200", "application/json"));
    assert!(body.ends_with("}\n"), "{body}");
    let mut value: Value = serde_json::from_str(&body).expect("JSON");
    // The order of the keys, by where they are.
    let fields = value.as_object().expect("an object");
    let mut keys: Vec<String> = fields.keys().cloned().collect();
    keys.sort_by_key(|key| body.find(&format!("\"{key}\":")));
    value["runtimeVersion"] = "".into();
    value["extended"]["daprRuntimeVersion"] = "".into();
    value["appConnectionProperties"]["port"] = 0.into();
    if let Some(features) = value["enabledFeatures"].as_array_mut() {
        features.sort_by_key(Value::to_string);
    }
    (keys, value)
}

fn callee(world: &World, kind: Kind, env: Vec<(&'static str, &'static str)>) -> (Sidecar, App) {
    let app = App::greeter(world);
    let options = Options { app_port: Some(app.port), env, ..Options::default() };
    (Sidecar::start(world, kind, "server", options), app)
}

#[test]
fn answers_http_as_daprd_does() {
    let mut worlds = [World::new("admin-http-daprd"), World::new("admin-http-ringside")];
    worlds.iter_mut().for_each(|world| world.reserve(&["server"]));
    let (daprd, _app) = callee(&worlds[0], Kind::Daprd, vec![]);
    let (ours, _other) = callee(&worlds[1], Kind::Ringside, vec![]);
    // The app's health has no say, and Dapr's own start may take a little longer.
    compare(&daprd, &ours, &REQUESTS);
    assert_eq!(metadata(&ours), metadata(&daprd));
}

#[test]
fn guards_http_as_daprd_does() {
    let mut worlds = [World::new("admin-token-daprd"), World::new("admin-token-ringside")];
    worlds.iter_mut().for_each(|world| world.reserve(&["server"]));
    let token = || vec![("DAPR_API_TOKEN", "secret")];
    let (daprd, _app) = callee(&worlds[0], Kind::Daprd, token());
    let (ours, _other) = callee(&worlds[1], Kind::Ringside, token());
    compare(&daprd, &ours, &GUARDED);
}

/// The series that calls move, each with its value; of histograms the counts.
const SERIES: [&str; 5] = [
    "dapr_runtime_service_invocation_req_sent_total{",
    "dapr_runtime_service_invocation_res_recv_total{",
    "dapr_runtime_service_invocation_res_recv_latency_ms_count{",
    "dapr_grpc_io_server_completed_rpcs{",
    "dapr_grpc_io_server_server_latency_count{",
];

fn series(sidecar: &Sidecar) -> BTreeMap<String, String> {
    let answer = http_get(sidecar.ports.metrics, "/").expect("an answer");
    let answer = unchunked(&answer);
    let moved = |line: &&str| SERIES.iter().any(|series| line.starts_with(series));
    let split = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.to_owned()))
    };
    let mut found: BTreeMap<String, String> =
        answer.lines().filter(moved).filter_map(split).collect();
    // daprd tells its own calls of these, which are none of ours.
    found.retain(|name, _| !name.contains("/dapr.proto."));
    found
}

/// Every way in which a call can go, through a caller of this kind.
fn calls(kind: Kind, name: &str) -> BTreeMap<String, String> {
    let mut world = World::new(name);
    world.reserve(&["server", "client"]);
    world.dead_host("dead");
    let app = ProbeApp::start(&world);
    let _callee = Sidecar::callee(&world, Kind::Daprd, "server", app.port);
    let own = Options { app_port: Some(app.port), ..Options::default() };
    let caller = Sidecar::start(&world, kind, "client", own);
    let call = || Call::to(&caller.address());
    let streaming = |call: Call| call.metadata("dapr-stream", "true");
    let all = [
        call().app("server"),
        call().app("server"),
        call().app("server.default"),
        call().app("server").metadata("probe-code", "6"),
        streaming(call().app("server")),
        call().app("client"),
        call().app("client.elsewhere"),
        call().app("dead"),
        streaming(call().app("dead")),
        call().app("nobody"),
        call().app("a.b.c"),
        call(),
        call().metadata("dapr-callee-app-id", "server"),
        call().app("nobody").metadata("dapr-callee-app-id", "server"),
    ];
    for (n, call) in all.into_iter().enumerate() {
        call.run(&world, &format!("call-{n}"));
    }
    // A call is counted after its caller has its answer.
    let mut last = BTreeMap::new();
    until(|| {
        let now = series(&caller);
        (std::mem::replace(&mut last, now.clone()) == now).then_some(())
    });
    last
}

#[test]
fn counts_calls_as_daprd_does() {
    let daprd = calls(Kind::Daprd, "admin-metrics-daprd");
    let ours = calls(Kind::Ringside, "admin-metrics-ringside");
    let shown = |found: &BTreeMap<String, String>| {
        found.iter().map(|(name, value)| format!("{name} {value}\n")).collect::<String>()
    };
    assert!(!daprd.is_empty());
    assert_eq!(shown(&ours), shown(&daprd), "ringside's first, then daprd's");
}
