//! One stream of one connection: asks for jobs, calls, counts.
//!
//! 1. One task, for the length of the run; a call allocates nothing here.
//! 2. A slot whose connection takes no more calls leaves; the call that found out is an error.
//!
//! Refuses to know when calls are due.

use super::call::{self, Failure};
use super::feed::{Feed, Job};
use super::head::Head;
use super::judge::Judge;
use super::{RunError, connect, wall};
use crate::framing::{PREFIX_OCTETS, frame};
use crate::outcome::{ERROR_TEXTS_MAX, LATENCY_NS_MAX, Latencies, OTHER_ERRORS, Outcome};
use crate::plan::{Plan, Schedule, Shape};
use bytes::Bytes;
use h2::client::SendRequest;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::iter;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What slots and the driver share; one thread.
pub(super) struct Shared {
    pub(super) plan: Plan,
    pub(super) head: Head,
    /// Request messages behind their prefixes, taken in turn; never none.
    framed: Vec<Bytes>,
    /// Calls that began, as far as they take messages in turn.
    turn: Cell<usize>,
    pub(super) feed: RefCell<Feed>,
    pub(super) tally: RefCell<Outcome>,
    /// Of the phase.
    pub(super) deadline: Cell<Option<Instant>>,
    /// When the phase's last call ended.
    pub(super) last_end: Cell<Option<Instant>>,
    /// Grows with everything that is sent or received.
    pub(super) progress: Cell<u64>,
    open: bool,
}

impl Shared {
    pub(super) fn new(plan: &Plan, more: &[Bytes]) -> Result<Self, RunError> {
        Ok(Self {
            head: Head::new(plan)?,
            framed: iter::once(&plan.request).chain(more).map(|message| frame(message)).collect(),
            turn: Cell::new(0),
            feed: RefCell::new(Feed::new(plan.connections * plan.streams)),
            tally: RefCell::new(Outcome::empty()),
            deadline: Cell::new(None),
            last_end: Cell::new(None),
            progress: Cell::new(0),
            open: matches!(plan.schedule, Schedule::Open(_)),
            plan: plan.clone(),
        })
    }

    /// A stream's message by its number, from 0 on.
    pub(super) fn message(&self, number: u64) -> Bytes {
        let at = number % self.framed.len() as u64;
        usize::try_from(at).ok().and_then(|at| self.framed.get(at)).cloned().unwrap_or_default()
    }

    /// The message of a call that has one.
    pub(super) fn next_message(&self) -> Bytes {
        let at = self.turn.get();
        self.turn.set((at + 1) % self.framed.len());
        self.message(at as u64)
    }

    /// Octets of a stream's first `count` messages. A call with one counts as if it had the first.
    fn octets(&self, count: u64) -> u64 {
        let bare = |framed: &Bytes| (framed.len() - PREFIX_OCTETS) as u64;
        let (messages, all) = (self.framed.len() as u64, self.framed.iter().map(bare).sum::<u64>());
        let rest = usize::try_from(count % messages).unwrap_or(0);
        count / messages * all + self.framed.iter().take(rest).map(bare).sum::<u64>()
    }

    pub(super) fn progress(&self) {
        self.progress.set(self.progress.get() + 1);
    }

    /// The phase's time is over.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.deadline.get().is_some_and(|deadline| now >= deadline)
    }

    pub(super) fn status(&self, code: u32) {
        *self.tally.borrow_mut().statuses.entry(code).or_default() += 1;
    }

    pub(super) fn round_trip(&self, latency: Duration) {
        let tally = &mut *self.tally.borrow_mut();
        record(&mut tally.latency, latency);
        record(&mut tally.service, latency);
    }

    pub(super) fn error(&self, text: String, count: u64) {
        let errors = &mut self.tally.borrow_mut().errors;
        let full = errors.len() >= ERROR_TEXTS_MAX && !errors.contains_key(&text);
        let text = if full { OTHER_ERRORS.to_owned() } else { text };
        *errors.entry(text).or_default() += count;
    }

    fn call_ended(&self, job: Job, sent: Instant, now: Instant, call: &Call<'_>) {
        self.last_end.set(Some(now));
        self.progress();
        let tally = &mut *self.tally.borrow_mut();
        tally.calls += 1;
        tally.messages += call.judge.messages;
        if call.ended.is_err() {
            return;
        }
        tally.request_octets += self.octets(call.sent());
        tally.response_octets += call.judge.octets;
        if self.open && !job.waited {
            record(&mut tally.lateness, sent.saturating_duration_since(job.due));
        }
        if !matches!(self.plan.shape, Shape::PingPong { .. }) {
            record(&mut tally.latency, now.saturating_duration_since(job.due));
            if self.open {
                record(&mut tally.service, now.saturating_duration_since(sent));
            }
        }
    }
}

fn record(latencies: &mut Latencies, latency: Duration) {
    let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
    latencies.saturating_record(ns.clamp(1, LATENCY_NS_MAX));
}

/// A call that ended.
struct Call<'a> {
    judge: Judge<'a>,
    ended: Result<(), Failure>,
}

impl Call<'_> {
    /// Request messages, when it ended OK.
    fn sent(&self) -> u64 {
        match self.judge.plan().shape {
            Shape::Unary | Shape::ServerStream => 1,
            Shape::ClientStream { messages } => messages,
            Shape::PingPong { .. } => self.judge.messages,
        }
    }
}

pub(super) async fn run(shared: Rc<Shared>, slot: usize, mut sender: SendRequest<Bytes>) {
    let mut now = wall();
    loop {
        let job = next_job(&shared, slot, now).await;
        if let Err(error) = poll_fn(|context| sender.poll_ready(context)).await {
            shared.tally.borrow_mut().calls += 1;
            shared.last_end.set(Some(wall()));
            shared.error(connect::text(&error), 1);
            shared.feed.borrow_mut().leave(slot);
            return;
        }
        let sent = if shared.open { wall() } else { job.due };
        let call = one_call(&shared, &mut sender).await;
        now = wall();
        shared.call_ended(job, sent, now, &call);
        let Err(failure) = call.ended else { continue };
        match failure {
            Failure::Status { code, message } => {
                shared.error(crate::outcome::status_text(code, &message), 1);
            }
            Failure::Lost(text) | Failure::Wrong(text) => shared.error(text, 1),
        }
        // A peer that fails everything at once must not keep the others from their turn.
        tokio::task::yield_now().await;
    }
}

/// `ended` is when the slot's last call ended: its next one may begin right then.
async fn next_job(shared: &Shared, slot: usize, ended: Instant) -> Job {
    let mut now = Some(ended);
    poll_fn(|context| {
        let now = now.take().unwrap_or_else(wall);
        shared.feed.borrow_mut().poll_job(slot, now, context)
    })
    .await
}

async fn one_call<'a>(shared: &'a Shared, sender: &mut SendRequest<Bytes>) -> Call<'a> {
    let mut judge = Judge::new(&shared.plan);
    let call = async {
        match shared.plan.shape {
            Shape::Unary | Shape::ServerStream => {
                call::one_request(shared, sender, &mut judge).await
            }
            Shape::ClientStream { messages } => {
                call::client_stream(shared, sender, &mut judge, messages).await
            }
            Shape::PingPong { round_trips } => {
                call::ping_pong(shared, sender, &mut judge, round_trips).await
            }
        }
    };
    let ended = match shared.plan.timeout {
        None => call.await,
        Some(timeout) => match tokio::time::timeout(timeout, call).await {
            Ok(ended) => ended,
            Err(_) => {
                const DEADLINE_EXCEEDED: u32 = 4;
                shared.status(DEADLINE_EXCEEDED);
                let message = "no answer in time".to_owned();
                Err(Failure::Status { code: DEADLINE_EXCEEDED, message })
            }
        },
    };
    Call { judge, ended }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::plan::{End, Expect};
    use std::net::{Ipv4Addr, SocketAddr};

    /// One unary call to nobody.
    pub(crate) fn plan() -> Plan {
        Plan {
            target: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            authority: "localhost".to_owned(),
            path: "/loadtest.Echo/Unary".to_owned(),
            metadata: Vec::new(),
            unique: Vec::new(),
            shape: Shape::Unary,
            request: Bytes::new(),
            expect: Expect::Echo,
            connections: 1,
            streams: 1,
            schedule: Schedule::Closed,
            warmup: Duration::ZERO,
            end: End::Calls(1),
            timeout: None,
        }
    }

    #[test]
    fn messages_take_turns() {
        let first = Plan { request: Bytes::from_static(b"one"), ..plan() };
        let shared = Shared::new(&first, &[Bytes::from_static(b"second")]).expect("a good plan");
        let taken = [0, 1, 2].map(|number| shared.message(number).len() - PREFIX_OCTETS);
        assert_eq!(taken, [3, 6, 3]);
        let next = [(); 3].map(|()| shared.next_message().len() - PREFIX_OCTETS);
        assert_eq!(next, [3, 6, 3]);
        assert_eq!([0, 1, 2, 5].map(|count| shared.octets(count)), [0, 3, 9, 21]);
    }

    #[test]
    fn error_texts_are_bounded() {
        let shared = Shared::new(&plan(), &[]).expect("a good plan");
        for text in 0..ERROR_TEXTS_MAX + 5 {
            shared.error(text.to_string(), 1);
        }
        shared.error("0".to_owned(), 1);
        let tally = shared.tally.borrow();
        assert_eq!(tally.errors.len(), ERROR_TEXTS_MAX + 1);
        assert_eq!((tally.errors["0"], tally.errors[OTHER_ERRORS]), (2, 5));
    }
}
