//! Buffers that the kernel fills with whatever a connection of this worker received, whichever it
//! is: only connections that have something to say take memory for it.
//!
//! 1. A room is the kernel's from the moment in which it is provided until its completion has been
//!    taken; nobody else touches its spare capacity meanwhile.
//! 2. What was filled is split off and handed out: nothing is copied. The room then rests for a
//!    turn, after which what was handed out of it is gone, nearly always, and all of it serves
//!    again: so few octets are written that they stay in the caches. Otherwise what is left does.
//! 3. As many rooms are out as turns need: twice as many after a turn that ran out of them, up to
//!    [`ROOMS_MAX`], and half as many after a long time in which a quarter was enough. Fewer rooms
//!    are warmer ones.
//!
//! Sources: io_uring_register_buf_ring(3).

use bytes::BytesMut;
use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use rustix::io::Errno;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::VecDeque;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// A read gains nothing measurable from more, and a slice keeps all of its room alive.
pub(in crate::io) const ROOM_OCTETS: usize = 64 << 10;

/// A room with less than that left is not provided again: it would cut large reads small.
const LEFT_OCTETS_MIN: usize = 16 << 10;

const ROOMS_MIN: u16 = 8;
const ROOMS_MAX: u16 = 128;

/// Turns after which it is asked whether fewer rooms would do.
const REVIEW_TURNS: u32 = 4096;

/// The one group of buffers that a ring has.
pub(super) const GROUP: u16 = 0;

const _: () = assert!(ROOMS_MAX.is_power_of_two(), "as the kernel demands");

pub(super) struct Rooms {
    entries: NonNull<BufRingEntry>,
    /// By buffer ID.
    rooms: Vec<BytesMut>,
    /// IDs of rooms that were never provided, or hold no memory any more.
    idle: Vec<u16>,
    /// Of those that rest, in their order.
    resting: VecDeque<u16>,
    /// Of those that were filled in this turn.
    filled: Vec<u16>,
    /// How many are out, and are to be.
    out: u16,
    wanted: u16,
    tail: u16,
    /// The most that were filled in a turn since the last review.
    used_most: usize,
    turns: u32,
    ran_out: bool,
    layout: Layout,
}

impl Rooms {
    /// The kernel wants the entries to begin one of its pages.
    fn layout() -> io::Result<Layout> {
        let size = ROOMS_MAX as usize * size_of::<BufRingEntry>();
        Layout::from_size_align(size, rustix::param::page_size()).map_err(|_| Errno::INVAL.into())
    }

    /// Registers the group with a ring. The first rooms are out afterwards.
    pub(super) fn register(submitter: &Submitter<'_>) -> io::Result<Self> {
        let layout = Self::layout()?;
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc_zeroed(layout) }.cast::<BufRingEntry>();
        let Some(entries) = NonNull::new(memory) else { handle_alloc_error(layout) };
        let mut rooms = Self {
            entries,
            rooms: (0..ROOMS_MAX).map(|_| BytesMut::new()).collect(),
            idle: (0..ROOMS_MAX).rev().collect(),
            resting: VecDeque::new(),
            filled: Vec::new(),
            out: 0,
            wanted: ROOMS_MIN,
            tail: 0,
            used_most: 0,
            turns: 0,
            ran_out: false,
            layout,
        };
        // SAFETY: the memory is a page-aligned array of that many entries, and lives until `Drop`,
        // which unregisters it first (see `Ring`).
        unsafe {
            submitter.register_buf_ring_with_flags(entries.as_ptr() as u64, ROOMS_MAX, GROUP, 0)?
        };
        rooms.fill_up();
        // The first to be filled finds one that has rested.
        if let Some(id) = rooms.idle.pop()
            && let Some(room) = rooms.rooms.get_mut(usize::from(id))
        {
            room.reserve(ROOM_OCTETS);
            rooms.resting.push_back(id);
        }
        Ok(rooms)
    }

    /// What the kernel put into a room. The ID is one that it took from here.
    pub(super) fn take(&mut self, id: u16, octets: usize) -> BytesMut {
        let Some(room) = self.rooms.get_mut(usize::from(id)) else {
            debug_assert!(false, "a room of the kernel's own");
            return BytesMut::new();
        };
        debug_assert!(room.is_empty() && octets <= room.capacity());
        // SAFETY: the kernel has just initialised so many octets of the spare capacity that it was
        // told of, and has done with the room.
        unsafe { room.set_len(octets.min(room.capacity())) };
        let filled = room.split();
        self.out -= 1;
        self.filled.push(id);
        filled
    }

    /// At the end of a turn's completions: rooms that were filled are out again.
    pub(super) fn fill_up(&mut self) {
        if std::mem::take(&mut self.ran_out) {
            self.wanted = (self.wanted * 2).min(ROOMS_MAX);
        }
        let (before, rested) = (self.tail, self.resting.len());
        self.used_most = self.used_most.max(self.filled.len());
        for _ in 0..rested.min(usize::from(self.wanted.saturating_sub(self.out))) {
            if let Some(id) = self.resting.pop_front() {
                self.provide(id);
            }
        }
        while let Some(id) = self.filled.pop() {
            let left = self.rooms.get(usize::from(id)).map_or(0, BytesMut::capacity);
            if self.out < self.wanted && left >= LEFT_OCTETS_MIN {
                self.provide(id);
            } else {
                self.resting.push_back(id);
            }
        }
        while self.out < self.wanted
            && let Some(id) = self.idle.pop().or_else(|| self.resting.pop_front())
        {
            self.provide(id);
        }
        if self.tail != before {
            self.publish();
        }
        self.review();
    }

    /// This turn ran out of rooms.
    pub(super) fn want_more(&mut self) {
        self.ran_out = true;
    }

    fn provide(&mut self, id: u16) {
        let Some(room) = self.rooms.get_mut(usize::from(id)) else { return };
        if !room.try_reclaim(ROOM_OCTETS) && room.capacity() < LEFT_OCTETS_MIN {
            room.reserve(ROOM_OCTETS);
        }
        let spare = room.spare_capacity_mut();
        let (address, octets) = (spare.as_mut_ptr() as u64, spare.len().min(ROOM_OCTETS));
        let at = usize::from(self.tail & (ROOMS_MAX - 1));
        // SAFETY: `at` is within the array. The kernel does not read an entry beyond the tail, and
        // there are as many entries as rooms, so this one is not provided now.
        let entry = unsafe { &mut *self.entries.as_ptr().add(at) };
        entry.set_addr(address);
        entry.set_len(octets as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        self.out += 1;
    }

    fn publish(&self) {
        // SAFETY: the array's first entry holds the tail, an aligned u16 that the kernel reads and
        // that only this thread writes, here alone.
        let tail = unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr());
            AtomicU16::from_ptr(tail.cast_mut())
        };
        // What was written into the entries is to be seen before the tail that includes them.
        tail.store(self.tail, Ordering::Release);
    }

    fn review(&mut self) {
        self.turns += 1;
        if self.turns < REVIEW_TURNS {
            return;
        }
        if self.wanted > ROOMS_MIN && self.used_most < usize::from(self.wanted / 4) {
            self.wanted /= 2;
        }
        // The memory of more than may be wanted at once is not needed.
        while self.resting.len() > usize::from(self.wanted)
            && let Some(id) = self.resting.pop_front()
        {
            if let Some(room) = self.rooms.get_mut(usize::from(id)) {
                *room = BytesMut::new();
            }
            self.idle.push(id);
        }
        (self.turns, self.used_most) = (0, 0);
    }
}

impl Drop for Rooms {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and the ring has unregistered it.
        unsafe { dealloc(self.entries.as_ptr().cast(), self.layout) };
    }
}
