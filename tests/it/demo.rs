//! `ringside demo`: its parts against real daprds, and the command itself.

use crate::peer::process::{Process, command, until};
use crate::peer::{World, program, ringside};
use ringside::demo::screen::Screen;
use ringside::demo::{self, Ended};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// daprd behind the demo's way to say where apps are.
fn daprd(world: &World) -> PathBuf {
    let folder = world.folder("daprd");
    let path = folder.join("daprd.sh");
    let script = format!(
        r#"#!/bin/sh
n=$#
while [ $n -gt 0 ]; do
  case $1 in
    --ringside-resolve-file) hosts=$2; shift 2; n=$((n - 2));;
    --ringside-admin-socket) shift 2; n=$((n - 2));;
    *) set -- "$@" "$1"; shift; n=$((n - 1));;
  esac
done
config={folder}/$$.yaml
{{
  echo 'apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {{name: demo}}
spec:
  nameResolution:
    component: table
    configuration:
      hosts:'
  while IFS= read -r line; do
    line=${{line%']'}}
    echo "        ${{line%%: *}}: ${{line#*'['}}"
  done < "$hosts"
}} > "$config"
exec {daprd} --config "$config" "$@"
"#,
        folder = folder.display(),
        daprd = program("daprd").display(),
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The demo's authority, app and caller are honest: real daprds work with them.
#[test]
fn its_parts_work_with_real_daprds() {
    let world = World::new("demo-daprd");
    let mut out = Vec::new();
    let ended = demo::run(daprd(&world), &mut Screen::new(&mut out, false));
    let out = String::from_utf8(out).unwrap();
    assert_eq!(ended.unwrap_or_else(|error| panic!("{out}\n{error}")), Ended::Complete);
    println!("{out}");
    assert_tells_all(&out);
}

fn assert_tells_all(out: &str) {
    for part in [
        "spiffe://public/ns/default/client",
        "spiffe://public/ns/default/server",
        "a foreign root     refused",
        "Hello world",
        "the app was told that its caller is \"client\"",
        "Hello world 1 ... Hello world 10",
        "Hello Ada, Grace, Barbara",
        "Hello Ada, Hello Grace, Hello Barbara",
        "two sidecars",
        "nothing is left",
    ] {
        assert!(out.contains(part), "{part}\n{out}");
    }
}

/// `ringside demo`, with a folder of its own for what it must not leave behind.
fn start(world: &World) -> (Process, PathBuf) {
    let temp = world.folder("temp");
    let mut demo = command(ringside());
    demo.arg("demo").env("TMPDIR", &temp);
    (Process::start(&world.folder("log"), "demo", demo), temp)
}

fn pids(log: &str) -> impl Iterator<Item = &str> {
    log.lines().filter_map(|line| line.split_once(", pid ")).map(|(_, pid)| pid)
}

/// Sockets of these processes among the user's own: a sidecar of his would be looked for there.
fn admin_sockets(log: &str) -> Vec<String> {
    let entries = fs::read_dir("/run/ringside").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| pids(log).any(|pid| name.ends_with(&format!("-{pid}.sock")))).collect()
}

fn assert_left_nothing(log: &str, temp: &Path) {
    for pid in pids(log) {
        let gone = until(|| (!Path::new("/proc").join(pid).exists()).then_some(()));
        assert!(gone.is_some(), "sidecar {pid} is still there\n{log}");
    }
    let left: Vec<_> = fs::read_dir(temp).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn it_shows_everything_and_leaves_nothing() {
    let world = World::new("demo");
    let (mut demo, temp) = start(&world);
    let status = demo.wait_for_end();
    let log = demo.log();
    assert!(status.success(), "{log}");
    assert_tells_all(&log);
    assert!(!log.contains('\x1b'), "no colours into a pipe");
    assert_left_nothing(&log, &temp);
}

#[test]
fn interrupted_it_leaves_nothing_either() {
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let world = World::new("demo-interrupted");
        let (mut demo, temp) = start(&world);
        demo.wait_for_line("both ready");
        assert_eq!(pids(&demo.log()).count(), 2);
        assert_eq!(admin_sockets(&demo.log()), Vec::<String>::new());
        demo.signal(signal);
        assert_eq!(demo.wait_for_end().code(), Some(130));
        assert_left_nothing(&demo.log(), &temp);
    }
}
