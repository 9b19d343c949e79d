//! What fields become, over and over: indices, literals, classes and flags.

use super::*;

#[test]
fn what_is_seen_twice_becomes_an_index() {
    let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(4096, classify_none));
    let call = section(CALL);
    let blocks: Vec<Vec<u8>> = (0..4).map(|_| encoded(&mut encoder, &call)).collect();
    for block in &blocks {
        assert_eq!(decoded(&mut decoder, block), call);
    }
    assert!(blocks[1].len() > 60);
    assert_eq!(blocks[2].len(), CALL.len(), "one octet each");
    assert_eq!(blocks[3], blocks[2]);
}

#[test]
fn volatile_and_sensitive_fields_stay_out_of_the_table() {
    let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(4096, classify_none));
    let mut call = FieldSection::new();
    let field = Field { name: b"t", value: b"1", class: 0, flags: 0, sensitive: false };
    call.push_field(Field { class: VOLATILE, ..field });
    call.push_field(Field { name: b"secret", sensitive: true, ..field });
    for _ in 0..4 {
        let block = encoded(&mut encoder, &call);
        let got = decoded(&mut decoder, &block);
        assert_eq!(decoder.table_size(), 0);
        let sensitive: Vec<bool> = got.iter().map(|field| field.sensitive).collect();
        assert_eq!(sensitive, [false, true]);
        assert_eq!(pairs(&got), owned(&[("t", "1"), ("secret", "1")]));
    }
}

#[test]
fn an_empty_volatile_field_is_indexed_like_others() {
    let mut encoder = Encoder::new(4096);
    let mut trailers = FieldSection::new();
    let field = Field { name: b"m", value: b"", class: VOLATILE, flags: 0, sensitive: false };
    trailers.push_field(field);
    let mut blocks = (0..3).map(|_| encoded(&mut encoder, &trailers));
    // RFC 7541 §6.2.2, §6.2.1, §6.1: seen first, put into the table, taken from it.
    assert_eq!(blocks.next(), Some(b"\x00\x01m\x00".to_vec()));
    assert_eq!(blocks.next().map(|block| block[0]), Some(0x40));
    assert_eq!(blocks.next(), Some(vec![0x80 | 62]));
}

#[test]
fn classes_and_flags_come_with_every_form() {
    fn classify(name: &[u8]) -> u8 {
        if name == b"content-type" || name == b"te" { 7 } else { 0 }
    }
    let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(4096, classify));
    let call = section(&[("content-type", "a"), ("te", "gzip"), ("Upper", " v")]);
    for _ in 0..3 {
        let mut got = FieldSection::new();
        let block = encoded(&mut encoder, &call);
        let result = decoder.decode(&block, WIDE, &mut got).expect("a block of ours");
        assert_eq!(result.flags, flag::CONNECTION | flag::BAD_NAME | flag::PADDED_VALUE);
        assert!(result.malformed());
        let seen: Vec<(u8, u8)> =
            got.iter().map(|field| (field.class, field.flags & flag::FAULTS)).collect();
        assert_eq!(seen, [(7, 0), (7, flag::CONNECTION), (0, flag::BAD_NAME | flag::PADDED_VALUE)]);
    }
}

#[test]
fn what_the_owner_changes_is_encoded_as_changed() {
    let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(4096, classify_none));
    let (mut relayed, mut last) = (Encoder::new(4096), Decoder::new(4096, classify_none));
    let call = section(&[(":path", "/"), ("a", "old"), ("b", "gone"), ("c", "kept")]);
    for round in 0..4 {
        let block = encoded(&mut encoder, &call);
        let mut got = decoded(&mut decoder, &block);
        let path = ["/index.html", "/", "/x"][round % 3];
        assert!(got.replace(b":path", path.as_bytes()));
        assert!(got.replace(b"a", b"new"));
        got.retain(|field| field.name != b"b");
        got.push(b"d", b"added");
        let block = encoded(&mut relayed, &got);
        let expected = [(":path", path), ("a", "new"), ("c", "kept"), ("d", "added")];
        assert_eq!(pairs(&decoded(&mut last, &block)), owned(&expected));
        assert_eq!(block.first(), Some(&[0x85, 0x84, 0x04][round % 3]));
    }
}

/// A literal that comes again is not decoded again, and is the same field under the same limits.
#[test]
fn literals_that_come_again_are_the_same_fields() {
    let mut decoder = Decoder::new(4096, |name| if name == b"volatile" { VOLATILE } else { 9 });
    // RFC 7541 C.2.2, then a name of two octets, then one whose values differ, then C.2.3.
    let sample = "040c 2f73 616d 706c 652f 7061 7468";
    let other = "0002 6162 0163";
    let volatile = "0008 766f 6c61 7469 6c65 0131";
    let never = "1008 7061 7373 776f 7264 0673 6563 7265 74";
    let block = [octets(sample), octets(other), octets(volatile), octets(never)].concat();
    let expected =
        [(":path", "/sample/path"), ("ab", "c"), ("volatile", "1"), ("password", "secret")];
    let size: u32 =
        expected.iter().map(|(name, value)| (name.len() + value.len()) as u32 + 32).sum();
    for round in 0..3 {
        let (result, got) = decode_with(&mut decoder, &block, size, 4);
        let Ok(Decoded { over: None, flags: 0, .. }) = result else {
            panic!("round {round}: {result:?}");
        };
        assert_eq!(pairs(&got), owned(&expected));
        for field in got.iter() {
            assert_eq!(field.flags, judge(field.name, field.value));
            assert_eq!(field.class, if field.name == b"volatile" { VOLATILE } else { 9 });
            assert_eq!(field.sensitive, field.name == b"password");
        }
        for (size, fields, over) in [(size - 1, 4, Over::ListSize), (size, 3, Over::Fields)] {
            let (result, got) = decode_with(&mut decoder, &block, size, fields);
            assert_eq!(result, Ok(Decoded { over: Some(over), flags: 0, repeat: None }));
            assert!(got.is_empty());
        }
        assert_eq!(decoder.table_size(), 0);
        // The next hop takes it for what it is.
        let (mut encoder, mut last) = (Encoder::new(4096), Decoder::new(4096, classify_none));
        for _ in 0..3 {
            let block = encoded(&mut encoder, &got);
            assert_eq!(decoded(&mut last, &block), got);
        }
    }
}

/// An index of the dynamic table means another name after the next insertion.
#[test]
fn literals_with_a_dynamic_name_follow_the_table() {
    let mut decoder = Decoder::new(4096, classify_none);
    decoded(&mut decoder, &octets("4001 6101 31"));
    let block = octets("0f2f 0132");
    assert_eq!(pairs(&decoded(&mut decoder, &block)), owned(&[("a", "2")]));
    decoded(&mut decoder, &octets("4001 6201 31"));
    assert_eq!(pairs(&decoded(&mut decoder, &block)), owned(&[("b", "2")]));
}

/// Fields that come with every message end up as one octet each, whatever their hashes are: in
/// pairs and in larger crowds.
#[test]
fn what_comes_always_is_always_indexed() {
    for crowd in 0..400 {
        let mut encoder = Encoder::new(4096);
        let mut section = FieldSection::new();
        for field in 0..12 {
            section.push(format!("name-{crowd}-{field}").as_bytes(), b"value");
        }
        let last = (0..8).map(|_| encoded(&mut encoder, &section).len()).last();
        assert_eq!(last, Some(12), "crowd {crowd}");
    }
}
