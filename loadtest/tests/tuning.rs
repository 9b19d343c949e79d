//! tuning/: each script shows, applies and reverts its knob where this machine has it, and says why
//! not where it has not.
//!
//! The machine has one of each knob: a lock keeps test runs of several checkouts apart.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// What refuses has this exit code.
const REFUSED: i32 = 3;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tuning")
}

fn run(name: &str, args: &[&str]) -> Output {
    Command::new(folder().join(name)).args(args).output().expect("a script that runs")
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// All scripts but what they share and what measures them.
fn scripts() -> Vec<String> {
    let entries = fs::read_dir(folder()).expect("tuning/").map(|entry| {
        let name = entry.expect("an entry").file_name();
        name.into_string().expect("a name")
    });
    let mut names: Vec<String> =
        entries.filter(|name| !name.contains('.') && name != "measure").collect();
    names.sort();
    names
}

/// Whatever a test does, the knob is as it was.
struct Reverted<'a>(&'a str);

impl Drop for Reverted<'_> {
    fn drop(&mut self) {
        run(self.0, &["revert"]);
    }
}

/// A process that waits for its standard input, which is never said anything.
fn sleeper() -> Child {
    Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat")
}

#[test]
fn each_knob_is_applied_and_reverted_or_refused_with_the_reason() {
    let names = scripts();
    assert!(names.len() >= 6, "{names:?}");
    let lock = File::create(std::env::temp_dir().join("ringside-tuning.lock")).expect("a lock");
    lock.lock().expect("nobody else's");
    let mut child = sleeper();
    for name in &names {
        let pid = child.id().to_string();
        let args: &[&str] = if name == "cpuset" { &["apply", "0", &pid] } else { &["apply"] };
        round_trip(name, args);
    }
    drop(child.stdin.take());
    child.wait().expect("ours");
}

fn round_trip(name: &str, apply: &[&str]) {
    let before = run(name, &["show"]);
    assert!(before.status.success(), "{name}: {}", complaint(&before));
    let before = told(&before);
    assert!(before.ends_with("not applied\n"), "{name} is left over: {before}");
    let reverted = Reverted(name);
    let applied = run(name, apply);
    if !applied.status.success() {
        // The machine has no such knob, or it is not ours to turn: nothing has changed.
        assert_eq!(applied.status.code(), Some(REFUSED), "{name}: {}", complaint(&applied));
        let reason = complaint(&applied);
        assert!(reason.starts_with(&format!("tuning/{name}: ")), "{reason}");
        assert_eq!(told(&run(name, &["show"])), before);
        return;
    }
    let shown = told(&run(name, &["show"]));
    assert!(shown.contains("applied") && !shown.contains("not applied"), "{name}: {shown}");
    for line in told(&applied).lines() {
        assert!(shown.contains(line), "{name} has said {line}, and shows {shown}");
    }
    // What was there before would be lost.
    let again = run(name, apply);
    assert_eq!(again.status.code(), Some(REFUSED), "{name}: {}", told(&again));
    assert!(complaint(&again).contains("revert comes first"), "{}", complaint(&again));
    drop(reverted);
    assert_eq!(told(&run(name, &["show"])), before, "{name} leaves something behind");
}

#[test]
fn what_no_script_knows_is_an_error_of_use() {
    for name in scripts() {
        for args in [&[][..], &["apple"], &["show", "more"], &["apply", "some", "thing"]] {
            let said = run(&name, args);
            assert_eq!(said.status.code(), Some(2), "{name} {args:?}: {}", told(&said));
            assert!(complaint(&said).starts_with("usage: tuning/"), "{}", complaint(&said));
        }
    }
}
