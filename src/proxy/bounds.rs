//! Limits of a worker: what a new call must find room in. Those that only a test could reach with
//! less are a number here, and a field.

use super::contract::Listener;
use super::failure::Failure;
use super::{ConnKey, Proxy};
use crate::grpc::Code;
use std::time::Instant;

/// Octets of responses that wait for a caller before its connection gets no new calls: whole
/// responses have left their upstream, whose windows no longer bound them.
pub(super) const UNREAD_MAX: usize = 32 << 20;
/// The same of another sidecar's connection, which many callers share: those who read must not pay
/// for those who do not, whom `stalled` sees to.
pub(super) const UNREAD_SHARED_MAX: usize = 256 << 20;

/// See each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Calls in flight; more are refused.
    pub(super) calls: usize,
    /// Octets of responses that a connection may leave unread before it is closed.
    pub(super) unread: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { calls: 256 << 10, unread: 512 << 20 }
    }
}

impl Proxy {
    /// A connection that is not read, or a worker that has calls enough, gets no more of them.
    #[inline]
    pub(super) fn make_room(
        &mut self,
        listener: Listener,
        conn: ConnKey,
        now: Instant,
    ) -> Result<(), Failure> {
        let unread_max = match listener {
            Listener::Api | Listener::Forward(_) => UNREAD_MAX,
            Listener::Internal => UNREAD_SHARED_MAX,
        };
        if self.peers.get(conn).is_some_and(|peer| peer.h2.queued_in_all() > unread_max) {
            self.limit_reached("unread_responses", "responses are not read", conn, now);
            let message = "ringside: too many responses on this connection are not read yet; \
                           read them, then call again";
            return Err(Failure::new(Code::ResourceExhausted, message));
        }
        if self.calls.len() >= self.bounds.calls {
            self.limit_reached("calls", "too many calls in flight", conn, now);
            let message = "ringside: too many calls in flight in this worker; try again";
            return Err(Failure::new(Code::ResourceExhausted, message));
        }
        Ok(())
    }
}
