//! A field section (RFC 9113 §8.1, RFC 9110 §6.3): names and values in order of arrival.
//!
//! Owns the interchange form between an HPACK decoder and an encoder: one byte arena and a list of
//! spans, reused from call to call, so that a call costs no allocation per field.
//!
//! 1. Order and repetition are kept; pseudo-header fields come first when the decoder made it.
//! 2. Every span lies inside the arena; nothing outside this file makes spans.
//! 3. `class` is what the connection's `Classify` said of the name: opaque here, but for
//!    [`VOLATILE`].
//! 4. `flags` of a field that no decoder made are 0 until somebody calls [`judge`].
//!
//! Refuses to know what any name means beyond RFC 9113.

use super::hpack::octets;
pub use super::judge::judge;
pub(super) use super::judge::{judge_name, judge_value};
pub use super::prepared::{PreparedField, PreparedName};

/// Sorts field names into small numbers of the caller's choosing; 0 means "nothing special".
/// Called once per decoder table entry or literal name, not per field.
pub type Classify = fn(name: &[u8]) -> u8;

/// A [`Classify`] that finds nothing special.
pub fn classify_none(_name: &[u8]) -> u8 {
    0
}

/// Bit of a class: values of this name differ from message to message, so an encoder must not
/// spend table space on them.
pub const VOLATILE: u8 = 0x80;

/// The low four bits of [`Field::flags`]; the high four are a [`NameKind`].
pub mod flag {
    /// The name is empty or not a lower-case token (RFC 9113 §8.2.1); one leading colon is let
    /// through, see [`NameKind`](super::NameKind).
    pub const BAD_NAME: u8 = 0x01;
    /// The value holds a control octet other than HTAB (RFC 9113 §8.2.1 forbids NUL, CR and LF,
    /// RFC 9110 §5.5 the others).
    pub const BAD_VALUE: u8 = 0x02;
    /// The value starts or ends with SP or HTAB: forbidden by RFC 9113 §8.2.1, harmless enough
    /// that the judge may want to let it pass.
    pub const PADDED_VALUE: u8 = 0x04;
    /// A connection-specific field, or `te` with anything but `trailers` (RFC 9113 §8.2.2).
    pub const CONNECTION: u8 = 0x08;
    /// Every bit that is a fault.
    pub const FAULTS: u8 = 0x0f;
}

/// The names about which RFC 9113 §8.2 and §8.3 have a rule, so that nobody compares strings to
/// apply it. Kept in the high four bits of [`Field::flags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum NameKind {
    Regular = 0x00,
    Authority = 0x10,
    Method = 0x20,
    Path = 0x30,
    Scheme = 0x40,
    Status = 0x50,
    /// RFC 8441 §4.
    Protocol = 0x60,
    /// Begins with a colon and is none of the above.
    UnknownPseudo = 0x70,
    Te = 0x80,
    ContentLength = 0x90,
    Host = 0xa0,
}

impl NameKind {
    pub(super) const fn of_flags(flags: u8) -> Self {
        match flags >> 4 {
            0x1 => Self::Authority,
            0x2 => Self::Method,
            0x3 => Self::Path,
            0x4 => Self::Scheme,
            0x5 => Self::Status,
            0x6 => Self::Protocol,
            0x7 => Self::UnknownPseudo,
            0x8 => Self::Te,
            0x9 => Self::ContentLength,
            0xa => Self::Host,
            _ => Self::Regular,
        }
    }

    /// A pseudo-header field, known or not (RFC 9113 §8.3).
    pub const fn is_pseudo(self) -> bool {
        let number = self as u8 >> 4;
        number >= 1 && number <= 7
    }
}

/// A field without its octets: where they lie in somebody's buffer, the value behind the name,
/// and what is known of them. A section's entries and a dynamic table's rows are such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) name_len: u32,
    pub(super) value_len: u32,
    pub(super) traits: Traits,
}

impl Span {
    /// Octets of name and value.
    #[inline]
    pub(super) fn octets(&self) -> usize {
        self.name_len as usize + self.value_len as usize
    }

    /// Where the value of a section's entry lies in its arena.
    #[inline]
    fn value_range(&self) -> std::ops::Range<usize> {
        let start = self.start as usize + self.name_len as usize;
        start..start + self.value_len as usize
    }
}

/// What is known of a field besides its octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traits {
    /// Hash of name and value, for an encoder that may have them in its table: it compares the
    /// octets before it believes it. 0: not known, or not meant for a table, or sensitive.
    pub(super) hash: u32,
    /// A row of HPACK's static table with this name; 0: not known; [`NO_STATIC_NAME`]: there is
    /// none. With [`STATIC_EXACT`] it has this value too and the field is not sensitive.
    pub(super) static_row: u8,
    pub(super) class: u8,
    pub(super) flags: u8,
    /// RFC 7541 §6.2.3: must never enter a table on any hop.
    pub(super) sensitive: bool,
}

impl Traits {
    /// A field of a [`VOLATILE`] name that is known not to be in HPACK's static table.
    #[inline]
    pub(super) const fn is_volatile(self) -> bool {
        self.class & VOLATILE != 0 && self.static_row == NO_STATIC_NAME && !self.sensitive
    }
}

/// See [`Traits::static_row`].
pub(super) const NO_STATIC_NAME: u8 = 0x7f;
pub(super) const STATIC_EXACT: u8 = 0x80;

/// One field, borrowed from its section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
    pub class: u8,
    /// [`flag`] bits and a [`NameKind`].
    pub flags: u8,
    pub sensitive: bool,
}

impl Field<'_> {
    pub const fn kind(&self) -> NameKind {
        NameKind::of_flags(self.flags)
    }
}

/// A field whose octets nobody has looked at yet.
#[derive(Clone, Copy)]
pub(super) struct Glimpse<'a> {
    section: &'a FieldSection,
    span: &'a Span,
}

impl<'a> Glimpse<'a> {
    pub(super) const fn is_regular(self) -> bool {
        self.span.traits.flags & 0xf0 == NameKind::Regular as u8
    }

    pub(super) const fn kind(self) -> NameKind {
        NameKind::of_flags(self.span.traits.flags)
    }

    pub(super) fn value(self) -> &'a [u8] {
        self.section.field(self.span).value
    }
}

/// Octets up to which a section's memory doubles when it grows.
const DOUBLES_MAX: usize = 4 << 10;

/// See the file's text.
#[derive(Clone, Debug, Default)]
pub struct FieldSection {
    arena: Vec<u8>,
    entries: Vec<Span>,
}

impl FieldSection {
    pub fn new() -> Self {
        Self::default()
    }

    /// Empty, with memory for so many octets and fields.
    pub(super) fn with_room(octets: usize, fields: usize) -> Self {
        Self { arena: Vec::with_capacity(octets), entries: Vec::with_capacity(fields) }
    }

    /// So many octets will come: a large section makes room for them, and does not double.
    #[inline]
    pub fn expect(&mut self, octets: usize) {
        if self.arena.len() > DOUBLES_MAX {
            self.arena.reserve_exact(octets);
        }
    }

    /// Octets of memory kept for reuse.
    pub fn kept(&self) -> usize {
        self.arena.capacity() + self.entries.capacity() * size_of::<Span>()
    }

    /// Of all names and values.
    pub fn octets(&self) -> usize {
        self.arena.len()
    }

    /// Empties the section and keeps its memory.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.entries.clear();
    }

    /// COPY: the first fields of another section, which have so many octets, into this one, which
    /// is empty. For a decoder's sections, whose octets lie in the order of their fields.
    #[inline]
    pub(super) fn copy_from(&mut self, other: &Self, octets: usize, fields: usize) {
        self.arena.extend_from_slice(other.arena.get(..octets).unwrap_or_default());
        self.entries.extend_from_slice(other.entries.get(..fields).unwrap_or_default());
    }

    /// Empties the section and makes it what `other` is.
    #[inline]
    pub fn become_like(&mut self, other: &Self) {
        self.clear();
        // COPY: the fields of what came before, once per message.
        self.arena.extend_from_slice(&other.arena);
        self.entries.extend_from_slice(&other.entries);
    }

    /// COPY: name and value into the arena, once per field.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_field(Field { name, value, class: 0, flags: 0, sensitive: false });
    }

    /// COPY: name and value into the arena, once per field.
    pub fn push_field(&mut self, field: Field<'_>) {
        let Field { class, flags, sensitive, .. } = field;
        let traits = Traits { class, flags, sensitive, ..Traits::default() };
        self.push_parts(field.name, field.value, traits);
    }

    /// Like [`Self::push`], before all others: where pseudo-header fields belong.
    pub fn push_front(&mut self, name: &[u8], value: &[u8]) {
        self.push(name, value);
        self.entries.rotate_right(1);
    }

    /// Like [`Self::push`], without working anything out.
    pub fn push_prepared(&mut self, field: &PreparedField) {
        self.push_pair(&field.pair, field.name_len, field.traits);
    }

    /// COPY: name and value into the arena, once per field. Like [`Self::push`], the name being
    /// known.
    pub fn push_named(&mut self, name: &PreparedName, value: &[u8]) {
        self.push_parts(&name.name, value, name.traits);
    }

    /// COPY: name and value into the arena, once per field.
    #[inline(always)] // Or else lengths that are known are asked for again.
    pub(super) fn push_parts(&mut self, name: &[u8], value: &[u8], traits: Traits) {
        let mark = self.mark();
        octets::append(&mut self.arena, name);
        octets::append(&mut self.arena, value);
        self.commit(mark, name.len(), traits);
    }

    /// Like [`Self::push_front`], without working anything out.
    pub fn push_prepared_front(&mut self, field: &PreparedField) {
        self.push_prepared(field);
        self.entries.rotate_right(1);
    }

    /// Puts `field` in the place of the first one of this kind; false when there is none. Its
    /// class and kind stay. Only for sections that a decoder made: others have no kinds.
    pub fn replace_kind(&mut self, kind: NameKind, field: &PreparedField) -> bool {
        self.replace_first(field, |traits| NameKind::of_flags(traits.flags) == kind)
    }

    /// As [`Self::replace_kind`], by class.
    pub fn replace_class(&mut self, class: u8, field: &PreparedField) -> bool {
        self.replace_first(field, |traits| traits.class == class)
    }

    fn replace_first(&mut self, field: &PreparedField, which: impl Fn(&Traits) -> bool) -> bool {
        let Some(at) = self.entries.iter().position(|entry| which(&entry.traits)) else {
            return false;
        };
        self.push_prepared(field);
        self.move_last_to(at, field.traits);
        true
    }

    /// The last entry takes the place of another one, of which class and kind stay.
    fn move_last_to(&mut self, at: usize, traits: Traits) {
        let Some(last) = self.entries.pop() else { return };
        if let Some(entry) = self.entries.get_mut(at) {
            let Traits { class, flags, sensitive, .. } = entry.traits;
            let flags = flags & !(flag::BAD_VALUE | flag::PADDED_VALUE);
            let traits = match sensitive {
                true => Traits { class, flags, sensitive, ..Traits::default() },
                false => Traits { class, flags, ..traits },
            };
            *entry = Span { traits, ..last };
        }
    }

    /// COPY: a table entry (name and value adjoining) into the arena, once per field.
    #[inline]
    pub(super) fn push_pair(&mut self, pair: &[u8], name_len: usize, traits: Traits) {
        let mark = self.mark();
        octets::append(&mut self.arena, pair);
        self.commit(mark, name_len, traits);
    }

    /// Where the next octet goes. A decoder appends a name and a value to [`Self::arena_mut`],
    /// then either commits or rolls back to the mark.
    pub fn mark(&self) -> usize {
        self.arena.len()
    }

    pub(super) fn arena_mut(&mut self) -> &mut Vec<u8> {
        &mut self.arena
    }

    /// What was appended since `mark`.
    pub fn since(&self, mark: usize) -> &[u8] {
        self.arena.get(mark..).unwrap_or_default()
    }

    pub(super) fn rollback(&mut self, mark: usize) {
        self.arena.truncate(mark);
    }

    /// Makes one field of what was appended since `mark`.
    #[inline]
    pub(super) fn commit(&mut self, mark: usize, name_len: usize, traits: Traits) {
        let octets = self.arena.len() - mark;
        debug_assert!(name_len <= octets && self.arena.len() <= u32::MAX as usize);
        let (name_len, value_len) = (name_len as u32, (octets - name_len) as u32);
        self.entries.push(Span { start: mark as u32, name_len, value_len, traits });
    }

    pub(super) fn spans(&self) -> &[Span] {
        &self.entries
    }

    /// As [`Self::iter`], for a judge who knows most fields by their kind.
    pub(super) fn glimpses(&self) -> impl Iterator<Item = Glimpse<'_>> {
        self.entries.iter().map(|span| Glimpse { section: self, span })
    }

    /// Whether no rule of RFC 9113 speaks of a name behind the first `count` fields.
    #[inline]
    pub(super) fn is_regular_from(&self, count: usize) -> bool {
        let rest = self.entries.get(count..).unwrap_or_default();
        rest.iter().all(|span| Glimpse { section: self, span }.is_regular())
    }

    /// Name and value, adjoining.
    #[inline]
    pub(super) fn pair(&self, span: &Span) -> &[u8] {
        let start = span.start as usize;
        self.arena.get(start..start + span.octets()).unwrap_or_default()
    }

    #[inline]
    pub(super) fn field(&self, span: &Span) -> Field<'_> {
        let name_len = span.name_len as usize;
        let (name, value) = self.pair(span).split_at_checked(name_len).unwrap_or_default();
        let Traits { class, flags, sensitive, .. } = span.traits;
        Field { name, value, class, flags, sensitive }
    }

    /// The fields that are left, in order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.entries.iter().map(|entry| self.field(entry))
    }

    /// Class and value of each field that has a class, in order: all that some owners look for.
    pub fn classed(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let classed = self.entries.iter().filter(|entry| entry.traits.class != 0);
        classed.map(|entry| (entry.traits.class, self.field(entry).value))
    }

    /// The first value under `name`.
    pub fn value(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find(|field| field.name == name).map(|field| field.value)
    }

    /// The first value of a class, for an owner who changes octets of it and answers for them. Not
    /// for classes whose values a table may hold: none but [`VOLATILE`] ones.
    #[inline]
    pub fn value_mut(&mut self, class: u8) -> Option<&mut [u8]> {
        debug_assert!(class & VOLATILE != 0);
        let entry = self.entries.iter().find(|entry| entry.traits.class == class)?;
        self.arena.get_mut(entry.value_range())
    }

    /// As [`Self::value_mut`], of the last field.
    #[inline]
    pub fn last_value_mut(&mut self, class: u8) -> Option<&mut [u8]> {
        debug_assert!(class & VOLATILE != 0);
        let entry = self.entries.last().filter(|entry| entry.traits.class == class)?;
        self.arena.get_mut(entry.value_range())
    }

    /// Keeps the fields for which `keep` says true; moves no octets.
    #[inline]
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        let mut entries = std::mem::take(&mut self.entries);
        entries.retain(|entry| keep(self.field(entry)));
        self.entries = entries;
    }

    /// Keeps the fields without a class, and those for whose class `keep` says true.
    pub fn retain_classes(&mut self, mut keep: impl FnMut(u8) -> bool) {
        self.entries.retain(|entry| entry.traits.class == 0 || keep(entry.traits.class));
    }

    /// Replaces the value of the first field of `name`, in place in the order; false when absent.
    /// The flags then speak of the name only: the new value is the owner's, who answers for it.
    pub fn replace(&mut self, name: &[u8], value: &[u8]) -> bool {
        let Some(at) = self.iter().position(|field| field.name == name) else { return false };
        self.push(name, value);
        self.move_last_to(at, Traits::default());
        true
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// COPY: octets behind the fields that belong to none, for an owner that has nowhere else to
    /// keep them. They begin at the [`Self::mark`] before.
    #[inline]
    pub fn push_tail(&mut self, data: &[u8]) {
        self.arena.extend_from_slice(data);
    }

    /// Keeps the first `len` fields.
    pub fn truncate(&mut self, len: usize) {
        self.entries.truncate(len);
    }

    /// Number of fields left.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Octets as SETTINGS_MAX_HEADER_LIST_SIZE counts them: name + value + 32 each
    /// (RFC 9113 §6.5.2).
    pub fn list_size(&self) -> usize {
        self.iter().map(|field| field.name.len() + field.value.len() + 32).sum()
    }
}

/// What is on the wire: names, values, sensitivity; not what somebody thinks of them.
impl PartialEq for FieldSection {
    fn eq(&self, other: &Self) -> bool {
        fn wire<'a>(field: Field<'a>) -> (&'a [u8], &'a [u8], bool) {
            (field.name, field.value, field.sensitive)
        }
        self.iter().map(wire).eq(other.iter().map(wire))
    }
}

impl Eq for FieldSection {}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> FieldSection {
        let mut section = FieldSection::new();
        section.push(b":path", b"/a.B/C");
        section.push(b"x", b"1");
        section.push(b"x", b"2");
        section
    }

    #[test]
    fn keeps_order_and_repetition() {
        let section = sample();
        let values: Vec<&[u8]> =
            section.iter().filter(|f| f.name == b"x").map(|f| f.value).collect();
        assert_eq!(values, [b"1", b"2"]);
        assert_eq!(section.list_size(), 5 + 6 + 32 + 2 * (1 + 1 + 32));
    }

    #[test]
    fn prepared_fields_take_places() {
        let mut section = FieldSection::new();
        for (name, value, class) in
            [(&b":path"[..], &b"/a "[..], 3), (b"x", b"1", 5), (b"x", b"2", 5)]
        {
            let flags = judge(name, value);
            section.push_field(Field { name, value, class, flags, sensitive: false });
        }
        let path = PreparedField::new(b":path", b"/b");
        assert_eq!((path.name(), path.value()), (&b":path"[..], &b"/b"[..]));
        assert!(section.replace_kind(NameKind::Path, &path));
        assert!(!section.replace_kind(NameKind::Authority, &path));
        assert!(section.replace_class(5, &PreparedField::new(b"x", b"three")));
        assert!(!section.replace_class(6, &path));
        section.push_prepared(&PreparedField::new(b"last", b""));
        section.push_prepared_front(&PreparedField::new(b":scheme", b"http"));
        let expected: [(&[u8], &[u8], u8, u8); 5] = [
            (b":scheme", b"http", 0, 0),
            (b":path", b"/b", 3, NameKind::Path as u8),
            (b"x", b"three", 5, 0),
            (b"x", b"2", 5, 0),
            (b"last", b"", 0, 0),
        ];
        let got = section.iter().map(|field| (field.name, field.value, field.class, field.flags));
        assert_eq!(got.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn removes_and_replaces() {
        let mut section = sample();
        section.retain(|f| f.value != b"1");
        assert_eq!(section.len(), 2);
        assert!(section.replace(b"x", b"three"));
        assert!(!section.replace(b"y", b""));
        assert_eq!(section.value(b"x"), Some(&b"three"[..]));
    }
}
