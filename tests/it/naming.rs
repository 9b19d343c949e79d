//! Finding other sidecars: what daprd's resolvers do not do, or do late.

use crate::peer::probe::{Call, ProbeApp};
use crate::peer::process::until;
use crate::peer::sidecar::{Naming, Options};
use crate::peer::{Kind, Sidecar, World};

/// daprd's text for an app that nobody announces, after one second instead of three.
#[test]
fn ringside_gives_an_unknown_app_up_after_a_second() {
    crate::isolated!("ringside_gives_an_unknown_app_up_after_a_second", {
        let mut world = World::new("naming-unknown");
        world.reserve(&["client"]);
        let options = Options { naming: Naming::Mdns, ..Options::default() };
        let caller = Sidecar::start(&world, Kind::Ringside, "client", options);
        for round in ["first", "again"] {
            let call = Call::to(&caller.address()).app("nobody").args(&["-deadline", "10s"]);
            let got = call.run(&world, round);
            assert_eq!(got.status(), ("Unknown", "couldn't find service: nobody"), "{round}");
            assert!(got.elapsed_ms < 2_500, "{round}: {} ms", got.elapsed_ms);
        }
    });
}

/// A table of hosts is read again when it changes.
#[test]
fn ringside_rereads_its_table() {
    let mut world = World::new("naming-table");
    world.reserve(&["server", "client"]);
    let app = ProbeApp::start(&world);
    let callee = Sidecar::callee(&world, Kind::Daprd, "server", app.port);
    world.dead_host("server");
    let caller = Sidecar::caller(&world, Kind::Ringside, "client");
    let call = || Call::to(&caller.address()).app("server").args(&["-deadline", "5s"]);
    let got = call().run(&world, "before");
    assert_eq!(got.code, "Unavailable", "{}", got.message);
    world.host("server", callee.ports.internal);
    world.publish_hosts("client", Kind::Ringside);
    let found = until(|| (call().run(&world, "after").code == "OK").then_some(()));
    assert!(found.is_some(), "{}", caller.process.tail());
}

/// Apps come and go: whoever announces the name now gets the calls.
#[test]
fn ringside_finds_an_app_that_starts_later() {
    crate::isolated!("ringside_finds_an_app_that_starts_later", {
        let mut world = World::new("naming-later");
        world.reserve(&["server", "client"]);
        let mdns = Options { naming: Naming::Mdns, ..Options::default() };
        let caller = Sidecar::start(&world, Kind::Ringside, "client", mdns.clone());
        let call = || Call::to(&caller.address()).app("server").args(&["-deadline", "5s"]);
        assert_eq!(call().run(&world, "before").code, "Unknown");
        let app = ProbeApp::start(&world);
        for (name, kind) in [("daprd", Kind::Daprd), ("ringside", Kind::Ringside)] {
            let served = Options { app_port: Some(app.port), ..mdns.clone() };
            let mut callee = Sidecar::start(&world, kind, "server", served);
            let found = until(|| (call().run(&world, name).code == "OK").then_some(()));
            assert!(found.is_some(), "{name}\n{}", caller.process.tail());
            assert!(callee.process.terminate().success());
        }
    });
}
