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
