//! Requests that are, field for field, what came on their connection before: what follows from
//! that is not worked out again.
//!
//! 1. The engine says so, by a number that stands for those fields as long as the connection lives
//!    ([`Repeat`]).
//! 2. Kept is what follows from the fields, the port, who calls and the snapshot, and it goes with
//!    the snapshot. Room, whether the pool still lives, its trace and who looks on are asked of
//!    each call.
//! 3. Nothing is kept of requests with a deadline, a trace context or baggage.
//! 4. Two per connection, of at most [`OCTETS_MAX`] each.

use super::access::Door;
use super::call::Plan;
use super::endpoint::Endpoint;
use super::head::RequestHead;
use super::memo::Route;
use super::rewrite::{self, ContentType};
use super::tally::Tally;
use super::tracer::{Begun, Callee, Caller};
use super::{ConnKey, Listener, PoolKey, Proxy};
use crate::grpc::MessageScanner;
use crate::http2::{FieldSection, Repeat};
use crate::observe::callers::Ruling;
use std::mem;
use std::rc::Rc;
use std::time::Instant;

/// What the fields of one that is kept may hold.
const OCTETS_MAX: usize = 2 << 10;

/// What a connection's requests were lately.
#[derive(Debug, Default)]
pub(super) struct Repeated([Option<Box<Kept>>; 2]);

#[derive(Debug)]
struct Kept {
    of: Repeat,
    /// [`super::memo::Memo::generation`] at that time.
    generation: u64,
    pool: PoolKey,
    endpoint: Option<Rc<Endpoint>>,
    ruling: Option<Ruling>,
    content_type: ContentType,
    request_scanner: MessageScanner,
    tally: Tally,
    /// As its callee gets them: an app's end with a trace context where calls have one, a sidecar's
    /// have none.
    fields: FieldSection,
}

impl Repeated {
    #[inline]
    fn find(&self, repeat: Repeat, generation: u64) -> Option<&Kept> {
        let kept = self.0[repeat.place()].as_deref()?;
        (kept.of == repeat && kept.generation == generation).then_some(kept)
    }
}

#[cfg(test)]
impl Repeated {
    pub(super) fn len(&self) -> usize {
        self.0.iter().flatten().count()
    }
}

/// Whether all that follows from a head follows from any other that is the same.
pub(super) fn may_repeat(head: &RequestHead<'_>) -> bool {
    head.timeout.is_none()
        && head.traceparent.is_none()
        && head.trace_bin.is_none()
        && !head.baggage
}

impl Proxy {
    /// What a request's head decides, if the same one came before.
    #[inline]
    pub(super) fn plan_again(
        &mut self,
        repeat: Repeat,
        fields: &mut FieldSection,
        (door, from): (Door, Caller),
        conn: ConnKey,
        now: Instant,
    ) -> Option<Plan> {
        let generation = self.memo.generation();
        let pool = self.peers.get(conn)?.repeated.find(repeat, generation)?.pool;
        if !self.pools.exists(pool) {
            return None;
        }
        let witness = match self.witnesses.listen(door.listener) {
            true => self.witness(conn, fields, Some(pool), now),
            false => None,
        };
        let to_app = pool == self.pools.app();
        let to = if to_app { Callee::App } else { Callee::Sidecar };
        let begun = self.tracer.begin_alone(from, to);
        let span = self.tracer.record(begun.as_ref(), fields, to.span_kind(), now);
        let kept = self.peers.get(conn)?.repeated.find(repeat, generation)?;
        fields.become_like(&kept.fields);
        if let Some(said) = begun.as_ref().and_then(Begun::said) {
            rewrite::renew_trace(fields, &self.fixed, said);
        }
        let plan = Plan {
            pool,
            deadline: None,
            content_type: kept.content_type.clone(),
            request_scanner: kept.request_scanner,
            tally: kept.tally,
            endpoint: kept.endpoint.clone(),
            witness,
            span,
            unsaid: begun.as_ref().and_then(Begun::unsaid),
            baggage: None,
        };
        let ruling = kept.ruling;
        if to_app {
            self.count_caller(door, ruling);
        }
        Some(plan)
    }

    /// Keeps what was found for a head that may come again; `fields` are its callee's.
    #[cold]
    pub(super) fn keep_plan(
        &mut self,
        (conn, repeat): (ConnKey, Repeat),
        route: &Route,
        (content_type, request_scanner, tally): (&ContentType, MessageScanner, Tally),
        begun: Option<&Begun>,
        fields: &FieldSection,
    ) {
        let to_app = route.pool == self.pools.app();
        // An app is told of each call, a sidecar of few; in both forms of the fewest.
        let usual = begun.and_then(Begun::said).is_none_or(|said| to_app && !said.binary);
        let plain = !matches!(content_type, ContentType::Other(_));
        if !usual || !plain || fields.octets() > OCTETS_MAX {
            return;
        }
        let generation = self.memo.generation();
        let Some(peer) = self.peers.get_mut(conn) else { return };
        let place = &mut peer.repeated.0[repeat.place()];
        // Where requests of several kinds push each other out, in the memory that is there.
        let mut callees =
            place.as_mut().map(|kept| mem::take(&mut kept.fields)).unwrap_or_default();
        callees.become_like(fields);
        let kept = Kept {
            of: repeat,
            generation,
            pool: route.pool,
            endpoint: route.endpoint.clone(),
            ruling: route.ruling,
            content_type: content_type.clone(),
            request_scanner,
            tally,
            fields: callees,
        };
        match place {
            Some(place) => **place = kept,
            None => *place = Some(Box::new(kept)),
        }
    }

    /// Who calls our app, and how access control let it pass.
    #[inline]
    pub(super) fn count_caller(&mut self, door: Door, ruling: Option<Ruling>) {
        if let Some(ruling) = ruling {
            self.cells.callers.ruled(door.caller, ruling);
        }
        if door.listener == Listener::Internal {
            self.cells.callers.called(door.caller);
        }
    }
}
