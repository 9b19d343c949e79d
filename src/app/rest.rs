//! An idle sidecar's memory: the code of its start, and of calls that are long over, goes back to
//! the system ([ADR 200](../../docs/adr/0200-pages-of-the-start-go-back.md)).
//!
//! 1. Once after the start, whatever there is to do: most of what ran until then runs never again.
//! 2. From then on when the whole process has used next to no CPU time for [`LOOK`], and there is
//!    something to win.

use crate::io::FilePages;
use std::time::Duration;

/// After the start: the calls that waited for it are through, and its last announcement is.
const FIRST: Duration = Duration::from_millis(1500);
const LOOK: Duration = Duration::from_secs(10);
/// A process that used less in a [`LOOK`] is idle: two ten-thousandths of a CPU.
const IDLE: Duration = Duration::from_millis(2);
/// More than what our own look brings back.
const OCTETS_MIN: usize = 1 << 20;

pub async fn keep_small(pages: FilePages) {
    tokio::time::sleep(FIRST).await;
    pages.give_back();
    loop {
        let before = cpu_time();
        tokio::time::sleep(LOOK).await;
        if cpu_time().saturating_sub(before) < IDLE && pages.resident() > OCTETS_MIN {
            pages.give_back();
        }
    }
}

/// Of all threads.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
}
