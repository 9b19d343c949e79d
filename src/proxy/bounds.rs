//! Limits of a worker that only a test could reach with less: a number here, and a field.

/// See each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Calls in flight; more are refused.
    pub(super) calls: usize,
    /// Octets of responses that a connection may leave unread before it is closed.
    pub(super) unread: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { calls: 256 << 10, unread: 512 << 20 }
    }
}
