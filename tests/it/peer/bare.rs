//! Requests below gRPC: bare HTTP/2 through the `h2` crate, and bare bytes.

use super::process::PATIENCE;
use super::sidecar::loopback;
use bytes::Bytes;
use http::{HeaderMap, Request};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub header: HeaderMap,
    pub body: Vec<u8>,
    pub trailer: HeaderMap,
}

impl Answer {
    /// A field of the trailers, or of the header when there are none (trailers-only).
    pub fn last(&self, name: &str) -> &str {
        let value = self.trailer.get(name).or_else(|| self.header.get(name));
        value.and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// One HTTP/2 request with `body`, on a connection of its own.
pub fn exchange(port: u16, request: Request<()>, body: &[u8]) -> Result<Answer, h2::Error> {
    let body = Bytes::copy_from_slice(body);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async move {
        tokio::time::timeout(PATIENCE, answer(port, request, body)).await.expect("an answer")
    })
}

async fn answer(port: u16, request: Request<()>, body: Bytes) -> Result<Answer, h2::Error> {
    let stream = tokio::net::TcpStream::connect(loopback(port)).await.expect("the port accepts");
    let (client, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let mut client = client.ready().await?;
    let (response, mut sending) = client.send_request(request, body.is_empty())?;
    if !body.is_empty() {
        sending.send_data(body, true)?;
    }
    let response = response.await?;
    let (head, mut incoming) = response.into_parts();
    let mut body = Vec::new();
    while let Some(data) = incoming.data().await {
        let data = data?;
        incoming.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    let trailer = incoming.trailers().await?.unwrap_or_default();
    Ok(Answer { status: head.status.as_u16(), header: head.headers, body, trailer })
}

/// Sends `bytes` and reads until the other side closes; `None` when it never does.
pub fn converse(port: u16, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(loopback(port)).expect("the port accepts");
    stream.set_read_timeout(Some(Duration::from_secs(15))).expect("a read timeout");
    // The other side may close before it took everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Some(answer),
            Ok(n) => answer.extend_from_slice(buffer.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Some(answer),
            Err(_) => return None,
        }
    }
}
