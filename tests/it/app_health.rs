//! `--enable-app-health-check`, for daprd and ringside alike: apps that are well and ill by turns.

use crate::peer::frames::{FrameApp, Heard, Say, data, headers};
use crate::peer::ports::claim;
use crate::peer::probe::{Call, ProbeApp, mint};
use crate::peer::process::until;
use crate::peer::sidecar::{Options, http_get, loopback, unchunked};
use crate::peer::{Kind, Sidecar, World};
use rustix::process::Signal;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

/// An app of HTTP/1.1 that answers everything with the status that the test says.
struct HttpApp {
    port: u16,
    status: Arc<AtomicU16>,
    ended: Arc<AtomicBool>,
}

impl HttpApp {
    fn start(status: u16) -> Self {
        let port = claim();
        let listener = TcpListener::bind(loopback(port)).expect("the app's port");
        let status = Arc::new(AtomicU16::new(status));
        let ended = Arc::new(AtomicBool::new(false));
        let (told, over) = (Arc::clone(&status), Arc::clone(&ended));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let told = Arc::clone(&told);
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream);
                    // A head ends with an empty line; a GET has no body.
                    let mut line = String::new();
                    while reader.read_line(&mut line).is_ok_and(|octets| octets > 0) {
                        if line == "\r\n" {
                            let status = told.load(Ordering::Relaxed);
                            let answer =
                                format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
                            // A prober may be gone.
                            let _ = reader.get_mut().write_all(answer.as_bytes());
                        }
                        line.clear();
                    }
                });
            }
        });
        Self { port, status, ended }
    }
}

impl Drop for HttpApp {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = std::net::TcpStream::connect(loopback(self.port));
    }
}

/// Two failures are an illness. A probe may take its time, as machines under load do.
const PROBED: [&str; 7] = [
    "--enable-app-health-check",
    "--app-health-probe-interval",
    "2",
    "--app-health-probe-timeout",
    "2000",
    "--app-health-threshold",
    "2",
];

fn start(world: &World, kind: Kind, port: u16, more: &[&'static str]) -> Sidecar {
    let args = PROBED.iter().chain(more).copied().collect();
    let options = Options { app_port: Some(port), args, ..Options::default() };
    Sidecar::start(world, kind, "server", options)
}

/// What the sidecar says of its app's health, in order.
fn said(sidecar: &Sidecar) -> Vec<String> {
    let log = sidecar.process.log();
    let ours = log.lines().filter(|line| line.contains("scope=dapr.apphealth"));
    ours.filter_map(|line| Some(line.split_once(" level=")?.1.split_once(" app_id=")?.0.to_owned()))
        .collect()
}

fn world(name: &str, kind: Kind) -> World {
    let mut world = World::new(&format!("health-{name}-{}", kind.name()));
    world.reserve(&["server"]);
    world
}

/// The method is daprd's, without a token; and a TLS app is asked as a plaintext one is.
fn asks_grpc_apps(kind: Kind) {
    let world = world("grpc", kind);
    let svid = mint(&world, &world.folder("issuer"), "spiffe://public/ns/default/app", &[]);
    for svid in [None, Some(svid.as_path())] {
        let app = ProbeApp::start_at(&world, "app", claim(), svid);
        let protocol = if svid.is_some() { "grpcs" } else { "grpc" };
        let args = PROBED.into_iter().chain(["--app-protocol", protocol]).collect();
        let env = vec![("APP_API_TOKEN", "secret")];
        let options = Options { app_port: Some(app.port), args, env, ..Options::default() };
        let mut sidecar = Sidecar::start(&world, kind, "server", options);
        sidecar.process.wait_for_line("App entered healthy status");
        let probe = until(|| app.seen().into_iter().next()).expect("a probe");
        assert_eq!(probe.method, "/dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck");
        assert!(!probe.metadata.contains_key("dapr-api-token"), "{:?}", probe.metadata);
        assert!(probe.deadline_ms.is_some_and(|ms| ms <= 2000), "{:?}", probe.deadline_ms);
    }
}

/// Ill, well, ill, ill, and well from then on. Nobody but the prober calls.
fn by_turns(heard: &Heard) -> Say {
    if !heard.whole {
        return Say::default();
    }
    let stream = heard.stream;
    if [0, 2, 3].contains(&heard.call) {
        let status = [
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "14"),
            ("grpc-message", "ill"),
        ];
        return Say::frames(&[headers(stream, &status, true)]);
    }
    let head = [(":status", "200"), ("content-type", "application/grpc")];
    let trailers = headers(stream, &[("grpc-status", "0")], true);
    Say::frames(&[headers(stream, &head, false), data(stream, &[0; 5], false), trailers])
}

/// The lines of log, word by word.
fn tells_of_changes(kind: Kind) {
    let world = world("turns", kind);
    let app = FrameApp::start(by_turns);
    let sidecar = start(&world, kind, app.port, &[]);
    let ill = "rpc error: code = Unavailable desc = ill";
    let error = format!("error msg=\"App health probe could not complete with error: {ill}\"");
    let well = "info msg=\"App entered healthy status\"";
    let expected = [
        "info msg=\"App health probes starting\"".to_owned(),
        error.clone(),
        well.to_owned(),
        error.clone(),
        format!("warning msg=\"App entered un-healthy status: Probe error: {ill}\""),
        error,
        well.to_owned(),
    ];
    let told = until(|| (said(&sidecar).len() >= expected.len()).then_some(()));
    assert!(told.is_some(), "{:?}", said(&sidecar));
    assert_eq!(said(&sidecar)[..expected.len()], expected);
}

/// A status other than 2xx is an illness; calls go on, and the metadata tells how it is probed.
fn asks_http_apps(kind: Kind) {
    let world = world("http", kind);
    let app = HttpApp::start(503);
    let args = ["--app-protocol", "http", "--app-health-check-path", "well"];
    let mut sidecar = start(&world, kind, app.port, &args);
    let metadata = metadata_of(&sidecar);
    // Actors wait for an app that is well.
    let expected = serde_json::json!({"runtimeStatus": "INITIALIZING", "hostReady": false});
    assert_eq!(metadata["actorRuntime"], expected);
    let channel = &metadata["appConnectionProperties"];
    let expected = serde_json::json!({
        "port": app.port, "protocol": "http", "channelAddress": "127.0.0.1",
        "health": {
            "healthCheckPath": "well", "healthProbeInterval": "2s", "healthProbeTimeout": "2s",
            "healthThreshold": 2
        }
    });
    assert_eq!(channel, &expected);
    app.status.store(204, Ordering::Relaxed);
    sidecar.process.wait_for_line("App entered healthy status");
    let disabled = until(|| {
        let status = &metadata_of(&sidecar)["actorRuntime"]["runtimeStatus"];
        (status == "DISABLED").then_some(())
    });
    assert!(disabled.is_some());
    app.status.store(302, Ordering::Relaxed);
    let text = "App entered un-healthy status: Health check failed with status code: 302";
    sidecar.process.wait_for_line(text);
}

fn metadata_of(sidecar: &Sidecar) -> Value {
    let answer = http_get(sidecar.ports.http, "/v1.0/metadata").expect("an answer");
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    // It may come in chunks.
    let json = body.get(body.find('{').expect("JSON")..=body.rfind('}').expect("JSON"));
    serde_json::from_str(json.unwrap_or_default()).expect("JSON")
}

/// Nobody's call is refused because the app is ill.
fn passes_calls_to_an_ill_app(kind: Kind) {
    let world = world("calls", kind);
    // A probe is an empty message; whatever else comes is a call, and echoed.
    let app = FrameApp::start(|heard| match heard.body.is_empty() || heard.body == [0; 5] {
        true if heard.whole => Say::frames(&[headers(
            heard.stream,
            &[(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "13")],
            true,
        )]),
        true => Say::default(),
        false => {
            let head = [(":status", "200"), ("content-type", "application/grpc")];
            let trailers = headers(heard.stream, &[("grpc-status", "0")], true);
            let body = data(heard.stream, &heard.body, false);
            Say::frames(&[headers(heard.stream, &head, false), body, trailers])
        }
    });
    let mut sidecar = start(&world, kind, app.port, &[]);
    sidecar.process.wait_for_line("App health probe could not complete with error");
    let call = Call::to(&sidecar.address()).app("server").run(&world, "ill");
    assert_eq!(call.status(), ("OK", ""));
    assert!(!sidecar.process.log().contains("App entered healthy status"));
}

/// An app that falls ill ends the time that a shutdown is blocked for.
fn ends_a_blocked_shutdown(kind: Kind) {
    let world = world("block", kind);
    let app = HttpApp::start(200);
    let args = ["--app-protocol", "http", "--dapr-block-shutdown-duration", "10m"];
    let mut sidecar = start(&world, kind, app.port, &args);
    sidecar.process.wait_for_line("App entered healthy status");
    sidecar.process.signal(Signal::TERM);
    sidecar.process.wait_for_line("Blocking graceful shutdown for 10m0s or until app reports");
    app.status.store(500, Ordering::Relaxed);
    sidecar.process.wait_for_line("App reported unhealthy, entering shutdown...");
    assert_eq!(sidecar.process.wait_for_end().code(), Some(0), "{}", sidecar.process.tail());
}

/// The series of probes (names, labels, kinds and help) as soon as they tell so many results.
fn probes(sidecar: &Sidecar, results: usize) -> Vec<String> {
    let told = |line: &&str| {
        line.contains("_healthprobes_") && !line.contains("_bucket{") && !line.contains("_sum{")
    };
    let mut lines = Vec::new();
    let all = until(|| {
        let answer = http_get(sidecar.ports.metrics, "/")?;
        lines = unchunked(&answer).lines().filter(told).map(str::to_owned).collect();
        // Two series, each with a head of two lines.
        (lines.len() == 4 + 2 * results).then_some(())
    });
    assert!(all.is_some(), "{lines:#?}");
    for line in lines.iter_mut().filter(|line| !line.starts_with('#')) {
        line.truncate(line.rfind(' ').unwrap_or(line.len()));
    }
    lines.sort();
    lines
}

#[test]
fn counts_probes_as_daprd_does() {
    let of = |kind: Kind| {
        let world = world("series", kind);
        let (grpc, http) = (FrameApp::start(by_turns), HttpApp::start(500));
        let sidecar = start(&world, kind, grpc.port, &[]);
        let told = probes(&sidecar, 2);
        drop(sidecar);
        let mut sidecar = start(&world, kind, http.port, &["--app-protocol", "http"]);
        probes(&sidecar, 1);
        http.status.store(204, Ordering::Relaxed);
        sidecar.process.wait_for_line("App entered healthy status");
        (told, probes(&sidecar, 2))
    };
    assert_eq!(of(Kind::Ringside), of(Kind::Daprd));
}

macro_rules! kinds {
    ($($module:ident: $kind:ident, $($test:ident)*;)*) => {$(
        mod $module {
            use super::*;
            $(
                #[test]
                fn $test() {
                    super::$test(Kind::$kind);
                }
            )*
        }
    )*};
}

kinds! {
    daprd: Daprd, asks_grpc_apps tells_of_changes asks_http_apps passes_calls_to_an_ill_app
        ends_a_blocked_shutdown;
    ringside: Ringside, asks_grpc_apps tells_of_changes asks_http_apps passes_calls_to_an_ill_app
        ends_a_blocked_shutdown;
}
