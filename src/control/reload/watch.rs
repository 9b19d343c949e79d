//! When files have changed and come to rest. No I/O: stamps in, a verdict out.
//!
//! 1. Files count as changed once two looks in a row see the same, and not what was read last: who
//!    writes in several goes is waited for, as long as no pause of his is longer than a look.
//! 2. What never rests is never read, and told once.

use crate::control::stamp::Stamp;
use std::path::PathBuf;

/// Each file that is read, and how it looks.
pub type Stamps = Vec<(PathBuf, Stamp)>;

/// Looks in a row that each saw something else: then it is told.
const UNREST_MAX: u32 = 20;

#[derive(Debug)]
pub struct Watch {
    /// Of what was read last; `None`: nobody knows, so whatever there is is new.
    read: Option<Stamps>,
    seen: Stamps,
    unrest: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Same,
    /// Somebody writes; `long`: he does not come to an end.
    Moving {
        long: bool,
    },
    /// Is to be read.
    Changed,
}

impl Watch {
    /// With what was read at the start: see [`Self::was_read`].
    pub fn new(read: Option<Stamps>) -> Self {
        Self { seen: read.clone().unwrap_or_default(), read, unrest: 0 }
    }

    /// `asked`: somebody wants them read, however they look.
    pub fn look(&mut self, now: Stamps, asked: bool) -> Look {
        if asked {
            self.seen = now;
            return Look::Changed;
        }
        if self.read.as_ref() == Some(&now) {
            self.unrest = 0;
            self.seen = now;
            return Look::Same;
        }
        if self.seen == now {
            return Look::Changed;
        }
        self.seen = now;
        self.unrest = self.unrest.saturating_add(1);
        Look::Moving { long: self.unrest == UNREST_MAX }
    }

    /// How the files looked both before and after they were read, good or bad; `None` if they
    /// changed in between.
    pub fn was_read(&mut self, read: Option<Stamps>) {
        self.unrest = 0;
        self.read = read;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One file, written by who writes `n` octets at once.
    fn stamps(octets: u64) -> Stamps {
        let present = Stamp::Present {
            device: 1,
            inode: 1,
            octets,
            modified: (1, 0),
            changed: (octets.cast_signed(), 0),
        };
        vec![("a.yaml".into(), present)]
    }

    const MOVING: Look = Look::Moving { long: false };

    #[test]
    fn reads_at_rest_and_once() {
        let mut watch = Watch::new(Some(stamps(1)));
        assert_eq!(watch.look(stamps(1), false), Look::Same);
        assert_eq!(watch.look(stamps(2), false), MOVING);
        assert_eq!(watch.look(stamps(3), false), MOVING, "a second go");
        assert_eq!(watch.look(stamps(3), false), Look::Changed);
        watch.was_read(Some(stamps(3)));
        assert_eq!(watch.look(stamps(3), false), Look::Same, "bad or good, it is not read again");
        assert_eq!(watch.look(Vec::new(), false), MOVING);
        assert_eq!(watch.look(stamps(3), false), Look::Same, "gone for a moment");
    }

    /// It changed while it was read: what it looks like now is read again, once it rests.
    #[test]
    fn a_change_during_the_reading_is_not_missed() {
        let mut watch = Watch::new(Some(Vec::new()));
        assert_eq!(watch.look(stamps(1), false), MOVING);
        assert_eq!(watch.look(stamps(1), false), Look::Changed);
        watch.was_read(None);
        assert_eq!(watch.look(stamps(1), false), Look::Changed);
        watch.was_read(Some(stamps(1)));
        assert_eq!(watch.look(stamps(1), false), Look::Same);
    }

    #[test]
    fn who_asks_does_not_wait() {
        let mut watch = Watch::new(Some(stamps(1)));
        for n in [1, 2, 3] {
            assert_eq!(watch.look(stamps(n), true), Look::Changed);
            watch.was_read(Some(stamps(n)));
            assert_eq!(watch.look(stamps(n), false), Look::Same);
        }
    }

    #[test]
    fn endless_writing_is_told_once() {
        let mut watch = Watch::new(Some(Vec::new()));
        let looks: Vec<Look> = (1..100).map(|n| watch.look(stamps(n), false)).collect();
        let told = looks.iter().filter(|look| **look == Look::Moving { long: true }).count();
        assert_eq!((told, looks.len()), (1, 99));
        assert!(!looks.contains(&Look::Changed));
    }
}
