//! A connection's clock: how long its peer may take, whatever it does.
//!
//! 1. A head must be whole [`HEAD_TIME_MAX`] after its first octet (after the accept, for the
//!    first one), as daprd's ReadHeaderTimeout.
//! 2. A write that the peer does not take in [`WRITE_TIME_MAX`] ends the connection.
//! 3. Without a request for [`IDLE_TIME_MAX`] the connection ends.
//!
//! While a request runs only rule 2 holds; `answer` times bodies. HTTP/2 is known by its first
//! octet; rule 1 holds for its first request only, since PINGs are octets too.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

pub const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
pub const WRITE_TIME_MAX: Duration = Duration::from_secs(30);
pub const IDLE_TIME_MAX: Duration = Duration::from_secs(180);
/// A deadline may come nearer; it is looked up this often.
const LOOK: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Progress {
    phase: Cell<Phase>,
    http2: Cell<bool>,
    blocked_since: Cell<Option<Instant>>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Waiting for (the rest of) a head.
    Head { since: Instant },
    /// So many requests run.
    Serving { requests: u32 },
    /// Between requests.
    Idle { since: Instant },
}

/// A request that runs, until dropped.
#[derive(Debug)]
pub struct Running(Rc<Progress>);

impl Progress {
    pub fn new() -> Self {
        Self {
            phase: Cell::new(Phase::Head { since: Instant::now() }),
            http2: Cell::new(false),
            blocked_since: Cell::new(None),
        }
    }

    /// A request's head is whole.
    pub fn begin(self: &Rc<Self>) -> Running {
        let requests = match self.phase.get() {
            Phase::Serving { requests } => requests + 1,
            Phase::Head { .. } | Phase::Idle { .. } => 1,
        };
        self.phase.set(Phase::Serving { requests });
        Running(Rc::clone(self))
    }

    /// Returns when the peer has taken too long.
    pub async fn overdue(&self) {
        loop {
            let (now, deadline) = (Instant::now(), self.deadline());
            if deadline.is_some_and(|deadline| now >= deadline) {
                return;
            }
            let look = now + LOOK;
            tokio::time::sleep_until(deadline.map_or(look, |deadline| deadline.min(look))).await;
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let reading = match self.phase.get() {
            Phase::Head { since } => Some(since + HEAD_TIME_MAX),
            Phase::Idle { since } => Some(since + IDLE_TIME_MAX),
            Phase::Serving { .. } => None,
        };
        let writing = self.blocked_since.get().map(|since| since + WRITE_TIME_MAX);
        reading.into_iter().chain(writing).min()
    }

    fn octets_read(&self, octets: &[u8]) {
        if self.http2.get() || octets.is_empty() {
            return;
        }
        match self.phase.get() {
            // The preface's first word is a method that HTTP/1 does not have.
            Phase::Head { .. } if octets.starts_with(b"PRI") => self.http2.set(true),
            Phase::Idle { .. } => self.phase.set(Phase::Head { since: Instant::now() }),
            Phase::Head { .. } | Phase::Serving { .. } => {}
        }
    }

    fn write_polled<T>(&self, poll: &Poll<io::Result<T>>, done: bool) {
        if poll.is_pending() {
            let since = self.blocked_since.get().unwrap_or_else(Instant::now);
            self.blocked_since.set(Some(since));
        } else if done {
            self.blocked_since.set(None);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let phase = match self.0.phase.get() {
            Phase::Serving { requests } if requests > 1 => {
                Phase::Serving { requests: requests - 1 }
            }
            Phase::Serving { .. } | Phase::Head { .. } | Phase::Idle { .. } => {
                Phase::Idle { since: Instant::now() }
            }
        };
        self.0.phase.set(phase);
    }
}

/// A stream that reports to [`Progress`].
#[derive(Debug)]
pub struct Watched<T> {
    stream: T,
    progress: Rc<Progress>,
}

impl<T> Watched<T> {
    pub fn new(stream: T, progress: Rc<Progress>) -> Self {
        Self { stream, progress }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.progress.octets_read(buffer.filled().get(before..).unwrap_or_default());
        poll
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, octets);
        // Some octets taken is not all taken: only a flush says so.
        self.progress.write_polled(&poll, false);
        poll
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.progress.write_polled(&poll, false);
        poll
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(context);
        self.progress.write_polled(&poll, true);
        poll
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(context);
        self.progress.write_polled(&poll, true);
        poll
    }
}

/// `future`, or `None` after `limit`.
pub async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(limit, future).await.ok()
}
