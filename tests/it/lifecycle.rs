//! Start, readiness, the HTTP port and the end, as daprd has them.

use crate::peer::netns::run_id;
use crate::peer::ports::claim;
use crate::peer::probe::{Call, ProbeApp, mint, outcome};
use crate::peer::process::{PATIENCE, Process, command, until};
use crate::peer::sidecar::{Options, http_get, http_request, http_status};
use crate::peer::{Kind, Sentry, Sidecar, World};
use rustix::process::Signal;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

fn world(name: &str, kind: Kind) -> World {
    World::new(&format!("lifecycle-{name}-{}", kind.name()))
}

/// Arguments that stop a sidecar before it starts; exit code; text of the last words.
const REFUSED: [(&[&str], i32, &str); 9] = [
    (&["--nope"], 2, "unknown flag: --nope"),
    (&["--app-id", "a", "--dapr-graceful-shutdown-seconds", "x"], 2, "invalid argument \"x\""),
    (&["--app-id", ""], 1, "Fatal error from runtime: parameter app-id cannot be empty"),
    (&["--app-id", "a.b"], 1, "Fatal error from runtime: parameter app-id cannot contain dots"),
    (
        &["--app-id", "a", "--enable-mtls"],
        1,
        "Fatal error from runtime: trust anchors are required",
    ),
    (
        &["--app-id", "a", "--app-port", "3500"],
        1,
        "Fatal error from runtime: the 'dapr-http-port' argument value 3500 conflicts with \
         'app-port'",
    ),
    (&["--app-id", "a", "--mode", "q"], 1, "Fatal error from runtime: invalid mode: q"),
    (&["--app-id", "a", "--log-level", "q"], 1, "invalid value for --log-level: q"),
    (
        &["--app-id", "a", "--app-protocol", "q"],
        1,
        "Fatal error from runtime: invalid value for 'app-protocol': q",
    ),
];

fn refuses_bad_flags(kind: Kind) {
    let world = world("flags", kind);
    for (n, (args, code, text)) in REFUSED.iter().enumerate() {
        let mut sidecar = command(kind.program());
        sidecar.args(*args);
        let mut sidecar = Process::start(&world.folder("flags"), &n.to_string(), sidecar);
        let ended = sidecar.wait_for_end();
        assert_eq!(ended.code(), Some(*code), "{args:?}\n{}", sidecar.tail());
        assert!(sidecar.log().contains(text), "{args:?}: no {text:?}\n{}", sidecar.tail());
    }
}

fn names_itself(kind: Kind) {
    let world = world("version", kind);
    let say = |flag: &str| {
        let mut sidecar = command(kind.program());
        sidecar.arg(flag);
        let mut sidecar = Process::start(&world.folder("version"), flag, sidecar);
        assert!(sidecar.wait_for_end().success(), "{flag}");
        sidecar.log()
    };
    // Single and double dashes are the same to daprd.
    assert_eq!(say("--version"), say("-version"));
    assert_eq!(say("--version").lines().count(), 1);
    let info = say("--build-info");
    let names: Vec<&str> = info.lines().filter_map(|line| Some(line.split_once(": ")?.0)).collect();
    assert_eq!(names, ["Version", "Git Commit", "Git Version"]);
}

/// Outbound is healthy before the app listens; all of it only after.
fn waits_for_the_app(kind: Kind) {
    let mut world = world("waits", kind);
    world.reserve(&["server"]);
    let port = claim();
    let options = Options { app_port: Some(port), await_app: false, ..Options::default() };
    let mut sidecar = Sidecar::start(&world, kind, "server", options);
    let http = sidecar.ports.http;
    sidecar.process.wait("outbound health", |_| {
        (http_status(http, "/v1.0/healthz/outbound")? == 204).then_some(())
    });
    let answer = http_get(http, "/v1.0/healthz").expect("an answer");
    assert!(answer.contains(" 500 ") && answer.contains("ERR_HEALTH_NOT_READY"), "{answer}");
    let call = Call::to(&sidecar.address()).app("server").run(&world, "early");
    assert_eq!(call.code, "Unavailable", "{}", call.message);
    let _app = ProbeApp::start_at(&world, "app", port, None);
    sidecar.process.wait("health", |_| (http_status(http, "/v1.0/healthz")? == 204).then_some(()));
    // daprd backs off for a second after the early call's failed dial.
    let served = until(|| {
        let call = Call::to(&sidecar.address()).app("server").run(&world, "late");
        (call.code == "OK").then_some(())
    });
    assert!(served.is_some(), "{}", sidecar.process.tail());
    sidecar.process.wait_for_line(&format!("application discovered on port {port}"));
    sidecar.process.wait_for_line("dapr initialized. Status: Running. Init Elapsed ");
}

/// Nothing opens before there is an identity; then all goes on by itself.
fn waits_for_sentry(kind: Kind) {
    let mut world = World::with_sentry(&format!("lifecycle-sentry-{}", kind.name()));
    world.reserve(&["client"]);
    let ports = world.ports("client");
    // The root of the first Sentry stays in its folder; only its process goes.
    let first = world.sentry.take().expect("a Sentry");
    let (anchors, port) = (first.anchors.clone(), first.port);
    drop(first);
    let address = format!("localhost:{port}");
    let mut sidecar = command(kind.program());
    for (flag, port) in [("--dapr-grpc-port", ports.grpc), ("--dapr-http-port", ports.http)] {
        sidecar.args([flag, &port.to_string()]);
    }
    sidecar.args(["--app-id", "client", "--enable-mtls", "--sentry-address", &address]);
    sidecar.args(["--dapr-internal-grpc-port", &ports.internal.to_string()]);
    sidecar.args(["--metrics-port", &ports.metrics.to_string()]);
    sidecar.env("DAPR_TRUST_ANCHORS", anchors).env("NAMESPACE", "default");
    let mut sidecar = Process::start(&world.folder("sidecar"), "client", sidecar);
    sidecar.wait_for_line("Fetching initial identity");
    assert!(TcpStream::connect(("127.0.0.1", ports.grpc)).is_err(), "open without an identity");
    let folder = world.folder("sentry");
    let _second = Sentry::start_at(&folder, "mtls: {enabled: true}", port);
    sidecar.wait("health", |_| (http_status(ports.http, "/v1.0/healthz")? == 204).then_some(()));
    sidecar.wait_for_line("Security is initialized successfully");
}

fn metadata(port: u16) -> Value {
    let answer = http_get(port, "/v1.0/metadata").expect("an answer");
    let json = answer.split_once("\r\n\r\n").expect("a body").1;
    let json = json.get(json.find('{').expect("JSON")..=json.rfind('}').expect("JSON"));
    serde_json::from_str(json.unwrap_or_default()).expect("JSON")
}

fn serves_metadata(kind: Kind) {
    let mut world = world("metadata", kind);
    world.reserve(&["server"]);
    let app = ProbeApp::start(&world);
    let sidecar = Sidecar::callee(&world, kind, "server", app.port);
    let http = sidecar.ports.http;
    let answer = http_request(http, "PUT", "/v1.0/metadata/cliPID", "", "4711").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    let metadata = metadata(http);
    assert_eq!(metadata["id"], "server");
    assert_eq!(metadata["extended"]["cliPID"], "4711");
    assert!(metadata["extended"]["daprRuntimeVersion"].is_string(), "{metadata}");
    let channel = &metadata["appConnectionProperties"];
    assert_eq!((&channel["port"], &channel["protocol"]), (&app.port.into(), &"grpc".into()));
    assert_eq!(channel["channelAddress"], "127.0.0.1");
}

fn shuts_down_by_request(kind: Kind) {
    let mut world = world("request", kind);
    world.reserve(&["client"]);
    let mut sidecar = Sidecar::caller(&world, kind, "client");
    let http = sidecar.ports.http;
    let answer = http_request(http, "POST", "/v1.0/shutdown", "", "").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    assert_eq!(sidecar.process.wait_for_end().code(), Some(0), "{}", sidecar.process.tail());
    sidecar.process.wait_for_line("Daprd shutdown gracefully");
}

/// A call in flight holds the first SIGTERM back; the second does not wait for it.
fn ends_at_the_second_signal(kind: Kind) {
    let mut world = world("signals", kind);
    world.reserve(&["server"]);
    let app = ProbeApp::start(&world);
    let mut sidecar = Sidecar::callee(&world, kind, "server", app.port);
    let call = Call::to(&sidecar.address()).app("server").metadata("probe-sleep-ms", "60000");
    let mut call = call.start(&world, "in-flight");
    until(|| (app.seen().len() == 1).then_some(())).expect("the call at the app");
    sidecar.process.signal(Signal::TERM);
    // Refusing new connections is the sign that the drain has begun.
    let port = sidecar.ports.grpc;
    let begun = until(|| TcpStream::connect(("127.0.0.1", port)).err());
    assert!(begun.is_some() && sidecar.process.running(), "{}", sidecar.process.tail());
    sidecar.process.signal(Signal::TERM);
    assert_eq!(sidecar.process.wait_for_end().code(), Some(1), "{}", sidecar.process.tail());
    call.wait_for_end();
    assert_eq!(outcome(&call).code, "Unavailable");
}

/// The API over a Unix socket, which is gone afterwards.
fn listens_on_a_unix_socket(kind: Kind) {
    let mut world = world("unix", kind);
    world.reserve(&["server"]);
    let app = ProbeApp::start(&world);
    // A socket's path has at most 107 octets; the test's own folder may be longer.
    let folder = std::env::temp_dir().join(format!("ringside-{}-{}", run_id(), app.port));
    std::fs::create_dir_all(&folder).expect("a folder for sockets");
    let args = vec!["--unix-domain-socket", folder.to_str().expect("a plain path")];
    let options =
        Options { app_port: Some(app.port), args, await_api: false, ..Options::default() };
    let mut sidecar = Sidecar::start(&world, kind, "server", options);
    sidecar.process.wait_for_line("dapr initialized. Status: Running");
    let socket = folder.join("dapr-server-grpc.socket");
    let call = Call::to_unix(&socket).app("server").run(&world, "unix");
    assert_eq!(call.status(), ("OK", ""));
    assert!(TcpStream::connect(("127.0.0.1", sidecar.ports.grpc)).is_err());
    assert_eq!(sidecar.process.terminate().code(), Some(0));
    assert!(!socket.exists(), "the socket is left behind");
    std::fs::remove_dir_all(&folder).expect("the sockets' folder goes");
}

fn grpcs<'a>(port: u16, await_app: bool) -> Options<'a> {
    let args = vec!["--app-protocol", "grpcs"];
    Options { app_port: Some(port), args, await_app, ..Options::default() }
}

/// An app that speaks TLS, with a certificate that nobody knows.
fn serves_a_tls_app(kind: Kind) {
    let mut world = world("grpcs", kind);
    world.reserve(&["server"]);
    let svid = mint(&world, &world.folder("issuer"), "spiffe://public/ns/default/app", &[]);
    let mut app = ProbeApp::start_at(&world, "tls-app", claim(), Some(&svid));
    let sidecar = Sidecar::start(&world, kind, "server", grpcs(app.port, true));
    let call = Call::to(&sidecar.address()).app("server");
    let call = call.args(&["-messages", "3", "-size", "70000"]).run(&world, "tls");
    assert_eq!((call.status(), call.messages, call.mismatch), (("OK", ""), 3, false));
    assert_eq!(app.ends(1)[0].bytes, 210_000);
}

/// The app does not speak TLS after all.
fn a_plaintext_app_is_no_grpcs_app(kind: Kind) {
    let mut world = world("no-grpcs", kind);
    world.reserve(&["server"]);
    let app = ProbeApp::start(&world);
    let sidecar = Sidecar::start(&world, kind, "server", grpcs(app.port, false));
    let call = Call::to(&sidecar.address()).app("server").args(&["-deadline", "20s"]);
    let got = call.run(&world, "no-tls");
    let text = "transport: authentication handshake failed: tls: first record does not look like \
                a TLS handshake";
    assert_eq!(got.code, "Unavailable", "{}", got.message);
    assert!(got.message.contains(text), "{}", got.message);
    assert!(got.elapsed_ms < 10_000, "{}", got.elapsed_ms);
    assert!(app.seen().is_empty());
}

/// The app is looked for with a handshake, and by its name: one that does not answer in TLS is not
/// there yet.
fn waits_for_a_handshake(kind: Kind) {
    let mut world = world("handshake", kind);
    world.reserve(&["server"]);
    let app = TcpListener::bind(("127.0.0.1", 0)).expect("an app");
    app.set_nonblocking(true).expect("bounded waits");
    let port = app.local_addr().expect("its address").port();
    let args = vec!["--app-protocol", "grpcs", "--app-channel-address", "localhost"];
    let options = Options { app_port: Some(port), args, await_app: false, ..Options::default() };
    let sidecar = Sidecar::start(&world, kind, "server", options);
    // The second one comes because the first was not enough.
    for _ in 0..2 {
        let (mut dial, _) = until(|| app.accept().ok()).expect("a dial");
        dial.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let mut hello = [0; 4096];
        let length = dial.read(&mut hello).expect("a ClientHello");
        let hello = hello.get(..length).unwrap_or_default();
        // RFC 8446 §5.1: a handshake record; RFC 6066 §3: the name in clear.
        assert_eq!(hello.get(..2), Some(&[0x16, 0x03][..]), "{hello:?}");
        assert!(hello.windows(9).any(|octets| octets == b"localhost"), "no SNI");
        dial.write_all(b"no TLS here").expect("an answer");
    }
    assert_eq!(http_status(sidecar.ports.http, "/v1.0/healthz"), Some(500));
    assert!(!sidecar.process.log().contains("application discovered on port"));
}

/// `--app-channel-address`, and what the app hears of it.
fn serves_an_app_at_another_address(kind: Kind) {
    let mut world = world("elsewhere", kind);
    world.reserve(&["server"]);
    let app = ProbeApp::start_on(&world, "127.0.0.2");
    let args = vec!["--app-channel-address", "127.0.0.2"];
    let options = Options { app_port: Some(app.port), args, ..Options::default() };
    let sidecar = Sidecar::start(&world, kind, "server", options);
    let call = Call::to(&sidecar.address()).app("server").run(&world, "elsewhere");
    assert_eq!(call.status(), ("OK", ""));
    assert_eq!(app.seen()[0].metadata[":authority"], [format!("127.0.0.2:{}", app.port)]);
    let channel = &metadata(sidecar.ports.http)["appConnectionProperties"];
    assert_eq!(channel["channelAddress"], "127.0.0.2");
}

/// A host may give them to everybody: each of an allocator's size classes would fill one of its own.
#[test]
fn the_kernel_is_asked_for_no_huge_pages() {
    let mut world = world("huge-pages", Kind::Ringside);
    world.reserve(&["client"]);
    let sidecar = Sidecar::caller(&world, Kind::Ringside, "client");
    let status = std::fs::read_to_string(format!("/proc/{}/status", sidecar.process.pid()));
    let status = status.expect("the process's status");
    let told = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"));
    assert_eq!(told.map(str::trim), Some("0"), "{status}");
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
    daprd: Daprd, refuses_bad_flags names_itself waits_for_the_app waits_for_sentry
        serves_metadata shuts_down_by_request ends_at_the_second_signal listens_on_a_unix_socket
        serves_a_tls_app a_plaintext_app_is_no_grpcs_app waits_for_a_handshake
        serves_an_app_at_another_address;
    ringside: Ringside, refuses_bad_flags names_itself waits_for_the_app waits_for_sentry
        serves_metadata shuts_down_by_request ends_at_the_second_signal listens_on_a_unix_socket
        serves_a_tls_app a_plaintext_app_is_no_grpcs_app waits_for_a_handshake
        serves_an_app_at_another_address;
}
