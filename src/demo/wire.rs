//! gRPC messages on the streams of the h2 crate, for either end of a call.
//!
//! 1. A message is sent once the peer has given window for all of it; nothing piles up.
//! 2. A message longer than [`MESSAGE_MAX`] is refused before it is read.

use crate::control::rpc::{MESSAGE_MAX, Status};
use crate::grpc::Code;
use crate::grpc::status::encode_message;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue};
use prost::Message;
use std::future::poll_fn;

const PREFIX: usize = 5;

/// The messages that come in.
#[derive(Debug)]
pub struct Reader {
    stream: RecvStream,
    buffer: BytesMut,
}

/// The messages that go out.
#[derive(Debug)]
pub struct Writer {
    stream: SendStream<Bytes>,
}

impl Reader {
    pub fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// `None` at the end of the stream.
    pub async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        loop {
            if let Some(message) = self.cut()? {
                let message = M::decode(message).map_err(|e| internal(e.to_string()))?;
                return Ok(Some(message));
            }
            match self.stream.data().await {
                Some(Ok(chunk)) => {
                    self.buffer.extend_from_slice(&chunk);
                    // It fails only on a stream that is over, which the next read tells.
                    let _ = self.stream.flow_control().release_capacity(chunk.len());
                }
                Some(Err(error)) => return Err(Status::of_broken(&error)),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(internal("the stream ended inside a message")),
            }
        }
    }

    /// The one message of a unary call.
    pub async fn only<M: Message + Default>(&mut self) -> Result<M, Status> {
        let first = self.next().await?.ok_or_else(|| internal("no message"))?;
        match self.next::<M>().await? {
            None => Ok(first),
            Some(_) => Err(internal("more than one message")),
        }
    }

    /// What the trailers say, once there are no more messages.
    pub async fn end(&mut self) -> Result<(), Status> {
        let trailers = self.stream.trailers().await.map_err(|e| Status::of_broken(&e))?;
        match Status::of_fields(&trailers.unwrap_or_default()) {
            Some(status) if status.is(Code::Ok) => Ok(()),
            Some(status) => Err(status),
            None => Err(internal("the response has no grpc-status")),
        }
    }

    fn cut(&mut self) -> Result<Option<Bytes>, Status> {
        let [flag, a, b, c, d, ..] = *self.buffer else {
            return Ok(None);
        };
        if flag != 0 {
            return Err(internal("a compressed message, which nobody asked for"));
        }
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > MESSAGE_MAX {
            return Err(Status::new(Code::ResourceExhausted, "the message is too long"));
        }
        if self.buffer.len() < PREFIX + length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

impl Writer {
    pub fn new(stream: SendStream<Bytes>) -> Self {
        Self { stream }
    }

    pub async fn send(&mut self, message: &impl Message) -> Result<(), Status> {
        self.write(message, false).await
    }

    /// The last message of a request.
    pub async fn send_last(&mut self, message: &impl Message) -> Result<(), Status> {
        self.write(message, true).await
    }

    /// A request without a further message.
    pub fn half_close(mut self) -> Result<(), Status> {
        self.stream.send_data(Bytes::new(), true).map_err(|e| Status::of_broken(&e))
    }

    /// Ends a response.
    pub fn end(mut self, result: Result<(), Status>) {
        let mut fields = HeaderMap::new();
        let status = result.err().unwrap_or(Status::new(Code::Ok, ""));
        fields.insert("grpc-status", HeaderValue::from(u16::from(status.code)));
        if !status.message.is_empty()
            && let Ok(message) = HeaderValue::from_str(&encode_message(&status.message))
        {
            fields.insert("grpc-message", message);
        }
        // The caller may be gone; then nobody is there to be told.
        let _ = self.stream.send_trailers(fields);
    }

    async fn write(&mut self, message: &impl Message, last: bool) -> Result<(), Status> {
        let mut left = framed(message)?;
        while !left.is_empty() {
            self.stream.reserve_capacity(left.len());
            let room = match poll_fn(|context| self.stream.poll_capacity(context)).await {
                Some(Ok(room)) => room.min(left.len()),
                Some(Err(error)) => return Err(Status::of_broken(&error)),
                None => return Err(Status::new(Code::Canceled, "the stream is over")),
            };
            let part = left.split_to(room);
            let end = last && left.is_empty();
            self.stream.send_data(part, end).map_err(|e| Status::of_broken(&e))?;
        }
        Ok(())
    }
}

fn framed(message: &impl Message) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    let prefix = u32::try_from(length).map_err(|_| internal("the message is too long"))?;
    let mut framed = BytesMut::with_capacity(PREFIX + length);
    framed.put_u8(0);
    framed.put_u32(prefix);
    message.encode(&mut framed).map_err(|error| internal(error.to_string()))?;
    Ok(framed.freeze())
}

fn internal(message: impl Into<String>) -> Status {
    Status::new(Code::Internal, message)
}
