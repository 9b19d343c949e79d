//! The HTTP ports: Dapr's HTTP API as far as it is served, the public port, metrics.
//!
//! 1. Everything that a peer can make us hold is bounded by a name below: connections of a
//!    port, octets of a head, octets of all bodies, the time of a head, a body, a write, and of
//!    doing nothing.
//! 2. A connection beyond the limit is closed at once, unread.
//! 3. Runs on the control thread, inside a tokio `LocalSet`.
//!
//! Refuses to know what the routes mean (`answer`), and HTTP's syntax (hyper). Source: Dapr's
//! `pkg/api/http/server.go`.

mod answer;
mod called;
mod cors;
pub mod metadata;
mod process;
mod route;
mod traced;
mod watch;

#[cfg(test)]
mod tests;

use crate::control::state::{State, count};
use answer::{Budget, answer};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
pub use traced::Tracer;
use watch::{Progress, Watched};

/// Open connections on one port.
const CONNECTIONS_MAX: usize = 256;
/// Go reads this much more than its limit before it calls a head too large.
const HEAD_SLACK_OCTETS: usize = 4096;
/// hyper holds no less.
const HEAD_OCTETS_MIN: usize = 8192;
/// Concurrent requests on one HTTP/2 connection.
const STREAMS_MAX: u32 = 64;
/// An HTTP/2 peer that answers no PING is gone.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIME_MAX: Duration = Duration::from_secs(20);
/// After accept failed: too many open files, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Which routes a port has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// `--dapr-http-port`.
    Api,
    /// `--dapr-public-port`.
    Public,
    /// `--metrics-port`.
    Metrics,
    /// `--ringside-page-port`.
    Page,
}

/// A bound, listening socket.
#[derive(Debug)]
pub enum HttpListener {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// One port's shared state.
struct Port {
    surface: Surface,
    state: Rc<State>,
    tracer: Rc<Tracer>,
    connections: Cell<usize>,
    /// Told of each connection that ends.
    ended: Notify,
    budget: Budget,
}

/// Serves until [`State::close_http`], and then what is in flight. Must run inside a tokio
/// `LocalSet`.
pub async fn serve(
    listener: HttpListener,
    surface: Surface,
    state: Rc<State>,
    tracer: Rc<Tracer>,
) -> io::Result<()> {
    let port = Rc::new(Port::new(surface, state, tracer));
    let mut closed = pin!(port.state.http_closed());
    match listener {
        HttpListener::Tcp(listener) => {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                tokio::select! {
                    biased;
                    () = &mut closed => break,
                    accepted = listener.accept() => {
                        let accepted = accepted.map(|(stream, client)| (stream, Some(client)));
                        take(&port, accepted).await;
                    }
                }
            }
        }
        HttpListener::Unix(listener) => {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::UnixListener::from_std(listener)?;
            loop {
                tokio::select! {
                    biased;
                    () = &mut closed => break,
                    accepted = listener.accept() => {
                        take(&port, accepted.map(|(stream, _)| (stream, None))).await;
                    }
                }
            }
        }
    }
    // One waiter, and a permit that is kept: no end is missed.
    while port.connections.get() > 0 {
        port.ended.notified().await;
    }
    Ok(())
}

impl Port {
    fn new(surface: Surface, state: Rc<State>, tracer: Rc<Tracer>) -> Self {
        let (connections, ended, budget) = (Cell::new(0), Notify::new(), Budget::new());
        Self { surface, state, tracer, connections, ended, budget }
    }
}

/// A connection, and from where it came, if that has an address.
async fn take<T>(port: &Rc<Port>, accepted: io::Result<(T, Option<SocketAddr>)>)
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    match accepted {
        Ok((stream, _)) if port.connections.get() >= CONNECTIONS_MAX => {
            count(&port.state.counters.http_connections_refused);
            drop(stream);
        }
        Ok((stream, client)) => {
            let open = Open::new(port);
            tokio::task::spawn_local(async move { connection(stream, client, &open.0).await });
        }
        Err(error) => {
            tracing::warn!(target: "dapr.runtime.http", "HTTP accept failed: {error}");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// Counts a connection for as long as it lives.
struct Open(Rc<Port>);

impl Open {
    fn new(port: &Rc<Port>) -> Self {
        port.connections.set(port.connections.get() + 1);
        let open = &port.state.counters.http_connections;
        open.set(open.get() + 1);
        Self(Rc::clone(port))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get().saturating_sub(1));
        self.0.ended.notify_one();
        let open = &self.0.state.counters.http_connections;
        open.set(open.get().saturating_sub(1));
    }
}

async fn connection<T>(stream: T, client: Option<SocketAddr>, port: &Rc<Port>)
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let progress = Rc::new(Progress::new());
    let io = TokioIo::new(Watched::new(stream, Rc::clone(&progress)));
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (port, running) = (Rc::clone(port), progress.begin());
        async move {
            count(&port.state.counters.http_requests);
            let response = answer(request, client, &port).await;
            drop(running);
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let builder = builder(&port.state);
    let mut serving = pin!(builder.serve_connection(io, service));
    let mut closed = pin!(port.state.http_closed());
    let mut overdue = pin!(progress.overdue());
    let mut closing = false;
    loop {
        tokio::select! {
            // How a connection ends is the peer's business: nothing to log.
            _ = &mut serving => return,
            () = &mut overdue => {
                count(&port.state.counters.http_connections_cut);
                return;
            }
            () = &mut closed, if !closing => {
                closing = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

fn builder(state: &State) -> auto::Builder<Local> {
    let mut builder = auto::Builder::new(Local);
    let head = state.options.head_octets_max.saturating_add(HEAD_SLACK_OCTETS).max(HEAD_OCTETS_MIN);
    builder
        .http1()
        .timer(TokioTimer::new())
        // A peer that said all it has to say still waits for answers.
        .half_close(true)
        // `watch` times heads: hyper would also cut idle connections after this time.
        .header_read_timeout(None)
        .max_buf_size(head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS_MAX)
        .max_send_buf_size(64 << 10)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIME_MAX);
    if state.options.h2c { builder } else { builder.http1_only() }
}

/// Spawns hyper's tasks on this thread.
#[derive(Clone)]
struct Local;

impl<F> hyper::rt::Executor<F> for Local
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
