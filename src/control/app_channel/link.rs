//! Control's own connections to the app: plain, or over TLS with whoever is there.
//!
//! 1. TLS is daprd's towards an app: 1.2 or newer, no verification, SNI where the host is a name.
//! 2. No protocol is offered (ALPN): whether the app speaks HTTP/2 is seen when calls come.

use crate::config::{App, AppProtocol};
use crate::identity::AnyServer;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, Error};

/// One connection.
pub trait Link: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Link for T {}

/// How connections to one app are made.
pub struct Links {
    host: String,
    /// `None`: the app speaks without TLS.
    tls: Option<Result<TlsConnector, Error>>,
}

impl Links {
    pub fn new(app: &App) -> Self {
        let tls = match app.protocol {
            AppProtocol::Https | AppProtocol::Grpcs => Some(anybody().map(TlsConnector::from)),
            AppProtocol::Http | AppProtocol::H2c | AppProtocol::Grpc => None,
        };
        Self { host: app.host.clone(), tls }
    }

    /// Connected and, where the app has TLS, past the handshake.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<Box<dyn Link>> {
        let stream = TcpStream::connect(address).await?;
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some(Err(error)) => Err(io::Error::other(error.clone())),
            Some(Ok(connector)) => {
                // No SNI goes out for an address (RFC 6066 §3).
                let name = ServerName::try_from(self.host.clone())
                    .unwrap_or_else(|_| ServerName::from(address.ip()));
                Ok(Box::new(connector.connect(name, stream).await?))
            }
        }
    }
}

fn anybody() -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let anyone = Arc::new(AnyServer(provider.signature_verification_algorithms));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(anyone)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
