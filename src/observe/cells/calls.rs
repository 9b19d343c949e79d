//! What is counted of calls, however they are labelled. PURE.

use crate::observe::histogram::{Bounds, Histogram, Sizes, Unit};
use std::time::Duration;

/// gRPC status codes are 0 to 16; what is above counts as Unknown.
const STATUS_MAX: u8 = 16;
const STATUS_UNKNOWN: u8 = 2;

/// How attempts or calls ended with one status.
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    pub count: u64,
    pub latency: Histogram,
}

/// Everything under one label pair.
#[derive(Clone, Debug, Default)]
pub struct MethodCells {
    /// Attempts sent, by [`CallKind`].
    pub sent: [u64; 2],
    /// Unary attempts by status code.
    pub received: Vec<(u8, Outcomes)>,
    /// Streaming attempts that failed before their stream stood, by status code.
    pub handshakes_failed: Vec<(u8, u64)>,
    /// Calls by status code.
    pub completed: Vec<(u8, Outcomes)>,
    /// Of Dapr's own unary methods.
    pub sizes: Option<Box<Sizes>>,
}

/// Calls of one hop, whatever their labels.
#[derive(Clone, Debug, Default)]
pub struct HopCells {
    /// By status code.
    pub calls: [u64; STATUS_MAX as usize + 1],
    pub latency_us: Histogram,
}

impl MethodCells {
    /// Its memory stays.
    pub(super) fn clear(&mut self) {
        let Self { sent, received, handshakes_failed, completed, sizes } = self;
        *sent = [0; 2];
        received.iter_mut().chain(completed).for_each(|(_, outcomes)| outcomes.clear());
        handshakes_failed.iter_mut().for_each(|(_, failed)| *failed = 0);
        if let Some(sizes) = sizes {
            sizes.requests.clear();
            sizes.responses.clear();
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (sent, more) in self.sent.iter_mut().zip(other.sent) {
            *sent += more;
        }
        for (status, from) in &other.received {
            entry(&mut self.received, *status).merge(from);
        }
        for &(status, failed) in &other.handshakes_failed {
            *entry(&mut self.handshakes_failed, status) += failed;
        }
        for (status, from) in &other.completed {
            entry(&mut self.completed, *status).merge(from);
        }
        if let Some(from) = &other.sizes {
            let sizes = self.sizes.get_or_insert_default();
            sizes.requests.merge(&from.requests);
            sizes.responses.merge(&from.responses);
        }
    }
}

impl Outcomes {
    fn clear(&mut self) {
        self.count = 0;
        self.latency.clear();
    }

    #[inline]
    pub(super) fn record(&mut self, latency: Duration, bounds: &Bounds) {
        self.count += 1;
        self.latency.record(latency, Unit::Milliseconds, bounds);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.latency.merge(&other.latency);
    }
}

impl HopCells {
    pub(super) fn clear(&mut self) {
        self.calls.fill(0);
        self.latency_us.clear();
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (calls, more) in self.calls.iter_mut().zip(other.calls) {
            *calls += more;
        }
        self.latency_us.merge(&other.latency_us);
    }
}

/// The value of `key`, made when it is new. For lists of a few keys.
pub(super) fn entry<K: PartialEq, V: Default>(list: &mut Vec<(K, V)>, key: K) -> &mut V {
    let index = match list.iter().position(|(known, _)| *known == key) {
        Some(index) => index,
        None => {
            list.push((key, V::default()));
            list.len() - 1
        }
    };
    &mut list[index].1
}

/// A code that does not exist is Unknown.
pub(super) fn known(status: u8) -> u8 {
    if status <= STATUS_MAX { status } else { STATUS_UNKNOWN }
}
