//! A timer finer than the runtime's, whose ticks are milliseconds: timerfd_create(2).
//!
//! 1. A sleeping thread is woken late, by tens of microseconds where the machine is virtual. What
//!    it always takes (`lead`) is taken off the sleep, and what that was too much is spun away:
//!    [`LEAD_MAX`] at most, mostly nothing, since `lead` follows the least that was seen.
//! 2. Waits that are not much longer than `lead` are slept through in full: at such rates calls
//!    leave in bursts, and spinning would take the CPU from what is measured.
//!
//! Refuses to know what is due.

use super::wall;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;

const LEAD_MAX: Duration = Duration::from_micros(60);

pub(super) struct Timer {
    fd: AsyncFd<OwnedFd>,
    lead: Cell<Duration>,
}

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // Deprecated for descriptors that may change or close while registered; an OwnedFd that
        // nobody else sees does neither, and the successor asks for `unsafe`.
        #[allow(deprecated)]
        let fd = AsyncFd::new(fd)?;
        Ok(Self { fd, lead: Cell::new(Duration::ZERO) })
    }

    /// Returns at `due` or later, at once when that is past.
    pub(super) async fn wait_until(&self, due: Instant) -> io::Result<()> {
        let wait = due.saturating_duration_since(wall());
        if wait.is_zero() {
            return Ok(());
        }
        let lead = self.lead.get();
        let lead = if wait > lead * 4 { lead } else { Duration::ZERO };
        self.sleep(wait - lead).await?;
        let mut now = wall();
        self.learn(now.saturating_duration_since(due - lead));
        while now < due {
            std::hint::spin_loop();
            now = wall();
        }
        Ok(())
    }

    /// Down at once, up slowly.
    fn learn(&self, late: Duration) {
        let (lead, late) = (self.lead.get(), late.min(LEAD_MAX));
        self.lead.set(if late < lead { late } else { lead + (late - lead) / 16 });
    }

    async fn sleep(&self, wait: Duration) -> io::Result<()> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec::try_from(wait).map_err(io::Error::other)?;
        let once = Itimerspec { it_interval: zero, it_value: value };
        timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.fd.readable().await?;
            let expirations = ready.try_io(|fd| Ok(rustix::io::read(fd, &mut [0; 8])?));
            match expirations {
                Ok(expirations) => return expirations.map(|_| ()),
                Err(_would_block) => {}
            }
        }
    }
}
