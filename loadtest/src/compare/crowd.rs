//! Several pairs at once: do they share the CPUs evenly, and what does a call cost then?
//!
//! One pair and many pairs take turns, each pair with an app and a client thread of its own, all
//! under the same workload: an open loop loads each pair alike, a closed one all that is left.

use super::measure::at_quantile_us;
use super::report::{self, Header};
use super::site::Site;
use super::workload::Workload;
use crate::account::{Machine, Usage};
use crate::generate::{self, Mark};
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::ratio::Spread;
use crate::topology::{self, Ingredients, Kind, Process, Running};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Options {
    pub pairs: usize,
    pub kind: Kind,
    pub workload: Workload,
    pub rounds: usize,
    pub seconds: f64,
    pub command: String,
}

/// One round with so many pairs under load.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub round: usize,
    pub pairs: usize,
    pub calls: u64,
    pub errors: BTreeMap<String, u64>,
    pub calls_per_s: f64,
    pub cpu_us_per_unit: f64,
    pub machine_cpu_us_per_unit: f64,
    /// Of each CPU: busy time over the run's.
    pub busy_shares: Vec<f64>,
    /// Of the pairs: the slowest median and 99th percentile.
    pub p50_us_max: f64,
    pub p99_us_max: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub header: Header,
    pub topology: &'static str,
    pub workload: &'static str,
    pub seconds: f64,
    pub runs: Vec<Run>,
}

struct Pair {
    way: Running,
    _app: Process,
}

const WARMUP: Duration = Duration::from_millis(500);
const PAIRS_MAX: usize = 256;

pub fn run(
    options: &Options,
    ingredients: &Ingredients,
    says: &mut dyn FnMut(&str),
) -> Result<Report, String> {
    if options.pairs < 2 || options.pairs > PAIRS_MAX {
        return Err(format!("--pairs is between 2 and {PAIRS_MAX}"));
    }
    let site = Site::open(ingredients)?;
    let mut pairs = Vec::new();
    for number in 0..options.pairs {
        let (app, address) = topology::app(ingredients).map_err(|e| e.to_string())?;
        let way = site.start_to(options.kind, address, &format!("server-{number}"))?;
        pairs.push(Pair { way, _app: app });
    }
    let mut runs = Vec::new();
    for round in 0..options.rounds {
        says(&format!("round {} of {}", round + 1, options.rounds));
        let mut turns = [1, options.pairs];
        if round % 2 == 1 {
            turns.reverse();
        }
        for count in turns {
            // Each pair is alone in its turn.
            let first = if count == 1 { round % pairs.len() } else { 0 };
            let loaded = pairs.iter().skip(first).take(count);
            let ways: Vec<&Running> = loaded.map(|pair| &pair.way).collect();
            runs.push(Run { round, ..one_run(options, &ways)? });
        }
    }
    let header = site.header(&options.command, &[options.kind]);
    let (topology, workload) = (options.kind.name(), options.workload.name());
    Ok(Report { header, topology, workload, seconds: options.seconds, runs })
}

/// The kernel's books between the moments at which the last client began and the last one ended.
fn one_run(options: &Options, ways: &[&Running]) -> Result<Run, String> {
    let length = Duration::from_secs_f64(options.seconds);
    let plan = |way: &&Running| options.workload.plan(way.entry, &way.metadata, length, WARMUP);
    let plans: Vec<Plan> = ways.iter().map(plan).collect();
    let pids: Vec<u32> = ways.iter().flat_map(|way| way.sidecars.iter().copied()).collect();
    let books = || Ok::<_, std::io::Error>((Usage::of(&pids)?, Machine::now()?));
    let unread = |e: std::io::Error| format!("cannot read what processes cost: {e}");
    // All wait for each other when they are warm and when they are done.
    let gates = [Barrier::new(plans.len() + 1), Barrier::new(plans.len() + 1)];
    let (before, after, outcomes) = thread::scope(|scope| {
        let clients: Vec<_> =
            plans.iter().map(|plan| scope.spawn(|| client(plan, &gates))).collect();
        gates[0].wait();
        let before = books();
        gates[1].wait();
        let after = books();
        let outcomes: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        (before, after, outcomes)
    });
    let mut ended = Vec::new();
    for outcome in outcomes {
        ended.push(outcome.map_err(|_| "a client thread panicked".to_owned())??);
    }
    Ok(figures(options, &ended, before.map_err(unread)?, after.map_err(unread)?))
}

/// Passes both gates whatever happens, so that nobody waits for it in vain.
fn client(plan: &Plan, gates: &[Barrier; 2]) -> Result<Outcome, String> {
    let mut passed = 0;
    let outcome = generate::run_blocking_marked(plan, &mut |mark: Mark| {
        gates[usize::from(mark == Mark::End)].wait();
        passed += 1;
    });
    for gate in gates.iter().skip(passed) {
        gate.wait();
    }
    outcome.map_err(|e| e.to_string())
}

fn figures(
    options: &Options,
    outcomes: &[Outcome],
    (used_before, machine_before): (Usage, Machine),
    (used, machine): (Usage, Machine),
) -> Run {
    let units: f64 = outcomes.iter().map(|outcome| options.workload.units(outcome)).sum();
    let calls = outcomes.iter().map(|outcome| outcome.calls).sum();
    let longest = outcomes.iter().map(|outcome| outcome.elapsed).max().unwrap_or_default();
    let elapsed_s = longest.as_secs_f64().max(f64::MIN_POSITIVE);
    let machine = machine.since(&machine_before);
    let mut errors = BTreeMap::new();
    for (text, count) in outcomes.iter().flat_map(|outcome| &outcome.errors) {
        *errors.entry(text.clone()).or_default() += count;
    }
    let slowest = |quantile| {
        outcomes.iter().map(|outcome| at_quantile_us(outcome, quantile)).fold(0.0, f64::max)
    };
    Run {
        round: 0,
        pairs: outcomes.len(),
        calls,
        errors,
        calls_per_s: calls as f64 / elapsed_s,
        cpu_us_per_unit: (used - used_before).cpu_ns as f64 / 1e3 / units,
        machine_cpu_us_per_unit: machine.total_ns() as f64 / 1e3 / units,
        busy_shares: machine.busy_ns.iter().map(|ns| *ns as f64 / 1e9 / elapsed_s).collect(),
        p50_us_max: slowest(0.5),
        p99_us_max: slowest(0.99),
    }
}

impl Report {
    pub fn failed(&self) -> u64 {
        self.runs.iter().flat_map(|run| run.errors.values()).sum()
    }

    pub fn json(&self) -> String {
        report::json(self)
    }

    pub fn markdown(&self) -> String {
        let mut out = self.header.opening() + ".\n\n";
        let _ = writeln!(
            out,
            "| {} pairs under {} | CPU µs, both sidecars | machine µs | calls/s | busy share of \
             each CPU | busiest over idlest | p50 µs | p99 µs | errors |\n\
             |---|---|---|---|---|---|---|---|---|",
            self.topology,
            self.workload.to_uppercase()
        );
        let most = self.runs.iter().map(|run| run.pairs).max().unwrap_or(1);
        for pairs in [1, most] {
            let runs: Vec<&Run> = self.runs.iter().filter(|run| run.pairs == pairs).collect();
            let text = |figure: fn(&Run) -> f64| {
                Spread::of(runs.iter().map(|run| figure(run)))
                    .map_or("–".to_owned(), |s| s.text())
            };
            let cpus = runs.first().map_or(0, |run| run.busy_shares.len());
            let shares = (0..cpus).filter_map(|cpu| {
                let of_cpu = runs.iter().filter_map(|run| run.busy_shares.get(cpu).copied());
                Spread::of(of_cpu).map(|share| share.text())
            });
            let shares: Vec<String> = shares.collect();
            let failed: u64 = runs.iter().flat_map(|run| run.errors.values()).sum();
            let _ = writeln!(
                out,
                "| {pairs} | {} | {} | {} | {} | {} | {} | {} | {failed} |",
                text(|run| run.cpu_us_per_unit),
                text(|run| run.machine_cpu_us_per_unit),
                text(|run| run.calls_per_s),
                shares.join(", "),
                text(|run| imbalance(&run.busy_shares)),
                text(|run| run.p50_us_max),
                text(|run| run.p99_us_max),
            );
        }
        let of = |pairs: usize| -> Vec<Option<f64>> {
            let runs = self.runs.iter().filter(|run| run.pairs == pairs);
            runs.map(|run| Some(run.cpu_us_per_unit)).collect()
        };
        if let Some(ratio) = Spread::of_ratios(&of(most), &of(1)) {
            let _ = writeln!(
                out,
                "\nCPU with {most} pairs over that with one, within rounds: {} (goal: 0.85 to \
                 1.15).",
                ratio.text()
            );
        }
        let errors = self.runs.iter().flat_map(|run| &run.errors);
        for (text, count) in errors {
            let _ = writeln!(out, "- ⚠ {count} × {text}");
        }
        out
    }
}

/// The busiest CPU's time over the idlest's.
fn imbalance(shares: &[f64]) -> f64 {
    let busiest = shares.iter().copied().fold(0.0, f64::max);
    busiest / shares.iter().copied().fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imbalance_is_the_busiest_over_the_idlest() {
        assert_eq!(imbalance(&[0.5, 0.25, 0.4]), 2.0);
        assert!(!imbalance(&[]).is_normal());
    }
}
