//! Warm-up and measured part: begin, release what is due, wait until all is quiet.
//!
//! 1. A phase ends when every call that began or was due has ended, or when nothing at all has
//!    moved for [`STALL_MAX`] after its time was over; what is left then are errors.
//!
//! Refuses to know what a call is.

use super::dues::Dues;
use super::feed::PENDING_MAX;
use super::slot::{self, Shared};
use super::timer::Timer;
use super::{RunError, connect, wall};
use crate::outcome::Outcome;
use crate::plan::{End, Plan, Schedule, Segment};
use bytes::Bytes;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long calls may hang at a phase's end.
const STALL_MAX: Duration =
    if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(10) };
/// For GOAWAY and close of all connections.
const CLOSE_MAX: Duration = Duration::from_secs(1);

pub(super) struct Run {
    shared: Rc<Shared>,
    slots: JoinSet<()>,
    connections: JoinSet<()>,
    timer: Timer,
}

impl Run {
    pub(super) async fn open(plan: &Plan, more: &[Bytes]) -> Result<Self, RunError> {
        let shared = Rc::new(Shared::new(plan, more)?);
        let (mut slots, mut connections) = (JoinSet::new(), JoinSet::new());
        let mut senders = Vec::with_capacity(plan.connections);
        for _ in 0..plan.connections {
            senders.push(connect::open(plan.target, &mut connections).await?);
        }
        // Connection by connection within each round, so that idle slots alternate.
        for round in 0..plan.streams {
            for (at, sender) in senders.iter().enumerate() {
                let slot = round * plan.connections + at;
                slots.spawn_local(slot::run(shared.clone(), slot, sender.clone()));
            }
        }
        let run = Self { shared, slots, connections, timer: Timer::new()? };
        run.quiet(STALL_MAX).await;
        Ok(run)
    }

    pub(super) async fn warm_up(&self) -> Result<(), RunError> {
        let plan = &self.shared.plan;
        let end = End::After(plan.warmup);
        let first = match &plan.schedule {
            Schedule::Closed => Schedule::Closed,
            Schedule::Open(segments) => Schedule::Open(first_rate(segments)),
        };
        match self.phase(&first, end).await? {
            0 => Ok(()),
            calls => Err(RunError::Stalled { calls }),
        }
    }

    pub(super) async fn measure(&self) -> Result<Outcome, RunError> {
        let (schedule, end) = (self.shared.plan.schedule.clone(), self.shared.plan.end);
        self.phase(&schedule, end).await?;
        let mut outcome = self.shared.tally.replace(Outcome::empty());
        if schedule == Schedule::Closed {
            outcome.service = outcome.latency.clone();
        }
        Ok(outcome)
    }

    /// Lets the connections say good-bye.
    pub(super) async fn close(mut self) {
        self.slots.shutdown().await;
        let all_closed = async { while self.connections.join_next().await.is_some() {} };
        // A peer that does not let go loses the connections with `self`.
        let _ = timeout(CLOSE_MAX, all_closed).await;
    }

    /// How many calls were left unanswered.
    async fn phase(&self, schedule: &Schedule, end: End) -> Result<usize, RunError> {
        let shared = &self.shared;
        shared.tally.replace(Outcome::empty());
        shared.last_end.set(None);
        let start = wall();
        let deadline = match end {
            End::After(length) => Some(start + length),
            End::Calls(_) => None,
        };
        shared.deadline.set(deadline);
        let scheduled = match schedule {
            Schedule::Closed => {
                let calls = match end {
                    End::After(_) => None,
                    End::Calls(calls) => Some(calls),
                };
                shared.feed.borrow_mut().begin(deadline, calls);
                if let Some(deadline) = deadline {
                    self.quiet(deadline.saturating_duration_since(start)).await;
                }
                start
            }
            Schedule::Open(segments) => self.release(start, segments, end).await?,
        };
        let left = self.settle().await;
        if shared.feed.borrow().live() == 0 {
            shared.error("no connection is left".to_owned(), 1);
        }
        let last = shared.last_end.get().unwrap_or(start).max(scheduled);
        shared.tally.borrow_mut().elapsed = last.saturating_duration_since(start);
        Ok(left)
    }

    /// Releases calls as they are due; returns when the schedule is over.
    async fn release(
        &self,
        start: Instant,
        segments: &[Segment],
        end: End,
    ) -> Result<Instant, RunError> {
        let (calls, length) = match end {
            End::After(length) => (u64::MAX, length),
            End::Calls(calls) => (calls, Duration::MAX),
        };
        let (mut released, mut refused, mut over) = (0, 0, start);
        for due in Dues::new(segments) {
            if released >= calls || due >= length {
                over = start.checked_add(due.min(length)).unwrap_or(start);
                break;
            }
            let due = start + due;
            over = due;
            if wall() < due {
                self.timer.wait_until(due).await?;
            }
            if self.shared.feed.borrow().live() == 0 {
                break;
            }
            released += 1;
            refused += u64::from(!self.shared.feed.borrow_mut().release(due));
        }
        self.timer.wait_until(over).await?;
        if refused > 0 {
            let text = format!("never sent: {PENDING_MAX} calls were due and waiting already");
            self.shared.error(text, refused);
        }
        Ok(over)
    }

    /// `true`: all is quiet within `wait`.
    async fn quiet(&self, wait: Duration) -> bool {
        let quiet = poll_fn(|context| self.shared.feed.borrow_mut().poll_quiet(context));
        timeout(wait, quiet).await.is_ok()
    }

    /// Waits as long as anything moves; then all that is left is an error.
    async fn settle(&self) -> usize {
        let shared = &self.shared;
        loop {
            let before = shared.progress.get();
            if self.quiet(STALL_MAX).await || shared.progress.get() == before {
                break;
            }
        }
        let (waiting, called) = shared.feed.borrow().unfinished();
        if waiting > 0 {
            shared.error("never sent: no stream came free".to_owned(), waiting as u64);
        }
        if called > 0 {
            let text = format!("no answer for {STALL_MAX:?} after the run's end");
            shared.error(text, called as u64);
            shared.tally.borrow_mut().calls += called as u64;
        }
        waiting + called
    }
}

/// What an open schedule warms up with.
fn first_rate(segments: &[Segment]) -> Vec<Segment> {
    let rate = |segment: &Segment| {
        if segment.from > 0.0 { segment.from } else { (segment.from + segment.to) / 2.0 }
    };
    let first = segments.iter().map(rate).find(|rate| *rate > 0.0).unwrap_or(0.0);
    vec![Segment { from: first, to: first, length: Duration::ZERO }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::run_blocking;
    use crate::generate::slot::tests::plan as to_nobody;
    use std::net::{Ipv4Addr, TcpListener};
    use tokio::runtime::{Builder, LocalOptions};

    /// Answers PINGs and no call, until its one connection ends.
    fn mute(listener: TcpListener) {
        let mut runtime = Builder::new_current_thread();
        let runtime = runtime.enable_all().build_local(LocalOptions::default()).expect("a runtime");
        runtime.block_on(async {
            listener.set_nonblocking(true).expect("a socket");
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            let (stream, _) = listener.accept().await.expect("the generator");
            let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
            let mut calls = Vec::new();
            while let Some(Ok(call)) = connection.accept().await {
                calls.push(call);
            }
        });
    }

    fn against_mute(plan: impl FnOnce(Plan) -> Plan) -> Result<Outcome, RunError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let target = listener.local_addr().expect("bound");
        #[allow(clippy::disallowed_methods)] // a server of this test's own
        let server = std::thread::spawn(move || mute(listener));
        let outcome = run_blocking(&plan(Plan { target, ..to_nobody() }));
        server.join().expect("the server ends");
        outcome
    }

    #[test]
    fn calls_that_are_never_answered_are_errors_and_no_hang() {
        let length = Duration::from_millis(10);
        let rate = vec![Segment { from: 1000.0, to: 1000.0, length }];
        let outcome = against_mute(|plan| Plan {
            streams: 3,
            schedule: Schedule::Open(rate),
            end: End::After(length),
            ..plan
        });
        let outcome = outcome.expect("an outcome");
        assert_eq!(outcome.errors["no answer for 200ms after the run's end"], 3);
        assert_eq!(outcome.errors["never sent: no stream came free"], 7);
        assert_eq!((outcome.calls, outcome.failed()), (3, 10));
    }

    #[test]
    fn a_warm_up_that_is_never_answered_is_no_run() {
        let warmup = Duration::from_millis(10);
        let error = against_mute(|plan| Plan { streams: 2, warmup, ..plan });
        let text = error.expect_err("stalled").to_string();
        assert_eq!(text, "2 calls of the warm-up were never answered");
    }
}
