//! What Go would have said: the texts of `crypto/tls` for what ended a handshake or a session.
//!
//! Sources: Go 1.25 `crypto/tls/alert.go`, `conn.go`; grpc-go v1.82.1 `credentials/tls.go`.

use super::{Fault, HandshakeError};
use crate::io::dial::errno_text;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// grpc-go's refusal of a peer that negotiated no protocol.
const ALPN_MISSING: &str = "credentials: cannot check peer: missing selected \
     ALPN property. If you upgraded from a grpc-go version earlier than 1.67, your TLS connections \
     may have stopped working due to ALPN enforcement. For more details, see: \
     https://github.com/grpc/grpc-go/issues/434";

impl std::fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Eof => f.write_str("EOF"),
            Self::Io(error) => f.write_str(&errno_text(error)),
            Self::Tls(error) => f.write_str(&tls_text(error)),
            Self::Alpn => f.write_str(ALPN_MISSING),
        }
    }
}

fn tls_text(error: &Error) -> String {
    match error {
        // Our own verifier (`verify::refused`): go-spiffe's text.
        Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            presented, ..
        }) => presented.concat(),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "tls: first record does not look like a TLS handshake".to_owned()
        }
        Error::AlertReceived(alert) => alert_text(*alert).to_owned(),
        Error::NoCertificatesPresented => "tls: client didn't provide a certificate".to_owned(),
        Error::NoApplicationProtocol => ALPN_MISSING.to_owned(),
        other => format!("tls: {other}"),
    }
}

/// What broke a session, for a log line.
pub(in crate::io) fn failure(fault: &Fault) -> &'static str {
    match fault {
        Fault::Local(alert) => match alert {
            AlertDescription::BadRecordMac => "local error: tls: bad record MAC",
            AlertDescription::DecodeError => "local error: tls: error decoding message",
            AlertDescription::IllegalParameter => "local error: tls: illegal parameter",
            // Ours, and no peer's fault.
            AlertDescription::InternalError => "local error: tls: internal error",
            AlertDescription::RecordOverflow => "local error: tls: record overflow",
            AlertDescription::UnexpectedMessage => "local error: tls: unexpected message",
            _ => OTHER_FAILURE,
        },
        Fault::Remote(alert) | Fault::Rustls(Error::AlertReceived(alert)) => alert_text(*alert),
        Fault::Rustls(Error::DecryptError) => "local error: tls: bad record MAC",
        Fault::Rustls(Error::PeerSentOversizedRecord) => "local error: tls: record overflow",
        Fault::Rustls(_) => OTHER_FAILURE,
    }
}

const OTHER_FAILURE: &str = "tls: the peer broke the protocol";

fn alert_text(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CloseNotify => "remote error: tls: close notify",
        AlertDescription::UnexpectedMessage => "remote error: tls: unexpected message",
        AlertDescription::BadRecordMac => "remote error: tls: bad record MAC",
        AlertDescription::RecordOverflow => "remote error: tls: record overflow",
        AlertDescription::HandshakeFailure => "remote error: tls: handshake failure",
        AlertDescription::BadCertificate => "remote error: tls: bad certificate",
        AlertDescription::UnsupportedCertificate => "remote error: tls: unsupported certificate",
        AlertDescription::CertificateRevoked => "remote error: tls: revoked certificate",
        AlertDescription::CertificateExpired => "remote error: tls: expired certificate",
        AlertDescription::CertificateUnknown => "remote error: tls: unknown certificate",
        AlertDescription::IllegalParameter => "remote error: tls: illegal parameter",
        AlertDescription::UnknownCA => "remote error: tls: unknown certificate authority",
        AlertDescription::AccessDenied => "remote error: tls: access denied",
        AlertDescription::DecodeError => "remote error: tls: error decoding message",
        AlertDescription::DecryptError => "remote error: tls: error decrypting message",
        AlertDescription::ProtocolVersion => "remote error: tls: protocol version not supported",
        AlertDescription::InsufficientSecurity => "remote error: tls: insufficient security level",
        AlertDescription::InternalError => "remote error: tls: internal error",
        AlertDescription::MissingExtension => "remote error: tls: missing extension",
        AlertDescription::UnsupportedExtension => "remote error: tls: unsupported extension",
        AlertDescription::UnrecognisedName => "remote error: tls: unrecognized name",
        AlertDescription::CertificateRequired => "remote error: tls: certificate required",
        AlertDescription::NoApplicationProtocol => "remote error: tls: no application protocol",
        _ => "remote error: tls: alert",
    }
}
