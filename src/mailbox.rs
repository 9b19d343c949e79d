//! The only channels: bounded queues between control, workers and the acceptor.
//!
//! 1. A queue has a fixed length; what does not fit is refused to the sender, never blocked on.
//! 2. Ringing the bell of a queue that is already rung costs nothing and loses nothing.

pub mod queue;

use crate::observe::account::{Account, Filter};
use crate::observe::cells::Increment;
use crate::observe::report::WorkerReport;
use crate::observe::span::Span;
use crate::observe::turns::Pace;
use crate::resolve::{Resolution, Target};
use crate::snapshot::Snapshot;
use bytes::Bytes;
use queue::{Inlet, Queue, queue};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::TrySendError;

/// Control tells a worker.
#[derive(Debug)]
pub enum ToWorker {
    Snapshot(Arc<Snapshot>),
    Resolved(Resolution),
    /// To the question of that call: the response's message, or why there is none.
    Answered {
        call: u64,
        answer: Result<Bytes, &'static str>,
    },
    /// Stop taking calls, finish those in flight; answered by [`ToControl::Drained`].
    Drain,
    /// Hand over what was counted.
    /// With room for what is counted after it.
    Scrape(Box<Increment>),
    /// Say what it looks like inside.
    Report,
    /// Somebody wants to see calls.
    Tap(Tap),
    /// The tap of that number has had enough.
    Untap(u64),
    /// From the worker that accepts: a connection that is this worker's from now on.
    Accepted(Accepted),
}

/// Somebody who looks on while calls end.
#[derive(Debug)]
pub struct Tap {
    pub id: u64,
    pub filter: Arc<Filter>,
    pub sender: Sender<Tapped>,
    /// Calls for which there was no room; written only then.
    pub missed: Arc<AtomicU64>,
}

/// A call for a tap.
#[derive(Debug)]
pub struct Tapped {
    pub worker: usize,
    pub account: Box<Account>,
}

/// A fresh connection on its way to the worker that will serve it. Dropped, it is closed.
#[derive(Debug)]
pub struct Accepted {
    pub stream: Stream,
    /// Which of the listening sockets it came by: an index that all workers share.
    pub listener: usize,
    pub peer: Option<SocketAddr>,
}

#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A worker tells control.
#[derive(Debug)]
pub enum ToControl {
    /// Single flight per worker and target: asked once until answered.
    Resolve(Target),
    /// What was counted since the last scrape.
    Cells {
        worker: usize,
        increment: Box<Increment>,
        pace: Box<Pace>,
    },
    Drained {
        worker: usize,
    },
    /// Calls that are over; and how many such were lost on the way here before.
    Spans {
        spans: Vec<Span>,
        lost: usize,
    },
    Report {
        worker: usize,
        report: Box<WorkerReport>,
    },
    /// `Dapr/GetMetadata`, and as all that follow: answered by [`ToWorker::Answered`].
    Metadata {
        worker: usize,
        call: u64,
    },
    /// `Dapr/SetMetadata`.
    SetMetadata {
        worker: usize,
        call: u64,
        key: String,
        value: String,
    },
    /// `Dapr/Shutdown`.
    Shutdown {
        worker: usize,
        call: u64,
        force: bool,
    },
    /// A `ServerReflectionRequest`.
    Reflection {
        worker: usize,
        call: u64,
        question: Bytes,
    },
}

/// The sending end.
#[derive(Debug)]
pub struct Sender<T> {
    queue: Inlet<T>,
    bell: UnixStream,
}

/// The receiving end: read `bell` until it would block, then `try_recv` until `None`.
#[derive(Debug)]
pub struct Mailbox<T> {
    queue: Queue<T>,
    pub bell: UnixStream,
}

/// A queue of at most `length` messages.
pub fn mailbox<T>(length: usize) -> io::Result<(Sender<T>, Mailbox<T>)> {
    let (queue, receiver) = queue(length);
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    Ok((Sender { queue, bell: ours }, Mailbox { queue: receiver, bell: theirs }))
}

impl<T> Sender<T> {
    /// The message comes back when the queue is full or the other side is gone.
    pub fn send(&self, message: T) -> Result<(), T> {
        match self.queue.try_send(message) {
            Ok(()) => {
                self.ring();
                Ok(())
            }
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => Err(message),
        }
    }

    fn ring(&self) {
        // A full socket buffer means that the bell rings already; any other error means that the
        // receiver is gone, which the next send reports.
        let _ = (&self.bell).write(&[1]);
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { queue: self.queue.clone(), bell: self.bell.try_clone()? })
    }
}

impl<T> Mailbox<T> {
    pub fn try_recv(&self) -> Option<T> {
        self.queue.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn rings_and_refuses_when_full() {
        let (sender, mailbox) = mailbox::<u32>(1).unwrap();
        sender.send(1).unwrap();
        assert_eq!(sender.send(2), Err(2));
        let mut rung = [0; 8];
        assert_eq!((&mailbox.bell).read(&mut rung).unwrap(), 1);
        assert_eq!(mailbox.try_recv(), Some(1));
        assert_eq!(mailbox.try_recv(), None);
    }
}
