//! `ringside bench --read`: two reports side by side, ghz's own or ours.
//!
//! 1. A figure that one of the two does not have is left out, never guessed.
//! 2. ghz keeps no p99.9, but every call: it is taken from those.

use super::BenchError;
use super::report::{self, PERCENTILES};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// Where `-O ghz` keeps the CPU, which ghz does not know: among the tags.
pub const CPU_TAG: &str = "sidecars_cpu_us_per_call";
/// The same for what ghz would take from single calls, which we do not keep.
pub const P999_TAG: &str = "p99.9_us";
const OCTETS_MAX: u64 = 2 << 30;

/// One way to the service, as one report has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subject {
    pub name: String,
    pub calls: u64,
    pub errors: u64,
    pub rate: f64,
    /// In µs, of [`PERCENTILES`].
    pub latency: [Option<f64>; PERCENTILES.len()],
    pub cpu: Option<f64>,
}

/// Compares the reports in `first` and `second`.
pub fn compare(first: &Path, second: &Path) -> Result<String, BenchError> {
    let (a, b) = (subjects(first)?, subjects(second)?);
    let mut out = String::new();
    let _ = writeln!(out, "A: {}\nB: {}", first.display(), second.display());
    match (a.as_slice(), b.as_slice()) {
        ([a], [b]) => table(&mut out, "", a, b),
        _ => {
            let pairs: Vec<_> =
                a.iter().filter_map(|a| Some((a, b.iter().find(|b| b.name == a.name)?))).collect();
            if pairs.is_empty() {
                return Err(BenchError::new(format!(
                    "{} and {} have no topology in common",
                    first.display(),
                    second.display()
                )));
            }
            for (a, b) in pairs {
                table(&mut out, &a.name, a, b);
            }
        }
    }
    Ok(out)
}

fn table(out: &mut String, name: &str, a: &Subject, b: &Subject) {
    let _ = writeln!(out, "\n{name:22}{:>12}{:>12}{:>10}", "A", "B", "B : A");
    let mut row = |label: &str, a: Option<f64>, b: Option<f64>| {
        let (Some(a), Some(b)) = (a, b) else { return };
        let ratio = if a > 0.0 { format!("{:.2}", b / a) } else { "-".to_owned() };
        let _ = writeln!(out, "  {label:20}{:>12}{:>12}{ratio:>10}", figure(a), figure(b));
    };
    row("calls", Some(a.calls as f64), Some(b.calls as f64));
    row("calls/s", Some(a.rate), Some(b.rate));
    row("CPU µs/call, sidecars", a.cpu, b.cpu);
    for (at, percentile) in PERCENTILES.iter().enumerate() {
        row(&format!("p{percentile} µs"), a.latency[at], b.latency[at]);
    }
    row("errors", Some(a.errors as f64), Some(b.errors as f64));
    let mut said = Vec::new();
    for (what, a, b) in [
        ("CPU per call", a.cpu, b.cpu),
        ("calls/s", Some(a.rate), Some(b.rate)),
        ("p50", a.latency[0], b.latency[0]),
        ("p99", a.latency[2], b.latency[2]),
    ] {
        if let (Some(a), Some(b)) = (a.filter(|a| *a > 0.0), b) {
            said.push(format!("{:.2} times the {what}", b / a));
        }
    }
    let _ = writeln!(out, "B has, compared with A, {}.", said.join(", "));
    if a.errors + b.errors > 0 {
        let _ = writeln!(out, "Calls failed: no figure counts before they do not.");
    }
}

fn figure(value: f64) -> String {
    if value == value.trunc() || value >= 1000.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

/// ghz's `runner.Report`, as far as it is compared, or ours, told by its `topologies`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Any {
    topologies: Option<BTreeMap<String, report::Topology>>,
    name: Option<String>,
    count: Option<u64>,
    rps: f64,
    status_code_distribution: Option<BTreeMap<String, u64>>,
    latency_distribution: Option<Vec<Percentile>>,
    details: Option<Vec<Detail>>,
    tags: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Percentile {
    percentage: f64,
    /// Nanoseconds.
    latency: f64,
}

#[derive(Deserialize)]
struct Detail {
    latency: f64,
    #[serde(default)]
    status: String,
}

fn subjects(path: &Path) -> Result<Vec<Subject>, BenchError> {
    let failed = |error: String| BenchError::new(format!("reading {}: {error}", path.display()));
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let octets = file.metadata().map_err(|error| failed(error.to_string()))?.len();
    if octets > OCTETS_MAX {
        return Err(failed(format!("{octets} octets are too many for a report")));
    }
    let any: Any = serde_json::from_reader(BufReader::new(file))
        .map_err(|error| failed(format!("no report in JSON: {error}")))?;
    if let Some(topologies) = any.topologies {
        return Ok(topologies.iter().map(|(name, topology)| ours(name, topology)).collect());
    }
    match any.count {
        Some(calls) => Ok(vec![theirs(any, calls)]),
        None => Err(failed("neither a report of ghz (-O json) nor one of ours".to_owned())),
    }
}

fn ours(name: &str, topology: &report::Topology) -> Subject {
    let runs = &topology.runs;
    let median = |value: &dyn Fn(&report::Run) -> Option<f64>| {
        report::Spread::of(runs.iter().filter_map(value)).map(|spread| spread.median)
    };
    Subject {
        name: name.to_owned(),
        calls: runs.iter().map(|run| run.calls).sum(),
        errors: runs.iter().map(report::Run::failed).sum(),
        rate: median(&|run| Some(run.rate)).unwrap_or_default(),
        latency: std::array::from_fn(|at| median(&|run| run.latency_us.get(at).copied())),
        cpu: median(&|run| run.cpu_us_per_call),
    }
}

fn theirs(ghz: Any, calls: u64) -> Subject {
    let ok = ghz.status_code_distribution.as_ref().map_or(calls, |codes| {
        codes.iter().filter(|(code, _)| *code == "OK").map(|(_, count)| count).sum()
    });
    let mut details: Vec<f64> = ghz
        .details
        .into_iter()
        .flatten()
        .filter(|detail| matches!(detail.status.as_str(), "" | "OK"))
        .map(|detail| detail.latency)
        .collect();
    details.sort_by(f64::total_cmp);
    let listed = ghz.latency_distribution.unwrap_or_default();
    let at = |percentile: f64| {
        let known = listed.iter().find(|one| one.percentage == percentile);
        let known = known.map(|one| one.latency).filter(|latency| *latency > 0.0);
        known.or_else(|| {
            let rank = (percentile / 100.0 * details.len() as f64).ceil() as usize;
            details.get(rank.saturating_sub(1)).copied()
        })
    };
    let tags = ghz.tags.unwrap_or_default();
    let tag = |name: &str| tags.get(name)?.parse().ok();
    let mut latency = PERCENTILES.map(|percentile| at(percentile).map(|nanos| nanos / 1000.0));
    if let [.., p999 @ None] = &mut latency {
        *p999 = tag(P999_TAG);
    }
    Subject {
        name: ghz.name.unwrap_or_default(),
        calls,
        errors: calls.saturating_sub(ok),
        rate: ghz.rps,
        latency,
        cpu: tag(CPU_TAG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::folder::Folder;

    /// The shape of ghz 0.121's `-O json`, with figures made up.
    const GHZ: &str = r#"{"date":"2026-11-23T15:00:00Z","endReason":"timeout",
        "options":{"call":"a.B/C","host":"localhost:1","insecure":true,"CPUs":2},
        "count":4,"total":2000000,"average":150000,"fastest":100000,"slowest":400000,"rps":2000.5,
        "errorDistribution":{"rpc error: code = NotFound desc = no":1},
        "statusCodeDistribution":{"OK":3,"NotFound":1},
        "latencyDistribution":[{"percentage":50,"latency":120000},{"percentage":90,"latency":0},
            {"percentage":99,"latency":400000}],
        "histogram":[{"mark":0.0001,"count":1,"frequency":0.25}],
        "details":[{"timestamp":"2026-11-23T15:00:00Z","latency":400000,"error":"","status":"OK"},
            {"timestamp":"2026-11-23T15:00:00Z","latency":100000,"error":"","status":"OK"},
            {"timestamp":"2026-11-23T15:00:00Z","latency":120000,"error":"","status":"OK"},
            {"timestamp":"2026-11-23T15:00:00Z","latency":9,"error":"no","status":"NotFound"}],
        "tags":{"sidecars_cpu_us_per_call":"12.5"}}"#;

    #[test]
    fn reads_ghz() {
        let folder = Folder::new().unwrap();
        let file = folder.file("a.json", GHZ).unwrap();
        let read = subjects(&file).unwrap();
        let expected = Subject {
            name: String::new(),
            calls: 4,
            errors: 1,
            rate: 2000.5,
            latency: [Some(120.0), Some(400.0), Some(400.0), Some(400.0)],
            cpu: Some(12.5),
        };
        assert_eq!(read, [expected]);
    }

    #[test]
    fn says_what_is_no_report() {
        let folder = Folder::new().unwrap();
        for (text, part) in [("{}", "neither a report of ghz"), ("x", "no report in JSON")] {
            let file = folder.file("a.json", text).unwrap();
            let said = subjects(&file).expect_err("an error").to_string();
            assert!(said.contains(part) && said.contains("a.json"), "{said}");
        }
    }

    #[test]
    fn compares_what_both_have() {
        let folder = Folder::new().unwrap();
        let a = folder.file("a.json", GHZ).unwrap();
        let twice =
            GHZ.replace("2000.5", "4001").replace("12.5", "25").replace("\"details\"", "\"x\"");
        let b = folder.file("b.json", &twice).unwrap();
        let text = compare(&a, &b).unwrap();
        let row = |label: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with(label));
            line.map(|line| line.split_whitespace().rev().take(3).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(row("calls/s").as_deref(), Some("2.00 4001 2000"), "{text}");
        assert_eq!(row("CPU").as_deref(), Some("2.00 25 12.5"), "{text}");
        assert_eq!(row("p50").as_deref(), Some("1.00 120 120"), "{text}");
        assert_eq!(row("p90"), None, "B has none\n{text}");
        let verdict = "2.00 times the CPU per call, 2.00 times the calls/s, 1.00 times the p50";
        assert!(text.contains(verdict), "{text}");
        assert!(text.contains("Calls failed"), "{text}");
    }
}
