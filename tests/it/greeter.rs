//! The how-to's Greeter through two sidecars.

use crate::peer::app::{App, greet};
use crate::peer::sidecar::{Naming, Options};
use crate::peer::{Kind, Sidecar, World};

const GREETING: &str = "Greeting: Hello Darth Tyrannus";

fn greets(mut world: World, client: Kind, server: Kind) {
    world.reserve(&["server", "client"]);
    let app = App::greeter(&world);
    let callee = Sidecar::callee(&world, server, "server", app.port);
    let caller = Sidecar::caller(&world, client, "client");
    let said = greet(&world, &caller.address(), "server");
    assert!(said.contains(GREETING), "{said}\n{}", callee.process.tail());
    assert!(app.process.log().contains("Received: Darth Tyrannus"));
}

/// The harness proves itself: nothing of ours takes part.
#[test]
fn daprd_to_daprd_mtls() {
    greets(World::with_sentry("greeter-dd-mtls"), Kind::Daprd, Kind::Daprd);
}

#[test]
fn daprd_to_daprd_plaintext() {
    greets(World::new("greeter-dd-plain"), Kind::Daprd, Kind::Daprd);
}

#[test]
fn daprd_to_daprd_mdns() {
    crate::isolated!("daprd_to_daprd_mdns", {
        let mut world = World::new("greeter-dd-mdns");
        world.reserve(&["server", "client"]);
        let app = App::greeter(&world);
        let mdns = Options { naming: Naming::Mdns, ..Options::default() };
        let served = Options { app_port: Some(app.port), ..mdns.clone() };
        let _callee = Sidecar::start(&world, Kind::Daprd, "server", served);
        let caller = Sidecar::start(&world, Kind::Daprd, "client", mdns);
        let said = greet(&world, &caller.address(), "server");
        assert!(said.contains(GREETING), "{said}");
    });
}
