//! Access control on the way to our own app.
//!
//! 1. Who calls, and where the list puts him, is known of a connection; only for a path that is not
//!    remembered is the list asked at all.
//! 2. What is judged is what is dispatched: paths that another reader might take for others have
//!    been refused before (docs/adr/0126).
//! 3. A ruling is counted for each call; a denial is told, but once in [`LINE_PERIOD`].

use super::contract::{Arrival, Level, Listener};
use super::failure::Failure;
use super::peer::Side;
use super::{ConnKey, Proxy};
use crate::grpc::Code;
use crate::identity::SpiffeId;
use crate::observe::callers::{CallerId, Callers, Ruling};
use crate::policy::Policies;
use crate::policy::acl::{self, Scope, Standing};
use crate::policy::method;
use std::time::{Duration, Instant};

const LINE_PERIOD: Duration = Duration::from_secs(1);
/// Octets of a path in a line.
const PATH_SHOWN_MAX: usize = 256;

/// Who calls by a downstream connection.
#[derive(Debug)]
pub(super) struct Caller {
    /// From its certificate.
    id: Option<SpiffeId>,
    door: Door,
}

/// The same, as far as each call asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Door {
    pub(super) listener: Listener,
    pub(super) standing: Standing,
    pub(super) caller: CallerId,
}

/// Lines about denials, as they were told or not.
#[derive(Debug, Default)]
pub(super) struct Denials {
    told: Option<Instant>,
    untold: u32,
}

impl Caller {
    pub(super) fn new(arrival: &Arrival, policies: &Policies, callers: &mut Callers) -> Self {
        let id = arrival.spiffe_id.clone();
        let caller = id.as_ref().and_then(|id| Some((id.trust_domain(), id.workload()?)));
        let caller = match caller {
            Some((trust_domain, (namespace, app_id))) => {
                callers.intern(app_id, namespace, trust_domain)
            }
            None => CallerId::NOBODY,
        };
        let standing = policies.standing(id.as_ref());
        Self { id, door: Door { listener: arrival.listener, standing, caller } }
    }

    pub(super) fn door(&self) -> Door {
        self.door
    }

    /// As its certificate names it.
    pub(super) fn name(&self) -> Option<&str> {
        self.id.as_ref().map(SpiffeId::as_str)
    }
}

impl Proxy {
    /// Other policies hold: everybody stands where they put him.
    pub(super) fn stand_anew(&mut self) {
        for peer in self.peers.values_mut() {
            if let Side::Downstream { caller, .. } = &mut peer.side {
                caller.door.standing = self.snapshot.policies.standing(caller.id.as_ref());
            }
        }
    }

    /// May who came by this door call this method of our app? How to count it if so.
    pub(super) fn rule(
        &mut self,
        conn: ConnKey,
        door: Door,
        path: &[u8],
        now: Instant,
    ) -> Result<Option<Ruling>, Failure> {
        let Some(access) = &self.snapshot.policies.access else { return Ok(None) };
        let decision = access.decide(door.standing, path);
        let ruling = decision.scope.map(|scope| match (scope, decision.allowed) {
            (Scope::App, true) => Ruling::AllowedByApp,
            (Scope::App, false) => Ruling::BlockedByApp,
            (Scope::Global, true) => Ruling::AllowedByGlobal,
            (Scope::Global, false) => Ruling::BlockedByGlobal,
        });
        if decision.allowed {
            return Ok(ruling);
        }
        if let Some(ruling) = ruling {
            self.cells.callers.ruled(door.caller, ruling);
        }
        self.cells.callers.called(door.caller);
        self.cells.callers.failed(door.caller);
        let rule = access.explain(&decision);
        let peer = self.peers.get(conn);
        let id = peer.and_then(|peer| match &peer.side {
            Side::Downstream { caller, .. } => caller.id.as_ref(),
            Side::Upstream { .. } => None,
        });
        let text = acl::denial(id, door.standing, path);
        let id = id.map_or("a caller without identity", SpiffeId::as_str);
        let at = peer.map(|peer| peer.named().1).unwrap_or_default();
        let path = method::quote(path.get(..PATH_SHOWN_MAX).unwrap_or(path));
        let line = format!("Access control denies {path} to {id} ({at}) by {rule}");
        self.tell_denial(line, now);
        Err(Failure::new(Code::PermissionDenied, text))
    }

    fn tell_denial(&mut self, mut line: String, now: Instant) {
        let Denials { told, untold } = &mut self.denials;
        if told.is_some_and(|at| now.saturating_duration_since(at) < LINE_PERIOD) {
            *untold = untold.saturating_add(1);
            return;
        }
        if *untold > 0 {
            line.push_str(&format!("; {untold} more were denied since the last such line"));
        }
        (*told, *untold) = (Some(now), 0);
        self.log(Level::Warn, "dapr.acl", line, now);
    }
}
