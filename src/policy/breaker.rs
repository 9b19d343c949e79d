//! Circuit breakers: gobreaker's state machine, one for each method of a target, for all workers.
//!
//! ```text
//!          trip is due                 timeout over
//! Closed ───────────────▶ Open ───────────────────────▶ HalfOpen
//!   ▲  ▲ interval over:    ▲         a failure             │ │
//!   │  └─ counts cleared   └───────────────────────────────┘ │
//!   └────────────── max_requests successes ──────────────────┘
//! ```
//! Sources: gobreaker v0.5.0; the caches of `pkg/resiliency/resiliency.go` of Dapr.
//!
//! 1. Each arrow, the cleared counts included, begins a generation; what a call of an older one
//!    came to counts for nothing.
//! 2. A breaker is the process's, not a worker's. What a worker counts for itself is in a line of
//!    its own; a call that succeeds while no failure is outstanding writes nothing else. Only
//!    failures, the first success after one, and trials write what all workers read
//!    (docs/adr/0150).
//! 3. Done one after the other, on whatever workers, calls find exactly gobreaker's states.
//! 4. A target's breakers are as many as its cache is large; the one that was used least recently
//!    makes way, and with it all that it knew.

mod cell;
mod look;

pub use look::Look;

use super::trip::Trip;
use crate::config::resiliency::BreakerSpec;
use cell::{COUNT_MAX, Cell, Clock, EXPIRY_MAX, Word};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Breakers of one target.
pub const CACHE_SIZE_MAX: usize = 4096;

/// gobreaker's `defaultTimeout`.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Closed,
    HalfOpen,
    Open,
}

impl State {
    pub const ALL: [Self; 3] = [Self::Closed, Self::HalfOpen, Self::Open];

    /// As daprd's log and labels spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// Why a call may not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Open,
    /// Half-open, and all trials are out.
    TooMany,
}

impl Refusal {
    pub fn state(self) -> State {
        match self {
            Self::Open => State::Open,
            Self::TooMany => State::HalfOpen,
        }
    }

    /// gobreaker's texts.
    pub fn text(self) -> &'static str {
        match self {
            Self::Open => "circuit breaker is open",
            Self::TooMany => "too many requests",
        }
    }
}

/// For a line of log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub from: State,
    pub to: State,
}

/// That a call may be made; to be given back with what came of it.
#[derive(Debug)]
#[must_use = "a trial that is not given back keeps its breaker half-open for ever"]
pub struct Permit {
    /// Where it was given: its method may have another breaker by the time it comes back.
    seat: Seat,
    generation: u32,
    /// The state when it was given.
    pub state: State,
}

/// How the breakers of a target behave.
#[derive(Debug)]
pub struct Rules {
    max_requests: u32,
    /// In milliseconds, rounded up; 0: counts are never cleared.
    interval: u64,
    timeout: u64,
    trip: Arc<Trip>,
}

impl Rules {
    pub fn new(spec: &BreakerSpec, trip: Arc<Trip>) -> Self {
        Self {
            max_requests: spec.max_requests.clamp(1, COUNT_MAX),
            interval: spec.interval.map_or(0, millis_up),
            timeout: millis_up(spec.timeout.unwrap_or(TIMEOUT_DEFAULT)),
            trip,
        }
    }
}

/// The breakers of one target.
#[derive(Debug)]
pub struct Breakers {
    rules: Rules,
    cache_size: usize,
    lanes: usize,
    /// When each worker used one of them last; see [`Lane::used`].
    clocks: Box<[Clock]>,
    epoch: Instant,
    hasher: RandomState,
    /// Made when the first call comes.
    cells: OnceLock<Box<[Cell]>>,
}

/// Which of the breakers, as long as it is that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    index: usize,
    key: u64,
}

/// As daprd names the breaker of a method.
pub fn name(app: &str, path: &str) -> String {
    format!("{app}:{path}")
}

fn millis_up(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(EXPIRY_MAX).min(EXPIRY_MAX)
}

impl Breakers {
    /// For at most `workers` workers, each of which names itself by a number below that.
    pub fn new(rules: Rules, cache_size: usize, workers: usize, epoch: Instant) -> Self {
        let cache_size = cache_size.clamp(1, CACHE_SIZE_MAX);
        let (lanes, hasher) = (workers.max(1), RandomState::new());
        let clocks = (0..lanes).map(|_| Clock::default()).collect();
        Self { rules, cache_size, lanes, clocks, epoch, hasher, cells: OnceLock::new() }
    }

    /// The breaker of a method, made when there is none. For a worker's first call of it.
    pub fn seat(&self, method: &[u8], worker: usize, now: Instant) -> Seat {
        let key = self.key(method);
        let cells = self.cells();
        // Bounded: who loses a race for a cell looks again; past that, several methods share one.
        for _ in 0..self.cache_size {
            let known = cells.iter().position(|cell| cell.key.load(Ordering::Acquire) == key);
            if let Some(index) = known {
                return Seat { index, key };
            }
            let (index, old) = self.oldest(cells);
            let cell = &cells[index];
            let claim = cell.key.compare_exchange(old, key, Ordering::AcqRel, Ordering::Acquire);
            if claim.is_ok() {
                cell.renew(self.rules.interval, self.millis(now));
                self.use_now(cell, worker, now);
                return Seat { index, key };
            }
        }
        Seat { index: key as usize % self.cache_size, key }
    }

    /// Whether the seat is still that method's.
    pub fn is_seated(&self, seat: Seat) -> bool {
        self.cell(seat).is_some()
    }

    /// May a call be made? `None`: another method has taken the seat.
    pub fn begin(
        &self,
        seat: Seat,
        worker: usize,
        now: Instant,
    ) -> Option<(Result<Permit, Refusal>, Option<Change>)> {
        let cell = self.cell(seat)?;
        self.use_now(cell, worker, now);
        let (word, change) = self.current(cell, now);
        let Word { state, generation, .. } = word;
        let granted = match state {
            State::Closed => {
                cell.lane(worker).begin(generation);
                Ok(Permit { seat, generation, state })
            }
            State::Open => Err(Refusal::Open),
            State::HalfOpen if cell.try_trial(generation, self.rules.max_requests) => {
                Ok(Permit { seat, generation, state })
            }
            State::HalfOpen => Err(Refusal::TooMany),
        };
        Some((granted, change))
    }

    /// What came of a call. The state afterwards, and what changed.
    pub fn end(
        &self,
        worker: usize,
        permit: Permit,
        success: bool,
        now: Instant,
    ) -> Option<(State, Option<Change>)> {
        let cell = self.cell(permit.seat)?;
        let (word, change) = self.current(cell, now);
        if word.generation != permit.generation {
            return Some((word.state, change));
        }
        match word.state {
            State::Closed if success => cell.succeed(word.generation, worker),
            State::Closed => {
                let counts = cell.fail(word.generation);
                if self.rules.trip.is_due(&counts) {
                    return Some(self.go(cell, word, State::Open, now));
                }
            }
            State::HalfOpen if success => {
                if cell.trial_succeeded(word.generation) >= self.rules.max_requests {
                    return Some(self.go(cell, word, State::Closed, now));
                }
            }
            State::HalfOpen => return Some(self.go(cell, word, State::Open, now)),
            // No permit is of a generation that is open.
            State::Open => {}
        }
        Some((word.state, change))
    }

    /// The call was not made after all.
    pub fn withdraw(&self, worker: usize, permit: Permit) {
        let Some(cell) = self.cell(permit.seat) else { return };
        match permit.state {
            State::Closed => cell.lane(worker).withdraw(permit.generation),
            State::HalfOpen => cell.withdraw_trial(permit.generation),
            State::Open => {}
        }
    }

    /// Of a method; never 0.
    fn key(&self, method: &[u8]) -> u64 {
        self.hasher.hash_one(method).max(1)
    }

    fn cells(&self) -> &[Cell] {
        self.cells.get_or_init(|| (0..self.cache_size).map(|_| Cell::new(self.lanes)).collect())
    }

    /// `None`: another method sits there by now.
    fn cell(&self, seat: Seat) -> Option<&Cell> {
        let cell = self.cells().get(seat.index)?;
        (cell.key.load(Ordering::Acquire) == seat.key).then_some(cell)
    }

    /// A free cell, or the one that was used least recently; and whose it is.
    fn oldest(&self, cells: &[Cell]) -> (usize, u64) {
        let mut oldest = (0, 0, u64::MAX);
        for (index, cell) in cells.iter().enumerate() {
            let key = cell.key.load(Ordering::Acquire);
            if key == 0 {
                return (index, 0);
            }
            let used = cell.lanes.iter().map(|lane| lane.used.load(Ordering::Relaxed)).max();
            if used.is_some_and(|used| used < oldest.2) {
                oldest = (index, key, used.unwrap_or_default());
            }
        }
        (oldest.0, oldest.1)
    }

    fn use_now(&self, cell: &Cell, worker: usize, now: Instant) {
        let Clock(clock) = &self.clocks[worker % self.lanes];
        let last = clock.load(Ordering::Relaxed);
        let used = self.nanos(now).max(last.saturating_add(1));
        clock.store(used, Ordering::Relaxed);
        cell.lane(worker).used.store(used, Ordering::Relaxed);
    }

    /// Since the epoch; some 500 years of them.
    fn nanos(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.epoch);
        since.as_secs().saturating_mul(1_000_000_000).saturating_add(since.subsec_nanos().into())
    }

    fn millis(&self, now: Instant) -> u64 {
        (self.nanos(now) / 1_000_000).min(EXPIRY_MAX)
    }

    /// gobreaker's `currentState`: what time alone has changed.
    #[inline(always)]
    fn current(&self, cell: &Cell, now: Instant) -> (Word, Option<Change>) {
        let word = cell.word();
        if word.expiry == 0 { (word, None) } else { self.after_time(cell, word, now) }
    }

    fn after_time(&self, cell: &Cell, word: Word, now: Instant) -> (Word, Option<Change>) {
        if word.expiry >= self.millis(now) {
            return (word, None);
        }
        let to = match word.state {
            State::Closed => State::Closed,
            State::Open | State::HalfOpen => State::HalfOpen,
        };
        let (_, change) = self.go(cell, word, to, now);
        (cell.word(), change)
    }

    /// To the next generation, unless another worker went there first.
    #[cold]
    fn go(&self, cell: &Cell, word: Word, to: State, now: Instant) -> (State, Option<Change>) {
        let time = match to {
            State::Closed => self.rules.interval,
            State::Open => self.rules.timeout,
            State::HalfOpen => 0,
        };
        let next = Word {
            state: to,
            generation: word.generation.wrapping_add(1),
            expiry: if time == 0 { 0 } else { self.millis(now).saturating_add(time) },
        };
        match cell.change(word, next) {
            Ok(()) => (to, (word.state != to).then_some(Change { from: word.state, to })),
            Err(other) => (other.state, None),
        }
    }
}

#[cfg(test)]
mod tests;
