//! HPACK (RFC 7541): field blocks to [`FieldSection`](super::FieldSection) and back.
//!
//! Owns nothing itself; the parts are
//! - [`decoder`]: one per connection, for what the peer sends;
//! - [`encoder`]: one per connection, for what we send;
//! - `table` (§2.3.2, §4), `static_table` (Appendix A), `integer` (§5.1), `huffman` (Appendix B),
//!   `octets`, `recent`, `blocks`, `sections`.
//!
//! 1. Input never panics and never makes more memory than the limits of its owner.
//! 2. Once its memory is warm, neither direction allocates.
//! 3. A connection that has sent no field holds no heap memory here.
//!
//! Refuses to know streams, frames, and what names mean.

mod blocks;
pub mod decoder;
pub mod encoder;
mod huffman;
mod integer;
pub(in crate::http2) mod octets;
mod recent;
mod sections;
mod static_table;
mod table;

pub use blocks::Repeat;
pub use decoder::{BlockLimits, DecodeError, Decoded, Decoder, Over};
pub use encoder::Encoder;

use super::field::{NO_STATIC_NAME, STATIC_EXACT};

/// SETTINGS_HEADER_TABLE_SIZE before any SETTINGS frame (RFC 9113 §6.5.2).
pub const TABLE_SIZE_DEFAULT: u32 = 4096;

/// What an entry counts beyond its octets (RFC 7541 §4.1), and a field beyond its own in
/// SETTINGS_MAX_HEADER_LIST_SIZE (RFC 9113 §6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// What an encoder would have to work out of a field: the hash of the pair and the static row
/// of the name, exact or not.
pub(super) fn known_of(name: &[u8], value: &[u8]) -> (u32, u8) {
    let static_row = match static_table::index_of_name(name) {
        0 => NO_STATIC_NAME,
        row => static_table::index_of_value(row, value).map_or(row, |row| row | STATIC_EXACT),
    };
    (table::hash_pair(name, value), static_row)
}

/// The three forms of a literal field (RFC 7541 §6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// §6.2.1: enters the table.
    Indexed,
    /// §6.2.2.
    NotIndexed,
    /// §6.2.3: must not enter a table on any hop.
    NeverIndexed,
}

impl Form {
    /// Bits of the index of the name.
    const fn prefix(self) -> u8 {
        match self {
            Self::Indexed => 6,
            Self::NotIndexed | Self::NeverIndexed => 4,
        }
    }

    /// The bits above it.
    const fn pattern(self) -> u8 {
        match self {
            Self::Indexed => 0x40,
            Self::NotIndexed => 0x00,
            Self::NeverIndexed => 0x10,
        }
    }
}

#[cfg(test)]
mod tests;
