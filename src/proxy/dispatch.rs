//! From a call that knows its pool to its upstream stream, and what its times mean until it ends.

use super::call::Up;
use super::failure::Failure;
use super::guard::Guard;
use super::peer::Side;
use super::{CallKey, ConnKey, Leg, PoolKey, Proxy, rewrite, unsaid};
use crate::http2::{FieldSection, OpenError};
use crate::observe::cells::Gauge;
use crate::policy::timeout;
use bytes::Bytes;
use slotmap::Key;
use std::time::Instant;

impl Proxy {
    /// Opens the upstream stream, or parks the call until its pool can.
    pub(super) fn dispatch(
        &mut self,
        key: CallKey,
        pool: PoolKey,
        fields: FieldSection,
        data: Vec<Bytes>,
        now: Instant,
    ) {
        // First come, first served: those who wait already go first.
        match self.pick(pool, now) {
            Some(conn) if !self.pools.has_parked(pool) => {
                self.open(key, conn, fields, data, now);
            }
            Some(_) | None => self.park(pool, key, fields, data, now),
        }
    }

    /// Sends HEADERS, and the DATA that is here already.
    pub(super) fn open(
        &mut self,
        key: CallKey,
        conn: ConnKey,
        mut fields: FieldSection,
        pending: Vec<Bytes>,
        now: Instant,
    ) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let Some(peer) = self.peers.get_mut(conn) else { return };
        let Side::Upstream { authority, far_app, .. } = &peer.side else { return };
        let wakes = *far_app && peer.calls.is_empty();
        let guard = self.guards.get(key);
        let until = timeout::earlier(call.deadline, guard.and_then(Guard::deadline));
        let remaining = until.map(|at| at.saturating_duration_since(now));
        if remaining.is_some_and(|left| left.is_zero()) {
            // Whoever waits for the next attempt's time will want it.
            self.keep_unsent(key, fields, pending);
            return self.time_reached(key, now);
        }
        unsaid::settle(call, guard, peer, &mut self.tracer, &self.fixed, &mut fields);
        let stamped_from = rewrite::stamp(&mut fields, &self.fixed, authority, remaining);
        let ends = call.request_ended && pending.is_empty();
        let tag = key.data().as_ffi();
        let opened = match self.keeper.keep(fields, stamped_from, ends) {
            Ok(mut kept) => {
                if let Some(octets_max) = guard.and_then(Guard::keeps) {
                    kept.allow(octets_max);
                }
                peer.h2.open_lent(call.kept.insert(kept).fields(), ends, tag)
            }
            Err(fields) => {
                self.cells.limit_hit("replay");
                peer.h2.open(fields, ends, tag)
            }
        };
        let stream = match opened {
            Ok(stream) => stream,
            Err(OpenError::Full | OpenError::Retired) => {
                // `pick` asked this connection a moment ago, so this is a bug in one of the two.
                debug_assert!(false, "a picked connection takes a stream");
                let message = "ringside: the picked upstream connection took no stream; try again";
                self.fail(key, &Failure::unavailable(message), now);
                return;
            }
        };
        peer.newest = stream;
        let last = pending.len();
        for (index, data) in pending.into_iter().enumerate() {
            if let Some(fields) = self.keeper.data(&mut call.kept, &data) {
                peer.h2.give_head(stream, fields);
            }
            peer.h2.send_data(stream, data, call.request_ended && index + 1 == last);
        }
        call.up = Up::Open(Leg { conn, stream, slot: peer.calls.len() as u32, sent: 0 });
        self.app_calls.opened(call.pool == self.pools.app());
        call.tally.sent(&mut self.cells);
        if let Some(witness) = &mut call.witness {
            witness.opened(peer.named().1, now);
        }
        peer.calls.push(key);
        self.cells.rise(Gauge::Streams);
        peer.touch(conn, &mut self.outputs);
        if wakes {
            // From now on its silence counts.
            self.remind_peer(conn);
        }
        self.handshake_done(key, now);
    }

    /// A time has come that the caller or a policy set.
    pub(super) fn time_reached(&mut self, key: CallKey, now: Instant) {
        match self.calls.get(key) {
            Some(call) if call.is_late(now) => self.fail(key, &Failure::deadline(), now),
            Some(_) | None => self.guard_due(key, now),
        }
    }
}
