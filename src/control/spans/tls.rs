//! TLS towards collectors: ordinary certificates for names, judged by the system's roots; and ours,
//! where one asks who we are.

use crate::config::traces::{ClientFiles, TlsFiles};
use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Octets of a file.
const FILE_MAX: u64 = 4 << 20;

pub(super) fn config(files: &TlsFiles, alpn: &[u8]) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match &files.roots {
        Some(file) => {
            for certificate in certificates(file)? {
                let added = roots.add(certificate);
                added.map_err(|error| format!("cannot read certificates from {file}: {error}"))?;
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
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let mut config = match &files.client {
        None => builder.with_no_client_auth(),
        Some(ClientFiles { certificate, key }) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|error| format!("{certificate} and {key} do not fit: {error}"))?,
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(Arc::new(config))
}

/// At least one.
fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let unfit = |why: String| format!("cannot read certificates from {file}: {why}");
    let pem = contents(file).map_err(unfit)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| unfit(error.to_string()))?;
    match found.is_empty() {
        true => Err(unfit("there is none in it".to_owned())),
        false => Ok(found),
    }
}

fn private_key(file: &str) -> Result<PrivateKeyDer<'static>, String> {
    let unfit = |why: String| format!("cannot read a key from {file}: {why}");
    let pem = contents(file).map_err(unfit)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| unfit(error.to_string()))
}

fn contents(file: &str) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    let read = File::open(file).and_then(|file| file.take(FILE_MAX).read_to_end(&mut octets));
    read.map(|_| octets).map_err(|error| error.to_string())
}
