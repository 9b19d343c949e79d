//! When something must be looked at again: a heap whose entries may be stale.
//!
//! 1. An entry is a reminder, not a truth: whoever is reminded checks its own deadline.
//! 2. Stale entries are bounded: past twice what is alive, the heap is swept.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Entries below which sweeping is not worth it.
const SWEEP_FLOOR: usize = 1024;

#[derive(Debug)]
pub struct Timers<T> {
    heap: BinaryHeap<Reverse<(Instant, T)>>,
}

impl<T: Ord + Copy> Timers<T> {
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new() }
    }

    pub fn remind(&mut self, at: Instant, what: T) {
        self.heap.push(Reverse((at, what)));
    }

    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// The first reminder that is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<T> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, what))| what)
    }

    /// Call now and then with how many reminders can be alive.
    pub fn sweep(&mut self, alive: usize, mut is_alive: impl FnMut(T) -> bool) {
        if self.heap.len() > SWEEP_FLOOR + 2 * alive {
            self.heap.retain(|Reverse((_, what))| is_alive(*what));
        }
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
        timers.sweep(2, |what| what < 2);
        assert_eq!(timers.heap.len(), 2);
    }
}
