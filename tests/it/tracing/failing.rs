//! Collectors that are gone, slow, refuse or talk nonsense: calls do not notice, memory is bounded,
//! what could not be delivered is counted, the log is told once.

use crate::peer::app::App;
use crate::peer::ports::claim;
use crate::peer::process::{Process, command, until};
use crate::peer::sidecar::{Options, http_get, loopback};
use crate::peer::{Kind, Sidecar, World, program};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

/// To get warm, and then to look at the memory.
const WARMING: u64 = 1_000;
const CALLS: u64 = 3_000;
/// Of each call's span, by its metadata.
const FILLER_OCTETS: usize = 4_000;
/// How much more memory the sidecar may have after them: much less than their spans take.
const GROWTH_OCTETS_MAX: u64 = 5 << 20;
const _: () = assert!(CALLS * FILLER_OCTETS as u64 > 2 * GROWTH_OCTETS_MAX);

/// Says the same to everybody, after the first octets; `None`: nothing, ever.
fn answerer(answer: Option<&'static [u8]>) -> u16 {
    let listener = TcpListener::bind(loopback(0)).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        let mut silent = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            match answer {
                None => silent.push(stream),
                Some(answer) => {
                    let mut heard = [0; 512];
                    let _ = stream.read(&mut heard).and_then(|_| stream.write_all(answer));
                }
            }
        }
    });
    port
}

fn counted(sidecar: &Sidecar, name: &str) -> Option<u64> {
    let answer = http_get(sidecar.ports.metrics, "/metrics")?;
    let mut lines = answer.lines().filter_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    lines.next()
}

/// So many calls of the how-to's, of which all are to work.
fn load(world: &World, address: &str, calls: u64) {
    let proto = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/grpc/greeter.proto");
    let mut ghz = command(program("ghz"));
    ghz.args(["--insecure", "--proto", proto, "--call", "helloworld.Greeter/SayHello"]);
    let metadata = json!({ "dapr-app-id": "app", "dapr-filler": "x".repeat(FILLER_OCTETS) });
    ghz.args(["-m", &metadata.to_string(), "-d", r#"{"name":"x"}"#, "-O", "json"]);
    ghz.args(["-n", &calls.to_string(), "-c", "20", "--timeout", "20s", address]);
    let mut process = Process::start(&world.folder("ghz"), &format!("ghz-{calls}"), ghz);
    process.wait_for_end();
    let told: Value = serde_json::from_str(&process.log()).expect("a report");
    assert_eq!(told["statusCodeDistribution"]["OK"], calls, "{}", told["errorDistribution"]);
}

/// Waits until so many spans were dropped, and no more.
fn drops(sidecar: &Sidecar, count: u64) {
    let dropped = until(|| {
        let dropped = counted(sidecar, "ringside_spans_dropped_total ")?;
        (dropped >= count).then_some(dropped)
    });
    assert_eq!(dropped, Some(count), "{}", sidecar.process.tail());
    assert_eq!(counted(sidecar, "ringside_spans_exported_total "), Some(0));
}

/// `tracing` names the collector's port as PORT.
fn calls_do_not_notice(name: &str, tracing: &str, port: u16) {
    let mut world = World::new(&format!("tracing-{name}"));
    world.reserve(&["app"]);
    let app = App::greeter(&world);
    let spec = format!(
        "tracing:\n  samplingRate: \"1\"\n  {}",
        tracing.replace("PORT", &port.to_string())
    );
    let env = vec![
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "300"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
    ];
    let options = Options { spec: &spec, env, app_port: Some(app.port), ..Options::default() };
    let mut sidecar = Sidecar::start(&world, Kind::Ringside, "app", options);
    load(&world, &sidecar.address(), WARMING);
    drops(&sidecar, WARMING);
    let resident = || counted(&sidecar, "process_resident_memory_bytes ").expect("a figure");
    let before = resident();
    load(&world, &sidecar.address(), CALLS);
    drops(&sidecar, WARMING + CALLS);
    let after = resident();
    println!("{name}: {before} octets before, {after} after {CALLS} calls");
    assert!(after < before + GROWTH_OCTETS_MAX, "{before} octets, then {after}");
    // Nor does the end.
    assert!(sidecar.process.terminate().success(), "{}", sidecar.process.tail());
    let log = sidecar.process.log();
    assert_eq!(log.matches("traces export to ").count(), 1, "{log}");
}

const ZIPKIN: &str = "zipkin: {endpointAddress: \"http://127.0.0.1:PORT/api/v2/spans\"}";
const GRPC: &str = "otel: {protocol: grpc, isSecure: false, endpointAddress: \"127.0.0.1:PORT\"}";
const HTTP: &str = "otel: {protocol: http, isSecure: false, endpointAddress: \"127.0.0.1:PORT\"}";

#[test]
fn gone() {
    for (name, tracing) in [("gone-zipkin", ZIPKIN), ("gone-grpc", GRPC), ("gone-http", HTTP)] {
        calls_do_not_notice(name, tracing, claim());
    }
}

#[test]
fn silent() {
    for (name, tracing) in [("silent-zipkin", ZIPKIN), ("silent-grpc", GRPC), ("silent-http", HTTP)]
    {
        calls_do_not_notice(name, tracing, answerer(None));
    }
}

#[test]
fn refusing() {
    const BUSY: &[u8] =
        b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nRetry-After: 9999999\r\n\r\nlate";
    const NO: &[u8] = b"HTTP/1.1 400 No\r\nContent-Length: 2\r\n\r\nno";
    calls_do_not_notice("busy-http", HTTP, answerer(Some(BUSY)));
    calls_do_not_notice("no-zipkin", ZIPKIN, answerer(Some(NO)));
    // An HTTP/1 answer is none to gRPC.
    calls_do_not_notice("no-grpc", GRPC, answerer(Some(NO)));
}

#[test]
fn nonsense() {
    for (name, tracing) in
        [("nonsense-zipkin", ZIPKIN), ("nonsense-grpc", GRPC), ("nonsense-http", HTTP)]
    {
        calls_do_not_notice(
            name,
            tracing,
            answerer(Some(b"\0\x01\x02 what is this \xff\xff\xff\r\n\r\n")),
        );
    }
}
