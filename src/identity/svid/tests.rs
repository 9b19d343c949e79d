//! Chains made by a certificate authority of another hand (rcgen), shaped like Sentry's.

use super::*;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SignatureAlgorithm,
};

const NOW: i64 = 1_800_000_000;
const HOUR: i64 = 3600;
const ID: &str = "spiffe://public/ns/default/server";

struct Authority {
    root: CertificateDer<'static>,
    issuer_certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

fn period(params: &mut CertificateParams, not_before: i64, not_after: i64) {
    params.not_before = OffsetDateTime::from_unix_timestamp(not_before).unwrap();
    params.not_after = OffsetDateTime::from_unix_timestamp(not_after).unwrap();
}

/// Organization only, no common name, no extended key usage: as Sentry makes its own.
fn authority_params(organization: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    period(&mut params, NOW - 24 * HOUR, NOW + 24 * HOUR);
    params
}

fn leaf_params(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    period(&mut params, NOW - HOUR, NOW + HOUR);
    params
}

impl Authority {
    fn new() -> Self {
        Self::with(&rcgen::PKCS_ED25519, |_| {}, |_| {})
    }

    fn with(
        algorithm: &'static SignatureAlgorithm,
        edit_root: impl FnOnce(&mut CertificateParams),
        edit_issuer: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let mut root_params = authority_params("localhost");
        edit_root(&mut root_params);
        let root_key = key(algorithm);
        let root = root_params.self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(root_params, root_key);
        let mut params = authority_params("spiffe://localhost/ns/default/dapr-sentry");
        edit_issuer(&mut params);
        let issuer_key = key(algorithm);
        let issuer_certificate = params.signed_by(&issuer_key, &root_issuer).unwrap();
        Self {
            root: root.into(),
            issuer_certificate: issuer_certificate.into(),
            issuer: Issuer::new(params, issuer_key),
        }
    }

    fn sign(&self, params: &CertificateParams) -> CertificateDer<'static> {
        params.signed_by(&key(&rcgen::PKCS_ED25519), &self.issuer).unwrap().into()
    }

    fn anchors(&self) -> TrustAnchors {
        TrustAnchors::from_der(vec![self.root.clone()]).unwrap()
    }

    fn verify(&self, leaf: &CertificateDer<'_>) -> Result<SpiffeId, SvidError> {
        verify_at(leaf, std::slice::from_ref(&self.issuer_certificate), &self.anchors(), NOW)
    }
}

fn verify_at(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    anchors: &TrustAnchors,
    now: i64,
) -> Result<SpiffeId, SvidError> {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now.try_into().unwrap()));
    verify_peer(leaf, intermediates, anchors, now)
}

fn refusal(result: Result<SpiffeId, SvidError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn believes_a_leaf_like_sentrys_under_each_kind_of_issuer() {
    for algorithm in
        [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384]
    {
        let authority = Authority::with(algorithm, |_| {}, |_| {});
        let leaf = authority.sign(&leaf_params(ID));
        let id = authority.verify(&leaf).unwrap();
        assert_eq!(id.as_str(), ID);
        assert_eq!(id.path(), "/ns/default/server");
    }
}

#[test]
fn believes_an_rsa_issuer() {
    let authority = Authority::with(&rcgen::PKCS_RSA_SHA256, |_| {}, |_| {});
    assert_eq!(authority.verify(&authority.sign(&leaf_params(ID))).unwrap().as_str(), ID);
}

#[test]
fn the_issuer_may_itself_be_the_trust_anchor() {
    let authority = Authority::new();
    let anchors = TrustAnchors::from_der(vec![authority.issuer_certificate.clone()]).unwrap();
    let leaf = authority.sign(&leaf_params(ID));
    assert_eq!(verify_at(&leaf, &[], &anchors, NOW).unwrap().as_str(), ID);
}

#[test]
fn refuses_a_foreign_root_even_of_the_same_name() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let leaf = foreign.sign(&leaf_params(ID));
    let chain = [foreign.issuer_certificate.clone()];
    let text = refusal(verify_at(&leaf, &chain, &authority.anchors(), NOW));
    assert!(
        text.starts_with(
            "x509svid: could not verify leaf certificate: x509: certificate signed by unknown \
             authority"
        ),
        "{text}"
    );
    let other = Authority::with(
        &rcgen::PKCS_ED25519,
        |root| root.distinguished_name.push(DnType::CommonName, "another"),
        |_| {},
    );
    let leaf = other.sign(&leaf_params(ID));
    let chain = [other.issuer_certificate.clone()];
    let error = verify_at(&leaf, &chain, &authority.anchors(), NOW).unwrap_err();
    assert_eq!(error, SvidError::UnknownAuthority(None));
    // A missing intermediate is the same to the verifier.
    let leaf = authority.sign(&leaf_params(ID));
    let error = verify_at(&leaf, &[], &authority.anchors(), NOW).unwrap_err();
    assert_eq!(error, SvidError::UnknownAuthority(None));
}

#[test]
fn refuses_a_leaf_out_of_its_period() {
    let authority = Authority::new();
    let leaf = authority.sign(&leaf_params(ID));
    let chain = [authority.issuer_certificate.clone()];
    // 1_800_000_000 is 2027-01-15T08:00:00Z.
    assert_eq!(
        refusal(verify_at(&leaf, &chain, &authority.anchors(), NOW + HOUR + 1)),
        "x509svid: could not verify leaf certificate: x509: certificate has expired or is not yet \
         valid: current time 2027-01-15T09:00:01Z is after 2027-01-15T09:00:00Z"
    );
    assert_eq!(
        refusal(verify_at(&leaf, &chain, &authority.anchors(), NOW - HOUR - 1)),
        "x509svid: could not verify leaf certificate: x509: certificate has expired or is not yet \
         valid: current time 2027-01-15T06:59:59Z is before 2027-01-15T07:00:00Z"
    );
    assert!(verify_at(&leaf, &chain, &authority.anchors(), NOW + HOUR).is_ok());
}

#[test]
fn refuses_an_expired_issuer_and_an_expired_root() {
    let old = |params: &mut CertificateParams| period(params, NOW - 9 * HOUR, NOW - HOUR);
    for authority in [
        Authority::with(&rcgen::PKCS_ED25519, |_| {}, old),
        Authority::with(&rcgen::PKCS_ED25519, old, |_| {}),
    ] {
        let error = authority.verify(&authority.sign(&leaf_params(ID))).unwrap_err();
        assert!(matches!(error, SvidError::UnknownAuthority(_)), "{error}");
    }
}

#[test]
fn refuses_issuers_that_may_not_sign() {
    let plain = |params: &mut CertificateParams| params.is_ca = IsCa::ExplicitNoCa;
    let idle = |params: &mut CertificateParams| params.key_usages = vec![KeyUsagePurpose::CrlSign];
    for authority in [
        Authority::with(&rcgen::PKCS_ED25519, |_| {}, plain),
        Authority::with(&rcgen::PKCS_ED25519, plain, |_| {}),
        Authority::with(&rcgen::PKCS_ED25519, |_| {}, idle),
        Authority::with(&rcgen::PKCS_ED25519, idle, |_| {}),
    ] {
        let error = authority.verify(&authority.sign(&leaf_params(ID))).unwrap_err();
        assert!(matches!(error, SvidError::UnknownAuthority(_)), "{error}");
    }
}

#[test]
fn refuses_any_other_number_of_uris_than_one() {
    let authority = Authority::new();
    let mut params = leaf_params(ID);
    params.subject_alt_names.push(SanType::URI("spiffe://public/ns/a/b".try_into().unwrap()));
    assert_eq!(
        refusal(authority.verify(&authority.sign(&params))),
        "x509svid: could not get leaf SPIFFE ID: certificate contains more than one URI SAN"
    );
    params.subject_alt_names = vec![SanType::DnsName("server".try_into().unwrap())];
    assert_eq!(
        refusal(authority.verify(&authority.sign(&params))),
        "x509svid: could not get leaf SPIFFE ID: certificate contains no URI SAN"
    );
    params.subject_alt_names.clear();
    assert_eq!(authority.verify(&authority.sign(&params)).unwrap_err(), SvidError::NoUri);
    // A DNS name beside the one URI is allowed.
    params = leaf_params(ID);
    params.subject_alt_names.push(SanType::DnsName("server".try_into().unwrap()));
    assert_eq!(authority.verify(&authority.sign(&params)).unwrap().as_str(), ID);
}

#[test]
fn refuses_what_is_no_spiffe_id() {
    let authority = Authority::new();
    let verify = |id| refusal(authority.verify(&authority.sign(&leaf_params(id))));
    assert_eq!(
        verify("https://public/ns/default/server"),
        "x509svid: could not get leaf SPIFFE ID: scheme is missing or invalid"
    );
    assert_eq!(
        verify("spiffe://public/ns/../server"),
        "x509svid: could not get leaf SPIFFE ID: path cannot contain dot segments"
    );
}

#[test]
fn refuses_a_leaf_that_signs() {
    let authority = Authority::new();
    let mut params = leaf_params(ID);
    params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    assert_eq!(
        refusal(authority.verify(&authority.sign(&params))),
        "x509svid: leaf certificate with KeyCertSign key usage"
    );
    params.key_usages = vec![KeyUsagePurpose::CrlSign];
    assert_eq!(
        refusal(authority.verify(&authority.sign(&params))),
        "x509svid: leaf certificate with KeyCrlSign key usage"
    );
    params = leaf_params(ID);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert_eq!(
        refusal(authority.verify(&authority.sign(&params))),
        "x509svid: leaf certificate with CA flag set to true"
    );
}

#[test]
fn refuses_what_it_does_not_understand() {
    let authority = Authority::new();
    let mut params = leaf_params(ID);
    // The OID under which Sentry lists container images; critical only here.
    let arc = [1, 3, 6, 1, 4, 1, 57683, 100, 1];
    let mut extension = rcgen::CustomExtension::from_oid_content(&arc, b"\x04\x02{}".to_vec());
    params.custom_extensions.push(extension.clone());
    assert!(authority.verify(&authority.sign(&params)).is_ok());
    extension.set_criticality(true);
    params.custom_extensions = vec![extension];
    assert_eq!(
        refusal(authority.verify(&authority.sign(&params))),
        "x509svid: could not verify leaf certificate: x509: unhandled critical extension"
    );
}

#[test]
fn refuses_garbage_at_every_length() {
    let authority = Authority::new();
    let leaf = authority.sign(&leaf_params(ID));
    for length in 0..leaf.len() {
        let cut = CertificateDer::from(leaf[..length].to_vec());
        assert!(authority.verify(&cut).is_err(), "{length}");
    }
    let mut longer = leaf.to_vec();
    longer.push(0);
    let error = authority.verify(&CertificateDer::from(longer)).unwrap_err();
    assert!(matches!(error, SvidError::Malformed(_)), "{error}");
    for at in 0..leaf.len() {
        let mut flipped = leaf.to_vec();
        flipped[at] ^= 0x20;
        assert!(authority.verify(&CertificateDer::from(flipped)).is_err(), "{at}");
    }
}

#[test]
fn refuses_a_chain_without_end() {
    let authority = Authority::new();
    let leaf = authority.sign(&leaf_params(ID));
    let chain = vec![authority.issuer_certificate.clone(); CHAIN_MAX];
    let error = verify_at(&leaf, &chain, &authority.anchors(), NOW).unwrap_err();
    assert_eq!(error, SvidError::TooLong);
}

#[test]
fn reads_its_own_chain() {
    let authority = Authority::new();
    let params = leaf_params(ID);
    let leaf_key = key(&rcgen::PKCS_ED25519);
    let leaf = params.signed_by(&leaf_key, &authority.issuer).unwrap();
    let pem = leaf.pem();
    let private = PrivatePkcs8KeyDer::from(leaf_key.serialize_der());
    let anchors = Arc::new(authority.anchors());
    let identity = Identity::from_pem(pem.as_bytes(), private, anchors).unwrap();
    assert_eq!(identity.spiffe_id.as_str(), ID);
    assert_eq!(identity.chain, [CertificateDer::from(leaf)]);
    let after = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap());
    assert_eq!(identity.not_before, after(NOW - HOUR));
    assert_eq!(identity.not_after, after(NOW + HOUR));
}

#[test]
fn says_why_its_own_chain_is_none() {
    let read = |pem: &[u8]| {
        let private = PrivatePkcs8KeyDer::from(vec![]);
        Identity::from_pem(pem, private, Arc::new(Authority::new().anchors()))
    };
    assert_eq!(read(b"").unwrap_err(), ChainError::Pem(TrustError::Empty));
    let bare = authority_params("o").self_signed(&key(&rcgen::PKCS_ED25519)).unwrap();
    assert_eq!(read(bare.pem().as_bytes()).unwrap_err(), ChainError::Leaf(SvidError::NoUri));
}
