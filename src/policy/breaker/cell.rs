//! One breaker's numbers, which all workers see, and each worker's own line of them.
//!
//! 1. Who writes what is in docs/adr/0150: the word a change of generation, the tally a failure or
//!    a trial, a lane its worker alone.
//! 2. What belongs to another generation than the word's counts as nothing.

use super::State;
use crate::policy::trip::Counts;
use std::sync::atomic::{AtomicU64, Ordering};

/// One breaker.
#[derive(Debug)]
pub(super) struct Cell {
    /// What its method hashes to; 0: it is free.
    pub(super) key: AtomicU64,
    /// A [`Word`].
    word: AtomicU64,
    /// A [`Tally`].
    tally: AtomicU64,
    pub(super) lanes: Box<[Lane]>,
}

/// What one worker alone counts, in a line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Lane {
    generation: AtomicU64,
    requests: AtomicU64,
    successes: AtomicU64,
    /// When it was used last, in nanoseconds; no two uses by a worker have the same.
    pub(super) used: AtomicU64,
}

#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Clock(pub(super) AtomicU64);

const GENERATION_BITS: u32 = 22;
const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;
const EXPIRY_BITS: u32 = 40;
pub(super) const EXPIRY_MAX: u64 = (1 << EXPIRY_BITS) - 1;
const COUNT_BITS: u32 = 21;
/// Counts stop here.
pub(super) const COUNT_MAX: u32 = (1 << COUNT_BITS) - 1;
const _: () = assert!(2 + GENERATION_BITS + EXPIRY_BITS == 64);
const _: () = assert!(GENERATION_BITS + 2 * COUNT_BITS == 64);

/// State, generation and when the state ends, as one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) state: State,
    pub(super) generation: u32,
    /// Milliseconds since the epoch; 0: never.
    pub(super) expiry: u64,
}

impl Word {
    fn pack(self) -> u64 {
        let generation = u64::from(self.generation & GENERATION_MASK);
        (self.state as u64) << 62 | generation << EXPIRY_BITS | self.expiry.min(EXPIRY_MAX)
    }

    fn unpack(word: u64) -> Self {
        let state = match word >> 62 {
            0 => State::Closed,
            1 => State::HalfOpen,
            _ => State::Open,
        };
        let generation = (word >> EXPIRY_BITS) as u32 & GENERATION_MASK;
        Self { state, generation, expiry: word & EXPIRY_MAX }
    }
}

/// What the workers count together in one generation. Closed: failures in a row and in all.
/// Half-open: trials and those that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tally {
    generation: u32,
    first: u32,
    second: u32,
}

impl Tally {
    fn pack(self) -> u64 {
        let generation = u64::from(self.generation & GENERATION_MASK) << (2 * COUNT_BITS);
        let (first, second) = (self.first.min(COUNT_MAX), self.second.min(COUNT_MAX));
        generation | u64::from(first) << COUNT_BITS | u64::from(second)
    }

    fn unpack(tally: u64) -> Self {
        Self {
            generation: (tally >> (2 * COUNT_BITS)) as u32 & GENERATION_MASK,
            first: (tally >> COUNT_BITS) as u32 & COUNT_MAX,
            second: tally as u32 & COUNT_MAX,
        }
    }
}

impl Cell {
    pub(super) fn new(lanes: usize) -> Self {
        Self {
            key: AtomicU64::new(0),
            word: AtomicU64::new(0),
            tally: AtomicU64::new(0),
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
        }
    }

    pub(super) fn word(&self) -> Word {
        Word::unpack(self.word.load(Ordering::Acquire))
    }

    pub(super) fn lane(&self, worker: usize) -> &Lane {
        &self.lanes[worker % self.lanes.len()]
    }

    /// To another word, unless another worker was faster, whose word is the error.
    pub(super) fn change(&self, from: Word, to: Word) -> Result<(), Word> {
        let (from, to) = (from.pack(), to.pack());
        let changed = self.word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        changed.map(drop).map_err(Word::unpack)
    }

    /// For another method: closed, and all that was counted forgotten.
    pub(super) fn renew(&self, interval: u64, now: u64) {
        let expiry = if interval == 0 { 0 } else { now.saturating_add(interval) };
        let renewed = |word| {
            let generation = Word::unpack(word).generation.wrapping_add(1);
            Some(Word { state: State::Closed, generation, expiry }.pack())
        };
        let _ = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, renewed);
    }

    /// Changes what is counted in this generation; not if a newer one has begun to count.
    fn count(&self, generation: u32, change: impl Fn(Tally) -> Option<Tally>) -> Option<Tally> {
        let update = |packed| {
            let tally = Tally::unpack(packed);
            let behind = generation.wrapping_sub(tally.generation) & GENERATION_MASK;
            if behind > GENERATION_MASK / 2 {
                return None;
            }
            let fresh = Tally { generation, first: 0, second: 0 };
            change(if behind == 0 { tally } else { fresh }).map(Tally::pack)
        };
        let before = self.tally.fetch_update(Ordering::AcqRel, Ordering::Acquire, update).ok()?;
        update(before).map(Tally::unpack)
    }

    pub(super) fn succeed(&self, generation: u32, worker: usize) {
        self.lane(worker).succeed(generation);
        let tally = Tally::unpack(self.tally.load(Ordering::Acquire));
        if tally.generation == generation && tally.first > 0 {
            self.count(generation, |tally| Some(Tally { first: 0, ..tally }));
        }
    }

    #[cold]
    pub(super) fn fail(&self, generation: u32) -> Counts {
        let failed = |tally: Tally| {
            Some(Tally { first: tally.first + 1, second: tally.second + 1, ..tally })
        };
        let Some(tally) = self.count(generation, failed) else { return Counts::default() };
        self.closed(tally)
    }

    /// What was counted since the state of that word began.
    pub(super) fn counts(&self, word: Word) -> Counts {
        let tally = Tally::unpack(self.tally.load(Ordering::Acquire));
        let generation = word.generation;
        let tally = match tally.generation == generation {
            true => tally,
            false => Tally { generation, first: 0, second: 0 },
        };
        match word.state {
            State::Closed => self.closed(tally),
            State::HalfOpen => Counts {
                requests: tally.first,
                total_successes: tally.second,
                consecutive_successes: tally.second,
                ..Counts::default()
            },
            State::Open => Counts::default(),
        }
    }

    /// A closed one's failures, and what each worker counted beside them.
    fn closed(&self, tally: Tally) -> Counts {
        let mut counts = Counts {
            total_failures: tally.second,
            consecutive_failures: tally.first,
            ..Counts::default()
        };
        for lane in &self.lanes {
            if lane.generation.load(Ordering::Acquire) == u64::from(tally.generation) {
                // Round and round, as gobreaker's 32 bits.
                let [requests, successes] = [&lane.requests, &lane.successes]
                    .map(|count| count.load(Ordering::Relaxed) as u32);
                counts.requests = counts.requests.wrapping_add(requests);
                counts.total_successes = counts.total_successes.wrapping_add(successes);
            }
        }
        counts
    }

    #[cold]
    pub(super) fn try_trial(&self, generation: u32, max: u32) -> bool {
        let one_more =
            |tally: Tally| (tally.first < max).then_some(Tally { first: tally.first + 1, ..tally });
        self.count(generation, one_more).is_some()
    }

    pub(super) fn trial_succeeded(&self, generation: u32) -> u32 {
        let one_more = |tally: Tally| Some(Tally { second: tally.second + 1, ..tally });
        self.count(generation, one_more).map_or(0, |tally| tally.second)
    }

    pub(super) fn withdraw_trial(&self, generation: u32) {
        let one_less = |tally: Tally| Some(Tally { first: tally.first.checked_sub(1)?, ..tally });
        self.count(generation, one_less);
    }
}

impl Lane {
    /// Only the lane's worker writes: what it reads is what it wrote.
    pub(super) fn begin(&self, generation: u32) {
        let generation = u64::from(generation);
        if self.generation.load(Ordering::Relaxed) != generation {
            self.requests.store(0, Ordering::Relaxed);
            self.successes.store(0, Ordering::Relaxed);
            self.generation.store(generation, Ordering::Release);
        }
        add(&self.requests, 1);
    }

    fn succeed(&self, generation: u32) {
        if self.generation.load(Ordering::Relaxed) == u64::from(generation) {
            add(&self.successes, 1);
        }
    }

    pub(super) fn withdraw(&self, generation: u32) {
        if self.generation.load(Ordering::Relaxed) == u64::from(generation) {
            add(&self.requests, -1);
        }
    }
}

/// By the only one who writes it.
fn add(count: &AtomicU64, more: i64) {
    count.store(count.load(Ordering::Relaxed).wrapping_add_signed(more), Ordering::Relaxed);
}
