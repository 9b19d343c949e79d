//! One call of each shape, from its head to its status.
//!
//! 1. A call whose future is dropped is reset: h2 does that when the last handle goes.
//! 2. Flow control is given back as octets are judged; streams of requests wait for the peer's.
//!
//! Refuses to know schedules and counts.

use super::connect;
use super::judge::Judge;
use super::slot::Shared;
use super::wall;
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Response, StatusCode};
use std::future::poll_fn;
use std::pin::pin;

/// Why a call is an error of the run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Status {
        code: u32,
        message: String,
    },
    /// Lost below gRPC.
    Lost(String),
    /// It answered something else than expected.
    Wrong(String),
}

impl From<h2::Error> for Failure {
    fn from(error: h2::Error) -> Self {
        Self::Lost(connect::text(&error))
    }
}

const GRPC_STATUS: &str = "grpc-status";
const GRPC_MESSAGE: &str = "grpc-message";

/// A status text's octets that a report keeps.
const MESSAGE_OCTETS_MAX: usize = 200;

type Ended = Result<(), Failure>;

/// One request message, any number of responses.
pub(super) async fn one_request(
    shared: &Shared,
    sender: &mut SendRequest<Bytes>,
    judge: &mut Judge<'_>,
) -> Ended {
    let (response, mut send) = sender.send_request(shared.head.request(), false)?;
    send.send_data(shared.next_message(), true)?;
    receive(shared, response.await?, judge).await?;
    judge.end(1).map_err(Failure::Wrong)
}

pub(super) async fn client_stream(
    shared: &Shared,
    sender: &mut SendRequest<Bytes>,
    judge: &mut Judge<'_>,
    messages: u64,
) -> Ended {
    let (response, mut send) = sender.send_request(shared.head.request(), false)?;
    let request = async {
        for number in 0..messages {
            send_all(shared, &mut send, shared.message(number)).await?;
        }
        Ok(send.send_data(Bytes::new(), true)?)
    };
    // A peer may answer before it has all; where the request fails, the answer says why.
    {
        let mut answer = pin!(async { receive(shared, response.await?, judge).await });
        tokio::select! {
            biased;
            ended = &mut answer => ended,
            sent = request => {
                let ended = answer.await;
                if ended.is_ok() { sent } else { ended }
            }
        }?;
    }
    judge.end(messages).map_err(Failure::Wrong)
}

/// Each round trip's latency is told to `shared`. After the phase's deadline it ends early.
pub(super) async fn ping_pong(
    shared: &Shared,
    sender: &mut SendRequest<Bytes>,
    judge: &mut Judge<'_>,
    round_trips: u64,
) -> Ended {
    let (response, mut send) = sender.send_request(shared.head.request(), false)?;
    let mut begun = wall();
    let mut stream = Responses::Head(response);
    let mut sent = 0;
    while sent < round_trips && !shared.is_over(begun) {
        send.send_data(shared.message(sent), false)?;
        sent += 1;
        while judge.messages < sent {
            if !stream.more(shared, judge).await? {
                return stream.finish(shared, judge, sent).await;
            }
        }
        let now = wall();
        shared.round_trip(now.saturating_duration_since(begun));
        begun = now;
    }
    send.send_data(Bytes::new(), true)?;
    while stream.more(shared, judge).await? {}
    stream.finish(shared, judge, sent).await
}

/// A response whose head may come with its first message only.
enum Responses {
    Head(ResponseFuture),
    Body(Response<RecvStream>),
}

impl Responses {
    /// `false`: the body has ended.
    async fn more(&mut self, shared: &Shared, judge: &mut Judge<'_>) -> Result<bool, Failure> {
        if let Self::Head(response) = self {
            let response = response.await?;
            check_head(&response)?;
            *self = Self::Body(response);
        }
        match self {
            Self::Head(_) => Ok(false),
            Self::Body(response) => judge_data(shared, response.body_mut(), judge).await,
        }
    }

    async fn finish(self, shared: &Shared, judge: &Judge<'_>, sent: u64) -> Ended {
        let Self::Body(mut response) = self else {
            return Err(Failure::Wrong("the response has no head".to_owned()));
        };
        status(shared, &mut response).await?;
        judge.end(sent).map_err(Failure::Wrong)
    }
}

async fn receive(
    shared: &Shared,
    mut response: Response<RecvStream>,
    judge: &mut Judge<'_>,
) -> Ended {
    check_head(&response)?;
    while judge_data(shared, response.body_mut(), judge).await? {}
    status(shared, &mut response).await
}

/// gRPC over HTTP/2, "Responses".
fn check_head(response: &Response<RecvStream>) -> Ended {
    if response.status() != StatusCode::OK {
        return Err(Failure::Lost(format!("HTTP status {}", response.status().as_u16())));
    }
    let content = response.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    if !content.starts_with(b"application/grpc") {
        let content = String::from_utf8_lossy(content);
        return Err(Failure::Lost(format!("the response's content-type is {content:?}")));
    }
    Ok(())
}

/// `false`: there is no more.
async fn judge_data(
    shared: &Shared,
    body: &mut RecvStream,
    judge: &mut Judge<'_>,
) -> Result<bool, Failure> {
    let Some(data) = body.data().await.transpose()? else { return Ok(false) };
    body.flow_control().release_capacity(data.len())?;
    shared.progress();
    judge.feed(&data).map_err(Failure::Wrong)?;
    Ok(true)
}

async fn status(shared: &Shared, response: &mut Response<RecvStream>) -> Ended {
    let trailers = response.body_mut().trailers().await?;
    // Trailers-Only puts the status into the head.
    let fields = trailers.as_ref().unwrap_or_else(|| response.headers());
    let Some(value) = fields.get(GRPC_STATUS) else {
        return Err(Failure::Lost("the response ends without grpc-status".to_owned()));
    };
    let Some(code) = value.to_str().ok().and_then(|text| text.parse().ok()) else {
        return Err(Failure::Lost(format!("grpc-status is {value:?}")));
    };
    shared.status(code);
    if code == 0 { Ok(()) } else { Err(Failure::Status { code, message: message(fields) }) }
}

fn message(fields: &HeaderMap) -> String {
    let octets = fields.get(GRPC_MESSAGE).map_or(&b""[..], |value| value.as_bytes());
    let decoded = percent_decoded(&octets[..octets.len().min(MESSAGE_OCTETS_MAX)]);
    String::from_utf8_lossy(&decoded).into_owned()
}

/// gRPC over HTTP/2, "Percent-Encoded": what is no escape stays as it is.
fn percent_decoded(mut octets: &[u8]) -> Vec<u8> {
    let digit = |octet: u8| char::from(octet).to_digit(16).map(|digit| digit as u8);
    let mut decoded = Vec::with_capacity(octets.len());
    while let [first, rest @ ..] = octets {
        let escaped = match rest {
            [high, low, rest @ ..] if *first == b'%' => {
                digit(*high).zip(digit(*low)).map(|(high, low)| (high << 4 | low, rest))
            }
            _ => None,
        };
        let (octet, rest) = escaped.unwrap_or((*first, rest));
        decoded.push(octet);
        octets = rest;
    }
    decoded
}

/// Queues no more than the peer's window and the send buffer have room for.
async fn send_all(shared: &Shared, send: &mut SendStream<Bytes>, mut data: Bytes) -> Ended {
    while !data.is_empty() {
        if send.capacity() < data.len() {
            send.reserve_capacity(data.len());
        }
        while send.capacity() == 0 {
            match poll_fn(|context| send.poll_capacity(context)).await {
                Some(capacity) => capacity?,
                None => return Err(Failure::Lost("the peer takes no more of it".to_owned())),
            };
        }
        let part = data.split_to(data.len().min(send.capacity()));
        send.send_data(part, false)?;
        shared.progress();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_texts_are_percent_decoded() {
        assert_eq!(percent_decoded(b"a%20b%C3%A4"), "a bä".as_bytes());
        assert_eq!(percent_decoded(b"100%"), b"100%");
        assert_eq!(percent_decoded(b"%zz%4"), b"%zz%4");
    }
}
