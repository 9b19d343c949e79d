//! A Sentry that gives the wrong answers, and one that gives the right one.

use super::*;
use crate::identity::svid::ChainError;
use prost_types::Timestamp;
use rcgen::{CertificateParams, SanType};

fn options(anchor: &rcgen::Certificate) -> SentryOptions {
    SentryOptions {
        address: "localhost:1".to_owned(),
        id: "a".to_owned(),
        namespace: "default".to_owned(),
        trust_anchors: Arc::new(TrustAnchors::from_pem(anchor.pem().as_bytes()).unwrap()),
        control_plane_trust_domain: "localhost".to_owned(),
        control_plane_namespace: "default".to_owned(),
        token: TokenSource::None,
    }
}

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap()
}

fn certificate(key: &KeyPair, uri: &str) -> rcgen::Certificate {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.self_signed(key).unwrap()
}

fn answer(pem: String) -> SignCertificateResponse {
    let valid_until = Some(Timestamp { seconds: 1_800_000_000, nanos: 0 });
    SignCertificateResponse { workload_certificate: pem.into_bytes(), valid_until }
}

#[test]
fn accepts_a_certificate_for_its_own_key_only() {
    let (ours, theirs) = (key(), key());
    let good = certificate(&ours, "spiffe://public/ns/default/a");
    let options = options(&good);
    let identity = accept(answer(good.pem()), &ours, &options).unwrap();
    assert_eq!(identity.spiffe_id.as_str(), "spiffe://public/ns/default/a");
    let foreign = accept(answer(good.pem()), &theirs, &options).unwrap_err();
    assert!(matches!(foreign, Failure::ForeignKey), "{foreign}");
}

#[test]
fn says_what_is_wrong_with_an_answer() {
    let ours = key();
    let good = certificate(&ours, "spiffe://public/ns/default/a");
    let options = options(&good);
    let refuse = |answer| accept(answer, &ours, &options).unwrap_err();
    let failure = refuse(answer(String::new()));
    assert!(matches!(failure, Failure::Certificate(ChainError::Pem(_))));
    assert_eq!(
        failure.to_string(),
        "error parsing newly signed certificate: no certificates found"
    );
    let failure = refuse(answer(certificate(&ours, "https://example.com").pem()));
    assert_eq!(
        failure.to_string(),
        "error parsing spiffe id from newly signed certificate: x509svid: could not get leaf \
         SPIFFE ID: scheme is missing or invalid"
    );
    let failure = refuse(SignCertificateResponse { valid_until: None, ..answer(good.pem()) });
    assert_eq!(failure.to_string(), "error parsing ValidUntil: invalid nil Timestamp");
    assert_eq!(failure.reason(), "invalid_ts");
    let valid_until = Some(Timestamp { seconds: 0, nanos: -1 });
    let failure = refuse(SignCertificateResponse { valid_until, ..answer(good.pem()) });
    assert_eq!(failure.reason(), "invalid_ts");
}

#[test]
fn repeats_what_may_pass() {
    for (code, repeated) in [(4, true), (7, false), (8, true), (13, false), (14, true)] {
        let status = Status { code, message: String::new() };
        assert_eq!(is_worth_repeating(&status), repeated, "{status}");
    }
}

#[test]
fn jitter_stays_in_its_range() {
    let base = Duration::from_millis(50);
    for _ in 0..1000 {
        let jittered = jittered(base, ATTEMPT_JITTER);
        assert!((base * 9 / 10..=base * 11 / 10).contains(&jittered), "{jittered:?}");
    }
}

#[test]
fn first_failure_reads_as_daprds() {
    let status = Status { code: 7, message: "invalid request".to_owned() };
    assert_eq!(
        SentryError(Failure::Sign(status)).to_string(),
        "failed to retrieve the initial identity: error from sentry SignCertificate: rpc error: \
         code = PermissionDenied desc = invalid request"
    );
}
