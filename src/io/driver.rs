//! Which runtime a worker gets: io_uring with the best flags that the kernel takes, or epoll.
//!
//! 1. A ring is tried out before it is relied upon; what was found is said in one log line.
//! 2. `auto` never fails for want of io_uring; `uring` fails with what was tried and what to do.
//!
//! Sources: io_uring_setup(2); docs/adr/0010-monoio.md.

use super::sys;
use crate::config::IoDriver;
use io_uring::{IoUring, Probe, opcode};
use monoio::{IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};
use std::fmt;
use std::io;

/// Submissions between two turns; the queue is flushed when it is full.
const SUBMISSION_ENTRIES: u32 = 1024;

/// Completions of one turn; beyond them the kernel keeps a list of its own.
const COMPLETION_ENTRIES: u32 = 4096;

/// The ring of the trial.
const TRIAL_ENTRIES: u32 = 8;

/// What a ring is set up with, best first. `DEFER_TASKRUN` needs Linux 6.1, `SINGLE_ISSUER` 6.0,
/// `COOP_TASKRUN` 5.19.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Flags {
    None,
    Coop,
    CoopSingle,
    CoopSingleDefer,
}

const LADDER: [Flags; 4] = [Flags::CoopSingleDefer, Flags::CoopSingle, Flags::Coop, Flags::None];

pub(super) enum Driver {
    Uring(Box<Runtime<IoUringDriver>>, Flags),
    /// With why it is not io_uring; `None` when epoll was asked for.
    Epoll(Box<Runtime<LegacyDriver>>, Option<io::Error>),
}

impl Driver {
    /// Must be called on the thread that will run it (`SINGLE_ISSUER`).
    pub(super) fn build(wanted: IoDriver) -> io::Result<Self> {
        match wanted {
            IoDriver::Epoll => Self::epoll(None),
            IoDriver::Uring => Self::uring().map_err(|error| explain(&error)),
            IoDriver::Auto => Self::uring().or_else(|error| Self::epoll(Some(error))),
        }
    }

    fn uring() -> io::Result<Self> {
        let flags = trial()?;
        let runtime = RuntimeBuilder::<IoUringDriver>::new()
            .with_entries(SUBMISSION_ENTRIES)
            .uring_builder(ring(flags, COMPLETION_ENTRIES))
            .build()?;
        Ok(Self::Uring(Box::new(runtime), flags))
    }

    fn epoll(why: Option<io::Error>) -> io::Result<Self> {
        let runtime = RuntimeBuilder::<LegacyDriver>::new().build()?;
        Ok(Self::Epoll(Box::new(runtime), why))
    }

    pub(super) fn is_epoll(&self) -> bool {
        matches!(self, Self::Epoll(..))
    }

    pub(super) fn block_on<F: Future>(&mut self, future: F) -> F::Output {
        match self {
            Self::Uring(runtime, _) => runtime.block_on(future),
            Self::Epoll(runtime, _) => runtime.block_on(future),
        }
    }
}

/// For the log line.
impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uring(_, flags) => write!(f, "io_uring ({flags})"),
            Self::Epoll(_, None) => f.write_str("epoll"),
            Self::Epoll(_, Some(why)) => write!(f, "epoll, as io_uring is not to be had: {why}"),
        }
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no flags",
            Self::Coop => "COOP_TASKRUN",
            Self::CoopSingle => "COOP_TASKRUN, SINGLE_ISSUER",
            Self::CoopSingleDefer => "COOP_TASKRUN, SINGLE_ISSUER, DEFER_TASKRUN",
        })
    }
}

fn ring(flags: Flags, completions: u32) -> io_uring::Builder {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(completions);
    if flags >= Flags::Coop {
        builder.setup_coop_taskrun();
    }
    if flags >= Flags::CoopSingle {
        builder.setup_single_issuer();
    }
    if flags >= Flags::CoopSingleDefer {
        builder.setup_defer_taskrun();
    }
    builder
}

/// Makes small rings until the kernel takes one, and asks it for the operations that we use.
fn trial() -> io::Result<Flags> {
    let mut refused = io::Error::from(io::ErrorKind::Unsupported);
    for flags in LADDER {
        match ring(flags, 2 * TRIAL_ENTRIES).build(TRIAL_ENTRIES) {
            Ok(ring) => return capable(&ring).map(|()| flags),
            // An unknown flag; anything else will not get better with fewer.
            Err(error) if error.raw_os_error() == Some(EINVAL) => refused = error,
            Err(error) => return Err(error),
        }
    }
    Err(refused)
}

fn capable(ring: &IoUring) -> io::Result<()> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [
        opcode::Accept::CODE,
        opcode::Recv::CODE,
        opcode::PollAdd::CODE,
        opcode::Close::CODE,
        opcode::AsyncCancel::CODE,
    ];
    let able = needed.iter().all(|code| probe.is_supported(*code));
    if able && ring.params().is_feature_ext_arg() && ring.params().is_feature_nodrop() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel's io_uring is too old (< 5.11)"))
}

const EINVAL: i32 = rustix::io::Errno::INVAL.raw_os_error();
const ENOMEM: i32 = rustix::io::Errno::NOMEM.raw_os_error();
const EPERM: i32 = rustix::io::Errno::PERM.raw_os_error();
const ENOSYS: i32 = rustix::io::Errno::NOSYS.raw_os_error();

fn explain(error: &io::Error) -> io::Error {
    let advice = match error.raw_os_error() {
        Some(EPERM | ENOSYS) => {
            "denied by a seccomp profile or kernel.io_uring_disabled; allow it or use epoll"
                .to_owned()
        }
        Some(ENOMEM) => match sys::memlock_limit() {
            Some(octets) => format!("RLIMIT_MEMLOCK is {octets} octets; raise it or use epoll"),
            None => "out of memory".to_owned(),
        },
        _ => "use epoll".to_owned(),
    };
    io::Error::new(error.kind(), format!("cannot set up io_uring: {error}: {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoll_is_always_there() {
        let mut driver = Driver::build(IoDriver::Epoll).unwrap();
        assert_eq!(driver.to_string(), "epoll");
        assert_eq!(driver.block_on(async { 7 }), 7);
    }

    #[test]
    fn auto_takes_what_there_is() {
        let driver = Driver::build(IoDriver::Auto).unwrap();
        assert_eq!(driver.is_epoll(), Driver::build(IoDriver::Uring).is_err());
    }

    #[test]
    fn says_what_to_do() {
        let error = explain(&io::Error::from_raw_os_error(EPERM));
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("seccomp"), "{error}");
    }
}
