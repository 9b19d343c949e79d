//! `baggage` of calls: it must be some, and who calls the API port gets it back.
//!
//! 1. A call without any costs a test or two; what came passes on as it came.
//! 2. Only where daprd has its tracing interceptor, behind the one that asks for the token; no
//!    other one of its interceptors hears of a call that is refused here.
//! 3. It comes back once, in a head: the callee's sidecar leaves that to the caller's.
//!
//! Source: `handleBaggage` in Dapr's `pkg/diagnostics/grpc_tracing.go`.

use super::contract::Listener;
use super::failure::Failure;
use super::head::{RequestHead, class};
use super::{CallKey, Proxy, route};
use crate::config::Tracing;
use crate::grpc::Code;
use crate::http2::FieldSection;
use crate::http2::field::PreparedField;
use crate::policy::baggage;

const NAME: &[u8] = b"baggage";

impl Proxy {
    /// What comes back to the caller of a call that has some.
    #[cold]
    pub(super) fn baggage(
        &self,
        head: &RequestHead<'_>,
        fields: &FieldSection,
        listener: Listener,
    ) -> Result<Option<Box<PreparedField>>, Failure> {
        let config = &self.snapshot.config;
        // A forward port's clients know nothing of Dapr.
        if config.tracing == Tracing::Off || matches!(listener, Listener::Forward(_)) {
            return Ok(None);
        }
        route::enter(head, listener, config, &self.snapshot.policies.apis)?;
        let values = fields.classed().filter(|(class, _)| *class == class::BAGGAGE);
        let values: Vec<_> = values.map(|(_, value)| value).collect();
        let written = baggage::parse(&values.join(&b',')).map_err(|why| {
            let message = format!("invalid baggage header: {why}");
            Failure::new(Code::InvalidArgument, message).untold()
        })?;
        let told = !written.is_empty() && listener == Listener::Api;
        Ok(told.then(|| Box::new(PreparedField::new(NAME, written.as_bytes()))))
    }

    /// Into the head that the caller gets, unless the callee's sidecar has said it. Where that head
    /// is all of the answer, one of its own goes before it.
    #[cold]
    pub(super) fn give_baggage(&mut self, key: CallKey, fields: &mut FieldSection, is_all: bool) {
        if is_all {
            self.send_baggage(key);
            // By their names: what was added on the way has no class.
            return fields
                .retain(|field| ![&b":status"[..], b"content-type"].contains(&field.name));
        }
        let Some(call) = self.calls.get_mut(key) else { return };
        let Some(baggage) = call.baggage.take() else { return };
        let said = |(class, value)| class == class::BAGGAGE && value == baggage.value();
        if !fields.classed().any(said) {
            fields.push_prepared(&baggage);
        }
    }

    /// A head with nothing else to tell.
    #[cold]
    pub(super) fn send_baggage(&mut self, key: CallKey) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let Some(baggage) = call.baggage.take() else { return };
        let Some(peer) = self.peers.get_mut(call.down.conn) else { return };
        call.head_sent = true;
        let mut fields = peer.h2.spare();
        fields.clear();
        fields.push(b":status", b"200");
        fields.push_prepared(call.content_type.field(&self.fixed));
        fields.push_prepared(&baggage);
        peer.h2.send_headers(call.down.stream, fields, false);
    }
}
