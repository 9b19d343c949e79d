//! When the calls of an open schedule are due: pure arithmetic.
//!
//! 1. Call *n*, from 0, is due when the integral of the rate reaches *n*: an error of rounding in
//!    one call is none in the next.
//! 2. After the last segment its final rate goes on; where that is 0, no further call is due.
//!
//! Refuses to know clocks.

use crate::plan::Segment;
use std::time::Duration;

pub(super) struct Dues<'a> {
    segments: std::slice::Iter<'a, Segment>,
    segment: Segment,
    /// Calls due before the segment, and when it begins.
    before: f64,
    start: f64,
    next: u64,
}

impl<'a> Dues<'a> {
    pub(super) fn new(segments: &'a [Segment]) -> Self {
        let none = Segment { from: 0.0, to: 0.0, length: Duration::ZERO };
        Self { segments: segments.iter(), segment: none, before: 0.0, start: 0.0, next: 0 }
    }
}

impl Iterator for Dues<'_> {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let calls = self.next as f64;
        while calls >= self.before + in_all(self.segment) {
            let Some(next) = self.segments.next() else { break };
            self.before += in_all(self.segment);
            self.start += self.segment.length.as_secs_f64();
            self.segment = *next;
        }
        let offset = reached(self.segment, calls - self.before)?;
        self.next += 1;
        Duration::try_from_secs_f64(self.start + offset).ok()
    }
}

/// Calls of a whole segment.
fn in_all(segment: Segment) -> f64 {
    (segment.from + segment.to) / 2.0 * segment.length.as_secs_f64()
}

/// Seconds into `segment` until `calls` of it are due.
fn reached(segment: Segment, calls: f64) -> Option<f64> {
    let Segment { from, to, length } = segment;
    let length = length.as_secs_f64();
    if calls <= 0.0 && from > 0.0 {
        return Some(0.0);
    }
    if calls < in_all(segment) {
        // calls = from t + slope t²/2, solved for t in the form that is stable as slope nears 0.
        let slope = (to - from) / length;
        let root = (from * from + 2.0 * slope * calls).max(0.0).sqrt();
        return Some(if calls <= 0.0 { 0.0 } else { 2.0 * calls / (from + root) });
    }
    (to > 0.0).then(|| length + (calls - in_all(segment)) / to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(from: f64, to: f64, millis: u64) -> Segment {
        Segment { from, to, length: Duration::from_millis(millis) }
    }

    fn due(segments: &[Segment], calls: usize) -> Vec<f64> {
        Dues::new(segments).take(calls).map(|due| due.as_secs_f64()).collect()
    }

    fn assert_near(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }

    #[test]
    fn a_constant_rate_is_even() {
        assert_near(&due(&[segment(4.0, 4.0, 10_000)], 5), &[0.0, 0.25, 0.5, 0.75, 1.0]);
    }

    #[test]
    fn a_million_calls_on_the_beat_is_exact() {
        let rate = [segment(3000.0, 3000.0, 1_000_000)];
        let last = Dues::new(&rate).nth(2_999_999).expect("due");
        assert!((last.as_secs_f64() - 2_999_999.0 / 3000.0).abs() < 1e-6);
    }

    #[test]
    fn steps_follow_each_other() {
        let steps = [segment(2.0, 2.0, 1000), segment(4.0, 4.0, 500), segment(1.0, 1.0, 2000)];
        assert_near(&due(&steps, 6), &[0.0, 0.5, 1.0, 1.25, 1.5, 2.5]);
    }

    #[test]
    fn ramps_are_the_integral_of_the_rate() {
        // 0 to 10 calls/s in 10 s: n = t²/2.
        let up = due(&[segment(0.0, 10.0, 10_000)], 51);
        for (n, due) in up.iter().enumerate() {
            assert!((due - (2.0 * n as f64).sqrt()).abs() < 1e-6, "call {n} at {due}");
        }
        // 10 down to 0 in 10 s: n = 10 t - t²/2, 50 calls, then none.
        let down: Vec<_> = Dues::new(&[segment(10.0, 0.0, 10_000)]).collect();
        assert!((49..=51).contains(&down.len()), "{}", down.len());
        let t = down[18].as_secs_f64();
        assert!((10.0 * t - t * t / 2.0 - 18.0).abs() < 1e-6);
    }

    #[test]
    fn the_last_rate_goes_on() {
        assert_near(&due(&[segment(2.0, 2.0, 500)], 4), &[0.0, 0.5, 1.0, 1.5]);
        assert_eq!(Dues::new(&[segment(0.0, 0.0, 500)]).count(), 0);
        assert_eq!(Dues::new(&[]).count(), 0);
    }

    #[test]
    fn a_pause_between_steps_holds_calls_back() {
        let steps = [segment(1.0, 1.0, 2000), segment(0.0, 0.0, 3000), segment(1.0, 1.0, 2000)];
        assert_near(&due(&steps, 4), &[0.0, 1.0, 5.0, 6.0]);
    }
}
