//! How peers end what they began. PURE.

/// A frame with which a peer ends a stream or a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// GOAWAY; else RST_STREAM.
    pub of_connection: bool,
    /// By whom we are called; else by whom we call.
    pub downstream: bool,
    /// The error code's name: those of RFC 9113 §7 and one for all others.
    pub code: &'static str,
}
