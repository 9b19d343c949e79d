//! 1, 2, 4 … client connections over worker threads: how they and the work spread, and what more
//! connections bring.
//!
//! On a machine with few CPUs the workers are never what is scarce: the client and the app want as
//! much. So each worker thread is put into a CPU group of its own with a quota of a few percent of
//! a CPU; client and app have the rest. The same runs without a quota follow in each round.
//!
//! Which worker has which connection is what the sidecar itself says on `/metrics`; what a worker
//! has done is its thread's CPU time.

use super::groups::Groups;
use super::report::{self, Header};
use super::site::Site;
use super::verdict::{self, Limit, Wanted};
use super::workload::Workload;
use crate::account::{self, Thread};
use crate::generate::{self, Mark};
use crate::plan::{End, Plan, Schedule};
use crate::ratio::Spread;
use crate::topology::{Ingredients, Kind, PATIENCE, Running, http_get, until};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Options {
    /// Numbers of client connections to compare.
    pub connections: Vec<usize>,
    /// Calls in flight on each.
    pub streams: usize,
    /// Percent of a CPU for each worker; `None`: no limit.
    pub quota: Option<u32>,
    pub rounds: usize,
    pub seconds: f64,
    pub command: String,
}

/// One run over so many connections.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub round: usize,
    pub connections: usize,
    /// Percent of a CPU for each worker.
    pub quota: Option<u32>,
    pub calls: u64,
    pub errors: BTreeMap<String, u64>,
    pub calls_per_s: f64,
    /// CPU time of each worker over the run's length: the caller's side, the app's side.
    pub outbound_shares: Vec<f64>,
    pub inbound_shares: Vec<f64>,
    /// `ringside_worker_downstream_connections` of each worker at the run's end.
    pub outbound_connections: Vec<u64>,
    pub inbound_connections: Vec<u64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub header: Header,
    pub streams: usize,
    pub quota: Option<u32>,
    pub seconds: f64,
    pub runs: Vec<Run>,
}

const WARMUP: Duration = Duration::from_millis(500);
/// As `worker-0`: what ringside calls the threads that carry calls.
const WORKER: &str = "worker-";

pub fn run(
    options: &Options,
    ingredients: &Ingredients,
    says: &mut dyn FnMut(&str),
) -> Result<Report, String> {
    let site = Site::open(ingredients)?;
    let way = site.start(Kind::Ringside)?;
    let workers = way.sidecars.iter().map(|pid| workers(*pid));
    let workers: Vec<Vec<Thread>> = workers.collect::<Result<_, _>>()?;
    let threads = workers.iter().flatten().map(|worker| worker.id);
    let threads: Vec<u32> = threads.collect();
    let mut limits = vec![options.quota, None];
    limits.dedup();
    let mut runs = Vec::new();
    for round in 0..options.rounds {
        says(&format!("round {} of {}", round + 1, options.rounds));
        let mut turns = options.connections.clone();
        if round % 2 == 1 {
            turns.reverse();
        }
        for quota in &limits {
            let group = |percent| Groups::make(threads.iter().copied(), percent);
            let _groups = quota.map(group).transpose()?;
            for connections in &turns {
                let run = one_run(options, &way, *connections)?;
                runs.push(Run { round, quota: *quota, ..run });
            }
        }
    }
    let header = site.header(&options.command, &[Kind::Ringside]);
    let (streams, quota, seconds) = (options.streams, options.quota, options.seconds);
    Ok(Report { header, streams, quota, seconds, runs })
}

fn workers(pid: u32) -> Result<Vec<Thread>, String> {
    let threads = account::threads(pid).map_err(|e| format!("cannot read its threads: {e}"))?;
    let mut workers: Vec<Thread> =
        threads.into_iter().filter(|thread| thread.name.starts_with(WORKER)).collect();
    workers.sort_by(|a, b| a.name.cmp(&b.name));
    if workers.is_empty() {
        return Err(format!("process {pid} has no threads named {WORKER}N"));
    }
    Ok(workers)
}

fn one_run(options: &Options, way: &Running, connections: usize) -> Result<Run, String> {
    let length = Duration::from_secs_f64(options.seconds);
    let plan = Plan {
        connections,
        streams: options.streams,
        schedule: Schedule::Closed,
        end: End::After(length),
        ..Workload::W3.plan(way.entry, &way.metadata, length, WARMUP)
    };
    let look = || -> Result<Vec<Vec<Thread>>, String> {
        way.sidecars.iter().map(|pid| workers(*pid)).collect()
    };
    let mut looks = [None, None];
    let mut connected = Ok(Vec::new());
    let outcome = generate::run_blocking_marked(&plan, &mut |mark| {
        looks[usize::from(mark == Mark::End)] = Some(look());
        if mark == Mark::End {
            connected = way.metrics.iter().map(|at| connections_of_workers(*at)).collect();
        }
    });
    let outcome = outcome.map_err(|e| format!("{connections} connections: {e}"))?;
    let [Some(before), Some(after)] = looks else { return Err("the run had no end".to_owned()) };
    let (before, after) = (before?, after?);
    let elapsed_ns = outcome.elapsed.as_nanos() as f64;
    let mut shares = before.iter().zip(&after).map(|(before, after)| {
        let pairs = before.iter().zip(after);
        pairs.map(|(b, a)| a.cpu_ns.saturating_sub(b.cpu_ns) as f64 / elapsed_ns).collect()
    });
    let mut connected = connected?.into_iter();
    Ok(Run {
        round: 0,
        connections,
        quota: None,
        calls: outcome.calls,
        calls_per_s: outcome.rate(),
        errors: outcome.errors,
        outbound_shares: shares.next().unwrap_or_default(),
        inbound_shares: shares.next().unwrap_or_default(),
        outbound_connections: connected.next().unwrap_or_default(),
        inbound_connections: connected.next().unwrap_or_default(),
    })
}

/// While they are held open. A worker that was too busy to answer is asked again.
fn connections_of_workers(metrics: SocketAddr) -> Result<Vec<u64>, String> {
    let found = until(PATIENCE, || {
        let (status, text) = http_get(metrics, "/metrics")?;
        let answered = by_worker(&text, "ringside_worker_answered");
        let whole = status == 200 && !answered.is_empty() && answered.iter().all(|one| *one == 1);
        whole.then(|| by_worker(&text, "ringside_worker_downstream_connections"))
    });
    found.ok_or_else(|| format!("http://{metrics}/metrics does not tell of all workers"))
}

/// One gauge's values, by worker.
fn by_worker(text: &str, gauge: &str) -> Vec<u64> {
    let of_line = |line: &str| {
        let (worker, value) =
            line.strip_prefix(gauge)?.strip_prefix("{worker=\"")?.split_once("\"} ")?;
        Some((worker.parse::<u32>().ok()?, value.trim().parse().ok()?))
    };
    text.lines().filter_map(of_line).collect::<BTreeMap<_, _>>().into_values().collect()
}

/// With the workers as what is scarce, a second connection brings at least so much.
const SECOND_CONNECTION: Wanted = Wanted::goal(Limit::at_least(1.6));

impl Report {
    pub fn failed(&self) -> u64 {
        self.runs.iter().flat_map(|run| run.errors.values()).sum()
    }

    pub fn json(&self) -> String {
        report::json(self)
    }

    pub fn markdown(&self) -> String {
        let mut out = self.header.opening() + ".\n";
        let args = self.header.ringside_args.join(" ");
        let _ = writeln!(
            out,
            "{}\n\nRingsides with `{args}`; closed loop, {} streams on each connection. Limit: of \
             a CPU for each worker thread (a cgroup of its own). Connections: how many each worker \
             held at the end (`ringside_worker_downstream_connections`), with the number of \
             rounds where they differ. Work: each worker's CPU time over the run's length, the \
             busiest first.\n\n\
             | Connections | limit | calls/s | over one connection's | connections of the outbound \
             workers | their work | connections of the inbound workers | their work | errors |\n\
             |---|---|---|---|---|---|---|---|---|",
            self.header.programs(),
            self.streams
        );
        let mut limits = vec![self.quota, None];
        limits.dedup();
        for quota in limits {
            self.rows(&mut out, quota);
        }
        let scarce = |runs: &&Run| runs.quota.is_some();
        let errors = self.runs.iter().filter(scarce).flat_map(|run| run.errors.values()).sum();
        let ratio = Spread::of_ratios(&self.rates(self.quota, 2), &self.rates(self.quota, 1));
        let ratio = ratio.filter(|_| self.quota.is_some());
        let what = "calls/s on 2 connections over 1, the workers being the limit";
        if let Some(row) = verdict::row(what, SECOND_CONNECTION, ratio, errors) {
            let _ = write!(out, "\n{}{row}", verdict::HEADING);
        }
        for (text, count) in self.runs.iter().flat_map(|run| &run.errors) {
            let _ = writeln!(out, "- ⚠ {count} × {text}");
        }
        out
    }

    fn rows(&self, out: &mut String, quota: Option<u32>) {
        let limit = quota.map_or("none".to_owned(), |percent| format!("{percent} %"));
        let mut counts: Vec<usize> = self.runs.iter().map(|run| run.connections).collect();
        counts.sort_unstable();
        counts.dedup();
        for count in counts {
            let is_of = |run: &&Run| run.connections == count && run.quota == quota;
            let runs: Vec<&Run> = self.runs.iter().filter(is_of).collect();
            let rates = self.rates(quota, count);
            let ratio = Spread::of_ratios(&rates, &self.rates(quota, 1));
            let failed: u64 = runs.iter().flat_map(|run| run.errors.values()).sum();
            let _ = writeln!(
                out,
                "| {count} | {limit} | {} | {} | {} | {} | {} | {} | {failed} |",
                Spread::of(rates.into_iter().flatten()).map_or("–".into(), |s| s.text()),
                ratio.map_or("–".to_owned(), |ratio| ratio.text()),
                held(&runs, |run| &run.outbound_connections),
                shares(&runs, |run| &run.outbound_shares),
                held(&runs, |run| &run.inbound_connections),
                shares(&runs, |run| &run.inbound_shares),
            );
        }
    }

    /// Calls per second by round.
    fn rates(&self, quota: Option<u32>, connections: usize) -> Vec<Option<f64>> {
        let is_of = |run: &&Run| run.connections == connections && run.quota == quota;
        self.runs.iter().filter(is_of).map(|run| Some(run.calls_per_s)).collect()
    }
}

/// `2 + 2`, the most first; `2 + 2 (8×), 3 + 1 (1×)` where rounds differ.
fn held(runs: &[&Run], of: fn(&Run) -> &Vec<u64>) -> String {
    let mut rounds = BTreeMap::new();
    for run in runs {
        let mut connections = of(run).clone();
        connections.sort_unstable_by(|a, b| b.cmp(a));
        let connections: Vec<String> = connections.iter().map(u64::to_string).collect();
        *rounds.entry(connections.join(" + ")).or_insert(0) += 1;
    }
    if let [(only, _)] = rounds.iter().collect::<Vec<_>>()[..] {
        return only.clone();
    }
    let texts = rounds.iter().map(|(held, count)| format!("{held} ({count}×)"));
    texts.collect::<Vec<_>>().join(", ")
}

/// Which worker has the most is chance; so sorted in each run, the busiest first.
fn shares(runs: &[&Run], of: fn(&Run) -> &Vec<f64>) -> String {
    let sorted = |run: &&Run| {
        let mut shares = of(run).clone();
        shares.sort_by(|a, b| b.total_cmp(a));
        shares
    };
    let all: Vec<Vec<f64>> = runs.iter().map(sorted).collect();
    let workers = all.first().map_or(0, Vec::len);
    let column = |at: usize| Spread::of(all.iter().filter_map(|shares| shares.get(at).copied()));
    let texts = (0..workers).filter_map(|at| column(at).map(|share| share.text()));
    texts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(shares: [f64; 2], connections: [u64; 2]) -> Run {
        Run {
            round: 0,
            connections: 1,
            quota: None,
            calls: 1,
            errors: BTreeMap::new(),
            calls_per_s: 1.0,
            outbound_shares: shares.to_vec(),
            inbound_shares: Vec::new(),
            outbound_connections: connections.to_vec(),
            inbound_connections: Vec::new(),
        }
    }

    #[test]
    fn the_busiest_worker_comes_first() {
        let runs = [run([0.1, 0.9], [1, 3]), run([0.7, 0.3], [3, 1])];
        let runs: Vec<&Run> = runs.iter().collect();
        let text = shares(&runs, |run| &run.outbound_shares);
        assert_eq!(text, "0.80 (0.70–0.90), 0.20 (0.10–0.30)");
        assert_eq!(held(&runs, |run| &run.outbound_connections), "3 + 1");
    }

    #[test]
    fn rounds_that_spread_connections_otherwise_are_told() {
        let runs = [[2, 2], [1, 3], [2, 2]].map(|connections| run([0.5, 0.5], connections));
        let runs: Vec<&Run> = runs.iter().collect();
        let text = held(&runs, |run| &run.outbound_connections);
        assert_eq!(text, "2 + 2 (2×), 3 + 1 (1×)");
    }

    #[test]
    fn gauges_are_read_by_worker() {
        let text = "# TYPE ringside_worker_streams gauge\n\
                    ringside_worker_downstream_connections{worker=\"10\"} 5\n\
                    ringside_worker_downstream_connections{worker=\"2\"} 3\n\
                    ringside_worker_streams{worker=\"0\"} 9\n";
        assert_eq!(by_worker(text, "ringside_worker_downstream_connections"), [3, 5]);
        assert!(by_worker(text, "ringside_worker_answered").is_empty());
    }
}
