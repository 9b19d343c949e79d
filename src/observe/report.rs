//! What a worker says of itself when somebody looks in: connections, pools, who waits.
//!
//! Bounded: [`ROWS_MAX`] connections of a worker are told one by one; the rest is a number.

use serde::Serialize;

/// Connections that are told one by one.
pub const ROWS_MAX: usize = 256;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WorkerReport {
    pub calls: usize,
    pub waiting: usize,
    pub downstream: Vec<Downstream>,
    pub pools: Vec<Pool>,
    /// Connections that are not in it.
    pub left_out: usize,
    /// Told by a question of their own.
    #[serde(skip)]
    pub limits: Vec<Bound>,
}

/// A limit in force, by the name under which it is counted when it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    pub limit: &'static str,
    /// What has so much each.
    pub of: &'static str,
    /// `None`: any number.
    pub most: Option<u64>,
    pub unit: Unit,
    /// And so many more in each second.
    pub per_second: Option<u32>,
    /// What is used now, where that is known: by the one that uses most.
    pub used: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Of what the limit's name says.
    Number,
    Octets,
    Milliseconds,
    Percent,
}

/// A connection of somebody who calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Downstream {
    pub port: &'static str,
    pub peer: String,
    /// By its certificate.
    pub spiffe_id: Option<String>,
    pub state: &'static str,
    pub streams: usize,
    /// Without a call.
    pub idle_ms: Option<u64>,
}

/// The connections to one app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pool {
    pub app: String,
    pub waiting: usize,
    pub connections: Vec<Upstream>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Upstream {
    pub endpoint: String,
    pub state: &'static str,
    pub streams: usize,
    /// Without a call.
    pub idle_ms: Option<u64>,
}
