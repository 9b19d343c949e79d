//! Which counters a call moves, and when.
//!
//! 1. Dapr's series know only calls that came by the API port (or a forward port) with
//!    `dapr-app-id`, under that raw value.
//! 2. An attempt is sent once its target is resolved and a connection is wanted: it is told when
//!    its stream opens, or when the dial failed.
//!
//! Source: the handler in Dapr's `pkg/api/grpc/proxy/handler.go`.

use super::call::{Call, Up};
use super::contract::Listener;
use super::failure::Failure;
use super::head::{self, RequestHead};
use super::peer::{Peer, Side};
use super::{ConnKey, Proxy};
use crate::config::Config;
use crate::http2::{ErrorCode, FieldSection, Said};
use crate::observe::cells::{CallKind, Cells, Gauge, Goodbye, Hop, Increment, MethodId};
use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    hop: Hop,
    kind: CallKind,
    /// `None`: a call that no series of Dapr's tells.
    method: Option<MethodId>,
    attempt: Attempt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// None was made.
    None,
    /// No connection came about.
    Refused,
    /// A stream was opened.
    Sent,
}

impl Tally {
    pub(super) fn new(listener: Listener, method: Option<MethodId>, stream: bool) -> Self {
        let kind = if stream { CallKind::Streaming } else { CallKind::Unary };
        Self { hop: Hop::from(listener), kind, method, attempt: Attempt::None }
    }

    pub(super) fn is_inbound(&self) -> bool {
        self.hop == Hop::Inbound
    }

    pub(super) fn sent(&mut self, cells: &mut Cells) {
        // One that is made again unseen is told once.
        if std::mem::replace(&mut self.attempt, Attempt::Sent) == Attempt::Sent {
            return;
        }
        if let Some(method) = self.method {
            cells.sent(self.hop, method, self.kind);
        }
    }

    /// The dial failed that this call waited for.
    pub(super) fn refused(&mut self, cells: &mut Cells) {
        self.sent(cells);
        self.attempt = Attempt::Refused;
    }

    pub(super) fn method(&self) -> Option<MethodId> {
        self.method
    }

    pub(super) fn is_streaming(&self) -> bool {
        self.kind == CallKind::Streaming
    }

    /// An attempt ended, which need not be the last one.
    pub(super) fn attempt_ended(&mut self, cells: &mut Cells, status: u8, latency: Duration) {
        let Self { hop, kind, method, .. } = *self;
        if let Some(method) = method.filter(|_| self.is_told()) {
            cells.received(hop, method, kind, status, latency);
        }
        self.attempt = Attempt::None;
    }

    fn is_told(&self) -> bool {
        match self.attempt {
            Attempt::None => false,
            Attempt::Refused => true,
            // A stream that stood is not told (spec 10 §10.1).
            Attempt::Sent => self.kind == CallKind::Unary,
        }
    }

    pub(super) fn ended(&self, cells: &mut Cells, status: u8, latency: Duration) {
        let Self { hop, kind, method, .. } = *self;
        let Some(method) = method else { return cells.ended(hop, status, latency) };
        if self.is_told() {
            cells.received(hop, method, kind, status, latency);
        }
        cells.completed(hop, method, kind, status, latency);
    }
}

impl From<Listener> for Hop {
    fn from(listener: Listener) -> Self {
        match listener {
            Listener::Internal => Self::Inbound,
            Listener::Api | Listener::Forward(_) => Self::Outbound,
        }
    }
}

/// Under which labels Dapr's series tell a call, if they do.
pub(super) fn method(
    head: &RequestHead<'_>,
    listener: Listener,
    config: &Config,
    cells: &mut Cells,
) -> Option<MethodId> {
    let label = match listener {
        Listener::Internal => None,
        Listener::Api => head.app_id,
        Listener::Forward(index) => {
            config.forwards.get(index).map(|forward| forward.app_id.as_bytes())
        }
    };
    label.map(|label| cells.method(label, head.path))
}

impl Proxy {
    /// A request that never became a call.
    pub(super) fn tally_rejected(
        &mut self,
        fields: &FieldSection,
        listener: Listener,
        failure: &Failure,
    ) {
        let head = head::read_request(fields);
        let config = &self.snapshot.config;
        let method = match failure.untold {
            true => None,
            false => method(&head, listener, config, &mut self.cells),
        };
        let tally = Tally::new(listener, method, head.stream);
        tally.ended(&mut self.cells, failure.code as u8, Duration::ZERO);
    }

    /// A peer ends a stream, or means to end its connection.
    #[cold]
    pub(super) fn tally_goodbye(&mut self, conn: ConnKey, of_connection: bool, code: ErrorCode) {
        let Some(peer) = self.peers.get(conn) else { return };
        let (sent, downstream) = (false, peer.is_downstream());
        self.cells.goodbye(Goodbye { sent, of_connection, downstream, code: code.name() }, 1);
    }

    /// We ended streams, or mean to end the connection.
    #[cold]
    pub(super) fn tally_said(&mut self, conn: ConnKey, said: &Said) {
        let Some(peer) = self.peers.get(conn) else { return };
        let (sent, downstream) = (true, peer.is_downstream());
        for (of_connection, code, times) in said.iter() {
            let code = code.name();
            self.cells.goodbye(Goodbye { sent, of_connection, downstream, code }, times);
        }
    }

    /// A connection left the worker, with whatever was on it.
    pub(super) fn tally_gone(&mut self, peer: &Peer) {
        self.cells.fall(match peer.side {
            Side::Downstream { .. } => Gauge::DownstreamConnections,
            Side::Upstream { .. } => Gauge::UpstreamConnections,
        });
        peer.calls.iter().for_each(|_| self.cells.fall(Gauge::Streams));
    }

    /// What was counted since the last time, and what is open right now: for scrapes.
    pub fn hand_over_cells(&mut self) -> Increment {
        self.cells.set(Gauge::OpenCalls, self.calls.len() as i64);
        self.check_gauges();
        self.cells.hand_over()
    }

    /// Before what was counted is handed over.
    pub fn reuse_cells(&mut self, cleared: Increment) {
        self.cells.reuse(cleared);
    }

    /// What is counted as it comes and goes is what there is.
    fn check_gauges(&self) {
        if cfg!(debug_assertions) {
            let streams: usize = self.peers.values().map(|peer| peer.calls.len()).sum();
            let is_upstream = |peer: &&Peer| matches!(peer.side, Side::Upstream { .. });
            let upstream = self.peers.values().filter(is_upstream).count();
            let waits = |call: &&Call| matches!(call.up, Up::Parked(_));
            let waiting = self.calls.values().filter(waits).count();
            let gauges = [
                Gauge::DownstreamConnections,
                Gauge::UpstreamConnections,
                Gauge::Streams,
                Gauge::WaitingCalls,
            ];
            let told = gauges.map(|gauge| self.cells.gauge(gauge));
            let downstream = self.peers.len() - upstream;
            let found = [downstream, upstream, streams, waiting].map(|n| n as i64);
            debug_assert_eq!(told, found, "downstream, upstream, streams, waiting");
        }
    }
}
