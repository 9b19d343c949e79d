//! What becomes of a status, or of what stands for one, on its way to the caller.

use super::*;
use crate::grpc::Code;
use crate::observe::cells::Goodbye;

const TO_APP: [(&str, &str); 1] = [("dapr-callee-app-id", "client")];
const HEAD: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/grpc")];
const BY_APP: &str = "(the app at 127.0.0.1:50051, seen by the sidecar of client)";

/// A bench, its caller, the app that has got the caller's call.
fn called(more: &[(&str, &str)], body: Option<&[u8]>) -> (Bench, ConnId, ConnId) {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &[&TO_APP, more].concat(), body);
    let app = bench.dial_done();
    (bench, caller, app)
}

/// gRPC's table, as grpc-go has it; toward the callee every one of them is CANCEL.
#[test]
fn resets_of_either_side() {
    const NAMES: [&str; 15] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
        "unknown error code 0xe",
    ];
    const STATUSES: [u8; 15] = [13, 13, 13, 8, 13, 13, 13, 14, 1, 13, 13, 8, 7, 13, 2];
    for (code, (name, status)) in (0..).zip(NAMES.into_iter().zip(STATUSES)) {
        let (mut bench, caller, app) = called(&[], Some(MESSAGE));
        // One that is refused is made again first, unless it was begun to be answered.
        bench.say(app, 1, &HEAD, false);
        bench.reset(app, 1, code);
        let text = format!(
            "1 HEADERS grpc-status={status} grpc-message=stream terminated by RST_STREAM with \
             error code: {name} {BY_APP} END"
        );
        assert_eq!(bench.last(caller), text);

        let (mut bench, caller, app) = called(&[], None);
        bench.reset(caller, 1, code);
        assert_eq!(bench.last(app), "1 RESET CANCEL", "{name}");
        assert_eq!(bench.proxy.calls(), 0);
        let code = if code < 14 { name } else { "UNKNOWN" };
        let heard = Goodbye { sent: false, of_connection: false, downstream: true, code };
        let said = Goodbye { sent: true, downstream: false, code: "CANCEL", ..heard };
        assert_eq!(bench.proxy.cells.goodbyes(), [(heard, 1), (said, 1)]);
    }
}

/// RFC 9113 §8.1: the app has said all and wants no more of the request.
#[test]
fn an_early_end_keeps_its_status() {
    for only in [true, false] {
        let (mut bench, caller, app) = called(&[], None);
        let end = [("grpc-status", "9"), ("grpc-message", "not%20now"), ("x", "y")];
        if only {
            bench.say(app, 1, &[&HEAD[..], &end].concat(), true);
        } else {
            bench.say(app, 1, &HEAD, false);
            bench.say(app, 1, &end, true);
        }
        bench.reset(app, 1, 0);
        let seen = bench.seen[&caller].join("\n");
        assert!(seen.contains("grpc-status=9 grpc-message=not%20now x=y END"), "{seen}");
        assert!(seen.ends_with("1 RESET NO_ERROR"), "{seen}");
        // What the caller still sends bothers nobody.
        bench.send(caller, StreamId(1), MESSAGE, true);
        assert_eq!(bench.proxy.calls(), 0);
        assert!(!bench.seen[&caller].iter().any(|seen| seen.contains("FAILED")));
    }
}

/// The same to a caller that is slow to read: the status waits behind the messages.
#[test]
fn an_early_end_waits_for_a_slow_reader() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    let narrow = Limits { stream_window: 4, ..Limits::default() };
    let h2 = Connection::new(Role::Client, narrow, head::classify, bench.now);
    bench.ends.insert(caller, h2);
    bench.stalled = true;
    bench.run();
    bench.call(caller, &TO_APP, None);
    let app = bench.dial_done();
    bench.say(app, 1, &HEAD, false);
    bench.send(app, StreamId(1), MESSAGE, false);
    bench.say(app, 1, &[("grpc-status", "8"), ("grpc-message", "enough")], true);
    bench.reset(app, 1, 0);
    assert_eq!(bench.last(caller), "1 DATA 4");
    // The app's connection may be gone by the time that the caller reads on.
    bench.handle(Input::Closed { conn: app, reason: CloseReason::Eof });
    for octets in [4, 3] {
        bench.ends.get_mut(&caller).unwrap().release(StreamId(1), octets);
        bench.run();
    }
    assert_eq!(bench.bodies[&(caller, 1)], MESSAGE);
    let seen = bench.seen[&caller].join("\n");
    let end = "1 HEADERS grpc-status=8 grpc-message=enough END\n1 RESET NO_ERROR";
    assert!(seen.ends_with(end), "{seen}");
}

/// Who answers in HTTP: a front end, a login page, a web server at the app's port.
#[test]
fn an_http_answer_is_never_passed_on() {
    for (status, kind, code, why) in [
        (
            "502",
            Some("text/html"),
            14,
            "502 (Bad Gateway); transport: received unexpected content-type \"text/html\"",
        ),
        ("404", None, 12, "404 (Not Found); malformed header: missing HTTP content-type"),
        (
            "200",
            Some("text/html"),
            2,
            "200 (OK); transport: received unexpected content-type \"text/html\"",
        ),
        ("503", Some("application/grpc"), 14, "503 (Service Unavailable)"),
    ] {
        for whole in [true, false] {
            let (mut bench, caller, app) = called(&[], Some(MESSAGE));
            let mut head = vec![(":status", status)];
            head.extend(kind.map(|kind| ("content-type", kind)));
            bench.say(app, 1, &head, whole);
            let text = format!(
                "1 HEADERS :status=200 content-type=application/grpc grpc-status={code} \
                 grpc-message=unexpected HTTP status code received from server: {why} {BY_APP} END"
            );
            assert_eq!(bench.last(caller), text);
            assert_eq!(bench.proxy.calls(), 0);
            if !whole {
                assert_eq!(bench.last(app), "1 RESET CANCEL");
            }
        }
    }
}

/// The callee keeps the deadline too, and some say CANCELLED at it.
#[test]
fn a_cancelled_status_past_the_deadline_is_the_deadline() {
    let late = "grpc-status=4 grpc-message=context deadline exceeded END";
    let own = "grpc-status=1 grpc-message=Timeout expired END";
    let said = [("grpc-status", "1"), ("grpc-message", "Timeout expired")];
    for (passed, text) in [(49, own), (50, late)] {
        for only in [true, false] {
            let (mut bench, caller, app) = called(&[("grpc-timeout", "50m")], Some(MESSAGE));
            bench.now += Duration::from_millis(passed);
            if only {
                bench.say(app, 1, &[&HEAD[..], &said].concat(), true);
            } else {
                bench.say(app, 1, &HEAD, false);
                bench.say(app, 1, &said, true);
            }
            assert!(bench.last(caller).ends_with(text), "{}", bench.last(caller));
        }
    }
    // Any other status is the app's own.
    let (mut bench, caller, app) = called(&[("grpc-timeout", "50m")], Some(MESSAGE));
    bench.now += Duration::from_millis(60);
    bench.say(app, 1, &[&HEAD[..], &[("grpc-status", "0")]].concat(), true);
    assert!(bench.last(caller).ends_with("grpc-status=0 END"), "{}", bench.last(caller));
}

/// A caller whose own timer rings resets the call; what is counted is the deadline.
#[test]
fn a_callers_reset_past_the_deadline_counts_as_one() {
    for (passed, code) in [(10, Code::Canceled), (50, Code::DeadlineExceeded)] {
        let (mut bench, caller, app) = called(&[("grpc-timeout", "50m")], None);
        bench.now += Duration::from_millis(passed);
        bench.reset(caller, 1, 8);
        assert_eq!(bench.last(app), "1 RESET CANCEL");
        let cells = counted(&mut bench);
        let hop = cells.hop(crate::observe::cells::Hop::Inbound);
        assert_eq!(hop.calls[code as usize], 1, "{code:?}");
    }
}

/// The other sidecar is told apart from the app, and a goodbye before the loss is told with it.
#[test]
fn a_loss_names_who_failed_and_who_saw_it() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &[("dapr-app-id", "server.prod")], Some(MESSAGE));
    bench.resolve();
    let callee = bench.dial_done();
    let end = bench.ends.get_mut(&callee).unwrap();
    end.goaway(crate::http2::ErrorCode::ENHANCE_YOUR_CALM, "too_many_pings");
    bench.run();
    assert_eq!(bench.proxy.calls(), 1, "it was accepted");
    bench.handle(Input::Closed { conn: callee, reason: CloseReason::Eof });
    let text = "grpc-status=14 grpc-message=closing transport due to: connection error: desc = \
                \"error reading from server: EOF\", received prior goaway: code: \
                ENHANCE_YOUR_CALM, debug data: \"too_many_pings\" (the sidecar of server.prod at \
                10.0.0.9:50002, seen by that of client) END";
    assert!(bench.last(caller).ends_with(text), "{}", bench.last(caller));

    bench.call(caller, &[("dapr-app-id", "server.prod")], Some(MESSAGE));
    let (conn, ..) = *bench.dialed.last().unwrap();
    for _ in 0..2 {
        let error = "connection error: desc = \"nobody there\"".to_owned();
        let (conn, ..) = *bench.dialed.last().unwrap();
        bench.handle(Input::DialFailed { conn, error });
        if bench.resolves.len() > 1 && bench.proxy.calls() > 0 {
            bench.resolve();
        }
    }
    assert_ne!(conn, callee);
    let text = "grpc-message=connection error: desc = \"nobody there\" (the sidecar of \
                server.prod at 10.0.0.9:50002, seen by that of client) END";
    assert!(bench.last(caller).ends_with(text), "{}", bench.last(caller));
}

/// A caller that will open nothing more (RFC 9113 §6.8) still gets its answers.
#[test]
fn a_callers_goodbye_ends_no_call() {
    let (mut bench, caller, app) = called(&[], None);
    let end = bench.ends.get_mut(&caller).unwrap();
    end.goaway(crate::http2::ErrorCode::NO_ERROR, "");
    bench.run();
    bench.send(caller, StreamId(1), MESSAGE, true);
    assert_eq!(bench.bodies[&(app, 1)], MESSAGE);
    bench.answer(app, 1, MESSAGE);
    assert_eq!(bench.last(caller), "1 HEADERS grpc-status=0 END");
    let (sent, code) = (false, "NO_ERROR");
    let goodbye = Goodbye { sent, of_connection: true, downstream: true, code };
    assert_eq!(bench.proxy.cells.goodbyes(), [(goodbye, 1)]);
}

/// Response messages have grpc-go's limit where there is none for requests but empty ones.
#[test]
fn no_body_size_is_grpc_gos_default_for_responses() {
    let mut bench = Bench::new(Config { max_body_size: 0, ..config() });
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &TO_APP, Some(MESSAGE));
    let text = "grpc-message=grpc: received message larger than max (2 vs. 0) (--max-body-size)";
    assert!(bench.last(caller).contains(text), "{}", bench.last(caller));
    let prefix = |size: u32| [&[0], &size.to_be_bytes()[..]].concat();
    for (size, fits) in [(4 << 20, true), ((4 << 20) + 1, false)] {
        bench.call(caller, &TO_APP, Some(&prefix(0)));
        let app = if fits { bench.dial_done() } else { bench.dialed[0].0 };
        let stream = if fits { 1 } else { 3 };
        bench.say(app, stream, &HEAD, false);
        bench.send(app, StreamId(stream), &prefix(size), false);
        let seen = bench.seen[&caller].join("\n");
        assert_eq!(seen.contains("(4194305 vs. 4194304) (--max-body-size)"), !fits, "{seen}");
    }
}

/// A drain ends a caller's connection twice over (RFC 9113 §6.8), a broken rule once.
#[test]
fn what_we_end_is_counted() {
    let (mut bench, caller, _) = called(&[], None);
    bench.handle(Input::Drain);
    let (sent, code) = (true, "NO_ERROR");
    let goodbye = Goodbye { sent, of_connection: true, downstream: true, code };
    assert_eq!(bench.count(caller, "GOAWAY"), 2);
    assert_eq!(bench.proxy.cells.goodbyes(), [(goodbye, 2)]);
    // DATA of no stream.
    let bytes = Bytes::from_static(b"\0\0\0\0\0\0\0\0\0");
    bench.handle(Input::Received { conn: caller, bytes });
    assert_eq!(bench.last(caller), "GOAWAY 1 PROTOCOL_ERROR");
    let failed = Goodbye { code: "PROTOCOL_ERROR", ..goodbye };
    let cancelled = Goodbye { downstream: false, of_connection: false, code: "CANCEL", ..goodbye };
    let told = bench.proxy.cells.goodbyes();
    assert!(told.contains(&(failed, 1)) && told.contains(&(cancelled, 1)), "{told:?}");
}

/// Every octet that came and went, once, by side.
#[test]
fn octets_are_counted_by_side() {
    let (mut bench, caller, app) = called(&[], Some(MESSAGE));
    bench.answer(app, 1, &[&[0, 0, 0, 3, 0xe3][..], &[7; 995]].concat());
    let cells = counted(&mut bench);
    for (conn, downstream) in [(caller, true), (app, false)] {
        let carried = bench.carried[&conn];
        assert!(carried.read > 0 && carried.written > 0);
        assert_eq!(cells.octets(downstream), carried);
    }
    assert!(bench.carried[&caller].written > 1000 && bench.carried[&app].read > 1000);
}
