//! Contexts that one ringside leaves unsaid to another (docs/adr/0210).
//!
//! At daprd's default rate nearly every trace that begins at a sidecar is recorded by nobody, and
//! the app alone will ever see its IDs. Between two sidecars that both make spans, the one of the
//! caller leaves such a context out; the one of the callee makes it, for its app.
//!
//! 1. Of nothing but traces that begin here and are not sampled; what a caller said is passed on.
//! 2. Only to a sidecar that has said that it makes spans, on this connection; to any other the
//!    same call says its context after all.
//! 3. Not of a call that a policy may try again: its attempts are told the same.
//! 4. A call without a context, from a sidecar that makes spans, is of a trace that is not sampled,
//!    whatever our own rate is.

use super::call::Call;
use super::contract::Listener;
use super::guard::Guard;
use super::peer::{Peer, Side};
use super::rewrite::Fixed;
use super::tracer::{Caller, Tracer};
use super::{kinship, rewrite};
use crate::http2::FieldSection;

impl Peer {
    /// What a call that comes in by this connection may have for us.
    #[inline]
    pub(super) fn may_say(&self) -> Caller {
        match self.side {
            Side::Downstream { listener: Listener::Internal, .. } => {
                match self.is_kin(kinship::SPANS) {
                    true => Caller::Unsampled,
                    false => Caller::Sidecar,
                }
            }
            Side::Downstream { .. } | Side::Upstream { .. } => Caller::App,
        }
    }
}

/// Before a request leaves by the connection of `peer`: says what was left unsaid, if it must.
#[inline]
pub(super) fn settle(
    call: &mut Call,
    guard: Option<&Guard>,
    peer: &Peer,
    tracer: &mut Tracer,
    fixed: &Fixed,
    fields: &mut FieldSection,
) {
    if let Some(drawn) = call.unsaid
        && (!peer.is_kin(kinship::SPANS) || guard.is_some_and(Guard::retries))
    {
        call.unsaid = None;
        rewrite::push_context(fields, fixed, &tracer.say(drawn));
    }
}
