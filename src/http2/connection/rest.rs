//! What must hold between two ends when all is still; for the simulator.

use super::{Connection, Phase};

impl Connection {
    /// Nothing is under way, no stream is open: all that was lent has come back. `other` is the
    /// peer.
    ///
    /// # Panics
    /// When an octet of the connection's window is lost, or was given back twice.
    pub fn check_rest(&self, other: &Self) {
        if self.phase == Phase::Failed || other.phase == Phase::Failed {
            return;
        }
        assert_eq!((self.streams(), other.streams()), (0, 0), "streams are left");
        assert_eq!((self.queued_in_all(), other.queued_in_all()), (0, 0), "octets are left");
        for (sender, receiver) in [(self, other), (other, self)] {
            receiver.recv_window.check_rest(i64::from(sender.send_window.available()));
        }
    }
}
