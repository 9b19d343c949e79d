//! The h2spec suite, all of its cases, the strict ones included and none skipped: against our
//! HTTP/2 engine alone, as a server on a socket, and against each port of a sidecar that speaks
//! HTTP/2 with an app behind it.
//!
//! 1. Several cases need an answer with DATA, and one an announced limit of streams; h2spec skips
//!    them by itself where there is none, and that fails here.
//! 2. The API and the internal port take calls and nothing else, so wherever one of them is on the
//!    way each request of h2spec's is a call: `tests/peers/h2spec` lets it put on what makes it
//!    one.
//! 3. h2spec has no client certificate: a shim speaks TLS for it at the internal port.

use crate::peer::ports::claim;
use crate::peer::process::{Process, command};
use crate::peer::sidecar::Options;
use crate::peer::{Kind, Sidecar, World, program, shim};
use bytes::Bytes;
use ringside::http2::field::classify_none;
use ringside::http2::{Connection, Event, FieldSection, Limits, Role, StreamId, Transmit};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// What h2spec 2.2.1 has.
const CASES: usize = 146;

/// What the app answers to each request; some cases need 5 octets or more.
const BODY: &str = "a body of some length";

/// Bounds a connection that h2spec forgets.
const SILENCE: Duration = Duration::from_secs(20);

fn answer(conn: &mut Connection, stream: StreamId) {
    let mut head = FieldSection::new();
    head.push(b":status", b"200");
    head.push(b"content-type", b"text/plain");
    conn.send_headers(stream, head, false);
    conn.send_data(stream, Bytes::from_static(b"hello, h2spec"), true);
}

/// One connection, to its end.
fn serve(mut socket: TcpStream) -> std::io::Result<()> {
    socket.set_read_timeout(Some(SILENCE))?;
    socket.set_nodelay(true)?;
    let limits = Limits { max_concurrent_streams: Some(100), ..Limits::default() };
    let mut conn = Connection::new(Role::Server, limits, classify_none, Instant::now());
    let mut out = Transmit::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        while let Some(event) = conn.poll_event() {
            conn.check_invariants();
            match event {
                Event::Headers { stream, end_stream: true, .. } => answer(&mut conn, stream),
                Event::Data { stream, data, end_stream, .. } => {
                    conn.release(stream, data.len() as u32);
                    if end_stream {
                        answer(&mut conn, stream);
                    }
                }
                _ => {}
            }
        }
        conn.poll_transmit(&mut out, usize::MAX);
        let octets: Vec<u8> = out.slices().flatten().copied().collect();
        out.clear();
        socket.write_all(&octets)?;
        if conn.has_failed() {
            return Ok(());
        }
        let len = socket.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        conn.recv(Bytes::copy_from_slice(&buffer[..len]), Instant::now());
    }
}

/// Every case against `port`; `fields` are on each request.
fn suite(world: &World, port: u16, fields: &[&str]) {
    let report = world.folder("h2spec").join("report.xml");
    let mut h2spec = command(program("h2spec"));
    // Two seconds, its default, are too few for a machine that has something else to do.
    h2spec.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--timeout", "5"]);
    h2spec.args(["--path", "/probe.Probe/Echo", "--strict", "--junit-report"]).arg(&report);
    h2spec.env("H2SPEC_FIELDS", fields.join("\n"));
    let mut h2spec = Process::start(&world.folder("h2spec"), "h2spec", h2spec);
    let ended = h2spec.wait_for_end();
    let said = h2spec.log();
    let report = std::fs::read_to_string(&report).unwrap_or_default();
    let cases: Vec<&str> = report.split("<testcase ").skip(1).collect();
    let skipped: Vec<&str> = cases.iter().copied().filter(|c| c.contains("<skipped")).collect();
    assert!(ended.success(), "h2spec: {ended}\n{said}");
    assert_eq!(skipped, [""; 0], "h2spec skipped cases\n{said}");
    assert_eq!(cases.len(), CASES, "{said}");
}

/// An app on bare frames, and the sidecars of a callee and of a caller, each with a forward port
/// to it.
struct Ports {
    world: World,
    _app: Process,
    callee: Sidecar,
    caller: Sidecar,
    forwards: [u16; 2],
}

impl Ports {
    fn start(name: &str) -> Self {
        let mut world = World::with_sentry(name);
        world.reserve(&["server", "client"]);
        let app_port = claim();
        let mut app = command(program("probe"));
        app.args(["wire", "-body", BODY, "-address", &format!("127.0.0.1:{app_port}")]);
        let mut app = Process::start(&world.folder("apps"), "wire", app);
        app.wait_for_line("\"listening\"");
        let forwards = [claim(), claim()];
        let flags = forwards.map(|port| format!("{port}=server"));
        let [callee, caller] = [("server", Some(app_port)), ("client", None)];
        let [callee, caller] = [(callee, &flags[0]), (caller, &flags[1])].map(|(who, flag)| {
            let args = vec!["--ringside-forward", flag];
            let options = Options { app_port: who.1, args, ..Options::default() };
            Sidecar::start(&world, Kind::Ringside, who.0, options)
        });
        Self { world, _app: app, callee, caller, forwards }
    }
}

/// What makes a request of h2spec's a call.
const CALL: [&str; 2] = ["content-type: application/grpc", "te: trailers"];

#[test]
fn the_engine_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            std::thread::spawn(move || serve(socket));
        }
    });
    suite(&World::new("h2spec-engine"), port, &[]);
}

#[test]
fn the_api_port() {
    let ports = Ports::start("h2spec-api");
    let [kind, te] = CALL;
    suite(&ports.world, ports.caller.ports.grpc, &[kind, te, "dapr-app-id: server"]);
}

/// Of the caller's sidecar: through both.
#[test]
fn a_forward_port() {
    let ports = Ports::start("h2spec-forward");
    suite(&ports.world, ports.forwards[1], &CALL);
}

/// Of the app's own sidecar, and h2spec as it comes: such a port takes any request.
#[test]
fn a_forward_port_to_its_own_app() {
    let ports = Ports::start("h2spec-forward-own");
    suite(&ports.world, ports.forwards[0], &[]);
}

#[test]
fn the_internal_port() {
    let ports = Ports::start("h2spec-internal");
    let sentry = ports.world.sentry.as_ref().expect("a Sentry");
    let port = shim::start(sentry, ports.callee.ports.internal, "server");
    let [kind, te] = CALL;
    suite(&ports.world, port, &[kind, te, "dapr-callee-app-id: server"]);
}
