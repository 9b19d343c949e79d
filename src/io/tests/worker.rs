//! A worker's turns: what a connection owes when its peer ends, and who waits while many come.

use super::*;
use crate::config::Config;
use crate::io::driver::{Next, Turns};
use crate::io::listener::{self, Acceptor, ListenSocket};
use crate::io::reactor::Event;
use crate::io::worker::{Worker, WorkerOptions};
use crate::mailbox::{Mailbox, Sender, ToControl, ToWorker, mailbox};
use crate::proxy::{Arrival, CloseReason, Input, Listener};
use crate::snapshot::Snapshot;
use std::cell::Cell;

/// What must stay open while the worker runs.
struct Ends {
    _to_worker: Sender<ToWorker>,
    _mail: Mailbox<ToWorker>,
    _to_control: Mailbox<ToControl>,
}

fn worker(driver: &Driver) -> (Rc<Worker>, Ends) {
    let (to_worker, mailbox_of_worker) = mailbox(16).unwrap();
    let (control, to_control) = mailbox(16).unwrap();
    let config = Config { app: None, mtls: false, ..crate::proxy::tests::config() };
    let snapshot = Snapshot::new(Arc::new(config));
    let options = WorkerOptions {
        index: 0,
        driver: IoDriver::Auto,
        cpu: None,
        listeners: vec![Listener::Api],
        sockets: Vec::new(),
        others: vec![None],
        loads: Loads::new(1),
        snapshot: Arc::new(snapshot),
        mailbox: mailbox_of_worker,
        control,
    };
    let contexts = Contexts::new(None).unwrap();
    let (worker, mail) = Worker::new(options, Rc::clone(driver.runtime()), 10_000, contexts);
    (Rc::new(worker), Ends { _to_worker: to_worker, _mail: mail, _to_control: to_control })
}

/// A worker's turns until a flag is set; counts them.
struct Until {
    worker: Rc<Worker>,
    done: Rc<Cell<bool>>,
    /// Connections at the end of the first turn.
    first: Cell<Option<usize>>,
}

impl Turns for Until {
    fn happened(&self, events: &mut Vec<Event>) {
        self.worker.deal_with(events);
    }

    fn settle(&self) -> Next {
        if self.first.get().is_none() {
            self.first.set(Some(self.worker.load.count(Number::Connections)));
        }
        if self.done.get() { Next::End } else { self.worker.settle() }
    }
}

fn until(worker: &Rc<Worker>, done: &Rc<Cell<bool>>) -> Until {
    Until { worker: Rc::clone(worker), done: Rc::clone(done), first: Cell::new(None) }
}

/// A peer that says no more still gets what it is owed, though the connection is closed and its
/// socket was full.
#[test]
fn what_is_owed_is_written_after_the_peers_end() {
    const OWED: usize = 4 << 20;
    for wanted in DRIVERS {
        let mut driver = driver(wanted);
        let runtime = Rc::clone(driver.runtime());
        let (worker, _ends) = worker(&driver);
        let (ours, mut peer) = UnixStream::pair().unwrap();
        let socket = Socket::adopt(&runtime.reactor, Stream::Unix(ours)).unwrap();
        let place = Place::take(&worker.load, Number::Connections);
        let conn = Rc::new(Conn::new(Rc::new(socket), None, &runtime, place));
        worker.arrived(&conn, Arrival { listener: Listener::Api, peer: None, spiffe_id: None });
        conn::start(&worker, &conn);
        let mut owed = Transmit::new();
        owed.len = OWED;
        owed.segments.push(Segment::Payload(Bytes::from(vec![7; OWED])));
        assert_eq!(conn.send(&mut owed, &mut Vec::new()), Written::Blocked);
        worker.blocked(&conn);
        worker.tell(Input::Closed { conn: conn.id().unwrap(), reason: CloseReason::Eof });
        drop(conn);
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        let done = Rc::new(Cell::new(false));
        let flag = Rc::clone(&done);
        // The end was seen before anything is read, and all is read in the end.
        runtime.clone().spawn(async move {
            runtime.clock.sleep(Duration::from_millis(20)).await;
            peer.set_nonblocking(true).unwrap();
            let mut read = 0;
            let mut room = vec![0; 64 << 10];
            loop {
                match peer.read(&mut room) {
                    Ok(0) => break,
                    Ok(octets) => read += octets,
                    Err(error) => {
                        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                        runtime.clock.sleep(Duration::from_millis(1)).await;
                    }
                }
            }
            assert!(read >= OWED, "{read}");
            flag.set(true);
        });
        driver.run(&until(&worker, &done)).unwrap();
    }
}

/// Many that come at once do not keep a turn from ending, and are all taken in the end.
#[test]
fn a_turn_ends_while_many_come() {
    const COME: usize = 200;
    for wanted in DRIVERS {
        let mut driver = driver(wanted);
        let (worker, _ends) = worker(&driver);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = ListenSocket::Tcp(listener);
        let acceptor = Acceptor::new(&worker, socket, 0, Listener::Api).unwrap();
        // 128 fit into the backlog; the others are connecting.
        let peers: Vec<_> = (0..120).map(|_| TcpStream::connect(address).unwrap()).collect();
        worker.runtime.spawn(listener::run(Rc::clone(&worker), acceptor));
        let done = Rc::new(Cell::new(false));
        let (own, flag) = (Rc::clone(&worker), Rc::clone(&done));
        let mut later = Vec::new();
        worker.runtime.spawn(async move {
            while later.len() + 120 < COME {
                own.runtime.clock.sleep(Duration::from_millis(1)).await;
                later.push(TcpStream::connect(address).unwrap());
            }
            while own.load.count(Number::Connections) < COME {
                own.runtime.clock.sleep(Duration::from_millis(1)).await;
            }
            flag.set(true);
        });
        let turns = until(&worker, &done);
        driver.run(&turns).unwrap();
        assert_eq!(turns.first.get(), Some(64), "of 120 that had come");
        drop(peers);
    }
}

/// What each driver reads and sends by is a blocking socket, and a small answer never waits for an
/// acknowledgement: without a system call for either.
#[test]
fn what_is_accepted_is_fit_to_be_served() {
    for wanted in DRIVERS {
        let mut driver = driver(wanted);
        let (worker, _ends) = worker(&driver);
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let socket = ListenSocket::Tcp(socket);
        let acceptor = Acceptor::new(&worker, socket, 0, Listener::Api).unwrap();
        let done = Rc::new(Cell::new(false));
        let flag = Rc::clone(&done);
        let _peer = TcpStream::connect(address).unwrap();
        worker.runtime.spawn(async move {
            let (stream, _) = acceptor.accept().await.unwrap();
            let Stream::Tcp(stream) = stream else { panic!("TCP was bound") };
            assert!(stream.nodelay().unwrap());
            let flags = rustix::fs::fcntl_getfl(&stream).unwrap();
            assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK), "{flags:?}");
            flag.set(true);
        });
        driver.run(&until(&worker, &done)).unwrap();
    }
}
