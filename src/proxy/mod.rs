//! One worker's whole brain: connections, calls, routing, policy; no I/O.
//!
//! # Contract of [`Proxy`]
//! `io` gives bytes and facts by [`Proxy::accept`] and [`Proxy::handle`], then takes
//! [`Proxy::poll_output`] until `None`. For each [`Output::Dirty`] connection it calls
//! [`Proxy::transmit`] when the socket can take more, writes what it got, and comes again as
//! long as the answer says that more is waiting. [`Proxy::poll_timeout`] says when to send
//! [`Input::Tick`].
//!
//! 1. Nothing here fails: a bad peer is an `Output`.
//! 2. A connection is named by a [`ConnId`] from `accept` or [`Output::Dial`] until
//!    [`Output::Close`]; later facts about it are ignored.
//! 3. Backpressure is a chain: a leg's window is released when the other leg's bytes were
//!    handed to the socket.
//!
//! Refuses to know sockets, TLS, clocks, files.

use crate::http2::Transmit;
use crate::identity::{SpiffeId, Target};
use crate::observe::cells::Cells;
use crate::resolve::{Endpoint, Resolution};
use crate::snapshot::Snapshot;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

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
    Resolved(Resolution),
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

/// What `io` must do.
#[derive(Debug)]
pub enum Output {
    /// There is something to transmit. Given once until `transmit` says that nothing is left.
    Dirty(ConnId),
    Dial {
        conn: ConnId,
        endpoint: Endpoint,
        security: Security,
    },
    /// Ask control; single flight per target.
    Resolve(Target),
    /// Close when all that was transmitted is written; the ID is free from now on.
    Close(ConnId),
    Log(LogLine),
    /// A call that ended here and asks something of control.
    Control(ControlRequest),
    /// After `Drain`: no call is left and every connection was told.
    Drained,
}

/// For `control`, by way of the mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlRequest {
    Shutdown { force: bool },
    SetMetadata { key: String, value: String },
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

/// See the file's text.
#[derive(Debug)]
pub struct Proxy {
    cells: Cells,
}

impl Proxy {
    pub fn new(_snapshot: Arc<Snapshot>, _now: Instant) -> Self {
        Self { cells: Cells::default() }
    }

    /// A downstream connection, its TLS handshake (if any) done.
    pub fn accept(&mut self, _arrival: Arrival, _now: Instant) -> ConnId {
        ConnId { index: 0, generation: 0 }
    }

    pub fn handle(&mut self, _input: Input, _now: Instant) {}

    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// Appends what `conn` has to send, about `octets_max` at most; true when more is waiting.
    pub fn transmit(&mut self, _conn: ConnId, _out: &mut Transmit, _octets_max: usize) -> bool {
        false
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    pub fn cells(&self) -> &Cells {
        &self.cells
    }
}
