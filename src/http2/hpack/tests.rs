//! Both directions together; what the rooms below share.

use super::*;
use crate::http2::field::{Field, FieldSection, VOLATILE, classify_none, flag, judge};
use std::collections::HashMap;

mod bounds;
mod chaos;
mod examples;
mod fields;

type Pairs = Vec<(String, String)>;

const WIDE: BlockLimits = BlockLimits { list_size: 1 << 20, fields_max: 1000 };

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|octet| !octet.is_ascii_whitespace()).collect();
    let text = |pair: &[u8]| std::str::from_utf8(pair).expect("ASCII").to_owned();
    digits.chunks(2).map(|pair| u8::from_str_radix(&text(pair), 16).expect("hex")).collect()
}

fn pairs(section: &FieldSection) -> Pairs {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    section.iter().map(|field| (text(field.name), text(field.value))).collect()
}

fn owned(pairs: &[(&str, &str)]) -> Pairs {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn section(fields: &[(&str, &str)]) -> FieldSection {
    let mut section = FieldSection::new();
    for (name, value) in fields {
        section.push(name.as_bytes(), value.as_bytes());
    }
    section
}

fn encoded(encoder: &mut Encoder, section: &FieldSection) -> Vec<u8> {
    let mut block = Vec::new();
    encoder.encode(section, &mut block);
    block
}

fn decoded(decoder: &mut Decoder, block: &[u8]) -> FieldSection {
    let mut section = FieldSection::new();
    let decoded = decoder.decode(block, WIDE, &mut section).expect("a block of ours");
    assert_eq!(decoded.over, None);
    section
}

const CALL: &[(&str, &str)] = &[
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/pkg.Greeter/SayHello"),
    (":authority", "127.0.0.1:50001"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
    ("x", ""),
];

/// SplitMix64: the same numbers for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn octets(&mut self, len_max: usize) -> Vec<u8> {
        (0..self.below(len_max + 1)).map(|_| self.next() as u8).collect()
    }
}

/// A section out of a small stock of names and values, so that pairs come again, with some
/// static rows, some octets of any kind, some sensitive, some volatile.
fn random_section(random: &mut Random) -> FieldSection {
    let mut section = FieldSection::new();
    for _ in 0..random.below(12) {
        let (name, value) = match random.below(6) {
            0 => {
                let row = &static_table::STATIC_TABLE[random.below(61)];
                (row.name().to_vec(), row.value().to_vec())
            }
            1 => {
                let name = static_table::STATIC_TABLE[random.below(61)].name().to_vec();
                (name, format!("value {}", random.below(5)).into_bytes())
            }
            2 => (random.octets(20), random.octets(300)),
            _ => {
                let name = format!("name-{}", random.below(8));
                (name.into_bytes(), vec![b'v'; random.below(4) * 30])
            }
        };
        section.push_field(Field {
            name: &name,
            value: &value,
            class: if random.below(10) == 0 { VOLATILE } else { 0 },
            flags: 0,
            sensitive: random.below(10) == 0,
        });
    }
    section
}

fn decode_with(
    decoder: &mut Decoder,
    block: &[u8],
    list_size: u32,
    fields_max: u32,
) -> (Result<Decoded, DecodeError>, FieldSection) {
    let mut section = FieldSection::new();
    let limits = BlockLimits { list_size, fields_max };
    (decoder.decode(block, limits, &mut section), section)
}

/// As it comes from a peer that puts all into its table or none.
fn encoded_once(section: &FieldSection, decoder: &mut Decoder) -> FieldSection {
    let mut block = Vec::new();
    Encoder::new(0).encode(section, &mut block);
    // The encoder says that its table has no size.
    decoder.set_table_size_max(0);
    decoded(decoder, &block)
}
