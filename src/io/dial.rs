//! Connecting to an upstream, and what to say when that fails.
//!
//! 1. Connect and handshake share one time limit, as in grpc-go (`MinConnectTimeout`, 20 s).
//! 2. A Unix socket whose app has many to accept refuses at once, where TCP tries again by itself:
//!    that is done here.
//! 3. When its time is over, or nobody wants it any more, the socket is shut down, which ends the
//!    connect as it ends a handshake.
//! 4. Failures carry grpc-go's texts, byte for byte where Go's own words are known.
//!
//! Sources: grpc-go v1.82.1 `internal/transport/http2_client.go`; Go 1.25 `net/net.go`,
//! `syscall/zerrors_linux_amd64.go`; spec 03 §3.8, §3.9.

use super::driver::Runtime;
use super::local::deadline;
use super::socket::{Shutdown, Socket};
use super::tls::{self, Contexts, Session};
use crate::config::SocketPath;
use crate::proxy::Security;
use crate::snapshot::Way;
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use socket2::{Domain, Protocol, SockAddr, Type};
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(20);

/// Between two tries of a Unix socket whose app has many to accept.
const BACKLOG_PAUSE: Duration = Duration::from_millis(10);
/// So many of them last as long as a dial may.
const BACKLOG_TRIES: u32 = 2000;

/// What the proxy may still take back.
#[derive(Debug, Default)]
pub(super) struct Dialing {
    cancelled: Cell<bool>,
    socket: RefCell<Option<Rc<Socket>>>,
}

impl Dialing {
    pub(super) fn cancel(&self) {
        self.cancelled.set(true);
        if let Some(socket) = &*self.socket.borrow() {
            socket.shutdown(Shutdown::Both);
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.get()
    }
}

/// A connection that is ready for HTTP/2.
#[derive(Debug)]
pub(super) struct Dialed {
    pub(super) socket: Rc<Socket>,
    pub(super) session: Option<Session>,
}

/// Connects and shakes hands. The error is the text of `Input::DialFailed`.
pub(super) async fn dial(
    way: &Way,
    security: &Security,
    contexts: &Contexts,
    dialing: &Dialing,
    runtime: &Runtime,
) -> Result<Dialed, String> {
    let refused = |cause: String| quote(&format!("transport: Error while dialing: {cause}"));
    let network = way.network();
    let socket = begin(way, runtime).map_err(|(call, error)| {
        refused(format!("dial {network} {way}: {call}: {}", text(&error)))
    })?;
    let socket = Rc::new(socket);
    *dialing.socket.borrow_mut() = Some(Rc::clone(&socket));
    let work = async {
        connected(&socket, way, dialing, runtime).await.map_err(Failure::Connect)?;
        secure(&socket, way, security, contexts).await
    };
    let (outcome, expired) = deadline(runtime.clock.sleep(DIAL_TIMEOUT), &socket, work).await;
    let session = outcome.map_err(|failure| match failure {
        Failure::Connect(_) if expired => refused(format!("dial {network} {way}: i/o timeout")),
        Failure::Connect(error) => {
            refused(format!("dial {network} {way}: connect: {}", text(&error)))
        }
        Failure::Handshake(_) if expired => {
            quote("transport: authentication handshake failed: context deadline exceeded")
        }
        Failure::Handshake(cause) => {
            quote(&format!("transport: authentication handshake failed: {cause}"))
        }
    })?;
    Ok(Dialed { socket, session })
}

enum Failure {
    Connect(io::Error),
    Handshake(String),
}

/// A connect under way, or a socket that is to be connected; with the name of the call that failed.
fn begin(way: &Way, runtime: &Runtime) -> Result<Socket, (&'static str, io::Error)> {
    let socket = match way {
        Way::Tcp(endpoint) => begin_tcp(endpoint.0)?,
        Way::Unix(_) => socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)
            .map_err(|error| ("socket", error))?,
    };
    Socket::connecting(&runtime.reactor, socket.into()).map_err(|error| ("connect", error))
}

fn begin_tcp(address: SocketAddr) -> Result<socket2::Socket, (&'static str, io::Error)> {
    let socket = socket2::Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )
    .map_err(|error| ("socket", error))?;
    socket.set_tcp_nodelay(true).map_err(|error| ("setsockopt", error))?;
    match socket.connect(&SockAddr::from(address)) {
        Ok(()) => {}
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INPROGRESS) => {}
        Err(error) => return Err(("connect", error)),
    }
    Ok(socket)
}

async fn connected(
    socket: &Socket,
    way: &Way,
    dialing: &Dialing,
    runtime: &Runtime,
) -> io::Result<()> {
    match way {
        Way::Tcp(_) => {
            socket.writable().await;
            socket.take_error()?;
        }
        Way::Unix(path) => admitted(socket, path, dialing, runtime).await?,
    }
    socket.connected()
}

/// Invariant 2.
async fn admitted(
    socket: &Socket,
    path: &SocketPath,
    dialing: &Dialing,
    runtime: &Runtime,
) -> io::Result<()> {
    let address = match path.abstract_name() {
        Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes())?,
        None => SocketAddrUnix::new(path.as_str())?,
    };
    for _ in 0..BACKLOG_TRIES {
        match socket.connect(&address) {
            Err(Errno::AGAIN) if !dialing.is_cancelled() => {
                runtime.clock.sleep(BACKLOG_PAUSE).await;
            }
            outcome => return Ok(outcome?),
        }
    }
    Err(Errno::TIMEDOUT.into())
}

async fn secure(
    socket: &Socket,
    way: &Way,
    security: &Security,
    contexts: &Contexts,
) -> Result<Option<Session>, Failure> {
    // Whoever is behind a Unix socket has a name.
    let ip = way.address().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip());
    let handshake = match security {
        Security::Plaintext => return Ok(None),
        Security::Mtls(target) => contexts.connect(target, ip),
        Security::Unverified { host } => contexts.connect_unverified(host, ip),
    };
    let handshake = handshake.map_err(|error| Failure::Handshake(format!("tls: {error}")))?;
    let secured = tls::handshake(socket, handshake)
        .await
        .map_err(|error| Failure::Handshake(error.to_string()))?;
    Ok(Some(secured.session))
}

/// grpc-go's `ConnectionError`: the description as Go's `%q` prints it.
fn quote(description: &str) -> String {
    format!("connection error: desc = {description:?}")
}

fn text(error: &io::Error) -> String {
    errno_text(error)
}

/// Go's name for an errno; what is not in the table is said as Go would number it.
pub(super) fn errno_text(error: &io::Error) -> String {
    let Some(errno) = Errno::from_io_error(error) else {
        return error.to_string();
    };
    let known = ERRNO_TEXTS.iter().find(|(known, _)| *known == errno);
    match known {
        Some((_, text)) => (*text).to_owned(),
        None => format!("errno {}", errno.raw_os_error()),
    }
}

/// Static texts for what broke an established connection.
pub(super) fn errno_static(error: &io::Error) -> &'static str {
    let errno = Errno::from_io_error(error);
    let known = ERRNO_TEXTS.iter().find(|(known, _)| Some(*known) == errno);
    known.map_or("i/o error", |(_, text)| text)
}

const ERRNO_TEXTS: &[(Errno, &str)] = &[
    (Errno::ACCESS, "permission denied"),
    (Errno::ADDRINUSE, "address already in use"),
    (Errno::ADDRNOTAVAIL, "cannot assign requested address"),
    (Errno::AFNOSUPPORT, "address family not supported by protocol"),
    (Errno::AGAIN, "resource temporarily unavailable"),
    (Errno::ALREADY, "operation already in progress"),
    (Errno::BADF, "bad file descriptor"),
    (Errno::CONNABORTED, "software caused connection abort"),
    (Errno::CONNREFUSED, "connection refused"),
    (Errno::CONNRESET, "connection reset by peer"),
    (Errno::HOSTDOWN, "host is down"),
    (Errno::HOSTUNREACH, "no route to host"),
    (Errno::INTR, "interrupted system call"),
    (Errno::INVAL, "invalid argument"),
    (Errno::LOOP, "too many levels of symbolic links"),
    (Errno::MFILE, "too many open files"),
    (Errno::NETDOWN, "network is down"),
    (Errno::NETRESET, "network dropped connection on reset"),
    (Errno::NETUNREACH, "network is unreachable"),
    (Errno::NFILE, "too many open files in system"),
    (Errno::NOBUFS, "no buffer space available"),
    (Errno::NOENT, "no such file or directory"),
    (Errno::NOMEM, "cannot allocate memory"),
    (Errno::NOTCONN, "transport endpoint is not connected"),
    (Errno::NOTDIR, "not a directory"),
    (Errno::NOTSOCK, "socket operation on non-socket"),
    (Errno::PERM, "operation not permitted"),
    (Errno::PIPE, "broken pipe"),
    (Errno::PROTONOSUPPORT, "protocol not supported"),
    (Errno::PROTOTYPE, "protocol wrong type for socket"),
    (Errno::TIMEDOUT, "connection timed out"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speaks_as_grpc_go() {
        // spec 14: seen from daprd 1.18.1.
        let cause = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection \
                     refused";
        assert_eq!(
            quote(cause),
            "connection error: desc = \"transport: Error while dialing: dial tcp 127.0.0.1:1: \
             connect: connection refused\""
        );
        let cause = "transport: authentication handshake failed: unexpected SPIFFE ID: \
                     \"spiffe://public/ns/default/msrv\"";
        assert_eq!(
            quote(cause),
            "connection error: desc = \"transport: authentication handshake failed: unexpected \
             SPIFFE ID: \\\"spiffe://public/ns/default/msrv\\\"\""
        );
    }

    #[test]
    fn names_errors_as_go() {
        let text = |errno: Errno| errno_text(&io::Error::from(errno));
        assert_eq!(text(Errno::CONNREFUSED), "connection refused");
        assert_eq!(text(Errno::HOSTUNREACH), "no route to host");
        assert_eq!(text(Errno::XDEV), "errno 18");
        assert_eq!(errno_static(&io::Error::from(Errno::PIPE)), "broken pipe");
    }
}
