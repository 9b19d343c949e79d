//! What the standard library and rustix leave to do below a safe interface: reads into spare
//! capacity, the ring and its rooms, pages of the program's files; the thread's clock and the
//! process's limits. The only folder of the project that may hold `unsafe`.
//!
//! Knows nothing of connections, TLS or HTTP/2.

#![allow(unsafe_code)]

pub(super) mod pages;
pub(super) mod ring;
pub(super) mod rooms;

use bytes::BytesMut;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::os::fd::AsFd;
use std::time::Duration;

/// Reads what is there into the spare capacity of an empty buffer; never blocks. `AGAIN` when there
/// is nothing, zero octets at the end.
pub(super) fn recv(socket: impl AsFd, buffer: &mut BytesMut) -> Result<(), Errno> {
    debug_assert!(buffer.is_empty() && buffer.capacity() > 0);
    let (filled, _) =
        rustix::net::recv(socket, buffer.spare_capacity_mut(), RecvFlags::DONTWAIT)?.0;
    let octets = filled.len();
    // SAFETY: these octets at the start of the spare capacity of an empty buffer have just been
    // initialised.
    unsafe { buffer.set_len(octets) };
    Ok(())
}

/// CPU time that this thread used so far.
pub(super) fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
}

/// Raises the soft limit of open descriptors to the hard one, as Go's runtime does for daprd;
/// gives what holds afterwards.
pub(super) fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    current.unwrap_or(u64::MAX)
}

/// What io_uring may lock on kernels that count it, in octets; `None` without a limit.
pub(super) fn memlock_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Memlock).current
}
