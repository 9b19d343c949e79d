//! Requests to the HTTP API as spans, and what their answers tell of them.
//!
//! 1. What asks for health is neither a span nor told of one.
//! 2. `baggage` must be some; it comes back as it was.
//! 3. No token is in any span.
//!
//! Source: Dapr's `pkg/diagnostics/http_tracing.go`.

use super::route::{self, Invocation};
use crate::config::Tracing;
use crate::control::spans::Spans;
use crate::control::state::Counters;
use crate::observe::span::{Span, SpanKind};
use crate::observe::trace::{Context, Ids, Sampler};
use crate::observe::tracestate;
use crate::policy::baggage;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, Version};
use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::time::Instant;

const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const API_TOKEN: &str = "dapr-api-token";
const APP_ID: &str = "dapr-app-id";

/// Makes spans of requests.
#[derive(Debug)]
pub struct Tracer {
    tracing: Tracing,
    ids: RefCell<Ids>,
    spans: Rc<Spans>,
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(super) struct Traced {
    /// `None`: there is nothing to tell.
    context: Option<Context>,
    state: Option<String>,
    baggage: Option<HeaderValue>,
    span: Option<Box<Span>>,
}

impl Tracer {
    pub fn new(tracing: Tracing, spans: Rc<Spans>) -> Self {
        let random = RandomState::new();
        let ids = RefCell::new(Ids::new([0, 1].map(|number| random.hash_one(number))));
        Self { tracing, ids, spans }
    }

    /// `None`: it is not traced. The error is a line about its baggage.
    pub(super) fn begin<T>(
        &self,
        request: &Request<T>,
        client: Option<SocketAddr>,
    ) -> Result<Option<Traced>, String> {
        let path = request.uri().path();
        let path = route::unescape(path, false).unwrap_or_else(|_| path.to_owned());
        if self.tracing == Tracing::Off || path.contains("/healthz") {
            return Ok(None);
        }
        let headers = request.headers();
        let baggage = baggage(headers)?;
        let text = |name| headers.get(name).map(HeaderValue::as_bytes);
        let parent = text(TRACEPARENT).and_then(Context::from_text);
        let state = parent.and_then(|_| text(TRACESTATE)).and_then(tracestate::parse);
        let (context, exported) = match self.tracing {
            Tracing::Off | Tracing::Passed => (parent, false),
            Tracing::Sampled { rate, exported } => {
                let context = self.ids.borrow_mut().span(parent.as_ref(), Sampler::new(rate));
                (Some(context), exported && context.is_sampled())
            }
        };
        let span = context.filter(|_| exported).map(|context| {
            let begun = Instant::now().into_std();
            let parent = parent.map(|parent| parent.span_id);
            let mut span = Span::new(context, parent, SpanKind::Client, path.as_bytes(), begun);
            state.iter().for_each(|state| span.carry(state));
            describe(&mut span, request, &path, client);
            Box::new(span)
        });
        Ok(Some(Traced { context, state, baggage, span }))
    }

    /// What it is answered is known; gives back what is to be exported.
    pub(super) fn end<T>(traced: Traced, answer: &mut Response<T>) -> Option<Span> {
        let Traced { context, state, baggage, span } = traced;
        let status = answer.status();
        let span = span.map(|mut span| {
            if let Some(Invocation { app_id, method }) = answer.extensions_mut().remove() {
                span.rename(&format!("CallLocal/{app_id}/{method}"));
                // It is no field of the call any more.
                span.attributes.retain(|(name, _)| name != APP_ID);
                span.push(b"rpc.service", b"ServiceInvocation");
                span.push(b"net.peer.name", app_id.as_bytes());
            }
            span.push(b"dapr.status_code", status.as_str().as_bytes());
            if status.as_u16() >= 400 {
                let reason = status.canonical_reason().unwrap_or("Unknown");
                span.fail(&format!("Code({}): {reason}", status.as_str()));
            }
            span.ended = Instant::now().into_std();
            *span
        });
        let mut tell = |name, value: &[u8]| {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                answer.headers_mut().insert(name, value);
            }
        };
        if let Some(context) = context {
            tell(TRACEPARENT, &context.text());
        }
        if let Some(state) = state.filter(|state| state.len() <= tracestate::SENT_OCTETS_MAX) {
            tell(TRACESTATE, state.as_bytes());
        }
        if let Some(baggage) = baggage {
            answer.headers_mut().insert(BAGGAGE, baggage);
        }
        span
    }

    pub(super) fn export(&self, span: Span, counters: &Counters) {
        self.spans.take(vec![span], 0, counters);
    }
}

/// All of it as one, if there is any.
fn baggage(headers: &HeaderMap) -> Result<Option<HeaderValue>, String> {
    let values: Vec<_> = headers.get_all(BAGGAGE).iter().map(HeaderValue::as_bytes).collect();
    let value = values.join(&b',');
    baggage::parse(&value).map_err(|why| format!("invalid baggage header: {why}\n"))?;
    Ok(HeaderValue::from_bytes(&value).ok().filter(|value| !value.is_empty()))
}

/// The last of each `dapr-` header, and what daprd calls the rest. The server of which it speaks is
/// the client.
fn describe<T>(span: &mut Span, request: &Request<T>, path: &str, client: Option<SocketAddr>) {
    let headers = request.headers();
    for name in headers.keys().filter(|name| name.as_str().starts_with("dapr-")) {
        let last = headers.get_all(name).iter().next_back();
        if let Some(value) = last.filter(|_| name != API_TOKEN) {
            span.push(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    let method = request.method().as_str();
    span.push(b"dapr.protocol", b"http");
    span.push(b"dapr.api", format!("{method} {path}").as_bytes());
    span.push(b"http.request.method", method.as_bytes());
    // As it came: HTTP/2 has its pieces apart.
    let uri = request.uri();
    let target = match (request.version(), uri.path_and_query()) {
        (Version::HTTP_2, Some(target)) => target.to_string(),
        (..) => uri.to_string(),
    };
    span.push(b"url.full", target.as_bytes());
    if let Some(client) = client {
        span.push(b"server.address", client.ip().to_string().as_bytes());
        span.push(b"server.port", client.port().to_string().as_bytes());
    }
}
