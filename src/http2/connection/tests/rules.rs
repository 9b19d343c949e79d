//! What RFC 9113 forbids, section by section.

use super::*;

const PROTOCOL: ErrorCode = ErrorCode::PROTOCOL_ERROR;
const CLOSED: ErrorCode = ErrorCode::STREAM_CLOSED;
const SIZE: ErrorCode = ErrorCode::FRAME_SIZE_ERROR;
const FLOW: ErrorCode = ErrorCode::FLOW_CONTROL_ERROR;

#[track_caller]
fn server_fails(frames: &[Frame], code: ErrorCode) {
    Bench::server().expect_failure(frames, code);
}

#[track_caller]
fn server_resets(frames: &[Frame], code: ErrorCode) {
    let stream = frames[0].stream;
    Bench::server().expect_reset(frames, stream, code);
}

#[test]
fn section_3_4_preface() {
    let mut bench = Bench::fresh(Role::Server, Limits::default());
    let events = bench.give_octets(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(events, [Seen::Failed(PROTOCOL)]);
    for first in [request(1, 0), frame(PING, 0, 0, [0; 8]), settings_ack(), frame(99, 0, 0, "")] {
        let mut bench = Bench::fresh(Role::Server, Limits::default());
        bench.give_octets(CLIENT_PREFACE);
        bench.expect_failure(&[first], PROTOCOL);
    }
    let mut bench = Bench::fresh(Role::Client, Limits::default());
    assert_eq!(bench.give_octets(b"HTTP/1.1 400 Bad Request\r\n"), [Seen::Failed(SIZE)]);
}

#[test]
fn section_4_1_unknown_frames_and_flags_and_the_reserved_bit() {
    let mut bench = Bench::server();
    let odd = frame(PING, 0xfe, 1 << 31, b"12345678");
    let events = bench.give(&[frame(0x16, 0xff, 5, "whatever"), odd]);
    assert_eq!(events, []);
    assert_eq!(bench.take(), [frame(PING, ACK, 0, b"12345678")]);
}

#[test]
fn section_4_2_frame_size() {
    let mut bench = Bench::server();
    assert_eq!(bench.give(&[request(1, 0), data(1, 0, vec![0; 16_384])]).len(), 2);
    server_fails(&[request(1, 0), data(1, 0, vec![0; 16_385])], SIZE);
    server_fails(&[frame(HEADERS, END_HEADERS, 1, vec![0; 16_385])], SIZE);
    server_fails(&[frame(0x77, 0, 0, vec![0; 16_385])], SIZE);
}

#[test]
fn section_4_3_field_blocks() {
    let compression = ErrorCode::COMPRESSION_ERROR;
    // RFC 7541 §6.1: index 0.
    server_fails(&[frame(HEADERS, END_HEADERS, 1, [0x80])], compression);
    // An index beyond all tables, on a stream that is refused anyway.
    let mut bench = Bench::server();
    bench.conn.goaway(ErrorCode::NO_ERROR, "");
    bench.expect_failure(&[frame(HEADERS, END_HEADERS, 1, [0xff, 0x80, 0x01])], compression);

    let open = frame(HEADERS, END_STREAM, 1, block(&REQUEST[..2]));
    let rest = frame(CONTINUATION, END_HEADERS, 1, block(&REQUEST[2..]));
    let mut bench = Bench::server();
    let whole = head(1, SectionKind::Request, &REQUEST, true);
    assert_eq!(bench.give(&[open.clone(), rest.clone()]), [whole]);
    let between = [
        frame(PRIORITY, 0, 1, [0, 0, 0, 0, 1]),
        frame(PING, 0, 0, [0; 8]),
        data(1, 0, "x"),
        request(3, 0),
        frame(CONTINUATION, END_HEADERS, 3, []),
        frame(0x99, 0, 1, []),
        frame(0x99, 0, 0, "x"),
    ];
    for frame in between {
        server_fails(&[open.clone(), frame], PROTOCOL);
    }
    server_fails(&[open, rest.clone(), rest], PROTOCOL);
}

#[test]
fn section_5_1_idle() {
    server_fails(&[data(1, 0, "x")], PROTOCOL);
    server_fails(&[rst(1, ErrorCode::CANCEL)], PROTOCOL);
    server_fails(&[update(1, 1)], PROTOCOL);
    server_fails(&[frame(CONTINUATION, END_HEADERS, 1, [])], PROTOCOL);
    Bench::client().expect_failure(&[response(1, 0)], PROTOCOL);
    Bench::client().expect_failure(&[data(1, 0, "x")], PROTOCOL);
    // PRIORITY is legal in any state.
    let mut bench = Bench::server();
    assert_eq!(bench.give(&[frame(PRIORITY, 0, 7, [0, 0, 0, 1, 1]), request(1, 0)]).len(), 1);
}

#[test]
fn section_5_1_half_closed_remote() {
    server_resets(&[request(1, END_STREAM), data(1, 0, "x")], CLOSED);
    server_resets(&[request(1, END_STREAM), trailers(1)], CLOSED);
    let mut bench = Bench::server();
    let late = bench.give(&[request(1, END_STREAM), data(1, 0, "x")]);
    assert_eq!(late.last(), Some(&Seen::StreamFailed(1, CLOSED)));
    let mut bench = Bench::server();
    bench.give(&[request(1, END_STREAM), update(1, 5), frame(PRIORITY, 0, 1, [0, 0, 0, 3, 1])]);
    assert_eq!(bench.give(&[rst(1, PROTOCOL)]), [Seen::Reset(1, PROTOCOL)]);
}

#[test]
fn section_5_1_closed_by_the_peers_reset() {
    let gone = [request(1, 0), rst(1, ErrorCode::CANCEL)];
    let mut bench = Bench::server();
    bench.expect_reset(&[&gone[..], &[data(1, 0, "x")]].concat(), 1, CLOSED);
    assert_eq!(bench.give(&[data(1, 0, "x"), data(1, END_STREAM, "x")]), []);
    assert_eq!(bench.take(), [], "told once");
    server_fails(&[&gone[..], &[trailers(1)]].concat(), CLOSED);
    let mut bench = Bench::server();
    bench.give(&gone);
    let harmless =
        [update(1, 1), rst(1, ErrorCode::CANCEL), frame(PRIORITY, 0, 1, [0, 0, 0, 3, 1])];
    assert_eq!(bench.give(&harmless), []);
    assert_eq!(bench.take(), []);
}

#[test]
fn section_5_1_closed_by_both_ends() {
    let finished = || {
        let mut bench = Bench::server();
        bench.give(&[request(1, END_STREAM)]);
        bench.respond(1, true);
        bench.take();
        bench
    };
    finished().expect_failure(&[trailers(1)], CLOSED);
    finished().expect_failure(&[frame(CONTINUATION, END_HEADERS, 1, [])], PROTOCOL);
    finished().expect_reset(&[data(1, 0, "x")], 1, CLOSED);
    assert_eq!(finished().give(&[update(1, 1), rst(1, ErrorCode::CANCEL)]), []);
}

#[test]
fn section_5_1_1_stream_ids() {
    server_fails(&[request(2, 0)], PROTOCOL);
    server_fails(&[request(5, END_STREAM), request(3, 0)], PROTOCOL);
    server_fails(&[request(5, END_STREAM), data(3, 0, "x")], PROTOCOL);
    server_fails(&[request(0, 0)], PROTOCOL);
    server_fails(&[data(0, 0, "x")], PROTOCOL);
    server_fails(&[rst(0, ErrorCode::CANCEL)], PROTOCOL);
    server_fails(&[frame(PRIORITY, 0, 0, [0, 0, 0, 1, 1])], PROTOCOL);
    server_fails(&[frame(CONTINUATION, 0, 0, "")], PROTOCOL);
    for kind in [SETTINGS, PING, GOAWAY] {
        server_fails(&[frame(kind, 0, 1, [0; 8])], PROTOCOL);
    }
}

#[test]
fn section_5_1_2_concurrency() {
    let limits = Limits { max_concurrent_streams: Some(1), ..Limits::default() };
    let mut bench = Bench::settled(Role::Server, limits);
    let events = bench.give(&[request(1, 0), request(3, END_STREAM), data(3, 0, "x")]);
    assert_eq!(events[1..], [Seen::Limited(Limit::Streams)]);
    assert_eq!(bench.take(), [rst(3, ErrorCode::REFUSED_STREAM)]);
    bench.give(&[rst(1, ErrorCode::CANCEL)]);
    assert_eq!(bench.give(&[request(5, END_STREAM)]).len(), 1);
}

#[test]
fn refused_blocks_still_move_the_table() {
    let limits = Limits { max_concurrent_streams: Some(1), ..Limits::default() };
    let mut bench = Bench::settled(Role::Server, limits);
    // RFC 7541 §6.2.1: a literal that enters the table, on a stream that is refused.
    let indexing = [&block(&REQUEST)[..], b"\x40\x01x\x05value"].concat();
    bench.give(&[request(1, 0), frame(HEADERS, END_HEADERS, 3, indexing)]);
    bench.give(&[rst(1, ErrorCode::CANCEL)]);
    let indexed = [&block(&REQUEST)[..], &[0x80 | 62]].concat();
    let events = bench.give(&[frame(HEADERS, END_HEADERS, 5, indexed)]);
    let fields = [&REQUEST[..], &[("x", "value")]].concat();
    assert_eq!(events, [head(5, SectionKind::Request, &fields, false)]);
}

#[test]
fn section_5_3_priority() {
    let itself = frame(PRIORITY, 0, 1, [0, 0, 0, 1, 9]);
    server_resets(&[request(1, 0), itself.clone()], PROTOCOL);
    server_fails(&[itself], PROTOCOL);
    server_fails(&[frame(PRIORITY, 0, 1, [0; 4])], SIZE);
    let gone = [request(1, 0), rst(1, ErrorCode::CANCEL), frame(PRIORITY, 0, 1, [0; 6])];
    server_fails(&gone, SIZE);
    let dependent = [&[0, 0, 0, 1, 9][..], &block(&REQUEST)].concat();
    let dependent = frame(HEADERS, END_HEADERS | WITH_PRIORITY, 1, dependent);
    server_resets(&[dependent], PROTOCOL);
    server_resets(&[request(1, 0), frame(PRIORITY, 0, 1, [0; 4])], SIZE);
    let weighted = [&[0x80, 0, 0, 3, 9][..], &block(&REQUEST)].concat();
    let weighted = frame(HEADERS, END_HEADERS | WITH_PRIORITY, 1, weighted);
    assert_eq!(Bench::server().give(&[weighted]), [head(1, SectionKind::Request, &REQUEST, false)]);
    server_fails(&[frame(HEADERS, END_HEADERS | WITH_PRIORITY, 1, [0; 4])], SIZE);
}

#[test]
fn section_6_1_and_6_2_padding() {
    let mut bench = Bench::server();
    let padded = [&[3][..], &block(&REQUEST), &[0; 3]].concat();
    let events = bench.give(&[
        frame(HEADERS, END_HEADERS | PADDED, 1, padded),
        data(1, PADDED, b"\x04data\0\0\0\0"),
        data(1, PADDED | END_STREAM, b"\x02\0\0"),
    ]);
    let expected = [
        head(1, SectionKind::Request, &REQUEST, false),
        Seen::Data(1, b"data".to_vec(), false),
        Seen::Data(1, vec![], true),
    ];
    assert_eq!(events, expected);
    server_fails(&[request(1, 0), data(1, PADDED, b"\x05data")], PROTOCOL);
    server_fails(&[request(1, 0), data(1, PADDED, b"")], SIZE);
    server_fails(&[frame(HEADERS, END_HEADERS | PADDED, 1, [9, 0x82])], PROTOCOL);
    server_fails(&[frame(HEADERS, END_HEADERS | PADDED, 1, [])], SIZE);
}

#[test]
fn section_6_4_and_6_7_and_6_8_and_6_9_lengths() {
    server_fails(&[request(1, 0), frame(RST_STREAM, 0, 1, [0; 3])], SIZE);
    server_fails(&[frame(PING, 0, 0, [0; 7])], SIZE);
    server_fails(&[frame(GOAWAY, 0, 0, [0; 7])], SIZE);
    server_fails(&[frame(WINDOW_UPDATE, 0, 0, [0; 3])], SIZE);
}

#[test]
fn section_6_5_settings() {
    server_fails(&[frame(SETTINGS, ACK, 0, [0; 6])], SIZE);
    server_fails(&[frame(SETTINGS, 0, 0, [0; 5])], SIZE);
    server_fails(&[settings(&[(2, 2)])], PROTOCOL);
    server_fails(&[settings(&[(4, 1 << 31)])], FLOW);
    server_fails(&[settings(&[(5, 1)])], PROTOCOL);
    Bench::client().expect_failure(&[settings(&[(2, 1)])], PROTOCOL);
    let mut bench = Bench::server();
    assert_eq!(bench.give(&[settings(&[(0xabcd, 5)])]), [Seen::Settings]);
    assert_eq!(bench.take(), [settings_ack()]);
}

#[test]
fn section_6_6_push_promise() {
    Bench::server().expect_failure(&[frame(PUSH_PROMISE, END_HEADERS, 1, [0; 4])], PROTOCOL);
    let mut bench = Bench::client();
    bench.open(true);
    bench.expect_failure(&[frame(PUSH_PROMISE, END_HEADERS, 1, [0, 0, 0, 2])], PROTOCOL);
}

#[test]
fn section_6_9_window_updates() {
    server_fails(&[update(0, 0)], PROTOCOL);
    server_fails(&[update(0, (1 << 31) - 1)], FLOW);
    server_resets(&[request(1, 0), update(1, 0)], PROTOCOL);
    server_resets(&[request(1, 0), update(1, (1 << 31) - 1)], FLOW);
    // §6.9.2: a change of the initial window that overflows.
    let large = [request(1, 0), update(1, 1 << 30), settings(&[(4, (1 << 31) - 1)])];
    server_fails(&large, FLOW);
}

#[test]
fn section_7_unknown_codes() {
    let mut bench = Bench::server();
    let events = bench.give(&[request(1, 0), rst(1, ErrorCode(0xff)), goaway(0, PROTOCOL, "")]);
    assert_eq!(events[1], Seen::Reset(1, ErrorCode(0xff)));
    assert!(matches!(events[2], Seen::Goaway(0, PROTOCOL, _)));
}

#[test]
fn section_8_1_order_of_sections() {
    let open = |flags| request_and(1, flags, &[]);
    server_resets(&[open(0), request_and(1, 0, &[])], PROTOCOL);
    let without_end = frame(HEADERS, END_HEADERS, 1, block(&[("x", "1")]));
    server_resets(&[open(0), data(1, 0, "x"), without_end], PROTOCOL);
    let pseudo = frame(HEADERS, END_HEADERS | END_STREAM, 1, block(&[(":path", "/")]));
    server_resets(&[open(0), pseudo], PROTOCOL);
    let mut bench = Bench::server();
    let events = bench.give(&[open(0), trailers(1)]);
    assert_eq!(events[1], head(1, SectionKind::Trailers, &[("grpc-status", "0")], true));
}

#[test]
fn section_8_1_in_the_client() {
    let cases = [
        vec![data(1, 0, "x")],
        vec![frame(HEADERS, END_HEADERS, 1, block(&[("x", "1")]))],
        vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, block(&[(":status", "100")]))],
        vec![frame(HEADERS, END_HEADERS, 1, block(&[(":status", "101")]))],
        vec![frame(HEADERS, END_HEADERS, 1, block(&[(":status", "200"), (":path", "/")]))],
        vec![response(1, 0), response(1, 0)],
        vec![response(1, 0), response(1, END_STREAM)],
    ];
    for frames in cases {
        let mut bench = Bench::client();
        bench.open(true);
        bench.take();
        bench.expect_reset(&frames, 1, PROTOCOL);
        let mut bench = Bench::client();
        bench.open(true);
        assert_eq!(bench.give(&frames).last(), Some(&Seen::StreamFailed(1, PROTOCOL)));
    }
}

#[test]
fn section_8_1_1_content_length() {
    let promised = |length| request_and(1, 0, &[("content-length", length)]);
    server_resets(&[promised("2"), data(1, END_STREAM, "x")], PROTOCOL);
    server_resets(&[promised("2"), data(1, 0, "xyz")], PROTOCOL);
    server_resets(&[promised("2"), data(1, 0, "x"), data(1, END_STREAM, "yz")], PROTOCOL);
    server_resets(&[promised("2"), trailers(1)], PROTOCOL);
    server_resets(&[request_and(1, END_STREAM, &[("content-length", "1")])], PROTOCOL);
    let mut bench = Bench::server();
    assert_eq!(bench.give(&[promised("2"), data(1, 0, "x"), data(1, END_STREAM, "y")]).len(), 3);
    // The response to HEAD says the length of what it does not carry.
    let mut bench = Bench::client();
    let head = section(&[(":method", "HEAD"), (":scheme", "http"), (":path", "/")]);
    bench.conn.open(head, true, 0).unwrap();
    let fields = block(&[(":status", "200"), ("content-length", "9")]);
    let events = bench.give(&[frame(HEADERS, END_HEADERS | END_STREAM, 1, fields)]);
    assert!(matches!(events[..], [Seen::Headers(1, SectionKind::Response, _, true)]));
}

#[test]
fn section_8_2_and_8_3_fields() {
    let bad: &[&[(&str, &str)]] = &[
        &[("X-Upper", "1")],
        &[("connection", "keep-alive")],
        &[("te", "trailers, deflate")],
        &[(":unknown", "1")],
        &[(":status", "200")],
        &[(":path", "/twice")],
        &[("regular", "1"), (":protocol", "late")],
        &[("bad", "a\rb")],
    ];
    for more in bad {
        server_resets(&[request_and(1, END_STREAM, more)], PROTOCOL);
        let mut bench = Bench::server();
        assert_eq!(bench.give(&[request_and(1, END_STREAM, more)]), [], "the owner never saw it");
    }
    for missing in 0..3 {
        let mut fields = REQUEST.to_vec();
        fields.remove(missing);
        server_resets(&[frame(HEADERS, END_HEADERS, 1, block(&fields))], PROTOCOL);
    }
}

#[test]
fn a_section_above_the_limit_resets_its_stream_only() {
    let limits = Limits { header_list_size: 400, fields_max: 10, ..Limits::default() };
    let long = "v".repeat(120);
    let large = [&REQUEST[..], &[("a", &long), ("b", &long)]].concat();
    let many = [&REQUEST[..], &[("a", "1"); 7]].concat();
    for fields in [large, many] {
        let mut bench = Bench::settled(Role::Server, limits.clone());
        let refused = frame(HEADERS, END_HEADERS | END_STREAM, 1, block(&fields));
        assert_eq!(bench.give(&[refused]), [Seen::Limited(Limit::FieldSection)]);
        assert_eq!(bench.take(), [rst(1, SIZE)]);
        assert_eq!(bench.give(&[request(3, 0)]).len(), 1);
    }
    let mut bench = Bench::settled(Role::Client, limits);
    bench.open(true);
    let large = [(":status", "200"), ("a", &long), ("b", &long), ("c", &long)];
    let events = bench.give(&[frame(HEADERS, END_HEADERS, 1, block(&large))]);
    assert_eq!(events, [Seen::Limited(Limit::FieldSection), Seen::StreamFailed(1, SIZE)]);
}

#[test]
fn nothing_is_heard_after_a_failure() {
    let mut bench = Bench::server();
    bench.give(&[request(1, 0)]);
    let events = bench.give(&[update(0, 0), request(3, 0), frame(PING, 0, 0, [0; 8])]);
    assert_eq!(events, [Seen::Failed(PROTOCOL)]);
    assert_eq!(bench.give(&[request(5, 0)]), []);
    let said = bench.take();
    assert_eq!((said.len(), said[0].kind, &said[0].payload[..4]), (1, GOAWAY, &[0, 0, 0, 1][..]));
    bench.respond(1, true);
    bench.conn.ping([0; 8]);
    bench.conn.goaway(ErrorCode::NO_ERROR, "");
    assert!(!bench.conn.wants_transmit());
    assert_eq!((bench.conn.streams(), bench.conn.can_open()), (0, 0));
}
