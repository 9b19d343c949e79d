//! The attacks themselves: one of each way in, for a moment, against both products. That ringside
//! outlives them is asked here; how well, is the table's business (docs/security.md).
//!
//! Needs `scripts/peers` and a built ringside, as `scripts/test` has them.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// From the API port, from the mesh, by requests, from the app.
const ATTACKS: [&str; 5] = ["nothing", "pings", "tls-empty-records", "shapes", "app-resets"];

/// What ringside passes on nevertheless: lengths that the body breaks only later, and paths that
/// are odd and no less exact for it. Only ever fewer.
const PASSED_ON: [&str; 5] = [
    "content-length too large",
    "content-length too small",
    "dots in :path",
    "space in :path",
    "two slashes in :path",
];

fn ringside() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_loadtest")).with_file_name("ringside");
    assert!(path.exists(), "build ringside first: cargo build ({})", path.display());
    path
}

fn attack(args: &[&str]) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.arg("attack").args(args).arg("--ringside").arg(ringside());
    let said = command.output().expect("loadtest runs");
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (text(&said.stdout), text(&said.stderr))
}

#[test]
fn ringside_outlives_an_attack_of_each_kind() {
    let json = std::env::temp_dir().join(format!("loadtest-attack-{}.json", std::process::id()));
    let path = json.to_str().expect("UTF-8");
    let (out, err) = attack(&["--attacks", &ATTACKS.join(","), "--seconds=0.6", "--json", path]);
    let text = std::fs::read_to_string(&json).unwrap_or_else(|e| panic!("{e}: {err}\n{out}"));
    std::fs::remove_file(&json).expect("the JSON goes away");
    let report: Value = serde_json::from_str(&text).expect("the JSON is JSON");
    let rows = report["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 2 * ATTACKS.len(), "{err}");
    for row in rows {
        let sent = row["sent"]["units"].as_u64();
        assert_eq!(sent == Some(0), row["attack"] == "nothing", "{row:#}");
        assert!(row["before"]["resident"].as_u64() > Some(1 << 20), "{row:#}");
        assert_eq!(row["before"]["honest"]["failed"], 0, "{row:#}");
        if row["product"] == "ringside" {
            assert_eq!(row["gone"], Value::Null, "{row:#}");
            let passed = row["passed"].as_array().expect("shapes");
            let known = |shape: &Value| shape.as_str().is_some_and(|s| PASSED_ON.contains(&s));
            assert!(passed.iter().all(known), "{passed:?}");
        }
        if row["attack"] == "nothing" {
            assert_eq!(row["during"]["honest"]["failed"], 0, "{row:#}");
        }
    }
    assert!(out.contains("| **tls-empty-records**: "), "{out}");
}

#[test]
fn what_is_unknown_is_said() {
    for (args, sentence) in [
        (&["--attacks=kindness"][..], "there is no attack kindness"),
        (&["--topologies=envoy"], "ringside and daprd can be attacked, envoy not"),
        (&["--seconds=60"], "--seconds is 3 at most"),
    ] {
        let (_, err) = attack(args);
        assert!(err.contains(sentence), "{err}");
    }
}
