//! A connected stream socket: read through the reactor, written directly.
//!
//! 1. A send never blocks: what the socket does not take stays with the caller
//!    (docs/adr/0011-direct-sends.md).
//! 2. Its descriptor is a blocking one, as accepted ones are: the ring would be told that there is
//!    nothing, and what is read and sent otherwise asks not to block, call by call.

use super::reactor::{Event, Key, Reactor, Source};
use crate::mailbox::Stream;
use bytes::BytesMut;
use rustix::event::PollFlags;
use rustix::net::{SendAncillaryBuffer, SendFlags, SocketAddrUnix};
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::rc::Rc;

pub(super) use rustix::net::Shutdown;

/// Sockets are blocking ones; and a peer that has gone is an error.
const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

#[derive(Debug)]
pub(super) struct Socket {
    source: Source,
}

impl Socket {
    /// A blocking one.
    pub(super) fn adopt(reactor: &Rc<Reactor>, stream: Stream) -> io::Result<Self> {
        let fd = match stream {
            Stream::Tcp(stream) => OwnedFd::from(stream),
            Stream::Unix(stream) => OwnedFd::from(stream),
        };
        Self::connecting(reactor, fd)
    }

    /// One that does not block and may not be connected yet; [`Self::connected`] is then due.
    pub(super) fn connecting(reactor: &Rc<Reactor>, fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { source: reactor.adopt(fd)? })
    }

    /// Of a Unix socket, which is connected at once or not at all.
    pub(super) fn connect(&self, to: &SocketAddrUnix) -> rustix::io::Result<()> {
        rustix::net::connect(self.source.fd(), to)
    }

    /// Before the first read.
    pub(super) fn connected(&self) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(self.source.fd(), false)?)
    }

    pub(super) fn key(&self) -> Key {
        self.source.key()
    }

    /// What came next: nothing at the end. May be dropped, nothing is lost.
    pub(super) fn read(&self) -> impl Future<Output = io::Result<BytesMut>> + '_ {
        self.source.read()
    }

    /// See [`Source::deliver`].
    pub(super) fn deliver(&self, events: &mut Vec<Event>) {
        self.source.deliver(events);
    }

    /// Until a send may succeed, or the socket is broken.
    pub(super) async fn writable(&self) {
        self.source.polled(PollFlags::OUT).await;
    }

    /// As [`Self::writable`], but as an event.
    pub(super) fn writable_soon(&self) {
        self.source.poll_soon(PollFlags::OUT);
    }

    /// One `send`; never blocks. `WouldBlock` when the socket takes nothing.
    pub(super) fn send_octets(&self, octets: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::net::send(self.source.fd(), octets, SEND) {
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
            match rustix::net::sendmsg(self.source.fd(), slices, &mut none, SEND) {
                Ok(octets) => return Ok(octets),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A read then comes to its end. A socket that is gone already is no error.
    pub(super) fn shutdown(&self, how: Shutdown) {
        let _ = rustix::net::shutdown(self.source.fd(), how);
    }

    /// The outcome of a connect that is no longer in progress.
    pub(super) fn take_error(&self) -> io::Result<()> {
        match rustix::net::sockopt::socket_error(self.source.fd())? {
            Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
