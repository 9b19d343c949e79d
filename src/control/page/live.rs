//! `/live.json`: the figures of this moment, counted from the start.

use crate::control::breakers;
use crate::control::state::State;
use crate::observe::cells::{Cells, Gauge, Hop, MethodCells};
use crate::observe::exposition::WorkerFigures;
use crate::observe::histogram::MICROS_BOUNDS;
use crate::observe::names::STATUS_NAMES;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Methods that are told, those with the most calls.
const METHODS_MAX: usize = 100;

pub async fn render(state: &State) -> String {
    let (cells, workers) = state.scrape().await;
    let options = &state.options;
    let (now, instant) = (now(), Instant::now().into_std());
    let resiliency = state.resiliency();
    json!({
        "at": millis(now),
        "started": millis(state.started),
        "uptimeSeconds": now.duration_since(state.started).unwrap_or_default().as_secs(),
        "appId": options.app_id.as_str(),
        "namespace": options.namespace.as_str(),
        "version": options.version,
        "build": env!("CARGO_PKG_VERSION"),
        "notReady": state.missing().unwrap_or_default(),
        "app": app(state),
        "workers": workers.iter().map(worker).collect::<Vec<_>>(),
        "gauges": gauges(&cells),
        "hops": { "inbound": hop(&cells, Hop::Inbound), "outbound": hop(&cells, Hop::Outbound) },
        "callers": callers(&cells),
        "callees": callees(&cells),
        "methods": methods(&cells, options.app_id.as_str()),
        "limits": limits(&cells),
        "breakers": breakers::told(resiliency.targets.as_deref(), &cells, instant),
        "policies": policies(state),
        "identity": state.identity().map(|identity| json!({
            "spiffeId": identity.spiffe_id.as_str(),
            "notAfter": millis(identity.not_after),
        })),
    })
    .to_string()
}

fn app(state: &State) -> Value {
    let address = state.options.app.as_ref().map(crate::config::App::authority);
    json!({ "address": address, "healthy": state.app_is_well() })
}

fn worker(figures: &WorkerFigures) -> Value {
    json!({
        "answered": figures.answered,
        "busySeconds": figures.busy_seconds,
        "connections": figures.downstream_connections,
        "streams": figures.streams,
    })
}

fn gauges(cells: &Cells) -> Value {
    json!({
        "downstreamConnections": cells.gauge(Gauge::DownstreamConnections),
        "upstreamConnections": cells.gauge(Gauge::UpstreamConnections),
        "openCalls": cells.gauge(Gauge::OpenCalls),
        "waitingCalls": cells.gauge(Gauge::WaitingCalls),
    })
}

fn hop(cells: &Cells, hop: Hop) -> Value {
    let cells = cells.hop(hop);
    let named = STATUS_NAMES.iter().zip(cells.calls).filter(|(_, count)| *count > 0);
    let calls: Map<String, Value> =
        named.map(|(name, count)| ((*name).to_owned(), count.into())).collect();
    let (bounds, counts): (Vec<u64>, Vec<u64>) =
        cells.latency_us.cumulative(&MICROS_BOUNDS).unzip();
    let count = cells.latency_us.count();
    json!({
        "calls": calls,
        "latencyUs": { "bounds": bounds, "counts": counts, "count": count },
    })
}

fn callers(cells: &Cells) -> Value {
    let told = cells.callers.calls().map(|([app_id, namespace, trust_domain], calls)| {
        json!({
            "appId": &**app_id,
            "namespace": &**namespace,
            "trustDomain": &**trust_domain,
            "calls": calls.begun,
            "failed": calls.failed,
        })
    });
    told.collect()
}

/// Attempts, since retries count as what they are.
fn callees(cells: &Cells) -> Value {
    let mut by_app: BTreeMap<&[u8], (u64, u64)> = BTreeMap::new();
    for (dst_app_id, _, method) in cells.methods() {
        let sent: u64 = method.sent.iter().sum();
        if sent > 0 {
            let (calls, failed) = by_app.entry(dst_app_id).or_default();
            *calls += sent;
            *failed += failures(method);
        }
    }
    let told = by_app.into_iter().map(|(app_id, (calls, failed))| {
        json!({ "appId": String::from_utf8_lossy(app_id), "calls": calls, "failed": failed })
    });
    told.collect()
}

fn failures(method: &MethodCells) -> u64 {
    let received = method.received.iter().filter(|(status, _)| *status != 0);
    let stood = method.handshakes_failed.iter().map(|(_, count)| count);
    received.map(|(_, outcomes)| outcomes.count).sum::<u64>() + stood.sum::<u64>()
}

fn methods(cells: &Cells, own: &str) -> Value {
    let mut told: Vec<(u64, Value)> = Vec::new();
    for (dst_app_id, path, method) in cells.methods() {
        let peer = String::from_utf8_lossy(dst_app_id);
        let name = String::from_utf8_lossy(path);
        let count = |failed: bool| {
            let ended = method.completed.iter().filter(|(status, _)| !failed || *status != 0);
            ended.map(|(_, outcomes)| outcomes.count).sum::<u64>()
        };
        let (calls, failed) = match method.sent.iter().sum() {
            0 => (count(false), count(true)),
            sent => (sent, failures(method)),
        };
        if calls > 0 {
            let peer = if peer.is_empty() || peer == own { "our app".into() } else { peer };
            let entry = json!({ "peer": peer, "method": name, "calls": calls, "failed": failed });
            told.push((calls, entry));
        }
    }
    told.sort_by_key(|(calls, _)| std::cmp::Reverse(*calls));
    told.into_iter().take(METHODS_MAX).map(|(_, entry)| entry).collect()
}

fn limits(cells: &Cells) -> Value {
    let mut limits = cells.limits().to_vec();
    limits.sort_unstable();
    limits.into_iter().map(|(limit, hits)| json!({ "limit": limit, "hits": hits })).collect()
}

fn policies(state: &State) -> Value {
    let policies = state.policies();
    let (grpc, http) = policies.apis.restricts();
    let reloads = state.reloads.borrow();
    json!({
        "accessControl": policies.access_summary(),
        "resiliency": state.resiliency().names,
        "apisRestricted": grpc || http,
        "apiToken": state.options.api_token.is_some(),
        "features": state.features(),
        "reloadGood": reloads.is_good(),
        "restartPending": reloads.restart_pending,
    })
}

fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[allow(clippy::disallowed_methods, reason = "viewers compare with their own clock")]
fn now() -> SystemTime {
    SystemTime::now()
}
