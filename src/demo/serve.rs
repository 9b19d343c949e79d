//! A small gRPC server over the h2 crate: what the Greeter and the certificate authority stand on.
//!
//! 1. It serves until it is dropped; its connections end with it.
//! 2. At most [`CONNECTIONS_MAX`] connections at once; further ones wait in the listen queue.

use super::wire::{Reader, Writer};
use crate::control::rpc::Status;
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

const CONNECTIONS_MAX: usize = 1024;
const STREAMS_MAX: u32 = 1000;
/// After a failed accept, so that a lack of descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// One call, as its service sees it.
#[derive(Debug)]
pub struct Call {
    pub path: String,
    pub fields: HeaderMap,
    pub reader: Reader,
    pub writer: Writer,
}

/// Answers calls. It must end each with [`Writer::end`]; a call that it drops is reset.
pub trait Service: Send + Sync + 'static {
    fn call(self: Arc<Self>, call: Call) -> impl Future<Output = ()> + Send;
}

/// Accepts until dropped; over TLS with an acceptor, else in clear.
pub async fn serve<S: Service>(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    service: Arc<S>,
) {
    let mut connections = JoinSet::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        // Accepting fails for connections that are gone already, or for want of descriptors.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (acceptor, service) = (acceptor.clone(), Arc::clone(&service));
        connections.spawn(async move {
            // A peer that misbehaves ends its own connection only.
            let _ = connection(stream, acceptor, service).await;
            drop(permit);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn connection<S: Service>(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    service: Arc<S>,
) -> io::Result<()> {
    match acceptor {
        None => calls(stream, service).await,
        Some(acceptor) => {
            let stream = tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await??;
            calls(stream, service).await
        }
    }
}

async fn calls<S: Service, T: AsyncRead + AsyncWrite + Unpin>(
    stream: T,
    service: Arc<S>,
) -> io::Result<()> {
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .handshake(stream)
        .await
        .map_err(io::Error::other)?;
    let mut running = JoinSet::new();
    while let Some(request) = connection.accept().await {
        let (request, respond) = request.map_err(io::Error::other)?;
        if let Ok(call) = open(request, respond) {
            running.spawn(Arc::clone(&service).call(call));
        }
        while running.try_join_next().is_some() {}
    }
    Ok(())
}

fn open(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Result<Call, h2::Error> {
    let (head, body) = request.into_parts();
    let mut response = Response::new(());
    let kind = http::HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", kind);
    let stream = respond.send_response(response, false)?;
    Ok(Call {
        path: head.uri.path().to_owned(),
        fields: head.headers,
        reader: Reader::new(body),
        writer: Writer::new(stream),
    })
}

impl Call {
    /// For a path that the service does not know.
    pub fn unimplemented(self) {
        let message = format!("unknown method {}", self.path);
        self.writer.end(Err(Status::new(crate::grpc::Code::Unimplemented, message)));
    }
}
