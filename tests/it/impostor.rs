//! Peers that are not who they should be: refused with daprd's status and text, both ways.

use crate::peer::ports::claim;
use crate::peer::probe::{Call, ProbeApp, mint};
use crate::peer::{Kind, Sidecar, World};
use std::path::PathBuf;

const HANDSHAKE: &str = "connection error: desc = \"transport: authentication handshake failed: ";

/// Go quotes the whole description, so the quotes inside it are escaped.
const WRONG_ID: &str = r#"unexpected SPIFFE ID: \"spiffe://public/ns/default/server\"""#;

/// SVIDs of an app called `id` that nobody should accept: of another root, and expired.
fn bad_svids(world: &World, id: &str) -> (PathBuf, PathBuf) {
    let id = format!("spiffe://public/ns/default/{id}");
    let foreign = mint(world, &world.folder("foreign-root"), &id, &[]);
    let lapsed = ["-from", "-2h", "-until", "-1h"];
    (foreign, mint(world, &sentry_issuer(world), &id, &lapsed))
}

fn sentry_issuer(world: &World) -> PathBuf {
    world.sentry.as_ref().expect("a Sentry").credentials.clone()
}

/// `kind` calls peers whose certificates are wrong.
fn refuses_callees(kind: Kind) {
    let mut world = World::with_sentry(&format!("impostor-callees-{}", kind.name()));
    world.reserve(&["server", "client"]);
    let app = ProbeApp::start(&world);
    let _callee = Sidecar::callee(&world, Kind::Daprd, "server", app.port);
    let (foreign, expired) = bad_svids(&world, "victim");
    let (at_foreign, at_expired) = (claim(), claim());
    let mut liars = Vec::new();
    for (name, port, svid) in [("foreign", at_foreign, foreign), ("expired", at_expired, expired)] {
        liars.push(ProbeApp::start_at(&world, name, port, Some(&svid)));
        world.host(name, port);
    }
    // The sidecar of "server" stands at the address of "victim", with a good SVID of its own.
    world.host("victim", world.ports("server").internal);
    let caller = Sidecar::caller(&world, kind, "client");
    for (id, text) in [
        ("victim", WRONG_ID),
        (
            "foreign",
            "x509svid: could not verify leaf certificate: x509: certificate signed by unknown \
             authority",
        ),
        (
            "expired",
            "x509svid: could not verify leaf certificate: x509: certificate has expired or is not \
             yet valid: current time ",
        ),
    ] {
        let call = Call::to(&caller.address()).app(id).args(&["-deadline", "10s"]);
        let got = call.run(&world, id);
        assert_eq!(got.code, "Unavailable", "{id}: {}", got.message);
        let expected = format!("{HANDSHAKE}{text}");
        assert!(got.message.starts_with(&expected), "{id}: {}\n{expected}", got.message);
    }
    for liar in &liars {
        assert!(liar.seen().is_empty(), "a call reached a peer that was refused");
    }
    let fine = Call::to(&caller.address()).app("server").run(&world, "fine");
    assert_eq!(fine.status(), ("OK", ""));
}

/// `kind` is called by peers whose certificates are wrong.
fn refuses_callers(kind: Kind) {
    let mut world = World::with_sentry(&format!("impostor-callers-{}", kind.name()));
    world.reserve(&["server"]);
    let app = ProbeApp::start(&world);
    let callee = Sidecar::callee(&world, kind, "server", app.port);
    let (foreign, expired) = bad_svids(&world, "caller");
    let good = mint(&world, &sentry_issuer(&world), "spiffe://elsewhere/ns/any/caller", &[]);
    let call = || {
        let call = Call::to(&callee.internal_address());
        call.metadata("dapr-callee-app-id", "server").args(&["-deadline", "10s"])
    };
    for (name, svid) in [("foreign", &foreign), ("expired", &expired)] {
        let got = call().svid(svid).run(&world, name);
        assert_eq!(got.code, "Unavailable", "{name}: {}", got.message);
        // In TLS 1.3 a client learns only later that its certificate was refused; grpc-go tells
        // of the alert, or of a broken pipe when its own first write came later still.
        if got.message.contains("remote error: tls: ") {
            assert!(got.message.ends_with("tls: bad certificate\""), "{name}: {}", got.message);
        }
    }
    let got = call().args(&["-cert", "none"]).run(&world, "no-certificate");
    assert_eq!(got.code, "Unavailable", "{}", got.message);
    let got = call().run(&world, "plaintext");
    assert_eq!(got.code, "Unavailable", "{}", got.message);
    assert!(app.seen().is_empty(), "a refused caller reached the app");

    // Any trust domain, namespace and id will do as long as the chain is good (spec 04 §4.2).
    let got = call().svid(&good).run(&world, "good");
    assert_eq!(got.status(), ("OK", ""));
    assert_eq!(app.seen().len(), 1);
}

#[test]
fn daprd_refuses_callees() {
    refuses_callees(Kind::Daprd);
}

#[test]
fn daprd_refuses_callers() {
    refuses_callers(Kind::Daprd);
}

#[test]
fn ringside_refuses_callees() {
    refuses_callees(Kind::Ringside);
}

#[test]
fn ringside_refuses_callers() {
    refuses_callers(Kind::Ringside);
}

/// A connection made for one namespace never serves another, which daprd gets wrong.
#[test]
fn ringside_keeps_namespaces_apart() {
    let mut world = World::with_sentry("impostor-namespaces");
    world.reserve(&["server", "client"]);
    let app = ProbeApp::start(&world);
    let _callee = Sidecar::callee(&world, Kind::Daprd, "server", app.port);
    let caller = Sidecar::caller(&world, Kind::Ringside, "client");
    for round in ["first", "second"] {
        let fine = Call::to(&caller.address()).app("server").run(&world, "fine");
        assert_eq!(fine.status(), ("OK", ""), "{round}");
        let got = Call::to(&caller.address()).app("server.other").run(&world, "other");
        let at = world.ports("server").internal;
        let who = format!("the sidecar of server.other at 127.0.0.1:{at}, seen by that of client");
        let expected = format!("{HANDSHAKE}{WRONG_ID} ({who})");
        assert_eq!(got.status(), ("Unavailable", expected.as_str()), "{round}");
    }
    assert_eq!(app.seen().len(), 2);
}

/// The internal port delivers to its own app only, which daprd gets wrong as well.
#[test]
fn ringside_relays_for_nobody() {
    let mut world = World::with_sentry("impostor-relay");
    world.reserve(&["server", "victim"]);
    let (app, victim) = (ProbeApp::start(&world), ProbeApp::start(&world));
    let callee = Sidecar::callee(&world, Kind::Ringside, "server", app.port);
    let _other = Sidecar::callee(&world, Kind::Daprd, "victim", victim.port);
    let svid = mint(&world, &sentry_issuer(&world), "spiffe://public/ns/default/caller", &[]);
    let call = Call::to(&callee.internal_address()).svid(&svid);
    let got = call.metadata("dapr-callee-app-id", "victim").run(&world, "astray");
    assert_eq!(got.code, "Unavailable", "{}", got.message);
    assert!(got.message.contains("server") && got.message.contains("victim"), "{}", got.message);
    assert!(app.seen().is_empty() && victim.seen().is_empty());
}
