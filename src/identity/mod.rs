//! Who we are and whom we believe: app IDs, SPIFFE IDs, SVIDs, trust anchors.
//!
//! PURE: keys come in from outside, `now` is an argument. Sources: `pkg/security` and
//! `kit/crypto/spiffe` of Dapr, the SPIFFE ID and X.509-SVID standards.

pub mod anyone;
pub mod app_id;
pub mod csr;
pub mod rotation;
pub mod spiffe;
pub mod svid;
pub mod trust;

pub use anyone::AnyServer;
pub use app_id::{AppId, Namespace, Target, TargetError};
pub use spiffe::{SpiffeError, SpiffeId};
pub use svid::{SvidError, verify_peer};
pub use trust::TrustAnchors;

use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::sync::Arc;
use std::time::SystemTime;

/// What a worker needs to speak mTLS: our SVID with its key, and the trust anchors.
/// Made by `control/sentry`, published in a snapshot, replaced whole at each rotation.
#[derive(Debug)]
pub struct Identity {
    pub spiffe_id: SpiffeId,
    /// Leaf first, then the issuers; the root is not in it.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS#8.
    pub key: PrivatePkcs8KeyDer<'static>,
    /// One bundle for every trust domain, as in daprd (`DAPR_TRUST_ANCHORS`).
    pub trust_anchors: Arc<TrustAnchors>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}
