//! A worker's mail: what control tells it, and what it tells control.
//!
//! 1. Control is never waited for: what does not fit its queue is kept, up to a limit, and
//!    tried again.
//! 2. A bell rung many times is read once.
//!
//! Decides nothing: the proxy is told, or control.

use super::socket::Socket;
use super::tls::Contexts;
use super::worker::Worker;
use super::{SCOPE, listener, sys};
use crate::mailbox::{Mailbox, Stream, ToControl, ToWorker};
use crate::observe::cells::Increment;
use crate::observe::span::Span;
use crate::proxy::Input;
use crate::snapshot::Snapshot;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Messages to control that wait for room in its queue.
const UNSENT_MAX: usize = 64;
const UNSENT_PAUSE: Duration = Duration::from_millis(5);

/// Reads the mailbox until control is gone.
pub(super) async fn serve(worker: &Rc<Worker>, mailbox: &Mailbox<ToWorker>) -> io::Result<()> {
    let bell = mailbox.bell.try_clone()?;
    bell.set_nonblocking(false)?;
    let bell = Socket::adopt(&worker.runtime.reactor, Stream::Unix(bell))?;
    loop {
        while let Some(message) = mailbox.try_recv() {
            match message {
                ToWorker::Snapshot(snapshot) => worker.publish(snapshot),
                ToWorker::Resolved(resolution) => worker.tell(Input::Resolved(resolution)),
                ToWorker::Answered { call, answer } => {
                    worker.tell(Input::Answered { call, answer });
                }
                ToWorker::Drain => worker.drain(),
                ToWorker::Accepted(accepted) => listener::arrived(worker, accepted),
                ToWorker::Scrape(room) => worker.hand_over(*room),
                ToWorker::Report => worker.report(),
                ToWorker::Tap(tap) => worker.tap(tap),
                ToWorker::Untap(id) => worker.untap(id),
            }
        }
        // How often it was rung says nothing.
        if bell.read().await?.is_empty() {
            return Ok(());
        }
    }
}

async fn repost(worker: Rc<Worker>) {
    loop {
        worker.runtime.clock.sleep(UNSENT_PAUSE).await;
        let mut unsent = worker.unsent.borrow_mut();
        while let Some(message) = unsent.pop_front() {
            if let Err(message) = worker.control.send(message) {
                unsent.push_front(message);
                break;
            }
        }
        if unsent.is_empty() {
            return;
        }
    }
}

impl Worker {
    /// To control; kept for a while when its queue is full.
    pub(super) fn post(self: &Rc<Self>, message: ToControl) {
        let mut unsent = self.unsent.borrow_mut();
        if unsent.is_empty() {
            if let Err(message) = self.control.send(message) {
                unsent.push_back(message);
                self.runtime.spawn(repost(Rc::clone(self)));
            }
        } else if unsent.len() < UNSENT_MAX {
            unsent.push_back(message);
        } else {
            tracing::error!(scope = SCOPE, "control does not keep up; a message to it is lost");
        }
    }

    /// Spans may be lost: they are counted, and that is told with the next.
    pub(super) fn export(&self, spans: Vec<Span>) {
        let lost = self.spans_lost.take();
        let refused = self.control.send(ToControl::Spans { spans, lost });
        if let Err(ToControl::Spans { spans, lost }) = refused {
            self.spans_lost.set(lost + spans.len());
        }
    }

    /// What is handed over must arrive: nothing is, while control's queue and ours are full.
    fn hand_over(self: &Rc<Self>, room: Increment) {
        if self.unsent.borrow().len() >= UNSENT_MAX {
            return;
        }
        let mut core = self.core.borrow_mut();
        core.pace.busy = sys::thread_time();
        core.proxy.reuse_cells(room);
        let (increment, pace) = (Box::new(core.proxy.hand_over_cells()), Box::new(core.pace));
        drop(core);
        self.post(ToControl::Cells { worker: self.index, increment, pace });
    }

    fn report(self: &Rc<Self>) {
        let mut report = Box::new(self.core.borrow().proxy.report(self.now()));
        report.limits.extend(self.bounds.in_force(&self.load));
        self.post(ToControl::Report { worker: self.index, report });
    }

    fn publish(self: &Rc<Self>, snapshot: Arc<Snapshot>) {
        self.mtls.set(snapshot.config.mtls);
        let identity = snapshot.identity.as_ref();
        if !self.contexts.borrow().are_of(identity) {
            match Contexts::new(identity) {
                Ok(contexts) => *self.contexts.borrow_mut() = Rc::new(contexts),
                // The old SVID serves as long as it is valid; control rotates again.
                Err(error) => {
                    tracing::error!(scope = SCOPE, "cannot use the new SVID: {error}");
                }
            }
        }
        self.tell(Input::Snapshot(snapshot));
    }

    fn drain(self: &Rc<Self>) {
        self.draining.set(true);
        for stopper in self.stoppers.borrow_mut().drain(..) {
            listener::stop(&stopper);
        }
        self.tell(Input::Drain);
    }
}
