//! Every figure of every attack: what the JSON holds and the table is made of.

use super::honest::Calls;
use super::line::Tally;
use crate::compare::Header;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub header: Header,
    pub seconds: f64,
    pub rows: Vec<Row>,
}

/// One attack on one product.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub attack: &'static str,
    pub sends: &'static str,
    pub unit: &'static str,
    pub product: &'static str,
    pub elapsed_s: f64,
    pub sent: Tally,
    /// That reached the attack's own app, where there is one.
    pub requests: Option<u64>,
    /// Of all frames that reached it.
    pub request_octets: u64,
    pub before: Phase,
    pub during: Phase,
    pub after: Phase,
    /// By ringside's own count.
    pub limits: BTreeMap<String, u64>,
    /// Lines that both wrote to their logs, warnings and worse.
    pub log_lines: u64,
    /// The first and the last of them, cut.
    pub log: Vec<String>,
    /// Wrong requests that the app heard.
    pub passed: BTreeSet<&'static str>,
    /// A sidecar that ended, and its last words.
    pub gone: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Phase {
    pub honest: Calls,
    /// Both sidecars, as a share of one CPU.
    pub cpu_share: f64,
    pub cpu_ms: f64,
    /// At the end; during the attack: the most.
    pub resident: u64,
}

impl Phase {
    pub fn new(honest: Calls, (cpu, wall): (Duration, Duration), resident: u64) -> Self {
        let cpu_share = cpu.as_secs_f64() / wall.as_secs_f64().max(f64::MIN_POSITIVE);
        Self { honest, cpu_share, cpu_ms: cpu.as_secs_f64() * 1e3, resident }
    }
}

impl Report {
    pub fn new(header: Header, seconds: f64) -> Self {
        Self { header, seconds, rows: Vec::new() }
    }

    /// Where ringside ended, or an honest call failed through it.
    pub fn hurt(&self) -> Vec<&'static str> {
        let ours = self.rows.iter().filter(|row| row.product == "ringside");
        ours.filter(|row| row.gone.is_some() || row.failed() > 0).map(|row| row.attack).collect()
    }

    pub fn json(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("strings and numbers only");
        text + "\n"
    }
}

impl Row {
    /// Honest calls that failed, before, during and after.
    pub fn failed(&self) -> u64 {
        [&self.before, &self.during, &self.after].iter().map(|phase| phase.honest.failed).sum()
    }
}
