//! How field blocks began lately, with the fields that this means. What most clients send for each
//! call is the same few octets, all of them indexes (RFC 7541 §6.1), up to the first literal.
//!
//! 1. A beginning is found by all its octets, and only as long as the dynamic table is what it was.
//!    It is whole fields, which mean the same whatever comes behind them.
//! 2. Only what changed nothing, passed no limit and has no field that must never be indexed is
//!    kept, when it is seen a second time.
//! 3. At most `PLACES` beginnings of at most `BLOCK_MAX` octets, and `SECTION_MAX` of what they
//!    mean: all of their memory at once, and none before the first.
//!
//! Refuses to know what a block means.

use super::octets;
use super::table::hash_name;
use crate::http2::field::FieldSection;
use std::num::NonZeroU32;

/// A request's; or a response's head and its trailers.
const PLACES: usize = 2;
const BLOCK_MAX: usize = 64;
const SECTION_MAX: usize = 512;
const FIELDS_MAX: usize = 16;

/// The first fields of a section, if its connection had them before: the same number, the same
/// fields, for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    number: NonZeroU32,
    /// How many they are.
    pub fields: u32,
}

impl Repeat {
    /// For who keeps something of his own for each: one of two places. Numbers of sections that
    /// come in turn differ in theirs.
    pub const fn place(self) -> usize {
        self.number.get() as usize % 2
    }
}

/// See the file's text.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// `PLACES`, or none yet.
    places: Vec<Kept>,
    /// What changed the table, ever: insertions, evictions of all, another size.
    changes: u64,
    /// Hashes of the last ones that were not found.
    missed: [u32; PLACES],
    /// The place that goes next.
    next: u8,
    /// Beginnings kept so far.
    kept: u32,
}

/// How a block began, and what its decoder made of that.
#[derive(Debug)]
pub(super) struct Kept {
    /// Empty: none.
    block: Vec<u8>,
    /// [`Blocks::changes`] at that time.
    changes: u64,
    pub(super) section: FieldSection,
    /// Of its section; `None` when there were too many.
    number: Option<NonZeroU32>,
    /// As SETTINGS_MAX_HEADER_LIST_SIZE counts.
    pub(super) list_size: usize,
    pub(super) flags: u8,
    /// What somebody has remarked on its section; 0: nothing.
    remark: u16,
}

/// How far a section has come where its block may begin to differ from others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steady {
    /// Of names and values.
    pub(super) octets: usize,
    pub(super) fields: usize,
    pub(super) flags: u8,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            block: Vec::with_capacity(BLOCK_MAX),
            changes: 0,
            section: FieldSection::with_room(SECTION_MAX, FIELDS_MAX),
            number: None,
            list_size: 0,
            flags: 0,
            remark: 0,
        }
    }
}

impl Kept {
    #[inline]
    pub(super) fn repeat(&self) -> Option<Repeat> {
        let fields = self.section.len() as u32;
        self.number.map(|number| Repeat { number, fields })
    }
}

impl Blocks {
    pub(super) const fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn table_changed(&mut self) {
        self.changes += 1;
    }

    /// The one with which a block begins, and the rest of the block.
    #[inline]
    pub(super) fn find<'a>(&self, block: &'a [u8]) -> Option<(&Kept, &'a [u8])> {
        self.places.iter().find_map(|kept| {
            let (start, rest) = block.split_at_checked(kept.block.len())?;
            let found = kept.changes == self.changes
                && !start.is_empty()
                && octets::same(&kept.block, start);
            found.then_some((kept, rest))
        })
    }

    #[inline]
    pub(super) fn remark(&self, repeat: Repeat) -> u16 {
        let known = self.places.iter().find(|kept| kept.number == Some(repeat.number));
        known.map_or(0, |kept| kept.remark)
    }

    #[cold]
    pub(super) fn set_remark(&mut self, repeat: Repeat, remark: u16) {
        let known = self.places.iter_mut().find(|kept| kept.number == Some(repeat.number));
        if let Some(kept) = known {
            kept.remark = remark;
        }
    }

    /// Keeps a beginning that was here a moment ago, in the place of the older one: `fields` of the
    /// section, in which they have `octets`.
    pub(super) fn note(&mut self, start: &[u8], section: &FieldSection, steady: Steady) {
        let Steady { octets, fields, .. } = steady;
        if start.is_empty()
            || start.len() > BLOCK_MAX
            || octets > SECTION_MAX
            || fields > FIELDS_MAX
        {
            return;
        }
        let hash = hash_name(start);
        if self.missed.contains(&hash) {
            self.keep(start, section, steady);
        } else {
            self.missed.rotate_right(1);
            self.missed[0] = hash;
        }
    }

    #[cold]
    fn keep(&mut self, start: &[u8], section: &FieldSection, steady: Steady) {
        let Steady { octets, fields, flags } = steady;
        if section.iter().take(fields).any(|field| field.sensitive) {
            return;
        }
        if self.places.is_empty() {
            self.places = std::iter::repeat_with(Kept::default).take(PLACES).collect();
        }
        let Some(kept) = self.places.get_mut(usize::from(self.next)) else { return };
        self.next = (self.next + 1) % PLACES as u8;
        // COPY: a beginning and its fields, once for all that are alike.
        kept.block.clear();
        kept.block.extend_from_slice(start);
        kept.section.clear();
        kept.section.copy_from(section, octets, fields);
        kept.list_size = kept.section.list_size();
        (kept.changes, kept.flags, kept.remark) = (self.changes, flags, 0);
        self.kept = self.kept.saturating_add(1);
        kept.number = NonZeroU32::new(self.kept).filter(|number| *number < NonZeroU32::MAX);
    }

    #[cfg(test)]
    pub(super) fn heap_octets(&self) -> usize {
        let octets = |kept: &Kept| kept.block.capacity() + kept.section.kept();
        let places = self.places.capacity() * size_of::<Kept>();
        size_of::<Self>() + places + self.places.iter().map(octets).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::field::Field;

    fn section(name: &[u8], sensitive: bool) -> FieldSection {
        let mut section = FieldSection::new();
        section.push_field(Field { name, value: b"v", class: 0, flags: 0, sensitive });
        section
    }

    fn all(section: &FieldSection, flags: u8) -> Steady {
        Steady { octets: section.octets(), fields: section.len(), flags }
    }

    fn twice(blocks: &mut Blocks, block: &[u8], section: &FieldSection) {
        blocks.note(block, section, all(section, 1));
        blocks.note(block, section, all(section, 1));
    }

    #[test]
    fn a_beginning_is_kept_when_it_comes_again() {
        let mut blocks = Blocks::default();
        let mut two = section(b"x", false);
        for block in [b"ab", b"cd"] {
            blocks.note(block, &two, all(&two, 0));
            assert!(blocks.find(block).is_none());
        }
        // Of more fields the first one.
        let steady = all(&two, 3);
        two.push(b"y", b"2");
        blocks.note(b"ab", &two, steady);
        let (kept, rest) = blocks.find(b"abc").expect("it is kept");
        assert_eq!((&kept.section, kept.list_size, kept.flags), (&section(b"x", false), 34, 3));
        assert_eq!(rest, b"c");
    }

    #[test]
    fn only_the_same_octets_at_the_same_table_are_found() {
        let mut blocks = Blocks::default();
        assert!(blocks.find(b"").is_none());
        twice(&mut blocks, b"block", &section(b"x", false));
        for other in [&b""[..], b"bloc", b"blocK", b"Block", b"a block"] {
            assert!(blocks.find(other).is_none(), "{other:?}");
        }
        // The oldest goes.
        twice(&mut blocks, b"second", &section(b"y", false));
        assert!(blocks.find(b"block").is_some());
        twice(&mut blocks, b"third", &section(b"z", false));
        assert!(blocks.find(b"block").is_none() && blocks.find(b"second").is_some());
        blocks.table_changed();
        assert!(blocks.find(b"second").is_none() && blocks.find(b"third").is_none());
    }

    /// Blocks that begin with something new, as some trailers do, take no place from others.
    #[test]
    fn a_beginning_of_nothing_is_not_kept() {
        let mut blocks = Blocks::default();
        twice(&mut blocks, b"request", &section(b"x", false));
        twice(&mut blocks, b"response", &section(b"y", false));
        for _ in 0..4 {
            blocks.note(b"", &FieldSection::new(), all(&FieldSection::new(), 0));
        }
        assert!(blocks.find(b"request").is_some() && blocks.find(b"response").is_some());
    }

    #[test]
    fn what_is_secret_or_large_is_not_kept() {
        let mut blocks = Blocks::default();
        twice(&mut blocks, b"a", &section(b"x", false));
        let before = blocks.heap_octets();
        let mut many = FieldSection::new();
        (0..=FIELDS_MAX).for_each(|_| many.push(b"x", b"1"));
        for section in [section(b"x", true), section(&[b'x'; SECTION_MAX], false), many] {
            twice(&mut blocks, b"block", &section);
            assert!(blocks.find(b"block").is_none());
        }
        let long = [7; BLOCK_MAX + 1];
        twice(&mut blocks, &long, &section(b"x", false));
        assert!(blocks.find(&long).is_none());
        assert!(blocks.heap_octets() == before && before < 2 << 10, "{before}");
    }
}
