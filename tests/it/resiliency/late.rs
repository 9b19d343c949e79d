//! Streams to an app that is late, through each pair of sidecars: between two ringsides the retry
//! policy reaches as far as the app; with a daprd at either end, as far as daprd's.

use crate::peer::ports::claim;
use crate::peer::probe::{Call, Outcome, ProbeApp, outcome};
use crate::peer::sidecar::{Options, loopback};
use crate::peer::{Kind, Sidecar, World};
use std::fs;
use std::net::TcpStream;

const POLICIES: &str = "\
kind: Resiliency
metadata: {name: late}
spec:
  policies: {retries: {often: {duration: 100ms, maxRetries: 500}}}
  targets: {apps: {server: {retry: often}}}
";

/// A stream with three messages, for an app that listens once the call has met nobody, or never;
/// and how often the app saw it.
fn call(callee: Kind, caller: Kind, comes: bool) -> (Outcome, usize) {
    let mut world = World::new(&format!("late-{}-{}", callee.name(), caller.name()));
    world.reserve(&["server", "client"]);
    fs::write(world.folder("resources").join("policies.yaml"), POLICIES).expect("the policies");
    let port = claim();
    let options = Options { app_port: Some(port), await_app: false, ..Options::default() };
    let mut server = Sidecar::start(&world, callee, "server", options);
    let internal = server.ports.internal;
    server.process.wait("internal port", |_| TcpStream::connect(loopback(internal)).ok());
    let mut client = Sidecar::caller(&world, caller, "client");
    let mut process = Call::to(&client.address())
        .app("server")
        .metadata("dapr-stream", "true")
        .args(&["-messages", "3", "-deadline", "50s"])
        .start(&world, "early");
    let app = comes.then(|| {
        client.process.wait_for_line("Error processing operation endpoint[server, server:");
        ProbeApp::start_at(&world, "late-app", port, None)
    });
    process.wait_for_end();
    (outcome(&process), app.map_or(0, |app| app.seen().len()))
}

#[test]
fn streams_wait_for_an_app_that_is_late() {
    let (told, seen) = call(Kind::Ringside, Kind::Ringside, true);
    assert_eq!((told.status(), told.messages, told.mismatch, seen), (("OK", ""), 3, false, 1));
    for (callee, caller) in [(Kind::Ringside, Kind::Daprd), (Kind::Daprd, Kind::Ringside)] {
        let (told, _) = call(callee, caller, false);
        assert_eq!(told.code, "Unavailable", "{callee:?} {caller:?}: {told:?}");
        let ours = |fields: &crate::peer::probe::Fields| {
            fields.keys().any(|name| name.starts_with("ringside-"))
        };
        assert!(!ours(&told.header) && !ours(&told.trailer), "{callee:?} {caller:?}: {told:?}");
    }
}
