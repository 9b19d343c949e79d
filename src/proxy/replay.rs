//! Requests that nobody has begun to answer yet, kept so that they can be made again unseen.
//!
//! A callee may leave a call out: GOAWAY names the last stream that it looked at (RFC 9113 §6.8),
//! REFUSED_STREAM a stream that it did not look at (§8.7). Such a call did not happen, so it may
//! be made again whatever its method does; and so may one that never left this process. The caller
//! learns nothing of it.
//!
//! 1. A call keeps its request's head and DATA until the response's head comes, the call ends, or
//!    there is too much: what is kept is whole.
//! 2. Bounded: [`CALL_OCTETS_MAX`] of a call, [`WORKER_OCTETS_MAX`] in all; calls beyond that are
//!    not kept, and fail when they are left out.
//! 3. A head is moved in, not copied. Small DATA is copied behind its fields, so that it keeps no
//!    read buffer alive; large DATA is kept by reference. In steady state nothing is allocated.

use super::call::{Call, Up};
use super::failure::Failure;
use super::guard::Cause;
use super::{CallKey, Leg, Proxy};
use crate::http2::FieldSection;
use bytes::Bytes;
use std::time::Instant;

/// DATA of one call: as much as grpc-go keeps of a call, and as a stream's window lets come.
pub(super) const CALL_OCTETS_MAX: usize = 256 << 10;
/// The same of a call whose policy has it tried again: a message of daprd's default size.
pub(super) const KEPT_FOR_RETRY_MAX: usize = (4 << 20) + 5;
/// What all calls of a worker keep.
pub(super) const WORKER_OCTETS_MAX: usize = 32 << 20;
/// A smaller piece is copied.
const COPIED_BELOW: usize = 2 << 10;
/// What a piece by reference counts at least: it may keep a read buffer alive.
const PINNED_OCTETS_MIN: usize = 16 << 10;
/// Lists of pieces that wait for the next call, and the longest that may.
const LISTS_MAX: usize = 64;
const LIST_LEN_MAX: usize = 32;

/// Field sections that wait for the next held head, and the largest that may.
const SECTIONS_MAX: usize = 256;
const SECTION_OCTETS_MAX: usize = 4 << 10;

/// How often one call is made again.
pub(super) const REPLAYS_MAX: u8 = 4;
/// And how often after REFUSED_STREAM, as grpc-go: who refuses may be overloaded.
const REFUSALS_MAX: u8 = 1;

/// What is kept of one call.
#[derive(Debug)]
pub(super) struct Kept {
    /// As they are sent, lent to the engine for that; behind them, DATA.
    fields: FieldSection,
    /// The number of the first field that the last touch added.
    stamped_from: usize,
    /// Where DATA begins behind the fields.
    tail_from: usize,
    /// The request ended with its head.
    ends_with_head: bool,
    /// From the first large piece on, all DATA.
    pieces: Vec<Bytes>,
    /// DATA octets.
    octets: usize,
    /// What it counts.
    charge: usize,
    /// The most DATA octets.
    octets_max: usize,
}

impl Kept {
    /// More than is kept of most calls.
    pub(super) fn allow(&mut self, octets_max: usize) {
        self.octets_max = octets_max;
    }
}

/// A request, to be sent again.
#[derive(Debug)]
pub(super) struct Request {
    /// Without what the last touch added.
    pub(super) fields: FieldSection,
    pub(super) data: Vec<Bytes>,
    pub(super) octets: usize,
}

/// What the calls of a worker keep in all; see the file's text.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    charge: usize,
    lists: Vec<Vec<Bytes>>,
    /// For the connections whose heads are held, so that they lack none.
    sections: Vec<FieldSection>,
}

impl Call {
    /// The request's head, for the engine to write: until then it is kept here only.
    pub(super) fn request(&self) -> Option<&FieldSection> {
        self.kept.as_ref().map(Kept::fields)
    }
}

impl Kept {
    /// The request's head, as it is sent.
    pub(super) fn fields(&self) -> &FieldSection {
        &self.fields
    }
}

impl Keeper {
    /// Octets of the worker's limit that are taken.
    pub(super) fn charge(&self) -> usize {
        self.charge
    }

    /// A call is opened, by a head that may be all of it. Gives the section back if it cannot be
    /// kept.
    #[inline]
    pub(super) fn keep(
        &mut self,
        fields: FieldSection,
        stamped_from: usize,
        ends_with_head: bool,
    ) -> Result<Kept, FieldSection> {
        let charge = fields.kept();
        if self.charge + charge > WORKER_OCTETS_MAX {
            return Err(fields);
        }
        self.charge += charge;
        let tail_from = fields.mark();
        Ok(Kept {
            fields,
            stamped_from,
            tail_from,
            ends_with_head,
            pieces: Vec::new(),
            octets: 0,
            charge,
            octets_max: CALL_OCTETS_MAX,
        })
    }

    /// DATA of a call went out. Gives the call's head back if it is not kept any more.
    #[inline]
    pub(super) fn data(&mut self, slot: &mut Option<Kept>, data: &Bytes) -> Option<FieldSection> {
        let kept = slot.as_mut()?;
        let len = data.len();
        let fits = kept.octets + len <= kept.octets_max && self.charge + len <= WORKER_OCTETS_MAX;
        if len < COPIED_BELOW && kept.pieces.is_empty() && fits {
            // COPY: below `COPIED_BELOW`, so that no read buffer stays for it.
            kept.fields.push_tail(data);
            kept.octets += len;
            kept.charge += len;
            self.charge += len;
            return None;
        }
        self.large(slot, data)
    }

    fn large(&mut self, slot: &mut Option<Kept>, data: &Bytes) -> Option<FieldSection> {
        let kept = slot.as_mut()?;
        let copy = data.len() < COPIED_BELOW;
        let charge = if copy { data.len() } else { data.len().max(PINNED_OCTETS_MIN) };
        let octets = kept.octets + data.len();
        if octets > kept.octets_max || self.charge + charge > WORKER_OCTETS_MAX {
            return slot.take().map(|kept| self.forget(kept));
        }
        kept.octets = octets;
        kept.charge += charge;
        self.charge += charge;
        if kept.pieces.capacity() == 0 {
            kept.pieces = self.lists.pop().unwrap_or_default();
        }
        // COPY: as above, of a call that has large pieces, too.
        let piece = if copy { Bytes::copy_from_slice(data) } else { data.clone() };
        kept.pieces.push(piece);
        None
    }

    /// The call needs nothing of this any more.
    #[inline]
    pub(super) fn forget(&mut self, kept: Kept) -> FieldSection {
        let Kept { fields, pieces, charge, .. } = kept;
        self.charge -= charge;
        if pieces.capacity() > 0 {
            self.give_back(pieces);
        }
        fields
    }

    /// In exchange for a section that is held.
    pub(super) fn section(&mut self) -> FieldSection {
        self.sections.pop().unwrap_or_default()
    }

    /// A section that no connection waits for.
    pub(super) fn give_section(&mut self, mut fields: FieldSection) {
        if self.sections.len() < SECTIONS_MAX && fields.kept() <= SECTION_OCTETS_MAX {
            fields.clear();
            self.sections.push(fields);
        }
    }

    fn give_back(&mut self, mut pieces: Vec<Bytes>) {
        if pieces.capacity() <= LIST_LEN_MAX && self.lists.len() < LISTS_MAX {
            pieces.clear();
            self.lists.push(pieces);
        }
    }

    /// For the next attempt, of a request that has ended or not.
    #[cold]
    pub(super) fn take(&mut self, mut kept: Kept, ended: bool) -> Request {
        let mut data = std::mem::take(&mut kept.pieces);
        let tail = kept.fields.since(kept.tail_from);
        if !tail.is_empty() {
            // COPY: what was copied on the way in, once for each attempt.
            data.insert(0, Bytes::copy_from_slice(tail));
        }
        if ended && data.is_empty() && !kept.ends_with_head {
            // The end of a request without messages is said apart from its head, and so it goes.
            data.push(Bytes::new());
        }
        let (octets, stamped_from) = (kept.octets, kept.stamped_from);
        let mut fields = self.forget(kept);
        fields.truncate(stamped_from);
        Request { fields, data, octets }
    }

    /// What all calls together keep is what they say that they keep.
    pub(super) fn check_invariants<'a>(&self, all: impl Iterator<Item = &'a Kept>) {
        assert!(self.charge <= WORKER_OCTETS_MAX && self.lists.len() <= LISTS_MAX);
        assert!(self.lists.iter().all(Vec::is_empty));
        let mut charge = 0;
        for kept in all {
            charge += kept.charge;
            let pieces: usize = kept.pieces.iter().map(Bytes::len).sum();
            assert_eq!(kept.fields.since(kept.tail_from).len() + pieces, kept.octets);
            assert!(kept.octets <= kept.octets_max && kept.octets_max <= KEPT_FOR_RETRY_MAX);
        }
        assert_eq!(charge, self.charge);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.charge == 0
    }
}

/// Why a call may be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unseen {
    /// A GOAWAY left it out.
    LeftOut,
    /// RST_STREAM(REFUSED_STREAM).
    Refused,
    /// Its connection was lost before any of it was handed to the socket.
    Unsent,
}

impl Proxy {
    /// Makes a call again that its upstream did not look at, if it is still at hand; false when
    /// it is not, and nothing has changed.
    #[cold]
    pub(super) fn replay(&mut self, key: CallKey, why: Unseen, now: Instant) -> bool {
        let begun = self.holds_head(key);
        let Some(call) = self.calls.get_mut(key) else { return false };
        let Up::Open(Leg { conn, .. }) = call.up else { return false };
        let most = if why == Unseen::Refused { REFUSALS_MAX } else { REPLAYS_MAX };
        if call.head_sent || begun || call.replays >= most {
            return false;
        }
        let Some(kept) = call.kept.take() else { return false };
        let Request { fields, data, octets } = self.keeper.take(kept, call.request_ended);
        // What the caller's window still holds was never sent; for the rest it has had its window
        // back already.
        let down = self.peers.get(call.down.conn);
        let held = down.map_or(0, |peer| peer.h2.held(call.down.stream)) as usize;
        call.replays += 1;
        call.credited = octets.saturating_sub(held) as u32;
        let pool = call.pool;
        self.cells.replayed();
        self.detach(conn, key);
        // Another connection, if there is one that takes it: this one may be full.
        match self.pick_but(pool, conn, now) {
            Some(other) if !self.pools.has_parked(pool) => self.open(key, other, fields, data, now),
            Some(_) | None => self.park(pool, key, fields, data, now),
        }
        true
    }

    /// The upstream went away before it looked at this stream.
    pub(super) fn stream_refused(&mut self, key: CallKey, now: Instant) {
        if self.replay(key, Unseen::LeftOut, now) {
            return;
        }
        let Some(call) = self.calls.get(key) else { return };
        let Up::Open(Leg { conn, .. }) = call.up else { return };
        // grpc-go's text.
        let text = "the stream is rejected because server is draining the connection";
        let failure = Failure::unavailable(self.blame(conn, text)).undelivered();
        self.detach(conn, key);
        let cause = Cause::Undelivered(failure.code as u8);
        self.fail_attempt(key, &failure, cause, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(value: &str) -> FieldSection {
        let mut fields = FieldSection::new();
        fields.push(b"x", value.as_bytes());
        fields
    }

    fn kept(keeper: &mut Keeper) -> Option<Kept> {
        let mut fields = section("mine");
        fields.push(b"te", b"trailers");
        let kept = keeper.keep(fields, 1, false).ok();
        keeper.check_invariants(kept.iter());
        kept
    }

    /// Small pieces, then large and small ones.
    #[test]
    fn what_is_taken_is_what_was_sent() {
        let large = Bytes::from(vec![7; COPIED_BELOW]);
        let small = |text: &'static [u8]| Bytes::from_static(text);
        let sent = [small(b"ab"), small(b""), small(b"cd"), large.clone(), small(b"ef"), large];
        for count in 0..=sent.len() {
            let mut keeper = Keeper::default();
            let mut kept = kept(&mut keeper);
            for data in &sent[..count] {
                keeper.data(&mut kept, data);
                keeper.check_invariants(kept.iter());
            }
            let request = keeper.take(kept.unwrap(), false);
            assert_eq!(request.fields, section("mine"));
            assert_eq!(request.data.concat(), sent[..count].concat());
            assert_eq!(request.octets, sent[..count].concat().len());
            let shared = request.data.iter().any(|data| data.as_ptr() == sent[3].as_ptr());
            assert_eq!(shared, count > 3, "large ones by reference");
            assert!(!request.data.iter().any(|data| data.as_ptr() == sent[0].as_ptr()));
            assert!(keeper.is_empty());
        }
    }

    #[test]
    fn too_much_of_one_call_is_not_kept() {
        for size in [CALL_OCTETS_MAX / 4, COPIED_BELOW / 2] {
            let mut keeper = Keeper::default();
            let mut kept = kept(&mut keeper);
            let piece = Bytes::from(vec![7; size]);
            for _ in 0..CALL_OCTETS_MAX / size {
                keeper.data(&mut kept, &piece);
                assert!(kept.is_some());
            }
            keeper.data(&mut kept, &Bytes::from_static(b"x"));
            assert!(kept.is_none() && keeper.is_empty());
            assert!(piece.is_unique(), "nothing refers to it");
        }
    }

    #[test]
    fn a_worker_keeps_no_more_than_its_limit() {
        let mut keeper = Keeper::default();
        let piece = Bytes::from(vec![7; CALL_OCTETS_MAX]);
        let mut all: Vec<_> = (0..200).map(|_| kept(&mut Keeper::default())).collect();
        for slot in &mut all {
            *slot = keeper.keep(section("mine"), 1, false).ok();
            keeper.data(slot, &piece);
        }
        keeper.check_invariants(all.iter().flatten());
        let whole = all.iter().flatten().count();
        assert!(whole > 120 && whole < 128, "{whole}");
        // Heads alone are bounded, too.
        let mut heads = Vec::new();
        while let Ok(kept) = keeper.keep(section(&"v".repeat(1 << 20)), 1, false) {
            heads.push(kept);
        }
        assert!(heads.len() < 32);
        for kept in all.into_iter().flatten().chain(heads) {
            keeper.forget(kept);
        }
        assert!(keeper.is_empty());
        // A piece by reference counts what it may keep alive.
        let mut slot = keeper.keep(section("mine"), 1, false).ok();
        let before = keeper.charge;
        keeper.data(&mut slot, &piece.slice(..COPIED_BELOW));
        assert_eq!(keeper.charge - before, PINNED_OCTETS_MIN);
    }
}
