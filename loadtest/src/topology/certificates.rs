//! Certificates of the foreign proxies: one P-256 authority, one leaf for each hop.
//!
//! Written anew for each run into its folder, for loopback only, and never read again.

use super::StartError;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use std::fs;
use std::path::{Path, PathBuf};

/// The names in the leaves, which each side demands of the other.
pub const OUTBOUND: &str = "outbound.test";
pub const INBOUND: &str = "inbound.test";

/// Paths of PEM files.
#[derive(Debug)]
pub struct Certificates {
    pub authority: PathBuf,
    pub outbound: Leaf,
    pub inbound: Leaf,
}

#[derive(Debug)]
pub struct Leaf {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Certificate and key in one file, as HAProxy wants them.
    pub both: PathBuf,
}

impl Certificates {
    pub fn write(folder: &Path) -> Result<Self, StartError> {
        fs::create_dir_all(folder).map_err(|e| StartError::file(folder, &e))?;
        let mut params = params(&[], "loadtest");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|e| failed(&e))?;
        let root = params.self_signed(&key).map_err(|e| failed(&e))?;
        let issuer = Issuer::new(params, key);
        let authority = folder.join("authority.pem");
        write(&authority, &root.pem())?;
        Ok(Self {
            authority,
            outbound: Leaf::write(folder, OUTBOUND, &issuer)?,
            inbound: Leaf::write(folder, INBOUND, &issuer)?,
        })
    }
}

impl Leaf {
    fn write(folder: &Path, name: &str, issuer: &Issuer<'_, KeyPair>) -> Result<Self, StartError> {
        let mut params = params(&[name], name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|e| failed(&e))?;
        let leaf = params.signed_by(&key, issuer).map_err(|e| failed(&e))?;
        let file = |ending: &str| folder.join(format!("{name}.{ending}"));
        let leaf_files = Self { certificate: file("crt"), key: file("key"), both: file("pem") };
        write(&leaf_files.certificate, &leaf.pem())?;
        write(&leaf_files.key, &key.serialize_pem())?;
        write(&leaf_files.both, &(leaf.pem() + &key.serialize_pem()))?;
        Ok(leaf_files)
    }
}

/// rcgen's default validity spans centuries; nobody keeps these.
fn params(names: &[&str], common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let names = names.iter().filter_map(|name| (*name).try_into().ok());
    params.subject_alt_names = names.map(rcgen::SanType::DnsName).collect();
    params
}

fn failed(error: &rcgen::Error) -> StartError {
    StartError::new(format!("cannot make a certificate: {error}"))
}

fn write(path: &Path, text: &str) -> Result<(), StartError> {
    fs::write(path, text).map_err(|e| StartError::file(path, &e))
}
