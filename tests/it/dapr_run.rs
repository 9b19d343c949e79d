//! Dapr's how-to, word for word: the real CLI, its ports, its programs, mDNS; ringside in the
//! place of `daprd` on both sides and on either.

use crate::peer::process::{Process, command};
use crate::peer::{Kind, World, program};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A runtime path as `dapr init` leaves it, with `kind` installed as `daprd`.
fn runtime(world: &World, role: &str, kind: Kind) -> PathBuf {
    let home = world.folder(&format!("runtime-{role}"));
    let dapr = home.join(".dapr");
    fs::create_dir_all(dapr.join("bin")).expect("a folder for daprd");
    fs::create_dir_all(dapr.join("components")).expect("a folder for components");
    // The CLI finds running sidecars by the name of their program, so a copy, not a link.
    fs::copy(kind.program(), dapr.join("bin/daprd")).expect("a copy of the sidecar");
    let config = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\n\
        metadata: {name: daprConfig}\nspec: {}\n";
    fs::write(dapr.join("config.yaml"), config).expect("the CLI's Configuration");
    home
}

fn dapr(world: &World, runtime: &Path, args: &[&str]) -> Command {
    let mut dapr = command(program("dapr"));
    dapr.args(args).arg("--runtime-path").arg(runtime).env("HOME", world.folder("home"));
    dapr
}

fn how_to(name: &str, client: Kind, server: Kind) {
    let world = World::new(name);
    let (folder, home) = (world.folder("dapr"), runtime(&world, "server", server));
    let mut serve = dapr(&world, &home, &["run", "--app-id", "server", "--app-port", "50051"]);
    serve.arg("--").arg(program("greeter_server"));
    let mut serve = Process::start(&folder, "server", serve);
    serve.wait_for_line("server listening");
    serve.wait_for_line("You're up and running!");

    let caller_home = runtime(&world, "client", client);
    let run = ["run", "--app-id", "client", "--dapr-grpc-port", "50007"];
    let mut call = dapr(&world, &caller_home, &run);
    let said = folder.join("greeting");
    // The CLI may end before it has copied the last lines of an app that ends.
    let keep = "said=$(\"$0\" 2>&1); code=$?; echo \"$said\" | tee \"$1\"; exit $code";
    call.args(["--", "sh", "-c", keep]).arg(program("greeter_client")).arg(&said);
    let mut call = Process::start(&folder, "client", call);
    let ended = call.wait_for_end();
    let logs = || format!("{}\n{}", call.log(), serve.log());
    assert!(ended.success(), "the caller's dapr run: {ended}\n{}", logs());
    let said = fs::read_to_string(said).expect("what the client said");
    assert!(said.contains("Hello Darth Tyrannus"), "{said}\n{}", logs());
    for line in ["Exited App successfully", "Exited Dapr successfully"] {
        assert!(call.log().contains(line), "no {line:?}\n{}", logs());
    }
    serve.wait_for_line("Received: Darth Tyrannus");
    lists_and_stops(&world, &home, &mut serve);
}

/// `dapr list` knows the server's sidecar, and `dapr stop` ends it and the app.
fn lists_and_stops(world: &World, home: &Path, serve: &mut Process) {
    let folder = world.folder("dapr");
    let mut list = Process::start(&folder, "list", dapr(world, home, &["list", "-o", "json"]));
    assert!(list.wait_for_end().success(), "{}", list.tail());
    let listed: Value = serde_json::from_str(&list.log()).expect("a list in JSON");
    let server = &listed[0];
    assert_eq!((&server["appId"], &server["appPort"]), (&"server".into(), &50051.into()));
    // These come from the sidecar's metadata, where the CLI has put them.
    assert!(server["cliPid"].as_u64() > Some(0) && server["appPid"].as_u64() > Some(0), "{listed}");
    assert_ne!(server["command"], "", "the app's command: {listed}");
    let mut stop = command(program("dapr"));
    stop.args(["stop", "--app-id", "server"]).env("HOME", world.folder("home"));
    let mut stop = Process::start(&folder, "stop", stop);
    assert!(stop.wait_for_end().success(), "{}", stop.tail());
    assert!(stop.log().contains("app stopped successfully: server"), "{}", stop.tail());
    let ended = serve.wait_for_end();
    assert!(ended.success(), "the server's dapr run: {ended}\n{}", serve.log());
    assert!(serve.log().contains("Exited Dapr successfully"), "{}", serve.log());
}

#[test]
fn daprd_to_daprd() {
    crate::isolated!("daprd_to_daprd", {
        how_to("run-dd", Kind::Daprd, Kind::Daprd);
    });
}

#[test]
fn daprd_to_ringside() {
    crate::isolated!("daprd_to_ringside", {
        how_to("run-dr", Kind::Daprd, Kind::Ringside);
    });
}

#[test]
fn ringside_to_daprd() {
    crate::isolated!("ringside_to_daprd", {
        how_to("run-rd", Kind::Ringside, Kind::Daprd);
    });
}

#[test]
fn ringside_to_ringside() {
    crate::isolated!("ringside_to_ringside", {
        how_to("run-rr", Kind::Ringside, Kind::Ringside);
    });
}
