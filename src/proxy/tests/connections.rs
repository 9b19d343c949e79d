//! Connections: prefaces, drains, silence, idleness, ends.

use super::*;

#[test]
fn a_drain_finishes_calls_and_says_goodbye_twice() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &[("dapr-callee-app-id", "client")], Some(MESSAGE));
    let app = bench.dial_done();
    bench.handle(Input::Drain);
    let seen = bench.seen[&caller].join("\n");
    assert!(seen.contains("GOAWAY 2147483647 NO_ERROR\nGOAWAY 1 NO_ERROR"), "{seen}");
    assert!(!bench.drained);
    bench.answer(app, 1, MESSAGE);
    assert!(bench.drained);
    assert!(bench.last(caller).ends_with("grpc-status=0 END"));
    assert_eq!(bench.closed.len(), 2);
}

#[test]
fn an_upstream_that_dies_fails_its_calls_and_only_those() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &[("dapr-callee-app-id", "client")], Some(MESSAGE));
    let app = bench.dial_done();
    bench.ends.remove(&app);
    bench.handle(Input::Closed { conn: app, reason: CloseReason::Eof });
    let last = bench.last(caller);
    assert!(last.contains("grpc-status=14") && last.contains("reading from server: EOF"), "{last}");
    bench.call(caller, &[("dapr-callee-app-id", "client")], Some(MESSAGE));
    let app = bench.dial_done();
    bench.answer(app, 1, MESSAGE);
    assert!(bench.last(caller).ends_with("grpc-status=0 END"));
}

#[test]
fn a_peer_that_hangs_up_before_its_preface_is_named_so() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &[("dapr-callee-app-id", "client")], Some(MESSAGE));
    let (conn, ..) = bench.dialed[0];
    bench.handle(Input::Dialed { conn });
    bench.handle(Input::Closed { conn, reason: CloseReason::Eof });
    let last = bench.last(caller);
    assert!(last.contains("error reading server preface: EOF"), "{last}");
}

#[test]
fn silence_is_answered_with_a_ping_and_then_the_door() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    bench.run();
    bench.wait(peer::KEEPALIVE_INTERVAL);
    assert!(bench.closed.is_empty(), "the PING was answered");
    bench.ends.remove(&caller);
    bench.wait(peer::KEEPALIVE_INTERVAL);
    bench.wait(peer::KEEPALIVE_TIMEOUT);
    assert_eq!(bench.closed, [caller]);
    let line = "Gave up the connection with unix socket: keepalive ping failed to receive ACK \
                within timeout";
    assert_eq!((bench.lines, bench.last_line.as_str()), (1, line));
}

/// A storm of them is told of in a few lines.
#[test]
fn silent_peers_in_great_number_are_told_of_in_few_lines() {
    let mut bench = Bench::new(config());
    let callers: Vec<_> = (0..100).map(|_| bench.accept(Listener::Api)).collect();
    bench.run();
    bench.ends.clear();
    bench.wait(peer::KEEPALIVE_INTERVAL);
    bench.wait(peer::KEEPALIVE_TIMEOUT);
    assert_eq!((bench.closed.len(), bench.lines), (callers.len(), 20));
}

/// The farewell of an idle connection waits for an answer; meanwhile its idle time stays over.
#[test]
fn an_idle_connection_is_told_once_and_the_tick_ends() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &[("dapr-app-id", "server")], Some(MESSAGE));
    bench.resolve();
    let callee = bench.dial_done();
    bench.answer(callee, 1, MESSAGE);
    // All at once: nobody answers between the PING and the idle time.
    bench.wait(peer::IDLE_TIMEOUT);
    assert_eq!(bench.closed.len(), 2);
    assert!(bench.seen[&callee].iter().any(|seen| seen.starts_with("GOAWAY 0")));
}

/// The peer has its time for the preface from when it is connected, however long that took.
#[test]
fn a_slow_dial_leaves_time_for_the_preface() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &[("dapr-callee-app-id", "client")], Some(MESSAGE));
    bench.wait(Duration::from_secs(12));
    let (conn, ..) = bench.dialed[0];
    bench.handle(Input::Dialed { conn });
    bench.wait(Duration::from_millis(1));
    assert!(bench.closed.is_empty() && bench.proxy.calls() == 1);
}

#[test]
fn a_field_section_within_the_limit_fits_in_its_frames() {
    let limits = limits(&Config { header_list_size: 1 << 20, ..config() }, End::Caller);
    assert!(limits.continuations_max * limits.max_frame_size > limits.header_list_size);
    assert_eq!(super::limits(&config(), End::Caller).continuations_max, 8);
}

#[test]
fn a_ping_is_answered_without_company() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    bench.run();
    bench.ends.get_mut(&caller).unwrap().ping(*b"question");
    bench.run();
    assert_eq!(bench.pongs, 0, "it waits for company");
    let due = bench.proxy.poll_timeout().expect("a reminder");
    assert_eq!(due, bench.now + 3 * PING_ACK_DELAY);
    bench.wait(3 * PING_ACK_DELAY);
    assert_eq!(bench.pongs, 1);
}

/// A caller that may open more than we take still knows better (docs/adr/0004).
#[test]
fn the_limit_of_streams_is_announced() {
    let mut bench = Bench::new(config());
    for listener in [Listener::Api, Listener::Internal, Listener::Forward(0)] {
        let caller = bench.accept(listener);
        let any = Limits { streams_max: u32::MAX, ..Limits::default() };
        let greedy = Connection::new(Role::Client, any, head::classify, bench.now);
        bench.ends.insert(caller, greedy);
        bench.run();
        assert_eq!(bench.ends[&caller].can_open(), 16_384);
    }
}

/// Nothing has to come from anybody for that.
#[test]
fn what_many_calls_needed_is_given_back_when_they_are_over() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    for _ in 0..100 {
        bench.call(caller, &[("dapr-callee-app-id", "client")], Some(MESSAGE));
    }
    let app = bench.dial_done();
    for call in 0..100 {
        bench.answer(app, 2 * call + 1, b"");
    }
    assert_eq!(bench.proxy.calls(), 0);
    let large =
        |bench: &Bench| [caller, app].map(|conn| bench.proxy.peers[conn.into()].h2.is_large());
    assert_eq!(large(&bench), [true; 2]);
    bench.wait(Duration::from_secs(1));
    assert_eq!(large(&bench), [false; 2]);
}
