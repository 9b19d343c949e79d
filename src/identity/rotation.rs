//! When an SVID is to be renewed: a schedule without a clock.
//!
//! 1. Due at the middle of the lifetime, as in `kit/crypto/spiffe`.
//! 2. A certificate backdated so far that its middle is past already (daprd would renew it in a
//!    tight loop) is due at the middle of what is left of it, and never within [`SPACING`].
//! 3. Looked at every [`LOOK`] at the latest: clocks jump, and machines sleep.

use super::Identity;
use std::time::{Duration, SystemTime};

/// The longest wait between two looks at the clock.
pub const LOOK: Duration = Duration::from_secs(60);
/// The wait after a failed renewal.
pub const RETRY: Duration = Duration::from_secs(10);
/// The shortest wait between two renewals.
pub const SPACING: Duration = Duration::from_secs(1);

/// When the identity at hand must be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    renew_at: SystemTime,
}

impl Schedule {
    pub fn new(identity: &Identity, now: SystemTime) -> Self {
        Self::between(identity.not_before, identity.not_after, now)
    }

    fn between(not_before: SystemTime, not_after: SystemTime, now: SystemTime) -> Self {
        let lifetime = not_after.duration_since(not_before).unwrap_or_default();
        let middle = not_before + lifetime / 2;
        if middle > now {
            return Self { renew_at: middle };
        }
        let left = not_after.duration_since(now).unwrap_or_default();
        Self { renew_at: now + (left / 2).max(SPACING) }
    }

    pub fn renew_at(&self) -> SystemTime {
        self.renew_at
    }

    /// How long to wait before the next look; `None`: renew now.
    pub fn wait(&self, now: SystemTime) -> Option<Duration> {
        match self.renew_at.duration_since(now) {
            Ok(left) if !left.is_zero() => Some(left.min(LOOK)),
            Ok(_) | Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn renews_at_half_of_the_lifetime() {
        // Sentry's defaults: backdated by 15 minutes, 24 hours left.
        let issued = at(1_000_000);
        let not_before = issued - HOUR / 4;
        let schedule = Schedule::between(not_before, issued + 24 * HOUR, issued);
        // 11 h 52 m 30 s after the issue (spec: "about 11 h 52 m").
        let renew_at = issued + Duration::from_secs(11 * 3600 + 52 * 60 + 30);
        assert_eq!(schedule.renew_at(), renew_at);
        assert_eq!(schedule.wait(issued), Some(LOOK));
        assert_eq!(schedule.wait(renew_at - LOOK / 2), Some(LOOK / 2));
        assert_eq!(schedule.wait(renew_at), None);
        assert_eq!(schedule.wait(renew_at + HOUR), None);
    }

    #[test]
    fn never_renews_in_a_tight_loop() {
        let issued = at(1_000_000);
        // 10 minutes of life, backdated by 15: the middle is 2.5 minutes ago.
        let schedule = Schedule::between(issued - HOUR / 4, issued + HOUR / 6, issued);
        assert_eq!(schedule.renew_at(), issued + HOUR / 12);
        for after in [issued, issued - HOUR, issued - 2 * HOUR] {
            let schedule = Schedule::between(issued - HOUR, after, issued);
            assert_eq!(schedule.wait(issued), Some(SPACING));
        }
    }

    #[test]
    fn a_clock_set_back_only_waits_longer() {
        let schedule = Schedule::between(at(1000), at(3000), at(1000));
        assert_eq!(schedule.wait(at(0)), Some(LOOK));
    }
}
