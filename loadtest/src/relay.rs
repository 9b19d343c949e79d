//! A byte relay: accepts, dials the next address, and passes bytes on in both directions. With one
//! on each side of a wire it is the floor of what two hops can cost.
//!
//! 1. One thread, one epoll instance, level-triggered; one read of at most 64 KiB and one send for
//!    each event; NODELAY on both sockets.
//! 2. What a send does not take is kept, and its source is not read until it is gone: a direction
//!    holds at most one read's worth of bytes.
//! 3. The end of one direction is passed on alone (half close); a pair ends with its second end, or
//!    with the first error.
//!
//! Refuses to know what the bytes are.

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

pub const READ_OCTETS_MAX: usize = 64 * 1024;
const EVENTS_MAX: usize = 256;
const ACCEPTS_PER_TURN: usize = 64;
const PAIRS_MAX: usize = 100_000;
const LISTENER: u64 = u64::MAX;

/// Relays every connection of `listener` to `to`; returns only with an error of its own.
pub fn run(listener: &TcpListener, to: SocketAddr) -> io::Error {
    match relay(listener, to) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

enum Never {}

fn relay(listener: &TcpListener, to: SocketAddr) -> io::Result<Never> {
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut relay = Relay {
        epoll,
        to,
        pairs: Vec::new(),
        free: Vec::new(),
        ended: Vec::new(),
        buffer: vec![0; READ_OCTETS_MAX].into_boxed_slice(),
    };
    let mut events: Vec<Event> = Vec::with_capacity(EVENTS_MAX);
    loop {
        events.clear();
        match epoll::wait(&relay.epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            match event.data.u64() {
                LISTENER => relay.accept(listener)?,
                token => relay.turn(token, event.flags),
            }
        }
        // Only now: an event of the same turn may still name an ended pair.
        relay.free.append(&mut relay.ended);
    }
}

struct Relay {
    epoll: OwnedFd,
    to: SocketAddr,
    pairs: Vec<Option<Pair>>,
    free: Vec<usize>,
    ended: Vec<usize>,
    buffer: Box<[u8]>,
}

/// Two sockets: side 0 dialled us, side 1 we dialled.
struct Pair {
    sockets: [OwnedFd; 2],
    /// What each is registered for.
    interest: [EventFlags; 2],
    /// Direction `n` reads socket `n` and sends to the other.
    directions: [Direction; 2],
    connected: bool,
}

enum Direction {
    /// Nothing kept.
    Open,
    /// Bytes that the other socket did not take, from an offset on; `ends` after them.
    Blocked { kept: Vec<u8>, sent: usize, ends: bool },
    /// Its end has been passed on.
    Ended,
}

impl Relay {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        for _ in 0..ACCEPTS_PER_TURN {
            if self.pairs.len() - self.free.len() >= PAIRS_MAX {
                return Err(io::Error::other(format!("more than {PAIRS_MAX} connections")));
            }
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match net::accept_with(listener, flags) {
                Ok(socket) => self.begin(socket)?,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Dials for an accepted connection; it is not read before the other is there.
    fn begin(&mut self, accepted: OwnedFd) -> io::Result<()> {
        let family = net::AddressFamily::INET;
        let family = if self.to.is_ipv6() { net::AddressFamily::INET6 } else { family };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let dialled = net::socket_with(family, SocketType::STREAM, flags, None)?;
        for socket in [&accepted, &dialled] {
            net::sockopt::set_tcp_nodelay(socket, true)?;
        }
        match net::connect(&dialled, &self.to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            // The next hop is not there: closing both tells the one who dialled.
            Err(_) => return Ok(()),
        }
        let slot = self.free.pop().unwrap_or(self.pairs.len());
        let interest = [EventFlags::empty(), EventFlags::OUT];
        for (side, socket) in [&accepted, &dialled].into_iter().enumerate() {
            epoll::add(&self.epoll, socket, EventData::new_u64(token(slot, side)), interest[side])?;
        }
        let pair = Pair {
            sockets: [accepted, dialled],
            interest,
            directions: [Direction::Open, Direction::Open],
            connected: false,
        };
        if slot == self.pairs.len() {
            self.pairs.push(Some(pair))
        } else {
            self.pairs[slot] = Some(pair)
        }
        Ok(())
    }

    fn turn(&mut self, token: u64, flags: EventFlags) {
        let (slot, side) = ((token >> 1) as usize, (token & 1) as usize);
        let Some(Some(pair)) = self.pairs.get_mut(slot) else { return };
        let done =
            pair.turn(side, flags, &mut self.buffer).and_then(|()| pair.watch(&self.epoll, slot));
        let over = pair.directions.iter().all(|direction| matches!(direction, Direction::Ended));
        if done.is_err() || over {
            // Closing a socket takes it out of the epoll instance.
            self.pairs[slot] = None;
            self.ended.push(slot);
        }
    }
}

fn token(slot: usize, side: usize) -> u64 {
    (slot as u64) << 1 | side as u64
}

impl Pair {
    fn turn(&mut self, side: usize, flags: EventFlags, buffer: &mut [u8]) -> Result<(), Errno> {
        if !self.connected {
            if side == 1 {
                net::sockopt::socket_error(&self.sockets[1])??;
                self.connected = true;
            } else if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
                return Err(Errno::CONNRESET);
            }
            return Ok(());
        }
        if flags.intersects(EventFlags::OUT | EventFlags::ERR | EventFlags::HUP) {
            self.flush(1 - side)?;
        }
        let readable = EventFlags::IN | EventFlags::ERR | EventFlags::HUP;
        if flags.intersects(readable) && matches!(self.directions[side], Direction::Open) {
            self.pass(side, buffer)?;
        }
        Ok(())
    }

    /// One read, one send.
    fn pass(&mut self, side: usize, buffer: &mut [u8]) -> Result<(), Errno> {
        let (read, _) = match net::recv(&self.sockets[side], &mut *buffer, RecvFlags::empty()) {
            Ok(read) => read,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error),
        };
        if read == 0 {
            return self.end(side);
        }
        let sent = self.send(side, &buffer[..read])?;
        if sent < read {
            let kept = buffer[sent..read].to_vec();
            self.directions[side] = Direction::Blocked { kept, sent: 0, ends: false };
        }
        Ok(())
    }

    fn send(&self, side: usize, bytes: &[u8]) -> Result<usize, Errno> {
        match net::send(&self.sockets[1 - side], bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => Ok(sent),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Sends what direction `side` has kept.
    fn flush(&mut self, side: usize) -> Result<(), Errno> {
        let Direction::Blocked { kept, sent, ends } = &self.directions[side] else { return Ok(()) };
        let (ends, from) = (*ends, *sent);
        let sent = from + self.send(side, &kept[from..])?;
        if sent < kept.len() {
            if let Direction::Blocked { sent: so_far, .. } = &mut self.directions[side] {
                *so_far = sent;
            }
            return Ok(());
        }
        self.directions[side] = Direction::Open;
        if ends { self.end(side) } else { Ok(()) }
    }

    fn end(&mut self, side: usize) -> Result<(), Errno> {
        self.directions[side] = Direction::Ended;
        match net::shutdown(&self.sockets[1 - side], Shutdown::Write) {
            // It may be gone already; then its own end comes next.
            Ok(()) | Err(Errno::NOTCONN) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Registers what each socket is to be asked for now, where that has changed.
    fn watch(&mut self, epoll: &OwnedFd, slot: usize) -> Result<(), Errno> {
        for side in 0..2 {
            let mut wanted = EventFlags::empty();
            if matches!(self.directions[side], Direction::Open) && self.connected {
                wanted |= EventFlags::IN;
            }
            let blocked = matches!(self.directions[1 - side], Direction::Blocked { .. });
            if blocked || (side == 1 && !self.connected) {
                wanted |= EventFlags::OUT;
            }
            if wanted != self.interest[side] {
                let data = EventData::new_u64(token(slot, side));
                epoll::modify(epoll, &self.sockets[side], data, wanted)?;
                self.interest[side] = wanted;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
