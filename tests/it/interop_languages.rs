//! gRPC's interop cases, and the how-to's greeter of `examples/`, in seven languages through two
//! sidecars with identities from a real Sentry.
//!
//! 1. `scripts/interop --build` builds the programs; without them these fail, and say so.
//! 2. Every client meets the Go server, and the Go client every server; every greeter meets every
//!    other.
//! 3. `RINGSIDE_INTEROP_SIDECAR=daprd` puts daprds in ringside's place, to prove the harness.
//! 4. With `RINGSIDE_INTEROP_RECORD`, a folder, each pair leaves its outcomes there.

use crate::interop::CASES;
use crate::peer::app::App;
use crate::peer::ports::claim;
use crate::peer::process::{Process, command};
use crate::peer::sidecar::loopback;
use crate::peer::{Kind, Sidecar, World};
use std::fmt::Write as _;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const LANGUAGES: [&str; 7] = ["go", "java", "python", "node", "cpp", "ruby", "rust"];

/// One of the programs that `scripts/interop` builds; grpc-go's pair is a peer of other tests too.
fn program(name: &str) -> PathBuf {
    if let Some(pair @ ("interop_client" | "interop_server")) = name.strip_prefix("go_") {
        return crate::peer::program(pair);
    }
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/interop");
        let asked = Command::new(script).arg("--path").output().expect("scripts/interop runs");
        assert!(
            asked.status.success(),
            "the programs are missing: run scripts/interop --build once, then the tests again ({})",
            String::from_utf8_lossy(&asked.stderr).trim(),
        );
        PathBuf::from(String::from_utf8_lossy(&asked.stdout).trim())
    });
    let path = folder.join(name);
    assert!(path.exists(), "scripts/interop builds no {name}");
    path
}

fn sidecar() -> Kind {
    match std::env::var("RINGSIDE_INTEROP_SIDECAR").as_deref() {
        Ok("daprd") => Kind::Daprd,
        Ok(_) | Err(_) => Kind::Ringside,
    }
}

/// A server of `language`, once it listens.
fn serve(world: &World, language: &str, what: &str) -> App {
    let port = claim();
    let name = format!("{language}_{what}_server");
    let mut server = command(program(&name));
    if what == "interop" {
        server.arg(format!("--port={port}"));
    } else {
        server.env("APP_PORT", port.to_string());
    }
    let mut process = Process::start(&world.folder("apps"), &name, server);
    process.wait("open port", |_| TcpStream::connect(loopback(port)).ok());
    App { process, port }
}

/// Runs a caller to its end: its log, as an error when it says so.
fn call(world: &World, name: &str, caller: Command) -> Result<String, String> {
    let mut process = Process::start(&world.folder("callers"), name, caller);
    if process.wait_for_end().success() { Ok(process.log()) } else { Err(process.tail()) }
}

fn record(name: &str, outcomes: &str) {
    if let Some(folder) = std::env::var_os("RINGSIDE_INTEROP_RECORD") {
        fs::write(Path::new(&folder).join(name), outcomes).expect("a record of the outcomes");
    }
}

/// Every interop case of one client against one server.
fn cases(client: &str, server: &str) {
    let mut world = World::with_sentry(&format!("languages-{client}-{server}"));
    world.reserve(&["interop", "client"]);
    let app = serve(&world, server, "interop");
    let callee = Sidecar::callee(&world, sidecar(), "interop", app.port);
    let caller = Sidecar::caller(&world, sidecar(), "client");
    let (mut outcomes, mut failures) = (String::new(), Vec::new());
    for case in CASES {
        let mut run = command(program(&format!("{client}_interop_client")));
        run.args(["--server_host=127.0.0.1", &format!("--server_port={}", caller.ports.grpc)]);
        run.arg(format!("--test_case={case}"));
        run.arg("--additional_metadata=dapr-app-id:interop;dapr-stream:true");
        let outcome = call(&world, case, run);
        let _ = writeln!(outcomes, "{case} {}", if outcome.is_ok() { "passed" } else { "FAILED" });
        failures.extend(outcome.err().map(|log| format!("{case}:\n{log}")));
    }
    record(&format!("cases-{client}-{server}"), &outcomes);
    let (app, callee) = (app.process.tail(), callee.process.tail());
    let count = failures.len();
    assert!(failures.is_empty(), "{count} failed\n{}\n{app}\n{callee}", failures.join("\n"));
}

/// Every language's greeter client against one language's greeter server.
fn greetings(server: &str) {
    let mut world = World::with_sentry(&format!("languages-greeter-{server}"));
    world.reserve(&["server", "client"]);
    let app = serve(&world, server, "greeter");
    let _callee = Sidecar::callee(&world, sidecar(), "server", app.port);
    let caller = Sidecar::caller(&world, sidecar(), "client");
    let (mut outcomes, mut failures) = (String::new(), Vec::new());
    for client in LANGUAGES {
        let mut run = command(program(&format!("{client}_greeter_client")));
        run.env("DAPR_GRPC_PORT", caller.ports.grpc.to_string());
        let heard = app.process.log().matches("Received: Darth ").count();
        let outcome = call(&world, client, run).and_then(|said| {
            let received = app.process.log().matches("Received: Darth ").count() - heard;
            if greeted(&said) && received == 2 {
                Ok(())
            } else {
                Err(format!("said {said:?}; {received} calls received"))
            }
        });
        let _ =
            writeln!(outcomes, "{client} {}", if outcome.is_ok() { "passed" } else { "FAILED" });
        failures.extend(outcome.err().map(|log| format!("{client}:\n{log}")));
    }
    record(&format!("greeter-{server}"), &outcomes);
    assert!(failures.is_empty(), "{}\n{}", failures.join("\n"), app.process.tail());
}

/// One greeting for the unary call and three, in their order, for the streaming one.
fn greeted(said: &str) -> bool {
    let greetings: Vec<&str> =
        said.lines().filter_map(|line| Some(line.split_once("Greeting: Hello ")?.1)).collect();
    let [name, streamed @ ..] = greetings.as_slice() else { return false };
    name.starts_with("Darth ")
        && streamed == [1, 2, 3].map(|i| format!("{name}, {i} of 3")).as_slice()
}

macro_rules! tests {
    ($($name:ident: $run:expr;)*) => {$(
        #[test]
        fn $name() {
            $run;
        }
    )*};
}

tests! {
    go_to_go: cases("go", "go");
    java_to_go: cases("java", "go");
    python_to_go: cases("python", "go");
    node_to_go: cases("node", "go");
    cpp_to_go: cases("cpp", "go");
    ruby_to_go: cases("ruby", "go");
    rust_to_go: cases("rust", "go");
    go_to_java: cases("go", "java");
    go_to_python: cases("go", "python");
    go_to_node: cases("go", "node");
    go_to_cpp: cases("go", "cpp");
    go_to_ruby: cases("go", "ruby");
    go_to_rust: cases("go", "rust");
    greeters_to_go: greetings("go");
    greeters_to_java: greetings("java");
    greeters_to_python: greetings("python");
    greeters_to_node: greetings("node");
    greeters_to_cpp: greetings("cpp");
    greeters_to_ruby: greetings("ruby");
    greeters_to_rust: greetings("rust");
}
