//! Dapr's own gRPC methods and reflection, ringside's beside daprd's, asked by grpcurl: what one
//! says the other says, field by field.

use crate::peer::probe::{Call, ProbeApp};
use crate::peer::process::{Process, command, until};
use crate::peer::sidecar::{Options, http_get};
use crate::peer::{Kind, Sidecar, World, program};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

struct Asked {
    ok: bool,
    text: String,
}

/// One run of grpcurl; `more` comes before the address, `last` behind it.
fn ask(world: &World, sidecar: &Sidecar, more: &[&str], last: &[&str]) -> Asked {
    let mut grpcurl = command(program("grpcurl"));
    grpcurl.args(["-plaintext", "-max-time", "20"]).args(more).arg(sidecar.address()).args(last);
    let mut process = Process::start(&world.folder("callers"), "grpcurl", grpcurl);
    let ok = process.wait_for_end().success();
    Asked { ok, text: process.log() }
}

fn json(asked: Asked) -> Value {
    assert!(asked.ok, "{}", asked.text);
    serde_json::from_str(&asked.text).unwrap_or_else(|_| panic!("JSON: {}", asked.text))
}

/// With tracing, daprd's interceptor refuses reflection, as it does any stream without a target.
const UNTRACED: &str = "tracing: {samplingRate: \"0\"}";

/// A daprd and a ringside, each in front of an app of its own, with the same flags.
struct Both {
    worlds: [World; 2],
    sidecars: [Sidecar; 2],
    _apps: [ProbeApp; 2],
}

impl Both {
    fn start(name: &str, args: &[&'static str], env: &[(&'static str, &'static str)]) -> Self {
        let worlds = [Kind::Daprd, Kind::Ringside].map(|kind| {
            let mut world = World::new(&format!("dapr-api-{name}-{}", kind.name()));
            world.reserve(&["server"]);
            world
        });
        let apps = [ProbeApp::start(&worlds[0]), ProbeApp::start(&worlds[1])];
        let start = |n: usize, kind| {
            let (args, env) = (args.to_vec(), env.to_vec());
            let app_port = Some(apps[n].port);
            let options = Options { app_port, args, env, spec: UNTRACED, ..Options::default() };
            Sidecar::start(&worlds[n], kind, "server", options)
        };
        let sidecars = [start(0, Kind::Daprd), start(1, Kind::Ringside)];
        Self { worlds, sidecars, _apps: apps }
    }

    /// daprd's answer, then ringside's.
    fn ask(&self, more: &[&str], last: &[&str]) -> [Asked; 2] {
        [0, 1].map(|n| ask(&self.worlds[n], &self.sidecars[n], more, last))
    }
}

const GET: &str = "dapr.proto.runtime.v1.Dapr/GetMetadata";
const SET: &str = "dapr.proto.runtime.v1.Dapr/SetMetadata";

/// Without what differs by nature: versions, the app's port, an order that daprd leaves open.
fn metadata(asked: Asked) -> Value {
    let mut value = json(asked);
    for place in
        ["/runtimeVersion", "/extended/daprRuntimeVersion", "/appConnectionProperties/port"]
    {
        assert!(value.pointer_mut(place).is_some_and(|found| !found.take().is_null()), "{place}");
    }
    if let Some(features) = value["enabledFeatures"].as_array_mut() {
        features.sort_by_key(Value::to_string);
    }
    value
}

#[test]
fn tells_and_takes_metadata_as_daprd_does() {
    let args = ["--enable-app-health-check", "--app-health-threshold", "7"];
    let both = Both::start("metadata", &args, &[]);
    let pair = r#"{"key": "cliPID", "value": "4711 <&> ü"}"#;
    for asked in both.ask(&["-d", pair], &[SET]) {
        assert_eq!(json(asked), serde_json::json!({}));
    }
    for asked in both.ask(&["-d", r#"{"value": "nobody's"}"#], &[SET]) {
        assert_eq!(json(asked), serde_json::json!({}));
    }
    // Whatever else the call carries: it is the sidecar's own method.
    // daprd's actors are said to be initializing until the app has answered its first probe.
    until(|| {
        json(both.ask(&[], &[GET]).into_iter().next()?)["actorRuntime"].get("placement").map(drop)
    })
    .expect("a daprd that has started");
    for more in [&[][..], &["-rpc-header", "dapr-app-id: nobody"]] {
        let [daprd, ours] = both.ask(more, &[GET]).map(metadata);
        assert_eq!(ours["extended"]["cliPID"], "4711 <&> ü");
        assert_eq!(ours, daprd);
    }
    // What gRPC has set HTTP tells.
    let answer = http_get(both.sidecars[1].ports.http, "/v1.0/metadata").expect("an answer");
    assert!(answer.contains(r#""cliPID":"4711 \u003c\u0026\u003e ü""#), "{answer}");
}

#[test]
fn guards_its_methods_as_daprd_does() {
    let both = Both::start("token", &[], &[("DAPR_API_TOKEN", "secret")]);
    let told = |asked: Asked| {
        assert!(!asked.ok);
        asked.text.trim().to_owned()
    };
    for more in [&[][..], &["-H", "dapr-api-token: wrong"]] {
        for last in [GET, "list"] {
            let [daprd, ours] = both.ask(more, &[last]).map(told);
            assert!(daprd.contains("Unauth"), "{daprd}");
            assert_eq!(ours, daprd, "{more:?} {last}");
        }
    }
    let [daprd, ours] = both.ask(&["-H", "dapr-api-token: secret"], &[GET]).map(metadata);
    assert_eq!(ours, daprd);
}

/// The lines `type name = number;` of each message and enum that is described.
fn described(both: &Both, n: usize, name: &str) -> BTreeSet<String> {
    let asked = ask(&both.worlds[n], &both.sidecars[n], &[], &["describe", name]);
    assert!(asked.ok, "{name}: {}", asked.text);
    let lines = asked.text.lines().map(str::trim).filter(|line| line.ends_with(';'));
    lines
        .filter(|line| line.contains(" = ") || line.starts_with("rpc "))
        .map(str::to_owned)
        .collect()
}

const SYMBOLS: [&str; 13] = [
    "dapr.proto.runtime.v1.Dapr",
    "dapr.proto.runtime.v1.GetMetadataRequest",
    "dapr.proto.runtime.v1.GetMetadataResponse",
    "dapr.proto.runtime.v1.AppConnectionProperties",
    "dapr.proto.runtime.v1.AppConnectionHealthProperties",
    "dapr.proto.runtime.v1.ActorRuntime",
    "dapr.proto.runtime.v1.ActorRuntime.ActorRuntimeStatus",
    "dapr.proto.runtime.v1.MetadataWorkflows",
    "dapr.proto.runtime.v1.MetadataResiliency",
    "dapr.proto.runtime.v1.SetMetadataRequest",
    "dapr.proto.runtime.v1.ShutdownRequest",
    "grpc.reflection.v1.ServerReflectionRequest",
    "grpc.reflection.v1.ServerReflectionResponse",
];

/// What ringside describes is a part of what daprd describes: same names, numbers and types.
#[test]
fn reflects_as_daprd_does() {
    let both = Both::start("reflection", &[], &[]);
    let names = both.ask(&[], &["list"]).map(|asked| {
        assert!(asked.ok, "{}", asked.text);
        asked.text.lines().map(str::to_owned).collect::<BTreeSet<_>>()
    });
    let [daprd, ours] = names;
    assert_eq!(
        ours.iter().collect::<Vec<_>>(),
        [
            "dapr.proto.runtime.v1.Dapr",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ]
    );
    assert!(ours.is_subset(&daprd), "{daprd:?}");
    let mut lines = BTreeMap::new();
    for name in SYMBOLS {
        let [daprd, ours] = [0, 1].map(|n| described(&both, n, name));
        assert!(ours.is_subset(&daprd), "{name}\n{ours:?}\n{daprd:?}");
        lines.insert(name, ours.len());
    }
    assert_eq!((lines[SYMBOLS[0]], lines[SYMBOLS[2]]), (3, 8));
    // Not served by either: the same words.
    let [daprd, ours] = both.ask(&[], &["describe", "helloworld.Greeter"]).map(|asked| asked.text);
    assert_eq!(ours, daprd);
}

fn shuts_down(kind: Kind) {
    for (more, code) in [(&[][..], 0), (&["-H", "dapr-force-shutdown: true"], 1)] {
        let mut world = World::new(&format!("dapr-api-shutdown-{}-{code}", kind.name()));
        world.reserve(&["client"]);
        let options = Options { spec: UNTRACED, ..Options::default() };
        let mut sidecar = Sidecar::start(&world, kind, "client", options);
        let asked = ask(&world, &sidecar, more, &["dapr.proto.runtime.v1.Dapr/Shutdown"]);
        assert_eq!(json(asked), serde_json::json!({}));
        let ended = sidecar.process.wait_for_end();
        assert_eq!(ended.code(), Some(code), "{}", sidecar.process.tail());
    }
}

#[test]
fn daprd_shuts_down() {
    shuts_down(Kind::Daprd);
}

#[test]
fn ringside_shuts_down() {
    shuts_down(Kind::Ringside);
}

/// What belongs to other parts of Dapr is refused in one sentence, which says what ringside is.
#[test]
fn ringside_says_what_it_is() {
    let mut world = World::new("dapr-api-others");
    world.reserve(&["client"]);
    let sidecar = Sidecar::caller(&world, Kind::Ringside, "client");
    for method in ["GetState", "InvokeService", "PublishEvent", "Nope"] {
        let call = Call::to(&sidecar.address());
        let call = call.args(&["-method", &format!("/dapr.proto.runtime.v1.Dapr/{method}")]);
        let got = call.run(&world, method);
        let text = format!(
            "/dapr.proto.runtime.v1.Dapr/{method} is not served by ringside, a Dapr sidecar for \
             gRPC service invocation only: it proxies calls to apps, named by the metadata \
             dapr-app-id"
        );
        assert_eq!(got.status(), ("Unimplemented", text.as_str()));
    }
}
