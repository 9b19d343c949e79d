//! The handshake, which is rustls' business to its end.
//!
//! 1. rustls is shown one record at a time. So it never opens what belongs to the session: that
//!    is carried over as it came.
//! 2. A session begins when all of the handshake is written.
//! 3. A handshake takes a bounded number of reads, and rustls bounds the size of its messages.
//!
//! Refuses to judge certificates: that is `identity::svid`, which rustls asks (`verify`).

use super::super::socket::Socket;
use super::cipher::HEADER_LEN;
use super::driven::{Driven, Step, Wish};
use super::legacy::Legacy;
use super::{ALPN_H2, Session, write};
use bytes::BytesMut;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::{Error, InvalidMessage, ProtocolVersion};
use std::io;

/// Reads that a handshake may take.
const READS_MAX: usize = 256;

/// A TLS connection that is not yet a [`Session`].
#[derive(Debug)]
pub struct Handshake {
    driven: Driven,
    incoming: Vec<u8>,
    /// Up to where it is done with, how far rustls sees it, and where the record ends of which it
    /// sees the last.
    done: usize,
    shown: usize,
    end: usize,
    out: Vec<u8>,
}

/// What a handshake came to.
#[derive(Debug)]
pub struct Secured {
    pub session: Session,
    /// The peer's own certificate, judged.
    pub leaf: Option<CertificateDer<'static>>,
}

/// Why there is no session.
#[derive(Debug)]
pub enum HandshakeError {
    /// The peer closed, or the deadline's shutdown did.
    Eof,
    Io(io::Error),
    Tls(Error),
    /// No protocol was negotiated.
    Alpn,
}

impl From<UnbufferedClientConnection> for Handshake {
    fn from(connection: UnbufferedClientConnection) -> Self {
        Self::new(Driven::Client(connection))
    }
}

impl From<UnbufferedServerConnection> for Handshake {
    fn from(connection: UnbufferedServerConnection) -> Self {
        Self::new(Driven::Server(connection))
    }
}

impl Handshake {
    fn new(driven: Driven) -> Self {
        Self { driven, incoming: Vec::new(), done: 0, shown: 0, end: 0, out: Vec::new() }
    }

    pub fn push(&mut self, octets: &[u8]) {
        // At one go, and not with each record.
        self.incoming.drain(..self.done);
        self.shown -= self.done;
        self.end -= self.done;
        self.done = 0;
        self.incoming.extend_from_slice(octets);
    }

    /// What is to be sent.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    #[cfg(test)]
    pub(super) fn driven(&self) -> &Driven {
        &self.driven
    }

    /// Goes on with what was pushed; true at the end of the handshake, false when more is to be
    /// read.
    pub fn advance(&mut self) -> Result<bool, HandshakeError> {
        loop {
            match self.step() {
                Ok(Step::Again) => {}
                Ok(Step::Ready) if !self.driven.state().is_handshaking() => return Ok(true),
                Ok(Step::Hungry | Step::Ready) => {
                    if !self.show_more() {
                        return Ok(false);
                    }
                }
                Ok(Step::Ended | Step::Closed) => return Err(HandshakeError::Eof),
                Err(error) => {
                    // The alert, if one is due; nothing else is ever looked at again.
                    while self.driven.state().wants_write() && self.step().is_ok() {}
                    if !owes_alert(&error) {
                        self.out.clear();
                    }
                    return Err(HandshakeError::Tls(error));
                }
            }
        }
    }

    fn step(&mut self) -> Result<Step, Error> {
        let mut early = BytesMut::new();
        let (done, step) = self.driven.step(
            self.incoming.get_mut(self.done..self.shown).unwrap_or_default(),
            Wish::Nothing,
            &mut self.out,
            &mut early,
        );
        // Nothing is data that comes before the end of a handshake.
        if !early.is_empty() {
            return Err(Error::General("data within the handshake".to_owned()));
        }
        self.done = self.shown.min(self.done + done);
        step
    }

    /// Shows rustls the rest of the record that it sees part of, or else the next one; false when
    /// there is no more.
    fn show_more(&mut self) -> bool {
        if self.shown == self.end {
            let header = self.incoming.get(self.shown..).and_then(<[u8]>::first_chunk);
            let Some(&[_, _, _, high, low]): Option<&[u8; HEADER_LEN]> = header else {
                return false;
            };
            self.end += HEADER_LEN + usize::from(u16::from_be_bytes([high, low]));
        }
        let before = self.shown;
        self.shown = self.end.min(self.incoming.len());
        self.shown > before
    }

    /// The session of a handshake that is at its end, and written.
    pub fn finish(self) -> Result<Secured, HandshakeError> {
        let Self { driven, mut incoming, done, shown, end, out } = self;
        debug_assert!(out.is_empty());
        incoming.drain(..done);
        let state = driven.state();
        if state.alpn_protocol() != Some(ALPN_H2) {
            return Err(HandshakeError::Alpn);
        }
        let leaf = state.peer_certificates().and_then(<[_]>::first).cloned();
        if state.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            let mut legacy = Legacy::new(driven);
            legacy.push(&incoming);
            return Ok(Secured { session: Session::legacy(legacy), leaf });
        }
        if shown != done || end != done {
            let error = Error::General("the handshake ends within a record".to_owned());
            return Err(HandshakeError::Tls(error));
        }
        let mut records = driven.into_records().map_err(HandshakeError::Tls)?;
        records.push(BytesMut::from(incoming.as_slice()));
        Ok(Secured { session: Session::records(records), leaf })
    }
}

/// Drives a handshake to its end. What the peer sent right behind it waits in the session.
pub(in crate::io) async fn handshake(
    socket: &Socket,
    mut handshake: Handshake,
) -> Result<Secured, HandshakeError> {
    for _ in 0..READS_MAX {
        let outcome = handshake.advance();
        let sent = send_all(socket, handshake.output()).await;
        if outcome? {
            sent.map_err(HandshakeError::Io)?;
            return handshake.finish();
        }
        sent.map_err(HandshakeError::Io)?;
        let octets = socket.read().await.map_err(HandshakeError::Io)?;
        if octets.is_empty() {
            return Err(HandshakeError::Eof);
        }
        handshake.push(&octets);
    }
    Err(HandshakeError::Tls(Error::General("the handshake takes too long".to_owned())))
}

/// Go sends no alert to who does not speak TLS: a plaintext peer sees the end and nothing else
/// (`crypto/tls`, `RecordHeaderError`).
fn owes_alert(error: &Error) -> bool {
    !matches!(error, Error::InvalidMessage(InvalidMessage::InvalidContentType))
}

async fn send_all(socket: &Socket, out: &mut Vec<u8>) -> io::Result<()> {
    let mut sent = 0;
    while !write(socket, out, &mut sent)? {
        socket.writable().await;
    }
    out.clear();
    Ok(())
}
