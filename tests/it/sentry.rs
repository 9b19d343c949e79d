//! Identities from a real Sentry, and from the development certificate authority where the real
//! one cannot be made to misbehave.

use crate::peer::process::PATIENCE;
use crate::peer::{Sentry, World};
use ringside::control::rpc::{Address, Channel, Status, client_config};
use ringside::control::sentry::{self, SentryError, SentryOptions, TokenSource};
use ringside::demo::authority::{Authority, Terms};
use ringside::demo::serve::{Call, Service, serve};
use ringside::grpc::Code;
use ringside::identity::{Identity, TrustAnchors, verify_peer};
use rustls_pki_types::UnixTime;
use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;

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
    run_within(PATIENCE, future)
}

pub fn run_within<T>(patience: Duration, future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(patience, future).await.expect("in time") })
}

pub fn of(sentry: &Sentry, id: &str) -> SentryOptions {
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

const HOUR: Duration = Duration::from_secs(3600);
const SENTRY: &str = "spiffe://localhost/ns/default/dapr-sentry";

fn authority() -> Arc<Authority> {
    Arc::new(Authority::new("localhost", "default", HOUR).unwrap())
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// What a client that trusts `trusted` says of a server that shows `shown`.
fn refusal(trusted: &Authority, shown: &Identity) -> String {
    run(async {
        let (listener, address) = listen().await;
        let anchors = TrustAnchors::from_pem(trusted.anchors_pem().as_bytes()).unwrap();
        let tls = client_config(SENTRY.to_owned(), Arc::new(anchors)).unwrap();
        let address = Address::parse(&address).unwrap();
        tokio::select! {
            _ = authority().serve_as(listener, shown) => panic!("the server ended"),
            result = Channel::connect(&address, &tls) => result.unwrap_err().to_string(),
        }
    })
}

#[test]
fn another_than_sentry_is_not_asked() {
    let (ours, foreign) = (authority(), authority());
    let valid = Terms::lasting(HOUR);
    let server = ours.identity("spiffe://public/ns/default/server", &valid).unwrap();
    assert_eq!(
        refusal(&ours, &server),
        "connection error: desc = \"transport: authentication handshake failed: unexpected ID \
         \"spiffe://public/ns/default/server\"\""
    );
    let stranger = foreign.identity(SENTRY, &valid).unwrap();
    let text = refusal(&ours, &stranger);
    assert!(text.contains("x509: certificate signed by unknown authority"), "{text}");
    let (not_before, not_after) = (SystemTime::now() - 2 * HOUR, SystemTime::now() - HOUR);
    let expired = ours.identity(SENTRY, &Terms { not_before, not_after }).unwrap();
    let text = refusal(&ours, &expired);
    let expected = "x509: certificate has expired or is not yet valid: current time ";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn fetching_waits_for_sentry_to_come() {
    run(async {
        let ours = authority();
        let (listener, address) = listen().await;
        let options = options(address, &ours.anchors_pem(), "server");
        let sentry = async {
            // Twice nobody is home; the third to knock meets Sentry.
            for _ in 0..2 {
                drop(listener.accept().await.unwrap());
            }
            ours.serve(listener).await
        };
        tokio::select! {
            result = sentry::fetch(&options) => {
                let id = result.unwrap().spiffe_id;
                assert_eq!(id.as_str(), "spiffe://public/ns/default/server");
            }
            _ = sentry => panic!("the server ended"),
        }
    });
}

/// Refuses the first calls with a code.
struct Busy {
    code: Code,
    calls: AtomicU32,
}

impl Service for Busy {
    async fn call(self: Arc<Self>, call: Call) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        call.writer.end(Err(Status::new(self.code, "not now: 100%")));
    }
}

/// How often a Sentry that refuses with `code` is asked, and the error in the end.
fn asked_in_vain(code: Code) -> (u32, String) {
    let busy = Arc::new(Busy { code, calls: AtomicU32::new(0) });
    run(async {
        let ours = authority();
        let own = ours.identity(SENTRY, &Terms::lasting(HOUR)).unwrap();
        let (listener, address) = listen().await;
        let options = options(address, &ours.anchors_pem(), "server");
        let acceptor = Authority::acceptor(&own).unwrap();
        tokio::select! {
            result = sentry::fetch(&options) => {
                (busy.calls.load(Ordering::Relaxed), result.unwrap_err().to_string())
            }
            () = serve(listener, Some(acceptor), Arc::clone(&busy)) => panic!("the server ended"),
        }
    })
}

#[test]
fn an_overloaded_sentry_is_asked_five_times_and_a_refusing_one_once() {
    let expected = |name| {
        format!(
            "failed to retrieve the initial identity: error from sentry SignCertificate: rpc \
             error: code = {name} desc = not now: 100%"
        )
    };
    assert_eq!(asked_in_vain(Code::Unavailable), (5, expected("Unavailable")));
    assert_eq!(asked_in_vain(Code::ResourceExhausted), (5, expected("ResourceExhausted")));
    assert_eq!(asked_in_vain(Code::PermissionDenied), (1, expected("PermissionDenied")));
}
