//! Windows (RFC 9113 §5.2, §6.9), turns, and what stays in memory meanwhile.

use super::*;

/// A server that has got `streams` requests and answered their heads.
fn answering(streams: u32, initial_window: u32) -> Bench {
    let mut bench = Bench::server();
    bench.give(&[settings(&[(4, initial_window)])]);
    for n in 0..streams {
        bench.give(&[request(2 * n + 1, END_STREAM)]);
        bench.respond(2 * n + 1, false);
    }
    bench.take();
    bench
}

/// Stream and length of the DATA frames that come out.
fn data_of(bench: &mut Bench) -> Vec<(u32, usize)> {
    let frames = bench.take();
    frames.iter().filter(|f| f.kind == DATA).map(|f| (f.stream, f.payload.len())).collect()
}

#[test]
fn streams_take_turns() {
    let mut bench = answering(3, 1 << 20);
    bench.send(1, vec![0; 40_000], false);
    bench.send(3, vec![0; 20_000], true);
    bench.send(5, vec![0; 10], false);
    let turns = data_of(&mut bench);
    let third = 40_000 - 2 * 16_384;
    let left = 65_535 - 40_000 - 10 - 16_384;
    assert_eq!(third, 7232);
    assert_eq!(left, 9141);
    let expected = [(1, 16_384), (3, 16_384), (5, 10), (1, 16_384), (3, 3616), (1, 7232)];
    assert_eq!(turns, expected);
}

#[test]
fn a_window_of_one() {
    let mut bench = answering(1, 1);
    bench.send(1, "ab", true);
    assert_eq!(bench.take(), [data(1, 0, "a")]);
    bench.give(&[update(1, 1)]);
    assert_eq!(bench.take(), [data(1, END_STREAM, "b")]);
}

#[test]
fn windows_go_negative() {
    // RFC 9113 §6.9.2.
    let mut bench = answering(1, 10);
    bench.send(1, "0123456789ab", false);
    assert_eq!(data_of(&mut bench), [(1, 10)]);
    bench.give(&[settings(&[(4, 4)])]);
    bench.give(&[update(1, 6)]);
    assert_eq!(data_of(&mut bench), []);
    bench.give(&[update(1, 1)]);
    assert_eq!(data_of(&mut bench), [(1, 1)]);
    bench.give(&[settings(&[(4, 5)])]);
    assert_eq!(data_of(&mut bench), [(1, 1)]);
}

#[test]
fn ends_and_trailers_need_no_window() {
    let mut bench = answering(3, 0);
    bench.send(1, "", true);
    bench.send_trailers(3);
    bench.send(5, "x", false);
    bench.send_trailers(5);
    assert_eq!(bench.take_shapes(), [(DATA, END_STREAM, 1), (HEADERS, 5, 3)]);
    bench.give(&[update(5, 1)]);
    assert_eq!(bench.take_shapes(), [(DATA, 0, 5), (HEADERS, 5, 5)]);
    assert_eq!(bench.conn.streams(), 0);
}

#[test]
fn the_connections_window_stops_all_and_no_heads() {
    let mut bench = answering(2, 1 << 20);
    bench.send(1, vec![0; 70_000], false);
    bench.send(3, vec![0; 70_000], false);
    let octets: usize = data_of(&mut bench).iter().map(|(_, len)| len).sum();
    assert_eq!(octets, 65_535);
    assert!(!bench.conn.wants_transmit());
    bench.give(&[request(9, END_STREAM)]);
    bench.respond(9, true);
    assert_eq!(bench.take_shapes(), [(HEADERS, 5, 9)]);
    bench.give(&[update(0, 5)]);
    let octets: usize = data_of(&mut bench).iter().map(|(_, len)| len).sum();
    assert_eq!(octets, 5);
}

#[test]
fn long_frames_if_the_peer_takes_them() {
    let mut bench = answering(1, 1 << 20);
    bench.give(&[settings(&[(5, 1 << 20)])]);
    bench.send(1, vec![0; 60_000], false);
    assert_eq!(data_of(&mut bench), [(1, 60_000)]);
}

#[test]
fn pieces_share_a_frame_and_sent_adds_up() {
    let mut bench = answering(1, 1 << 20);
    for _ in 0..10 {
        bench.send(1, vec![1; 500], false);
    }
    assert_eq!(data_of(&mut bench), [(1, 5000)]);
    let sent = bench.conn.poll_sent().unwrap();
    assert_eq!((sent.stream, sent.octets), (StreamId(1), 5000));
    assert_eq!(bench.conn.poll_sent(), None);
}

fn receiving(limits: Limits) -> Bench {
    let mut bench = Bench::settled(Role::Server, limits);
    bench.give(&[request(1, 0)]);
    bench
}

fn small_windows() -> Limits {
    Limits {
        stream_window: 80_000,
        connection_window: 200_000,
        held_bytes_max: 100_000,
        ..Limits::default()
    }
}

fn fill(bench: &mut Bench, stream: u32, octets: usize) {
    for part in vec![0u8; octets].chunks(16_384) {
        let events = bench.give(&[data(stream, 0, part)]);
        assert_eq!(events.len(), 1);
    }
}

#[test]
fn stream_windows_come_back_by_release() {
    let mut bench = receiving(small_windows());
    fill(&mut bench, 1, 80_000);
    assert_eq!(bench.take(), [], "nothing released, and less than half of the connection");
    bench.conn.release(StreamId(1), 9_999);
    assert_eq!(bench.take(), []);
    bench.conn.release(StreamId(1), 1);
    assert_eq!(bench.take(), [update(1, 10_000)], "an eighth, since little is open");
    bench.conn.release(StreamId(1), 70_000);
    assert_eq!(bench.take(), [update(1, 70_000)]);
}

#[test]
fn a_sender_beyond_its_window_is_reset() {
    let mut bench = receiving(small_windows());
    fill(&mut bench, 1, 80_000);
    bench.expect_reset(&[data(1, 0, "x")], 1, ErrorCode::FLOW_CONTROL_ERROR);
    let limits = Limits { stream_window: 1 << 20, connection_window: 65_535, ..Limits::default() };
    let mut bench = receiving(Limits { held_bytes_max: 0, ..limits });
    fill(&mut bench, 1, 65_535);
    bench.expect_failure(&[data(1, 0, "x")], ErrorCode::FLOW_CONTROL_ERROR);
}

#[test]
fn the_connections_window_waits_beyond_what_may_be_held() {
    let mut bench = receiving(small_windows());
    bench.give(&[request(3, 0), request(5, 0)]);
    fill(&mut bench, 1, 80_000);
    fill(&mut bench, 3, 20_000);
    assert_eq!(bench.take(), [update(0, 100_000)]);
    fill(&mut bench, 3, 60_000);
    fill(&mut bench, 5, 80_000);
    assert_eq!(bench.take(), [], "all that is held beyond 100 000 is withheld");
    bench.conn.release(StreamId(3), 80_000);
    assert_eq!(bench.take(), [update(3, 80_000)]);
    bench.conn.release(StreamId(5), 20_000);
    let said = bench.take();
    assert!(said.contains(&update(0, 100_000)), "{said:?}");
}

#[test]
fn a_stream_that_goes_gives_back_what_it_held() {
    for reset_by_us in [true, false] {
        let mut bench = receiving(Limits { held_bytes_max: 0, ..small_windows() });
        bench.give(&[request(3, 0)]);
        fill(&mut bench, 1, 80_000);
        fill(&mut bench, 3, 60_000);
        assert_eq!(bench.take(), []);
        if reset_by_us {
            bench.conn.send_reset(StreamId(1), ErrorCode::CANCEL);
            bench.conn.send_reset(StreamId(3), ErrorCode::CANCEL);
        } else {
            bench.give(&[rst(1, ErrorCode::CANCEL), rst(3, ErrorCode::CANCEL)]);
        }
        assert!(bench.take().contains(&update(0, 140_000)));
    }
}

#[test]
fn padding_and_unwanted_data_come_back_at_once() {
    let mut bench = receiving(Limits { held_bytes_max: 0, ..small_windows() });
    let padded = [&[255][..], &[0; 255]].concat();
    for _ in 0..400 {
        bench.give(&[data(1, PADDED, &padded)]);
    }
    let said = bench.take();
    let returned = |stream| -> u32 {
        let updates = said.iter().filter(|f| f.kind == WINDOW_UPDATE && f.stream == stream);
        updates.map(|f| u32::from_be_bytes(f.payload[..].try_into().unwrap())).sum()
    };
    assert!(returned(0) >= 100_000);
    assert!(returned(1) >= 80_000);
    bench.conn.send_reset(StreamId(1), ErrorCode::CANCEL);
    bench.take();
    for _ in 0..30 {
        assert_eq!(bench.give(&[data(1, 0, vec![0; 10_000])]), []);
    }
    assert!(bench.take().iter().any(|f| f.kind == WINDOW_UPDATE && f.stream == 0));
}

#[test]
fn no_update_for_a_stream_that_has_ended() {
    let mut bench = receiving(small_windows());
    fill(&mut bench, 1, 70_000);
    bench.give(&[data(1, END_STREAM, "x")]);
    bench.take();
    bench.conn.release(StreamId(1), 70_001);
    assert_eq!(bench.take(), []);
}

#[test]
fn a_frame_comes_out_piece_by_piece_and_may_be_reset_in_between() {
    let mut bench = receiving(Limits { held_bytes_max: 0, ..small_windows() });
    let octets = data(1, END_STREAM, "abcdef").octets();
    assert_eq!(bench.give_octets(&octets[..11]), [Seen::Data(1, b"ab".to_vec(), false)]);
    assert_eq!(bench.give_octets(&octets[11..13]), [Seen::Data(1, b"cd".to_vec(), false)]);
    bench.conn.send_reset(StreamId(1), ErrorCode::CANCEL);
    assert_eq!(bench.give_octets(&octets[13..]), []);
    assert_eq!(bench.take(), [rst(1, ErrorCode::CANCEL)]);
}

#[test]
fn a_small_window_of_ours_holds_once_acknowledged() {
    let limits = Limits { stream_window: 100, ..Limits::default() };
    let mut bench = Bench::fresh(Role::Server, limits);
    bench.give_octets(CLIENT_PREFACE);
    bench.give(&[settings(&[]), request(1, 0)]);
    fill(&mut bench, 1, 1000);
    bench.give(&[settings_ack(), request(3, 0)]);
    bench.take();
    bench.expect_reset(&[data(3, 0, [0; 101])], 3, ErrorCode::FLOW_CONTROL_ERROR);
    bench.expect_reset(&[data(1, 0, [0; 1])], 1, ErrorCode::FLOW_CONTROL_ERROR);
}

#[test]
fn a_window_that_shrinks_under_a_sender_comes_back() {
    let limits = Limits { stream_window: 100, ..Limits::default() };
    let mut bench = Bench::fresh(Role::Server, limits);
    bench.give_octets(CLIENT_PREFACE);
    bench.give(&[settings(&[]), request(1, 0)]);
    fill(&mut bench, 1, 1000);
    bench.conn.release(StreamId(1), 1000);
    bench.take();
    bench.give(&[settings_ack()]);
    assert_eq!(bench.take(), [update(1, 1000)]);
}

#[test]
fn what_waits_for_a_window_does_not_pin_read_buffers() {
    // Window of the stream, window of the connection, and both closed before anything is sent.
    for (initial, spent) in [(10, 0), (1 << 20, 65_530), (0, 0)] {
        let mut bench = answering(2, initial);
        if spent > 0 {
            bench.send(3, vec![0; spent], false);
            bench.take();
        }
        let buffer = Bytes::from(vec![5; 64 << 10]);
        for n in 0..20 {
            let piece = buffer.slice(n * 100..(n + 1) * 100);
            bench.conn.send_data(StreamId(1), piece, false);
        }
        bench.take();
        bench.conn.send_data(StreamId(1), buffer.slice(0..100), false);
        assert!(buffer.is_unique(), "initial {initial}");
        assert!(bench.conn.queued(StreamId(1)) > 1000);
        bench.give(&[update(0, 1 << 20), update(1, 1 << 20)]);
        let octets: usize = data_of(&mut bench).iter().map(|(_, len)| len).sum();
        assert!(octets >= 2000);
        assert_eq!(bench.conn.queued(StreamId(1)), 0);
    }
}
