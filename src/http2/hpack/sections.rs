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
use std::ops::Range;

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

#[derive(Debug, Default)]
struct Kept {
    spans: Vec<Span>,
    /// Where the octets of these fields lie: what adjoins is one run. Between the runs are those of
    /// other fields, and of fields that were taken out.
    runs: Vec<Range<usize>>,
    /// One run after the other.
    octets: Vec<u8>,
    block: Vec<u8>,
    /// It was found since its place was looked for.
    used: bool,
}

impl Kept {
    /// Becomes what the first `count` fields are, in the memory that it has.
    fn fill(&mut self, fields: &FieldSection, count: usize, block: &[u8]) {
        self.spans.clear();
        self.runs.clear();
        self.octets.clear();
        self.block.clear();
        self.used = false;
        // COPY: a beginning, once for all that are alike.
        self.spans.extend_from_slice(fields.spans().get(..count).unwrap_or_default());
        self.octets.reserve_exact(self.spans.iter().map(Span::octets).sum());
        self.block.extend_from_slice(block);
        for span in &self.spans {
            let start = span.start as usize;
            match self.runs.last_mut() {
                Some(run) if run.end == start => run.end += span.octets(),
                Some(_) | None => self.runs.push(start..start + span.octets()),
            }
            self.octets.extend_from_slice(fields.pair(span));
        }
    }

    #[inline]
    fn begins(&self, fields: &FieldSection) -> bool {
        if fields.spans().get(..self.spans.len()) != Some(&self.spans[..]) {
            return false;
        }
        let mut rest = &self.octets[..];
        self.runs.iter().all(|run| {
            let Some((octets, behind)) = rest.split_at_checked(run.len()) else { return false };
            rest = behind;
            fields.since(0).get(run.clone()) == Some(octets)
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
        if let Some(missed) = self.missed.iter_mut().find(|missed| **missed == hash) {
            // What becomes the same and is never found must not cost a copy each time.
            *missed = 0;
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
        if free {
            self.places.push(Kept::default());
        }
        let place = if free { self.places.len() - 1 } else { self.next };
        if let Some(kept) = self.places.get_mut(place) {
            kept.fill(fields, count, block);
        }
    }

    #[cfg(test)]
    pub(super) fn heap_octets(&self) -> usize {
        let octets = |kept: &Kept| {
            let spans = kept.spans.capacity() * size_of::<Span>();
            let runs = kept.runs.capacity() * size_of::<Range<usize>>();
            spans + runs + kept.octets.capacity() + kept.block.capacity()
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
        // Octets of the beginning between those of two others.
        let among = |octet: &[u8]| {
            let mut section = section(b"1");
            section.push(b"y", octet);
            section.push_front(b":authority", b"here");
            section.push(b"z", octet);
            section
        };
        for _ in 0..2 {
            sections.note(&among(b"a"), 3, b"abcd");
        }
        assert_eq!(sections.find(&among(b"b")), Some((&b"abcd"[..], 3)));
    }

    /// As of a deadline, which each hop takes out and tells anew behind all else.
    #[test]
    fn octets_of_fields_that_were_taken_out_are_nobodys() {
        let timed = |timeout: &[u8]| {
            let mut section = section(b"1");
            section.push(b"grpc-timeout", timeout);
            section.push(b"te", b"trailers");
            section.retain(|field| field.name != b"grpc-timeout");
            section.push(b"grpc-timeout", timeout);
            section
        };
        let mut sections = Sections::default();
        for _ in 0..2 {
            sections.note(&timed(b"4999m"), 3, b"abc");
        }
        assert_eq!(sections.find(&timed(b"4998m")), Some((&b"abc"[..], 3)));
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
