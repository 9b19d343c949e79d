//! Control's own connections to the app: plain, or over TLS with whoever is there.
//!
//! 1. TLS is daprd's towards an app: 1.2 or newer, no verification, SNI where the host is a name.
//! 2. Whoever only looks whether the app is there offers no protocol (ALPN); probes of a grpcs app
//!    insist on `h2`, as calls do.

use crate::config::{App, AppProtocol};
use crate::control::rpc::NO_ALPN;
use crate::identity::AnyServer;
use crate::resolve::Endpoint;
use crate::snapshot::Way;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, Error};

/// One connection.
pub trait Link: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Link for T {}

/// Connected, and nothing else.
pub async fn reach(way: &Way) -> io::Result<Box<dyn Link>> {
    Ok(match way {
        Way::Tcp(Endpoint(address)) => Box::new(TcpStream::connect(address).await?),
        Way::Unix(path) => Box::new(UnixStream::connect(path.for_kernel()).await?),
    })
}

/// How connections to one app are made.
pub struct Links {
    host: String,
    /// `None`: the app speaks without TLS.
    tls: Option<Result<TlsConnector, Error>>,
    /// The peer must choose it.
    alpn: Option<&'static [u8]>,
}

impl Links {
    pub fn new(app: &App) -> Self {
        Self::offering(app, None)
    }

    /// For [`super::super::app_health`].
    pub fn for_probes(app: &App) -> Self {
        let h2 = app.protocol == AppProtocol::Grpcs;
        Self::offering(app, h2.then_some(&b"h2"[..]))
    }

    fn offering(app: &App, alpn: Option<&'static [u8]>) -> Self {
        let tls = match app.protocol {
            AppProtocol::Https | AppProtocol::Grpcs => Some(anybody(alpn).map(TlsConnector::from)),
            AppProtocol::Http | AppProtocol::H2c | AppProtocol::Grpc => None,
        };
        Self { host: app.host().to_owned(), tls, alpn }
    }

    /// Of URLs on these connections.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Connected and, where the app has TLS, past the handshake.
    pub async fn connect(&self, way: &Way) -> io::Result<Box<dyn Link>> {
        let stream = reach(way).await?;
        match &self.tls {
            None => Ok(stream),
            Some(Err(error)) => Err(io::Error::other(error.clone())),
            Some(Ok(connector)) => {
                // No SNI goes out for an address (RFC 6066 §3).
                let ip = way.address().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |at| at.ip());
                let name = ServerName::try_from(self.host.clone())
                    .unwrap_or_else(|_| ServerName::from(ip));
                let stream = connector.connect(name, stream).await?;
                if self.alpn.is_some() && stream.get_ref().1.alpn_protocol() != self.alpn {
                    return Err(io::Error::other(NO_ALPN));
                }
                Ok(Box::new(stream))
            }
        }
    }
}

fn anybody(alpn: Option<&'static [u8]>) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let anyone = Arc::new(AnyServer(provider.signature_verification_algorithms));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(anyone)
        .with_no_client_auth();
    config.alpn_protocols = alpn.into_iter().map(<[u8]>::to_vec).collect();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
