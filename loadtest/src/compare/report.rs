//! Every figure of a comparison: what the JSON holds and the tables are made of.

use super::{Footprint, Options, Run, Start};
use serde::Serialize;
use serde_json::Value;
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

impl Header {
    /// The command, and where and when it ran; the last line is open.
    pub fn opening(&self) -> String {
        let Self { command, machine, kernel, date, .. } = self;
        let commit = self.commit.as_deref().unwrap_or("unknown");
        format!("```sh\n{command}\n```\n{machine}, Linux {kernel}, {date}; checkout at {commit}")
    }

    /// What was measured: versions, commits where programs say them, and the files' hashes.
    pub fn programs(&self) -> String {
        let versions = self.versions.iter().map(|(name, version)| format!("{name} {version}"));
        format!("Programs: {}.", versions.collect::<Vec<_>>().join("; "))
    }
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
        json(self)
    }
}

/// JSON with one line for each round's figures, so that records can be read and compared, and with
/// six digits, which is more than any clock here gives.
pub fn json(report: &impl Serialize) -> String {
    // Numbers, strings and maps with string keys: nothing that JSON cannot say.
    let Ok(Value::Object(fields)) = serde_json::to_value(report) else { return String::new() };
    let lines = fields.into_iter().map(|(name, value)| {
        let value = match rounded(value) {
            Value::Array(items) if items.iter().any(Value::is_object) => {
                let items: Vec<String> = items.iter().map(|item| format!("  {item}")).collect();
                format!("[\n{}\n ]", items.join(",\n"))
            }
            value => value.to_string(),
        };
        format!(" {}: {value}", Value::String(name))
    });
    format!("{{\n{}\n}}\n", lines.collect::<Vec<_>>().join(",\n"))
}

fn rounded(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            let six = number.as_f64().and_then(|f| format!("{f:.5e}").parse::<f64>().ok());
            six.map_or(Value::Null, Value::from)
        }
        Value::Array(items) => items.into_iter().map(rounded).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (name, rounded(value))).collect()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_a_line_for_each_round_and_six_digits() {
        #[derive(Serialize)]
        struct Sample {
            name: &'static str,
            runs: Vec<BTreeMap<&'static str, f64>>,
        }
        let runs = vec![BTreeMap::from([("x", 1_234.567_89)]), BTreeMap::from([("x", 0.000_123)])];
        let text = json(&Sample { name: "a\"b", runs });
        let expected = "{\n \"name\": \"a\\\"b\",\n \"runs\": [\n  {\"x\":1234.57},\n  \
                        {\"x\":0.000123}\n ]\n}\n";
        assert_eq!(text, expected);
    }
}
