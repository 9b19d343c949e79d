//! One of the two rooms that touch the world: a worker's sockets, TLS, timers and threads' ends.
//!
//! [`worker`] owns a `Proxy` and carries out what it asks; [`listener`] accepts for all workers,
//! `placement` chooses one by what each tells in `load`, `dial` connects,
//! `conn` reads, `flush` writes once per dirty connection and turn, `tls` opens and seals records.
//!
//! 1. No pending read, accept or connect is ever dropped: bytes or descriptors would be lost. Who
//!    wants one to end shuts the socket down, and awaits it.
//! 2. No `RefCell` borrow spans an `await`.
//! 3. `unsafe` is in `sys` alone.
//!
//! Refuses to decide: it knows no field names and no policy.

mod buffer;
mod clock;
mod conn;
mod dial;
mod driver;
mod flush;
mod listener;
mod load;
mod local;
mod output;
mod placement;
mod post;
mod sys;
mod tls;
mod worker;

pub use listener::ListenSocket;
pub use load::Loads;
pub use worker::{WorkerError, WorkerOptions, run};

/// For `benches/tls.rs`.
pub use tls::{Handshake, Session};

/// Dapr-style logger name of this room's own lines.
const SCOPE: &str = "dapr.runtime.io";

#[cfg(test)]
mod tests;
