//! What ringside's pair must reach and strives for, and whether these rounds show it.
//!
//! Ratios are taken within a round; the limits are judged by [`super::verdict`]. Who did not run
//! is not judged.

use super::footprint::Footprint;
use super::measure::Run;
use super::report::Report;
use super::verdict::{HEADING, Limit, Wanted, row};
use super::workload::Workload;
use crate::ratio::Spread;
use crate::topology::{Between, Kind};
use std::fmt::Write as _;

type Figure = fn(&Run) -> Option<f64>;

const CPU: Figure = |run| run.cpu_us_per_unit;
const MACHINE: Figure = |run| Some(run.machine_cpu_us_per_unit);
const THROUGHPUT: Figure = |run| Some(run.units_per_s);
const P50: Figure = |run| Some(run.p50_us);
const P99: Figure = |run| Some(run.p99_us);

/// ringside's CPU under a workload over that of `other`: at most `gate`, hopefully `goal`.
struct Ratio {
    workload: &'static str,
    other: Kind,
    wanted: Wanted,
}

const fn ratio(workload: &'static str, other: Kind, gate: f64, goal: f64) -> Ratio {
    let wanted = Wanted { gate: Some(Limit::at_most(gate)), goal: Some(Limit::at_most(goal)) };
    Ratio { workload, other, wanted }
}

const RATIOS: &[Ratio] = &[
    ratio("w2", Kind::Haproxy, 1.0 / 4.0, 1.0 / 6.0),
    ratio("w2", Kind::Daprd, 1.0 / 40.0, 1.0 / 70.0),
    Ratio { workload: "w2", other: Kind::Relay, wanted: Wanted::goal(Limit::at_most(1.5)) },
    ratio("w3", Kind::Haproxy, 1.0 / 6.0, 1.0 / 12.0),
    ratio("w3", Kind::Daprd, 1.0 / 60.0, 1.0 / 120.0),
    ratio("w3u", Kind::Haproxy, 1.0 / 4.0, 1.0 / 8.0),
    ratio("w3s", Kind::Relay, 1.4, 1.15),
    ratio("w1", Kind::Relay, 1.4, 1.15),
    ratio("w4a", Kind::Relay, 2.2, 1.4),
    ratio("w4b", Kind::Relay, 2.2, 1.4),
    ratio("w5", Kind::Relay, 1.5, 1.15),
    ratio("w5s", Kind::Haproxy, 1.0, 2.0 / 3.0),
];

/// ringside's figure over HAProxy's, under every workload.
const EVERYWHERE: &[(&str, Figure, Limit)] = &[
    ("throughput", THROUGHPUT, Limit::at_least(1.0)),
    ("p99", P99, Limit::at_most(1.0)),
    ("CPU of the whole machine", MACHINE, Limit::at_most(1.0)),
];
/// An open loop's throughput is what was asked for, but for how its last call fell.
const AS_ASKED: Limit = Limit::at_least(0.99);

/// What a hop adds to the median of calls at leisure, over what the relays add.
const ADDED_P50: Wanted =
    Wanted { gate: Some(Limit::at_most(1.4)), goal: Some(Limit::at_most(1.15)) };
/// MiB.
const IDLE: Wanted = Wanted { gate: Some(Limit::at_most(10.0)), goal: Some(Limit::at_most(6.0)) };
/// Octets.
const CONNECTION: Wanted =
    Wanted { gate: Some(Limit::at_most(4000.0)), goal: Some(Limit::at_most(1500.0)) };
const START: Wanted = Wanted::gate(Limit::at_most(1.0));
const START_MS: Wanted = Wanted::goal(Limit::at_most(10.0));
const HALF: Wanted = Wanted::gate(Limit::at_most(0.5));
/// The relay is a fair floor when it costs at most so much more than HAProxy in TCP mode.
const FLOOR: Wanted = Wanted::gate(Limit::at_most(1.2));

const OWN: Kind = Kind::Ringside;
const MIB: f64 = 1_048_576.0;

/// A table of what these topologies and workloads can show; nothing without any.
pub fn append(report: &Report, out: &mut String) {
    let mut rows = Vec::new();
    costs(report, &mut rows);
    beside_haproxy(report, &mut rows);
    floor(report, &mut rows);
    footprints(report, &mut rows);
    starts(report, &mut rows);
    if report.runs.iter().any(|run| run.topology == OWN.name()) {
        let of_own = report.runs.iter().filter(|run| run.topology == OWN.name());
        let failed: u64 = of_own.map(Run::failed).sum();
        let verdict = if failed == 0 { "met" } else { "**missed**" };
        rows.push(format!(
            "| errors of calls through ringside | {failed} | 0 | {verdict} | – | – |\n"
        ));
    }
    if !rows.is_empty() {
        let _ = writeln!(out, "{HEADING}{}", rows.concat());
    }
}

fn costs(report: &Report, rows: &mut Vec<String>) {
    for Ratio { workload, other, wanted } in RATIOS {
        let what = format!("{}: CPU over {}'s", workload.to_uppercase(), other.name());
        rows.extend(compared(report, workload, [OWN, *other], CPU, &what, *wanted));
        if (*workload, *other) == ("w1", Kind::Relay) {
            rows.extend(added_p50(report, workload));
        }
    }
}

fn added_p50(report: &Report, workload: &str) -> Option<String> {
    let at = |kind: Kind| report.by_round(workload, kind.name(), P50);
    let direct = at(Kind::Direct);
    let added = |kind: Kind| -> Vec<Option<f64>> {
        let pairs = at(kind).into_iter().zip(&direct);
        // A hop that adds nothing is no measure of another.
        pairs.map(|(hop, direct)| Some(hop? - (*direct)?).filter(|us| *us > 0.0)).collect()
    };
    let sides = [OWN, Kind::Relay, Kind::Direct];
    let errors = sides.map(|side| failed(report, workload, side));
    let ratio = Spread::of_ratios(&added(OWN), &added(Kind::Relay));
    let what = format!("{}: p50 added to direct, over relay's", workload.to_uppercase());
    row(&what, ADDED_P50, ratio, errors.iter().sum())
}

fn beside_haproxy(report: &Report, rows: &mut Vec<String>) {
    for (name, figure, limit) in EVERYWHERE {
        for workload in &report.workloads {
            let open = Workload::named(workload).is_some_and(Workload::is_open);
            let limit = if open && *name == "throughput" { AS_ASKED } else { *limit };
            let what = format!("{}: {name} over haproxy's", workload.to_uppercase());
            let sides = [OWN, Kind::Haproxy];
            rows.extend(compared(report, workload, sides, *figure, &what, Wanted::gate(limit)));
        }
    }
}

fn floor(report: &Report, rows: &mut Vec<String>) {
    for workload in &report.workloads {
        let what = format!(
            "{}: the relay is no dearer than HAProxy in TCP mode (CPU)",
            workload.to_uppercase()
        );
        let sides = [Kind::Relay, Kind::HaproxyTcp];
        rows.extend(compared(report, workload, sides, CPU, &what, FLOOR));
    }
}

// A pair that fails its calls at W6 or W7 ends the comparison: there are no errors to count.

fn footprints(report: &Report, rows: &mut Vec<String>) {
    let of = |kind: Kind, figure: fn(&Footprint) -> f64| -> Vec<Option<f64>> {
        let of_kind = report.footprints.iter().filter(|f| f.topology == kind.name());
        of_kind.map(|f| Some(figure(f))).collect()
    };
    let idle: fn(&Footprint) -> f64 = |f| f.idle_resident as f64 / MIB;
    let (own, daprds) = (of(OWN, idle), of(Kind::Daprd, idle));
    let spread = |values: &[Option<f64>]| Spread::of(values.iter().copied().flatten());
    let both = spread(&own);
    let connection = spread(&of(OWN, |f| f.octets_per_idle_connection));
    rows.extend(row("W6: idle RSS of both sidecars, MiB", IDLE, both, 0));
    let each = both.map(|both| both.scaled(0.5));
    rows.extend(row("W6: idle RSS of one sidecar (half of that), MiB", IDLE, each, 0));
    rows.extend(row("W6: octets for an idle connection", CONNECTION, connection, 0));
    let memory = Spread::of_ratios(&own, &daprds);
    rows.extend(row("W6: idle RSS over daprd's", HALF, memory, 0));
}

fn starts(report: &Report, rows: &mut Vec<String>) {
    let started = |kind: Kind, between: Between| -> Vec<Option<f64>> {
        let is_of = |s: &&super::Start| s.topology == kind.name() && s.between == between.name();
        report.starts.iter().filter(is_of).map(|s| Some(s.wall_ms)).collect()
    };
    let own = started(OWN, Between::Plain);
    let ratio = Spread::of_ratios(&own, &started(Kind::Nginx, Between::Plain));
    rows.extend(row("W7P: exec to first call, plaintext, over nginx's", START, ratio, 0));
    let own = Spread::of(own.into_iter().flatten());
    rows.extend(row("W7P: exec to first call, plaintext, ms", START_MS, own, 0));
    let [own, daprds] = [OWN, Kind::Daprd].map(|kind| started(kind, Between::Tls));
    rows.extend(row("W7: start over daprd's", HALF, Spread::of_ratios(&own, &daprds), 0));
}

fn failed(report: &Report, workload: &str, side: Kind) -> u64 {
    report.errors(workload, side.name()).values().sum()
}

/// `figure` of the first side over the second's.
fn compared(
    report: &Report,
    workload: &str,
    sides: [Kind; 2],
    figure: Figure,
    what: &str,
    wanted: Wanted,
) -> Option<String> {
    let [over, under] = sides.map(|side| report.by_round(workload, side.name(), figure));
    let errors = sides.map(|side| failed(report, workload, side));
    row(what, wanted, Spread::of_ratios(&over, &under), errors.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::super::markdown::tests::report;
    use super::*;

    fn text(report: &Report) -> String {
        let mut text = String::new();
        append(report, &mut text);
        text
    }

    fn cpu(kind: Kind) -> f64 {
        match kind {
            Kind::Direct => 1.0,
            Kind::Relay => 10.0,
            Kind::Ringside => 15.0,
            Kind::Haproxy | Kind::Nginx => 30.0,
            _ => 1000.0,
        }
    }

    #[test]
    fn gates_and_goals_are_judged_by_the_ratios_of_rounds() {
        let kinds = [Kind::Relay, Kind::Ringside, Kind::Daprd];
        let mut report = report(&kinds, &[Workload::W2, Workload::W3s], cpu);
        let found = text(&report);
        let line =
            "| W2: CPU over daprd's | 0.015 (0.015–0.015) | ≤ 0.025 | met | ≤ 0.014 | missed |";
        assert!(found.contains(line), "{found}");
        let line = "| W2: CPU over relay's | 1.500 (1.500–1.500) | – | – | ≤ 1.500 | met |";
        assert!(found.contains(line), "{found}");
        let line =
            "| W3S: CPU over relay's | 1.500 (1.500–1.500) | ≤ 1.400 | **missed** | ≤ 1.150 |";
        assert!(found.contains(line), "{found}");
        assert!(!found.contains("haproxy's"), "who did not run is not judged: {found}");
        assert!(found.contains("| errors of calls through ringside | 0 | 0 | met | – | – |"));
        let of_daprd = |run: &&mut Run| run.workload == "w2" && run.topology == Kind::Daprd.name();
        let failed = report.runs.iter_mut().find(of_daprd).unwrap();
        failed.errors.insert("status 14 UNAVAILABLE".to_owned(), 1);
        let found = text(&report);
        let line = "| W2: CPU over daprd's | 0.015 (0.015–0.015) | ≤ 0.025 | **void: errors** |";
        assert!(found.contains(line), "either side's errors: {found}");
        assert!(
            found
                .contains("| W2: CPU over relay's | 1.500 (1.500–1.500) | – | – | ≤ 1.500 | met |")
        );
    }

    #[test]
    fn every_workload_is_held_against_haproxy() {
        let kinds = [Kind::Ringside, Kind::Haproxy];
        let found = text(&report(&kinds, &[Workload::W1, Workload::W3u], cpu));
        let line = "| W3U: CPU over haproxy's | 0.500 (0.500–0.500) | ≤ 0.250 | **missed** |";
        assert!(found.contains(line), "{found}");
        for workload in ["W1", "W3U"] {
            let p99 =
                format!("| {workload}: p99 over haproxy's | 0.500 (0.500–0.500) | ≤ 1.000 | met |");
            assert!(found.contains(&p99), "{found}");
            let machine = format!("| {workload}: CPU of the whole machine over haproxy's | 0.500");
            assert!(found.contains(&machine), "{found}");
        }
        assert!(
            found.contains("| W1: throughput over haproxy's | 1.000 (1.000–1.000) | ≥ 0.990 |")
        );
        assert!(
            found.contains("| W3U: throughput over haproxy's | 1.000 (1.000–1.000) | ≥ 1.000 |")
        );
    }

    #[test]
    fn what_hops_add_is_the_median_less_that_without_any() {
        let kinds = [Kind::Direct, Kind::Relay, Kind::Ringside];
        let found = text(&report(&kinds, &[Workload::W1], cpu));
        // Medians are twice the CPU: 2, 20 and 30 in the first round; (30 - 2) / (20 - 2).
        let line = "| W1: p50 added to direct, over relay's | 1.556 (1.556–1.556) | ≤ 1.400 |";
        assert!(found.contains(line), "{found}");
    }

    #[test]
    fn memory_and_starts_have_absolute_limits() {
        let kinds = [Kind::Ringside, Kind::Nginx, Kind::Daprd];
        let found = text(&report(&kinds, &[], cpu));
        for line in [
            "| W6: idle RSS of both sidecars, MiB | 15.0 (15.0–15.0) | ≤ 10.0 | **missed** |",
            "| W6: idle RSS of one sidecar (half of that), MiB | 7.500 (7.500–7.500) | ≤ 10.0 |",
            "| W6: octets for an idle connection | 512 (512–512) | ≤ 4000 | met | ≤ 1500 | met |",
            "| W7P: exec to first call, plaintext, over nginx's | 0.500 (0.500–0.500) | ≤ 1.000 |",
            "| W7P: exec to first call, plaintext, ms | 15.0 (15.0–15.0) | – | – | ≤ 10.0 |",
            "| W7: start over daprd's | 0.015 (0.015–0.015) | ≤ 0.500 | met | – | – |",
        ] {
            assert!(found.contains(line), "{line}\n{found}");
        }
    }
}
