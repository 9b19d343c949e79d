//! Sockets below what the runtime offers: gathered non-blocking sends beside a pending read, a
//! fresh connection's way to another worker; the thread's clock and the process's limits. The
//! only file of the project that may hold `unsafe`.
//!
//! 1. A [`Socket`]'s descriptor is open as long as the `Socket` lives.
//! 2. Everything here stays on the thread that made it (`Rc`, so the compiler agrees).
//!
//! Knows nothing of connections, TLS or HTTP/2.

#![allow(unsafe_code)]

use bytes::BytesMut;
use monoio::io::{AsyncReadRent, OwnedReadHalf};
use monoio::net::{TcpStream, UnixStream};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use std::cell::UnsafeCell;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

pub(super) use rustix::net::Shutdown;

/// A socket may be a blocking one, for the ring's sake; and a peer that has gone is an error.
const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// A connected stream socket that is read through the runtime and written directly.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    fd: RawFd,
}

/// The cells are the form in which the runtime splits a stream: `OwnedReadHalf` borrows it mutably
/// for the moment in which a read is submitted.
#[derive(Debug)]
enum Stream {
    Tcp(Rc<UnsafeCell<TcpStream>>),
    Unix(Rc<UnsafeCell<UnixStream>>),
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        let fd = stream.as_raw_fd();
        Self { stream: Stream::Tcp(Rc::new(UnsafeCell::new(stream))), fd }
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        let fd = stream.as_raw_fd();
        Self { stream: Stream::Unix(Rc::new(UnsafeCell::new(stream))), fd }
    }
}

/// Out of this thread's runtime, to be adopted by another's. The stream must be fresh: nothing of
/// it pending, no second handle.
pub(super) fn release_tcp(stream: TcpStream) -> std::net::TcpStream {
    // SAFETY: the runtime gives up the descriptor, which it has just accepted, so that it is open
    // and has no other owner.
    unsafe { std::net::TcpStream::from_raw_fd(stream.into_raw_fd()) }
}

/// As [`release_tcp`].
pub(super) fn release_unix(stream: UnixStream) -> std::os::unix::net::UnixStream {
    // SAFETY: as above.
    unsafe { std::os::unix::net::UnixStream::from_raw_fd(stream.into_raw_fd()) }
}

impl Socket {
    /// Reads into the spare capacity of an empty buffer. Must be awaited to its end.
    pub(super) async fn read(&self, buffer: BytesMut) -> (io::Result<usize>, BytesMut) {
        debug_assert!(buffer.is_empty() && buffer.capacity() > 0);
        match &self.stream {
            Stream::Tcp(stream) => OwnedReadHalf(Rc::clone(stream)).read(buffer).await,
            Stream::Unix(stream) => OwnedReadHalf(Rc::clone(stream)).read(buffer).await,
        }
    }

    /// Reads what is there into the spare capacity of an empty buffer; never blocks. Not beside a
    /// pending [`Self::read`]. `WouldBlock` when there is nothing, zero octets at the end.
    pub(super) fn recv(&self, buffer: &mut BytesMut) -> io::Result<()> {
        debug_assert!(buffer.is_empty() && buffer.capacity() > 0);
        let (filled, _) =
            rustix::net::recv(self.fd(), buffer.spare_capacity_mut(), RecvFlags::DONTWAIT)?.0;
        let octets = filled.len();
        // SAFETY: these octets at the start of the spare capacity of an empty buffer have just
        // been initialised.
        unsafe { buffer.set_len(octets) };
        Ok(())
    }

    /// Until a send may succeed, or the socket is broken. Must be awaited to its end.
    pub(super) async fn writable(&self) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => {
                // SAFETY: `stream` outlives the reference, which is used while the operation is
                // submitted and not after. Mutable references come from `read` alone, which
                // likewise holds them only while it submits, without an await in between, on this
                // same thread: so the two never meet.
                let stream = unsafe { &*stream.get() };
                stream.writable(false).await
            }
            Stream::Unix(stream) => {
                // SAFETY: as above.
                let stream = unsafe { &*stream.get() };
                stream.writable(false).await
            }
        }
    }

    /// One `send`; never blocks. `WouldBlock` when the socket takes nothing.
    pub(super) fn send_octets(&self, octets: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::net::send(self.fd(), octets, SEND) {
                Ok(sent) => return Ok(sent),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// One `sendmsg` of all slices; never blocks. `WouldBlock` when the socket takes nothing.
    pub(super) fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            let mut none = SendAncillaryBuffer::default();
            match rustix::net::sendmsg(self.fd(), slices, &mut none, SEND) {
                Ok(octets) => return Ok(octets),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Makes what is pending on the socket complete. A socket that is gone already is no error.
    pub(super) fn shutdown(&self, how: Shutdown) {
        let _ = rustix::net::shutdown(self.fd(), how);
    }

    /// The outcome of a connect that is no longer in progress.
    pub(super) fn take_error(&self) -> io::Result<()> {
        match rustix::net::sockopt::socket_error(self.fd())? {
            Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(self.fd(), nonblocking)?)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `self.stream` owns this descriptor and closes it when it is dropped; the borrow
        // cannot outlive `self`.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
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
