//! What was measured, as a table with a verdict, as JSON, and the numbers behind both.
//!
//! 1. A ratio is the median of the rounds' own ratios: what drifts from round to round cancels.
//! 2. Spread is the smallest and the largest of the rounds.

use super::BenchError;
use super::read::{CPU_TAG, P999_TAG};
use loadtest::outcome::Outcome;
use loadtest::plan::Plan;
use loadtest::report::ghz;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::path::Path;

pub const PERCENTILES: [f64; 4] = [50.0, 90.0, 99.0, 99.9];
pub const DIRECT: &str = "direct";
pub const DAPRD: &str = "daprd";
pub const RINGSIDE: &str = "ringside";
/// The order in which they are shown.
const ORDER: [&str; 3] = [DIRECT, DAPRD, RINGSIDE];
/// Of [`PERCENTILES`].
const P50: usize = 0;
const P99: usize = 2;
const P999: usize = 3;
/// A machine on which the direct median of one round is so many times another's tells no latencies.
const UNSTEADY: f64 = 2.0;
/// Widths of the table.
const LABEL: usize = 22;
const COLUMN: usize = 22;
/// Different errors that are shown of a topology.
const ERRORS_SHOWN: usize = 3;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Report {
    pub name: Option<String>,
    pub conditions: Conditions,
    pub topologies: BTreeMap<String, Topology>,
    /// What is to be known about this very measurement.
    pub notes: Vec<String>,
}

/// Under which it was measured.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Conditions {
    pub date: String,
    pub machine: String,
    pub kernel: String,
    pub cpus: usize,
    pub ringside: String,
    pub ringside_resolver: String,
    /// Empty when it was not measured.
    pub daprd: String,
    pub daprd_resolver: String,
    pub service: String,
    pub call: String,
    pub kind: String,
    /// Messages and octets of a request.
    pub request: String,
    pub connections: usize,
    pub calls_in_flight: usize,
    /// Calls per second of an open loop; `None`: a closed one.
    pub rate: Option<f64>,
    pub rounds: usize,
    pub run: String,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Topology {
    pub runs: Vec<Run>,
    /// All runs in one, for other forms of report.
    #[serde(skip)]
    pub whole: Option<Whole>,
}

#[derive(Clone, Debug)]
pub struct Whole {
    pub plan: Plan,
    pub outcome: Outcome,
}

/// One run of one round.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Run {
    pub calls: u64,
    pub seconds: f64,
    pub rate: f64,
    /// Of both sidecars; a direct run has none.
    pub cpu_us_per_call: Option<f64>,
    /// Of [`PERCENTILES`]; empty when no call ended well.
    pub latency_us: Vec<f64>,
    /// Open loop: how late the generator itself sent.
    pub generator_late_us_p99: Option<f64>,
    pub statuses: BTreeMap<u32, u64>,
    pub errors: BTreeMap<String, u64>,
}

impl Run {
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// A median and its extremes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.get((values.len() - 1) / 2..=values.len() / 2)?;
        let median = middle.iter().sum::<f64>() / middle.len() as f64;
        Some(Self { median, min, max })
    }

    /// Of a difference in µs: the rounds may not even agree that there is one.
    fn more(&self) -> String {
        match self.min > 0.0 {
            true => format!("{} µs", figure(self.median)),
            false => "nothing that all rounds agree on".to_owned(),
        }
    }
}

impl fmt::Display for Spread {
    /// Three figures: `12.9 (12.1–14.0)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&figure(self.median))?;
        if self.min < self.max {
            write!(f, " ({}–{})", figure(self.min), figure(self.max))?;
        }
        Ok(())
    }
}

fn cell(spread: Option<Spread>) -> String {
    spread.map_or("-".to_owned(), |spread| spread.to_string())
}

fn row(out: &mut String, label: &str, cells: &[String]) {
    let cells: String = cells.iter().map(|cell| format!(" {cell:>COLUMN$}")).collect();
    let _ = writeln!(out, "{label:LABEL$}{cells}");
}

fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl Report {
    fn runs(&self, name: &str) -> &[Run] {
        self.topologies.get(name).map_or(&[], |topology| topology.runs.as_slice())
    }

    fn spread(&self, name: &str, value: impl Fn(&Run) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.runs(name).iter().filter_map(value))
    }

    /// Of `value` in `above` to that in `below`, round by round.
    fn ratio(
        &self,
        above: &str,
        below: &str,
        value: impl Fn(&Run) -> Option<f64>,
    ) -> Option<Spread> {
        let rounds = self.runs(above).iter().zip(self.runs(below));
        Spread::of(rounds.filter_map(|(above, below)| Some(value(above)? / value(below)?)))
    }

    /// What `name` adds to the direct call, round by round.
    fn added(&self, name: &str, at: usize) -> Option<Spread> {
        if name == DIRECT {
            return None;
        }
        let rounds = self.runs(name).iter().zip(self.runs(DIRECT));
        let difference = |(run, direct): (&Run, &Run)| {
            Some(run.latency_us.get(at)? - direct.latency_us.get(at)?)
        };
        Spread::of(rounds.filter_map(difference))
    }

    fn names(&self) -> impl Iterator<Item = &'static str> {
        ORDER.into_iter().filter(|name| !self.runs(name).is_empty())
    }

    pub fn json(&self) -> Result<String, BenchError> {
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|error| BenchError::new(error.to_string()))?;
        text.push('\n');
        Ok(text)
    }

    /// One file per topology in ghz's JSON; says where they are.
    pub fn write_ghz(&self, folder: &Path) -> Result<String, BenchError> {
        let failed = |path: &Path, error: String| {
            BenchError::new(format!("writing {}: {error}", path.display()))
        };
        std::fs::create_dir_all(folder).map_err(|error| failed(folder, error.to_string()))?;
        let mut written = String::from("\n");
        for name in self.names() {
            let path = folder.join(format!("{name}.json"));
            let text = self.ghz(name).map_err(|error| failed(&path, error))?;
            std::fs::write(&path, text).map_err(|error| failed(&path, error.to_string()))?;
            let _ = writeln!(written, "wrote {}", path.display());
        }
        Ok(written)
    }

    /// The load generator's own report, with what it does not know.
    fn ghz(&self, name: &str) -> Result<String, String> {
        let whole = self.topologies.get(name).and_then(|topology| topology.whole.as_ref());
        let Whole { plan, outcome } = whole.ok_or("nothing was measured")?;
        let mut report = ghz::report(plan, outcome, loadtest::report::now());
        let title = self.name.as_deref().unwrap_or(&self.conditions.call);
        report.name = format!("{title}, {name}");
        let cpu = self.spread(name, |run| run.cpu_us_per_call);
        let p999 = self.spread(name, |run| run.latency_us.get(P999).copied());
        for (tag, value) in [(CPU_TAG, cpu), (P999_TAG, p999)] {
            report.tags.extend(value.map(|value| (tag.to_owned(), figure(value.median))));
        }
        serde_json::to_string_pretty(&report).map_err(|error| error.to_string())
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.head(&mut out);
        self.table(&mut out);
        self.errors(&mut out);
        out.push('\n');
        for line in self.verdict() {
            let _ = writeln!(out, "{line}");
        }
        self.notes(&mut out);
        out
    }

    fn head(&self, out: &mut String) {
        let on = &self.conditions;
        let load = match on.rate {
            Some(rate) => format!("open loop at {rate} calls/s, at most {}", on.calls_in_flight),
            None => format!("closed loop, {}", on.calls_in_flight),
        };
        let connections = if on.connections == 1 { "connection" } else { "connections" };
        let mut line = |label: &str, text: &str| {
            let _ = writeln!(out, "{label:9} {text}");
        };
        line("service", &format!("{} at {} ({})", on.call, on.service, on.kind));
        line("request", &on.request);
        line("load", &format!("{load} in flight over {} {connections}", on.connections));
        line("rounds", &format!("{} of {} each, in alternation", on.rounds, on.run));
        line("machine", &format!("{}, {} CPUs, Linux {}", on.machine, on.cpus, on.kernel));
        line("ringside", &format!("{}, names by {}", on.ringside, on.ringside_resolver));
        if !on.daprd.is_empty() {
            line("daprd", &format!("{}, names by {}", on.daprd, on.daprd_resolver));
        }
        line("sidecars", "two of each with mTLS between them, log level warn, no tracing");
    }

    fn table(&self, out: &mut String) {
        let columns: Vec<&str> = self.names().collect();
        let both = columns.contains(&DAPRD) && columns.contains(&RINGSIDE);
        let mut heads: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        heads.extend(both.then(|| format!("{DAPRD} : {RINGSIDE}")));
        out.push('\n');
        row(out, "", &heads);
        let mut figures = |label: &str, value: &dyn Fn(&Run) -> Option<f64>| {
            let mut cells: Vec<String> =
                columns.iter().map(|name| cell(self.spread(name, value))).collect();
            cells.extend(both.then(|| cell(self.ratio(DAPRD, RINGSIDE, value))));
            row(out, label, &cells);
        };
        figures("CPU µs/call, sidecars", &|run| run.cpu_us_per_call);
        figures("calls/s", &|run| Some(run.rate));
        for (at, percentile) in PERCENTILES.iter().enumerate() {
            figures(&format!("p{percentile} µs"), &|run| run.latency_us.get(at).copied());
        }
        for at in [P50, P99] {
            let mut cells: Vec<String> =
                columns.iter().map(|name| cell(self.added(name, at))).collect();
            cells.extend(both.then(|| self.added_ratio(at)));
            row(out, &format!("  added at p{}, µs", PERCENTILES[at]), &cells);
        }
        let failed = |name: &&str| self.runs(name).iter().map(Run::failed).sum::<u64>().to_string();
        let cells: Vec<String> = columns.iter().map(failed).collect();
        row(out, "errors", &cells);
    }

    /// Of medians only: a difference near 0 would make ratios of rounds meaningless.
    fn added_ratio(&self, at: usize) -> String {
        let [daprd, ringside] = [DAPRD, RINGSIDE].map(|name| self.added(name, at));
        let ratio = daprd.zip(ringside).filter(|(_, ringside)| ringside.median > 0.0);
        ratio.map_or("-".to_owned(), |(d, r)| figure(d.median / r.median))
    }

    fn errors(&self, out: &mut String) {
        for name in self.names() {
            let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
            for (text, count) in self.runs(name).iter().flat_map(|run| &run.errors) {
                *counts.entry(text).or_default() += count;
            }
            let mut counts: Vec<_> = counts.into_iter().collect();
            counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            for (text, count) in counts.iter().take(ERRORS_SHOWN) {
                let _ = writeln!(out, "  {name}: {count} x {text}");
            }
        }
    }

    /// One sentence on each question that people have.
    fn verdict(&self) -> Vec<String> {
        let mut said = Vec::new();
        let cpu = |run: &Run| run.cpu_us_per_call;
        if let Some(ratio) = self.ratio(DAPRD, RINGSIDE, cpu) {
            said.push(format!("daprd's pair takes {ratio} times the CPU of ringside's."));
        } else if let Some(cost) = self.spread(RINGSIDE, cpu) {
            said.push(format!("ringside's pair takes {cost} µs of CPU a call."));
        }
        let added = |name: &str| {
            let (p50, p99) = (self.added(name, P50)?, self.added(name, P99)?);
            Some(format!("{} at the median and {} at p99", p50.more(), p99.more()))
        };
        match (added(RINGSIDE), added(DAPRD)) {
            (Some(ringside), Some(daprd)) => {
                said.push(format!("It adds {daprd} to a call; ringside's adds {ringside}."));
            }
            (Some(ringside), None) => said.push(format!("It adds {ringside} to a call.")),
            (None, _) => {}
        }
        let failed = |name: &&str| self.runs(name).iter().any(|run| run.failed() > 0);
        let failing: Vec<&str> = self.names().filter(failed).collect();
        if !failing.is_empty() {
            let failing = failing.join(", ");
            said.push(format!("Calls failed ({failing}): no figure counts before they do not."));
        }
        said
    }

    fn notes(&self, out: &mut String) {
        out.push('\n');
        match self.conditions.rate {
            None => out.push_str(CLOSED),
            Some(rate) => self.open_notes(out, rate),
        }
        let direct = self.spread(DIRECT, |run| run.latency_us.get(P50).copied());
        if let Some(direct) = direct.filter(|direct| direct.max > UNSTEADY * direct.min) {
            let _ = writeln!(
                out,
                "Even direct calls took now {} µs, now {} µs at the median: latencies here are \
                 noise.",
                figure(direct.min),
                figure(direct.max)
            );
        }
        for note in &self.notes {
            let _ = writeln!(out, "{note}");
        }
    }

    /// What makes an open loop's figures doubtful.
    fn open_notes(&self, out: &mut String, rate: f64) {
        for name in self.names() {
            let reached = self.spread(name, |run| Some(run.rate));
            if let Some(reached) = reached.filter(|reached| reached.median < 0.98 * rate) {
                let _ = writeln!(out, "{name} did {reached} of the {rate} calls/s that were due.");
            }
        }
        let late = self.spread(DIRECT, |run| run.generator_late_us_p99);
        let direct = self.spread(DIRECT, |run| run.latency_us.get(P99).copied());
        if let Some((late, direct)) = late.zip(direct)
            && late.median > direct.median / 2.0
        {
            let _ = writeln!(
                out,
                "The load itself left late ({late} µs at p99): too busy a machine for that rate."
            );
        }
    }
}

const CLOSED: &str = "\
A closed loop sends less when calls are slow: its percentiles hide queueing. -r N (calls/s) is an
open loop, whose latencies count from the moment at which each call was due.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn run(cpu: Option<f64>, p50: f64) -> Run {
        Run {
            calls: 1000,
            rate: 500.0,
            cpu_us_per_call: cpu,
            latency_us: vec![p50, 2.0 * p50, 3.0 * p50, 4.0 * p50],
            ..Run::default()
        }
    }

    fn report() -> Report {
        let mut report = Report::default();
        // The second round ran on a machine half as fast: ratios do not mind.
        for (name, cpu) in [(DIRECT, None), (DAPRD, Some(120.0)), (RINGSIDE, Some(10.0))] {
            let p50 = 100.0 + 2.0 * cpu.unwrap_or_default();
            let slow = run(cpu.map(|cpu| 2.0 * cpu), 2.0 * p50);
            let runs = vec![run(cpu, p50), slow];
            report.topologies.insert(name.to_owned(), Topology { runs, whole: None });
        }
        report
    }

    #[test]
    fn ratios_are_of_rounds() {
        let text = report().text();
        assert!(text.contains("daprd's pair takes 12.0 times the CPU of ringside's."), "{text}");
        // 240 and 480 µs more than direct; 20 and 40.
        assert!(text.contains("It adds 360 µs at the median"), "{text}");
        assert!(text.contains("ringside's adds 30.0 µs at the median"), "{text}");
        let row = text.lines().find(|line| line.starts_with("CPU")).expect("a row");
        let cells: Vec<&str> = row.split_whitespace().skip(3).collect();
        assert_eq!(cells, ["-", "180", "(120–240)", "15.0", "(10.0–20.0)", "12.0"], "{text}");
    }

    #[test]
    fn differences_within_the_noise_are_none() {
        let of = |values: [f64; 2]| Spread::of(values.into_iter()).map(|spread| spread.more());
        assert_eq!(of([1.0, 3.0]).as_deref(), Some("2.00 µs"));
        assert_eq!(of([-1.0, 3.0]).as_deref(), Some("nothing that all rounds agree on"));
    }

    #[test]
    fn failures_are_shown_and_spoil_the_verdict() {
        let mut report = report();
        if let Some(run) = report.topologies.get_mut(DAPRD).and_then(|t| t.runs.first_mut()) {
            run.errors.insert("UNAVAILABLE: gone".to_owned(), 7);
        }
        let text = report.text();
        assert!(text.contains("daprd: 7 x UNAVAILABLE: gone"), "{text}");
        assert!(text.contains("Calls failed (daprd)"), "{text}");
    }

    #[test]
    fn an_open_loop_that_was_not_kept_is_told() {
        let mut report = report();
        report.conditions.rate = Some(1000.0);
        let text = report.text();
        assert!(text.contains("ringside did 500 of the 1000 calls/s that were due."), "{text}");
        assert!(!text.contains("closed loop sends less"), "{text}");
    }

    #[test]
    fn survives_json() {
        let text = report().json().unwrap();
        let back: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(back.text(), report().text());
    }
}
