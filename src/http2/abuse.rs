//! Budgets against peers that cost more than they bring (RFC 9113 §10.5).
//!
//! 1. A budget is a bucket: `burst` at most, `per_second` drips back in. Empty means
//!    ENHANCE_YOUR_CALM.
//! 2. What a peer legitimately sends in proportion to traffic (WINDOW_UPDATE per DATA frame, the
//!    PING of a bandwidth probe, the crumb at a window's end, resets of a fraction of its calls)
//!    is paid by that traffic first: fixed budgets alone have broken honest peers.
//! 3. A reset is *rapid* when what it resets was opened in the octets of the same read: nobody
//!    needs a call for so short a time. A caller that cancels all of its calls at once has held
//!    them, and no more of them than the limit of streams: that many it may cancel.
//!
//! Refuses to know frames, and the clock.

use super::Limits;
use super::error::{ConnectionError, Limit};
use std::time::Instant;

/// Streams that we reset for the peer's errors, in a burst (CVE-2025-8671).
pub const ERRORS_BURST: u32 = 1024;
/// Control frames that one frame carrying payload pays for: WINDOW_UPDATE for stream and
/// connection and a PING in both directions, and some more.
const EARNED_PER_FRAME: u32 = 10;
/// Bounds what can be saved up.
const EARNED_MAX: u32 = 10_000;
/// DATA of fewer octets is tiny: not even the prefix of a message fits. A message of no octets is
/// not tiny, and a stream of them costs nobody anything but its own windows.
pub const TINY_BELOW: u32 = 5;
/// Bounds what tiny frames can be saved up.
const CRUMBS_MAX: u32 = 10_000;

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
    rapid: Bucket,
    cancels: Bucket,
    errors: Bucket,
    control: Bucket,
    earned: u32,
    /// DATA frames that have paid for no tiny one yet: frames and windows that end amid a message
    /// leave a crumb each, and so do writers that send a message's prefix by itself.
    crumbs: u32,
}

impl Budgets {
    pub fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            rapid: Bucket::new(limits.resets_burst, limits.resets_per_second, now),
            cancels: Bucket::new(limits.cancels_burst, limits.cancels_per_second, now),
            errors: Bucket::new(ERRORS_BURST, limits.resets_per_second, now),
            control: Bucket::new(limits.control_burst, limits.control_per_second, now),
            earned: 0,
            crumbs: 0,
        }
    }

    /// A frame with payload went by, in either direction.
    #[inline]
    pub fn earn(&mut self) {
        self.earned = (self.earned + EARNED_PER_FRAME).min(EARNED_MAX);
    }

    /// DATA came. Only what is not tiny earns anything.
    #[inline]
    pub fn data(&mut self, octets: u32, now: Instant) -> Result<(), ConnectionError> {
        if octets < TINY_BELOW {
            return self.tiny(now);
        }
        self.crumbs = (self.crumbs + 1).min(CRUMBS_MAX);
        self.earn();
        Ok(())
    }

    #[cold]
    fn tiny(&mut self, now: Instant) -> Result<(), ConnectionError> {
        match self.crumbs.checked_sub(1) {
            Some(left) => self.crumbs = left,
            None => return calm(self.control.take(now), Limit::TinyData),
        }
        Ok(())
    }

    /// A stream came to its regular end: resets may be as many as these.
    pub fn complete(&mut self) {
        self.rapid.used = self.rapid.used.saturating_sub(1);
        self.cancels.used = self.cancels.used.saturating_sub(1);
    }

    /// The peer reset a stream (CVE-2023-44487), in the read that opened it or later.
    pub fn reset(&mut self, rapid: bool, now: Instant) -> Result<(), ConnectionError> {
        match rapid {
            true => calm(self.rapid.take(now), Limit::RapidResets),
            false => calm(self.cancels.take(now), Limit::Cancels),
        }
    }

    /// The peer made us reset a stream.
    pub fn error(&mut self, now: Instant) -> Result<(), ConnectionError> {
        calm(self.errors.take(now), Limit::StreamErrors)
    }

    /// The peer reset a stream that is gone, as its reset crossed our last words: that may be so
    /// with all streams that there can be at once, and each is one that it does not cancel.
    pub fn late_reset(&mut self, now: Instant) -> Result<(), ConnectionError> {
        calm(self.is_paid_for() || self.cancels.take(now), Limit::LateResets)
    }

    /// Frames that traffic brings with it and that bring nothing themselves.
    pub fn control(&mut self, what: Limit, now: Instant) -> Result<(), ConnectionError> {
        calm(self.is_paid_for() || self.control.take(now), what)
    }

    /// By frames with payload.
    fn is_paid_for(&mut self) -> bool {
        let paid = self.earned > 0;
        self.earned -= u32::from(paid);
        paid
    }

    /// Frames that nothing in the traffic asks for.
    pub fn rare(&mut self, what: Limit, now: Instant) -> Result<(), ConnectionError> {
        calm(self.control.take(now), what)
    }
}

fn calm(within: bool, limit: Limit) -> Result<(), ConnectionError> {
    match within {
        true => Ok(()),
        false => Err(ConnectionError::calm(limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::ErrorCode;
    use super::*;
    use std::time::Duration;

    fn budgets(now: Instant) -> Budgets {
        let limits = Limits {
            resets_burst: 3,
            resets_per_second: 2,
            cancels_burst: 5,
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
            budgets.reset(true, start).unwrap();
        }
        let error = budgets.reset(true, start).unwrap_err();
        assert_eq!(
            (error.code, error.limit),
            (ErrorCode::ENHANCE_YOUR_CALM, Some(Limit::RapidResets))
        );
        let later = start + Duration::from_millis(499);
        assert!(budgets.reset(true, later).is_err());
        let later = start + Duration::from_millis(500);
        assert!(budgets.reset(true, later).is_ok());
        assert!(budgets.reset(true, later).is_err());
        for _ in 0..5 {
            budgets.reset(false, later).unwrap();
        }
        assert_eq!(budgets.reset(false, later).unwrap_err().limit, Some(Limit::Cancels));
        budgets.complete();
        assert!(budgets.reset(true, later).is_ok(), "a completed stream pays for a reset");
        assert!(budgets.reset(false, later).is_ok(), "of either kind");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an arbitrary instant to count from")]
    fn data_pays_for_its_crumbs() {
        let start = Instant::now();
        let mut budgets = budgets(start);
        for _ in 0..10 {
            budgets.data(16 << 10, start).unwrap();
            budgets.data(TINY_BELOW - 1, start).unwrap();
        }
        budgets.data(1, start).unwrap();
        budgets.data(1, start).unwrap();
        assert_eq!(budgets.data(1, start).unwrap_err().limit, Some(Limit::TinyData));
        for _ in 0..1000 {
            budgets.data(TINY_BELOW, start).unwrap();
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an arbitrary instant to count from")]
    fn traffic_pays_for_control_frames_and_not_for_settings() {
        let start = Instant::now();
        let mut budgets = budgets(start);
        budgets.earn();
        for _ in 0..12 {
            budgets.control(Limit::Pings, start).unwrap();
        }
        assert!(budgets.control(Limit::Pings, start).is_err());
        budgets.earn();
        assert!(budgets.rare(Limit::Settings, start).is_err());
        assert!(budgets.control(Limit::Pings, start).is_ok());
    }
}
