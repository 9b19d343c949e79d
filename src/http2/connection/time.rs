//! When something must have happened: the preface, the end of what has begun, an answer.
//!
//! 1. The time of a frame or field block runs from its first octet, however it comes on.
//!
//! Refuses to know the clock: `now` is the owner's.

use super::{Connection, Settling};
use crate::http2::PING_ACK_PATIENCE;
use crate::http2::error::{ConnectionError, ErrorCode, Limit};
use crate::http2::frame;
use std::time::{Duration, Instant};

/// How long the peer may take for the rest of a frame that is not DATA, and for the CONTINUATION
/// frames of a block (RFC 9113 §10.5: blocks that never end).
pub(in crate::http2) const UNENDED_TIMEOUT: Duration = Duration::from_secs(10);

impl Connection {
    /// When to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let ack = self.held_ping.map(|(_, since)| since + self.ping_ack_max());
        [self.deadline, ack, self.unended_timeout()].into_iter().flatten().min()
    }

    fn unended_timeout(&self) -> Option<Instant> {
        let frame = self.unended.map(|(_, since)| since);
        let block = self.block.as_ref().map(|block| block.since);
        [frame, block].into_iter().flatten().min().map(|since| since + UNENDED_TIMEOUT)
    }

    /// All that came is cut: does a frame wait for its end? One that comes octet by octet keeps
    /// the time at which it began.
    #[inline]
    pub(super) fn note_unended(&mut self) {
        let amid = self.deframer.amid_frame();
        if amid != self.unended.map(|(frame, _)| frame) {
            self.unended = amid.map(|frame| (frame, self.now));
        }
    }

    fn ping_ack_max(&self) -> Duration {
        self.limits.ping_ack_delay * PING_ACK_PATIENCE
    }

    /// Answers the held PING if it has waited for `delay`.
    #[inline]
    pub(super) fn answer_ping(&mut self, delay: Duration) {
        if let Some((payload, since)) = self.held_ping
            && self.now >= since + delay
        {
            self.held_ping = None;
            frame::write_ping(self.outbox.control(), payload, true);
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        let last = std::mem::replace(&mut self.now, now);
        self.answer_ping(self.ping_ack_max());
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            match self.settling {
                Settling::Settled => self.look_whether_idle(last),
                Settling::Fresh => self.fail_to_settle("no SETTINGS in time"),
                Settling::Unacknowledged => {
                    self.fail_to_settle("SETTINGS not acknowledged in time")
                }
            }
        }
        if self.unended_timeout().is_some_and(|at| at <= now) {
            self.fail(ConnectionError::calm(Limit::SlowHeaders));
        }
    }

    #[cold]
    fn fail_to_settle(&mut self, reason: &'static str) {
        let error = ConnectionError::new(ErrorCode::SETTINGS_TIMEOUT, reason);
        self.fail(ConnectionError { limit: Some(Limit::SlowPreface), ..error });
    }
}
