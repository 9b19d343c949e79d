//! One kind of call under more and more load: open loops at rising rates, or closed loops with more
//! connections and more calls in flight on each.
//!
//! 1. As in a comparison, all ways are up, take turns, and are measured by the kernel's books.
//! 2. Rates rise up to the knee: a way that no longer keeps up is spared the higher ones of that
//!    round, which would only measure how long a queue is.

use super::measure::{self, Run};
use super::report::{self, Header};
use super::site::Site;
use super::workload::Workload;
use super::{WARMUP, order};
use crate::plan::{Plan, Schedule, Segment};
use crate::ratio::Spread;
use crate::topology::{Ingredients, Kind, Running};
use serde::Serialize;
use std::fmt::Write as _;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Options {
    pub kinds: Vec<Kind>,
    pub connections: Vec<usize>,
    /// Calls in flight on each, of closed loops; at most, of open ones.
    pub streams: Vec<usize>,
    /// Calls per second, rising; none: closed loops.
    pub rates: Vec<f64>,
    pub rounds: usize,
    pub seconds: f64,
    pub command: String,
}

/// A run, and under what load.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    pub connections: usize,
    pub streams: usize,
    pub rate: Option<f64>,
    #[serde(flatten)]
    pub run: Run,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    kind: &'static str,
    pub header: Header,
    pub topologies: Vec<&'static str>,
    pub rounds: usize,
    pub seconds: f64,
    pub runs: Vec<Point>,
}

/// What is sent, but for how much of it: small unary calls.
const CALLS: Workload = Workload::W2;
/// Who does less than this share of what is asked, or answers so late, is past the knee.
const KEPT_UP: f64 = 0.95;
const LATE_US: f64 = 50_000.0;

#[derive(Clone, Copy)]
struct Load {
    connections: usize,
    streams: usize,
    rate: Option<f64>,
}

pub fn run(
    options: &Options,
    ingredients: &Ingredients,
    says: &mut dyn FnMut(&str),
) -> Result<Report, String> {
    let site = Site::open(ingredients)?;
    let header = site.header(&options.command, &options.kinds);
    let mut ways = site.start_all(&options.kinds, says)?;
    let mut runs = Vec::new();
    for round in 0..options.rounds {
        says(&format!("round {} of {}", round + 1, options.rounds));
        let mut beyond = vec![false; ways.len()];
        for load in loads(options) {
            for at in order(ways.len(), round) {
                if beyond[at] {
                    continue;
                }
                let point = one_run(options, &site, &mut ways[at], load)?;
                beyond[at] = load.rate.is_some() && is_beyond(&point);
                runs.push(Point { run: Run { round, ..point.run }, ..point });
            }
        }
    }
    Ok(Report {
        kind: "sweep",
        header,
        topologies: options.kinds.iter().map(|kind| kind.name()).collect(),
        rounds: options.rounds,
        seconds: options.seconds,
        runs,
    })
}

/// Rates rise while connections stay.
fn loads(options: &Options) -> Vec<Load> {
    let rates: Vec<Option<f64>> = match options.rates.is_empty() {
        true => vec![None],
        false => options.rates.iter().copied().map(Some).collect(),
    };
    let mut loads = Vec::new();
    for connections in options.connections.iter().copied() {
        for streams in options.streams.iter().copied() {
            loads.extend(rates.iter().map(|rate| Load { connections, streams, rate: *rate }));
        }
    }
    loads
}

fn one_run(
    options: &Options,
    site: &Site<'_>,
    way: &mut Running,
    load: Load,
) -> Result<Point, String> {
    let length = Duration::from_secs_f64(options.seconds);
    let Load { connections, streams, rate } = load;
    let open = |rate| Schedule::Open(vec![Segment { from: rate, to: rate, length }]);
    let plan = Plan {
        connections,
        streams,
        schedule: rate.map_or(Schedule::Closed, open),
        ..CALLS.plan(way.entry, &way.metadata, length, WARMUP.min(length))
    };
    let run = measure::run_plan(site, way, CALLS, &plan)
        .map_err(|e| format!("{connections} connections of {streams} through {}: {e}", way.name))?;
    Ok(Point { connections, streams, rate, run })
}

fn is_beyond(point: &Point) -> bool {
    let asked = point.rate.unwrap_or(0.0);
    let Run { units_per_s, p99_us, .. } = point.run;
    units_per_s < KEPT_UP * asked || p99_us > LATE_US || point.run.failed() > 0
}

impl Report {
    pub fn failed(&self) -> u64 {
        self.runs.iter().map(|point| point.run.failed()).sum()
    }

    pub fn json(&self) -> String {
        report::json(self)
    }

    pub fn markdown(&self) -> String {
        let mut out = format!(
            "{}; {} rounds of {} s.\n{}\n\n\
             | Connections × streams | calls/s asked | Through | calls/s | CPU µs/call | p50 µs | \
             p99 µs | errors |\n|---|---|---|---|---|---|---|---|\n",
            self.header.opening(),
            self.rounds,
            self.seconds,
            self.header.programs(),
        );
        let mut seen = Vec::new();
        for point in &self.runs {
            let load = (point.connections, point.streams, point.rate);
            if !seen.contains(&load) {
                seen.push(load);
                self.rows(&mut out, load);
            }
        }
        out
    }

    fn rows(&self, out: &mut String, load: (usize, usize, Option<f64>)) {
        for way in &self.topologies {
            let is_of = |point: &&Point| {
                (point.connections, point.streams, point.rate) == load && point.run.topology == *way
            };
            let runs: Vec<&Run> = self.runs.iter().filter(is_of).map(|p| &p.run).collect();
            if runs.is_empty() {
                continue;
            }
            let text = |figure: fn(&Run) -> Option<f64>| {
                let spread = Spread::of(runs.iter().filter_map(|run| figure(run)));
                spread.map_or("–".to_owned(), |spread| spread.text())
            };
            let asked = load.2.map_or("closed loop".to_owned(), |rate| format!("{rate}"));
            let _ = writeln!(
                out,
                "| {} × {} | {asked} | {way} | {} | {} | {} | {} | {} |",
                load.0,
                load.1,
                text(|run| Some(run.units_per_s)),
                text(|run| run.cpu_us_per_unit),
                text(|run| Some(run.p50_us)),
                text(|run| Some(run.p99_us)),
                runs.iter().map(|run| run.failed()).sum::<u64>(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::markdown::tests::run;

    fn options() -> Options {
        Options {
            kinds: Vec::new(),
            connections: vec![1, 4],
            streams: vec![10, 20],
            rates: Vec::new(),
            rounds: 1,
            seconds: 1.0,
            command: String::new(),
        }
    }

    #[test]
    fn loads_are_all_combinations_with_rates_rising_last() {
        let told = |options: &Options| -> Vec<_> {
            loads(options).iter().map(|l| (l.connections, l.streams, l.rate)).collect()
        };
        let closed = [(1, 10, None), (1, 20, None), (4, 10, None), (4, 20, None)];
        assert_eq!(told(&options()), closed);
        let open = Options { streams: vec![10], rates: vec![5.0, 9.0], ..options() };
        let (five, nine) = (Some(5.0), Some(9.0));
        assert_eq!(told(&open), [(1, 10, five), (1, 10, nine), (4, 10, five), (4, 10, nine)]);
    }

    #[test]
    fn who_no_longer_keeps_up_is_beyond_the_knee() {
        let point = |asked: f64, latency: f64| Point {
            connections: 1,
            streams: 1,
            rate: Some(asked),
            // It does 1,000 a second.
            run: run(0, CALLS, Kind::Ringside, latency),
        };
        assert!(!is_beyond(&point(1000.0, 10.0)));
        assert!(is_beyond(&point(2000.0, 10.0)));
        assert!(is_beyond(&point(1000.0, 20_000.0)), "80 ms");
    }

    #[test]
    fn the_json_says_the_load_beside_each_run() {
        let point = Point {
            connections: 4,
            streams: 10,
            rate: None,
            run: run(0, CALLS, Kind::Ringside, 10.0),
        };
        let report = Report {
            kind: "sweep",
            header: crate::compare::markdown::tests::header(),
            topologies: vec!["ringside"],
            rounds: 1,
            seconds: 1.0,
            runs: vec![point],
        };
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["runs"][0]["connections"], 4);
        assert_eq!(json["runs"][0]["cpu_us_per_unit"], 10.0);
        let line = "| 4 × 10 | closed loop | ringside | 1000 (1000–1000) | 10.0 (10.0–10.0) |";
        assert!(report.markdown().contains(line), "{}", report.markdown());
    }
}
