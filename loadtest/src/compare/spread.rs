//! 1, 2, 4 … client connections over worker threads: how the work spreads, and what it brings.
//!
//! On a machine with few CPUs the workers are never what is scarce: the client and the app want as
//! much. So each worker thread is put into a CPU group of its own (cgroup v1, `cpu`) with a quota
//! of a few percent of a CPU; client and app have the rest. The groups are removed at the end.

use super::report::{self, Header};
use super::site::Site;
use super::workload::Workload;
use crate::account::{self, Thread};
use crate::generate::{self, Mark};
use crate::plan::{End, Plan, Schedule};
use crate::ratio::Spread;
use crate::topology::{Ingredients, Kind, Running};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
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
    pub calls: u64,
    pub errors: BTreeMap<String, u64>,
    pub calls_per_s: f64,
    /// CPU time of each worker over the run's length: the caller's side, the app's side.
    pub outbound_shares: Vec<f64>,
    pub inbound_shares: Vec<f64>,
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
    let all = way.sidecars.iter().zip(&workers);
    let threads = all.flat_map(|(pid, workers)| workers.iter().map(move |w| (*pid, w.id)));
    let _groups = match options.quota {
        Some(percent) => Some(Groups::make(threads.map(|(_, id)| id), percent)?),
        None => None,
    };
    let mut runs = Vec::new();
    for round in 0..options.rounds {
        says(&format!("round {} of {}", round + 1, options.rounds));
        let mut turns = options.connections.clone();
        if round % 2 == 1 {
            turns.reverse();
        }
        for connections in turns {
            runs.push(Run { round, ..one_run(options, &way, connections)? });
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
    let outcome = generate::run_blocking_marked(&plan, &mut |mark| {
        looks[usize::from(mark == Mark::End)] = Some(look());
    });
    let outcome = outcome.map_err(|e| format!("{connections} connections: {e}"))?;
    let [Some(before), Some(after)] = looks else { return Err("the run had no end".to_owned()) };
    let (before, after) = (before?, after?);
    let elapsed_ns = outcome.elapsed.as_nanos() as f64;
    let mut shares = before.iter().zip(&after).map(|(before, after)| {
        let pairs = before.iter().zip(after);
        pairs.map(|(b, a)| a.cpu_ns.saturating_sub(b.cpu_ns) as f64 / elapsed_ns).collect()
    });
    Ok(Run {
        round: 0,
        connections,
        calls: outcome.calls,
        calls_per_s: outcome.rate(),
        errors: outcome.errors,
        outbound_shares: shares.next().unwrap_or_default(),
        inbound_shares: shares.next().unwrap_or_default(),
    })
}

/// CPU groups, one for each thread; dropping them moves the threads back and removes them.
struct Groups {
    root: PathBuf,
    groups: Vec<(PathBuf, u32)>,
}

const CPU_GROUPS: &str = "/sys/fs/cgroup/cpu";
/// The kernel's least quota is 1 ms, so this allows two percent and more.
const PERIOD_US: u32 = 50_000;

impl Groups {
    fn make(threads: impl Iterator<Item = u32>, percent: u32) -> Result<Self, String> {
        let root = PathBuf::from(CPU_GROUPS);
        if !root.join("cpu.cfs_quota_us").exists() && !root.join("tasks").exists() {
            return Err(format!(
                "a quota for a thread needs cgroup v1's cpu controller at {CPU_GROUPS}; \
                 --quota 0 runs without"
            ));
        }
        let mut groups = Self { root, groups: Vec::new() };
        for thread in threads {
            groups.add(thread, percent).map_err(|e| format!("cannot make a CPU group: {e}"))?;
        }
        Ok(groups)
    }

    fn add(&mut self, thread: u32, percent: u32) -> io::Result<()> {
        let group = self.root.join(format!("loadtest-{}-{thread}", std::process::id()));
        fs::create_dir(&group)?;
        self.groups.push((group.clone(), thread));
        fs::write(group.join("cpu.cfs_period_us"), PERIOD_US.to_string())?;
        fs::write(group.join("cpu.cfs_quota_us"), (PERIOD_US / 100 * percent).to_string())?;
        fs::write(group.join("tasks"), thread.to_string())
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for (group, thread) in &self.groups {
            // A thread that has ended is in no group any more.
            let _ = fs::write(self.root.join("tasks"), thread.to_string());
            remove(group);
        }
    }
}

fn remove(group: &Path) {
    if let Err(error) = fs::remove_dir(group) {
        eprintln!("loadtest: cannot remove {}: {error}", group.display());
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
        let limit = self.quota.map_or("no limit".to_owned(), |percent| {
            format!("{percent} % of a CPU for each worker thread (a cgroup of its own)")
        });
        let args = self.header.ringside_args.join(" ");
        let _ = writeln!(
            out,
            "Ringsides with `{args}`; closed loop, {} streams on each connection; {limit}. Work: \
             each worker's CPU time over the run's length.\n\n\
             | Connections | calls/s | over one connection's | work of the outbound workers | of \
             the inbound workers | errors |\n|---|---|---|---|---|---|",
            self.streams
        );
        let mut counts: Vec<usize> = self.runs.iter().map(|run| run.connections).collect();
        counts.sort_unstable();
        counts.dedup();
        let rate = |count: usize| -> Vec<Option<f64>> {
            let runs = self.runs.iter().filter(|run| run.connections == count);
            runs.map(|run| Some(run.calls_per_s)).collect()
        };
        for count in &counts {
            let runs: Vec<&Run> = self.runs.iter().filter(|r| r.connections == *count).collect();
            let ratio = Spread::of_ratios(&rate(*count), &rate(1));
            let failed: u64 = runs.iter().flat_map(|run| run.errors.values()).sum();
            let _ = writeln!(
                out,
                "| {count} | {} | {} | {} | {} | {failed} |",
                Spread::of(rate(*count).into_iter().flatten()).map_or("–".into(), |s| s.text()),
                ratio.map_or("–".to_owned(), |ratio| ratio.text()),
                shares(&runs, |run| &run.outbound_shares),
                shares(&runs, |run| &run.inbound_shares),
            );
        }
        for (text, count) in self.runs.iter().flat_map(|run| &run.errors) {
            let _ = writeln!(out, "- ⚠ {count} × {text}");
        }
        out
    }
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

    #[test]
    fn the_busiest_worker_comes_first() {
        let run = |shares: [f64; 2]| Run {
            round: 0,
            connections: 1,
            calls: 1,
            errors: BTreeMap::new(),
            calls_per_s: 1.0,
            outbound_shares: shares.to_vec(),
            inbound_shares: Vec::new(),
        };
        let runs = [run([0.1, 0.9]), run([0.7, 0.3])];
        let text = shares(&runs.iter().collect::<Vec<_>>(), |run| &run.outbound_shares);
        assert_eq!(text, "0.80 (0.70–0.90), 0.20 (0.10–0.30)");
    }
}
