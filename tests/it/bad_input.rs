//! Callers that ask nonsense: daprd's status and text, and never a hang or a crash.
//!
//! The expected texts are in one table, which the pair of real daprds must meet as well.

use crate::peer::bare::{converse, exchange};
use crate::peer::probe::{Call, ProbeApp};
use crate::peer::sidecar::Options;
use crate::peer::{Kind, Sidecar, World};
use http::Request;

const REFUSED: &str = "connection error: desc = \"transport: Error while dialing: dial tcp \
    127.0.0.1:PORT: connect: connection refused\"";

struct Pair {
    world: World,
    app: ProbeApp,
    caller: Sidecar,
    callee: Sidecar,
}

impl Pair {
    fn start(mut world: World, caller: Kind, callee: Kind) -> Self {
        world.reserve(&["server", "client"]);
        let app = ProbeApp::start(&world);
        let callee = Sidecar::callee(&world, callee, "server", app.port);
        let caller = Sidecar::caller(&world, caller, "client");
        Self { world, app, caller, callee }
    }

    fn call(&self) -> Call {
        Call::to(&self.caller.address())
    }

    /// Still alive, and still of use.
    fn check(&mut self) {
        let fine = self.call().app("server").run(&self.world, "fine");
        assert_eq!((fine.status(), fine.messages), (("OK", ""), 1));
        assert!(self.caller.process.running() && self.callee.process.running());
    }
}

/// Name, app id (none without), further flags, code, message.
type Case =
    (&'static str, Option<&'static str>, &'static [&'static str], &'static str, &'static str);

const CASES: &[Case] = &[
    (
        "no-target",
        None,
        &[],
        "Unknown",
        "cannot proxy request: missing dapr-callee-app-id or dapr-app-id metadata",
    ),
    (
        "dapr-method",
        None,
        &["-method", "/dapr.proto.runtime.v1.AppCallback/OnInvoke"],
        "Unknown",
        "failed to proxy request: required metadata dapr-callee-app-id or dapr-app-id not found",
    ),
    ("empty-id", Some(""), &[], "Unknown", "app id is empty"),
    ("two-dots", Some("a.b.c"), &[], "Unknown", "invalid app id a.b.c"),
    (
        "no-slash",
        Some("server"),
        &["-method", "/xyz"],
        "Unimplemented",
        "malformed method name: \"/xyz\"",
    ),
    (
        "fragment",
        Some("server"),
        &["-method", "/p.S/Ec#ho"],
        "InvalidArgument",
        "invalid method: method contains forbidden character: \"/p.S/Ec#ho\"",
    ),
    ("two-slashes", Some("server"), &["-method", "/p.S//Echo"], "OK", ""),
    ("dead-sidecar", Some("dead"), &[], "Unavailable", REFUSED),
    ("callee-wins", Some("nobody"), &["-H", "dapr-callee-app-id:server"], "OK", ""),
    ("self", Some("client"), &[], "Unavailable", "connection error"),
];

fn asks_nonsense(world: World, caller: Kind, callee: Kind) {
    let mut world = world;
    let dead = world.dead_host("dead");
    let mut pair = Pair::start(world, caller, callee);
    let mut wrong = Vec::new();
    for (name, id, args, code, message) in CASES {
        let mut call = pair.call().args(args).args(&["-deadline", "10s"]);
        if let Some(id) = id {
            call = call.app(id);
        }
        let got = call.run(&pair.world, name);
        let said = got.message.replace(&format!(":{dead}:"), ":PORT:");
        // Ringside adds who it was.
        let exact = *name != "self" && *name != "dead-sidecar";
        let same = if exact { said == *message } else { said.starts_with(message) };
        // Nobody of ours dispatches what path cleaning would change; daprd does.
        let refuses = callee == Kind::Ringside || caller == Kind::Ringside;
        if *name == "two-slashes" && refuses {
            let text = "invalid method: method is not the same when its path is cleaned: \
                        \"/p.S//Echo\"";
            assert_eq!((got.code.as_str(), said.as_str()), ("InvalidArgument", text));
            continue;
        }
        if got.code != *code || !same {
            wrong.push(format!("{name}: {}: {}\n  expected {code}: {message}", got.code, said));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    pair.check();
}

/// The callee's app, and then its sidecar, go away under a connection in use.
fn loses_app_and_sidecar(world: World, caller: Kind, callee: Kind) {
    let mut pair = Pair::start(world, caller, callee);
    pair.check();
    pair.app.process.terminate();
    let got = pair.call().app("server").args(&["-deadline", "10s"]).run(&pair.world, "app-down");
    let who = |kind, text: String| if kind == Kind::Ringside { text } else { String::new() };
    let port = pair.app.port;
    let blame = format!(" (the app at 127.0.0.1:{port}, seen by the sidecar of server)");
    let expected = REFUSED.replace("PORT", &port.to_string()) + &who(callee, blame);
    assert_eq!(got.status(), ("Unavailable", expected.as_str()));
    pair.callee.process.terminate();
    let got = pair.call().app("server").args(&["-deadline", "10s"]).run(&pair.world, "gone");
    let port = pair.callee.ports.internal;
    let blame =
        format!(" (the sidecar of server.default at 127.0.0.1:{port}, seen by that of client)");
    let expected = REFUSED.replace("PORT", &port.to_string()) + &who(caller, blame);
    assert_eq!(got.status(), ("Unavailable", expected.as_str()));
}

fn grpc_request(port: u16) -> http::request::Builder {
    Request::post(format!("http://127.0.0.1:{port}/probe.Probe/Echo"))
        .header("te", "trailers")
        .header("dapr-app-id", "server")
}

/// What is HTTP/2 but not gRPC.
fn asks_without_grpc(world: World, caller: Kind, callee: Kind) {
    let mut pair = Pair::start(world, caller, callee);
    let port = pair.caller.ports.grpc;
    let message = b"\0\0\0\0\x05hello";
    let request = grpc_request(port).header("content-type", "application/json").body(());
    let got = exchange(port, request.expect("a request"), message).expect("an answer");
    assert_eq!((got.status, got.last("grpc-status")), (415, "3"), "{got:?}");
    let text = "invalid gRPC request content-type \"application/json\"";
    assert_eq!(got.last("grpc-message"), text);

    let request = grpc_request(port).header("content-type", "application/grpc").body(());
    let got = exchange(port, request.expect("a request"), message).expect("an answer");
    assert_eq!((got.status, got.last("grpc-status")), (200, "0"), "{got:?}");
    assert_eq!(got.body, message);
    pair.check();
}

/// What is not even HTTP/2.
fn talks_garbage(world: World, caller: Kind, callee: Kind) {
    let mut pair = Pair::start(world, caller, callee);
    let zeros = [0; 4096];
    let mut hello = [0; 256];
    hello[..6].copy_from_slice(b"\x16\x03\x01\x00\xfb\x01");
    let bad_frame = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x04\x00\x00\x00\x00\x00garbage";
    let greetings: [(&str, &[u8]); 5] = [
        ("zeros", &zeros),
        ("text", b"hello, is this a sidecar?\r\n\r\n"),
        ("HTTP/1", b"GET /v1.0/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("TLS", &hello),
        ("a huge first frame", bad_frame),
    ];
    for (what, bytes) in greetings {
        for port in [pair.caller.ports.grpc, pair.callee.ports.internal] {
            assert!(converse(port, bytes).is_some(), "{what}: never closed");
        }
        pair.check();
    }
}

/// The caller's side speaks TLS to a plaintext port, or the reverse.
fn disagrees_on_tls(name: &str, caller: Kind, callee: Kind) {
    for (mtls_caller, text) in [
        (true, "transport: authentication handshake failed: tls: first record does not look like"),
        (false, "error reading server preface: EOF"),
    ] {
        let mut world = World::with_sentry(&format!("{name}-{mtls_caller}"));
        world.reserve(&["server", "client"]);
        let app = ProbeApp::start(&world);
        let sentry = world.sentry.take();
        let start = |kind: Kind, id: &str, mtls: bool, app_port: Option<u16>| {
            let (address, anchors);
            let mut options = Options { app_port, ..Options::default() };
            if let (true, Some(sentry)) = (mtls, &sentry) {
                address = format!("localhost:{}", sentry.port);
                anchors = sentry.anchors.clone();
                options.args = vec!["--enable-mtls", "--sentry-address", &address];
                options.env = vec![("DAPR_TRUST_ANCHORS", &anchors)];
            }
            Sidecar::start(&world, kind, id, options)
        };
        let _callee = start(callee, "server", !mtls_caller, Some(app.port));
        let caller = start(caller, "client", mtls_caller, None);
        let call = Call::to(&caller.address()).app("server").args(&["-deadline", "10s"]);
        let got = call.run(&world, "call");
        assert_eq!(got.code, "Unavailable", "{}", got.message);
        assert!(got.message.starts_with("connection error: desc = "), "{}", got.message);
        // daprd closes with octets unread, which the kernel may turn into a reset.
        let reset = callee == Kind::Daprd && text.ends_with("EOF") && {
            let mut parts = got.message.split("error reading server preface: ");
            parts.nth(1).is_some_and(|cause| cause.contains("connection reset by peer"))
        };
        assert!(got.message.contains(text) || reset, "{}", got.message);
    }
}

macro_rules! mixes {
    ($($module:ident: $caller:ident to $callee:ident;)*) => {$(
        mod $module {
            use super::*;

            fn world(name: &str) -> World {
                World::new(&format!("bad-{}-{name}", stringify!($module)))
            }

            #[test]
            fn asks_nonsense() {
                super::asks_nonsense(world("nonsense"), Kind::$caller, Kind::$callee);
            }

            #[test]
            fn loses_app_and_sidecar() {
                super::loses_app_and_sidecar(world("loses"), Kind::$caller, Kind::$callee);
            }

            #[test]
            fn asks_without_grpc() {
                super::asks_without_grpc(world("bare"), Kind::$caller, Kind::$callee);
            }

            #[test]
            fn talks_garbage() {
                super::talks_garbage(world("garbage"), Kind::$caller, Kind::$callee);
            }

            #[test]
            fn disagrees_on_tls() {
                let name = concat!("bad-", stringify!($module), "-tls");
                super::disagrees_on_tls(name, Kind::$caller, Kind::$callee);
            }
        }
    )*};
}

mixes! {
    daprd_to_daprd: Daprd to Daprd;
    daprd_to_ringside: Daprd to Ringside;
    ringside_to_daprd: Ringside to Daprd;
    ringside_to_ringside: Ringside to Ringside;
}
