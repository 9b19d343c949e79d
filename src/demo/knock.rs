//! Knocks on a sidecar's internal port with an SVID, to see whose it is and whom it lets in.

use crate::control::rpc::client_config_as;
use crate::identity::Identity;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

const LIMIT: Duration = Duration::from_secs(3);
/// RFC 9113 §3.4: the client's preface with an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The TLS that was agreed on with the sidecar that proved to be `spiffe_id`.
///
/// With TLS 1.3 a server judges the client after the client's handshake is over, so the door is
/// open only when HTTP/2 answers.
pub async fn knock(to: SocketAddr, spiffe_id: &str, own: &Identity) -> Result<String, String> {
    let tls = client_config_as(spiffe_id.to_owned(), own).map_err(|error| error.to_string())?;
    let attempt = async {
        let stream = TcpStream::connect(to).await?;
        let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        let mut stream = TlsConnector::from(tls).connect(name, stream).await?;
        stream.write_all(PREFACE).await?;
        if stream.read(&mut [0; 9]).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let session = stream.get_ref().1;
        let version = match session.protocol_version().and_then(|version| version.as_str()) {
            Some(text) => text.replace("TLSv1_", "TLS 1."),
            None => "TLS".to_owned(),
        };
        let suite = session.negotiated_cipher_suite();
        let suite = suite.and_then(|suite| suite.suite().as_str()).unwrap_or_default();
        Ok(format!("{version}, {}", suite.trim_start_matches("TLS13_")))
    };
    let result = tokio::time::timeout(LIMIT, attempt).await;
    match result {
        Ok(result) => result.map_err(|error: io::Error| error.to_string()),
        Err(_) => Err(format!("no answer within {LIMIT:?}")),
    }
}
