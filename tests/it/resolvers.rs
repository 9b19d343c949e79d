//! The resolvers that a Configuration names: their tables and servers shared with a real daprd,
//! wrong settings told as daprd tells them, backends that go and come under load.

use crate::peer::dns::{DnsServer, Zone};
use crate::peer::probe::{Call, ProbeApp};
use crate::peer::process::{command, until};
use crate::peer::sidecar::{Naming, Options};
use crate::peer::tagged::{App, End, Load};
use crate::peer::{Kind, Sidecar, World};
use std::fs;
use std::net::Ipv4Addr;

/// Lines of a spec that name a resolver.
fn resolver(component: &str, configuration: &str) -> String {
    format!(
        "nameResolution:\n  component: {component}\n  version: v1\n  \
         configuration: {configuration}\n"
    )
}

fn start(world: &World, kind: Kind, id: &str, app: Option<u16>, spec: &str) -> Sidecar {
    let options = Options { app_port: app, naming: Naming::Spec, spec, ..Options::default() };
    Sidecar::start(world, kind, id, options)
}

fn call(world: &World, from: &Sidecar, to: &str, name: &str) -> (String, String) {
    let got = Call::to(&from.address()).app(to).args(&["-deadline", "10s"]).run(world, name);
    (got.code, got.message)
}

/// Each finds the other's rows, believes them while they are renewed, and leaves none behind.
#[test]
fn daprd_and_ringside_share_a_table() {
    let mut world = World::new("resolvers-sqlite");
    world.reserve(&["one", "two"]);
    let app = ProbeApp::start(&world);
    for (first, second) in [(Kind::Daprd, Kind::Ringside), (Kind::Ringside, Kind::Daprd)] {
        let database = world.folder(first.name()).join("nr.db");
        // Renewed every five seconds, three before it is too late.
        let times = "timeout: 3s, updateInterval: 8s";
        let configuration = format!("{{connectionString: \"{}\", {times}}}", database.display());
        let spec = resolver("sqlite", &configuration);
        let mut one = start(&world, first, "one", Some(app.port), &spec);
        let mut two = start(&world, second, "two", Some(app.port), &spec);
        let open = rusqlite::Connection::open(&database).unwrap();
        let rows = || {
            let mut all = open.prepare("SELECT address, app_id, namespace FROM hosts").unwrap();
            let rows = all.query_map([], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
            });
            let mut rows: Vec<_> = rows.unwrap().map(Result::unwrap).collect();
            rows.sort_by(|a, b| a.1.cmp(&b.1));
            rows
        };
        let row = |of: &Sidecar, id: &str| (of.internal_address(), id.to_owned(), String::new());
        assert_eq!(rows(), [row(&one, "one"), row(&two, "two")]);
        for round in ["at once", "later"] {
            let fine = ("OK".to_owned(), String::new());
            assert_eq!(call(&world, &one, "two", "to-two"), fine, "{first:?} calls, {round}");
            assert_eq!(call(&world, &two, "one", "to-one"), fine, "{second:?} calls, {round}");
            if round == "at once" {
                // Until both rows were renewed, which a lookup depends on.
                let age = "SELECT count(*) FROM hosts WHERE last_update > ?";
                let now = "SELECT unixepoch(CURRENT_TIMESTAMP) + 1";
                let now: i64 = open.query_row(now, [], |row| row.get(0)).unwrap();
                let renewed = || {
                    let count: i64 = open.query_row(age, [now], |row| row.get(0)).unwrap();
                    (count == 2).then_some(())
                };
                assert!(until(renewed).is_some(), "{}\n{}", one.process.tail(), two.process.tail());
            }
        }
        for (from, kind) in [(&one, first), (&two, second)] {
            let nobody = ("Unknown".to_owned(), "no host found with the given ID".to_owned());
            assert_eq!(call(&world, from, "nobody", "nobody"), nobody, "{kind:?}");
        }
        one.process.terminate();
        let row = row(&two, "two");
        assert_eq!(rows(), [row]);
        two.process.terminate();
        assert_eq!(rows(), []);
    }
}

/// daprd's cleaning up removes the rows that are in use; with ringside there its turn never comes.
#[test]
fn no_row_in_use_is_cleaned_up() {
    let mut world = World::new("resolvers-cleanup");
    world.reserve(&["daprd", "ringside"]);
    let database = world.folder("table").join("nr.db");
    let every = "updateInterval: 2s, cleanupInterval: 1s";
    let configuration = format!("{{url: \"{}\", {every}}}", database.display());
    let spec = resolver("sqlite", &configuration);
    let mut ours = start(&world, Kind::Ringside, "ringside", None, &spec);
    ours.process.wait_for_line("Removed 0 expired rows");
    let mut daprd = start(&world, Kind::Daprd, "daprd", None, &spec);
    daprd.process.wait_for_line("Schedule expired data clean up every 1s");
    let again =
        until(|| (ours.process.log().matches("Removed 0 expired rows").count() >= 4).then_some(()));
    assert!(again.is_some(), "{}", ours.process.tail());
    assert!(daprd.process.running() && ours.process.running());
    for log in [ours.process.log(), daprd.process.log()] {
        assert!(!log.contains("our row was gone") && !log.contains("registration lost"), "{log}");
    }
}

/// What daprd says of a resolver that cannot start; and whoever calls then is told so.
#[test]
fn wrong_settings_are_told_as_by_daprd() {
    let mut world = World::new("resolvers-wrong");
    world.reserve(&["a"]);
    for (name, component, configuration) in [
        ("no-format", "nameformat", "{other: x}"),
        ("no-place", "NameFormat", "{format: \"x:1\"}"),
        ("no-string", "sqlite", "{timeout: 1s}"),
        ("short", "sqlite", "{URL: x.db, timeout: 10ms}"),
        ("table", "sqlite", "{url: x.db, tablename: \"a b\"}"),
        ("metadata", "sqlite", "{url: x.db, metadataTableName: \"a;b\"}"),
        ("fraction", "sqlite", "{url: x.db, updateInterval: 5500ms}"),
        ("interval", "sqlite", "{url: x.db, updateInterval: 2, timeout: 1500ms}"),
        ("twice", "sqlite", "{url: x.db, URL: y.db}"),
        ("pragma", "sqlite", "{url: \"x.db?_pragma=journal_mode(OFF)\"}"),
    ] {
        let spec = resolver(component, configuration);
        let said = [Kind::Daprd, Kind::Ringside].map(|kind| {
            let mut sidecar = start(&world, kind, "a", None, &spec);
            let line = sidecar.process.wait_for_line("[INIT_COMPONENT_FAILURE]");
            let at = line.find("[INIT_COMPONENT_FAILURE]").expect("it holds that");
            let text = line[at..].split("\" app_id=").next().unwrap_or_default();
            let text = text.split("\" instance=").next().unwrap_or_default();
            let text = text.split("\" scope=").next().unwrap_or_default().to_owned();
            assert!(sidecar.process.running(), "{name}: {kind:?}");
            // daprd would go on with a resolver that is half made.
            if kind == Kind::Ringside {
                let got = call(&world, &sidecar, "b", name);
                let uninitialized = "name resolver not initialized".to_owned();
                assert_eq!(got, ("Unknown".to_owned(), uninitialized), "{name}");
            }
            text
        });
        assert_eq!(said[0], said[1], "{name}");
    }
}

/// Kubernetes' names, with the DNS server of the machine, by its A records.
#[test]
fn kubernetes_names_as_daprd_asks_for_them() {
    crate::isolated!("kubernetes_names_as_daprd_asks_for_them", {
        let mut world = World::new("resolvers-kubernetes");
        world.reserve(&["server", "client"]);
        let settings = world.folder("etc").join("resolv.conf");
        fs::write(&settings, "nameserver 127.0.0.1\nsearch svc.test\noptions ndots:5\n").unwrap();
        let mut mount = command("mount");
        mount.arg("--bind").arg(&settings).arg("/etc/resolv.conf");
        assert!(mount.status().unwrap().success(), "mount (Debian: mount) runs");
        let here = vec![Ipv4Addr::LOCALHOST];
        let zone = Zone {
            hosts: [
                ("server-dapr.production.svc.test.org", here.clone()),
                ("server.apps.svc.test", here),
            ]
            .map(|(name, addresses)| (name.to_owned(), addresses))
            .into(),
            ..Zone::default()
        };
        let _dns = DnsServer::start(Ipv4Addr::LOCALHOST, 53, zone);
        let app = ProbeApp::start(&world);
        let port = world.ports("server").internal;
        let _server = Sidecar::callee(&world, Kind::Daprd, "server", app.port);
        for (name, configuration, fine, absent) in [
            (
                "template",
                format!(
                    "{{template: \"{{{{.ID}}}}-dapr.{{{{ .Namespace }}}}.svc.test.org:{port}\"}}"
                ),
                "server.production",
                ("server", "server-dapr.default.svc.test.org"),
            ),
            (
                "search",
                format!("{{template: \"{{{{.ID}}}}.apps:{port}\"}}"),
                "server",
                ("nobody", "nobody.apps"),
            ),
        ] {
            let spec = resolver("kubernetes", &configuration);
            for kind in [Kind::Daprd, Kind::Ringside] {
                let client = start(&world, kind, "client", None, &spec);
                let got = call(&world, &client, fine, "fine");
                assert_eq!(got.0, "OK", "{name}, {kind:?}: {}", got.1);
                let (code, text) = call(&world, &client, absent.0, "absent");
                let expected = format!(
                    "failed to resolve address for '{0}': lookup {0} on 127.0.0.1:53: no such host",
                    absent.1
                );
                assert_eq!((code.as_str(), text), ("Unknown", expected), "{name}, {kind:?}");
            }
        }
        for kind in [Kind::Daprd, Kind::Ringside] {
            let client = start(&world, kind, "client", None, &resolver("kubernetes", "{}"));
            let (code, text) = call(&world, &client, "nobody.other", "service");
            let host = "nobody-dapr.other.svc.cluster.local";
            let expected = format!(
                "failed to resolve address for '{host}': lookup {host} on 127.0.0.1:53: no such host"
            );
            assert_eq!((code.as_str(), text), ("Unknown", expected), "{kind:?}");
        }
    });
}

/// daprd's `nameformat`, and no resolver at all behind it.
#[test]
fn nameformat_as_daprd_reads_it() {
    let mut world = World::new("resolvers-nameformat");
    world.reserve(&["localhost", "client"]);
    let app = ProbeApp::start(&world);
    let server = Sidecar::callee(&world, Kind::Daprd, "localhost", app.port);
    let format = format!("{{format: \"{{appid}}:{}\"}}", server.ports.internal);
    for kind in [Kind::Daprd, Kind::Ringside] {
        let client = start(&world, kind, "client", None, &resolver("nameformat", &format));
        let got = call(&world, &client, "localhost", "fine");
        assert_eq!(got, ("OK".to_owned(), String::new()), "{kind:?}");
    }
}

fn failed(load: Load) -> Vec<String> {
    let outcomes = load.stop();
    assert!(outcomes.len() > 500, "{} calls", outcomes.len());
    let bad = outcomes.iter().filter(|outcome| outcome.end != End::Ok);
    bad.map(|outcome| format!("{:?}", outcome.end)).collect()
}

/// The DNS server dies and comes back under load: known targets never notice, and new instances
/// are found when it is there again.
#[test]
fn a_dns_server_dies_and_comes_back_under_load() {
    let mut world = World::new("resolvers-dns-dies");
    world.reserve(&["server", "client"]);
    let second = world.replicate("server");
    let app = App::start();
    let mut first = Sidecar::callee(&world, Kind::Ringside, "server", app.port);
    let service = "_dapr._tcp.server.default.test".to_owned();
    let host = "here.test".to_owned();
    let zone = Zone {
        hosts: [(host.clone(), vec![Ipv4Addr::LOCALHOST])].into(),
        services: [(service.clone(), vec![(host.clone(), first.ports.internal)])].into(),
    };
    let dns = DnsServer::start(Ipv4Addr::LOCALHOST, 0, zone.clone());
    let port = dns.port;
    let spec = resolver(
        "dns",
        &format!(
            "{{name: \"_dapr._tcp.{{appid}}.{{namespace}}.test\", servers: \"127.0.0.1:{port}\"}}"
        ),
    );
    let mut client = start(&world, Kind::Ringside, "client", None, &spec);
    let absent = call(&world, &client, "nobody", "nobody");
    let name = "_dapr._tcp.nobody.default.test";
    let text = format!(
        "failed to resolve address for '{name}': lookup {name} on 127.0.0.1:{port}: no such host"
    );
    assert_eq!(absent, ("Unknown".to_owned(), text));
    let load = Load::start(client.ports.grpc, "server", 8, 1);
    load.wait_for(200);
    drop(dns);
    client.process.wait_for_line("known endpoints of server.default stay in use");
    load.wait_for(200);
    let options = Options { app_port: Some(app.port), ports: Some(second), ..Options::default() };
    let mut replacement = Sidecar::start(&world, Kind::Ringside, "server", options);
    let dns = DnsServer::start(Ipv4Addr::LOCALHOST, port, zone);
    dns.change(|zone| {
        let all = [first.ports.internal, second.internal].map(|port| (host.clone(), port));
        zone.services.insert(service, all.into());
    });
    client.process.wait_for_line("server.default is resolved again");
    load.wait_for(200);
    assert!(first.process.terminate().success());
    load.wait_for(200);
    assert!(replacement.process.running());
    assert_eq!(failed(load), [""; 0]);
}

/// The same of the table: another program holds its lock for longer than rows live.
#[test]
fn a_table_is_locked_and_comes_back_under_load() {
    let mut world = World::new("resolvers-table-dies");
    world.reserve(&["server", "client"]);
    let database = world.folder("table").join("nr.db");
    let configuration = format!("{{url: \"{}\", disableWAL: true}}", database.display());
    let spec = resolver("sqlite", &configuration);
    let app = App::start();
    let mut server = start(&world, Kind::Ringside, "server", Some(app.port), &spec);
    let mut client = start(&world, Kind::Ringside, "client", None, &spec);
    let load = Load::start(client.ports.grpc, "server", 8, 1);
    load.wait_for(200);
    let locker = rusqlite::Connection::open(&database).unwrap();
    locker.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    locker.execute_batch("BEGIN EXCLUSIVE").unwrap();
    client.process.wait_for_line("known endpoints of server.default stay in use");
    server.process.wait_for_line("Failed to update host registration: database error");
    load.wait_for(200);
    locker.execute_batch("ROLLBACK").unwrap();
    client.process.wait_for_line("server.default is resolved again");
    load.wait_for(200);
    assert_eq!(failed(load), [""; 0]);
}
