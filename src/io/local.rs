//! What tasks of one worker wake each other with.
//!
//! 1. All of it stays on one thread.
//! 2. A [`deadline`] never drops the work: it makes the work end, and waits for it.

use super::clock::Sleep;
use super::load::{Number, OwnLoad};
use super::socket::{Shutdown, Socket};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// A flag on which one task waits.
#[derive(Debug, Default)]
pub(super) struct Notify {
    set: Cell<bool>,
    /// The task that waited last.
    waiting: RefCell<Option<Waker>>,
}

impl Notify {
    pub(super) fn notify(&self) {
        if !self.set.replace(true)
            && let Some(waker) = &*self.waiting.borrow()
        {
            // Puts the task into the runtime's queue, and runs nothing.
            waker.wake_by_ref();
        }
    }

    /// Until notified; clears the flag. May be dropped.
    pub(super) fn wait(&self) -> impl Future<Output = ()> + '_ {
        poll_fn(|context| {
            if self.set.replace(false) {
                return Poll::Ready(());
            }
            // Nearly always the one that is there.
            match &mut *self.waiting.borrow_mut() {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
            Poll::Pending
        })
    }
}

/// Whichever comes first; both may be dropped.
pub(super) async fn either(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|context| {
        if one.as_mut().poll(context).is_ready() || other.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}

/// Runs `work` on `socket`; when `limit` is over, shuts the socket down, so that whatever `work`
/// waits for completes, and still awaits it. The answer says whether that happened.
pub(super) async fn deadline<T>(
    limit: Sleep,
    socket: &Socket,
    work: impl Future<Output = T>,
) -> (T, bool) {
    let (mut work, mut timer) = (pin!(work), pin!(limit));
    let mut expired = false;
    poll_fn(move |context| {
        if let Poll::Ready(output) = work.as_mut().poll(context) {
            return Poll::Ready((output, expired));
        }
        if !expired && timer.as_mut().poll(context).is_ready() {
            expired = true;
            // What `work` waits for completes, and that wakes this task.
            socket.shutdown(Shutdown::Both);
        }
        Poll::Pending
    })
    .await
}

/// A place taken in a bounded count of this worker's; given back on drop.
#[derive(Debug)]
pub(super) struct Place {
    load: Rc<OwnLoad>,
    number: Number,
}

impl Place {
    pub(super) fn take(load: &Rc<OwnLoad>, number: Number) -> Self {
        load.rise(number);
        Self { load: Rc::clone(load), number }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.load.fall(self.number);
    }
}
