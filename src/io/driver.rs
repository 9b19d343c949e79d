//! What a worker's turns run on: io_uring, or epoll where a kernel or a container denies it; and
//! the tasks of what is rare (accepting, dialing, handshakes, timers).
//!
//! 1. A ring is entered once before it is relied upon; what was found is said in one log line.
//! 2. `auto` never fails for want of io_uring; `uring` fails with what was tried and what to do.
//! 3. One wait of the kernel per turn, when no task is ready and nothing is left to do; before it,
//!    if a window is asked for, what comes is looked for (`window`).
//!
//! Sources: io_uring_setup(2); docs/adr/0010-a-driver-of-our-own.md.

use super::clock::Clock;
use super::epoll::Epoll;
use super::reactor::{Backend, Event, Reactor};
use super::sys;
use super::sys::ring::{Flags, Ring};
use super::window::Window;
use crate::config::IoDriver;
use futures_executor::{LocalPool, LocalSpawner};
use futures_util::task::LocalSpawnExt;
use rustix::io::Errno;
use std::fmt;
use std::io;
use std::rc::Rc;

pub(super) struct Driver {
    runtime: Rc<Runtime>,
    tasks: LocalPool,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Uring(Flags),
    /// With why it is not io_uring; `None` when epoll was asked for.
    Epoll(Option<io::Error>),
}

/// What everything on a worker's thread shares.
#[derive(Debug)]
pub(super) struct Runtime {
    pub(super) reactor: Rc<Reactor>,
    pub(super) clock: Rc<Clock>,
    spawner: LocalSpawner,
}

impl Runtime {
    /// A task of this thread's: it runs when the turn's events have been handled.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let spawned = self.spawner.spawn_local(task);
        // Only while the driver itself is being dropped.
        debug_assert!(spawned.is_ok());
    }
}

/// Whose turns a driver runs.
pub(super) trait Turns {
    /// Deals with all events.
    fn happened(&self, events: &mut Vec<Event>);

    /// Called when no task is ready.
    fn settle(&self) -> Next;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Tasks may be ready again.
    Tasks,
    Wait,
    End,
}

impl Driver {
    /// Must be called on the thread that will run it (`SINGLE_ISSUER`).
    pub(super) fn build(wanted: IoDriver, window: Window) -> io::Result<Self> {
        let epoll = |why| Self::epoll(why, window);
        match wanted {
            IoDriver::Epoll => epoll(None),
            IoDriver::Uring => Self::uring(window).map_err(|error| explain(&error)),
            IoDriver::Auto => Self::uring(window).or_else(|error| epoll(Some(error))),
        }
    }

    fn uring(window: Window) -> io::Result<Self> {
        let ring = Ring::build(window)?;
        let kind = Kind::Uring(ring.flags());
        Self::on(Backend::Uring(Box::new(ring)), kind)
    }

    fn epoll(why: Option<io::Error>, window: Window) -> io::Result<Self> {
        Self::on(Backend::Epoll(Box::new(Epoll::new(window)?)), Kind::Epoll(why))
    }

    fn on(backend: Backend, kind: Kind) -> io::Result<Self> {
        let tasks = LocalPool::new();
        let reactor = Reactor::new(backend);
        let clock = Clock::start(&reactor)?;
        let runtime = Rc::new(Runtime { reactor, clock, spawner: tasks.spawner() });
        Ok(Self { runtime, tasks, kind })
    }

    pub(super) fn runtime(&self) -> &Rc<Runtime> {
        &self.runtime
    }

    /// Until [`Next::End`].
    pub(super) fn run(&mut self, turns: &impl Turns) -> io::Result<()> {
        let mut events = Vec::new();
        loop {
            self.tasks.run_until_stalled();
            match turns.settle() {
                Next::Tasks => continue,
                Next::Wait => {}
                Next::End => return Ok(()),
            }
            self.runtime.reactor.turn(&mut events)?;
            turns.happened(&mut events);
            debug_assert!(events.is_empty());
        }
    }
}

/// For the log line.
impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Uring(flags) => write!(f, "io_uring ({flags})"),
            Kind::Epoll(None) => f.write_str("epoll"),
            Kind::Epoll(Some(why)) => write!(f, "epoll, as io_uring is not to be had: {why}"),
        }
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CoopSingle => "COOP_TASKRUN, SINGLE_ISSUER",
            Self::CoopSingleDefer => "COOP_TASKRUN, SINGLE_ISSUER, DEFER_TASKRUN",
        })
    }
}

/// What a worker would run on, in the log line's words: for who asks before there is one.
pub fn probe(wanted: IoDriver) -> io::Result<String> {
    Driver::build(wanted, Window::default()).map(|driver| driver.to_string())
}

fn explain(error: &io::Error) -> io::Error {
    let advice = match Errno::from_io_error(error) {
        Some(Errno::PERM | Errno::NOSYS) => {
            "denied by a seccomp profile or kernel.io_uring_disabled; allow it or use epoll"
                .to_owned()
        }
        Some(Errno::NOMEM) => match sys::memlock_limit() {
            Some(octets) => format!("RLIMIT_MEMLOCK is {octets} octets; raise it or use epoll"),
            None => "out of memory".to_owned(),
        },
        Some(Errno::INVAL) => "the kernel's io_uring is too old (< 6.0); use epoll".to_owned(),
        _ => "use epoll".to_owned(),
    };
    io::Error::new(error.kind(), format!("cannot set up io_uring: {error}: {advice}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    /// A future in the place of a worker.
    struct Alone {
        done: Rc<Cell<bool>>,
        runtime: Rc<Runtime>,
    }

    impl Turns for Alone {
        fn happened(&self, events: &mut Vec<Event>) {
            for event in events.drain(..) {
                self.runtime.clock.look_at(&event);
            }
        }

        fn settle(&self) -> Next {
            if self.done.get() { Next::End } else { Next::Wait }
        }
    }

    impl Driver {
        pub(in super::super) fn block_on<T: 'static>(
            &mut self,
            future: impl Future<Output = T> + 'static,
        ) -> T {
            let runtime = Rc::clone(&self.runtime);
            let output = run(&runtime, future);
            self.run(&Alone { done: Rc::clone(&output.done), runtime }).unwrap();
            output.value.take().unwrap()
        }
    }

    /// What will come of a task.
    pub(in super::super) struct Joined<T> {
        pub(in super::super) done: Rc<Cell<bool>>,
        pub(in super::super) value: Rc<RefCell<Option<T>>>,
        notify: Rc<super::super::local::Notify>,
    }

    impl<T> Joined<T> {
        pub(in super::super) async fn join(self) -> T {
            while !self.done.get() {
                self.notify.wait().await;
            }
            self.value.take().unwrap()
        }
    }

    pub(in super::super) fn run<T: 'static>(
        runtime: &Runtime,
        future: impl Future<Output = T> + 'static,
    ) -> Joined<T> {
        let joined = Joined { done: Rc::default(), value: Rc::default(), notify: Rc::default() };
        let Joined { done, value, notify } = &joined;
        let (done, value, notify) = (Rc::clone(done), Rc::clone(value), Rc::clone(notify));
        runtime.spawn(async move {
            value.replace(Some(future.await));
            done.set(true);
            notify.notify();
        });
        joined
    }

    #[test]
    fn epoll_is_always_there() {
        let mut driver = Driver::build(IoDriver::Epoll, Window::default()).unwrap();
        assert_eq!(driver.to_string(), "epoll");
        assert_eq!(driver.block_on(async { 7 }), 7);
    }

    #[test]
    fn auto_takes_what_there_is() {
        let driver = Driver::build(IoDriver::Auto, Window::default()).unwrap();
        let denied = Driver::build(IoDriver::Uring, Window::default()).is_err();
        assert_eq!(driver.to_string().starts_with("epoll, as"), denied);
    }

    #[test]
    fn says_what_to_do() {
        let error = explain(&Errno::PERM.into());
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("seccomp"), "{error}");
    }
}
