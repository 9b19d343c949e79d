//! `server.production`: one app id in two namespaces, each with an identity of its own by a real
//! Sentry, on one machine.

use crate::peer::ports::claim;
use crate::peer::probe::{Call, ProbeApp};
use crate::peer::sidecar::{Options, Ports};
use crate::peer::{Kind, Sidecar, World};

const WRONG_ID: &str = "connection error: desc = \"transport: authentication handshake failed: \
                        unexpected SPIFFE ID: \\\"spiffe://public/ns/";

fn start(world: &World, kind: Kind, id: &str, namespace: &str, app: Option<u16>) -> Sidecar {
    let ports = (namespace != "default").then(|| Ports {
        internal: world.ports_of(&format!("{id}.{namespace}")).first().copied().expect("a port"),
        ..Ports::claim()
    });
    let env = vec![("NAMESPACE", namespace)];
    Sidecar::start(world, kind, id, Options { app_port: app, ports, env, ..Options::default() })
}

/// Whom a call reaches: by namespace, by default the caller's own; on fresh connections and on
/// those that are there.
fn reaches_each(callees: Kind) {
    let mut world = World::with_sentry(&format!("namespaces-{}", callees.name()));
    world.reserve(&["server", "client"]);
    world.host("server.production", claim());
    world.host("client.production", claim());
    let apps = [ProbeApp::start(&world), ProbeApp::start(&world)];
    let _servers = ["default", "production"].map(|namespace| {
        let app = &apps[usize::from(namespace == "production")];
        start(&world, callees, "server", namespace, Some(app.port))
    });
    let mut expected = [0, 0];
    for namespace in ["default", "production"] {
        let caller = start(&world, Kind::Ringside, "client", namespace, None);
        for round in ["fresh", "pooled"] {
            for (to, whose) in [
                ("server", namespace),
                ("server.default", "default"),
                ("server.production", "production"),
            ] {
                let got = Call::to(&caller.address()).app(to).run(&world, round);
                assert_eq!(got.status(), ("OK", ""), "{to} from {namespace}, {round}");
                expected[usize::from(whose == "production")] += 1;
                let seen = [&apps[0], &apps[1]].map(|app| app.seen().len());
                assert_eq!(seen, expected, "{to} from {namespace}, {round}");
            }
        }
    }
}

#[test]
fn ringside_reaches_daprds_of_each() {
    reaches_each(Kind::Daprd);
}

#[test]
fn ringside_reaches_ringsides_of_each() {
    reaches_each(Kind::Ringside);
}

/// Name resolution sends calls astray, to the namesake in another namespace: refused by name,
/// before and after that one has been called by its own, in either order.
fn refuses_the_namesake(callees: Kind) {
    let mut world = World::with_sentry(&format!("namespaces-astray-{}", callees.name()));
    world.reserve(&["server", "client"]);
    let there = world.ports("server").internal;
    world.host("server.production", there);
    let app = ProbeApp::start(&world);
    let _server = start(&world, callees, "server", "default", Some(app.port));
    let caller = start(&world, Kind::Ringside, "client", "default", None);
    let mut served = 0;
    for round in ["fresh", "pooled", "again"] {
        let astray = Call::to(&caller.address()).app("server.production").run(&world, round);
        let who = format!("the sidecar of server.production at 127.0.0.1:{there}");
        assert_eq!(astray.code, "Unavailable", "{round}: {}", astray.message);
        let expected = format!("{WRONG_ID}default/server\\\"\" ({who}, seen by that of client)");
        assert_eq!(astray.message, expected, "{round}");
        assert_eq!(app.seen().len(), served, "{round}: a refused call reached the app");
        let fine = Call::to(&caller.address()).app("server").run(&world, round);
        assert_eq!(fine.status(), ("OK", ""), "{round}");
        served += 1;
        assert_eq!(app.seen().len(), served, "{round}");
    }
}

#[test]
fn ringside_refuses_a_daprd_of_another() {
    refuses_the_namesake(Kind::Daprd);
}

#[test]
fn ringside_refuses_a_ringside_of_another() {
    refuses_the_namesake(Kind::Ringside);
}
