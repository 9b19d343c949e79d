//! Peers that cost more than they bring (RFC 9113 §10.5), and those that only seem to.

use super::*;

const CALM: ErrorCode = ErrorCode::ENHANCE_YOUR_CALM;

fn strict() -> Limits {
    Limits {
        resets_burst: 20,
        resets_per_second: 1,
        cancels_burst: 100,
        cancels_per_second: 1,
        tiny_data_limited: true,
        control_burst: 50,
        control_per_second: 1,
        ..Limits::default()
    }
}

/// How many of `frames` it takes until the connection fails, and at which limit.
fn endured(
    bench: &mut Bench,
    mut frames: impl FnMut(u32) -> Vec<Frame>,
) -> Option<(u32, Option<Limit>)> {
    for n in 0..20_000 {
        let octets: Vec<u8> = frames(n).iter().flat_map(Frame::octets).collect();
        bench.conn.recv(octets.into(), bench.now);
        if let Some(Event::Failed(error)) = bench.events().last() {
            assert_eq!(error.code, CALM);
            return Some((n, error.limit));
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
    assert_eq!(storm, Some((20, Some(Limit::RapidResets))));
}

/// The same, with a breath between: as many as there may be streams.
#[test]
fn resets_of_calls_that_were_held() {
    let mut bench = Bench::settled(Role::Server, strict());
    let storm = endured(&mut bench, |n| match n {
        0 => vec![request(1, 0)],
        n => vec![rst(2 * n - 1, ErrorCode::CANCEL), request(2 * n + 1, 0)],
    });
    assert_eq!(storm, Some((101, Some(Limit::Cancels))));
}

/// Somebody's context is cancelled: all that he asked for is not wanted any more.
#[test]
fn ten_thousand_honest_cancels_at_once() {
    const CALLS: u32 = 10_000;
    let mut bench = Bench::server();
    let now = bench.now;
    // Without a look at every stream after every event.
    let mut give = |frames: &[Frame]| {
        let octets: Vec<u8> = frames.iter().flat_map(Frame::octets).collect();
        bench.conn.recv(octets.into(), now);
        let mut count = 0;
        while let Some(event) = bench.conn.poll_event() {
            let good = matches!(event, Event::Headers { .. } | Event::Reset { .. });
            assert!(good, "{event:?}");
            count += 1;
        }
        count
    };
    let id = |n: u32| 2 * n + 1;
    let requests: Vec<Frame> = (0..CALLS).map(|n| request(id(n), 0)).collect();
    let cancels: Vec<Frame> = (0..CALLS).map(|n| rst(id(n), ErrorCode::CANCEL)).collect();
    for some in requests.chunks(100).chain(cancels.chunks(1000)) {
        assert_eq!(give(some), some.len());
    }
    assert_eq!(give(&[request(id(CALLS), END_STREAM)]), 1);
    assert_eq!(bench.conn.streams(), 1);
    bench.conn.check_invariants();
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
    assert_eq!(storm, Some((1024, Some(Limit::StreamErrors))));
    let mut bench = Bench::server();
    let storm = endured(&mut bench, |n| vec![request_and(2 * n + 1, 0, &[("Bad", "1")])]);
    assert_eq!(storm, Some((1024, Some(Limit::StreamErrors))));
}

#[test]
fn floods_of_control_frames() {
    type Flood = (Limit, fn(u32) -> Frame);
    let floods: [Flood; 7] = [
        (Limit::Pings, |_| frame(PING, 0, 0, [0; 8])),
        (Limit::Settings, |_| settings(&[])),
        (Limit::Priorities, |_| frame(PRIORITY, 0, 1, [0, 0, 0, 3, 1])),
        (Limit::WindowUpdates, |_| update(0, 1)),
        (Limit::UnknownFrames, |_| frame(0x55, 0, 0, "grease")),
        (Limit::Settings, |_| settings_ack()),
        (Limit::Goaways, |_| goaway(0, ErrorCode::NO_ERROR, "")),
    ];
    for (limit, flood) in floods {
        let mut bench = Bench::settled(Role::Server, strict());
        let (endured, hit) = endured(&mut bench, |n| vec![flood(n)]).unwrap();
        assert!((40..=65).contains(&endured), "{endured}: {:?}", flood(1));
        assert_eq!(hit, Some(limit));
    }
}

/// Each stream is reset once by whoever is honest; this one is, over and over.
#[test]
fn flood_of_late_resets() {
    let mut bench = Bench::settled(Role::Server, strict());
    let flood = |n| vec![if n == 0 { request(1, 0) } else { rst(1, CALM) }];
    let (endured, hit) = endured(&mut bench, flood).unwrap();
    assert!((90..=115).contains(&endured), "{endured}");
    assert_eq!(hit, Some(Limit::LateResets));
}

/// All calls are answered in the moment in which their caller does not want them any more: his
/// resets cross the answers.
#[test]
fn resets_that_cross_answers_are_no_flood() {
    const CALLS: u32 = 16_000;
    let mut bench = Bench::server();
    let octets = |frames: Vec<Frame>| frames.iter().flat_map(Frame::octets).collect::<Vec<u8>>();
    let requests = (0..CALLS).map(|n| request(2 * n + 1, END_STREAM));
    bench.conn.recv(octets(requests.collect()).into(), bench.now);
    while bench.conn.poll_event().is_some() {}
    assert_eq!(bench.conn.streams(), CALLS as usize);
    (0..CALLS).for_each(|n| bench.respond(2 * n + 1, true));
    bench.take();
    let resets = (0..CALLS).map(|n| rst(2 * n + 1, ErrorCode::CANCEL));
    bench.conn.recv(octets(resets.collect()).into(), bench.now);
    assert_eq!(bench.events().iter().map(seen).collect::<Vec<_>>(), []);
    assert!(!bench.conn.has_failed());
}

#[test]
fn flood_of_streams_beyond_the_limit() {
    let limits = Limits { max_concurrent_streams: Some(1), ..strict() };
    let mut bench = Bench::settled(Role::Server, limits);
    let (endured, hit) = endured(&mut bench, |n| vec![request(2 * n + 1, 0)]).unwrap();
    assert!((50..80).contains(&endured), "{endured}");
    assert_eq!(hit, Some(Limit::RefusedStreams));
}

#[test]
fn flood_of_informational_heads() {
    let mut bench = Bench::settled(Role::Client, strict());
    let id = bench.open(true);
    bench.take();
    let hint = frame(HEADERS, END_HEADERS, id, block(&[(":status", "103")]));
    let storm = endured(&mut bench, |_| vec![hint.clone()]);
    assert_eq!(storm.unwrap().1, Some(Limit::InformationalHeads));
}

/// Servers answer `expect` with 100: whoever asks for it must not end the connection of others.
#[test]
fn a_hint_with_every_answer_is_free() {
    let mut bench = Bench::settled(Role::Client, strict());
    let hint = |id| frame(HEADERS, END_HEADERS, id, block(&[(":status", "100")]));
    for _ in 0..500 {
        let id = bench.open(true);
        bench.take();
        let events = bench.give(&[hint(id), response(id, END_STREAM)]);
        assert!(
            matches!(events[..], [_, Seen::Headers(_, SectionKind::Response, ..)]),
            "{events:?}"
        );
    }
}

#[test]
fn floods_of_empty_and_tiny_data() {
    for (payload, limit) in [("", Limit::EmptyData), ("tiny", Limit::TinyData)] {
        let mut bench = Bench::settled(Role::Server, strict());
        bench.give(&[request(1, 0)]);
        let (endured, hit) = endured(&mut bench, |_| vec![data(1, 0, payload)]).unwrap();
        assert!((45..80).contains(&endured), "{endured} of {payload:?}");
        assert_eq!(hit, Some(limit));
    }
}

/// Messages without an octet, each in a frame of its own: five octets, and nobody's flood.
#[test]
fn small_messages_in_huge_number() {
    let mut bench = Bench::settled(Role::Server, strict());
    bench.give(&[request(1, 0)]);
    let message = data(1, 0, [0; 5]).octets();
    let read = message.repeat(1000);
    for _ in 0..200 {
        assert_eq!(bench.give_octets(&read).len(), 1000);
        bench.conn.release(StreamId(1), 5000);
        bench.take();
    }
}

/// A large message ends in a crumb when frames are full; so does a window.
#[test]
fn crumbs_of_large_messages_are_free() {
    let mut bench = Bench::settled(Role::Server, strict());
    bench.give(&[request(1, 0)]);
    for _ in 0..500 {
        let events = bench.give(&[data(1, 0, vec![1; 1 << 14]), data(1, 0, "x")]);
        assert_eq!(events.len(), 2);
        bench.conn.release(StreamId(1), (1 << 14) + 1);
        bench.take();
    }
}

#[test]
fn updates_and_pings_in_step_with_data_are_free() {
    let mut bench = Bench::settled(Role::Server, strict());
    bench.give(&[request(1, 0)]);
    for _ in 0..5000 {
        let ping = frame(PING, 0, 0, [0; 8]);
        let events = bench.give(&[data(1, 0, "hello"), update(0, 1), update(1, 1), ping]);
        assert_eq!(events.len(), 1);
        bench.conn.release(StreamId(1), 5);
        bench.take();
    }
}

/// A preface that comes octet by octet, SETTINGS that never come, or that nobody acknowledges.
#[test]
fn prefaces_that_never_end() {
    let settings = settings(&[]).octets();
    let all = [CLIENT_PREFACE, &settings].concat();
    for octets in [3, CLIENT_PREFACE.len(), all.len()] {
        let mut bench = Bench::fresh(Role::Server, Limits::default());
        for octet in &all[..octets] {
            bench.give_octets(&[*octet]);
        }
        bench.now += Duration::from_millis(9_999);
        bench.conn.handle_timeout(bench.now);
        assert!(bench.events().is_empty());
        bench.now += Duration::from_millis(1);
        assert_eq!(bench.conn.poll_timeout(), Some(bench.now));
        bench.conn.handle_timeout(bench.now);
        let Some(Event::Failed(error)) = bench.events().pop() else { panic!("it goes on") };
        assert_eq!(
            (error.code, error.limit),
            (ErrorCode::SETTINGS_TIMEOUT, Some(Limit::SlowPreface))
        );
    }
}

fn later(bench: &mut Bench, ms: u64) -> bool {
    bench.now += Duration::from_millis(ms);
    bench.conn.handle_timeout(bench.now);
    bench.events().iter().any(
        |event| matches!(event, Event::Failed(error) if error.limit == Some(Limit::SlowHeaders)),
    )
}

/// A block, and a frame, of which another octet comes now and then and never the last.
#[test]
fn blocks_and_frames_that_never_end() {
    let mut slow = [Bench::server(), Bench::server()];
    let [block, amid] = &mut slow;
    block.give(&[frame(HEADERS, 0, 1, block_of_request())]);
    let octets = frame(HEADERS, END_HEADERS, 1, [0; 500]).octets();
    amid.give_octets(&octets[..20]);
    for tenth in 1..100 {
        assert!(!later(block, 100) && !later(amid, 100), "{tenth}");
        amid.give_octets(&octets[20 + tenth..21 + tenth]);
    }
    for bench in slow.iter_mut() {
        assert_eq!(bench.conn.poll_timeout(), Some(bench.now + Duration::from_millis(100)));
        assert!(later(bench, 100));
        assert_eq!(bench.take().last().unwrap().kind, GOAWAY);
    }
}

fn block_of_request() -> Vec<u8> {
    block(&REQUEST)
}

/// Reads end amid frames all the time: each is another frame, and no time is counted.
#[test]
fn frames_that_straddle_reads_have_a_time_of_their_own() {
    let mut bench = Bench::server();
    bench.give(&[request(1, 0)]);
    let ping = frame(PING, 0, 0, [7; 8]).octets();
    for cut in [4, 12] {
        let turned = [&ping[cut..], &ping[..cut]].concat();
        bench.give_octets(&ping[..cut]);
        for _ in 0..40 {
            assert!(!later(&mut bench, 900));
            assert_eq!(bench.give_octets(&turned), []);
            bench.take();
        }
        bench.give_octets(&ping[cut..]);
        assert!(!later(&mut bench, 1000));
        assert_eq!(bench.conn.poll_timeout(), None);
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

/// Below every limit of size until it is decoded. What was really sent may be as large.
#[test]
fn little_expands_to_little() {
    let limits = Limits { header_list_size: 1 << 20, fields_max: 1024, ..Limits::default() };
    let mut bench = Bench::settled(Role::Server, limits);
    let value = "v".repeat(3000);
    let mut first = block(&REQUEST);
    // RFC 7541 §6.2.1: kept in the table; 3000 is 127 and 2873 more.
    first.extend_from_slice(b"\x40\x01x\x7f\xb9\x16");
    first.extend_from_slice(value.as_bytes());
    assert_eq!(bench.give(&[frame(HEADERS, END_HEADERS, 1, &first)]).len(), 1);
    let references = |count| [block(&REQUEST), vec![0x80 | 62; count]].concat();
    let fits = bench.conn.limits.header_list_assured as usize / (3000 + 1 + 32);
    let few = frame(HEADERS, END_HEADERS, 3, references(fits));
    assert!(matches!(bench.give(&[few])[..], [Seen::Headers(3, ..)]));
    let many = frame(HEADERS, END_HEADERS, 5, references(fits + 2));
    assert_eq!(bench.give(&[many]), [Seen::Limited(Limit::FieldSection)]);
    assert!(bench.take().contains(&rst(5, ErrorCode::FRAME_SIZE_ERROR)));
    let mut sent = block(&REQUEST);
    for _ in 0..5 * fits {
        sent.extend_from_slice(b"\x00\x01y\x7f\xb9\x16");
        sent.extend_from_slice(value.as_bytes());
    }
    let mut frames = vec![];
    let mut pieces = sent.chunks(1 << 14).peekable();
    while let Some(piece) = pieces.next() {
        let kind = if frames.is_empty() { HEADERS } else { CONTINUATION };
        let end = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        frames.push(frame(kind, end, 7, piece));
    }
    bench.conn.limits.continuations_max = 80;
    assert!(matches!(bench.give(&frames)[..], [Seen::Headers(7, ..)]));
}

/// Responses are what the peer asked for, however large their heads; its PINGs are not.
#[test]
fn heads_that_wait_are_not_taken_for_unread_answers() {
    let mut bench = Bench::server();
    let limit = bench.conn.limits.control_bytes_max as usize;
    for n in 0..3 {
        bench.give(&[request(2 * n + 1, END_STREAM)]);
        let mut fields = section(&[(":status", "200")]);
        fields.push(b"x-large", &vec![b'~'; limit / 4 * 3]);
        bench.conn.send_headers(StreamId(2 * n + 1), fields, true);
    }
    assert!(bench.conn.queued_in_all() > 2 * limit);
    assert_eq!(bench.give(&[request(7, END_STREAM)]).len(), 1, "it lives");
    // Half of it is read, and some.
    let mut out = Transmit::new();
    bench.conn.poll_transmit(&mut out, limit);
    bench.sent = out.slices().collect::<Vec<_>>().concat();
    assert!(bench.conn.queued_in_all() > limit);
    assert_eq!(bench.give(&[frame(PING, 0, 0, [0; 8])]), []);
    bench.conn.limits.control_bytes_max = 4;
    bench.expect_failure(&[frame(PING, 0, 0, [0; 8])], CALM);
}
