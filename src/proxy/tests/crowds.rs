//! Many calls that wait, and how they stop.

use super::*;

/// Resets toward an app are paced, so a place may become free long after its call has ended.
#[test]
fn a_place_that_becomes_free_late_goes_to_who_waits() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    let to_app = [("dapr-callee-app-id", "client")];
    let first = bench.call(caller, &to_app, None);
    let app =
        bench.dial_done_with(Limits { max_concurrent_streams: Some(20), ..Limits::default() });
    let mut streams = vec![first];
    streams.extend((1..20).map(|_| bench.call(caller, &to_app, None)));
    // The app has accepted them all, so that only the pace of resets counts.
    bench.say(app, 39, &[(":status", "200"), ("content-type", "application/grpc")], false);
    for stream in streams {
        let end = bench.ends.get_mut(&caller).unwrap();
        end.send_reset(stream, crate::http2::ErrorCode::CANCEL);
    }
    bench.run();
    let opened = |bench: &Bench| {
        let seen = bench.seen[&app].iter();
        seen.filter(|seen| seen.contains("HEADERS")).count()
    };
    for _ in 0..17 {
        bench.call(caller, &to_app, None);
    }
    assert_eq!((opened(&bench), bench.dialed.len()), (20 + 16, 2), "the last one waits");
    bench.wait(Duration::from_millis(50));
    assert_eq!(opened(&bench), 20 + 17);
}

/// Thousands wait for a connection that comes when their deadlines are over: each is told, one
/// after the other and not one inside the other (the stack has an end).
#[test]
fn a_crowd_that_waited_too_long_is_told() {
    const CROWD: usize = 10_000;
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.run();
    let mut fields = FieldSection::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/a.B/C"),
        ("content-type", "application/grpc"),
        ("dapr-callee-app-id", "client"),
        ("grpc-timeout", "1S"),
    ] {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    let end = bench.ends.get_mut(&caller).unwrap();
    for _ in 0..CROWD {
        end.open(fields.clone(), true, 0).unwrap();
    }
    bench.run();
    assert_eq!(bench.proxy.calls(), CROWD);
    bench.now += Duration::from_secs(2);
    bench.dial_done();
    assert_eq!(bench.proxy.calls(), 0);
    let told = |seen: &&String| seen.contains("grpc-status=4");
    assert_eq!(bench.seen[&caller].iter().filter(told).count(), CROWD);
}

/// More calls than a stack has room for, if one ended inside the other.
const MANY: usize = 3000;

#[test]
fn calls_of_an_app_that_dies_while_resets_wait_end_one_by_one() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.calls(caller, &[], MANY);
    let app = bench.dial_done();
    assert_eq!(bench.count(app, "HEADERS"), MANY);
    for index in 0..100 {
        let end = bench.ends.get_mut(&caller).unwrap();
        end.send_reset(StreamId(1 + 2 * index), crate::http2::ErrorCode::CANCEL);
    }
    bench.run();
    assert!(bench.count(app, "RESET") < 100, "resets are paced");
    bench.handle(Input::Closed { conn: app, reason: CloseReason::Eof });
    assert_eq!(bench.count(caller, "grpc-status=14"), MANY - 100);
    assert_eq!((bench.proxy.calls(), bench.closed.as_slice()), (0, &[app][..]));
}

#[test]
fn heads_of_those_who_wait_take_bounded_memory() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    let value = "v".repeat(60 << 10);
    let fit = pool::PARKED_OCTETS_MAX / value.len();
    bench.calls(caller, &[("large", &value)], fit + 20);
    let refused = bench.count(caller, "grpc-status=8");
    assert!(refused >= 20 && bench.proxy.calls() > fit / 3, "{refused} refused");
    let (conn, ..) = bench.dialed[0];
    bench.handle(Input::DialFailed { conn, error: "nobody there".to_owned() });
    assert_eq!((bench.proxy.calls(), bench.proxy.parked_octets), (0, 0));
}
