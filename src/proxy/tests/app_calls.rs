//! `--app-max-concurrency`: how many calls the app gets at the same time, and who waits.

use super::*;

const TO_APP: [(&str, &str); 1] = [("dapr-callee-app-id", "client")];

/// A proxy whose app gets two calls at a time, with a caller and the app connected; the first
/// call is with the app.
fn bounded() -> (Bench, ConnId, ConnId) {
    let mut bench = Bench::new(config());
    bench.proxy.bound_app_calls(2);
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &TO_APP, Some(MESSAGE));
    let app = bench.dial_done();
    (bench, caller, app)
}

fn begun(bench: &Bench, app: ConnId) -> usize {
    bench.count(app, "HEADERS :method=POST")
}

#[test]
fn the_third_call_waits_for_one_of_two() {
    let (mut bench, caller, app) = bounded();
    for _ in 0..3 {
        bench.call(caller, &TO_APP, Some(MESSAGE));
    }
    assert_eq!((begun(&bench, app), bench.proxy.calls(), bench.dialed.len()), (2, 4, 1));
    assert_eq!(counted(&mut bench).gauge(Gauge::WaitingCalls), 2);
    bench.answer(app, 1, MESSAGE);
    assert_eq!(begun(&bench, app), 3);
    bench.answer(app, 3, MESSAGE);
    bench.answer(app, 5, MESSAGE);
    bench.answer(app, 7, MESSAGE);
    assert_eq!((begun(&bench, app), bench.proxy.calls()), (4, 0));
    assert_eq!(bench.count(caller, "grpc-status=0 END"), 4);
}

/// However a call ends, its place is another's.
#[test]
fn every_end_gives_the_place_back() {
    let (mut bench, caller, app) = bounded();
    bench.call(caller, &[TO_APP[0], ("grpc-timeout", "50m")], None);
    let places = |bench: &Bench, count| assert_eq!(begun(bench, app), count);
    for _ in 0..5 {
        bench.call(caller, &TO_APP, None);
    }
    places(&bench, 2);
    bench.wait(Duration::from_millis(50));
    places(&bench, 3);
    bench.reset(caller, 1, 8);
    places(&bench, 4);
    bench.reset(app, 5, 2);
    places(&bench, 5);
    bench.say(app, 7, &[(":status", "503")], true);
    places(&bench, 6);
    bench.say(app, 9, &[(":status", "200"), ("content-type", "application/grpc")], true);
    places(&bench, 7);
}

/// Calls that wait keep their deadline, and what their callers send in order.
#[test]
fn who_waits_is_a_call_like_any_other() {
    let (mut bench, caller, app) = bounded();
    bench.call(caller, &TO_APP, Some(MESSAGE));
    bench.call(caller, &[TO_APP[0], ("grpc-timeout", "50m")], Some(MESSAGE));
    let stream = bench.call(caller, &TO_APP, None);
    for piece in [&MESSAGE[..3], &MESSAGE[3..], MESSAGE] {
        bench.send(caller, stream, piece, false);
    }
    bench.wait(Duration::from_millis(50));
    assert!(bench.last(caller).contains("grpc-status=4"), "{}", bench.last(caller));
    assert_eq!(begun(&bench, app), 2, "it never was with the app");
    bench.answer(app, 1, MESSAGE);
    assert_eq!(begun(&bench, app), 3);
    bench.send(caller, stream, MESSAGE, true);
    assert_eq!(bench.bodies[&(app, 5)], [MESSAGE, MESSAGE, MESSAGE].concat());
}

/// Calls on a connection that goes away, or is lost, have their places until they end.
#[test]
fn places_outlive_a_goaway_and_not_a_loss() {
    let (mut bench, caller, app) = bounded();
    bench.call(caller, &TO_APP, Some(MESSAGE));
    bench.call(caller, &TO_APP, Some(MESSAGE));
    let end = bench.ends.get_mut(&app).unwrap();
    end.goaway_notice();
    bench.run();
    assert_eq!(bench.dialed.len(), 1, "another connection would not help");
    bench.answer(app, 1, MESSAGE);
    assert_eq!(bench.dialed.len(), 2);
    let second = bench.dial_done();
    assert_eq!(begun(&bench, second), 1);
    bench.handle(Input::Closed { conn: app, reason: CloseReason::Eof });
    bench.call(caller, &TO_APP, Some(MESSAGE));
    bench.call(caller, &TO_APP, Some(MESSAGE));
    assert_eq!(begun(&bench, second), 2);
}

/// What goes to other apps is none of it, and a call that was left out is made again within it.
#[test]
fn only_the_apps_calls_are_bounded() {
    let (mut bench, caller, app) = bounded();
    let own = bench.accept(Listener::Api);
    for _ in 0..5 {
        bench.call(own, &[("dapr-app-id", "server")], Some(MESSAGE));
    }
    bench.resolve();
    let server = bench.dial_done();
    assert_eq!(begun(&bench, server), 5);
    bench.call(caller, &TO_APP, Some(MESSAGE));
    bench.call(caller, &TO_APP, Some(MESSAGE));
    bench.reset(app, 3, 7);
    assert_eq!(begun(&bench, app), 3);
    // Invariants were checked after each step.
    bench.answer(app, 1, MESSAGE);
    assert_eq!(begun(&bench, app), 4);
}
