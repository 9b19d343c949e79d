//! OTLP's messages, written by hand from their field numbers (`collector/trace/v1`, `trace/v1`,
//! `resource/v1`, `common/v1` of opentelemetry-proto 1.x). What is never sent is left out.

use crate::control::spans::{Finished, SCOPE, since_epoch};
use crate::observe::span::SpanKind;
use prost::Message;
use std::rc::Rc;
use std::time::SystemTime;

/// What daprd says that its names follow.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.25.0";

/// `SpanFlags`: that the next bit says something, and that the parent is in another process.
const PARENT_IS_KNOWN: u32 = 0x100;
const PARENT_IS_REMOTE: u32 = 0x200;

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportTraceServiceRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportTraceServiceResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

/// `ExportTracePartialSuccess`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected_spans: i64,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<InstrumentationScope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct InstrumentationScope {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(enumeration = "Kind", tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

/// `SpanKind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
enum Kind {
    Unspecified = 0,
    Server = 2,
    Client = 3,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(enumeration = "StatusCode", tag = "3")]
    code: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
enum StatusCode {
    Unset = 0,
    Error = 2,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

/// A text is the only one of its kinds that is sent.
#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, optional, tag = "1")]
    string_value: Option<String>,
}

impl ExportTraceServiceRequest {
    pub(super) fn new(batch: &[Rc<Finished>], resource: &[(String, String)]) -> Self {
        let scope = Some(InstrumentationScope { name: SCOPE.to_owned() });
        let spans = batch.iter().map(|span| Span::new(span)).collect();
        let resource_spans = vec![ResourceSpans {
            resource: Some(Resource { attributes: attributes(resource) }),
            scope_spans: vec![ScopeSpans { scope, spans }],
            schema_url: SCHEMA.to_owned(),
        }];
        Self { resource_spans }
    }
}

impl Span {
    fn new(Finished { span, begun, ended }: &Finished) -> Self {
        let kind = match span.kind {
            SpanKind::Server => Kind::Server,
            SpanKind::Client => Kind::Client,
        };
        let status = match &span.error {
            Some(error) => Status { message: error.clone(), code: StatusCode::Error.into() },
            None => Status { message: String::new(), code: StatusCode::Unset.into() },
        };
        Self {
            trace_id: span.context.trace_id.to_vec(),
            span_id: span.context.span_id.to_vec(),
            trace_state: span.state.clone().unwrap_or_default(),
            parent_span_id: span.parent.map(|id| id.to_vec()).unwrap_or_default(),
            name: span.name.clone(),
            kind: kind.into(),
            start_time_unix_nano: nanos(*begun),
            end_time_unix_nano: nanos(*ended),
            attributes: attributes(&span.attributes),
            status: Some(status),
            // A parent of a call is always elsewhere, and daprd says so where there is none, too.
            flags: u32::from(span.context.flags) | PARENT_IS_KNOWN | PARENT_IS_REMOTE,
        }
    }
}

fn attributes(pairs: &[(String, String)]) -> Vec<KeyValue> {
    let pair = |(name, value): &(String, String)| KeyValue {
        key: name.clone(),
        value: Some(AnyValue { string_value: Some(value.clone()) }),
    };
    pairs.iter().map(pair).collect()
}

fn nanos(time: SystemTime) -> u64 {
    u64::try_from(since_epoch(time).as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::spans::tests::finished;

    /// Key = number << 3 | wire type (0: varint, 1: 64 bits, 2: length-delimited, 5: 32 bits).
    #[test]
    fn fields_have_their_numbers() {
        let mut wire = Vec::new();
        wire.extend(b"\x0a\x10\x4b\xf9\x2f\x35\x77\xb3\x4d\xa6\xa3\xce\x92\x9d\x0e\x0e\x47\x36");
        wire.extend(b"\x12\x08\x00\xf0\x67\xaa\x0b\xa9\x02\xb7");
        wire.extend(b"\x22\x08\x11\x11\x11\x11\x11\x11\x11\x11");
        wire.extend(b"\x2a\x06/a.B/C\x30\x03");
        wire.push(0x39);
        wire.extend(1_700_000_000_123_456_789_u64.to_le_bytes());
        wire.push(0x41);
        wire.extend(1_700_000_000_125_456_789_u64.to_le_bytes());
        wire.extend(b"\x4a\x17\x0a\x0bdapr-app-id\x12\x08\x0a\x06server");
        wire.extend(b"\x7a\x0b\x12\x07not now\x18\x02");
        wire.extend(b"\x85\x01\x01\x03\x00\x00");
        assert_eq!(Span::new(&finished()).encode_to_vec(), wire);

        let mut span = finished();
        span.span.carry("a=b");
        let carries = [&wire[..28], b"\x1a\x03a=b", &wire[28..]].concat();
        assert_eq!(Span::new(&span).encode_to_vec(), carries);
        (span.span.error, span.span.parent, span.span.state) = (None, None, None);
        let resource = [("service.name".to_owned(), "c".to_owned())];
        let batch = [Rc::new(span)];
        let request = ExportTraceServiceRequest::new(&batch, &resource).encode_to_vec();
        let nested = |number: u8, message: &[u8]| {
            [&[number << 3 | 2, message.len() as u8][..], message].concat()
        };
        let span = Span::new(&batch[0]).encode_to_vec();
        assert!(span.windows(2).any(|pair| pair == b"\x7a\x00"), "a status that says nothing");
        let resource = nested(1, b"\x0a\x13\x0a\x0cservice.name\x12\x03\x0a\x01c");
        let mut spans = nested(1, b"\x0a\x10dapr-diagnostics");
        spans.extend(nested(2, &span));
        let spans = nested(2, &spans);
        let schema = nested(3, SCHEMA.as_bytes());
        let inner = [resource, spans, schema].concat();
        let length = [0x80 | inner.len() as u8 & 0x7f, (inner.len() >> 7) as u8];
        assert_eq!(request, [&[0x0a], &length[..], &inner].concat());

        let wire = b"\x0a\x0b\x08\x03\x12\x07too old";
        let response = ExportTraceServiceResponse::decode(wire.as_slice()).unwrap();
        let partial = response.partial_success.unwrap();
        assert_eq!((partial.rejected_spans, partial.error_message.as_str()), (3, "too old"));
    }
}
