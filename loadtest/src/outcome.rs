//! What one run saw.

use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;

/// Latencies in nanoseconds, three significant digits, up to ten minutes.
pub type Latencies = Histogram<u64>;

pub const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// Different texts of errors; the rest are [`OTHER_ERRORS`].
pub const ERROR_TEXTS_MAX: usize = 64;
pub const OTHER_ERRORS: &str = "other errors";

/// gRPC's names of its codes, by code.
const STATUS_NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

pub fn status_name(code: u32) -> Option<&'static str> {
    STATUS_NAMES.get(usize::try_from(code).ok()?).copied()
}

/// How [`Outcome::errors`] calls a status other than OK.
pub fn status_text(code: u32, message: &str) -> String {
    let colon = if message.is_empty() { "" } else { ": " };
    format!("status {code} {}{colon}{message}", status_name(code).unwrap_or("unknown to gRPC"))
}

/// Counts of the measured part of a run, without its warm-up.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// From the first moment to the last call's end; open loop: no less than the schedule.
    pub elapsed: Duration,
    /// Calls that ended, well or not.
    pub calls: u64,
    /// Messages received.
    pub messages: u64,
    /// Of messages, without their prefixes, of calls that ended OK.
    pub request_octets: u64,
    pub response_octets: u64,
    /// gRPC status codes of ended calls; a call that was lost below gRPC is not among them.
    pub statuses: BTreeMap<u32, u64>,
    /// What went wrong, by text: statuses other than OK, lost connections, wrong bodies, and calls
    /// that were due and never sent, which are not among `calls`.
    pub errors: BTreeMap<String, u64>,
    /// Of calls that ended OK. Open loop: from the moment a call was due. Ping-pong: of round
    /// trips.
    pub latency: Latencies,
    /// Open loop: from the moment a call was really sent; the difference is the generator's own
    /// queue and, beyond what `streams` allows, the wait for a free stream.
    pub service: Latencies,
    /// Open loop: how late calls were sent for which a stream was free: the generator's own fault.
    pub lateness: Latencies,
}

impl Outcome {
    pub fn empty() -> Self {
        let latencies =
            || Latencies::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("constant bounds are right");
        Self {
            elapsed: Duration::ZERO,
            calls: 0,
            messages: 0,
            request_octets: 0,
            response_octets: 0,
            statuses: BTreeMap::new(),
            errors: BTreeMap::new(),
            latency: latencies(),
            service: latencies(),
            lateness: latencies(),
        }
    }

    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Calls per second.
    pub fn rate(&self) -> f64 {
        self.calls as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}
