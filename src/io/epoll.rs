//! epoll, for kernels and containers that deny io_uring.
//!
//! 1. A descriptor is registered once, edge-triggered. A read that does not fill its room has taken
//!    all that there was, so that a message costs one wait and one read, and none in vain. (Urgent
//!    data cuts a read short: who sends that, which nobody does, waits until it sends more.)
//! 2. Who fills the largest room more than [`READS_MAX`] times has its next turn with the others.
//! 3. A turn reads [`TURN_OCTETS`] at most, and a little; the next one goes on where it ended.
//!
//! Knows nothing of who waits. Sources: epoll(7), "Level-triggered and edge-triggered".

use super::reactor::Key;
use super::sys;
use super::sys::rooms::ROOM_OCTETS;
use super::window::Window;
use bytes::BytesMut;
use rustix::event::{PollFlags, Timespec, epoll};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

/// Events of one wait.
const EVENTS_MAX: usize = 256;

/// Reads of one descriptor in a turn.
const READS_MAX: usize = 3;

/// What one turn reads, as it is all held at once: what a ring has rooms for.
const TURN_OCTETS: usize = 8 << 20;

const NO_TIME: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Less room than that is not read into.
const ROOM_LEFT_MIN: usize = ROOM_OCTETS / 4;

/// What became so of a descriptor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Happened {
    pub(super) readable: bool,
    /// Nothing more will come, or the descriptor is broken: to be read to its end.
    pub(super) ends: bool,
    writable: bool,
    broken: bool,
}

impl Happened {
    /// Whether one of `flags` is so, or never will be.
    pub(super) fn is(self, flags: PollFlags) -> bool {
        self.broken
            || flags.contains(PollFlags::IN) && self.readable
            || flags.contains(PollFlags::OUT) && self.writable
    }
}

pub(super) struct Epoll {
    epoll: OwnedFd,
    window: Window,
    events: Vec<epoll::Event>,
    /// Up to where the last wait's events were handed out.
    at: usize,
    /// Who has more to say than a turn's reads took, once each.
    unread: VecDeque<Key>,
    /// By the index of a key: who is in `unread`, and whether nothing more will come.
    marks: Vec<Option<(Key, bool)>>,
    /// How many of them this turn has still to hand out.
    due: usize,
    /// Octets that this turn may still read.
    left: usize,
    room: BytesMut,
    /// The room before, whose allocation serves again when what was read into it is gone.
    before: BytesMut,
}

impl Epoll {
    pub(super) fn new(window: Window) -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            window,
            events: Vec::with_capacity(EVENTS_MAX),
            at: 0,
            unread: VecDeque::new(),
            marks: Vec::new(),
            due: 0,
            left: 0,
            room: BytesMut::new(),
            before: BytesMut::new(),
        })
    }

    pub(super) fn add(&self, fd: &OwnedFd, key: Key) -> io::Result<()> {
        let data = epoll::EventData::new_u64(key.data());
        Ok(epoll::add(&self.epoll, fd, data, epoll::EventFlags::ET)?)
    }

    /// Says what is wanted of a descriptor that was added. What is so already is told, too.
    pub(super) fn watch(&self, fd: &OwnedFd, key: Key, reads: bool, polled: Option<PollFlags>) {
        let mut flags = epoll::EventFlags::ET;
        if reads || polled.is_some_and(|polled| polled.contains(PollFlags::IN)) {
            flags |= epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        }
        if polled.is_some_and(|polled| polled.contains(PollFlags::OUT)) {
            flags |= epoll::EventFlags::OUT;
        }
        let data = epoll::EventData::new_u64(key.data());
        let modified = epoll::modify(&self.epoll, fd, data, flags);
        debug_assert!(modified.is_ok(), "{modified:?}");
    }

    pub(super) fn delete(&mut self, fd: &OwnedFd, key: Key) {
        self.unmark(key);
        let deleted = epoll::delete(&self.epoll, fd);
        debug_assert!(deleted.is_ok(), "{deleted:?}");
    }

    fn mark(&mut self, key: Key, ends: bool) {
        let index = key.index as usize;
        if index >= self.marks.len() {
            self.marks.resize(index + 1, None);
        }
        match self.marks.get_mut(index) {
            Some(Some((marked, before))) if *marked == key => *before |= ends,
            Some(mark) => {
                *mark = Some((key, ends));
                self.unread.push_back(key);
            }
            None => {}
        }
    }

    fn unmark(&mut self, key: Key) -> Option<bool> {
        let mark = self.marks.get_mut(key.index as usize)?;
        mark.take_if(|(marked, _)| *marked == key).map(|(_, ends)| ends)
    }

    pub(super) fn wait(&mut self) -> io::Result<()> {
        self.left = TURN_OCTETS;
        // Events of an edge come once: all are looked at before there are others.
        if self.at < self.events.len() {
            return Ok(());
        }
        self.events.clear();
        self.at = 0;
        self.due = self.unread.len();
        if self.due > 0 {
            return self.ask(Some(&NO_TIME));
        }
        let window = self.window;
        window.look(|| self.ask(Some(&NO_TIME)).map(|()| !self.events.is_empty()))?;
        if self.events.is_empty() { self.ask(None) } else { Ok(()) }
    }

    fn ask(&mut self, timeout: Option<&Timespec>) -> io::Result<()> {
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), timeout) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn next(&mut self) -> Option<(Key, Happened)> {
        if self.left == 0 {
            return None;
        }
        while self.due > 0 {
            self.due -= 1;
            let key = self.unread.pop_front()?;
            if let Some(ends) = self.unmark(key) {
                let happened = Happened { readable: true, ends, writable: false, broken: false };
                return Some((key, happened));
            }
        }
        let event = self.events.get(self.at)?;
        self.at += 1;
        let (data, flags) = (event.data, event.flags);
        let has = |wanted: epoll::EventFlags| flags.intersects(wanted);
        let broken = has(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
        let ends = broken || has(epoll::EventFlags::RDHUP);
        let readable = ends || has(epoll::EventFlags::IN);
        let writable = has(epoll::EventFlags::OUT);
        Some((Key::from_data(data.u64()), Happened { readable, ends, writable, broken }))
    }

    /// Reads what there is, up to the turn's share.
    pub(super) fn read(
        &mut self,
        fd: &OwnedFd,
        key: Key,
        Happened { ends, .. }: Happened,
        mut tell: impl FnMut(Result<BytesMut, Errno>),
    ) {
        if matches!(self.marks.get(key.index as usize), Some(Some((marked, _))) if *marked == key) {
            // It has been read in this turn.
            return self.mark(key, ends);
        }
        for _ in 0..READS_MAX {
            // What was read before is gone, nearly always, and all of the room serves again.
            if !self.room.try_reclaim(ROOM_OCTETS) && self.room.capacity() < ROOM_LEFT_MIN {
                std::mem::swap(&mut self.room, &mut self.before);
                self.room.reserve(ROOM_OCTETS);
            }
            match sys::recv(fd, &mut self.room) {
                Ok(()) if self.room.is_empty() => return tell(Ok(BytesMut::new())),
                Ok(()) => {
                    let filled = self.room.len() == self.room.capacity();
                    self.left = self.left.saturating_sub(self.room.len());
                    tell(Ok(self.room.split()));
                    if !filled && !ends {
                        return;
                    }
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(error) => return tell(Err(error)),
            }
        }
        self.mark(key, ends);
    }
}
