//! The live streams of a connection: a slab, and an index from stream ID to slot.
//!
//! The index is open addressing on `id >> 1`: IDs are handed out in steps of two, so that live
//! streams lie beside each other and the first probe mostly hits, without hashing.
//!
//! 1. A slot is occupied if and only if the index names it, under its stream's ID.
//! 2. The index is at most half full, so that a probe ends.
//! 3. In steady state nothing is allocated: slots are reused, the index only grows with the
//!    number of streams.
//!
//! Refuses to know what a stream is doing.

use super::StreamId;
use super::stream::Stream;

/// Index of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub u32);

const NONE: u32 = u32::MAX;
const INDEX_MIN: usize = 16;
/// A table that empties keeps no more slots than these.
const SLOTS_KEPT_MAX: usize = 32;

#[derive(Debug)]
enum Entry {
    Vacant { next: u32 },
    Occupied(Stream),
}

/// `id` 0: free.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    id: u32,
    slot: u32,
}

/// See the file's text.
#[derive(Debug)]
pub struct Table {
    entries: Vec<Entry>,
    vacant: u32,
    index: Vec<Place>,
    len: usize,
}

impl Table {
    pub fn new() -> Self {
        Self { entries: Vec::new(), vacant: NONE, index: Vec::new(), len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn find(&self, id: StreamId) -> Option<Slot> {
        self.place(id.0).and_then(|place| self.index.get(place)).map(|place| Slot(place.slot))
    }

    /// `slot` must come from this table, and its stream must not have been removed.
    pub fn stream(&self, slot: Slot) -> &Stream {
        match &self.entries[slot.0 as usize] {
            Entry::Occupied(stream) => stream,
            Entry::Vacant { .. } => unreachable!("slots are dropped with their streams"),
        }
    }

    pub fn stream_mut(&mut self, slot: Slot) -> &mut Stream {
        match &mut self.entries[slot.0 as usize] {
            Entry::Occupied(stream) => stream,
            Entry::Vacant { .. } => unreachable!("slots are dropped with their streams"),
        }
    }

    pub fn insert(&mut self, stream: Stream) -> Slot {
        debug_assert!(stream.id.0 != 0 && self.find(stream.id).is_none());
        if (self.len + 1) * 2 > self.index.len() {
            self.grow_index();
        }
        let id = stream.id.0;
        let slot = match self.vacant {
            NONE => {
                self.entries.push(Entry::Occupied(stream));
                (self.entries.len() - 1) as u32
            }
            slot => {
                let entry = &mut self.entries[slot as usize];
                if let Entry::Vacant { next } = *entry {
                    self.vacant = next;
                }
                *entry = Entry::Occupied(stream);
                slot
            }
        };
        self.len += 1;
        self.index_insert(Place { id, slot });
        Slot(slot)
    }

    /// Drops the stream where it is.
    pub fn remove(&mut self, slot: Slot) {
        let id = self.stream(slot).id.0;
        self.index_remove(id);
        self.entries[slot.0 as usize] = Entry::Vacant { next: self.vacant };
        self.vacant = slot.0;
        self.len -= 1;
        if self.len == 0 && self.entries.len() > SLOTS_KEPT_MAX {
            *self = Self::new();
        }
    }

    /// All slots in use, in no order that means anything.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + use<'_> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| match entry {
            Entry::Occupied(_) => Some(Slot(index as u32)),
            Entry::Vacant { .. } => None,
        })
    }

    /// Number of slots, in use or not, so that a loop over them may change the table.
    pub fn slots_end(&self) -> u32 {
        self.entries.len() as u32
    }

    /// The slot of this number, if it is in use.
    pub fn occupied(&self, index: u32) -> Option<Slot> {
        match self.entries.get(index as usize) {
            Some(Entry::Occupied(_)) => Some(Slot(index)),
            Some(Entry::Vacant { .. }) | None => None,
        }
    }

    fn mask(&self) -> usize {
        self.index.len() - 1
    }

    fn home(&self, id: u32) -> usize {
        (id >> 1) as usize & self.mask()
    }

    fn place(&self, id: u32) -> Option<usize> {
        if self.index.is_empty() {
            return None;
        }
        let mut at = self.home(id);
        loop {
            match self.index[at].id {
                0 => return None,
                found if found == id => return Some(at),
                _ => at = (at + 1) & self.mask(),
            }
        }
    }

    fn index_insert(&mut self, place: Place) {
        let mut at = self.home(place.id);
        while self.index[at].id != 0 {
            at = (at + 1) & self.mask();
        }
        self.index[at] = place;
    }

    /// Moves later entries of the run forward, so that no probe meets a hole before its goal.
    fn index_remove(&mut self, id: u32) {
        let Some(mut hole) = self.place(id) else { return };
        let mask = self.mask();
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let place = self.index[at];
            if place.id == 0 {
                break;
            }
            let from_home = at.wrapping_sub(self.home(place.id)) & mask;
            let from_hole = at.wrapping_sub(hole) & mask;
            if from_home >= from_hole {
                self.index[hole] = place;
                hole = at;
            }
        }
        self.index[hole] = Place::default();
    }

    fn grow_index(&mut self) {
        let len = (self.index.len() * 2).max(INDEX_MIN);
        let old = std::mem::replace(&mut self.index, vec![Place::default(); len]);
        for place in old.into_iter().filter(|place| place.id != 0) {
            self.index_insert(place);
        }
    }

    /// Invariants 1 and 2.
    pub fn check_invariants(&self) {
        let named = self.index.iter().filter(|place| place.id != 0).count();
        assert_eq!(named, self.len);
        assert_eq!(self.slots().count(), self.len);
        assert!(self.len * 2 <= self.index.len());
        for slot in self.slots() {
            assert_eq!(self.find(self.stream(slot).id), Some(slot));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream::{RecvHalf, SendHalf};
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
                // Long-lived streams among short ones: IDs far apart share a home.
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
    fn gives_memory_back_when_empty() {
        let mut table = Table::new();
        assert_eq!(table.find(StreamId(1)), None);
        let slots: Vec<Slot> = (0..100).map(|n| table.insert(stream(2 * n + 1))).collect();
        for slot in slots {
            table.remove(slot);
        }
        assert_eq!(table.entries.capacity() + table.index.capacity(), 0);
        let slot = table.insert(stream(201));
        assert_eq!(table.find(StreamId(201)), Some(slot));
    }
}
