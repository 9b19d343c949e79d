//! The real ghz against `loadtest serve`: it understands our server, and we its report.

use super::process::App;
use loadtest::report::ghz;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

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

fn ghz(app: &App, method: &str, data: &str, calls: u64) -> ghz::Report {
    let output = Command::new(program())
        .args(["--insecure", "--concurrency", "4", "--connections", "2", "-O", "json"])
        .arg("--proto")
        .arg(checkout().join("loadtest/echo.proto"))
        .args(["--call", &format!("loadtest.Echo/{method}"), "--data", data])
        .args(["--total", &calls.to_string(), &app.address])
        .output()
        .expect("ghz can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ghz::read(&String::from_utf8_lossy(&output.stdout)).expect("a report")
}

#[test]
fn ghz_calls_every_method_and_its_report_is_read() {
    let app = App::start();
    let report = ghz(&app, "Unary", r#"{"body":"aGVsbG8="}"#, 200);
    assert_eq!((report.count, report.failed()), (200, 0));
    assert_eq!(report.options.call, "loadtest.Echo/Unary");
    assert_eq!((report.options.concurrency, report.options.connections), (4, 2));
    assert_eq!(report.end_reason, "normal");
    let percentages = [10, 25, 50, 75, 90, 95, 99].map(|percentage| report.latency(percentage));
    assert!(percentages.iter().all(Option::is_some) && percentages.is_sorted());
    let (fastest, slowest) = (report.fastest, report.slowest);
    let fastest = Duration::from_nanos(fastest)..=Duration::from_nanos(slowest);
    assert!(fastest.contains(&report.latency(50).expect("there")));
    assert_eq!(report.histogram.iter().map(|bucket| bucket.count).sum::<u64>(), 200);
    let mark = report.histogram.last().expect("eleven buckets").mark;
    assert!((mark * 1e9 - slowest as f64).abs() < 1.0, "marks are seconds");
    for (method, data) in [
        ("Collect", r#"[{"body":"aGVsbG8="},{"body":"aGVs"}]"#),
        ("Stream", r#"{"messages":5,"octets":40}"#),
        ("PingPong", r#"[{"body":"aGVsbG8="},{"body":"aGVs"}]"#),
    ] {
        let report = ghz(&app, method, data, 20);
        assert_eq!((report.count, report.failed()), (20, 0), "{method}");
    }
}

#[test]
fn ghzs_failures_are_failures() {
    let app = App::start();
    let report = ghz(&app, "Stream", r#"{"messages":1,"octets":99999999}"#, 8);
    assert_eq!((report.count, report.failed()), (8, 8));
    assert_eq!(report.status_code_distribution["InvalidArgument"], 8);
    let (error, count) = report.error_distribution.first_key_value().expect("an error");
    assert!(error.contains("the request is no Counts that can be met") && *count == 8, "{error}");
}
