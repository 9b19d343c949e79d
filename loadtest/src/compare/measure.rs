//! One run: load through one topology, between two looks at the kernel's books.

use super::site::Site;
use super::workload::Workload;
use crate::account::{Machine, Memory, Usage};
use crate::generate::{self, Mark};
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::topology::Running;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// Every figure of one run. Microseconds, octets, units of the workload.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub round: usize,
    pub workload: &'static str,
    pub topology: &'static str,
    pub elapsed_s: f64,
    pub calls: u64,
    /// Calls, round trips, messages or gigabytes: what costs are divided by.
    pub units: f64,
    pub errors: BTreeMap<String, u64>,
    pub calls_per_s: f64,
    pub units_per_s: f64,
    /// Of how many calls or round trips the percentiles are.
    pub latency_samples: u64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
    /// How late the generator itself was, at the 99th percentile; open loops only.
    pub lateness_p99_us: f64,
    /// Both sidecars; `None` for direct, as with all that follows up to the machine.
    pub cpu_us_per_unit: Option<f64>,
    pub voluntary_switches_per_unit: Option<f64>,
    pub involuntary_switches_per_unit: Option<f64>,
    pub resident_octets: Option<u64>,
    pub anonymous_octets: Option<u64>,
    pub app_cpu_us_per_unit: f64,
    pub client_cpu_us_per_unit: f64,
    pub machine_cpu_us_per_unit: f64,
    /// Of each CPU, during the run.
    pub busy_shares: Vec<f64>,
}

impl Run {
    /// Client, hops and app together: the machine's without whatever else runs on it.
    pub fn all_cpu_us_per_unit(&self) -> f64 {
        let hops = self.cpu_us_per_unit.unwrap_or(0.0);
        hops + self.app_cpu_us_per_unit + self.client_cpu_us_per_unit
    }

    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// The kernel's books at one moment.
struct Books {
    sidecars: Usage,
    app: Usage,
    client: Usage,
    machine: Machine,
}

impl Books {
    fn read(site: &Site<'_>, way: &Running) -> io::Result<Self> {
        Ok(Self {
            sidecars: Usage::of(&way.sidecars)?,
            app: Usage::of(&[site.app_pid()])?,
            client: Usage::of(&[std::process::id()])?,
            machine: Machine::now()?,
        })
    }
}

pub fn run(
    site: &Site<'_>,
    way: &mut Running,
    workload: Workload,
    length: Duration,
    warmup: Duration,
) -> Result<Run, String> {
    run_plan(site, way, workload, &workload.plan(way.entry, &way.metadata, length, warmup))
}

/// A plan that is like the workload's, so that its costs are divided alike.
pub fn run_plan(
    site: &Site<'_>,
    way: &mut Running,
    workload: Workload,
    plan: &Plan,
) -> Result<Run, String> {
    let mut books: [Option<io::Result<Books>>; 2] = [None, None];
    let outcome = generate::run_blocking_marked(plan, &mut |mark| {
        books[usize::from(mark == Mark::End)] = Some(Books::read(site, way));
    })
    .map_err(|error| match way.check() {
        Ok(()) => error.to_string(),
        Err(gone) => format!("{error}; {gone}"),
    })?;
    let [Some(before), Some(after)] = books else { return Err("the run had no end".to_owned()) };
    let unread = |e| format!("cannot read what processes cost: {e}");
    let (before, after) = (before.map_err(unread)?, after.map_err(unread)?);
    let memory = Memory::of(&way.sidecars).map_err(unread)?;
    Ok(figures(way, workload, &outcome, [&before, &after], memory))
}

fn figures(
    way: &Running,
    workload: Workload,
    outcome: &Outcome,
    [before, after]: [&Books; 2],
    memory: Memory,
) -> Run {
    let units = workload.units(outcome);
    let elapsed_s = outcome.elapsed.as_secs_f64();
    let per_unit = |count: u64| count as f64 / units;
    let of_sidecars = |value: f64| (!way.sidecars.is_empty()).then_some(value);
    let sidecars = after.sidecars - before.sidecars;
    let machine = after.machine.since(&before.machine);
    let at = |quantile: f64| at_quantile_us(outcome, quantile);
    Run {
        round: 0,
        workload: workload.name(),
        topology: way.name,
        elapsed_s,
        calls: outcome.calls,
        units,
        errors: outcome.errors.clone(),
        calls_per_s: outcome.rate(),
        units_per_s: units / elapsed_s,
        latency_samples: outcome.latency.len(),
        p50_us: at(0.5),
        p90_us: at(0.9),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: outcome.latency.max() as f64 / 1e3,
        lateness_p99_us: outcome.lateness.value_at_quantile(0.99) as f64 / 1e3,
        cpu_us_per_unit: of_sidecars(per_unit(sidecars.cpu_ns) / 1e3),
        voluntary_switches_per_unit: of_sidecars(per_unit(sidecars.voluntary_switches)),
        involuntary_switches_per_unit: of_sidecars(per_unit(sidecars.involuntary_switches)),
        resident_octets: (!way.sidecars.is_empty()).then_some(memory.resident),
        anonymous_octets: (!way.sidecars.is_empty()).then_some(memory.anonymous),
        app_cpu_us_per_unit: per_unit((after.app - before.app).cpu_ns) / 1e3,
        client_cpu_us_per_unit: per_unit((after.client - before.client).cpu_ns) / 1e3,
        machine_cpu_us_per_unit: per_unit(machine.total_ns()) / 1e3,
        busy_shares: machine.busy_ns.iter().map(|ns| *ns as f64 / 1e9 / elapsed_s).collect(),
    }
}

pub fn at_quantile_us(outcome: &Outcome, quantile: f64) -> f64 {
    outcome.latency.value_at_quantile(quantile) as f64 / 1e3
}
