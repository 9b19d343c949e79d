//! What is told of calls, to whom it matters, and what it may hold.

use super::*;
use crate::config::CallLogging;
use crate::http2::ErrorCode;
use crate::observe::account::Filter;
use crate::observe::cells::Hop;
use crate::proxy::witness::CONTENTS_HELD_MAX;

fn listening(api: bool, contents: u32) -> Config {
    Config { logging: CallLogging { api, contents }, ..config() }
}

/// Nothing is kept of a call, and nothing told, unless somebody asked.
#[test]
fn nobody_hears_of_calls_unasked() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &[("dapr-app-id", "client")], Some(MESSAGE));
    let app = bench.dial_done();
    assert!(bench.proxy.calls.values().all(|call| call.witness.is_none()));
    bench.answer(app, 1, MESSAGE);
    bench.call(caller, &[], Some(MESSAGE));
    assert_eq!(bench.heard, []);
}

/// Of a call that no tap can want, nothing is kept; what may fit is told.
#[test]
fn taps_hear_of_what_they_ask_for() {
    let filter = |app: &str, method: &str| Filter {
        app: Some(app.to_owned()).filter(|app| !app.is_empty()),
        method: Some(method.to_owned()).filter(|method| !method.is_empty()),
        status: None,
    };
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &[("dapr-app-id", "server.prod")], None);
    bench.resolve();
    bench.dial_done();
    for (asked, hears) in [
        (vec![], false),
        (vec![Filter::default()], true),
        (vec![filter("server", "")], true),
        (vec![filter("server.prod", "B/C")], true),
        (vec![filter("server.other", "")], false),
        (vec![filter("serve", "")], false),
        (vec![filter("servers", "")], false),
        (vec![filter("client", "")], false),
        (vec![filter("server", "b/c")], false),
        (vec![filter("nobody", ""), filter("", "/a.")], true),
        (vec![Filter { status: Some(14), ..Filter::default() }], true),
    ] {
        bench.proxy.set_taps(asked.iter().cloned().map(Arc::new).collect());
        let stream = bench.call(caller, &[("dapr-app-id", "server.prod")], None);
        let kept = bench.proxy.calls.values().filter(|call| call.witness.is_some()).count();
        assert_eq!(kept == 1, hears, "{asked:?}");
        bench.reset(caller, stream.0, ErrorCode::CANCEL.0);
        let told = bench.heard.pop();
        assert_eq!(told.is_some(), hears, "{asked:?}");
        // What is told later is looked at by the whole filter: it must not have been kept from it.
        let fits = told.is_some_and(|told| asked.iter().any(|it| it.fits(&told)));
        let statuses = asked.iter().any(|filter| filter.status.is_some());
        assert!(fits == hears || statuses, "{asked:?}");
    }
    assert_eq!(bench.proxy.peers[caller.into()].repeated.len(), 1, "of a request that repeats");
}

#[test]
fn a_call_is_told_with_its_sizes_and_times() {
    let mut bench = Bench::new(listening(true, 0));
    let caller = bench.accept(Listener::Api);
    let more = [("dapr-app-id", "server.prod"), ("user-agent", "test/1")];
    bench.call(caller, &more, Some(MESSAGE));
    bench.now += Duration::from_millis(3);
    bench.resolve();
    let callee = bench.dial_done();
    bench.now += Duration::from_millis(4);
    bench.answer(callee, 1, &[MESSAGE, MESSAGE].concat());
    let account = bench.heard.pop().expect("an account");
    assert_eq!((account.hop, account.logged), (Hop::Outbound, true));
    assert_eq!((&*account.caller, &*account.callee), ("unix", "server.prod"));
    assert_eq!((&*account.method, account.user_agent.as_deref()), ("/a.B/C", Some("test/1")));
    assert_eq!((account.status, account.request_octets, account.response_octets), (0, 7, 14));
    assert_eq!(account.upstream.as_deref(), Some(REMOTE));
    let times = [account.waited, account.answered, Some(account.total)];
    assert_eq!(times.map(|time| time.map(|time| time.as_millis())), [Some(3), Some(7), Some(7)]);
    assert_eq!((account.contents, bench.heard.len()), (None, 0));
}

/// The log of the API's calls is of the API; daprd's begins behind its token.
#[test]
fn the_api_log_knows_what_reached_the_proxy() {
    let mut bench = Bench::new(Config { api_token: Some("t".into()), ..listening(true, 0) });
    let inside = bench.accept(Listener::Internal);
    bench.call(inside, &[("dapr-callee-app-id", "client")], Some(MESSAGE));
    let app = bench.dial_done();
    bench.answer(app, 1, MESSAGE);
    assert_eq!(bench.heard, [], "the internal port is no API");
    let caller = bench.accept(Listener::Api);
    for (more, logged) in [
        (&[("dapr-app-id", "a.b.c"), ("dapr-api-token", "t")][..], true),
        (&[("dapr-app-id", "a.b.c"), ("dapr-api-token", "u")], false),
        (&[("dapr-app-id", "a.b.c")], false),
        (&[("dapr-api-token", "t")], false),
        (&[("dapr-app-id", "a"), ("grpc-timeout", "x"), ("dapr-api-token", "t")], false),
    ] {
        bench.call(caller, more, Some(MESSAGE));
        let account = bench.heard.pop().expect("an account");
        assert_eq!(account.logged, logged, "{more:?}");
        assert_ne!(account.status, 0);
    }
}

/// Both ways, up to the limit; whoever comes when too much is held is told of without.
#[test]
fn contents_are_cut_and_held_of_so_many_calls() {
    let mut bench = Bench::new(listening(false, 9));
    let caller = bench.accept(Listener::Internal);
    let stream = bench.call(caller, &[("dapr-callee-app-id", "client")], None);
    let app = bench.dial_done();
    bench.send(caller, stream, MESSAGE, false);
    bench.send(caller, stream, MESSAGE, true);
    bench.answer(app, 1, b"\0\0\0\0\x01!");
    let account = bench.heard.pop().expect("an account");
    assert!(!account.logged && account.request_octets == 14);
    let contents = account.contents.expect("contents");
    assert_eq!(contents.request, [MESSAGE, &MESSAGE[..2]].concat());
    assert_eq!(contents.response, b"\0\0\0\0\x01!");

    bench.calls(caller, &[], CONTENTS_HELD_MAX + 3);
    let holds = |call: &&Call| call.witness.as_ref().is_some_and(|witness| witness.holds());
    assert_eq!(bench.proxy.calls.values().filter(holds).count(), CONTENTS_HELD_MAX);
    bench.handle(Input::Closed { conn: caller, reason: CloseReason::Eof });
    assert_eq!(bench.heard.len(), CONTENTS_HELD_MAX + 3);
    assert_eq!(bench.heard.iter().filter(|account| account.contents.is_none()).count(), 3);
    let again = bench.accept(Listener::Internal);
    bench.calls(again, &[], 1);
    assert!(bench.proxy.calls.values().all(|call| holds(&call)), "there is room again");
}

/// daprd does not tell these behind its interceptor either; with no tracing there is none.
#[test]
fn without_tracing_a_missing_target_is_the_proxys() {
    let mut bench = Bench::new(Config { tracing: Tracing::Off, ..listening(true, 0) });
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &[], Some(MESSAGE));
    assert!(bench.heard.pop().expect("an account").logged);
}
