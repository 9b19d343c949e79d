//! Budgets against peers that cost more than they bring (RFC 9113 §10.5).
//!
//! 1. A budget is a bucket: `burst` at most, `per_second` drips back in. Empty means
//!    ENHANCE_YOUR_CALM.
//! 2. What a peer legitimately sends in proportion to traffic (WINDOW_UPDATE per DATA frame, the
//!    PING of a bandwidth probe, resets of a fraction of its calls) is paid by that traffic
//!    first: fixed budgets alone have broken honest peers.
//!
//! Refuses to know frames, and the clock.

use super::Limits;
use super::error::{ConnectionError, ErrorCode};
use std::time::Instant;

/// Streams that we reset for the peer's errors, in a burst (CVE-2025-8671).
const ERRORS_BURST: u32 = 1024;
/// Control frames that one frame carrying payload pays for: WINDOW_UPDATE for stream and
/// connection and a PING in both directions, and some more.
const EARNED_PER_FRAME: u32 = 10;
/// Bounds what can be saved up.
const EARNED_MAX: u32 = 10_000;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    used: u32,
    burst: u32,
    per_second: u32,
    at: Instant,
}

impl Bucket {
    fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        Self { used: 0, burst, per_second, at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        if self.used >= self.burst {
            self.refill(now);
        }
        if self.used >= self.burst {
            return false;
        }
        if self.used == 0 {
            self.at = now;
        }
        self.used += 1;
        true
    }

    fn refill(&mut self, now: Instant) {
        let elapsed_ms = now.saturating_duration_since(self.at).as_millis();
        let drops = elapsed_ms * u128::from(self.per_second) / 1000;
        if drops > 0 {
            // The rest of less than one drop is lost, at most once in `burst` frames.
            self.used = self.used.saturating_sub(u32::try_from(drops).unwrap_or(u32::MAX));
            self.at = now;
        }
    }
}

/// All budgets of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Budgets {
    resets: Bucket,
    errors: Bucket,
    control: Bucket,
    earned: u32,
}

impl Budgets {
    pub fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            resets: Bucket::new(limits.resets_burst, limits.resets_per_second, now),
            errors: Bucket::new(ERRORS_BURST, limits.resets_per_second, now),
            control: Bucket::new(limits.control_burst, limits.control_per_second, now),
            earned: 0,
        }
    }

    /// A frame with payload went by, in either direction.
    pub fn earn(&mut self) {
        self.earned = (self.earned + EARNED_PER_FRAME).min(EARNED_MAX);
    }

    /// A stream came to its regular end: resets may be as many as these.
    pub fn complete(&mut self) {
        self.resets.used = self.resets.used.saturating_sub(1);
    }

    /// The peer reset a stream (CVE-2023-44487).
    pub fn reset(&mut self, now: Instant) -> Result<(), ConnectionError> {
        calm(self.resets.take(now), "too many streams reset")
    }

    /// The peer made us reset a stream.
    pub fn error(&mut self, now: Instant) -> Result<(), ConnectionError> {
        calm(self.errors.take(now), "too many stream errors")
    }

    /// PING, WINDOW_UPDATE, RST_STREAM of nothing, an empty DATA frame, a frame of unknown type.
    pub fn control(&mut self, now: Instant) -> Result<(), ConnectionError> {
        if self.earned > 0 {
            self.earned -= 1;
            return Ok(());
        }
        calm(self.control.take(now), "too many control frames")
    }

    /// SETTINGS, PRIORITY: nothing in the traffic asks for them.
    pub fn rare(&mut self, now: Instant) -> Result<(), ConnectionError> {
        calm(self.control.take(now), "too many SETTINGS or PRIORITY frames")
    }
}

fn calm(within: bool, reason: &'static str) -> Result<(), ConnectionError> {
    match within {
        true => Ok(()),
        false => Err(ConnectionError::new(ErrorCode::ENHANCE_YOUR_CALM, reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn budgets(now: Instant) -> Budgets {
        let limits = Limits {
            resets_burst: 3,
            resets_per_second: 2,
            control_burst: 2,
            control_per_second: 0,
            ..Limits::default()
        };
        Budgets::new(&limits, now)
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an arbitrary instant to count from")]
    fn bursts_and_refills() {
        let start = Instant::now();
        let mut budgets = budgets(start);
        for _ in 0..3 {
            budgets.reset(start).unwrap();
        }
        let error = budgets.reset(start).unwrap_err();
        assert_eq!(error.code, ErrorCode::ENHANCE_YOUR_CALM);
        let later = start + Duration::from_millis(499);
        assert!(budgets.reset(later).is_err());
        let later = start + Duration::from_millis(500);
        assert!(budgets.reset(later).is_ok());
        assert!(budgets.reset(later).is_err());
        budgets.complete();
        assert!(budgets.reset(later).is_ok(), "a completed stream pays for a reset");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an arbitrary instant to count from")]
    fn traffic_pays_for_control_frames_and_not_for_settings() {
        let start = Instant::now();
        let mut budgets = budgets(start);
        budgets.earn();
        for _ in 0..12 {
            budgets.control(start).unwrap();
        }
        assert!(budgets.control(start).is_err());
        budgets.earn();
        assert!(budgets.rare(start).is_err());
        assert!(budgets.control(start).is_ok());
    }
}
