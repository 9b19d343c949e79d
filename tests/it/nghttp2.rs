//! nghttp2 as a peer in both roles, through two sidecars with identities: its clients call an app
//! in Go, its server is the app, its proxy stands on both sides of the sidecars. Its options choose
//! the shapes of frames that other peers never send.

use crate::interop::CASES;
use crate::peer::app::{App, interop_case};
use crate::peer::ports::claim;
use crate::peer::probe::{Call, ProbeApp, outcome};
use crate::peer::process::{Process, command};
use crate::peer::sidecar::loopback;
use crate::peer::{Kind, Sidecar, World, nghttp2};
use std::fs;
use std::net::TcpStream;

/// What makes a request of theirs a call to `server`.
const CALL: [&str; 6] =
    ["-H", "content-type: application/grpc", "-H", "te: trailers", "-H", "dapr-app-id: server"];

/// The sidecars of an app and of its caller.
struct Pair {
    world: World,
    _callee: Sidecar,
    caller: Sidecar,
}

impl Pair {
    /// `world` must have reserved `server` and `client`.
    fn start(world: World, app_port: u16) -> Self {
        let callee = Sidecar::callee(&world, Kind::Ringside, "server", app_port);
        let caller = Sidecar::caller(&world, Kind::Ringside, "client");
        Self { world, _callee: callee, caller }
    }

    fn api(&self) -> u16 {
        self.caller.ports.grpc
    }

    /// One of nghttp2's clients to its end: what it said.
    fn run(&self, name: &str, options: &[&str], port: u16, path: &str) -> String {
        let mut client = command(nghttp2(name));
        client.args(options).arg(format!("http://127.0.0.1:{port}{path}"));
        let mut process = Process::start(&self.world.folder("callers"), name, client);
        let ended = process.wait_for_end();
        assert!(ended.success(), "{name} {options:?}: {ended}\n{}", process.tail());
        process.log()
    }

    /// A file with a message of `len` octets behind gRPC's prefix, and what is in it.
    fn message(&self, len: usize) -> (String, Vec<u8>) {
        let prefix = [&[0][..], &(len as u32).to_be_bytes()].concat();
        let text = (0..len).map(|at| b'a' + (at % 23) as u8);
        let octets: Vec<u8> = prefix.into_iter().chain(text).collect();
        let file = self.world.folder("messages").join(len.to_string());
        fs::write(&file, &octets).expect("a message");
        (file.display().to_string(), octets)
    }
}

fn world(name: &str) -> World {
    let mut world = World::with_sentry(name);
    world.reserve(&["server", "client"]);
    world
}

fn with_go_app(name: &str) -> (Pair, ProbeApp) {
    let world = world(name);
    let app = ProbeApp::start(&world);
    (Pair::start(world, app.port), app)
}

/// What nghttp can do with windows, padding, the tables of HPACK and the shape of a request.
const CLIENT_SHAPES: [&[&str]; 12] = [
    &[],
    &["-w", "10", "-W", "16"],
    &["-w", "30", "-W", "30"],
    &["-b", "255"],
    &["-c", "0"],
    &["-c", "0", "-c", "100", "-c", "65536"],
    &["--encoder-header-table-size=0"],
    &["--encoder-header-table-size=64K", "--continuation"],
    &["--no-content-length"],
    &["--no-dep"],
    &["--expect-continue"],
    &["-p", "256", "--no-push", "--no-rfc7540-pri"],
];

#[test]
fn nghttp_calls_in_every_shape() {
    let (pair, _app) = with_go_app("nghttp2-nghttp");
    let (file, expected) = pair.message(100_000);
    let expected = String::from_utf8_lossy(&expected);
    for shape in CLIENT_SHAPES {
        let options = [shape, &CALL, &["-d", &file]].concat();
        let body = pair.run("nghttp", &options, pair.api(), "/probe.Probe/Echo");
        assert!(body == expected, "{shape:?}: {} octets came back", body.len());
        let frames = [&["-nv"], &options[..]].concat();
        let frames = pair.run("nghttp", &frames, pair.api(), "/probe.Probe/Echo");
        assert_eq!(frames.matches(") grpc-status: 0\n").count(), 1, "{shape:?}\n{frames}");
        assert!(!frames.contains("RST_STREAM"), "{shape:?}\n{frames}");
        assert!(!frames.contains("recv GOAWAY"), "{shape:?}\n{frames}");
    }
}

/// Many at a time, whose octets come back in any order.
#[test]
fn nghttp_calls_many_at_once() {
    let (pair, app) = with_go_app("nghttp2-many");
    let (file, expected) = pair.message(20_000);
    let options = [&["-m", "90", "-d", &file], &CALL[..]].concat();
    let bodies = pair.run("nghttp", &options, pair.api(), "/probe.Probe/Echo");
    for octet in b'a'..=b'w' {
        let count = |octets: &[u8]| octets.iter().filter(|other| **other == octet).count();
        assert_eq!(count(bodies.as_bytes()), 90 * count(&expected), "{}", char::from(octet));
    }
    assert_eq!(app.seen().len(), 90);
}

/// h2load's own account of a run.
fn assert_loaded(report: &str, calls: usize, octets: usize) {
    let all = format!("{calls} total, {calls} started, {calls} done, {calls} succeeded, 0 failed");
    let codes = format!("status codes: {calls} 2xx, 0 3xx, 0 4xx, 0 5xx");
    let data = format!("({}) data", calls * octets);
    for line in [&all, &codes, "0 errored, 0 timeout", &data] {
        assert!(report.contains(line), "no {line:?} in\n{report}");
    }
}

#[test]
fn h2load_calls() {
    let (pair, _app) = with_go_app("nghttp2-h2load");
    for (len, calls, shape) in [
        (10, 5000, &["-c", "8", "-m", "100"][..]),
        (1000, 2000, &["-c", "2", "-m", "400", "-w", "12", "-W", "16"]),
        (1 << 20, 40, &["-c", "2", "-m", "10", "-w", "16", "-W", "16"]),
        (1 << 20, 40, &["-c", "4", "-m", "4", "-f", "1M"]),
    ] {
        let (file, body) = pair.message(len);
        let count = calls.to_string();
        let options = [&["-n", &count, "-d", &file], shape, &CALL].concat();
        let report = pair.run("h2load", &options, pair.api(), "/probe.Probe/Echo");
        assert_loaded(&report, calls, body.len());
    }
}

/// What nghttpd can do with the same.
const SERVER_SHAPES: [&[&str]; 8] = [
    &[],
    &["-m", "1"],
    &["-w", "10", "-W", "16"],
    &["-w", "30", "-W", "30"],
    &["-b", "255"],
    &["-c", "0", "--encoder-header-table-size=0"],
    &["-c", "64K", "--encoder-header-table-size=64K"],
    &["--no-content-length", "--no-rfc7540-pri"],
];

/// nghttpd as the app: files by their names, of `application/grpc` when they end in `.grpc`.
fn nghttpd(world: &World, number: usize, port: u16, options: &[&str]) -> Process {
    let folder = world.folder("files");
    fs::create_dir_all(folder.join("a.B")).expect("a folder of a service");
    fs::write(folder.join("a.B/C.grpc"), b"\0\0\0\0\x05hello").expect("an answer");
    fs::write(folder.join("types"), "application/grpc grpc\n").expect("a list of types");
    let mut server = command(nghttp2("nghttpd"));
    server.args(["--no-tls", "-a", "127.0.0.1", "-d"]).arg(&folder);
    server.arg("--mime-types-file").arg(folder.join("types")).args(options).arg(port.to_string());
    let mut process = Process::start(&world.folder("apps"), &format!("nghttpd-{number}"), server);
    process.wait("open port", |_| TcpStream::connect(loopback(port)).ok());
    process
}

/// A client of grpc-go, through both sidecars, to a server that knows nothing of gRPC and happens
/// to say what a gRPC server would. Each shape is an app of its own at the same port: the sidecar
/// gets over the end of the one before.
#[test]
fn nghttpd_answers_calls_in_every_shape() {
    let (world, app_port) = (world("nghttp2-nghttpd"), claim());
    let mut app = nghttpd(&world, 0, app_port, &[]);
    let pair = Pair::start(world, app_port);
    for (number, shape) in SERVER_SHAPES.iter().enumerate() {
        app.terminate();
        let status = ["--trailer", "grpc-status: 0", "--trailer", "x-end: of it"];
        app = nghttpd(&pair.world, 1 + number, app_port, &[shape, &status[..]].concat());
        for round in 0..3 {
            let call = Call::to(&pair.caller.address()).app("server");
            let call = call.args(&["-method", "/a.B/C.grpc", "-size", "70000"]);
            let got = call.run(&pair.world, &format!("call-{number}-{round}"));
            assert_eq!((got.status(), got.messages, got.bytes), (("OK", ""), 1, 5), "{shape:?}");
            assert_eq!(got.trailer["x-end"], ["of it"], "{shape:?}");
        }
        let (file, _) = pair.message(3000);
        let options = [&["-n", "500", "-c", "2", "-m", "50", "-d", &file], &CALL[..]].concat();
        let report = pair.run("h2load", &options, pair.api(), "/a.B/C.grpc");
        assert_loaded(&report, 500, 10);
    }
}

/// nghttp2 at both ends: large bodies there and back at the same time.
#[test]
fn nghttp_meets_nghttpd() {
    let (world, app_port) = (world("nghttp2-both"), claim());
    let mut app = nghttpd(&world, 0, app_port, &[]);
    let pair = Pair::start(world, app_port);
    let (file, octets) = pair.message(1_000_000);
    let expected = String::from_utf8_lossy(&octets);
    fs::write(pair.world.folder("files").join("a.B/Large.grpc"), &octets).expect("an answer");
    for (number, shape) in SERVER_SHAPES.iter().enumerate() {
        app.terminate();
        let how = if number % 2 == 0 { &["--early-response"][..] } else { &[] };
        let options = [shape, how, &["--trailer", "grpc-status: 0"]].concat();
        app = nghttpd(&pair.world, 1 + number, app_port, &options);
        for shape in [CLIENT_SHAPES[0], CLIENT_SHAPES[number]] {
            let options = [shape, &CALL, &["-d", &file]].concat();
            let body = pair.run("nghttp", &options, pair.api(), "/a.B/Large.grpc");
            assert!(body == expected, "{number} {shape:?}: {} octets came back", body.len());
        }
    }
}

/// nghttpx in front of `to`, listening on a port of its own.
fn nghttpx(world: &World, name: &str, to: u16, options: &[&str]) -> (Process, u16) {
    let port = claim();
    let mut proxy = command(nghttp2("nghttpx"));
    proxy.args(["--conf=/dev/null", "--workers=1", "--no-ocsp", "--padding=100"]);
    proxy.arg(format!("--frontend=127.0.0.1,{port};no-tls"));
    proxy.arg(format!("--backend=127.0.0.1,{to};;proto=h2")).args(options);
    let mut process = Process::start(&world.folder("proxies"), name, proxy);
    process.wait("open port", |_| TcpStream::connect(loopback(port)).ok());
    (process, port)
}

/// gRPC's cases from a client in Go by way of nghttpx, two sidecars and nghttpx to a server in Go.
#[test]
fn nghttpx_on_both_sides() {
    let world = world("nghttp2-nghttpx");
    let app = App::interop(&world);
    let (_behind, app_port) = nghttpx(&world, "behind", app.port, &[]);
    let pair = Pair::start(world, app_port);
    let (_before, port) = nghttpx(&pair.world, "before", pair.api(), &[]);
    let outcomes: Vec<_> = CASES
        .iter()
        .filter_map(|case| interop_case(&pair.world, port, "server", case).err())
        .collect();
    assert!(outcomes.is_empty(), "{} failed\n{}", outcomes.len(), outcomes.join("\n"));
}

/// The app says GOAWAY while a call is on it: that call comes to its end, and the next one finds
/// nobody, which is said as such.
#[test]
fn nghttpx_goes_away() {
    let world = world("nghttp2-goaway");
    let mut app = ProbeApp::start(&world);
    let (mut proxy, app_port) = nghttpx(&world, "goes", app.port, &[]);
    let pair = Pair::start(world, app_port);
    let call = || Call::to(&pair.caller.address()).app("server");
    let slow = call().metadata("probe-sleep-ms", "1500").metadata("probe-reply", "1");
    let mut slow = slow.start(&pair.world, "slow");
    app.process.wait_for_line("\"call\"");
    proxy.signal(rustix::process::Signal::QUIT);
    slow.wait_for_end();
    assert_eq!(outcome(&slow).status(), ("OK", ""));
    assert!(proxy.wait_for_end().success(), "{}", proxy.tail());
    let late = call().run(&pair.world, "late");
    assert_eq!(late.code, "Unavailable", "{}", late.message);
    assert!(late.message.contains("connection refused"), "{}", late.message);
    assert_eq!(app.ends(1).len(), 1);
}
