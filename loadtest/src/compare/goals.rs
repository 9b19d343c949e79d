//! What ringside's pair is meant to reach, and whether these rounds show it.
//!
//! 1. A goal is met, or not, when every round says so; when the rounds differ it is undecided.
//! 2. A ratio of which either side had an error is void.

use super::measure::Run;
use super::report::Report;
use crate::ratio::Spread;
use crate::topology::Kind;
use std::fmt::Write as _;

/// Between which bounds a figure is as wanted.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    low: f64,
    high: f64,
}

impl Limit {
    pub const fn at_most(high: f64) -> Self {
        Self { low: f64::NEG_INFINITY, high }
    }

    pub const fn at_least(low: f64) -> Self {
        Self { low, high: f64::INFINITY }
    }

    pub const fn between(low: f64, high: f64) -> Self {
        Self { low, high }
    }

    fn text(&self) -> String {
        match (self.low.is_finite(), self.high.is_finite()) {
            (false, _) => format!("≤ {:.3}", self.high),
            (true, false) => format!("≥ {:.3}", self.low),
            (true, true) => format!("{:.3} to {:.3}", self.low, self.high),
        }
    }

    fn verdict(&self, found: &Spread) -> &'static str {
        if found.lowest >= self.low && found.highest <= self.high {
            "met"
        } else if found.highest < self.low || found.lowest > self.high {
            "**not met**"
        } else {
            "undecided"
        }
    }
}

pub const HEADING: &str = "| Goal, as a ratio | wanted | is | |\n|---|---|---|---|\n";

/// A line below [`HEADING`]; `errors` are those of the calls on either side.
pub fn row(what: &str, limit: Limit, ratio: Option<Spread>, errors: u64) -> Option<String> {
    let ratio = ratio?;
    let verdict = if errors > 0 { "**void: errors**" } else { limit.verdict(&ratio) };
    Some(format!(
        "| {what} | {} | {:.3} ({:.3}–{:.3}) | {verdict} |\n",
        limit.text(),
        ratio.median,
        ratio.lowest,
        ratio.highest
    ))
}

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
            let what =
                format!("{}: {} over {}'s", workload.to_uppercase(), goal.what, goal.other.name());
            let sides = [own, goal.other.name()];
            rows.extend(compared(report, workload, sides, goal.figure, &what, goal.factor));
        }
    }
    for workload in &report.workloads {
        let what = format!(
            "{}: the relay is no dearer than HAProxy in TCP mode (CPU)",
            workload.to_uppercase()
        );
        let sides = [Kind::Relay.name(), Kind::HaproxyTcp.name()];
        rows.extend(compared(report, workload, sides, CPU, &what, FLOOR_FACTOR));
    }
    let idle = |kind: Kind| -> Vec<Option<f64>> {
        let of_kind = report.footprints.iter().filter(|f| f.topology == kind.name());
        of_kind.map(|f| Some(f.idle_resident as f64)).collect()
    };
    let started = |kind: Kind| -> Vec<Option<f64>> {
        let of_kind = report.starts.iter().filter(|s| s.topology == kind.name());
        of_kind.map(|s| Some(s.wall_ms)).collect()
    };
    // A pair that fails its calls here ends the comparison: there are no errors to count.
    let half = Limit::at_most(FOOTPRINT_FACTOR);
    let memory = Spread::of_ratios(&idle(Kind::Ringside), &idle(Kind::Daprd));
    rows.extend(row("idle RSS over daprd's", half, memory, 0));
    let start = Spread::of_ratios(&started(Kind::Ringside), &started(Kind::Daprd));
    rows.extend(row("start over daprd's", half, start, 0));
    if report.runs.iter().any(|run| run.topology == own) {
        let of_own = report.runs.iter().filter(|run| run.topology == own);
        let failed: u64 = of_own.map(Run::failed).sum();
        let verdict = if failed == 0 { "met" } else { "**not met**" };
        rows.push(format!("| errors: 0 (calls through ringside) | 0 | {failed} | {verdict} |\n"));
    }
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(out, "{HEADING}{}", rows.concat());
}

/// `figure` of the first side over the second's.
fn compared(
    report: &Report,
    workload: &str,
    sides: [&str; 2],
    figure: Figure,
    what: &str,
    factor: f64,
) -> Option<String> {
    let [over, under] = sides.map(|side| report.by_round(workload, side, figure));
    let errors = sides.map(|side| report.errors(workload, side).values().sum::<u64>());
    let ratio = Spread::of_ratios(&over, &under);
    row(what, Limit::at_most(factor), ratio, errors.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::super::markdown::tests::report;
    use super::*;
    use crate::compare::Workload;

    #[test]
    fn goals_are_judged_by_the_ratios_of_rounds() {
        let kinds = [Kind::Relay, Kind::Ringside, Kind::Daprd];
        let cpu = |kind| match kind {
            Kind::Relay => 10.0,
            Kind::Ringside => 15.0,
            _ => 100.0,
        };
        let mut report = report(&kinds, &[Workload::W2, Workload::W3s], cpu);
        let mut text = String::new();
        append(&report, &mut text);
        let expected = "| W2: CPU over daprd's | ≤ 0.033 | 0.150 (0.150–0.150) | **not met** |";
        assert!(text.contains(expected), "{text}");
        let expected = "| W3S: CPU over relay's | ≤ 1.600 | 1.500 (1.500–1.500) | met |";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("| idle RSS over daprd's | ≤ 0.500 | 0.150"), "{text}");
        assert!(!text.contains("haproxy's"), "who did not run is not judged: {text}");
        assert!(text.contains("| errors: 0 (calls through ringside) | 0 | 0 | met |"), "{text}");
        let failed = report
            .runs
            .iter_mut()
            .find(|run| run.workload == Workload::W2.name() && run.topology == Kind::Daprd.name());
        failed.unwrap().errors.insert("status 14 UNAVAILABLE".to_owned(), 1);
        let mut text = String::new();
        append(&report, &mut text);
        let expected =
            "| W2: CPU over daprd's | ≤ 0.033 | 0.150 (0.150–0.150) | **void: errors** |";
        assert!(text.contains(expected), "either side's errors: {text}");
        assert!(text.contains("| W3S: CPU over relay's | ≤ 1.600 | 1.500 (1.500–1.500) | met |"));
    }

    #[test]
    fn rounds_on_both_sides_of_a_limit_decide_nothing() {
        let verdict = |limit: Limit, rounds: [f64; 3]| limit.verdict(&Spread::of(rounds).unwrap());
        assert_eq!(verdict(Limit::at_most(1.6), [1.5, 1.4, 1.6]), "met");
        assert_eq!(verdict(Limit::at_most(1.6), [1.5, 1.4, 1.7]), "undecided");
        assert_eq!(verdict(Limit::at_most(1.6), [1.8, 1.9, 1.7]), "**not met**");
        assert_eq!(verdict(Limit::at_least(1.6), [1.8, 1.9, 1.7]), "met");
        let near_one = Limit::between(0.85, 1.15);
        assert_eq!(verdict(near_one, [0.9, 1.0, 1.1]), "met");
        assert_eq!(verdict(near_one, [0.9, 1.0, 1.2]), "undecided");
        assert_eq!(verdict(near_one, [0.6, 0.5, 0.7]), "**not met**");
        assert_eq!(near_one.text(), "0.850 to 1.150");
    }
}
