//! gRPC to the control plane, the app, collectors: unary calls over the h2 crate, tokio and
//! rustls.
//!
//! 1. Always TLS with ALPN `h2` to the control plane; the server proves an exact SPIFFE ID, no name
//!    is checked, and no session is resumed: each connection is a full handshake.
//! 2. A call ends within its limit, and its response is never longer than [`MESSAGE_MAX`].
//! 3. Dropping the channel closes the connection.
//!
//! The datapath never comes here (ADR 0021). Which calls are worth repeating is the caller's
//! question.

mod call;
pub mod messages;
mod tls;

pub use call::{Framed, Status};
pub use tls::{NO_ALPN, client_config, client_config_as};

use crate::resolve::Endpoint;
use crate::snapshot::Way;
use bytes::Bytes;
use h2::client::SendRequest;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// The longest response: grpc-go's default.
pub const MESSAGE_MAX: usize = 4 << 20;
/// Octets of one response's fields.
const FIELDS_MAX: u32 = 64 << 10;
/// From the first SYN to HTTP/2's preface: grpc-go's `minConnectTimeout`.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// Of a name's addresses, how many are tried.
const ADDRESSES_MAX: usize = 16;

/// Where a control-plane service listens, as daprd's flags say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

/// One connection.
#[derive(Debug)]
pub struct Channel {
    send: SendRequest<Bytes>,
    scheme: &'static str,
    authority: String,
    driver: JoinHandle<()>,
}

/// Why there is no connection. `Display` reads like grpc-go's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectError {
    Lookup { host: String, cause: String },
    Dial { to: Way, cause: String },
    Handshake(String),
    TimedOut,
}

impl Address {
    /// `host:port`, with or without the scheme `dns` or `passthrough` of gRPC's target syntax.
    pub fn parse(text: &str) -> Option<Self> {
        let schemes = ["passthrough:///", "passthrough:", "dns:///", "dns:"];
        let rest = schemes.iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
        let (host, port) = rest.rsplit_once(':')?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']')?,
            None if host.contains(':') => return None,
            None => host,
        };
        if host.is_empty() {
            return None;
        }
        Some(Self { host: host.to_owned(), port: port.parse().ok()? })
    }
}

impl Channel {
    /// Tries each address of the name in turn.
    pub async fn connect(address: &Address, tls: &Arc<ClientConfig>) -> Result<Self, ConnectError> {
        let limited = tokio::time::timeout(CONNECT_LIMIT, Self::connect_slowly(address, tls));
        limited.await.unwrap_or(Err(ConnectError::TimedOut))
    }

    /// The same without TLS.
    pub async fn connect_plainly(address: &Address) -> Result<Self, ConnectError> {
        let connecting = async {
            let stream = dial(address).await?;
            let _ = stream.set_nodelay(true);
            Self::over(stream, "http", &address.to_string()).await
        };
        let limited = tokio::time::timeout(CONNECT_LIMIT, connecting);
        limited.await.unwrap_or(Err(ConnectError::TimedOut))
    }

    async fn connect_slowly(
        address: &Address,
        tls: &Arc<ClientConfig>,
    ) -> Result<Self, ConnectError> {
        let stream = dial(address).await?;
        // Control messages are small and each is waited for.
        let _ = stream.set_nodelay(true);
        let name = ServerName::try_from(address.host.clone())
            // Verification asks for a SPIFFE ID only, so a host that is no DNS name will do.
            .unwrap_or(ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()));
        let stream = TlsConnector::from(Arc::clone(tls))
            .connect(name, stream)
            .await
            .map_err(|error| ConnectError::Handshake(tls::cause(&error)))?;
        if stream.get_ref().1.alpn_protocol() != Some(tls::ALPN) {
            return Err(ConnectError::Handshake(NO_ALPN.to_owned()));
        }
        Self::over(stream, "https", &address.to_string()).await
    }

    /// The connection is over.
    pub fn is_lost(&self) -> bool {
        self.driver.is_finished()
    }

    /// HTTP/2 on a connection that stands.
    pub async fn over<S>(
        stream: S,
        scheme: &'static str,
        authority: &str,
    ) -> Result<Self, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (send, connection) = h2::client::Builder::new()
            .max_header_list_size(FIELDS_MAX)
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(|error| ConnectError::Handshake(error.to_string()))?;
        // Its end is noticed by the calls on it.
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self { send, scheme, authority: authority.to_owned(), driver })
    }
}

impl ConnectError {
    /// Whoever connected by other means.
    pub fn of(to: &Way, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(_) => Self::Dial { to: to.clone(), cause: system_text(error) },
            None => Self::Handshake(tls::cause(error)),
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn dial(address: &Address) -> Result<TcpStream, ConnectError> {
    let lookup = |cause: String| ConnectError::Lookup { host: address.host.clone(), cause };
    let found = tokio::net::lookup_host((address.host.as_str(), address.port))
        .await
        .map_err(|error| lookup(error.to_string()))?;
    let mut failure = lookup("no addresses".to_owned());
    for to in found.take(ADDRESSES_MAX) {
        match TcpStream::connect(to).await {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                failure = ConnectError::of(&Way::Tcp(Endpoint(to)), &error);
            }
        }
    }
    Err(failure)
}

/// As Go prints an errno: lower case, without the number.
pub fn system_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection error: desc = \"transport: ")?;
        match self {
            Self::Lookup { host, cause } => {
                write!(f, "Error while dialing: dial tcp: lookup {host}: {cause}")
            }
            Self::Dial { to, cause } => {
                write!(f, "Error while dialing: dial {} {to}: connect: {cause}", to.network())
            }
            Self::Handshake(cause) => write!(f, "authentication handshake failed: {cause}"),
            Self::TimedOut => write!(f, "no connection within {CONNECT_LIMIT:?}"),
        }?;
        f.write_str("\"")
    }
}

impl std::error::Error for ConnectError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_as_grpc_targets() {
        let text = |given| Address::parse(given).map(|address| address.to_string());
        for given in ["localhost:50001", "dns:///localhost:50001", "passthrough:localhost:50001"] {
            assert_eq!(text(given).as_deref(), Some("localhost:50001"), "{given}");
        }
        assert_eq!(text("[::1]:80").as_deref(), Some("[::1]:80"));
        for wrong in ["", "localhost", "localhost:", ":1", "::1:80", "a:65536", "[::1:80"] {
            assert_eq!(text(wrong), None, "{wrong}");
        }
    }
}
