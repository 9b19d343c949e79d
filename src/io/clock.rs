//! A worker's clock, and what wakes those who sleep: one timer of the kernel's for all of them.
//!
//! 1. A wait has no time limit: with one each turn would read the clock twice, and have the kernel
//!    set a timer and cancel it again. Here a turn in which nobody falls asleep and nobody is due
//!    costs nothing.
//! 2. Nobody is woken early.
//! 3. The kernel's timer is set when somebody sleeps less long than all others; when it rings for
//!    somebody who has gone, it is set for the next.
//!
//! Knows nothing of what is waited for. Sources: timerfd_create(2).

use super::reactor::{Event, Reactor, Source};
use rustix::event::PollFlags;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Clock {
    timer: Source,
    sleepers: RefCell<Sleepers>,
}

#[derive(Debug, Default)]
struct Sleepers {
    /// By when they want to be woken, and in what order they came. As many as there are tasks.
    waiting: BTreeMap<(Instant, u64), Waker>,
    came: u64,
    /// When the kernel's timer will ring.
    set_to: Option<Instant>,
}

impl Clock {
    pub(super) fn start(reactor: &Rc<Reactor>) -> io::Result<Rc<Self>> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = reactor.adopt(timerfd_create(TimerfdClockId::Monotonic, flags)?)?;
        timer.poll_soon(PollFlags::IN);
        Ok(Rc::new(Self { timer, sleepers: RefCell::default() }))
    }

    /// True when an event was the kernel's timer, and those who were due have been woken.
    pub(super) fn look_at(&self, event: &Event) -> bool {
        let rings = matches!(event, Event::Ready(key) if *key == self.timer.key());
        if rings {
            self.wake_due();
            self.timer.poll_soon(PollFlags::IN);
        }
        rings
    }

    pub(super) fn sleep(self: &Rc<Self>, time: Duration) -> Sleep {
        self.sleep_until(now() + time)
    }

    pub(super) fn sleep_until(self: &Rc<Self>, at: Instant) -> Sleep {
        Sleep { clock: Rc::clone(self), at, number: None }
    }

    /// Sets the kernel's timer, or switches it off; either way it rings no longer.
    fn set(&self, sleepers: &mut Sleepers, at: Option<Instant>, now: Instant) {
        sleepers.set_to = at;
        let time = at.map_or(Duration::ZERO, |at| {
            // No time at all would switch it off.
            at.saturating_duration_since(now).max(Duration::from_nanos(1))
        });
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(time).unwrap_or(FAR),
        };
        let set = timerfd_settime(self.timer.fd(), TimerfdTimerFlags::empty(), &once);
        debug_assert!(set.is_ok());
    }

    /// Wakes who is due, and sets the timer for the next.
    fn wake_due(&self) {
        let now = now();
        let mut sleepers = self.sleepers.borrow_mut();
        let mut next = None;
        while let Some(first) = sleepers.waiting.first_entry() {
            let (at, _) = *first.key();
            if at > now {
                next = Some(at);
                break;
            }
            // Puts the task into the runtime's queue, and runs nothing.
            first.remove().wake();
        }
        self.set(&mut sleepers, next, now);
    }
}

/// What a timer is set to that would ring later than can be said.
const FAR: Timespec = Timespec { tv_sec: i32::MAX as i64, tv_nsec: 0 };

/// Until a time. May be dropped.
#[derive(Debug)]
pub(super) struct Sleep {
    clock: Rc<Clock>,
    at: Instant,
    /// Among the sleepers; `None` before the first poll.
    number: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let clock = Rc::clone(&self.clock);
        let mut sleepers = clock.sleepers.borrow_mut();
        if let Some(number) = self.number {
            return match sleepers.waiting.get_mut(&(self.at, number)) {
                Some(waker) => {
                    waker.clone_from(context.waker());
                    Poll::Pending
                }
                None => Poll::Ready(()),
            };
        }
        let now = now();
        if self.at <= now {
            return Poll::Ready(());
        }
        sleepers.came += 1;
        self.number = Some(sleepers.came);
        let key = (self.at, sleepers.came);
        sleepers.waiting.insert(key, context.waker().clone());
        if sleepers.set_to.is_none_or(|set_to| self.at < set_to) {
            clock.set(&mut sleepers, Some(self.at), now);
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let waker = self.clock.sleepers.borrow_mut().waiting.remove(&(self.at, number));
            drop(waker);
        }
    }
}

/// The worker's clock.
#[allow(clippy::disallowed_methods)] // This is one of the rooms that may ask for the time.
pub(super) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::super::driver::tests::run;
    use super::super::driver::{Driver, Runtime};
    use super::super::window::Window;
    use super::*;
    use crate::config::IoDriver;
    use std::cell::Cell;

    fn on_each_driver<F: Future<Output = ()> + 'static>(test: impl Fn(Rc<Runtime>) -> F) {
        for wanted in [IoDriver::Auto, IoDriver::Epoll] {
            let mut driver = Driver::build(wanted, Window::default()).unwrap();
            let runtime = Rc::clone(driver.runtime());
            driver.block_on(test(runtime));
        }
    }

    /// In order of their times, none of them early, whatever the order in which they came.
    #[test]
    fn wakes_in_order_and_not_early() {
        on_each_driver(async |runtime| {
            let clock = Rc::clone(&runtime.clock);
            let woken = Rc::new(RefCell::new(Vec::new()));
            let began = now();
            let sleeps = [9, 3, 6, 3, 0, 12].map(|millis| {
                let (clock, woken) = (Rc::clone(&clock), Rc::clone(&woken));
                run(&runtime, async move {
                    let time = Duration::from_millis(millis);
                    clock.sleep_until(began + time).await;
                    assert!(began.elapsed() >= time);
                    woken.borrow_mut().push(millis);
                })
            });
            for sleep in sleeps {
                sleep.join().await;
            }
            assert_eq!(*woken.borrow(), [0, 3, 3, 6, 9, 12]);
            assert!(clock.sleepers.borrow().waiting.is_empty());
        });
    }

    /// Who goes leaves nothing behind, and holds up nobody.
    #[test]
    fn a_sleep_may_be_dropped() {
        on_each_driver(async |runtime| {
            let clock = Rc::clone(&runtime.clock);
            let polled = Cell::new(false);
            let mut long = Box::pin(clock.sleep(Duration::from_secs(3600)));
            let mut short = Box::pin(clock.sleep(Duration::from_millis(1)));
            std::future::poll_fn(|context| {
                assert!(long.as_mut().poll(context).is_pending() || polled.get());
                let _ = short.as_mut().poll(context);
                polled.set(true);
                Poll::Ready(())
            })
            .await;
            drop((long, short));
            assert!(clock.sleepers.borrow().waiting.is_empty());
            clock.sleep(Duration::from_millis(2)).await;
            clock.sleep(Duration::from_millis(1)).await;
        });
    }
}
