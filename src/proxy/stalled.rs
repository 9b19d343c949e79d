//! Readers that stall, on a connection that others need (docs/adr/0125).
//!
//! What came in by a connection and could not leave by the other leg is held. Each stream's window
//! bounds what one call makes us hold; the connection's window is given back meanwhile, so that a
//! reader that stalls stops its own sender and nobody else, up to `held_bytes_max`. Beyond that
//! every call on the connection would wait for readers that may never come, so that it must not
//! come to that:
//!
//! 1. Nobody is looked at while a connection holds [`HELD_SHARE`] at most.
//! 2. Above it, calls whose reader takes nothing for [`PATIENCE`] end, those that hold most first,
//!    until no more than the share is held; above [`HELD_CROWDED`], for [`PATIENCE_CROWDED`].
//! 3. A reader that takes anything is not stalled, however slow it is: neither is one whose
//!    connection takes anything, unless it has closed the window of this very stream.
//! 4. Looking costs nothing on a connection that holds little, and a bounded time now and then on
//!    one that holds much.
//!
//! Refuses to know windows: the engine tells what is held and what may leave.

use super::call::Up;
use super::contract::Level;
use super::failure::Failure;
use super::peer::{Peer, Side};
use super::{CallKey, ConnKey, Leg, Listener, Proxy};
use crate::grpc::Code;
use crate::http2::ErrorCode;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Octets that a connection holds before anybody is looked at.
pub(super) const HELD_SHARE: u64 = 16 << 20;
/// What a connection that several callers share may hold before its window closes.
pub(super) const HELD_MAX: u32 = 64 << 20;
/// Three quarters of it.
const HELD_CROWDED: u64 = 48 << 20;
const _: () = assert!(HELD_SHARE < HELD_CROWDED && HELD_CROWDED < HELD_MAX as u64);
/// A call that holds less is not worth its end.
const STALL_OCTETS_MIN: u32 = 16 << 10;
const PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE_CROWDED: Duration = Duration::from_millis(250);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_CROWDED: Duration = Duration::from_millis(125);

/// What was seen at the last look, and since when it is so.
#[derive(Clone, Copy, Debug)]
struct Mark {
    taken: u32,
    since: Instant,
}

impl Mark {
    /// Since when nothing was taken.
    fn look(self, taken: u32, now: Instant) -> Self {
        if self.taken == taken { self } else { Self { taken, since: now } }
    }
}

/// A connection that holds much is looked at until it does not.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) next: Instant,
    /// By call: of this connection's; bounded by its streams.
    calls: HashMap<CallKey, Mark>,
    /// By the connection of the other leg.
    conns: HashMap<ConnKey, Mark>,
}

/// A call that stalls.
#[derive(Clone, Copy)]
struct Staller {
    call: CallKey,
    held: u32,
    reader: ConnKey,
    /// Its caller is the one who does not read.
    responses: bool,
}

impl Proxy {
    /// Octets came in by `key`: is it time to look who takes his?
    #[inline]
    pub(super) fn note_held(&mut self, key: ConnKey, now: Instant) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let held = peer.h2.held_in_all();
        if held > HELD_SHARE {
            self.watch(key, held, now);
        }
    }

    #[cold]
    fn watch(&mut self, key: ConnKey, held: u64, now: Instant) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if matches!(peer.side, Side::Downstream { listener, .. } if listener != Listener::Internal)
        {
            return;
        }
        let crowded = held > HELD_CROWDED;
        let due = now + if crowded { LOOK_CROWDED } else { LOOK };
        match &mut peer.watch {
            Some(watch) if watch.next <= due => return,
            Some(watch) => watch.next = due,
            None => {
                let (calls, conns) = (HashMap::new(), HashMap::new());
                peer.watch = Some(Box::new(Watch { next: due, calls, conns }));
            }
        }
        self.remind_peer(key);
    }

    /// Looks at all calls of a connection that holds much.
    pub(super) fn look_at_stalled(&mut self, key: ConnKey, now: Instant) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let held = peer.h2.held_in_all();
        let Some(mut watch) = peer.watch.take_if(|watch| watch.next <= now) else { return };
        if held <= HELD_SHARE {
            return;
        }
        let crowded = held > HELD_CROWDED;
        let patience = if crowded { PATIENCE_CROWDED } else { PATIENCE };
        watch.next = now + if crowded { LOOK_CROWDED } else { LOOK };
        let mut stallers = self.stallers(key, &mut watch, patience, now);
        if let Some(peer) = self.peers.get_mut(key) {
            peer.watch = Some(watch);
        }
        stallers.sort_unstable_by_key(|staller| u32::MAX - staller.held);
        let mut left = held;
        for staller in stallers {
            if left <= HELD_SHARE {
                break;
            }
            left -= u64::from(staller.held);
            self.end_stalled(staller, now);
        }
    }

    fn stallers(
        &self,
        key: ConnKey,
        watch: &mut Watch,
        patience: Duration,
        now: Instant,
    ) -> Vec<Staller> {
        let Some(peer) = self.peers.get(key) else { return Vec::new() };
        let Watch { calls: marks, conns, .. } = watch;
        conns.retain(|key, _| self.peers.contains_key(*key));
        for (conn, mark) in conns.iter_mut() {
            *mark = mark.look(self.peers.get(*conn).map_or(0, |peer| peer.sent), now);
        }
        let mut seen = HashMap::with_capacity(marks.len());
        let mut stallers = Vec::new();
        for call in &peer.calls {
            let Some((held, reader, responses)) = self.held_by(*call, key, peer) else { continue };
            let Some(other) = self.peers.get(reader.conn) else { continue };
            let waits = other.h2.queued(reader.stream) > 0;
            if held < STALL_OCTETS_MIN || !waits {
                continue;
            }
            let fresh = Mark { taken: reader.sent, since: now };
            let mark = marks.get(call).copied().unwrap_or(fresh).look(reader.sent, now);
            seen.insert(*call, mark);
            let taken = other.sent;
            let conn = *conns.entry(reader.conn).or_insert(Mark { taken, since: now });
            let closed = other.h2.is_window_closed(reader.stream);
            let idle = now.saturating_duration_since(mark.since);
            let deaf = now.saturating_duration_since(conn.since);
            if idle >= patience && (closed || deaf >= patience) {
                stallers.push(Staller { call: *call, held, reader: reader.conn, responses });
            }
        }
        *marks = seen;
        stallers
    }

    /// What a call of `peer` holds of what came in there, and the leg by which it must leave.
    fn held_by(&self, call: CallKey, key: ConnKey, peer: &Peer) -> Option<(u32, Leg, bool)> {
        let call = self.calls.get(call)?;
        let Up::Open(up) = call.up else { return None };
        if call.down.conn == key {
            return Some((peer.h2.held(call.down.stream), up, false));
        }
        Some((peer.h2.held(up.stream), call.down, true))
    }

    fn end_stalled(&mut self, staller: Staller, now: Instant) {
        let Staller { call, held, reader, responses } = staller;
        self.cells.limit_hit("stalled_streams");
        if let Some((scope, who)) = self.peers.get(reader).map(Peer::named) {
            let message = format!(
                "Limit stalled_streams: ended a call of which {who} has not read {held} octets, \
                 while others need the connection that they came by"
            );
            self.log(Level::Warn, scope, message, now);
        }
        if responses {
            return self.end_unread(call, now);
        }
        let message = "ringside: the callee does not read this call's messages, and others need \
                       the connection; send less before you hear from it";
        self.fail(call, &Failure::new(Code::ResourceExhausted, message), now);
    }

    /// Its caller reads nothing, so that no status could reach him behind what waits:
    /// ENHANCE_YOUR_CALM, which gRPC's clients tell as RESOURCE_EXHAUSTED.
    fn end_unread(&mut self, key: CallKey, now: Instant) {
        let Some(call) = self.calls.remove(key) else { return };
        let Leg { conn, stream, .. } = call.down;
        if let Some(peer) = self.peers.get_mut(conn) {
            peer.h2.send_reset(stream, ErrorCode::ENHANCE_YOUR_CALM);
            peer.touch(conn, &mut self.outputs);
        }
        self.free(key, call, Code::ResourceExhausted as u8, now);
    }
}
