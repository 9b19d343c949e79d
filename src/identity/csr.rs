//! Certificate signing requests, as daprd's sidecars send them to Sentry.
//!
//! 1. Empty subject, no names: Sentry takes the public key and nothing else
//!    (`pkg/sentry/server/ca`), and decides itself who we are.
//!
//! Where keys come from is not its business.

use rcgen::{CertificateParams, DistinguishedName, KeyPair};

/// A PEM block `CERTIFICATE REQUEST` for this key.
pub fn request(key: &KeyPair) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serialize_request(key)?.pem()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::PublicKeyData;
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::pem::parse_x509_pem;
    use x509_parser::prelude::FromDer;

    #[test]
    fn asks_for_a_key_and_names_nobody() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let pem = request(&key).unwrap();
        let (_, block) = parse_x509_pem(pem.as_bytes()).unwrap();
        assert_eq!(block.label, "CERTIFICATE REQUEST");
        let (_, read) = X509CertificationRequest::from_der(&block.contents).unwrap();
        let info = &read.certification_request_info;
        assert_eq!(info.subject.iter().count(), 0);
        assert!(read.requested_extensions().is_none_or(|mut all| all.next().is_none()));
        assert_eq!(info.subject_pki.raw, key.subject_public_key_info());
    }
}
