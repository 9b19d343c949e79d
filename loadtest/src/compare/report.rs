//! Every figure of a comparison: what the JSON holds and the tables are made of.

use super::{Footprint, Options, Run, Start};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Serialize)]
pub struct Header {
    pub command: String,
    pub date: String,
    pub machine: String,
    pub kernel: String,
    pub commit: Option<String>,
    pub versions: BTreeMap<String, String>,
    pub machine_clock: String,
    pub ringside_args: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub header: Header,
    pub rounds: usize,
    pub seconds: f64,
    pub topologies: Vec<&'static str>,
    pub workloads: Vec<&'static str>,
    pub runs: Vec<Run>,
    pub footprints: Vec<Footprint>,
    pub starts: Vec<Start>,
}

impl Report {
    pub fn new(header: Header, options: &Options) -> Self {
        Self {
            header,
            rounds: options.rounds,
            seconds: options.seconds,
            topologies: options.kinds.iter().map(|kind| kind.name()).collect(),
            workloads: options.workloads.iter().map(|workload| workload.name()).collect(),
            runs: Vec::new(),
            footprints: Vec::new(),
            starts: Vec::new(),
        }
    }

    /// One figure of one topology under one workload, by round; `None` where there is none.
    pub fn by_round(
        &self,
        workload: &str,
        topology: &str,
        figure: impl Fn(&Run) -> Option<f64>,
    ) -> Vec<Option<f64>> {
        let mut values = vec![None; self.rounds];
        for run in &self.runs {
            if run.workload == workload
                && run.topology == topology
                && let Some(value) = values.get_mut(run.round)
            {
                *value = figure(run);
            }
        }
        values
    }

    pub fn failed(&self) -> u64 {
        self.runs.iter().map(Run::failed).sum()
    }

    /// What went wrong under one workload through one topology, by text.
    pub fn errors(&self, workload: &str, topology: &str) -> BTreeMap<&str, u64> {
        let mut errors = BTreeMap::new();
        for run in &self.runs {
            if run.workload == workload && run.topology == topology {
                for (text, count) in &run.errors {
                    *errors.entry(text.as_str()).or_default() += count;
                }
            }
        }
        errors
    }

    pub fn json(&self) -> String {
        // Numbers, strings and maps with string keys: nothing that JSON cannot say.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}
