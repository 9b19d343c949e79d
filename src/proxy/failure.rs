//! Each way to fail: status, text, and how it is written to a caller.
//!
//! 1. Texts are daprd's where it has one (spec 03 §3.9), byte for byte; ours elsewhere, and then
//!    they say what was tried, on whom, what happened, what to do.
//! 2. A caller that speaks gRPC gets a gRPC status; nobody gets a bare reset without need.

use crate::grpc::Code;
use crate::grpc::status::encode_message;
use crate::http2::FieldSection;
use crate::identity::{AppId, TargetError};
use data_encoding::BASE64_NOPAD;
use prost::Message;
use std::borrow::Cow;

/// Why a call ends here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    pub message: Cow<'static, str>,
    /// `:status`; other than 200 only for requests that are not gRPC.
    pub http_status: u16,
    /// `google.rpc.Status`, serialized.
    pub details: Option<Vec<u8>>,
}

/// The content type when the caller's is not known.
pub const GRPC: &[u8] = b"application/grpc";

impl Failure {
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), http_status: 200, details: None }
    }

    /// grpc-go's `http2_server.go`: an early abort with an HTTP status of its own.
    pub fn not_grpc(http_status: u16, code: Code, message: String) -> Self {
        Self { code, message: message.into(), http_status, details: None }
    }

    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    pub fn deadline() -> Self {
        Self::new(Code::DeadlineExceeded, "context deadline exceeded")
    }

    /// Sources: the tracing interceptor's text, and the director's when tracing is off or the
    /// method is one of Dapr's own.
    pub fn no_target(tracing: bool, path: &[u8]) -> Self {
        let daprs = [&b"/dapr.proto.runtime."[..], b"/dapr.proto.internals.", b"/TaskHubSidecar"];
        let message = if tracing && !daprs.iter().any(|prefix| path.starts_with(prefix)) {
            "cannot proxy request: missing dapr-callee-app-id or dapr-app-id metadata"
        } else {
            "failed to proxy request: required metadata dapr-callee-app-id or dapr-app-id not found"
        };
        Self::new(Code::Unknown, message)
    }

    pub fn target(error: &TargetError) -> Self {
        Self::new(Code::Unknown, error.to_string())
    }

    /// daprd would relay such a call with its own identity; we do not (docs/parity.md).
    pub fn not_here(callee: &str, own: &AppId) -> Self {
        Self::unavailable(format!(
            "this is the sidecar of app id {own}, not of {callee}: the call was not delivered; \
             the caller's name resolution points at the wrong sidecar"
        ))
    }

    /// grpc-go's text for a message over the limit.
    pub fn too_large(len: u32, max: u64) -> Self {
        let message = format!("grpc: received message larger than max ({len} vs. {max})");
        Self::new(Code::ResourceExhausted, message)
    }

    /// Dapr's `pkg/api/grpc/auth.go`: status with an ErrorInfo.
    pub fn unauthenticated(why: &str) -> Self {
        let metadata = [("http.code", "401"), ("http.error_message", why)];
        let info = ErrorInfo {
            reason: "Unauthorized".into(),
            domain: "dapr.io".into(),
            metadata: metadata.map(|(k, v)| (k.into(), v.into())).into(),
        };
        let detail = Any {
            type_url: "type.googleapis.com/google.rpc.ErrorInfo".into(),
            value: info.encode_to_vec(),
        };
        let code = Code::Unauthenticated;
        let status =
            Status { code: code as i32, message: "Unauthorized".into(), details: vec![detail] };
        let details = Some(status.encode_to_vec());
        Self { details, ..Self::new(code, "Unauthorized") }
    }

    /// A response head that is no gRPC response (grpc-go's `http2_client.go`).
    pub fn of_response(status: &[u8], content_type: Option<&[u8]>) -> Self {
        let status = std::str::from_utf8(status).ok().and_then(|text| text.parse().ok());
        let status: u16 = status.unwrap_or(0);
        let (code, mut message) = if status == 200 {
            (Code::Unknown, String::new())
        } else {
            let reason = reason_phrase(status);
            let text =
                format!("unexpected HTTP status code received from server: {status} ({reason})");
            (Code::of_http_status(status), text)
        };
        let kind = match content_type {
            None => "malformed header: missing HTTP content-type".to_owned(),
            Some(value) => {
                let value = String::from_utf8_lossy(value);
                format!("transport: received unexpected content-type \"{value}\"")
            }
        };
        if !message.is_empty() {
            message.push_str("; ");
        }
        message.push_str(&kind);
        Self::new(code, message)
    }

    /// The fields of a response that has no body: `:status` and the gRPC status together
    /// ("Trailers-Only" in gRPC's protocol text).
    pub fn write_head(&self, fields: &mut FieldSection, content_type: &[u8]) {
        let status = self.http_status.to_string();
        fields.push(b":status", status.as_bytes());
        fields.push(b"content-type", content_type);
        self.write_trailers(fields);
    }

    pub fn write_trailers(&self, fields: &mut FieldSection) {
        fields.push(b"grpc-status", self.code.text().as_bytes());
        fields.push(b"grpc-message", encode_message(&self.message).as_bytes());
        if let Some(details) = &self.details {
            let text = BASE64_NOPAD.encode(details);
            fields.push(b"grpc-status-details-bin", text.as_bytes());
        }
    }
}

/// RFC 9110 §15, as Go's `http.StatusText` has them, for those a gRPC peer's front end sends.
const fn reason_phrase(status: u16) -> &'static str {
    match status {
        301 => "Moved Permanently",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

/// `google.rpc.Status` (spec 13).
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.ErrorInfo` (spec 13).
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: std::collections::BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts of spec 03 §3.9.
    #[test]
    fn no_target_depends_on_tracing_and_method() {
        let proxied = Failure::no_target(true, b"/a.B/C");
        assert!(proxied.message.starts_with("cannot proxy request: missing"));
        let quiet = Failure::no_target(false, b"/a.B/C");
        assert!(quiet.message.starts_with("failed to proxy request: required metadata"));
        let own = Failure::no_target(true, b"/dapr.proto.runtime.v1.AppCallback/OnInvoke");
        assert_eq!(own, quiet);
    }

    #[test]
    fn writes_details_as_unpadded_base64() {
        let failure = Failure::unauthenticated("missing api token in request metadata");
        let mut fields = FieldSection::new();
        failure.write_head(&mut fields, GRPC);
        assert_eq!(fields.value(b"grpc-status"), Some(&b"16"[..]));
        let text = fields.value(b"grpc-status-details-bin").unwrap();
        assert!(!text.contains(&b'='));
        let raw = BASE64_NOPAD.decode(text).unwrap();
        let status = Status::decode(&raw[..]).unwrap();
        assert_eq!((status.code, status.message.as_str()), (16, "Unauthorized"));
        let info = ErrorInfo::decode(&status.details[0].value[..]).unwrap();
        assert_eq!(info.metadata["http.code"], "401");
    }

    /// gRPC's `http-grpc-status-mapping.md`.
    #[test]
    fn maps_http_statuses() {
        assert_eq!(Failure::of_response(b"503", None).code, Code::Unavailable);
        assert_eq!(Failure::of_response(b"404", Some(b"text/html")).code, Code::Unimplemented);
        assert_eq!(Failure::of_response(b"200", Some(b"text/html")).code, Code::Unknown);
        assert_eq!(Failure::of_response(b"418", None).code, Code::Unknown);
    }
}
