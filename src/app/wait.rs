//! `--wait`: asks another sidecar until it is ready for outbound calls.
//!
//! Source: `pkg/runtime/wait.go` of Dapr. Every outcome exits 0, and speaks on stderr.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

const TRIES: u32 = 600;
const PAUSE: Duration = Duration::from_millis(100);
const REQUEST_TIME_MAX: Duration = Duration::from_millis(500);
const PATH: &str = "/v1.0/healthz/outbound";

pub fn wait_until_outbound_ready(port: &str) {
    let url = format!("http://localhost:{port}{PATH}");
    eprintln!("Waiting for Dapr to be outbound ready (timeout: 60 seconds): url={url}\n");
    let mut last = String::new();
    for _ in 0..TRIES {
        match ask(port) {
            Ok(204) => {
                eprintln!("Dapr is outbound ready!");
                return;
            }
            Ok(status) => last = format!("HTTP status code {status}"),
            Err(error) => last = format!("Get {url:?}: {error}"),
        }
        eprintln!("Dapr outbound NOT ready yet: {last}");
        pause();
    }
    eprintln!("timed out waiting for Dapr to become outbound ready. Last error: {last}");
}

#[allow(clippy::disallowed_methods, reason = "a process of its own that does nothing but wait")]
fn pause() {
    std::thread::sleep(PAUSE);
}

fn ask(port: &str) -> Result<u16, String> {
    let mut failure = format!("no address for localhost:{port}");
    let addresses = format!("localhost:{port}").to_socket_addrs().map_err(|e| e.to_string())?;
    let mut addresses: Vec<SocketAddr> = addresses.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    for address in addresses {
        match ask_at(address) {
            Ok(status) => return Ok(status),
            Err(error) => {
                let error = super::listen::plain(&error);
                failure = format!("dial tcp {address}: connect: {error}");
            }
        }
    }
    Err(failure)
}

fn ask_at(address: SocketAddr) -> io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, REQUEST_TIME_MAX)?;
    stream.set_read_timeout(Some(REQUEST_TIME_MAX))?;
    stream.set_write_timeout(Some(REQUEST_TIME_MAX))?;
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    // "HTTP/1.1 204": twelve octets.
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    let status = std::str::from_utf8(&head[9..]).ok().and_then(|digits| digits.parse().ok());
    status.ok_or_else(|| io::Error::other("malformed HTTP response"))
}
