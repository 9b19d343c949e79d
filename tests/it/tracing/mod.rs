//! Traces: what the app is told of the trace that its call belongs to; what collectors are.
//!
//! In one setting only (`scripts/test`): drivers and workers play no part.

mod baggage;
mod collector;
mod failing;
mod http;
mod zipkin;

use crate::peer::probe::{Call, ProbeApp};
use crate::peer::sidecar::Options;
use crate::peer::{Kind, Sidecar, World};
use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER};

const ALL: &str = "tracing: {samplingRate: \"1\"}";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

struct Chain {
    world: World,
    app: ProbeApp,
    caller: Sidecar,
    _callee: Sidecar,
    calls: usize,
}

/// What the app was told, in both its forms: trace, span, flags.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    text: Vec<[String; 3]>,
    binary: Vec<[String; 3]>,
}

impl Chain {
    fn start(name: &str, caller: Kind, callee: Kind, spec: &str) -> Self {
        let name = format!("tracing-{}-{}-{name}", caller.name(), callee.name());
        let mut world = World::new(&name);
        world.reserve(&["server", "client"]);
        let app = ProbeApp::start(&world);
        let options = Options { spec, ..Options::default() };
        let served = Options { app_port: Some(app.port), ..options.clone() };
        let callee = Sidecar::start(&world, callee, "server", served);
        let caller = Sidecar::start(&world, caller, "client", options);
        Self { world, app, caller, _callee: callee, calls: 0 }
    }

    fn call(&mut self, metadata: &[(&str, &str)]) -> Told {
        self.calls += 1;
        let call = Call::to(&self.caller.address()).app("server");
        let call = metadata.iter().fold(call, |call, (name, value)| call.metadata(name, value));
        let outcome = call.run(&self.world, &format!("call-{}", self.calls));
        assert_eq!(outcome.status(), ("OK", ""));
        let seen = self.app.seen().pop().expect("the call at the app");
        let values = |name: &str| seen.metadata.get(name).cloned().unwrap_or_default();
        let text = |value: String| {
            let parts: Vec<&str> = value.split('-').collect();
            let ["00", trace, span, flags] = parts[..] else { panic!("{value}") };
            [trace, span, flags].map(str::to_owned)
        };
        // The probe shows binary fields in base64.
        let binary = |value: String| {
            let encoding = if value.ends_with('=') { BASE64 } else { BASE64_NOPAD };
            let raw = encoding.decode(value.as_bytes()).expect("base64");
            assert_eq!((raw.len(), &raw[..2], raw[18], raw[27]), (29, &[0, 0][..], 1, 2));
            [&raw[2..18], &raw[19..27], &raw[28..]].map(|octets| HEXLOWER.encode(octets))
        };
        Told {
            text: values("traceparent").into_iter().map(text).collect(),
            binary: values("grpc-trace-bin").into_iter().map(binary).collect(),
        }
    }

    /// One context in both its forms.
    fn context(&mut self, metadata: &[(&str, &str)]) -> [String; 3] {
        let mut told = self.call(metadata);
        assert_eq!((told.text.len(), told.binary.len()), (1, 1), "{told:?}");
        assert_eq!(told.text, told.binary);
        told.text.remove(0)
    }
}

/// Whoever begins the trace and whoever sits between: the app is told one context, whose parent is
/// a sidecar.
fn tells_the_app_one_context(caller: Kind, callee: Kind) {
    let mut chain = Chain::start("context", caller, callee, ALL);
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let [trace, span, flags] = chain.context(&[("traceparent", &parent)]);
    assert_eq!((&*trace, &*flags), (TRACE, "01"));
    assert_ne!(span, SPAN);

    // A trace of its own, where nobody began one.
    let [one, two] = [chain.context(&[]), chain.context(&[])];
    assert_ne!(one[0], two[0]);
    assert_ne!(one[1], two[1]);
    assert_eq!((&*one[2], &*two[2]), ("01", "01"));

    // A parent that is not sampled decides, whatever the rate.
    let told = chain.call(&[("traceparent", &format!("00-{TRACE}-{SPAN}-00"))]);
    let [[trace, _, flags]] = &told.text[..] else { panic!("{told:?}") };
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "00"));
    // Then it is told in its binary form only where daprd, or the caller, began with that.
    let binary = if caller == Kind::Daprd { told.text.clone() } else { Vec::new() };
    assert_eq!(told.binary, binary);

    // The binary form counts before the text.
    let raw = ["0000", TRACE, "01", SPAN, "0201"].concat().to_uppercase();
    let binary = BASE64_NOPAD.encode(&data_encoding::HEXUPPER.decode(raw.as_bytes()).unwrap());
    let other = format!("00-{}-{SPAN}-01", TRACE.replace('4', "5"));
    let context = chain.context(&[("traceparent", &other), ("grpc-trace-bin", &binary)]);
    assert_eq!((&*context[0], &*context[2]), (TRACE, "01"));
    assert_ne!(context[1], SPAN);
}

/// daprd's own callee side tells its app what came, doubled where the caller had a context.
#[test]
fn daprd_tells_its_app_two() {
    let mut chain = Chain::start("two", Kind::Daprd, Kind::Daprd, ALL);
    let told = chain.call(&[("traceparent", &format!("00-{TRACE}-{SPAN}-01"))]);
    assert_eq!((told.text.len(), told.binary.len()), (2, 1), "{told:?}");
    assert_eq!(told.text[0], [TRACE, SPAN, "01"].map(str::to_owned));
    assert_eq!(told.text[1], told.binary[0]);
    assert_eq!(told.text[1][0], TRACE);
}

#[test]
fn ringside_to_ringside() {
    tells_the_app_one_context(Kind::Ringside, Kind::Ringside);
}

#[test]
fn ringside_to_daprd() {
    tells_the_app_one_context(Kind::Ringside, Kind::Daprd);
}

#[test]
fn daprd_to_ringside() {
    tells_the_app_one_context(Kind::Daprd, Kind::Ringside);
}

/// `stdout: true`: the same line from both, but for IDs and times.
#[test]
fn the_log_is_told() {
    let spec = "tracing: {samplingRate: \"1\", stdout: true}";
    let shape = |kind: Kind| {
        let mut world = World::new(&format!("tracing-log-{}", kind.name()));
        world.reserve(&["app"]);
        let app = ProbeApp::start(&world);
        let env = vec![("OTEL_BSP_SCHEDULE_DELAY", "100")];
        let options = Options { spec, env, app_port: Some(app.port), ..Options::default() };
        let mut sidecar = Sidecar::start(&world, kind, "app", options);
        let call = Call::to(&sidecar.address()).app("app");
        let call = call.metadata("traceparent", &format!("00-{TRACE}-{SPAN}-01"));
        assert_eq!(call.run(&world, "call").status(), ("OK", ""));
        let line = sidecar.process.wait_for_line(&format!("Trace: {TRACE} Span: {SPAN}/"));
        assert!(line.contains("level=info") && line.contains("scope=dapr.runtime.trace"), "{line}");
        let (_, text) = line.split_once(" msg=\"").expect("a text");
        let (text, _) = text.split_once('"').expect("its end");
        let mut shape = String::new();
        for word in text.split(' ') {
            // Go's monotonic clock, with what ends the time.
            let word = match word.strip_prefix("m=") {
                Some(clock) => &clock[clock.find(']').unwrap_or(clock.len())..],
                None => word,
            };
            // A fraction of a second has as many digits as it needs.
            let word = match word.split_once('.') {
                Some((time, _)) if time.contains(':') => time,
                Some(_) | None => word,
            };
            shape.extend(word.chars().map(|c| if c.is_ascii_hexdigit() { '0' } else { c }));
        }
        shape
    };
    let daprds = shape(Kind::Daprd);
    assert!(daprds.contains("[/pro00.Pro00/00ho]") && daprds.ends_with(":[]"), "{daprds}");
    assert_eq!(shape(Kind::Ringside), daprds);
}
