//! `ringside tap`: calls as they end, bounded, and free when nobody looks.

use crate::admin_socket::{ask, socket_of};
use crate::peer::probe::{Call, ProbeApp};
use crate::peer::process::{Process, command};
use crate::peer::{Kind, Sidecar, World, ringside};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn tap(world: &World, socket: &Path, name: &str, args: &[&str]) -> Process {
    let mut tap = command(ringside());
    tap.arg("tap").arg("--socket").arg(socket).args(args);
    let mut process = Process::start(&world.folder("taps"), name, tap);
    process.wait_for_line("tapping ");
    process
}

fn calls(process: &Process) -> Vec<Value> {
    process.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// A caller's sidecar and an app's; their sockets.
fn pair(world: &mut World) -> (ProbeApp, [Sidecar; 2], [PathBuf; 2]) {
    world.reserve(&["server", "client"]);
    let app = ProbeApp::start(world);
    let callee = Sidecar::callee(world, Kind::Ringside, "server", app.port);
    let caller = Sidecar::caller(world, Kind::Ringside, "client");
    let mut sidecars = [caller, callee];
    let [caller, callee] = &mut sidecars;
    let sockets = [socket_of(caller), socket_of(callee)];
    (app, sidecars, sockets)
}

#[test]
fn shows_calls_of_both_hops_as_they_end() {
    let mut world = World::with_sentry("tap-calls");
    let (app, [caller, callee], [outer, inner]) = pair(&mut world);
    let mut outside = tap(&world, &outer, "outside", &["--json", "--count=2"]);
    let mut inside = tap(&world, &inner, "inside", &["--json", "--count=2"]);
    let call = || Call::to(&caller.address()).app("server");
    assert_eq!(call().args(&["-size", "1000"]).run(&world, "one").code, "OK");
    assert_eq!(call().metadata("probe-code", "6").run(&world, "two").code, "AlreadyExists");
    assert!(outside.wait_for_end().success() && inside.wait_for_end().success());
    let (outside, inside) = (calls(&outside), calls(&inside));
    for (told, hop) in [(&outside, "outbound"), (&inside, "inbound")] {
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!((&told[0]["hop"], &told[0]["callee"]), (&hop.into(), &"server".into()));
        assert_eq!(told[0]["method"], "/probe.Probe/Echo");
        assert_eq!((&told[0]["status"], &told[1]["status"]), (&0.into(), &6.into()));
        // A prefix of five octets comes before what the probe sends, and it is sent back.
        assert!(told[0]["request_octets"].as_u64().is_some_and(|octets| octets > 1000));
        assert_eq!(told[0]["request_octets"], told[0]["response_octets"]);
        let [waited, answered, total] =
            ["waited_us", "answered_us", "total_us"].map(|name| told[0][name].as_u64());
        assert!(waited.is_some() && waited <= answered && answered <= total, "{told:?}");
    }
    assert_eq!(outside[0]["upstream"], format!("127.0.0.1:{}", callee.ports.internal));
    assert_eq!(inside[0]["upstream"], format!("127.0.0.1:{}", app.port));
    assert_eq!(inside[0]["caller"], "spiffe://public/ns/default/client");
    assert!(outside[0]["caller"].as_str().is_some_and(|from| from.starts_with("127.0.0.1:")));
}

#[test]
fn shows_what_is_asked_for() {
    let mut world = World::new("tap-filters");
    let (_app, [caller, _callee], [outer, _]) = pair(&mut world);
    let mut failed = tap(&world, &outer, "failed", &["--status=AlreadyExists", "--count=1"]);
    let mut named = tap(&world, &outer, "named", &["--method=Other", "--json", "--count=1"]);
    let mut nobodys = tap(&world, &outer, "nobodys", &["--app=nobody", "--json", "--count=1"]);
    for (n, (app, method, code)) in [
        ("server", "/probe.Probe/Echo", "0"),
        ("server", "/probe.Probe/Other", "0"),
        ("server", "/probe.Probe/Echo", "6"),
        ("nobody", "/probe.Probe/Echo", "0"),
    ]
    .into_iter()
    .enumerate()
    {
        let call = Call::to(&caller.address()).app(app).metadata("probe-code", code);
        call.args(&["-method", method]).run(&world, &format!("call-{n}"));
    }
    for tap in [&mut failed, &mut named, &mut nobodys] {
        assert!(tap.wait_for_end().success());
    }
    assert!(failed.log().contains("AlreadyExists") && failed.log().contains("CALLEE"));
    assert_eq!(calls(&named)[0]["method"], "/probe.Probe/Other");
    assert_eq!(calls(&nobodys)[0]["callee"], "nobody");
}

/// Who taps and does not read loses calls, and is told how many; nobody else notices.
#[test]
fn a_tap_that_does_not_read_holds_up_nobody() {
    const CALLS: u64 = 3000;
    let mut world = World::new("tap-slow");
    let (_app, [caller, _callee], [outer, _]) = pair(&mut world);
    let mut stream = UnixStream::connect(&outer).expect("a socket");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream.write_all(b"tap\n").expect("a question");
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("a line"));
    assert_eq!(lines.next().as_deref(), Some("{\"tapping\":true}"));
    let times = CALLS.to_string();
    let call = Call::to(&caller.address()).app("server");
    let mut all = call.args(&["-times", &times]).start(&world, "many");
    all.wait_for_end();
    let outcomes = crate::peer::probe::outcomes(&all);
    assert_eq!(outcomes.iter().filter(|outcome| outcome.code == "OK").count(), CALLS as usize);
    let (mut told, mut missed) = (0, 0);
    while told + missed < CALLS {
        let line = lines.next().expect("a line for each call, or how many there are none of");
        let line: Value = serde_json::from_str(&line).expect("JSON");
        match line["missed"].as_u64() {
            Some(count) => missed += count,
            None => told += 1,
        }
    }
    assert!(missed > 0 && told + missed == CALLS, "{told} told, {missed} missed");
}

#[test]
fn taps_are_few_and_end_with_who_taps() {
    let mut world = World::new("tap-few");
    let (_app, _sidecars, [outer, _]) = pair(&mut world);
    let taps: Vec<Process> =
        (0..4).map(|n| tap(&world, &outer, &format!("tap-{n}"), &[])).collect();
    let refusal = ask(&outer, "tap");
    assert_eq!(refusal["error"], "there are 4 taps already");
    drop(taps);
    crate::peer::process::until(|| {
        let mut stream = UnixStream::connect(&outer).ok()?;
        stream.write_all(b"tap\n").ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        (line == "{\"tapping\":true}\n").then_some(())
    })
    .expect("room for another tap");
}
