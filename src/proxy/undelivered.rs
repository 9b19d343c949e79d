//! Calls of which a sidecar proves to another one that nothing reached the app (docs/adr/0152).
//!
//! 1. Only in the head of a response that is all there is of it, and only where the two have
//!    recognized each other as ringsides, by their SETTINGS: a daprd neither sees the field nor is
//!    believed.
//! 2. A sidecar proves what it knows itself. What its app says in that field is taken out, so that
//!    no app can say it.
//! 3. Whoever is proved to takes it out, too: no app and no client sees it.

use super::failure::Failure;
use super::head::class;
use super::peer::Peer;
use super::{ConnKey, Proxy, kinship};
use crate::http2::FieldSection;

/// The proof. Elsewhere a field of this name is one like any other.
pub(super) const NAME: &[u8] = b"ringside-undelivered";

impl Peer {
    /// A response that is all head: with the proof, if the failure is one and the caller's sidecar
    /// may be told.
    pub(super) fn prove(&self, failure: &Failure, fields: &mut FieldSection) {
        if failure.undelivered && self.is_kin(kinship::PROOFS) {
            fields.push(NAME, b"1");
        }
    }
}

impl Proxy {
    /// Takes the proof out of a response that is all head; whether it is one.
    pub(super) fn take_proof(&self, from: ConnKey, fields: &mut FieldSection) -> bool {
        if !fields.classed().any(|(class, _)| class == class::UNDELIVERED) {
            return false;
        }
        fields.retain_classes(|class| class != class::UNDELIVERED);
        self.peers.get(from).is_some_and(|peer| peer.is_kin(kinship::PROOFS))
    }
}
