//! What `ringside doctor` finds of the admin socket's place, of the page's port, and of an app.

use super::doctor;
use crate::peer::World;
use crate::peer::ports::claim;
use crate::peer::probe::ProbeApp;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

const WHAT: &str = "admin socket";

#[test]
fn of_an_admin_socket_that_is_asked_for() {
    let world = World::new("doctor-socket");
    let folder = world.folder("sockets");
    let path = folder.join("admin.sock");
    let of = |path: &str| doctor(&world, None, &[], &["--ringside-admin-socket", path]);
    let text = path.to_str().expect("a plain path");
    let found = of(text);
    assert_eq!((found.of(WHAT).0, found.of(WHAT).1), ("ok", &*format!("{text}: free")));
    let listener = UnixListener::bind(&path).expect("a socket");
    let found = of(text);
    let (verdict, told, advice) = found.of(WHAT);
    assert_eq!((verdict, told), ("fail", &*format!("{text}: another process has it")));
    assert!(advice.contains("--ringside-admin-socket with another path"), "{advice}");
    assert_eq!(found.code, Some(1));
    drop(listener);
    let found = of(text);
    let (verdict, told, _) = found.of(WHAT);
    let stale = format!("{text}: left behind by a process that is gone: replaced");
    assert_eq!((verdict, told), ("ok", &*stale));
    assert!(path.exists(), "it is looked at only");
    fs::write(folder.join("file"), "").expect("a file");
    let found = of(folder.join("file").to_str().expect("a plain path"));
    assert!(found.of(WHAT).1.ends_with("there is another file"), "{:?}", found.of(WHAT));
    let found = of(folder.join("no/x.sock").to_str().expect("a plain path"));
    let (verdict, told, _) = found.of(WHAT);
    assert!(verdict == "fail" && told.ends_with("no such file or directory"), "{told}");
    // As long as the kernel takes, and one more.
    let stem = format!("/tmp/{}", "x".repeat(102));
    assert_eq!(of(&stem[..107]).of(WHAT).0, "ok");
    let found = of(&format!("{stem}x"));
    let (verdict, told, _) = found.of(WHAT);
    assert!(verdict == "fail" && told.ends_with("has 108 octets: 107 are possible"), "{told}");
    let found = of("off");
    assert_eq!((found.of(WHAT).0, found.of(WHAT).1), ("ok", "switched off"));
}

/// Nobody asked for it: then a sidecar works without it, and that is worth a warning.
#[test]
fn of_an_admin_socket_that_nobody_asked_for() {
    let world = World::new("doctor-own-socket");
    // Short, or sockets below it have no room for a name.
    let folder = std::env::temp_dir().join(format!("rs-doctor-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let runtime = folder.to_str().expect("a plain path").to_owned();
    let of = |args: &[&str]| doctor(&world, None, &[("XDG_RUNTIME_DIR", &runtime)], args);
    let found = of(&[]);
    let (verdict, told, _) = found.of(WHAT);
    assert!(verdict == "ok" && told.ends_with(".sock: free"), "{told}");
    assert!(!folder.join("ringside").exists(), "it is looked at only");
    fs::create_dir(folder.join("ringside")).expect("a folder");
    fs::set_permissions(folder.join("ringside"), Permissions::from_mode(0o777)).expect("a mode");
    let found = of(&[]);
    let (verdict, told, _) = found.of(WHAT);
    assert!(verdict == "warn" && told.ends_with("its folder is not this user's alone"), "{told}");
    assert_eq!(found.code, Some(0));
    fs::set_permissions(folder.join("ringside"), Permissions::from_mode(0o700)).expect("a mode");
    let found = of(&["--app-id", &"a".repeat(100)]);
    let (verdict, told, _) = found.of(WHAT);
    assert!(verdict == "warn" && told.ends_with("107 are possible"), "{told}");
    fs::remove_dir_all(&folder).expect("no folder any more");
}

#[test]
fn of_the_page() {
    let world = World::new("doctor-page");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let found = doctor(&world, None, &[], &["--ringside-page-port", &port]);
    let (verdict, told, advice) = found.of("ports");
    assert_eq!((verdict, told), ("fail", &*format!("127.0.0.1:{port}: address already in use")));
    assert!(advice.contains("--ringside-page-port"), "{advice}");
}

#[test]
fn of_an_apps_health() {
    let world = World::new("doctor-health");
    let app = ProbeApp::start(&world);
    let port = app.port.to_string();
    let of = |port: &str, more: &[&str]| {
        let mut args = vec!["--app-port", port, "--enable-app-health-check"];
        args.extend(more);
        doctor(&world, None, &[], &args)
    };
    let found = of(&port, &["--app-protocol", "grpc"]);
    let told = found.of("app health");
    assert_eq!((told.0, told.1), ("ok", "it says that it is well"), "{told:?}");
    // No HTTP app.
    let found = of(&port, &["--app-protocol", "http", "--app-health-probe-timeout", "400"]);
    let (verdict, told, advice) = found.of("app health");
    assert!(verdict == "warn" && told.starts_with("/healthz: "), "{told}");
    assert!(advice.contains("--app-health-check-path"), "{advice}");
    assert_eq!(found.code, Some(0));
    // Who does not listen is not asked.
    let found = of(&claim().to_string(), &["--app-protocol", "grpc"]);
    assert_eq!(found.of("app").0, "warn");
    assert!(!found.findings.iter().any(|finding| finding["check"] == "app health"));
}
