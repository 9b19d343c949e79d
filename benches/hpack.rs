//! What HPACK costs one proxied gRPC call: three blocks (request, response head, trailers), each
//! decoded on one connection and encoded on another.
//!
//! `cargo bench --bench hpack` prints the best and the median of some rounds. For instruction
//! counts (`scripts/instructions`): the binary with `--one ROW [ROUNDS]`, which runs one row only.

#![allow(clippy::disallowed_methods)] // A benchmark may ask for the time.

mod greeting;

use greeting::{REQUEST, section};
use ringside::http2::field::{FieldSection, VOLATILE};
use ringside::http2::hpack::{BlockLimits, Decoder, Encoder};
use std::hint::black_box;
use std::time::Instant;

const CALLS: usize = 20_000;
const ROUNDS: usize = 15;
/// Blocks of so many calls are made, then given again and again: they fit a cache, as what has
/// just been received does.
const DISTINCT: usize = 256;
const LIMITS: BlockLimits = BlockLimits { list_size: 64 << 10, fields_max: 128 };

const RESPONSE: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/grpc")];
const TRAILERS: &[(&str, &str)] = &[("grpc-status", "0"), ("grpc-message", "")];

/// How the peer sends the field that differs from call to call.
#[derive(Clone, Copy, PartialEq)]
enum Unique {
    None,
    NotIndexed,
    Indexed,
}

fn traceparent(call: usize) -> String {
    let scattered = (call as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("00-{scattered:016x}{scattered:016x}-{scattered:016x}-01")
}

/// A literal in Huffman code, as most peers write it. Our encoder does so for what it sees twice.
fn literal(name: &str, value: &str, pattern: u8) -> Vec<u8> {
    let (mut encoder, fields) = (Encoder::new(4096), section(&[(name, value)]));
    encoder.encode(&fields, &mut Vec::new());
    let mut block = Vec::new();
    encoder.encode(&fields, &mut block);
    assert_eq!(block[0], 0x40, "a literal with a literal name, for the table");
    block[0] = pattern;
    block
}

/// Blocks of some calls in order, after two calls that warm the peer's encoder.
fn blocks(fields: &[(&str, &str)], unique: Unique) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(4096);
    let mut made = Vec::with_capacity(DISTINCT + 2);
    for call in 0..DISTINCT + 2 {
        let mut block = Vec::new();
        encoder.encode(&section(fields), &mut block);
        match unique {
            Unique::None => {}
            Unique::NotIndexed => block.extend(literal("traceparent", &traceparent(call), 0x00)),
            Unique::Indexed => block.extend(literal("traceparent", &traceparent(call), 0x40)),
        }
        made.push(block);
    }
    made
}

/// One direction of one connection pair.
struct Leg {
    blocks: Vec<Vec<u8>>,
    decoder: Decoder,
    encoder: Encoder,
}

impl Leg {
    fn new(fields: &[(&str, &str)], unique: Unique) -> Self {
        let classify = |name: &[u8]| if name == b"traceparent" { VOLATILE } else { 0 };
        Self {
            blocks: blocks(fields, unique),
            decoder: Decoder::new(4096, classify),
            encoder: Encoder::new(4096),
        }
    }

    #[inline(never)] // A name for callgrind to begin and end at.
    fn relay(&mut self, call: usize, section: &mut FieldSection, out: &mut Vec<u8>) {
        let block = black_box(&self.blocks[call]);
        self.decoder.decode(block, LIMITS, section).expect("a good block");
        self.encoder.encode(section, out);
        black_box(&*out);
        out.clear();
    }
}

fn round(unique: Unique, decode_only: bool) -> f64 {
    let mut legs = [
        Leg::new(REQUEST, unique),
        Leg::new(RESPONSE, Unique::None),
        Leg::new(TRAILERS, Unique::None),
    ];
    if unique == Unique::Indexed {
        // Indexed unique values move the table under the other fields, so that the peer's blocks
        // hold nothing but them here.
        legs[0].blocks = blocks(&[(":method", "POST")], unique);
    }
    let (mut section, mut out) = (FieldSection::new(), Vec::new());
    for call in 0..2 {
        legs.iter_mut().for_each(|leg| leg.relay(call, &mut section, &mut out));
    }
    let start = Instant::now();
    for call in (2..DISTINCT + 2).cycle().take(CALLS) {
        for leg in &mut legs {
            if decode_only {
                let block = black_box(&leg.blocks[call]);
                leg.decoder.decode(block, LIMITS, &mut section).expect("a good block");
                black_box(&section);
            } else {
                leg.relay(call, &mut section, &mut out);
            }
        }
    }
    start.elapsed().as_nanos() as f64 / CALLS as f64
}

fn main() {
    let rows = [
        ("repeated fields", Unique::None, false),
        ("repeated fields, decoding alone", Unique::None, true),
        ("one unique literal not indexed", Unique::NotIndexed, false),
        ("one unique literal not indexed, decoding alone", Unique::NotIndexed, true),
        ("one unique literal indexed by the peer, no repeated ones", Unique::Indexed, false),
    ];
    let arguments: Vec<String> = std::env::args().collect();
    let one = arguments.iter().position(|argument| argument == "--one");
    if let Some(row) = one.and_then(|at| arguments.get(at + 1)?.parse::<usize>().ok()) {
        let (_, unique, decode_only) = rows[row];
        let count = one.and_then(|at| arguments.get(at + 2)?.parse().ok()).unwrap_or(1);
        for _ in 0..count {
            black_box(round(unique, decode_only));
        }
        return;
    }
    println!("ns per call (3 blocks): best, median of {ROUNDS} rounds of {CALLS} calls");
    for (name, unique, decode_only) in rows {
        let mut times: Vec<f64> = (0..ROUNDS).map(|_| round(unique, decode_only)).collect();
        times.sort_by(f64::total_cmp);
        println!("{:8.0} {:8.0}  {name}", times[0], times[ROUNDS / 2]);
    }
}
