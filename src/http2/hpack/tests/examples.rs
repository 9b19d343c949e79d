//! Blocks that others made: the examples of RFC 7541 Appendix C, a foreign encoder's.

use super::*;

/// One block of an example: what it means, and the table after it, newest first.
struct Example {
    block: &'static str,
    fields: &'static [(&'static str, &'static str)],
    table: &'static [(&'static str, &'static str)],
    table_size: usize,
}

fn check(table_size: u32, examples: &[Example]) {
    let mut decoder = Decoder::new(table_size, classify_none);
    let mut section = FieldSection::new();
    for example in examples {
        let decoded = decoder.decode(&octets(example.block), WIDE, &mut section);
        assert_eq!(decoded, Ok(Decoded { over: None, flags: 0, repeat: None }));
        assert_eq!(pairs(&section), owned(example.fields));
        assert_eq!(decoder.table_pairs(), owned(example.table));
        assert_eq!(decoder.table_size(), example.table_size);
    }
}

/// RFC 7541 C.2.
#[test]
fn single_fields() {
    let custom: &[(&str, &str)] = &[("custom-key", "custom-header")];
    check(
        4096,
        &[Example {
            block: "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            fields: custom,
            table: custom,
            table_size: 55,
        }],
    );
    check(
        4096,
        &[Example {
            block: "040c 2f73 616d 706c 652f 7061 7468",
            fields: &[(":path", "/sample/path")],
            table: &[],
            table_size: 0,
        }],
    );
    check(
        4096,
        &[Example {
            block: "1008 7061 7373 776f 7264 0673 6563 7265 74",
            fields: &[("password", "secret")],
            table: &[],
            table_size: 0,
        }],
    );
    check(
        4096,
        &[Example { block: "82", fields: &[(":method", "GET")], table: &[], table_size: 0 }],
    );
}

const REQUEST_FIELDS: [&[(&str, &str)]; 3] = [
    &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")],
    &[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
        ("cache-control", "no-cache"),
    ],
    &[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ],
];

const REQUEST_TABLE: &[(&str, &str)] = &[
    ("custom-key", "custom-value"),
    ("cache-control", "no-cache"),
    (":authority", "www.example.com"),
];

fn requests(blocks: [&'static str; 3]) -> Vec<Example> {
    let sizes = [57, 110, 164];
    (0..3)
        .map(|at| Example {
            block: blocks[at],
            fields: REQUEST_FIELDS[at],
            table: &REQUEST_TABLE[2 - at..],
            table_size: sizes[at],
        })
        .collect()
}

/// RFC 7541 C.3.
#[test]
fn requests_without_huffman() {
    let blocks = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    check(4096, &requests(blocks));
}

/// RFC 7541 C.4.
#[test]
fn requests_with_huffman() {
    let blocks = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    check(4096, &requests(blocks));
}

const DATE_1: (&str, &str) = ("date", "Mon, 21 Oct 2013 20:13:21 GMT");
const DATE_2: (&str, &str) = ("date", "Mon, 21 Oct 2013 20:13:22 GMT");
const LOCATION: (&str, &str) = ("location", "https://www.example.com");
const PRIVATE: (&str, &str) = ("cache-control", "private");
const GZIP: (&str, &str) = ("content-encoding", "gzip");
const COOKIE: (&str, &str) =
    ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");

fn responses(blocks: [&'static str; 3]) -> Vec<Example> {
    let [first, second, third] = blocks;
    vec![
        Example {
            block: first,
            fields: &[(":status", "302"), PRIVATE, DATE_1, LOCATION],
            table: &[LOCATION, DATE_1, PRIVATE, (":status", "302")],
            table_size: 222,
        },
        Example {
            block: second,
            fields: &[(":status", "307"), PRIVATE, DATE_1, LOCATION],
            table: &[(":status", "307"), LOCATION, DATE_1, PRIVATE],
            table_size: 222,
        },
        Example {
            block: third,
            fields: &[(":status", "200"), PRIVATE, DATE_2, LOCATION, GZIP, COOKIE],
            table: &[COOKIE, GZIP, DATE_2],
            table_size: 215,
        },
    ]
}

/// RFC 7541 C.5: a table of 256 octets, so that entries are evicted.
#[test]
fn responses_without_huffman() {
    let blocks = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
         2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70
         6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d
         54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049
         5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e
         3d31",
    ];
    check(256, &responses(blocks));
}

/// RFC 7541 C.6.
#[test]
fn responses_with_huffman() {
    let blocks = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
         2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
         77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
         9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ];
    check(256, &responses(blocks));
}

/// Blocks of a foreign encoder; `tests/vectors/hpack_vectors.py` says how they are made.
#[test]
fn blocks_of_a_foreign_encoder() {
    let argument = |text: &str| if text == "-" { Vec::new() } else { octets(text) };
    let mut decoder = Decoder::new(4096, classify_none);
    let (mut expected, mut got) = (FieldSection::new(), FieldSection::new());
    let mut blocks = 0;
    for line in include_str!("../../../../tests/vectors/hpack.txt").lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["connection", size] => {
                decoder = Decoder::new(4096, classify_none);
                decoder.set_table_size_max(size.parse().expect("a number"));
            }
            ["size", size] => decoder.set_table_size_max(size.parse().expect("a number")),
            ["block", block] => {
                assert_eq!(got, expected);
                expected.clear();
                got = decoded(&mut decoder, &argument(block));
                blocks += 1;
            }
            ["field", name, value, kind] => expected.push_field(Field {
                name: &argument(name),
                value: &argument(value),
                class: 0,
                flags: 0,
                sensitive: kind == "never",
            }),
            _ => assert!(line.starts_with('#'), "{line}"),
        }
    }
    assert_eq!(got, expected);
    assert_eq!(blocks, 300);
}
