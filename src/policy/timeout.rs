//! When an attempt must be over.
//!
//! Source: `NewRunnerWithOptions` of Dapr's `pkg/resiliency/policy.go`, whose attempts run under a
//! context that ends at the earlier of the policy's time and the caller's.

use std::time::{Duration, Instant};

/// Of an attempt that begins now; `None`: it may take as long as it likes.
pub fn attempt_deadline(policy: Option<Duration>, now: Instant) -> Option<Instant> {
    now.checked_add(policy?)
}

/// What the callee is told: the earlier of the two.
pub fn earlier(caller: Option<Instant>, attempt: Option<Instant>) -> Option<Instant> {
    match (caller, attempt) {
        (Some(caller), Some(attempt)) => Some(caller.min(attempt)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn the_earlier_counts() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let attempt = attempt_deadline(Some(second), now);
        assert_eq!(attempt, Some(now + second));
        assert_eq!(attempt_deadline(None, now), None);
        // Longer than time goes: no limit.
        assert_eq!(attempt_deadline(Some(Duration::MAX), now), None);
        assert_eq!(earlier(None, attempt), attempt);
        assert_eq!(earlier(Some(now), attempt), Some(now));
        assert_eq!(earlier(Some(now + 2 * second), attempt), attempt);
        assert_eq!(earlier(None, None), None);
    }
}
