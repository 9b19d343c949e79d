//! What the metrics port tells, ringside's beside daprd's: the same calls through a pair of each, and
//! the same families, label sets and values.

use crate::peer::probe::{Call, ProbeApp};
use crate::peer::process::{command, until};
use crate::peer::sidecar::{Naming, Options, http_get, http_request, unchunked};
use crate::peer::{Kind, Sidecar, World, observer};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;

type Told = BTreeMap<String, String>;

/// Everything that a sidecar tells by series of Dapr's, their help texts and types: of histograms of
/// latencies the counts, and which buckets there are.
fn told(sidecar: &Sidecar) -> Told {
    let answer = http_get(sidecar.ports.metrics, "/").expect("an answer");
    let mut found = BTreeMap::new();
    for line in unchunked(&answer).lines() {
        let head = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        if !head.unwrap_or(line).starts_with("dapr_") {
            continue;
        }
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        let latency = name.contains("latency") && !line.starts_with('#');
        // What differs between two runs of the same, or with the length of an answer.
        let varies = latency && (name.contains("_bucket{") || name.contains("_sum{"));
        let sent = name.contains("sent_bytes") || name.contains("response_bytes");
        let sized = sent && (name.contains("_bucket{") || name.contains("_sum{"));
        let value = if varies || sized { "" } else { value };
        found.insert(name.to_owned(), value.to_owned());
    }
    found
}

/// Calls of many kinds by the client, to another app, to its own, and to Dapr itself.
fn through_a_pair(kind: Kind, name: &str, spec: &str) -> [Told; 2] {
    let mut world = World::with_sentry(&format!("metrics-{name}-{}", kind.name()));
    world.reserve(&["server", "client"]);
    world.dead_host("dead");
    let app = ProbeApp::start(&world);
    let [server, client] = ["server", "client"].map(|id| {
        // Nobody asks for its health over and over.
        let options =
            Options { app_port: Some(app.port), spec, await_app: false, ..Options::default() };
        let mut sidecar = Sidecar::start(&world, kind, id, options);
        sidecar.process.wait_for_line("dapr initialized. Status: Running");
        sidecar
    });
    let call = || Call::to(&client.address());
    let streaming = |call: Call| call.metadata("dapr-stream", "true");
    let all = [
        call().app("server"),
        call().app("server").args(&["-method", "/other.Service/Method"]),
        call().app("server").metadata("probe-code", "6"),
        streaming(call().app("server")),
        call().app("client"),
        call().app("dead"),
        streaming(call().app("dead")),
        call().app("nobody"),
        call(),
        call().args(&["-method", "/dapr.proto.runtime.v1.Dapr/GetMetadata", "-size", "0"]),
    ];
    for (n, call) in all.into_iter().enumerate() {
        call.run(&world, &format!("call-{n}"));
    }
    for (method, path, body) in [
        ("GET", "/v1.0/metadata", ""),
        ("GET", "/v1.0/healthz", ""),
        ("GET", "/v1.0/healthz?appid=other", ""),
        ("PUT", "/v1.0/metadata/k", "value"),
        ("GET", "//nowhere/%61", ""),
        ("BREW", "/nowhere", ""),
    ] {
        http_request(client.ports.http, method, path, "", body).expect("an answer");
    }
    [&client, &server].map(|sidecar| {
        // A call is counted after its caller has its answer.
        let mut last = BTreeMap::new();
        let rest = until(|| {
            let now = told(sidecar);
            (std::mem::replace(&mut last, now.clone()) == now).then_some(())
        });
        assert!(rest.is_some(), "it counts on and on");
        last
    })
}

fn shown(found: &Told) -> String {
    found.iter().map(|(name, value)| format!("{name} {value}\n")).collect()
}

fn compare(name: &str, spec: &str) -> [Told; 2] {
    let daprd = through_a_pair(Kind::Daprd, name, spec);
    let ours = through_a_pair(Kind::Ringside, name, spec);
    for (ours, daprd) in ours.iter().zip(&daprd) {
        for (name, value) in daprd {
            assert_eq!(ours.get(name), Some(value), "{name}\n{}", shown(ours));
        }
        for name in ours.keys() {
            assert!(daprd.contains_key(name), "daprd does not tell {name}\n{}", shown(daprd));
        }
    }
    ours
}

#[test]
fn tells_as_daprd_does() {
    let [client, server] = compare("plain", "");
    assert!(client.len() > 100 && server.len() > 2, "{} {}", client.len(), server.len());
}

/// Bounds, label values rewritten and put together, fewer labels.
#[test]
fn follows_the_configuration_as_daprd_does() {
    let spec = "metric:\n  latencyDistributionBuckets: [500, 5, 0, 50, 2000000]\n  \
                http: {increasedCardinality: false, excludeVerbs: true}\n  rules:\n  \
                - name: dapr_runtime_service_invocation_req_sent_total\n    labels:\n    \
                - {name: dst_app_id, regex: {'app': '^se.*r$'}}\n    \
                - {name: type, regex: {'any': '.*y$'}}\n  \
                - name: dapr_grpc.io_server_completed_rpcs\n    labels:\n    \
                - {name: grpc_server_method, regex: {'': '/[^/]*$'}}\n  \
                - name: dapr_grpc_io_server_server_latency\n    labels:\n    \
                - {name: grpc_server_method, regex: {'': '.*'}}\n";
    let [client, _] = compare("rules", spec);
    let name = "dapr_runtime_service_invocation_req_sent_total{app_id=\"client\",\
                dst_app_id=\"app\",type=\"any\"}";
    assert_eq!(client.get(name).map(String::as_str), Some("3"), "{}", shown(&client));
}

/// Errors of the API by code, and paths by pattern, whether or not all paths are told.
#[test]
fn tells_codes_and_patterns_as_daprd_does() {
    for (name, all) in [("patterns", true), ("only-patterns", false)] {
        let spec = format!(
            "metric:\n  recordErrorCodes: true\n  http:\n    increasedCardinality: {all}\n    \
             pathMatching: [\"v1.0/metadata/{{key}}\", /nowhere/]\n"
        );
        let [client, _] = compare(name, &spec);
        let told = |name: &str| client.get(name).map(String::as_str);
        let code = "dapr_error_code_total{app_id=\"client\",category=\"health\",\
                    error_code=\"ERR_HEALTH_APPID_NOT_MATCH\"}";
        assert_eq!(told(code), Some("1"), "{}", shown(&client));
        let request = "dapr_http_server_request_count{app_id=\"client\",method=\"PUT\",\
                       path=\"/v1.0/metadata/{key}\",status=\"204\"}";
        assert_eq!(told(request), Some("1"), "{}", shown(&client));
    }
}

/// Of a name resolver that does not exist, and of one whose settings are wrong.
#[test]
fn tells_of_a_resolver_that_does_not_start() {
    let mut world = World::new("metrics-resolver");
    world.reserve(&["client"]);
    for (component, reason) in [("bogus", "creation"), ("sqlite", "init")] {
        let spec = format!("nameResolution: {{component: {component}, version: v1}}");
        let [daprd, ours] = [Kind::Daprd, Kind::Ringside].map(|kind| {
            let options = Options { naming: Naming::Spec, spec: &spec, ..Options::default() };
            let sidecar = Sidecar::start(&world, kind, "client", options);
            let mut told = told(&sidecar);
            told.retain(|name, _| name.contains("component"));
            told
        });
        assert_eq!(ours, daprd, "{component}");
        let name = format!(
            "dapr_runtime_component_init_fail_total{{app_id=\"client\",\
             component=\"nameResolution\",componentName=\"{component}\",reason=\"{reason}\"}}"
        );
        assert_eq!(ours.get(&name).map(String::as_str), Some("1"), "{}", shown(&ours));
    }
}

/// A rule that is no regular expression: all is told, without rules.
#[test]
fn a_rule_that_is_none_leaves_all_as_it_is() {
    let spec = "metric:\n  rules:\n  - name: dapr_http_server_request_count\n    labels:\n    \
                - {name: path, regex: {x: '('}}\n";
    compare("bad-rule", spec);
}

/// None of Dapr's series; what the process is like is told all the same.
#[test]
fn may_be_switched_off() {
    let [client, _] = compare("off", "metric: {enabled: false}");
    assert!(client.is_empty(), "{}", shown(&client));
    let mut world = World::new("metrics-off");
    world.reserve(&["client"]);
    let spec = "metrics: {enabled: false}";
    let options = Options { spec, ..Options::default() };
    let sidecar = Sidecar::start(&world, Kind::Ringside, "client", options);
    let answer = http_get(sidecar.ports.metrics, "/").expect("an answer");
    assert!(answer.contains("\nprocess_open_fds ") && !answer.contains("dapr_"), "{answer}");
}

/// What Prometheus' own tool says of a sidecar's exposition: it reads it, and finds fault with names
/// that are Dapr's only, and with the unit of our latencies.
#[test]
fn prometheus_reads_it() {
    let mut world = World::with_sentry("metrics-promtool");
    world.reserve(&["server", "client"]);
    let app = ProbeApp::start(&world);
    let served = Options { app_port: Some(app.port), ..Options::default() };
    let server = Sidecar::start(&world, Kind::Ringside, "server", served);
    let client = Sidecar::caller(&world, Kind::Ringside, "client");
    for (n, app) in ["server", "nobody"].into_iter().enumerate() {
        Call::to(&client.address()).app(app).run(&world, &format!("call-{n}"));
    }
    for sidecar in [&server, &client] {
        let answer = http_get(sidecar.ports.metrics, "/").expect("an answer");
        let text = unchunked(&answer);
        let expiry = number(&text, "ringside_certificate_expiry_timestamp_seconds ");
        let day = 86_400.0;
        assert!(expiry.is_some_and(|at| (now()..now() + 2.0 * day).contains(&at)), "{text}");
        let mut tool = command(observer("promtool"));
        tool.args(["check", "metrics"]).stdin(Stdio::piped());
        let mut tool =
            tool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("promtool");
        let mut stdin = tool.stdin.take().expect("its input");
        stdin.write_all(text.as_bytes()).expect("it reads");
        drop(stdin);
        let ran = tool.wait_with_output().expect("its end");
        // 3: it was read, and faults were found.
        assert!(matches!(ran.status.code(), Some(0 | 3)), "{ran:?}");
        let said = [ran.stdout, ran.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let ours = |line: &&str| {
            !line.starts_with("dapr_") && !line.starts_with("ringside_call_latency_us ")
        };
        assert_eq!(said.lines().filter(ours).collect::<Vec<_>>(), [""; 0], "{said}");
    }
    let told = unchunked(&http_get(client.ports.metrics, "/").expect("an answer"));
    let found = number(&told, "ringside_name_lookup_success_timestamp_seconds ");
    assert!(found.is_some_and(|at| (now() - 600.0..=now()).contains(&at)), "{told}");
}

fn number(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.parse().ok()
}

fn now() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("a clock").as_secs_f64()
}
