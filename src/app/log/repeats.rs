//! Warnings and errors that come again and again in the same words.
//!
//! 1. Of lines alike in level, scope and text [`LINES_MAX`] are written in [`PERIOD`]; the others
//!    are counted, and the count is told when the period is over: nothing is left out unsaid.
//! 2. [`KINDS_MAX`] kinds of lines are told apart; one that does not fit is written.
//!
//! Knows no clock: the time is an argument.

use crate::observe::log::Severity;
use std::time::{Duration, Instant};

/// Lines of a kind that are written in a period.
pub(super) const LINES_MAX: u32 = 5;
pub(super) const PERIOD: Duration = Duration::from_secs(30);
const KINDS_MAX: usize = 64;

/// What makes lines alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) severity: Severity,
    pub(super) scope: String,
    pub(super) message: String,
}

#[derive(Debug)]
struct Known {
    kind: Kind,
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Known {
    fn ends(&self) -> Instant {
        self.since + PERIOD
    }
}

/// See the file's text.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    known: Vec<Known>,
}

impl Repeats {
    /// Is this line to be written?
    pub(super) fn admit(&mut self, kind: Kind, now: Instant) -> bool {
        if let Some(known) = self.known.iter_mut().find(|known| known.kind == kind) {
            if now >= known.ends() && known.left_out == 0 {
                (known.since, known.lines) = (now, 0);
            }
            known.lines += 1;
            let written = known.lines <= LINES_MAX;
            known.left_out += u64::from(!written);
            return written;
        }
        if self.known.len() >= KINDS_MAX {
            self.known.retain(|known| now < known.ends() || known.left_out > 0);
        }
        if self.known.len() < KINDS_MAX {
            self.known.push(Known { kind, since: now, lines: 1, left_out: 0 });
        }
        true
    }

    /// When somebody has to be told what was left out.
    pub(super) fn due(&self) -> Option<Instant> {
        self.known.iter().filter(|known| known.left_out > 0).map(Known::ends).min()
    }

    /// What was left out in periods that are over, or with `all` in any; told once.
    pub(super) fn left_out(&mut self, now: Instant, all: bool) -> Vec<(Kind, u64)> {
        let (told, known) = std::mem::take(&mut self.known)
            .into_iter()
            .partition(|known| known.left_out > 0 && (all || now >= known.ends()));
        self.known = known;
        let told: Vec<Known> = told;
        told.into_iter().map(|known| (known.kind, known.left_out)).collect()
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    fn kind(message: &str) -> Kind {
        let scope = "dapr.runtime".to_owned();
        Kind { severity: Severity::Warning, scope, message: message.to_owned() }
    }

    #[test]
    fn what_is_left_out_is_counted_and_told_once() {
        let (mut repeats, begun) = (Repeats::default(), Instant::now());
        let written = (0..20).filter(|_| repeats.admit(kind("a"), begun)).count();
        assert_eq!(written, LINES_MAX as usize);
        assert!(repeats.admit(kind("b"), begun), "others are not its affair");
        let errors = Kind { severity: Severity::Error, ..kind("a") };
        assert!(repeats.admit(errors, begun));
        assert_eq!(repeats.due(), Some(begun + PERIOD));
        assert_eq!(repeats.left_out(begun + PERIOD / 2, false), []);
        assert_eq!(repeats.left_out(begun + PERIOD, false), [(kind("a"), 15)]);
        assert_eq!(repeats.due(), None);
        assert!(repeats.admit(kind("a"), begun + PERIOD), "a period of its own");
    }

    #[test]
    fn a_flush_tells_at_once_and_quiet_kinds_begin_anew() {
        let (mut repeats, begun) = (Repeats::default(), Instant::now());
        for _ in 0..LINES_MAX {
            assert!(repeats.admit(kind("a"), begun));
        }
        assert_eq!(repeats.left_out(begun, true), []);
        assert!(repeats.admit(kind("a"), begun + PERIOD));
        assert!((1..LINES_MAX).all(|_| repeats.admit(kind("a"), begun + PERIOD)));
        assert!(!repeats.admit(kind("a"), begun + PERIOD));
        assert_eq!(repeats.left_out(begun + PERIOD, true), [(kind("a"), 1)]);
    }

    #[test]
    fn is_bounded() {
        let (mut repeats, begun) = (Repeats::default(), Instant::now());
        for n in 0..10 * KINDS_MAX {
            assert!(repeats.admit(kind(&n.to_string()), begun));
        }
        assert_eq!(repeats.known.len(), KINDS_MAX);
        assert!(repeats.admit(kind("later"), begun + PERIOD));
        assert_eq!(repeats.known.len(), 1);
    }
}
