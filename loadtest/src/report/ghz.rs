//! ghz's JSON report (ghz v0.121.0, `runner/reporter.go`), written.
//!
//! 1. Written: ghz's names, units (nanoseconds; histogram marks in seconds) and percentages.
//!    `details`, a line for each call, is empty: an outcome keeps none.
//! 2. ghz counts latency from the moment of sending. So do we in a closed loop; in an open loop it
//!    counts from the moment a call was due, and the tag `latency-from` says which it is.
//!
//! Refuses to know our own form.

use crate::outcome::{Latencies, Outcome};
use crate::plan::{End, Plan, Schedule, Segment};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub end_reason: String,
    pub date: String,
    pub options: Options,
    pub count: u64,
    /// Nanoseconds, as the three below.
    pub total: u64,
    pub average: u64,
    pub fastest: u64,
    pub slowest: u64,
    pub rps: f64,
    pub error_distribution: BTreeMap<String, u64>,
    pub status_code_distribution: BTreeMap<String, u64>,
    pub latency_distribution: Vec<AtPercentage>,
    pub histogram: Vec<Bucket>,
    pub details: [(); 0],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// Of ghz's options those that a plan has.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Options {
    pub call: String,
    pub host: String,
    pub insecure: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub authority: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub rps: u64,
    pub load_schedule: String,
    pub load_start: u64,
    pub load_end: u64,
    /// May fall.
    pub load_step: i64,
    /// Nanoseconds, as all durations here.
    pub load_step_duration: u64,
    pub load_max_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub concurrency: u64,
    pub concurrency_schedule: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    #[serde(rename = "async", skip_serializing_if = "is_false")]
    pub is_async: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub connections: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    pub binary: bool,
    #[serde(rename = "CPUs")]
    pub cpus: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AtPercentage {
    pub percentage: u64,
    /// Nanoseconds.
    pub latency: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bucket {
    /// Upper bound, in seconds.
    pub mark: f64,
    pub count: u64,
    pub frequency: f64,
}

/// In one line, as ghz.
pub fn write(plan: &Plan, outcome: &Outcome, date: SystemTime) -> String {
    serde_json::to_string(&report(plan, outcome, date)).expect("strings and numbers only")
}

const PERCENTAGES: [u64; 7] = [10, 25, 50, 75, 90, 95, 99];

pub fn report(plan: &Plan, outcome: &Outcome, date: SystemTime) -> Report {
    let date = OffsetDateTime::from(date);
    let date = date.replace_nanosecond(0).unwrap_or(date).format(&Rfc3339);
    let (latencies, empty) = (&outcome.latency, outcome.latency.is_empty());
    let at = |percentage: u64| AtPercentage {
        percentage,
        latency: latencies.value_at_quantile(percentage as f64 / 100.0),
    };
    let open = matches!(plan.schedule, Schedule::Open(_));
    let tags = [("generator", "loadtest"), ("latency-from", if open { "due" } else { "sent" })];
    Report {
        name: String::new(),
        end_reason: match plan.end {
            End::After(_) => "timeout".to_owned(),
            End::Calls(_) => "normal".to_owned(),
        },
        date: date.unwrap_or_default(),
        options: options(plan),
        count: outcome.calls,
        total: ns(outcome.elapsed),
        average: latencies.mean() as u64,
        fastest: if empty { 0 } else { latencies.min() },
        slowest: latencies.max(),
        rps: outcome.rate(),
        error_distribution: outcome.errors.clone(),
        status_code_distribution: statuses(outcome),
        latency_distribution: PERCENTAGES.into_iter().filter(|_| !empty).map(at).collect(),
        histogram: histogram(latencies),
        details: [],
        tags: tags.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    }
}

fn options(plan: &Plan) -> Options {
    let mut options = Options {
        call: plan.path.trim_start_matches('/').to_owned(),
        host: plan.target.to_string(),
        insecure: true,
        authority: plan.authority.clone(),
        load_schedule: "const".to_owned(),
        concurrency: (plan.connections * plan.streams) as u64,
        concurrency_schedule: "const".to_owned(),
        connections: plan.connections as u64,
        timeout: plan.timeout.map_or(0, ns),
        // Generators of ours have one thread.
        cpus: 1,
        ..Options::default()
    };
    match plan.end {
        End::After(duration) => options.duration = ns(duration),
        End::Calls(calls) => options.total = calls,
    }
    if !plan.metadata.is_empty() {
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        let pairs = plan.metadata.iter().map(|(name, value)| (name.clone(), text(value)));
        options.metadata = Some(pairs.collect());
    }
    if let Schedule::Open(segments) = &plan.schedule {
        load(&mut options, segments);
    }
    options
}

/// In ghz's terms: a constant rate, steps of equal height and length, or one line. What is none of
/// them is called `const` at its first rate.
fn load(options: &mut Options, segments: &[Segment]) {
    let whole = |rate: f64| rate.round() as u64;
    let Some((first, last)) = segments.first().zip(segments.last()) else { return };
    options.is_async = true;
    options.rps = whole(first.from);
    let step = segments.get(1).map_or(0.0, |second| second.from - first.from);
    let even = segments.windows(2).all(|pair| {
        let [a, b] = pair else { return false };
        b.from - a.from == step && a.length == b.length
    });
    if segments.len() > 1 && even && segments.iter().all(|segment| segment.from == segment.to) {
        options.load_schedule = "step".to_owned();
        options.load_step = step.round() as i64;
        options.load_step_duration = ns(first.length);
    } else if segments.len() == 1 && first.from != first.to {
        options.load_schedule = "line".to_owned();
        let seconds = first.length.as_secs_f64().max(f64::MIN_POSITIVE);
        options.load_step = ((first.to - first.from) / seconds).round() as i64;
    } else {
        return;
    }
    options.load_start = whole(first.from);
    options.load_end = whole(last.to);
    options.load_max_duration = ns(segments.iter().map(|segment| segment.length).sum());
}

/// As grpc-go's `codes.Code` calls them.
fn statuses(outcome: &Outcome) -> BTreeMap<String, u64> {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    let mut named = BTreeMap::new();
    for (code, count) in &outcome.statuses {
        let name = usize::try_from(*code).ok().and_then(|code| NAMES.get(code));
        let name = name.map_or_else(|| format!("Code({code})"), |name| (*name).to_owned());
        *named.entry(name).or_default() += count;
    }
    // A client of gRPC gives every call a status, also one that was lost.
    let lost = outcome.calls.saturating_sub(outcome.statuses.values().sum());
    if lost > 0 {
        *named.entry("Unknown".to_owned()).or_default() += lost;
    }
    named
}

/// Eleven marks from the fastest to the slowest; each bucket holds what its mark reaches.
fn histogram(latencies: &Latencies) -> Vec<Bucket> {
    const STEPS: usize = 10;
    if latencies.is_empty() {
        return Vec::new();
    }
    let fastest = latencies.min() as f64;
    let slowest = latencies.max() as f64;
    let width = (slowest - fastest) / STEPS as f64;
    let mark = |at: usize| if at == STEPS { slowest } else { fastest + width * at as f64 };
    let mut counts = [0_u64; STEPS + 1];
    for step in latencies.iter_recorded() {
        let value = latencies.lowest_equivalent(step.value_iterated_to()) as f64;
        let at = (0..STEPS).find(|at| value <= mark(*at)).unwrap_or(STEPS);
        counts[at] += step.count_at_value();
    }
    let whole = latencies.len() as f64;
    let bucket = |(at, count): (usize, u64)| Bucket {
        mark: mark(at) / 1e9,
        count,
        frequency: count as f64 / whole,
    };
    counts.into_iter().enumerate().map(bucket).collect()
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::slot::tests::plan;

    fn outcome(latencies_ms: &[u64]) -> Outcome {
        let mut outcome = Outcome::empty();
        for ms in latencies_ms {
            outcome.latency.record(ms * 1_000_000).expect("in range");
        }
        outcome.calls = latencies_ms.len() as u64;
        outcome.statuses.insert(0, outcome.calls);
        outcome.elapsed = Duration::from_secs(2);
        outcome
    }

    fn near(found: u64, expected: u64) {
        assert!(found.abs_diff(expected) * 500 <= expected, "{found} is not {expected}");
    }

    #[test]
    fn units_are_ghzs() {
        let latencies: Vec<u64> = (1..=100).collect();
        let report = report(&plan(), &outcome(&latencies), SystemTime::UNIX_EPOCH);
        assert_eq!(report.date, "1970-01-01T00:00:00Z");
        assert_eq!((report.count, report.total, report.rps), (100, 2_000_000_000, 50.0));
        let distribution = &report.latency_distribution;
        let at = |percentage| distribution.iter().find(|at| at.percentage == percentage);
        near(at(50).expect("reported").latency, 50_000_000);
        near(at(99).expect("reported").latency, 99_000_000);
        near(report.fastest, 1_000_000);
        near(report.average, 50_500_000);
        let histogram = &report.histogram;
        assert_eq!(histogram.len(), 11);
        assert!((histogram[10].mark - 0.1).abs() < 0.0002, "seconds: {}", histogram[10].mark);
        assert_eq!(histogram.iter().map(|bucket| bucket.count).sum::<u64>(), 100);
        assert_eq!(histogram[0].count, 1, "the fastest alone, as in ghz");
    }

    fn written(outcome: &Outcome) -> serde_json::Value {
        let text = write(&plan(), outcome, SystemTime::UNIX_EPOCH);
        serde_json::from_str(&text).expect("JSON")
    }

    /// As grpc-go's clients name what they see, a lost call included.
    #[test]
    fn failures_have_grpc_gos_names() {
        let mut failing = outcome(&[1, 2]);
        failing.calls = 4;
        failing.statuses.insert(14, 1);
        failing.errors.insert("status 14 UNAVAILABLE".to_owned(), 1);
        let report = written(&failing);
        let expected = serde_json::json!({"OK": 2, "Unavailable": 1, "Unknown": 1});
        assert_eq!((&report["statusCodeDistribution"], &report["count"]), (&expected, &4.into()));
    }

    #[test]
    fn an_outcome_of_nothing_is_a_report() {
        let report = written(&outcome(&[]));
        assert_eq!(report["latencyDistribution"], serde_json::json!([]));
    }

    #[test]
    fn schedules_are_called_as_in_ghz() {
        let segment = |from, to| Segment { from, to, length: Duration::from_secs(2) };
        let of = |segments: &[Segment]| {
            let mut options = Options { load_schedule: "const".to_owned(), ..Options::default() };
            load(&mut options, segments);
            let Options { load_start, load_end, load_step, .. } = options;
            (options.load_schedule, load_start, load_end, load_step)
        };
        assert_eq!(of(&[segment(5.0, 5.0)]), ("const".to_owned(), 0, 0, 0));
        let steps = [segment(50.0, 50.0), segment(40.0, 40.0), segment(30.0, 30.0)];
        assert_eq!(of(&steps), ("step".to_owned(), 50, 30, -10));
        assert_eq!(of(&[segment(10.0, 30.0)]), ("line".to_owned(), 10, 30, 10));
    }
}
