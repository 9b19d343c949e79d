//! Prefaces, exchanges, goodbyes.

use super::*;
use crate::http2::{NO_TAG, OpenError, Sent};

#[test]
fn server_says_its_settings_first() {
    let mut bench = Bench::fresh(Role::Server, Limits::default());
    let said = bench.take();
    let [first, second] = &said[..] else { panic!("{said:?}") };
    assert_eq!((first.kind, first.flags, first.stream), (SETTINGS, 0, 0));
    assert_eq!(*second, update(0, (4 << 20) - 65_535));
}

#[test]
fn client_says_the_preface_and_may_open_before_it_hears_anything() {
    let mut bench = Bench::fresh(Role::Client, Limits::default());
    assert_eq!(bench.conn.can_open(), 100);
    assert_eq!(bench.open(true), 1);
    assert_eq!(bench.conn.can_open(), 99);
    let said = bench.take_octets();
    let frames = Frame::parse_all(said.strip_prefix(CLIENT_PREFACE).unwrap());
    let kinds: Vec<u8> = frames.iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [SETTINGS, WINDOW_UPDATE, HEADERS]);
    // RFC 9113 §6.5.2: push is off.
    assert_eq!(frames[0].payload[..6], [0, 2, 0, 0, 0, 0]);
    assert_eq!(bench.give(&[settings(&[(3, 7)])]), [Seen::Settings]);
    assert_eq!(bench.conn.can_open(), 6);
    assert_eq!(bench.take(), [settings_ack()]);
}

#[test]
fn server_answers_a_call() {
    let mut bench = Bench::server();
    let events = bench.give(&[request(1, 0), data(1, 0, "ping"), data(1, END_STREAM, "")]);
    let expected = [
        head(1, SectionKind::Request, &REQUEST, false),
        Seen::Data(1, b"ping".to_vec(), false),
        Seen::Data(1, vec![], true),
    ];
    assert_eq!(events, expected);
    bench.conn.release(StreamId(1), 4);
    bench.respond(1, false);
    bench.send(1, "pong", false);
    bench.send_trailers(1);
    assert_eq!(bench.conn.queued(StreamId(1)), 4);
    let said = bench.take();
    assert_eq!(said.len(), 3);
    assert_eq!((said[0].kind, said[0].flags), (HEADERS, END_HEADERS));
    assert_eq!(said[1], data(1, 0, "pong"));
    assert_eq!((said[2].kind, said[2].flags), (HEADERS, END_HEADERS | END_STREAM));
    assert_eq!(bench.conn.streams(), 0);
    let sent = Sent { stream: StreamId(1), tag: NO_TAG, octets: 4 };
    assert_eq!(bench.conn.poll_sent(), Some(sent));
    assert_eq!(bench.conn.poll_sent(), None);
}

#[test]
fn client_makes_a_call() {
    let mut bench = Bench::client();
    let id = bench.open(false);
    bench.send(id, "ping", true);
    let said = bench.take();
    assert_eq!((said[0].kind, said[0].flags, said[0].stream), (HEADERS, END_HEADERS, 1));
    assert_eq!(said[1], data(1, END_STREAM, "ping"));
    let early = frame(HEADERS, END_HEADERS, 1, block(&[(":status", "103")]));
    let events = bench.give(&[early, response(1, 0), data(1, 0, "pong"), trailers(1)]);
    let expected = [
        head(1, SectionKind::Informational, &[(":status", "103")], false),
        head(1, SectionKind::Response, &[(":status", "200")], false),
        Seen::Data(1, b"pong".to_vec(), false),
        head(1, SectionKind::Trailers, &[("grpc-status", "0")], true),
    ];
    assert_eq!(events, expected);
    assert_eq!(bench.conn.streams(), 0);
}

#[test]
fn trailers_only_is_one_frame() {
    let mut bench = Bench::server();
    bench.give(&[request(1, END_STREAM)]);
    bench.respond(1, true);
    assert_eq!(bench.take_shapes(), [(HEADERS, END_HEADERS | END_STREAM, 1)]);
    assert_eq!(bench.conn.streams(), 0);
}

#[test]
fn end_stream_is_folded_and_empty_ends_need_no_queue() {
    let mut bench = Bench::server();
    bench.give(&[request(1, END_STREAM), request(3, END_STREAM)]);
    bench.respond(1, false);
    bench.send(1, "x", false);
    bench.send(1, "", false);
    bench.send(1, "", true);
    bench.respond(3, false);
    bench.send(3, "", true);
    let said = bench.take();
    assert_eq!(said[1].kind, HEADERS);
    assert_eq!(said[2..], [data(3, END_STREAM, ""), data(1, END_STREAM, "x")]);
    assert_eq!(bench.conn.streams(), 0);
}

#[test]
fn tags_come_back() {
    let mut bench = Bench::server();
    let events = {
        let octets: Vec<u8> = request(1, 0).octets();
        bench.conn.recv(octets.into(), bench.now);
        bench.events()
    };
    assert!(matches!(events[..], [Event::Headers { tag: NO_TAG, .. }]));
    bench.conn.set_tag(StreamId(1), 42);
    bench.conn.recv(rst(1, ErrorCode::CANCEL).octets().into(), bench.now);
    assert!(matches!(bench.events()[..], [Event::Reset { tag: 42, .. }]));
}

#[test]
fn reset_by_the_owner() {
    let mut bench = Bench::client();
    let id = bench.open(false);
    assert_eq!(bench.take_shapes(), [(HEADERS, END_HEADERS, 1)]);
    bench.send(id, vec![1; 100], false);
    bench.conn.send_reset(StreamId(id), ErrorCode::CANCEL);
    assert_eq!(bench.conn.streams(), 0);
    assert_eq!(bench.take(), [rst(1, ErrorCode::CANCEL)], "queued DATA is dropped");
    // What was on its way is ignored, but counted and decoded.
    assert_eq!(bench.give(&[response(1, 0), data(1, 0, "late"), trailers(1)]), []);
    assert_eq!(bench.take(), []);
}

/// What nobody has asked for yet can be taken back: the peer hears of the others only.
#[test]
fn a_reset_before_the_head_has_left_takes_the_stream_back() {
    let mut bench = Bench::client();
    for (cancelled, ended) in [(3, false), (5, true), (9, false)] {
        while bench.open(ended) < cancelled {}
        bench.send(cancelled, vec![1; 100], true);
        assert!(bench.conn.is_unsent(StreamId(cancelled)));
        bench.conn.send_reset(StreamId(cancelled), ErrorCode::CANCEL);
    }
    assert_eq!(bench.conn.streams(), 2);
    bench.conn.check_invariants();
    let heads = bench.take_shapes();
    assert_eq!(heads, [(HEADERS, END_HEADERS, 1), (HEADERS, END_HEADERS, 7)]);
    assert!(!bench.conn.is_unsent(StreamId(7)));
    // The table moved with what was sent, and with nothing else.
    assert_eq!(bench.give(&[response(7, END_STREAM), response(1, END_STREAM)]).len(), 2);
    assert_eq!(bench.open(true), 11);
    assert_eq!(bench.take_shapes(), [(HEADERS, END_HEADERS | END_STREAM, 11)]);
}

/// An owner who keeps request heads lends each one once, when it is written; those that were
/// taken back are not asked for.
#[test]
fn a_lent_head_is_asked_for_when_it_leaves() {
    let mut bench = Bench::client();
    let named = |name| [&REQUEST[..], &[("x-name", name)]].concat();
    let kept = ["a", "b", "c"].map(|name| section(&named(name)));
    let [sent, cancelled, given] =
        [0, 1, 2].map(|tag| bench.conn.open_lent(&kept[tag], false, tag as u64).unwrap());
    bench.open(true);
    bench.send(sent.0, "x", true);
    bench.conn.send_reset(cancelled, ErrorCode::CANCEL);
    // The owner has no use for it any more: now the connection keeps it.
    bench.conn.give_head(given, kept[2].clone());
    bench.conn.check_invariants();
    let asked = std::cell::RefCell::new(Vec::new());
    let mut out = Transmit::new();
    bench.conn.poll_transmit_lent(&mut out, usize::MAX, |tag| {
        asked.borrow_mut().push(tag);
        kept.get(tag as usize)
    });
    assert_eq!(*asked.borrow(), [0]);
    // Too late for the wire: its memory is used again.
    bench.conn.give_head(sent, kept[0].clone());
    bench.conn.check_invariants();
    let request = |stream: StreamId, name, ends| {
        let fields = named(name).into_iter().map(|(name, value)| (name.into(), value.into()));
        Seen::Headers(stream.0, SectionKind::Request, fields.collect(), ends)
    };
    let heard = Bench::server().give_octets(&out.slices().collect::<Vec<_>>().concat());
    let [first, second, _, data] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!(*first, request(sent, "a", false));
    assert_eq!(*second, request(given, "c", false));
    assert_eq!(*data, Seen::Data(sent.0, b"x".to_vec(), true));
}

/// What a GOAWAY leaves out is refused, and nothing of it is written any more.
#[test]
fn a_goaway_takes_heads_that_have_not_left() {
    let mut bench = Bench::client();
    bench.open(true);
    bench.take();
    bench.conn.open(section(&REQUEST), true, 0).unwrap();
    let octets = goaway(1, ErrorCode::NO_ERROR, "").octets();
    bench.conn.recv(octets.into(), bench.now);
    let events: Vec<Seen> = bench.events().iter().map(seen).collect();
    assert_eq!(events[1..], [Seen::Refused(3)]);
    assert!(!bench.conn.wants_transmit());
    assert_eq!(bench.take(), []);
}

/// Ends that come before the head has left go behind it, in order, and never with it: gRPC's
/// protocol wants the end of a request without messages on a DATA frame of its own, and grpc-go's
/// server never answers one whose head ends it.
#[test]
fn what_is_said_before_the_head_has_left_stays_behind_it() {
    let mut bench = Bench::client();
    let [bare, body, told] = [bench.open(false), bench.open(false), bench.open(false)];
    bench.send(bare, "", true);
    bench.send(body, "x", true);
    bench.send_trailers(told);
    let last = bench.open(true);
    let mut said = bench.take_shapes();
    assert_eq!(said.pop(), Some((DATA, END_STREAM, body)), "DATA is last");
    let end = END_HEADERS | END_STREAM;
    let order = [
        (HEADERS, END_HEADERS, bare),
        (DATA, END_STREAM, bare),
        (HEADERS, END_HEADERS, body),
        (HEADERS, END_HEADERS, told),
        (HEADERS, end, told),
        (HEADERS, end, last),
    ];
    assert_eq!(said, order);
}

/// To the peer such a stream is idle, whatever it guesses.
#[test]
fn nobody_answers_what_was_not_asked() {
    for guess in [response(1, 0), data(1, 0, "x"), update(1, 1), rst(1, ErrorCode::CANCEL)] {
        let now = start();
        let mut conn = Connection::new(Role::Client, Limits::default(), classify_none, now);
        let settled = [settings(&[]), settings_ack(), guess];
        conn.open(section(&REQUEST), true, 0).unwrap();
        let octets: Vec<u8> = settled.iter().flat_map(Frame::octets).collect();
        conn.recv(octets.into(), now);
        let mut last = None;
        while let Some(event) = conn.poll_event() {
            last = Some(seen(&event));
        }
        assert_eq!(last, Some(Seen::Failed(ErrorCode::PROTOCOL_ERROR)));
    }
}

#[test]
fn reset_after_an_early_response_waits_for_it() {
    // RFC 9113 §8.1: the whole response, then RST_STREAM NO_ERROR.
    let mut bench = Bench::server();
    bench.give(&[request(1, 0), data(1, 0, "half a re")]);
    bench.respond(1, false);
    bench.send(1, "no", false);
    bench.send_trailers(1);
    bench.conn.send_reset(StreamId(1), ErrorCode::NO_ERROR);
    assert_eq!(bench.give(&[data(1, 0, "quest")]), [], "nobody listens");
    let said = bench.take();
    assert_eq!(said[1], data(1, 0, "no"));
    assert_eq!((said[2].kind, said[2].flags), (HEADERS, END_STREAM | END_HEADERS));
    assert_eq!(said[3..], [rst(1, ErrorCode::NO_ERROR)]);
    assert_eq!(bench.conn.streams(), 0);
}

#[test]
fn no_reset_if_the_peer_ends_before_the_early_response_is_out() {
    let mut bench = Bench::server();
    bench.give(&[request(1, 0), data(1, 0, "abc")]);
    bench.respond(1, false);
    bench.send(1, "no", true);
    bench.conn.send_reset(StreamId(1), ErrorCode::NO_ERROR);
    assert_eq!(bench.give(&[data(1, END_STREAM, "late")]), []);
    bench.conn.release(StreamId(1), 3);
    bench.conn.check_invariants();
    assert_eq!(bench.take_shapes(), [(HEADERS, END_HEADERS, 1), (DATA, END_STREAM, 1)]);
    assert_eq!(bench.conn.streams(), 0);
}

#[test]
fn reset_by_the_peer_drops_what_is_queued() {
    let mut bench = Bench::server();
    bench.give(&[request(1, 0)]);
    bench.respond(1, false);
    bench.take();
    bench.send(1, "lost", false);
    assert_eq!(bench.give(&[rst(1, ErrorCode::CANCEL)]), [Seen::Reset(1, ErrorCode::CANCEL)]);
    assert_eq!(bench.take(), []);
    assert_eq!(bench.conn.poll_sent(), None);
    bench.send(1, "gone", true);
    bench.send_trailers(1);
    bench.conn.release(StreamId(1), 5);
    assert_eq!(bench.take(), []);
}

#[test]
fn ping_and_pong() {
    let mut bench = Bench::client();
    bench.conn.ping(*b"abcdefgh");
    assert_eq!(bench.take(), [frame(PING, 0, 0, b"abcdefgh")]);
    let events = bench.give(&[frame(PING, ACK, 0, b"abcdefgh"), frame(PING, 0, 0, b"01234567")]);
    assert_eq!(events, [Seen::Pong(*b"abcdefgh")]);
    assert_eq!(bench.take(), [frame(PING, ACK, 0, b"01234567")]);
}

#[test]
fn a_ping_may_wait_for_company_but_not_long() {
    let delay = Duration::from_millis(10);
    let limits = Limits { ping_ack_delay: delay, ..Limits::default() };
    let mut bench = Bench::settled(Role::Client, limits);
    let start = bench.now;
    bench.give(&[frame(PING, 0, 0, b"01234567")]);
    assert!(!bench.conn.wants_transmit(), "alone it is no reason to send");
    assert_eq!(bench.conn.poll_timeout(), Some(start + 3 * delay));
    // Too early to ride on the first send, in time for the second.
    bench.conn.ping(*b"abcdefgh");
    assert_eq!(bench.take(), [frame(PING, 0, 0, b"abcdefgh")]);
    bench.conn.handle_timeout(start + delay);
    assert!(!bench.conn.wants_transmit());
    bench.conn.ping(*b"abcdefgh");
    let both = [frame(PING, 0, 0, b"abcdefgh"), frame(PING, ACK, 0, b"01234567")];
    assert_eq!(bench.take(), both);
    // Nothing else to send: it goes by itself.
    bench.now = start + delay;
    bench.give(&[frame(PING, 0, 0, b"76543210")]);
    bench.conn.handle_timeout(start + 4 * delay);
    assert_eq!(bench.take(), [frame(PING, ACK, 0, b"76543210")]);
    // A second one while one waits: both at once, in order.
    bench.give(&[frame(PING, 0, 0, b"aaaaaaaa"), frame(PING, 0, 0, b"bbbbbbbb")]);
    let both = [frame(PING, ACK, 0, b"aaaaaaaa"), frame(PING, ACK, 0, b"bbbbbbbb")];
    assert_eq!(bench.take(), both);
}

#[test]
fn goaway_of_the_server() {
    let mut bench = Bench::server();
    bench.give(&[request(1, 0)]);
    bench.conn.goaway_notice();
    assert_eq!(bench.take(), [goaway((1 << 31) - 1, ErrorCode::NO_ERROR, "")]);
    assert!(!bench.conn.is_retired());
    assert_eq!(bench.give(&[request(3, 0)]).len(), 1, "still accepted");
    bench.conn.goaway(ErrorCode::NO_ERROR, "bye");
    assert_eq!(bench.take(), [goaway(3, ErrorCode::NO_ERROR, "bye")]);
    assert!(bench.conn.is_retired());
    assert_eq!(bench.give(&[request(5, 0), data(5, END_STREAM, "x")]), []);
    assert_eq!(bench.take(), [rst(5, ErrorCode::REFUSED_STREAM)]);
    bench.respond(3, true);
    assert_eq!(bench.take_shapes(), [(HEADERS, END_HEADERS | END_STREAM, 3)]);
    assert_eq!(bench.give(&[data(1, END_STREAM, "on")]).len(), 1, "in flight goes on");
}

#[test]
fn goaway_seen_by_the_client() {
    let mut bench = Bench::client();
    for _ in 0..3 {
        bench.open(false);
    }
    bench.take();
    let events = bench.give(&[goaway(1, ErrorCode::ENHANCE_YOUR_CALM, "too_many_pings")]);
    let expected = [
        Seen::Goaway(1, ErrorCode::ENHANCE_YOUR_CALM, b"too_many_pings".to_vec()),
        Seen::Refused(3),
        Seen::Refused(5),
    ];
    assert_eq!(events, expected);
    assert!(bench.conn.is_retired());
    assert_eq!((bench.conn.can_open(), bench.conn.streams()), (0, 1));
    assert_eq!(bench.conn.open(section(&REQUEST), true, 0), Err(OpenError::Retired));
    assert_eq!(bench.give(&[response(1, END_STREAM)]).len(), 1);
}

#[test]
fn concurrency_of_the_peer() {
    let mut bench = Bench::client();
    bench.give(&[settings(&[(3, 2)])]);
    bench.open(true);
    bench.open(true);
    assert_eq!(bench.conn.open(section(&REQUEST), true, 0), Err(OpenError::Full));
    bench.give(&[response(1, END_STREAM)]);
    assert_eq!(bench.conn.can_open(), 1);
    bench.give(&[settings(&[(3, 0)])]);
    assert_eq!(bench.conn.can_open(), 0);
}

#[test]
fn stream_ids_run_out() {
    let mut bench = Bench::client();
    bench.conn.next_id = WINDOW_MAX - 2;
    assert_eq!(bench.conn.can_open(), 2);
    assert_eq!(bench.open(true), WINDOW_MAX - 2);
    assert_eq!(bench.open(true), WINDOW_MAX);
    assert_eq!(bench.conn.can_open(), 0);
    assert!(bench.conn.is_retired());
    assert_eq!(bench.conn.open(section(&REQUEST), true, 0), Err(OpenError::Retired));
}

#[test]
fn timeouts_of_the_preface_and_of_the_acknowledgement() {
    for heard in [&[][..], &[settings(&[])]] {
        let mut bench = Bench::fresh(Role::Client, Limits::default());
        bench.give(heard);
        let deadline = bench.conn.poll_timeout().unwrap();
        assert_eq!(deadline - bench.now, Duration::from_secs(10));
        bench.conn.handle_timeout(deadline - Duration::from_millis(1));
        assert!(!bench.conn.has_failed());
        bench.conn.handle_timeout(deadline);
        let events: Vec<Seen> = bench.events().iter().map(seen).collect();
        assert_eq!(events, [Seen::Failed(ErrorCode::SETTINGS_TIMEOUT)]);
        assert_eq!(bench.conn.poll_timeout(), None);
    }
    assert_eq!(Bench::client().conn.poll_timeout(), None);
}

#[test]
fn output_stops_near_the_limit_and_loses_nothing() {
    let mut bench = Bench::server();
    bench.give(&[request(1, END_STREAM), settings(&[(4, 1 << 20)]), update(0, 1 << 20)]);
    bench.respond(1, false);
    bench.send(1, vec![9; 100_000], true);
    let mut all = Vec::new();
    let mut rounds = 0;
    while bench.conn.wants_transmit() {
        let mut out = Transmit::new();
        bench.conn.poll_transmit(&mut out, 20_000);
        assert!(out.len < 20_000 + (16 << 10) + 9);
        all.extend(out.slices().flatten());
        rounds += 1;
    }
    assert!(rounds >= 4);
    let frames = Frame::parse_all(&all);
    let octets: usize = frames.iter().filter(|f| f.kind == DATA).map(|f| f.payload.len()).sum();
    assert_eq!(octets, 100_000);
}

#[test]
fn a_full_control_queue_stops_opening() {
    let limits = Limits { control_bytes_max: 1000, ..Limits::default() };
    let mut bench = Bench::settled(Role::Client, limits);
    let mut opened = 0;
    while bench.conn.can_open() > 0 {
        bench.open(true);
        opened += 1;
    }
    assert!((5..200).contains(&opened), "{opened}");
    bench.take();
    assert!(bench.conn.can_open() > 0);
}

/// The idle connection's size, for the memory budget. Loosen with thought.
#[test]
fn idle_is_small() {
    assert!(size_of::<Connection>() <= 1456, "{}", size_of::<Connection>());
    let mut bench = Bench::server();
    for n in 0..100 {
        bench.give(&[request(2 * n + 1, END_STREAM)]);
    }
    for n in 0..100 {
        bench.respond(2 * n + 1, true);
    }
    bench.take();
    bench.give(&[settings_ack()]);
    assert_eq!(bench.conn.streams(), 0);
    assert!(bench.conn.is_large(), "calls that come next need no new memory");
    let at = bench.conn.poll_timeout().expect("a look");
    bench.conn.handle_timeout(at);
    assert!(!bench.conn.is_large(), "{:?}", bench.conn);
    assert_eq!(bench.conn.poll_timeout(), None);
}

/// Whoever has a stream is not idle, and is looked at again.
#[test]
fn a_busy_connection_keeps_its_memory() {
    let mut bench = Bench::server();
    bench.give(&[settings_ack()]);
    for n in 0..100 {
        bench.give(&[request(2 * n + 1, END_STREAM)]);
    }
    let first = bench.conn.poll_timeout().expect("a look");
    bench.conn.handle_timeout(first);
    let next = bench.conn.poll_timeout().expect("another look");
    assert!(bench.conn.is_large() && next > first);
    for n in 0..100 {
        bench.respond(2 * n + 1, true);
    }
    bench.take();
    bench.conn.handle_timeout(next);
    assert_eq!((bench.conn.is_large(), bench.conn.poll_timeout()), (false, None));
}

/// What an idle peer says, and hears, is no reason to look.
#[test]
fn pings_take_no_memory() {
    let mut bench = Bench::server();
    bench.give(&[settings_ack()]);
    let look = bench.conn.poll_timeout();
    look.into_iter().for_each(|at| bench.conn.handle_timeout(at));
    bench.conn.ping([1; 8]);
    bench.take();
    for kind in [0, ACK] {
        bench.give(&[frame(PING, kind, 0, [1; 8])]);
        bench.take();
        assert_eq!(bench.conn.poll_timeout(), None);
    }
}

#[test]
fn spares_are_few_and_small() {
    let mut bench = Bench::server();
    let mut large = FieldSection::new();
    large.push(b"x", &[b'v'; 20_000]);
    bench.conn.recycle(large);
    assert_eq!(bench.conn.spares.len(), 0);
    let one = section(&REQUEST).kept();
    for _ in 0..2 * SPARES_OCTETS_MAX / one {
        bench.conn.recycle(section(&REQUEST));
    }
    assert_eq!(bench.conn.spares.len(), SPARES_OCTETS_MAX / one);
    let spare = bench.conn.spare();
    assert!(spare.is_empty() && spare.kept() > 0);
}

/// By code, once, and nothing when nothing was ended.
#[test]
fn tells_what_it_ended() {
    let mut bench = Bench::server();
    bench.give(&[request(1, 0), request(3, 0), request(5, 0)]);
    assert!(bench.conn.take_said().is_none());
    bench.conn.send_reset(StreamId(1), ErrorCode::CANCEL);
    bench.conn.send_reset(StreamId(3), ErrorCode::CANCEL);
    bench.conn.send_reset(StreamId(5), ErrorCode(77));
    bench.conn.goaway_notice();
    bench.give(&[data(0, 0, "of no stream")]);
    let said: Vec<_> = bench.conn.take_said().unwrap().iter().collect();
    let unknown = ErrorCode(ErrorCode::HTTP_1_1_REQUIRED.0 + 1);
    let resets = [(false, ErrorCode::CANCEL, 2), (false, unknown, 1)];
    let goaways = [(true, ErrorCode::NO_ERROR, 1), (true, ErrorCode::PROTOCOL_ERROR, 1)];
    assert_eq!(said, [resets, goaways].concat());
    assert_eq!(unknown.name(), "UNKNOWN");
    assert!(bench.conn.take_said().is_none());
}
