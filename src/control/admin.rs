//! The HTTP ports: Dapr's HTTP API as far as it is served, the public port, metrics.

use crate::control::state::State;
use std::rc::Rc;

/// Which routes a port has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// `--dapr-http-port`.
    Api,
    /// `--dapr-public-port`.
    Public,
    /// `--metrics-port`.
    Metrics,
}

/// A bound, listening socket.
#[derive(Debug)]
pub enum HttpListener {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// Serves until [`State::close_http`]; must run inside a tokio `LocalSet`.
pub async fn serve(
    _listener: HttpListener,
    _surface: Surface,
    state: Rc<State>,
) -> std::io::Result<()> {
    state.http_closed().await;
    Ok(())
}
