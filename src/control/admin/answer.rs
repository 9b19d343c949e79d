//! One HTTP request to its answer.
//!
//! 1. daprd's order: baggage, CORS, API token, route.
//! 2. A body is refused before it is read where its length says enough; all bodies in the making
//!    share [`BODIES_OCTETS_MAX`]; a body is whole after [`BODY_TIME_MAX`] or refused.
//!
//! Source: Dapr's `pkg/api/http/{server,middlewares,healthz,metadata,shutdown}.go`.

use super::called::Called;
use super::{Port, Surface, Tracer, cors, metadata, process, route, watch};
use crate::control::page;
use crate::control::state::{METADATA_OCTETS_MAX, MetadataError, State, seconds};
use crate::observe::exposition::{Exposition, render};
use crate::observe::http::{self, ErrorCode};
use crate::observe::names;
use crate::policy::token;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue,
};
use hyper::{Request, Response, StatusCode, Uri, Version};
use route::Route;
use serde::Serialize;
use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Octets of all bodies that one port reads at the same time.
const BODIES_OCTETS_MAX: usize = 2 * METADATA_OCTETS_MAX;
/// From the end of the head to the end of the body.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

const API_TOKEN: HeaderName = HeaderName::from_static("dapr-api-token");
const FORCE_SHUTDOWN: &str = "dapr-force-shutdown";
const JSON: &str = "application/json";
/// What Go's `http.Error` says.
const PLAIN: &str = "text/plain; charset=utf-8";
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Names and categories: Dapr's `pkg/messages/errorcodes`, but for the limit, which is ours.
const HEALTH_NOT_READY: ErrorCode = code("ERR_HEALTH_NOT_READY", "health");
const OUTBOUND_HEALTH_NOT_READY: ErrorCode = code("ERR_OUTBOUND_HEALTH_NOT_READY", "health");
const HEALTH_APPID_NOT_MATCH: ErrorCode = code("ERR_HEALTH_APPID_NOT_MATCH", "health");
const BODY_READ: ErrorCode = code("ERR_BODY_READ", "common");
const METADATA_LIMIT: ErrorCode = code("ERR_METADATA_LIMIT", "common");
const DIRECT_INVOKE: ErrorCode = code("ERR_DIRECT_INVOKE", "service-invocation");

const fn code(name: &'static str, category: &'static str) -> ErrorCode {
    ErrorCode { name, category }
}

type Answer = Response<Full<Bytes>>;

pub async fn answer(request: Request<Incoming>, client: Option<SocketAddr>, port: &Port) -> Answer {
    let Port { surface, state, tracer, budget, .. } = port;
    if let Err(why) = check(&request) {
        return refused(why);
    }
    let public = match surface {
        Surface::Metrics => return metrics(state).await,
        Surface::Page => {
            return match &state.options.page {
                Some(page) => page::answer(&request, page, state).await,
                None => plain(StatusCode::NOT_FOUND, "404 page not found\n"),
            };
        }
        Surface::Public => true,
        Surface::Api => false,
    };
    let traced = match tracer.begin(&request, client) {
        Ok(traced) => traced,
        Err(why) => return plain(StatusCode::BAD_REQUEST, &why),
    };
    let mut answer = told(request, public, state, budget).await;
    if let Some(traced) = traced {
        let span = Tracer::end(traced, &mut answer);
        span.into_iter().for_each(|span| tracer.export(span, &state.counters));
    }
    answer
}

/// The answer, counted as Dapr's series count it.
async fn told(request: Request<Incoming>, public: bool, state: &State, budget: &Budget) -> Answer {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let request_octets = length.and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let begun = Instant::now();
    let answer = match public {
        true => endpoint(request, true, state, budget).await,
        false => api(request, state, budget).await,
    };
    let seen = http::Request {
        method: method.as_str(),
        path: &route::unescape(&path, false).unwrap_or(path),
        status: answer.status().as_u16(),
        request_octets,
        response_octets: answer.body().size_hint().lower(),
        took: begun.elapsed(),
    };
    let mut cells = state.http.borrow_mut();
    cells.record(seen, &state.options.metrics.latency_bounds);
    if let Some(code) = answer.extensions().get() {
        cells.failed(*code);
    }
    answer
}

async fn api(request: Request<Incoming>, state: &State, budget: &Budget) -> Answer {
    let allowed = state.options.allowed_origins.as_str();
    let method = request.method().clone();
    if let Some(fields) = cors::preflight(&method, request.headers(), allowed) {
        let mut answer = empty(cors::PREFLIGHT_STATUS);
        answer.headers_mut().extend(fields);
        return answer;
    }
    // Only a browser's request needs its fields after the request is gone.
    let asked = if allowed.is_empty() { HeaderMap::new() } else { request.headers().clone() };
    let mut answer = if has_token(&request, state) {
        let called = Called::begin(&request, state.options.api_logging, &state.policies().apis);
        let answer = endpoint(request, false, state, budget).await;
        if let Some(called) = called {
            called.end(answer.status(), answer.body().size_hint().lower());
        }
        answer
    } else {
        plain(StatusCode::UNAUTHORIZED, "invalid api token\n")
    };
    cors::decorate(&method, &asked, allowed, answer.headers_mut());
    answer
}

fn has_token(request: &Request<Incoming>, state: &State) -> bool {
    let Some(expected) = &state.options.api_token else { return true };
    let given = request.headers().get(API_TOKEN).map_or(&[][..], HeaderValue::as_bytes);
    token::matches(expected, given) || route::without_token(request.method(), request.uri().path())
}

/// What Go's server refuses before any handler sees it, with its texts.
fn check(request: &Request<Incoming>) -> Result<(), &'static str> {
    if !route::is_escaped_well(request.uri().path()) {
        return Err("400 Bad Request");
    }
    // RFC 9112 §3.2; HTTP/2 has `:authority`.
    let hosts = request.headers().get_all(HOST).iter().count();
    if hosts > 1 {
        return Err("400 Bad Request: too many Host headers");
    }
    if hosts == 0 && request.version() == Version::HTTP_11 {
        return Err("400 Bad Request: missing required Host header");
    }
    Ok(())
}

async fn endpoint(
    request: Request<Incoming>,
    public: bool,
    state: &State,
    budget: &Budget,
) -> Answer {
    let policies = state.policies();
    match route::route(request.method(), request.uri().path(), public, &policies.apis) {
        Route::Healthz => healthz(request.uri(), state),
        Route::HealthzOutbound if state.outbound_ready() => empty(StatusCode::NO_CONTENT),
        Route::HealthzOutbound => failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            OUTBOUND_HEALTH_NOT_READY,
            "dapr outbound is not ready",
        ),
        Route::Metadata => typed(StatusCode::OK, JSON, metadata::render(state)),
        Route::PutMetadata(key) => put_metadata(key, request.into_body(), state, budget).await,
        Route::Shutdown => shutdown(request.headers(), state),
        Route::Invoke => invoke(request.headers(), request.uri().path()),
        Route::NotFound => plain(StatusCode::NOT_FOUND, "404 page not found\n"),
        Route::MethodNotAllowed => empty(StatusCode::METHOD_NOT_ALLOWED),
    }
}

fn healthz(uri: &Uri, state: &State) -> Answer {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    if let Some(missing) = state.missing() {
        let message = format!("dapr is not ready: [{}]", missing.join(" "));
        return failure(status, HEALTH_NOT_READY, &message);
    }
    let asked = uri.query().and_then(|query| {
        let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut ids = pairs.filter(|(name, _)| *name == "appid").map(|(_, id)| id);
        ids.next().map(|id| route::unescape(id, true).unwrap_or_default())
    });
    if asked.is_some_and(|id| id != state.options.app_id.as_str()) {
        return failure(status, HEALTH_APPID_NOT_MATCH, "dapr app-id does not match");
    }
    empty(StatusCode::NO_CONTENT)
}

async fn put_metadata(key: String, body: Incoming, state: &State, budget: &Budget) -> Answer {
    let limit = match usize::try_from(state.options.body_octets_max) {
        Ok(0) | Err(_) => METADATA_OCTETS_MAX,
        Ok(limit) => limit.min(METADATA_OCTETS_MAX),
    };
    let value = match budget.read(body, limit).await {
        Ok(value) => String::from_utf8_lossy(&value).into_owned(),
        Err(why) => {
            let message = format!("failed to read request body: {why}");
            return failure(StatusCode::BAD_REQUEST, BODY_READ, &message);
        }
    };
    let why = match state.set_metadata(key, value) {
        Ok(()) => return empty(StatusCode::NO_CONTENT),
        Err(MetadataError::TooManyKeys) => "too many metadata keys",
        Err(MetadataError::TooLarge) => "metadata too large",
    };
    failure(StatusCode::INSUFFICIENT_STORAGE, METADATA_LIMIT, why)
}

fn shutdown(headers: &HeaderMap, state: &State) -> Answer {
    let force = headers
        .get(FORCE_SHUTDOWN)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    state.shut_down_by_api(force);
    empty(StatusCode::NO_CONTENT)
}

fn invoke(headers: &HeaderMap, path: &str) -> Answer {
    let Some(invocation) = route::invoked(headers, path) else {
        return failure(
            StatusCode::NOT_FOUND,
            DIRECT_INVOKE,
            "failed getting app id either from the URL path or the header dapr-app-id",
        );
    };
    let id = &invocation.app_id;
    let message = format!(
        "failed to invoke, id: {id}, err: HTTP service invocation is not served by ringside; \
         call {id} with gRPC on the gRPC API port and metadata dapr-app-id"
    );
    let mut answer = failure(StatusCode::NOT_IMPLEMENTED, DIRECT_INVOKE, &message);
    answer.extensions_mut().insert(invocation);
    answer
}

async fn metrics(state: &State) -> Answer {
    let (cells, workers) = state.scrape().await;
    let counters = &state.counters;
    let (reloads, resiliency) = (state.reloads.borrow().clone(), state.resiliency());
    let mut numbers = vec![
        (names::LOG_DROPS, counters.log_drops.get()),
        (names::SPANS_EXPORTED, counters.spans_exported.get()),
        (names::SPANS_DROPPED, counters.spans_dropped.get()),
        (names::HTTP_CONNECTIONS, counters.http_connections.get()),
        (names::HTTP_REFUSED, counters.http_connections_refused.get()),
        (names::HTTP_CUT, counters.http_connections_cut.get()),
        (names::HTTP_REQUESTS, counters.http_requests.get()),
        (names::SCRAPES_INCOMPLETE, counters.scrapes_incomplete.get()),
        (names::LOOKUPS, counters.lookups.get()),
        (names::LOOKUPS_FAILED, counters.lookups_failed.get()),
        (names::LOOKUP_SUCCEEDED, counters.lookup_succeeded.get()),
        (names::RELOADS, reloads.readings),
        (names::RELOADS_FAILED, reloads.failures),
        (names::RELOAD_GOOD, u64::from(reloads.last_was_good())),
        (names::RELOAD_GOOD_AT, reloads.good_seconds()),
        (names::RESTART_PENDING, u64::from(reloads.restart_pending)),
    ];
    if let Some(identity) = state.identity() {
        numbers.push((names::CERTIFICATE_EXPIRY, seconds(identity.not_after)));
    }
    let body = render(&Exposition {
        app_id: state.options.app_id.as_str(),
        tells_daprs: state.options.metrics.enabled,
        latency_bounds: &state.options.metrics.latency_bounds,
        rules: &state.options.metrics.rules,
        http: &state.http.borrow(),
        cells: &cells,
        resiliency_loaded: &resiliency.right,
        resiliency_label: &resiliency.label,
        workers: &workers,
        rotation_failures: &counters.rotation_failures(),
        resolver_failure: counters.resolver_failure(),
        probes: &state.probes.borrow(),
        numbers: &numbers,
        process: process::process(),
    });
    typed(StatusCode::OK, EXPOSITION, body)
}

/// Octets that all bodies of a port hold.
#[derive(Debug)]
pub struct Budget {
    held: Cell<usize>,
}

/// A body's share, given back when dropped.
struct Share<'a> {
    budget: &'a Budget,
    octets: usize,
}

impl Budget {
    pub fn new() -> Self {
        Self { held: Cell::new(0) }
    }

    async fn read(&self, body: Incoming, limit: usize) -> Result<Vec<u8>, String> {
        // Go's text for a body beyond the limit.
        let too_large = || "stream too large".to_owned();
        if body.size_hint().lower() > limit as u64 {
            return Err(too_large());
        }
        let whole = watch::within(BODY_TIME_MAX, self.collect(body, limit)).await;
        match whole {
            Some(Ok(octets)) => octets.ok_or_else(too_large),
            Some(Err(error)) => Err(error),
            None => Err(format!("body not whole after {} s", BODY_TIME_MAX.as_secs())),
        }
    }

    async fn collect(&self, mut body: Incoming, limit: usize) -> Result<Option<Vec<u8>>, String> {
        let mut share = Share { budget: self, octets: 0 };
        let mut octets = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| error.to_string())?;
            let Some(data) = frame.data_ref() else { continue };
            if octets.len() + data.len() > limit {
                return Ok(None);
            }
            if !share.grow(data.len()) {
                return Err("too many request bodies at once".to_owned());
            }
            octets.extend_from_slice(data);
        }
        Ok(Some(octets))
    }
}

impl Share<'_> {
    fn grow(&mut self, octets: usize) -> bool {
        let held = self.budget.held.get() + octets;
        if held > BODIES_OCTETS_MAX {
            return false;
        }
        self.budget.held.set(held);
        self.octets += octets;
        true
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.held.set(self.budget.held.get() - self.octets);
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure<'a> {
    error_code: &'a str,
    message: &'a str,
}

fn failure(status: StatusCode, code: ErrorCode, message: &str) -> Answer {
    let body = metadata::json(&Failure { error_code: code.name, message });
    let mut answer = typed(status, JSON, body);
    answer.extensions_mut().insert(code);
    answer
}

fn plain(status: StatusCode, text: &str) -> Answer {
    let mut answer = typed(status, PLAIN, text.to_owned());
    let nosniff = HeaderValue::from_static("nosniff");
    answer.headers_mut().insert("x-content-type-options", nosniff);
    answer
}

fn refused(why: &'static str) -> Answer {
    let mut answer = typed(StatusCode::BAD_REQUEST, PLAIN, why.to_owned());
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = empty(status);
    *answer.body_mut() = Full::new(Bytes::from(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}
