//! `docs/observability`: a real Prometheus scrapes a live pair, and whatever the dashboard and the
//! alerts ask it for is there.
//!
//! In one setting only (`scripts/test`): drivers and workers play no part.

use crate::peer::bare::converse;
use crate::peer::frames;
use crate::peer::ports::claim;
use crate::peer::probe::{Call, ProbeApp};
use crate::peer::process::{Process, command};
use crate::peer::sidecar::{Options, http_get, http_status, unchunked};
use crate::peer::{Kind, Sidecar, World, observer};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Series that are there from the first event on, which no test waits for.
const LATER: &[&str] = &["dapr_runtime_mtls_workload_cert_rotated_fail_total"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/observability")
}

/// What Prometheus answers to a query.
fn ask(port: u16, query: &str) -> Vec<Value> {
    let text: String = query
        .bytes()
        .map(|octet| match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(octet).to_string(),
            _ => format!("%{octet:02X}"),
        })
        .collect();
    let answer = http_get(port, &format!("/api/v1/query?query={text}")).expect("an answer");
    let answer: Value = serde_json::from_str(&unchunked(&answer)).expect("JSON");
    assert_eq!(answer["status"], "success", "{query}: {answer}");
    answer["data"]["result"].as_array().expect("a result").clone()
}

/// How often both sidecars were scraped.
fn scrapes(port: u16) -> Option<u64> {
    let counts = ask(port, "min(count_over_time(up{job=\"ringside\"}[1h]))");
    counts.first()?["value"][1].as_str()?.parse().ok()
}

/// Names of series in an expression.
fn series(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = ["ringside_", "dapr_", "process_"];
    let named = words.filter(|word| ours.iter().any(|prefix| word.starts_with(prefix)));
    named.map(str::to_owned).collect()
}

struct Stage {
    world: World,
    _app: ProbeApp,
    caller: Sidecar,
    stranger: Sidecar,
    callee: Sidecar,
    prometheus: Process,
    port: u16,
}

impl Stage {
    /// A pair with all that has series, and somebody who scrapes both once a second.
    fn new() -> Self {
        let mut world = World::with_sentry("observability");
        world.reserve(&["server", "client", "stranger"]);
        world.dead_host("dead");
        fs::write(
            world.folder("resources").join("policies.yaml"),
            "kind: Resiliency\nmetadata: {name: policies}\nspec:\n  policies:\n    circuitBreakers: \
             {quick: {trip: consecutiveFailures > 0}}\n  targets: {apps: {dead: {circuitBreaker: \
             quick}}}\n",
        )
        .expect("policies");
        let app = ProbeApp::start(&world);
        let list = "accessControl:\n  defaultAction: deny\n  trustDomain: public\n  policies:\n  - \
                    appId: client\n    defaultAction: allow\n    trustDomain: public\n    \
                    namespace: default\n    operations: [{name: /closed.Svc/*, action: deny}]";
        let served = Options { app_port: Some(app.port), spec: list, ..Options::default() };
        let callee = Sidecar::start(&world, Kind::Ringside, "server", served);
        let caller = Sidecar::caller(&world, Kind::Ringside, "client");
        let stranger = Sidecar::caller(&world, Kind::Ringside, "stranger");
        let port = claim();
        let home = world.folder("prometheus");
        fs::write(
            home.join("prometheus.yml"),
            format!(
                "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
                 rule_files: [\"{}\"]\n\
                 scrape_configs:\n- job_name: ringside\n  static_configs:\n  - targets: \
                 [\"127.0.0.1:{}\", \"127.0.0.1:{}\"]\n",
                folder().join("alerts.yaml").display(),
                caller.ports.metrics,
                callee.ports.metrics
            ),
        )
        .expect("a configuration");
        let mut scraper = command(observer("prometheus"));
        scraper.args([
            &format!("--config.file={}", home.join("prometheus.yml").display()),
            &format!("--storage.tsdb.path={}", home.join("data").display()),
            &format!("--web.listen-address=127.0.0.1:{port}"),
        ]);
        let mut prometheus = Process::start(&home, "prometheus", scraper);
        prometheus.wait("Prometheus", |_| (http_status(port, "/-/ready")? == 200).then_some(()));
        Self { world, _app: app, caller, stranger, callee, prometheus, port }
    }

    /// Calls that end well, that are denied, that reach nobody, that a limit refuses.
    fn call(&self) {
        let to = |app: &str| Call::to(&self.caller.address()).app(app);
        let fine = to("server").args(&["-times", "20"]).run(&self.world, "fine");
        assert_eq!(fine.status(), ("OK", ""));
        let closed = to("server").args(&["-method", "/closed.Svc/Any"]).run(&self.world, "closed");
        assert_eq!(closed.code, "PermissionDenied");
        let unknown = Call::to(&self.stranger.address()).app("server").run(&self.world, "stranger");
        assert_eq!(unknown.code, "PermissionDenied");
        let large = to("server").args(&["-size", "5000000"]).run(&self.world, "large");
        assert_eq!(large.code, "ResourceExhausted");
        // Its circuit breaker opens.
        assert_ne!(to("dead").run(&self.world, "dead").code, "OK");
        self.misbehave();
    }

    /// A call that is cancelled, a goodbye, and a frame for which we close the connection.
    fn misbehave(&self) {
        const CANCEL: u32 = 8;
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/helloworld.Greeter/SayHello"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("dapr-app-id", "server"),
        ];
        let said = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
            frames::headers(1, &fields, false),
            frames::reset(1, CANCEL),
            frames::goaway(0, 0, ""),
            frames::data(0, b"of no stream", false),
        ];
        converse(self.caller.ports.grpc, &said.concat()).expect("the connection is closed");
    }

    fn await_scrapes(&mut self, more: u64) {
        let port = self.port;
        let from = scrapes(port).unwrap_or_default();
        self.prometheus
            .wait("scrapes", |_| scrapes(port).filter(|count| *count >= from + more).map(drop));
    }
}

/// The dashboard's panels: title and expression.
fn panels() -> Vec<(String, String)> {
    let text = fs::read_to_string(folder().join("dashboard.json")).expect("a dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let mut all = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().expect("a text").to_owned();
            let expression = text(&target["expr"])
                .replace("$job", "ringside")
                .replace("$instance", ".*")
                .replace("$__rate_interval", "10s");
            all.push((text(&panel["title"]), expression));
        }
    }
    all
}

#[test]
fn whatever_is_asked_for_is_there() {
    let mut stage = Stage::new();
    // Counters that begin before they are first scraped would have no rate.
    stage.call();
    stage.await_scrapes(2);
    stage.call();
    stage.await_scrapes(2);
    let panels = panels();
    assert!(panels.len() > 20);
    for (title, expression) in &panels {
        let found = ask(stage.port, expression);
        assert!(!found.is_empty(), "{title}: {expression}");
        let numbers = found.iter().filter_map(|sample| sample["value"][1].as_str());
        assert!(numbers.clone().any(|number| number != "NaN"), "{title}: {expression}");
    }
    let rules = http_get(stage.port, "/api/v1/rules").expect("rules");
    let rules: Value = serde_json::from_str(&unchunked(&rules)).expect("JSON");
    let rules = rules["data"]["groups"][0]["rules"].as_array().expect("rules").clone();
    assert!(rules.len() > 10);
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        for name in series(rule["query"].as_str().expect("an expression")) {
            let found = ask(stage.port, &name);
            assert!(!found.is_empty() || LATER.contains(&name.as_str()), "{name}: {rule}");
        }
    }
    let busy = ask(stage.port, "sum by (hop) (ringside_calls_total{status=\"OK\"})");
    let count = |hop: &str| {
        let sample = busy.iter().find(|sample| sample["metric"]["hop"] == hop);
        sample.and_then(|sample| sample["value"][1].as_str()?.parse::<u64>().ok())
    };
    assert_eq!((count("outbound"), count("inbound")), (Some(40), Some(40)), "{busy:?}");
    assert!(stage.callee.process.running() && stage.caller.process.running());
}

#[test]
fn alerts_are_right() {
    for args in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts-test.yaml"]] {
        let mut promtool = command(observer("promtool"));
        let ran = promtool.args(args).current_dir(folder()).output().expect("promtool");
        let told = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(ran.status.success(), "{told}{}", String::from_utf8_lossy(&ran.stderr));
    }
}
