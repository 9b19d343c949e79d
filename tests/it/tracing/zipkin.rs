//! A real Zipkin draws the how-to's call, daprd and ringside in any mix.

use crate::peer::app::{App, greet};
use crate::peer::ports::claim;
use crate::peer::probe::Call;
use crate::peer::process::{Process, command};
use crate::peer::sidecar::{Options, loopback};
use crate::peer::{Kind, Sidecar, World, program};
use serde_json::{Map, Value};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const NOPE: &str = "/helloworld.Greeter/Nope";

struct Zipkin {
    process: Process,
    port: u16,
}

impl Zipkin {
    fn start(world: &World) -> Self {
        let port = claim();
        let mut zipkin = command(program("zipkin"));
        zipkin.env("QUERY_PORT", port.to_string());
        let mut process = Process::start(&world.folder("zipkin"), "zipkin", zipkin);
        process.wait("health", |_| get(port, "/health").map(drop));
        Self { process, port }
    }

    /// The two spans of a trace, the caller's first.
    fn pair(&mut self, query: &str) -> [Value; 2] {
        let port = self.port;
        let found = self.process.wait(&format!("two spans of {query}"), |_| {
            let answer: Value = serde_json::from_slice(&get(port, query)?).ok()?;
            let spans = answer.as_array()?;
            // A search gives traces, of which there is one.
            let spans = spans.first().and_then(Value::as_array).unwrap_or(spans);
            <[Value; 2]>::try_from(spans.clone()).ok()
        });
        let mut found = found;
        found.sort_by_key(|span| span["kind"].as_str().map(str::to_owned));
        found
    }
}

/// The body of a 200. Zipkin keeps connections for seconds, whatever it is asked.
fn get(port: u16, path: &str) -> Option<Vec<u8>> {
    let mut stream = BufReader::new(TcpStream::connect(loopback(port)).ok()?);
    stream.get_ref().set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes()).ok()?;
    let (mut line, mut octets) = (String::new(), 0);
    stream.read_line(&mut line).ok().filter(|_| line.contains(" 200 "))?;
    while !line.trim().is_empty() {
        line.clear();
        stream.read_line(&mut line).ok()?;
        if let Some(length) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            octets = length.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; octets];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

/// What a span says that is the same in each mix.
fn shape(span: &Value, mix: &str) -> Value {
    let service = span["localEndpoint"]["serviceName"].as_str().expect("a service");
    let mut tags = span["tags"].as_object().cloned().unwrap_or_default();
    let named = tags.remove("service.name").expect("the resource's attribute");
    assert_eq!(named.as_str(), Some(service));
    let mut shape = Map::new();
    let service = service.strip_suffix(mix).expect("by the environment's name");
    shape.insert("service".to_owned(), service.into());
    shape.insert("tags".to_owned(), tags.into());
    for name in ["name", "kind", "shared", "remoteEndpoint"] {
        shape.insert(name.to_owned(), span[name].clone());
    }
    shape.into()
}

/// The how-to's call and one that its server does not know.
fn draws(
    world: &World,
    zipkin: &mut Zipkin,
    [caller, callee]: [Kind; 2],
    number: u128,
) -> [Value; 4] {
    let mix = format!("-{}-{}", caller.name(), callee.name());
    let spec = format!(
        "tracing: {{samplingRate: \"1\", zipkin: {{endpointAddress: \
         \"http://127.0.0.1:{}/api/v2/spans\"}}}}",
        zipkin.port
    );
    let names = ["client", "server"].map(|name| format!("{name}{mix}"));
    let options = |name| Options {
        spec: &spec,
        env: vec![("OTEL_SERVICE_NAME", name), ("OTEL_BSP_SCHEDULE_DELAY", "100")],
        ..Options::default()
    };
    let app = App::greeter(world);
    let served = Options { app_port: Some(app.port), ..options(&names[1]) };
    let _callee = Sidecar::start(world, callee, "server", served);
    let caller = Sidecar::start(world, caller, "client", options(&names[0]));

    let said = greet(world, &caller.address(), "server");
    assert!(said.contains("Greeting: Hello Darth Tyrannus"), "{said}");
    let [client, server] =
        zipkin.pair(&format!("/api/v2/traces?serviceName={}&limit=10", names[0]));
    assert_eq!(client["traceId"], server["traceId"]);
    assert_eq!((&client["parentId"], &server["parentId"]), (&Value::Null, &client["id"]));

    // A trace that the caller began.
    let trace = format!("{:032x}", u128::from(caller.ports.grpc) << 16 | number);
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let call = Call::to(&caller.address()).app("server").metadata("traceparent", &parent);
    let outcome = call.args(&["-method", NOPE]).run(world, "nope");
    assert_eq!(outcome.code, "Unimplemented", "{outcome:?}");
    let [first, second] = zipkin.pair(&format!("/api/v2/trace/{trace}"));
    assert_eq!(
        (&first["parentId"], &second["parentId"]),
        (&"00f067aa0ba902b7".into(), &first["id"])
    );
    let error = "unknown method Nope for service helloworld.Greeter";
    assert_eq!(first["tags"]["error"], error);
    [client, server, first, second].map(|span| shape(&span, &mix))
}

/// One trace, the right parents; names, kinds, tags and errors as daprd's.
#[test]
fn draws_the_how_tos_call() {
    let mut world = World::new("tracing-zipkin");
    world.reserve(&["server", "client"]);
    let mut zipkin = Zipkin::start(&world);
    let daprds = draws(&world, &mut zipkin, [Kind::Daprd, Kind::Daprd], 0);
    let service = |at: usize| daprds[at]["service"].as_str();
    assert_eq!((service(0), service(1)), (Some("client"), Some("server")));
    for (number, kinds) in (1..).zip([
        [Kind::Ringside, Kind::Ringside],
        [Kind::Ringside, Kind::Daprd],
        [Kind::Daprd, Kind::Ringside],
    ]) {
        assert_eq!(draws(&world, &mut zipkin, kinds, number), daprds, "{kinds:?}");
    }
}
