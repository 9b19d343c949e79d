//! From a target to endpoints: cache, DNS messages, mDNS records. PURE: no socket, no clock.

pub mod book;
pub mod cache;
pub mod host;
pub mod mdns;
pub mod message;
pub mod pattern;
pub mod table;

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

impl Resolution {
    /// Nobody by that name: the text of daprd's mDNS resolver.
    pub fn not_found(target: Target) -> Self {
        let text = format!("couldn't find service: {}", target.app_id);
        Self { target, result: Err(text.into()) }
    }

    /// No resolver could be started: the text of daprd.
    pub fn no_resolver(target: Target) -> Self {
        Self { target, result: Err("name resolver not initialized".into()) }
    }
}
