//! Field blocks to field sections (RFC 7541 §3, §6).
//!
//! 1. A block is walked to its end even when its section is over a limit, since the peer's table
//!    moves with it; only an error of the coding itself stops the walk.
//! 2. `out` never holds more than the limits allow, and nothing at all once they are passed.
//! 3. Names and values are judged and classified when they enter the table or come as a literal,
//!    not when they are referred to.
//!
//! # Table size (§4.2, §6.3; RFC 9113 §4.3.1)
//! The peer may use what we announced by SETTINGS_HEADER_TABLE_SIZE, once it has acknowledged;
//! before, the default. [`Decoder::set_table_size_max`] is called at the acknowledgement; if that
//! takes from what the peer uses, its next block must begin with an update.

use super::blocks::{Blocks, Repeat, Steady};
use super::huffman;
use super::integer::{self, IntegerError};
use super::octets;
use super::recent::Recent;
use super::static_table;
use super::table::{Table, hash_pair};
use super::{FIELD_OVERHEAD, Form, TABLE_SIZE_DEFAULT};
use crate::http2::error::{ConnectionError, ErrorCode};
use crate::http2::field::{
    Classify, FieldSection, NO_STATIC_NAME, NameKind, STATIC_EXACT, Traits, VOLATILE, flag,
    judge_name, judge_value,
};

/// Size updates at the start of one block: the smallest in between and the last (§4.2).
const SIZE_UPDATES_MAX: usize = 2;

/// What one section may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLimits {
    /// As SETTINGS_MAX_HEADER_LIST_SIZE counts.
    pub list_size: u32,
    pub fields_max: u32,
}

/// The limit that a section passed. Not an error of the connection: refuse its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    ListSize,
    Fields,
}

/// What became of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// If set, the section given is empty.
    pub over: Option<Over>,
    /// The [`flag`] bits of all fields together, without their kinds.
    pub flags: u8,
    /// What of it came before.
    pub repeat: Option<Repeat>,
}

impl Decoded {
    /// Some field has a fault of [`flag::FAULTS`].
    pub const fn malformed(&self) -> bool {
        self.flags & flag::FAULTS != 0
    }
}

/// The peer's block is not HPACK: COMPRESSION_ERROR (RFC 9113 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    Truncated,
    IntegerTooLarge,
    Huffman,
    IndexZero,
    IndexUnknown,
    SizeUpdateMisplaced,
    SizeUpdateTooLarge,
    SizeUpdateMissing,
}

impl DecodeError {
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Truncated => "field block ends inside a field",
            Self::IntegerTooLarge => "integer in a field block is too large",
            Self::Huffman => "bad Huffman code in a field block",
            Self::IndexZero => "index 0 in a field block",
            Self::IndexUnknown => "index beyond the dynamic table",
            Self::SizeUpdateMisplaced => "table size update after a field, or a third one",
            Self::SizeUpdateTooLarge => "table size update above the announced maximum",
            Self::SizeUpdateMissing => "no table size update after the maximum shrank",
        }
    }
}

impl From<DecodeError> for ConnectionError {
    fn from(error: DecodeError) -> Self {
        Self::new(ErrorCode::COMPRESSION_ERROR, error.reason())
    }
}

impl From<IntegerError> for DecodeError {
    fn from(error: IntegerError) -> Self {
        match error {
            IntegerError::Truncated => Self::Truncated,
            IntegerError::TooLarge => Self::IntegerTooLarge,
        }
    }
}

/// See the file's text.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    size_max: u32,
    /// The maximum fell below what the peer uses.
    update_owed: bool,
    classify: Classify,
    recent: Recent,
    /// None before the first block.
    blocks: Option<Box<Blocks>>,
    statics: [StaticTraits; static_table::ROWS],
}

#[derive(Clone, Copy, Debug, Default)]
struct StaticTraits {
    class: u8,
    flags: u8,
}

/// A literal's name, before its octets are copied anywhere.
enum Name<'a> {
    Index(u32),
    Literal(Literal<'a>),
}

/// A string literal (§5.2), not yet decoded.
#[derive(Clone, Copy)]
struct Literal<'a> {
    octets: &'a [u8],
    coded: bool,
}

/// What is left of the limits.
struct Tally {
    list_size: usize,
    fields: u32,
    over: Option<Over>,
    flags: u8,
    /// Where the first literal was that is not known from lately: octets of the block from there
    /// on, and what was before.
    steady: Option<(usize, Steady)>,
}

impl Decoder {
    /// `table_size_max`: what the peer may use from its first block on; above the default it
    /// needs an update from the peer to take effect.
    pub fn new(table_size_max: u32, classify: Classify) -> Self {
        let mut statics = [StaticTraits::default(); static_table::ROWS];
        for (traits, row) in statics.iter_mut().zip(&static_table::STATIC_TABLE) {
            let of_name = judge_name(row.name());
            traits.flags = of_name | judge_value(of_name, row.value());
            traits.class = classify(row.name());
        }
        Self {
            table: Table::new(table_size_max.min(TABLE_SIZE_DEFAULT)),
            size_max: table_size_max,
            update_owed: false,
            classify,
            recent: Recent::default(),
            blocks: None,
            statics,
        }
    }

    /// The peer has acknowledged a SETTINGS_HEADER_TABLE_SIZE of ours.
    pub fn set_table_size_max(&mut self, size_max: u32) {
        self.size_max = size_max;
        self.update_owed |= (size_max as usize) < self.table.size_max();
    }

    /// What was last remarked on these fields; 0: nothing.
    #[inline]
    pub fn remark(&self, repeat: Repeat) -> u16 {
        self.blocks.as_ref().map_or(0, |blocks| blocks.remark(repeat))
    }

    /// Kept as long as the decoder remembers these fields.
    pub fn set_remark(&mut self, repeat: Repeat, remark: u16) {
        if let Some(blocks) = &mut self.blocks {
            blocks.set_remark(repeat, remark);
        }
    }

    /// Decodes one whole block into `out`, which is emptied first.
    pub fn decode(
        &mut self,
        block: &[u8],
        limits: BlockLimits,
        out: &mut FieldSection,
    ) -> Result<Decoded, DecodeError> {
        out.clear();
        let mut tally = Tally {
            list_size: limits.list_size as usize,
            fields: limits.fields_max,
            over: None,
            flags: 0,
            steady: None,
        };
        let known = self.begin(block, &mut tally, out);
        let changes = self.blocks.get_or_insert_default().changes();
        if let Some((repeat, [])) = known {
            return Ok(Decoded { over: None, flags: tally.flags & flag::FAULTS, repeat });
        }
        let repeat = known.and_then(|(repeat, _)| repeat);
        let mut rest = match known {
            Some((_, rest)) => rest,
            None => self.size_updates(block)?,
        };
        while let Some(&first) = rest.first() {
            rest = match first {
                0x80.. => self.indexed(rest, &mut tally, out)?,
                0x40..=0x7f => self.literal(rest, Form::Indexed, &mut tally, out)?,
                0x20..=0x3f => return Err(DecodeError::SizeUpdateMisplaced),
                0x10..=0x1f => self.literal(rest, Form::NeverIndexed, &mut tally, out)?,
                0x00..=0x0f => match self.named(rest, &mut tally, out) {
                    Some(after) => after,
                    None => self.literal(rest, Form::NotIndexed, &mut tally, out)?,
                },
            };
        }
        if known.is_none()
            && let Some(blocks) = &mut self.blocks
            && blocks.changes() == changes
            && tally.over.is_none()
        {
            let (left, steady) = tally.steady.unwrap_or_else(|| tally.steady_here(0, out));
            blocks.note(block.get(..block.len() - left).unwrap_or_default(), out, steady);
        }
        let repeat = repeat.filter(|_| tally.over.is_none());
        Ok(Decoded { over: tally.over, flags: tally.flags & flag::FAULTS, repeat })
    }

    /// What is known of a block by how it begins: its first fields. Gives the rest of the block.
    #[inline]
    fn begin<'a>(
        &self,
        block: &'a [u8],
        tally: &mut Tally,
        out: &mut FieldSection,
    ) -> Option<(Option<Repeat>, &'a [u8])> {
        let (kept, rest) = self.blocks.as_ref()?.find(block)?;
        let fields = kept.section.len();
        if self.update_owed || kept.list_size > tally.list_size || fields > tally.fields as usize {
            return None;
        }
        tally.list_size -= kept.list_size;
        tally.fields -= fields as u32;
        tally.flags = kept.flags;
        // COPY: these fields, once per block.
        out.copy_from(&kept.section, kept.section.octets(), fields);
        Some((kept.repeat(), rest))
    }

    fn table_changed(&mut self) {
        if let Some(blocks) = &mut self.blocks {
            blocks.table_changed();
        }
    }

    /// §6.3, at the start of a block only.
    fn size_updates<'a>(&mut self, mut rest: &'a [u8]) -> Result<&'a [u8], DecodeError> {
        for _ in 0..SIZE_UPDATES_MAX {
            if !matches!(rest.first(), Some(0x20..=0x3f)) {
                break;
            }
            let (size_max, after) = integer::decode(rest, 5)?;
            if size_max > self.size_max {
                return Err(DecodeError::SizeUpdateTooLarge);
            }
            self.table.set_size_max(size_max);
            self.table_changed();
            self.update_owed = false;
            rest = after;
        }
        if self.update_owed { Err(DecodeError::SizeUpdateMissing) } else { Ok(rest) }
    }

    /// §6.1.
    fn indexed<'a>(
        &mut self,
        rest: &'a [u8],
        tally: &mut Tally,
        out: &mut FieldSection,
    ) -> Result<&'a [u8], DecodeError> {
        let (index, rest) = integer::decode(rest, 7)?;
        let (pair, name_len, traits) = self.entry(index)?;
        if tally.admit(pair.len(), traits.flags, out) {
            out.push_pair(pair, name_len, traits);
        }
        Ok(rest)
    }

    /// §6.2.
    fn literal<'a>(
        &mut self,
        input: &'a [u8],
        form: Form,
        tally: &mut Tally,
        out: &mut FieldSection,
    ) -> Result<&'a [u8], DecodeError> {
        let (index, rest) = integer::decode(input, form.prefix())?;
        let (name, rest) = if index == 0 {
            let (name, rest) = string(rest)?;
            (Name::Literal(name), rest)
        } else {
            (Name::Index(index), rest)
        };
        let (value, rest) = string(rest)?;

        // What these octets mean depends on nothing that changes.
        let lasting = form == Form::NotIndexed && index as usize <= static_table::ROWS;
        let coded = input.get(..input.len() - rest.len()).filter(|_| lasting).unwrap_or_default();
        if let Some((pair, name_len, traits)) = self.recent.find(coded) {
            if tally.admit(pair.len(), traits.flags, out) {
                out.push_pair(pair, name_len, traits);
            }
            return Ok(rest);
        }
        tally.differs(input.len(), out);
        let mark = out.mark();
        let Some((name_len, mut traits)) = self.append(&name, value, tally.room(), out)? else {
            tally.pass(out);
            if form == Form::Indexed {
                self.insert_unseen(&name, value, out)?;
            }
            return Ok(rest);
        };
        traits.sensitive = form == Form::NeverIndexed;
        if form == Form::Indexed || lasting && traits.class & VOLATILE == 0 {
            let (name, value) = out.since(mark).split_at(name_len);
            traits = known(name, value, traits);
            match form {
                Form::Indexed => {
                    self.table.insert(name, value, traits);
                    self.table_changed();
                }
                _ => self.recent.keep(coded, out.since(mark), name_len, traits),
            }
        }
        if tally.admit(out.since(mark).len(), traits.flags, out) {
            out.commit(mark, name_len, traits);
        }
        Ok(rest)
    }

    /// §6.2.2 with a name of the dynamic table and a short value without Huffman code: what another
    /// one comes of in each message. `None`: it is something else, or none of it was looked at.
    #[inline(never)] // Or else everybody saves the registers that it needs.
    fn named<'a>(
        &self,
        input: &'a [u8],
        tally: &mut Tally,
        out: &mut FieldSection,
    ) -> Option<&'a [u8]> {
        let [prefix @ 0x0f, index @ ..0x80, len @ ..0x7f, rest @ ..] = input else { return None };
        let (value, rest) = rest.split_at_checked(usize::from(*len))?;
        let age =
            (usize::from(*prefix) + usize::from(*index)).checked_sub(static_table::ROWS + 1)?;
        let row = self.table.row(age)?;
        let name = self.table.pair(row).get(..row.name_len as usize)?;
        let traits = row.traits.with_value(value);
        tally.differs(input.len(), out);
        if tally.admit(name.len() + value.len(), traits.flags, out) {
            out.push_parts(name, value, traits);
        }
        Some(rest)
    }

    /// Inserts an entry whose field is not wanted any more. `out` lends its memory.
    fn insert_unseen(
        &mut self,
        name: &Name<'_>,
        value: Literal<'_>,
        out: &mut FieldSection,
    ) -> Result<(), DecodeError> {
        let mark = out.mark();
        let room = self.table.size_max().saturating_sub(FIELD_OVERHEAD);
        match self.append(name, value, room, out)? {
            Some((name_len, traits)) => {
                let (name, value) = out.since(mark).split_at(name_len);
                self.table.insert(name, value, known(name, value, traits));
            }
            None => self.table.clear(),
        }
        self.table_changed();
        out.rollback(mark);
        Ok(())
    }

    /// Appends name and value to `out`'s arena if they are together at most `room` octets; checks
    /// them in any case. Gives the length of the name, and what the field is but for its hash.
    fn append(
        &self,
        name: &Name<'_>,
        value: Literal<'_>,
        room: usize,
        out: &mut FieldSection,
    ) -> Result<Option<(usize, Traits)>, DecodeError> {
        let mark = out.mark();
        let arena = out.arena_mut();
        let (fits, of_name) = match name {
            Name::Index(index) => {
                let (pair, name_len, traits) = self.entry(*index)?;
                let fits = name_len <= room;
                if fits {
                    // COPY: the name, once per literal.
                    octets::append(arena, pair.get(..name_len).unwrap_or_default());
                }
                (fits, Some(traits))
            }
            Name::Literal(literal) => (literal.append(room, arena)?, None),
        };
        let name_len = arena.len() - mark;
        let fits = value.append(if fits { room - name_len } else { 0 }, arena)? && fits;
        if !fits {
            out.rollback(mark);
            return Ok(None);
        }
        let (name, value) = out.since(mark).split_at(name_len);
        let of_name = of_name.unwrap_or_else(|| self.traits_of(name));
        Ok(Some((name_len, of_name.with_value(value))))
    }

    fn traits_of(&self, name: &[u8]) -> Traits {
        let static_row = match static_table::index_of_name(name) {
            0 => NO_STATIC_NAME,
            index => index,
        };
        Traits {
            hash: 0,
            static_row,
            class: (self.classify)(name),
            flags: judge_name(name),
            sensitive: false,
        }
    }

    /// It has what [`Self::give_back`] would.
    pub(in crate::http2) const fn has_to_give(&self) -> bool {
        self.recent.keeps()
    }

    /// Literals outside the table are decoded anew; sections that came again keep their numbers.
    pub(in crate::http2) fn give_back(&mut self) {
        self.recent = Recent::default();
    }

    /// What a decoder does that remembers nothing.
    #[cfg(test)]
    pub(super) fn decode_as_new(
        &mut self,
        block: &[u8],
        limits: BlockLimits,
        out: &mut FieldSection,
    ) -> Result<Decoded, DecodeError> {
        (self.recent, self.blocks) = (Recent::default(), None);
        self.decode(block, limits, out)
    }

    #[cfg(test)]
    pub(super) fn table_pairs(&self) -> Vec<(String, String)> {
        self.table.pairs()
    }

    #[cfg(test)]
    pub(super) fn heap_octets(&self) -> usize {
        let blocks = self.blocks.as_ref().map_or(0, |blocks| blocks.heap_octets());
        self.table.heap_octets() + self.recent.heap_octets() + blocks
    }

    #[cfg(test)]
    pub(super) fn table_size(&self) -> usize {
        self.table.size()
    }

    /// §2.3.3: name and value adjoining, the length of the name.
    #[inline]
    fn entry(&self, index: u32) -> Result<(&[u8], usize, Traits), DecodeError> {
        let index = index as usize;
        if let Some(age) = index.checked_sub(static_table::ROWS + 1) {
            let row = self.table.row(age).ok_or(DecodeError::IndexUnknown)?;
            return Ok((self.table.pair(row), row.name_len as usize, row.traits));
        }
        let position = index.checked_sub(1).ok_or(DecodeError::IndexZero)?;
        let row = &static_table::STATIC_TABLE[position];
        let StaticTraits { class, flags } = self.statics[position];
        let static_row = index as u8 | STATIC_EXACT;
        Ok((row.pair, row.name_len, Traits { hash: 0, static_row, class, flags, sensitive: false }))
    }
}

impl Literal<'_> {
    /// Appends the string if it is at most `room` octets; checks it in any case.
    fn append(self, room: usize, arena: &mut Vec<u8>) -> Result<bool, DecodeError> {
        if self.coded {
            return huffman::decode(self.octets, room, arena).map_err(|_| DecodeError::Huffman);
        }
        let fits = self.octets.len() <= room;
        if fits {
            // COPY: the string, once per literal.
            octets::append(arena, self.octets);
        }
        Ok(fits)
    }
}

impl Tally {
    /// A field comes that may well be another one in the next block, `left` octets before the end
    /// of what is looked at.
    #[inline]
    fn differs(&mut self, left: usize, out: &FieldSection) {
        if self.steady.is_none() {
            self.steady = Some(self.steady_here(left, out));
        }
    }

    fn steady_here(&self, left: usize, out: &FieldSection) -> (usize, Steady) {
        (left, Steady { octets: out.octets(), fields: out.len(), flags: self.flags })
    }

    /// Octets that the next field may have.
    fn room(&self) -> usize {
        if self.fields == 0 { 0 } else { self.list_size.saturating_sub(FIELD_OVERHEAD) }
    }

    /// Counts a field; false if it is not to be kept.
    #[inline]
    fn admit(&mut self, octets: usize, flags: u8, out: &mut FieldSection) -> bool {
        let size = octets + FIELD_OVERHEAD;
        if self.fields == 0 || size > self.list_size {
            self.pass(out);
            return false;
        }
        self.list_size -= size;
        self.fields -= 1;
        self.flags |= flags;
        true
    }

    /// The limit is passed: forget what was kept. Nothing fits from now on.
    #[cold]
    fn pass(&mut self, out: &mut FieldSection) {
        out.clear();
        let over = if self.fields == 0 { Over::Fields } else { Over::ListSize };
        self.over.get_or_insert(over);
        self.list_size = 0;
    }
}

/// Adds what an encoder will want to know of a field that may well come again.
fn known(name: &[u8], value: &[u8], mut traits: Traits) -> Traits {
    if let Some(row) = static_table::index_of_value(traits.static_row, value) {
        traits.static_row = row | STATIC_EXACT;
    }
    if traits.class & VOLATILE == 0 || value.is_empty() {
        traits.hash = hash_pair(name, value);
    }
    traits
}

impl Traits {
    /// Of a field with this name, known from another one, and another value.
    #[inline]
    fn with_value(self, value: &[u8]) -> Self {
        let of_name = name_part(self.flags);
        let flags = of_name | judge_value(of_name, value);
        Self { hash: 0, static_row: self.static_row & !STATIC_EXACT, flags, ..self }
    }
}

/// Of a row's flags, those that its name has without the value.
const fn name_part(flags: u8) -> u8 {
    let of_kind = flags & !flag::FAULTS;
    if of_kind == NameKind::Te as u8 {
        return of_kind;
    }
    of_kind | flags & (flag::BAD_NAME | flag::CONNECTION)
}

/// §5.2.
#[inline]
fn string(input: &[u8]) -> Result<(Literal<'_>, &[u8]), DecodeError> {
    let coded = input.first().is_some_and(|first| first & 0x80 != 0);
    let (len, rest) = integer::decode(input, 7)?;
    let (octets, rest) = rest.split_at_checked(len as usize).ok_or(DecodeError::Truncated)?;
    Ok((Literal { octets, coded }, rest))
}
