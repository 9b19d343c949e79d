//! Flow control (RFC 9113 §5.2, §6.9): what we may send, and what the peer may.
//!
//! 1. Sending: the window may go negative (§6.9.2) and never above 2^31-1 (§6.9.1).
//! 2. Receiving on a stream: `open + due + held` is the stream's window size, between frames.
//! 3. Receiving on the connection: `open + due + withheld` is the connection's window size, where
//!    `withheld` is what the owner holds beyond `held_max`; between frames.
//! 4. `due` is what a WINDOW_UPDATE will say; it waits until it is worth a frame.
//!
//! Refuses to know frames and streams.

use super::frame::WINDOW_MAX;

/// The window would have gone above 2^31-1, or the peer sent more than it might.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow;

/// Octets that we may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendWindow(i32);

impl SendWindow {
    pub fn new(initial: u32) -> Self {
        debug_assert!(initial <= WINDOW_MAX);
        Self(initial as i32)
    }

    pub fn available(self) -> u32 {
        self.0.max(0).unsigned_abs()
    }

    pub fn take(&mut self, octets: u32) {
        debug_assert!(octets <= self.available(), "never send beyond the window");
        self.0 -= octets as i32;
    }

    /// WINDOW_UPDATE.
    pub fn grow(&mut self, increment: u32) -> Result<(), Overflow> {
        self.shift(i64::from(increment))
    }

    /// A change of SETTINGS_INITIAL_WINDOW_SIZE (§6.9.2).
    pub fn shift(&mut self, difference: i64) -> Result<(), Overflow> {
        let moved = i64::from(self.0) + difference;
        if moved > i64::from(WINDOW_MAX) {
            return Err(Overflow);
        }
        self.0 = i32::try_from(moved).map_err(|_| Overflow)?;
        Ok(())
    }
}

/// What the peer may send on one stream.
#[derive(Clone, Copy, Debug)]
pub struct StreamWindow {
    open: i64,
    due: u32,
    /// With the owner: received, not released.
    held: u32,
}

impl StreamWindow {
    pub fn new(size: u32) -> Self {
        Self { open: i64::from(size), due: 0, held: 0 }
    }

    /// A DATA frame of `len` octets, padding included, begins.
    pub fn begin_frame(&mut self, len: u32) -> Result<(), Overflow> {
        // An empty frame needs no window, even if ours has shrunk below zero.
        if i64::from(len) > self.open.max(0) {
            return Err(Overflow);
        }
        self.open -= i64::from(len);
        Ok(())
    }

    /// Part of the frame went to the owner.
    pub fn hold(&mut self, octets: u32) {
        self.held += octets;
    }

    /// Part of the frame never reaches the owner: padding.
    pub fn skip(&mut self, octets: u32) {
        self.due += octets;
    }

    /// Returns what was really held: an owner cannot release more than it got, nor again what
    /// went back when it took leave of the stream.
    pub fn release(&mut self, octets: u32) -> u32 {
        let octets = octets.min(self.held);
        self.held -= octets;
        self.due += octets;
        octets
    }

    pub fn held(&self) -> u32 {
        self.held
    }

    /// The increment worth sending now, given the window's full `size`: half of it, or an eighth
    /// when less than half is open, so that a slow owner does not starve its sender.
    #[inline]
    pub fn take_due(&mut self, size: u32) -> Option<u32> {
        if self.due < (size / 8).max(1) {
            return None;
        }
        let scarce = self.open < i64::from(size / 2);
        if !(self.due >= size.div_ceil(2) || scarce) {
            return None;
        }
        self.open += i64::from(self.due);
        Some(std::mem::take(&mut self.due))
    }

    /// Our SETTINGS_INITIAL_WINDOW_SIZE was acknowledged (§6.9.2).
    pub fn shift(&mut self, difference: i64) {
        self.open += difference;
    }

    /// Invariant 2; `unread` is what is still to come of a frame that has begun.
    pub fn check(&self, size: u32, unread: u32) {
        let sum = self.open + i64::from(self.due) + i64::from(self.held) + i64::from(unread);
        assert_eq!(sum, i64::from(size), "stream window {self:?}, unread {unread}");
    }
}

/// What the peer may send on the connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionWindow {
    open: i64,
    due: u32,
    held: u64,
    size: u32,
    held_max: u32,
}

impl ConnectionWindow {
    pub fn new(size: u32, held_max: u32) -> Self {
        Self { open: i64::from(size), due: 0, held: 0, size, held_max }
    }

    pub fn begin_frame(&mut self, len: u32) -> Result<(), Overflow> {
        if i64::from(len) > self.open {
            return Err(Overflow);
        }
        self.open -= i64::from(len);
        Ok(())
    }

    /// With the owner.
    pub fn held(&self) -> u64 {
        self.held
    }

    fn withheld(&self) -> u64 {
        self.held.saturating_sub(u64::from(self.held_max))
    }

    /// Part of the frame went to the owner: returned at once within `held_max`, else withheld.
    pub fn hold(&mut self, octets: u32) {
        let before = self.withheld();
        self.held += u64::from(octets);
        let kept = (self.withheld() - before) as u32;
        self.due += octets - kept;
    }

    /// Part of the frame never reaches the owner.
    pub fn skip(&mut self, octets: u32) {
        self.due += octets;
    }

    pub fn release(&mut self, octets: u32) {
        let before = self.withheld();
        debug_assert!(u64::from(octets) <= self.held);
        self.held = self.held.saturating_sub(u64::from(octets));
        self.due += (before - self.withheld()) as u32;
    }

    /// The increment worth sending now.
    pub fn take_due(&mut self) -> Option<u32> {
        if self.due == 0 || self.due < self.size.div_ceil(2) {
            return None;
        }
        self.open += i64::from(self.due);
        Some(std::mem::take(&mut self.due))
    }

    /// What the peer may still send, as it knows.
    #[cfg(test)]
    pub fn open(&self) -> i64 {
        self.open
    }

    /// Nobody holds anything, and the peer knows `sendable` octets: what is not open is due.
    pub fn check_rest(&self, sendable: i64) {
        self.check(0, 0);
        assert_eq!(self.open, sendable, "connection window {self:?}");
    }

    /// Invariant 3; `held` by all streams, `unread` as in [`StreamWindow::check`].
    pub fn check(&self, held: u64, unread: u32) {
        assert_eq!(self.held, held, "held by streams and by the connection");
        let withheld = self.withheld() as i64;
        let sum = self.open + i64::from(self.due) + withheld + i64::from(unread);
        assert_eq!(sum, i64::from(self.size), "connection window {self:?}, unread {unread}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn send_window_goes_negative_and_not_above_the_maximum() {
        let mut window = SendWindow::new(100);
        window.take(60);
        window.shift(-90).unwrap();
        assert_eq!(window.available(), 0);
        window.grow(49).unwrap();
        assert_eq!(window.available(), 0, "-50 + 49");
        window.grow(2).unwrap();
        assert_eq!(window.available(), 1);
        assert_eq!(window.grow(WINDOW_MAX), Err(Overflow));
        assert_eq!(window.grow(WINDOW_MAX - 1), Ok(()));
    }

    #[test]
    fn stream_window_returns_halves() {
        let mut window = StreamWindow::new(100);
        window.begin_frame(60).unwrap();
        window.skip(10);
        window.hold(50);
        window.check(100, 0);
        assert_eq!(window.begin_frame(41), Err(Overflow));
        assert_eq!(window.release(1), 1);
        assert_eq!(window.take_due(100), None, "11 of 100, 40 open: below an eighth");
        window.release(1);
        assert_eq!(window.take_due(100), Some(12));
        window.release(48);
        window.check(100, 0);
        assert_eq!(window.take_due(100), None, "48 of 100, 52 open");
        window.begin_frame(3).unwrap();
        assert_eq!(window.take_due(100), Some(48));
    }

    #[test]
    fn empty_frames_need_no_window() {
        let mut window = StreamWindow::new(20);
        window.begin_frame(20).unwrap();
        window.shift(-10);
        assert_eq!(window.begin_frame(0), Ok(()));
        assert_eq!(window.begin_frame(1), Err(Overflow));
    }

    #[test]
    fn connection_window_waits_only_beyond_what_may_be_held() {
        let mut window = ConnectionWindow::new(100, 150);
        for round in 0..3u64 {
            window.begin_frame(50).unwrap();
            window.hold(50);
            window.check((round + 1) * 50, 0);
            assert_eq!(window.take_due(), Some(50), "within 150");
        }
        window.begin_frame(100).unwrap();
        window.hold(100);
        assert_eq!(window.take_due(), None);
        window.check(250, 0);
        window.release(49);
        assert_eq!(window.take_due(), None);
        window.release(51);
        assert_eq!(window.take_due(), Some(100));
        window.release(150);
        assert_eq!(window.take_due(), None, "was returned on receipt");
        window.check(0, 0);
    }
}
