//! One unary call: gRPC's protocol over HTTP/2 (`doc/PROTOCOL-HTTP2.md`), seen from its client.
//!
//! 1. A response counts only with `grpc-status` 0 and exactly one uncompressed message.

use super::{Channel, MESSAGE_MAX};
use bytes::{BufMut, Bytes, BytesMut};
use h2::RecvStream;
use http::{HeaderMap, Request, Response};
use prost::Message;
use std::fmt;
use std::time::Duration;

/// Length of gRPC's message prefix: a flag and a 32-bit length.
const PREFIX: usize = 5;

/// How a call ended that did not end well. `Display` is grpc-go's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub code: u8,
    pub message: String,
}

impl Status {
    pub const DEADLINE_EXCEEDED: u8 = 4;
    pub const RESOURCE_EXHAUSTED: u8 = 8;
    pub const UNAVAILABLE: u8 = 14;
    const OK: u8 = 0;
    const CANCELED: u8 = 1;
    const UNKNOWN: u8 = 2;
    const PERMISSION_DENIED: u8 = 7;
    const UNIMPLEMENTED: u8 = 12;
    const INTERNAL: u8 = 13;
    const UNAUTHENTICATED: u8 = 16;

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { code: Self::UNAVAILABLE, message: message.into() }
    }

    fn internal(message: impl Into<String>) -> Self {
        Self { code: Self::INTERNAL, message: message.into() }
    }
}

impl Channel {
    /// Calls `path` (`/package.Service/Method`) and waits no longer than `limit`.
    pub async fn unary<A: Message + Default>(
        &self,
        path: &str,
        message: &impl Message,
        limit: Duration,
    ) -> Result<A, Status> {
        let call = self.unary_slowly(path, message, limit);
        tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
            Err(Status {
                code: Status::DEADLINE_EXCEEDED,
                message: "context deadline exceeded".to_owned(),
            })
        })
    }

    async fn unary_slowly<A: Message + Default>(
        &self,
        path: &str,
        message: &impl Message,
        limit: Duration,
    ) -> Result<A, Status> {
        let request = Request::post(format!("https://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", concat!("ringside/", env!("CARGO_PKG_VERSION")))
            .header("grpc-timeout", format!("{}m", limit.as_millis()))
            .body(())
            .map_err(|error| Status::internal(error.to_string()))?;
        let mut send = self.send.clone().ready().await.map_err(|e| broken(&e))?;
        let (response, mut body) = send.send_request(request, false).map_err(|e| broken(&e))?;
        body.send_data(framed(message)?, true).map_err(|e| broken(&e))?;
        let (head, body) = response.await.map_err(|e| broken(&e))?.into_parts();
        let answer = read(Response::from_parts(head, body)).await?;
        A::decode(answer).map_err(|error| {
            Status::internal(format!("grpc: failed to unmarshal the received message: {error}"))
        })
    }
}

fn framed(message: &impl Message) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    let prefix = u32::try_from(length)
        .ok()
        .filter(|_| length <= MESSAGE_MAX)
        .ok_or_else(|| Status::internal("the request is too long"))?;
    let mut framed = BytesMut::with_capacity(PREFIX + length);
    framed.put_u8(0);
    framed.put_u32(prefix);
    message.encode(&mut framed).map_err(|error| Status::internal(error.to_string()))?;
    Ok(framed.freeze())
}

/// The one message of a response, once its status is known to be OK.
async fn read(response: Response<RecvStream>) -> Result<Bytes, Status> {
    let http_status = response.status().as_u16();
    let (head, mut body) = response.into_parts();
    if let Some(status) = status_of(&head.headers) {
        // Trailers-Only.
        return Err(not_ok(status));
    }
    if http_status != 200 {
        return Err(of_http(http_status));
    }
    let mut read = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(|e| broken(&e))?;
        if read.len() + chunk.len() > PREFIX + MESSAGE_MAX {
            return Err(Status {
                code: Status::RESOURCE_EXHAUSTED,
                message: format!("grpc: received message larger than max (max: {MESSAGE_MAX})"),
            });
        }
        read.extend_from_slice(&chunk);
        // It fails only on a stream that is over, which the next read tells.
        let _ = body.flow_control().release_capacity(chunk.len());
    }
    let trailers = body.trailers().await.map_err(|e| broken(&e))?.unwrap_or_default();
    match status_of(&trailers) {
        Some(status) if status.code == Status::OK => unframed(read.freeze()),
        Some(status) => Err(status),
        None => Err(Status::internal("server closed the stream without sending trailers")),
    }
}

fn unframed(read: Bytes) -> Result<Bytes, Status> {
    let Some((prefix, message)) = read.split_at_checked(PREFIX) else {
        return Err(Status::internal("the response holds no message"));
    };
    match prefix {
        [0, length @ ..] if be_u32(length) == message.len() => Ok(read.slice(PREFIX..)),
        [0, ..] => Err(Status::internal("the response does not hold exactly one message")),
        _ => Err(Status::internal("the response is compressed, which nobody asked for")),
    }
}

fn be_u32(octets: &[u8]) -> usize {
    octets.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet))
}

/// An OK in the headers promises a message and brings none.
fn not_ok(status: Status) -> Status {
    if status.code == Status::OK {
        return Status::internal("the response holds no message");
    }
    status
}

fn status_of(fields: &HeaderMap) -> Option<Status> {
    let code = fields.get("grpc-status")?.to_str().ok().and_then(|text| text.parse().ok());
    let message = fields.get("grpc-message").map(|value| percent_decoded(value.as_bytes()));
    Some(Status { code: code.unwrap_or(Status::UNKNOWN), message: message.unwrap_or_default() })
}

fn percent_decoded(value: &[u8]) -> String {
    let digit = |octet: Option<&u8>| octet.and_then(|o| char::from(*o).to_digit(16));
    let mut decoded = Vec::with_capacity(value.len());
    let mut octets = value.iter();
    while let Some(octet) = octets.next() {
        let mut ahead = octets.clone();
        let pair = (digit(ahead.next()), digit(ahead.next()));
        match pair {
            (Some(high), Some(low)) if *octet == b'%' => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                octets = ahead;
            }
            _ => decoded.push(*octet),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// gRPC's `doc/http-grpc-status-mapping.md`.
fn of_http(http_status: u16) -> Status {
    let code = match http_status {
        400 => Status::INTERNAL,
        401 => Status::UNAUTHENTICATED,
        403 => Status::PERMISSION_DENIED,
        404 => Status::UNIMPLEMENTED,
        429 | 502 | 503 | 504 => Status::UNAVAILABLE,
        _ => Status::UNKNOWN,
    };
    Status { code, message: format!("unexpected HTTP status code received: {http_status}") }
}

/// A reset says which code it is ("HTTP2 Transport Mapping, Errors"); without a connection the
/// service is unavailable.
fn broken(error: &h2::Error) -> Status {
    let code = match error.reason() {
        Some(h2::Reason::CANCEL) if error.is_reset() => Status::CANCELED,
        Some(h2::Reason::ENHANCE_YOUR_CALM) if error.is_reset() => Status::RESOURCE_EXHAUSTED,
        Some(h2::Reason::INADEQUATE_SECURITY) if error.is_reset() => Status::PERMISSION_DENIED,
        Some(h2::Reason::REFUSED_STREAM) | None => Status::UNAVAILABLE,
        Some(_) if error.is_reset() => Status::INTERNAL,
        Some(_) => Status::UNAVAILABLE,
    };
    Status { code, message: error.to_string() }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Go's `codes.Code.String`.
        const NAMES: [&str; 17] = [
            "OK",
            "Canceled",
            "Unknown",
            "InvalidArgument",
            "DeadlineExceeded",
            "NotFound",
            "AlreadyExists",
            "PermissionDenied",
            "ResourceExhausted",
            "FailedPrecondition",
            "Aborted",
            "OutOfRange",
            "Unimplemented",
            "Internal",
            "Unavailable",
            "DataLoss",
            "Unauthenticated",
        ];
        match NAMES.get(usize::from(self.code)) {
            Some(name) => write!(f, "rpc error: code = {name} desc = {}", self.message),
            None => write!(f, "rpc error: code = Code({}) desc = {}", self.code, self.message),
        }
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_grpc_go() {
        let status = Status { code: 7, message: "invalid request: id".to_owned() };
        let text = "rpc error: code = PermissionDenied desc = invalid request: id";
        assert_eq!(status.to_string(), text);
        let status = Status { code: 99, message: String::new() };
        assert_eq!(status.to_string(), "rpc error: code = Code(99) desc = ");
    }

    #[test]
    fn decodes_percent() {
        assert_eq!(percent_decoded(b"50%25 %0A%C3%BC"), "50% \n\u{fc}");
        assert_eq!(percent_decoded(b"%"), "%");
        assert_eq!(percent_decoded(b"%zz%4"), "%zz%4");
    }

    #[test]
    fn wants_exactly_one_plain_message() {
        let whole = |wire: &'static [u8]| unframed(Bytes::from_static(wire));
        assert_eq!(whole(b"\0\0\0\0\x02hi").unwrap(), "hi".as_bytes());
        assert_eq!(whole(b"\0\0\0\0\0").unwrap(), "".as_bytes());
        for wire in [
            &b""[..],
            b"\0\0\0\0",
            b"\0\0\0\0\x02h",
            b"\0\0\0\0\x01hi",
            b"\x01\0\0\0\x02hi",
            b"\0\xff\xff\xff\xffhi",
        ] {
            assert_eq!(whole(wire).unwrap_err().code, Status::INTERNAL, "{wire:?}");
        }
    }
}
