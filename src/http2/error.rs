//! Error codes (RFC 9113 §7) and the two scopes an error can have (§5.4).
//!
//! 1. A connection error ends the connection; a stream error ends one stream. Nothing else exists.
//! 2. Reasons are `&'static str`: no error on the datapath allocates.

use std::fmt;

/// RFC 9113 §7. Unknown codes keep their number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    pub const NO_ERROR: Self = Self(0x0);
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    pub const INTERNAL_ERROR: Self = Self(0x2);
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    pub const SETTINGS_TIMEOUT: Self = Self(0x4);
    pub const STREAM_CLOSED: Self = Self(0x5);
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    pub const REFUSED_STREAM: Self = Self(0x7);
    pub const CANCEL: Self = Self(0x8);
    pub const COMPRESSION_ERROR: Self = Self(0x9);
    pub const CONNECT_ERROR: Self = Self(0xa);
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);
    pub const INADEQUATE_SECURITY: Self = Self(0xc);
    pub const HTTP_1_1_REQUIRED: Self = Self(0xd);

    /// The registered name, or `UNKNOWN` for a code that RFC 9113 §7 does not list.
    pub const fn name(self) -> &'static str {
        match self.0 {
            0x0 => "NO_ERROR",
            0x1 => "PROTOCOL_ERROR",
            0x2 => "INTERNAL_ERROR",
            0x3 => "FLOW_CONTROL_ERROR",
            0x4 => "SETTINGS_TIMEOUT",
            0x5 => "STREAM_CLOSED",
            0x6 => "FRAME_SIZE_ERROR",
            0x7 => "REFUSED_STREAM",
            0x8 => "CANCEL",
            0x9 => "COMPRESSION_ERROR",
            0xa => "CONNECT_ERROR",
            0xb => "ENHANCE_YOUR_CALM",
            0xc => "INADEQUATE_SECURITY",
            0xd => "HTTP_1_1_REQUIRED",
            _ => "UNKNOWN",
        }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(0x{:x})", self.name(), self.0)
    }
}

/// What a peer had too much of (RFC 9113 §10.5). An error without one is a broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// Streams that it reset in the breath in which it opened them.
    RapidResets,
    /// Streams that it reset later.
    Cancels,
    /// Streams that we reset for its errors.
    StreamErrors,
    /// RST_STREAM on streams that are gone.
    LateResets,
    Pings,
    Settings,
    Priorities,
    Goaways,
    WindowUpdates,
    UnknownFrames,
    EmptyData,
    TinyData,
    /// Heads of 1xx.
    InformationalHeads,
    /// Streams opened though there may be no more of them.
    RefusedStreams,
    Continuations,
    /// How long the CONTINUATION frames of one block, or the rest of a frame, may take.
    SlowHeaders,
    /// How long the preface and SETTINGS may take.
    SlowPreface,
    /// Decoded octets, or fields, of one section.
    FieldSection,
    Streams,
    /// What waits to be written of what answers the peer's frames.
    UnreadAnswers,
}

impl Limit {
    pub const ALL: [Self; 20] = [
        Self::RapidResets,
        Self::Cancels,
        Self::StreamErrors,
        Self::LateResets,
        Self::Pings,
        Self::Settings,
        Self::Priorities,
        Self::Goaways,
        Self::WindowUpdates,
        Self::UnknownFrames,
        Self::EmptyData,
        Self::TinyData,
        Self::InformationalHeads,
        Self::RefusedStreams,
        Self::Continuations,
        Self::SlowHeaders,
        Self::SlowPreface,
        Self::FieldSection,
        Self::Streams,
        Self::UnreadAnswers,
    ];

    /// As a label of a series.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RapidResets => "rapid_resets",
            Self::Cancels => "cancels",
            Self::StreamErrors => "stream_errors",
            Self::LateResets => "late_resets",
            Self::Pings => "pings",
            Self::Settings => "settings",
            Self::Priorities => "priorities",
            Self::Goaways => "goaways",
            Self::WindowUpdates => "window_updates",
            Self::UnknownFrames => "unknown_frames",
            Self::EmptyData => "empty_data",
            Self::TinyData => "tiny_data",
            Self::InformationalHeads => "informational_heads",
            Self::RefusedStreams => "refused_streams",
            Self::Continuations => "continuations",
            Self::SlowHeaders => "slow_headers",
            Self::SlowPreface => "slow_preface",
            Self::FieldSection => "field_section",
            Self::Streams => "streams",
            Self::UnreadAnswers => "unread_answers",
        }
    }

    /// For people.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::RapidResets => "too many streams reset as soon as they were opened",
            Self::Cancels => "too many streams reset",
            Self::StreamErrors => "too many stream errors",
            Self::LateResets => "too many RST_STREAM frames on closed streams",
            Self::Pings => "too many PING frames",
            Self::Settings => "too many SETTINGS frames",
            Self::Priorities => "too many PRIORITY frames",
            Self::Goaways => "too many GOAWAY frames",
            Self::WindowUpdates => "too many WINDOW_UPDATE frames",
            Self::UnknownFrames => "too many frames of unknown types",
            Self::EmptyData => "too many empty DATA frames",
            Self::TinyData => "too many tiny DATA frames",
            Self::InformationalHeads => "too many informational heads",
            Self::RefusedStreams => "too many streams beyond their limit",
            Self::Continuations => "too many CONTINUATION frames",
            Self::SlowHeaders => "a field block or frame did not end in time",
            Self::SlowPreface => "no SETTINGS, or no acknowledgement of ours, in time",
            Self::FieldSection => "field section too large",
            Self::Streams => "too many streams at once",
            Self::UnreadAnswers => "too much waits to be read by the peer",
        }
    }
}

/// Ends the connection: GOAWAY with `code` is queued, then the socket closes (RFC 9113 §5.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionError {
    pub code: ErrorCode,
    pub reason: &'static str,
    /// The peer hit this one.
    pub limit: Option<Limit>,
}

impl ConnectionError {
    pub const fn new(code: ErrorCode, reason: &'static str) -> Self {
        Self { code, reason, limit: None }
    }

    pub const fn protocol(reason: &'static str) -> Self {
        Self::new(ErrorCode::PROTOCOL_ERROR, reason)
    }

    /// ENHANCE_YOUR_CALM.
    #[cold]
    pub const fn calm(limit: Limit) -> Self {
        let code = ErrorCode::ENHANCE_YOUR_CALM;
        Self { code, reason: limit.reason(), limit: Some(limit) }
    }
}

/// Ends one stream with RST_STREAM (RFC 9113 §5.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamError {
    pub code: ErrorCode,
    pub reason: &'static str,
}

impl StreamError {
    pub const fn new(code: ErrorCode, reason: &'static str) -> Self {
        Self { code, reason }
    }

    pub const fn protocol(reason: &'static str) -> Self {
        Self::new(ErrorCode::PROTOCOL_ERROR, reason)
    }
}

#[cfg(test)]
mod tests {
    use super::Limit;
    use std::collections::BTreeSet;

    #[test]
    fn limits_have_names_of_their_own() {
        let names: BTreeSet<_> = Limit::ALL.iter().map(|limit| limit.name()).collect();
        assert_eq!(names.len(), Limit::ALL.len());
        assert!(Limit::ALL.is_sorted_by(|a, b| a < b), "each once, in order");
    }
}
