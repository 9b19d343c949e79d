//! What the log and `ringside_limits_hit_total` are told of peers.
//!
//! 1. A worker writes [`LOG_LINES_MAX`] lines in a second; more are counted only.
//! 2. A limit is counted each time it is reached; what its connection outlives is told once in
//!    [`LIMIT_LINE_PERIOD`] for each limit.

use super::contract::{Level, Listener, LogLine, Output};
use super::peer::{self, Peer};
use super::{ConnKey, Proxy};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Lines for the log in a second; more are not written.
pub(super) const LOG_LINES_MAX: u32 = 20;
pub(super) const LOG_PERIOD: Duration = Duration::from_secs(1);
/// Lines of one limit that its connection outlives are this far apart.
pub(super) const LIMIT_LINE_PERIOD: Duration = Duration::from_secs(10);

/// When what was told last.
#[derive(Debug)]
pub(super) struct Told {
    /// Since when `lines` are counted.
    since: Instant,
    lines: u32,
    /// As many as there are names.
    limits: Vec<(&'static str, Instant)>,
}

impl Told {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, lines: 0, limits: Vec::new() }
    }

    fn is_full(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= LOG_PERIOD {
            (self.since, self.lines) = (now, 0);
        }
        self.lines += 1;
        self.lines > LOG_LINES_MAX
    }

    fn is_due(&mut self, limit: &'static str, now: Instant) -> bool {
        match self.limits.iter_mut().find(|(name, _)| *name == limit) {
            Some((_, at)) if now.saturating_duration_since(*at) < LIMIT_LINE_PERIOD => false,
            Some((_, at)) => {
                *at = now;
                true
            }
            None => {
                self.limits.push((limit, now));
                true
            }
        }
    }
}

impl Proxy {
    pub(super) fn log(&mut self, level: Level, scope: &'static str, message: String, now: Instant) {
        if self.told.is_full(now) {
            return self.cells.limit_hit("log_lines");
        }
        self.outputs.push_back(Output::Log(LogLine { level, scope, message }));
    }

    /// A limit that `io` keeps was reached, of which it tells the log itself.
    pub fn count_limit(&mut self, limit: &'static str) {
        self.cells.limit_hit(limit);
    }

    /// A peer reached a limit and its connection lives: counted each time, told now and then.
    #[cold]
    pub(super) fn limit_reached(
        &mut self,
        limit: &'static str,
        what: &'static str,
        conn: ConnKey,
        now: Instant,
    ) {
        let Some((scope, who)) = self.peers.get(conn).map(Peer::named) else {
            return self.cells.limit_hit(limit);
        };
        self.tell_limit(limit, what, scope, &who, now);
    }

    /// A peer never became a connection.
    pub(super) fn handshake_overdue(
        &mut self,
        listener: Listener,
        peer: Option<SocketAddr>,
        now: Instant,
    ) {
        let (scope, who) = peer::downstream_name(listener, peer);
        self.tell_limit(
            "slow_handshake",
            "closed: its TLS handshake takes too long",
            scope,
            &who,
            now,
        );
    }

    pub(super) fn tell_limit(
        &mut self,
        limit: &'static str,
        what: &'static str,
        scope: &'static str,
        who: &str,
        now: Instant,
    ) {
        self.cells.limit_hit(limit);
        if self.told.is_due(limit, now) {
            let message = format!("Limit {limit} reached by {who}: {what}");
            self.log(Level::Warn, scope, message, now);
        }
    }
}
