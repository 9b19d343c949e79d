//! A queue with a limit that takes memory for what waits in it, not for all that may: the standard
//! library's bounded one writes to every place when it is made.
//!
//! 1. Nobody blocks on a full queue: the message comes back.
//! 2. Under senders that meet at the limit one may be refused that would just have fitted; more
//!    than the limit never wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvError, RecvTimeoutError, TryRecvError, TrySendError};
use std::time::Duration;

#[derive(Debug)]
pub struct Inlet<T> {
    queue: mpsc::Sender<T>,
    waiting: Arc<AtomicUsize>,
    length: usize,
}

#[derive(Debug)]
pub struct Queue<T> {
    queue: mpsc::Receiver<T>,
    waiting: Arc<AtomicUsize>,
}

/// A queue of at most `length` messages.
pub fn queue<T>(length: usize) -> (Inlet<T>, Queue<T>) {
    let (sender, receiver) = mpsc::channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let inlet = Inlet { queue: sender, waiting: Arc::clone(&waiting), length };
    (inlet, Queue { queue: receiver, waiting })
}

impl<T> Inlet<T> {
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.length {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(TrySendError::Full(message));
        }
        self.queue.send(message).map_err(|refused| {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            TrySendError::Disconnected(refused.0)
        })
    }
}

// Not derived: a message need not be `Clone`.
impl<T> Clone for Inlet<T> {
    fn clone(&self) -> Self {
        let (queue, waiting) = (self.queue.clone(), Arc::clone(&self.waiting));
        Self { queue, waiting, length: self.length }
    }
}

impl<T> Queue<T> {
    pub fn recv(&self) -> Result<T, RecvError> {
        self.queue.recv().inspect(|_| self.taken())
    }

    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.queue.recv_timeout(timeout).inspect(|_| self.taken())
    }

    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.queue.try_recv().inspect(|_| self.taken())
    }

    fn taken(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_full_refuses_and_has_room_again() {
        let (inlet, queue) = queue(2);
        for round in 0..3 {
            assert_eq!(inlet.try_send(round), Ok(()));
            assert_eq!(inlet.clone().try_send(round + 10), Ok(()));
            assert_eq!(inlet.try_send(99), Err(TrySendError::Full(99)));
            assert_eq!(queue.recv(), Ok(round));
            assert_eq!(queue.recv_timeout(Duration::ZERO), Ok(round + 10));
            assert_eq!(queue.try_recv(), Err(TryRecvError::Empty));
        }
    }

    #[test]
    fn either_end_learns_that_the_other_is_gone() {
        let (inlet, queue) = queue::<u8>(1);
        drop(queue);
        for _ in 0..2 {
            assert_eq!(inlet.try_send(1), Err(TrySendError::Disconnected(1)));
        }
        let (inlet, queue) = super::queue::<u8>(1);
        drop(inlet);
        assert_eq!(queue.recv(), Err(RecvError));
    }

    #[test]
    fn no_more_than_the_limit_wait_however_many_send() {
        let (inlet, queue) = queue(8);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let inlet = inlet.clone();
                scope.spawn(move || {
                    (0..1000).filter_map(|n| inlet.try_send(n).err()).for_each(drop);
                });
            }
        });
        assert_eq!(std::iter::from_fn(|| queue.try_recv().ok()).count(), 8);
    }
}
