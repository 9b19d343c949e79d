//! What an outbox keeps of its memory while its connection has no stream.
//!
//! Refuses to know when that is: `connection/idle` does.

use super::Outbox;

/// Buffers larger than these are not kept by a connection without streams.
const CONTROL_KEPT_MAX: usize = 512;
const PIECES_KEPT_MAX: usize = 8;
/// For what an idle connection says now and then.
const CONTROL_IDLE_MAX: usize = 128;

impl Outbox {
    /// It has what [`Self::trim`] would give back.
    pub fn is_large(&self) -> bool {
        self.control.capacity() > CONTROL_KEPT_MAX
            || self.nodes.len() > PIECES_KEPT_MAX
            || self.sent.capacity() > PIECES_KEPT_MAX
    }

    /// It has taken more than a PING's answer needs.
    pub fn has_to_give(&self) -> bool {
        self.control.capacity() > CONTROL_IDLE_MAX
            || self.nodes.capacity() > 0
            || self.sent.capacity() > 0
    }

    /// For a connection without streams: room that nothing is in goes.
    pub fn give_back(&mut self) {
        self.drop_data();
        self.control.shrink_to_fit();
        self.sent.shrink_to_fit();
    }

    /// For a connection without streams: large buffers go.
    pub fn trim(&mut self) {
        if self.nodes.len() > PIECES_KEPT_MAX {
            self.drop_data();
        }
        self.control.shrink_to(CONTROL_KEPT_MAX);
        self.sent.shrink_to(PIECES_KEPT_MAX);
    }
}
