//! Binding the listening sockets.
//!
//! 1. An address that is taken is tried again, from 100 to 500 ms apart, for ten seconds in all:
//!    the process before us may still be ending (`pkg/api/listen/listen.go` of Dapr).
//! 2. Every text is Go's: `listen tcp :50001: bind: address already in use`.

use crate::config::port;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LAST: Duration = Duration::from_millis(500);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// Binds, patiently.
pub async fn tcp(host: &str, port: u16) -> Result<TcpListener, String> {
    let mut pause = PAUSE_FIRST;
    let mut waited = Duration::ZERO;
    loop {
        match bind(host, port) {
            Ok(listener) => return Ok(listener),
            Err(error) if waited >= PATIENCE || error.kind() != io::ErrorKind::AddrInUse => {
                return Err(format!("listen tcp {host}:{port}: {}", step(&error)));
            }
            Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        waited += pause;
        pause = (pause * 3 / 2).min(PAUSE_LAST);
    }
}

/// The folder's socket; one that is left over from a process that crashed is an error, as in
/// daprd: it may be another's.
pub fn unix(path: &Path) -> Result<UnixListener, String> {
    let bound = UnixListener::bind(path);
    let listener = bound.and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|error| format!("listen unix {}: {}", path.display(), step(&error)))
}

/// The internal port: the one asked for, or the stable one, or if that is taken any.
pub async fn internal(
    host: &str,
    asked: Option<u16>,
    site: port::Site<'_>,
) -> Result<TcpListener, String> {
    if let Some(port) = asked {
        return tcp(host, port).await;
    }
    let seed = port::seed(site);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, seed.as_bytes());
    match bind(host, port::from_digest(digest.as_ref())) {
        Ok(listener) => Ok(listener),
        Err(_) => tcp(host, 0).await,
    }
}

fn bind(host: &str, port: u16) -> io::Result<TcpListener> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        // Both families by one socket, or IPv4 alone where there is no IPv6.
        let every = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        return match listen(every, false) {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), true)
            }
            bound => bound,
        };
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return listen(SocketAddr::from((address, port)), true);
    }
    // A name: Go prefers its IPv4 address.
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    let chosen = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    let chosen = chosen.ok_or_else(|| io::Error::other("no such host"))?;
    listen(*chosen, true)
}

fn listen(address: SocketAddr, one_family: bool) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(one_family)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Before anybody can connect: who is in the backlog already has what its listener had then.
    // Without it a small answer to the first callers waits for their delayed acknowledgements.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn step(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(_) => format!("bind: {}", plain(error)),
        None => plain(error),
    }
}

/// An operating system's error as Go says it: without the number, in lower case.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_told_in_gos_words() {
        let taken = bind("127.0.0.1", 0).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = bind("127.0.0.1", port).unwrap_err();
        assert_eq!(step(&error), "bind: address already in use");
        let missing = UnixListener::bind("/nowhere/x.socket").unwrap_err();
        assert_eq!(plain(&missing), "no such file or directory");
    }

    #[test]
    fn every_address_is_both_families() {
        let listener = bind("", 0).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert!(bind("[::1]", 0).is_ok() || bind("::1", 0).is_err());
        assert!(bind("localhost", 0).unwrap().local_addr().unwrap().ip().is_loopback());
    }

    /// A worker that starts comes later than the first connections.
    #[test]
    fn who_comes_first_waits_for_no_acknowledgement() {
        let listener = bind("127.0.0.1", 0).unwrap();
        let _caller = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(accepted.nodelay().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_the_one_before() {
        let taken = bind("127.0.0.1", 0).unwrap();
        let port = taken.local_addr().unwrap().port();
        let freed = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            drop(taken);
        };
        let (bound, ()) = tokio::join!(tcp("127.0.0.1", port), freed);
        let bound = bound.unwrap();
        let refused = tcp("127.0.0.1", port).await.unwrap_err();
        assert_eq!(refused, format!("listen tcp 127.0.0.1:{port}: bind: address already in use"));
        drop(bound);
        let site = port::Site { app_id: "a", folder: "/", uid: 0, hostname: "h" };
        let internal = internal("127.0.0.1", None, site).await.unwrap();
        assert!(internal.local_addr().unwrap().port() > 0);
    }
}
