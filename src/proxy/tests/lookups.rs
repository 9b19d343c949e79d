//! Names that are asked for, answered late or never, shared and forgotten.

use super::*;

#[test]
fn an_unknown_app_leaves_nothing_behind() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &[("dapr-app-id", "nope")], Some(MESSAGE));
    let target = bench.resolves[0].clone();
    let result = Err("couldn't find service: nope".into());
    bench.handle(Input::Resolved(Resolution { target, result }));
    let last = bench.last(caller);
    assert!(last.contains("grpc-status=2"), "{last}");
    assert!(last.contains("grpc-message=couldn't find service: nope"), "{last}");
    bench.call(caller, &[("dapr-app-id", "nope")], Some(MESSAGE));
    assert_eq!(bench.resolves.len(), 2, "asked anew");
}

#[test]
fn targets_that_nobody_uses_make_way() {
    let mut pools = Pools::new();
    let own = Namespace::new("default");
    for index in 0..10_000 {
        assert!(pools.remote(&format!("server.made-up-{index}"), &own).is_ok());
    }
    pools.check_invariants(|_| true);
}

#[test]
fn a_lookup_that_is_never_answered_ends() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &[("dapr-app-id", "lost")], Some(MESSAGE));
    assert_eq!(bench.resolves.len(), 1);
    bench.wait(lookup::LOOKUP_TIMEOUT);
    let last = bench.last(caller);
    assert!(last.contains("timeout waiting for address for app id lost"), "{last}");
    bench.call(caller, &[("dapr-app-id", "lost")], Some(MESSAGE));
    let target = bench.resolves[1].clone();
    bench.handle(Input::Resolved(Resolution { target, result: Ok([].into()) }));
    let last = bench.last(caller);
    assert!(last.contains("resolver returned empty address for app id default/lost"), "{last}");
}

/// The first answer comes when it was given up and asked for again; both are answers.
#[test]
fn a_lookup_that_is_answered_late_is_not_asked_a_third_time() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &[("dapr-app-id", "server")], Some(MESSAGE));
    bench.wait(lookup::LOOKUP_TIMEOUT);
    bench.call(caller, &[("dapr-app-id", "server")], Some(MESSAGE));
    assert_eq!(bench.resolves.len(), 2);
    bench.resolve();
    bench.resolve();
    let (conn, ..) = bench.dialed[0];
    bench.handle(Input::DialFailed { conn, error: "nobody there".to_owned() });
    assert_eq!((bench.resolves.len(), bench.proxy.calls()), (2, 0));
    assert!(bench.last(caller).contains("grpc-status=14"), "{}", bench.last(caller));
    // Who comes later has endpoints that may be old by then, and they are asked for anew.
    bench.call(caller, &[("dapr-app-id", "server")], Some(MESSAGE));
    assert_eq!(bench.resolves.len(), 3);
}

/// What nobody waited for is no fresher for the next one who comes.
#[test]
fn endpoints_that_came_unasked_are_asked_for_when_they_fail() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    let stream = bench.call(caller, &[("dapr-app-id", "server")], None);
    bench.reset(caller, stream.0, crate::http2::ErrorCode::CANCEL.0);
    bench.resolve();
    bench.call(caller, &[("dapr-app-id", "server")], Some(MESSAGE));
    let (conn, ..) = bench.dialed[0];
    bench.handle(Input::DialFailed { conn, error: "nobody there".to_owned() });
    assert_eq!((bench.resolves.len(), bench.proxy.calls()), (2, 1));
}

#[test]
fn calls_that_wait_share_one_lookup_and_one_dial() {
    const CALLS: usize = 50;
    let mut bench = Bench::new(config());
    let callers = [bench.accept(Listener::Api), bench.accept(Listener::Api)];
    for n in 0..CALLS {
        bench.call(callers[n % 2], &[("dapr-app-id", "server")], Some(MESSAGE));
    }
    assert_eq!((bench.resolves.len(), bench.dialed.len()), (1, 0));
    bench.resolve();
    bench.call(callers[0], &[("dapr-app-id", "server")], Some(MESSAGE));
    assert_eq!((bench.resolves.len(), bench.dialed.len()), (1, 1));
    let callee = bench.dial_done();
    assert_eq!((bench.resolves.len(), bench.dialed.len()), (1, 1));
    let opened = bench.seen[&callee].iter().filter(|seen| seen.contains("HEADERS")).count();
    assert_eq!(opened, CALLS + 1);
    for n in 0..=CALLS {
        bench.answer(callee, u32::try_from(2 * n + 1).unwrap(), MESSAGE);
    }
    let done =
        |conn| bench.seen[conn].iter().filter(|seen| seen.ends_with("grpc-status=0 END")).count();
    assert_eq!(callers.iter().map(done).sum::<usize>(), CALLS + 1);
}

/// A dial that outlives those who waited for it ends their round: whoever comes later is told
/// nothing before his sidecar has asked anew.
#[test]
fn who_comes_after_a_round_that_nobody_waits_for_has_his_own() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &[("dapr-app-id", "server"), ("grpc-timeout", "100m")], Some(MESSAGE));
    let result = Ok([1000, 1001].map(|port| Endpoint(([10, 0, 0, 1], port).into())).into());
    let target = bench.resolves[0].clone();
    bench.handle(Input::Resolved(Resolution { target, result }));
    bench.wait(Duration::from_millis(200));
    assert_eq!((bench.proxy.calls(), bench.count(caller, "grpc-status=4 ")), (0, 1));
    let refuse = |bench: &mut Bench, dial: usize| {
        let conn = bench.dialed[dial].0;
        bench.handle(Input::DialFailed { conn, error: "i/o timeout".to_owned() });
    };
    refuse(&mut bench, 0);
    bench.wait(Duration::from_secs(20));
    bench.call(caller, &[("dapr-app-id", "server")], Some(MESSAGE));
    let mut dial = 1;
    while bench.resolves.len() == 1 && dial < bench.dialed.len() {
        refuse(&mut bench, dial);
        dial += 1;
    }
    assert_eq!((bench.resolves.len(), bench.proxy.calls()), (2, 1));
}
