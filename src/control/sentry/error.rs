//! Ways not to get an identity, in daprd's words.

use super::super::rpc::Status;
use crate::identity::svid::ChainError;
use std::fmt;

/// No first identity: the process cannot start. daprd logs it after `Fatal error from runtime: `.
#[derive(Debug)]
pub struct SentryError(pub Failure);

/// One request that failed.
#[derive(Debug)]
pub enum Failure {
    Key(rcgen::Error),
    Csr(rcgen::Error),
    /// What is configured can never lead to Sentry.
    Connect(String),
    Token(String),
    Sign(Status),
    ValidUntil(&'static str),
    Certificate(ChainError),
    /// The certificate is not for the key that it was asked for.
    ForeignKey,
}

impl Failure {
    /// The label `reason` of `dapr_runtime_mtls_workload_cert_rotated_fail_total`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connect(_) => "sentry_conn",
            Self::Token(_) => "sentry_token",
            Self::ValidUntil(_) => "invalid_ts",
            Self::Sign(_)
            | Self::Key(_)
            | Self::Csr(_)
            | Self::Certificate(_)
            | Self::ForeignKey => "sign",
        }
    }
}

impl fmt::Display for SentryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to retrieve the initial identity: {}", self.0)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(error) => write!(f, "failed to generate private key: {error}"),
            Self::Csr(error) => write!(f, "failed to create sidecar csr: {error}"),
            Self::Connect(cause) => write!(f, "error establishing connection to sentry: {cause}"),
            Self::Token(cause) => write!(f, "error obtaining token: {cause}"),
            Self::Sign(status) => write!(f, "error from sentry SignCertificate: {status}"),
            Self::ValidUntil(cause) => write!(f, "error parsing ValidUntil: {cause}"),
            Self::Certificate(ChainError::Pem(error)) => {
                write!(f, "error parsing newly signed certificate: {error}")
            }
            Self::Certificate(ChainError::Leaf(error)) => {
                write!(f, "error parsing spiffe id from newly signed certificate: {error}")
            }
            Self::ForeignKey => {
                f.write_str("the newly signed certificate is not for the key it was asked for")
            }
        }
    }
}

impl std::error::Error for SentryError {}
impl std::error::Error for Failure {}
