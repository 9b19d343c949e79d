//! Literals that came lately without entering the table (RFC 7541 §6.2.2). Some encoders, nghttp2
//! among them, send the path of every request so; decoding its Huffman code is most of the work
//! that such a request makes.
//!
//! 1. A field is found by all octets of its coded form, which must mean the same at all times: no
//!    index of the dynamic table.
//! 2. At most `PLACES` fields of at most `CODED_MAX` and `PAIR_MAX` octets; no memory before the
//!    first one, and that of a place at once with its first: most connections need one.
//!
//! Refuses to know which fields are worth a place.

use super::octets;
use crate::http2::field::Traits;

const PLACES: usize = 4;
const CODED_MAX: usize = 96;
const PAIR_MAX: usize = 160;

/// See the file's text.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// `PLACES`, or none yet.
    places: Vec<Place>,
}

#[derive(Clone, Debug, Default)]
struct Place {
    coded: Vec<u8>,
    /// Name and value, adjoining.
    pair: Vec<u8>,
    name_len: usize,
    traits: Traits,
}

impl Recent {
    /// Name and value adjoining, the length of the name.
    #[inline]
    pub(super) fn find(&self, coded: &[u8]) -> Option<(&[u8], usize, Traits)> {
        let place = self.places.get(place_of(coded))?;
        let found = !coded.is_empty() && octets::same(&place.coded, coded);
        found.then_some((&place.pair, place.name_len, place.traits))
    }

    /// Takes the place of another one, if it is not too long.
    pub(super) fn keep(&mut self, coded: &[u8], pair: &[u8], name_len: usize, traits: Traits) {
        if coded.len() > CODED_MAX || pair.len() > PAIR_MAX {
            return;
        }
        if self.places.is_empty() {
            self.places = vec![Place::default(); PLACES];
        }
        let Some(place) = self.places.get_mut(place_of(coded)) else { return };
        (place.name_len, place.traits) = (name_len, traits);
        place.coded.clear();
        place.pair.clear();
        place.coded.reserve_exact(CODED_MAX);
        place.pair.reserve_exact(PAIR_MAX);
        // COPY: both forms of one literal, once per literal that is not found.
        octets::append(&mut place.coded, coded);
        octets::append(&mut place.pair, pair);
    }

    /// It has taken memory.
    pub(super) const fn keeps(&self) -> bool {
        !self.places.is_empty()
    }

    #[cfg(test)]
    pub(super) fn heap_octets(&self) -> usize {
        let octets = |place: &Place| place.coded.capacity() + place.pair.capacity();
        self.places.capacity() * size_of::<Place>() + self.places.iter().map(octets).sum::<usize>()
    }
}

/// Different fields differ in their length or at their end, most of the time.
#[inline]
fn place_of(coded: &[u8]) -> usize {
    let last = coded.last().copied().unwrap_or_default();
    (coded.len() ^ usize::from(last)) % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_octets_are_found() {
        let mut recent = Recent::default();
        assert!(recent.find(b"").is_none());
        recent.keep(b"coded", b"namevalue", 4, Traits { class: 7, ..Traits::default() });
        let found = recent.find(b"coded").map(|(pair, len, traits)| (pair, len, traits.class));
        assert_eq!(found, Some((&b"namevalue"[..], 4, 7)));
        for other in [&b""[..], b"code", b"Coded", b"codeD", b"coded."] {
            assert!(recent.find(other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn a_place_takes_its_memory_at_once_and_never_again() {
        let mut recent = Recent::default();
        assert_eq!(recent.heap_octets(), 0);
        recent.keep(b"a", b"b", 1, Traits::default());
        let of_one = recent.heap_octets();
        assert!(of_one <= PLACES * size_of::<Place>() + CODED_MAX + PAIR_MAX, "{of_one}");
        (1..=PLACES).for_each(|len| recent.keep(&vec![0; len], b"b", 1, Traits::default()));
        let taken = recent.heap_octets();
        assert_eq!(taken, of_one + (PLACES - 1) * (CODED_MAX + PAIR_MAX));
        for len in 0..300 {
            recent.keep(&vec![1; len], &vec![2; 2 * len], 1, Traits::default());
        }
        assert_eq!(recent.heap_octets(), taken);
        assert!(recent.find(&[1; 80]).is_some_and(|(pair, ..)| pair == [2; 160]));
        assert!(recent.find(&[1; 81]).is_none());
    }
}
