//! Peers that cost more than they bring (RFC 9113 §10.5), and those that only seem to.

use super::*;

const CALM: ErrorCode = ErrorCode::ENHANCE_YOUR_CALM;

fn strict() -> Limits {
    Limits {
        resets_burst: 20,
        resets_per_second: 1,
        control_burst: 50,
        control_per_second: 1,
        ..Limits::default()
    }
}

/// How many of `frames` it takes until the connection fails.
fn endured(bench: &mut Bench, mut frames: impl FnMut(u32) -> Vec<Frame>) -> Option<u32> {
    for n in 0..20_000 {
        let events = bench.give(&frames(n));
        if let Some(Seen::Failed(code)) = events.last() {
            assert_eq!(*code, CALM);
            return Some(n);
        }
        if n % 16 == 0 {
            bench.take();
        }
    }
    None
}

#[test]
fn rapid_reset() {
    let mut bench = Bench::settled(Role::Server, strict());
    let storm =
        endured(&mut bench, |n| vec![request(2 * n + 1, 0), rst(2 * n + 1, ErrorCode::CANCEL)]);
    assert_eq!(storm, Some(20));
}

#[test]
fn cancels_among_completed_calls_are_no_storm() {
    let mut bench = Bench::settled(Role::Server, strict());
    for n in 0..1000 {
        let id = 4 * n + 1;
        let events = bench.give(&[request(id, END_STREAM), request(id + 2, 0), rst(id + 2, CALM)]);
        assert_eq!(events.len(), 3);
        bench.respond(id, true);
        bench.take();
    }
}

#[test]
fn a_client_does_not_count_the_servers_resets() {
    let mut bench = Bench::settled(Role::Client, strict());
    for _ in 0..500 {
        let id = bench.open(true);
        assert_eq!(bench.give(&[rst(id, CALM)]), [Seen::Reset(id, CALM)]);
        bench.take();
    }
}

#[test]
fn made_you_reset() {
    let mut bench = Bench::server();
    let storm = endured(&mut bench, |n| vec![request(2 * n + 1, 0), update(2 * n + 1, 0)]);
    assert_eq!(storm, Some(1024));
    let mut bench = Bench::server();
    let storm = endured(&mut bench, |n| vec![request_and(2 * n + 1, 0, &[("Bad", "1")])]);
    assert_eq!(storm, Some(1024));
}

#[test]
fn floods_of_control_frames() {
    let floods: [fn(u32) -> Frame; 6] = [
        |_| frame(PING, 0, 0, [0; 8]),
        |_| settings(&[]),
        |_| frame(PRIORITY, 0, 1, [0, 0, 0, 3, 1]),
        |_| update(0, 1),
        |_| frame(0x55, 0, 0, "grease"),
        |_| settings_ack(),
    ];
    for flood in floods {
        let mut bench = Bench::settled(Role::Server, strict());
        let endured = endured(&mut bench, |n| vec![flood(n)]).unwrap();
        assert!((40..=60).contains(&endured), "{endured}: {:?}", flood(0));
    }
}

#[test]
fn flood_of_empty_data() {
    let mut bench = Bench::settled(Role::Server, strict());
    bench.give(&[request(1, 0)]);
    assert!(endured(&mut bench, |_| vec![data(1, 0, "")]).unwrap() < 80);
}

#[test]
fn updates_and_pings_in_step_with_data_are_free() {
    let mut bench = Bench::settled(Role::Server, strict());
    bench.give(&[request(1, 0)]);
    for _ in 0..5000 {
        let events =
            bench.give(&[data(1, 0, "x"), update(0, 1), update(1, 1), frame(PING, 0, 0, [0; 8])]);
        assert_eq!(events.len(), 1);
        bench.conn.release(StreamId(1), 1);
        bench.take();
    }
}

#[test]
fn continuation_flood() {
    let limits = Limits { continuations_max: 3, ..Limits::default() };
    let open = frame(HEADERS, 0, 1, []);
    let more = frame(CONTINUATION, 0, 1, []);
    let last = frame(CONTINUATION, END_HEADERS, 1, block(&REQUEST));
    let mut bench = Bench::settled(Role::Server, limits.clone());
    let events = bench.give(&[open.clone(), more.clone(), more.clone(), last.clone()]);
    assert_eq!(events.len(), 1);
    let mut bench = Bench::settled(Role::Server, limits);
    bench.expect_failure(&[open, more.clone(), more.clone(), more, last], CALM);
}

#[test]
fn a_peer_that_does_not_read() {
    let limits = Limits { control_bytes_max: 4000, ..Limits::default() };
    let mut bench = Bench::settled(Role::Server, limits);
    let mut pings = 0;
    while bench.give(&[frame(PING, 0, 0, [0; 8])]) != [Seen::Failed(CALM)] {
        pings += 1;
        assert!(pings < 300, "17 octets of answer each");
    }
}

/// HTTP/2 Bomb: references to the table that expand beyond the limit.
#[test]
fn expansion_is_bounded() {
    let mut bench = Bench::server();
    let value = "v".repeat(100);
    let mut fields = block(&REQUEST);
    fields.extend_from_slice(b"\x40\x01x\x64");
    fields.extend_from_slice(value.as_bytes());
    fields.extend(std::iter::repeat_n(0x80 | 62, 10_000));
    let bomb = frame(HEADERS, END_HEADERS, 1, fields);
    bench.expect_reset(&[bomb], 1, ErrorCode::FRAME_SIZE_ERROR);
}
