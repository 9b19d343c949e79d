//! The command line and the start: what a process says, and with what code it ends.

use crate::peer::app::{App, greet};
use crate::peer::ports::claim;
use crate::peer::probe::{Call, ProbeApp, outcome};
use crate::peer::process::{Process, command, until};
use crate::peer::sidecar::{Options, http_request, http_status};
use crate::peer::{Kind, Sidecar, World, ringside, workers};
use rustix::fs::OFlags;
use rustix::process::Signal;
use serde_json::Value;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;

/// Starts ringside as given, with ports that nobody else has.
fn start(folder: &Path, name: &str, args: &[&str]) -> Process {
    start_program(&ringside(), folder, name, args)
}

fn start_program(program: &Path, folder: &Path, name: &str, args: &[&str]) -> Process {
    let mut sidecar = command(program);
    sidecar.args(["--app-id", "a", "--dapr-listen-addresses", "127.0.0.1"]);
    for flag in
        ["--dapr-grpc-port", "--dapr-http-port", "--metrics-port", "--dapr-internal-grpc-port"]
    {
        sidecar.args([flag, &claim().to_string()]);
    }
    let hosts = folder.join("hosts.yaml");
    fs::write(&hosts, "a: [\"127.0.0.1:1\"]\n").expect("a table of hosts");
    sidecar.arg("--ringside-resolve-file").arg(&hosts).args(args);
    Process::start(folder, name, sidecar)
}

#[test]
fn says_its_usage() {
    let world = World::new("cli-usage");
    let folder = world.folder("a");
    let mut help = start(&folder, "help", &["--help"]);
    assert_eq!(help.wait_for_end().code(), Some(0));
    assert!(help.log().contains("Usage of daprd:\n") && help.log().contains("--ringside-io"));
    assert!(help.log().contains("  doctor   would a sidecar"), "our own words, by our own name");
    let installed = folder.join("daprd");
    symlink(ringside(), &installed).expect("a name");
    let mut help = start_program(&installed, &folder, "installed", &["--help"]);
    assert_eq!(help.wait_for_end().code(), Some(0));
    assert!(help.log().contains("Usage of daprd:\n") && !help.log().contains("doctor"));
    let mut unknown = start(&folder, "unknown", &["-nope"]);
    assert_eq!(unknown.wait_for_end().code(), Some(2));
    assert!(unknown.log().starts_with("unknown flag: --nope\nUsage of daprd:\n"));
}

/// The rule is: what restricts access and is not enforced stops the start, by file and field.
#[test]
fn never_fails_open() {
    let world = World::new("cli-open");
    let folder = world.folder("a");
    for (n, (text, field)) in [
        ("accessControl: deny", "line 2"),
        ("accessControl: {policies: [{appId: b}]}", "missing trustdomain for apps: [b]"),
        ("httpPipeline: {handlers: [{name: a, type: b}]}", "spec.httpPipeline.handlers"),
    ]
    .into_iter()
    .enumerate()
    {
        let file = folder.join(format!("{n}.yaml"));
        fs::write(&file, format!("spec:\n  {text}\n")).expect("a Configuration");
        let file = file.to_str().expect("a plain path");
        let mut sidecar = start(&folder, &n.to_string(), &["--config", file]);
        assert_eq!(sidecar.wait_for_end().code(), Some(1), "{}", sidecar.tail());
        let log = sidecar.log();
        assert!(log.contains("level=fatal msg=\"Fatal error from runtime: "), "{log}");
        let named = log.contains(file) || field.starts_with("missing");
        assert!(named && log.contains(field), "{log}");
        assert!(!log.contains("server listening"), "{log}");
    }
}

/// The operator's Configurations may restrict; we cannot read them.
#[test]
fn kubernetes_is_refused() {
    let world = World::new("cli-kubernetes");
    let mut sidecar = start(&world.folder("a"), "a", &["--mode", "kubernetes"]);
    assert_eq!(sidecar.wait_for_end().code(), Some(1), "{}", sidecar.tail());
    let log = sidecar.log();
    let text = "Fatal error from runtime: mode kubernetes is not supported by this version";
    assert!(log.contains(text) && !log.contains("server listening"), "{log}");
}

/// As in a container whose seccomp profile has no io_uring.
#[test]
fn epoll_serves_where_io_uring_is_denied() {
    let mut world = World::new("cli-denied");
    world.reserve(&["server"]);
    let app = App::greeter(&world);
    let options = |driver| Options {
        app_port: Some(app.port),
        args: vec!["--ringside-io", driver],
        denied: Some("io_uring_setup"),
        await_api: driver == "auto",
        ..Options::default()
    };
    let mut sidecar = Sidecar::start(&world, Kind::Ringside, "server", options("auto"));
    let said = greet(&world, &sidecar.address(), "server");
    assert!(said.contains("Greeting: Hello"), "{said}\n{}", sidecar.process.tail());
    let log = sidecar.process.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("io_uring")).collect();
    let text = "epoll, as io_uring is not to be had: Operation not permitted";
    // Once for each worker.
    assert_eq!(told.len(), workers().unwrap_or(1), "{told:?}");
    let as_told = |line: &&str| line.contains(text) && line.contains("level=info");
    assert!(told.iter().all(as_told), "{told:?}");
    assert_eq!(sidecar.process.terminate().code(), Some(0));

    let mut sidecar = Sidecar::start(&world, Kind::Ringside, "server", options("uring"));
    assert_eq!(sidecar.process.wait_for_end().code(), Some(1), "{}", sidecar.process.tail());
    let log = sidecar.process.log();
    let last = log.trim_end().lines().last().unwrap_or_default();
    assert!(last.contains("level=fatal"), "{log}");
    for text in ["cannot set up io_uring: Operation not permitted", "seccomp", "use epoll"] {
        assert!(last.contains(text), "{log}");
    }
}

/// Calls may take their time; what closes after them has the grace period.
#[test]
fn an_exceeded_grace_period_exits_1() {
    let world = World::new("cli-grace");
    let http = claim().to_string();
    let args = ["--dapr-http-port", &http, "--dapr-graceful-shutdown-seconds", "1"];
    let mut sidecar = start(&world.folder("a"), "a", &args);
    sidecar.wait_for_line("dapr initialized. Status: Running");
    let port: u16 = http.parse().expect("a port");
    let mut slow = TcpStream::connect(("127.0.0.1", port)).expect("the HTTP port accepts");
    let head = "PUT /v1.0/metadata/k HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf";
    slow.write_all(head.as_bytes()).expect("half of a request");
    // Who is answered comes after the half request.
    assert_eq!(http_status(port, "/v1.0/healthz"), Some(204));
    assert_eq!(sidecar.terminate().code(), Some(1), "{}", sidecar.tail());
    let log = sidecar.log();
    let last = log.trim_end().lines().last().unwrap_or_default();
    assert!(last.contains("Graceful shutdown timeout exceeded, forcing shutdown"), "{log}");
}

#[test]
fn names_what_has_no_effect() {
    let world = World::new("cli-unused");
    let folder = world.folder("a");
    let resources = world.folder("resources");
    let resiliency = "kind: Resiliency\nmetadata: {name: ours}\nscopes: [a]\n";
    fs::write(resources.join("r.yaml"), resiliency).expect("a resource");
    let other = "kind: Resiliency\nmetadata: {name: theirs}\nscopes: [b]\n";
    fs::write(resources.join("o.yaml"), other).expect("a resource");
    let component = "kind: Component\nmetadata: {name: store}\nspec: {type: state.redis}\n";
    fs::write(resources.join("c.yaml"), component).expect("a resource");
    fs::write(resources.join("bad.yaml"), "kind: [").expect("a resource");
    let resources = resources.to_str().expect("a plain path");
    let config = folder.join("config.yaml");
    let api = "api: {denied: [{name: shutdown, version: v1}]}";
    fs::write(&config, format!("spec: {{metrix: {{enabled: true}}, {api}}}\n")).expect("a file");
    let config = config.to_str().expect("a plain path");
    let mut args = vec!["--resources-path", resources, "--placement-host-address", "x", "-app-ssl"];
    args.extend(["--config", config]);
    let mut sidecar = start(&folder, "a", &args);
    sidecar.wait_for_line("dapr initialized. Status: Running");
    let log = sidecar.log();
    let warnings = |text: &str| {
        log.lines().filter(|l| l.contains("level=warning") && l.contains(text)).count()
    };
    assert!(log.contains("level=info msg=\"Loading Resiliency configuration: ours\""), "{log}");
    assert_eq!(warnings("Component store (state.redis"), 1, "{log}");
    assert_eq!(warnings("config.yaml: no Configuration has a field spec.metrix"), 1, "{log}");
    assert_eq!(warnings("config.yaml: spec.api.denied[0] restricts nothing"), 1, "{log}");
    assert!(!log.contains("theirs"), "{log}");
    assert!(log.contains("level=error msg=\"cannot read "), "{log}");
    assert!(log.contains("without effect: --placement-host-address\""), "{log}");
    assert!(log.contains("Flag --app-ssl has been deprecated, use '--app-protocol https|grpcs'\n"));
    assert_eq!(sidecar.terminate().code(), Some(0));
    let last = sidecar.log();
    assert!(last.trim_end().lines().last().expect("lines").contains("Daprd shutdown gracefully"));
}

/// The order in which tools read daprd's start; each line once.
#[test]
fn logs_its_start_as_daprd() {
    let world = World::new("cli-start");
    let mut sidecar = start(&world.folder("a"), "a", &["--log-as-json"]);
    sidecar.wait_for_line("dapr initialized. Status: Running");
    assert_eq!(sidecar.terminate().code(), Some(0));
    let log = sidecar.log();
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    let mut rest = lines.iter();
    for (scope, start) in [
        ("dapr.runtime", "Starting Dapr Runtime -- version 1.18.1 -- commit "),
        ("dapr.runtime", "Log level set to: info"),
        ("dapr.runtime.security", "mTLS is disabled. Skipping certificate request and tls"),
        ("dapr.runtime", "loading default configuration"),
        ("dapr.runtime", "Enabled features: HotReload WorkflowsRemoteActivityReminder"),
        ("dapr.runtime", "standalone mode configured"),
        ("dapr.runtime", "app id: a"),
        ("dapr.runtime", "Dapr trace sampler initialized: ParentBased{root:"),
        ("dapr.runtime", "Initialized name resolution to static"),
        ("dapr.runtime.channels", "App channel is not initialized. Did you configure an app-port?"),
        ("dapr.runtime.grpc.api", "gRPC server listening on TCP address: 127.0.0.1:"),
        ("dapr.runtime", "API gRPC server is running on port "),
        ("dapr.runtime.http", "HTTP server listening on TCP address: 127.0.0.1:"),
        ("dapr.runtime", "HTTP server is running on port "),
        ("dapr.runtime", "The request body size parameter is: 4194304 bytes"),
        ("dapr.runtime.grpc.internal", "gRPC server listening on TCP address: :"),
        ("dapr.runtime", "Internal gRPC server is running on :"),
        ("dapr.runtime.hotreload", "Hot reloading enabled. Daprd will reload '"),
        ("dapr.runtime", "dapr initialized. Status: Running. Init Elapsed "),
        ("dapr.signals", "Received signal 'terminated'; beginning shutdown"),
        ("dapr.runtime", "Dapr is shutting down"),
        ("dapr.runtime", "Dapr runtime stopped"),
        ("dapr.runtime", "Daprd shutdown gracefully"),
    ] {
        let found = rest.find(|line| {
            line["scope"] == scope && line["msg"].as_str().is_some_and(|msg| msg.starts_with(start))
        });
        let found = found.unwrap_or_else(|| panic!("no {start:?} here or later\n{log}"));
        assert_eq!((&found["type"], &found["ver"]), (&"log".into(), &"1.18.1".into()));
        assert_eq!((&found["app_id"], found["instance"].is_string()), (&"a".into(), true));
    }
}

#[test]
fn appends_its_log_to_a_file() {
    let world = World::new("cli-file");
    let folder = world.folder("a");
    let file = folder.join("appended");
    fs::write(&file, "before\n").expect("a log file");
    let path = file.to_str().expect("a plain path");
    let mut sidecar = start(&folder, "a", &["--log-file", path, "--log-level", "warn"]);
    until(|| fs::read_to_string(&file).ok().filter(|log| log.contains("app-port")));
    assert_eq!(sidecar.terminate().code(), Some(0));
    let log = fs::read_to_string(&file).expect("a log file");
    assert!(log.starts_with("before\ntime="), "{log}");
    assert!(!log.contains("level=info"), "{log}");
    assert_eq!(sidecar.log(), "");
    let mut sidecar = start(&folder, "b", &["--log-file", "/nowhere/x"]);
    assert_eq!(sidecar.wait_for_end().code(), Some(1));
    let text = "failed to open log file \\\"/nowhere/x\\\": open /nowhere/x: no such file or \
                directory";
    assert!(sidecar.log().contains(text), "{}", sidecar.log());
}

/// The signal that restarts, when something holds from a start on; by then the program may be a
/// newer one.
#[test]
fn restarts_in_place_at_sighup() {
    let world = World::new("cli-sighup");
    let program = world.folder("bin").join("ringside");
    fs::copy(ringside(), &program).expect("a copy of the program");
    let config = world.folder("conf").join("config.yaml");
    fs::write(&config, "spec: {tracing: {samplingRate: '0'}}\n").expect("a Configuration");
    let args = ["--config", config.to_str().expect("a plain path")];
    let mut sidecar = start_program(&program, &world.folder("a"), "a", &args);
    let running = "dapr initialized. Status: Running";
    sidecar.wait_for_line(running);
    let newer = program.with_extension("new");
    fs::copy(ringside(), &newer).expect("another copy");
    fs::rename(&newer, &program).expect("the newer one in its place");
    fs::write(&config, "spec: {tracing: {samplingRate: '1'}}\n").expect("a Configuration");
    sidecar.signal(Signal::HUP);
    sidecar.wait("a second start", |process| {
        (process.log().matches(running).count() == 2).then_some(())
    });
    assert!(sidecar.log().contains("Received signal 'hangup'; restarting"));
    assert_eq!(sidecar.terminate().code(), Some(0));
}

/// Who asks for an end while a restart waits for its calls gets it, and their calls do not pay for
/// that.
#[test]
fn a_restart_gives_way_to_an_end() {
    let mut world = World::new("cli-sighup-end");
    world.reserve(&["server"]);
    let app = ProbeApp::start(&world);
    let config = world.folder("conf").join("config.yaml");
    fs::write(&config, "spec: {tracing: {samplingRate: '0'}}\n").expect("a Configuration");
    let args = vec!["--config", config.to_str().expect("a plain path")];
    let options = Options { app_port: Some(app.port), args, ..Options::default() };
    let mut sidecar = Sidecar::start(&world, Kind::Ringside, "server", options);
    let call = Call::to(&sidecar.address()).app("server").metadata("probe-sleep-ms", "1500");
    let mut call = call.start(&world, "in-flight");
    until(|| (app.seen().len() == 1).then_some(())).expect("the call at the app");
    fs::write(&config, "spec: {tracing: {samplingRate: '1'}}\n").expect("a Configuration");
    sidecar.process.signal(Signal::HUP);
    sidecar.process.wait_for_line("Received signal 'hangup'; restarting");
    sidecar.process.signal(Signal::TERM);
    sidecar.process.wait_for_line("Received signal 'terminated'; beginning shutdown");
    call.wait_for_end();
    assert_eq!(outcome(&call).code, "OK", "{}", sidecar.process.tail());
    assert_eq!(sidecar.process.wait_for_end().code(), Some(0), "{}", sidecar.process.tail());
    let log = sidecar.process.log();
    assert_eq!(log.matches("Starting Dapr Runtime").count(), 1, "{log}");
}

/// A SIGHUP that comes before anybody can catch it waits until somebody can: a pipe that nobody
/// reads holds the start up as early as that.
#[test]
fn a_hangup_does_not_end_a_start() {
    use rustix::fs::{CWD, FileType, mknodat};
    let world = World::new("cli-sighup-early");
    let folder = world.folder("a");
    let pipe = folder.join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, 0o600.into(), 0).expect("a pipe");
    let mut sidecar = start(&folder, "a", &["--log-file", pipe.to_str().expect("a plain path")]);
    sidecar.wait("a start that holds SIGHUP back", |process| {
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).ok()?;
        let held = status.lines().find_map(|line| line.strip_prefix("SigBlk:"))?.trim();
        // Number 1, and so the lowest bit.
        (u64::from_str_radix(held, 16).ok()? & 1 == 1).then_some(())
    });
    sidecar.signal(Signal::HUP);
    // Both ends, so that neither waits for the other one.
    let mut lines = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(&pipe)
        .expect("the pipe");
    let mut log = Vec::new();
    sidecar.wait("a start, and the signal", |_| {
        // Nothing there yet is an error, too.
        let _ = lines.read_to_end(&mut log);
        let log = String::from_utf8_lossy(&log);
        let running = log.contains("dapr initialized. Status: Running");
        (running && log.contains("Received signal 'hangup'")).then_some(())
    });
    assert_eq!(sidecar.terminate().code(), Some(0));
}

#[test]
fn a_taken_port_is_tried_for_ten_seconds() {
    let world = World::new("cli-taken");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port();
    let args = ["--dapr-grpc-port", &port.to_string()];
    let mut sidecar = start(&world.folder("a"), "a", &args);
    let text = format!(
        "Failed to listen for gRPC server on TCP address 127.0.0.1:{port} with error: listen tcp \
         127.0.0.1:{port}: bind: address already in use"
    );
    sidecar.wait_for_line(&text);
    assert_eq!(sidecar.wait_for_end().code(), Some(1));
    let text = "Fatal error from runtime: failed to start API gRPC server: could not listen on \
                any endpoint";
    assert!(sidecar.log().contains(text), "{}", sidecar.tail());
}

/// A call in flight is not cut; what comes after SIGTERM finds no listener.
#[test]
fn drains_before_it_ends() {
    let mut world = World::new("cli-drain");
    world.reserve(&["server"]);
    let app = ProbeApp::start(&world);
    let mut sidecar = Sidecar::callee(&world, Kind::Ringside, "server", app.port);
    let call = Call::to(&sidecar.address()).app("server").metadata("probe-sleep-ms", "1500");
    let mut call = call.start(&world, "in-flight");
    until(|| (app.seen().len() == 1).then_some(())).expect("the call at the app");
    sidecar.process.signal(Signal::TERM);
    until(|| TcpStream::connect(("127.0.0.1", sidecar.ports.grpc)).err()).expect("a drain");
    // The HTTP API goes last, and says that it is not ready.
    assert_eq!(http_status(sidecar.ports.http, "/v1.0/healthz"), Some(500));
    assert!(sidecar.process.running());
    call.wait_for_end();
    assert_eq!(outcome(&call).code, "OK", "{}", sidecar.process.tail());
    assert_eq!(sidecar.process.wait_for_end().code(), Some(0), "{}", sidecar.process.tail());
}

#[test]
fn drain_max_cuts_what_is_left() {
    let mut world = World::new("cli-drain-max");
    world.reserve(&["server"]);
    let app = ProbeApp::start(&world);
    let args = vec!["--ringside-drain-max", "300ms"];
    let options = Options { app_port: Some(app.port), args, ..Options::default() };
    let mut sidecar = Sidecar::start(&world, Kind::Ringside, "server", options);
    let call = Call::to(&sidecar.address()).app("server").metadata("probe-sleep-ms", "60000");
    let mut call = call.start(&world, "in-flight");
    until(|| (app.seen().len() == 1).then_some(())).expect("the call at the app");
    assert_eq!(sidecar.process.terminate().code(), Some(0), "{}", sidecar.process.tail());
    call.wait_for_end();
    assert_eq!(outcome(&call).code, "Unavailable");
}

#[test]
fn a_forced_shutdown_exits_1() {
    let world = World::new("cli-forced");
    let folder = world.folder("a");
    let http = claim().to_string();
    let mut sidecar = start(&folder, "a", &["--dapr-http-port", &http]);
    sidecar.wait_for_line("dapr initialized. Status: Running");
    let port = http.parse().expect("a port");
    let header = "dapr-force-shutdown: true\r\n";
    let answer = http_request(port, "POST", "/v1.0/shutdown", header, "");
    assert!(answer.is_some_and(|answer| answer.starts_with("HTTP/1.1 204")));
    assert_eq!(sidecar.wait_for_end().code(), Some(1), "{}", sidecar.tail());
}

#[test]
fn several_workers_and_a_forward_port() {
    let mut world = World::new("cli-workers");
    world.reserve(&["server", "client"]);
    let app = App::greeter(&world);
    let args = vec!["--ringside-workers", "3", "--ringside-pin", "on", "--ringside-io", "epoll"];
    let options = Options { app_port: Some(app.port), args: args.clone(), ..Options::default() };
    let _callee = Sidecar::start(&world, Kind::Ringside, "server", options);
    let forward = format!("--ringside-forward={}=server", claim());
    let port = forward.split('=').nth(1).expect("a port").to_owned();
    let mut args = args;
    args.push(&forward);
    let caller =
        Sidecar::start(&world, Kind::Ringside, "client", Options { args, ..Options::default() });
    for _ in 0..6 {
        assert!(greet(&world, &caller.address(), "server").contains("Greeting: Hello"));
    }
    let said = greet(&world, &format!("127.0.0.1:{port}"), "nobody");
    assert!(said.contains("Greeting: Hello"), "{said}\n{}", caller.process.tail());
}

#[test]
fn waits_for_another_sidecar() {
    let world = World::new("cli-wait");
    let folder = world.folder("a");
    let http = claim().to_string();
    let mut early = command(ringside());
    early.args(["--wait", "--dapr-http-port", &http]);
    let mut early = Process::start(&folder, "wait", early);
    early.wait_for_line("Dapr outbound NOT ready yet: Get \"http://localhost:");
    let mut sidecar = start(&folder, "a", &["--dapr-http-port", &http]);
    assert_eq!(early.wait_for_end().code(), Some(0), "{}", sidecar.tail());
    let said = early.log();
    assert!(said.starts_with("Waiting for Dapr to be outbound ready (timeout: 60 seconds): url="));
    assert!(said.ends_with("Dapr is outbound ready!\n"), "{said}");
    assert_eq!(sidecar.terminate().code(), Some(0));
}

/// Everything goes on for as long as the shutdown is blocked.
#[test]
fn blocks_its_shutdown() {
    let mut world = World::new("cli-block");
    world.reserve(&["server"]);
    let app = App::greeter(&world);
    let args = vec!["--dapr-block-shutdown-duration", "2s"];
    let options = Options { app_port: Some(app.port), args, ..Options::default() };
    let mut sidecar = Sidecar::start(&world, Kind::Ringside, "server", options);
    sidecar.process.signal(Signal::TERM);
    sidecar.process.wait_for_line("Blocking graceful shutdown for 2s or until app reports");
    let said = greet(&world, &sidecar.address(), "server");
    assert!(said.contains("Greeting: Hello"), "{said}");
    assert_eq!(sidecar.process.wait_for_end().code(), Some(0));
    let log = sidecar.process.log();
    assert!(log.contains("Block shutdown period expired, entering shutdown..."), "{log}");
}
