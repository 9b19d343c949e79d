//! A peer that says anything and an owner that does anything, as a seed says: no panic, and the
//! invariants after each step. The fuzz target does the same, guided by coverage.

use super::*;
use std::collections::BTreeMap;

fn limits(seed: &mut Seed) -> Limits {
    Limits {
        stream_window: seed.pick(&[0, 10, 65_535, 100_000]),
        connection_window: seed.pick(&[65_535, 100_000]),
        max_concurrent_streams: seed.pick(&[None, Some(0), Some(2)]),
        header_list_size: seed.pick(&[100, 1000]),
        header_table_size: seed.pick(&[0, 4096]),
        held_bytes_max: seed.pick(&[0, 1000]),
        resets_burst: 100,
        control_burst: 300,
        control_bytes_max: 4000,
        ..Limits::default()
    }
}

/// A frame that is likely to be legal somewhere.
fn any_frame(seed: &mut Seed) -> Frame {
    let stream = seed.below(12) as u32;
    let flags = seed.pick(&[0, END_STREAM, END_HEADERS, END_HEADERS | END_STREAM, PADDED, 0xff]);
    let fields = block(seed.pick(&[
        &REQUEST[..],
        &[(":status", "200")],
        &[(":status", "100")],
        &[("x", "1")],
        &[("Bad", "1")],
    ]));
    let increment = seed.pick(&[0, 1, 100, 70_000, WINDOW_MAX]);
    match seed.below(16) {
        0..=3 => request(stream | 1, flags & END_STREAM),
        4 => frame(HEADERS, flags, stream, fields),
        5 => frame(CONTINUATION, flags, stream, fields),
        6..=8 => {
            let len = seed.pick(&[0, 1, 9, 500, 16_384]);
            data(stream | 1, flags & (END_STREAM | PADDED), vec![0; len])
        }
        9 => rst(stream, ErrorCode(seed.below(20) as u32)),
        10 => update(stream, increment),
        11 => settings(&[(seed.below(8) as u16, increment)]),
        12 => settings_ack(),
        13 => frame(PING, flags, 0, [0; 8]),
        14 => goaway(stream, ErrorCode(0), "chaos"),
        _ => {
            let len = seed.pick(&[0, 4, 5, 8]);
            frame(seed.below(12) as u8, flags, stream, vec![stream as u8; len])
        }
    }
}

fn act(bench: &mut Bench, held: &mut BTreeMap<StreamId, u32>, seed: &mut Seed) {
    let id = seed.below(12) as u32 | 1;
    let end_stream = seed.one_in(3);
    let conn = &mut bench.conn;
    match seed.below(10) {
        0 => drop(conn.open(&section(&REQUEST), end_stream, 5)),
        1 => bench.respond(id, end_stream),
        2 => {
            // DATA before the head is the owner's mistake, which the connection asserts.
            bench.respond(id, false);
            bench.send(id, vec![1; seed.below(20_000) as usize], end_stream);
        }
        3 => bench.send_trailers(id),
        4 => conn.send_reset(StreamId(id), ErrorCode::CANCEL),
        5 => {
            let owed = held.entry(StreamId(id)).or_default();
            let octets = seed.below(u64::from(*owed) + 1) as u32;
            *owed -= octets;
            conn.release(StreamId(id), octets);
        }
        6 => conn.ping([1; 8]),
        7 if seed.one_in(50) => conn.goaway(ErrorCode::NO_ERROR, "chaos"),
        7 => conn.goaway_notice(),
        8 => {
            let mut out = Transmit::new();
            conn.poll_transmit(&mut out, seed.below(30_000) as usize);
            while conn.poll_sent().is_some() {}
        }
        _ => {
            bench.now += Duration::from_millis(seed.below(50));
            let now = bench.now;
            bench.conn.handle_timeout(now);
        }
    }
}

fn run(number: u64) {
    let mut seed = Seed(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let role = seed.pick(&[Role::Client, Role::Server]);
    let limits = limits(&mut seed);
    let mut bench = Bench::fresh(role, limits);
    if role == Role::Server {
        bench.give_octets(CLIENT_PREFACE);
    }
    bench.give(&[settings(&[])]);
    let mut held = BTreeMap::new();
    for _ in 0..300 {
        if seed.one_in(2) {
            act(&mut bench, &mut held, &mut seed);
        } else {
            let octets = any_frame(&mut seed).octets();
            let cut = seed.below(octets.len() as u64 + 1) as usize;
            for part in [&octets[..cut], &octets[cut..]] {
                bench.conn.recv(Bytes::copy_from_slice(part), bench.now);
                for event in bench.events() {
                    if let Event::Data { stream, data, .. } = event {
                        *held.entry(stream).or_default() += data.len() as u32;
                    }
                }
            }
        }
        bench.conn.check_invariants();
    }
    while bench.conn.poll_sent().is_some() {}
}

fn sweep(seeds: std::ops::Range<u64>) {
    for number in seeds {
        let result = std::panic::catch_unwind(|| run(number));
        assert!(result.is_ok(), "seed {number}");
    }
}

#[test]
fn seeded_runs() {
    sweep(0..300);
}

#[test]
#[ignore = "minutes: for a nightly sweep"]
fn many_seeded_runs() {
    sweep(1000..50_000);
}
