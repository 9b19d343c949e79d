//! Limits of blocks and tables, at them and beyond; errors; memory.

use super::*;

#[test]
fn the_list_limit_is_exact_and_the_table_stays_in_step_beyond_it() {
    // ":method: GET" (42), "custom-key: custom-header" indexed (55), "x: yz" indexed (35).
    let block = [
        &octets("82 400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572"),
        &[0x40, 1, b'x', 2, b'y', b'z'][..],
    ]
    .concat();
    for (list_size, over) in [(132, None), (131, Some(Over::ListSize)), (0, Some(Over::ListSize))] {
        let mut decoder = Decoder::new(4096, classify_none);
        let (result, section) = decode_with(&mut decoder, &block, list_size, 3);
        assert_eq!(result, Ok(Decoded { over, flags: 0, repeat: None }));
        assert_eq!(section.len(), if over.is_some() { 0 } else { 3 });
        let table = owned(&[("x", "yz"), ("custom-key", "custom-header")]);
        assert_eq!(decoder.table_pairs(), table);
        assert_eq!(pairs(&decoded(&mut decoder, &[0xbe])), owned(&[("x", "yz")]));
    }
    let mut decoder = Decoder::new(4096, classify_none);
    let (result, section) = decode_with(&mut decoder, &block, 132, 2);
    assert_eq!(result, Ok(Decoded { over: Some(Over::Fields), flags: 0, repeat: None }));
    assert!(section.is_empty());
    assert_eq!(decoder.table_pairs().len(), 2);
}

#[test]
fn what_is_over_a_limit_is_still_checked() {
    let cases: [(&[u8], DecodeError); 5] = [
        // '0' with a padding of zeros, as a name and as a value.
        (&[0x40, 0x81, 0x00, 0x00], DecodeError::Huffman),
        (&[0x00, 0x00, 0x81, 0x00], DecodeError::Huffman),
        (&[0xbe], DecodeError::IndexUnknown),
        (&[0x7f, 0x00, 0x00], DecodeError::IndexUnknown),
        (&[0x80], DecodeError::IndexZero),
    ];
    for (octets, error) in cases {
        let block = [&[0x82, 0x82][..], octets].concat();
        for fields_max in [1, 10] {
            let mut decoder = Decoder::new(4096, classify_none);
            assert_eq!(decode_with(&mut decoder, &block, 1000, fields_max).0, Err(error));
        }
    }
}

#[test]
fn a_block_over_its_limit_takes_no_more_memory_than_the_limit() {
    // Half a mebibyte of 'a' in Huffman code, then the same raw, then a million fields.
    let mut block = vec![0x00, 0x01, b'n', 0xff];
    let coded = vec![0b0001_1000; 5 << 16];
    // The padding must be right: 00011 00011 ..., 8 symbols in 5 octets.
    let coded: Vec<u8> = coded.chunks(5).flat_map(|_| [0x18, 0xc6, 0x31, 0x8c, 0x63]).collect();
    let mut len = coded.len() - 127;
    while len >= 0x80 {
        block.push(len as u8 | 0x80);
        len >>= 7;
    }
    block.push(len as u8);
    block.extend_from_slice(&coded);
    block.extend_from_slice(&[0x82; 1 << 20]);
    let mut decoder = Decoder::new(4096, classify_none);
    let (result, mut section) = decode_with(&mut decoder, &block, 64 << 10, 128);
    assert_eq!(result, Ok(Decoded { over: Some(Over::ListSize), flags: 0, repeat: None }));
    assert!(section.arena_mut().capacity() <= 64 << 10);
    let (result, section) = decode_with(&mut decoder, &[0x82; 1 << 20], 64 << 20, 128);
    assert_eq!(result, Ok(Decoded { over: Some(Over::Fields), flags: 0, repeat: None }));
    assert!(section.is_empty());
}

#[test]
fn an_entry_larger_than_the_table_empties_it() {
    for list_size in [10_000, 100] {
        let mut decoder = Decoder::new(100, classify_none);
        decoded(&mut decoder, &[0x40, 1, b'a', 1, b'b']);
        assert_eq!(decoder.table_size(), 34);
        let block = [&[0x40, 1, b'n', 68][..], &[b'v'; 68]].concat();
        let (result, section) = decode_with(&mut decoder, &block, list_size, 10);
        assert_eq!(result.map(|decoded| decoded.over.is_some()), Ok(list_size == 100));
        assert_eq!(section.len(), usize::from(list_size != 100));
        assert_eq!(decoder.table_size(), 0);
    }
}

#[test]
fn a_name_may_be_that_of_the_entry_it_evicts() {
    // RFC 7541 §4.4.
    let mut decoder = Decoder::new(64, classify_none);
    decoded(&mut decoder, &[0x40, 4, b'n', b'a', b'm', b'e', 1, b'1']);
    let got = decoded(
        &mut decoder,
        &[0x7e, 20, 50, 50, 50, 50, 50, 50, 50, 50, 50, 50, 50, 50, 50, 50, 50, 50, 50, 50, 50, 50],
    );
    let expected = owned(&[("name", "22222222222222222222")]);
    assert_eq!(pairs(&got), expected);
    assert_eq!(decoder.table_pairs(), expected);
}

#[test]
fn errors_of_the_coding() {
    let cases: [(&[u8], DecodeError); 12] = [
        (&[0x80], DecodeError::IndexZero),
        (&[0xbe], DecodeError::IndexUnknown),
        (&[0xff, 0x00], DecodeError::IndexUnknown),
        (&[0xff], DecodeError::Truncated),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff], DecodeError::IntegerTooLarge),
        (&[0x41], DecodeError::Truncated),
        (&[0x41, 0x05, b'a'], DecodeError::Truncated),
        (&[0x00, 0x01], DecodeError::Truncated),
        (&[0x00, 0x01, b'a', 0x7f, 0xff, 0xff, 0xff, 0xff, 0x0f], DecodeError::IntegerTooLarge),
        (&[0x82, 0x20], DecodeError::SizeUpdateMisplaced),
        (&[0x20, 0x20, 0x20], DecodeError::SizeUpdateMisplaced),
        (&[0x3f, 0xe2, 0x1f], DecodeError::SizeUpdateTooLarge),
    ];
    for (block, error) in cases {
        let mut decoder = Decoder::new(4096, classify_none);
        assert_eq!(decode_with(&mut decoder, block, 1000, 10).0, Err(error), "{block:02x?}");
        let error = crate::http2::ConnectionError::from(error);
        assert_eq!(error.code, crate::http2::ErrorCode::COMPRESSION_ERROR);
    }
}

#[test]
fn size_updates() {
    let mut decoder = Decoder::new(4096, classify_none);
    decoded(&mut decoder, &[0x40, 1, b'a', 1, b'b']);
    // To 4096, which is what it was; the entry stays.
    decoded(&mut decoder, &[0x3f, 0xe1, 0x1f, 0xbe]);
    // To 0 and back: the entry is gone.
    decoded(&mut decoder, &[0x20, 0x3f, 0xe1, 0x1f]);
    assert_eq!(decoder.table_size(), 0);
    assert_eq!(decode_with(&mut decoder, &[0xbe], 100, 10).0, Err(DecodeError::IndexUnknown));

    // We announce less: the next block must follow, an empty one too.
    for block in [&[][..], &[0x82], &[0x3f, 0xe1, 0x1f]] {
        let mut decoder = Decoder::new(4096, classify_none);
        decoder.set_table_size_max(100);
        assert!(decode_with(&mut decoder, block, 100, 10).0.is_err());
    }
    decoder.set_table_size_max(100);
    decoded(&mut decoder, &[0x3f, 100 - 31, 0x82]);
    // More than before needs no update; what the peer uses stays until it says so.
    decoder.set_table_size_max(200);
    decoded(&mut decoder, &[0x82]);
    let block = [&[0x40, 1, b'n', 68][..], &[b'v'; 68]].concat();
    decoded(&mut decoder, &block);
    assert_eq!(decoder.table_size(), 0);
    decoded(&mut decoder, &[&[0x3f, 0xa9, 0x01][..], &block].concat());
    assert_eq!(decoder.table_size(), 101);
}

#[test]
fn the_encoder_declares_its_table() {
    let empty = FieldSection::new();
    let mut encoder = Encoder::new(4096);
    assert_eq!(encoded(&mut encoder, &empty), [0u8; 0]);
    encoder.set_peer_table_size(4096);
    assert_eq!(encoded(&mut encoder, &empty), [0u8; 0]);
    encoder.set_peer_table_size(65536);
    assert_eq!(encoded(&mut encoder, &empty), [0u8; 0], "bounded by our own");
    encoder.set_peer_table_size(30);
    assert_eq!(encoded(&mut encoder, &empty), [0x3e]);
    encoder.set_peer_table_size(0);
    encoder.set_peer_table_size(4096);
    assert_eq!(encoded(&mut encoder, &empty), [0x20, 0x3f, 0xe1, 0x1f]);
    assert_eq!(encoded(&mut encoder, &empty), [0u8; 0]);
    // There and back between two blocks: the smallest has to be said (RFC 7541 §4.2).
    encoder.set_peer_table_size(10);
    encoder.set_peer_table_size(4096);
    assert_eq!(encoded(&mut encoder, &empty), [0x2a, 0x3f, 0xe1, 0x1f]);

    assert_eq!(encoded(&mut Encoder::new(0), &empty), [0x20]);
    let mut wide = Encoder::new(8192);
    assert_eq!(encoded(&mut wide, &empty), [0u8; 0]);
    wide.set_peer_table_size(65536);
    assert_eq!(encoded(&mut wide, &empty), [0x3f, 0xe1, 0x3f]);
}

#[test]
fn a_connection_without_traffic_is_small() {
    let (encoder, decoder) = (Encoder::new(4096), Decoder::new(4096, classify_none));
    assert!(size_of_val(&encoder) + size_of_val(&decoder) <= 512);
    assert_eq!(encoder.heap_octets() + decoder.heap_octets(), 0);
}

/// A client of the usual kind: no more than it has to say is remembered.
#[test]
fn a_connection_of_few_fields_stays_small() {
    let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(4096, classify_none));
    let mut section = FieldSection::new();
    for (name, value) in [(":status", "200"), ("content-type", "application/grpc"), ("a", "b")] {
        section.push(name.as_bytes(), value.as_bytes());
    }
    for _ in 0..10 {
        let block = encoded(&mut encoder, &section);
        decoded(&mut decoder, &block);
    }
    assert_eq!(encoded(&mut encoder, &section).len(), 3, "all of it is in the table");
    let octets = (encoder.heap_octets(), decoder.heap_octets());
    assert!(octets.0 <= 1200 && octets.1 <= 3200, "{octets:?}");
}

#[test]
fn memory_stops_growing() {
    let mut random = Random(7);
    let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(4096, classify_none));
    let mut measured = [0; 2];
    for half in &mut measured {
        for _ in 0..3000 {
            let section = random_section(&mut random);
            // Twice, so that all of it enters the table.
            for _ in 0..2 {
                let block = encoded(&mut encoder, &section);
                decoded(&mut decoder, &block);
            }
        }
        *half = encoder.heap_octets() + decoder.heap_octets();
    }
    assert_eq!(measured[0], measured[1]);
    assert!(measured[1] < 32 << 10, "{measured:?}");
}
