//! What `ringside doctor` finds of names: each resolver where it answers, where it knows nobody, and
//! where it cannot be asked.

use super::{Found, doctor};
use crate::peer::dns::{DnsServer, Zone};
use crate::peer::ports::claim;
use crate::peer::probe::ProbeApp;
use crate::peer::{Kind, Sidecar, World};
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

/// With this resolver in the Configuration.
fn ask(world: &World, component: &str, configuration: &str, flags: &[&str]) -> Found {
    let text = format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {{name: d}}\nspec:\n  \
         nameResolution:\n    component: {component}\n    configuration: {configuration}\n"
    );
    let file = world.folder("configurations").join(format!("{}.yaml", claim()));
    fs::write(&file, text).expect("a Configuration");
    let mut args = vec!["--config", file.to_str().expect("a plain path")];
    args.extend(flags);
    doctor(world, None, &[], &args)
}

fn shown(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn of_a_file() {
    let world = World::new("doctor-static");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (port, dead) = (listener.local_addr().expect("an address").port(), claim());
    let file = world.folder("files").join("hosts.yaml");
    fs::write(&file, format!("b: [\"127.0.0.1:{port}\"]\nc: [\"127.0.0.1:{dead}\"]\n"))
        .expect("a table");
    let of = |flags: &[&str]| {
        let mut args = vec!["--ringside-resolve-file", shown(&file)];
        args.extend(flags);
        doctor(&world, None, &[], &args)
    };
    let found = of(&[]);
    let (verdict, text, _) = found.of("names");
    let answer =
        format!("static answers; of a.default: {} has no entry for a.default", shown(&file));
    assert_eq!((verdict, text), ("ok", &*answer), "one's own name need not be in it");
    let found = of(&["--resolve", "b"]);
    let (verdict, text, _) = found.of("names");
    assert_eq!((verdict, text), ("ok", &*format!("static knows b.default: 127.0.0.1:{port}")));
    assert_eq!(found.code, Some(0));
    let found = of(&["--resolve=c"]);
    let (verdict, text, advice) = found.of("names");
    let refused = format!("c.default at 127.0.0.1:{dead}: connection refused");
    assert_eq!((verdict, text), ("warn", &*refused));
    assert!(advice.contains("--dapr-internal-grpc-port"), "{advice}");
    let found = of(&["--resolve=d"]);
    let (verdict, text, advice) = found.of("names");
    assert!(verdict == "fail" && text.starts_with("static does not know d.default"), "{text}");
    assert!(advice.starts_with("add the app to the file"), "{advice}");
    assert_eq!(found.code, Some(1));
    let found = of(&["--resolve=d.e.f"]);
    assert_eq!(found.of("names").1, "invalid app id d.e.f");
    fs::write(&file, "b: [\"nowhere\"]\n").expect("a table");
    let found = of(&[]);
    let (verdict, text, advice) = found.of("names");
    assert!(verdict == "fail" && text.contains(shown(&file)), "{text}");
    assert!(advice.contains("correct the file"), "{advice}");
    fs::remove_file(&file).expect("no table");
    let found = of(&[]);
    assert!(found.of("names").1.contains("No such file"), "{:?}", found.of("names"));
}

/// Only looked at: neither a file nor a table nor a row comes about.
#[test]
fn of_a_table() {
    let world = World::new("doctor-sqlite");
    let database = world.folder("tables").join("nr.db");
    let of = |path: &Path, flags: &[&str]| {
        ask(&world, "sqlite", &format!("{{connectionString: \"{}\"}}", shown(path)), flags)
    };
    let found = of(&database, &[]);
    let (verdict, text, _) = found.of("names");
    assert!(verdict == "ok" && text.contains("is not there yet"), "{text}");
    assert!(!database.exists());
    let open = rusqlite::Connection::open(&database).expect("a database");
    let table = "CREATE TABLE hosts (registration_id TEXT, address TEXT, app_id TEXT, \
                 namespace TEXT, last_update INTEGER)";
    let found = of(&database, &[]);
    assert!(found.of("names").1.contains("no table of hosts yet"), "{:?}", found.of("names"));
    open.execute(table, []).expect("a table");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let row = "INSERT INTO hosts VALUES ('r', ?, 'b', '', unixepoch(CURRENT_TIMESTAMP))";
    open.execute(row, [&address]).expect("a row");
    let found = of(&database, &["--resolve", "b"]);
    assert_eq!(found.of("names").1, format!("sqlite knows b.default: {address}"));
    let found = of(&database, &["--resolve", "nobody"]);
    let (verdict, text, advice) = found.of("names");
    assert!(verdict == "fail" && text.contains("no host found with the given ID"), "{text}");
    assert!(advice.contains("with the same file"), "{advice}");
    let count = |sql| open.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a count");
    assert_eq!(count("SELECT count(*) FROM hosts"), 1);
    assert_eq!(count("SELECT count(*) FROM sqlite_master"), 1);

    let other = world.folder("tables").join("text");
    fs::write(&other, "no database, and long enough to be seen as none").expect("a file");
    let found = of(&other, &[]);
    let (verdict, text, _) = found.of("names");
    assert!(verdict == "fail" && text.contains("file is not a database"), "{text}");
    let found = of(&world.folder("tables").join("no/nr.db"), &[]);
    let (verdict, text, advice) = found.of("names");
    assert!(verdict == "fail" && text.contains("no such file or directory"), "{text}");
    assert!(advice.contains("let this user write that file"), "{advice}");
}

#[test]
fn of_a_dns_server() {
    let world = World::new("doctor-dns");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let mut zone = Zone::default();
    zone.hosts.insert("b.example.org".to_owned(), vec![Ipv4Addr::LOCALHOST]);
    let server = DnsServer::start(Ipv4Addr::LOCALHOST, 0, zone);
    let settings = format!(
        "{{name: \"{{appid}}.example.org\", port: {port}, servers: \"127.0.0.1:{}\"}}",
        server.port
    );
    let found = ask(&world, "dns", &settings, &["--resolve", "b"]);
    let (verdict, text, _) = found.of("names");
    assert_eq!((verdict, text), ("ok", &*format!("dns knows b.default: 127.0.0.1:{port}")));
    let found = ask(&world, "dns", &settings, &[]);
    let (verdict, text, _) = found.of("names");
    assert!(verdict == "ok" && text.contains("no such host"), "{text}");
    drop(server);
    let found = ask(&world, "dns", &settings, &[]);
    let (verdict, text, advice) = found.of("names");
    assert!(verdict == "fail" && text.contains("lookup a.example.org"), "{text}");
    assert!(advice.contains("does that server answer"), "{advice}");
    let found = ask(&world, "consul", "{}", &[]);
    let (verdict, text, advice) = found.of("names");
    assert!(verdict == "fail" && text.contains("couldn't find name resolver consul"), "{text}");
    assert!(advice.contains("spec.nameResolution"), "{advice}");
}

/// A sidecar that is there is found; nothing is announced by who looks.
#[test]
fn of_multicast() {
    crate::isolated!("of_multicast", {
        let mut world = World::new("doctor-mdns");
        world.reserve(&["b"]);
        let app = ProbeApp::start(&world);
        let naming = crate::peer::sidecar::Naming::Mdns;
        let port = Some(app.port);
        let options =
            crate::peer::sidecar::Options { app_port: port, naming, ..Default::default() };
        let sidecar = Sidecar::start(&world, Kind::Ringside, "b", options);
        let found = doctor(&world, None, &[], &["--resolve", "b"]);
        let at = format!("mdns knows b.default: {}", sidecar.internal_address());
        assert_eq!((found.of("names").0, found.of("names").1), ("ok", &*at));
        let found = doctor(&world, None, &[], &[]);
        let (verdict, text, _) = found.of("names");
        let nobody = "mdns answers; of a.default: couldn't find service: a";
        assert_eq!((verdict, text), ("ok", nobody));
        let found = doctor(&world, None, &[], &["--resolve", "a"]);
        let (verdict, _, advice) = found.of("names");
        assert!(verdict == "fail" && advice.contains("Multicast crosses no router"), "{advice}");
    });
}
