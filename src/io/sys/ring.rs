//! An io_uring of one thread: reads that go on by themselves into rooms of the ring's, and polls.
//!
//! 1. Whoever uses it needs no `unsafe`: the kernel writes into memory of the ring's alone.
//! 2. Nothing is submitted before the next wait, or [`Ring::submit`]. A descriptor must stay open
//!    until then.
//! 3. An operation's key comes back with each of its completions, the last of which says so.
//!
//! Knows nothing of what the descriptors are. Sources: io_uring_enter(2),
//! io_uring_prep_recv_multishot(3), io_uring_prep_poll_add(3).

use super::rooms::{GROUP, Rooms};
use crate::io::window::Window;
use bytes::BytesMut;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::event::PollFlags;
use rustix::io::Errno;
use std::convert::Infallible;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// Submissions between two waits; a full queue is submitted at once.
const SUBMISSION_ENTRIES: u32 = 256;

/// Completions of one turn; beyond them the kernel keeps a list of its own.
const COMPLETION_ENTRIES: u32 = 4096;

/// When the kernel has no memory for an operation.
const PAUSE: Duration = Duration::from_millis(1);

/// Of operations whose completions nobody wants.
const KEY_NONE: u64 = u64::MAX;

/// What a ring is set up with, best first. `DEFER_TASKRUN` needs Linux 6.1, `SINGLE_ISSUER` 6.0 as
/// do reads that go on by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) enum Flags {
    CoopSingle,
    CoopSingleDefer,
}

const LADDER: [Flags; 2] = [Flags::CoopSingleDefer, Flags::CoopSingle];

pub(in crate::io) struct Ring {
    /// Before the rooms, into which it writes.
    ring: ManuallyDrop<IoUring>,
    rooms: ManuallyDrop<Rooms>,
    flags: Flags,
    window: Window,
    /// Descriptors that entries name which the kernel would not take yet.
    kept_open: Vec<Rc<OwnedFd>>,
}

/// One completion of an operation.
#[derive(Debug)]
pub(in crate::io) struct Completion {
    pub(in crate::io) key: u64,
    pub(in crate::io) outcome: Outcome,
    /// More will come of the same operation.
    pub(in crate::io) goes_on: bool,
}

#[derive(Debug)]
pub(in crate::io) enum Outcome {
    /// What was read: none at the end.
    Octets(BytesMut),
    /// What was polled for is so, or will never be.
    Ready,
    /// All rooms were full: to be asked again.
    NoRoom,
    Failed(Errno),
}

impl Ring {
    /// Tries flags until the kernel takes some. Must be called on the thread that will use it.
    pub(in crate::io) fn build(window: Window) -> io::Result<Self> {
        let mut refused = io::Error::from(io::ErrorKind::Unsupported);
        for flags in LADDER {
            match builder(flags, window).build(SUBMISSION_ENTRIES) {
                Ok(ring) => return Self::with_rooms(ring, flags, window),
                // An unknown flag; anything else will not get better with fewer.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => refused = error,
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }

    fn with_rooms(ring: IoUring, flags: Flags, window: Window) -> io::Result<Self> {
        let rooms = Rooms::register(&ring.submitter())?;
        let (ring, rooms) = (ManuallyDrop::new(ring), ManuallyDrop::new(rooms));
        let mut ring = Self { ring, rooms, flags, window, kept_open: Vec::new() };
        // A filter may let rings be made, and nothing be done with them.
        ring.submit()?;
        Ok(ring)
    }

    pub(in crate::io) fn flags(&self) -> Flags {
        self.flags
    }

    /// Reads what comes into a room: once, or until the end, an error, or a lack of rooms. The
    /// socket must be a blocking one: of others the kernel says that there is nothing.
    pub(in crate::io) fn recv(&mut self, fd: &OwnedFd, on_and_on: bool, key: u64) {
        let fd = types::Fd(fd.as_raw_fd());
        let entry = if on_and_on {
            opcode::RecvMulti::new(fd, GROUP).build()
        } else {
            let once = opcode::Recv::new(fd, std::ptr::null_mut(), 0).buf_group(GROUP).build();
            once.flags(squeue::Flags::BUFFER_SELECT)
        };
        self.push(&entry.user_data(key));
    }

    /// Once, when one of `flags` is so, or an error.
    pub(in crate::io) fn poll(&mut self, fd: &OwnedFd, flags: PollFlags, key: u64) {
        let mask = u32::from(flags.bits());
        self.push(&opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), mask).build().user_data(key));
    }

    /// Ends an operation, which completes even so.
    pub(in crate::io) fn cancel(&mut self, key: u64) {
        self.push(&opcode::AsyncCancel::new(key).build().user_data(KEY_NONE));
    }

    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: entries are made above, and name no memory but the ring's own rooms. A
            // descriptor that is not open fails the operation.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            if self.submit().is_err() {
                pause();
            }
        }
    }

    /// Without waiting. An error leaves entries in the queue.
    pub(in crate::io) fn submit(&mut self) -> io::Result<()> {
        for _ in 0..SUBMISSION_ENTRIES {
            match self.ring.submit() {
                Ok(_) if self.ring.submission().is_empty() => return Ok(()),
                Ok(_) => {}
                Err(error) if Errno::from_io_error(&error) == Some(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// Until the queue has been submitted.
    pub(in crate::io) fn keep_open(&mut self, fd: &Rc<OwnedFd>) {
        self.kept_open.push(Rc::clone(fd));
    }

    /// Submits, and waits until something is complete.
    pub(in crate::io) fn wait(&mut self) -> io::Result<()> {
        if self.window.is_open() {
            self.look();
        }
        match self.ring.submit_and_wait(1) {
            Ok(_) => {
                if !self.kept_open.is_empty() && self.submit().is_ok() {
                    self.kept_open.clear();
                }
                Ok(())
            }
            Err(error) => match Errno::from_io_error(&error) {
                // A signal; or more completions than the queue holds, which are to be taken first.
                Some(Errno::INTR | Errno::BUSY) => Ok(()),
                Some(Errno::AGAIN | Errno::NOMEM) => {
                    pause();
                    Ok(())
                }
                _ => Err(error),
            },
        }
    }

    /// For as long as the window is open, without a system call: the kernel says in shared memory
    /// that it has something for the next one.
    fn look(&mut self) {
        // What cannot be submitted now is by the wait, which tells what is wrong.
        if !self.ring.submission().is_empty() && self.submit().is_err() {
            return;
        }
        let (_, submissions, mut completions) = self.ring.split();
        let Ok(()) = self.window.look(|| {
            completions.sync();
            Ok::<_, Infallible>(submissions.taskrun() || !completions.is_empty())
        });
    }

    pub(in crate::io) fn next(&mut self) -> Option<Completion> {
        loop {
            let entry = self.ring.completion().next()?;
            if entry.user_data() != KEY_NONE {
                return Some(self.read(&entry));
            }
        }
    }

    fn read(&mut self, entry: &cqueue::Entry) -> Completion {
        let (result, flags) = (entry.result(), entry.flags());
        let octets = usize::try_from(result);
        let read = cqueue::buffer_select(flags)
            .map(|room| self.rooms.take(room, octets.unwrap_or_default()));
        let outcome = match (octets, read) {
            (Ok(_), Some(read)) => Outcome::Octets(read),
            (Ok(0), None) => Outcome::Octets(BytesMut::new()),
            (Ok(_), None) => Outcome::Ready,
            (Err(_), _) => match Errno::from_raw_os_error(-result) {
                Errno::NOBUFS => {
                    self.rooms.want_more();
                    Outcome::NoRoom
                }
                error => Outcome::Failed(error),
            },
        };
        Completion { key: entry.user_data(), outcome, goes_on: cqueue::more(flags) }
    }

    /// After the last completion of a turn.
    pub(in crate::io) fn fill_up(&mut self) {
        self.rooms.fill_up();
    }
}

impl Drop for Ring {
    /// A process keeps its rings until it ends; tests do not.
    fn drop(&mut self) {
        // No read finds a room after that; and none is under way, as reads are carried out by this
        // thread, within its calls.
        let unregistered = self.ring.submitter().unregister_buf_ring(GROUP);
        // SAFETY: neither is used again.
        unsafe {
            ManuallyDrop::drop(&mut self.ring);
            // If the kernel still knows the rooms they must not end.
            if unregistered.is_ok() {
                ManuallyDrop::drop(&mut self.rooms);
            }
        }
    }
}

/// The kernel has no memory: it may have some later, and nothing may be lost.
#[allow(clippy::disallowed_methods)] // There is nothing to be woken by.
fn pause() {
    std::thread::sleep(PAUSE);
}

fn builder(flags: Flags, window: Window) -> io_uring::Builder {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(COMPLETION_ENTRIES);
    builder.setup_coop_taskrun().setup_single_issuer().setup_submit_all();
    if window.is_open() {
        builder.setup_taskrun_flag();
    }
    match flags {
        Flags::CoopSingle => {}
        Flags::CoopSingleDefer => {
            builder.setup_defer_taskrun();
        }
    }
    builder
}
