//! Silence on a connection: streams outlive it, peers whose network is gone do not.

use crate::isolated;
use crate::peer::probe::{Call, Outcome, ProbeApp, outcome};
use crate::peer::process::{Process, command, until};
use crate::peer::sidecar::Options;
use crate::peer::{Kind, Sidecar, World};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Not a loopback address, though it is this network's own.
const FAR: &str = "10.77.0.1";

/// Between a network's end and the word of it: 10 s of silence, and 5 s for a sidecar's answer to a
/// PING, 20 s for an app's; the rest is for two busy cores.
const SIDECAR_FOUND: Duration = Duration::from_secs(15 + 10);
const APP_FOUND: Duration = Duration::from_secs(30 + 10);

/// A stream on which nobody says anything for longer than daprd's keepalive and its answer take.
fn silent_streams_live(caller: Kind, callee: Kind) {
    let name = format!("keepalive-{}-{}", caller.name(), callee.name());
    let mut world = World::with_sentry(&name);
    world.reserve(&["server", "client"]);
    let app = ProbeApp::start(&world);
    let _callee = Sidecar::callee(&world, callee, "server", app.port);
    let caller = Sidecar::caller(&world, caller, "client");
    let call = Call::to(&caller.address()).app("server").metadata("probe-flush", "1");
    let mut call = call.metadata("probe-sleep-ms", "28000").start(&world, "silent");
    let outcome = ended_within(&mut call, Duration::from_secs(60));
    assert_eq!((outcome.status(), outcome.messages), (("OK", ""), 1));
    assert!(outcome.elapsed_ms >= 28_000, "{}", outcome.elapsed_ms);
}

fn ended_within(call: &mut Process, time: Duration) -> Outcome {
    let begun = Instant::now();
    while call.running() {
        assert!(begun.elapsed() < time, "{} is not told within {time:?}", call.name);
        sleep(Duration::from_millis(20));
    }
    outcome(call)
}

/// For so long nothing happens to it.
fn lives_on(call: &mut Process, time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        assert!(call.running(), "after {:?}: {}", begun.elapsed(), call.tail());
        sleep(Duration::from_millis(100));
    }
}

fn ip(args: &[&str]) {
    let status = command("ip").args(args).status().expect("ip (iproute2) runs");
    assert!(status.success(), "ip {args:?}");
}

/// Where a sidecar's sockets are, for callers that need no network.
fn sockets(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("{name}-{}", crate::peer::netns::run_id()));
    std::fs::create_dir_all(&folder).expect("a folder for sockets");
    folder
}

fn on_sockets<'a>(folder: &'a Path, more: &[&'a str], app_port: Option<u16>) -> Options<'a> {
    let mut args = vec!["--unix-domain-socket", folder.to_str().expect("a plain path")];
    args.extend(more);
    Options { app_port, args, await_api: false, ..Options::default() }
}

/// Begins a call that the app never ends.
fn begin(world: &World, socket: &Path, app: &ProbeApp, calls: usize, name: &str) -> Process {
    let call = Call::to_unix(socket).app("server").metadata("probe-flush", "1");
    let call = call.metadata("probe-sleep-ms", "600000").start(world, name);
    until(|| (app.seen().len() == calls).then_some(())).expect("the call at the app");
    call
}

/// grpc-go's server, as everybody has it: four PINGs in 40 s would be too many. And when its network
/// goes, those who wait for it are told.
#[test]
fn a_far_app_is_asked_in_moderation() {
    isolated!("a_far_app_is_asked_in_moderation", {
        ip(&["address", "add", &format!("{FAR}/32"), "dev", "lo"]);
        let mut world = World::new("keepalive-far");
        world.reserve(&["server"]);
        let app = ProbeApp::start_on(&world, FAR);
        let folder = sockets("rs-far");
        // Each worker has a connection to the app; both calls are to be on one.
        let more = ["--app-channel-address", FAR, "--ringside-workers", "1"];
        let options = on_sockets(&folder, &more, Some(app.port));
        let mut sidecar = Sidecar::start(&world, Kind::Ringside, "server", options);
        sidecar.process.wait_for_line("dapr initialized. Status: Running");
        let socket = folder.join("dapr-server-grpc.socket");
        let mut silent = begin(&world, &socket, &app, 1, "silent");
        lives_on(&mut silent, Duration::from_secs(45));
        // Words from the app: from now on its silence is worth a question.
        let spoken = Call::to_unix(&socket).app("server").run(&world, "spoken");
        assert_eq!(spoken.status(), ("OK", ""));
        ip(&["link", "set", "lo", "down"]);
        let told = ended_within(&mut silent, APP_FOUND);
        let text = "keepalive ping failed to receive ACK within timeout";
        assert_eq!(told.code, "Unavailable", "{}", told.message);
        assert!(told.message.contains(text), "{}", told.message);
        sidecar.process.wait_for_line(&format!("Gave up the connection with {FAR}:{}", app.port));
        std::fs::remove_dir_all(&folder).expect("the sockets' folder goes");
    });
}

/// The machine of another sidecar is gone, with a call on it.
#[test]
fn a_sidecar_whose_network_is_gone_is_given_up() {
    isolated!("a_sidecar_whose_network_is_gone_is_given_up", {
        let mut world = World::new("keepalive-gone");
        world.reserve(&["server", "client"]);
        let app = ProbeApp::start(&world);
        let _callee = Sidecar::callee(&world, Kind::Ringside, "server", app.port);
        let folder = sockets("rs-gone");
        let options = on_sockets(&folder, &[], None);
        let mut caller = Sidecar::start(&world, Kind::Ringside, "client", options);
        caller.process.wait_for_line("dapr initialized. Status: Running");
        let socket = folder.join("dapr-client-grpc.socket");
        let mut call = begin(&world, &socket, &app, 1, "in-flight");
        ip(&["link", "set", "lo", "down"]);
        let told = ended_within(&mut call, SIDECAR_FOUND);
        let text = "keepalive ping failed to receive ACK within timeout";
        assert_eq!(told.code, "Unavailable", "{}", told.message);
        assert!(told.message.contains(text), "{}", told.message);
        caller.process.wait_for_line("Gave up the connection with ");
        std::fs::remove_dir_all(&folder).expect("the sockets' folder goes");
    });
}

#[test]
fn daprd_to_ringside() {
    silent_streams_live(Kind::Daprd, Kind::Ringside);
}

#[test]
fn ringside_to_daprd() {
    silent_streams_live(Kind::Ringside, Kind::Daprd);
}

#[test]
fn ringside_to_ringside() {
    silent_streams_live(Kind::Ringside, Kind::Ringside);
}
