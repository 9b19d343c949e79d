//! Whether a failed attempt is followed by another one, and after how long.
//!
//! Sources: `retry/retry.go` of Dapr's kit, `pkg/resiliency/retry.go` of Dapr, cenkalti/backoff v4,
//! whose `ExponentialBackOff` and `WithMaxRetries` this follows. Randomness is an argument.

use crate::config::resiliency::RetrySpec;
use std::time::{Duration, Instant};

/// backoff's defaults, which no resource can change.
const INITIAL_INTERVAL: Duration = Duration::from_millis(500);
const MULTIPLIER: f64 = 1.5;
const RANDOMIZATION: f64 = 0.5;
const ELAPSED_MAX: Duration = Duration::from_secs(15 * 60);

/// Statuses there are.
const CODE_MAX: u8 = 16;

/// A retry policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry(RetrySpec);

/// How far one call is with its policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    begun: Instant,
    /// Attempts after the first.
    retries: u32,
    /// The middle of the next wait, if exponential.
    interval: Duration,
}

impl Backoff {
    pub fn new(now: Instant) -> Self {
        Self { begun: now, retries: 0, interval: INITIAL_INTERVAL }
    }

    pub fn retries(&self) -> u32 {
        self.retries
    }
}

impl Retry {
    pub fn new(spec: RetrySpec) -> Self {
        Self(spec)
    }

    /// False: there is never a second attempt.
    pub fn retries_at_all(&self) -> bool {
        self.0.max_retries != Some(0)
    }

    /// May there be another attempt after this one?
    pub fn has_left(&self, backoff: &Backoff) -> bool {
        self.0.max_retries.is_none_or(|max| backoff.retries < max)
    }

    /// Whether an attempt that ended with this status may be followed by another one. A status that
    /// there is none of is never tried again.
    pub fn matches(&self, code: u8) -> bool {
        code <= CODE_MAX && self.0.codes.is_none_or(|codes| codes & 1 << code != 0)
    }

    /// The wait before the next attempt; `None`: there is none. `random` is in 0..1.
    pub fn next(&self, backoff: &mut Backoff, random: f64, now: Instant) -> Option<Duration> {
        if !self.has_left(backoff) {
            return None;
        }
        let wait = match self.0.exponential {
            false => self.0.duration,
            true => self.grow(backoff, random, now)?,
        };
        backoff.retries = backoff.retries.saturating_add(1);
        Some(wait)
    }

    fn grow(&self, backoff: &mut Backoff, random: f64, now: Instant) -> Option<Duration> {
        let interval = backoff.interval.as_secs_f64();
        let (low, high) = (interval * (1.0 - RANDOMIZATION), interval * (1.0 + RANDOMIZATION));
        let wait = Duration::from_secs_f64(low + random.clamp(0.0, 1.0) * (high - low));
        let max = self.0.max_interval;
        backoff.interval = match backoff.interval.as_secs_f64() >= max.as_secs_f64() / MULTIPLIER {
            true => max,
            false => backoff.interval.mul_f64(MULTIPLIER),
        };
        let elapsed = now.saturating_duration_since(backoff.begun);
        (elapsed + wait <= ELAPSED_MAX).then_some(wait)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    fn exponential(max_interval: Duration, max_retries: Option<u32>) -> Retry {
        let spec = RetrySpec { exponential: true, max_interval, max_retries, ..Default::default() };
        Retry::new(spec)
    }

    #[test]
    fn constant_waits_are_counted() {
        let duration = Duration::from_millis(70);
        let retry =
            Retry::new(RetrySpec { duration, max_retries: Some(2), ..RetrySpec::default() });
        let mut backoff = Backoff::new(Instant::now());
        let now = Instant::now();
        assert_eq!(retry.next(&mut backoff, 0.3, now), Some(duration));
        assert!(retry.has_left(&backoff));
        assert_eq!(retry.next(&mut backoff, 0.9, now), Some(duration));
        assert_eq!((retry.has_left(&backoff), retry.next(&mut backoff, 0.1, now)), (false, None));
        assert_eq!(backoff.retries(), 2);
        let never = Retry::new(RetrySpec { max_retries: Some(0), ..RetrySpec::default() });
        assert!(!never.retries_at_all());
        assert_eq!(never.next(&mut Backoff::new(now), 0.5, now), None);
        // Constant ones know no end of time.
        let endless = Retry::new(RetrySpec { duration, ..RetrySpec::default() });
        let later = now + 10 * ELAPSED_MAX;
        assert_eq!(endless.next(&mut backoff, 0.5, later), Some(duration));
    }

    /// 500 ms, 750 ms, 1125 ms, … each ± half, never beyond the longest; in all 15 min.
    #[test]
    fn exponential_waits_grow() {
        let now = Instant::now();
        let retry = exponential(Duration::from_secs(2), None);
        let mut backoff = Backoff::new(now);
        for middle in [500, 750, 1125, 1687, 2000, 2000] {
            for (random, factor) in [(0.0, 0.5), (0.5, 1.0), (1.0, 1.5)] {
                let wait = retry.next(&mut backoff.clone(), random, now).unwrap();
                let expected = f64::from(middle) * factor;
                let got = wait.as_secs_f64() * 1e3;
                assert!((got - expected).abs() < 1.0, "{got} {expected}");
            }
            retry.next(&mut backoff, 0.5, now);
        }
        assert_eq!(retry.next(&mut backoff, 0.5, now + ELAPSED_MAX), None);
        // The first wait is not bounded by the longest, as there.
        let small = exponential(Duration::from_millis(10), Some(9));
        let mut backoff = Backoff::new(now);
        assert_eq!(small.next(&mut backoff, 0.5, now), Some(Duration::from_millis(500)));
        assert_eq!(small.next(&mut backoff, 0.5, now), Some(Duration::from_millis(10)));
    }

    #[test]
    fn statuses_match() {
        let codes = |codes| Retry::new(RetrySpec { codes, ..RetrySpec::default() });
        assert!((0..=16).all(|code| codes(None).matches(code)));
        assert!(!codes(None).matches(17) && !codes(None).matches(200));
        let some = codes(Some(1 << 6 | 1 << 14));
        let matched: Vec<u8> = (0..=255).filter(|code| some.matches(*code)).collect();
        assert_eq!(matched, [6, 14]);
        assert!(!codes(Some(0)).matches(14));
    }
}
