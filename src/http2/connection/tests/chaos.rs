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

/// Mostly a live stream, sometimes one that is gone, rarely one that never was.
fn some_stream(seed: &mut Seed, conn: &Connection) -> u32 {
    let live: Vec<u32> = conn.table.slots().map(|slot| conn.table.stream(slot).id.0).collect();
    match (live.is_empty(), seed.below(60)) {
        (false, 2..) => seed.pick(&live),
        (_, 0) => conn.next_id,
        _ => conn.next_id.saturating_sub(2 * (1 + seed.below(6) as u32)) | 1,
    }
}

/// A frame that is mostly legal somewhere.
fn any_frame(seed: &mut Seed, conn: &Connection) -> Frame {
    let stream = some_stream(seed, conn);
    let end = if seed.one_in(3) { END_STREAM } else { 0 };
    match seed.below(40) {
        0..=9 if conn.role == Role::Server => {
            let id = conn.next_id + seed.pick(&[0, 0, 0, 2]);
            request_and(id, end, seed.pick(&[&[][..], &[("content-length", "9")], &[("B", "1")]]))
        }
        _ if conn.table.is_empty() => frame(PING, 0, 0, [0; 8]),
        0..=4 => response(stream, end),
        5 => frame(HEADERS, END_HEADERS, stream, block(&[(":status", "100")])),
        6..=12 => trailers(stream),
        13..=22 => {
            let len = seed.pick(&[0, 1, 9, 500, 16_384]);
            data(stream, end, vec![0; len])
        }
        23 => data(stream, end | PADDED, [3, 1, 0, 0, 0]),
        24..=26 => rst(stream, ErrorCode(seed.below(20) as u32)),
        27..=31 => update(stream * (seed.below(4).min(1) as u32), 1 + seed.below(9000) as u32),
        32 => update(stream, seed.pick(&[0, WINDOW_MAX])),
        33 => settings(&[(4, seed.pick(&[0, 1, 100, 70_000]))]),
        34 => settings(&[(1, seed.pick(&[0, 100, 4096])), (3, seed.below(9) as u32)]),
        35 => settings_ack(),
        36 => frame(PING, seed.below(2) as u8, 0, [0; 8]),
        37 => frame(PRIORITY, 0, stream, [0, 0, 0, 0, 1]),
        38 if seed.one_in(9) => goaway(stream, ErrorCode(0), "chaos"),
        39 if seed.one_in(9) => {
            let len = seed.pick(&[0, 4, 5, 8]);
            frame(seed.below(12) as u8, seed.next() as u8, stream, vec![stream as u8; len])
        }
        _ => frame(0x77, 0, 0, []),
    }
}

fn act(bench: &mut Bench, held: &mut BTreeMap<StreamId, u32>, seed: &mut Seed) {
    let id = some_stream(seed, &bench.conn);
    let end_stream = seed.one_in(3);
    let conn = &mut bench.conn;
    match seed.below(10) {
        0 => drop(conn.open(section(&REQUEST), end_stream, 5)),
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

fn run(number: u64) -> u32 {
    let mut seed = Seed(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let role = seed.pick(&[Role::Client, Role::Server]);
    let limits = limits(&mut seed);
    let mut bench = Bench::fresh(role, limits);
    if role == Role::Server {
        bench.give_octets(CLIENT_PREFACE);
    }
    bench.give(&[settings(&[])]);
    let mut held = BTreeMap::new();
    let mut steps = 0;
    for _ in 0..300 {
        steps += u32::from(!bench.conn.has_failed());
        if seed.one_in(2) {
            act(&mut bench, &mut held, &mut seed);
        } else {
            let octets = any_frame(&mut seed, &bench.conn).octets();
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
    steps
}

/// How many steps a connection lives on average.
fn sweep(seeds: std::ops::Range<u64>) -> u64 {
    let runs = seeds.end - seeds.start;
    let mut steps = 0;
    for number in seeds {
        let result = std::panic::catch_unwind(|| run(number));
        let Ok(lived) = result else { panic!("seed {number}") };
        steps += u64::from(lived);
    }
    steps / runs
}

#[test]
fn seeded_runs() {
    let lived = sweep(0..sweep_seeds(300));
    assert!(lived > 60, "{lived} of 300 steps: too rude to get anywhere");
}
