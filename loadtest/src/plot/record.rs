//! What of a record's JSON pictures are made of.
//!
//! Fields that only some kinds of record have are optional: older records stay readable.

use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub struct Header {
    pub date: String,
    pub machine: String,
}

#[derive(Debug, Deserialize)]
pub struct Record {
    /// `sweep` or `hold`; a comparison says nothing.
    kind: Option<String>,
    pub header: Header,
    /// In the order of the record.
    pub topologies: Vec<String>,
    #[serde(default)]
    pub workloads: Vec<String>,
    #[serde(default)]
    pub runs: Vec<Run>,
    #[serde(default)]
    pub looks: Vec<Look>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Comparison,
    Sweep,
    Hold,
}

/// Of a comparison or a sweep.
#[derive(Debug, Deserialize)]
pub struct Run {
    pub round: usize,
    pub topology: String,
    pub workload: String,
    pub units_per_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub latency_samples: u64,
    pub cpu_us_per_unit: Option<f64>,
    /// Of a sweep, as the following.
    #[serde(default)]
    pub connections: usize,
    #[serde(default)]
    pub streams: usize,
    #[serde(default)]
    pub rate: Option<f64>,
}

/// Of what is held.
#[derive(Debug, Deserialize)]
pub struct Look {
    pub topology: String,
    pub connections: usize,
    pub streams: usize,
    pub resident: u64,
}

impl Record {
    pub fn kind(&self) -> Option<Kind> {
        match self.kind.as_deref() {
            None if !self.workloads.is_empty() => Some(Kind::Comparison),
            Some("sweep") => Some(Kind::Sweep),
            Some("hold") => Some(Kind::Hold),
            None | Some(_) => None,
        }
    }
}

pub fn read(json: &str) -> Result<Record, String> {
    let refused = |why: String| format!("no record of compare, sweep or hold: {why}");
    let record: Record = serde_json::from_str(json).map_err(|e| refused(e.to_string()))?;
    match record.kind() {
        Some(_) => Ok(record),
        None => Err(refused("it does not say what it is".to_owned())),
    }
}
