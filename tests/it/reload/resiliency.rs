//! Resiliency resources, file by file; and what neither kind of file may be disturbed by.

use super::{
    AT_ONCE, DENIED, Hostile, PATIENT, RUNNING, Streams, Subject, by_default, figure, hostile,
    mount, plain, replace, within,
};
use crate::peer::process::until;
use crate::peer::sidecar::{http_get, unchunked};
use crate::peer::tagged::{App, End, connect, runtime, unary};
use crate::peer::{Kind, Sidecar, World, workers};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const DEADLINE_EXCEEDED: &str = "4";

/// How a call to `server` ends that the app thinks about, for much longer than [`AT_ONCE`].
fn thought_about(port: u16) -> String {
    static TAG: AtomicU64 = AtomicU64::new(1 << 57);
    let tag = TAG.fetch_add(1, Ordering::Relaxed);
    let call =
        async { unary(&connect(port).await.expect("a connection"), "server", tag, 400).await };
    match runtime().block_on(call) {
        End::Ok => "0".to_owned(),
        End::Status(status, _) => status.to_string(),
        End::Lost(why) => why,
    }
}

fn becomes(caller: &mut Sidecar, status: &str, after: &str) {
    let port = caller.ports.grpc;
    let found = until(|| (thought_about(port) == status).then_some(()));
    assert!(found.is_some(), "no {status} after {after}\n{}", caller.process.tail());
}

fn resiliencies(sidecar: &Sidecar) -> serde_json::Value {
    let answer = http_get(sidecar.ports.http, "/v1.0/metadata").expect("metadata");
    let metadata: serde_json::Value = serde_json::from_str(&unchunked(&answer)).expect("JSON");
    metadata["resiliencies"].clone()
}

/// Resources come, change, turn wrong, and go: file by file, while streams go on under what they
/// began with.
#[test]
fn follows_resiliency_file_by_file() {
    let mut world = World::new("reload-resiliency");
    world.reserve(&["server", "client"]);
    let folder = world.folder("resources");
    let app = App::start();
    let _callee = Sidecar::callee(&world, Kind::Ringside, "server", app.port);
    let mut caller = Sidecar::caller(&world, Kind::Ringside, "client");
    let port = caller.ports.grpc;
    let streams = Streams::start(port, 4);
    streams.wait_for(20);
    assert_eq!(thought_about(port), "0");
    assert!(resiliencies(&caller).is_null());

    let file = folder.join("r.yaml");
    replace(&file, &within("rz", AT_ONCE));
    becomes(&mut caller, DEADLINE_EXCEEDED, "a new resource");
    assert_eq!(resiliencies(&caller)[0]["name"], "rz");
    streams.wait_for(20);

    for (wrong, error) in [
        ("kind: Resiliency\nspec: [\n".to_owned(), "error converting YAML to JSON: yaml: "),
        (within("rz", "soon"), "Could not read resiliency policy rz: invalid duration"),
        (String::new(), "Could not read resiliency file r.yaml: it holds nothing any more"),
    ] {
        replace(&file, &wrong);
        let line = caller.process.wait_for_line(error);
        assert!(line.contains("level=error") && line.contains(plain(&file)), "{line}");
        assert!(line.contains("what it said before stays in force"), "{line}");
        assert_eq!(thought_about(port), DEADLINE_EXCEEDED, "{error}");
        assert_eq!(figure(&caller, "ringside_config_last_reload_successful"), 0);
    }
    replace(&file, &within("rz", PATIENT));
    becomes(&mut caller, "0", "a longer time");
    assert_eq!(figure(&caller, "ringside_config_last_reload_successful"), 1);
    assert_eq!(figure(&caller, "ringside_config_reload_failures_total"), 3);

    // Later files lie over earlier ones, and only those that are for us.
    let others = format!("{}scopes: [other]\n", within("others", AT_ONCE));
    replace(&folder.join("s.yaml"), &others);
    let ours = format!("{}scopes: [client]\n", within("ours", AT_ONCE));
    replace(&folder.join("t.yaml"), &ours);
    becomes(&mut caller, DEADLINE_EXCEEDED, "a resource that lies over the other");
    let names = resiliencies(&caller);
    assert_eq!((&names[0]["name"], &names[1]["name"]), (&"rz".into(), &"ours".into()));
    fs::remove_file(folder.join("t.yaml")).expect("a file");
    becomes(&mut caller, "0", "its end");
    replace(&file, &within("rz", AT_ONCE));
    becomes(&mut caller, DEADLINE_EXCEEDED, "a short time");
    fs::remove_file(&file).expect("a file");
    becomes(&mut caller, "0", "the end of all");
    assert!(resiliencies(&caller).is_null());
    mount(&folder, "1", "r.yaml", &within("rz", AT_ONCE));
    symlink("..data/r.yaml", &file).expect("a link");
    becomes(&mut caller, DEADLINE_EXCEEDED, "a folder that is a ConfigMap");
    mount(&folder, "2", "r.yaml", &within("rz", PATIENT));
    becomes(&mut caller, "0", "its new version");

    streams.wait_for(20);
    let ends = streams.stop();
    assert!(ends.iter().all(|end| matches!(end, Ok(End::Ok))), "{ends:?}");
    assert_eq!(caller.process.log().matches(RUNNING).count(), 1);
}

/// Files that cannot be, beside one that is right: each is left out with an ERROR, at the start and
/// later, and nobody is held up.
#[test]
fn resiliency_files_that_cannot_be_are_left_out() {
    let mut world = World::new("reload-resources");
    world.reserve(&["server", "client"]);
    let folder = world.folder("resources");
    fs::write(folder.join("right.yaml"), within("right", AT_ONCE)).expect("a resource");
    let nested = "(".repeat(20_000);
    let nested = format!(
        "kind: Resiliency\nmetadata: {{name: nested}}\nspec:\n  policies:\n    circuitBreakers: \
         {{b: {{trip: \"{nested}\"}}}}\n"
    );
    let mut all = hostile();
    all.push((Hostile::Text(nested), "Could not read resiliency policy nested: "));
    // A folder is none of the folder's files.
    all.retain(|(hostile, _)| !matches!(hostile, Hostile::Folder));
    let put = || {
        for (number, (hostile, _)) in all.iter().enumerate() {
            hostile.put(&folder.join(format!("h{number}.yaml")));
        }
    };
    let wrong = |log: &str| {
        let lines = log.lines().filter(|line| line.contains("level=error"));
        let told = ["resource type: error", "Could not read resiliency"];
        lines.filter(|line| told.iter().any(|told| line.contains(told))).count()
    };
    put();
    let app = App::start();
    let mut callee = Sidecar::callee(&world, Kind::Ringside, "server", app.port);
    let caller = Sidecar::caller(&world, Kind::Ringside, "client");
    assert_eq!(wrong(&caller.process.log()), all.len(), "{}", caller.process.log());
    assert_eq!(thought_about(caller.ports.grpc), DEADLINE_EXCEEDED);
    assert_eq!(figure(&caller, "ringside_config_last_reload_successful"), 0);
    assert_eq!(callee.process.terminate().code(), Some(0));
    drop(caller);

    for number in 0..all.len() {
        fs::remove_file(folder.join(format!("h{number}.yaml"))).expect("a file");
    }
    let _callee = Sidecar::callee(&world, Kind::Ringside, "server", app.port);
    let mut caller = Sidecar::caller(&world, Kind::Ringside, "client");
    assert_eq!(figure(&caller, "ringside_config_last_reload_successful"), 1);
    put();
    let expected = all.len();
    caller
        .process
        .wait("an error for each", |process| (wrong(&process.log()) == expected).then_some(()));
    assert_eq!(thought_about(caller.ports.grpc), DEADLINE_EXCEEDED);
    replace(&folder.join("right.yaml"), &within("right", PATIENT));
    becomes(&mut caller, "0", "a change beside them");
    assert_eq!(wrong(&caller.process.log()), expected, "each is told once");
}

/// daprd restarts for it; ringside does not.
#[test]
fn the_same_resiliency_beside_daprd() {
    for kind in [Kind::Daprd, Kind::Ringside] {
        let mut world = World::new(&format!("reload-resiliency-{}", kind.name()));
        world.reserve(&["server", "client"]);
        let app = App::start();
        let _callee = Sidecar::callee(&world, Kind::Ringside, "server", app.port);
        let file = world.folder("resources").join("r.yaml");
        fs::write(&file, within("rz", PATIENT)).expect("a resource");
        let mut caller = Sidecar::caller(&world, kind, "client");
        assert_eq!(thought_about(caller.ports.grpc), "0");
        fs::write(&file, within("rz", AT_ONCE)).expect("a resource");
        if kind == Kind::Daprd {
            caller.process.wait("a second start", |process| {
                (process.log().matches(RUNNING).count() == 2).then_some(())
            });
        }
        becomes(&mut caller, DEADLINE_EXCEEDED, "an edit");
        let starts = caller.process.log().matches(RUNNING).count();
        assert_eq!(starts, if kind == Kind::Daprd { 2 } else { 1 });
    }
}

/// Something in a resources folder that never rests holds up no change of access control.
#[test]
fn a_restless_neighbour_holds_nobody_up() {
    let mut world = World::new("reload-restless");
    let file = world.folder("conf").join("acl.yaml");
    fs::write(&file, by_default("allow", "")).expect("a Configuration");
    let mut subject = Subject::start(&mut world, Kind::Ringside, &file);
    let busy = world.folder("resources").join("busy.yaml");
    let over = Arc::new(AtomicBool::new(false));
    let writer = {
        let over = Arc::clone(&over);
        std::thread::spawn(move || {
            for n in 0_u64.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                fs::write(&busy, format!("kind: Component\nmetadata: {{name: c{n}}}\n"))
                    .expect("it");
                std::thread::sleep(Duration::from_millis(20));
            }
        })
    };
    replace(&file, &by_default("deny", ""));
    subject.becomes(DENIED, "a change beside a restless file");
    let line = subject.sidecar.process.wait_for_line("something changes there all the time");
    assert!(line.contains("level=warning") && line.contains("resources"), "{line}");
    subject.sidecar.process.signal(Signal::HUP);
    replace(&file, &by_default("allow", ""));
    subject.becomes("0", "SIGHUP beside a restless file");
    over.store(true, Ordering::Relaxed);
    writer.join().expect("a writer");
}

/// A process that has no descriptor left can read nothing: nobody's policies change by that, and
/// what was written meanwhile holds once it can.
#[test]
fn no_descriptors_lose_no_policy() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let mut world = World::new("reload-descriptors");
    let file = world.folder("conf").join("acl.yaml");
    fs::write(&file, by_default("deny", "")).expect("a Configuration");
    fs::write(world.folder("resources").join("r.yaml"), within("rz", PATIENT)).expect("a resource");
    let mut subject = Subject::start(&mut world, Kind::Ringside, &file);
    let pid = i32::try_from(subject.sidecar.process.pid()).ok().and_then(Pid::from_raw);
    let limit = |current| {
        let limit = Rlimit { current: Some(current), maximum: Some(4096) };
        prlimit(pid, Resource::Nofile, limit).expect("a limit");
    };
    // Each worker raises the limit as it starts, which is after the API is there.
    for worker in 0..workers().unwrap_or(1) {
        subject.sidecar.process.wait_for_line(&format!("worker {worker}: "));
    }
    limit(3);
    replace(&file, &by_default("allow", ""));
    // It meets another Configuration first.
    for error in [".yaml: too many open files", "resources: too many open files"] {
        let line = subject.sidecar.process.wait_for_line(error);
        assert!(line.contains("level=error") && line.contains("stays in force"), "{line}");
    }
    limit(4096);
    subject.becomes("0", "descriptors");
    let good = || (subject.figure("ringside_config_last_reload_successful") == 1).then_some(());
    assert!(until(good).is_some(), "{}", subject.sidecar.process.tail());
    assert_eq!(resiliencies(&subject.sidecar)[0]["name"], "rz");
    let log = subject.sidecar.process.log();
    assert!(!log.contains("Resiliency reloaded"), "{log}");
    assert_eq!(log.matches("reloaded: spec.accessControl changed").count(), 1, "{log}");
}
