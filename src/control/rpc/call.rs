//! One unary call: gRPC's protocol over HTTP/2 (`doc/PROTOCOL-HTTP2.md`), seen from its client.
//!
//! 1. A response counts only with `grpc-status` 0 and exactly one uncompressed message.

use super::{Channel, MESSAGE_MAX};
use crate::grpc::Code;
use crate::grpc::status::{decode_message, parse_code};
use crate::observe::names::STATUS_NAMES;
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
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code: code as u8, message: message.into() }
    }

    pub fn is(&self, code: Code) -> bool {
        self.code == code as u8
    }

    /// What `grpc-status` and `grpc-message` say, if the first is there.
    pub fn of_fields(fields: &HeaderMap) -> Option<Self> {
        let code = parse_code(fields.get("grpc-status")?.as_bytes());
        let message = fields.get("grpc-message").map(|value| decode_message(value.as_bytes()));
        Some(Self { code, message: message.unwrap_or_default() })
    }

    /// A reset says which code it is; without a connection the service is unavailable.
    pub fn of_broken(error: &h2::Error) -> Self {
        let code = match error.reason() {
            Some(reason) if error.is_reset() => Code::of_reset(reason.into()),
            Some(_) | None => Code::Unavailable,
        };
        Self::new(code, error.to_string())
    }

    fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
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
        self.unary_with(path, &Framed::new(message)?, &HeaderMap::new(), limit).await
    }

    /// The same, with fields of the caller's own.
    pub async fn unary_with<A: Message + Default>(
        &self,
        path: &str,
        message: &Framed,
        fields: &HeaderMap,
        limit: Duration,
    ) -> Result<A, Status> {
        let call = self.unary_slowly(path, message, fields, limit);
        tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
            Err(Status::new(Code::DeadlineExceeded, "context deadline exceeded"))
        })
    }

    async fn unary_slowly<A: Message + Default>(
        &self,
        path: &str,
        Framed(message): &Framed,
        fields: &HeaderMap,
        limit: Duration,
    ) -> Result<A, Status> {
        let mut request = Request::post(format!("{}://{}{path}", self.scheme, self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", concat!("ringside/", env!("CARGO_PKG_VERSION")))
            .header("grpc-timeout", format!("{}m", limit.as_millis()))
            .body(())
            .map_err(|error| Status::internal(error.to_string()))?;
        request.headers_mut().extend(fields.clone());
        let mut send = self.send.clone().ready().await.map_err(|e| Status::of_broken(&e))?;
        let (response, mut body) =
            send.send_request(request, false).map_err(|e| Status::of_broken(&e))?;
        body.send_data(message.clone(), true).map_err(|e| Status::of_broken(&e))?;
        let (head, body) = response.await.map_err(|e| Status::of_broken(&e))?.into_parts();
        let answer = read(Response::from_parts(head, body)).await?;
        A::decode(answer).map_err(|error| {
            Status::internal(format!("grpc: failed to unmarshal the received message: {error}"))
        })
    }
}

/// A message with its prefix.
#[derive(Clone, Debug)]
pub struct Framed(Bytes);

impl Framed {
    pub fn new(message: &impl Message) -> Result<Self, Status> {
        let mut framed = Self::prefix(0, message.encoded_len())?;
        message.encode(&mut framed).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Self(framed.freeze()))
    }

    /// Of a message that is compressed as the call's `grpc-encoding` says.
    pub fn compressed(message: &[u8]) -> Result<Self, Status> {
        let mut framed = Self::prefix(1, message.len())?;
        framed.extend_from_slice(message);
        Ok(Self(framed.freeze()))
    }

    fn prefix(flag: u8, length: usize) -> Result<BytesMut, Status> {
        let prefix = u32::try_from(length)
            .ok()
            .filter(|_| length <= MESSAGE_MAX)
            .ok_or_else(|| Status::internal("the request is too long"))?;
        let mut framed = BytesMut::with_capacity(PREFIX + length);
        framed.put_u8(flag);
        framed.put_u32(prefix);
        Ok(framed)
    }
}

/// The one message of a response, once its status is known to be OK.
async fn read(response: Response<RecvStream>) -> Result<Bytes, Status> {
    let http_status = response.status().as_u16();
    let (head, mut body) = response.into_parts();
    if let Some(status) = Status::of_fields(&head.headers) {
        // Trailers-Only.
        return Err(not_ok(status));
    }
    if http_status != 200 {
        let message = format!("unexpected HTTP status code received: {http_status}");
        return Err(Status::new(Code::of_http_status(http_status), message));
    }
    let mut read = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(|e| Status::of_broken(&e))?;
        if read.len() + chunk.len() > PREFIX + MESSAGE_MAX {
            let message = format!("grpc: received message larger than max (max: {MESSAGE_MAX})");
            return Err(Status::new(Code::ResourceExhausted, message));
        }
        read.extend_from_slice(&chunk);
        // It fails only on a stream that is over, which the next read tells.
        let _ = body.flow_control().release_capacity(chunk.len());
    }
    let trailers = body.trailers().await.map_err(|e| Status::of_broken(&e))?.unwrap_or_default();
    match Status::of_fields(&trailers) {
        Some(status) if status.is(Code::Ok) => unframed(read.freeze()),
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
    if status.is(Code::Ok) {
        return Status::internal("the response holds no message");
    }
    status
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match STATUS_NAMES.get(usize::from(self.code)) {
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
            assert_eq!(whole(wire).unwrap_err().code, Code::Internal as u8, "{wire:?}");
        }
    }
}
