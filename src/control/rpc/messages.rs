//! The control plane's protobuf messages, written by hand from their field numbers.
//!
//! Fields that ringside neither sets nor reads are left out: protobuf skips what it does not know.

use prost::Message;
use prost_types::Timestamp;

/// `dapr.proto.sentry.v1.SignCertificateRequest`; field 3 `trust_domain` is set by control-plane
/// services only.
#[derive(Clone, PartialEq, Message)]
pub struct SignCertificateRequest {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub token: String,
    #[prost(string, tag = "4")]
    pub namespace: String,
    #[prost(bytes = "vec", tag = "5")]
    pub certificate_signing_request: Vec<u8>,
    #[prost(enumeration = "TokenValidator", tag = "6")]
    pub token_validator: i32,
}

/// `SignCertificateRequest.TokenValidator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum TokenValidator {
    Unknown = 0,
    Insecure = 1,
    Kubernetes = 2,
    Jwks = 3,
}

/// `dapr.proto.sentry.v1.SignCertificateResponse`; field 2 `trust_chain_certificates` is not
/// believed (anchors are configured), and of the JWTs in 4 and 5 nothing here has a use.
#[derive(Clone, PartialEq, Message)]
pub struct SignCertificateResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub workload_certificate: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    pub valid_until: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_their_numbers() {
        let request = SignCertificateRequest {
            id: "a".to_owned(),
            token: "t".to_owned(),
            namespace: "n".to_owned(),
            certificate_signing_request: b"c".to_vec(),
            token_validator: TokenValidator::Jwks.into(),
        };
        // Key = number << 3 | wire type (2: length-delimited, 0: varint).
        let wire = b"\x0a\x01a\x12\x01t\x22\x01n\x2a\x01c\x30\x03";
        assert_eq!(request.encode_to_vec(), wire);
        let wire = b"\x0a\x01p\x12\x01r\x1a\x04\x08\x05\x10\x07\x22\x03\x0a\x01j";
        let response = SignCertificateResponse::decode(wire.as_slice()).unwrap();
        assert_eq!(response.workload_certificate, b"p");
        assert_eq!(response.valid_until, Some(Timestamp { seconds: 5, nanos: 7 }));
    }
}
