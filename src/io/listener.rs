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
use super::bounds::Complaint;
use super::conn::{self, Conn};
use super::dial::errno_text;
use super::load::Number;
use super::local::{Place, deadline};
use super::placement::{Needs, Offered};
use super::reactor::Source;
use super::socket::Socket;
use super::tls::{self, Secured, Session};
use super::worker::Worker;
use crate::identity::{SpiffeId, svid};
use crate::mailbox::{Accepted, Stream};
use crate::proxy::{Arrival, Input, Listener};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags, acceptfrom_with, shutdown, sockopt};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Connections accepted in a row: others want their turn.
const TURN_ACCEPTS: u64 = 64;

/// How often it is looked whether a worker has room again.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// Those that have room have full mailboxes.
const BUSY: &str = "every worker that has room is too busy to be told";

/// A listening socket as the composition root bound it.
#[derive(Debug)]
pub enum ListenSocket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// A listener that the reactor watches.
pub(super) struct Acceptor {
    source: Source,
    kind: Kind,
    listener: Listener,
    /// Its index among the listeners, which all workers share.
    index: usize,
    needs: Needs,
}

enum Kind {
    Tcp,
    Unix,
}

impl Acceptor {
    pub(super) fn new(
        worker: &Worker,
        socket: ListenSocket,
        index: usize,
        listener: Listener,
    ) -> io::Result<Self> {
        let needs = match listener {
            Listener::Internal if worker.wants_mtls() => Needs::Handshake,
            Listener::Internal | Listener::Api | Listener::Forward(_) => Needs::Connection,
        };
        let (kind, fd) = match socket {
            ListenSocket::Tcp(socket) => {
                // Without it a small answer waits for the peer's delayed acknowledgement. What is
                // accepted has it from its listener, and is a blocking socket all the same. What
                // waits already is as whoever bound the listener wanted it.
                sockopt::set_tcp_nodelay(&socket, true)?;
                (Kind::Tcp, OwnedFd::from(socket))
            }
            ListenSocket::Unix(socket) => (Kind::Unix, OwnedFd::from(socket)),
        };
        rustix::io::ioctl_fionbio(&fd, true)?;
        let source = worker.runtime.reactor.adopt(fd)?;
        Ok(Self { source, kind, listener, index, needs })
    }

    /// Keep it; [`stop`] it when the worker drains.
    pub(super) fn stopper(&self) -> Rc<OwnedFd> {
        Rc::clone(self.source.fd())
    }

    /// Lets the others have their turn; goes on in the next one, if somebody waits.
    async fn next_turn(&self) {
        self.source.polled(PollFlags::IN).await;
    }

    pub(super) async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        let (fd, peer) = loop {
            match acceptfrom_with(self.source.fd(), SocketFlags::CLOEXEC) {
                Err(Errno::AGAIN) => self.source.polled(PollFlags::IN).await,
                accepted => break accepted?,
            }
        };
        match self.kind {
            Kind::Tcp => {
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                Ok((Stream::Tcp(fd.into()), peer))
            }
            Kind::Unix => Ok((Stream::Unix(fd.into()), None)),
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
    let mut accepted = 0;
    while !worker.is_draining() {
        if let Some(full) = worker.placement.full(acceptor.needs, worker.now()) {
            complaint.full(&worker, acceptor.listener, full);
            worker.runtime.clock.sleep(FULL_PAUSE).await;
            continue;
        }
        complaint.had_room();
        match acceptor.accept().await {
            Ok((stream, peer)) => {
                backoff = BACKOFF_MIN;
                place(&worker, &acceptor, stream, peer, &mut complaint).await;
                accepted += 1;
                if accepted % TURN_ACCEPTS == 0 {
                    acceptor.next_turn().await;
                }
            }
            Err(_) if worker.is_draining() => {}
            Err(error) if is_peers_fault(&error) => {}
            Err(error) => {
                let cause = errno_text(&error);
                complaint.failed(&worker, acceptor.listener, &cause);
                worker.runtime.clock.sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
}

/// Finds the worker that serves a new connection; waits while nobody has room.
async fn place(
    worker: &Rc<Worker>,
    acceptor: &Acceptor,
    mut stream: Stream,
    peer: Option<SocketAddr>,
    complaint: &mut Complaint,
) {
    let Acceptor { needs, index, listener, .. } = *acceptor;
    while !worker.is_draining() {
        match worker.placement.offer(stream, needs, index, peer, worker.now()) {
            Offered::Ours(stream) => return welcome(worker, stream, listener, peer),
            Offered::Sent => return,
            Offered::Refused(back) => stream = back,
        }
        match worker.placement.full(needs, worker.now()) {
            Some(full) => complaint.full(worker, listener, full),
            None => complaint.failed(worker, listener, BUSY),
        }
        worker.runtime.clock.sleep(FULL_PAUSE).await;
    }
}

/// A connection that another worker accepted for this one.
pub(super) fn arrived(worker: &Rc<Worker>, accepted: Accepted) {
    let Accepted { stream, listener, peer } = accepted;
    if !worker.is_draining()
        && let Some(listener) = worker.listeners.get(listener)
    {
        welcome(worker, stream, *listener, peer);
    }
    worker.load.has_arrived();
}

/// Begins to serve a connection on this worker, which it never leaves.
fn welcome(worker: &Rc<Worker>, stream: Stream, listener: Listener, peer: Option<SocketAddr>) {
    let take = |number| Place::take(&worker.load, number);
    let place = take(Number::Connections);
    // Now, not when its task runs: the acceptor's next look counts it.
    let secured = listener == Listener::Internal && worker.wants_mtls();
    let handshake = secured.then(|| take(Number::Handshakes));
    match Socket::adopt(&worker.runtime.reactor, stream) {
        Ok(socket) => {
            let socket = Rc::new(socket);
            let work = serve(Rc::clone(worker), socket, listener, peer, place, handshake);
            worker.runtime.spawn(work);
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

/// A downstream connection until it is ready for HTTP/2.
async fn serve(
    worker: Rc<Worker>,
    socket: Rc<Socket>,
    listener: Listener,
    peer: Option<SocketAddr>,
    place: Place,
    handshake: Option<Place>,
) {
    let mut secured = None;
    if let Some(_place) = handshake {
        match shake_hands(&worker, &socket, listener, peer).await {
            Ok(session) => secured = Some(session),
            Err(cause) => {
                let peer = peer.map_or_else(String::new, |peer| peer.to_string());
                tracing::debug!(scope = SCOPE, "TLS handshake with {peer} failed: {cause}");
                return conn::part(&socket, &worker.runtime.clock).await;
            }
        }
    }
    let (session, spiffe_id) = secured.unzip();
    let conn = Rc::new(Conn::new(socket, session, &worker.runtime, place));
    worker.arrived(&conn, Arrival { listener, peer, spiffe_id });
    conn::start(&worker, &conn);
}

/// The server's side of an mTLS handshake.
async fn shake_hands(
    worker: &Rc<Worker>,
    socket: &Socket,
    listener: Listener,
    peer: Option<SocketAddr>,
) -> Result<(Session, SpiffeId), String> {
    let contexts = worker.contexts();
    let handshake = match contexts.accept() {
        Some(Ok(handshake)) => handshake,
        Some(Err(error)) => return Err(error.to_string()),
        None => return Err("no SVID yet".to_owned()),
    };
    let work = tls::handshake(socket, handshake);
    let limit = worker.runtime.clock.sleep(worker.bounds.handshake_time);
    let (outcome, expired) = deadline(limit, socket, work).await;
    let Secured { session, leaf } = match outcome {
        Ok(secured) => secured,
        Err(_) if expired => {
            worker.tell(Input::HandshakeOverdue { listener, peer });
            return Err("i/o timeout".to_owned());
        }
        Err(error) => return Err(error.to_string()),
    };
    let leaf = leaf.ok_or("no certificate")?;
    let id = svid::peer_id(&leaf).map_err(|error| error.to_string())?;
    Ok((session, id))
}
