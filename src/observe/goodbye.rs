//! How we and our peers end what was begun. PURE.

/// A frame that ends a stream or a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// By us; else by the peer.
    pub sent: bool,
    /// GOAWAY; else RST_STREAM.
    pub of_connection: bool,
    /// The peer calls us; else we call it.
    pub downstream: bool,
    /// The error code's name: those of RFC 9113 §7 and one for all others.
    pub code: &'static str,
}
