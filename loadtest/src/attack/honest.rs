//! The caller who means well, while others do not: how his calls fare.

use crate::generate::{self, Mark};
use crate::outcome::Outcome;
use crate::plan::{End, Expect, Plan, Schedule, Segment, Shape};
use crate::serve;
use crate::serve::message::payload;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

pub const CALLS_PER_SECOND: f64 = 200.0;
const OCTETS: usize = 100;
/// A call that takes longer has failed: less than an attack, so that none is waited out.
const DEADLINE: Duration = Duration::from_secs(1);
const WARMUP: Duration = Duration::from_millis(150);

/// Where he calls, and whom.
#[derive(Clone, Debug)]
pub struct Honest {
    pub entry: SocketAddr,
    pub metadata: Vec<(String, Vec<u8>)>,
}

/// A stretch of his calls, on a connection of its own.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Calls {
    pub calls: u64,
    pub failed: u64,
    pub errors: BTreeMap<String, u64>,
    pub p50_us: f64,
    pub p99_us: f64,
}

impl Honest {
    pub fn new(entry: SocketAddr, callee: &str) -> Self {
        let metadata = vec![("dapr-app-id".to_owned(), callee.as_bytes().to_vec())];
        Self { entry, metadata }
    }

    fn plan(&self, length: Duration) -> Plan {
        let rate = CALLS_PER_SECOND;
        Plan {
            target: self.entry,
            authority: "loadtest".to_owned(),
            path: serve::UNARY.to_owned(),
            metadata: self.metadata.clone(),
            unique: Vec::new(),
            shape: Shape::Unary,
            request: payload(OCTETS),
            expect: Expect::Echo,
            connections: 1,
            streams: 1000,
            schedule: Schedule::Open(vec![Segment { from: rate, to: rate, length }]),
            warmup: WARMUP,
            end: End::After(length),
            timeout: Some(DEADLINE),
        }
    }

    /// Calls for so long; `begins` hears when he is warm, or has failed before he was.
    pub fn calls(&self, length: Duration, mut begins: impl FnMut()) -> Calls {
        let mut begun = false;
        let outcome = generate::run_blocking_marked(&self.plan(length), &mut |mark: Mark| {
            if mark == Mark::Begin {
                begun = true;
                begins();
            }
        });
        if !begun {
            begins();
        }
        match outcome {
            Ok(outcome) => Calls::of(&outcome),
            Err(error) => Calls {
                failed: 1,
                errors: BTreeMap::from([(error.to_string(), 1)]),
                ..Calls::default()
            },
        }
    }
}

impl Calls {
    fn of(outcome: &Outcome) -> Self {
        let us = |quantile| outcome.latency.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            calls: outcome.calls,
            failed: outcome.failed(),
            errors: outcome.errors.clone(),
            p50_us: us(0.5),
            p99_us: us(0.99),
        }
    }
}
