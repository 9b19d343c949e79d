//! How many connections a worker takes, and how that is told where it has to wait or to end.
//!
//! 1. A limit is counted once each time it begins to hold new connections up, and told once in a
//!    while; a handshake that takes too long is counted each time.
//! 2. The log line says what holds them up, and what may be done.
//!
//! Refuses to know what connections are for.

use super::SCOPE;
use super::load::{Number, OwnLoad};
use super::worker::Worker;
use crate::observe::report::{Bound, Unit};
use crate::proxy::Listener;
use std::fmt;
use std::time::{Duration, Instant};

/// Downstream and upstream connections of one worker, those that are closing too.
const CONNECTIONS_MAX: usize = 16 << 10;
/// TLS handshakes with downstream peers at once, per worker.
const HANDSHAKES_MAX: usize = 1024;
/// daprd gives it grpc-go's `ConnectionTimeout`, two minutes.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two lines of one acceptor.
const LINE_PAUSE: Duration = Duration::from_secs(10);

/// What one worker takes; tests take less.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) connections: usize,
    pub(super) handshakes: usize,
    pub(super) handshake_time: Duration,
}

impl Bounds {
    /// Of a worker that may have so many descriptors.
    pub(super) fn with_descriptors(descriptors: u64) -> Self {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        Self {
            connections: CONNECTIONS_MAX.min(descriptors).max(1),
            handshakes: HANDSHAKES_MAX,
            handshake_time: HANDSHAKE_TIMEOUT,
        }
    }
}

impl Bounds {
    /// As the proxy tells its own.
    pub(super) fn in_force(self, load: &OwnLoad) -> [Bound; 3] {
        let count = |number| u64::try_from(load.count(number)).ok();
        let bound = |limit, of, most, unit, used| Bound {
            limit,
            of,
            most: Some(most),
            unit,
            per_second: None,
            used,
        };
        let (connections, handshakes) = (self.connections as u64, self.handshakes as u64);
        let time = u64::try_from(self.handshake_time.as_millis()).unwrap_or(u64::MAX);
        let (number, milliseconds) = (Unit::Number, Unit::Milliseconds);
        [
            bound("connections", "worker", connections, number, count(Number::Connections)),
            bound("handshakes", "worker", handshakes, number, count(Number::Handshakes)),
            bound("slow_handshake", "connection", time, milliseconds, None),
        ]
    }
}

/// Of what every worker has as many as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Connections,
    Handshakes,
}

impl Full {
    /// The label of `ringside_limits_hit_total`.
    fn limit(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Handshakes => "handshakes",
        }
    }

    fn cause(self) -> &'static str {
        match self {
            Self::Connections => "every worker has as many connections as it may",
            Self::Handshakes => "every worker has as many TLS handshakes as it may",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Connections => RAISE,
            Self::Handshakes => "those that take too long are ended",
        }
    }
}

const RAISE: &str = "raise the limit of open files (ulimit -n)";

/// What keeps an acceptor from accepting, and when it was told last.
#[derive(Debug, Default)]
pub(super) struct Complaint {
    full: Option<Full>,
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaint {
    /// Every worker is full.
    pub(super) fn full(&mut self, worker: &Worker, listener: Listener, full: Full) {
        if self.full.replace(full) != Some(full) {
            worker.core.borrow_mut().proxy.count_limit(full.limit());
        }
        self.log(worker, listener, full.cause(), full.advice());
    }

    /// There was room.
    pub(super) fn had_room(&mut self) {
        self.full = None;
    }

    /// The kernel gave none.
    pub(super) fn failed(&mut self, worker: &Worker, listener: Listener, cause: &str) {
        self.log(worker, listener, cause, RAISE);
    }

    fn log(&mut self, worker: &Worker, listener: Listener, cause: &str, advice: &str) {
        let now = worker.now();
        if self.last.is_some_and(|last| now.duration_since(last) < LINE_PAUSE) {
            self.unsaid += 1;
            return;
        }
        self.last = Some(now);
        let unsaid = std::mem::take(&mut self.unsaid);
        tracing::error!(
            scope = SCOPE,
            "cannot accept connections on the {} port: {cause} (this worker has {}, at most {}; \
             {unsaid} more failures since the last message); still trying: {advice}",
            Name(listener),
            worker.load.count(Number::Connections),
            worker.bounds.connections,
        );
    }
}

struct Name(Listener);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Listener::Api => f.write_str("API"),
            Listener::Internal => f.write_str("internal"),
            Listener::Forward(index) => write!(f, "forward ({index})"),
        }
    }
}
