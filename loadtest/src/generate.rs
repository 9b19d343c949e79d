//! Sends a plan's load from one thread, on the `h2` crate, and judges the answers.
//!
//! ```text
//! dues     when calls of an open schedule are due      (pure)
//! timer    waits for that, finer than a millisecond
//! feed     gives jobs to slots; bounded queue           (pure)
//! slot     one stream of one connection: asks for jobs, calls, counts
//! call     one call of each shape
//! judge    checks one response's messages               (pure)
//! head     the request's head
//! connect  TCP, HTTP/2, first PING
//! phase    warm-up or measured part: begins, waits until all is quiet
//! ```
//!
//! 1. One thread, one task per slot, no allocation of our own per call but the copy of the head.
//! 2. Open loop: a call's latency counts from the moment it was due, even when it waited for a
//!    free stream or for this program. All calls that are due are released at each wake-up, so
//!    that gaps below the timer's grain make bursts, never a lower rate. There is next to no
//!    spinning: it would take the CPU from what is measured. How late calls left for which a
//!    stream was free is [`Outcome::lateness`]; compare it with the latencies before believing
//!    them.
//! 3. Between warm-up and measured part, and at the end, every call has ended: CPU time read at
//!    the [`Mark`]s belongs to the calls that are counted.
//! 4. A lost connection is not made anew. Its calls are errors, and the run goes on with the rest.
//!
//! Refuses to know what a message says beyond [`crate::plan::Expect`].

mod call;
mod connect;
mod dues;
mod feed;
mod head;
mod judge;
mod phase;
pub(crate) mod slot;
mod timer;

use crate::interrupt;
use crate::outcome::Outcome;
use crate::plan::{Plan, Schedule};
use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Instant;
use std::{fmt, io};
use tokio::runtime::{Builder, LocalOptions};

/// Where the measured part begins and ends, for whoever reads clocks of his own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Connections are open, the warm-up is over, nothing is in flight.
    Begin,
    /// Nothing is in flight any more.
    End,
}

/// Why there is no outcome.
#[derive(Debug)]
pub enum RunError {
    /// The plan cannot be carried out; a sentence.
    Plan(String),
    Connect {
        target: SocketAddr,
        error: io::Error,
    },
    /// The target accepts connections and does not answer as HTTP/2 would.
    Handshake {
        target: SocketAddr,
        error: String,
    },
    /// Not even calls of the warm-up ended.
    Stalled {
        calls: usize,
    },
    Machine(io::Error),
    /// By a signal.
    Interrupted,
}

impl fmt::Display for RunError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan(sentence) => out.write_str(sentence),
            Self::Connect { target, error } => write!(out, "cannot connect to {target}: {error}"),
            Self::Handshake { target, error } => {
                write!(out, "{target} does not speak plaintext HTTP/2: {error}")
            }
            Self::Stalled { calls } => {
                write!(out, "{calls} calls of the warm-up were never answered")
            }
            Self::Machine(error) => write!(out, "this machine refuses: {error}"),
            Self::Interrupted => out.write_str("interrupted"),
        }
    }
}

impl std::error::Error for RunError {}

impl From<io::Error> for RunError {
    fn from(error: io::Error) -> Self {
        Self::Machine(error)
    }
}

/// Runs on this thread, with a runtime of its own.
pub fn run_blocking(plan: &Plan) -> Result<Outcome, RunError> {
    run_blocking_marked(plan, &mut |_| ())
}

/// As [`run_blocking`], and says where the measured part begins and ends.
pub fn run_blocking_marked(plan: &Plan, mark: &mut dyn FnMut(Mark)) -> Result<Outcome, RunError> {
    run_sequence_blocking_marked(plan, &[], mark)
}

/// As [`run_blocking_marked`]; the messages of a stream are the plan's and then `more`, in turn;
/// unary calls and server streams send the next one each.
pub fn run_sequence_blocking_marked(
    plan: &Plan,
    more: &[Bytes],
    mark: &mut dyn FnMut(Mark),
) -> Result<Outcome, RunError> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        tokio::select! {
            biased;
            outcome = drive(plan, more, mark) => outcome,
            () = interrupt::wait() => Err(RunError::Interrupted),
        }
    })
}

async fn drive(
    plan: &Plan,
    more: &[Bytes],
    mark: &mut dyn FnMut(Mark),
) -> Result<Outcome, RunError> {
    check(plan, more)?;
    let run = phase::Run::open(plan, more).await?;
    if !plan.warmup.is_zero() {
        run.warm_up().await?;
    }
    mark(Mark::Begin);
    let outcome = run.measure().await?;
    mark(Mark::End);
    run.close().await;
    Ok(outcome)
}

/// Streams of all connections: each is a task.
const SLOTS_MAX: usize = 1 << 17;

fn check(plan: &Plan, more: &[Bytes]) -> Result<(), RunError> {
    let refuse = |sentence: &str| Err(RunError::Plan(sentence.to_owned()));
    if plan.connections == 0 || plan.streams == 0 {
        return refuse("a run needs at least one connection and one stream");
    }
    if plan.connections.saturating_mul(plan.streams) > SLOTS_MAX {
        return refuse("connections times streams must not exceed 131072");
    }
    let too_long = |message: &Bytes| message.len() > crate::framing::MESSAGE_OCTETS_MAX;
    if too_long(&plan.request) || more.iter().any(too_long) {
        return refuse("a request message must not exceed 64 MiB");
    }
    let Schedule::Open(segments) = &plan.schedule else { return Ok(()) };
    let rates = segments.iter().flat_map(|segment| [segment.from, segment.to]);
    if rates.clone().any(|rate| !rate.is_finite() || rate < 0.0) {
        return refuse("a rate must be a number of calls per second, not below 0");
    }
    if rates.clone().all(|rate| rate == 0.0) {
        return refuse("an open schedule needs a segment whose rate is above 0");
    }
    Ok(())
}

#[allow(clippy::disallowed_methods)] // what a load generator is for
fn wall() -> Instant {
    Instant::now()
}
