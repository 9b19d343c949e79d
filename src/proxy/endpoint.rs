//! What a Resiliency policy is for one method of one target, found once and shared by its calls.

use super::Proxy;
use super::contract::Listener;
use super::head::RequestHead;
use crate::observe::policies::TargetId;
use crate::policy::breaker::{self, Change, Permit, Refusal, Seat, State};
use crate::policy::resiliency::Policy;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

/// See the file's text.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// The very text of `dapr-app-id`.
    app: Box<str>,
    path: Box<str>,
    pub(super) policy: Policy,
    /// Under which labels it is told.
    pub(super) told: TargetId,
    /// The worker's number among those that share the breakers.
    worker: usize,
    /// Where its breaker is, if it has one.
    seat: Cell<Option<Seat>>,
}

impl Endpoint {
    /// Whom it is for, as callers spell it.
    pub(super) fn app(&self) -> &str {
        &self.app
    }

    /// As daprd names a breaker.
    pub(super) fn method(&self) -> String {
        breaker::name(&self.app, &self.path)
    }

    /// As daprd names an operation.
    pub(super) fn name(&self) -> String {
        format!("endpoint[{}, {}:{}]", self.app, self.app, self.path)
    }

    /// Asks its breaker for a permit. Without a breaker there is none, and none is needed.
    pub(super) fn begin(&self, now: Instant) -> (Result<Option<Permit>, Refusal>, Option<Change>) {
        let Some(breakers) = &self.policy.breakers else { return (Ok(None), None) };
        match self.seated(now).and_then(|seat| breakers.begin(seat, self.worker, now)) {
            Some((granted, change)) => (granted.map(Some), change),
            None => (Ok(None), None),
        }
    }

    /// The state afterwards, and what changed; `None`: the breaker has been forgotten meanwhile.
    pub(super) fn end(
        &self,
        permit: Permit,
        success: bool,
        now: Instant,
    ) -> Option<(State, Option<Change>)> {
        let breakers = self.policy.breakers.as_ref()?;
        breakers.end(self.worker, permit, success, now)
    }

    /// The attempt was not made after all.
    pub(super) fn withdraw(&self, permit: Permit) {
        if let Some(breakers) = &self.policy.breakers {
            breakers.withdraw(self.worker, permit);
        }
    }

    /// Its seat; a new one if another method has taken it.
    fn seated(&self, now: Instant) -> Option<Seat> {
        let breakers = self.policy.breakers.as_ref()?;
        let seat = match self.seat.get() {
            Some(seat) if breakers.is_seated(seat) => seat,
            Some(_) | None => breakers.seat(self.method().as_bytes(), self.worker, now),
        };
        self.seat.set(Some(seat));
        Some(seat)
    }
}

impl Proxy {
    /// What applies to a call to another app. Policies are for who calls: calls that come from
    /// other sidecars have theirs behind them.
    #[cold]
    pub(super) fn endpoint(
        &mut self,
        head: &RequestHead<'_>,
        listener: Listener,
    ) -> Option<Rc<Endpoint>> {
        let targets = self.snapshot.resiliency.as_ref()?;
        let app = match listener {
            Listener::Internal => return None,
            Listener::Api => head.app_id?,
            Listener::Forward(index) => self.snapshot.config.forwards.get(index)?.app_id.as_bytes(),
        };
        let policy = targets.of(app)?;
        let told = self.cells.policies().target(app);
        let text = |octets| String::from_utf8_lossy(octets).into();
        let (app, path) = (text(app), text(head.path));
        let seat = Cell::new(None);
        Some(Rc::new(Endpoint { app, path, policy, told, worker: self.seat, seat }))
    }
}
