//! From a field section to what routing wants to know.
//!
//! 1. One pass over the fields, by class: names were sorted when they entered the decoder's table.
//! 2. The first value of a repeated name counts, as in daprd.

use super::{rewrite, undelivered};
use crate::grpc::status::decode_message;
use crate::http2::FieldSection;
use crate::http2::field::VOLATILE;

/// Classes that the connections of a proxy give to names (see `http2::Classify`).
pub mod class {
    use super::VOLATILE;

    pub const METHOD: u8 = 1;
    pub const PATH: u8 = 2;
    pub const STATUS: u8 = 3;
    pub const CONTENT_TYPE: u8 = 4;
    pub const TE: u8 = 5;
    pub const HOST: u8 = 6;
    pub const TIMEOUT: u8 = 7 | VOLATILE;
    pub const APP_ID: u8 = 8;
    pub const CALLEE_APP_ID: u8 = 9;
    pub const API_TOKEN: u8 = 10;
    pub const STREAM: u8 = 11;
    pub const TRACEPARENT: u8 = 12 | VOLATILE;
    pub const TRACE_BIN: u8 = 13 | VOLATILE;
    pub const GRPC_STATUS: u8 = 14;
    pub const GRPC_MESSAGE: u8 = 15 | VOLATILE;
    pub const GRPC_MESSAGE_TYPE: u8 = 16;
    pub const CONTENT_LENGTH: u8 = 17 | VOLATILE;
    pub const UNDELIVERED: u8 = 18;
    pub const BAGGAGE: u8 = 19;
}

/// The `Classify` of every connection of a proxy.
pub fn classify(name: &[u8]) -> u8 {
    match name {
        b":method" => class::METHOD,
        b":path" => class::PATH,
        b":status" => class::STATUS,
        b"content-type" => class::CONTENT_TYPE,
        b"te" => class::TE,
        b"host" => class::HOST,
        b"grpc-timeout" => class::TIMEOUT,
        b"dapr-app-id" => class::APP_ID,
        b"dapr-callee-app-id" => class::CALLEE_APP_ID,
        b"dapr-api-token" => class::API_TOKEN,
        b"dapr-stream" => class::STREAM,
        b"traceparent" => class::TRACEPARENT,
        b"grpc-trace-bin" => class::TRACE_BIN,
        b"grpc-status" => class::GRPC_STATUS,
        b"grpc-message" => class::GRPC_MESSAGE,
        b"grpc-message-type" => class::GRPC_MESSAGE_TYPE,
        b"content-length" => class::CONTENT_LENGTH,
        b"baggage" => class::BAGGAGE,
        undelivered::NAME => class::UNDELIVERED,
        _ => 0,
    }
}

/// What a request says of itself; borrowed from its fields.
#[derive(Debug, Default)]
pub struct RequestHead<'a> {
    pub method: &'a [u8],
    pub path: &'a [u8],
    pub content_type: Option<&'a [u8]>,
    pub timeout: Option<&'a [u8]>,
    pub app_id: Option<&'a [u8]>,
    pub callee_app_id: Option<&'a [u8]>,
    pub api_token: Option<&'a [u8]>,
    /// `dapr-stream` is truthy.
    pub stream: bool,
    /// The first ones, and whether there is another of either.
    pub traceparent: Option<&'a [u8]>,
    pub trace_bin: Option<&'a [u8]>,
    pub traces_repeat: bool,
    /// There is some.
    pub baggage: bool,
}

pub fn read_request(fields: &FieldSection) -> RequestHead<'_> {
    let mut head = RequestHead::default();
    let mut stream = None;
    for (class, value) in fields.classed() {
        match class {
            class::METHOD => head.method = value,
            class::PATH => head.path = value,
            class::CONTENT_TYPE => head.content_type = head.content_type.or(Some(value)),
            class::TIMEOUT => head.timeout = head.timeout.or(Some(value)),
            class::APP_ID => head.app_id = head.app_id.or(Some(value)),
            class::CALLEE_APP_ID => head.callee_app_id = head.callee_app_id.or(Some(value)),
            class::API_TOKEN => head.api_token = head.api_token.or(Some(value)),
            class::STREAM => stream = stream.or(Some(value)),
            class::TRACEPARENT => {
                head.traces_repeat |= head.traceparent.is_some();
                head.traceparent = head.traceparent.or(Some(value));
            }
            class::TRACE_BIN => {
                head.traces_repeat |= head.trace_bin.is_some();
                head.trace_bin = head.trace_bin.or(Some(value));
            }
            class::BAGGAGE => head.baggage = true,
            _ => {}
        }
    }
    head.stream = stream.is_some_and(is_truthy);
    head
}

/// What a response says of itself.
#[derive(Debug, Default)]
pub struct ResponseHead<'a> {
    pub status: &'a [u8],
    pub content_type: Option<&'a [u8]>,
    pub grpc_status: Option<&'a [u8]>,
}

pub fn read_response(fields: &FieldSection) -> ResponseHead<'_> {
    let mut head = ResponseHead::default();
    for (class, value) in fields.classed() {
        match class {
            class::STATUS => head.status = value,
            class::CONTENT_TYPE => head.content_type = head.content_type.or(Some(value)),
            class::GRPC_STATUS => head.grpc_status = head.grpc_status.or(Some(value)),
            _ => {}
        }
    }
    head
}

/// What a status that is not OK says in words.
pub fn message(fields: &FieldSection) -> String {
    let mut messages = fields.classed().filter(|(class, _)| *class == class::GRPC_MESSAGE);
    messages.next().map(|(_, value)| decode_message(value)).unwrap_or_default()
}

/// `application/grpc`, alone or with a subtype or parameters (grpc-go's `ContentSubtype`).
pub fn is_grpc(content_type: &[u8]) -> bool {
    const BASE: &[u8] = b"application/grpc";
    if content_type == BASE || content_type == rewrite::CONTENT_TYPE {
        return true;
    }
    if content_type.len() < BASE.len() || !content_type[..BASE.len()].eq_ignore_ascii_case(BASE) {
        return false;
    }
    matches!(content_type.get(BASE.len()), None | Some(b'+' | b';'))
}

/// Dapr's `kit:strings` IsTruthy.
fn is_truthy(value: &[u8]) -> bool {
    let value = value.trim_ascii();
    let any = [&b"y"[..], b"yes", b"true", b"t", b"on", b"1"];
    any.iter().any(|word| value.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tests::section;

    #[test]
    fn first_value_counts() {
        let fields = section(&[
            (":method", "POST"),
            (":path", "/a.B/C"),
            ("dapr-app-id", "one"),
            ("dapr-app-id", "two"),
            ("dapr-stream", " YES "),
        ]);
        let head = read_request(&fields);
        assert_eq!(head.path, b"/a.B/C");
        assert_eq!(head.app_id, Some(&b"one"[..]));
        assert!(head.stream);
    }

    #[test]
    fn knows_grpc() {
        for yes in ["application/grpc", "application/grpc+proto", "Application/GRPC;charset=x"] {
            assert!(is_grpc(yes.as_bytes()), "{yes}");
        }
        for no in ["application/grpcx", "application/json", "", "application/grp"] {
            assert!(!is_grpc(no.as_bytes()), "{no}");
        }
    }
}
