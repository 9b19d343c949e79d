//! Calls that an upstream did not look at, made again.

use super::*;
use crate::http2::ErrorCode;

const TO_APP: [(&str, &str); 1] = [("dapr-callee-app-id", "client")];
const REFUSED: u32 = 7;
const OK: &str = "grpc-status=0 END";
const LEFT_OUT: &str = "grpc-status=14 grpc-message=the stream is rejected because server is \
                        draining the connection (the app at 127.0.0.1:50051, seen by the sidecar \
                        of client) END";

/// The app says goodbye, and reads nothing more until it comes back.
pub(super) fn part(bench: &mut Bench, app: ConnId) -> (Connection, Bytes) {
    let mut end = bench.ends.remove(&app).unwrap();
    let mut goodbye = Transmit::new();
    end.goaway(ErrorCode::NO_ERROR, "");
    end.poll_transmit(&mut goodbye, 1 << 16);
    (end, goodbye.slices().collect::<Vec<_>>().concat().into())
}

fn body(octets: usize) -> Vec<u8> {
    let size = u32::try_from(octets).unwrap().to_be_bytes();
    let text = (0..octets).map(|n| (n * 7 % 251) as u8);
    [0].into_iter().chain(size).chain(text).collect()
}

fn is_empty(bench: &Bench) -> bool {
    bench.proxy.keeper.is_empty()
}

/// RFC 9113 §6.8: the callee says goodbye while a second call is on its way to it.
#[test]
fn a_call_that_a_goaway_left_out_is_made_again() {
    let mut bench = Bench::new(config());
    let callers = [bench.accept(Listener::Internal), bench.accept(Listener::Internal)];
    bench.call(callers[0], &TO_APP, Some(MESSAGE));
    let app = bench.dial_done();
    let (end, goodbye) = part(&mut bench, app);
    let fields = [TO_APP[0], ("x-mine", "1"), ("grpc-timeout", "10S")];
    let stream = bench.call(callers[1], &fields, None);
    let message = body(5000);
    bench.send(callers[1], stream, &message, false);
    bench.send(callers[1], stream, &message[..100], false);
    assert_eq!((bench.proxy.calls(), bench.dialed.len()), (2, 1), "both are with the callee");
    bench.handle(Input::Received { conn: app, bytes: goodbye });
    assert!(bench.seen[&callers[1]].is_empty(), "{:?}", bench.seen);
    assert_eq!(bench.dialed.len(), 2);
    // The end of the request comes while the call waits.
    bench.send(callers[1], stream, &message[100..], true);
    bench.now += Duration::from_secs(4);
    let second = bench.dial_done();
    let head = "1 HEADERS :method=POST :scheme=http :path=/a.B/C :authority=127.0.0.1:50051 \
                dapr-callee-app-id=client x-mine=1 content-type=application/grpc+proto te=trailers \
                grpc-timeout=6000000u";
    assert_eq!(bench.seen[&second][0], head);
    assert_eq!(bench.bodies[&(second, 1)], [&message[..], &message].concat());
    assert!(bench.last(second).ends_with("END"));
    bench.answer(second, 1, MESSAGE);
    assert!(bench.last(callers[1]).ends_with(OK), "{}", bench.last(callers[1]));
    assert_eq!(bench.seen[&callers[1]].len(), 3, "one head, one message, one end");
    // The first call is not concerned.
    bench.ends.insert(app, end);
    bench.answer(app, 1, MESSAGE);
    assert!(bench.last(callers[0]).ends_with(OK), "{:?}", bench.seen);
    assert!(is_empty(&bench));
    assert_eq!(counted(&mut bench).replays(), 1);
}

/// RFC 9113 §8.7. Once: who refuses again may be overloaded.
#[test]
fn a_refused_call_is_made_again_once() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &TO_APP, Some(MESSAGE));
    let app = bench.dial_done();
    bench.reset(app, 1, REFUSED);
    assert!(bench.last(app).starts_with("3 DATA 7 END"), "{:?}", bench.seen[&app]);
    bench.answer(app, 3, MESSAGE);
    assert!(bench.last(caller).ends_with(OK), "{}", bench.last(caller));
    bench.call(caller, &TO_APP, Some(MESSAGE));
    bench.reset(app, 5, REFUSED);
    assert_eq!(bench.proxy.calls(), 1);
    bench.reset(app, 7, REFUSED);
    let text = "grpc-status=14 grpc-message=stream terminated by RST_STREAM with error code: \
                REFUSED_STREAM (the app at 127.0.0.1:50051, seen by the sidecar of client) END";
    assert!(bench.last(caller).ends_with(text), "{}", bench.last(caller));
    // The connection serves on.
    bench.call(caller, &TO_APP, Some(MESSAGE));
    bench.answer(app, 9, MESSAGE);
    assert!(bench.last(caller).ends_with(OK), "{:?}", bench.seen);
    assert_eq!(bench.dialed.len(), 1);
    assert!(is_empty(&bench));
}

#[test]
fn a_refused_call_goes_to_another_connection_if_there_is_one() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    let two = || Limits { max_concurrent_streams: Some(2), ..Limits::default() };
    let first = bench.call(caller, &TO_APP, Some(MESSAGE));
    let one = bench.dial_done_with(two());
    bench.call(caller, &TO_APP, Some(MESSAGE));
    bench.call(caller, &TO_APP, Some(MESSAGE));
    let other = bench.dial_done_with(two());
    assert_eq!(bench.count(other, "HEADERS"), 1);
    bench.reset(one, 1, REFUSED);
    assert_eq!((bench.count(one, "HEADERS"), bench.count(other, "HEADERS")), (2, 2));
    bench.answer(other, 3, MESSAGE);
    let last = bench.last(caller);
    assert!(last.ends_with(OK) && last.starts_with(&first.0.to_string()), "{last}");
}

/// Anything of the response may have been acted on.
#[test]
fn a_call_that_was_begun_to_be_answered_is_not_made_again() {
    let head = [(":status", "200"), ("content-type", "application/grpc")];
    for goaway in [false, true] {
        let mut bench = Bench::new(config());
        let caller = bench.accept(Listener::Internal);
        bench.call(caller, &TO_APP, Some(MESSAGE));
        let app = bench.dial_done();
        bench.say(app, 1, &head, false);
        assert!(is_empty(&bench), "what cannot be made again is not kept");
        if goaway {
            // A callee that contradicts itself.
            let goodbye = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
            bench.handle(Input::Received { conn: app, bytes: Bytes::from_static(goodbye) });
            assert!(bench.last(caller).ends_with(LEFT_OUT), "{}", bench.last(caller));
        } else {
            bench.reset(app, 1, REFUSED);
            assert!(bench.last(caller).contains("grpc-status=14"), "{}", bench.last(caller));
        }
        assert_eq!((bench.proxy.calls(), bench.dialed.len()), (0, 1));
    }
}

/// A request larger than what is kept of one.
#[test]
fn a_call_that_is_not_at_hand_any_more_is_not_made_again() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    let stream = bench.call(caller, &TO_APP, None);
    let app = bench.dial_done();
    let message = body(replay::CALL_OCTETS_MAX);
    bench.send(caller, stream, &message, false);
    assert!(is_empty(&bench));
    bench.reset(app, 1, REFUSED);
    let last = &bench.seen[&caller];
    assert!(
        last.iter().any(|seen| seen.contains("error code: REFUSED_STREAM (the app")),
        "{last:?}"
    );
    assert_eq!((bench.proxy.calls(), bench.count(app, "HEADERS")), (0, 1));
}

/// A callee that accepts connections and no calls.
#[test]
fn a_call_is_not_made_again_without_end() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.run();
    let goodbye = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
    bench.call(caller, &TO_APP, Some(MESSAGE));
    for turn in 0..=usize::from(replay::REPLAYS_MAX) {
        assert_eq!((bench.dialed.len(), bench.proxy.calls()), (turn + 1, 1));
        let app = bench.dial_done();
        bench.handle(Input::Received { conn: app, bytes: Bytes::from_static(goodbye) });
    }
    assert_eq!(bench.dialed.len(), 1 + usize::from(replay::REPLAYS_MAX));
    assert!(bench.last(caller).ends_with(LEFT_OUT), "{}", bench.last(caller));
    assert!(is_empty(&bench));
    assert_eq!(counted(&mut bench).replays(), u64::from(replay::REPLAYS_MAX));
}

/// The socket ends before it was given anything of the call.
#[test]
fn a_call_that_never_left_is_made_again() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &TO_APP, Some(MESSAGE));
    let app = bench.dial_done();
    // This one is with the app.
    let sent = bench.call(caller, &TO_APP, Some(MESSAGE));
    let unsent = bench.call_quietly(caller, &TO_APP);
    let end = bench.ends.get_mut(&caller).unwrap();
    end.send_data(unsent, Bytes::from_static(MESSAGE), true);
    bench.pull(caller);
    bench.proxy.handle(Input::Closed { conn: app, reason: CloseReason::Eof }, bench.now);
    bench.ends.remove(&app);
    bench.run();
    assert_eq!(bench.proxy.calls(), 1);
    let told = bench.seen[&caller].join("\n");
    let lost = format!(
        "{} HEADERS :status=200 content-type=application/grpc grpc-status=14 grpc-message=error \
         reading from server: EOF (the app at 127.0.0.1:50051, seen by the sidecar of client) END",
        sent.0
    );
    assert!(told.contains(&lost), "{told}");
    let again = bench.dial_done();
    assert_eq!(bench.bodies[&(again, 1)], MESSAGE);
    bench.answer(again, 1, MESSAGE);
    assert_eq!(bench.last(caller), format!("{} HEADERS {OK}", unsent.0));
}

/// A connection that we end ourselves takes no heads along that nobody had written yet.
#[test]
fn a_call_that_had_not_left_at_our_goodbye_is_made_again() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &TO_APP, Some(MESSAGE));
    let app = bench.dial_done();
    bench.call_quietly(caller, &TO_APP);
    bench.pull(caller);
    // A frame that belongs to no stream, on one.
    let broken = b"\0\0\x08\x06\0\0\0\0\x01........";
    let bytes = Bytes::from_static(broken);
    bench.proxy.handle(Input::Received { conn: app, bytes }, bench.now);
    bench.run();
    assert_eq!(bench.count(app, "HEADERS"), 1);
    assert_eq!((bench.count(caller, "grpc-status=14"), bench.proxy.calls()), (1, 1));
    let again = bench.dial_done();
    bench.answer(again, 1, MESSAGE);
    assert!(bench.seen[&caller].contains(&format!("3 HEADERS {OK}")), "{}", bench.last(caller));
}

#[test]
fn a_deadline_bounds_all_attempts() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &[TO_APP[0], ("grpc-timeout", "1S")], Some(MESSAGE));
    let app = bench.dial_done();
    bench.now += Duration::from_secs(1);
    bench.reset(app, 1, REFUSED);
    assert!(bench.last(caller).contains("grpc-status=4 grpc-message=context deadline exceeded"));
    assert_eq!(bench.count(app, "HEADERS"), 1);
    assert!(is_empty(&bench));
}

/// The caller has had its window back for what was sent once; what it sends meanwhile waits for its
/// own turn.
#[test]
fn windows_count_each_octet_once() {
    const KIB: usize = 1 << 10;
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    let stream = bench.call(caller, &TO_APP, None);
    let app = bench.dial_done();
    let message = body(200 * KIB);
    let (first, rest) = message.split_at(100 * KIB);
    bench.send(caller, stream, first, false);
    let held = |bench: &Bench| {
        let key = ConnKey::from(caller);
        bench.proxy.peers[key].h2.held(stream) as usize
    };
    assert_eq!(held(&bench), 0, "all of it is with the app");
    let (_, _) = part(&mut bench, app);
    let goodbye = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
    bench.handle(Input::Received { conn: app, bytes: Bytes::from_static(goodbye) });
    bench.stalled = true;
    let narrow = Limits { stream_window: 65_535, ..Limits::default() };
    let second = bench.dial_done_with(narrow);
    bench.send(caller, stream, rest, true);
    assert_eq!(bench.bodies[&(second, 1)].len(), 65_535);
    assert_eq!(held(&bench), rest.len(), "none of it was sent yet");
    bench.ends.get_mut(&second).unwrap().release(StreamId(1), 65_535);
    bench.run();
    assert_eq!(held(&bench), rest.len() - (2 * 65_535 - first.len()));
    for _ in 0..4 {
        bench.ends.get_mut(&second).unwrap().release(StreamId(1), 65_535);
        bench.run();
    }
    assert_eq!(held(&bench), 0);
    assert_eq!(bench.bodies[&(second, 1)], message);
    bench.stalled = false;
    bench.answer(second, 1, MESSAGE);
    assert!(bench.last(caller).ends_with(OK));
}

/// Whatever the reason why a call ends, nothing is kept of it.
#[test]
fn nothing_is_kept_of_calls_that_are_over() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    let first = bench.call(caller, &[TO_APP[0], ("grpc-timeout", "1S")], Some(MESSAGE));
    let app = bench.dial_done();
    let mut streams = vec![first];
    streams.extend((0..6).map(|_| bench.call(caller, &TO_APP, None)));
    assert!(!is_empty(&bench));
    bench.wait(Duration::from_secs(1));
    bench.reset(caller, streams[1].0, 8);
    bench.reset(app, 5, 2);
    bench.say(app, 7, &[(":status", "200"), ("grpc-status", "0")], true);
    bench.say(app, 9, &[(":status", "503")], true);
    bench.send(caller, streams[5], &body(5 << 20)[..5], true);
    assert_eq!(bench.proxy.calls(), 1);
    bench.handle(Input::Closed { conn: app, reason: CloseReason::Eof });
    assert_eq!(bench.proxy.calls(), 0);
    assert!(is_empty(&bench));
}

/// The callee of a request without `:authority` is told one, each time.
#[test]
fn an_authority_that_was_missing_is_not_added_twice() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    let mut fields = FieldSection::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/a.B/C"),
        ("content-type", "application/grpc"),
        TO_APP[0],
    ] {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    bench.run();
    bench.ends.get_mut(&caller).unwrap().open(fields, true, 0).unwrap();
    bench.run();
    let app = bench.dial_done();
    bench.reset(app, 1, REFUSED);
    let [first, second] = [0, 1].map(|n| {
        let mut heads = bench.seen[&app].iter().filter(|seen| seen.contains("HEADERS"));
        heads.nth(n).unwrap().split_once(' ').unwrap().1.to_owned()
    });
    assert_eq!(first, second);
    assert_eq!(first.matches(":authority=").count(), 1);
}

/// A connection that takes no more calls may leave some out when it says its last word: its pool
/// is there for them, though nobody else was in it and its target is not found just then.
#[test]
fn a_pool_waits_for_the_calls_of_those_that_leave_it() {
    const TO: [(&str, &str); 1] = [("dapr-app-id", "server")];
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &TO, Some(MESSAGE));
    bench.resolve();
    let callee = bench.dial_done();
    bench.ends.get_mut(&callee).unwrap().goaway_notice();
    bench.run();
    bench.call(caller, &TO, Some(MESSAGE));
    for _ in 0..3 {
        if bench.resolves.len() == 1 {
            let (conn, ..) = *bench.dialed.last().unwrap();
            bench.handle(Input::DialFailed { conn, error: "connection refused".to_owned() });
        }
    }
    let target = bench.resolves[1].clone();
    let result = Err("couldn't find service: server".into());
    bench.handle(Input::Resolved(Resolution { target, result }));
    assert!(bench.last(caller).contains("couldn't find service"), "{:?}", bench.seen[&caller]);
    bench.reset(callee, 1, REFUSED);
    assert_eq!((bench.proxy.calls(), bench.resolves.len()), (1, 3), "{:?}", bench.resolves);
    bench.resolve();
    let second = bench.dial_done();
    bench.answer(second, 1, MESSAGE);
    assert!(bench.last(caller).ends_with(OK), "{:?}", bench.seen[&caller]);
}
