//! How many retries the calls to one target may cost, whatever its policy grants each of them: when
//! most calls fail, retries are what keeps a target down.
//!
//! 1. Each call that begins pays in a share of a retry; each retry takes a whole one.
//! 2. Beside that there are [`RESERVE_PER_SECOND`] retries in a second, so that a target that is
//!    seldom called may be tried again, too.
//! 3. What is saved is bounded: [`SAVED_MAX`] retries, and one second of the reserve. In a time of
//!    `t` seconds with `n` calls there are at most `n` shares, `SAVED_MAX` and `t + 1` seconds of
//!    the reserve.
//!
//! Like Finagle's `RetryBudget` and Linkerd's `retryBudget`, whose 10 retries in a second these
//! are. Time is an argument.

use crate::config::share::PERCENT_MAX;
use std::time::{Duration, Instant};

/// Retries in a second that nobody pays in for.
pub const RESERVE_PER_SECOND: u32 = 10;
/// Retries that may be saved.
pub const SAVED_MAX: u32 = 100;

/// A retry, in the hundredths that are paid in.
const WHOLE: u32 = 100;
const DRIP: Duration = Duration::from_millis(1000 / RESERVE_PER_SECOND as u64);

/// See the file's text.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    percent: u32,
    /// In hundredths.
    saved: u32,
    reserve: u32,
    dripped: Instant,
}

impl Budget {
    pub fn new(percent: u32, now: Instant) -> Self {
        let percent = percent.min(PERCENT_MAX);
        Self { percent, saved: 0, reserve: RESERVE_PER_SECOND, dripped: now }
    }

    /// A call begins.
    pub fn pay_in(&mut self) {
        self.saved = (self.saved + self.percent).min(SAVED_MAX * WHOLE);
    }

    /// Takes a retry, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        if self.saved >= WHOLE {
            self.saved -= WHOLE;
            return true;
        }
        self.drip(now);
        let granted = self.reserve > 0;
        self.reserve -= u32::from(granted);
        granted
    }

    fn drip(&mut self, now: Instant) {
        let drops = now.saturating_duration_since(self.dripped).as_nanos() / DRIP.as_nanos();
        if drops >= u128::from(RESERVE_PER_SECOND - self.reserve) {
            (self.reserve, self.dripped) = (RESERVE_PER_SECOND, now);
        } else {
            self.reserve += drops as u32;
            self.dripped += DRIP * drops as u32;
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_calls_and_a_few_more() {
        let now = Instant::now();
        let mut budget = Budget::new(20, now);
        let granted = |budget: &mut Budget, now| (0..1000).filter(|_| budget.take(now)).count();
        assert_eq!(granted(&mut budget, now), 10, "the reserve");
        (0..50).for_each(|_| budget.pay_in());
        assert_eq!(granted(&mut budget, now), 10, "a fifth of 50");
        (0..4).for_each(|_| budget.pay_in());
        assert_eq!(granted(&mut budget, now), 0);
        budget.pay_in();
        assert_eq!(granted(&mut budget, now), 1, "shares add up");
        let later = now + Duration::from_millis(350);
        assert_eq!(granted(&mut budget, later), 3);
        assert_eq!(granted(&mut budget, later + Duration::from_millis(50)), 1, "the half drop");
        assert_eq!(granted(&mut budget, later + Duration::from_secs(3600)), 10);
        (0..1_000_000).for_each(|_| budget.pay_in());
        assert_eq!(
            granted(&mut budget, later + Duration::from_secs(3600)),
            100,
            "no more is saved"
        );
    }

    #[test]
    fn nothing_is_paid_in_where_the_share_is_nothing() {
        let now = Instant::now();
        let mut budget = Budget::new(0, now);
        (0..1000).for_each(|_| budget.pay_in());
        assert_eq!((0..1000).filter(|_| budget.take(now)).count(), 10);
    }

    /// SplitMix64.
    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Invariant 3, whatever comes; and who never takes more than was paid in is never refused.
    #[test]
    fn holds_in_any_order_of_calls_and_retries() {
        for seed in 0..300 {
            let mut dice = seed;
            let start = Instant::now();
            let percent = [0, 1, 20, 100, 150, 1000, 4000][(next(&mut dice) % 7) as usize];
            let (mut budget, mut now) = (Budget::new(percent, start), start);
            let percent = u64::from(percent.min(PERCENT_MAX));
            let (mut calls, mut retries, mut begins) = (0_u64, 0_u64, Vec::new());
            for step in 0..3000 {
                now += Duration::from_millis([0, 0, 0, 7, 120][(next(&mut dice) % 5) as usize]);
                if next(&mut dice).is_multiple_of(1 + seed % 4) {
                    calls += 1;
                    budget.pay_in();
                } else {
                    let granted = budget.take(now);
                    let paid = calls * percent / 100 > retries;
                    assert!(granted || !paid || calls * percent / 100 > 100, "seed {seed} {step}");
                    retries += u64::from(granted);
                }
                begins.push((now, calls, retries));
                let from = begins[(next(&mut dice) % begins.len() as u64) as usize];
                let (calls, retries) = (calls - from.1, retries - from.2);
                let tenths = now.duration_since(from.0).as_millis() as u64 / 100;
                let most = calls * percent / 100 + 1 + 100 + tenths + 1 + 10;
                assert!(retries <= most, "seed {seed} {step}: {retries} of {most}");
            }
        }
    }
}
