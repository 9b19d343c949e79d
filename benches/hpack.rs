//! What HPACK costs one proxied gRPC call: three blocks (request, response head, trailers), each
//! decoded on one connection and encoded on another.
//!
//! `cargo bench --bench hpack` prints the best and the median of some rounds. For instruction
//! counts: `valgrind --tool=callgrind` on the binary with `--one ROW`, which runs one row once.

#![allow(clippy::disallowed_methods)] // A benchmark may ask for the time.

use ringside::http2::field::{Field, FieldSection, VOLATILE};
use ringside::http2::hpack::{BlockLimits, Decoder, Encoder};
use std::hint::black_box;
use std::time::Instant;

const CALLS: usize = 20_000;
const ROUNDS: usize = 15;
const LIMITS: BlockLimits = BlockLimits { list_size: 64 << 10, fields_max: 128 };

const REQUEST: &[(&str, &str)] = &[
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/helloworld.Greeter/SayHello"),
    (":authority", "127.0.0.1:50007"),
    ("content-type", "application/grpc"),
    ("user-agent", "grpc-go/1.70.0"),
    ("te", "trailers"),
    ("dapr-app-id", "server"),
    ("grpc-accept-encoding", "identity,deflate,gzip"),
];
const RESPONSE: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/grpc")];
const TRAILERS: &[(&str, &str)] = &[("grpc-status", "0"), ("grpc-message", "")];

/// How the peer sends the field that differs from call to call.
#[derive(Clone, Copy, PartialEq)]
enum Unique {
    None,
    NotIndexed,
    Indexed,
}

fn section(fields: &[(&str, &str)]) -> FieldSection {
    let mut section = FieldSection::new();
    for (name, value) in fields {
        section.push(name.as_bytes(), value.as_bytes());
    }
    section
}

fn traceparent(call: usize) -> String {
    let scattered = (call as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("00-{scattered:016x}{scattered:016x}-{scattered:016x}-01")
}

/// Blocks of all calls in order, after two calls that warm the peer's encoder.
fn blocks(fields: &[(&str, &str)], unique: Unique) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(4096);
    let mut made = Vec::with_capacity(CALLS + 2);
    for call in 0..CALLS + 2 {
        let mut fields = section(fields);
        let value = traceparent(call);
        let mut block = Vec::new();
        if unique == Unique::NotIndexed {
            let (name, value) = (b"traceparent", value.as_bytes());
            let field = Field { name, value, class: VOLATILE, flags: 0, sensitive: false };
            fields.push_field(field);
        }
        encoder.encode(&fields, &mut block);
        if unique == Unique::Indexed && call > 1 {
            // Not by our encoder: all fields so far are in the peer's table, oldest first.
            block.extend_from_slice(&[0x40, 11]);
            block.extend_from_slice(b"traceparent");
            block.push(value.len() as u8);
            block.extend_from_slice(value.as_bytes());
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

    fn relay(&mut self, call: usize, section: &mut FieldSection, out: &mut Vec<u8>) {
        let block = black_box(&self.blocks[call]);
        self.decoder.decode(block, LIMITS, section).expect("a good block");
        self.encoder.encode(section, out);
        black_box(&*out);
        out.clear();
    }
}

fn round(unique: Unique, decode_only: bool) -> f64 {
    let repeated = unique != Unique::Indexed;
    let mut legs = [
        Leg::new(REQUEST, if repeated { unique } else { Unique::NotIndexed }),
        Leg::new(RESPONSE, Unique::None),
        Leg::new(TRAILERS, Unique::None),
    ];
    if unique == Unique::Indexed {
        // Indexed unique values move the table under the other fields, so that the peer's blocks
        // hold nothing but them here.
        legs[0].blocks = blocks(&[(":method", "POST")], Unique::Indexed);
    }
    let (mut section, mut out) = (FieldSection::new(), Vec::new());
    for call in 0..2 {
        legs.iter_mut().for_each(|leg| leg.relay(call, &mut section, &mut out));
    }
    let start = Instant::now();
    for call in 2..CALLS + 2 {
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
        black_box(round(unique, decode_only));
        return;
    }
    println!("ns per call (3 blocks): best, median of {ROUNDS} rounds of {CALLS} calls");
    for (name, unique, decode_only) in rows {
        let mut times: Vec<f64> = (0..ROUNDS).map(|_| round(unique, decode_only)).collect();
        times.sort_by(f64::total_cmp);
        println!("{:8.0} {:8.0}  {name}", times[0], times[ROUNDS / 2]);
    }
}
