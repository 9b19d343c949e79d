//! Calls as spans: whose child a call is, what its callee is told, what exporters are.
//!
//! 1. Where spans are made, each hop is one: its callee is told its own context and no other, as
//!    `traceparent` and, of sampled traces, as `grpc-trace-bin`; attempts of one call are told the
//!    same. Between ringsides what nobody records is left unsaid ([`super::unsaid`]).
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
use crate::observe::trace::{Context, Ids, Sampler, TEXT_OCTETS, TraceParent};
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
pub(super) enum Begun {
    /// Its callee is told of it.
    Said(Said),
    /// A trace that begins here, is not sampled, and of which only another sidecar would be told:
    /// it is if it must ([`super::unsaid`]). The half of the ID that is drawn already.
    Unsaid(u64),
}

#[derive(Debug)]
pub(super) struct Said {
    pub(super) context: TraceParent,
    /// The callee is told it in its binary form, too: whoever reads that form alone is told of
    /// traces that are sampled, and of those that were told so.
    pub(super) binary: bool,
    /// The request has one `traceparent`, as long as its callee's: that is what becomes of it.
    pub(super) in_place: bool,
    /// Of one that is sampled.
    parent: Option<[u8; 8]>,
}

impl Begun {
    pub(super) const fn said(&self) -> Option<&Said> {
        match self {
            Self::Said(said) => Some(said),
            Self::Unsaid(_) => None,
        }
    }

    pub(super) const fn unsaid(&self) -> Option<u64> {
        match self {
            Self::Said(_) => None,
            Self::Unsaid(drawn) => Some(*drawn),
        }
    }
}

/// Who may have a context for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    App,
    Sidecar,
    /// A sidecar whose calls without a context are of traces that are not sampled.
    Unsampled,
}

/// Whom we may have a context for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Callee {
    App,
    Sidecar,
}

impl Callee {
    /// What a call to it is to whoever makes a span of it.
    pub(super) const fn span_kind(self) -> SpanKind {
        match self {
            Self::App => SpanKind::Server,
            Self::Sidecar => SpanKind::Client,
        }
    }
}

#[cfg(test)]
impl Said {
    pub(super) fn root(context: Context, binary: bool) -> Self {
        Self { context: TraceParent::from(&context), binary, in_place: false, parent: None }
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

    /// What a callee is told after all of a trace that was left unsaid.
    pub(super) fn say(&mut self, drawn: u64) -> TraceParent {
        self.ids.root(drawn, false)
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
        from: Caller,
        to: Callee,
    ) -> Option<Begun> {
        let sampler = self.sampler?;
        let read = |text| TraceParent::read(text).filter(|_| !head.traces_repeat);
        Some(match (head.trace_bin, head.traceparent) {
            (None, None) => self.begin_trace(from, to, sampler),
            (None, Some(text)) => match read(text) {
                Some(parent) => Begun::Said(self.begin_child(parent)),
                None => Begun::Said(self.begin_rarely(head, fields, from, sampler)),
            },
            (Some(_), _) => Begun::Said(self.begin_rarely(head, fields, from, sampler)),
        })
    }

    /// The same, of a request that has no context.
    #[inline]
    pub(super) fn begin_alone(&mut self, from: Caller, to: Callee) -> Option<Begun> {
        let sampler = self.sampler?;
        Some(self.begin_trace(from, to, sampler))
    }

    #[inline(always)] // What it gives is large.
    fn begin_trace(&mut self, from: Caller, to: Callee, sampler: Sampler) -> Begun {
        let drawn = self.ids.draw();
        let sampled = from != Caller::Unsampled && sampler.takes_drawn(drawn);
        if to == Callee::Sidecar && !sampled {
            return Begun::Unsaid(drawn);
        }
        let context = self.ids.root(drawn, sampled);
        Begun::Said(Said { context, binary: sampled, in_place: false, parent: None })
    }

    #[inline]
    fn begin_child(&mut self, parent: &[u8; TEXT_OCTETS]) -> Said {
        let mut said =
            Said { context: self.ids.child(parent), binary: false, in_place: true, parent: None };
        if said.context.is_sampled() {
            said.binary = true;
            said.parent = Context::from_text(parent).map(|parent| parent.span_id);
        }
        said
    }

    /// Whose parent is not said as most say it.
    #[cold]
    fn begin_rarely(
        &mut self,
        head: &RequestHead<'_>,
        fields: &FieldSection,
        from: Caller,
        sampler: Sampler,
    ) -> Said {
        let parent = parent(head, fields, from);
        let context = self.ids.span(parent.as_ref(), sampler);
        let binary = head.trace_bin.is_some() || context.is_sampled();
        let parent = parent.map(|parent| parent.span_id).filter(|id| *id != [0; 8]);
        Said { context: TraceParent::from(&context), binary, in_place: false, parent }
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
        let said = begun.and_then(Begun::said);
        let said = said.filter(|said| self.exported && said.context.is_sampled())?;
        Some(recorded(said, fields, kind, now))
    }
}

/// The request's own words: each `dapr-` field's first value, but no token's.
#[cold]
fn recorded(said: &Said, fields: &FieldSection, kind: SpanKind, now: Instant) -> Box<Span> {
    let name = head::read_request(fields).path;
    let mut span = Span::new(said.context.context(), said.parent, kind, name, now);
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
        (listener, from): (Listener, Caller),
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
        if failure.http_status != 200 || failure.untold || !seen {
            return;
        }
        let kind = self.rejected_kind(&head, listener);
        let begun = self.tracer.begin(&head, fields, from, Callee::App);
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
pub(super) fn parent(
    head: &RequestHead<'_>,
    fields: &FieldSection,
    from: Caller,
) -> Option<Context> {
    match (from, head.trace_bin, head.traceparent) {
        (_, None, None) => None,
        (Caller::Sidecar | Caller::Unsampled, ..) if head.traces_repeat => last(fields),
        (Caller::Sidecar | Caller::Unsampled, binary, text) => {
            text.and_then(Context::from_text).or_else(|| binary.and_then(Context::from_binary))
        }
        (Caller::App, Some(binary), _) => Context::from_binary(binary),
        (Caller::App, None, Some(text)) => Context::from_text(text),
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

    fn parent_of(fields: &[(&str, &str)], from: Caller) -> Option<String> {
        let fields = section(fields);
        let parent = parent(&head::read_request(&fields), &fields, from)?;
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
            let found = parent_of(fields, Caller::App);
            assert_eq!(found.as_deref(), expected, "{fields:?}");
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
            for from in [Caller::Sidecar, Caller::Unsampled] {
                assert_eq!(parent_of(fields, from).as_deref(), expected, "{fields:?}");
            }
        }
    }
}
