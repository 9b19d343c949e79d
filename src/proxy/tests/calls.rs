//! A call's life when nothing much is in its way.

use super::*;

#[test]
fn a_call_to_another_app_goes_out_and_comes_back() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &[("dapr-app-id", "server.prod")], Some(MESSAGE));
    assert_eq!(bench.resolves[0].to_string(), "server.prod");
    bench.resolve();
    assert_eq!(bench.dialed[0].1, endpoint(REMOTE).into());
    assert_eq!(bench.dialed[0].2, Security::Plaintext);
    let callee = bench.dial_done();
    let seen = bench.seen[&callee].join("\n");
    assert!(seen.contains(":authority=10.0.0.9:50002"), "{seen}");
    assert!(seen.contains("dapr-callee-app-id=server"), "{seen}");
    assert!(!seen.contains("dapr-app-id=server.prod"), "{seen}");
    assert!(seen.ends_with("DATA 7 END"), "{seen}");
    bench.answer(callee, 1, MESSAGE);
    let seen = &bench.seen[&caller];
    assert_eq!(seen[0], "1 HEADERS :status=200 content-type=application/grpc");
    assert_eq!(seen[1..], ["1 DATA 7", "1 HEADERS grpc-status=0 END"]);
    assert_eq!(bench.proxy.calls(), 0);
    // The second call finds the connection.
    bench.call(caller, &[("dapr-app-id", "server.prod")], Some(MESSAGE));
    assert_eq!((bench.dialed.len(), bench.resolves.len()), (1, 1));
}

#[test]
fn namespaces_do_not_share_connections() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &[("dapr-app-id", "server.one")], Some(MESSAGE));
    bench.resolve();
    bench.dial_done();
    bench.call(caller, &[("dapr-app-id", "server.two")], Some(MESSAGE));
    bench.resolve();
    assert_eq!(bench.dialed.len(), 2);
}

#[test]
fn an_app_that_is_down_is_unavailable_at_once() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &[("dapr-callee-app-id", "client")], Some(MESSAGE));
    let (conn, at, _) = bench.dialed[0].clone();
    assert_eq!(at, endpoint(APP).into());
    let error = "connection error: desc = \"transport: Error while dialing\"".to_owned();
    bench.handle(Input::DialFailed { conn, error });
    let last = bench.last(caller);
    assert!(last.contains("grpc-status=14") && last.contains("Error while dialing"), "{last}");
    assert!(last.ends_with("END"));
}

/// It is dialled by its path, called as grpc-go calls such an app, and blamed by its path.
#[test]
fn an_app_may_be_on_a_socket() {
    let path = SocketPath::parse("/run/app.sock").unwrap();
    let app = App { place: AppPlace::Socket(path.clone()), protocol: AppProtocol::Grpc };
    let config = Arc::new(Config { app: Some(app), ..config() });
    let mut bench = Bench::new(Config::clone(&config));
    let way = Way::Unix(path);
    let told = Snapshot { epoch: Epoch(2), app: Some(way.clone()), ..Snapshot::new(config) };
    bench.handle(Input::Snapshot(Arc::new(told)));
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &[("dapr-callee-app-id", "client")], Some(MESSAGE));
    assert_eq!(bench.dialed[0].1, way);
    let callee = bench.dial_done();
    assert!(bench.seen[&callee].join("\n").contains(":authority=localhost"));
    bench.handle(Input::Closed { conn: callee, reason: CloseReason::Eof });
    let last = bench.last(caller);
    assert!(last.contains("(the app at /run/app.sock, seen by the sidecar of client)"), "{last}");
}

#[test]
fn a_deadline_ends_a_call_on_both_legs() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &[("dapr-callee-app-id", "client"), ("grpc-timeout", "50m")], None);
    let app = bench.dial_done();
    bench.wait(Duration::from_millis(50));
    let seen = bench.seen[&caller].join("\n");
    assert!(seen.contains("grpc-status=4 grpc-message=context deadline exceeded END"), "{seen}");
    assert!(seen.ends_with("RESET NO_ERROR"), "{seen}");
    assert_eq!(bench.last(app), "1 RESET CANCEL");
}

/// The app's side may reset at the deadline before our own timer has rung.
#[test]
fn a_cancel_past_the_deadline_is_the_deadline() {
    for (passed, status) in [(10, "grpc-status=1 "), (50, "grpc-status=4 ")] {
        let mut bench = Bench::new(config());
        let caller = bench.accept(Listener::Internal);
        bench.call(caller, &[("dapr-callee-app-id", "client"), ("grpc-timeout", "50m")], None);
        let app = bench.dial_done();
        bench.now += Duration::from_millis(passed);
        let end = bench.ends.get_mut(&app).unwrap();
        end.send_reset(StreamId(1), crate::http2::ErrorCode::CANCEL);
        bench.run();
        let seen = bench.seen[&caller].join("\n");
        assert!(seen.contains(status), "{seen}");
    }
}

#[test]
fn a_callers_reset_reaches_the_app() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    let stream = bench.call(caller, &[("dapr-callee-app-id", "client")], None);
    let app = bench.dial_done();
    bench.ends.get_mut(&caller).unwrap().send_reset(stream, crate::http2::ErrorCode::CANCEL);
    bench.run();
    assert_eq!(bench.last(app), "1 RESET CANCEL");
    assert_eq!(bench.proxy.calls(), 0);
}

#[test]
fn a_message_over_the_limit_is_refused_in_both_directions() {
    let mut bench = Bench::new(Config { max_body_size: 4, ..config() });
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &[("dapr-callee-app-id", "client")], Some(&[0, 0, 0, 0, 5, 1, 2, 3, 4, 5]));
    let text = "grpc-status=8 grpc-message=grpc: received message larger than max (5 vs. 4)";
    assert!(bench.last(caller).contains(text), "{}", bench.last(caller));
    bench.call(caller, &[("dapr-callee-app-id", "client")], Some(MESSAGE));
    let app = bench.dial_done();
    bench.answer(app, 1, &[0, 0, 0, 0, 5, 1, 2, 3, 4, 5]);
    let seen = bench.seen[&caller].join("\n");
    assert!(seen.contains("grpc-message=grpc: received message larger than max"), "{seen}");
}
