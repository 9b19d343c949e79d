//! What crosses the border of the room: facts in, wishes out.

use crate::identity::{SpiffeId, Target};
use crate::observe::account::Account;
use crate::observe::span::Span;
use crate::resolve::Resolution;
use crate::snapshot::{Snapshot, Way};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;

/// A connection of this worker; never reused for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    pub index: u32,
    pub generation: u32,
}

/// By which door a downstream connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listener {
    /// The gRPC API port or its Unix socket.
    Api,
    /// The internal port: other sidecars.
    Internal,
    /// A forward port: index into `Config::forwards`.
    Forward(usize),
}

/// How an upstream connection must be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// HTTP/2 with prior knowledge.
    Plaintext,
    /// mTLS with our SVID; the peer's SPIFFE ID must have this target's path.
    Mtls(Target),
    /// TLS without verification, ALPN h2: an app with `--app-protocol grpcs`; `host` for SNI.
    Unverified { host: String },
}

/// Facts from the world.
#[derive(Debug)]
pub enum Input {
    /// Plaintext bytes, as read (after TLS, if any).
    Received {
        conn: ConnId,
        bytes: Bytes,
    },
    /// The peer closed its side, or the socket broke.
    Closed {
        conn: ConnId,
        reason: CloseReason,
    },
    /// A dial succeeded: connected, handshake done, peer verified.
    Dialed {
        conn: ConnId,
    },
    /// The text follows grpc-go's, e.g. `connection error: desc = "transport: Error while
    /// dialing: dial tcp 127.0.0.1:1: connect: connection refused"` (spec 03 §3.9).
    DialFailed {
        conn: ConnId,
        error: String,
    },
    /// A downstream peer shook hands too long, and never became a connection.
    HandshakeOverdue {
        listener: Listener,
        peer: Option<SocketAddr>,
    },
    Resolved(Resolution),
    /// Control's answer to an [`Output::Control`]: the response's message, or why there is none.
    Answered {
        call: u64,
        answer: Result<Bytes, &'static str>,
    },
    Snapshot(Arc<Snapshot>),
    /// Stop taking calls, let those in flight finish.
    Drain,
    /// A time that `poll_timeout` named has come.
    Tick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    Eof,
    /// The text for a log line.
    Error(&'static str),
}

impl CloseReason {
    /// As Go names what ended a read.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Eof => "EOF",
            Self::Error(text) => text,
        }
    }
}

/// What `io` must do.
#[derive(Debug)]
pub enum Output {
    /// There is something to transmit. Given once until `transmit` says that nothing is left.
    Dirty(ConnId),
    Dial {
        conn: ConnId,
        way: Way,
        security: Security,
    },
    /// Ask control; single flight per target.
    Resolve(Target),
    /// Close when all that was transmitted is written; the ID is free from now on.
    Close(ConnId),
    Log(LogLine),
    /// A call that somebody listens to is over.
    Heard(Box<Account>),
    /// A call that ends here asks something of control; answered by [`Input::Answered`].
    Control(ControlRequest),
    /// Calls that are over, as spans, for whoever exports them.
    Spans(Vec<Span>),
    /// After `Drain`: no call is left and every connection was told.
    Drained,
}

/// For `control`, by way of the mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlRequest {
    /// Comes back with the answer.
    pub call: u64,
    pub question: Question,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    Metadata,
    SetMetadata {
        key: String,
        value: String,
    },
    Shutdown {
        force: bool,
    },
    /// A `ServerReflectionRequest`.
    Reflection(Bytes),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// One line for the log; rate-limited here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    pub level: Level,
    /// Dapr's logger name, e.g. `dapr.runtime.grpc.api`.
    pub scope: &'static str,
    pub message: String,
}

/// What is known of a downstream connection when it is handed over.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub listener: Listener,
    /// `None` over a Unix socket.
    pub peer: Option<SocketAddr>,
    /// From the client certificate, on the internal port with mTLS.
    pub spiffe_id: Option<SpiffeId>,
}
