//! One worker's counters: plain numbers behind interned labels, copied out on scrape.
//!
//! 1. Only the owning worker writes; nothing is shared, nothing is atomic.
//! 2. Label sets are bounded; what does not fit is counted under [`MethodId::OTHER`].

use std::time::Duration;

/// An interned (`dapr-app-id`, method path) pair of this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MethodId(pub u32);

impl MethodId {
    /// What did not fit.
    pub const OTHER: Self = Self(0);
}

/// Which port a call came in by: the API port (and forward ports), or the internal port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    Outbound,
    Inbound,
}

/// The `type` label of Dapr's service invocation series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    Unary,
    Streaming,
}

#[derive(Clone, Debug, Default)]
pub struct Cells {}

impl Cells {
    /// Interns; cheap when seen before.
    pub fn method(&mut self, _dst_app_id: &[u8], _path: &[u8]) -> MethodId {
        MethodId::OTHER
    }

    /// An attempt was sent to a target.
    pub fn sent(&mut self, _hop: Hop, _method: MethodId, _kind: CallKind) {}

    /// A call ended with a gRPC status code.
    pub fn completed(
        &mut self,
        _hop: Hop,
        _method: MethodId,
        _kind: CallKind,
        _status: u8,
        _latency: Duration,
    ) {
    }
}
