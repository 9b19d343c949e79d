//! `tap`: calls, as they end, to whoever looks on.
//!
//! ```text
//! worker: a call ends, somebody taps, the filter fits ──▶ the tap's queue ──▶ a line of JSON
//! ```
//! 1. A tap has a queue of its own, of [`QUEUE_MAX`] calls; what does not fit is dropped by the
//!    worker; how many were is told as soon as the queue has been read.
//! 2. The first line comes when every worker knows of the tap: calls that begin after it are told.

use super::{Console, say, write};
use crate::mailbox::{Tap, Tapped, ToWorker, mailbox};
use crate::observe::account::{Account, Filter};
use crate::observe::cells::Hop;
use serde_json::{Value, json};
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

/// Taps at the same time.
const TAPS_MAX: usize = 4;
/// Calls that wait to be told to one tap.
const QUEUE_MAX: usize = 1024;
/// Calls written at once.
const BATCH_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Taps {
    open: Cell<usize>,
    last: Cell<u64>,
}

impl Console {
    pub(super) async fn tap(
        self: &Rc<Self>,
        filter: Filter,
        mut stream: UnixStream,
    ) -> io::Result<()> {
        if self.taps.open.get() >= TAPS_MAX {
            let error = format!("there are {TAPS_MAX} taps already");
            return say(&mut stream, &json!({ "error": error })).await;
        }
        let id = self.taps.last.get() + 1;
        self.taps.last.set(id);
        self.taps.open.set(self.taps.open.get() + 1);
        let ended = self.follow(id, Arc::new(filter), stream).await;
        self.workers.tell(|| ToWorker::Untap(id));
        self.taps.open.set(self.taps.open.get() - 1);
        ended
    }

    async fn follow(
        self: &Rc<Self>,
        id: u64,
        filter: Arc<Filter>,
        mut stream: UnixStream,
    ) -> io::Result<()> {
        let (sender, inbox) = mailbox::<Tapped>(QUEUE_MAX)?;
        let missed = Arc::new(AtomicU64::new(0));
        for worker in 0..self.workers.count() {
            let (filter, missed) = (Arc::clone(&filter), Arc::clone(&missed));
            let tap = Tap { id, filter, sender: sender.try_clone()?, missed };
            self.workers.tell_one(worker, ToWorker::Tap(tap));
        }
        drop(sender);
        self.reports().await;
        say(&mut stream, &json!({ "tapping": true })).await?;
        let bell = UnixStream::from_std(inbox.bell.try_clone()?)?;
        let mut rung = [0; 64];
        loop {
            let mut lines = String::new();
            for tapped in std::iter::from_fn(|| inbox.try_recv()).take(BATCH_MAX) {
                lines.push_str(&told(&tapped).to_string());
                lines.push('\n');
            }
            let missed = if lines.is_empty() { missed.swap(0, Ordering::Relaxed) } else { 0 };
            if missed > 0 {
                lines = format!("{}\n", json!({ "missed": missed }));
            }
            if !lines.is_empty() {
                write(&mut stream, lines.as_bytes()).await?;
                continue;
            }
            tokio::select! {
                ready = bell.readable() => {
                    ready?;
                    match bell.try_read(&mut rung) {
                        // Every worker is gone.
                        Ok(0) => return Ok(()),
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
                // Whoever taps has nothing to say but goodbye.
                heard = stream.read(&mut rung) => if heard? == 0 { return Ok(()) },
                () = self.state.http_closed() => return Ok(()),
            }
        }
    }
}

fn told(tapped: &Tapped) -> Value {
    let Tapped { worker, account } = tapped;
    let Account { hop, caller, callee, method, status, upstream, .. } = &**account;
    json!({
        "worker": worker,
        "hop": match hop {
            Hop::Outbound => "outbound",
            Hop::Inbound => "inbound",
        },
        "caller": caller,
        "callee": callee,
        "method": method,
        "status": status,
        "request_octets": account.request_octets,
        "response_octets": account.response_octets,
        "upstream": upstream,
        "waited_us": account.waited.map(micros),
        "answered_us": account.answered.map(micros),
        "total_us": micros(account.total),
    })
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
