//! One connection of the worker: its HTTP/2 state, its side, the calls on it.
//!
//! 1. `calls` holds each call that has a leg here, at the slot that the call remembers.
//! 2. Resets toward an upstream go when `resets` says so.
//! 3. Nothing is transmitted to an upstream before its dial is done.

use super::access::Caller;
use super::balance::Health;
use super::repeated::Repeated;
use super::resets::{Progress, Resets};
use super::stalled::Watch;
use super::{CallKey, ConnKey, Listener, Output, PoolKey};
use crate::http2::Connection;
use crate::http2::field::PreparedField;
use crate::http2::{ErrorCode, Sent, StreamId};
use crate::snapshot::Way;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// daprd pings after this much silence, from either end (spec 03 §3.8).
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// And gives up when the answer is not there by then.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// An app on another machine is asked only while calls are with it, and not again before it has
/// said something of a call or this is over: gRPC's servers forgive two PINGs that come within five
/// minutes while they send nothing, and close the connection at the third (`too_many_pings`).
pub const APP_PING_INTERVAL: Duration = Duration::from_secs(330);
/// daprd never asks its app; ours gets more time than a sidecar.
pub const APP_PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Connections without calls are closed after this, in both roles (spec 03 §3.8).
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(180);
/// Between the first and the final GOAWAY, when the peer does not answer our PING.
pub const DRAIN_NOTICE: Duration = Duration::from_secs(1);
/// What is queued when a drain's time is over gets this long to be read.
pub const LAST_WORDS: Duration = Duration::from_secs(1);
/// Between an upstream's dial and its SETTINGS.
pub const PREFACE_TIMEOUT: Duration = Duration::from_secs(20);

/// Payload of keepalive PINGs and of the one between two GOAWAYs.
pub const PING_KEEPALIVE: [u8; 8] = *b"ringkeep";
pub const PING_DRAIN: [u8; 8] = *b"ringgone";

#[derive(Debug)]
pub enum Side {
    Downstream {
        listener: Listener,
        peer: Option<SocketAddr>,
        caller: Caller,
    },
    Upstream {
        pool: PoolKey,
        way: Way,
        /// `:authority` of every call on it.
        authority: PreparedField,
        to_app: bool,
        /// The app is on another machine, whose end no kernel of ours tells.
        far_app: bool,
        stage: Stage,
    },
}

/// An upstream connection's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Dialing,
    /// Connected; the peer's SETTINGS are not here yet.
    Greeting {
        since: Instant,
    },
    Ready,
    /// Takes no new calls.
    Retired,
}

/// How far a downstream connection's farewell is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    None,
    /// GOAWAY(2^31-1) and PING are out, since then.
    Noticed {
        since: Instant,
    },
    /// GOAWAY(last stream) is out: closes when the last stream is done.
    Final,
    /// The same, but the time for a drain was over then: soon closes in any case.
    Overdue {
        since: Instant,
    },
}

#[derive(Debug)]
pub struct Peer {
    pub h2: Connection,
    pub side: Side,
    pub calls: Vec<CallKey>,
    /// An `Output::Dirty` is out.
    pub dirty: bool,
    /// Close as soon as nothing is left to transmit.
    pub closing: bool,
    /// Its calls are being ended, by somebody who will see to the rest.
    pub ending: bool,
    pub farewell: Farewell,
    /// How the peer's first GOAWAY explained itself, for those who are lost with it.
    pub goaway_heard: Option<Box<str>>,
    /// When bytes came in last.
    pub heard: Instant,
    /// A keepalive PING is out since then.
    pub pinged: Option<Instant>,
    /// When the last one went.
    pub last_ping: Option<Instant>,
    /// It has sent a head or DATA since.
    pub spoke: bool,
    /// No call since then.
    pub idle_since: Instant,
    /// The earliest reminder that is in the heap for this connection.
    pub reminder: Option<Instant>,
    /// The stream that was opened last, and the last one of which `io` has got anything.
    pub newest: StreamId,
    pub handed_over: StreamId,
    /// Octets of DATA that it took; wraps.
    pub sent: u32,
    /// Downstream: what the heads of its calls take that wait.
    pub parked_octets: usize,
    /// Downstream: its requests that came more than once.
    pub(super) repeated: Repeated,
    /// Upstream: what its calls tell of it.
    pub(super) health: Health,
    pub(super) watch: Option<Box<Watch>>,
    /// Upstream.
    resets: Option<Box<Resets>>,
}

impl Peer {
    pub fn new(h2: Connection, side: Side, now: Instant) -> Self {
        let resets = match side {
            Side::Upstream { to_app, .. } => Some(Box::new(Resets::new(to_app, now))),
            Side::Downstream { .. } => None,
        };
        Self {
            h2,
            side,
            calls: Vec::new(),
            dirty: false,
            closing: false,
            ending: false,
            farewell: Farewell::None,
            goaway_heard: None,
            heard: now,
            pinged: None,
            last_ping: None,
            spoke: false,
            idle_since: now,
            reminder: None,
            newest: StreamId(0),
            handed_over: StreamId(0),
            sent: 0,
            parked_octets: 0,
            repeated: Repeated::default(),
            health: Health::Well,
            watch: None,
            resets,
        }
    }

    /// Tells `io` that there is something to send, once until all of it is taken.
    #[inline]
    pub fn touch(&mut self, key: ConnKey, outputs: &mut VecDeque<Output>) {
        if !self.dirty && !self.is_dialing() && self.h2.wants_transmit() {
            self.dirty = true;
            outputs.push_back(Output::Dirty(key.into()));
        }
    }

    /// What it took of one stream, once.
    #[inline]
    pub fn poll_sent(&mut self) -> Option<Sent> {
        let sent = self.h2.poll_sent()?;
        self.sent = self.sent.wrapping_add(sent.octets);
        Some(sent)
    }

    /// For a line of log: its scope, and who it is.
    pub fn named(&self) -> (&'static str, String) {
        match &self.side {
            Side::Downstream { listener, peer, .. } => downstream_name(*listener, *peer),
            Side::Upstream { way, .. } => ("dapr.runtime.grpc", way.to_string()),
        }
    }

    /// Upstream: it takes no more calls.
    pub fn is_retired(&self) -> bool {
        matches!(self.side, Side::Upstream { stage: Stage::Retired, .. })
    }

    pub fn is_dialing(&self) -> bool {
        matches!(self.side, Side::Upstream { stage: Stage::Dialing, .. })
    }

    /// When silence must be answered with a PING. daprd pings its callers and other sidecars, never
    /// its app (spec 03 §3.8); nor do we one on this machine, whose end the kernel tells: it may
    /// stand still in a debugger for as long as it likes.
    pub fn ping_due(&self) -> Option<Instant> {
        let silence = self.heard + KEEPALIVE_INTERVAL;
        let Side::Upstream { to_app, far_app, stage, .. } = self.side else {
            return Some(silence);
        };
        let due = match self.last_ping {
            Some(at) if to_app && !self.spoke => silence.max(at + APP_PING_INTERVAL),
            Some(_) | None => silence,
        };
        let is_up = matches!(stage, Stage::Ready | Stage::Retired);
        let wanted = !to_app || (far_app && !self.calls.is_empty());
        (is_up && wanted).then_some(due)
    }

    /// When a PING that is out has waited for its answer too long.
    pub fn ping_overdue(&self) -> Option<Instant> {
        let to_app = matches!(self.side, Side::Upstream { to_app: true, .. });
        let patience = if to_app { APP_PING_TIMEOUT } else { KEEPALIVE_TIMEOUT };
        self.pinged.map(|since| since + patience)
    }

    pub fn send_ping(&mut self, now: Instant) {
        (self.pinged, self.last_ping, self.spoke) = (Some(now), Some(now), false);
        self.h2.ping(PING_KEEPALIVE);
    }

    /// May a call of this pool open a stream here?
    pub fn can_take(&self) -> bool {
        let ready = matches!(self.side, Side::Upstream { stage: Stage::Ready, .. });
        ready && !self.closing && !self.h2.is_retired() && self.h2.can_open() > 0
    }

    /// Resets an upstream stream now, or soon when too many were reset lately. One that has not
    /// left yet costs the upstream nothing and never leaves. False if it waits.
    pub fn reset_paced(&mut self, stream: StreamId, now: Instant) -> bool {
        let progress = self.progress();
        if !self.h2.is_unsent(stream)
            && let Some(resets) = &mut self.resets
            && !resets.ask(stream, progress, now)
        {
            self.h2.abandon(stream);
            resets.forget_gone(self.h2.streams(), |stream| self.h2.has(stream));
            return false;
        }
        self.h2.send_reset(stream, ErrorCode::CANCEL);
        true
    }

    /// An upstream stream ended regularly: the peer will bear one reset more.
    pub fn earn_reset(&mut self) {
        if let Some(resets) = &mut self.resets {
            resets.earn();
        }
    }

    /// Sends the resets whose time has come; true if that made room for other streams.
    pub fn flush_resets(&mut self, now: Instant) -> bool {
        let progress = self.progress();
        let Some(resets) = &mut self.resets else { return false };
        let waited = resets.waiting();
        while let Some(stream) = resets.next(progress, now, |stream| self.h2.has(stream)) {
            self.h2.send_reset(stream, ErrorCode::CANCEL);
        }
        resets.waiting() < waited
    }

    fn progress(&self) -> Progress {
        Progress { handed_over: self.handed_over, answered: self.h2.answered() }
    }

    /// Resets whose time has not come.
    pub fn resets_waiting(&self) -> usize {
        self.resets.as_ref().map_or(0, |resets| resets.waiting())
    }

    /// The peer calls us.
    pub fn is_downstream(&self) -> bool {
        matches!(self.side, Side::Downstream { .. })
    }

    /// It has no calls, and nobody has said goodbye on it yet.
    pub fn may_idle(&self) -> bool {
        let leaving = match self.side {
            Side::Downstream { .. } => self.farewell != Farewell::None,
            Side::Upstream { stage, .. } => stage == Stage::Retired,
        };
        self.calls.is_empty() && !leaving && !self.closing
    }

    /// Now that a call left, is there a deadline that was not there before?
    pub fn wants_reminder(&self) -> bool {
        let idle_end = self.idle_since + IDLE_TIMEOUT;
        let idles = self.calls.is_empty() && self.reminder.is_none_or(|known| idle_end < known);
        idles || self.resets_waiting() > 0
    }

    /// When this connection must be looked at again.
    pub fn next_timeout(&self) -> Option<Instant> {
        let ping = self.ping_overdue().or_else(|| self.ping_due());
        let idle = self.may_idle().then(|| self.idle_since + IDLE_TIMEOUT);
        let drain = match self.farewell {
            Farewell::Noticed { since } => Some(since + DRAIN_NOTICE),
            Farewell::Overdue { since } => Some(since + LAST_WORDS),
            Farewell::None | Farewell::Final => None,
        };
        let greeting = match self.side {
            Side::Upstream { stage: Stage::Greeting { since }, .. } => {
                Some(since + PREFACE_TIMEOUT)
            }
            Side::Upstream { .. } | Side::Downstream { .. } => None,
        };
        let all = [
            self.h2.poll_timeout(),
            ping,
            idle,
            drain,
            greeting,
            self.resets.as_ref().and_then(|resets| resets.timeout(self.progress())),
        ];
        let watch = self.watch.as_ref().map(|watch| watch.next);
        let all = all.into_iter().chain([watch]);
        all.flatten().min()
    }
}

/// [`Peer::named`] of whoever came by a port.
pub(super) fn downstream_name(
    listener: Listener,
    peer: Option<SocketAddr>,
) -> (&'static str, String) {
    let scope = match listener {
        Listener::Internal => "dapr.runtime.grpc.internal",
        Listener::Api | Listener::Forward(_) => "dapr.runtime.grpc.api",
    };
    (scope, peer.map_or("unix socket".to_owned(), |address| address.to_string()))
}
