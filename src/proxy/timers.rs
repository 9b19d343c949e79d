//! When something must be looked at again: a heap whose entries may be stale.
//!
//! 1. An entry is a reminder, not a truth: whoever is reminded checks its own deadline.
//! 2. Stale entries are bounded: past twice what is alive, the heap is swept; and each sweep is
//!    paid for by as many reminders as the last one left.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Entries below which sweeping is not worth it.
const SWEEP_FLOOR: usize = 1024;

#[derive(Debug)]
pub struct Timers<T> {
    heap: BinaryHeap<Reverse<(Instant, T)>>,
    /// How many the last sweep left.
    swept: usize,
}

impl<T: Ord + Copy> Timers<T> {
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new(), swept: 0 }
    }

    pub fn remind(&mut self, at: Instant, what: T) {
        self.heap.push(Reverse((at, what)));
    }

    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// The first reminder that is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<T> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, what))| what)
    }

    /// Call now and then with how many reminders can be alive.
    #[inline]
    pub fn sweep(&mut self, alive: usize, is_alive: impl FnMut(Instant, T) -> bool) {
        if self.heap.len() > SWEEP_FLOOR + 2 * alive.max(self.swept) {
            self.sweep_now(is_alive);
        }
    }

    #[cold]
    fn sweep_now(&mut self, mut is_alive: impl FnMut(Instant, T) -> bool) {
        self.heap.retain(|Reverse((at, what))| is_alive(*at, *what));
        self.swept = self.heap.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn gives_what_is_due_in_order() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::new();
        timers.remind(at(20), 'b');
        timers.remind(at(10), 'a');
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.pop_due(at(9)), None);
        assert_eq!(timers.pop_due(at(20)), Some('a'));
        assert_eq!(timers.pop_due(at(20)), Some('b'));
        assert_eq!(timers.pop_due(at(99)), None);
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn sweeps_what_is_dead() {
        let now = Instant::now();
        let mut timers = Timers::new();
        for what in 0..5000 {
            timers.remind(now, what);
        }
        timers.sweep(2, |_, what| what < 2);
        assert_eq!(timers.heap.len(), 2);
    }

    /// What is looked through was paid for by as many reminders.
    #[test]
    #[allow(clippy::disallowed_methods)]
    fn the_living_are_not_looked_through_each_time() {
        let now = Instant::now();
        let (mut timers, mut looks) = (Timers::new(), 0);
        for what in 0..10_000 {
            timers.remind(now, what);
            timers.sweep(2, |_, _| {
                looks += 1;
                true
            });
        }
        assert!(looks < 50_000, "{looks}");
        assert_eq!(timers.heap.len(), 10_000);
    }
}
