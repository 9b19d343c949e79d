//! Which worker serves a new connection: the acceptor's side of it.
//!
//! 1. One worker of a process accepts, so who was sent what is known here without asking.
//! 2. A worker gets no more connections, nor handshakes, than it may hold, counting those that
//!    are on their way to it.
//! 3. A connection that no worker takes stays with the acceptor: it is offered again or closed,
//!    never forgotten.
//!
//! Refuses to know listeners and what is spoken on a connection.

use super::bounds::{Bounds, Full};
use super::load::{Load, Loads, by_load};
use crate::mailbox::{Accepted, Sender, Stream, ToWorker};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

pub(super) struct Placement {
    loads: Arc<Loads>,
    own: usize,
    connections_max: u64,
    handshakes_max: u64,
    /// By worker; none for our own, and none at all once the worker ends.
    others: RefCell<Vec<Option<Sender<ToWorker>>>>,
    /// Connections sent to each worker so far.
    sent: RefCell<Vec<u64>>,
}

/// What a connection will ask of its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    Connection,
    /// Half-open handshakes on the internal port leave the app's own port alone.
    Handshake,
}

/// What became of a connection that was offered.
pub(super) enum Offered {
    /// It is ours.
    Ours(Stream),
    /// Another worker's.
    Sent,
    /// Nobody has room for it now.
    Refused(Stream),
}

impl Placement {
    pub(super) fn new(
        loads: Arc<Loads>,
        own: usize,
        bounds: Bounds,
        others: Vec<Option<Sender<ToWorker>>>,
    ) -> Self {
        let sent = RefCell::new(vec![0; loads.workers()]);
        let (connections_max, handshakes_max) =
            (bounds.connections as u64, bounds.handshakes as u64);
        let others = RefCell::new(others);
        Self { loads, own, connections_max, handshakes_max, others, sent }
    }

    /// Of what all workers have too many to place a connection of that kind now, if they have.
    pub(super) fn full(&self, needs: Needs, now: Instant) -> Option<Full> {
        let loads = self.loads_now(needs, now);
        let any = |needs| loads.iter().enumerate().any(|(n, load)| self.fits(n, load, needs));
        match needs {
            _ if any(needs) => None,
            Needs::Handshake if any(Needs::Connection) => Some(Full::Handshakes),
            Needs::Handshake | Needs::Connection => Some(Full::Connections),
        }
    }

    /// To the worker with the least to do that has room.
    pub(super) fn offer(
        &self,
        mut stream: Stream,
        needs: Needs,
        listener: usize,
        peer: Option<std::net::SocketAddr>,
        now: Instant,
    ) -> Offered {
        let loads = self.loads_now(needs, now);
        for worker in by_load(&loads) {
            if !loads.get(worker).is_some_and(|load| self.fits(worker, load, needs)) {
                continue;
            }
            if worker == self.own {
                return Offered::Ours(stream);
            }
            match self.send(worker, Accepted { stream, listener, peer }) {
                Ok(()) => return Offered::Sent,
                Err(accepted) => stream = accepted.stream,
            }
        }
        Offered::Refused(stream)
    }

    /// The other workers' mailboxes end when nobody can write to them any more.
    pub(super) fn close(&self) {
        self.others.borrow_mut().clear();
    }

    fn send(&self, worker: usize, accepted: Accepted) -> Result<(), Accepted> {
        let others = self.others.borrow();
        let Some(Some(other)) = others.get(worker) else { return Err(accepted) };
        match other.send(ToWorker::Accepted(accepted)) {
            Ok(()) => {
                if let Some(sent) = self.sent.borrow_mut().get_mut(worker) {
                    *sent += 1;
                }
                Ok(())
            }
            // Its mailbox is full, or it is gone.
            Err(ToWorker::Accepted(accepted)) => Err(accepted),
            Err(_) => unreachable!("a mailbox gives back what it was given"),
        }
    }

    fn fits(&self, worker: usize, load: &Load, needs: Needs) -> bool {
        let reachable = worker == self.own
            || self.others.borrow().get(worker).is_some_and(|other| other.is_some());
        let shakes = needs == Needs::Handshake && load.handshakes >= self.handshakes_max;
        reachable && !shakes && load.connections < self.connections_max
    }

    /// Of all workers, with what is on its way to them.
    fn loads_now(&self, needs: Needs, now: Instant) -> Vec<Load> {
        let sent = self.sent.borrow();
        let with_mail = |(worker, sent): (usize, &u64)| {
            let coming = sent.saturating_sub(self.loads.arrived(worker));
            let mut load = self.loads.load(worker, now);
            load.connections += coming;
            if needs == Needs::Handshake {
                load.handshakes += coming;
            }
            load
        };
        sent.iter().enumerate().map(with_mail).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::{Number, OwnLoad};
    use super::*;
    use crate::mailbox::{Mailbox, mailbox};
    use std::os::unix::net::UnixStream as Std;
    use std::rc::Rc;

    struct Crew {
        placement: Placement,
        own: Vec<Rc<OwnLoad>>,
        mail: Vec<Mailbox<ToWorker>>,
    }

    #[allow(clippy::disallowed_methods)]
    fn now() -> Instant {
        Instant::now()
    }

    /// Three workers, of which the first accepts; mailboxes of one message.
    fn crew(connections: usize) -> Crew {
        let bounds = Bounds { connections, ..Bounds::with_descriptors(u64::MAX) };
        let loads = Loads::new(3);
        let own = (0..3).map(|n| Rc::new(OwnLoad::new(Arc::clone(&loads), n, now()))).collect();
        let (one, one_mail) = mailbox(1).unwrap();
        let (two, two_mail) = mailbox(1).unwrap();
        let others = vec![None, Some(one), Some(two)];
        let placement = Placement::new(loads, 0, bounds, others);
        Crew { placement, own, mail: vec![one_mail, two_mail] }
    }

    impl Crew {
        /// Where a connection goes; it stays on its way if that is another worker.
        fn place(&self, needs: Needs) -> Option<usize> {
            let (ours, peers) = Std::pair().unwrap();
            peers.set_nonblocking(true).unwrap();
            let before = self.placement.sent.borrow().clone();
            match self.placement.offer(Stream::Unix(ours), needs, 0, None, now()) {
                Offered::Ours(_) => {
                    self.own[0].rise(Number::Connections);
                    Some(0)
                }
                Offered::Sent => {
                    let after = self.placement.sent.borrow();
                    before.iter().zip(after.iter()).position(|(before, after)| before != after)
                }
                Offered::Refused(stream) => {
                    // Still open: the peer reads nothing, not even an end.
                    let mut byte = [0];
                    let read = std::io::Read::read(&mut (&peers), &mut byte);
                    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
                    drop(stream);
                    assert_eq!(std::io::Read::read(&mut (&peers), &mut byte).unwrap(), 0);
                    None
                }
            }
        }

        fn take(&self, worker: usize) {
            assert!(matches!(self.mail[worker - 1].try_recv(), Some(ToWorker::Accepted(_))));
            self.own[worker].rise(Number::Connections);
            self.own[worker].has_arrived();
        }
    }

    #[test]
    fn connections_on_their_way_count() {
        let crew = crew(100);
        let placed: Vec<_> = (0..3).map(|_| crew.place(Needs::Connection)).collect();
        assert_eq!(placed, [Some(0), Some(1), Some(2)]);
        crew.take(1);
        crew.take(2);
        let placed: Vec<_> = (0..3).map(|_| crew.place(Needs::Connection)).collect();
        assert_eq!(placed, [Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn a_full_mailbox_is_passed_by() {
        let crew = crew(100);
        let placed: Vec<_> = (0..5).map(|_| crew.place(Needs::Connection)).collect();
        assert_eq!(placed, [Some(0), Some(1), Some(2), Some(0), Some(0)]);
    }

    #[test]
    fn a_full_worker_is_passed_by_and_full_ones_refuse() {
        let crew = crew(1);
        for expected in [Some(0), Some(1), Some(2), None] {
            let full = crew.placement.full(Needs::Connection, now());
            assert_eq!(full, expected.is_none().then_some(Full::Connections));
            assert_eq!(crew.place(Needs::Connection), expected);
        }
        // One connection of worker 2 ends: it came, and went.
        crew.take(2);
        crew.own[2].fall(Number::Connections);
        assert_eq!(crew.placement.full(Needs::Connection, now()), None);
        assert_eq!(crew.place(Needs::Connection), Some(2));
    }

    #[test]
    fn handshakes_are_a_limit_of_their_own() {
        let crew = crew(100);
        for own in &crew.own {
            (0..1024).for_each(|_| own.rise(Number::Handshakes));
        }
        assert_eq!(crew.placement.full(Needs::Handshake, now()), Some(Full::Handshakes));
        assert_eq!(crew.placement.full(Needs::Connection, now()), None);
        assert_eq!(crew.place(Needs::Handshake), None);
        assert!(crew.place(Needs::Connection).is_some());
        crew.own[1].fall(Number::Handshakes);
        assert_eq!(crew.place(Needs::Handshake), Some(1));
        assert_eq!(crew.place(Needs::Handshake), None, "the one on its way counts");
    }

    #[test]
    fn nothing_is_sent_once_closed() {
        let crew = crew(100);
        crew.placement.close();
        assert_eq!(crew.place(Needs::Connection), Some(0));
        assert_eq!(crew.place(Needs::Connection), Some(0));
    }
}
