//! A real OpenTelemetry collector takes the same spans by OTLP, over gRPC and over HTTP, in plaintext
//! and behind TLS, compressed or not, as it takes daprd's.

use crate::peer::ports::claim;
use crate::peer::probe::{Call, ProbeApp};
use crate::peer::process::{Process, command};
use crate::peer::sidecar::{Options, loopback};
use crate::peer::{Kind, Sidecar, World, program};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

pub(super) struct Collector {
    process: Process,
    grpc: u16,
    pub(super) http: u16,
}

/// A span and what was said beside it.
pub(super) struct Told {
    key: String,
    schema: Value,
    resource: Value,
    scope: Value,
    pub(super) span: Value,
}

impl Collector {
    pub(super) fn start(world: &World, tls: Option<&Path>) -> Self {
        Self::start_for(world, tls, None)
    }

    /// One that asks its clients for a certificate, if there is one that vouches for them.
    fn start_for(world: &World, tls: Option<&Path>, clients: Option<&Path>) -> Self {
        let (grpc, http) = (claim(), claim());
        let mut collector = command(program("collector"));
        for (flag, port) in [("-grpc", grpc), ("-http", http)] {
            collector.args([flag, &format!("127.0.0.1:{port}")]);
        }
        if let Some(folder) = tls {
            collector.arg("-cert").arg(folder.join("cert.pem"));
            collector.arg("-key").arg(folder.join("key.pem"));
        }
        if let Some(folder) = clients {
            collector.arg("-clients").arg(folder.join("cert.pem"));
        }
        let mut process = Process::start(&world.folder("collector"), "collector", collector);
        process.wait_for_line("listening");
        Self { process, grpc, http }
    }

    fn port(&self, protocol: &str) -> u16 {
        if protocol == "grpc" { self.grpc } else { self.http }
    }

    /// As many spans of this trace as are waited for, in the order of their kinds.
    pub(super) fn spans(&mut self, trace: &str, count: usize) -> Vec<Told> {
        let mut spans = self.process.wait(&format!("{count} spans of {trace}"), |process| {
            let spans = told(&process.log(), trace);
            (spans.len() >= count).then_some(spans)
        });
        spans.sort_by_key(|told| told.span["kind"].as_i64());
        spans
    }
}

fn told(log: &str, trace: &str) -> Vec<Told> {
    let mut spans = Vec::new();
    let each = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for line in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        for resource in each(&line["traces"]["resourceSpans"]) {
            for scope in each(&resource["scopeSpans"]) {
                for span in each(&scope["spans"]) {
                    if span["traceId"] == trace {
                        spans.push(Told {
                            key: line["key"].as_str().unwrap_or_default().to_owned(),
                            schema: resource["schemaUrl"].clone(),
                            resource: sorted(&resource["resource"]["attributes"]),
                            scope: scope["scope"].clone(),
                            span,
                        });
                    }
                }
            }
        }
    }
    spans
}

/// Attributes by name: daprd's come in the order of a Go map.
pub(super) fn sorted(attributes: &Value) -> Value {
    let mut attributes = attributes.as_array().cloned().unwrap_or_default();
    attributes.sort_by_key(|attribute| attribute["key"].as_str().map(str::to_owned));
    attributes.into()
}

/// What is the same in each mix.
fn shape(told: &Told) -> Value {
    let span = &told.span;
    json!({
        "key": told.key, "schema": told.schema, "resource": told.resource, "scope": told.scope,
        "name": span["name"], "kind": span["kind"], "status": span["status"],
        "flags": span["flags"], "attributes": sorted(&span["attributes"]),
        "state": span["traceState"],
    })
}

/// A call that works and one that fails, each a trace that the caller began.
fn collects(collector: &mut Collector, protocol: &str, kinds: [Kind; 2]) -> Vec<Value> {
    let [caller, callee] = kinds;
    let name = format!("tracing-{protocol}-{}-{}", caller.name(), callee.name());
    let mut world = World::new(&name);
    world.reserve(&["server", "client"]);
    let app = ProbeApp::start(&world);
    let spec = format!(
        "tracing:\n  samplingRate: \"1\"\n  otel: {{protocol: {protocol}, isSecure: false, \
         endpointAddress: \"127.0.0.1:{}\", headers: [\"x-key={name}\"]}}",
        collector.port(protocol)
    );
    let env = vec![
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team=a%20b,service.version=7"),
    ];
    let options = Options { spec: &spec, env, ..Options::default() };
    let served = Options { app_port: Some(app.port), ..options.clone() };
    let _callee = Sidecar::start(&world, callee, "server", served);
    let caller = Sidecar::start(&world, caller, "client", options);
    let mut shapes = Vec::new();
    for (number, code) in [(1, "0"), (2, "5")] {
        let trace = format!("{:032x}", u128::from(caller.ports.grpc) << 16 | number);
        let parent = format!("00-{trace}-00f067aa0ba902b7-01");
        let call = Call::to(&caller.address()).app("server").metadata("probe-code", code);
        let call = call.metadata("probe-message-bin", "bm90IG5vdzogNTAlIOKYgw");
        let call = call.metadata("tracestate", "vendor=1").metadata("traceparent", &parent);
        call.run(&world, &format!("call-{number}"));
        let spans = collector.spans(&trace, 2);
        let [server, client] = &spans[..] else { panic!("{} spans", spans.len()) };
        assert_eq!(client.span["parentSpanId"], "00f067aa0ba902b7");
        assert_eq!(server.span["parentSpanId"], client.span["spanId"]);
        assert_eq!(client.key, name, "the header of the Configuration");
        let time =
            |name: &str| client.span[name].as_str().and_then(|text| text.parse::<u64>().ok());
        assert!(time("startTimeUnixNano") <= time("endTimeUnixNano"));
        for told in [client, server] {
            let mut shape = shape(told);
            shape["key"] = Value::Null;
            shapes.push(shape);
        }
    }
    shapes
}

fn takes_the_same_from_both(protocol: &str) {
    let world = World::new(&format!("tracing-collector-{protocol}"));
    let mut collector = Collector::start(&world, None);
    let daprds = collects(&mut collector, protocol, [Kind::Daprd, Kind::Daprd]);
    assert_eq!(daprds[2]["status"], json!({"message": "not now: 50% \u{2603}", "code": 2}));
    for kinds in [
        [Kind::Ringside, Kind::Ringside],
        [Kind::Ringside, Kind::Daprd],
        [Kind::Daprd, Kind::Ringside],
    ] {
        assert_eq!(collects(&mut collector, protocol, kinds), daprds, "{kinds:?}");
    }
}

#[test]
fn by_grpc() {
    takes_the_same_from_both("grpc");
}

#[test]
fn by_http() {
    takes_the_same_from_both("http");
}

/// A certificate for `localhost`, which vouches for itself, and its key.
fn certificate(world: &World, name: &str) -> PathBuf {
    let folder = world.folder(name);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(folder.join("cert.pem"), made.cert.pem()).expect("its file");
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("its key's");
    folder
}

/// TLS is the default; roots are the system's, or those that a variable names; all by the
/// environment, which then asks for every trace.
#[test]
fn behind_tls() {
    let mut world = World::new("tracing-tls");
    let folder = certificate(&world, "tls");
    let roots = file(&folder, "cert.pem");
    let mut collector = Collector::start(&world, Some(&folder));
    let app = ProbeApp::start(&world);
    for (number, (protocol, variable)) in [
        ("grpc", "OTEL_EXPORTER_OTLP_CERTIFICATE"),
        ("http/protobuf", "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE"),
        ("grpc", "SSL_CERT_FILE"),
        ("http/protobuf", "SSL_CERT_FILE"),
    ]
    .into_iter()
    .enumerate()
    {
        let app_id = format!("app-{number}");
        world.reserve(&[&app_id]);
        let endpoint = format!("https://localhost:{}", collector.port(protocol));
        let env = [(variable, roots.as_str())];
        takes_a_call(&world, &app, &mut collector, [&app_id, protocol, &endpoint], &env);
    }
}

fn file(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().expect("a path").to_owned()
}

/// A sidecar that is told of the collector by its environment, and a call whose span arrives.
fn takes_a_call(
    world: &World,
    app: &ProbeApp,
    collector: &mut Collector,
    [app_id, protocol, endpoint]: [&str; 3],
    env: &[(&str, &str)],
) {
    let by = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ];
    let env = [&by[..], env].concat();
    let options = Options { env, app_port: Some(app.port), ..Options::default() };
    let sidecar = Sidecar::start(world, Kind::Ringside, app_id, options);
    let outcome = Call::to(&sidecar.address()).app(app_id).run(world, app_id);
    assert_eq!(outcome.status(), ("OK", ""));
    // The app was told the span that the collector is.
    let seen = app.seen().pop().expect("the call");
    let trace = seen.metadata["traceparent"][0].split('-').nth(1).expect("a trace").to_owned();
    let spans = collector.spans(&trace, 1);
    assert_eq!(spans[0].span["kind"], 2);
    assert_eq!(spans[0].resource[0]["value"]["stringValue"], app_id);
}

/// A collector that asks who we are is shown what the variables name.
#[test]
fn as_a_client_that_it_knows() {
    let mut world = World::new("tracing-clients");
    let (server, client) = (certificate(&world, "tls"), certificate(&world, "client"));
    let mut collector = Collector::start_for(&world, Some(&server), Some(&client));
    let app = ProbeApp::start(&world);
    let files = [file(&server, "cert.pem"), file(&client, "cert.pem"), file(&client, "key.pem")];
    let [roots, certificate, key] = &files;
    let roots = ("OTEL_EXPORTER_OTLP_CERTIFICATE", roots.as_str());
    for (protocol, signal) in [("grpc", ""), ("http/protobuf", "TRACES_")] {
        let app_id = format!("app-{}", &protocol[..4]);
        world.reserve(&[&app_id]);
        let endpoint = format!("https://localhost:{}", collector.port(protocol));
        let names = ["CERTIFICATE", "KEY"];
        let names = names.map(|name| format!("OTEL_EXPORTER_OTLP_{signal}CLIENT_{name}"));
        let env = [roots, (names[0].as_str(), certificate), (names[1].as_str(), key)];
        takes_a_call(&world, &app, &mut collector, [&app_id, protocol, &endpoint], &env);
    }
    // Without them it hears nothing.
    world.reserve(&["unknown"]);
    let endpoint = format!("https://localhost:{}", collector.grpc);
    let env = vec![
        roots,
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ];
    let options = Options { env, app_port: Some(app.port), ..Options::default() };
    let mut sidecar = Sidecar::start(&world, Kind::Ringside, "unknown", options);
    Call::to(&sidecar.address()).app("unknown").run(&world, "unknown");
    let line = sidecar.process.wait_for_line("traces export to the collector at localhost:");
    assert!(line.contains("(1 dropped so far)"), "{line}");
}

/// What was asked for and cannot be had ends the start.
#[test]
fn files_must_be_there() {
    let mut world = World::new("tracing-files");
    let folder = certificate(&world, "tls");
    world.reserve(&["app"]);
    let [good, key] = [file(&folder, "cert.pem"), file(&folder, "key.pem")];
    let (missing, proto) = (file(&folder, "missing.pem"), "tests/peers/grpc/greeter.proto");
    let proto = format!("{}/{proto}", env!("CARGO_MANIFEST_DIR"));
    let nowhere = format!("cannot read certificates from {missing}: No such file or directory");
    let empty = format!("cannot read certificates from {proto}: there is none in it");
    let no_key = format!("cannot read a key from {good}: ");
    for (roots, certificate, key, said) in [
        (&missing, &good, &key, &nowhere),
        (&proto, &good, &key, &empty),
        (&good, &proto, &key, &empty),
        (&good, &good, &good, &no_key),
    ] {
        let env = vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", roots),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", certificate),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", key),
        ];
        let options = Options { env, await_api: false, ..Options::default() };
        let mut sidecar = Sidecar::start(&world, Kind::Ringside, "app", options);
        sidecar.process.wait_for_end();
        let log = sidecar.process.log();
        assert!(log.contains("failed to setup tracing: ") && log.contains(said), "{said}: {log}");
    }
}

/// Between a sidecar and its collector: what the sidecar says is kept.
fn listen_in(collector: u16) -> (u16, Arc<Mutex<Vec<u8>>>) {
    let said = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind(loopback(0)).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let kept = Arc::clone(&said);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut near) = stream else { return };
            let Ok(mut far) = TcpStream::connect(loopback(collector)) else { return };
            let (Ok(mut back), Ok(mut from)) = (near.try_clone(), far.try_clone()) else { return };
            thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut back);
                let _ = back.shutdown(Shutdown::Both);
            });
            let kept = Arc::clone(&kept);
            thread::spawn(move || {
                let mut octets = [0; 4096];
                while let Ok(read @ 1..) = near.read(&mut octets) {
                    kept.lock().expect("no panic").extend_from_slice(&octets[..read]);
                    if far.write_all(&octets[..read]).is_err() {
                        break;
                    }
                }
                let _ = far.shutdown(Shutdown::Both);
            });
        }
    });
    (port, said)
}

/// As the variable says, and the collector understands it.
#[test]
fn compressed() {
    let mut world = World::new("tracing-gzip");
    let mut collector = Collector::start(&world, None);
    let app = ProbeApp::start(&world);
    for protocol in ["grpc", "http/protobuf"] {
        for compression in ["none", "gzip"] {
            let app_id = format!("app-{}-{compression}", &protocol[..4]);
            world.reserve(&[&app_id]);
            let (port, said) = listen_in(collector.port(protocol));
            let endpoint = format!("http://127.0.0.1:{port}");
            let env = [("OTEL_EXPORTER_OTLP_COMPRESSION", compression)];
            takes_a_call(&world, &app, &mut collector, [&app_id, protocol, &endpoint], &env);
            let said = said.lock().expect("no panic");
            // RFC 1952 §2.3.1: how what is compressed begins. One span may be too short to shrink.
            let compressed = said.windows(3).any(|octets| octets == [0x1f, 0x8b, 8]);
            assert_eq!(compressed, compression == "gzip", "{app_id}");
        }
    }
}

/// Nobody vouches for the collector: nothing is told it, and that is said and counted.
#[test]
fn an_unknown_collector_is_told_nothing() {
    let mut world = World::new("tracing-unknown");
    world.reserve(&["app"]);
    let mut collector = Collector::start(&world, Some(&certificate(&world, "tls")));
    let app = ProbeApp::start(&world);
    let endpoint = format!("localhost:{}", collector.grpc);
    let env = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ];
    let options = Options { env, app_port: Some(app.port), ..Options::default() };
    let mut sidecar = Sidecar::start(&world, Kind::Ringside, "app", options);
    let outcome = Call::to(&sidecar.address()).app("app").run(&world, "call");
    assert_eq!(outcome.status(), ("OK", ""));
    let line = sidecar.process.wait_for_line("traces export to the collector at localhost:");
    assert!(line.contains("(1 dropped so far)"), "{line}");
    assert!(collector.process.running());
    assert!(!collector.process.log().contains("resourceSpans"));
}
