//! Fields, and names of fields, made once for many messages.
//!
//! Refuses to know in which it ends up.

use super::field::{STATIC_EXACT, Traits};
use super::hpack;

/// A field that its owner puts into many messages: judged and hashed once, by whoever keeps it.
#[derive(Clone, Debug)]
pub struct PreparedField {
    pub(super) pair: Box<[u8]>,
    pub(super) name_len: usize,
    pub(super) traits: Traits,
}

impl PreparedField {
    /// COPY: name and value, once for all messages that will hold them. The owner answers for
    /// both: they are not judged. The class is 0.
    pub fn new(name: &[u8], value: &[u8]) -> Self {
        let (hash, static_row) = hpack::known_of(name, value);
        let traits = Traits { hash, static_row, ..Traits::default() };
        Self { pair: [name, value].concat().into(), name_len: name.len(), traits }
    }

    pub fn name(&self) -> &[u8] {
        self.pair.get(..self.name_len).unwrap_or_default()
    }

    pub fn value(&self) -> &[u8] {
        self.pair.get(self.name_len..).unwrap_or_default()
    }
}

/// As [`PreparedField`], of which each message has a value of its own.
#[derive(Clone, Debug)]
pub struct PreparedName {
    pub(super) name: Box<[u8]>,
    pub(super) traits: Traits,
}

impl PreparedName {
    /// COPY: the name, once for all messages that will hold it. The owner answers for it and for
    /// the values: they are not judged.
    pub fn new(name: &[u8], class: u8) -> Self {
        let (_, static_row) = hpack::known_of(name, b"");
        let traits = Traits { static_row: static_row & !STATIC_EXACT, class, ..Traits::default() };
        Self { name: name.into(), traits }
    }
}
