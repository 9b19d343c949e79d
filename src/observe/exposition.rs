//! Cells to the Prometheus text format. PURE: numbers in, text out.
//!
//! 1. Every declared label of a series is always there, empty if unset.
//! 2. A Dapr series appears with its first record, not before.
//!
//! Source: the text format 0.0.4 of Prometheus; Dapr's `pkg/metrics/exporter.go`.

mod text;

use crate::observe::callers::{Callers, Names, Ruling};
use crate::observe::cells::{CallKind, Cells, Gauge, Goodbye, Hop, MethodCells, Octets, Outcomes};
use crate::observe::histogram::{Bounds, Histogram, MICROS_BOUNDS, SIZE_BOUNDS};
use crate::observe::http::HttpCells;
use crate::observe::names::{self, STATUS_NAMES, Series};
use crate::observe::policies::{Applied, BREAKER_STATES};
use crate::observe::probes::{ProbeKind, Probes};
use crate::observe::rules::Rules;
use crate::observe::turns::Batches;
use std::collections::BTreeMap;
use text::Text;

/// What the process looks like from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    pub cpu_seconds: f64,
    pub resident_octets: u64,
    pub virtual_octets: u64,
    pub open_fds: u64,
    pub fds_max: u64,
    pub threads: u64,
    pub start_seconds: f64,
}

/// What one worker does, and whether it said so for this scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WorkerFigures {
    /// False: its figures, here and in all sums, are of an earlier scrape.
    pub answered: bool,
    pub downstream_connections: i64,
    pub streams: i64,
    pub busy_seconds: f64,
    pub turns: Batches,
    pub flushes: Batches,
}

/// Everything that one scrape tells.
#[derive(Debug)]
pub struct Exposition<'a> {
    pub app_id: &'a str,
    /// False: none of Dapr's series is told.
    pub tells_daprs: bool,
    /// Of Dapr's latencies.
    pub latency_bounds: &'a Bounds,
    pub rules: &'a Rules,
    /// Of all workers.
    pub cells: &'a Cells,
    /// Name and namespace of each Resiliency resource that was taken.
    pub resiliency_loaded: &'a [(String, String)],
    /// Those under which what all of them do is told.
    pub resiliency_label: &'a (String, String),
    /// By worker.
    pub workers: &'a [WorkerFigures],
    pub rotation_failures: &'a BTreeMap<&'static str, u64>,
    /// A name resolver that did not start, and why.
    pub resolver_failure: Option<(String, &'static str)>,
    /// Of the app's health.
    pub probes: &'a Probes,
    /// Of the HTTP API.
    pub http: &'a HttpCells,
    /// Series of the control thread, without labels.
    pub numbers: &'a [(Series, u64)],
    pub process: Option<Process>,
}

type Labels = Vec<String>;

/// `text/plain; version=0.0.4`.
pub fn render(exposition: &Exposition<'_>) -> String {
    let mut text = Text::new(exposition.rules, exposition.latency_bounds);
    if exposition.tells_daprs {
        daprs(&mut text, exposition);
    }
    own(&mut text, exposition.cells);
    folded(&mut text, exposition);
    by_worker(&mut text, exposition.workers);
    for (series, number) in exposition.numbers {
        text.number(series, *number as f64);
    }
    if let Some(process) = &exposition.process {
        process_series(&mut text, process);
    }
    text.out
}

fn daprs(text: &mut Text<'_>, exposition: &Exposition<'_>) {
    let mut invocation = Invocation::default();
    for (dst_app_id, path, cells) in exposition.cells.methods() {
        invocation.add(exposition.app_id, dst_app_id, path, cells);
    }
    text.counters(&names::REQUESTS_SENT, invocation.sent);
    text.counters(&names::RESPONSES_RECEIVED, invocation.received);
    text.histograms(&names::RESPONSE_LATENCY, invocation.latency);
    text.counters(&names::GRPC_COMPLETED, invocation.completed);
    text.histograms(&names::GRPC_LATENCY, invocation.server_latency);
    text.histograms_of(&names::GRPC_RECEIVED, invocation.requests, &SIZE_BOUNDS);
    text.histograms_of(&names::GRPC_SENT, invocation.responses, &SIZE_BOUNDS);
    http(text, exposition);
    access_control(text, &exposition.cells.callers);
    resiliency(text, exposition);
    let failures = exposition.rotation_failures.iter();
    let failures = failures
        .map(|(reason, n)| (vec![exposition.app_id.to_owned(), (*reason).to_owned()], *n))
        .collect();
    text.counters(&names::ROTATION_FAILURES, failures);
    let failure = exposition.resolver_failure.iter().map(|(name, reason)| {
        let labels = [exposition.app_id, "nameResolution", name, reason];
        (labels.map(str::to_owned).to_vec(), 1)
    });
    text.counters(&names::COMPONENT_FAILURES, failure.collect());
    probes(text, exposition);
}

fn http(text: &mut Text<'_>, Exposition { app_id, http, .. }: &Exposition<'_>) {
    let labels = |labels: &[String; 3]| {
        [*app_id].map(str::to_owned).into_iter().chain(labels.clone()).collect()
    };
    let took: BTreeMap<Labels, Histogram> =
        http.took().map(|(of, took)| (labels(of), took.clone())).collect();
    let counts: BTreeMap<Labels, u64> =
        took.iter().map(|(labels, took)| (labels.clone(), took.count())).collect();
    text.counters(&names::HTTP_SERVER_REQUESTS, counts.clone());
    if http.tells_paths() {
        text.counters(&names::HTTP_SERVER_RESPONSES, counts);
    }
    text.histograms(&names::HTTP_SERVER_LATENCY, took);
    let errors = http.errors().map(|(code, count)| {
        ([app_id, code.category, code.name].map(str::to_owned).to_vec(), count)
    });
    text.counters(&names::ERROR_CODES, errors.collect());
    for (series, octets) in [
        (&names::HTTP_SERVER_RECEIVED, &http.request_octets),
        (&names::HTTP_SERVER_SENT, &http.response_octets),
    ] {
        let told = (octets.count() > 0).then(|| (vec![(*app_id).to_owned()], octets.clone()));
        text.histograms_of(series, told.into_iter().collect(), &SIZE_BOUNDS);
    }
}

/// Dapr's series, gathered by label set: several methods share one app ID.
#[derive(Default)]
struct Invocation {
    sent: BTreeMap<Labels, u64>,
    received: BTreeMap<Labels, u64>,
    latency: BTreeMap<Labels, Histogram>,
    completed: BTreeMap<Labels, u64>,
    server_latency: BTreeMap<Labels, Histogram>,
    requests: BTreeMap<Labels, Histogram>,
    responses: BTreeMap<Labels, Histogram>,
}

impl Invocation {
    fn add(&mut self, app_id: &str, dst_app_id: &[u8], path: &[u8], cells: &MethodCells) {
        let app_id = app_id.to_owned();
        let peer = String::from_utf8_lossy(dst_app_id).into_owned();
        let path = String::from_utf8_lossy(path).into_owned();
        for kind in [CallKind::Unary, CallKind::Streaming] {
            let sent = cells.sent[kind as usize];
            if sent > 0 {
                let labels = vec![app_id.clone(), peer.clone(), kind_name(kind)];
                *self.sent.entry(labels).or_default() += sent;
            }
        }
        let received = |status: u8, kind| {
            vec![app_id.clone(), peer.clone(), status.to_string(), kind_name(kind)]
        };
        for (status, Outcomes { count, latency }) in &cells.received {
            *self.received.entry(received(*status, CallKind::Unary)).or_default() += count;
            let labels = vec![app_id.clone(), peer.clone(), status.to_string()];
            self.latency.entry(labels).or_default().merge(latency);
        }
        for (status, count) in &cells.handshakes_failed {
            *self.received.entry(received(*status, CallKind::Streaming)).or_default() += count;
        }
        for (status, Outcomes { count, latency }) in &cells.completed {
            let name = STATUS_NAMES.get(usize::from(*status)).unwrap_or(&"Unknown");
            let labels = vec![app_id.clone(), path.clone(), (*name).to_owned()];
            *self.completed.entry(labels.clone()).or_default() += count;
            self.server_latency.entry(labels).or_default().merge(latency);
        }
        if let Some(sizes) = &cells.sizes {
            let labels = vec![app_id, path];
            self.requests.entry(labels.clone()).or_default().merge(&sizes.requests);
            self.responses.entry(labels).or_default().merge(&sizes.responses);
        }
    }
}

/// Dapr's series of policies.
fn resiliency(text: &mut Text<'_>, exposition: &Exposition<'_>) {
    let app_id = exposition.app_id.to_owned();
    let mut loaded: BTreeMap<Labels, u64> = BTreeMap::new();
    for (name, namespace) in exposition.resiliency_loaded {
        *loaded.entry(vec![app_id.clone(), name.clone(), namespace.clone()]).or_default() += 1;
    }
    let (mut counts, mut activations) = (BTreeMap::new(), BTreeMap::new());
    let mut states = Vec::new();
    for (target, cells) in exposition.cells.targets() {
        let target = format!("app_{}", String::from_utf8_lossy(target));
        let (name, namespace) = exposition.resiliency_label.clone();
        let labels = |policy: &str, status: &str| {
            let fixed = [&app_id, "outbound", &name, &namespace, policy, status, &target];
            fixed.map(str::to_owned).to_vec()
        };
        let tell = |into: &mut BTreeMap<Labels, u64>, policy, status, count| {
            if count > 0 {
                into.insert(labels(policy, status), count);
            }
        };
        for (policy, what) in [("timeout", Applied::Timeout), ("retry", Applied::Retry)] {
            tell(&mut counts, policy, "", cells.applied[what as usize]);
            tell(&mut activations, policy, "", cells.activated[what as usize]);
        }
        for (number, state) in BREAKER_STATES.into_iter().enumerate() {
            tell(&mut counts, "circuitbreaker", state, cells.breaker_applied[number]);
            tell(&mut activations, "circuitbreaker", state, cells.breaker_activated[number]);
        }
        if let Some((_, now)) = cells.breaker_state {
            let all = BREAKER_STATES.into_iter().chain(["unknown"]).enumerate();
            states.extend(all.map(|(number, state)| {
                (labels("circuitbreaker", state), f64::from(u8::from(number == now)))
            }));
        }
    }
    text.counters(&names::RESILIENCY_LOADED, loaded);
    text.counters(&names::RESILIENCY_COUNT, counts);
    text.counters(&names::RESILIENCY_ACTIVATIONS, activations);
    text.gauges(&names::RESILIENCY_BREAKER_STATE, states);
}

fn kind_name(kind: CallKind) -> String {
    match kind {
        CallKind::Unary => "unary".to_owned(),
        CallKind::Streaming => "streaming".to_owned(),
    }
}

fn probes(text: &mut Text<'_>, Exposition { app_id, probes, .. }: &Exposition<'_>) {
    for (kind, count, latency) in [
        (ProbeKind::Grpc, &names::GRPC_PROBES, &names::GRPC_PROBE_LATENCY),
        (ProbeKind::Http, &names::HTTP_PROBES, &names::HTTP_PROBE_LATENCY),
    ] {
        let labels = |result: &str| vec![(*app_id).to_owned(), result.to_owned()];
        let took = probes.of(kind).map(|(result, took)| (labels(result), took.clone()));
        let took: BTreeMap<Labels, Histogram> = took.collect();
        let counts = took.iter().map(|(labels, took)| (labels.clone(), took.count())).collect();
        text.counters(count, counts);
        text.histograms(latency, took);
    }
}

fn access_control(text: &mut Text<'_>, callers: &Callers) {
    for (series, ruling) in [
        (&names::ALLOWED_BY_APP, Ruling::AllowedByApp),
        (&names::BLOCKED_BY_APP, Ruling::BlockedByApp),
        (&names::ALLOWED_BY_GLOBAL, Ruling::AllowedByGlobal),
        (&names::BLOCKED_BY_GLOBAL, Ruling::BlockedByGlobal),
    ] {
        let labels = |names: &Names| names.iter().map(ToString::to_string).collect();
        let counted = callers.of_ruling(ruling).map(|(names, count)| (labels(names), count));
        text.counters(series, counted.collect());
    }
}

fn own(text: &mut Text<'_>, cells: &Cells) {
    let mut calls = BTreeMap::new();
    let mut latencies = BTreeMap::new();
    for (hop, name) in [(Hop::Inbound, "inbound"), (Hop::Outbound, "outbound")] {
        let hop = cells.hop(hop);
        for (status, count) in STATUS_NAMES.iter().zip(hop.calls).filter(|(_, n)| *n > 0) {
            calls.insert(vec![name.to_owned(), (*status).to_owned()], count);
        }
        if hop.latency_us.count() > 0 {
            latencies.insert(vec![name.to_owned()], hop.latency_us.clone());
        }
    }
    text.counters(&names::CALLS, calls);
    text.histograms_of(&names::CALL_LATENCY, latencies, &MICROS_BOUNDS);
    let limits = cells.limits().iter().map(|(limit, n)| (vec![(*limit).to_owned()], *n)).collect();
    text.counters(&names::LIMITS_HIT, limits);
    text.number(&names::REPLAYS, cells.replays() as f64);
    by_side(text, cells);
    for (series, gauge) in [
        (&names::DOWNSTREAM_CONNECTIONS, Gauge::DownstreamConnections),
        (&names::UPSTREAM_CONNECTIONS, Gauge::UpstreamConnections),
        (&names::STREAMS, Gauge::Streams),
        (&names::OPEN_CALLS, Gauge::OpenCalls),
        (&names::WAITING_CALLS, Gauge::WaitingCalls),
    ] {
        text.number(series, cells.gauge(gauge) as f64);
    }
}

/// All of them from the start, that their increase can be told.
fn folded(text: &mut Text<'_>, Exposition { cells, http, probes, .. }: &Exposition<'_>) {
    let of = [
        ("methods", cells.folded()),
        ("callers", cells.callers.folded()),
        ("targets", cells.targets_folded()),
        ("http_paths", http.folded()),
        ("probe_results", probes.folded()),
    ];
    let told = of.map(|(of, count)| (vec![of.to_owned()], count));
    text.counters(&names::FOLDED, told.into_iter().collect());
}

fn by_side(text: &mut Text<'_>, cells: &Cells) {
    for (series, sent, of_connection) in [
        (&names::RESETS_RECEIVED, false, false),
        (&names::GOAWAYS_RECEIVED, false, true),
        (&names::RESETS_SENT, true, false),
        (&names::GOAWAYS_SENT, true, true),
    ] {
        let such = |it: &Goodbye| (it.sent, it.of_connection) == (sent, of_connection);
        let told = cells.goodbyes().iter().filter(|(it, _)| such(it));
        let told = told.map(|(Goodbye { downstream, code, .. }, count)| {
            (vec![side(*downstream), (*code).to_owned()], *count)
        });
        text.counters(series, told.collect());
    }
    let octets = [true, false].map(|downstream| (vec![side(downstream)], cells.octets(downstream)));
    let of = |which: fn(&Octets) -> u64| octets.iter().map(move |(at, it)| (at.clone(), which(it)));
    text.counters(&names::BYTES_READ, of(|octets| octets.read).collect());
    text.counters(&names::BYTES_WRITTEN, of(|octets| octets.written).collect());
}

fn side(downstream: bool) -> String {
    if downstream { "downstream".to_owned() } else { "upstream".to_owned() }
}

fn by_worker(text: &mut Text<'_>, workers: &[WorkerFigures]) {
    type Figure = fn(&WorkerFigures) -> f64;
    let series: [(_, Figure); 4] = [
        (&names::WORKER_ANSWERED, |worker| f64::from(u8::from(worker.answered))),
        (&names::WORKER_CONNECTIONS, |worker| worker.downstream_connections as f64),
        (&names::WORKER_STREAMS, |worker| worker.streams as f64),
        (&names::WORKER_BUSY, |worker| worker.busy_seconds),
    ];
    for (series, figure) in series {
        text.head(series);
        for (number, worker) in workers.iter().enumerate() {
            text.sample(series, "", &[number.to_string()], None, figure(worker));
        }
    }
    type Batch = fn(&WorkerFigures) -> &Batches;
    let series: [(_, Batch); 2] = [
        (&names::WORKER_TURNS, |worker| &worker.turns),
        (&names::WORKER_FLUSHES, |worker| &worker.flushes),
    ];
    for (series, batches) in series {
        text.head(series);
        for (number, worker) in workers.iter().enumerate() {
            let batches = batches(worker);
            let (count, sum) = (batches.count(), batches.sum() as f64);
            text.buckets(series, &[number.to_string()], batches.cumulative(), count, sum);
        }
    }
}

fn process_series(text: &mut Text<'_>, process: &Process) {
    text.number(&names::PROCESS_CPU, process.cpu_seconds);
    text.number(&names::PROCESS_FDS_MAX, process.fds_max as f64);
    text.number(&names::PROCESS_FDS, process.open_fds as f64);
    text.number(&names::PROCESS_RSS, process.resident_octets as f64);
    text.number(&names::PROCESS_START, process.start_seconds);
    text.number(&names::PROCESS_THREADS, process.threads as f64);
    text.number(&names::PROCESS_VSZ, process.virtual_octets as f64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::callers::CallerId;
    use crate::observe::cells::LABEL_OCTETS_MAX;
    use crate::observe::histogram::LATENCY_BOUNDS;
    use crate::observe::http::Wanted;
    use std::time::Duration;

    fn text_of(cells: &Cells, failures: &BTreeMap<&'static str, u64>) -> String {
        let loaded = [("rz".to_owned(), "ns".to_owned())];
        let count = usize::from(cells.targets().next().is_some());
        render(&Exposition {
            app_id: "client",
            tells_daprs: true,
            latency_bounds: &LATENCY_BOUNDS,
            rules: &Rules::default(),
            http: &HttpCells::new(Wanted { paths: true, verbs: true, ..Wanted::default() }),
            cells,
            resiliency_loaded: &loaded[..count],
            resiliency_label: &loaded[0],
            workers: &[
                WorkerFigures::default(),
                WorkerFigures {
                    answered: true,
                    streams: 4,
                    busy_seconds: 1.5,
                    turns: batches(&[0, 1, 3]),
                    flushes: batches(&[2, 300]),
                    ..Default::default()
                },
            ],
            rotation_failures: failures,
            resolver_failure: None,
            probes: &Probes::default(),
            numbers: &[(names::LOG_DROPS, 3)],
            process: None,
        })
    }

    fn batches(sizes: &[usize]) -> Batches {
        let mut batches = Batches::default();
        sizes.iter().for_each(|size| batches.record(*size));
        batches
    }

    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|l| l == line), "no line {line} in\n{text}");
    }

    /// Names, help and labels of Dapr's `service_monitoring.go`.
    #[test]
    fn tells_rulings_as_daprd_does() {
        let mut cells = Cells::default();
        let caller = cells.callers.intern("caller", "default", "public");
        for (ruling, caller) in [
            (Ruling::AllowedByGlobal, CallerId::NOBODY),
            (Ruling::BlockedByApp, caller),
            (Ruling::BlockedByApp, caller),
        ] {
            cells.callers.ruled(caller, ruling);
        }
        let text = text_of(&cells, &BTreeMap::new());
        let name = "dapr_runtime_acl_app_policy_action_blocked_total";
        let help = "The number of requests blocked by the app specific action specified in the \
                    access control policy.";
        has(&text, &format!("# HELP {name} {help}"));
        let labels = "app_id=\"caller\",namespace=\"default\",trustDomain=\"public\"";
        has(&text, &format!("{name}{{{labels}}} 2"));
        let name = "dapr_runtime_acl_global_policy_action_allowed_total";
        has(&text, &format!("{name}{{app_id=\"\",namespace=\"\",trustDomain=\"\"}} 1"));
        assert!(!text.contains("dapr_runtime_acl_app_policy_action_allowed_total"), "{text}");
    }

    /// Names, labels and values of Dapr's `resiliency_monitoring.go`.
    #[test]
    #[allow(clippy::disallowed_methods)]
    fn tells_policies_as_daprd_does() {
        let mut cells = Cells::default();
        let now = std::time::Instant::now();
        let policies = cells.policies();
        let target = policies.target(b"server");
        policies.applied(target, Applied::Retry);
        policies.activated(target, Applied::Retry);
        policies.breaker_applied(target, 0, now);
        policies.breaker_changed(target, 2);
        policies.breaker_applied(target, 2, now);
        let text = text_of(&cells, &BTreeMap::new());
        has(&text, "dapr_resiliency_loaded{app_id=\"client\",name=\"rz\",namespace=\"ns\"} 1");
        let labels = |policy: &str, status: &str| {
            format!(
                "{{app_id=\"client\",flow_direction=\"outbound\",name=\"rz\",namespace=\"ns\",\
                 policy=\"{policy}\",status=\"{status}\",target=\"app_server\"}}"
            )
        };
        has(&text, &format!("dapr_resiliency_count{} 1", labels("retry", "")));
        has(&text, &format!("dapr_resiliency_count{} 1", labels("circuitbreaker", "closed")));
        has(&text, &format!("dapr_resiliency_count{} 1", labels("circuitbreaker", "open")));
        has(&text, &format!("dapr_resiliency_activations_total{} 1", labels("retry", "")));
        let opened = labels("circuitbreaker", "open");
        has(&text, &format!("dapr_resiliency_activations_total{opened} 1"));
        for (state, value) in [("closed", 0), ("half-open", 0), ("open", 1), ("unknown", 0)] {
            let labels = labels("circuitbreaker", state);
            has(&text, &format!("dapr_resiliency_cb_state{labels} {value}"));
        }
        assert!(!text.contains("policy=\"timeout\""), "{text}");
    }

    #[test]
    fn tells_a_unary_call_as_daprd_does() {
        let mut cells = Cells::default();
        let hello = cells.method(b"server", b"/helloworld.Greeter/SayHello");
        let again = cells.method(b"server", b"/helloworld.Greeter/Again");
        for method in [hello, hello, again] {
            let took = Duration::from_micros(1500);
            cells.sent(Hop::Outbound, method, CallKind::Unary);
            cells.received(Hop::Outbound, method, CallKind::Unary, 0, took);
            cells.completed(Hop::Outbound, method, CallKind::Unary, 0, took);
        }
        let text = text_of(&cells, &BTreeMap::new());
        let name = "dapr_runtime_service_invocation_req_sent_total";
        has(&text, &format!("# TYPE {name} counter"));
        has(&text, &format!("{name}{{app_id=\"client\",dst_app_id=\"server\",type=\"unary\"}} 3"));
        has(
            &text,
            "dapr_runtime_service_invocation_res_recv_total{app_id=\"client\",\
             src_app_id=\"server\",status=\"0\",type=\"unary\"} 3",
        );
        let labels = "app_id=\"client\",src_app_id=\"server\",status=\"0\"";
        let name = "dapr_runtime_service_invocation_res_recv_latency_ms";
        has(&text, &format!("{name}_bucket{{{labels},le=\"1\"}} 0"));
        has(&text, &format!("{name}_bucket{{{labels},le=\"2\"}} 3"));
        has(&text, &format!("{name}_bucket{{{labels},le=\"100000\"}} 3"));
        has(&text, &format!("{name}_bucket{{{labels},le=\"+Inf\"}} 3"));
        has(&text, &format!("{name}_sum{{{labels}}} 4.5"));
        has(&text, &format!("{name}_count{{{labels}}} 3"));
        has(
            &text,
            "dapr_grpc_io_server_completed_rpcs{app_id=\"client\",\
             grpc_server_method=\"/helloworld.Greeter/SayHello\",grpc_server_status=\"OK\"} 2",
        );
        has(&text, "ringside_log_drops_total 3");
        has(&text, "ringside_label_sets_folded_total{of=\"methods\"} 0");
        has(&text, "ringside_worker_answered{worker=\"0\"} 0");
        has(&text, "ringside_worker_answered{worker=\"1\"} 1");
        has(&text, "ringside_worker_streams{worker=\"1\"} 4");
        has(&text, "ringside_worker_busy_seconds_total{worker=\"1\"} 1.5");
        has(&text, "ringside_calls_total{hop=\"outbound\",status=\"OK\"} 3");
    }

    /// What it read and wrote, how it and its peers ended things, and what turns are like.
    #[test]
    fn tells_what_connections_and_loops_do() {
        let mut cells = Cells::default();
        cells.read(true, 7);
        cells.written(true, 8);
        cells.read(false, 9);
        for (sent, of_connection, downstream) in
            [(true, false, true), (true, true, false), (false, true, true), (false, false, false)]
        {
            let goodbye = Goodbye { sent, of_connection, downstream, code: "CANCEL" };
            cells.goodbye(goodbye, 2);
        }
        let text = text_of(&cells, &BTreeMap::new());
        has(&text, "ringside_read_bytes_total{side=\"downstream\"} 7");
        has(&text, "ringside_read_bytes_total{side=\"upstream\"} 9");
        has(&text, "ringside_written_bytes_total{side=\"downstream\"} 8");
        has(&text, "ringside_written_bytes_total{side=\"upstream\"} 0");
        for (name, side) in [
            ("resets_sent", "downstream"),
            ("goaways_sent", "upstream"),
            ("goaways_received", "downstream"),
            ("resets_received", "upstream"),
        ] {
            let name = format!("ringside_{name}_total");
            assert_eq!(text.matches(&format!("\n{name}{{")).count(), 1, "{text}");
            has(&text, &format!("{name}{{side=\"{side}\",code=\"CANCEL\"}} 2"));
        }
        for (name, buckets, sum, count) in [
            ("turn_events", [("1", 2), ("2", 2), ("4", 3), ("256", 3)], 4, 3),
            ("flush_connections", [("1", 0), ("2", 1), ("256", 1), ("+Inf", 2)], 302, 2),
        ] {
            let name = format!("ringside_worker_{name}");
            for (bound, count) in buckets {
                has(&text, &format!("{name}_bucket{{worker=\"1\",le=\"{bound}\"}} {count}"));
            }
            has(&text, &format!("{name}_sum{{worker=\"1\"}} {sum}"));
            has(&text, &format!("{name}_count{{worker=\"1\"}} {count}"));
            has(&text, &format!("{name}_count{{worker=\"0\"}} 0"));
        }
    }

    #[test]
    fn a_series_of_daprs_appears_with_its_first_record() {
        let text = text_of(&Cells::default(), &BTreeMap::new());
        assert!(!text.contains("dapr_"), "{text}");
        let text = text_of(&Cells::default(), &BTreeMap::from([("sign", 2)]));
        let name = "dapr_runtime_mtls_workload_cert_rotated_fail_total";
        has(&text, &format!("{name}{{app_id=\"client\",reason=\"sign\"}} 2"));
    }

    #[test]
    fn a_streaming_call_is_told_only_when_its_handshake_failed() {
        let mut cells = Cells::default();
        let id = cells.method(b"server", b"/p.S/M");
        cells.sent(Hop::Outbound, id, CallKind::Streaming);
        cells.completed(Hop::Outbound, id, CallKind::Streaming, 14, Duration::ZERO);
        let text = text_of(&cells, &BTreeMap::new());
        assert!(!text.contains("res_recv"), "{text}");
        has(
            &text,
            "dapr_grpc_io_server_completed_rpcs{app_id=\"client\",\
             grpc_server_method=\"/p.S/M\",grpc_server_status=\"Unavailable\"} 1",
        );
        cells.received(Hop::Outbound, id, CallKind::Streaming, 14, Duration::ZERO);
        has(
            &text_of(&cells, &BTreeMap::new()),
            "dapr_runtime_service_invocation_res_recv_total{app_id=\"client\",\
             src_app_id=\"server\",status=\"14\",type=\"streaming\"} 1",
        );
    }

    #[test]
    fn tells_what_did_not_fit() {
        let mut cells = Cells::default();
        let long = [b'x'; LABEL_OCTETS_MAX + 1];
        let id = cells.method(b"server", &long);
        cells.completed(Hop::Outbound, id, CallKind::Unary, 0, Duration::ZERO);
        let caller = cells.callers.intern(&"x".repeat(long.len()), "", "");
        cells.callers.called(caller);
        cells.callers.called(caller);
        let target = cells.policies().target(&long);
        (0..3).for_each(|_| cells.policies().applied(target, Applied::Timeout));
        let text = text_of(&cells, &BTreeMap::new());
        for (of, count) in [
            ("methods", 1),
            ("callers", 2),
            ("targets", 3),
            ("http_paths", 0),
            ("probe_results", 0),
        ] {
            has(&text, &format!("ringside_label_sets_folded_total{{of=\"{of}\"}} {count}"));
        }
    }

    #[test]
    fn label_values_are_escaped() {
        let mut cells = Cells::default();
        let id = cells.method(b"a\"b\\c\nd\xff", b"/p.S/M");
        cells.sent(Hop::Outbound, id, CallKind::Unary);
        let text = text_of(&cells, &BTreeMap::new());
        assert!(text.contains("dst_app_id=\"a\\\"b\\\\c\\nd\u{fffd}\""), "{text}");
    }
}
