//! Accepting downstream connections, over TCP and Unix sockets, for all workers; and serving
//! those that are this worker's.
//!
//! 1. An accept loop survives every error: it logs (rate-limited), backs off, goes on.
//! 2. A worker holds a bounded number of connections and of handshakes; when all are full, new
//!    connections wait in the kernel's backlog.
//! 3. A handshake takes a bounded time, and place at the worker that serves the connection; a
//!    peer that does not speak TLS sees an end, not a reset.
//! 4. When the worker drains, its listeners are shut down, which ends their pending accept; a
//!    connection that another worker sends it from then on is closed.
//!
//! Refuses to know what is served behind a listener.

use super::SCOPE;
use super::buffer::ReadBuffer;
use super::conn::{self, Conn};
use super::dial::errno_text;
use super::load::Number;
use super::local::{Place, deadline};
use super::placement::{Fresh, Needs, Offered};
use super::sys::Socket;
use super::tls::{self, Secured, Session};
use super::worker::Worker;
use crate::identity::{SpiffeId, svid};
use crate::mailbox::Accepted;
use crate::proxy::{Arrival, Listener};
use monoio::net::{TcpListener, UnixListener};
use rustix::net::{Shutdown, shutdown};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// Downstream and upstream connections of one worker, those that are closing too.
pub(super) const CONNECTIONS_MAX: usize = 16 << 10;

/// daprd gives it grpc-go's `ConnectionTimeout`, two minutes.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How often it is looked whether a worker has room again.
const FULL_PAUSE: Duration = Duration::from_millis(10);

const FULL: &str = "every worker is full";

/// A listening socket as the composition root bound it.
#[derive(Debug)]
pub enum ListenSocket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// A listener in the runtime, and a descriptor to end it with.
pub(super) struct Acceptor {
    kind: Kind,
    listener: Listener,
    /// Its index among the listeners, which all workers share.
    index: usize,
    needs: Needs,
    stop: Rc<OwnedFd>,
}

enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    pub(super) fn new(
        worker: &Worker,
        socket: ListenSocket,
        index: usize,
        listener: Listener,
    ) -> io::Result<Self> {
        let epoll = worker.epoll;
        let needs = match listener {
            Listener::Internal if worker.wants_mtls() => Needs::Handshake,
            Listener::Internal | Listener::Api | Listener::Forward(_) => Needs::Connection,
        };
        let (kind, stop) = match socket {
            ListenSocket::Tcp(socket) => {
                // The ring waits on a blocking socket, epoll wants the other kind.
                socket.set_nonblocking(epoll)?;
                let stop = socket.as_fd().try_clone_to_owned()?;
                (Kind::Tcp(TcpListener::from_std(socket)?), stop)
            }
            ListenSocket::Unix(socket) => {
                socket.set_nonblocking(epoll)?;
                let stop = socket.as_fd().try_clone_to_owned()?;
                (Kind::Unix(UnixListener::from_std(socket)?), stop)
            }
        };
        Ok(Self { kind, listener, index, needs, stop: Rc::new(stop) })
    }

    /// Keep it; [`stop`] it when the worker drains.
    pub(super) fn stopper(&self) -> Rc<OwnedFd> {
        Rc::clone(&self.stop)
    }

    async fn accept(&self) -> io::Result<(Fresh, Option<SocketAddr>)> {
        match &self.kind {
            Kind::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Without it a small answer waits for the peer's delayed acknowledgement.
                stream.set_nodelay(true)?;
                Ok((Fresh::Tcp(stream), Some(peer)))
            }
            Kind::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Fresh::Unix(stream), None))
            }
        }
    }
}

/// Makes a pending accept on the listener fail, and all later ones.
pub(super) fn stop(listener: &OwnedFd) {
    let _ = shutdown(listener, Shutdown::Both);
}

/// Accepts until the worker drains.
pub(super) async fn run(worker: Rc<Worker>, acceptor: Acceptor) {
    let mut complaint = Complaint::default();
    let mut backoff = BACKOFF_MIN;
    while !worker.is_draining() {
        if !worker.placement.has_room(acceptor.needs, worker.now()) {
            complaint.log(&worker, acceptor.listener, FULL);
            worker.clock.sleep(FULL_PAUSE).await;
            continue;
        }
        match acceptor.accept().await {
            Ok((fresh, peer)) => {
                backoff = BACKOFF_MIN;
                place(&worker, &acceptor, fresh, peer, &mut complaint).await;
            }
            Err(_) if worker.is_draining() => {}
            Err(error) if is_peers_fault(&error) => {}
            Err(error) => {
                let cause = errno_text(&error);
                complaint.log(&worker, acceptor.listener, &cause);
                worker.clock.sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
        if worker.epoll {
            super::local::yield_now().await;
        }
    }
}

/// Finds the worker that serves a new connection; waits while nobody has room.
async fn place(
    worker: &Rc<Worker>,
    acceptor: &Acceptor,
    mut fresh: Fresh,
    peer: Option<SocketAddr>,
    complaint: &mut Complaint,
) {
    let Acceptor { needs, index, listener, .. } = *acceptor;
    while !worker.is_draining() {
        match worker.placement.offer(fresh, needs, index, peer, worker.now()) {
            Offered::Ours(fresh) => return welcome(worker, fresh, listener, peer),
            Offered::Sent => return,
            Offered::Refused(back) => fresh = back,
        }
        complaint.log(worker, listener, FULL);
        worker.clock.sleep(FULL_PAUSE).await;
    }
}

/// A connection that another worker accepted for this one.
pub(super) fn arrived(worker: &Rc<Worker>, accepted: Accepted) {
    let Accepted { stream, listener, peer } = accepted;
    if !worker.is_draining()
        && let Some(listener) = worker.listeners.get(listener)
    {
        welcome(worker, Fresh::Free(stream), *listener, peer);
    }
    worker.load.has_arrived();
}

/// Begins to serve a connection on this worker, which it never leaves.
fn welcome(worker: &Rc<Worker>, fresh: Fresh, listener: Listener, peer: Option<SocketAddr>) {
    let take = |number| Place::take(&worker.load, number);
    let place = take(Number::Connections);
    // Now, not when its task runs: the acceptor's next look counts it.
    let secured = listener == Listener::Internal && worker.wants_mtls();
    let handshake = secured.then(|| take(Number::Handshakes));
    match fresh.adopt(worker.epoll) {
        Ok(socket) => {
            let socket = Rc::new(socket);
            let work = serve(Rc::clone(worker), socket, listener, peer, place, handshake);
            monoio::spawn(work);
        }
        Err(error) => {
            let cause = errno_text(&error);
            tracing::error!(scope = SCOPE, "cannot take over an accepted connection: {cause}");
        }
    }
}

/// The connection died in the backlog (accept(2)); there is nothing to back off from.
fn is_peers_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// Says that accepting fails, once in a while.
#[derive(Default)]
struct Complaint {
    last: Option<std::time::Instant>,
    unsaid: u64,
}

impl Complaint {
    const PAUSE: Duration = Duration::from_secs(10);

    fn log(&mut self, worker: &Worker, listener: Listener, cause: &str) {
        let now = worker.now();
        if self.last.is_some_and(|last| now.duration_since(last) < Self::PAUSE) {
            self.unsaid += 1;
            return;
        }
        self.last = Some(now);
        let unsaid = std::mem::take(&mut self.unsaid);
        tracing::error!(
            scope = SCOPE,
            "cannot accept connections on the {} port: {cause} (this worker has {}, at most {}; \
             {unsaid} more failures since the last message); still trying: raise the limit of \
             open files (ulimit -n)",
            Name(listener),
            worker.load.count(Number::Connections),
            worker.connections_max,
        );
    }
}

struct Name(Listener);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Listener::Api => f.write_str("API"),
            Listener::Internal => f.write_str("internal"),
            Listener::Forward(index) => write!(f, "forward ({index})"),
        }
    }
}

/// A downstream connection until it is ready for HTTP/2.
async fn serve(
    worker: Rc<Worker>,
    socket: Rc<Socket>,
    listener: Listener,
    peer: Option<SocketAddr>,
    place: Place,
    handshake: Option<Place>,
) {
    let mut buffer = ReadBuffer::new();
    let mut secured = None;
    if let Some(_place) = handshake {
        match shake_hands(&worker, &socket, &mut buffer).await {
            Ok(session) => secured = Some(session),
            Err(cause) => {
                let peer = peer.map_or_else(String::new, |peer| peer.to_string());
                tracing::debug!(scope = SCOPE, "TLS handshake with {peer} failed: {cause}");
                return conn::part(&socket, buffer, &worker.clock).await;
            }
        }
    }
    let (session, spiffe_id) = secured.unzip();
    let conn = Rc::new(Conn::new(socket, session, &worker.clock, place));
    worker.arrived(&conn, Arrival { listener, peer, spiffe_id });
    conn::start(worker, conn, buffer);
}

/// The server's side of an mTLS handshake.
async fn shake_hands(
    worker: &Rc<Worker>,
    socket: &Socket,
    buffer: &mut ReadBuffer,
) -> Result<(Session, SpiffeId), String> {
    let contexts = worker.contexts();
    let handshake = match contexts.accept() {
        Some(Ok(handshake)) => handshake,
        Some(Err(error)) => return Err(error.to_string()),
        None => return Err("no SVID yet".to_owned()),
    };
    let work = tls::handshake(socket, handshake, buffer, worker.epoll);
    let (outcome, expired) = deadline(worker.clock.sleep(HANDSHAKE_TIMEOUT), socket, work).await;
    let Secured { session, leaf } = match outcome {
        Ok(secured) => secured,
        Err(_) if expired => return Err("i/o timeout".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    let leaf = leaf.ok_or("no certificate")?;
    let id = svid::peer_id(&leaf).map_err(|error| error.to_string())?;
    Ok((session, id))
}
