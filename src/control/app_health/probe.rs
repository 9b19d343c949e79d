//! One probe of an app: `HealthCheck` of a gRPC app, a GET of an HTTP app.
//!
//! 1. A gRPC app's connection is kept for the next probe, and made anew when it is lost.
//! 2. An HTTP app is healthy with any 2xx; redirects are not followed; its body is not kept.
//! 3. No token goes to the app with a probe.
//!
//! Sources: Dapr's `pkg/channel/grpc/grpc_channel.go` and `pkg/channel/http/http_channel.go`.

use crate::config::{App, AppProtocol};
use crate::control::app_channel::link::{Link, Links};
use crate::control::rpc::{Channel, ConnectError, Status, system_text};
use crate::grpc::Code;
use crate::observe::names::STATUS_NAMES;
use crate::observe::probes::ProbeKind;
use crate::snapshot::Way;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;

const HEALTH_CHECK: &str = "/dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck";

/// How a probe ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// What the series tell it under; `None`: they do not.
    pub(super) label: Option<String>,
    /// `None`: the app is well.
    pub(super) failure: Option<String>,
    /// daprd calls it an error, and logs each one.
    pub(super) is_error: bool,
}

pub(super) enum Probe {
    Grpc { authority: String, channel: Option<Channel> },
    Http { authority: String, path: String, version: Version },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    /// With prior knowledge.
    Http2,
}

impl Probe {
    pub(super) fn new(app: &App, path: &str) -> Self {
        let authority = app.authority();
        let http = |authority, version| {
            let path = format!("/{}", path.strip_prefix('/').unwrap_or(path));
            Self::Http { authority, path, version }
        };
        match app.protocol {
            AppProtocol::Grpc | AppProtocol::Grpcs => Self::Grpc { authority, channel: None },
            AppProtocol::Http | AppProtocol::Https => http(authority, Version::Http1),
            AppProtocol::H2c => http(authority, Version::Http2),
        }
    }

    pub(super) fn kind(&self) -> ProbeKind {
        match self {
            Self::Grpc { .. } => ProbeKind::Grpc,
            Self::Http { .. } => ProbeKind::Http,
        }
    }

    /// To be given up after `limit`; then [`Self::too_late`] is what came of it.
    pub(super) async fn ask(&mut self, links: &Links, way: &Way, limit: Duration) -> Outcome {
        match self {
            Self::Grpc { authority, channel } => {
                Outcome::of_grpc(check(links, way, authority, channel, limit).await)
            }
            Self::Http { authority, path, version } => {
                let got = get(links, way, authority, path, *version).await;
                Outcome::of_http(got)
            }
        }
    }

    pub(super) fn too_late(&mut self) -> Outcome {
        match self {
            Self::Grpc { channel, .. } => {
                // It may be why.
                *channel = None;
                let text = "context deadline exceeded";
                Outcome::of_grpc(Err(Status::new(Code::DeadlineExceeded, text)))
            }
            Self::Http { .. } => Outcome::of_http(Err("context deadline exceeded".to_owned())),
        }
    }
}

impl Outcome {
    fn of_grpc(checked: Result<(), Status>) -> Self {
        let code = checked.as_ref().err().map_or(0, |status| status.code);
        let label = STATUS_NAMES.get(usize::from(code)).unwrap_or(&"Unknown");
        Self {
            label: Some((*label).to_owned()),
            is_error: checked.is_err(),
            failure: checked.err().map(|status| status.to_string()),
        }
    }

    /// The status, or what the network did.
    fn of_http(got: Result<u16, String>) -> Self {
        let (status, failure) = match got {
            Ok(status @ 200..=299) => (status, None),
            Ok(status) => (status, Some(format!("Health check failed with status code: {status}"))),
            Err(why) => (500, Some(format!("Network error: {why}"))),
        };
        Self { label: Some(status.to_string()), failure, is_error: false }
    }
}

async fn check(
    links: &Links,
    way: &Way,
    authority: &str,
    kept: &mut Option<Channel>,
    limit: Duration,
) -> Result<(), Status> {
    if let Some(channel) = kept {
        let checked = channel.unary::<()>(HEALTH_CHECK, &(), limit).await;
        if checked.is_ok() || !channel.is_lost() {
            return checked;
        }
    }
    let unavailable = |error: ConnectError| Status::new(Code::Unavailable, error.to_string());
    let link =
        links.connect(way).await.map_err(|error| unavailable(ConnectError::of(way, &error)))?;
    let channel = Channel::over(link, links.scheme(), authority).await.map_err(unavailable)?;
    kept.insert(channel).unary::<()>(HEALTH_CHECK, &(), limit).await
}

/// The status of the answer, or Go's text of why there is none.
async fn get(
    links: &Links,
    way: &Way,
    authority: &str,
    path: &str,
    version: Version,
) -> Result<u16, String> {
    let url = format!("{}://{authority}{path}", links.scheme());
    let failed = |cause: String| format!("Get {url:?}: {cause}");
    let link = links.connect(way).await.map_err(|error| match error.raw_os_error() {
        Some(_) => {
            let cause = system_text(&error);
            failed(format!("dial {} {way}: connect: {cause}", way.network()))
        }
        None => failed(error.to_string()),
    })?;
    let asked = match version {
        Version::Http1 => http1(link, request(path, authority)?).await,
        Version::Http2 => http2(link, request(&url, authority)?).await,
    };
    let response = asked.map_err(|error| failed(error.to_string()))?;
    let status = response.status().as_u16();
    let mut body = response.into_body();
    // The status is what counts, whatever becomes of the rest.
    while let Some(Ok(_)) = body.frame().await {}
    Ok(status)
}

fn request(target: &str, authority: &str) -> Result<Asked, String> {
    let request = Request::get(target)
        .header("host", authority)
        .header("user-agent", concat!("ringside/", env!("CARGO_PKG_VERSION")));
    request
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("Failed to create request: {error}"))
}

type Asked = Request<Empty<Bytes>>;

async fn http1(link: Box<dyn Link>, request: Asked) -> hyper::Result<Response<Incoming>> {
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(link)).await?;
    // Ends with the sender, or its peer.
    tokio::spawn(connection);
    send.send_request(request).await
}

async fn http2(link: Box<dyn Link>, mut request: Asked) -> hyper::Result<Response<Incoming>> {
    request.headers_mut().remove("host");
    let link = TokioIo::new(link);
    let (mut send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), link).await?;
    tokio::spawn(connection);
    send.send_request(request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::Endpoint;
    use std::convert::Infallible;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU16, Ordering};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::aws_lc_rs;
    use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

    const LIMIT: Duration = Duration::from_secs(20);

    fn app(protocol: AppProtocol, address: SocketAddr) -> App {
        App::at(&address.ip().to_string(), address.port(), protocol)
    }

    async fn probe(protocol: AppProtocol, address: SocketAddr, path: &str) -> Outcome {
        let app = app(protocol, address);
        let way = Way::Tcp(Endpoint(address));
        Probe::new(&app, path).ask(&Links::for_probes(&app), &way, LIMIT).await
    }

    /// A server of HTTP, 1 or 2 as it is asked, that answers `/well` with `status`.
    async fn serve(tls: Option<TlsAcceptor>, status: Arc<AtomicU16>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let link: Box<dyn Link> = match &tls {
                    None => Box::new(stream),
                    Some(tls) => Box::new(tls.accept(stream).await.unwrap()),
                };
                let status = Arc::clone(&status);
                let answer = hyper::service::service_fn(move |request: Request<Incoming>| {
                    assert_eq!(request.method(), "GET");
                    assert!(request.headers().get("dapr-api-token").is_none());
                    let status = match request.uri().path() {
                        "/well" => status.load(Ordering::Relaxed),
                        _ => 404,
                    };
                    let body = http_body_util::Full::new(Bytes::from_static(b"words"));
                    let response = Response::builder().status(status).header("location", "/well");
                    async move { Ok::<_, Infallible>(response.body(body).unwrap()) }
                });
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                tokio::spawn(async move {
                    // How it ends is the probe's affair.
                    let _ = server.serve_connection(TokioIo::new(link), answer).await;
                });
            }
        });
        address
    }

    fn server_tls(alpn: &[&[u8]]) -> TlsAcceptor {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["nobody".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let provider = aws_lc_rs::default_provider();
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    #[tokio::test]
    async fn http_apps_are_judged_by_status() {
        for protocol in [AppProtocol::Http, AppProtocol::H2c, AppProtocol::Https] {
            let status = Arc::new(AtomicU16::new(200));
            let tls = (protocol == AppProtocol::Https).then(|| server_tls(&[]));
            let at = serve(tls, Arc::clone(&status)).await;
            // With and without a slash, as daprd.
            for (told, path, well) in [
                (200, "/well", true),
                (299, "well", true),
                (302, "/well", false),
                (500, "/well", false),
                (404, "/elsewhere", false),
            ] {
                status.store(told, Ordering::Relaxed);
                let outcome = probe(protocol, at, path).await;
                let text = format!("Health check failed with status code: {told}");
                let failure = (!well).then_some(text);
                let expected = Outcome { label: Some(told.to_string()), failure, is_error: false };
                assert_eq!(outcome, expected, "{protocol:?} {path}");
            }
        }
    }

    #[tokio::test]
    async fn who_does_not_listen_is_told_in_gos_words() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        drop(listener);
        let outcome = probe(AppProtocol::Http, at, "/healthz").await;
        let dial = format!("dial tcp {at}: connect: connection refused");
        let text = format!("Network error: Get \"http://{at}/healthz\": {dial}");
        assert_eq!((outcome.label.as_deref(), outcome.failure), (Some("500"), Some(text)));
        let outcome = probe(AppProtocol::Grpc, at, "").await;
        let text = format!(
            "rpc error: code = Unavailable desc = connection error: desc = \"transport: Error \
             while dialing: {dial}\""
        );
        assert_eq!((outcome.is_error, outcome.failure), (true, Some(text)));
        assert_eq!(outcome.label.as_deref(), Some("Unavailable"));
    }

    /// A grpcs app must choose `h2`, as for calls.
    #[tokio::test]
    async fn a_grpcs_app_speaks_http2() {
        let status = Arc::new(AtomicU16::new(200));
        let at = serve(Some(server_tls(&[])), Arc::clone(&status)).await;
        let outcome = probe(AppProtocol::Grpcs, at, "").await;
        assert!(
            outcome.failure.is_some_and(|text| text.contains("missing selected ALPN property"))
        );
        // It does, but serves no gRPC.
        let at = serve(Some(server_tls(&[b"h2"])), status).await;
        let outcome = probe(AppProtocol::Grpcs, at, "").await;
        assert!(outcome.failure.is_some_and(|text| !text.contains("ALPN")));
    }
}
