//! The app under test: `/loadtest.Echo/{Unary,Collect,Stream,PingPong}` (`echo.proto`) on one
//! thread, plaintext HTTP/2 with prior knowledge, on the `h2` crate.
//!
//! 1. What is echoed is never copied: the octets leave from the buffer they were read into.
//! 2. A unary request is held until its stream ends, [`UNARY_OCTETS_MAX`] at most; the streaming
//!    methods hold one frame, and read on when it has found room.
//! 3. Metadata is accepted and ignored.
//!
//! Refuses to know who calls.
#![allow(clippy::disallowed_methods)] // an app has its own thread

mod connection;
pub mod message;

use std::io;
use std::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};

pub const UNARY: &str = "/loadtest.Echo/Unary";
pub const COLLECT: &str = "/loadtest.Echo/Collect";
pub const STREAM: &str = "/loadtest.Echo/Stream";
pub const PING_PONG: &str = "/loadtest.Echo/PingPong";

/// gRPC servers' usual 4 MiB, and room for bulk workloads.
pub const UNARY_OCTETS_MAX: usize = 16 << 20;

/// Serves until the listener fails: for a thread or a process of its own.
pub fn serve(listener: TcpListener) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build_local(LocalOptions::default())?;
    runtime.block_on(accept(listener))
}

async fn accept(listener: TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::task::spawn_local(connection::run(stream));
            }
            // The peer was gone before it was accepted (accept(2)); every other one is ours.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
}
