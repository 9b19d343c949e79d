//! `ringside demo`: its parts against real daprds, and the command itself.

use crate::peer::{World, program};
use ringside::demo::screen::Screen;
use ringside::demo::{self, Ended};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

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
    ] {
        assert!(out.contains(part), "{part}\n{out}");
    }
}
