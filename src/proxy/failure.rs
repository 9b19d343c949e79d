//! Each way to fail: status, text, and how it is written to a caller.
//!
//! 1. Texts are daprd's where it has one (spec 03 §3.9), byte for byte; ours elsewhere, and then
//!    they say what was tried, on whom, what happened, what to do.
//! 2. A caller that speaks gRPC gets a gRPC status; nobody gets a bare reset without need.

use super::head::is_grpc;
use super::peer::{Peer, Side};
use super::{ConnKey, Proxy};
use crate::config::{App, Config};
use crate::grpc::Code;
use crate::grpc::status::encode_message;
use crate::http2::{ErrorCode, FieldSection};
use crate::identity::{AppId, TargetError};
use crate::policy::method::quote;
use crate::snapshot::Way;
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
    /// Nothing of the call reached the app (`undelivered`).
    pub undelivered: bool,
    /// Refused before anything of daprd's that tells of calls would have heard of it.
    pub untold: bool,
}

/// The content type when the caller's is not known.
pub const GRPC: &[u8] = b"application/grpc";

impl Failure {
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        Self { code, message, http_status: 200, details: None, undelivered: false, untold: false }
    }

    /// Nothing of the call reached the app.
    pub fn undelivered(self) -> Self {
        Self { undelivered: true, ..self }
    }

    /// No series, no log and no span of Dapr's tells it.
    pub fn untold(self) -> Self {
        Self { untold: true, ..self }
    }

    /// grpc-go's `http2_server.go`: an early abort with an HTTP status of its own.
    pub fn not_grpc(http_status: u16, code: Code, message: String) -> Self {
        Self { http_status, ..Self::new(code, message) }
    }

    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    pub fn deadline() -> Self {
        Self::new(Code::DeadlineExceeded, "context deadline exceeded")
    }

    /// daprd dials port 0 when no app port is given (spec 03 §3.9).
    pub fn no_app(config: &Config) -> Self {
        let address = config.app.as_ref().map_or_else(|| "127.0.0.1:0".to_owned(), App::authority);
        Self::unavailable(format!(
            "connection error: desc = \"transport: Error while dialing: dial tcp {address}: \
             connect: connection refused\""
        ))
        .undelivered()
    }

    /// Sources: the tracing interceptor's text, and the director's when tracing is off or the
    /// method is one of Dapr's own.
    pub fn no_target(tracing: bool, path: &[u8]) -> Self {
        let message = if Self::is_of_proxy(tracing, path) {
            "failed to proxy request: required metadata dapr-callee-app-id or dapr-app-id not found"
        } else {
            "cannot proxy request: missing dapr-callee-app-id or dapr-app-id metadata"
        };
        Self::new(Code::Unknown, message)
    }

    /// Is it daprd's proxy that misses a target, not the interceptor before it?
    pub fn is_of_proxy(tracing: bool, path: &[u8]) -> bool {
        let daprs = [&b"/dapr.proto.runtime."[..], b"/dapr.proto.internals.", b"/TaskHubSidecar"];
        !tracing || daprs.iter().any(|prefix| path.starts_with(prefix))
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
        .undelivered()
    }

    /// grpc-go's text for a message over the limit, and whose limit it is.
    pub fn too_large(len: u32, max: u64) -> Self {
        let message =
            format!("grpc: received message larger than max ({len} vs. {max}) (--max-body-size)");
        Self::new(Code::ResourceExhausted, message)
    }

    /// grpc-go's `http2_client.go`, `handleRSTStream`.
    pub fn reset(code: ErrorCode) -> (Code, String) {
        let name = match code.name() {
            "UNKNOWN" => Cow::Owned(format!("unknown error code 0x{:x}", code.0)),
            name => Cow::Borrowed(name),
        };
        let text = format!("stream terminated by RST_STREAM with error code: {name}");
        (Code::of_reset(code.0), text)
    }

    /// Dapr's `pkg/api/grpc/auth.go`.
    pub fn unauthenticated(why: &str) -> Self {
        Self::of_http_code(Code::Unauthenticated, "Unauthorized", "401", why)
    }

    /// A method that the list of APIs takes away: Dapr's `pkg/api/grpc/endpoints.go`.
    pub fn not_available() -> Self {
        let why = "requested endpoint is not available";
        Self::of_http_code(Code::Unimplemented, "Not Implemented", "501", why)
    }

    /// A status with an ErrorInfo (Dapr's `pkg/messaging/v1/util.go`).
    fn of_http_code(code: Code, reason: &'static str, http_code: &str, why: &str) -> Self {
        let metadata = [("http.code", http_code), ("http.error_message", why)];
        let info = ErrorInfo {
            reason: reason.into(),
            domain: "dapr.io".into(),
            metadata: metadata.map(|(k, v)| (k.into(), v.into())).into(),
        };
        let detail = Any {
            type_url: "type.googleapis.com/google.rpc.ErrorInfo".into(),
            value: info.encode_to_vec(),
        };
        let status = Status { code: code as i32, message: reason.into(), details: vec![detail] };
        let details = Some(status.encode_to_vec());
        Self { details, ..Self::new(code, reason) }
    }

    /// A response head that is no gRPC response (grpc-go's `http2_client.go`).
    pub fn of_response(status: &[u8], content_type: Option<&[u8]>) -> (Code, String) {
        let status = std::str::from_utf8(status).ok().and_then(|text| text.parse().ok());
        let status: u16 = status.unwrap_or(0);
        let reason = reason_phrase(status);
        let mut message =
            format!("unexpected HTTP status code received from server: {status} ({reason})");
        match content_type {
            None => message.push_str("; malformed header: missing HTTP content-type"),
            Some(value) if is_grpc(value) => {}
            Some(value) => {
                message.push_str("; transport: received unexpected content-type ");
                message.push_str(&quote(value));
            }
        }
        (Code::of_http_status(status), message)
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

impl Proxy {
    /// What a caller is told of an upstream: daprd's text, and who it was that failed, seen by
    /// whom, since a call crosses two sidecars and an app.
    #[cold]
    pub(super) fn blame(&self, conn: ConnKey, text: &str) -> String {
        match self.peers.get(conn) {
            Some(peer) => self.blame_peer(peer, text),
            None => text.to_owned(),
        }
    }

    #[cold]
    pub(super) fn blame_peer(&self, peer: &Peer, text: &str) -> String {
        let Side::Upstream { pool, authority, way, .. } = &peer.side else {
            return text.to_owned();
        };
        let own = &self.snapshot.config.app_id;
        let address = match way {
            Way::Tcp(_) => String::from_utf8_lossy(authority.value()),
            Way::Unix(path) => Cow::Borrowed(path.as_str()),
        };
        match self.pools.target(*pool) {
            Some(target) => {
                format!("{text} (the sidecar of {target} at {address}, seen by that of {own})")
            }
            None => format!("{text} (the app at {address}, seen by the sidecar of {own})"),
        }
    }
}

/// RFC 9110 §15, as Go's `http.StatusText` has them, for those a gRPC peer's front end sends.
const fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Request Entity Too Large",
        415 => "Unsupported Media Type",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
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
        let code = |status: &[u8]| Failure::of_response(status, Some(b"text/html")).0;
        for (status, expected) in [
            (&b"400"[..], Code::Internal),
            (b"401", Code::Unauthenticated),
            (b"403", Code::PermissionDenied),
            (b"404", Code::Unimplemented),
            (b"429", Code::Unavailable),
            (b"502", Code::Unavailable),
            (b"503", Code::Unavailable),
            (b"504", Code::Unavailable),
            (b"200", Code::Unknown),
            (b"418", Code::Unknown),
            (b"500", Code::Unknown),
        ] {
            assert_eq!(code(status), expected, "{status:?}");
        }
        let (_, text) = Failure::of_response(b"503", None);
        let expected = "unexpected HTTP status code received from server: 503 (Service \
                        Unavailable); malformed header: missing HTTP content-type";
        assert_eq!(text, expected);
    }
}
