//! What control tells the workers: snapshots, resolutions, the drain.
//!
//! 1. Every worker gets every message, in order.
//! 2. A full mailbox is never waited for: what it refused is kept, [`BACKLOG_MAX`] at most, and
//!    offered again. What does not fit there either is lost, and said.
//! 3. Epochs rise by one with each published snapshot.

use crate::mailbox::{Sender, ToWorker};
use crate::snapshot::{Epoch, Snapshot};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Messages kept for one worker.
const BACKLOG_MAX: usize = 1024;
const OFFER_AGAIN: Duration = Duration::from_millis(5);

#[derive(Debug)]
struct Line {
    sender: Sender<ToWorker>,
    backlog: RefCell<VecDeque<ToWorker>>,
    drained: Cell<bool>,
}

#[derive(Debug)]
pub struct Workers {
    lines: Vec<Line>,
    snapshot: RefCell<Arc<Snapshot>>,
    offering: Cell<bool>,
    drained: Notify,
}

impl Workers {
    /// `snapshot` is what the workers were started with.
    pub fn new(senders: Vec<Sender<ToWorker>>, snapshot: Arc<Snapshot>) -> Rc<Self> {
        let line = |sender| Line { sender, backlog: RefCell::default(), drained: Cell::new(false) };
        Rc::new(Self {
            lines: senders.into_iter().map(line).collect(),
            snapshot: RefCell::new(snapshot),
            offering: Cell::new(false),
            drained: Notify::new(),
        })
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    pub fn count(&self) -> usize {
        self.lines.len()
    }

    /// The next snapshot: the last one, changed.
    pub fn publish(self: &Rc<Self>, change: impl FnOnce(&mut Snapshot)) {
        let mut next = Snapshot::clone(&self.snapshot.borrow());
        next.epoch = Epoch(next.epoch.0 + 1);
        change(&mut next);
        let next = Arc::new(next);
        *self.snapshot.borrow_mut() = Arc::clone(&next);
        self.tell(|| ToWorker::Snapshot(Arc::clone(&next)));
    }

    /// Inside a `LocalSet`.
    pub fn tell(self: &Rc<Self>, message: impl Fn() -> ToWorker) {
        for line in &self.lines {
            line.send(message());
        }
        self.offer_again();
    }

    /// To one worker alone. Inside a `LocalSet`.
    pub fn tell_one(self: &Rc<Self>, worker: usize, message: ToWorker) {
        if let Some(line) = self.lines.get(worker) {
            line.send(message);
            self.offer_again();
        }
    }

    pub fn has_drained(&self, worker: usize) {
        if let Some(line) = self.lines.get(worker) {
            line.drained.set(true);
            self.drained.notify_waiters();
        }
    }

    /// Returns when every worker has said that it drained.
    pub async fn all_drained(&self) {
        loop {
            let next = self.drained.notified();
            if self.lines.iter().all(|line| line.drained.get()) {
                return;
            }
            next.await;
        }
    }

    fn offer_again(self: &Rc<Self>) {
        let waiting = || self.lines.iter().any(|line| !line.backlog.borrow().is_empty());
        if !waiting() || self.offering.replace(true) {
            return;
        }
        let workers = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let mut waiting = true;
            while waiting {
                tokio::time::sleep(OFFER_AGAIN).await;
                waiting = false;
                for line in &workers.lines {
                    waiting |= !line.offer();
                }
            }
            workers.offering.set(false);
        });
    }
}

impl Line {
    fn send(&self, message: ToWorker) {
        let mut backlog = self.backlog.borrow_mut();
        let refused = match backlog.is_empty() {
            true => self.sender.send(message).err(),
            false => Some(message),
        };
        let Some(message) = refused else { return };
        if backlog.len() < BACKLOG_MAX {
            backlog.push_back(message);
        } else {
            tracing::error!("a worker does not read its mail; a message to it is lost");
        }
    }

    /// True when nothing is left.
    fn offer(&self) -> bool {
        let mut backlog = self.backlog.borrow_mut();
        while let Some(message) = backlog.pop_front() {
            if let Err(message) = self.sender.send(message) {
                backlog.push_front(message);
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Flags, Settings};
    use crate::mailbox::mailbox;

    fn snapshot() -> Arc<Snapshot> {
        let flags = Flags { app_id: "a".into(), ..Flags::default() };
        let settings = Settings::new(&flags, &Environment::default()).unwrap();
        Arc::new(Snapshot::new(Arc::new(settings.config)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_mailbox_gets_everything_in_order() {
        let (sender, mailbox) = mailbox(1).unwrap();
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let workers = Workers::new(vec![sender], snapshot());
                for _ in 0..3 {
                    workers.publish(|_| ());
                }
                workers.tell(|| ToWorker::Drain);
                let mut epochs = Vec::new();
                for _ in 0..4 {
                    match mailbox.try_recv() {
                        Some(ToWorker::Snapshot(snapshot)) => epochs.push(snapshot.epoch.0),
                        Some(ToWorker::Drain) => epochs.push(0),
                        other => panic!("{other:?}"),
                    }
                    tokio::time::sleep(OFFER_AGAIN * 2).await;
                }
                assert_eq!(epochs, [2, 3, 4, 0]);
                assert_eq!(workers.snapshot().epoch, Epoch(4));
            })
            .await;
    }

    #[tokio::test]
    async fn drained_when_all_are() {
        let (one, _one) = mailbox(1).unwrap();
        let (two, _two) = mailbox(1).unwrap();
        let workers = Workers::new(vec![one, two], snapshot());
        workers.has_drained(0);
        workers.has_drained(7);
        let last = async { workers.has_drained(1) };
        tokio::join!(workers.all_drained(), last);
    }
}
