//! A worker's mail: what control tells it, and what it tells control.
//!
//! 1. Control is never waited for: what does not fit its queue is kept, up to a limit, and
//!    tried again.
//! 2. A bell rung many times is read once.
//!
//! Decides nothing: the proxy is told, or control.

use super::tls::Contexts;
use super::worker::Worker;
use super::{SCOPE, listener, sys};
use crate::mailbox::{Mailbox, ToControl, ToWorker};
use crate::proxy::Input;
use crate::snapshot::Snapshot;
use bytes::BytesMut;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Messages to control that wait for room in its queue.
const UNSENT_MAX: usize = 64;
const UNSENT_PAUSE: Duration = Duration::from_millis(5);

/// Octets of the bell that are read at once; their number says nothing.
const BELL_OCTETS: usize = 64;

/// Reads the mailbox until control is gone.
pub(super) async fn serve(worker: &Rc<Worker>, mailbox: &Mailbox<ToWorker>) -> io::Result<()> {
    let bell = mailbox.bell.try_clone()?;
    // The ring waits on a blocking socket, epoll wants the other kind.
    bell.set_nonblocking(worker.epoll)?;
    let bell = sys::Socket::from(monoio::net::UnixStream::from_std(bell)?);
    let mut room = BytesMut::with_capacity(BELL_OCTETS);
    loop {
        while let Some(message) = mailbox.try_recv() {
            match message {
                ToWorker::Snapshot(snapshot) => worker.publish(snapshot),
                ToWorker::Resolved(resolution) => worker.tell(Input::Resolved(resolution)),
                ToWorker::Drain => worker.drain(),
                ToWorker::Accepted(accepted) => listener::arrived(worker, accepted),
                ToWorker::Scrape => worker.hand_over(),
            }
        }
        room.clear();
        let (result, back) = bell.read(room).await;
        room = back;
        match result {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

async fn repost(worker: Rc<Worker>) {
    loop {
        worker.clock.sleep(UNSENT_PAUSE).await;
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
                monoio::spawn(repost(Rc::clone(self)));
            }
        } else if unsent.len() < UNSENT_MAX {
            unsent.push_back(message);
        } else {
            tracing::error!(scope = SCOPE, "control does not keep up; a message to it is lost");
        }
    }

    /// What is handed over must arrive: nothing is, while control's queue and ours are full.
    fn hand_over(self: &Rc<Self>) {
        if self.unsent.borrow().len() >= UNSENT_MAX {
            return;
        }
        let increment = Box::new(self.core.borrow_mut().proxy.hand_over_cells());
        let busy = sys::thread_time();
        self.post(ToControl::Cells { worker: self.index, increment, busy });
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
