//! From a target to endpoints: cache, DNS messages, mDNS records. PURE: no socket, no clock.

pub use crate::identity::Target;
use std::net::SocketAddr;
use std::sync::Arc;

/// Where a target's sidecar listens: its internal port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint(pub SocketAddr);

/// What a resolver says of a target. The text of a failure is daprd's (spec 03 §3.9).
#[derive(Clone, Debug)]
pub struct Resolution {
    pub target: Target,
    pub result: Result<Arc<[Endpoint]>, Arc<str>>,
}
