//! One connection's calls.
//!
//! 1. A call that fails ends with a status or a reset; the connection goes on.
//! 2. Flow control is given back for what was taken: at once where it is held (unary), else when
//!    it has left again.
//!
//! Refuses to know sockets but for their options.

use super::message::Counts;
use super::{COLLECT, PING_PONG, STREAM, UNARY, UNARY_OCTETS_MAX};
use crate::framing::{self, Deframer, Fault, PREFIX_OCTETS, Piece};
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use std::future::poll_fn;
use tokio::net::TcpStream;

/// Windows that bulk workloads (1 MiB messages, several at once) do not wait for.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// More than any workload opens on one connection.
const STREAMS_MAX: u32 = 16_384;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// A message that `Stream` sends is made up in one piece; also gRPC's usual limit.
const STREAM_OCTETS_MAX: u64 = 4 << 20;

enum Failure {
    /// gRPC code and message.
    Status(u8, String),
    /// The stream or the connection is gone: nobody to tell.
    Gone,
}

impl From<h2::Error> for Failure {
    fn from(_: h2::Error) -> Self {
        Self::Gone
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Compressed => Self::Status(12, fault.to_string()),
            Fault::Flag(_) => Self::Status(13, fault.to_string()),
            Fault::TooLong(_) => Self::Status(8, fault.to_string()),
        }
    }
}

pub(super) async fn run(stream: TcpStream) {
    // Without it small answers wait for the peer's acknowledgements; then it is only slower.
    let _ = stream.set_nodelay(true);
    let handshake = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS_MAX)
        .handshake::<_, Bytes>(stream);
    let Ok(mut connection) = handshake.await else { return };
    // An error of the connection ends it; its calls see that by themselves.
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::task::spawn_local(call(request, respond));
    }
}

async fn call(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (head, body) = request.into_parts();
    let ended = match head.uri.path() {
        UNARY => unary(body, &mut respond).await,
        COLLECT => collect(body, &mut respond).await,
        STREAM => stream(body, &mut respond).await,
        PING_PONG => ping_pong(body, &mut respond).await,
        path => Err(Failure::Status(12, format!("no method {path}"))),
    };
    if let Err(Failure::Status(code, message)) = ended {
        let mut response = head_of_response();
        response.headers_mut().insert(GRPC_STATUS, HeaderValue::from(u16::from(code)));
        if let Ok(message) = HeaderValue::from_str(&message) {
            response.headers_mut().insert(GRPC_MESSAGE, message);
        }
        // Trailers-Only; where the head is out already, a reset is all that is left.
        if respond.send_response(response, true).is_err() {
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

fn head_of_response() -> Response<()> {
    let mut response = Response::new(());
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(http::header::CONTENT_TYPE, grpc);
    response
}

fn finish(send: &mut SendStream<Bytes>) -> Result<(), Failure> {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    Ok(send.send_trailers(trailers)?)
}

/// The next DATA, its window given back.
async fn data(body: &mut RecvStream) -> Result<Option<Bytes>, Failure> {
    let Some(data) = body.data().await.transpose()? else { return Ok(None) };
    body.flow_control().release_capacity(data.len())?;
    Ok(Some(data))
}

/// The request in the pieces that it came in: exactly one message.
async fn one_message(body: &mut RecvStream) -> Result<(Option<Bytes>, Vec<Bytes>), Failure> {
    let (mut deframer, mut messages, mut octets) = (Deframer::default(), 0, 0);
    let (mut first, mut rest) = (None, Vec::new());
    while let Some(data) = data(body).await? {
        octets += data.len();
        if octets > UNARY_OCTETS_MAX + PREFIX_OCTETS {
            return Err(Failure::Status(8, format!("a request over {UNARY_OCTETS_MAX} octets")));
        }
        let mut unread = &data[..];
        while let Some(piece) = deframer.next(&mut unread)? {
            messages += u32::from(piece == Piece::Ends);
        }
        match first {
            None => first = Some(data),
            Some(_) => rest.push(data),
        }
    }
    if messages != 1 || !deframer.at_boundary() {
        return Err(Failure::Status(13, format!("{messages} whole messages in place of one")));
    }
    Ok((first, rest))
}

async fn unary(mut body: RecvStream, respond: &mut SendResponse<Bytes>) -> Result<(), Failure> {
    let (first, rest) = one_message(&mut body).await?;
    let mut send = respond.send_response(head_of_response(), false)?;
    for data in first.into_iter().chain(rest) {
        send.send_data(data, false)?;
    }
    finish(&mut send)
}

async fn collect(mut body: RecvStream, respond: &mut SendResponse<Bytes>) -> Result<(), Failure> {
    let mut deframer = Deframer::default();
    let mut counts = Counts { messages: 0, octets: 0 };
    while let Some(data) = data(&mut body).await? {
        let mut unread = &data[..];
        while let Some(piece) = deframer.next(&mut unread)? {
            match piece {
                Piece::Begins(octets) => counts.octets += octets as u64,
                Piece::Body(_) => {}
                Piece::Ends => counts.messages += 1,
            }
        }
    }
    if !deframer.at_boundary() {
        return Err(Failure::Status(13, "the request ends amid a message".to_owned()));
    }
    let mut send = respond.send_response(head_of_response(), false)?;
    send.send_data(framing::frame(&counts.encode()), false)?;
    finish(&mut send)
}

async fn stream(mut body: RecvStream, respond: &mut SendResponse<Bytes>) -> Result<(), Failure> {
    let (first, rest) = one_message(&mut body).await?;
    let request: Vec<u8> = first.into_iter().chain(rest).flatten().collect();
    let wanted = request.get(PREFIX_OCTETS..).and_then(Counts::decode);
    let wanted = wanted.filter(|wanted| wanted.octets <= STREAM_OCTETS_MAX);
    let Some(wanted) = wanted else {
        return Err(Failure::Status(3, "the request is no Counts that can be met".to_owned()));
    };
    let message = framing::frame(&super::message::payload(wanted.octets as usize));
    let mut send = respond.send_response(head_of_response(), false)?;
    for _ in 0..wanted.messages {
        send_all(&mut send, message.clone()).await?;
    }
    finish(&mut send)
}

async fn ping_pong(mut body: RecvStream, respond: &mut SendResponse<Bytes>) -> Result<(), Failure> {
    let mut send = respond.send_response(head_of_response(), false)?;
    while let Some(data) = body.data().await.transpose()? {
        let octets = data.len();
        send_all(&mut send, data).await?;
        body.flow_control().release_capacity(octets)?;
    }
    finish(&mut send)
}

/// Queues no more than the peer's window and the send buffer have room for.
async fn send_all(send: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), Failure> {
    while !data.is_empty() {
        if send.capacity() < data.len() {
            send.reserve_capacity(data.len());
        }
        while send.capacity() == 0 {
            match poll_fn(|context| send.poll_capacity(context)).await {
                Some(capacity) => capacity?,
                None => return Err(Failure::Gone),
            };
        }
        let part = data.split_to(data.len().min(send.capacity()));
        send.send_data(part, false)?;
    }
    Ok(())
}
