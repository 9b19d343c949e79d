//! Latency of calls one after another, direct and through the sidecars.
//!
//! 1. The two are measured in alternation: a machine drifts, and only neighbours compare.
//! 2. It ends after [`CALLS`] calls each or [`LIMIT`], whichever comes first.

use super::caller::Caller;
use crate::control::rpc::Status;
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// Calls of each kind at most.
pub const CALLS: u64 = 5000;
const LIMIT: Duration = Duration::from_secs(6);
const ROUND: u64 = 250;
const WARM_UP: u64 = 200;
/// The name in each call, which makes it 100 octets of payload.
const NAME_OCTETS: usize = 98;

/// Percentiles that the table shows.
pub const PERCENTILES: [f64; 4] = [50.0, 90.0, 99.0, 99.9];

/// One way's calls, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

impl Latency {
    fn new() -> Self {
        // Three digits, growing as needed: what is longer than any call of the demo fits as well.
        Self(Histogram::new(3).unwrap_or_else(|_| unreachable!("3 digits are allowed")))
    }

    pub fn calls(&self) -> u64 {
        self.0.len()
    }

    pub fn at(&self, percentile: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_percentile(percentile))
    }

    fn record(&mut self, took: Duration) {
        // It grows as needed, and no call takes longer than a u64 of nanoseconds.
        let _ = self.0.record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Measures both ways.
pub async fn compare(direct: &Caller, through: &Caller) -> Result<(Latency, Latency), Status> {
    let name = "x".repeat(NAME_OCTETS);
    for caller in [direct, through] {
        for _ in 0..WARM_UP {
            caller.unary(&name).await?;
        }
    }
    let (mut near, mut far) = (Latency::new(), Latency::new());
    let start = now();
    while far.calls() < CALLS && start.elapsed() < LIMIT {
        round(direct, &name, &mut near).await?;
        round(through, &name, &mut far).await?;
    }
    Ok((near, far))
}

async fn round(caller: &Caller, name: &str, latency: &mut Latency) -> Result<(), Status> {
    for _ in 0..ROUND {
        let start = now();
        caller.unary(name).await?;
        latency.record(start.elapsed());
    }
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "the demo measures")]
fn now() -> Instant {
    Instant::now()
}
