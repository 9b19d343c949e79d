//! What ringside's pair is meant to reach, and whether these rounds show it.

use super::measure::Run;
use super::report::Report;
use crate::ratio::Spread;
use crate::topology::Kind;
use std::fmt::Write as _;

type Figure = fn(&Run) -> Option<f64>;

/// ringside's figure under `workloads` is at most `factor` times that of `other`.
struct Goal {
    workloads: &'static [&'static str],
    what: &'static str,
    figure: Figure,
    other: Kind,
    factor: f64,
}

const CPU: Figure = |run| run.cpu_us_per_unit;
const MACHINE: Figure = |run| Some(run.machine_cpu_us_per_unit);
const P99: Figure = |run| Some(run.p99_us);

const GOALS: &[Goal] = &[
    goal(&["w2", "w3"], "CPU", CPU, Kind::Daprd, 1.0 / 30.0),
    goal(&["w2", "w3"], "CPU", CPU, Kind::Haproxy, 0.5),
    goal(&["w3s", "w1"], "CPU", CPU, Kind::Relay, 1.6),
    goal(&["w1"], "p99", P99, Kind::Haproxy, 1.0),
    goal(
        &["w1", "w2r", "w3s", "w2", "w3"],
        "CPU of the whole machine",
        MACHINE,
        Kind::Haproxy,
        1.0,
    ),
    goal(&["w4a", "w4b"], "CPU", CPU, Kind::Relay, 3.0),
];

const fn goal(
    workloads: &'static [&'static str],
    what: &'static str,
    figure: Figure,
    other: Kind,
    factor: f64,
) -> Goal {
    Goal { workloads, what, figure, other, factor }
}

/// The relay is a fair floor when it costs at most so much more than HAProxy in TCP mode.
const FLOOR_FACTOR: f64 = 1.2;
const FOOTPRINT_FACTOR: f64 = 0.5;

/// A table of the goals that these topologies and workloads can show; nothing without any.
pub fn append(report: &Report, out: &mut String) {
    let mut rows = Vec::new();
    let own = Kind::Ringside.name();
    for goal in GOALS {
        for workload in goal.workloads {
            let of_own = report.by_round(workload, own, goal.figure);
            let of_other = report.by_round(workload, goal.other.name(), goal.figure);
            let what =
                format!("{}: {} over {}'s", workload.to_uppercase(), goal.what, goal.other.name());
            rows.extend(row(&what, goal.factor, Spread::of_ratios(&of_own, &of_other)));
        }
    }
    for workload in &report.workloads {
        let relay = report.by_round(workload, Kind::Relay.name(), CPU);
        let haproxy = report.by_round(workload, Kind::HaproxyTcp.name(), CPU);
        let what = format!("{}: the relay's CPU over haproxy-tcp's", workload.to_uppercase());
        rows.extend(row(&what, FLOOR_FACTOR, Spread::of_ratios(&relay, &haproxy)));
    }
    let idle = |kind: Kind| -> Vec<Option<f64>> {
        let of_kind = report.footprints.iter().filter(|f| f.topology == kind.name());
        of_kind.map(|f| Some(f.idle_resident as f64)).collect()
    };
    let started = |kind: Kind| -> Vec<Option<f64>> {
        let of_kind = report.starts.iter().filter(|s| s.topology == kind.name());
        of_kind.map(|s| Some(s.wall_ms)).collect()
    };
    let memory = Spread::of_ratios(&idle(Kind::Ringside), &idle(Kind::Daprd));
    rows.extend(row("idle RSS over daprd's", FOOTPRINT_FACTOR, memory));
    let start = Spread::of_ratios(&started(Kind::Ringside), &started(Kind::Daprd));
    rows.extend(row("start over daprd's", FOOTPRINT_FACTOR, start));
    if rows.is_empty() {
        return;
    }
    out.push_str("| Goal, as a ratio | at most | is | |\n|---|---|---|---|\n");
    for row in rows {
        let _ = writeln!(out, "{row}");
    }
    out.push('\n');
}

fn row(what: &str, at_most: f64, ratio: Option<Spread>) -> Option<String> {
    let ratio = ratio?;
    let verdict = if ratio.median <= at_most { "met" } else { "**not met**" };
    Some(format!(
        "| {what} | {at_most:.3} | {:.3} ({:.3}–{:.3}) | {verdict} |",
        ratio.median, ratio.lowest, ratio.highest
    ))
}

#[cfg(test)]
mod tests {
    use super::super::markdown::tests::report;
    use super::*;
    use crate::compare::Workload;

    #[test]
    fn goals_are_judged_by_the_median_ratio() {
        let kinds = [Kind::Relay, Kind::Ringside, Kind::Daprd];
        let cpu = |kind| match kind {
            Kind::Relay => 10.0,
            Kind::Ringside => 15.0,
            _ => 100.0,
        };
        let report = report(&kinds, &[Workload::W2, Workload::W3s], cpu);
        let mut text = String::new();
        append(&report, &mut text);
        let expected = "| W2: CPU over daprd's | 0.033 | 0.150 (0.150–0.150) | **not met** |";
        assert!(text.contains(expected), "{text}");
        let expected = "| W3S: CPU over relay's | 1.600 | 1.500 (1.500–1.500) | met |";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("| idle RSS over daprd's | 0.500 | 0.150"), "{text}");
        assert!(!text.contains("haproxy's"), "who did not run is not judged: {text}");
    }
}
