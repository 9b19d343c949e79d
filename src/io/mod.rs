//! One of the two rooms that touch the world: a worker's sockets, TLS, timers and threads' ends.
//!
//! [`worker`] owns a `Proxy` and carries out what it asks; `driver` runs its turns (`turn`) on a
//! `reactor`, which is io_uring or epoll; [`listener`] accepts for all workers, `placement` chooses
//! one by what each tells in `load`, within `bounds`, `dial` connects, `conn` takes what was read,
//! `flush` writes once per dirty connection and turn, `tls` opens and seals records.
//!
//! 1. On the way of a call there is no task and no waker: what the kernel read is handed to the
//!    connection, and from there to the proxy.
//! 2. No `RefCell` borrow spans an `await`.
//! 3. `unsafe` is in `sys` alone.
//!
//! Refuses to decide: it knows no field names and no policy.

mod bounds;
mod clock;
mod conn;
mod dial;
mod driver;
mod epoll;
mod flush;
mod heard;
mod listener;
mod load;
mod local;
mod output;
mod placement;
mod post;
mod reactor;
mod socket;
mod sys;
mod tls;
mod turn;
mod window;
mod worker;

pub use driver::probe;
pub use listener::ListenSocket;
pub use load::Loads;
pub use sys::pages::FilePages;
pub use worker::{WorkerError, WorkerOptions, run};

/// For `benches/tls.rs`.
pub use tls::{Handshake, Session};

/// Dapr-style logger name of this room's own lines.
const SCOPE: &str = "dapr.runtime.io";

#[cfg(test)]
mod tests;
