//! Fields stripped and added at each hop (spec 03 §3.5).
//!
//! 1. What is not named here passes untouched: order, repetition, `-bin` values, case.
//! 2. `strip` happens when a call arrives, `stamp` when its upstream stream opens: authority and
//!    remaining time are not known before.

use super::failure;
use super::head::class;
use super::tracer::Said;
use crate::config::Config;
use crate::grpc::timeout;
use crate::http2::FieldSection;
use crate::http2::field::{NameKind, PreparedField, PreparedName};
use crate::identity::AppId;
use crate::observe::trace::{Context, TraceParent};
use std::time::Duration;

/// What daprd's codec name makes of every content type on its way to a callee.
pub const CONTENT_TYPE: &[u8] = b"application/grpc+proto";

/// Of what a hop adds behind the caller's and callee's names, with a context and a time.
const ADDED_OCTETS: usize = 256;

/// Fields that many calls get, made once per configuration.
#[derive(Debug)]
pub struct Fixed {
    caller_app_id: PreparedField,
    /// What our app asks of us.
    app_token: Option<PreparedField>,
    te: PreparedField,
    timeout: PreparedName,
    traceparent: PreparedName,
    trace_bin: PreparedName,
    /// Content types: what callers say, and what every sidecar does.
    pub grpc: PreparedField,
    pub proto: PreparedField,
}

impl Fixed {
    pub fn new(config: &Config) -> Self {
        let token = config.app_token.as_ref();
        Self {
            caller_app_id: PreparedField::new(
                b"dapr-caller-app-id",
                config.app_id.as_str().as_bytes(),
            ),
            app_token: token.map(|it| PreparedField::new(b"dapr-api-token", it.as_bytes())),
            te: PreparedField::new(b"te", b"trailers"),
            timeout: PreparedName::new(b"grpc-timeout", class::TIMEOUT),
            traceparent: PreparedName::new(b"traceparent", class::TRACEPARENT),
            trace_bin: PreparedName::new(b"grpc-trace-bin", class::TRACE_BIN),
            grpc: content_type(failure::GRPC),
            proto: content_type(CONTENT_TYPE),
        }
    }
}

/// What the caller's `content-type` was; the answer repeats it (spec 03 §3.5).
#[derive(Clone, Debug)]
pub(super) enum ContentType {
    Grpc,
    /// What every sidecar sends.
    Proto,
    Other(Box<PreparedField>),
}

impl ContentType {
    pub(super) fn new(value: Option<&[u8]>) -> Self {
        match value {
            None => Self::Grpc,
            Some(value) if value == failure::GRPC => Self::Grpc,
            Some(value) if value == CONTENT_TYPE => Self::Proto,
            Some(other) => Self::Other(Box::new(content_type(other))),
        }
    }

    pub(super) fn field<'a>(&'a self, fixed: &'a Fixed) -> &'a PreparedField {
        match self {
            Self::Grpc => &fixed.grpc,
            Self::Proto => &fixed.proto,
            Self::Other(field) => field,
        }
    }
}

pub fn content_type(value: &[u8]) -> PreparedField {
    PreparedField::new(b"content-type", value)
}

/// What a callee's sidecar is told of whom the call is for.
pub fn callee_app_id(id: &AppId) -> PreparedField {
    PreparedField::new(b"dapr-callee-app-id", id.as_str().as_bytes())
}

/// `:authority` of every call on a connection.
pub fn authority(value: &str) -> PreparedField {
    PreparedField::new(b":authority", value.as_bytes())
}

/// Hop 1: from our app to another sidecar, to which `callee` names the target. `drop_token`: the
/// field named a token of ours. `forced`: on a forward port the port decides, whatever the client
/// says.
pub fn strip_outbound(
    fields: &mut FieldSection,
    fixed: &Fixed,
    callee: &PreparedField,
    drop_token: bool,
    forced: bool,
    span: Option<&Said>,
) {
    fields.retain_classes(|class| match class {
        class::TRACEPARENT => span.is_none_or(|span| span.in_place),
        class::TRACE_BIN => span.is_none(),
        class::APP_ID => false,
        class::CALLEE_APP_ID => !forced,
        class::API_TOKEN => !drop_token,
        _ => keep_always(class),
    });
    fields.push_prepared(&fixed.caller_app_id);
    fields.push_prepared(callee);
    push_constant(fields, fixed);
    if let Some(span) = span {
        push_trace(fields, fixed, span);
    }
}

/// Hop 2, and calls to one's own app ID: to the app.
pub fn strip_inbound(fields: &mut FieldSection, fixed: &Fixed, span: Option<&Said>) {
    let mut traced = false;
    fields.retain_classes(|class| match class {
        class::TRACEPARENT | class::TRACE_BIN => {
            traced = true;
            span.is_none_or(|span| span.in_place && class == class::TRACEPARENT)
        }
        class::APP_ID | class::API_TOKEN => false,
        _ => keep_always(class),
    });
    if let Some(token) = &fixed.app_token {
        fields.push_prepared(token);
    }
    push_constant(fields, fixed);
    match span {
        Some(span) => push_trace(fields, fixed, span),
        None if traced => keep_last_trace(fields),
        None => {}
    }
}

/// What every request has. What is another in each comes behind it, so that whoever reads the
/// block finds most of it as it was.
fn push_constant(fields: &mut FieldSection, fixed: &Fixed) {
    fields.expect(ADDED_OCTETS);
    fields.push_prepared(&fixed.proto);
    fields.push_prepared(&fixed.te);
}

/// What the callee is told of the span whose child it is.
pub(super) fn push_trace(fields: &mut FieldSection, fixed: &Fixed, said: &Said) {
    let context = said.context.octets();
    if said.in_place
        && let Some(value) = fields.value_mut(class::TRACEPARENT)
        && value.len() == context.len()
    {
        value.copy_from_slice(context);
    } else {
        push_context(fields, fixed, &said.context);
    }
    if said.binary {
        fields.push_named(&fixed.trace_bin, &said.context.context().binary());
    }
}

/// The last field is what the callee of an earlier call was told; now it is this.
#[inline]
pub(super) fn renew_trace(fields: &mut FieldSection, fixed: &Fixed, said: &Said) {
    if let Some(value) = fields.last_value_mut(class::TRACEPARENT)
        && let context = said.context.octets()
        && value.len() == context.len()
    {
        value.copy_from_slice(context);
        if said.binary {
            fields.push_named(&fixed.trace_bin, &said.context.context().binary());
        }
    } else {
        push_trace(fields, fixed, said);
    }
}

/// A context in its text form, where there is none.
pub(super) fn push_context(fields: &mut FieldSection, fixed: &Fixed, context: &TraceParent) {
    fields.push_named(&fixed.traceparent, context.octets());
}

/// Of each kind of trace context, the last that is one.
fn keep_last_trace(fields: &mut FieldSection) {
    let mut last_traceparent = None;
    let mut last_trace_bin = None;
    for (index, (class, value)) in fields.classed().enumerate() {
        match class {
            class::TRACEPARENT if !is_void_traceparent(value) => last_traceparent = Some(index),
            class::TRACE_BIN if !is_void_trace_bin(value) => last_trace_bin = Some(index),
            _ => {}
        }
    }
    let mut index = 0;
    fields.retain_classes(|class| {
        let at = Some(index);
        index += 1;
        match class {
            class::TRACEPARENT => at == last_traceparent,
            class::TRACE_BIN => at == last_trace_bin,
            _ => true,
        }
    });
}

/// Reserved by gRPC in requests, or made anew by [`stamp`].
fn keep_always(class: u8) -> bool {
    !matches!(
        class,
        class::HOST
            | class::TE
            | class::TIMEOUT
            | class::CONTENT_TYPE
            | class::GRPC_STATUS
            | class::GRPC_MESSAGE
            | class::GRPC_MESSAGE_TYPE
    )
}

/// The last touch before HEADERS leave: where to, and how long. Without the fields from the number
/// on that is returned, the section can be stamped again.
pub fn stamp(
    fields: &mut FieldSection,
    fixed: &Fixed,
    authority: &PreparedField,
    remaining: Option<Duration>,
) -> usize {
    if !fields.replace_kind(NameKind::Authority, authority)
        && !fields.replace(b":authority", authority.value())
    {
        // A request without `:authority` had a Host field or nothing: the callee wants one, and a
        // pseudo-header field may not come after the others.
        fields.push_prepared_front(authority);
    }
    let from = fields.len();
    if let Some(remaining) = remaining {
        let (text, len) = timeout::encode(remaining);
        fields.push_named(&fixed.timeout, &text[..len]);
    }
    from
}

/// A response head on its way back: the caller's own content type.
pub fn response(fields: &mut FieldSection, content_type: &PreparedField) {
    if !fields.replace_class(class::CONTENT_TYPE, content_type) {
        fields.push_prepared(content_type);
    }
}

/// daprd without a trace of its own sends zeros (spec 14); they are no context.
fn is_void_traceparent(value: &[u8]) -> bool {
    let mut parts = value.split(|b| *b == b'-').skip(1);
    let zeros = |part: Option<&[u8]>| part.is_none_or(|p| p.iter().all(|b| *b == b'0'));
    zeros(parts.next()) || zeros(parts.next())
}

/// The same in its binary form. What is no such thing is no context.
fn is_void_trace_bin(value: &[u8]) -> bool {
    !Context::from_binary(value).is_some_and(|context| context.is_valid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Target;
    use crate::proxy::tests::{config, section};
    use data_encoding::BASE64_NOPAD;

    fn text(section: &FieldSection) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        section.iter().map(|f| (text(f.name), text(f.value))).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn outbound_replaces_target_and_keeps_the_rest() {
        let config = config();
        let target = Target::parse("server.prod", &config.namespace).unwrap();
        let mut fields = section(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/a.B/C"),
            (":authority", "localhost:50007"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("grpc-timeout", "2S"),
            ("dapr-app-id", "server.prod"),
            ("x-a", "1"),
            ("x-a", "2"),
            ("blob-bin", "AAEC"),
            ("user-agent", "me/1"),
        ]);
        let fixed = Fixed::new(&config);
        strip_outbound(&mut fields, &fixed, &callee_app_id(&target.app_id), false, false, None);
        let remaining = Some(Duration::from_millis(5));
        stamp(&mut fields, &fixed, &authority("10.0.0.9:50002"), remaining);
        let expected = pairs(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/a.B/C"),
            (":authority", "10.0.0.9:50002"),
            ("x-a", "1"),
            ("x-a", "2"),
            ("blob-bin", "AAEC"),
            ("user-agent", "me/1"),
            ("dapr-caller-app-id", "client"),
            ("dapr-callee-app-id", "server"),
            ("content-type", "application/grpc+proto"),
            ("te", "trailers"),
            ("grpc-timeout", "5000000n"),
        ]);
        assert_eq!(text(&fields), expected);
    }

    #[test]
    fn inbound_replaces_tokens_and_leaves_one_trace() {
        let mut config = config();
        config.app_token = Some("apps".into());
        let real = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let void = "00-00000000000000000000000000000000-0000000000000000-00";
        let mut fields = section(&[
            ("dapr-app-id", "server"),
            ("dapr-api-token", "callers"),
            ("traceparent", real),
            ("traceparent", void),
            ("grpc-trace-bin", "AAAAAAAAAAAAAAAAAAAAAAAAAAABAAAAAAAAAAACAA"),
            ("dapr-caller-app-id", "client"),
        ]);
        strip_inbound(&mut fields, &Fixed::new(&config), None);
        let names: Vec<_> = text(&fields);
        assert!(names.contains(&("traceparent".into(), real.into())));
        assert!(!names.contains(&("traceparent".into(), void.into())));
        assert!(names.contains(&("dapr-api-token".into(), "apps".into())));
        assert!(!names.contains(&("dapr-api-token".into(), "callers".into())));
        assert!(!names.iter().any(|(name, _)| name == "dapr-app-id"));
        assert!(names.iter().any(|(name, _)| name == "dapr-caller-app-id"));
    }

    /// One context, whatever came, and it is ours.
    #[test]
    fn a_span_of_ours_replaces_all_others() {
        let fixed = Fixed::new(&config());
        let callee = callee_app_id(&AppId::new("server").unwrap());
        let ours = "00-4bf92f3577b34da6a3ce929d0e0e4736-1111111111111111-01";
        let context = Context::from_text(ours.as_bytes()).unwrap();
        let form = String::from_utf8(context.binary().to_vec()).unwrap();
        for (outbound, binary) in [(true, true), (false, true), (true, false), (false, false)] {
            let span = Said::root(context, binary);
            let mut fields = section(&[
                ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
                ("grpc-trace-bin", "AABL+S81d7NNpqPOkp0ODkc2AQDwZ6oLqQK3AgE"),
                ("traceparent", "what is this"),
                ("tracestate", "vendor=1"),
            ]);
            match outbound {
                true => strip_outbound(&mut fields, &fixed, &callee, false, false, Some(&span)),
                false => strip_inbound(&mut fields, &fixed, Some(&span)),
            }
            let mut left = text(&fields);
            left.retain(|(name, _)| name.contains("trace"));
            let told =
                [("tracestate", "vendor=1"), ("traceparent", ours), ("grpc-trace-bin", &form)];
            assert_eq!(left, pairs(&told[..2 + usize::from(binary)]));
        }
    }

    /// 29 octets: 00 00 <16 zeros> 01 <8 zeros> 02 00 (spec 10 §10.3).
    #[test]
    fn knows_a_void_binary_context() {
        let mut raw = [0u8; 29];
        raw[18] = 1;
        raw[27] = 2;
        let text = BASE64_NOPAD.encode(&raw);
        assert!(is_void_trace_bin(text.as_bytes()), "{text}");
        raw[5] = 7;
        raw[20] = 7;
        let text = BASE64_NOPAD.encode(&raw);
        assert!(!is_void_trace_bin(text.as_bytes()), "{text}");
    }

    /// Whatever the two ends agree on, known to us or not.
    #[test]
    fn compression_and_baggage_pass_both_hops() {
        let fixed = Fixed::new(&config());
        let kept = [
            ("grpc-encoding", "zstd"),
            ("grpc-accept-encoding", "zstd,gzip"),
            ("baggage", "not = w3c = at all"),
            ("grpc-previous-rpc-attempts", "1"),
        ];
        let mut fields = section(&kept);
        let callee = callee_app_id(&AppId::new("server").unwrap());
        strip_outbound(&mut fields, &fixed, &callee, false, false, None);
        strip_inbound(&mut fields, &fixed, None);
        assert_eq!(text(&fields)[..kept.len()], pairs(&kept));
    }

    /// Without a token of its own the sidecar does not know that the field is one.
    #[test]
    fn only_the_token_that_is_required_is_dropped() {
        let fixed = Fixed::new(&config());
        let callee = callee_app_id(&AppId::new("server").unwrap());
        for (required, left) in [(false, 1), (true, 0)] {
            let mut fields = section(&[("dapr-api-token", "s3cret")]);
            strip_outbound(&mut fields, &fixed, &callee, required, false, None);
            let tokens = fields.iter().filter(|field| field.name == b"dapr-api-token").count();
            assert_eq!(tokens, left);
        }
    }
}
