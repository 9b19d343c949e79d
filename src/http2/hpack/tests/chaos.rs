//! Sections and octets out of a seed.

use super::*;

#[test]
fn random_sections_cross_two_hops_and_keep_the_tables_in_step() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let bound = [0, 40, 200, 4096, 65536][random.below(5)];
        let (mut encoder, mut decoder) = (Encoder::new(bound), Decoder::new(4096, classify_none));
        let (mut relayed, mut last) = (Encoder::new(4096), Decoder::new(4096, classify_none));
        for step in 0..200 {
            if random.below(20) == 0 {
                for _ in 0..=random.below(3) {
                    let size = [0, 31, 100, 1000, 4096, 9000][random.below(6)];
                    encoder.set_peer_table_size(size);
                    decoder.set_table_size_max(size);
                }
            }
            let sent = random_section(&mut random);
            let block = encoded(&mut encoder, &sent);
            let got = decoded(&mut decoder, &block);
            assert_eq!(got, sent, "seed {seed}, step {step}");
            assert_eq!(encoder.table_pairs(), decoder.table_pairs(), "seed {seed}, step {step}");
            // The second hop goes by the hints of the first.
            let block = encoded(&mut relayed, &got);
            assert_eq!(decoded(&mut last, &block), sent, "seed {seed}, step {step}");
            assert_eq!(relayed.table_pairs(), last.table_pairs(), "seed {seed}, step {step}");
        }
    }
}

#[test]
fn random_octets_never_panic_and_keep_the_limits() {
    let limits = BlockLimits { list_size: 400, fields_max: 7 };
    for seed in 0..200 {
        let mut random = Random(seed);
        let mut decoder = Decoder::new(300, classify_none);
        let mut section = FieldSection::new();
        for _ in 0..100 {
            let mut block = random.octets(60);
            // Mostly what a walk survives: indices of rows that exist, short literals.
            for octet in &mut block {
                *octet = match random.below(4) {
                    0 => 0x80 | (1 + random.below(64)) as u8,
                    1 => [0x40, 0x00, 0x10, 0x41, 0x0f, 0x7f][random.below(6)],
                    2 => random.below(6) as u8,
                    _ => *octet,
                };
            }
            let result = decoder.decode(&block, limits, &mut section);
            decoder.table_pairs();
            assert!(section.list_size() <= 400 && section.len() <= 7);
            match result {
                Ok(Decoded { over: Some(_), .. }) => assert!(section.is_empty()),
                Ok(Decoded { over: None, flags, .. }) => {
                    let all = section.iter().fold(0, |all, field| all | field.flags);
                    assert_eq!(flags, all & flag::FAULTS);
                    for field in section.iter() {
                        assert_eq!(field.flags, judge(field.name, field.value));
                    }
                }
                Err(_) => {}
            }
        }
    }
}

#[test]
fn mutated_blocks_never_panic() {
    for seed in 0..50 {
        let mut random = Random(seed);
        let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(4096, classify_none));
        let mut section = FieldSection::new();
        for _ in 0..100 {
            let mut block = encoded(&mut encoder, &random_section(&mut random));
            for _ in 0..random.below(4) {
                let at = random.below(block.len() + 1);
                if let Some(octet) = block.get_mut(at) {
                    *octet ^= 1 << random.below(8);
                }
            }
            block.truncate(random.below(block.len() + 200));
            let _ = decoder.decode(&block, WIDE, &mut section);
            decoder.table_pairs();
        }
    }
}

/// A few sections that take turns, most with something of their own at the end or in the middle,
/// through limits that let them pass or not, while tables change now and then.
#[test]
fn what_began_so_before_means_the_same() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(4096, classify_none));
        let usual: Vec<_> = (0..3).map(|_| random_section(&mut random)).collect();
        for step in 0..300 {
            let mut sent = usual[random.below(usual.len())].clone();
            match random.below(12) {
                0 => sent = random_section(&mut random),
                1 => {
                    encoder.set_peer_table_size(0);
                    encoder.set_peer_table_size(4096);
                }
                2..7 => {
                    let value = format!("{seed} {step}");
                    let (name, value, class) = (&b"own"[..], value.as_bytes(), VOLATILE);
                    sent.push_field(Field { name, value, class, flags: 0, sensitive: false });
                    if random.below(2) == 0 {
                        sent.push(b"behind", b"it");
                    }
                }
                _ => {}
            }
            let block = encoded(&mut encoder, &sent);
            let limits = match random.below(6) {
                0 => BlockLimits { list_size: 200, fields_max: 1000 },
                1 => BlockLimits { list_size: 1 << 20, fields_max: 3 },
                _ => WIDE,
            };
            let mut got = FieldSection::new();
            let result = decoder.decode(&block, limits, &mut got).expect("HPACK");
            let fits = sent.list_size() <= limits.list_size as usize
                && sent.len() <= limits.fields_max as usize;
            assert_eq!(result.over.is_none(), fits, "seed {seed}, step {step}");
            assert_eq!(got, if fits { sent } else { FieldSection::new() }, "{seed}, {step}");
            assert_eq!(encoder.table_pairs(), decoder.table_pairs(), "seed {seed}, step {step}");
        }
    }
}

/// One piece of a block: a field of any form, an index that may not be there, a size update where
/// it may be and where it may not.
fn random_piece(random: &mut Random, out: &mut Vec<u8>) {
    let (prefix, pattern) = match random.below(40) {
        0..20 => {
            let index = match random.below(8) {
                0 => 62 + random.below(3),
                _ => 1 + random.below(20),
            };
            return integer::encode(index as u32, 7, 0x80, out);
        }
        20 => {
            return integer::encode([0, 40, 100, 200][random.below(4)], 5, 0x20, out);
        }
        21..26 => (6, 0x40),
        26..28 => (4, 0x10),
        _ => (4, 0),
    };
    let index = [0, 0, 1, 4, 28, 62][random.below(6)];
    let name = [&b"x"[..], b"volatile", b"te", b"Bad"][random.below(4)];
    integer::encode(index, prefix, pattern, out);
    let mut string = |text: &[u8]| {
        if random.below(2) == 0 {
            integer::encode(huffman::encoded_len(text) as u32, 7, 0x80, out);
            huffman::encode(text, out);
        } else {
            integer::encode(text.len() as u32, 7, 0, out);
            out.extend_from_slice(text);
        }
    };
    if index == 0 {
        string(name);
    }
    string(b"value");
}

/// Whatever comes, in whatever order, with whatever limits: a decoder that remembers says of it
/// what one says that does not.
#[test]
fn remembering_changes_nothing() {
    let classify: crate::http2::field::Classify =
        |name| if name == b"volatile" { VOLATILE } else { 1 };
    let (mut found, mut repeats) = (0, 0);
    for seed in 0..400 {
        let mut numbered = HashMap::new();
        let mut random = Random(seed);
        let mut decoders = [Decoder::new(200, classify), Decoder::new(200, classify)];
        let stock: Vec<Vec<u8>> = (0..4)
            .map(|_| {
                let mut block = Vec::new();
                (0..random.below(5)).for_each(|_| random_piece(&mut random, &mut block));
                block
            })
            .collect();
        for step in 0..60 {
            let mut block = stock[random.below(stock.len())].clone();
            (0..random.below(3)).for_each(|_| random_piece(&mut random, &mut block));
            if random.below(20) == 0 {
                block.truncate(random.below(block.len() + 1));
            }
            if random.below(30) == 0 {
                let size_max = [0, 100, 200][random.below(3)];
                decoders.iter_mut().for_each(|decoder| decoder.set_table_size_max(size_max));
            }
            let limits = match random.below(4) {
                0 => BlockLimits { list_size: random.below(300) as u32, fields_max: 1000 },
                1 => BlockLimits { list_size: 1 << 20, fields_max: random.below(5) as u32 },
                _ => WIDE,
            };
            let [one, other] = &mut decoders;
            let (mut got, mut expected) = (FieldSection::new(), FieldSection::new());
            let result = one.decode(&block, limits, &mut got);
            let without = other.decode_as_new(&block, limits, &mut expected);
            let judged = |decoded: Result<Decoded, _>| {
                decoded.map(|Decoded { over, flags, .. }| (over, flags))
            };
            assert_eq!(judged(result), judged(without), "seed {seed}, step {step}");
            assert_eq!(one.table_pairs(), other.table_pairs(), "seed {seed}, step {step}");
            if result.is_err() {
                continue;
            }
            // With all that is known of each.
            assert_eq!(format!("{got:?}"), format!("{expected:?}"), "seed {seed}, step {step}");
            found += 1;
            // A number stands for the same fields for ever.
            if let Ok(Decoded { repeat: Some(repeat), over: None, .. }) = result {
                expected.truncate(repeat.fields as usize);
                let said = pairs(&expected);
                let known = numbered.entry(format!("{repeat:?}")).or_insert_with(|| said.clone());
                assert_eq!(*known, said, "seed {seed}, step {step}");
                repeats += 1;
            }
        }
    }
    assert!(found > 2000 && repeats > 100, "{found}, {repeats}");
}

/// Whatever is sent, in whatever order: an encoder that remembers makes the octets of one that does
/// not.
#[test]
fn remembering_changes_no_block() {
    let mut random = Random(7);
    let mut same = 0;
    for _ in 0..200 {
        let mut encoders = [Encoder::new(200), Encoder::new(200)];
        let mut decoder = Decoder::new(200, classify_none);
        let stock: Vec<FieldSection> = (0..6)
            .map(|_| {
                let mut section = FieldSection::new();
                for _ in 0..random.below(4) {
                    let name = [&b":status"[..], b"x", b"y", b"te"][random.below(4)];
                    let value = [&b"200"[..], b"trailers", b"1", b""][random.below(4)];
                    let class = [0, VOLATILE][random.below(8) / 7];
                    let sensitive = random.below(8) == 0;
                    section.push_field(Field { name, value, class, flags: 0, sensitive });
                }
                section
            })
            .collect();
        for _ in 0..60 {
            let section = &stock[random.below(stock.len())];
            if random.below(40) == 0 {
                let size = [0, 100, 200][random.below(3)];
                encoders.iter_mut().for_each(|encoder| encoder.set_peer_table_size(size));
            }
            let [one, other] = &mut encoders;
            let (mut block, mut expected) = (Vec::new(), Vec::new());
            // The decoder knows each pair and its hash, as those of a relay do.
            let wire = encoded_once(section, &mut decoder);
            one.encode(&wire, &mut block);
            other.encode_as_new(&wire, &mut expected);
            assert_eq!(block, expected);
            assert_eq!(one.table_pairs(), other.table_pairs());
            same += usize::from(!section.is_empty() && block.iter().all(|octet| *octet >= 0x80));
        }
    }
    assert!(same > 2000, "{same} were indexes alone");
}
