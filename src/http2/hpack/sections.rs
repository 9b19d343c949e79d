//! How field sections began that were encoded lately, with the octets that this became: most calls
//! on a connection have the same request, and the same head and trailers for an answer, but for a
//! trace context or a deadline at the end.
//!
//! 1. A beginning is found by all that its octets depend on: what is known of each of its fields,
//!    their names and values, and a dynamic table that is what it was.
//! 2. Only what became indexes alone (RFC 7541 §6.1) is kept, when it comes a second time: to make
//!    it changed nothing.
//! 3. At most `PLACES` of them, of at most `BLOCK_MAX` octets and sections of `SECTION_MAX`; each
//!    takes as much memory as it needs, and none before it is kept.
//!
//! Refuses to know what a block means.

use super::table::hash_name;
use crate::http2::field::{FieldSection, Span};

/// Requests of a few methods; or a response's head and its trailers.
const PLACES: usize = 4;
const BLOCK_MAX: usize = 64;
const SECTION_MAX: usize = 512;

/// See the file's text.
#[derive(Debug, Default)]
pub(super) struct Sections {
    places: Vec<Kept>,
    /// Hashes of the blocks that were made last.
    missed: [u32; PLACES],
    /// The place that goes next.
    next: usize,
}

#[derive(Debug)]
struct Kept {
    spans: Box<[Span]>,
    /// The section's octets up to the first one of other fields.
    before: Box<[u8]>,
    /// Behind the last one of other fields, from there on: most have none.
    behind: Option<(usize, Box<[u8]>)>,
    block: Box<[u8]>,
    /// It was found since its place was looked for.
    used: bool,
}

impl Kept {
    /// `None` when octets of the first `count` fields lie among those of the others.
    fn new(fields: &FieldSection, count: usize, block: &[u8]) -> Option<Self> {
        let range = |span: &Span| span.start as usize..span.start as usize + span.octets();
        let (spans, others) = fields.spans().split_at_checked(count)?;
        let end = spans.iter().map(|span| range(span).end).max()?;
        let from = others.iter().map(|span| range(span).start).min().unwrap_or(end).min(end);
        let to = others.iter().map(|span| range(span).end).max().unwrap_or(end).min(end);
        let apart = |span: &Span| range(span).end <= from || range(span).start >= to;
        // COPY: a beginning, once for all that are alike.
        spans.iter().all(apart).then_some(Self {
            spans: spans.into(),
            before: fields.since(0).get(..from)?.into(),
            behind: (to < end).then_some((to, fields.since(0).get(to..end)?.into())),
            block: block.into(),
            used: false,
        })
    }

    #[inline]
    fn begins(&self, fields: &FieldSection) -> bool {
        let octets = fields.since(0);
        fields.spans().get(..self.spans.len()) == Some(&self.spans[..])
            && octets.get(..self.before.len()) == Some(&self.before[..])
            && self.behind.as_ref().is_none_or(|(from, behind)| {
                octets.get(*from..).is_some_and(|octets| octets.starts_with(behind))
            })
    }
}

impl Sections {
    /// What a section begins with, and how many of its fields that is.
    #[inline]
    pub(super) fn find(&mut self, fields: &FieldSection) -> Option<(&[u8], usize)> {
        let kept = self.places.iter_mut().find(|kept| kept.begins(fields))?;
        kept.used = true;
        Some((&kept.block, kept.spans.len()))
    }

    /// Indexes mean something else now.
    #[cold]
    pub(super) fn table_changed(&mut self) {
        self.places.clear();
        self.missed = [0; PLACES];
    }

    /// Keeps what was here a moment ago: what the first `count` fields became.
    pub(super) fn note(&mut self, fields: &FieldSection, count: usize, block: &[u8]) {
        if block.is_empty() || block.len() > BLOCK_MAX || fields.octets() > SECTION_MAX {
            return;
        }
        let hash = hash_name(block);
        if self.missed.contains(&hash) {
            self.keep(fields, count, block);
        } else {
            self.missed.rotate_right(1);
            self.missed[0] = hash;
        }
    }

    /// Who was found lately stays a round longer: many kinds of sections in turn must not cost a
    /// copy each.
    #[cold]
    fn keep(&mut self, fields: &FieldSection, count: usize, block: &[u8]) {
        let free = self.places.len() < PLACES;
        if !free {
            self.next = (self.next + 1) % PLACES;
            if let Some(kept) = self.places.get_mut(self.next)
                && std::mem::take(&mut kept.used)
            {
                return;
            }
        }
        let Some(kept) = Kept::new(fields, count, block) else { return };
        match self.places.get_mut(self.next).filter(|_| !free) {
            Some(place) => *place = kept,
            None => self.places.push(kept),
        }
    }

    #[cfg(test)]
    pub(super) fn heap_octets(&self) -> usize {
        let octets = |kept: &Kept| {
            let behind = kept.behind.as_ref().map_or(0, |(_, octets)| octets.len());
            size_of_val(&*kept.spans) + kept.before.len() + behind + kept.block.len()
        };
        let places = self.places.capacity() * size_of::<Kept>();
        places + self.places.iter().map(octets).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::field::Field;

    fn section(value: &[u8]) -> FieldSection {
        let mut section = FieldSection::new();
        section.push(b":status", b"200");
        section.push(b"x", value);
        section
    }

    fn twice(sections: &mut Sections, fields: &FieldSection, block: &[u8]) {
        sections.note(fields, fields.len(), block);
        sections.note(fields, fields.len(), block);
    }

    #[test]
    fn a_section_is_kept_when_it_comes_again() {
        let mut sections = Sections::default();
        let one = section(b"1");
        sections.note(&one, 2, b"ab");
        assert_eq!(sections.find(&one), None);
        sections.note(&one, 2, b"ab");
        assert_eq!(sections.find(&one), Some((&b"ab"[..], 2)));
        // What lies behind its fields is nobody's.
        let mut tailed = one.clone();
        tailed.push_tail(b"a message");
        assert_eq!(sections.find(&tailed), Some((&b"ab"[..], 2)));
        sections.table_changed();
        assert_eq!(sections.find(&one), None);
    }

    #[test]
    fn only_the_same_fields_are_found() {
        let mut sections = Sections::default();
        let one = section(b"1");
        twice(&mut sections, &one, b"ab");
        let mut fewer = one.clone();
        fewer.truncate(1);
        let mut secret = fewer.clone();
        let field = Field { name: b"x", value: b"1", class: 0, flags: 0, sensitive: true };
        secret.push_field(field);
        let mut split = FieldSection::new();
        split.push(b":status", b"200");
        split.push(b"x1", b"");
        for other in [section(b"2"), fewer, secret, split, FieldSection::new()] {
            assert_eq!(sections.find(&other), None, "{other:?}");
        }
    }

    /// As of a request that is stamped behind its trace context.
    #[test]
    fn fields_behind_the_beginning_may_be_others_wherever_they_lie() {
        let stamped = |context: &[u8], authority: &[u8]| {
            let mut section = section(b"1");
            section.push(b"traceparent", context);
            section.push_front(b":authority", authority);
            section
        };
        let mut sections = Sections::default();
        for _ in 0..2 {
            sections.note(&stamped(b"first", b"here"), 3, b"abc");
        }
        assert_eq!(sections.find(&stamped(b"other", b"here")), Some((&b"abc"[..], 3)));
        assert_eq!(sections.find(&stamped(b"other", b"away")), None);
        assert_eq!(sections.find(&stamped(b"longer", b"here")), None, "at another place");
        // Octets of the beginning between those of two others: not kept.
        let mut among = section(b"1");
        among.push(b"y", b"a");
        among.push_front(b":authority", b"here");
        among.push(b"z", b"b");
        for _ in 0..3 {
            sections.note(&among, 3, b"abcd");
        }
        assert_eq!(sections.find(&among), None);
    }

    #[test]
    fn what_is_found_stays_and_memory_is_bounded() {
        let mut sections = Sections::default();
        let often = section(b"often");
        twice(&mut sections, &often, b"often");
        for number in 0..1000_u32 {
            let value = number.to_be_bytes();
            twice(&mut sections, &section(&value), &value);
            assert!(sections.find(&often).is_some(), "{number}");
        }
        assert_eq!(sections.places.len(), PLACES);
        assert!(sections.heap_octets() < PLACES << 9, "{}", sections.heap_octets());
        let large = section(&[b'x'; SECTION_MAX]);
        twice(&mut sections, &large, b"large");
        twice(&mut sections, &section(b"long"), &[7; BLOCK_MAX + 1]);
        assert_eq!(sections.find(&large), None);
        assert_eq!(sections.find(&section(b"long")), None);
    }
}
