//! Who calls next: slots (one per stream of a connection) ask for jobs and get them.
//!
//! 1. Closed loop: a slot that asks while the phase lasts has a job at once.
//! 2. Open loop: a job that finds no idle slot waits, first in first out, in a queue of
//!    [`PENDING_MAX`]; past that it is refused, and counted by the caller.
//! 3. Idle slots take turns, so that calls go round the connections.
//! 4. Quiet: no job waits and every live slot is idle.
//!
//! Refuses to know what a job does, and clocks.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// Jobs that are due while all streams are busy.
pub(super) const PENDING_MAX: usize = 1 << 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) due: Instant,
    /// It had to wait for a free stream.
    pub(super) waited: bool,
}

/// What a slot that asks is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Wait until something is due.
    Wait,
    /// Begin at once, as long as `left` calls may begin and the clock is before `deadline`.
    Closed { deadline: Option<Instant>, left: u64 },
}

#[derive(Default)]
struct Slot {
    job: Option<Job>,
    waker: Option<Waker>,
}

pub(super) struct Feed {
    mode: Mode,
    slots: Vec<Slot>,
    idle: VecDeque<usize>,
    pending: VecDeque<Job>,
    live: usize,
    driver: Option<Waker>,
}

impl Feed {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            mode: Mode::Wait,
            slots: (0..slots).map(|_| Slot::default()).collect(),
            idle: VecDeque::with_capacity(slots),
            pending: VecDeque::new(),
            live: slots,
            driver: None,
        }
    }

    /// The next job of slot `slot`, which asks again when that has ended.
    pub(super) fn poll_job(
        &mut self,
        slot: usize,
        now: Instant,
        context: &Context<'_>,
    ) -> Poll<Job> {
        if let Some(job) = self.slots[slot].job.take() {
            return Poll::Ready(job);
        }
        if let Some(job) = self.pending.pop_front() {
            self.take_from_idle(slot);
            return Poll::Ready(job);
        }
        if self.take_closed(now) {
            self.take_from_idle(slot);
            return Poll::Ready(Job { due: now, waited: false });
        }
        if self.slots[slot].waker.is_none() {
            self.idle.push_back(slot);
        }
        self.slots[slot].waker = Some(context.waker().clone());
        if self.is_quiet() {
            self.wake_driver();
        }
        Poll::Pending
    }

    /// The slot's connection is lost: it asks no more. The job that it was at has ended with it;
    /// those that wait are for the slots that are left.
    pub(super) fn leave(&mut self, slot: usize) {
        self.take_from_idle(slot);
        self.live -= 1;
        if self.is_quiet() || self.live == 0 {
            self.wake_driver();
        }
    }

    /// Opens a closed loop.
    pub(super) fn begin(&mut self, deadline: Option<Instant>, calls: Option<u64>) {
        self.mode = Mode::Closed { deadline, left: calls.unwrap_or(u64::MAX) };
        for slot in std::mem::take(&mut self.idle) {
            if let Some(waker) = self.slots[slot].waker.take() {
                waker.wake();
            }
        }
    }

    /// `false`: the queue is full, the job is lost.
    pub(super) fn release(&mut self, due: Instant) -> bool {
        if let Some(slot) = self.idle.pop_front() {
            let slot = &mut self.slots[slot];
            slot.job = Some(Job { due, waited: false });
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
            return true;
        }
        if self.pending.len() >= PENDING_MAX {
            return false;
        }
        self.pending.push_back(Job { due, waited: true });
        true
    }

    pub(super) fn poll_quiet(&mut self, context: &Context<'_>) -> Poll<()> {
        if self.live == 0 || self.is_quiet() {
            return Poll::Ready(());
        }
        self.driver = Some(context.waker().clone());
        Poll::Pending
    }

    /// Jobs that wait, and jobs that slots are at.
    pub(super) fn unfinished(&self) -> (usize, usize) {
        (self.pending.len(), self.live - self.idle.len())
    }

    pub(super) fn live(&self) -> usize {
        self.live
    }

    fn is_quiet(&self) -> bool {
        self.pending.is_empty() && self.idle.len() == self.live && !self.may_begin()
    }

    fn may_begin(&self) -> bool {
        matches!(self.mode, Mode::Closed { left, .. } if left > 0)
    }

    fn take_closed(&mut self, now: Instant) -> bool {
        let Mode::Closed { deadline, left } = &mut self.mode else { return false };
        if *left == 0 || deadline.is_some_and(|deadline| now >= deadline) {
            self.mode = Mode::Wait;
            return false;
        }
        *left -= 1;
        true
    }

    fn take_from_idle(&mut self, slot: usize) {
        if self.slots[slot].waker.take().is_some() {
            self.idle.retain(|idle| *idle != slot);
        }
    }

    fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::wall;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::time::Duration;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A feed whose slots have all asked once.
    struct Rig {
        feed: Feed,
        woken: Arc<Woken>,
        now: Instant,
    }

    impl Rig {
        fn new(slots: usize) -> Self {
            let mut rig = Self { feed: Feed::new(slots), woken: Arc::default(), now: wall() };
            for slot in 0..slots {
                assert_eq!(rig.ask(slot), Poll::Pending);
            }
            assert!(rig.is_quiet());
            rig
        }

        fn ask(&mut self, slot: usize) -> Poll<Job> {
            let waker = Waker::from(self.woken.clone());
            self.feed.poll_job(slot, self.now, &Context::from_waker(&waker))
        }

        fn is_quiet(&mut self) -> bool {
            let waker = Waker::from(self.woken.clone());
            self.feed.poll_quiet(&Context::from_waker(&waker)).is_ready()
        }

        fn woken(&self) -> usize {
            self.woken.0.swap(0, Ordering::Relaxed)
        }
    }

    #[test]
    fn idle_slots_take_turns() {
        let mut rig = Rig::new(3);
        for slot in [0, 1, 2, 0, 1, 2, 0] {
            assert!(rig.feed.release(rig.now));
            assert_eq!(rig.woken(), 1);
            assert_eq!(rig.ask(slot), Poll::Ready(Job { due: rig.now, waited: false }));
            assert!(!rig.is_quiet());
            assert_eq!(rig.ask(slot), Poll::Pending);
            assert!(rig.is_quiet());
            rig.woken();
        }
    }

    #[test]
    fn what_finds_no_slot_waits_in_order_and_no_more_than_there_is_room() {
        let mut rig = Rig::new(1);
        let due = |n: usize| Duration::from_nanos(n as u64);
        for n in 0..=PENDING_MAX {
            assert!(rig.feed.release(rig.now + due(n)), "one with the slot, the rest waiting");
        }
        assert!(!rig.feed.release(rig.now), "the queue is full");
        for n in 0..=PENDING_MAX {
            let job = Job { due: rig.now + due(n), waited: n > 0 };
            assert_eq!(rig.ask(0), Poll::Ready(job));
        }
        assert!(!rig.is_quiet(), "the last job is under way");
        assert_eq!(rig.ask(0), Poll::Pending);
        assert!(rig.is_quiet());
    }

    #[test]
    fn a_closed_loop_begins_so_many_calls() {
        let mut rig = Rig::new(2);
        rig.feed.begin(None, Some(3));
        assert_eq!(rig.woken(), 2);
        assert!(!rig.is_quiet());
        assert!(rig.ask(0).is_ready() && rig.ask(1).is_ready() && rig.ask(0).is_ready());
        assert!(rig.ask(1).is_pending() && !rig.is_quiet());
        assert!(rig.ask(0).is_pending() && rig.is_quiet());
    }

    #[test]
    fn a_closed_loop_ends_at_its_deadline() {
        let mut rig = Rig::new(1);
        rig.feed.begin(Some(rig.now + Duration::from_secs(1)), None);
        assert!(rig.ask(0).is_ready());
        rig.now += Duration::from_millis(999);
        assert!(rig.ask(0).is_ready());
        rig.now += Duration::from_millis(1);
        assert!(rig.ask(0).is_pending() && rig.is_quiet());
    }

    #[test]
    fn slots_that_leave_are_not_waited_for() {
        let mut rig = Rig::new(2);
        assert!(rig.feed.release(rig.now) && rig.feed.release(rig.now));
        assert!(rig.feed.release(rig.now));
        assert!(rig.ask(0).is_ready());
        rig.feed.leave(0);
        assert!(rig.ask(1).is_ready() && !rig.is_quiet());
        assert_eq!(rig.ask(1), Poll::Ready(Job { due: rig.now, waited: true }));
        assert!(rig.ask(1).is_pending() && rig.is_quiet());
        assert_eq!((rig.feed.live(), rig.feed.unfinished()), (1, (0, 0)));
    }
}
