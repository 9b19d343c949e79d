//! Requests to collectors over HTTP/1.1.
//!
//! 1. A connection is kept for the next request, and made anew when it is lost; what was lost with
//!    it before an answer began is sent once more.
//! 2. An answer's body is kept up to [`BODY_MAX`]; a longer one costs the connection.
//! 3. Time is the caller's: a request that is given up takes its connection along.

use super::tls;
use crate::config::traces::{TlsFiles, Url};
use bytes::Bytes;
use data_encoding::BASE64;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderName, HeaderValue};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// Octets of an answer.
const BODY_MAX: usize = 64 << 10;
pub(super) const AGENT: &str = concat!("ringside/", env!("CARGO_PKG_VERSION"));

pub(super) struct Client {
    url: Url,
    /// Iff the URL says so.
    tls: Option<Arc<ClientConfig>>,
    kept: Option<SendRequest<Full<Bytes>>>,
}

pub(super) struct Request<'a> {
    pub(super) content_type: &'static str,
    pub(super) headers: &'a [(HeaderName, HeaderValue)],
    /// Of the body.
    pub(super) gzip: bool,
    pub(super) body: Bytes,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: Option<HeaderValue>,
    pub(super) retry_after: Option<HeaderValue>,
    pub(super) body: Bytes,
}

impl Client {
    pub(super) fn new(url: Url, files: &TlsFiles) -> Result<Self, String> {
        let tls = match url.tls {
            true => Some(tls::config(files, b"http/1.1")?),
            false => None,
        };
        Ok(Self { url, tls, kept: None })
    }

    pub(super) async fn post(&mut self, request: Request<'_>) -> Result<Answer, String> {
        let request = self.request(request).map_err(|error| error.to_string())?;
        if let Some(mut kept) = self.kept.take().filter(|kept| !kept.is_closed())
            && kept.ready().await.is_ok()
        {
            match kept.try_send_request(request.clone()).await {
                Ok(response) => return self.read(response, kept).await,
                // The other side may close a connection at any time.
                Err(error)
                    if error.message().is_some() || error.error().is_incomplete_message() => {}
                Err(error) => return Err(error.into_error().to_string()),
            }
        }
        let mut fresh = self.connect().await?;
        let sent = fresh.send_request(request).await;
        let response = sent.map_err(|error| format!("request failed: {error}"))?;
        self.read(response, fresh).await
    }

    fn request(&self, request: Request<'_>) -> Result<http::Request<Full<Bytes>>, http::Error> {
        let Request { content_type, headers, gzip, body } = request;
        let mut built = http::Request::post(&self.url.path)
            .header(HOST, self.url.authority())
            .header(CONTENT_TYPE, content_type)
            .header(USER_AGENT, AGENT);
        if let Some(user) = &self.url.user {
            built =
                built.header(AUTHORIZATION, format!("Basic {}", BASE64.encode(user.as_bytes())));
        }
        if gzip {
            built = built.header(CONTENT_ENCODING, "gzip");
        }
        for (name, value) in headers {
            built = built.header(name, value);
        }
        built.body(Full::new(body))
    }

    async fn read(
        &mut self,
        response: http::Response<hyper::body::Incoming>,
        connection: SendRequest<Full<Bytes>>,
    ) -> Result<Answer, String> {
        let (head, body) = response.into_parts();
        let field = |name: &str| head.headers.get(name).cloned();
        let (content_type, retry_after) = (field("content-type"), field("retry-after"));
        let body = match Limited::new(body, BODY_MAX).collect().await {
            Ok(body) => {
                self.kept = Some(connection);
                body.to_bytes()
            }
            // The status says enough.
            Err(_) => Bytes::new(),
        };
        Ok(Answer { status: head.status.as_u16(), content_type, retry_after, body })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let (host, port) = (self.url.host.as_str(), self.url.port);
        let stream = TcpStream::connect((host, port))
            .await
            .map_err(|error| format!("cannot connect: {error}"))?;
        // A batch is one write, and is waited for.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return shaken(stream).await };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{host:?} is no name that a certificate can have"))?;
        let stream = TlsConnector::from(Arc::clone(tls))
            .connect(name, stream)
            .await
            .map_err(|error| format!("TLS handshake failed: {error}"))?;
        shaken(stream).await
    }
}

async fn shaken<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // It ends with the sender, or with the other side, which the next request notices.
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without its user.
        let scheme = if self.url.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.url.authority(), self.url.path)
    }
}
