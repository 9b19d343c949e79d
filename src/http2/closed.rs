//! How streams that are gone were closed (RFC 9113 §5.1 "closed"), as far back as memory goes.
//!
//! What a frame on a closed stream means depends on who closed it: after our RST_STREAM the peer
//! may not know yet, after its own END_STREAM or RST_STREAM it broke the rules, and an ID that was
//! passed over was never open.
//!
//! 1. At most [`RESET_MAX`] and [`ENDED_MAX`] IDs are remembered; what falls out is `Forgotten`,
//!    which blames nobody.
//!
//! Refuses to know what is then done.

use super::StreamId;
use std::collections::VecDeque;

const RESET_MAX: usize = 256;
const ENDED_MAX: usize = 32;
/// The connection's own ID, so no stream's.
const NONE: StreamId = StreamId(0);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// By our RST_STREAM: frames may be on their way.
    Reset,
    /// The peer had sent END_STREAM or RST_STREAM.
    Ended,
    /// Never opened: the peer went on to a higher ID.
    Skipped,
    /// Too long ago to say.
    Forgotten,
}

/// See the file's text.
#[derive(Debug)]
pub struct ClosedStreams {
    reset: VecDeque<StreamId>,
    /// Filled in turns, since every call comes by here; [`NONE`] where nothing is yet.
    ended: [StreamId; ENDED_MAX],
    turn: usize,
    /// The highest ID that fell out of either list.
    forgotten: StreamId,
}

impl Default for ClosedStreams {
    fn default() -> Self {
        Self { reset: VecDeque::new(), ended: [NONE; ENDED_MAX], turn: 0, forgotten: NONE }
    }
}

impl ClosedStreams {
    pub fn reset(&mut self, id: StreamId) {
        if self.reset.len() >= RESET_MAX
            && let Some(dropped) = self.reset.pop_front()
        {
            self.forgotten = self.forgotten.max(dropped);
        }
        self.reset.push_back(id);
    }

    #[inline]
    pub fn ended(&mut self, id: StreamId) {
        self.turn = (self.turn + 1) % ENDED_MAX;
        let dropped = std::mem::replace(&mut self.ended[self.turn], id);
        self.forgotten = self.forgotten.max(dropped);
    }

    /// `id` is of a stream that is not live and not idle.
    pub fn how(&self, id: StreamId) -> Closed {
        if self.reset.contains(&id) {
            Closed::Reset
        } else if self.ended.contains(&id) {
            Closed::Ended
        } else if id <= self.forgotten {
            Closed::Forgotten
        } else {
            Closed::Skipped
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_and_forgets() {
        let mut closed = ClosedStreams::default();
        closed.ended(StreamId(1));
        closed.reset(StreamId(5));
        assert_eq!(closed.how(StreamId(1)), Closed::Ended);
        assert_eq!(closed.how(StreamId(3)), Closed::Skipped);
        assert_eq!(closed.how(StreamId(5)), Closed::Reset);
        for n in 0..ENDED_MAX as u32 {
            closed.ended(StreamId(11 + 2 * n));
        }
        assert_eq!(closed.how(StreamId(1)), Closed::Forgotten);
        assert_eq!(closed.how(StreamId(3)), Closed::Skipped);
        closed.ended(StreamId(1001));
        assert_eq!(closed.how(StreamId(3)), Closed::Forgotten, "may have been any of those");
        assert_eq!(closed.how(StreamId(5)), Closed::Reset);
    }
}
