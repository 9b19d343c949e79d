//! The live streams of a connection: a slab, and an index from stream ID to slot.
//!
//! IDs only rise (RFC 9113 §5.1.1), so the index is a list in order of insertion, and streams that
//! are gone leave a mark in it until it is swept. As long as no ID between was left out or swept,
//! a stream lies as many places from the end as its ID is steps below the newest: the first look
//! mostly hits. Else it lies after that place, and halving finds it.
//!
//! 1. A slot is occupied if and only if the index names it, under its stream's ID.
//! 2. The index rises, and marks of the gone are never more than [`GONE_MIN`] and the live
//!    streams together: whatever IDs the peer chooses, a look takes a logarithm of steps.
//! 3. In steady state nothing is allocated: slots are reused, the index only grows with the
//!    number of streams.
//!
//! Refuses to know what a stream is doing.

use super::StreamId;
use super::stream::{RecvHalf, SendHalf, Stream};

/// Index of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub u32);

const GONE: u32 = u32::MAX;
/// Marks of the gone that are not worth a sweep.
const GONE_MIN: usize = 16;
/// An empty table that is trimmed keeps no more slots than these.
const SLOTS_KEPT_MAX: usize = 32;
/// Of a stream in a slot that is not in use; a connection's own ID, so no stream's.
const VACANT: StreamId = StreamId(0);

#[derive(Clone, Copy, Debug)]
struct Place {
    id: StreamId,
    slot: u32,
}

/// See the file's text.
#[derive(Debug)]
pub struct Table {
    streams: Vec<Stream>,
    vacant: Vec<Slot>,
    index: Vec<Place>,
    /// Places of `index` whose stream is gone.
    gone: usize,
}

impl Table {
    pub fn new() -> Self {
        Self { streams: Vec::new(), vacant: Vec::new(), index: Vec::new(), gone: 0 }
    }

    pub fn len(&self) -> usize {
        self.index.len() - self.gone
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub fn find(&self, id: StreamId) -> Option<Slot> {
        let place = self.index.get(self.place(id)?)?;
        (place.slot != GONE).then_some(Slot(place.slot))
    }

    /// `slot` must come from this table, and its stream must not have been removed.
    #[inline]
    pub fn stream(&self, slot: Slot) -> &Stream {
        let stream = &self.streams[slot.0 as usize];
        debug_assert_ne!(stream.id, VACANT, "slots are dropped with their streams");
        stream
    }

    #[inline]
    pub fn stream_mut(&mut self, slot: Slot) -> &mut Stream {
        let stream = &mut self.streams[slot.0 as usize];
        debug_assert_ne!(stream.id, VACANT, "slots are dropped with their streams");
        stream
    }

    /// The stream's ID must be above all before it.
    #[inline]
    pub fn insert(&mut self, stream: Stream) -> Slot {
        debug_assert!(self.index.last().map_or(VACANT, |newest| newest.id) < stream.id);
        let slot = match self.vacant.pop() {
            Some(slot) => slot,
            None => self.grow(),
        };
        self.index.push(Place { id: stream.id, slot: slot.0 });
        self.streams[slot.0 as usize] = stream;
        slot
    }

    #[cold]
    fn grow(&mut self) -> Slot {
        self.streams.push(Stream::new(VACANT, RecvHalf::Ended, SendHalf::Ended, 0, 0));
        Slot((self.streams.len() - 1) as u32)
    }

    pub fn remove(&mut self, slot: Slot) {
        let stream = self.stream_mut(slot);
        let id = std::mem::replace(&mut stream.id, VACANT);
        stream.send = SendHalf::Ended;
        if let Some(place) = self.place(id).and_then(|at| self.index.get_mut(at)) {
            place.slot = GONE;
        }
        self.gone += 1;
        self.vacant.push(slot);
        if self.gone == self.index.len() {
            self.index.clear();
            self.gone = 0;
        } else if self.gone > GONE_MIN + self.len() {
            self.index.retain(|place| place.slot != GONE);
            self.gone = 0;
        }
    }

    /// It has taken memory.
    pub fn keeps(&self) -> bool {
        self.streams.capacity() > 0
    }

    pub fn is_large(&self) -> bool {
        self.streams.len() > SLOTS_KEPT_MAX
    }

    /// An empty one gives back what is large.
    pub fn trim(&mut self) {
        if self.is_empty() && self.is_large() {
            *self = Self::new();
        }
    }

    /// All slots in use, in no order that means anything.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + use<'_> {
        (0..self.slots_end()).filter_map(|index| self.occupied(index))
    }

    /// Number of slots, in use or not, so that a loop over them may change the table.
    pub fn slots_end(&self) -> u32 {
        self.streams.len() as u32
    }

    /// The slot of this number, if it is in use.
    pub fn occupied(&self, index: u32) -> Option<Slot> {
        let stream = self.streams.get(index as usize)?;
        (stream.id != VACANT).then_some(Slot(index))
    }

    #[inline]
    fn place(&self, id: StreamId) -> Option<usize> {
        let steps = self.index.last()?.id.0.checked_sub(id.0)? / 2;
        // Wraps around, to no place at all, when IDs were left out.
        let at = self.index.len().wrapping_sub(1 + steps as usize);
        match self.index.get(at) {
            Some(place) if place.id == id => Some(at),
            Some(_) | None => self.place_after(at, id),
        }
    }

    #[cold]
    fn place_after(&self, at: usize, id: StreamId) -> Option<usize> {
        let from = if at < self.index.len() { at } else { 0 };
        let found = self.index[from..].binary_search_by_key(&id, |place| place.id);
        found.ok().map(|beyond| from + beyond)
    }

    /// Invariants 1 and 2.
    pub fn check_invariants(&self) {
        let named = self.index.iter().filter(|place| place.slot != GONE).count();
        assert_eq!(named, self.len());
        assert_eq!(self.slots().count(), self.len());
        assert_eq!(self.vacant.len() + self.len(), self.streams.len());
        assert!(self.index.is_sorted_by(|a, b| a.id < b.id));
        assert!(self.gone <= GONE_MIN + self.len());
        for slot in self.slots() {
            assert_eq!(self.find(self.stream(slot).id), Some(slot));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn stream(id: u32) -> Stream {
        Stream::new(StreamId(id), RecvHalf::Body, SendHalf::Body, 1, 1)
    }

    #[test]
    fn agrees_with_a_map_under_random_churn() {
        let mut table = Table::new();
        let mut model = BTreeMap::new();
        let mut next = 1;
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let random = (seed >> 33) as u32;
            let grow = model.len() < 3 || (model.len() < 90 && random.is_multiple_of(2));
            if grow {
                model.insert(next, table.insert(stream(next)));
                // Long-lived streams among short ones, and IDs that are passed over.
                next += 2 * (1 + random % 40);
            } else {
                let nth = random as usize % model.len();
                let (&id, &slot) = model.iter().nth(nth).unwrap();
                model.remove(&id);
                assert_eq!(table.find(StreamId(id)), Some(slot));
                assert_eq!(table.stream(slot).id, StreamId(id));
                table.remove(slot);
                assert_eq!(table.find(StreamId(id)), None);
            }
            assert_eq!(table.len(), model.len());
        }
        table.check_invariants();
        for (id, slot) in model {
            assert_eq!(table.find(StreamId(id)), Some(slot));
        }
    }

    #[test]
    fn gives_memory_back_when_asked() {
        let mut table = Table::new();
        assert_eq!(table.find(StreamId(1)), None);
        let slots: Vec<Slot> = (0..100).map(|n| table.insert(stream(2 * n + 1))).collect();
        for slot in slots {
            table.remove(slot);
        }
        assert!(table.is_large());
        table.trim();
        assert_eq!(table.streams.capacity() + table.index.capacity(), 0);
        let slot = table.insert(stream(201));
        assert_eq!(table.find(StreamId(201)), Some(slot));
    }
}
