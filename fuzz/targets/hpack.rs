//! Any octets as a run of field blocks on one connection, and as fields of an owner, with changes
//! of table size in between, relayed to a second one. What must hold: no panic, the limits, flags
//! that agree with the judge, and that what our encoder writes our decoder reads as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringside::http2::field::{Field, FieldSection, VOLATILE, flag, judge};
use ringside::http2::hpack::{BlockLimits, Decoder, Encoder};

const LIMITS: BlockLimits = BlockLimits { list_size: 2000, fields_max: 20 };
const SIZES: [u32; 8] = [0, 33, 64, 100, 300, 1000, 4096, 20_000];

fn classify(name: &[u8]) -> u8 {
    if name.first() == Some(&b'v') { VOLATILE } else { name.len() as u8 & 0x7f }
}

fn size(octet: u8) -> u32 {
    SIZES[usize::from(octet & 7)]
}

/// One field of an owner's, of any octets: what goes out may have come in by another decoder.
fn push_field(section: &mut FieldSection, octets: &[u8], control: u8) {
    let (name, value) = octets.split_at((octets.len() / 3).min(usize::from(control)));
    let (class, flags) = (classify(name), judge(name, value));
    section.push_field(Field { name, value, class, flags, sensitive: control & 1 != 0 });
}

fuzz_target!(|data: &[u8]| {
    let Some((&first, mut rest)) = data.split_first() else { return };
    let mut decoder = Decoder::new(size(first), classify);
    let mut encoder = Encoder::new(size(first >> 3));
    let mut second = Decoder::new(4096, classify);
    let (mut section, mut copy, mut block) = (FieldSection::new(), FieldSection::new(), Vec::new());
    while let Some((&control, after)) = rest.split_first() {
        rest = after;
        if control >= 0xf0 {
            encoder.set_peer_table_size(size(control));
            second.set_table_size_max(size(control));
            continue;
        }
        if control >= 0xe8 {
            decoder.set_table_size_max(size(control));
            continue;
        }
        let (input, after) = rest.split_at(usize::from(control).min(rest.len()));
        rest = after;
        if control & 7 == 7 {
            section.clear();
            for octets in input.chunks(1 + usize::from(control >> 3)) {
                push_field(&mut section, octets, control >> 3);
            }
        } else {
            let Ok(decoded) = decoder.decode(input, LIMITS, &mut section) else { return };
            assert!(section.list_size() <= 2000 && section.len() <= 20);
            assert!(decoded.over.is_none() || section.is_empty());
            let mut flags = 0;
            for field in section.iter() {
                assert_eq!(field.flags, judge(field.name, field.value));
                assert_eq!(field.class, classify(field.name));
                flags |= field.flags & flag::FAULTS;
            }
            assert!(decoded.over.is_some() || decoded.flags == flags);
        }
        block.clear();
        encoder.encode(&section, &mut block);
        let limits = BlockLimits { list_size: u32::MAX, fields_max: u32::MAX };
        second.decode(&block, limits, &mut copy).expect("our own block");
        assert!(section == copy);
    }
});
