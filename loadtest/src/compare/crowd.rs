//! Several pairs at once: do they share the CPUs evenly, and what does a call cost then?
//!
//! One pair and many pairs take turns, each pair with an app and a client thread of its own, all
//! under the same workload: an open loop loads each pair alike, a closed one takes all that is
//! left. Whether the CPUs are loaded evenly shows only where some of them is idle, so it is a
//! question for an open loop: [`Options::rate`].

use super::measure::at_quantile_us;
use super::report::{self, Header};
use super::site::Site;
use super::verdict::{self, Limit, Wanted};
use super::workload::Workload;
use crate::account::{Machine, Usage};
use crate::generate;
use crate::outcome::Outcome;
use crate::plan::{Plan, Schedule, Segment};
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
    /// Calls per second of each pair, in place of the workload's own schedule.
    pub rate: Option<f64>,
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
    pub rate: Option<f64>,
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
    let Options { rate, seconds, .. } = *options;
    Ok(Report { header, topology, workload, rate, seconds, runs })
}

/// The kernel's books between the moments at which the last client began and the last one ended.
fn one_run(options: &Options, ways: &[&Running]) -> Result<Run, String> {
    let length = Duration::from_secs_f64(options.seconds);
    let plan = |way: &&Running| {
        let plan = options.workload.plan(way.entry, &way.metadata, length, WARMUP);
        let constant = |rate| Schedule::Open(vec![Segment { from: rate, to: rate, length }]);
        Plan { schedule: options.rate.map_or(plan.schedule, constant), ..plan }
    };
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

/// One client's way through the gates. Those that are left it passes when it is dropped, whatever
/// ends the client, a panic too: so nobody waits for it in vain.
struct Passage<'a> {
    left: std::slice::Iter<'a, Barrier>,
}

impl<'a> Passage<'a> {
    fn through(gates: &'a [Barrier; 2]) -> Self {
        Self { left: gates.iter() }
    }

    fn pass(&mut self) {
        if let Some(gate) = self.left.next() {
            gate.wait();
        }
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        for gate in self.left.by_ref() {
            gate.wait();
        }
    }
}

fn client(plan: &Plan, gates: &[Barrier; 2]) -> Result<Outcome, String> {
    let mut passage = Passage::through(gates);
    let outcome = generate::run_blocking_marked(plan, &mut |_| passage.pass());
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
        let mut out = self.header.opening() + ".\n";
        let rate = self.rate.map_or(String::new(), |rate| format!(" at {rate} calls/s each"));
        let _ = writeln!(
            out,
            "{}\n\n| {} pairs under {}{rate} | CPU µs, both sidecars | machine µs | calls/s | \
             busy share of each CPU | busiest over idlest | p50 µs | p99 µs | errors |\n\
             |---|---|---|---|---|---|---|---|---|",
            self.header.programs(),
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
        self.verdicts(&mut out, most);
        let errors = self.runs.iter().flat_map(|run| &run.errors);
        for (text, count) in errors {
            let _ = writeln!(out, "- ⚠ {count} × {text}");
        }
        out
    }

    /// Both goals, as far as these runs can show them.
    fn verdicts(&self, out: &mut String, most: usize) {
        let errors = self.failed();
        let crowded = || self.runs.iter().filter(|run| run.pairs == most);
        let cpu = |pairs: usize| -> Vec<Option<f64>> {
            let runs = self.runs.iter().filter(|run| run.pairs == pairs);
            runs.map(|run| Some(run.cpu_us_per_unit)).collect()
        };
        let idlest = |run: &Run| {
            let least = run.busy_shares.iter().copied().fold(f64::INFINITY, f64::min);
            (1.0 - least).max(0.0)
        };
        let idle = Spread::of(crowded().map(idlest));
        let some_idle = idle.is_some_and(|idle| idle.median >= IDLE_MIN);
        let even = Spread::of(crowded().map(|run| imbalance(&run.busy_shares)));
        let even = even.filter(|_| some_idle);
        let what = format!("{most} pairs: the busiest CPU's time over the idlest's");
        let rows = [
            verdict::row(&what, EVEN, even, errors),
            verdict::row(
                &format!("CPU per call with {most} pairs over that with one"),
                UNCHANGED,
                Spread::of_ratios(&cpu(most), &cpu(1)),
                errors,
            ),
        ];
        let _ = write!(out, "\n{}", verdict::HEADING);
        rows.iter().flatten().for_each(|row| out.push_str(row));
        if let Some(idle) = idle {
            let idle = format!("with {most} pairs the idlest CPU is idle for {}", idle.text());
            let _ = if some_idle {
                writeln!(out, "\nOf the run's length, {idle}.")
            } else {
                writeln!(
                    out,
                    "\nNo verdict on how evenly CPUs are used: {idle} of the run's length, so \
                     none has work to spare (a lower `--rate` leaves some)."
                )
            };
        }
    }
}

/// The busiest CPU's time over the idlest's, with all pairs under load.
const EVEN: Wanted = Wanted::goal(Limit::at_most(1.2));
/// CPU per call with all pairs under load over that with one.
const UNCHANGED: Wanted = Wanted::goal(Limit::between(0.85, 1.15));
/// With less of a CPU left, all are equally busy because there is no more.
const IDLE_MIN: f64 = 0.1;

/// The busiest CPU's time over the idlest's.
fn imbalance(shares: &[f64]) -> f64 {
    let busiest = shares.iter().copied().fold(0.0, f64::max);
    busiest / shares.iter().copied().fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else the clients that wait for it would hang, and the test with them.
    #[test]
    fn a_client_that_panics_opens_the_gates() {
        let gates = [Barrier::new(3), Barrier::new(3)];
        let (panicked, passed) = thread::scope(|scope| {
            let panicking = scope.spawn(|| {
                let _passage = Passage::through(&gates);
                panic!("as a client might");
            });
            let patient = scope.spawn(|| {
                let mut passage = Passage::through(&gates);
                passage.pass();
                passage.pass();
            });
            let mut own = Passage::through(&gates);
            own.pass();
            own.pass();
            (panicking.join().is_err(), patient.join().is_ok())
        });
        assert!(panicked && passed);
    }

    fn report(busy_shares: [f64; 2]) -> Report {
        let run = |round: usize, pairs: usize| Run {
            round,
            pairs,
            calls: 100,
            errors: BTreeMap::new(),
            calls_per_s: 50.0,
            cpu_us_per_unit: if pairs == 1 { 100.0 } else { 90.0 + round as f64 },
            machine_cpu_us_per_unit: 200.0,
            busy_shares: busy_shares.to_vec(),
            p50_us_max: 1.0,
            p99_us_max: 2.0,
        };
        Report {
            header: crate::compare::markdown::tests::header(),
            topology: "ringside",
            workload: "w2r",
            rate: Some(700.0),
            seconds: 2.0,
            runs: vec![run(0, 1), run(0, 8), run(1, 8), run(1, 1)],
        }
    }

    #[test]
    fn both_goals_have_a_verdict() {
        let text = report([0.5, 0.4]).markdown();
        assert!(text.contains("| ringside pairs under W2R at 700 calls/s each |"), "{text}");
        let even = "| 8 pairs: the busiest CPU's time over the idlest's | 1.250 (1.250–1.250) \
                    | – | – | ≤ 1.200 | missed |";
        assert!(text.contains(even), "{text}");
        let unchanged = "| CPU per call with 8 pairs over that with one | 0.905 (0.900–0.910) \
                         | – | – | 0.850 to 1.150 | met |";
        assert!(text.contains(unchanged), "{text}");
    }

    #[test]
    fn a_machine_without_idle_cpus_shows_no_evenness() {
        let text = report([0.99, 0.98]).markdown();
        assert!(!text.contains("the busiest CPU's time over the idlest's |"), "{text}");
        assert!(text.contains("No verdict on how evenly CPUs are used: "), "{text}");
    }

    #[test]
    fn imbalance_is_the_busiest_over_the_idlest() {
        assert_eq!(imbalance(&[0.5, 0.25, 0.4]), 2.0);
        assert!(!imbalance(&[]).is_normal());
    }
}
