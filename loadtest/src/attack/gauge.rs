//! What sidecars hold and burn, and what they say of themselves, while they are attacked.

use super::line::now;
use super::strike::pause;
use crate::account::{Memory, Usage};
use crate::topology::{Neighbour, http_get};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(20);
const LIMITS: &str = "ringside_limits_hit_total{limit=\"";

/// Resident octets of all; zero when one is gone.
pub fn resident(pids: &[u32]) -> u64 {
    Memory::of(pids).map_or(0, |memory| memory.resident)
}

/// The most of it until it is over.
pub fn most_resident(pids: &[u32], over: &AtomicBool) -> u64 {
    let mut most = 0;
    loop {
        most = most.max(resident(pids));
        if over.load(Ordering::Relaxed) {
            return most;
        }
        pause(LOOK);
    }
}

/// CPU time of a stretch.
pub struct Stopwatch<'a> {
    pids: &'a [u32],
    since: Instant,
    used: Usage,
}

impl<'a> Stopwatch<'a> {
    pub fn start(pids: &'a [u32]) -> Self {
        // A process that is gone is found out elsewhere.
        Self { pids, since: now(), used: Usage::of(pids).unwrap_or_default() }
    }

    /// CPU and wall time since the start.
    pub fn read(&self) -> (Duration, Duration) {
        let used = Usage::of(self.pids).map_or(0, |usage| (usage - self.used).cpu_ns);
        (Duration::from_nanos(used), self.since.elapsed())
    }
}

/// ringside's limits that were hit, of both; daprd counts none.
pub fn limits(neighbours: [&Neighbour; 2]) -> BTreeMap<String, u64> {
    let mut limits = BTreeMap::new();
    for neighbour in neighbours {
        let (_, text) = http_get(neighbour.metrics, "/metrics").unwrap_or_default();
        for (limit, count) in text.lines().filter_map(limit) {
            *limits.entry(limit.to_owned()).or_default() += count;
        }
    }
    limits
}

fn limit(line: &str) -> Option<(&str, u64)> {
    let (name, count) = line.strip_prefix(LIMITS)?.split_once("\"} ")?;
    let count: f64 = count.trim().parse().ok()?;
    (count > 0.0).then_some((name, count as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_prometheus_has_them() {
        assert_eq!(limit("ringside_limits_hit_total{limit=\"streams\"} 3"), Some(("streams", 3)));
        assert_eq!(limit("ringside_limits_hit_total{limit=\"streams\"} 0"), None);
        assert_eq!(limit("ringside_streams 3"), None);
    }
}
