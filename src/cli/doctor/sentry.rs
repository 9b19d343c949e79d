//! The trust anchors, Sentry, and the clock against what Sentry says.

use super::finding::Finding;
use crate::config::Settings;
use crate::config::settings::Security;
use crate::control::rpc::{Address, Channel, ConnectError, client_config};
use crate::control::sentry::{SentryOptions, fetch};
use crate::identity::{Identity, TrustAnchors};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use x509_parser::prelude::{FromDer, X509Certificate};

const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
const SIGN_TIME_MAX: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_secs(30 * 86_400);
/// Sentry dates certificates back by so much unless it is told otherwise (`allowedClockSkew`).
const DATED_BACK: Duration = Duration::from_secs(15 * 60);
/// A difference that begins to matter.
const SKEW_MAX: Duration = Duration::from_secs(5 * 60);

/// Nothing without mTLS.
pub fn identity(settings: &Settings) -> Vec<Finding> {
    let Some(security) = &settings.security else {
        return vec![Finding::ok("identity", "mTLS is off: none is needed")];
    };
    let options = match SentryOptions::new(security, &settings.config.namespace) {
        Ok(options) => options,
        Err(error) => {
            let advice = "DAPR_TRUST_ANCHORS must hold the PEM of Sentry's root: ca.crt of its \
                          credentials, or of the secret dapr-trust-bundle";
            return vec![Finding::fail("trust anchors", error, advice)];
        }
    };
    let mut findings = vec![anchors(&options.trust_anchors)];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => findings.extend(runtime.block_on(ask(security, &options))),
        Err(error) => findings.push(Finding::fail("sentry", error.to_string(), "ask again")),
    }
    findings
}

/// Until when they vouch.
fn anchors(anchors: &TrustAnchors) -> Finding {
    const WHAT: &str = "trust anchors";
    let mut nearest: Option<(i64, String)> = None;
    for der in anchors.certificates() {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { continue };
        let until = certificate.validity().not_after;
        if nearest.as_ref().is_none_or(|(known, _)| until.timestamp() < *known) {
            nearest =
                Some((until.timestamp(), format!("{}, until {until}", certificate.subject())));
        }
    }
    let (until, shown) = nearest.unwrap_or_default();
    let found = format!("{} in all; {shown}", anchors.certificates().len());
    let advice = "renew the control plane's root (dapr mtls renew-certificate), and give every \
                  sidecar the new DAPR_TRUST_ANCHORS";
    match u64::try_from(until).unwrap_or_default().checked_sub(since_epoch(now())) {
        None => Finding::fail(WHAT, format!("{found}: over"), advice),
        Some(left) if left < SOON.as_secs() => Finding::warn(WHAT, found, advice),
        Some(_) => Finding::ok(WHAT, found),
    }
}

async fn ask(security: &Security, options: &SentryOptions) -> Vec<Finding> {
    const WHAT: &str = "sentry";
    let shown = &security.sentry_address;
    let Some(address) = Address::parse(shown) else {
        return vec![Finding::fail(WHAT, format!("{shown:?}"), "--sentry-address is HOST:PORT")];
    };
    let server = options.server_id();
    let tls = match client_config(server.clone(), Arc::clone(&options.trust_anchors)) {
        Ok(tls) => tls,
        Err(error) => return vec![Finding::fail(WHAT, error.to_string(), "ask again")],
    };
    match within(CONNECT_TIME_MAX, Channel::connect(&address, &tls)).await {
        None => return vec![unreachable(shown, "no answer in 5 s")],
        Some(Err(error @ (ConnectError::Lookup { .. } | ConnectError::Dial { .. }))) => {
            return vec![unreachable(shown, &error.to_string())];
        }
        Some(Err(error)) => {
            let advice = format!(
                "it must show {server} under a root that DAPR_TRUST_ANCHORS holds: do they come \
                 from this Sentry, and are --control-plane-trust-domain and \
                 --control-plane-namespace its own?"
            );
            return vec![Finding::fail(WHAT, format!("{shown}: {error}"), advice)];
        }
        Some(Ok(_)) => {}
    }
    let reached = Finding::ok(WHAT, format!("{shown} is {server}, under the trust anchors"));
    let signed = within(SIGN_TIME_MAX, fetch(options)).await;
    let advice = "Sentry's own log says why: does it take this app id, namespace and token \
                  (DAPR_SENTRY_TOKEN_FILE)?";
    match signed {
        Some(Ok(identity)) => vec![reached, certificate(&identity), clock(&identity, now())],
        Some(Err(error)) => vec![reached, Finding::fail("identity", error.to_string(), advice)],
        None => vec![reached, Finding::fail("identity", "no certificate in 20 s", advice)],
    }
}

fn unreachable(shown: &str, why: &str) -> Finding {
    let advice = "is Sentry running, and is that its address and port (--sentry-address)? The \
                  sidecar would wait for it";
    Finding::fail("sentry", format!("{shown}: {why}"), advice)
}

fn certificate(identity: &Identity) -> Finding {
    let left = identity.not_after.duration_since(now()).unwrap_or_default();
    let minutes = left.as_secs() / 60;
    let found = format!("{}, for {minutes} minutes", identity.spiffe_id.as_str());
    Finding::ok("identity", found)
}

/// Our time against that of the certificate, which was made just now.
fn clock(identity: &Identity, now: SystemTime) -> Finding {
    const WHAT: &str = "clock";
    let advice = "let this machine and Sentry's keep time by NTP (timedatectl)";
    let Ok(age) = now.duration_since(identity.not_before) else {
        let behind = identity.not_before.duration_since(now).unwrap_or_default().as_secs();
        let found = format!("{behind} s behind the beginning of a certificate of just now");
        return Finding::fail(WHAT, found, advice);
    };
    if now > identity.not_after {
        return Finding::fail(WHAT, "beyond the end of a certificate of just now", advice);
    }
    let found = format!("{} s after the beginning of a certificate of just now", age.as_secs());
    // One that is not dated back is of our own second, or of a Sentry told so.
    let usual = age.abs_diff(DATED_BACK).min(age);
    match usual > SKEW_MAX {
        true => Finding::warn(WHAT, format!("{found}, not some 900"), advice),
        false => Finding::ok(WHAT, found),
    }
}

/// `None`: it took longer.
async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(limit, future).await.ok()
}

fn since_epoch(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[allow(clippy::disallowed_methods, reason = "certificates know real time")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    #[test]
    fn anchors_that_are_over_are_told() {
        let anchor = |until: SystemTime| {
            let mut params = CertificateParams::default();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.not_before = (until - 2 * SOON).into();
            params.not_after = until.into();
            let key = KeyPair::generate().unwrap();
            let der = params.self_signed(&key).unwrap().der().clone();
            anchors(&TrustAnchors::from_der(vec![der]).unwrap()).verdict
        };
        let second = Duration::from_secs(60);
        assert_eq!(anchor(now() - second), Verdict::Fail);
        assert_eq!(anchor(now() + SOON - second), Verdict::Warn);
        assert_eq!(anchor(now() + SOON + second), Verdict::Ok);
    }
}
