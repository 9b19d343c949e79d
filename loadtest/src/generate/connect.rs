//! One connection: TCP, HTTP/2 with prior knowledge, and one PING, so that settings are known and
//! a peer that speaks something else is found before the clock starts.
//!
//! Refuses to know calls.

use super::RunError;
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, Reason};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Windows that no workload waits for.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;

/// For the connection and its first PING each.
const OPEN_MAX: Duration = Duration::from_secs(5);

/// The connection's own task goes to `tasks`; it ends when its last `SendRequest` is dropped.
pub(super) async fn open(
    target: SocketAddr,
    tasks: &mut JoinSet<()>,
) -> Result<SendRequest<Bytes>, RunError> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer within 5 s");
    let connected = timeout(OPEN_MAX, TcpStream::connect(target)).await;
    let stream = connected
        .unwrap_or_else(|_| Err(late()))
        .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
        .map_err(|error| RunError::Connect { target, error })?;
    let refused = |error: String| RunError::Handshake { target, error };
    let handshake = h2::client::Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(stream);
    let (sender, mut connection) = handshake.await.map_err(|error| refused(text(&error)))?;
    let mut ping = connection.ping_pong().expect("asked for once");
    tasks.spawn_local(async move {
        // Its calls are told by themselves.
        let _ = connection.await;
    });
    match timeout(OPEN_MAX, ping.ping(Ping::opaque())).await {
        Ok(Ok(_)) => Ok(sender),
        Ok(Err(error)) => Err(refused(text(&error))),
        Err(_) => Err(refused(late().to_string())),
    }
}

/// In words that are the same for every call that a cause hits.
pub(super) fn text(error: &h2::Error) -> String {
    let reason = || error.reason().map_or_else(|| "no reason".to_owned(), name);
    let by = if error.is_remote() { "peer" } else { "client" };
    if let Some(error) = error.get_io() {
        format!("connection lost: {error}")
    } else if error.is_go_away() {
        format!("connection ended by the {by}'s GOAWAY: {}", reason())
    } else if error.is_reset() {
        format!("stream reset by the {by}: {}", reason())
    } else {
        format!("HTTP/2: {error}")
    }
}

/// As in RFC 9113 §7.
fn name(code: Reason) -> String {
    format!("{code:?}")
}
