//! The real ghz against `loadtest serve`: it understands our server, and its report has the names
//! and units that ours has.

use super::process::App;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member of the workspace")
}

/// Built by `scripts/peers`; a test that needs it fails when it is missing.
fn program() -> PathBuf {
    let peers = Command::new(checkout().join("scripts/peers")).arg("--path").output();
    let peers = peers.expect("scripts/peers can be started");
    assert!(peers.status.success(), "{}", String::from_utf8_lossy(&peers.stderr));
    Path::new(String::from_utf8_lossy(&peers.stdout).trim()).join("ghz")
}

fn ghz(app: &App, method: &str, data: &str, calls: u64) -> Value {
    let output = Command::new(program())
        .args(["--insecure", "--concurrency", "4", "--connections", "2", "-O", "json"])
        .arg("--proto")
        .arg(checkout().join("loadtest/echo.proto"))
        .args(["--call", &format!("loadtest.Echo/{method}"), "--data", data])
        .args(["--total", &calls.to_string(), &app.address])
        .output()
        .expect("ghz can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a report")
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

/// Calls, and how they ended.
fn statuses(report: &Value) -> (u64, Value) {
    (report["count"].as_u64().expect("a number"), report["statusCodeDistribution"].clone())
}

#[test]
fn ghz_calls_every_method_and_its_report_is_as_ours() {
    let app = App::start();
    let report = ghz(&app, "Unary", r#"{"body":"aGVsbG8="}"#, 200);
    assert_eq!(statuses(&report), (200, json!({"OK": 200})));
    let options = &report["options"];
    assert_eq!(options["call"], "loadtest.Echo/Unary");
    assert_eq!((&options["concurrency"], &options["connections"]), (&json!(4), &json!(2)));
    assert_eq!(report["endReason"], "normal");
    let at = report["latencyDistribution"].as_array().expect("a list");
    let percentages: Vec<_> = at.iter().map(|at| number(&at["percentage"])).collect();
    assert_eq!(percentages, [10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0]);
    let latencies: Vec<_> = at.iter().map(|at| number(&at["latency"])).collect();
    let (fastest, slowest) = (number(&report["fastest"]), number(&report["slowest"]));
    assert!(latencies.is_sorted() && fastest <= latencies[0] && latencies[6] <= slowest);
    let buckets = report["histogram"].as_array().expect("a list");
    assert_eq!(buckets.iter().map(|bucket| number(&bucket["count"])).sum::<f64>(), 200.0);
    let mark = number(&buckets.last().expect("eleven buckets")["mark"]);
    assert!((mark * 1e9 - slowest).abs() < 1.0, "marks are seconds");
    for (method, data) in [
        ("Collect", r#"[{"body":"aGVsbG8="},{"body":"aGVs"}]"#),
        ("Stream", r#"{"messages":5,"octets":40}"#),
        ("PingPong", r#"[{"body":"aGVsbG8="},{"body":"aGVs"}]"#),
    ] {
        let report = ghz(&app, method, data, 20);
        assert_eq!(statuses(&report), (20, json!({"OK": 20})), "{method}");
    }
}

#[test]
fn ghzs_failures_are_failures() {
    let app = App::start();
    let report = ghz(&app, "Stream", r#"{"messages":1,"octets":99999999}"#, 8);
    assert_eq!(statuses(&report), (8, json!({"InvalidArgument": 8})));
    let errors = report["errorDistribution"].as_object().expect("a map");
    let (error, count) = errors.iter().next().expect("an error");
    assert!(error.contains("the request is no Counts that can be met") && *count == 8, "{error}");
}
