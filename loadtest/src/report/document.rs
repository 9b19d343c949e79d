//! The JSON of our own: everything an outcome holds, in nanoseconds.
//!
//! 1. The names are a contract with whoever reads raw results; new ones may come, none goes.
//!
//! Refuses to know other tools' forms.

use crate::outcome::{Latencies, Outcome};
use crate::plan::{Plan, Schedule, Shape};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    pub target: String,
    pub path: String,
    pub kind: String,
    pub request_message_octets: u64,
    pub connections: u64,
    pub streams: u64,
    /// `closed` or `open`.
    pub schedule: String,
    /// Of an open schedule.
    pub segments: Vec<SegmentDocument>,
    pub elapsed_ns: u64,
    pub calls: u64,
    pub calls_per_second: f64,
    pub messages: u64,
    pub request_octets: u64,
    pub response_octets: u64,
    /// By gRPC code.
    pub statuses: BTreeMap<u32, u64>,
    pub errors: BTreeMap<String, u64>,
    pub failed: u64,
    /// Open loop: from the moment a call was due.
    pub latency: LatencyDocument,
    /// From the moment it was sent.
    pub service: LatencyDocument,
    /// Open loop: how late the generator was.
    pub lateness: LatencyDocument,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentDocument {
    pub from: f64,
    pub to: f64,
    pub length_ns: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencyDocument {
    pub count: u64,
    pub min_ns: u64,
    pub mean_ns: f64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub max_ns: u64,
    /// Upper bound in nanoseconds (three digits are exact) and count, of those that hold anything.
    pub buckets: Vec<(u64, u64)>,
}

impl LatencyDocument {
    pub fn new(latencies: &Latencies) -> Self {
        if latencies.is_empty() {
            return Self::default();
        }
        let at = |quantile| latencies.value_at_quantile(quantile);
        let recorded = latencies.iter_recorded();
        Self {
            count: latencies.len(),
            min_ns: latencies.min(),
            mean_ns: latencies.mean(),
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            max_ns: latencies.max(),
            buckets: recorded
                .map(|step| (step.value_iterated_to(), step.count_at_value()))
                .collect(),
        }
    }
}

impl Document {
    pub fn new(plan: &Plan, outcome: &Outcome) -> Self {
        let ns =
            |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let (schedule, segments) = match &plan.schedule {
            Schedule::Closed => ("closed", &[][..]),
            Schedule::Open(segments) => ("open", &segments[..]),
        };
        Self {
            target: plan.target.to_string(),
            path: plan.path.clone(),
            kind: kind(plan.shape).to_owned(),
            request_message_octets: plan.request.len() as u64,
            connections: plan.connections as u64,
            streams: plan.streams as u64,
            schedule: schedule.to_owned(),
            segments: segments
                .iter()
                .map(|one| SegmentDocument {
                    from: one.from,
                    to: one.to,
                    length_ns: ns(one.length),
                })
                .collect(),
            elapsed_ns: ns(outcome.elapsed),
            calls: outcome.calls,
            calls_per_second: outcome.rate(),
            messages: outcome.messages,
            request_octets: outcome.request_octets,
            response_octets: outcome.response_octets,
            statuses: outcome.statuses.clone(),
            errors: outcome.errors.clone(),
            failed: outcome.failed(),
            latency: LatencyDocument::new(&outcome.latency),
            service: LatencyDocument::new(&outcome.service),
            lateness: LatencyDocument::new(&outcome.lateness),
        }
    }
}

pub(super) fn kind(shape: Shape) -> &'static str {
    match shape {
        Shape::Unary => "unary",
        Shape::ClientStream { .. } => "client",
        Shape::ServerStream => "server",
        Shape::PingPong { .. } => "ping-pong",
    }
}

/// One object and a line's end.
pub fn json(plan: &Plan, outcome: &Outcome) -> String {
    let document = Document::new(plan, outcome);
    let text = serde_json::to_string_pretty(&document).expect("strings and numbers only");
    text + "\n"
}
