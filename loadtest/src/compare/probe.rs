//! Single calls and held connections, where a generator's run would be too much: the first call
//! after a start, and a thousand connections that stay while memory is read.

use crate::interrupt;
use crate::serve::message::payload;
use crate::serve::{PING_PONG, UNARY};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::Request;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// Between tries, so that a start is timed to the millisecond.
const PAUSE: Duration = Duration::from_millis(1);
/// One try; a sidecar that holds a call back while it dials has its next chance after it.
const TRY: Duration = Duration::from_millis(50);
/// Connections that are to be held, or one stream: whoever lets them wait longer takes no more.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections that are opened together: an idle sidecar answers a PING after a while.
const AT_ONCE: usize = 64;
const ECHO_OCTETS: usize = 100;
/// With gRPC's prefix.
const FRAMED_OCTETS: usize = 5 + ECHO_OCTETS;

type Metadata = [(String, Vec<u8>)];

/// Calls until the first answer, anew every millisecond.
#[expect(clippy::disallowed_methods, reason = "patience is the caller's, in real time")]
pub fn first_answer(at: SocketAddr, metadata: &Metadata, patience: Duration) -> Result<(), String> {
    let end = Instant::now() + patience;
    runtime()?.block_on(async {
        loop {
            let failed = match tokio::time::timeout(TRY, one_call(at, metadata)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => format!("no answer in {TRY:?}"),
            };
            if Instant::now() > end || interrupt::came() {
                return Err(format!("{failed}, after {patience:?} of tries"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    })
}

fn runtime() -> Result<Runtime, String> {
    Builder::new_current_thread().enable_all().build().map_err(|e| format!("no runtime: {e}"))
}

async fn one_call(at: SocketAddr, metadata: &Metadata) -> Result<(), String> {
    let (mut sender, _) = connect(at).await?;
    call(&mut sender, metadata).await
}

/// Connections and streams that stay until this is dropped.
pub struct Held {
    at: SocketAddr,
    runtime: Runtime,
    senders: Vec<SendRequest<Bytes>>,
    streams: Vec<Stream>,
}

/// One that has carried a message each way: its request is still open.
struct Stream {
    _request: SendStream<Bytes>,
    _response: RecvStream,
}

impl Held {
    pub fn none(at: SocketAddr) -> Result<Self, String> {
        Ok(Self { at, runtime: runtime()?, senders: Vec::new(), streams: Vec::new() })
    }

    /// Opens what is missing of so many connections, each of which has exchanged settings and a
    /// PING; then what is missing of so many streams, one after the other, evenly on all.
    pub fn grow(
        &mut self,
        connections: usize,
        streams: usize,
        metadata: &Metadata,
    ) -> Result<(), String> {
        while self.senders.len() < connections {
            self.go_on()?;
            let missing = (connections - self.senders.len()).min(AT_ONCE);
            let settled = within(&self.runtime, PATIENCE, several_settled(self.at, missing))?;
            self.senders.extend(settled);
        }
        while self.streams.len() < streams {
            self.go_on()?;
            let on = self.streams.len() % self.senders.len().max(1);
            let sender = self.senders.get_mut(on).ok_or("streams need a connection")?;
            let stream = within(&self.runtime, PATIENCE, stream(sender, metadata))?;
            self.streams.push(stream);
        }
        Ok(())
    }

    /// Thousands take a while: a signal ends them.
    fn go_on(&self) -> Result<(), String> {
        if interrupt::came() { Err("interrupted".to_owned()) } else { Ok(()) }
    }

    /// One call on each connection, one after the other.
    pub fn call_each(&mut self, metadata: &Metadata) -> Result<(), String> {
        let (runtime, senders) = (&self.runtime, &mut self.senders);
        senders.iter_mut().try_for_each(|sender| runtime.block_on(call(sender, metadata)))
    }
}

/// What comes of it, or that nothing did.
fn within<T>(
    runtime: &Runtime,
    patience: Duration,
    what: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let outcome = runtime.block_on(async { tokio::time::timeout(patience, what).await });
    outcome.unwrap_or_else(|_| Err(format!("no answer in {patience:?}")))
}

async fn several_settled(at: SocketAddr, count: usize) -> Result<Vec<SendRequest<Bytes>>, String> {
    let mut opening: JoinSet<_> = (0..count).map(|_| settled(at)).collect();
    let mut senders = Vec::with_capacity(count);
    while let Some(one) = opening.join_next().await {
        senders.push(one.map_err(|e| format!("a task: {e}"))??);
    }
    Ok(senders)
}

/// A connection whose settings have been exchanged: its peer has answered a PING.
async fn settled(at: SocketAddr) -> Result<SendRequest<Bytes>, String> {
    let (sender, pings) = connect(at).await?;
    if let Some(mut pings) = pings {
        pings.ping(h2::Ping::opaque()).await.map_err(|e| format!("PING: {e}"))?;
    }
    Ok(sender)
}

async fn connect(at: SocketAddr) -> Result<(SendRequest<Bytes>, Option<h2::PingPong>), String> {
    let stream = TcpStream::connect(at).await.map_err(|e| format!("connect: {e}"))?;
    stream.set_nodelay(true).map_err(|e| format!("TCP_NODELAY: {e}"))?;
    let handshake = h2::client::handshake(stream).await;
    let (sender, mut connection) = handshake.map_err(|e| format!("HTTP/2: {e}"))?;
    let pings = connection.ping_pong();
    tokio::spawn(connection);
    Ok((sender, pings))
}

fn http2(error: h2::Error) -> String {
    format!("HTTP/2: {error}")
}

fn request(path: &str, metadata: &Metadata) -> Result<Request<()>, String> {
    let mut request = Request::post(format!("http://loadtest{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in metadata {
        request = request.header(name.as_str(), value.as_slice());
    }
    request.body(()).map_err(|e| format!("metadata: {e}"))
}

fn framed() -> Bytes {
    let mut framed = BytesMut::with_capacity(FRAMED_OCTETS);
    framed.put_u8(0);
    framed.put_u32(ECHO_OCTETS as u32);
    framed.put_slice(&payload(ECHO_OCTETS));
    framed.freeze()
}

/// Opens one, and waits for the echo of its first message.
async fn stream(sender: &mut SendRequest<Bytes>, metadata: &Metadata) -> Result<Stream, String> {
    let mut request = request(PING_PONG, metadata)?;
    // Dapr asks for it where a call streams; others pass it on.
    request.headers_mut().insert("dapr-stream", http::HeaderValue::from_static("true"));
    let mut ready = sender.clone().ready().await.map_err(http2)?;
    let (response, mut sending) = ready.send_request(request, false).map_err(http2)?;
    sending.send_data(framed(), false).map_err(http2)?;
    let mut body = response.await.map_err(http2)?.into_body();
    let mut received = 0;
    while received < FRAMED_OCTETS {
        let data = body.data().await.ok_or("a stream ended by itself")?.map_err(http2)?;
        received += data.len();
        body.flow_control().release_capacity(data.len()).map_err(http2)?;
    }
    Ok(Stream { _request: sending, _response: body })
}

async fn call(sender: &mut SendRequest<Bytes>, metadata: &Metadata) -> Result<(), String> {
    let request = request(UNARY, metadata)?;
    let mut ready = sender.clone().ready().await.map_err(http2)?;
    let (response, mut sending) = ready.send_request(request, false).map_err(http2)?;
    sending.send_data(framed(), true).map_err(http2)?;
    let (head, mut body) = response.await.map_err(http2)?.into_parts();
    let mut received = 0;
    while let Some(data) = body.data().await {
        let data = data.map_err(http2)?;
        received += data.len();
        // The stream is over when this fails; its end comes next.
        let _ = body.flow_control().release_capacity(data.len());
    }
    let trailers = body.trailers().await.map_err(http2)?.unwrap_or_default();
    let last = |name| trailers.get(name).or_else(|| head.headers.get(name));
    match last("grpc-status").map(http::HeaderValue::as_bytes) {
        Some(b"0") if received == FRAMED_OCTETS => Ok(()),
        Some(b"0") => Err(format!("an echo of {received} octets")),
        Some(status) => Err(format!(
            "grpc-status {}: {}",
            String::from_utf8_lossy(status),
            String::from_utf8_lossy(last("grpc-message").map_or(b"", |text| text.as_bytes())),
        )),
        None => Err(format!("HTTP status {} without a gRPC status", head.status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A proxy that has as many connections as it takes lets the next ones connect, and no more.
    #[test]
    fn who_is_not_answered_is_told_so() {
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = silent.local_addr().expect("an address");
        let runtime = runtime().expect("a runtime");
        let told = within(&runtime, Duration::from_millis(20), settled(at)).map(|_| ());
        assert_eq!(told, Err("no answer in 20ms".to_owned()));
    }
}
