//! How far one call is with the policy of its target; what moves it is in `attempts`.

use super::CallKey;
use super::endpoint::Endpoint;
use super::replay::KEPT_FOR_RETRY_MAX;
use crate::http2::FieldSection;
use crate::identity::Target;
use crate::policy::breaker::Permit;
use crate::policy::retry::Backoff;
use slotmap::SecondaryMap;
use std::rc::Rc;
use std::time::Instant;

/// How far each call with a policy is.
pub(super) type Guards = SecondaryMap<CallKey, Guard>;

/// One call's.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) endpoint: Rc<Endpoint>,
    pub(super) stage: Stage,
    pub(super) backoff: Backoff,
    /// When the attempt began.
    pub(super) begun: Instant,
    /// `dapr-stream`: policies end with the handshake.
    pub(super) streaming: bool,
    /// Of a call's retries and timeouts the first ones are told.
    pub(super) retry_told: bool,
    pub(super) timeout_told: bool,
    /// The response's head, as long as another attempt may follow this one.
    pub(super) held: Option<FieldSection>,
}

#[derive(Debug)]
pub(super) enum Stage {
    Trying {
        permit: Option<Permit>,
        until: Option<Instant>,
    },
    /// The target lies behind a pointer: most calls never wait.
    Waiting {
        until: Instant,
        target: Option<Box<Target>>,
    },
    Standing,
}

/// What ended an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A status that the callee told, or that stands for what it did: a policy may name it.
    Status(u8),
    /// The same, and it is certain that the call reached no app.
    Undelivered(u8),
    /// No connection came about.
    Unreachable,
    /// Nobody knows where the target is: if that is so from the beginning, daprd applies no policy.
    Unresolved,
    /// The policy's time is over.
    Timeout,
}

impl Guard {
    /// Of a call that begins.
    pub(super) fn new(endpoint: Rc<Endpoint>, streaming: bool, now: Instant) -> Self {
        Self {
            endpoint,
            stage: Stage::Trying { permit: None, until: None },
            backoff: Backoff::new(now),
            begun: now,
            streaming,
            retry_told: false,
            timeout_told: false,
            held: None,
        }
    }

    /// When the attempt is over, for the callee to know.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Trying { until, .. } if !self.streaming => until,
            Stage::Trying { .. } | Stage::Waiting { .. } | Stage::Standing => None,
        }
    }

    /// How much of a request is kept.
    pub(super) fn keeps(&self) -> Option<usize> {
        self.retries().then_some(KEPT_FOR_RETRY_MAX)
    }

    /// May attempts follow each other at all?
    pub(super) fn retries(&self) -> bool {
        !self.streaming && self.endpoint.policy.retry.is_some_and(|retry| retry.retries_at_all())
    }

    /// Does a response's head wait for what comes after it?
    pub(super) fn holds(&self) -> bool {
        let left = self.endpoint.policy.retry.is_some_and(|retry| retry.has_left(&self.backoff));
        left && !self.streaming
    }

    /// Keeps a head back.
    pub(super) fn hold(&mut self, head: FieldSection) {
        self.held = Some(head);
    }

    /// Is the call between two attempts?
    pub(super) fn is_between(&self) -> bool {
        matches!(self.stage, Stage::Waiting { .. })
    }

    pub(super) fn take_permit(&mut self) -> Option<Permit> {
        match &mut self.stage {
            Stage::Trying { permit, .. } => permit.take(),
            Stage::Waiting { .. } | Stage::Standing => None,
        }
    }
}
