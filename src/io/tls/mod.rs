//! TLS sessions: records opened and sealed, the handshake.
//!
//! The seam is small (`open`, `seal`, `send`, `wants_send`) so that a record layer of our own, or
//! the kernel's, can take the place of rustls' buffered one.
//!
//! 1. What `seal` took is sent in order, or the connection is broken.
//! 2. What is sealed and not sent stays within one transmit, as nobody seals while
//!    `wants_send` says true.
//! 3. No session is ever resumed: each handshake judges the peer's certificate.
//!
//! Refuses to judge certificates: that is `identity::svid`.

mod config;
mod text;
mod verify;

pub(super) use config::Contexts;
pub(super) use text::failure;

use super::buffer::ReadBuffer;
use super::local::yield_now;
use super::sys::Socket;
use crate::proxy::Transmit;
use bytes::BytesMut;
use rustls::{ClientConnection, Connection, InvalidMessage, ServerConnection};
use std::io::{self, BufRead, IoSlice, Read, Write};

/// The only protocol that we speak.
const ALPN_H2: &[u8] = b"h2";

/// Slices given to the record layer at once.
const SLICES_MAX: usize = 64;

/// Flights that a handshake may take; rustls bounds their size.
const FLIGHTS_MAX: usize = 256;

/// One TLS connection.
#[derive(Debug)]
pub(super) struct Session {
    connection: Connection,
}

/// Why there is no session.
#[derive(Debug)]
pub(super) enum HandshakeError {
    /// The peer closed, or the deadline's shutdown did.
    Eof,
    Io(io::Error),
    Tls(rustls::Error),
    /// No protocol was negotiated.
    Alpn,
}

impl From<ClientConnection> for Session {
    fn from(connection: ClientConnection) -> Self {
        Self::new(connection.into())
    }
}

impl From<ServerConnection> for Session {
    fn from(connection: ServerConnection) -> Self {
        Self::new(connection.into())
    }
}

impl Session {
    fn new(mut connection: Connection) -> Self {
        connection.set_buffer_limit(None);
        Self { connection }
    }

    /// Opens all that `ciphertext` completes; the plaintext is appended to `plain`.
    pub(super) fn open(
        &mut self,
        mut ciphertext: &[u8],
        plain: &mut BytesMut,
    ) -> Result<(), rustls::Error> {
        while !ciphertext.is_empty() {
            match self.connection.read_tls(&mut ciphertext) {
                // After close_notify nothing is read any more (RFC 8446 §6.1).
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(rustls::Error::General(error.to_string())),
            }
            self.connection.process_new_packets()?;
            self.take_plain(plain);
        }
        Ok(())
    }

    fn take_plain(&mut self, plain: &mut BytesMut) {
        let mut reader = self.connection.reader();
        while let Ok(chunk) = reader.fill_buf() {
            if chunk.is_empty() {
                break;
            }
            // COPY: out of rustls' buffer, each octet once; goes with our own record layer.
            plain.extend_from_slice(chunk);
            let octets = chunk.len();
            reader.consume(octets);
        }
    }

    /// Seals all of it; the records wait for `send`.
    pub(super) fn seal(&mut self, transmit: &Transmit) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut rest = transmit.slices().filter(|slice| !slice.is_empty()).peekable();
        while rest.peek().is_some() {
            let mut count = 0;
            for (place, slice) in slices.iter_mut().zip(rest.by_ref()) {
                *place = IoSlice::new(slice);
                count += 1;
            }
            self.seal_all(&mut slices[..count])?;
        }
        Ok(())
    }

    fn seal_all(&mut self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut writer = self.connection.writer();
        while !slices.is_empty() {
            let octets = writer.write_vectored(slices)?;
            if octets == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut slices, octets);
        }
        Ok(())
    }

    /// True when there are records to send.
    pub(super) fn wants_send(&self) -> bool {
        self.connection.wants_write()
    }

    /// Sends what is sealed; true when nothing is left, false when the socket takes no more.
    pub(super) fn send(&mut self, socket: &Socket) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Gather(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Queues close_notify; the peer may then tell the end from a truncation.
    pub(super) fn close(&mut self) {
        self.connection.send_close_notify();
    }

    /// True after the peer's close_notify.
    pub(super) fn is_closed_by_peer(&mut self) -> bool {
        // What is left unread would be in the way of the answer, and there is none after `open`.
        let mut nothing = [0; 1];
        matches!(self.connection.reader().read(&mut nothing), Ok(0))
    }

    /// The peer's leaf and issuers; judged during the handshake.
    pub(super) fn peer_certificates(&self) -> &[rustls_pki_types::CertificateDer<'static>] {
        self.connection.peer_certificates().unwrap_or_default()
    }
}

/// rustls' output, each call of it one `sendmsg`.
struct Gather<'a>(&'a Socket);

impl Write for Gather<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.send(&[IoSlice::new(octets)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.send(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Drives a handshake to its end. `plain` gets what the peer sent right behind it.
pub(super) async fn handshake(
    socket: &Socket,
    session: &mut Session,
    buffer: &mut ReadBuffer,
    plain: &mut BytesMut,
    epoll: bool,
) -> Result<(), HandshakeError> {
    for _ in 0..FLIGHTS_MAX {
        send_all(socket, session).await.map_err(HandshakeError::Io)?;
        if !session.connection.is_handshaking() {
            return match session.connection.alpn_protocol() {
                Some(ALPN_H2) => Ok(()),
                _ => Err(HandshakeError::Alpn),
            };
        }
        let (result, room) = socket.read(buffer.lend()).await;
        let ciphertext = buffer.restore(room);
        match result {
            Ok(0) => return Err(HandshakeError::Eof),
            Ok(_) => {}
            Err(error) => return Err(HandshakeError::Io(error)),
        }
        if let Err(error) = session.open(&ciphertext, plain) {
            if owes_alert(&error) {
                let _ = send_all(socket, session).await;
            }
            return Err(HandshakeError::Tls(error));
        }
        if epoll {
            yield_now().await;
        }
    }
    Err(HandshakeError::Tls(rustls::Error::General("the handshake takes too long".to_owned())))
}

/// Go sends no alert to who does not speak TLS: a plaintext peer sees the end and nothing else
/// (`crypto/tls`, `RecordHeaderError`).
fn owes_alert(error: &rustls::Error) -> bool {
    !matches!(error, rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType))
}

async fn send_all(socket: &Socket, session: &mut Session) -> io::Result<()> {
    while !session.send(socket)? {
        socket.writable().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
