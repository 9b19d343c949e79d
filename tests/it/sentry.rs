//! Identities from a real Sentry.

use crate::peer::process::PATIENCE;
use crate::peer::{Sentry, World};
use ringside::control::sentry::{self, SentryError, SentryOptions, TokenSource};
use ringside::identity::{Identity, TrustAnchors, verify_peer};
use rustls_pki_types::UnixTime;
use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub fn options(address: String, anchors: &str, id: &str) -> SentryOptions {
    SentryOptions {
        address,
        id: id.to_owned(),
        namespace: "default".to_owned(),
        trust_anchors: Arc::new(TrustAnchors::from_pem(anchors.as_bytes()).unwrap()),
        control_plane_trust_domain: "localhost".to_owned(),
        control_plane_namespace: "default".to_owned(),
        token: TokenSource::None,
    }
}

/// Runs to the end, or fails when patience does.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("in time") })
}

fn of(sentry: &Sentry, id: &str) -> SentryOptions {
    options(format!("localhost:{}", sentry.port), &sentry.anchors, id)
}

fn fetch(options: &SentryOptions) -> Result<Identity, SentryError> {
    run(sentry::fetch(options))
}

#[test]
fn real_sentry_gives_an_identity_that_verifies() {
    let world = World::with_sentry("sentry-fetch");
    let options = of(world.sentry.as_ref().unwrap(), "server");
    let before = SystemTime::now();
    let identity = fetch(&options).unwrap();
    assert_eq!(identity.spiffe_id.as_str(), "spiffe://public/ns/default/server");
    let (leaf, issuers) = identity.chain.split_first().unwrap();
    assert!(!issuers.is_empty(), "the issuer is in the chain");
    let id = verify_peer(leaf, issuers, &options.trust_anchors, UnixTime::now()).unwrap();
    assert_eq!(id, identity.spiffe_id);
    // Sentry's defaults: backdated by 15 minutes, valid for 24 hours.
    let minutes = |n: u64| Duration::from_secs(60 * n);
    assert!(identity.not_before < before - minutes(14));
    assert!(identity.not_after > before + minutes(24 * 60 - 1));
    // Each request is for a key of its own.
    let second = fetch(&options).unwrap();
    assert_ne!(second.key.secret_pkcs8_der(), identity.key.secret_pkcs8_der());
}

#[test]
fn real_sentrys_refusal_ends_the_start() {
    let world = World::with_sentry("sentry-refusal");
    let options = of(world.sentry.as_ref().unwrap(), &"x".repeat(65));
    let text = fetch(&options).unwrap_err().to_string();
    let expected = "failed to retrieve the initial identity: error from sentry SignCertificate: \
                    rpc error: code = PermissionDenied desc = ";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn short_certificates_of_a_real_sentry_are_renewed() {
    let world = World::new("sentry-renewal");
    let spec = "mtls: {enabled: true, workloadCertTTL: 4s, allowedClockSkew: 0s}";
    let sentry = Sentry::start_with(&world.folder("sentry"), spec);
    let options = of(&sentry, "server");
    let first = Arc::new(fetch(&options).unwrap());
    let renewed = RefCell::new(Vec::new());
    run(async {
        let publish = |identity| renewed.borrow_mut().push(identity);
        let rotation = sentry::rotate(&options, Arc::clone(&first), publish, |reason| {
            panic!("a renewal failed: {reason}")
        });
        let twice = async {
            while renewed.borrow().len() < 2 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! { () = rotation => {}, () = twice => {} }
    });
    let mut all = vec![first];
    all.extend(renewed.into_inner());
    for pair in all.windows(2) {
        assert!(pair[1].not_before > pair[0].not_before);
        assert!(pair[1].not_before < pair[0].not_after, "there is no gap");
        assert_ne!(pair[1].key.secret_pkcs8_der(), pair[0].key.secret_pkcs8_der());
    }
}
