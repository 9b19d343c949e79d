//! Our identity: asked of Sentry at the start, renewed before it ends.
//!
//! 1. A private key is made here, once per certificate, and leaves the process in no form.
//! 2. An identity is believed because it came from the Sentry that the trust anchors vouch for;
//!    it must be for our key and name one SPIFFE ID.
//! 3. While Sentry cannot be reached everything waits, at the start without end, as in daprd
//!    (`pkg/security/sentry.go` dials blocking and without a limit). Once it is reached, a call
//!    is tried [`ATTEMPTS_MAX`] times.
//! 4. A failed renewal keeps the identity at hand.
//!
//! JWTs that Sentry may add are not read: nothing in ringside presents them.

mod error;
mod token;

pub use error::{Failure, SentryError};
pub use token::{Token, TokenSource};

use super::rpc::messages::{SignCertificateRequest, SignCertificateResponse};
use super::rpc::{Address, Channel, ConnectError, Status, client_config};
use crate::config::settings::Security;
use crate::grpc::Code;
use crate::identity::rotation::{RETRY, Schedule};
use crate::identity::{Identity, Namespace, TrustAnchors, csr, svid};
use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::PrivatePkcs8KeyDer;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_rustls::rustls::ClientConfig;

const SIGN_CERTIFICATE: &str = "/dapr.proto.sentry.v1.CA/SignCertificate";
/// `sentryMaxRetries`, which counts the first try.
const ATTEMPTS_MAX: u32 = 5;
/// `sentrySignTimeout`.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(3);
/// go-grpc-middleware's default back-off, with its jitter in percent.
const ATTEMPT_SPACING: Duration = Duration::from_millis(50);
const ATTEMPT_JITTER: u32 = 10;
/// Between dials while Sentry cannot be reached: doubled from the first to the last.
const DIAL_SPACING_FIRST: Duration = Duration::from_millis(100);
const DIAL_SPACING_LAST: Duration = Duration::from_secs(2);
const DIAL_JITTER: u32 = 20;
/// The same reason for waiting is said again after so many dials.
const DIALS_PER_LINE: u32 = 30;
/// The scope of daprd's lines on this subject.
const SCOPE: &str = "dapr.runtime.security";

/// Whom to ask, and as whom.
#[derive(Clone, Debug)]
pub struct SentryOptions {
    /// `--sentry-address`.
    pub address: String,
    /// `SENTRY_LOCAL_IDENTITY`, else the app ID.
    pub id: String,
    /// `NAMESPACE`.
    pub namespace: String,
    pub trust_anchors: Arc<TrustAnchors>,
    pub control_plane_trust_domain: String,
    pub control_plane_namespace: String,
    pub token: TokenSource,
}

impl SentryOptions {
    /// The error is about the trust anchors.
    pub fn new(security: &Security, namespace: &Namespace) -> Result<Self, String> {
        let anchors = TrustAnchors::from_pem(security.trust_anchors.as_bytes())
            .map_err(|error| format!("failed to decode trust anchors: {error}"))?;
        let token = match &security.token_file {
            Some(path) => TokenSource::File { path: path.into(), kubernetes: false },
            None => TokenSource::None,
        };
        Ok(Self {
            address: security.sentry_address.clone(),
            id: security.request_id.clone(),
            namespace: namespace.as_str().to_owned(),
            trust_anchors: Arc::new(anchors),
            control_plane_trust_domain: security.trust_domain.clone(),
            control_plane_namespace: security.namespace.clone(),
            token,
        })
    }

    /// What Sentry must show.
    pub fn server_id(&self) -> String {
        let (domain, namespace) = (&self.control_plane_trust_domain, &self.control_plane_namespace);
        format!("spiffe://{domain}/ns/{namespace}/dapr-sentry")
    }
}

/// The first identity; does not return while Sentry cannot be reached.
pub async fn fetch(options: &SentryOptions) -> Result<Identity, SentryError> {
    tracing::info!(scope = SCOPE, "Fetching initial identity");
    let identity = request(options).await.map_err(SentryError)?;
    tracing::info!(scope = SCOPE, "Security is initialized successfully");
    Ok(identity)
}

/// Renews the identity for as long as it is polled. `publish` gets each new one; `failed` gets
/// the reason of each failure, as the metric's label has it.
pub async fn rotate(
    options: &SentryOptions,
    first: Arc<Identity>,
    mut publish: impl FnMut(Arc<Identity>),
    mut failed: impl FnMut(&'static str),
) {
    let mut schedule = Schedule::new(&first, now());
    announce("Starting workload identity expiry watcher", &first, &schedule);
    let mut current = first;
    loop {
        if let Some(wait) = schedule.wait(now()) {
            tokio::time::sleep(wait).await;
            continue;
        }
        let expiry = date(current.not_after);
        tracing::info!(scope = SCOPE, "Renewing workload identity; cert expires on: {expiry}");
        match request(options).await {
            Ok(renewed) => {
                current = Arc::new(renewed);
                schedule = Schedule::new(&current, now());
                announce("Successfully renewed workload identity", &current, &schedule);
                publish(Arc::clone(&current));
            }
            Err(failure) => {
                failed(failure.reason());
                tracing::error!(
                    scope = SCOPE,
                    "Error renewing identity, trying again in 10 seconds: {failure}"
                );
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// One new key, and a certificate for it.
async fn request(options: &SentryOptions) -> Result<Identity, Failure> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(Failure::Key)?;
    let csr = csr::request(&key).map_err(Failure::Csr)?;
    let tls = client_config(options.server_id(), Arc::clone(&options.trust_anchors))
        .map_err(|error| Failure::Connect(error.to_string()))?;
    let address = Address::parse(&options.address)
        .ok_or_else(|| Failure::Connect(format!("{:?} is not HOST:PORT", options.address)))?;
    let channel = reach(&address, &tls).await;
    let token = options.token.read().await.map_err(Failure::Token)?;
    let message = SignCertificateRequest {
        id: options.id.clone(),
        token: token.text,
        namespace: options.namespace.clone(),
        certificate_signing_request: csr.into_bytes(),
        token_validator: token.validator.into(),
    };
    let answer = sign(channel, &address, &tls, &message).await.map_err(Failure::Sign)?;
    accept(answer, &key, options)
}

/// Dials until somebody answers as Sentry.
async fn reach(address: &Address, tls: &Arc<ClientConfig>) -> Channel {
    let mut spacing = DIAL_SPACING_FIRST;
    let mut told: Option<(ConnectError, u32)> = None;
    loop {
        let error = match Channel::connect(address, tls).await {
            Ok(channel) => return channel,
            Err(error) => error,
        };
        told = match told {
            Some((last, dials)) if last == error && dials < DIALS_PER_LINE => {
                Some((last, dials + 1))
            }
            Some(_) | None => {
                tracing::warn!(scope = SCOPE, "Waiting for Sentry at {address}: {error}");
                Some((error, 1))
            }
        };
        tokio::time::sleep(jittered(spacing, DIAL_JITTER)).await;
        spacing = (spacing * 2).min(DIAL_SPACING_LAST);
    }
}

/// The call, tried again where daprd's interceptor does: when Sentry is overloaded, gone or slow.
async fn sign(
    mut channel: Channel,
    address: &Address,
    tls: &Arc<ClientConfig>,
    message: &SignCertificateRequest,
) -> Result<SignCertificateResponse, Status> {
    let mut attempt = 1;
    loop {
        let status = match channel.unary(SIGN_CERTIFICATE, message, ATTEMPT_LIMIT).await {
            Ok(answer) => return Ok(answer),
            Err(status) => status,
        };
        if attempt == ATTEMPTS_MAX || !is_worth_repeating(&status) {
            return Err(status);
        }
        attempt += 1;
        tokio::time::sleep(jittered(ATTEMPT_SPACING, ATTEMPT_JITTER)).await;
        // A connection that failed a call is not asked whether it lives.
        if let Ok(Ok(fresh)) =
            tokio::time::timeout(ATTEMPT_LIMIT, Channel::connect(address, tls)).await
        {
            channel = fresh;
        }
    }
}

fn is_worth_repeating(status: &Status) -> bool {
    [Code::Unavailable, Code::ResourceExhausted, Code::DeadlineExceeded]
        .into_iter()
        .any(|code| status.is(code))
}

fn accept(
    answer: SignCertificateResponse,
    key: &KeyPair,
    options: &SentryOptions,
) -> Result<Identity, Failure> {
    judge_valid_until(&answer)?;
    let private = PrivatePkcs8KeyDer::from(key.serialize_der());
    let anchors = Arc::clone(&options.trust_anchors);
    let identity = Identity::from_pem(&answer.workload_certificate, private, anchors)
        .map_err(Failure::Certificate)?;
    let ours = key.subject_public_key_info();
    let certified = identity.chain.first().and_then(svid::public_key);
    if certified.as_deref() != Some(ours.as_slice()) {
        return Err(Failure::ForeignKey);
    }
    Ok(identity)
}

/// `timestamppb`'s `CheckValid`.
fn judge_valid_until(answer: &SignCertificateResponse) -> Result<(), Failure> {
    /// 0001-01-01 and 9999-12-31, in seconds around 1970.
    const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
    const NANOS: std::ops::RangeInclusive<i32> = 0..=999_999_999;
    match &answer.valid_until {
        None => Err(Failure::ValidUntil("invalid nil Timestamp")),
        Some(moment) if !SECONDS.contains(&moment.seconds) => {
            Err(Failure::ValidUntil("timestamp outside the years 1 to 9999"))
        }
        Some(moment) if !NANOS.contains(&moment.nanos) => {
            Err(Failure::ValidUntil("timestamp has out-of-range nanos"))
        }
        Some(_) => Ok(()),
    }
}

fn announce(what: &str, identity: &Identity, schedule: &Schedule) {
    tracing::info!(
        scope = SCOPE,
        "{what}; cert expires on: {}, renewal at: {}",
        date(identity.not_after),
        date(schedule.renew_at())
    );
}

fn date(moment: SystemTime) -> String {
    OffsetDateTime::from(moment).format(&Rfc3339).unwrap_or_default()
}

/// `duration` ± up to `percent`.
fn jittered(duration: Duration, percent: u32) -> Duration {
    // The standard library's only randomness, good enough to spread dials.
    let random = RandomState::new().hash_one(0) % u64::from(2 * percent + 1);
    let random = u32::try_from(random).unwrap_or(percent);
    duration * (100 - percent + random) / 100
}

#[allow(clippy::disallowed_methods, reason = "control asks the clock for the pure rooms")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests;
