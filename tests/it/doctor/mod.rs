//! `ringside doctor`: what it finds on a machine, with the flags of a sidecar that would work and of
//! some that would not.

mod names;
mod places;

use crate::peer::ports::claim;
use crate::peer::probe::ProbeApp;
use crate::peer::process::{Process, command};
use crate::peer::{World, program, ringside};
use serde_json::Value;
use std::fs;
use std::net::TcpListener;

/// Its findings by name, and its exit code.
struct Found {
    findings: Vec<Value>,
    code: Option<i32>,
}

impl Found {
    /// Verdict, what was found, advice.
    fn of(&self, what: &str) -> (&str, &str, &str) {
        let named = |finding: &&Value| finding["check"] == what;
        // The worst of its name.
        let worst = |finding: &&Value| match finding["verdict"].as_str() {
            Some("fail") => 2,
            Some("warn") => 1,
            _ => 0,
        };
        let finding = self.findings.iter().filter(named).max_by_key(worst);
        let finding = finding.unwrap_or_else(|| panic!("no {what} in {:#?}", self.findings));
        let text = |name: &str| finding[name].as_str().expect("a text");
        (text("verdict"), text("found"), text("advice"))
    }
}

fn doctor(world: &World, denied: Option<&str>, env: &[(&str, &str)], args: &[&str]) -> Found {
    let mut doctor = match denied {
        None => command(ringside()),
        Some(call) => {
            let mut without = command(program("probe"));
            without.args(["without", call, "--"]).arg(ringside());
            without
        }
    };
    doctor.args(["doctor", "--json", "--app-id", "a", "--dapr-listen-addresses", "127.0.0.1"]);
    for flag in ["--dapr-grpc-port", "--dapr-http-port", "--metrics-port"] {
        doctor.args([flag, &claim().to_string()]);
    }
    doctor.args(args).envs(env.iter().copied());
    let mut process = Process::start(&world.folder("doctors"), &format!("{}", claim()), doctor);
    let code = process.wait_for_end().code();
    let findings = serde_json::from_str(&process.log());
    let findings = findings.unwrap_or_else(|_| panic!("JSON: {}", process.log()));
    Found { findings, code }
}

/// With a real Sentry, whose certificate it gets.
#[test]
fn finds_that_all_is_well() {
    let world = World::with_sentry("doctor-well");
    let app = ProbeApp::start(&world);
    let sentry = world.sentry.as_ref().expect("a Sentry");
    let (address, port) = (format!("localhost:{}", sentry.port), app.port.to_string());
    let env = [("DAPR_TRUST_ANCHORS", sentry.anchors.as_str()), ("NAMESPACE", "default")];
    let flags = ["--enable-mtls", "--sentry-address", &address, "--app-port", &port];
    let found = doctor(&world, None, &env, &flags);
    assert_eq!(found.code, Some(0), "{:#?}", found.findings);
    let all = ["kernel", "descriptors", "flags", "configuration", "ports", "app", "clock"];
    for what in all.into_iter().chain(["admin socket", "names"]) {
        assert_eq!(found.of(what).0, "ok", "{:?}", found.of(what));
    }
    assert!(found.of("event loop").1.starts_with("io_uring ("), "{:?}", found.of("event loop"));
    assert!(found.of("sentry").1.contains("spiffe://localhost/ns/default/dapr-sentry"));
    let (verdict, identity, _) = found.of("identity");
    assert!(
        verdict == "ok" && identity.starts_with("spiffe://public/ns/default/a, "),
        "{identity}"
    );
    assert_eq!(found.of("trust anchors").0, "ok");
    assert!(!found.findings.iter().any(|f| f.to_string().contains("BEGIN CERTIFICATE")));
}

#[test]
fn names_what_is_wrong_and_what_to_do() {
    let world = World::with_sentry("doctor-ill");
    let folder = world.folder("files");
    let write = |name: &str, text: &str| {
        fs::write(folder.join(name), text).expect("a file");
        folder.join(name).to_str().expect("a plain path").to_owned()
    };
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let found = doctor(&world, None, &[], &["--dapr-grpc-port", &port]);
    assert_eq!(found.code, Some(1));
    let (verdict, text, advice) = found.of("ports");
    assert_eq!((verdict, text), ("fail", &*format!("127.0.0.1:{port}: address already in use")));
    assert!(advice.contains("--dapr-grpc-port") && advice.contains("ss -ltnp"), "{advice}");

    let wrong = write("wrong.yaml", "spec:\n  accessControl: deny\n");
    let found = doctor(&world, None, &[], &["--config", &wrong]);
    let (verdict, text, _) = found.of("configuration");
    assert!(verdict == "fail" && text.contains(&wrong) && text.contains("line 2"), "{text}");
    let odd = write("odd.yaml", "spec: {acessControl: {defaultAction: deny}}\n");
    let found = doctor(&world, None, &[], &["--config", &odd]);
    let (verdict, text, _) = found.of("configuration");
    assert!(verdict == "warn" && text.contains("spec.acessControl"), "{text}");
    assert_eq!(found.code, Some(0));

    let resources = world.folder("resources-of-its-own");
    let text = "kind: Resiliency\nmetadata: {name: r}\n\
                spec: {policies: {timeouts: {t: 2x}}, targets: {apps: {b: {timeout: t}}}}\n";
    fs::write(resources.join("r.yaml"), text).expect("a resource");
    let folder = resources.to_str().expect("a plain path");
    let found = doctor(&world, None, &[], &["--resources-path", folder]);
    let (verdict, text, _) = found.of("resources");
    assert!(verdict == "warn" && text.contains("r.yaml") && text.contains("2x"), "{text}");

    let dead = claim().to_string();
    let found = doctor(&world, None, &[], &["--app-port", &dead]);
    let (verdict, text, _) = found.of("app");
    assert_eq!((verdict, text), ("warn", &*format!("127.0.0.1:{dead}: connection refused")));
    let found = doctor(&world, None, &[], &["--max-body-size", "x"]);
    assert_eq!((found.of("flags").0, found.code), ("fail", Some(1)));
}

#[test]
fn tells_a_sentry_that_is_not_there_from_one_that_is_another() {
    let world = World::with_sentry("doctor-sentry");
    let other = World::with_sentry("doctor-other-sentry");
    let sentry = world.sentry.as_ref().expect("a Sentry");
    let theirs = &other.sentry.as_ref().expect("a Sentry").anchors;
    let ask = |address: &str, anchors: &str| {
        let env = [("DAPR_TRUST_ANCHORS", anchors)];
        doctor(&world, None, &env, &["--enable-mtls", "--sentry-address", address])
    };
    let dead = format!("127.0.0.1:{}", claim());
    let found = ask(&dead, &sentry.anchors);
    let (verdict, text, advice) = found.of("sentry");
    assert!(verdict == "fail" && text.contains("connection refused"), "{text}");
    assert!(advice.contains("is Sentry running"), "{advice}");
    let found = ask(&format!("localhost:{}", sentry.port), theirs);
    let (verdict, _, advice) = found.of("sentry");
    assert!(verdict == "fail" && advice.contains("do they come from this Sentry"), "{advice}");
    let found = ask(&format!("localhost:{}", sentry.port), "no PEM");
    assert_eq!((found.of("trust anchors").0, found.code), ("fail", Some(1)));
}

/// As in a container whose seccomp profile has no io_uring.
#[test]
fn says_how_to_get_io_uring() {
    let world = World::new("doctor-denied");
    let found = doctor(&world, Some("io_uring_setup"), &[], &[]);
    let (verdict, text, advice) = found.of("event loop");
    assert!(verdict == "warn" && text.starts_with("epoll, as io_uring is not to be had"), "{text}");
    assert!(advice.contains("seccomp") || advice.contains("io_uring_disabled"), "{advice}");
    assert_eq!(found.code, Some(0));
    let found = doctor(&world, Some("io_uring_setup"), &[], &["--ringside-io", "uring"]);
    assert_eq!((found.of("event loop").0, found.code), ("fail", Some(1)));
    let found = doctor(&world, Some("io_uring_setup"), &[], &["--ringside-io", "epoll"]);
    assert_eq!(found.of("event loop"), ("ok", "epoll", ""));
}

#[test]
fn is_read_by_people_too() {
    let world = World::new("doctor-text");
    let mut doctor = command(ringside());
    doctor.args(["doctor", "daprd", "--app-id", "", "--nope"]);
    let mut process = Process::start(&world.folder("a"), "usage", doctor);
    assert_eq!(process.wait_for_end().code(), Some(2));
    assert!(process.log().starts_with("unknown flag: --nope\nUsage: ringside doctor"));
    let mut doctor = command(ringside());
    doctor.args(["doctor", "daprd", "--app-id", ""]);
    let mut process = Process::start(&world.folder("a"), "text", doctor);
    assert_eq!(process.wait_for_end().code(), Some(1));
    let log = process.log();
    assert!(log.contains("fail  flags        parameter app-id cannot be empty\n"), "{log}");
    assert!(log.contains("\n                   -> correct the flag"), "{log}");
    assert!(log.ends_with("a sidecar would not work here; failures: 1, warnings: 0\n"), "{log}");
}
