//! The log: daprd's fields beside ours, the calls of the API, what changes while it runs, and what
//! never gets in.

use crate::peer::ports::claim;
use crate::peer::probe::{Call, ProbeApp};
use crate::peer::process::{Process, QUARANTINE_KIB, command, until};
use crate::peer::sidecar::{Options, http_get, http_request};
use crate::peer::{Kind, Sidecar, World, program};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};

const TOKEN: &str = "token-of-the-api";
/// With tracing, daprd's interceptor refuses reflection, as it does any stream without a target.
const UNTRACED: &str = "tracing: {samplingRate: \"0\"}";

fn lines(sidecar: &Sidecar) -> Vec<Value> {
    let log = sidecar.process.log();
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// What the log of the API's calls holds, without what no two runs share.
fn called(sidecar: &Sidecar) -> Vec<String> {
    let lines = lines(sidecar).into_iter();
    let of_calls = lines.filter(|line| {
        // Asking whether it was well, at the start, was a call too.
        let ours = line["method"] == "GET /v1.0/healthz" && line.get("useragent").is_none();
        line["scope"].as_str().unwrap_or_default().ends_with("-info") && !ours
    });
    of_calls
        .map(|mut line| {
            let fields = line.as_object_mut().expect("an object");
            let mut duration = fields.remove("duration").expect("a duration");
            assert!(duration.take().is_u64(), "whole milliseconds: {line}");
            let fields = line.as_object_mut().expect("an object");
            assert!(fields.remove("time").is_some_and(|time| time.is_string()));
            line.to_string()
        })
        .collect()
}

fn ask_metadata(world: &World, sidecar: &Sidecar, token: &str) {
    let mut grpcurl = command(program("grpcurl"));
    grpcurl.args(["-plaintext", "-max-time", "20", "-H", &format!("dapr-api-token: {token}")]);
    grpcurl.arg(sidecar.address()).arg("dapr.proto.runtime.v1.Dapr/GetMetadata");
    Process::start(&world.folder("callers"), "grpcurl", grpcurl).wait_for_end();
}

/// Everything that can become of a call, by gRPC and by HTTP, through a sidecar of this kind.
fn calls(kind: Kind, name: &str, spec: &str, args: &[&str]) -> Vec<String> {
    let mut world = World::new(&format!("logs-{name}-{}", kind.name()));
    world.reserve(&["server"]);
    world.dead_host("dead");
    let app = ProbeApp::start(&world);
    let mut all = vec!["--log-as-json"];
    all.extend(args);
    let options = Options {
        app_port: Some(app.port),
        args: all,
        env: vec![("DAPR_API_TOKEN", TOKEN)],
        spec,
        ..Options::default()
    };
    let sidecar = Sidecar::start(&world, kind, "server", options);
    let call = || Call::to(&sidecar.address()).metadata("dapr-api-token", TOKEN);
    let bare = || Call::to(&sidecar.address());
    for (n, call) in [
        call().app("server"),
        call().app("server").metadata("probe-code", "6"),
        call().app("server").metadata("dapr-stream", "true"),
        call().app("dead"),
        call().app("nobody"),
        call().app("a.b.c"),
        call(),
        bare().app("server"),
        bare().app("server").metadata("dapr-api-token", "wrong"),
    ]
    .into_iter()
    .enumerate()
    {
        call.run(&world, &format!("call-{n}"));
    }
    let header = format!("dapr-api-token: {TOKEN}\r\nUser-Agent: logs/1\r\n");
    for (method, path, header) in [
        ("GET", "/v1.0/healthz", "User-Agent: prober\r\n"),
        ("GET", "/v1.0/healthz/outbound?x=y", ""),
        ("PUT", "/v1.0/metadata/a%2Fb", &*header),
        ("GET", "/v1.0/metadata", "dapr-api-token: wrong\r\n"),
        ("GET", "/v1.0//nowhere/", &*header),
        ("POST", "/v1.0/shutdown/x", &*header),
    ] {
        http_request(sidecar.ports.http, method, path, header, "value").expect("an answer");
    }
    if spec.contains(UNTRACED) {
        ask_metadata(&world, &sidecar, TOKEN);
    }
    let mut last = Vec::new();
    until(|| {
        let now = called(&sidecar);
        (std::mem::replace(&mut last, now.clone()) == now).then_some(())
    });
    last
}

fn compare(name: &str, spec: &str, args: &[&str]) -> Vec<String> {
    let daprd = calls(Kind::Daprd, name, spec, args);
    let ours = calls(Kind::Ringside, name, spec, args);
    // Whose line is written first of two that end together is chance.
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines.join("\n")
    };
    let (ours, daprd) = (sorted(ours), sorted(daprd));
    assert_eq!(ours, daprd, "ringside's first, then daprd's");
    ours.lines().map(str::to_owned).collect()
}

#[test]
fn tells_calls_of_the_api_as_daprd_does() {
    let told = compare("api", "", &["--enable-api-logging"]);
    let having = |text: &str| told.iter().filter(|line| line.contains(text)).count();
    assert!(having("gRPC API Called") >= 6 && having("HTTP API Called") >= 4, "{told:#?}");
    let spec = format!(
        "logging: {{apiLogging: {{enabled: true, obfuscateURLs: true, omitHealthChecks: true}}}}\n\
         {UNTRACED}"
    );
    let told = compare("obfuscated", &spec, &[]).concat();
    assert!(told.contains("Dapr/GetMetadata") && told.contains("ServerReflectionInfo"), "{told}");
    assert!(!told.contains("healthz") && !told.contains("GET "), "{told}");
    assert!(told.contains("\"PutMetadata\"") && told.contains("\"InvokeService\""), "{told}");
    // The flag has the last word.
    let told = compare("off", &spec, &["--enable-api-logging=false"]);
    assert_eq!(told, Vec::<String>::new());
}

/// Field by field: those of each line, their order in text, what they hold.
#[test]
fn every_line_has_daprds_fields() {
    const ENDS: &str = "dapr initialized. Status: Running.";
    let told = |kind: Kind, json: bool| {
        let mut world = World::new(&format!("logs-fields-{}-{json}", kind.name()));
        world.reserve(&["server"]);
        let app = ProbeApp::start(&world);
        let args = vec![if json { "--log-as-json" } else { "--log-level=info" }];
        let options = Options { app_port: Some(app.port), args, ..Options::default() };
        let mut sidecar = Sidecar::start(&world, kind, "server", options);
        let line = sidecar.process.wait_for_line(ENDS);
        // What differs from run to run.
        let elapsed = line.split("Elapsed ").nth(1).and_then(|rest| rest.split('m').next());
        let elapsed = elapsed.expect("a time");
        let line = line.replace(&format!("Elapsed {elapsed}ms"), "Elapsed Nms");
        let time = line.split(if json { "\"time\":\"" } else { "time=\"" }).nth(1);
        let time = time.and_then(|rest| rest.split('"').next()).expect("a time").to_owned();
        assert!(time.len() > "2026-11-26T03:44:00Z".len() && time.contains('T'), "{time}");
        line.replace(&time, "T")
    };
    for json in [false, true] {
        assert_eq!(told(Kind::Ringside, json), told(Kind::Daprd, json));
    }
}

#[test]
fn a_signal_makes_the_log_tell_more_and_again_less() {
    let mut world = World::new("logs-signal");
    world.reserve(&["server"]);
    let options = Options { args: vec!["--log-level", "error"], ..Options::default() };
    let mut sidecar = Sidecar::start(&world, Kind::Ringside, "server", options);
    assert!(!sidecar.process.log().contains("level=info"));
    sidecar.process.signal(Signal::USR1);
    sidecar.process.wait_for_line("level=info msg=\"Log level set to: debug\"");
    sidecar.process.signal(Signal::USR1);
    sidecar.process.wait_for_line("level=info msg=\"Log level set to: error\"");
    assert_eq!(sidecar.process.terminate().code(), Some(0));
    assert!(!sidecar.process.log().contains("Daprd shutdown gracefully"));
}

/// Who waits for Sentry is asked why, and must not end of it.
#[test]
fn a_signal_is_heard_while_sentry_is_waited_for() {
    let mut world = World::with_sentry("logs-early-signal");
    world.reserve(&["server"]);
    let dead = format!("127.0.0.1:{}", claim());
    let args = vec!["--sentry-address", &dead];
    let options = Options { args, await_api: false, ..Options::default() };
    let mut sidecar = Sidecar::start(&world, Kind::Ringside, "server", options);
    sidecar.process.wait_for_line("Waiting for Sentry at ");
    sidecar.process.signal(Signal::USR1);
    sidecar.process.wait_for_line("Log level set to: debug");
    assert!(sidecar.process.running());
}

/// With everything on that tells of calls, what is secret is not told.
#[test]
fn tokens_are_never_logged() {
    let mut world = World::new("logs-tokens");
    world.reserve(&["server", "client"]);
    let app = ProbeApp::start(&world);
    let secrets = [TOKEN, "token-of-the-app", "bearer-of-a-caller", "cookie-of-a-caller"];
    let options = |app_port| Options {
        app_port,
        args: vec!["--enable-api-logging", "--log-level=debug", "--ringside-log-contents=4096"],
        env: vec![("DAPR_API_TOKEN", TOKEN), ("APP_API_TOKEN", "token-of-the-app")],
        ..Options::default()
    };
    let callee = Sidecar::start(&world, Kind::Ringside, "server", options(Some(app.port)));
    let caller = Sidecar::start(&world, Kind::Ringside, "client", options(None));
    for (n, id) in ["server", "nobody"].into_iter().enumerate() {
        let call = Call::to(&caller.address()).app(id).metadata("dapr-api-token", TOKEN);
        let call = call.metadata("authorization", "Bearer bearer-of-a-caller");
        call.metadata("cookie", "cookie-of-a-caller").run(&world, &format!("call-{n}"));
    }
    let header = format!("dapr-api-token: {TOKEN}\r\nAuthorization: bearer-of-a-caller\r\n");
    http_request(caller.ports.http, "GET", "/v1.0/metadata", &header, "").expect("an answer");
    let mut logs = [caller, callee].map(|mut sidecar| {
        assert_eq!(sidecar.process.terminate().code(), Some(0));
        sidecar.process.log()
    });
    assert!(app.seen().iter().any(|seen| seen.metadata.contains_key("authorization")));
    for log in &mut logs {
        assert!(log.contains("Contents of a call"), "{log}");
        for secret in secrets {
            assert!(!log.contains(secret), "{secret} in {log}");
        }
    }
}

/// Off unless asked for; then cut, and said at the start.
#[test]
fn contents_are_shown_only_when_asked_for() {
    let mut world = World::new("logs-contents");
    world.reserve(&["server"]);
    let app = ProbeApp::start(&world);
    let options = |octets: &'static str| Options {
        app_port: Some(app.port),
        args: vec!["--enable-api-logging", "--ringside-log-contents", octets],
        ..Options::default()
    };
    let log = |octets: &'static str| {
        let mut sidecar = Sidecar::start(&world, Kind::Ringside, "server", options(octets));
        Call::to(&sidecar.address()).app("server").run(&world, "call");
        assert_eq!(sidecar.process.terminate().code(), Some(0));
        sidecar.process.log()
    };
    let without = log("0");
    assert!(without.contains("gRPC API Called") && !without.contains("Contents"), "{without}");
    let with = log("8");
    assert!(with.contains("the log shows the first 8 octets of what calls carry each way"));
    let line = with.lines().find(|line| line.contains("Contents of a call")).expect("contents");
    assert!(line.contains("scope=ringside.contents") && line.contains("hop=outbound"), "{line}");
    let shown = line.split("request=\"").nth(1).and_then(|rest| rest.split('"').next());
    let shown = shown.expect("octets").replace("\\\\x", "\\x");
    let octets = shown.split("\\x").filter(|part| !part.is_empty());
    let octets: usize = octets.map(|part| part.len().saturating_sub(1)).sum();
    assert!((1..=8).contains(&octets), "{line}");
    let options = Options { await_api: false, ..options("16385") };
    let mut refused = Sidecar::start(&world, Kind::Ringside, "server", options);
    assert_eq!(refused.process.wait_for_end().code(), Some(1));
    let told: BTreeSet<bool> =
        refused.process.log().lines().map(|l| l.contains("16385 is not 0 to 16384")).collect();
    assert!(told.contains(&true), "{}", refused.process.tail());
}

/// Nobody reads what the sidecar writes, and everything that can be logged of calls is: no call is
/// the worse for it. What was dropped is counted and told, and what waits is bounded.
#[test]
fn a_reader_of_stdout_that_stopped_holds_up_nobody() {
    const CALLS: usize = 2000;
    let mut world = World::new("logs-stopped-reader");
    world.reserve(&["server"]);
    let app = ProbeApp::start(&world);
    let pipe = world.folder("pipe").join("stdout");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
        .expect("a pipe with a name");
    // Open on both sides, so that opening it waits for nobody, and neither does its end.
    let reader = File::options().read(true).write(true).open(&pipe).expect("its end");
    let options = Options {
        app_port: Some(app.port),
        args: vec!["--enable-api-logging", "--ringside-log-contents=4096"],
        stdout: Some(&pipe),
        ..Options::default()
    };
    let mut sidecar = Sidecar::start(&world, Kind::Ringside, "server", options);
    let before = sidecar.process.rss_kib();
    let times = (CALLS / 2).to_string();
    let call = |name| {
        let call = Call::to(&sidecar.address()).app("server");
        call.args(&["-times", &times, "-size", "4096"]).start(&world, name)
    };
    // Each of their lines tells 4 KiB each way: 8 MiB of them are less than all.
    let mut callers = [call("one"), call("two")];
    for caller in &mut callers {
        caller.wait_for_end();
        let outcomes = crate::peer::probe::outcomes(caller);
        let well = outcomes.iter().filter(|outcome| outcome.code == "OK").count();
        assert_eq!(well, CALLS / 2, "{}", caller.tail());
    }
    let grown = sidecar.process.rss_kib().saturating_sub(before);
    assert!(grown < (64 << 10) + QUARANTINE_KIB, "{grown} KiB more for lines that nobody reads");
    let drops = |sidecar: &Sidecar| {
        let metrics = http_get(sidecar.ports.metrics, "/").expect("metrics");
        let line = metrics.lines().find(|line| line.starts_with("ringside_log_drops_total "));
        let count = line.and_then(|line| line.split(' ').nth(1)).expect("the series");
        count.parse::<f64>().expect("a number")
    };
    // Carried to the metrics once a second.
    let dropped = until(|| Some(drops(&sidecar)).filter(|count| *count > 0.0));
    assert!(dropped.is_some(), "nothing was dropped: the pipe took it all");
    // Somebody reads again, and is told.
    let lines = BufReader::new(reader.try_clone().expect("its end")).lines();
    let told = lines.map(|line| line.expect("a line")).find(|line| line.contains("were dropped"));
    assert!(told.is_some_and(|line| line.contains("came faster than they could be written")));
    // And one that has stopped again does not keep it from ending.
    assert_eq!(sidecar.process.terminate().code(), Some(0));
}
