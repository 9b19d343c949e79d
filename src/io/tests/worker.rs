//! A worker's turns: what a connection owes when its peer ends, and who waits while many come.

use super::*;
use crate::config::Config;
use crate::io::bounds::Bounds;
use crate::io::driver::{Next, Turns};
use crate::io::listener::{self, Acceptor, ListenSocket};
use crate::io::reactor::Event;
use crate::io::worker::{Worker, WorkerOptions};
use crate::mailbox::{Mailbox, Sender, ToControl, ToWorker, mailbox};
use crate::observe::cells::Cells;
use crate::proxy::{Arrival, CloseReason, Input, Listener};
use crate::snapshot::Snapshot;
use std::cell::{Cell, RefCell};

/// What must stay open while the worker runs.
struct Ends {
    _to_worker: Sender<ToWorker>,
    _mail: Mailbox<ToWorker>,
    _to_control: Mailbox<ToControl>,
}

fn worker(driver: &Driver) -> (Rc<Worker>, Ends) {
    worker_within(driver, Bounds::with_descriptors(10_000), Listener::Api, None)
}

/// With an identity callers need one, too.
fn worker_within(
    driver: &Driver,
    bounds: Bounds,
    listener: Listener,
    identity: Option<Arc<Identity>>,
) -> (Rc<Worker>, Ends) {
    let (to_worker, mailbox_of_worker) = mailbox(16).unwrap();
    let (control, to_control) = mailbox(16).unwrap();
    let mtls = identity.is_some();
    let config = Arc::new(Config { app: None, mtls, ..crate::proxy::tests::config() });
    let contexts = Contexts::new(identity.as_ref()).unwrap();
    let snapshot = Snapshot { identity, ..Snapshot::new(config) };
    let options = WorkerOptions {
        index: 0,
        driver: IoDriver::Auto,
        busy_poll: None,
        cpu: None,
        listeners: vec![listener],
        sockets: Vec::new(),
        others: vec![None],
        loads: Loads::new(1),
        snapshot: Arc::new(snapshot),
        app_calls_max: None,
        retry_budget: None,
        mailbox: mailbox_of_worker,
        control,
    };
    let (worker, mail) = Worker::new(options, Rc::clone(driver.runtime()), bounds, contexts);
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

/// A worker that accepts; and its address.
fn accepting(worker: &Rc<Worker>, listener: Listener) -> std::net::SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let acceptor = Acceptor::new(worker, ListenSocket::Tcp(socket), 0, listener).unwrap();
    worker.runtime.spawn(listener::run(Rc::clone(worker), acceptor));
    address
}

/// How often limits were hit so far.
struct Hits {
    worker: Rc<Worker>,
    cells: RefCell<Cells>,
}

impl Hits {
    fn of(worker: &Rc<Worker>) -> Self {
        Self { worker: Rc::clone(worker), cells: RefCell::default() }
    }

    fn count(&self, limit: &str) -> u64 {
        let increment = self.worker.core.borrow_mut().proxy.hand_over_cells();
        let mut cells = self.cells.borrow_mut();
        cells.add(&increment);
        cells.limits().iter().find(|(name, _)| *name == limit).map_or(0, |(_, hits)| *hits)
    }

    async fn wait_for(&self, limit: &str, hits: u64) {
        while self.count(limit) < hits {
            self.worker.runtime.clock.sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(self.count(limit), hits, "{limit}");
    }
}

/// Those beyond the limit wait until one leaves; each time that the limit is reached it is counted
/// once, however long that lasts.
#[test]
fn connections_beyond_the_limit_wait_and_are_counted() {
    let bounds = Bounds { connections: 2, ..Bounds::with_descriptors(10_000) };
    for wanted in DRIVERS {
        let mut driver = driver(wanted);
        let (worker, _ends) = worker_within(&driver, bounds, Listener::Api, None);
        let address = accepting(&worker, Listener::Api);
        let done = Rc::new(Cell::new(false));
        let (own, flag) = (Rc::clone(&worker), Rc::clone(&done));
        worker.runtime.spawn(async move {
            let hits = Hits::of(&own);
            let mut peers: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
            for times in 1..=3 {
                hits.wait_for("connections", times).await;
                assert_eq!(own.load.count(Number::Connections), 2);
                // One leaves, and another comes: it finds the limit reached.
                peers.remove(0);
                peers.push(TcpStream::connect(address).unwrap());
            }
            assert_eq!((hits.count("handshakes"), hits.count("slow_handshake")), (0, 0));
            flag.set(true);
        });
        driver.run(&until(&worker, &done)).unwrap();
    }
}

#[test]
fn handshakes_beyond_the_limit_wait_and_those_too_slow_end() {
    let handshake_time = Duration::from_millis(20);
    let bounds = Bounds { handshakes: 1, handshake_time, ..Bounds::with_descriptors(10_000) };
    let identity = Authority::new().identity("callee");
    for wanted in DRIVERS {
        let mut driver = driver(wanted);
        let identity = Some(Arc::clone(&identity));
        let (worker, _ends) = worker_within(&driver, bounds, Listener::Internal, identity);
        let address = accepting(&worker, Listener::Internal);
        let done = Rc::new(Cell::new(false));
        let (own, flag) = (Rc::clone(&worker), Rc::clone(&done));
        worker.runtime.spawn(async move {
            let hits = Hits::of(&own);
            let silent: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
            hits.wait_for("slow_handshake", 3).await;
            // Each of them filled the only place.
            assert_eq!((hits.count("handshakes"), hits.count("connections")), (3, 0));
            for mut peer in silent {
                peer.set_nonblocking(true).unwrap();
                let mut octet = [0];
                loop {
                    match peer.read(&mut octet) {
                        Ok(read) => {
                            break assert_eq!(read, 0, "the end, and neither octets nor a reset");
                        }
                        Err(error) => {
                            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                            own.runtime.clock.sleep(Duration::from_millis(1)).await;
                        }
                    }
                }
            }
            flag.set(true);
        });
        driver.run(&until(&worker, &done)).unwrap();
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
