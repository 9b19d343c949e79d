//! What Resiliency policies did, by target: one worker's counters.
//!
//! Source: Dapr's `pkg/diagnostics/resiliency_monitoring.go`.
//!
//! 1. Bounded: [`TARGETS_MAX`] targets of [`LABEL_OCTETS_MAX`] octets; the rest are `_other`.
//! 2. As in `cells`: what was counted moves at a scrape, names stay.

use super::cells::LABEL_OCTETS_MAX;
use std::sync::Arc;
use std::time::Instant;

/// Targets that one worker tells apart.
pub const TARGETS_MAX: usize = 512;

/// Policies without a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    Timeout,
    Retry,
}

/// States of a breaker, by their numbers here.
pub const BREAKER_STATES: [&str; 3] = ["closed", "half-open", "open"];

/// An interned target of this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetId(u32);

impl TargetId {
    /// Below [`TARGETS_MAX`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Everything under one target.
#[derive(Clone, Debug, Default)]
pub struct TargetCells {
    /// Calls that a policy applied to, by [`Applied`].
    pub applied: [u64; 2],
    /// Calls in which it did something.
    pub activated: [u64; 2],
    /// Calls that met a breaker, by its state.
    pub breaker_applied: [u64; 3],
    /// Changes of breakers, by the new state.
    pub breaker_activated: [u64; 3],
    /// What the last call met, and when.
    pub breaker_state: Option<(Instant, usize)>,
}

/// See the file's text.
#[derive(Clone, Debug, Default)]
pub struct PolicyCells {
    /// The first one is `_other`, once there is any.
    names: Vec<Arc<[u8]>>,
    /// Interned since the last [`Self::hand_over`].
    fresh: Vec<Arc<[u8]>>,
    /// By the target's number; may be shorter.
    counts: Vec<TargetCells>,
}

impl PolicyCells {
    /// Interns; for the first call of a method.
    pub fn target(&mut self, name: &[u8]) -> TargetId {
        if self.names.is_empty() {
            self.keep(b"_other");
        }
        match self.names.iter().position(|known| **known == *name) {
            Some(known) => TargetId(known as u32),
            None if name.len() > LABEL_OCTETS_MAX || self.names.len() >= TARGETS_MAX => TargetId(0),
            None => self.keep(name),
        }
    }

    fn keep(&mut self, name: &[u8]) -> TargetId {
        let name: Arc<[u8]> = name.into();
        self.fresh.push(Arc::clone(&name));
        self.names.push(name);
        TargetId(self.names.len() as u32 - 1)
    }

    pub fn applied(&mut self, target: TargetId, what: Applied) {
        self.of(target).applied[what as usize] += 1;
    }

    pub fn activated(&mut self, target: TargetId, what: Applied) {
        self.of(target).activated[what as usize] += 1;
    }

    /// A call met a breaker in this state.
    pub fn breaker_applied(&mut self, target: TargetId, state: usize, now: Instant) {
        let cells = self.of(target);
        cells.breaker_applied[state] += 1;
        cells.breaker_state = Some((now, state));
    }

    /// A call changed it.
    pub fn breaker_changed(&mut self, target: TargetId, state: usize) {
        self.of(target).breaker_activated[state] += 1;
    }

    pub fn targets(&self) -> impl Iterator<Item = (&[u8], &TargetCells)> {
        self.names.iter().map(|name| &**name).zip(&self.counts)
    }

    /// How often a policy was asked about a target that did not fit.
    pub fn folded(&self) -> u64 {
        let applied = |other: &TargetCells| -> u64 {
            other.applied.iter().chain(&other.breaker_applied).sum()
        };
        self.counts.first().map_or(0, applied)
    }

    /// See `Cells::hand_over`.
    pub(super) fn hand_over(&mut self) -> Self {
        let (fresh, counts) = (std::mem::take(&mut self.fresh), std::mem::take(&mut self.counts));
        Self { names: Vec::new(), fresh, counts }
    }

    /// See `Cells::add`.
    pub(super) fn add(&mut self, increment: &Self) {
        self.names.extend(increment.fresh.iter().cloned());
        for (number, from) in (0..).zip(&increment.counts) {
            self.of(TargetId(number)).merge(from);
        }
    }

    /// Names stay.
    pub(super) fn clear(&mut self) {
        self.counts.clear();
    }

    /// Another worker's, whose numbers are others.
    pub(super) fn merge(&mut self, other: &Self) {
        for (name, from) in other.targets() {
            let target = self.target(name);
            self.of(target).merge(from);
        }
        self.fresh.clear();
    }

    fn of(&mut self, TargetId(number): TargetId) -> &mut TargetCells {
        let number = number as usize;
        if number >= self.counts.len() {
            self.counts.resize_with(number + 1, TargetCells::default);
        }
        &mut self.counts[number]
    }
}

impl TargetCells {
    fn merge(&mut self, other: &Self) {
        for (counts, more) in [
            (&mut self.applied[..], &other.applied[..]),
            (&mut self.activated, &other.activated),
            (&mut self.breaker_applied, &other.breaker_applied),
            (&mut self.breaker_activated, &other.breaker_activated),
        ] {
            counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
        }
        self.breaker_state = self.breaker_state.max(other.breaker_state);
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_added_up_by_name() {
        let now = Instant::now();
        let mut workers = [PolicyCells::default(), PolicyCells::default()];
        let mut sums = [PolicyCells::default(), PolicyCells::default()];
        workers[0].target(b"x");
        for round in 0..2 {
            for (worker, sum) in workers.iter_mut().zip(&mut sums) {
                let target = worker.target(b"server");
                worker.applied(target, Applied::Retry);
                worker.breaker_applied(
                    target,
                    round,
                    now + std::time::Duration::from_secs(round as u64),
                );
                sum.add(&worker.hand_over());
                assert!(worker.counts.is_empty() && worker.target(b"server") == target);
            }
        }
        let mut all = PolicyCells::default();
        sums.iter().for_each(|sum| all.merge(sum));
        let told: Vec<_> = all.targets().filter(|(_, cells)| cells.applied != [0, 0]).collect();
        let [(b"server", cells)] = told[..] else { panic!("{told:?}") };
        assert_eq!((cells.applied, cells.breaker_applied), ([0, 4], [2, 2, 0]));
        assert_eq!(cells.breaker_state.map(|(_, state)| state), Some(1));
    }

    #[test]
    fn what_does_not_fit_is_other() {
        let mut cells = PolicyCells::default();
        for number in 1..TARGETS_MAX {
            assert_ne!(cells.target(format!("app{number}").as_bytes()), TargetId(0));
        }
        for number in 0..TARGETS_MAX {
            let target = cells.target(format!("more{number}").as_bytes());
            assert_eq!(target, TargetId(0));
            cells.applied(target, Applied::Retry);
            cells.breaker_applied(target, 2, Instant::now());
        }
        assert_eq!((cells.names.len(), cells.folded()), (TARGETS_MAX, 2 * TARGETS_MAX as u64));
        let name = cells.targets().next().map(|(name, _)| name);
        assert_eq!(name, Some(b"_other".as_slice()));
        assert_eq!(PolicyCells::default().target(&[b'x'; LABEL_OCTETS_MAX + 1]), TargetId(0));
    }
}
