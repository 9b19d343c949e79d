//! What a worker waits for: the descriptors that it reads and polls, and their wakers.
//!
//! 1. What is awaited is read once for each time it is awaited: who waits for something else, as
//!    for room to write, is sent no more than the socket's buffers hold. Nothing is lost when
//!    a future is dropped.
//! 2. Once a source is *delivered* it is read on and on, with io_uring and with epoll alike, and
//!    what was read comes as an [`Event`], without a waker or a task between kernel and
//!    connection. The end, or an error, is told once.
//! 3. A key names a source and its generation: what the kernel still says of a source that is gone
//!    reaches nobody.
//! 4. A source is closed after the kernel has been told to forget it.
//!
//! Refuses to know what is read.

use super::epoll::Epoll;
use super::sys::ring::{Completion, Outcome, Ring};
use bytes::BytesMut;
use rustix::event::PollFlags;
use rustix::io::Errno;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A source among those of its reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) index: u32,
    generation: u32,
}

/// What an operation is: the lowest bit of what the kernel gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Read,
    Poll,
}

impl Key {
    /// 31 bits of each are enough: a ring would be full long before.
    fn with(self, operation: Operation) -> u64 {
        let operation = match operation {
            Operation::Read => 0,
            Operation::Poll => 1,
        };
        u64::from(self.generation) << 33 | u64::from(self.index) << 1 | operation
    }

    fn parse(data: u64) -> (Self, Operation) {
        let operation = if data & 1 == 0 { Operation::Read } else { Operation::Poll };
        let key = Self { index: (data >> 1) as u32, generation: (data >> 33) as u32 };
        (key, operation)
    }

    /// For epoll, where a source is registered once.
    pub(super) fn data(self) -> u64 {
        self.with(Operation::Read)
    }

    pub(super) fn from_data(data: u64) -> Self {
        Self::parse(data).0
    }
}

const GENERATIONS: u32 = 1 << 31;

/// What came of a delivered source.
#[derive(Debug)]
pub(super) enum Event {
    /// What was read: never empty but at the end, which is the last, as an error is.
    Read(Key, Result<BytesMut, Errno>),
    /// What [`Source::poll_soon`] asked for is so, or the source is broken.
    Ready(Key),
}

#[derive(Debug)]
pub(super) struct Reactor {
    inner: RefCell<Inner>,
}

#[derive(Debug)]
struct Inner {
    backend: Backend,
    sources: Vec<State>,
    free: Vec<u32>,
    /// Reads that are to be begun again at the end of the turn.
    paused: Vec<Key>,
}

pub(super) enum Backend {
    Uring(Box<Ring>),
    Epoll(Box<Epoll>),
}

#[derive(Debug)]
struct State {
    generation: u32,
    /// Nothing once the source is gone.
    fd: Option<Rc<OwnedFd>>,
    /// The kernel still has an operation of that kind.
    reads: bool,
    polls: bool,
    read: Reading,
    poll: Polling,
    poll_for: PollFlags,
}

#[derive(Debug)]
enum Reading {
    Not,
    /// What came and nobody took yet, and who waits for it.
    Kept(VecDeque<Result<BytesMut, Errno>>, Option<Waker>),
    Delivered,
    /// The end or an error was told.
    Ended,
}

#[derive(Debug)]
enum Polling {
    Not,
    Awaited(Waker),
    Delivered,
    Ready,
}

impl Reactor {
    pub(super) fn new(backend: Backend) -> Rc<Self> {
        let inner = Inner { backend, sources: Vec::new(), free: Vec::new(), paused: Vec::new() };
        Rc::new(Self { inner: RefCell::new(inner) })
    }

    /// Takes a descriptor over. With io_uring it must be a blocking one if it is to be read.
    pub(super) fn adopt(self: &Rc<Self>, fd: OwnedFd) -> io::Result<Source> {
        let fd = Rc::new(fd);
        let key = self.inner.borrow_mut().insert(&fd)?;
        Ok(Source { reactor: Rc::clone(self), key, fd })
    }

    /// Waits until something happened, unless something has already, and says what did to
    /// delivered sources.
    pub(super) fn turn(&self, events: &mut Vec<Event>) -> io::Result<()> {
        let inner = &mut *self.inner.borrow_mut();
        match &mut inner.backend {
            Backend::Uring(ring) => {
                ring.wait()?;
                inner.turn_by_ring(events);
                Ok(())
            }
            Backend::Epoll(_) => inner.turn_by_epoll(events),
        }
    }
}

impl Inner {
    fn insert(&mut self, fd: &Rc<OwnedFd>) -> io::Result<Key> {
        let index = match self.free.last() {
            Some(index) => *index,
            None => u32::try_from(self.sources.len()).map_err(|_| Errno::NFILE)?,
        };
        let generation = self.sources.get(index as usize).map_or(0, |state| state.generation);
        let key = Key { index, generation };
        if let Backend::Epoll(epoll) = &mut self.backend {
            epoll.add(fd, key)?;
        }
        let state = State {
            generation,
            fd: Some(Rc::clone(fd)),
            reads: false,
            polls: false,
            read: Reading::Not,
            poll: Polling::Not,
            poll_for: PollFlags::empty(),
        };
        match self.sources.get_mut(index as usize) {
            Some(place) => {
                *place = state;
                self.free.pop();
            }
            None => self.sources.push(state),
        }
        Ok(key)
    }

    fn state(&mut self, key: Key) -> Option<&mut State> {
        let state = self.sources.get_mut(key.index as usize)?;
        (state.generation == key.generation).then_some(state)
    }

    /// Asks the kernel for what is wanted of the source and not asked for yet.
    fn arm(&mut self, key: Key) {
        let Self { backend, sources, .. } = self;
        let Some(state) = sources.get_mut(key.index as usize) else { return };
        let Some(fd) = state.fd.as_ref().filter(|_| state.generation == key.generation) else {
            return;
        };
        match backend {
            Backend::Uring(ring) => {
                if state.wants_read() && !state.reads {
                    state.reads = true;
                    let on_and_on = matches!(state.read, Reading::Delivered);
                    ring.recv(fd, on_and_on, key.with(Operation::Read));
                }
                if state.wants_poll() && !state.polls {
                    state.polls = true;
                    ring.poll(fd, state.poll_for, key.with(Operation::Poll));
                }
            }
            Backend::Epoll(epoll) => {
                epoll.watch(fd, key, state.wants_read(), state.polls_for());
            }
        }
    }

    fn turn_by_ring(&mut self, events: &mut Vec<Event>) {
        while let Backend::Uring(ring) = &mut self.backend
            && let Some(completion) = ring.next()
        {
            self.completed(completion, events);
        }
        if let Backend::Uring(ring) = &mut self.backend {
            ring.fill_up();
        }
        // Not before there are rooms again; and in their order, since a read that is asked for
        // takes what there is at once: who came last must not be first again.
        let mut paused = std::mem::take(&mut self.paused);
        paused.drain(..).for_each(|key| self.arm(key));
        self.paused = paused;
    }

    fn completed(&mut self, completion: Completion, events: &mut Vec<Event>) {
        let Completion { key, outcome, goes_on } = completion;
        let (key, operation) = Key::parse(key);
        let Some(state) = self.state(key) else { return };
        if !goes_on {
            match operation {
                Operation::Read => state.reads = false,
                Operation::Poll => state.polls = false,
            }
            if state.fd.is_none() {
                return self.release(key);
            }
        }
        match (operation, outcome) {
            (Operation::Read, Outcome::Octets(octets)) => {
                let ended = octets.is_empty();
                state.tell(key, Ok(octets), events);
                if !goes_on && !ended {
                    self.paused.push(key);
                }
            }
            (Operation::Read, Outcome::NoRoom | Outcome::Failed(Errno::INTR)) => {
                self.paused.push(key);
            }
            (Operation::Read, Outcome::Failed(error)) => state.tell(key, Err(error), events),
            // Nothing says so of a read.
            (Operation::Read, Outcome::Ready) => debug_assert!(false, "a read that is ready"),
            (Operation::Poll, _) => state.tell_ready(key, events),
        }
    }

    fn turn_by_epoll(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        let Backend::Epoll(epoll) = &mut self.backend else { return Ok(()) };
        epoll.wait()?;
        while let Backend::Epoll(epoll) = &mut self.backend
            && let Some((key, happened)) = epoll.next()
        {
            let Some(state) = self.sources.get_mut(key.index as usize) else { continue };
            if state.generation != key.generation {
                continue;
            }
            let Some(fd) = state.fd.clone() else { continue };
            if happened.readable && state.wants_read() {
                epoll.read(&fd, key, happened, |result| state.tell(key, result, events));
            }
            if state.polls_for().is_some_and(|flags| happened.is(flags)) {
                state.tell_ready(key, events);
                epoll.watch(&fd, key, state.wants_read(), None);
            }
        }
        Ok(())
    }

    /// The kernel knows nothing of the source any more.
    fn release(&mut self, key: Key) {
        let Some(state) = self.state(key) else { return };
        if state.reads || state.polls {
            return;
        }
        state.generation = (state.generation + 1) % GENERATIONS;
        self.free.push(key.index);
    }

    fn forget(&mut self, key: Key, fd: &Rc<OwnedFd>) {
        let Self { backend, sources, .. } = self;
        let Some(state) = sources.get_mut(key.index as usize) else { return };
        state.fd = None;
        (state.read, state.poll) = (Reading::Ended, Polling::Not);
        match backend {
            Backend::Epoll(epoll) => epoll.delete(fd, key),
            Backend::Uring(ring) => {
                for (armed, operation) in
                    [(state.reads, Operation::Read), (state.polls, Operation::Poll)]
                {
                    if armed {
                        ring.cancel(key.with(operation));
                    }
                }
                // What is queued names the descriptor, whose number may soon be another's.
                if (state.reads || state.polls) && ring.submit().is_err() {
                    ring.keep_open(fd);
                }
            }
        }
        self.release(key);
    }
}

impl State {
    fn wants_read(&self) -> bool {
        match &self.read {
            Reading::Kept(_, waker) => waker.is_some(),
            Reading::Delivered => true,
            Reading::Not | Reading::Ended => false,
        }
    }

    fn wants_poll(&self) -> bool {
        match self.poll {
            Polling::Awaited(_) | Polling::Delivered => true,
            Polling::Not | Polling::Ready => false,
        }
    }

    fn polls_for(&self) -> Option<PollFlags> {
        self.wants_poll().then_some(self.poll_for)
    }

    fn tell(&mut self, key: Key, result: Result<BytesMut, Errno>, events: &mut Vec<Event>) {
        let ends = !matches!(&result, Ok(octets) if !octets.is_empty());
        match &mut self.read {
            Reading::Kept(kept, waker) => {
                kept.push_back(result);
                if let Some(waker) = waker.take() {
                    waker.wake();
                }
            }
            Reading::Delivered => {
                events.push(Event::Read(key, result));
                if ends {
                    self.read = Reading::Ended;
                }
            }
            Reading::Not | Reading::Ended => {}
        }
    }

    fn tell_ready(&mut self, key: Key, events: &mut Vec<Event>) {
        match std::mem::replace(&mut self.poll, Polling::Ready) {
            Polling::Awaited(waker) => waker.wake(),
            Polling::Delivered => {
                self.poll = Polling::Not;
                events.push(Event::Ready(key));
            }
            other @ (Polling::Not | Polling::Ready) => self.poll = other,
        }
    }
}

/// A descriptor that the reactor watches. Closed on drop.
#[derive(Debug)]
pub(super) struct Source {
    reactor: Rc<Reactor>,
    key: Key,
    fd: Rc<OwnedFd>,
}

impl Source {
    pub(super) fn key(&self) -> Key {
        self.key
    }

    pub(super) fn fd(&self) -> &Rc<OwnedFd> {
        &self.fd
    }

    /// What was read next: empty at the end. May be dropped, nothing is lost.
    pub(super) fn read(&self) -> impl Future<Output = io::Result<BytesMut>> + '_ {
        std::future::poll_fn(|context| self.poll_read(context))
    }

    fn poll_read(&self, context: &mut Context<'_>) -> Poll<io::Result<BytesMut>> {
        let inner = &mut *self.reactor.inner.borrow_mut();
        let Some(state) = inner.state(self.key) else { return Poll::Ready(Ok(BytesMut::new())) };
        if matches!(state.read, Reading::Not) {
            state.read = Reading::Kept(VecDeque::new(), None);
        }
        let Reading::Kept(kept, waker) = &mut state.read else {
            return Poll::Ready(Ok(BytesMut::new()));
        };
        match kept.pop_front() {
            Some(Ok(octets)) => {
                if octets.is_empty() {
                    state.read = Reading::Ended;
                }
                Poll::Ready(Ok(octets))
            }
            Some(Err(error)) => {
                state.read = Reading::Ended;
                Poll::Ready(Err(error.into()))
            }
            None => {
                *waker = Some(context.waker().clone());
                inner.arm(self.key);
                Poll::Pending
            }
        }
    }

    /// From now on what is read comes as [`Event`]s; what was kept comes first, in `events`.
    pub(super) fn deliver(&self, events: &mut Vec<Event>) {
        let inner = &mut *self.reactor.inner.borrow_mut();
        let Some(state) = inner.state(self.key) else { return };
        match std::mem::replace(&mut state.read, Reading::Delivered) {
            Reading::Kept(kept, _) => {
                kept.into_iter().for_each(|r| state.tell(self.key, r, events))
            }
            Reading::Not | Reading::Delivered => {}
            Reading::Ended => state.read = Reading::Ended,
        }
        inner.arm(self.key);
    }

    /// Until one of `flags` is so, or the descriptor is broken. May be dropped.
    pub(super) fn polled(&self, flags: PollFlags) -> impl Future<Output = ()> + '_ {
        std::future::poll_fn(move |context| {
            let inner = &mut *self.reactor.inner.borrow_mut();
            let Some(state) = inner.state(self.key) else { return Poll::Ready(()) };
            if matches!(state.poll, Polling::Ready) {
                state.poll = Polling::Not;
                return Poll::Ready(());
            }
            debug_assert!(!state.polls || state.poll_for == flags, "one wish at a time");
            state.poll = Polling::Awaited(context.waker().clone());
            state.poll_for = flags;
            inner.arm(self.key);
            Poll::Pending
        })
    }

    /// One [`Event::Ready`] when the descriptor can be read, or written, or is broken.
    pub(super) fn poll_soon(&self, flags: PollFlags) {
        let inner = &mut *self.reactor.inner.borrow_mut();
        if let Some(state) = inner.state(self.key) {
            state.poll = Polling::Delivered;
            state.poll_for = flags;
            inner.arm(self.key);
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.reactor.inner.borrow_mut().forget(self.key, &self.fd);
    }
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Uring(_) => "io_uring",
            Self::Epoll(_) => "epoll",
        })
    }
}
