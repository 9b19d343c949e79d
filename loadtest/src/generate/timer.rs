//! A timer finer than the runtime's, whose ticks are milliseconds: timerfd_create(2).
//!
//! Refuses to know what is due.

use super::wall;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;
use tokio::io::unix::AsyncFd;

pub(super) struct Timer {
    fd: AsyncFd<OwnedFd>,
}

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // Deprecated for descriptors that may change or close while registered; an OwnedFd that
        // nobody else sees does neither, and the successor asks for `unsafe`.
        #[allow(deprecated)]
        let fd = AsyncFd::new(fd)?;
        Ok(Self { fd })
    }

    /// Returns at `due` or later, at once when that is past.
    pub(super) async fn wait_until(&self, due: Instant) -> io::Result<()> {
        let wait = due.saturating_duration_since(wall());
        if wait.is_zero() {
            return Ok(());
        }
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
