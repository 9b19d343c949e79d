//! The dynamic table (RFC 7541 §2.3.2, §4), for either direction.
//!
//! Octets lie in one buffer in order of insertion; since eviction takes the oldest, what lives is
//! always one run of it, and dead octets at the front are dropped when they are half of it.
//!
//! 1. `size` is the sum over all rows of octets + 32 (§4.1) and never above `size_max`.
//! 2. The buffer never grows beyond `2 * size_max`; the list of rows not beyond `size_max / 32`.
//! 3. Nothing is allocated before the first insertion, nor once both have reached their size.
//!
//! Refuses to know who may insert what.

use super::FIELD_OVERHEAD;
use crate::http2::field::{Span, Traits};
use std::collections::VecDeque;

/// The first allocation of octets, so that a few short fields do not move house often.
const BUFFER_MIN: usize = 256;

#[derive(Debug)]
pub(super) struct Table {
    /// Oldest first. A row's `start` is its distance from the first octet ever inserted, modulo
    /// 2^32.
    rows: VecDeque<Span>,
    buffer: Vec<u8>,
    /// `Span::start` of the first octet in the buffer.
    base: u32,
    size: usize,
    size_max: usize,
    /// Insertions ever, modulo 2^32. Row `n` was inserted when this was `n`.
    inserted: u32,
}

impl Table {
    pub(super) fn new(size_max: u32) -> Self {
        Self {
            rows: VecDeque::new(),
            buffer: Vec::new(),
            base: 0,
            size: 0,
            size_max: size_max as usize,
            inserted: 0,
        }
    }

    pub(super) fn size_max(&self) -> usize {
        self.size_max
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The row `age` insertions ago; 0 is the newest.
    #[inline]
    pub(super) fn row(&self, age: usize) -> Option<&Span> {
        // What is older than the oldest wraps to a position that no list reaches.
        self.rows.get(self.rows.len().wrapping_sub(age + 1))
    }

    /// Name and value, adjoining.
    #[inline]
    pub(super) fn pair(&self, row: &Span) -> &[u8] {
        let at = row.start.wrapping_sub(self.base) as usize;
        self.buffer.get(at..at + row.octets()).unwrap_or_default()
    }

    /// The number that the next insertion will have.
    pub(super) fn next_number(&self) -> u32 {
        self.inserted
    }

    /// The age of the row with this number, if it lives.
    #[inline]
    pub(super) fn age_of(&self, number: u32) -> Option<usize> {
        let age = self.inserted.wrapping_sub(number).wrapping_sub(1) as usize;
        (age < self.rows.len()).then_some(age)
    }

    /// §4.3: evicts what does not fit any more, and gives its memory back.
    pub(super) fn set_size_max(&mut self, size_max: u32) {
        self.size_max = size_max as usize;
        self.evict_down_to(self.size_max);
        if self.buffer.capacity() > (2 * self.size_max).max(BUFFER_MIN) {
            self.drop_dead_octets();
            self.buffer.shrink_to(2 * self.size_max);
            self.rows.shrink_to(self.size_max / FIELD_OVERHEAD);
        }
    }

    /// §4.4: makes room, then inserts. An entry larger than the table empties it, which is no
    /// error; false then.
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8], traits: Traits) -> bool {
        let octets = name.len() + value.len();
        let size = octets + FIELD_OVERHEAD;
        if size > self.size_max {
            self.clear();
            return false;
        }
        self.evict_down_to(self.size_max - size);
        self.make_room(octets);
        let start = self.base.wrapping_add(self.buffer.len() as u32);
        // COPY: one table entry, once per insertion.
        self.buffer.extend_from_slice(name);
        self.buffer.extend_from_slice(value);
        let (name_len, value_len) = (name.len() as u32, value.len() as u32);
        self.rows.push_back(Span { start, name_len, value_len, traits });
        self.size += size;
        self.inserted = self.inserted.wrapping_add(1);
        debug_assert!(self.size <= self.size_max);
        true
    }

    /// Evicts everything.
    pub(super) fn clear(&mut self) {
        self.evict_down_to(0);
    }

    fn evict_down_to(&mut self, size: usize) {
        while self.size > size
            && let Some(row) = self.rows.pop_front()
        {
            self.size -= row.octets() + FIELD_OVERHEAD;
        }
        if self.rows.is_empty() {
            debug_assert_eq!(self.size, 0);
            self.base = self.base.wrapping_add(self.buffer.len() as u32);
            self.buffer.clear();
        }
    }

    /// Makes `octets` fit behind the last one, by dropping the dead or by growing.
    fn make_room(&mut self, octets: usize) {
        if self.buffer.len() + octets <= self.buffer.capacity() {
            return;
        }
        if self.dead_octets() >= self.buffer.len() / 2 {
            self.drop_dead_octets();
        }
        let needed = self.buffer.len() + octets;
        if needed > self.buffer.capacity() {
            // What lives, with the new entry, is within `size_max`, and the dead are fewer than
            // the living.
            debug_assert!(needed <= 2 * self.size_max);
            let wanted = needed.next_power_of_two().max(BUFFER_MIN).min(2 * self.size_max);
            self.buffer.reserve_exact(wanted.max(needed) - self.buffer.len());
        }
    }

    /// Octets before the oldest row.
    fn dead_octets(&self) -> usize {
        let oldest = self.rows.front().map(|row| row.start.wrapping_sub(self.base) as usize);
        oldest.unwrap_or(self.buffer.len())
    }

    fn drop_dead_octets(&mut self) {
        let dead = self.dead_octets();
        // COPY: what lives, at most once per as many octets inserted.
        self.buffer.drain(..dead);
        self.base = self.base.wrapping_add(dead as u32);
    }

    /// For tests: what it holds, newest first.
    #[cfg(test)]
    pub(super) fn pairs(&self) -> Vec<(String, String)> {
        self.check_invariants();
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        let rows = self.rows.iter().rev();
        rows.map(|row| {
            let (name, value) = self.pair(row).split_at(row.name_len as usize);
            (text(name), text(value))
        })
        .collect()
    }

    #[cfg(test)]
    pub(super) fn heap_octets(&self) -> usize {
        self.buffer.capacity() + self.rows.capacity() * size_of::<Span>()
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let size: usize = self.rows.iter().map(|row| row.octets() + FIELD_OVERHEAD).sum();
        assert_eq!(size, self.size);
        assert!(self.size <= self.size_max);
        assert!(self.buffer.len() <= (2 * self.size_max).max(BUFFER_MIN));
        let mut at = None;
        for row in &self.rows {
            assert!(at.is_none_or(|at| at == row.start));
            at = Some(row.start.wrapping_add(row.octets() as u32));
        }
        if let Some(at) = at {
            assert_eq!(at, self.base.wrapping_add(self.buffer.len() as u32));
        }
    }
}

/// Hash of a name and a value, never 0. Not keyed: whoever makes collisions only makes his own
/// fields harder to compress, since lookups have a fixed number of steps and compare octets.
pub(super) fn hash_pair(name: &[u8], value: &[u8]) -> u32 {
    let hash = absorb(absorb(SEED, name), value);
    ((hash >> 32) as u32 ^ hash as u32) | 1
}

/// As [`hash_pair`], of a name alone.
pub(super) fn hash_name(name: &[u8]) -> u32 {
    hash_pair(name, b"")
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;

#[inline]
fn absorb(mut hash: u64, octets: &[u8]) -> u64 {
    let (words, tail) = octets.as_chunks::<8>();
    for word in words {
        hash = fold(hash ^ u64::from_le_bytes(*word));
    }
    fold(hash ^ last_octets(tail) ^ ((octets.len() as u64) << 56))
}

/// Up to seven octets in a word, without copying them by a length that the compiler cannot know:
/// loads of fixed sizes that overlap. Different octets of one length make different words.
#[inline]
fn last_octets(tail: &[u8]) -> u64 {
    let word = |octets: [u8; 4]| u64::from(u32::from_le_bytes(octets));
    match *tail {
        [] => 0,
        [a] => word([a, 0, 0, 0]),
        [a, b] => word([a, b, 0, 0]),
        [a, b, c] => word([a, b, c, 0]),
        _ => match (tail.first_chunk(), tail.last_chunk()) {
            (Some(first), Some(last)) => word(*first) | word(*last) << 32,
            (Some(_) | None, _) => 0,
        },
    }
}

#[inline]
fn fold(word: u64) -> u64 {
    let product = u128::from(word) * u128::from(FACTOR);
    (product >> 64) as u64 ^ product as u64
}
