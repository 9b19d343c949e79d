//! TLS sessions: the handshake, records opened and sealed.
//!
//! `handshake` makes a [`Session`] with rustls' help; `records`, on `input` and `cipher`, is the
//! record layer of TLS 1.3; `legacy` leaves TLS 1.2 to rustls. `config` and `verify` say whom we
//! believe.
//!
//! 1. What was sealed is sent in order, or the connection is broken.
//! 2. What is sealed and not sent stays within one transmit and its answers, as nobody seals data
//!    while `wants_send` says true.
//! 3. A session that owes nothing holds no buffer.
//! 4. No session is ever resumed: each handshake judges the peer's certificate.
//!
//! Refuses to judge certificates: that is `identity::svid`.

mod cipher;
mod config;
mod driven;
mod handshake;
mod input;
mod legacy;
mod records;
mod text;
mod verify;

pub use handshake::{Handshake, HandshakeError, Secured};

pub(super) use config::Contexts;
pub(super) use handshake::handshake;
pub(super) use text::failure;

use super::socket::Socket;
use crate::proxy::Transmit;
use bytes::{Bytes, BytesMut};
use cipher::{CONTENT_MAX, RECORD_EXTRA};
use legacy::Legacy;
use records::Records;
use rustls::AlertDescription;
use std::io;

/// The only protocol that we speak.
const ALPN_H2: &[u8] = b"h2";

/// Room for records that is kept for the next transmit: more than the flusher gives at once, so
/// that it is not allocated each time.
const ROOM_KEPT_MAX: usize = 192 << 10;

/// The record of a key update, a message of five octets.
const KEY_UPDATE_EXTRA: usize = RECORD_EXTRA + 5;

/// One TLS connection after its handshake.
#[derive(Debug)]
pub struct Session {
    layer: Layer,
    /// Sealed, and sent up to here.
    rest: Vec<u8>,
    sent: usize,
}

#[derive(Debug)]
enum Layer {
    Records(Box<Records>),
    Legacy(Box<Legacy>),
}

/// What ended a session before its time.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// What the peer did wrong, or its network: the alert that we send.
    Local(AlertDescription),
    /// The alert that the peer sent.
    Remote(AlertDescription),
    /// rustls', in TLS 1.2.
    Rustls(rustls::Error),
}

impl Session {
    fn records(records: Records) -> Self {
        Self { layer: Layer::Records(Box::new(records)), rest: Vec::new(), sent: 0 }
    }

    fn legacy(legacy: Legacy) -> Self {
        Self { layer: Layer::Legacy(Box::new(legacy)), rest: Vec::new(), sent: 0 }
    }

    /// Takes what was read; [`Self::open`] is then due until there is no more.
    pub fn push(&mut self, octets: BytesMut) {
        match &mut self.layer {
            Layer::Records(records) => records.push(octets),
            Layer::Legacy(legacy) => legacy.push(&octets),
        }
    }

    /// The next plaintext of what was pushed: never empty. After an error there is none.
    pub fn open(&mut self) -> Result<Option<Bytes>, Fault> {
        match &mut self.layer {
            Layer::Records(records) => records.open(&mut self.rest),
            Layer::Legacy(legacy) => legacy.open(&mut self.rest),
        }
    }

    /// True after the peer's close_notify.
    pub(super) fn is_closed_by_peer(&self) -> bool {
        match &self.layer {
            Layer::Records(records) => records.is_closed_by_peer(),
            Layer::Legacy(legacy) => legacy.is_closed_by_peer(),
        }
    }

    /// Seals all of it behind what `out` has.
    pub fn seal(&mut self, transmit: &Transmit, out: &mut Vec<u8>) -> Result<(), Fault> {
        out.reserve_exact(sealed_len_max(transmit.len));
        match &mut self.layer {
            Layer::Records(records) => records.seal(transmit.slices(), out),
            Layer::Legacy(legacy) => legacy.seal(transmit.slices(), out),
        }
    }

    /// Queues close_notify; the peer may then tell the end from a truncation.
    pub(super) fn close(&mut self) {
        let closed = match &mut self.layer {
            Layer::Records(records) => records.close(&mut self.rest),
            Layer::Legacy(legacy) => legacy.close(&mut self.rest),
        };
        debug_assert!(closed.is_ok(), "{closed:?}");
    }

    /// True when there are records to send.
    pub(super) fn wants_send(&self) -> bool {
        self.sent < self.rest.len()
    }

    /// Seals `transmit` and sends it; true when all is sent, false when the socket takes no more.
    /// Records are made in `room`.
    pub(super) fn send(
        &mut self,
        socket: &Socket,
        transmit: &Transmit,
        room: &mut Vec<u8>,
    ) -> io::Result<bool> {
        if self.wants_send() {
            return Err(io::Error::other("the rest goes first"));
        }
        room.clear();
        self.seal(transmit, room).map_err(|_| io::Error::other("cannot seal"))?;
        let mut sent = 0;
        let outcome = write(socket, room, &mut sent);
        match outcome {
            Ok(true) => {}
            Ok(false) => self.leave(room, sent),
            Err(_) => *room = Vec::new(),
        }
        if room.capacity() > ROOM_KEPT_MAX {
            *room = Vec::new();
        }
        outcome
    }

    /// Keeps what is not `sent`. Much of it takes the room along; for a little, which may wait
    /// long, that would be a waste. COPY: less than half of a room, once.
    fn leave(&mut self, room: &mut Vec<u8>, sent: usize) {
        let unsent = room.get(sent..).unwrap_or_default();
        (self.rest, self.sent) = if unsent.len() < room.capacity() / 2 {
            (unsent.to_vec(), 0)
        } else {
            (std::mem::take(room), sent)
        };
    }

    /// Sends what is left; true when nothing is, false when the socket takes no more.
    pub(super) fn send_rest(&mut self, socket: &Socket) -> io::Result<bool> {
        if !self.wants_send() {
            return Ok(true);
        }
        let done = write(socket, &self.rest, &mut self.sent)?;
        if done {
            (self.rest, self.sent) = (Vec::new(), 0);
            if let Layer::Records(records) = &mut self.layer {
                records.settled();
            }
        }
        Ok(done)
    }
}

/// Room for the records of so much content, with a key update of ours, and for one more, short.
const fn sealed_len_max(content: usize) -> usize {
    content + (content / CONTENT_MAX + 2) * RECORD_EXTRA + KEY_UPDATE_EXTRA
}

/// Writes what is not `sent` of `octets`. True when all is.
fn write(socket: &Socket, octets: &[u8], sent: &mut usize) -> io::Result<bool> {
    while let Some(rest @ [_, ..]) = octets.get(*sent..) {
        match socket.send_octets(rest) {
            Ok(count) => *sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
