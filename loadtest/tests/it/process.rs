//! The program itself: `loadtest serve` and `loadtest run`.

use loadtest::report::Document;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

/// `loadtest serve`, ended with the value.
pub struct App {
    process: Child,
    pub address: String,
}

impl App {
    pub fn start() -> Self {
        let mut serve = loadtest();
        let mut process = serve.arg("serve").stdout(Stdio::piped()).spawn().expect("starts");
        let stdout = BufReader::new(process.stdout.take().expect("piped"));
        let address = stdout.lines().next().expect("a line").expect("UTF-8");
        Self { process, address }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.process.kill().expect("ours");
        self.process.wait().expect("ours");
    }
}

fn loadtest() -> Command {
    Command::new(env!("CARGO_BIN_EXE_loadtest"))
}

fn run(args: &[&str]) -> Output {
    loadtest().arg("run").args(args).output().expect("starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_run_reports_in_three_forms() {
    let app = App::start();
    let calls = ["--calls", "40", "--streams", "4", &app.address];
    let of = |form: &str| {
        let output = run(&[&calls[..], &["--output", form]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let document: Document = serde_json::from_str(&of("json")).expect("JSON");
    assert_eq!((document.calls, document.failed, document.latency.count), (40, 0, 40));
    assert_eq!(document.latency.buckets.iter().map(|(_, count)| count).sum::<u64>(), 40);
    assert!(document.latency.p50_ns <= document.latency.p999_ns);
    let report: Value = serde_json::from_str(&of("ghz")).expect("JSON");
    assert_eq!(
        (&report["count"], &report["statusCodeDistribution"]),
        (&40.into(), &json!({"OK": 40}))
    );
    assert_eq!(report["options"]["call"], "loadtest.Echo/Unary");
    let text = of("text");
    assert!(
        text.contains("\ncalls     40 in ") && text.contains("\nstatus    0 OK: 40\n"),
        "{text}"
    );
}

#[test]
fn failures_are_told_by_sentence_and_code() {
    let app = App::start();
    let output = run(&[&app.address, "--path", "/a.B/C", "--calls", "3"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "loadtest run: 3 calls failed; the report says how\n");
    let address = app.address.clone();
    drop(app);
    let output = run(&[&address]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.starts_with(&format!("loadtest run: cannot connect to {address}: ")), "{text}");
    let output = run(&[&address, "--rate", "many"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("\"many\" is no number of calls per second"));
}

#[test]
fn help_is_no_failure() {
    for args in [&["--help"][..], &["run", "--help"], &["serve", "--help"]] {
        let output = loadtest().args(args).output().expect("starts");
        assert!(output.status.success() && output.stderr.is_empty());
        assert!(String::from_utf8_lossy(&output.stdout).contains("Usage: loadtest"));
    }
}
