//! `ringside bench` on real services, with real daprds and real ghz.

use crate::peer::app::App;
use crate::peer::ports::claim;
use crate::peer::process::{Process, command, until};
use crate::peer::{World, program, ringside};
use ringside::demo::greeter::{HelloReply, HelloRequest, UNARY};
use ringside::demo::serve::{Call, Service, serve};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, mpsc};

const GREETER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/grpc/greeter.proto");
const HELLO: [&str; 4] = ["--call", "helloworld.Greeter/SayHello", "-d", r#"{"name":"Ada"}"#];
const SHORT: [&str; 6] = ["--rounds", "2", "-z", "300ms", "-c", "8"];

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}\n{}{}", self.out, self.err))
    }

    /// The sentence of a failure.
    fn said(&self) -> &str {
        assert_eq!(self.code, Some(1), "{}{}", self.out, self.err);
        assert_eq!(self.out, "");
        &self.err
    }
}

/// `ringside bench` with a folder of its own for what it must not leave behind.
fn bench(world: &World, args: &[&str]) -> Ended {
    bench_in(world, args, &std::env::var("PATH").unwrap_or_default())
}

fn bench_in(world: &World, args: &[&str], path: &str) -> Ended {
    let temp = world.folder("temp");
    // Set by env(1): what starts it is found in this process's PATH.
    let mut bench = command("env");
    bench.arg(format!("PATH={path}")).arg(ringside()).arg("bench").args(args);
    bench.env("TMPDIR", &temp).env("HOME", &temp);
    let ended = bench.stdin(Stdio::null()).output().expect("bench starts");
    let left: Vec<_> = fs::read_dir(&temp).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    Ended { code: ended.status.code(), out: text(&ended.stdout), err: text(&ended.stderr) }
}

fn address(app: &App) -> String {
    format!("127.0.0.1:{}", app.port)
}

fn runs<'a>(report: &'a Value, topology: &str) -> &'a [Value] {
    report["topologies"][topology]["runs"].as_array().map_or(&[], Vec::as_slice)
}

fn assert_measured(report: &Value, topology: &str) {
    let runs = runs(report, topology);
    assert_eq!(runs.len(), 2, "{topology}: {report:#}");
    for run in runs {
        assert!(run["calls"].as_u64() > Some(10), "{topology}: {run}");
        assert_eq!(run["errors"], serde_json::json!({}), "{topology}");
        assert_eq!(run["statuses"]["0"], run["calls"], "{topology}");
        let latency: Vec<f64> =
            run["latency_us"].as_array().unwrap().iter().flat_map(Value::as_f64).collect();
        assert!(latency.len() == 4 && latency.is_sorted() && latency[0] > 1.0, "{latency:?}");
        let cpu = run["cpu_us_per_call"].as_f64();
        assert_eq!(cpu.is_some_and(|cpu| cpu > 0.5), topology != "direct", "{topology}: {run}");
    }
}

#[test]
fn measures_beside_real_daprds() {
    let world = World::new("bench-daprd");
    let app = App::greeter(&world);
    let daprd = program("daprd");
    let ends = [&address(&app), "--daprd", daprd.to_str().unwrap()];
    let ghz = world.folder("ghz").join("reports");
    let files = ["-O", "ghz", "-o", ghz.to_str().unwrap()];
    let args = [&HELLO[..], &SHORT, &ends, &["--proto", GREETER], &files].concat();
    let ended = bench(&world, &args);
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
    for part in [
        "helloworld.Greeter/SayHello",
        "daprd's pair takes",
        "names by nameformat",
        "names by static file",
        "p99.9 µs",
        "closed loop, 8 in flight over 1 connection",
        "hide queueing",
    ] {
        assert!(ended.out.contains(part), "{part}\n{}", ended.out);
    }
    let [a, b] = ["daprd.json", "ringside.json"].map(|name| ghz.join(name));
    let read = bench(&world, &["--read", a.to_str().unwrap(), b.to_str().unwrap()]);
    assert_eq!(read.code, Some(0), "{}", read.err);
    for part in ["CPU µs/call", "p99.9", "calls/s"] {
        assert!(read.out.contains(part), "{part}\n{}", read.out);
    }
}

#[test]
fn asks_by_reflection_and_writes_json() {
    let world = World::new("bench-reflection");
    let app = App::greeter(&world);
    let daprd = program("daprd");
    let ends = [&address(&app), "--daprd", daprd.to_str().unwrap(), "--reflection", "-O", "json"];
    let open = ["-r", "200", "--connections", "2", "-m", "x-key:value", "--app", "greeter"];
    let ended = bench(&world, &[&HELLO[..], &SHORT, &ends, &open].concat());
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
    let report = ended.json();
    for topology in ["direct", "daprd", "ringside"] {
        assert_measured(&report, topology);
        let rate = runs(&report, topology)[1]["rate"].as_f64().unwrap();
        assert!((120.0..280.0).contains(&rate), "{topology}: {rate}");
    }
    assert_eq!(report["conditions"]["rate"], 200.0);
    assert_eq!(report["conditions"]["daprd_resolver"], "nameformat");
}

/// Part of grpc's `test.proto`: what the interop server takes.
const INTEROP: &str = r#"syntax = "proto3"; package grpc.testing;
message Payload { int32 type = 1; bytes body = 2; }
message In { Payload payload = 1; }
message InDone { int32 aggregated_payload_size = 1; }
message Parameters { int32 size = 1; int32 interval_us = 2; }
message Out { repeated Parameters response_parameters = 2; Payload payload = 3; }
message OutPart { Payload payload = 1; }
service TestService {
  rpc StreamingInputCall(stream In) returns (InDone);
  rpc StreamingOutputCall(Out) returns (stream OutPart);
  rpc FullDuplexCall(stream Out) returns (stream OutPart);
}"#;

#[test]
fn measures_streams_of_every_kind() {
    let world = World::new("bench-streams");
    let app = App::interop(&world);
    let proto = world.folder("proto").join("test.proto");
    fs::write(&proto, INTEROP).unwrap();
    let daprd = program("daprd");
    let out = r#"{"responseParameters":[{"size":100},{"size":5000}]}"#;
    let duplex = r#"[{"response_parameters":[{"size":9}]},{"response_parameters":[{"size":7}]}]"#;
    for (call, data, kind) in [
        ("StreamingInputCall", r#"[{"payload":{"body":"AAAA"}},{}]"#, "client streaming"),
        ("StreamingOutputCall", out, "server streaming"),
        ("FullDuplexCall", duplex, "bidirectional streaming"),
    ] {
        let call = format!("grpc.testing.TestService/{call}");
        let ends = ["--call", &call, "-d", data, &address(&app), "-O", "json"];
        let from = ["--proto", proto.to_str().unwrap(), "--daprd", daprd.to_str().unwrap()];
        let ended = bench(&world, &[&ends[..], &from, &SHORT].concat());
        assert_eq!(ended.code, Some(0), "{call}: {}{}", ended.out, ended.err);
        let report = ended.json();
        assert_eq!(report["conditions"]["kind"], kind);
        for topology in ["direct", "daprd", "ringside"] {
            assert_measured(&report, topology);
        }
    }
}

#[test]
fn reads_real_ghz() {
    let world = World::new("bench-ghz");
    let app = App::greeter(&world);
    let folder = world.folder("reports");
    let files = ["a.json", "b.json"].map(|name| folder.join(name));
    for (file, workers) in files.iter().zip(["1", "10"]) {
        let mut ghz = command(program("ghz"));
        ghz.args(["--insecure", "--proto", GREETER, "-n", "300", "-c", workers]);
        ghz.args(HELLO).args(["-O", "json", "-o", file.to_str().unwrap(), &address(&app)]);
        let ended = ghz.output().expect("ghz starts");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    let [a, b] = files.each_ref().map(|file| file.to_str().unwrap());
    let read = bench(&world, &["--read", a, b]);
    assert_eq!(read.code, Some(0), "{}", read.err);
    let row = |label: &str| {
        let line = read.out.lines().find(|line| line.trim_start().starts_with(label));
        line.unwrap_or_else(|| panic!("{label}\n{}", read.out)).to_owned()
    };
    assert!(row("calls ").contains("300"));
    for label in ["calls/s", "p50 µs", "p90 µs", "p99 µs", "p99.9 µs", "errors"] {
        row(label);
    }
    assert!(!read.out.contains("CPU"), "ghz knows none\n{}", read.out);
}

#[test]
fn says_what_is_wrong_before_it_measures() {
    let world = World::new("bench-wrong");
    let (greeter, interop) = (App::greeter(&world), App::interop(&world));
    let [greeter, interop] = [&greeter, &interop].map(address);
    let nobody = format!("127.0.0.1:{}", claim());
    let with = |args: &[&str]| bench(&world, args).said().to_owned();
    let hello = |more: &[&str]| with(&[&HELLO[..], more].concat());

    let said = hello(&["--proto", GREETER, &nobody]);
    assert!(
        said.contains(&format!("no service at {nobody}")) && said.contains("start it"),
        "{said}"
    );
    let said = hello(&[&interop]);
    assert!(said.contains("does not serve gRPC reflection: pass --proto"), "{said}");
    let said = hello(&["--proto", "/nowhere.proto", &greeter]);
    assert!(said.contains("/nowhere.proto: there is no such file"), "{said}");
    let said = hello(&["--proto", GREETER, &interop]);
    assert!(said.contains("a call made directly fails"), "{said}");
    assert!(said.contains("UNIMPLEMENTED") || said.contains("12"), "{said}");
    for source in [&["--reflection"][..], &["--proto", GREETER]] {
        let call = |call: &str| with(&[&["--call", call, &greeter], source].concat());
        let said = call("helloworld.Greeter/SayBye");
        assert!(said.contains("no method SayBye; it has helloworld.Greeter/SayHello"), "{said}");
        let said = call("helloworld.Waiter/SayHello");
        let there = "no service helloworld.Waiter; there is ";
        assert!(said.contains(there) && said.contains("helloworld.Greeter"), "{said}");
    }
    let call = ["--call", "helloworld.Greeter/SayHello", "--proto", GREETER, &greeter];
    let said = with(&[&call[..], &["-d", r#"{"nam":"Ada"}"#]].concat());
    assert!(
        said.contains("helloworld.HelloRequest: it has no field \"nam\"; it has name"),
        "{said}"
    );
    let said = with(&[&call[..], &["-d", r#"{"name":7}"#]].concat());
    assert!(said.contains("field name (string)"), "{said}");

    let usage = bench(&world, &["--lb-strategy", "round_robin"]);
    assert_eq!(usage.code, Some(2), "{}", usage.err);
    assert!(usage.err.contains("--lb-strategy"), "{}", usage.err);
}

#[test]
fn goes_on_without_daprd() {
    let world = World::new("bench-no-daprd");
    let app = App::greeter(&world);
    let ends = [&address(&app), "--proto", GREETER];
    let args = [&HELLO[..], &SHORT, &ends].concat();
    let tools = world.folder("tools");
    let ended = bench_in(&world, &args, tools.to_str().unwrap());
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
    let missing = "daprd was not measured: there is none on PATH or in ~/.dapr/bin";
    assert!(ended.out.contains(missing), "{}", ended.out);
    assert!(ended.out.contains("ringside's pair takes"), "{}", ended.out);
    // One that cannot work is told of as well.
    let daprd = ["--daprd", "/bin/false", "-O", "json"];
    let report = bench(&world, &[&args[..], &daprd].concat()).json();
    assert!(report["notes"].to_string().contains("is no daprd"), "{report:#}");
    assert_measured(&report, "ringside");
}

/// A Greeter with reflection of the older kind only.
struct Old(Vec<u8>);

#[derive(Clone, PartialEq, prost::Message)]
struct Files {
    #[prost(bytes = "vec", repeated, tag = "1")]
    files: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(message, optional, tag = "4")]
    files: Option<Files>,
}

impl Service for Old {
    async fn call(self: Arc<Self>, mut call: Call) {
        let result = match call.path.as_str() {
            UNARY => match call.reader.only::<HelloRequest>().await {
                Ok(request) => call.writer.send(&HelloReply { message: request.name }).await,
                Err(status) => Err(status),
            },
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => {
                let answer = Answer { files: Some(Files { files: vec![self.0.clone()] }) };
                match call.reader.next::<()>().await {
                    Ok(_) => call.writer.send(&answer).await,
                    Err(status) => Err(status),
                }
            }
            _ => return call.unimplemented(),
        };
        call.writer.end(result);
    }
}

fn old_greeter() -> SocketAddr {
    let set = protox::compile([GREETER], [Path::new(GREETER).parent().unwrap()]).unwrap();
    let file = prost::Message::encode_to_vec(&set.file[0]);
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            serve(listener, None, Arc::new(Old(file))).await;
        });
    });
    told.recv().unwrap()
}

#[test]
fn asks_by_the_older_reflection() {
    let world = World::new("bench-v1alpha");
    let app = old_greeter().to_string();
    let ends = [app.as_str(), "--skip-daprd", "-O", "json"];
    let ended = bench(&world, &[&HELLO[..], &SHORT, &ends].concat());
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
    assert_measured(&ended.json(), "ringside");
    assert_eq!(runs(&ended.json(), "daprd"), [Value::Null; 0]);
}

/// A long measurement, once its sidecars are there: the process, its children, its folder.
fn running(world: &World, app: &App) -> (Process, Vec<PathBuf>, PathBuf) {
    let temp = world.folder("temp");
    let mut long = command(ringside());
    long.arg("bench").args(HELLO).args(["--proto", GREETER, "--skip-daprd", "-z", "20s"]);
    long.arg(address(app)).env("TMPDIR", &temp);
    let mut process = Process::start(&world.folder("log"), "bench", long);
    let pid = process.pid();
    let children = process.wait("two sidecars", |_| {
        let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        let children: Vec<_> =
            listed.split_whitespace().map(|pid| Path::new("/proc").join(pid)).collect();
        let sidecar = |child: &PathBuf| {
            let line = fs::read_to_string(child.join("cmdline")).unwrap_or_default();
            !line.contains("--exec")
        };
        (children.len() == 2 && children.iter().all(sidecar)).then_some(children)
    });
    (process, children, temp)
}

fn assert_gone(children: &[PathBuf]) {
    for child in children {
        // One that waits for init to notice its end has ended, too.
        let gone = until(|| match fs::read_to_string(child.join("stat")) {
            Ok(stat) => stat.contains(") Z ").then_some(()),
            Err(_) => Some(()),
        });
        assert!(gone.is_some(), "{} is still there", child.display());
    }
}

#[test]
fn interrupted_it_leaves_nothing() {
    for signal in [Signal::INT, Signal::TERM] {
        let world = World::new("bench-interrupted");
        let app = App::greeter(&world);
        let (mut process, children, temp) = running(&world, &app);
        process.signal(signal);
        assert_eq!(process.wait_for_end().code(), Some(130), "{}", process.log());
        assert_gone(&children);
        assert!(fs::read_dir(&temp).unwrap().next().is_none());
    }
}

#[test]
fn killed_it_takes_its_sidecars_along() {
    let world = World::new("bench-killed");
    let app = App::greeter(&world);
    let (mut process, children, _) = running(&world, &app);
    process.signal(Signal::KILL);
    process.wait_for_end();
    assert_gone(&children);
}
