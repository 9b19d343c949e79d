//! `--ringside-app-socket`: an app on a Unix socket. daprd has none, so only ringside is asked; the
//! words of failures are grpc-go's own.

use crate::peer::netns::run_id;
use crate::peer::ports::claim;
use crate::peer::probe::{Call, Outcome, ProbeApp, mint};
use crate::peer::process::{Process, command, until};
use crate::peer::sidecar::{Kind, Options, Sidecar, http_get, http_status};
use crate::peer::{World, ringside};
use rustix::process::Signal;
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

const SIZES: [&str; 4] = ["-messages", "3", "-size", "70000"];

/// A folder for sockets, whose paths have at most 107 octets; gone in the end.
struct Sockets(PathBuf);

impl Sockets {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("ringside-{}-{}", run_id(), claim()));
        fs::create_dir_all(&folder).expect("a folder for sockets");
        Self(folder)
    }

    fn path(&self) -> String {
        self.0.join("app.sock").to_str().expect("a plain path").to_owned()
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn world(name: &str) -> World {
    let mut world = World::new(&format!("app-socket-{name}"));
    world.reserve(&["client", "server"]);
    world
}

fn callee(world: &World, socket: &str, protocol: &str, more: &[&str], await_app: bool) -> Sidecar {
    let mut args = vec!["--ringside-app-socket", socket, "--app-protocol", protocol];
    args.extend(more);
    let options = Options { args, await_app, ..Options::default() };
    Sidecar::start(world, Kind::Ringside, "server", options)
}

fn call(world: &World, sidecar: &Sidecar, name: &str) -> Outcome {
    Call::to(&sidecar.address()).app("server").args(&SIZES).run(world, name)
}

/// What grpc-go says when it dials the socket itself.
fn words_of_grpc_go(world: &World, socket: &str, name: &str) -> String {
    let direct = Call::to_unix(Path::new(socket)).run(world, name);
    assert_eq!(direct.code, "Unavailable", "{}", direct.message);
    direct.message
}

/// Calls of every kind through two sidecars; what the app hears; and what is told of it.
#[test]
fn serves_an_app_on_a_socket() {
    let (world, sockets) = (world("serves"), Sockets::new());
    let abstract_name = format!("@ringside-{}-{}", run_id(), claim());
    for (round, socket) in [sockets.path(), abstract_name].iter().enumerate() {
        let mut app = ProbeApp::on_socket(&world, &format!("app-{round}"), socket, None);
        let mut sidecar = callee(&world, socket, "grpc", &[], true);
        sidecar.process.wait_for_line(&format!("application discovered on socket {socket}"));
        let caller = Sidecar::caller(&world, Kind::Ringside, "client");
        for (name, from) in [("own", &sidecar), ("other", &caller)] {
            let got = call(&world, from, &format!("{name}-{round}"));
            assert_eq!((got.status(), got.messages, got.mismatch), (("OK", ""), 3, false));
        }
        assert_eq!(app.ends(2)[1].bytes, 210_000);
        // As grpc-go names who is behind a socket.
        assert_eq!(app.seen()[0].metadata[":authority"], ["localhost"]);
        let channel = &metadata(&sidecar)["appConnectionProperties"];
        let target = match socket.strip_prefix('@') {
            Some(name) => format!("unix-abstract:{name}"),
            None => format!("unix:{socket}"),
        };
        assert_eq!((&channel["channelAddress"], channel.get("port")), (&target.into(), None));
        assert_eq!(sidecar.process.terminate().code(), Some(0), "{}", sidecar.process.tail());
    }
}

fn metadata(sidecar: &Sidecar) -> Value {
    let answer = http_get(sidecar.ports.http, "/v1.0/metadata").expect("an answer");
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    serde_json::from_str(body).expect("JSON")
}

/// An app that is killed, whose socket stays; then without one; then back, on a socket anew.
#[test]
fn an_app_comes_back_on_another_socket() {
    let (world, sockets) = (world("restart"), Sockets::new());
    let socket = sockets.path();
    let mut app = ProbeApp::on_socket(&world, "app", &socket, None);
    let sidecar = callee(&world, &socket, "grpc", &[], true);
    assert_eq!(call(&world, &sidecar, "first").status(), ("OK", ""));
    app.process.signal(Signal::KILL);
    app.process.wait_for_end();
    for (stage, cause) in [("stale", "connection refused"), ("gone", "no such file or directory")] {
        let expected = words_of_grpc_go(&world, &socket, &format!("direct-{stage}"));
        assert!(expected.contains(&format!("dial unix {socket}: connect: {cause}")), "{expected}");
        let who = format!("{expected} (the app at {socket}, seen by the sidecar of server)");
        // The connection may be lost a moment later than its process.
        let told = until(|| {
            let got = call(&world, &sidecar, stage);
            assert_eq!(got.code, "Unavailable", "{}", got.message);
            (got.message == who).then_some(())
        });
        assert!(told.is_some(), "{}", call(&world, &sidecar, "last").message);
        if stage == "stale" {
            fs::remove_file(&socket).expect("the socket goes");
        }
    }
    let _back = ProbeApp::on_socket(&world, "app-2", &socket, None);
    assert_eq!(call(&world, &sidecar, "back").status(), ("OK", ""));
}

/// The start waits, with health told as for a port; TLS is the app's affair; probes go there too.
#[test]
fn waits_for_an_app_and_probes_it() {
    let (world, sockets) = (world("waits"), Sockets::new());
    let socket = sockets.path();
    let probes = ["--enable-app-health-check", "--app-health-probe-interval", "2"];
    let mut sidecar = callee(&world, &socket, "grpcs", &probes, false);
    sidecar.process.wait_for_line(&format!(
        "application protocol: grpcs. waiting on socket {socket}.  This will block until the app \
         is listening on that socket."
    ));
    assert_eq!(http_status(sidecar.ports.http, "/v1.0/healthz"), Some(500));
    let svid = mint(&world, &world.folder("issuer"), "spiffe://public/ns/default/app", &[]);
    let app = ProbeApp::on_socket(&world, "tls-app", &socket, Some(&svid));
    sidecar.process.wait_for_line("App entered healthy status");
    let probe = until(|| app.seen().into_iter().next()).expect("a probe");
    assert_eq!(probe.method, "/dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck");
    assert_eq!(call(&world, &sidecar, "tls").status(), ("OK", ""));
}

/// A socket that is gone, or that nobody listens on, ends a blocked shutdown.
#[test]
fn an_app_that_ends_first_takes_its_sidecar_along() {
    for socket_stays in [true, false] {
        let (world, sockets) = (world(&format!("ends-{socket_stays}")), Sockets::new());
        let socket = sockets.path();
        let mut app = ProbeApp::on_socket(&world, "app", &socket, None);
        let block = ["--dapr-block-shutdown-duration", "10m"];
        let mut sidecar = callee(&world, &socket, "grpc", &block, true);
        sidecar.process.signal(Signal::TERM);
        sidecar.process.wait_for_line("Blocking graceful shutdown for 10m0s");
        app.process.signal(Signal::KILL);
        app.process.wait_for_end();
        if !socket_stays {
            fs::remove_file(&socket).expect("the socket goes");
        }
        sidecar.process.wait_for_line("App reported unhealthy, entering shutdown...");
        assert_eq!(sidecar.process.wait_for_end().code(), Some(0), "{}", sidecar.process.tail());
    }
}

/// A socket that is not for us: said at once, and again with each call.
#[test]
fn says_that_a_socket_is_forbidden() {
    let (world, sockets) = (world("forbidden"), Sockets::new());
    let socket = sockets.path();
    let _app = UnixListener::bind(&socket).expect("a socket");
    fs::set_permissions(&socket, Permissions::from_mode(0o000)).expect("nobody's");
    let ports = world.ports("server");
    let mut sidecar = match rustix::process::geteuid().is_root() {
        // For root without this capability permissions hold.
        true => {
            let mut sidecar = command("setpriv");
            sidecar.args(["--bounding-set", "-dac_override", "--"]).arg(ringside());
            sidecar
        }
        false => command(ringside()),
    };
    sidecar.args(["--app-id", "server", "--ringside-app-socket", &socket]);
    ports.tell(&mut sidecar);
    let mut process = Process::start(&world.folder("sidecar"), "server", sidecar);
    process
        .wait_for_line(&format!("cannot connect to the app's socket {socket}: permission denied"));
    let sidecar = Sidecar { process, ports };
    let got = call(&world, &sidecar, "forbidden");
    let expected = format!("dial unix {socket}: connect: permission denied");
    assert_eq!(got.code, "Unavailable");
    assert!(got.message.contains(&expected), "{}", got.message);
}

/// Arguments that make no sense end the start.
#[test]
fn refuses_what_cannot_be() {
    let world = world("refuses");
    let long = "x".repeat(108);
    for (n, (args, text)) in [
        (vec!["--app-port", "1"], "name two places of one app, /run/a.sock and port 1"),
        (vec!["--ringside-app-socket", long.as_str()], "at most 107 octets"),
        (vec!["--ringside-app-socket", "@"], "is no path of a socket"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut sidecar = command(ringside());
        sidecar.args(["--app-id", "a", "--ringside-app-socket", "/run/a.sock"]).args(&args);
        let mut sidecar = Process::start(&world.folder("refuses"), &n.to_string(), sidecar);
        assert_eq!(sidecar.wait_for_end().code(), Some(1), "{args:?}\n{}", sidecar.tail());
        assert!(sidecar.log().contains(text), "{args:?}\n{}", sidecar.tail());
    }
}
