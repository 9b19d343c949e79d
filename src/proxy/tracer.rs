//! Calls as spans: whose child a call is, what its callee is told, what exporters are.
//!
//! 1. Where spans are made, each hop is one: its callee is told its own context and no other, as
//!    `traceparent` and, of sampled traces, as `grpc-trace-bin`; attempts of one call are told the
//!    same.
//! 2. A call that is not sampled costs a field and allocates nothing; one that is, is recorded if
//!    somebody exports it.
//! 3. Spans that are over leave together, [`SPANS_MAX`] at most or after [`SPANS_TIME_MAX`].
//! 4. Tokens are in no span.
//!
//! Source: Dapr's `pkg/diagnostics/grpc_tracing.go`, whose callee side tells its app nothing
//! (docs/parity.md).

use super::call::Call;
use super::contract::{Listener, Output};
use super::failure::Failure;
use super::head::{self, RequestHead, class};
use super::{Proxy, Reminder};
use crate::config::Tracing;
use crate::grpc::Code;
use crate::http2::FieldSection;
use crate::observe::span::{Span, SpanKind};
use crate::observe::trace::{Context, Ids, Sampler};
use std::time::{Duration, Instant};

/// Spans that wait to leave together.
const SPANS_MAX: usize = 128;
const SPANS_TIME_MAX: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Tracer {
    /// `None`: contexts pass.
    sampler: Option<Sampler>,
    /// Somebody wants the spans that are sampled.
    exported: bool,
    ids: Ids,
    over: Vec<Span>,
    reminded: bool,
}

/// The span that a call is.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) context: Context,
    /// The callee is told it in its binary form, too: whoever reads that form alone is told of
    /// traces that are sampled, and of those that were told so.
    pub(super) binary: bool,
    parent: Option<[u8; 8]>,
}

#[cfg(test)]
impl Begun {
    pub(super) fn root(context: Context, binary: bool) -> Self {
        Self { context, binary, parent: None }
    }
}

impl Tracer {
    pub(super) fn new(tracing: Tracing) -> Self {
        let (sampler, exported) = match tracing {
            Tracing::Off | Tracing::Passed => (None, false),
            Tracing::Sampled { rate, exported } => (Some(Sampler::new(rate)), exported),
        };
        Self { sampler, exported, ids: Ids::new([0; 2]), over: Vec::new(), reminded: false }
    }

    pub(super) fn seed(&mut self, seed: [u64; 2]) {
        self.ids = Ids::new(seed);
    }

    /// `None`: no spans are made.
    #[inline]
    pub(super) fn begin(
        &mut self,
        head: &RequestHead<'_>,
        fields: &FieldSection,
        listener: Listener,
    ) -> Option<Begun> {
        let sampler = self.sampler?;
        let parent = parent(head, fields, listener);
        let context = self.ids.span(parent.as_ref(), sampler);
        let binary = head.trace_bin.is_some() || context.is_sampled();
        let parent = parent.map(|parent| parent.span_id).filter(|id| *id != [0; 8]);
        Some(Begun { context, binary, parent })
    }

    /// What is kept of it until the call ends, if it is exported.
    #[inline]
    pub(super) fn record(
        &self,
        begun: Option<&Begun>,
        fields: &FieldSection,
        kind: SpanKind,
        now: Instant,
    ) -> Option<Box<Span>> {
        let begun = begun.filter(|begun| self.exported && begun.context.is_sampled())?;
        Some(recorded(begun, fields, kind, now))
    }
}

/// The request's own words: each `dapr-` field's first value, but no token's.
#[cold]
fn recorded(begun: &Begun, fields: &FieldSection, kind: SpanKind, now: Instant) -> Box<Span> {
    let name = head::read_request(fields).path;
    let mut span = Span::new(begun.context, begun.parent, kind, name, now);
    for field in fields.iter() {
        let shown = field.name.starts_with(b"dapr-") && !field.name.ends_with(b"-bin");
        let known = |span: &Span| span.attributes.iter().any(|(n, _)| n.as_bytes() == field.name);
        if shown && field.class != class::API_TOKEN && !known(&span) {
            span.push(field.name, field.value);
        }
    }
    Box::new(span)
}

impl Call {
    /// Its callee says why it failed.
    #[inline]
    pub(super) fn trace_status(&mut self, status: u8, fields: &FieldSection) {
        if let Some(span) = &mut self.span
            && status != Code::Ok as u8
        {
            span.fail(&head::message(fields));
        }
    }
}

impl Proxy {
    /// A request that never became a call, if daprd's interceptor would have seen it: what is no
    /// gRPC, no method, without token or target is refused before.
    #[cold]
    pub(super) fn trace_rejected(
        &mut self,
        fields: &FieldSection,
        listener: Listener,
        failure: &Failure,
        now: Instant,
    ) {
        let head = head::read_request(fields);
        let seen = match failure.code {
            Code::PermissionDenied
            | Code::InvalidArgument
            | Code::ResourceExhausted
            | Code::Unavailable => true,
            Code::Unknown => head.app_id.or(head.callee_app_id).is_some(),
            _ => false,
        };
        if failure.http_status != 200 || !seen {
            return;
        }
        let kind = self.rejected_kind(&head, listener);
        let begun = self.tracer.begin(&head, fields, listener);
        if let Some(mut span) = self.tracer.record(begun.as_ref(), fields, kind, now) {
            span.fail(&failure.message);
            self.end_span(*span, failure.code as u8, now);
        }
    }

    fn rejected_kind(&self, head: &RequestHead<'_>, listener: Listener) -> SpanKind {
        let own = self.snapshot.config.app_id.as_str().as_bytes();
        let to_own = head.callee_app_id.or(head.app_id) == Some(own);
        match listener {
            Listener::Internal => SpanKind::Server,
            Listener::Api | Listener::Forward(_) if to_own => SpanKind::Server,
            Listener::Api | Listener::Forward(_) => SpanKind::Client,
        }
    }

    /// The call is over.
    #[cold]
    pub(super) fn end_span(&mut self, mut span: Span, status: u8, now: Instant) {
        if status != Code::Ok as u8 && span.error.is_none() {
            // Nobody said so but the caller, by leaving.
            span.fail(match status == Code::DeadlineExceeded as u8 {
                true => "context deadline exceeded",
                false => "context canceled",
            });
        }
        span.ended = now;
        self.tracer.over.push(span);
        if self.tracer.over.len() >= SPANS_MAX {
            self.hand_spans_over();
        } else if !std::mem::replace(&mut self.tracer.reminded, true) {
            self.remind(now + SPANS_TIME_MAX, Reminder::Spans);
        }
    }

    pub(super) fn spans_due(&mut self) {
        self.tracer.reminded = false;
        self.hand_spans_over();
    }

    pub(super) fn hand_spans_over(&mut self) {
        if !self.tracer.over.is_empty() {
            let spans = std::mem::take(&mut self.tracer.over);
            self.outputs.push_back(Output::Spans(spans));
        }
    }
}

/// Whose child it is. Of an app's own fields the first counts, and the binary one before the text,
/// as in daprd. Other sidecars add theirs behind those that came, so that the last one counts.
fn parent(head: &RequestHead<'_>, fields: &FieldSection, listener: Listener) -> Option<Context> {
    match (listener, head.trace_bin, head.traceparent) {
        (_, None, None) => None,
        (Listener::Internal, ..) if head.traces_repeat => last(fields),
        (Listener::Internal, binary, text) => {
            text.and_then(Context::from_text).or_else(|| binary.and_then(Context::from_binary))
        }
        (Listener::Api | Listener::Forward(_), Some(binary), _) => Context::from_binary(binary),
        (Listener::Api | Listener::Forward(_), None, Some(text)) => Context::from_text(text),
    }
}

#[cold]
fn last(fields: &FieldSection) -> Option<Context> {
    let of = |wanted| move |(class, _): &(u8, &[u8])| *class == wanted;
    let texts = fields.classed().filter(of(class::TRACEPARENT));
    let text = texts.filter_map(|(_, value)| Context::from_text(value)).last();
    text.or_else(|| {
        let binary = fields.classed().filter(of(class::TRACE_BIN));
        binary.filter_map(|(_, value)| Context::from_binary(value)).last()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tests::section;

    const CALLERS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const SIDECARS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-1111111111111111-01";
    const VOID: &str = "00-00000000000000000000000000000000-0000000000000000-00";

    fn binary(text: &str) -> String {
        let context = Context::from_text(text.as_bytes()).unwrap();
        String::from_utf8(context.binary().to_vec()).unwrap()
    }

    fn parent_of(fields: &[(&str, &str)], listener: Listener) -> Option<String> {
        let fields = section(fields);
        let parent = parent(&head::read_request(&fields), &fields, listener)?;
        Some(String::from_utf8(parent.text().to_vec()).unwrap())
    }

    #[test]
    fn an_apps_first_binary_context_counts() {
        let (callers, sidecars) = (binary(CALLERS), binary(SIDECARS));
        for (fields, expected) in [
            (&[][..], None),
            (&[("traceparent", CALLERS), ("traceparent", SIDECARS)], Some(CALLERS)),
            (&[("traceparent", "nonsense"), ("traceparent", SIDECARS)], None),
            (&[("traceparent", CALLERS), ("grpc-trace-bin", &sidecars)], Some(SIDECARS)),
            (&[("grpc-trace-bin", &callers), ("grpc-trace-bin", &sidecars)], Some(CALLERS)),
            // daprd does not fall back either.
            (&[("grpc-trace-bin", "AAAA"), ("traceparent", CALLERS)], None),
        ] {
            for listener in [Listener::Api, Listener::Forward(0)] {
                assert_eq!(parent_of(fields, listener).as_deref(), expected, "{fields:?}");
            }
        }
    }

    #[test]
    fn a_sidecars_last_context_counts() {
        let (callers, sidecars) = (binary(CALLERS), binary(SIDECARS));
        for (fields, expected) in [
            (&[][..], None),
            (&[("traceparent", CALLERS), ("traceparent", SIDECARS)], Some(SIDECARS)),
            (&[("traceparent", CALLERS), ("traceparent", VOID)], Some(CALLERS)),
            (&[("grpc-trace-bin", &callers), ("traceparent", SIDECARS)], Some(SIDECARS)),
            (&[("grpc-trace-bin", &callers), ("grpc-trace-bin", &sidecars)], Some(SIDECARS)),
            (&[("traceparent", VOID), ("grpc-trace-bin", &callers)], Some(CALLERS)),
        ] {
            let found = parent_of(fields, Listener::Internal);
            assert_eq!(found.as_deref(), expected, "{fields:?}");
        }
    }
}
