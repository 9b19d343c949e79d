//! What breakers are like at a moment, for somebody who looks.
//!
//! 1. Nothing is changed. A breaker is told as the next call would find it: what time alone changes
//!    counts as changed.
//! 2. No breaker knows its method's name, only what that hashes to: who looks brings the names that
//!    he knows, and a breaker that has none of them is told without.

use super::cell::{Cell, Word};
use super::{Breakers, State, name};
use crate::policy::trip::Counts;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// One breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// App and path.
    pub method: Option<(String, String)>,
    pub state: State,
    /// Until an open one is half-open, or the counts of a closed one are cleared.
    pub left: Option<Duration>,
    /// Since the state began, or since they were cleared; a half-open one's are of its trials.
    pub counts: Counts,
}

impl Breakers {
    /// All that calls have met. `methods`: apps and paths.
    pub fn look<'a>(
        &self,
        methods: impl Iterator<Item = (&'a str, &'a str)>,
        now: Instant,
    ) -> Vec<Look> {
        let Some(cells) = self.cells.get() else { return Vec::new() };
        let by_key: HashMap<u64, (&str, &str)> = methods
            .map(|(app, path)| (self.key(name(app, path).as_bytes()), (app, path)))
            .collect();
        let looks = cells.iter().filter_map(|cell| {
            let key = Some(cell.key.load(Ordering::Acquire)).filter(|key| *key != 0)?;
            let method = by_key.get(&key).map(|&(app, path)| (app.to_owned(), path.to_owned()));
            Some(Look { method, ..self.look_at(cell, now) })
        });
        looks.collect()
    }

    fn look_at(&self, cell: &Cell, now: Instant) -> Look {
        let (word, millis) = (cell.word(), self.millis(now));
        let (state, left, counts) = match word.expiry {
            0 => (word.state, None, cell.counts(word)),
            expiry if expiry >= millis => {
                let left = Duration::from_millis(expiry - millis);
                (word.state, Some(left), cell.counts(word))
            }
            _ => (over(word), None, Counts::default()),
        };
        Look { method: None, state, left, counts }
    }
}

/// What a state becomes when its time is over.
fn over(word: Word) -> State {
    match word.state {
        State::Closed => State::Closed,
        State::Open | State::HalfOpen => State::HalfOpen,
    }
}
