//! A field section (RFC 9113 §8.1, RFC 9110 §6.3): names and values in order of arrival.
//!
//! Owns the interchange form between an HPACK decoder and an encoder: one byte arena and a list of
//! spans, reused from call to call, so that a call costs no allocation per field.
//!
//! 1. Order and repetition are kept; pseudo-header fields come first when the decoder made it.
//! 2. Every span lies inside the arena; nothing outside this file makes spans.
//! 3. `class` is what the connection's `Classify` said of the name: opaque here.
//!
//! Refuses to know what any name means.

/// Sorts field names into small numbers of the caller's choosing; 0 means "nothing special".
/// Called once per decoder table entry or literal name, not per field.
pub type Classify = fn(name: &[u8]) -> u8;

/// A [`Classify`] that finds nothing special.
pub fn classify_none(_name: &[u8]) -> u8 {
    0
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    len: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    name: Span,
    value: Span,
    class: u8,
    /// RFC 7541 §6.2.3: must never enter a table on any hop.
    sensitive: bool,
    removed: bool,
}

/// One field, borrowed from its section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
    pub class: u8,
    pub sensitive: bool,
}

/// See the file's text.
#[derive(Clone, Debug, Default)]
pub struct FieldSection {
    arena: Vec<u8>,
    entries: Vec<Entry>,
}

impl FieldSection {
    pub fn new() -> Self {
        Self::default()
    }

    /// Empties the section and keeps its memory.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.entries.clear();
    }

    /// COPY: name and value into the arena, once per field.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_field(Field { name, value, class: 0, sensitive: false });
    }

    /// COPY: name and value into the arena, once per field.
    pub fn push_field(&mut self, field: Field<'_>) {
        let name = self.append(field.name);
        let value = self.append(field.value);
        let (class, sensitive) = (field.class, field.sensitive);
        self.entries.push(Entry { name, value, class, sensitive, removed: false });
    }

    fn append(&mut self, bytes: &[u8]) -> Span {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        debug_assert!(self.arena.len() <= u32::MAX as usize, "bounded by the header list limit");
        Span { start: start as u32, len: bytes.len() as u32 }
    }

    fn bytes(&self, span: Span) -> &[u8] {
        &self.arena[span.start as usize..(span.start + span.len) as usize]
    }

    fn field(&self, entry: &Entry) -> Field<'_> {
        Field {
            name: self.bytes(entry.name),
            value: self.bytes(entry.value),
            class: entry.class,
            sensitive: entry.sensitive,
        }
    }

    /// The fields that are left, in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.entries.iter().filter(|entry| !entry.removed).map(|entry| self.field(entry))
    }

    /// The first value under `name`.
    pub fn value(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find(|field| field.name == name).map(|field| field.value)
    }

    /// Keeps the fields for which `keep` says true; moves no bytes.
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        for index in 0..self.entries.len() {
            let entry = self.entries[index];
            if !entry.removed && !keep(self.field(&entry)) {
                self.entries[index].removed = true;
            }
        }
    }

    /// Replaces the value of the first field of `name`, in place in the order; false when absent.
    pub fn replace(&mut self, name: &[u8], value: &[u8]) -> bool {
        let found = (0..self.entries.len()).find(|&index| {
            let entry = self.entries[index];
            !entry.removed && self.bytes(entry.name) == name
        });
        let Some(index) = found else { return false };
        self.entries[index].value = self.append(value);
        true
    }

    pub fn is_empty(&self) -> bool {
        self.entries.iter().all(|entry| entry.removed)
    }

    /// Number of fields left.
    pub fn len(&self) -> usize {
        self.entries.iter().filter(|entry| !entry.removed).count()
    }

    /// Octets as SETTINGS_MAX_HEADER_LIST_SIZE counts them: name + value + 32 each
    /// (RFC 9113 §6.5.2).
    pub fn list_size(&self) -> usize {
        self.iter().map(|field| field.name.len() + field.value.len() + 32).sum()
    }
}

impl PartialEq for FieldSection {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
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
    fn removes_and_replaces() {
        let mut section = sample();
        section.retain(|f| f.value != b"1");
        assert_eq!(section.len(), 2);
        assert!(section.replace(b"x", b"three"));
        assert!(!section.replace(b"y", b""));
        assert_eq!(section.value(b"x"), Some(&b"three"[..]));
    }
}
