//! How calls and connections end when much ends at once, or not as it should.

use super::*;
use crate::http2::ErrorCode;

const TO_APP: [(&str, &str); 1] = [("dapr-callee-app-id", "client")];

/// The limit is one of calls that wait, not of calls that ever waited.
#[test]
fn those_who_gave_up_leave_their_place() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.run();
    for _ in 0..14 {
        for _ in 0..5_000 {
            bench.call_quietly(caller, &[TO_APP[0], ("grpc-timeout", "1m")]);
        }
        bench.run();
        assert_eq!(bench.proxy.calls(), 5_000);
        bench.wait(Duration::from_millis(1));
    }
    bench.call_quietly(caller, &TO_APP);
    bench.run();
    assert_eq!(bench.proxy.calls(), 1, "{}", bench.last(caller));
}

/// A caller always gets a status, also from a callee that forgets to give one.
#[test]
fn an_end_without_a_status_is_unknown() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &TO_APP, Some(MESSAGE));
    let app = bench.dial_done();
    let section = |fields: &[(&str, &str)]| {
        let mut section = FieldSection::new();
        fields.iter().for_each(|(name, value)| section.push(name.as_bytes(), value.as_bytes()));
        section
    };
    let head = [(":status", "200"), ("content-type", "application/grpc")];
    bench.ends.get_mut(&app).unwrap().send_headers(StreamId(1), section(&head), true);
    bench.run();
    assert!(bench.last(caller).ends_with("grpc-status=2 END"), "{}", bench.last(caller));
    bench.call(caller, &TO_APP, Some(MESSAGE));
    let end = bench.ends.get_mut(&app).unwrap();
    end.send_headers(StreamId(3), section(&head), false);
    end.send_headers(StreamId(3), section(&[("x", "1")]), true);
    bench.run();
    assert!(bench.last(caller).ends_with("x=1 grpc-status=2 END"), "{}", bench.last(caller));
    assert_eq!(bench.proxy.calls(), 0);
}

/// A reader that stalls holds a drain for ever, as daprd's, but not beyond its limit.
#[test]
fn a_drain_with_a_limit_waits_for_nobody() {
    let max = Duration::from_secs(5);
    let mut bench = Bench::new(Config { drain_max: Some(max), ..config() });
    let caller = bench.accept(Listener::Internal);
    let limits = Limits { stream_window: 1, ..Limits::default() };
    let h2 = Connection::new(Role::Client, limits, head::classify, bench.now);
    bench.ends.insert(caller, h2);
    bench.stalled = true;
    bench.run();
    bench.call(caller, &TO_APP, Some(MESSAGE));
    let app = bench.dial_done();
    let end = bench.ends.get_mut(&app).unwrap();
    let mut fields = FieldSection::new();
    fields.push(b":status", b"200");
    fields.push(b"content-type", b"application/grpc");
    end.send_headers(StreamId(1), fields, false);
    end.send_data(StreamId(1), Bytes::from_static(MESSAGE), false);
    bench.run();
    bench.handle(Input::Drain);
    bench.wait(Duration::from_secs(2));
    assert!(!bench.drained);
    bench.wait(max);
    assert!(!bench.drained, "it may still read");
    bench.wait(peer::LAST_WORDS);
    assert!(bench.drained);
}

#[test]
fn one_idle_connection_to_the_app_is_enough() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &TO_APP, Some(MESSAGE));
    let one = Limits { max_concurrent_streams: Some(1), ..Limits::default() };
    let first = bench.dial_done_with(one.clone());
    bench.call(caller, &TO_APP, Some(MESSAGE));
    let second = bench.dial_done_with(one);
    bench.answer(first, 1, MESSAGE);
    bench.answer(second, 1, MESSAGE);
    bench.wait(peer::IDLE_TIMEOUT);
    assert!(bench.closed.contains(&second) && !bench.closed.contains(&first));
}

#[test]
fn garbage_does_not_flood_the_log() {
    let mut bench = Bench::new(config());
    for _ in 0..100 {
        let conn = bench
            .proxy
            .accept(Arrival { listener: Listener::Api, peer: None, spiffe_id: None }, bench.now);
        bench
            .handle(Input::Received { conn, bytes: Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n") });
    }
    assert_eq!(bench.lines, told::LOG_LINES_MAX as usize);
    bench.now += told::LOG_PERIOD;
    let conn = bench.accept(Listener::Api);
    bench.handle(Input::Received { conn, bytes: Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n") });
    assert_eq!(bench.lines, told::LOG_LINES_MAX as usize + 1);
}

/// Resets wait for their turn; not behind those of streams that have ended by themselves
/// meanwhile, nor do these take memory for ever.
#[test]
fn a_reset_waits_for_no_stream_that_is_gone() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    let last = bench.call(caller, &TO_APP, None);
    let app = bench.dial_done();
    let mut asked = 1;
    for _ in 0..40 {
        let first = asked;
        for _ in 0..50 {
            let stream = bench.call_quietly(caller, &TO_APP);
            let end = bench.ends.get_mut(&caller).unwrap();
            end.send_data(stream, Bytes::new(), true);
            asked += 1;
        }
        bench.run();
        // The cancels and the answers cross.
        let end = bench.ends.get_mut(&caller).unwrap();
        (first..asked).for_each(|n| end.send_reset(StreamId(2 * n + 1), ErrorCode::CANCEL));
        bench.run();
        for n in first..asked {
            let fields = section(&[(":status", "200"), ("grpc-status", "0")]);
            bench.ends.get_mut(&app).unwrap().send_headers(StreamId(2 * n + 1), fields, true);
        }
        bench.run();
    }
    let waiting = bench.proxy.peers[ConnKey::from(app)].resets_waiting();
    assert!(waiting < 200, "{waiting} resets of streams that are gone");
    bench.reset(caller, last.0, ErrorCode::CANCEL.0);
    bench.wait(Duration::from_millis(100));
    assert_eq!(bench.last(app), "1 RESET CANCEL");
}

/// Small pieces of requests that wait for their app keep no read buffers alive.
#[test]
fn what_waits_for_an_app_pins_no_read_buffer() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    let stream = bench.call(caller, &TO_APP, None);
    let large = [0; 5].repeat(2000);
    let pieces = [&[0; 5][..], &[0, 0, 0, 0, 1, 7], &large, &[0; 5], &[0, 0, 0, 0, 1, 8]];
    for (n, piece) in pieces.iter().enumerate() {
        let end = bench.ends.get_mut(&caller).unwrap();
        end.send_data(stream, Bytes::copy_from_slice(piece), n + 1 == pieces.len());
        let mut out = Transmit::new();
        end.poll_transmit(&mut out, usize::MAX);
        let octets = Bytes::from(out.slices().collect::<Vec<_>>().concat());
        bench.handle(Input::Received { conn: caller, bytes: octets.clone() });
        assert_eq!(octets.is_unique(), piece.len() < large.len(), "{n}");
    }
    let app = bench.dial_done();
    assert_eq!(bench.bodies[&(app, 1)], pieces.concat());
    assert!(bench.last(app).ends_with(" END"), "{}", bench.last(app));
}

/// An app that takes no streams on any of its connections, and then loses them all.
#[test]
fn whoever_waits_when_full_connections_are_lost_gets_another() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &TO_APP, Some(MESSAGE));
    let none = Limits { max_concurrent_streams: Some(0), ..Limits::default() };
    let mut dials = 0;
    while bench.dialed.len() > dials {
        dials = bench.dialed.len();
        bench.dial_done_with(none.clone());
    }
    assert_eq!(dials, 64);
    let conns: Vec<ConnId> = bench.dialed.iter().map(|(conn, ..)| *conn).collect();
    for conn in conns {
        bench.ends.remove(&conn);
        bench.handle(Input::Closed { conn, reason: CloseReason::Eof });
    }
    let app = bench.dial_done();
    bench.answer(app, 1, MESSAGE);
    assert!(bench.last(caller).ends_with("grpc-status=0 END"), "{}", bench.last(caller));
}
