//! What ringsides say of themselves to each other, by a setting of connections between sidecars
//! (docs/adr/0152). Whoever says nothing is a daprd, or something between the two.
//!
//! 1. Each bit is a promise for as long as the connection lasts.

use super::contract::Listener;
use super::peer::{Peer, Side};
use crate::config::Tracing;

/// Gives proofs, takes them out, and believes them ([`super::undelivered`]).
pub(super) const PROOFS: u8 = 1;
/// Makes spans: to another one that does, it leaves some contexts unsaid, and knows what it means
/// that there is none ([`super::unsaid`]).
pub(super) const SPANS: u8 = 2;

/// What one says with this tracing.
pub(super) const fn of(tracing: Tracing) -> u8 {
    match tracing {
        Tracing::Off | Tracing::Passed => PROOFS,
        Tracing::Sampled { .. } => PROOFS | SPANS,
    }
}

impl Peer {
    /// At its other end is a ringside that said this of itself.
    #[inline]
    pub(super) fn is_kin(&self, trait_of_ours: u8) -> bool {
        let sidecar = match self.side {
            Side::Downstream { listener, .. } => listener == Listener::Internal,
            Side::Upstream { to_app, .. } => !to_app,
        };
        sidecar && self.h2.kinship() & trait_of_ours != 0
    }
}
