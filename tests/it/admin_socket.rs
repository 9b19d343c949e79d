//! The admin socket: what a running sidecar says of itself, whom it tells, and where it is.

use crate::peer::probe::{Call, ProbeApp};
use crate::peer::process::{Process, command};
use crate::peer::sidecar::Options;
use crate::peer::{Kind, Sidecar, World, ringside, workers};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

const TOKEN: &str = "token-of-the-api";

/// The path that the sidecar has told.
pub fn socket_of(sidecar: &mut Sidecar) -> PathBuf {
    let line = sidecar.process.wait_for_line("admin socket: ");
    let path = line.split("admin socket: ").nth(1).and_then(|rest| rest.split('"').next());
    path.expect("a path").into()
}

/// The first line of the answer.
pub fn ask(socket: &Path, question: &str) -> Value {
    let mut stream = UnixStream::connect(socket).expect("a socket that listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream.write_all(format!("{question}\n").as_bytes()).expect("a question");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    serde_json::from_str(&answer).unwrap_or_else(|_| panic!("JSON: {answer}"))
}

/// What `ringside` says with these arguments, and whether all was well.
fn run(world: &World, args: &[&str]) -> (String, bool) {
    let mut program = command(ringside());
    program.args(args);
    let mut process = Process::start(&world.folder("asking"), "ringside", program);
    let ok = process.wait_for_end().success();
    (process.log(), ok)
}

/// An app's sidecar and a caller's, with mTLS and a token, after one call.
struct Pair {
    world: World,
    callee: Sidecar,
    caller: Sidecar,
    _app: ProbeApp,
}

fn pair(name: &str) -> Pair {
    let mut world = World::with_sentry(name);
    world.reserve(&["server", "client"]);
    let policies = "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r}\n\
                    spec:\n  policies:\n    circuitBreakers:\n      \
                    cb: {maxRequests: 1, timeout: 60s, trip: consecutiveFailures >= 1}\n  \
                    targets:\n    apps:\n      server: {circuitBreaker: cb}\n";
    fs::write(world.folder("resources").join("r.yaml"), policies).expect("a Resiliency");
    let app = ProbeApp::start(&world);
    let callee = Sidecar::callee(&world, Kind::Ringside, "server", app.port);
    let env = vec![("DAPR_API_TOKEN", TOKEN)];
    let options = Options { env, ..Options::default() };
    let caller = Sidecar::start(&world, Kind::Ringside, "client", options);
    let call = Call::to(&caller.address()).app("server").metadata("dapr-api-token", TOKEN);
    assert_eq!(call.run(&world, "call").code, "OK");
    Pair { world, callee, caller, _app: app }
}

#[test]
fn tells_what_is_inside() {
    let Pair { world, mut callee, mut caller, _app } = pair("admin-inside");
    let (outer, inner) = (socket_of(&mut caller), socket_of(&mut callee));
    let config = ask(&outer, "config");
    assert_eq!(config["appId"], "client");
    assert_eq!(config["ports"]["grpc"], caller.ports.grpc);
    assert_eq!(config["identity"]["spiffeId"], "spiffe://public/ns/default/client");
    assert!(config["identity"]["secondsLeft"].as_u64().is_some_and(|left| left > 60), "{config}");
    assert_eq!((&config["apiToken"], &config["mtls"]), (&true.into(), &true.into()));
    assert!(!config.to_string().contains(TOKEN), "{config}");

    assert_eq!(config["accessControl"], "no policies; everybody is allowed");
    let names = ask(&outer, "names");
    let server = format!("127.0.0.1:{}", callee.ports.internal);
    assert_eq!(names[0]["target"], "server.default");
    assert_eq!(names[0]["endpoints"][0], *server);

    let pools = ask(&outer, "pools");
    let reports: Vec<&Value> = pools.as_array().into_iter().flatten().collect();
    assert!(workers().is_none_or(|count| count == reports.len()), "{pools}");
    let mut upstreams = reports.iter().flat_map(|worker| {
        let pools = worker["report"]["pools"].as_array().into_iter().flatten();
        pools.filter(|pool| pool["app"] == "server.default").map(|pool| &pool["connections"][0])
    });
    let upstream = upstreams.next().expect("a connection to the server");
    assert_eq!(
        (&upstream["endpoint"], &upstream["state"]),
        (&Value::from(server), &"ready".into())
    );
    assert!(upstream["streams"] == 0 && upstream["idle_ms"].is_u64(), "{upstream}");
    let pools = ask(&inner, "pools").to_string();
    assert!(pools.contains("\"spiffe_id\":\"spiffe://public/ns/default/client\""), "{pools}");

    let breakers = ask(&outer, "breakers");
    let closed = serde_json::json!({
        "target": "server", "method": "/probe.Probe/Echo", "policy": "cb", "state": "closed",
        "leftMs": null, "requests": 1, "failures": 0, "failuresInRow": 0,
    });
    assert_eq!(breakers["breakers"], Value::from(vec![closed]));
    let huge = Call::to(&caller.address()).app("server").metadata("dapr-api-token", TOKEN);
    assert_eq!(huge.args(&["-size", "5000000"]).run(&world, "huge").code, "ResourceExhausted");
    let limits = ask(&outer, "limits");
    let limit = |name: &str| {
        let mut rows = limits.as_array().into_iter().flatten();
        rows.find(|row| row["limit"] == name).unwrap_or_else(|| panic!("no {name} in {limits}"))
    };
    let told = |name, field| limit(name)[field].clone();
    assert_eq!(
        (told("message_size", "most"), told("message_size", "reached")),
        (Value::from(4 << 20), Value::from(1))
    );
    assert_eq!((told("calls", "used"), told("calls", "reached")), (Value::from(0), Value::from(0)));
    assert!(told("connections", "used").as_u64().is_some_and(|used| used > 0), "{limits}");
    assert_eq!(
        (told("pings", "most"), told("pings", "perSecond")),
        (Value::from(1000), Value::from(100))
    );

    // The same, for people.
    let app_id = socket_arg(&outer);
    let (text, ok) = run(&world, &["admin", "config", &app_id]);
    assert!(ok && text.contains("identity.spiffeId: spiffe://public/ns/default/client"), "{text}");
    let (text, ok) = run(&world, &["admin", "names", &app_id]);
    assert!(
        ok && text.starts_with("TARGET ") && text.contains("server.default  127.0.0.1:"),
        "{text}"
    );
    let (text, ok) = run(&world, &["admin", "pools", &app_id]);
    assert!(ok && text.contains("to server.default") && text.contains("STREAMS"), "{text}");
    // What was too large was a failure.
    let open = ask(&outer, "breakers")["breakers"][0].clone();
    assert_eq!(open["state"], "open", "{open}");
    let left = open["leftMs"].as_u64().expect("it is open for a while");
    assert!((1..=60_000).contains(&left), "{open}");
    let (text, ok) = run(&world, &["admin", "breakers", &app_id]);
    assert!(ok && text.contains("server  /probe.Probe/Echo  open "), "{text}");
    let (text, ok) = run(&world, &["admin", "breakers", &app_id, "--json"]);
    assert!(ok && text.contains("\"state\": \"open\""), "{text}");
    let (text, ok) = run(&world, &["admin", "names", &socket_arg(&inner)]);
    assert!(ok && text == "no call has asked for a name\n", "{text}");
    let (text, ok) = run(&world, &["admin", "breakers", &socket_arg(&inner)]);
    assert!(ok && text == "no call has met a circuit breaker\n", "{text}");
    let (text, ok) = run(&world, &["admin", "limits", &app_id]);
    let row = text.lines().find(|line| line.starts_with("message_size ")).expect("its row");
    let cells: Vec<&str> = row.split_ascii_whitespace().collect();
    assert!(ok && cells == ["message_size", "message", "4", "MiB", "-", "1"], "{text}");
    let (text, ok) = run(&world, &["admin", "nothing", &app_id]);
    assert!(!ok && text.contains("unknown argument: nothing"), "{text}");
}

fn socket_arg(path: &Path) -> String {
    format!("--socket={}", path.display())
}

#[test]
fn changes_the_level_of_the_log() {
    let mut world = World::new("admin-level");
    world.reserve(&["server"]);
    let mut sidecar = Sidecar::caller(&world, Kind::Ringside, "server");
    let socket = socket_of(&mut sidecar);
    assert_eq!(ask(&socket, "level")["level"], "info");
    let (text, ok) = run(&world, &["admin", "level", "debug", &socket_arg(&socket)]);
    assert!(ok && text.contains("level: debug"), "{text}");
    sidecar.process.wait_for_line("Log level set to: debug");
    assert_eq!(ask(&socket, "level warn")["level"], "warn");
    let (text, ok) = run(&world, &["admin", "level", "loud", &socket_arg(&socket)]);
    assert!(!ok && text.contains("\"loud\" is none of debug, info, warn, error, fatal"), "{text}");
}

/// Each has its own; it goes with its process, and what a killed one left goes with the next.
#[test]
fn sidecars_of_one_id_have_a_socket_each() {
    let mut world = World::new("admin-sockets");
    world.reserve(&["twins"]);
    let second = world.replicate("twins");
    let mut one = Sidecar::caller(&world, Kind::Ringside, "twins");
    let options = || Options { ports: Some(second), ..Options::default() };
    let mut two = Sidecar::start(&world, Kind::Ringside, "twins", options());
    let (first, other) = (socket_of(&mut one), socket_of(&mut two));
    assert_ne!(first, other);
    let mode = fs::metadata(&first).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let folder = first.parent().expect("a folder");
    let mode = fs::metadata(folder).expect("a folder").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let (text, ok) = run(&world, &["admin", "level", "--app-id", "twins"]);
    assert!(!ok && text.contains("there are several") && text.contains("twins-"), "{text}");

    assert_eq!(one.process.terminate().code(), Some(0));
    assert!(!first.exists(), "it ended as it should");
    let (text, ok) = run(&world, &["admin", "config", "--app-id=twins", "--json"]);
    assert!(ok && text.contains("\"appId\": \"twins\""), "{text}");
    two.process.signal(Signal::KILL);
    two.process.wait_for_end();
    assert!(other.exists());
    let (text, ok) = run(&world, &["admin", "config", "--app-id=twins"]);
    assert!(!ok && text.contains("no sidecar of twins listens in"), "{text}");
    let mut three = Sidecar::start(&world, Kind::Ringside, "twins", options());
    let third = socket_of(&mut three);
    assert!(third.exists() && !other.exists());
}

#[test]
fn a_path_is_kept_or_the_start_is_refused() {
    let mut world = World::new("admin-path");
    world.reserve(&["a", "b"]);
    let path = world.folder("sockets").join("admin.sock");
    let path_text = path.to_str().expect("a plain path");
    let args = vec!["--ringside-admin-socket", path_text];
    let options = Options { args: args.clone(), ..Options::default() };
    let mut first = Sidecar::start(&world, Kind::Ringside, "a", options);
    assert_eq!(ask(&path, "config")["appId"], "a");
    let options = Options { args: args.clone(), await_api: false, ..Options::default() };
    let mut second = Sidecar::start(&world, Kind::Ringside, "b", options);
    assert_eq!(second.process.wait_for_end().code(), Some(1));
    assert!(second.process.log().contains("another process has it"), "{}", second.process.tail());
    first.process.signal(Signal::KILL);
    first.process.wait_for_end();
    let options = Options { args: args.clone(), ..Options::default() };
    let _again = Sidecar::start(&world, Kind::Ringside, "b", options);
    assert_eq!(ask(&path, "config")["appId"], "b", "what was left behind is no hindrance");
    let off = Options { args: vec!["--ringside-admin-socket=off"], ..Options::default() };
    let sidecar = Sidecar::start(&world, Kind::Ringside, "a", off);
    assert!(!sidecar.process.log().contains("admin socket"), "{}", sidecar.process.tail());
}

/// Whatever the file's mode says.
#[test]
fn other_users_are_refused() {
    let mut world = World::new("admin-users");
    world.reserve(&["a"]);
    // Where another user comes to.
    let folder = std::env::temp_dir().join(format!("ringside-admin-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).expect("its mode");
    let path = folder.join("a.sock");
    let args = vec!["--ringside-admin-socket", path.to_str().expect("a plain path")];
    let mut sidecar =
        Sidecar::start(&world, Kind::Ringside, "a", Options { args, ..Options::default() });
    let other = || {
        let mut other = command("setpriv");
        other.args(["--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/perl", "-e"]);
        other.arg(
            "use IO::Socket::UNIX; $SIG{PIPE} = q(IGNORE); $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die \"$!\\n\"; \
             print $s \"config\\n\"; $s->flush; print <$s>; print \"over\\n\";",
        );
        other.arg(&path);
        let mut process = Process::start(&world.folder("others"), "other", other);
        process.wait_for_end();
        process.log()
    };
    assert_eq!(other(), "Permission denied\n");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).expect("a mode for all");
    assert_eq!(other(), "over\n", "it may connect, and is told nothing");
    let line = sidecar.process.wait_for_line("admin socket: refused");
    assert!(line.contains("refused to user 65534: it is for root and user 0"), "{line}");
    assert_eq!(ask(&path, "level")["level"], "info");
    fs::remove_dir_all(&folder).expect("no folder any more");
}
