//! Memory that a busy connection needs and an idle one gives back.
//!
//! 1. What is large is given back [`IDLE_AFTER`] after something came, or so long after that, as
//!    soon as no stream is open: calls that come many at once end many at once, and the next ones
//!    come a moment later.
//! 2. When nothing has come for half of that time, what calls take in any case goes too: slots of
//!    streams, spare sections, queues, HPACK's recent literals. The next call takes it anew. A
//!    connection whose calls last longer keeps that until something comes again.
//! 3. The owner's timer says when. It is set once in that time, and only by what comes or by what
//!    is large: a quiet stream costs nothing, nor do PINGs.
//!
//! Refuses to bound what a busy connection keeps: others do.

use super::{Connection, Settling};
use crate::http2::field::FieldSection;
use crate::http2::table::Table;
use std::time::{Duration, Instant};

/// Between what came and the look.
pub(in crate::http2) const IDLE_AFTER: Duration = Duration::from_secs(1);
/// Field sections kept by an idle connection.
const SPARES_IDLE_MAX: usize = 4;
/// Events that it keeps room for.
const EVENTS_IDLE_MAX: usize = 4;
/// And request heads.
const HEADS_IDLE_MAX: usize = 16;

impl Connection {
    /// All that came has been cut.
    #[inline]
    pub(super) fn note_kept(&mut self) {
        let came = std::mem::take(&mut self.uncut);
        if came && self.deadline.is_none() && self.has_to_give() {
            self.look_later();
        }
    }

    /// What a quiet connection would not keep.
    fn has_to_give(&self) -> bool {
        self.table.keeps()
            || self.outbox.has_to_give()
            || self.spares.capacity() > 0
            || self.heads.capacity() > 0
            || self.events.capacity() > 0
            || self.decoder.has_to_give()
    }

    /// What an idle connection would not keep.
    pub fn is_large(&self) -> bool {
        self.table.is_large()
            || self.outbox.is_large()
            || self.spares.capacity() > SPARES_IDLE_MAX
            || self.heads.capacity() > HEADS_IDLE_MAX
            || self.events.capacity() > EVENTS_IDLE_MAX
    }

    #[cold]
    fn look_later(&mut self) {
        if self.settling == Settling::Settled && !self.has_failed() {
            self.deadline = Some(self.now + IDLE_AFTER);
        }
    }

    /// The time of `deadline` has come on a settled connection, to which nothing has come since
    /// `last`, unless that was another deadline's time.
    pub(super) fn look_whether_idle(&mut self, last: Instant) {
        self.deadline = None;
        if !self.table.is_empty() {
            if self.is_large() {
                self.look_later();
            }
            return;
        }
        if last + IDLE_AFTER / 2 <= self.now {
            return self.give_all_back();
        }
        self.look_later();
        self.table.trim();
        self.outbox.trim();
        self.spares.truncate(SPARES_IDLE_MAX);
        self.spares.shrink_to(SPARES_IDLE_MAX);
        self.spare_octets = self.spares.iter().map(FieldSection::kept).sum::<usize>() as u32;
        self.heads.shrink_to(HEADS_IDLE_MAX);
        self.events.shrink_to(EVENTS_IDLE_MAX);
    }

    fn give_all_back(&mut self) {
        self.table = Table::new();
        self.outbox.give_back();
        (self.spares, self.spare_octets) = (Vec::new(), 0);
        self.heads.shrink_to_fit();
        self.events.shrink_to_fit();
        self.decoder.give_back();
    }
}
