//! What crosses two sidecars and what does not: metadata, trailers, status, deadlines,
//! cancellation, tokens. Every mix; where ringside does better, it is asked to.

use crate::peer::bare::exchange;
use crate::peer::probe::{Call, End, Fields, Outcome, ProbeApp, Seen, outcomes};
use crate::peer::process::{QUARANTINE_KIB, until};
use crate::peer::sidecar::Options;
use crate::peer::{Kind, Sidecar, World, workers};
use http::Request;
use std::thread::scope;

struct Pair {
    world: World,
    app: ProbeApp,
    caller: Sidecar,
    callee: Sidecar,
    kinds: (Kind, Kind),
    /// No daprd takes part.
    ours: bool,
}

impl Pair {
    fn start(name: &str, caller: Kind, callee: Kind) -> Self {
        Self::start_with(name, caller, callee, Options::default())
    }

    /// Both sidecars get these options.
    fn start_with(name: &str, caller: Kind, callee: Kind, options: Options<'_>) -> Self {
        let name = format!("calls-{}-{}-{name}", caller.name(), callee.name());
        let mut world = World::with_sentry(&name);
        world.reserve(&["server", "client"]);
        let app = ProbeApp::start(&world);
        let served = Options { app_port: Some(app.port), ..options.clone() };
        let kinds = (caller, callee);
        let ours = kinds == (Kind::Ringside, Kind::Ringside);
        let callee = Sidecar::start(&world, callee, "server", served);
        let caller = Sidecar::start(&world, caller, "client", options);
        Self { world, app, caller, callee, kinds, ours }
    }

    fn call(&self) -> Call {
        Call::to(&self.caller.address()).app("server")
    }

    fn run(&mut self, call: Call, name: &str) -> (Outcome, Seen, End) {
        let outcome = call.run(&self.world, name);
        let count = self.app.seen().len();
        let end = self.app.ends(count).pop().expect("an end of the call");
        (outcome, self.app.seen().pop().expect("the call at the app"), end)
    }
}

fn values<'a>(fields: &'a Fields, name: &str) -> Vec<&'a str> {
    fields.get(name).into_iter().flatten().map(String::as_str).collect()
}

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn carries_metadata(caller: Kind, callee: Kind) {
    let mut pair = Pair::start("metadata", caller, callee);
    let call = pair
        .call()
        .metadata("x-one", "1")
        .metadata("x-one", "2")
        .metadata("x-data-bin", "AAEC/v8")
        .metadata("dapr-stream", "true")
        .metadata("tracestate", "vendor=1")
        .metadata("traceparent", TRACEPARENT)
        .metadata("probe-header", "a-header=early")
        .metadata("probe-header", "b-header-bin=AQID")
        .metadata("probe-trailer", "a-trailer=late")
        .metadata("probe-trailer", "b-trailer-bin=/v8")
        .args(&["-user-agent", "someone/1", "-messages", "3", "-size", "70000"]);
    let (outcome, seen, end) = pair.run(call, "metadata");
    assert_eq!((outcome.status(), outcome.messages, outcome.mismatch), (("OK", ""), 3, false));
    assert_eq!(values(&outcome.header, "a-header"), ["early"]);
    assert_eq!(values(&outcome.header, "b-header-bin"), ["AQID"]);
    assert_eq!(values(&outcome.trailer, "a-trailer"), ["late"]);
    assert_eq!(values(&outcome.trailer, "b-trailer-bin"), ["/v8"]);
    assert_eq!((end.messages, end.bytes), (3, 210_000));

    let at_app = &seen.metadata;
    assert_eq!(seen.method, "/probe.Probe/Echo");
    assert_eq!(values(at_app, "x-one"), ["1", "2"]);
    assert_eq!(values(at_app, "x-data-bin"), ["AAEC/v8"]);
    assert_eq!(values(at_app, "dapr-stream"), ["true"]);
    assert_eq!(values(at_app, "tracestate"), ["vendor=1"]);
    assert_eq!(values(at_app, "dapr-caller-app-id"), ["client"]);
    assert_eq!(values(at_app, "dapr-callee-app-id"), ["server"]);
    assert_eq!(values(at_app, "dapr-app-id"), [""; 0]);
    assert_eq!(values(at_app, ":authority"), [format!("127.0.0.1:{}", pair.app.port)]);
    if pair.ours {
        let traces = values(at_app, "traceparent");
        assert_eq!(traces.len(), 1, "{traces:?}");
        assert!(traces[0].contains("4bf92f3577b34da6a3ce929d0e0e4736"), "{traces:?}");
        assert_eq!(values(at_app, "grpc-accept-encoding"), ["gzip"]);
        let agents = values(at_app, "user-agent");
        assert!(agents.len() == 1 && agents[0].starts_with("someone/1"), "{agents:?}");
    } else {
        assert!(values(at_app, "traceparent").contains(&TRACEPARENT));
    }
}

/// Whatever the sidecars between say of their own, the app sees one context or none.
fn leaves_one_trace_context(caller: Kind, callee: Kind) {
    // Version 0; field 0: a trace id, field 1: a span id, field 2: flags.
    const TRACE_BIN: &str = "AABL+S81d7NNpqPOkp0ODkc2AQDwZ6oLqQK3AgE";
    let mut pair = Pair::start("trace", caller, callee);
    let count = |seen: &Seen, name: &str| values(&seen.metadata, name).len();
    let (outcome, seen, _) = pair.run(pair.call(), "without");
    assert_eq!(outcome.status(), ("OK", ""));
    let none = (count(&seen, "traceparent"), count(&seen, "grpc-trace-bin"));
    assert_eq!(none, (0, 0), "{:?}", seen.metadata);

    let text = || pair.call().metadata("traceparent", TRACEPARENT);
    let (text, both) = (text(), text().metadata("grpc-trace-bin", TRACE_BIN));
    for (name, call) in [("text", text), ("both", both)] {
        let (outcome, seen, _) = pair.run(call, name);
        assert_eq!(outcome.status(), ("OK", ""), "{name}");
        let traces = values(&seen.metadata, "traceparent");
        assert_eq!(traces.len(), 1, "{name}: {traces:?}");
        assert!(traces[0].contains("4bf92f3577b34da6a3ce929d0e0e4736"), "{name}: {traces:?}");
        assert!(count(&seen, "grpc-trace-bin") <= 1, "{name}: {:?}", seen.metadata);
    }
    let binary = pair.call().metadata("grpc-trace-bin", TRACE_BIN);
    let (outcome, seen, _) = pair.run(binary, "binary");
    assert_eq!(outcome.status(), ("OK", ""));
    assert_eq!(count(&seen, "grpc-trace-bin"), 1, "{:?}", seen.metadata);
    assert!(count(&seen, "traceparent") <= 1, "{:?}", seen.metadata);
}

fn carries_status(caller: Kind, callee: Kind) {
    let mut pair = Pair::start("status", caller, callee);
    let call = pair
        .call()
        .metadata("probe-code", "9")
        .metadata("probe-message-bin", "bm90IG5vdzogNTAlIOKYgw")
        .metadata("probe-details-bin", "AQID")
        .metadata("probe-reply", "none")
        .metadata("probe-header", "a-header=early")
        .metadata("probe-trailer", "a-trailer=late");
    let (outcome, ..) = pair.run(call, "status");
    assert_eq!(outcome.status(), ("FailedPrecondition", "not now: 50% \u{2603}"));
    assert_eq!(outcome.details.len(), 1);
    assert_eq!(values(&outcome.trailer, "a-trailer"), ["late"]);
    if pair.ours {
        assert_eq!(values(&outcome.header, "a-header"), ["early"]);
    }
}

fn ends_with_the_caller(caller: Kind, callee: Kind) {
    let mut pair = Pair::start("ends", caller, callee);
    let slow = pair.call().metadata("probe-sleep-ms", "60000").args(&["-deadline", "700ms"]);
    let (outcome, seen, end) = pair.run(slow, "deadline");
    assert_eq!(outcome.code, "DeadlineExceeded", "{}", outcome.message);
    assert!(outcome.elapsed_ms < 10_000, "{}", outcome.elapsed_ms);
    let left = seen.deadline_ms.expect("a deadline at the app");
    assert!((0..=700).contains(&left), "{left} ms left at the app");
    assert_ne!(end.context, "");

    let cancelled = pair.call().metadata("probe-flush", "1").args(&[
        "-messages",
        "100000",
        "-ping-pong",
        "-cancel-after",
        "3",
    ]);
    let (outcome, _, end) = pair.run(cancelled, "cancel");
    assert_eq!(outcome.code, "Canceled");
    // The next answer may be there already when the caller cancels.
    assert!((3..=4).contains(&outcome.messages), "{}", outcome.messages);
    assert_eq!(end.context, "context canceled");
}

/// A caller without a timer of its own is told of its deadline, whoever's rings first: this
/// sidecar's, the other's, or the app's.
fn tells_the_deadline(caller: Kind, callee: Kind) {
    let pair = Pair::start("rings", caller, callee);
    let port = pair.caller.ports.grpc;
    for round in 0..20 {
        let request = Request::post(format!("http://127.0.0.1:{port}/probe.Probe/Echo"))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .header("dapr-app-id", "server")
            .header("probe-sleep-ms", "60000")
            .header("grpc-timeout", "40m");
        let request = request.body(()).expect("a request");
        let got = exchange(port, request, b"\0\0\0\0\x05hello").expect("an answer");
        assert_eq!((got.status, got.last("grpc-status")), (200, "4"), "{round}: {got:?}");
    }
}

/// Response headers arrive when the app sends them, not with the first message.
fn sends_headers_early(caller: Kind, callee: Kind) {
    let mut pair = Pair::start("early", caller, callee);
    let call = pair.call().metadata("probe-flush", "1").metadata("probe-header", "a-header=early");
    let call = call.args(&["-wait-header", "-deadline", "10s"]);
    let (outcome, ..) = pair.run(call, "early");
    assert_eq!((outcome.status(), outcome.messages), (("OK", ""), 1));
    assert_eq!(values(&outcome.header, "a-header"), ["early"]);
}

fn guards_tokens(caller: Kind, callee: Kind) {
    let env = [("DAPR_API_TOKEN", "sesame"), ("APP_API_TOKEN", "app-secret")];
    let options = Options { env: env.to_vec(), ..Options::default() };
    let mut pair = Pair::start_with("tokens", caller, callee, options);
    for (name, token) in [("none", None), ("wrong", Some("Sesame")), ("longer", Some("sesame1"))] {
        let call = token.map_or(pair.call(), |t| pair.call().metadata("dapr-api-token", t));
        let outcome = call.run(&pair.world, name);
        assert_eq!(outcome.status(), ("Unauthenticated", "Unauthorized"), "{name}");
        assert_eq!(outcome.details.len(), 1, "{name}");
    }
    assert!(pair.app.seen().is_empty());
    let call = pair.call().metadata("dapr-api-token", "sesame");
    let (outcome, seen, _) = pair.run(call, "right");
    assert_eq!(outcome.status(), ("OK", ""));
    assert_eq!(values(&seen.metadata, "dapr-api-token"), ["app-secret"]);
}

/// 8 callers at a time, each with 40 calls on its own connection.
fn keeps_calls_apart(caller: Kind, callee: Kind) {
    let mut pair = Pair::start("apart", caller, callee);
    let one = |n: usize| {
        let (size, name) = ((n * 977 + 1).to_string(), format!("caller-{n}"));
        let call = pair.call().metadata("probe-header", &format!("who={n}"));
        let call = call.args(&["-times", "40", "-messages", "5", "-ping-pong", "-size", &size]);
        let outcome = call.run(&pair.world, &name);
        assert_eq!((outcome.status(), outcome.mismatch), (("OK", ""), false));
        assert_eq!((outcome.messages, outcome.bytes as usize), (5, 5 * (n * 977 + 1)));
        assert_eq!(values(&outcome.header, "who"), [n.to_string()]);
    };
    scope(|threads| {
        for n in 0..8 {
            threads.spawn(move || one(n));
        }
    });
    assert_eq!(pair.app.ends(320).len(), 320);
}

/// A stream in flight outlives SIGTERM of both sidecars, and they end when it does.
fn drains(caller: Kind, callee: Kind) {
    let mut pair = Pair::start("drain", caller, callee);
    let call = pair.call().metadata("probe-flush", "1").metadata("probe-sleep-ms", "1500");
    let mut call = call.start(&pair.world, "in-flight");
    until(|| (pair.app.seen().len() == 1).then_some(())).expect("the call at the app");
    for sidecar in [&pair.caller, &pair.callee] {
        sidecar.process.signal(rustix::process::Signal::TERM);
    }
    call.wait_for_end();
    let outcome = crate::peer::probe::outcome(&call);
    assert_eq!((outcome.status(), outcome.messages), (("OK", ""), 1));
    for sidecar in [&mut pair.caller, &mut pair.callee] {
        let ended = sidecar.process.wait_for_end();
        assert!(ended.success(), "{ended}");
        sidecar.process.wait_for_line("Daprd shutdown gracefully");
    }
}

/// One message of `size` octets each way, alone: its own size and the other's are `SMALL`.
fn one_way(pair: &Pair, size: u64, way: &str) -> Outcome {
    let size = size.to_string();
    let (request, response) = if way == "request" { (&*size, "7") } else { ("7", &*size) };
    let call = pair.call().metadata("probe-reply", "1").metadata("probe-size", response);
    call.args(&["-size", request]).run(&pair.world, &format!("{way}-{size}"))
}

/// Messages around a limit, each way. Who meets it first says so: the caller's sidecar of a
/// request, the callee's of a response; a ringside adds which flag it is.
fn meets_limit(pair: &Pair, limit: u64) {
    for (way, judge) in [("request", pair.kinds.0), ("response", pair.kinds.1)] {
        for size in [limit - 1, limit] {
            let outcome = one_way(pair, size, way);
            let answer = if way == "request" { 7 } else { size };
            assert_eq!(outcome.status(), ("OK", ""), "{way} of {size}");
            assert_eq!((outcome.messages, outcome.bytes), (1, answer), "{way} of {size}");
        }
        let beyond = limit + 1;
        let outcome = one_way(pair, beyond, way);
        let flag = if judge == Kind::Ringside { " (--max-body-size)" } else { "" };
        let text = format!("grpc: received message larger than max ({beyond} vs. {limit}){flag}");
        assert_eq!(outcome.status(), ("ResourceExhausted", text.as_str()), "{way}");
    }
}

/// Limits of daprd's default `--max-body-size`, and what lies just below.
fn limits_sizes(caller: Kind, callee: Kind) {
    let mut pair = Pair::start("sizes", caller, callee);
    meets_limit(&pair, 4 << 20);
    let (outcome, ..) = pair.run(pair.call().args(&["-size", "4194304"]), "echo");
    assert_eq!((outcome.status(), outcome.bytes, outcome.mismatch), (("OK", ""), 4_194_304, false));
    let (outcome, seen, _) = pair.run(pair.call().metadata("x-long", &"x".repeat(6000)), "field");
    assert_eq!(outcome.status(), ("OK", ""));
    assert_eq!(values(&seen.metadata, "x-long"), ["x".repeat(6000)]);
}

/// 100 MiB with the limit raised: octets pass as they come, no message is put together.
fn passes_large_messages(caller: Kind, callee: Kind) {
    const LIMIT: u64 = 100 << 20;
    /// What a sidecar may have taken at its height, its own code and windows included.
    const MEMORY_MAX_KIB: usize = (48 << 10) + QUARANTINE_KIB;
    let args = vec!["--max-body-size", "100Mi"];
    let options = Options { args, ..Options::default() };
    let pair = Pair::start_with("large", caller, callee, options);
    meets_limit(&pair, LIMIT);
    let sidecars = [(caller, &pair.caller), (callee, &pair.callee)];
    for (_, sidecar) in sidecars.into_iter().filter(|(kind, _)| *kind == Kind::Ringside) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", sidecar.process.pid()));
        let status = status.expect("a status in /proc");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|text| text.trim().strip_suffix(" kB")).expect("a peak");
        let peak: usize = peak.parse().expect("a number");
        assert!(peak < MEMORY_MAX_KIB, "{peak} KiB at its height");
    }
}

/// A caller that compresses gets right answers; what the messages look like on the way is open.
fn serves_gzip(caller: Kind, callee: Kind) {
    let mut pair = Pair::start("gzip", caller, callee);
    let call = pair.call().args(&["-gzip", "-messages", "3", "-size", "50000"]);
    let (outcome, _, end) = pair.run(call, "gzip");
    assert_eq!((outcome.status(), outcome.messages, outcome.mismatch), (("OK", ""), 3, false));
    assert_eq!((end.messages, end.bytes), (3, 150_000));
}

/// The other sidecar, or the app, is killed while a stream is open.
fn outlives_a_crash(caller: Kind, callee: Kind) {
    for victim in ["sidecar", "app"] {
        let mut pair = Pair::start(&format!("crash-{victim}"), caller, callee);
        let call = pair.call().metadata("probe-flush", "1").metadata("probe-sleep-ms", "60000");
        let mut call = call.start(&pair.world, "in-flight");
        until(|| (pair.app.seen().len() == 1).then_some(())).expect("the call at the app");
        let killed = if victim == "app" { &pair.app.process } else { &pair.callee.process };
        killed.signal(rustix::process::Signal::KILL);
        call.wait_for_end();
        let outcome = crate::peer::probe::outcome(&call);
        assert_eq!(outcome.code, "Unavailable", "{victim}: {}", outcome.message);
        assert!(outcome.message.starts_with("error reading from server: "), "{}", outcome.message);
        // Who failed, and who saw it: the app's loss is the callee's sidecar's to tell.
        let (witness, port) = match victim {
            "app" => (callee, pair.app.port),
            _ => (caller, pair.callee.ports.internal),
        };
        let blame = match victim {
            "app" => format!(" (the app at 127.0.0.1:{port}, seen by the sidecar of server)"),
            _ => format!(
                " (the sidecar of server.default at 127.0.0.1:{port}, seen by that of client)"
            ),
        };
        let told = outcome.message.ends_with(&blame);
        assert_eq!(told, witness == Kind::Ringside, "{victim}: {}", outcome.message);
        assert!(pair.caller.process.running(), "{victim}");
    }
}

/// An app that sends GOAWAY again and again: no call is lost to it.
fn survives_goaways(caller: Kind, callee: Kind) {
    const CALLS: usize = 1500;
    let name = format!("calls-{}-{}-goaway", caller.name(), callee.name());
    let mut world = World::with_sentry(&name);
    world.reserve(&["server", "client"]);
    let app = ProbeApp::restless(&world, "100ms");
    let _callee = Sidecar::callee(&world, callee, "server", app.port);
    let caller = Sidecar::caller(&world, caller, "client");
    let start = |n: usize| {
        let call = Call::to(&caller.address()).app("server");
        call.args(&["-times", &CALLS.to_string()]).start(&world, &format!("caller-{n}"))
    };
    let mut callers = [start(0), start(1), start(2)];
    for process in &mut callers {
        process.wait_for_end();
        let outcomes = outcomes(process);
        assert_eq!(outcomes.len(), CALLS);
        let lost: Vec<_> = outcomes.iter().filter(|outcome| outcome.code != "OK").collect();
        assert!(lost.is_empty(), "{} calls lost, the first: {:?}", lost.len(), lost[0]);
    }
}

/// The app, and then the other sidecar, end and come back on their ports.
fn finds_back(caller: Kind, callee: Kind) {
    let mut pair = Pair::start("back", caller, callee);
    let served = |pair: &Pair, name: &str| {
        let call = || pair.call().args(&["-deadline", "10s"]).run(&pair.world, name);
        until(|| (call().code == "OK").then_some(()))
    };
    served(&pair, "before").expect("a first answer");
    let port = pair.app.port;
    pair.app.process.terminate();
    let lost = pair.call().run(&pair.world, "no-app");
    assert_eq!(lost.code, "Unavailable", "{}", lost.message);
    pair.app = ProbeApp::start_at(&pair.world, "second-app", port, None);
    served(&pair, "app-back").expect("an answer from the second app");

    assert!(pair.callee.process.terminate().success());
    let lost = pair.call().run(&pair.world, "no-sidecar");
    assert_eq!(lost.code, "Unavailable", "{}", lost.message);
    pair.callee = Sidecar::callee(&pair.world, callee, "server", port);
    served(&pair, "sidecar-back").expect("an answer through the second sidecar");
}

/// Callers come and go: no descriptor stays behind.
fn forgets_callers(caller: Kind, callee: Kind) {
    let mut pair = Pair::start("forgets", caller, callee);
    let count = |sidecar: &Sidecar| {
        let folder = format!("/proc/{}/fd", sidecar.process.pid());
        std::fs::read_dir(folder).expect("open files in /proc").count()
    };
    let (outcome, ..) = pair.run(pair.call(), "first");
    assert_eq!(outcome.status(), ("OK", ""));
    let before = [count(&pair.caller), count(&pair.callee)];
    for n in 0..50 {
        let name = format!("caller-{n}");
        assert_eq!(pair.call().run(&pair.world, &name).status(), ("OK", ""));
    }
    // The last caller's connection may still be closing. Each worker has connections of its own, to
    // the other sidecar and to the app.
    let slack = 2 + 2 * (workers().unwrap_or(1) - 1);
    let flat = until(|| {
        let now = [count(&pair.caller), count(&pair.callee)];
        now.iter().zip(before).all(|(now, before)| *now <= before + slack).then_some(())
    });
    assert!(flat.is_some(), "{before:?} became {:?}", [count(&pair.caller), count(&pair.callee)]);
}

macro_rules! mixes {
    ($($module:ident: $caller:ident to $callee:ident, $($test:ident)*;)*) => {$(
        mod $module {
            use super::*;
            $(
                #[test]
                fn $test() {
                    super::$test(Kind::$caller, Kind::$callee);
                }
            )*
        }
    )*};
}

mixes! {
    daprd_to_daprd: Daprd to Daprd,
        carries_metadata carries_status ends_with_the_caller guards_tokens keeps_calls_apart drains
        limits_sizes serves_gzip outlives_a_crash forgets_callers survives_goaways finds_back
        passes_large_messages;
    daprd_to_ringside: Daprd to Ringside,
        carries_metadata carries_status ends_with_the_caller guards_tokens keeps_calls_apart drains
        limits_sizes serves_gzip outlives_a_crash forgets_callers survives_goaways finds_back
        passes_large_messages leaves_one_trace_context;
    ringside_to_daprd: Ringside to Daprd,
        carries_metadata carries_status ends_with_the_caller guards_tokens keeps_calls_apart drains
        limits_sizes serves_gzip outlives_a_crash forgets_callers survives_goaways finds_back
        passes_large_messages tells_the_deadline;
    ringside_to_ringside: Ringside to Ringside,
        carries_metadata carries_status ends_with_the_caller guards_tokens keeps_calls_apart drains
        limits_sizes serves_gzip outlives_a_crash forgets_callers survives_goaways finds_back
        passes_large_messages sends_headers_early leaves_one_trace_context tells_the_deadline;
}
