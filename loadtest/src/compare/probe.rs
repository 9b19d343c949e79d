//! Single calls and held connections, where a generator's run would be too much: the first call
//! after a start, and a thousand connections that stay while memory is read.

use crate::interrupt;
use crate::serve::UNARY;
use crate::serve::message::payload;
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::Request;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

/// Between tries, so that a start is timed to the millisecond.
const PAUSE: Duration = Duration::from_millis(1);
/// One try; a sidecar that holds a call back while it dials has its next chance after it.
const TRY: Duration = Duration::from_millis(50);
const ECHO_OCTETS: usize = 100;

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

/// Connections that stay until this is dropped.
pub struct Held {
    runtime: Runtime,
    senders: Vec<SendRequest<Bytes>>,
}

impl Held {
    /// Opens `count`, one after the other; each has exchanged settings and a PING.
    pub fn open(at: SocketAddr, count: usize) -> Result<Self, String> {
        let runtime = runtime()?;
        let mut senders = Vec::with_capacity(count);
        for _ in 0..count {
            senders.push(runtime.block_on(settled(at))?);
        }
        Ok(Self { runtime, senders })
    }

    /// One call on each, one after the other.
    pub fn call_each(&mut self, metadata: &Metadata) -> Result<(), String> {
        let (runtime, senders) = (&self.runtime, &mut self.senders);
        senders.iter_mut().try_for_each(|sender| runtime.block_on(call(sender, metadata)))
    }
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

async fn call(sender: &mut SendRequest<Bytes>, metadata: &Metadata) -> Result<(), String> {
    let http2 = |e: h2::Error| format!("HTTP/2: {e}");
    let mut request = Request::post(format!("http://loadtest{UNARY}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in metadata {
        request = request.header(name.as_str(), value.as_slice());
    }
    let request = request.body(()).map_err(|e| format!("metadata: {e}"))?;
    let message = payload(ECHO_OCTETS);
    let mut framed = BytesMut::with_capacity(5 + ECHO_OCTETS);
    framed.put_u8(0);
    framed.put_u32(ECHO_OCTETS as u32);
    framed.put_slice(&message);
    let mut ready = sender.clone().ready().await.map_err(http2)?;
    let (response, mut sending) = ready.send_request(request, false).map_err(http2)?;
    sending.send_data(framed.freeze(), true).map_err(http2)?;
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
        Some(b"0") if received == 5 + ECHO_OCTETS => Ok(()),
        Some(b"0") => Err(format!("an echo of {received} octets")),
        Some(status) => Err(format!(
            "grpc-status {}: {}",
            String::from_utf8_lossy(status),
            String::from_utf8_lossy(last("grpc-message").map_or(b"", |text| text.as_bytes())),
        )),
        None => Err(format!("HTTP status {} without a gRPC status", head.status)),
    }
}
