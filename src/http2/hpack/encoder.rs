//! Field sections to field blocks (RFC 7541 §6).
//!
//! 1. A pair enters the table only when it is seen a second time: what comes once would evict
//!    what comes always. Sensitive fields never enter. Of [`VOLATILE`] ones with a value one of
//!    each name enters, when the name is seen a second time: the others refer to its name.
//! 2. Looking up takes a fixed number of steps, whatever the table holds, and allocates nothing.
//! 3. What began like this lately, with the same table, begins with the same octets.
//! 4. A block begins with the size updates that the peer's SETTINGS call for (§4.2).
//!
//! Refuses to know names, but for the static table's.

use super::huffman;
use super::integer;
use super::octets;
use super::sections::Sections;
use super::static_table;
use super::table::{Table, hash_name, hash_pair};
use super::{FIELD_OVERHEAD, Form, TABLE_SIZE_DEFAULT};
use crate::http2::field::{
    Field, FieldSection, NO_STATIC_NAME, STATIC_EXACT, Span, Traits, VOLATILE,
};
use std::cmp::Reverse;

/// Hashes of pairs seen once and not in the table: groups of so many places each. With one place
/// for each hash, two fields that share it would push each other out with every message.
const SEEN_GROUPS: usize = 32;
const SEEN_WAYS: usize = 4;

/// An entry may take one part in this many of the table, lest it evict all others.
const ENTRY_SHARE: usize = 2;

/// Names of which the table is asked for values that never come again. Two whose classes share a
/// place push each other out.
const VOLATILE_NAMES: usize = 4;
/// Octets of the one value that brings such a name into the table.
const VOLATILE_VALUE_MAX: usize = 64;

/// See the file's text.
#[derive(Debug)]
pub struct Encoder {
    table: Table,
    /// What we allow ourselves, whatever the peer announces.
    size_bound: u32,
    /// The size that the next block must declare, with the smallest one since the last block.
    update: Option<SizeUpdate>,
    pairs: Finder,
    names: Finder,
    /// None until needed.
    seen: Option<Box<Seen>>,
}

/// What is remembered besides the table.
#[derive(Debug, Default)]
struct Seen {
    pairs: [[u32; SEEN_WAYS]; SEEN_GROUPS],
    /// By class: the numbers with which [`VOLATILE`] names were inserted.
    volatile: [u32; VOLATILE_NAMES],
    sections: Sections,
}

#[derive(Clone, Copy, Debug)]
struct SizeUpdate {
    smallest: u32,
    last: u32,
}

impl Encoder {
    /// `table_size_max`: bound of our table, whatever the peer announces.
    pub fn new(table_size_max: u32) -> Self {
        let mut encoder = Self {
            table: Table::new(TABLE_SIZE_DEFAULT),
            size_bound: table_size_max,
            update: None,
            pairs: Finder::default(),
            names: Finder::default(),
            seen: None,
        };
        encoder.set_peer_table_size(TABLE_SIZE_DEFAULT);
        encoder
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE.
    pub fn set_peer_table_size(&mut self, size: u32) {
        let last = size.min(self.size_bound);
        let declared = self.table.size_max() as u32;
        let smallest = self.update.map_or(declared, |update| update.smallest).min(last);
        let unchanged = smallest == declared && last == declared;
        self.update = (!unchanged).then_some(SizeUpdate { smallest, last });
    }

    /// Appends one block.
    pub fn encode(&mut self, fields: &FieldSection, out: &mut Vec<u8>) {
        if let Some(update) = self.update.take() {
            self.declare(update, out);
        }
        let known = self.seen.as_mut().and_then(|seen| seen.sections.find(fields));
        let begun = match known {
            Some((block, count)) => {
                // COPY: how a block begins, once per section.
                out.extend_from_slice(block);
                count
            }
            None => self.encode_indexed(fields, out),
        };
        for span in fields.spans().get(begun..).unwrap_or_default() {
            match self.index_of(fields, span) {
                Some(index) => integer::encode(index, 7, 0x80, out),
                None if span.traits.is_volatile() && span.value_len > 0 => {
                    self.volatile(fields.field(span), out);
                }
                None => self.unknown(fields, span, out),
            }
        }
    }

    /// The first fields, as long as they are in a table; how many that is.
    fn encode_indexed(&mut self, fields: &FieldSection, out: &mut Vec<u8>) -> usize {
        let from = out.len();
        let indexes = fields.spans().iter().map_while(|span| self.index_of(fields, span));
        let count = indexes.map(|index| integer::encode(index, 7, 0x80, out)).count();
        if count > 0 {
            let block = out.get(from..).unwrap_or_default();
            self.seen.get_or_insert_default().sections.note(fields, count, block);
        }
        count
    }

    /// As if no section had come before.
    #[cfg(test)]
    pub(super) fn encode_as_new(&mut self, fields: &FieldSection, out: &mut Vec<u8>) {
        if let Some(seen) = &mut self.seen {
            seen.sections = Sections::default();
        }
        self.encode(fields, out);
    }

    #[cfg(test)]
    pub(super) fn table_pairs(&self) -> Vec<(String, String)> {
        self.table.pairs()
    }

    #[cfg(test)]
    pub(super) fn heap_octets(&self) -> usize {
        let places = WAYS * (self.pairs.groups.capacity() + self.names.groups.capacity());
        let seen =
            self.seen.as_ref().map_or(0, |seen| size_of::<Seen>() + seen.sections.heap_octets());
        self.table.heap_octets() + places * size_of::<Place>() + seen
    }

    fn declare(&mut self, update: SizeUpdate, out: &mut Vec<u8>) {
        let declared = self.table.size_max() as u32;
        if update.smallest < update.last.min(declared) {
            integer::encode(update.smallest, 5, 0x20, out);
            self.table.set_size_max(update.smallest);
        }
        integer::encode(update.last, 5, 0x20, out);
        self.table.set_size_max(update.last);
        self.pairs = Finder::default();
        self.names = Finder::default();
        self.seen = None;
    }

    /// The index of a field of which a decoder or its owner knew enough.
    #[inline]
    fn index_of(&self, fields: &FieldSection, span: &Span) -> Option<u32> {
        let Traits { hash, static_row, .. } = span.traits;
        if static_row & STATIC_EXACT != 0 {
            return Some(u32::from(static_row & !STATIC_EXACT));
        }
        if hash == 0 {
            return None;
        }
        self.find_pair(hash, fields, span)
    }

    #[inline(never)]
    fn unknown(&mut self, fields: &FieldSection, span: &Span, out: &mut Vec<u8>) {
        let (field, traits) = (fields.field(span), span.traits);
        let static_row = match traits.static_row {
            0 => static_table::index_of_name(field.name),
            NO_STATIC_NAME => 0,
            row => row,
        };
        if field.sensitive {
            return self.literal(field, static_row, Form::NeverIndexed, out);
        }
        if let Some(index) = static_table::index_of_value(static_row, field.value) {
            return integer::encode(u32::from(index), 7, 0x80, out);
        }
        let size = field.name.len() + field.value.len() + FIELD_OVERHEAD;
        // An empty value is the one that such a name may well have in each message.
        let volatile = field.class & VOLATILE != 0 && !field.value.is_empty();
        if volatile || size > self.table.size_max() / ENTRY_SHARE {
            return self.literal(field, static_row, Form::NotIndexed, out);
        }
        let hash = match traits.hash {
            0 => hash_pair(field.name, field.value),
            hash => hash,
        };
        if traits.hash == 0
            && let Some(index) = self.find_pair(hash, fields, span)
        {
            return integer::encode(index, 7, 0x80, out);
        }
        if self.is_second_sight(hash) {
            self.literal(field, static_row, Form::Indexed, out);
            self.insert(hash, static_row, field);
        } else {
            self.literal(field, static_row, Form::NotIndexed, out);
        }
    }

    /// The index of the name, if it can have one, and the value as it is.
    #[inline(never)]
    fn volatile(&mut self, field: Field<'_>, out: &mut Vec<u8>) {
        let place = usize::from(field.class) % VOLATILE_NAMES;
        if let Some(seen) = &self.seen
            && let Some(age) = self.table.age_of(seen.volatile[place])
            && let Some(row) = self.table.row(age)
            && let Some(name) = self.table.pair(row).get(..row.name_len as usize)
            && octets::same(name, field.name)
        {
            return value_of_named(dynamic_index(age), field.value, out);
        }
        let size = field.name.len() + field.value.len() + FIELD_OVERHEAD;
        let enters = field.value.len() <= VOLATILE_VALUE_MAX
            && size <= self.table.size_max() / ENTRY_SHARE
            && self.is_second_sight(hash_name(field.name));
        let form = if enters { Form::Indexed } else { Form::NotIndexed };
        integer::encode(0, form.prefix(), form.pattern(), out);
        string_raw(field.name, out);
        string_raw(field.value, out);
        if enters {
            let seen = self.seen.get_or_insert_default();
            seen.volatile[place] = self.table.next_number();
            seen.sections.table_changed();
            self.table.insert(field.name, field.value, Traits::default());
        }
    }

    #[inline]
    fn find_pair(&self, hash: u32, fields: &FieldSection, span: &Span) -> Option<u32> {
        self.pairs.candidates(hash).find_map(|number| self.compare(number, fields, span))
    }

    /// Out of the loop over candidates, which are seldom more than one.
    #[inline(never)]
    fn compare(&self, number: u32, fields: &FieldSection, span: &Span) -> Option<u32> {
        let age = self.table.age_of(number)?;
        let row = self.table.row(age)?;
        let same =
            row.name_len == span.name_len && octets::same(self.table.pair(row), fields.pair(span));
        same.then_some(dynamic_index(age))
    }

    fn find_name(&self, field: Field<'_>) -> Option<usize> {
        if field.class & VOLATILE != 0 || self.names.groups.is_empty() {
            return None;
        }
        self.names.candidates(hash_name(field.name)).find_map(|number| {
            let age = self.table.age_of(number)?;
            let row = self.table.row(age)?;
            let known = self.table.pair(row).get(..row.name_len as usize)?;
            (known == field.name).then_some(age)
        })
    }

    fn insert(&mut self, hash: u32, static_row: u8, field: Field<'_>) {
        let number = self.table.next_number();
        let traits = Traits { hash, static_row, ..Traits::default() };
        self.table.insert(field.name, field.value, traits);
        self.seen.get_or_insert_default().sections.table_changed();
        self.pairs.remember(hash, number, &self.table);
        if static_row == 0 {
            self.names.remember(hash_name(field.name), number, &self.table);
        }
    }

    /// Whether this hash was here before; it is remembered if not, forgotten if so.
    fn is_second_sight(&mut self, hash: u32) -> bool {
        let seen = self.seen.get_or_insert_default();
        let group = &mut seen.pairs[hash as usize / 2 % SEEN_GROUPS];
        if let Some(place) = group.iter_mut().find(|place| **place == hash) {
            *place = 0;
            return true;
        }
        // The oldest goes.
        group.rotate_right(1);
        group[0] = hash;
        false
    }

    /// §6.2.
    fn literal(&self, field: Field<'_>, static_row: u8, form: Form, out: &mut Vec<u8>) {
        let index = match static_row {
            0 => self.find_name(field).map_or(0, dynamic_index),
            row => u32::from(row),
        };
        integer::encode(index, form.prefix(), form.pattern(), out);
        let string = if form == Form::Indexed { string_coded } else { string_raw };
        if index == 0 {
            string(field.name, out);
        }
        string(field.value, out);
    }
}

/// §2.3.3.
fn dynamic_index(age: usize) -> u32 {
    (static_table::ROWS + 1 + age) as u32
}

/// §5.2, for what enters the table: once per connection, so that the octets saved are worth it.
fn string_coded(octets: &[u8], out: &mut Vec<u8>) {
    let coded_len = huffman::encoded_len(octets);
    if coded_len < octets.len() {
        integer::encode(coded_len as u32, 7, 0x80, out);
        huffman::encode(octets, out);
    } else {
        string_raw(octets, out);
    }
}

/// §6.2.2 with a name of the dynamic table, as [`Encoder::literal`] writes it; most indexes and
/// lengths take one octet behind the prefix.
fn value_of_named(index: u32, value: &[u8], out: &mut Vec<u8>) {
    const PREFIX_FULL: u32 = 0x0f;
    match (index.wrapping_sub(PREFIX_FULL), value.len()) {
        (rest @ ..0x80, len @ ..0x7f) => {
            out.extend_from_slice(&[PREFIX_FULL as u8, rest as u8, len as u8]);
            // COPY: the string, once per literal.
            octets::append(out, value);
        }
        _ => {
            integer::encode(index, Form::NotIndexed.prefix(), Form::NotIndexed.pattern(), out);
            string_raw(value, out);
        }
    }
}

/// §5.2, for what comes with each message: Huffman code would save a quarter of its octets and
/// cost both ends some ten times what copying costs.
fn string_raw(string: &[u8], out: &mut Vec<u8>) {
    integer::encode(string.len() as u32, 7, 0, out);
    // COPY: the string, once per literal.
    octets::append(out, string);
}

/// Hash to insertion number, with a few places for each hash. What it says may be out of date:
/// the table knows what lives, and the octets are compared.
#[derive(Debug, Default)]
struct Finder {
    /// A power of two of them, or none yet.
    groups: Vec<[Place; WAYS]>,
}

/// A hash of 0 is none.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    hash: u32,
    number: u32,
}

/// Places in which a hash may stand.
const WAYS: usize = 4;

/// Groups to begin with: as many again when one is full of what lives. Few connections see more
/// than some fields, and there are many of these.
const GROUPS_MIN: usize = 4;

impl Finder {
    #[inline]
    fn candidates(&self, hash: u32) -> impl Iterator<Item = u32> + '_ {
        let mask = self.groups.len().wrapping_sub(1);
        let group = self.groups.get(hash as usize >> 1 & mask);
        let places = group.map_or(&[][..], |group| group);
        places.iter().filter(move |place| place.hash == hash).map(|place| place.number)
    }

    /// Takes a place of the dead; else there are twice as many groups, up to what the table can
    /// hold; else the place of the oldest.
    fn remember(&mut self, hash: u32, number: u32, table: &Table) {
        let groups_max = (table.size_max() / FIELD_OVERHEAD / WAYS).next_power_of_two();
        if self.groups.is_empty() {
            self.groups = vec![Default::default(); GROUPS_MIN.min(groups_max)];
        }
        let age = |place: &Place| match place.hash {
            0 => usize::MAX,
            _ => table.age_of(place.number).unwrap_or(usize::MAX),
        };
        loop {
            let mask = self.groups.len() - 1;
            let Some(group) = self.groups.get_mut(hash as usize >> 1 & mask) else { return };
            // The first of several, so that a search ends early.
            let Some(place) = group.iter_mut().min_by_key(|place| Reverse(age(place))) else {
                return;
            };
            if age(place) == usize::MAX || mask + 1 >= groups_max {
                *place = Place { hash, number };
                return;
            }
            self.groups = in_twice_as_many(&self.groups);
        }
    }
}

/// What is in `groups`, in the same order, in twice as many: a hash's group is told by its bits
/// from the second on.
fn in_twice_as_many(groups: &[[Place; WAYS]]) -> Vec<[Place; WAYS]> {
    let half = |bit| {
        groups.iter().map(move |group| {
            let mut kept = [Place::default(); WAYS];
            let here = group.iter().filter(|place| place.hash as usize >> 1 & groups.len() == bit);
            kept.iter_mut().zip(here).for_each(|(kept, place)| *kept = *place);
            kept
        })
    };
    half(0).chain(half(groups.len())).collect()
}
