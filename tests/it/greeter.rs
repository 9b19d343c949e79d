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

fn greets_by_mdns(name: &str, client: Kind, server: Kind) {
    let mut world = World::new(name);
    world.reserve(&["server", "client"]);
    let app = App::greeter(&world);
    let mdns = Options { naming: Naming::Mdns, ..Options::default() };
    let served = Options { app_port: Some(app.port), ..mdns.clone() };
    let _callee = Sidecar::start(&world, server, "server", served);
    let caller = Sidecar::start(&world, client, "client", mdns);
    let said = greet(&world, &caller.address(), "server");
    assert!(said.contains(GREETING), "{said}\n{}", caller.process.tail());
}

macro_rules! mixes {
    ($($caller:ident to $callee:ident: $mtls:ident $plaintext:ident $mdns:ident $by_mdns:literal;)*)
    => {$(
        #[test]
        fn $mtls() {
            let name = concat!("greeter-", stringify!($mtls));
            greets(World::with_sentry(name), Kind::$caller, Kind::$callee);
        }

        #[test]
        fn $plaintext() {
            let name = concat!("greeter-", stringify!($plaintext));
            greets(World::new(name), Kind::$caller, Kind::$callee);
        }

        #[test]
        fn $mdns() {
            crate::isolated!($by_mdns, {
                greets_by_mdns(concat!("greeter-", $by_mdns), Kind::$caller, Kind::$callee);
            });
        }
    )*};
}

mixes! {
    // The harness proves itself: nothing of ours takes part.
    Daprd to Daprd: daprd_to_daprd_mtls daprd_to_daprd_plaintext
        daprd_to_daprd_mdns "daprd_to_daprd_mdns";
    Daprd to Ringside: daprd_to_ringside_mtls daprd_to_ringside_plaintext
        daprd_to_ringside_mdns "daprd_to_ringside_mdns";
    Ringside to Daprd: ringside_to_daprd_mtls ringside_to_daprd_plaintext
        ringside_to_daprd_mdns "ringside_to_daprd_mdns";
    Ringside to Ringside: ringside_to_ringside_mtls ringside_to_ringside_plaintext
        ringside_to_ringside_mdns "ringside_to_ringside_mdns";
}
