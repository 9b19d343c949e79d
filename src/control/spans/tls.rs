//! TLS towards collectors: ordinary certificates for names, judged by the system's roots.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Octets of a file of roots.
const FILE_MAX: u64 = 4 << 20;

/// `certificate`: a PEM file of roots in place of the system's.
pub(super) fn config(certificate: Option<&str>, alpn: &[u8]) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match certificate {
        Some(file) => {
            let unfit = |why: String| format!("cannot read certificates from {file}: {why}");
            let mut pem = Vec::new();
            File::open(file)
                .and_then(|file| file.take(FILE_MAX).read_to_end(&mut pem))
                .map_err(|error| unfit(error.to_string()))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| unfit(error.to_string()))?;
                roots.add(certificate).map_err(|error| unfit(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(unfit("there is none in it".to_owned()));
            }
        }
        None => {
            // Odd ones among the system's are none of ours.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                tracing::warn!(
                    "the system has no root certificates: no collector behind TLS will be trusted \
                     (install ca-certificates, or set SSL_CERT_FILE)"
                );
            }
        }
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(Arc::new(config))
}
