//! How connections end: lost, failed, idle, silent, drained.
//!
//! 1. A downstream connection is told twice (RFC 9113 §6.8): GOAWAY(2^31-1) and a PING; when the
//!    PING is answered, GOAWAY(last stream). What was sent meanwhile is served.
//! 2. `Output::Close` comes once per connection, after all that was to be sent.
//! 3. A drain ends when no call is left, or at `--ringside-drain-max`, when what is left ends
//!    UNAVAILABLE.

use super::call::{Call, Up};
use super::contract::{CloseReason, Level, Output};
use super::failure::Failure;
use super::guard::Cause;
use super::peer::{DRAIN_NOTICE, LAST_WORDS, PREFACE_TIMEOUT};
use super::peer::{Farewell, IDLE_TIMEOUT, PING_DRAIN, Peer, Side, Stage};
use super::replay::Unseen;
use super::{CallKey, ConnKey, Proxy, Reminder};
use crate::http2::{ConnectionError, ErrorCode};
use crate::policy::method::quote;
use std::time::Instant;

/// What is kept of a GOAWAY's debug data.
const GOAWAY_DEBUG_MAX: usize = 256;

impl Proxy {
    /// The socket is gone.
    pub(super) fn peer_gone(&mut self, key: ConnKey, reason: CloseReason, now: Instant) {
        self.end_calls(key, reason, now);
        self.remove(key, now);
    }

    /// The peer broke HTTP/2: our GOAWAY is queued, nothing more is heard.
    pub(super) fn connection_failed(&mut self, key: ConnKey, error: ConnectionError, now: Instant) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.closing = true;
        let (scope, who) = peer.named();
        let ConnectionError { code, reason, limit } = error;
        let message = format!("Closed the connection with {who}: {} ({reason})", code.name());
        if let Some(limit) = limit {
            self.cells.limit_hit(limit.name());
        }
        self.log(Level::Warn, scope, message, now);
        self.end_calls(key, CloseReason::Error(error.reason), now);
        self.touch(key);
        self.close_if_done(key);
    }

    fn end_calls(&mut self, key: ConnKey, reason: CloseReason, now: Instant) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.closing = true;
        // Each call that ends asks whether its connection is done: not one inside the other, or
        // thousands of calls would overflow the stack.
        if std::mem::replace(&mut peer.ending, true) {
            return;
        }
        let upstream = match peer.side {
            Side::Downstream { .. } => None,
            Side::Upstream { pool, .. } => Some(pool),
        };
        if let Some(pool) = upstream {
            self.upstream_gone(pool, key, reason, now);
        }
        let lost = Failure::unavailable(self.loss(key, reason));
        let unsent = lost.clone().undelivered();
        // Bounded: each turn takes a call off the connection.
        while let Some(call) = self.peers.get(key).and_then(|peer| peer.calls.last()).copied() {
            match upstream {
                Some(_) if self.is_unsent(key, call) => {
                    if !self.replay(call, Unseen::Unsent, now) {
                        let cause = Cause::Undelivered(unsent.code as u8);
                        self.fail_attempt(call, &unsent, cause, now);
                    }
                }
                Some(_) => {
                    let cause = Cause::Status(lost.code as u8);
                    self.fail_attempt(call, &lost, cause, now);
                }
                None => self.cancel(call, now),
            }
        }
        if let Some(peer) = self.peers.get_mut(key) {
            peer.ending = false;
        }
    }

    /// As grpc-go tells of a connection that is lost.
    fn loss(&self, key: ConnKey, reason: CloseReason) -> String {
        // Bare: only what fails before a stream is open has "connection error" around it.
        let text = format!("error reading from server: {}", reason.text());
        match self.peers.get(key).and_then(|peer| peer.goaway_heard.as_ref()) {
            None => self.blame(key, &text),
            Some(goaway) => {
                let text = format!(
                    "closing transport due to: connection error: desc = \"{text}\", received \
                     prior goaway: {goaway}"
                );
                self.blame(key, &text)
            }
        }
    }

    /// Nothing of the call was given to the socket of this upstream.
    fn is_unsent(&self, key: ConnKey, call: CallKey) -> bool {
        let handed_over = self.peers.get(key).map(|peer| peer.handed_over);
        match self.calls.get(call) {
            Some(Call { up: Up::Open(up), .. }) => handed_over.is_some_and(|last| up.stream > last),
            Some(_) | None => false,
        }
    }

    fn remove(&mut self, key: ConnKey, now: Instant) {
        if let Some(peer) = self.peers.remove(key) {
            self.tally_gone(&peer);
            self.upstream_left(&peer);
            self.outputs.push_back(Output::Close(key.into()));
        }
        self.check_drained(now);
    }

    /// Closes a connection that has nothing left to do.
    pub(super) fn close_if_done(&mut self, key: ConnKey) {
        let Some(peer) = self.peers.get(key) else { return };
        let retired = match peer.side {
            Side::Upstream { stage, .. } => {
                stage == Stage::Retired || (stage == Stage::Ready && peer.h2.is_retired())
            }
            Side::Downstream { .. } => {
                matches!(peer.farewell, Farewell::Final | Farewell::Overdue { .. })
            }
        };
        // Most connections, most of the time.
        if !peer.closing && !retired {
            return;
        }
        let quiet = peer.calls.is_empty() && peer.h2.streams() == 0;
        let busy = peer.ending || peer.dirty || peer.h2.wants_transmit();
        if !busy && (peer.closing || quiet) {
            let heard = peer.heard;
            self.forget_upstream(key);
            self.remove(key, heard);
        }
    }

    /// Takes no more calls; closes when the last one is done.
    pub(super) fn retire_upstream(&mut self, conn: ConnKey) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        let Side::Upstream { pool, stage, .. } = &mut peer.side else { return };
        let pool = *pool;
        let before = std::mem::replace(stage, Stage::Retired);
        if let Some(pool) = self.pools.pools.get_mut(pool) {
            pool.conns.retain(|key| *key != conn);
            pool.leaving += usize::from(before != Stage::Retired);
        }
        self.close_if_done(conn);
    }

    /// An upstream connection has left the worker.
    pub(super) fn upstream_left(&mut self, peer: &Peer) {
        if let Side::Upstream { pool, stage: Stage::Retired, .. } = peer.side
            && let Some(pool) = self.pools.pools.get_mut(pool)
        {
            pool.leaving -= 1;
        }
    }

    fn forget_upstream(&mut self, key: ConnKey) {
        let Some(Peer { side: Side::Upstream { .. }, heard, .. }) = self.peers.get(key) else {
            return;
        };
        let heard = *heard;
        self.end_calls(key, CloseReason::Eof, heard);
    }

    pub(super) fn goaway_heard(
        &mut self,
        key: ConnKey,
        code: ErrorCode,
        debug: &[u8],
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Side::Upstream { pool, .. } = peer.side else { return };
        if peer.goaway_heard.is_none() {
            let debug = quote(debug.get(..GOAWAY_DEBUG_MAX).unwrap_or(debug));
            let text = format!("code: {}, debug data: {debug}", code.name());
            peer.goaway_heard = Some(text.into());
        }
        let used = self.place_leaves(key, now);
        self.retire_upstream(key);
        self.pump(pool, now);
        if used {
            self.spread(pool, now);
        }
    }

    pub(super) fn pong(&mut self, key: ConnKey, payload: [u8; 8]) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if payload == PING_DRAIN && matches!(peer.farewell, Farewell::Noticed { .. }) {
            self.say_final(key);
        }
    }

    /// The first of the two GOAWAYs.
    pub(super) fn say_farewell(&mut self, key: ConnKey, now: Instant) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.farewell != Farewell::None || peer.closing {
            return;
        }
        peer.farewell = Farewell::Noticed { since: now };
        peer.h2.goaway_notice();
        peer.h2.ping(PING_DRAIN);
        self.remind_peer(key);
        self.touch(key);
    }

    fn say_final(&mut self, key: ConnKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.farewell = Farewell::Final;
        peer.h2.goaway(ErrorCode::NO_ERROR, "");
        self.touch(key);
        self.close_if_done(key);
    }

    /// SIGTERM or Shutdown (spec 03 §3.12).
    pub(super) fn drain(&mut self, now: Instant) {
        if self.draining {
            return;
        }
        self.draining = true;
        let keys: Vec<ConnKey> = self.peers.keys().collect();
        for key in keys {
            match self.peers[key].side {
                Side::Downstream { .. } => self.say_farewell(key, now),
                Side::Upstream { .. } => {}
            }
        }
        if let Some(max) = self.snapshot.config.drain_max {
            self.remind(now + max, Reminder::DrainMax);
        }
        self.check_drained(now);
    }

    /// `--ringside-drain-max` is over.
    pub(super) fn end_drain(&mut self, now: Instant) {
        let message = "ringside is shutting down and its --ringside-drain-max is over; \
                       call again through another sidecar";
        let failure = Failure::unavailable(message);
        let calls: Vec<_> = self.calls.keys().collect();
        for call in calls {
            self.fail(call, &failure, now);
        }
        let keys: Vec<ConnKey> = self.peers.keys().collect();
        for key in keys {
            let Some(peer) = self.peers.get(key) else { continue };
            if matches!(peer.side, Side::Downstream { .. }) {
                self.say_final(key);
                if let Some(peer) = self.peers.get_mut(key) {
                    peer.farewell = Farewell::Overdue { since: now };
                }
                self.remind_peer(key);
            }
        }
        self.check_drained(now);
    }

    /// When the last call and the last caller are gone, so are the upstreams.
    pub(super) fn check_drained(&mut self, now: Instant) {
        if !self.draining || self.drained || !self.calls.is_empty() {
            return;
        }
        let waits = self.peers.values().any(|peer| matches!(peer.side, Side::Downstream { .. }));
        if waits {
            return;
        }
        self.drained = true;
        let keys: Vec<ConnKey> = self.peers.keys().collect();
        for key in keys {
            let dialing = self.peers[key].is_dialing();
            self.retire_upstream(key);
            if dialing {
                self.remove(key, now);
            } else if let Some(peer) = self.peers.get_mut(key) {
                peer.h2.goaway(ErrorCode::NO_ERROR, "");
                peer.closing = true;
                self.touch(key);
                self.close_if_done(key);
            }
        }
        self.hand_spans_over();
        self.outputs.push_back(Output::Drained);
    }

    /// Puts the connection's next deadline into the heap, if it is earlier than what is there.
    pub(super) fn remind_peer(&mut self, key: ConnKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(at) = peer.next_timeout() else {
            return;
        };
        if peer.reminder.is_none_or(|known| at < known) {
            peer.reminder = Some(at);
            self.remind(at, Reminder::Conn(key));
        }
    }

    /// A connection's deadline has come, or is thought to have.
    pub(super) fn look_after(&mut self, key: ConnKey, now: Instant) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.reminder.is_some_and(|at| at > now) {
            return;
        }
        peer.reminder = None;
        if peer.h2.poll_timeout().is_some_and(|at| at <= now) {
            peer.h2.handle_timeout(now);
        }
        let freed = peer.flush_resets(now);
        self.drain_events(key, now);
        self.look_at_stalled(key, now);
        if freed {
            self.pump_of(key, now);
        }
        self.check_liveness(key, now);
        self.check_idle(key, now);
        self.remind_peer(key);
    }

    fn check_liveness(&mut self, key: ConnKey, now: Instant) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if let Side::Upstream { stage: Stage::Greeting { since }, .. } = peer.side
            && now >= since + PREFACE_TIMEOUT
        {
            return self.give_up(key, "i/o timeout", now);
        }
        if let Farewell::Noticed { since } = peer.farewell
            && now >= since + DRAIN_NOTICE
        {
            return self.say_final(key);
        }
        if let Farewell::Overdue { since } = peer.farewell
            && now >= since + LAST_WORDS
        {
            return self.give_up(key, "the time for the drain is over", now);
        }
        match peer.ping_overdue() {
            Some(over) if now >= over => {
                let reason = "keepalive ping failed to receive ACK within timeout";
                let (scope, who) = peer.named();
                let message = format!("Gave up the connection with {who}: {reason}");
                self.log(Level::Warn, scope, message, now);
                self.give_up(key, reason, now);
            }
            Some(_) => {}
            None if peer.ping_due().is_some_and(|due| now >= due) => {
                peer.send_ping(now);
                self.touch(key);
            }
            None => {}
        }
    }

    /// The peer does not answer: what waits for it is told, the socket is closed.
    pub(super) fn give_up(&mut self, key: ConnKey, reason: &'static str, now: Instant) {
        self.end_calls(key, CloseReason::Error(reason), now);
        self.remove(key, now);
    }

    fn check_idle(&mut self, key: ConnKey, now: Instant) {
        let app = self.pools.app();
        let Some(peer) = self.peers.get(key) else { return };
        if !peer.may_idle() || now < peer.idle_since + IDLE_TIMEOUT {
            return;
        }
        match peer.side {
            Side::Downstream { .. } => self.say_farewell(key, now),
            // daprd keeps one connection to its app warm.
            Side::Upstream { pool, .. } if pool == app && self.pools.is_first(app, key) => {
                if let Some(peer) = self.peers.get_mut(key) {
                    peer.idle_since = now;
                }
            }
            Side::Upstream { .. } => {
                if let Some(peer) = self.peers.get_mut(key) {
                    peer.h2.goaway(ErrorCode::NO_ERROR, "");
                }
                self.touch(key);
                self.retire_upstream(key);
            }
        }
    }
}
