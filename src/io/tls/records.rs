//! The record layer of TLS 1.3 after the handshake (RFC 8446 §4.6, §5, §6).
//!
//! Owns both directions' keys, what was read and not yet opened, and the state of the connection's
//! end. rustls shook hands and keeps the secrets from which new keys are made.
//!
//! 1. Whatever is wrong with what the peer sends ends the connection, with the alert that the RFC
//!    wants; nothing is opened after that, nor after the peer's close_notify.
//! 2. After an alert of ours, or a fatal one of the peer's, nothing is sealed any more (§6.2).
//! 3. Our keys are replaced long before they have sealed too much (§5.5).
//! 4. What costs us more than its octets is on a budget: records without content, key updates,
//!    tickets.
//! 5. Steady state allocates nothing; plaintext is lent from the buffer that was read into.
//!
//! Refuses to know sockets, and what the plaintext says.

use super::Fault;
use super::cipher::{ALERT, APPLICATION_DATA, CONTENT_MAX, Cipher, HANDSHAKE, HEADER_LEN};
use super::input::Input;
use bytes::{Buf, Bytes, BytesMut};
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{AlertDescription, Error, ExtractedSecrets};
use std::fmt;

/// Records that one key of ours seals; AES-GCM is sound up to 2^24.5 (§5.5).
const SEALED_BY_KEY_MAX: u64 = 1 << 22;

/// Records in a row without content, as rustls allows.
const EMPTY_MAX: u8 = 32;

/// Warnings that say nothing (`user_canceled`), as rustls allows.
const WARNINGS_MAX: u8 = 4;

/// What a message after the handshake costs of the budget, which octets of data fill again.
const MESSAGE_COST: usize = 16 << 10;
const BUDGET_MAX: usize = 32 * MESSAGE_COST;

/// Octets of a ticket, which may come in pieces; as many as rustls allows.
const TICKET_MAX: usize = 0xffff;

const MESSAGE_HEADER_LEN: usize = 4;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
const KEY_UPDATE_LEN: usize = 1;
const UPDATE_NOT_REQUESTED: u8 = 0;
const UPDATE_REQUESTED: u8 = 1;

const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// Keeps the secrets.
pub(super) enum Kernel {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

/// See the file's text.
pub(super) struct Records {
    kernel: Kernel,
    sealer: Cipher,
    opener: Cipher,
    input: Input,
    sending: Sending,
    receiving: Receiving,
    /// Of a handshake message, what came so far.
    message: Vec<u8>,
    /// Our answer to a key update waits to be sent: it answers those that come meanwhile, too.
    answering: bool,
    empty: u8,
    warnings: u8,
    budget: usize,
    sealed_by_key_max: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Open,
    /// We sent close_notify or a fatal alert, or the peer sent a fatal one.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiving {
    Open,
    /// The peer sent close_notify.
    Ended,
    /// The peer, or what came in its name, broke a rule; or it sent a fatal alert.
    Failed,
}

impl Records {
    pub(super) fn new(secrets: ExtractedSecrets, kernel: Kernel) -> Result<Self, Fault> {
        Ok(Self {
            kernel,
            sealer: Cipher::new(secrets.tx)?,
            opener: Cipher::new(secrets.rx)?,
            input: Input::default(),
            sending: Sending::Open,
            receiving: Receiving::Open,
            message: Vec::new(),
            answering: false,
            empty: 0,
            warnings: 0,
            budget: BUDGET_MAX,
            sealed_by_key_max: SEALED_BY_KEY_MAX,
        })
    }

    /// Takes what was read; to be opened until there is no more.
    pub(super) fn push(&mut self, octets: BytesMut) {
        if self.receiving == Receiving::Open {
            self.input.push(octets);
        }
    }

    /// The next plaintext. Records that answer what was read are appended to `owed`.
    pub(super) fn open(&mut self, owed: &mut Vec<u8>) -> Result<Option<Bytes>, Fault> {
        let outcome = self.open_data(owed);
        if let Err(fault) = &outcome {
            self.receiving = Receiving::Failed;
            match fault {
                // Without an alert the peer sees the end all the same.
                Fault::Local(alert) => drop(self.send_alert(FATAL, *alert, owed)),
                Fault::Remote(_) | Fault::Rustls(_) => self.sending = Sending::Closed,
            }
        }
        if self.receiving != Receiving::Open {
            // What follows the end is ignored (§6.1).
            self.input = Input::default();
            self.message = Vec::new();
        }
        outcome
    }

    pub(super) fn is_closed_by_peer(&self) -> bool {
        self.receiving == Receiving::Ended
    }

    /// All that was owed is sent.
    pub(super) fn settled(&mut self) {
        self.answering = false;
    }

    /// Seals all of it into `out`, in full records but for the last. COPY: each octet once, into
    /// the record in which it is sealed.
    pub(super) fn seal<'a>(
        &mut self,
        slices: impl Iterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        if self.sending == Sending::Closed {
            return Ok(());
        }
        let (mut start, mut room) = (out.len(), 0);
        for mut slice in slices {
            while !slice.is_empty() {
                if room == 0 {
                    self.end_record(out, start)?;
                    self.refresh(out)?;
                    start = out.len();
                    out.extend_from_slice(&[0; HEADER_LEN]);
                    room = CONTENT_MAX;
                }
                let (now, later) = slice.split_at(slice.len().min(room));
                out.extend_from_slice(now);
                room -= now.len();
                slice = later;
            }
        }
        self.end_record(out, start)
    }

    /// Appends close_notify, if nothing ended this direction before.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        self.send_alert(WARNING, AlertDescription::CloseNotify, out)
    }

    fn end_record(&mut self, out: &mut Vec<u8>, start: usize) -> Result<(), Fault> {
        if out.len() == start {
            return Ok(());
        }
        self.sealer.seal(APPLICATION_DATA, out, start)
    }

    /// A record of one short message.
    fn seal_short(&mut self, kind: u8, content: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_LEN]);
        out.extend_from_slice(content);
        self.sealer.seal(kind, out, start)
    }

    fn send_alert(
        &mut self,
        level: u8,
        alert: AlertDescription,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        if self.sending == Sending::Closed {
            return Ok(());
        }
        self.sending = Sending::Closed;
        self.seal_short(ALERT, &[level, alert.into()], out)
    }

    /// New keys before the old ones have sealed too much; the peer is asked to do the same.
    fn refresh(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        if self.sealer.used() < self.sealed_by_key_max {
            return Ok(());
        }
        self.update_sealer(UPDATE_REQUESTED, out)
    }

    fn update_sealer(&mut self, request: u8, out: &mut Vec<u8>) -> Result<(), Fault> {
        self.seal_short(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, request], out)?;
        self.sealer = self.kernel.next_sealer()?;
        Ok(())
    }

    fn open_data(&mut self, owed: &mut Vec<u8>) -> Result<Option<Bytes>, Fault> {
        while self.receiving == Receiving::Open {
            let Some(mut record) = self.input.next_record()? else {
                break;
            };
            let (kind, len) = self.opener.open(&mut record)?;
            record.advance(HEADER_LEN);
            record.truncate(len);
            if !self.message.is_empty() && kind != HANDSHAKE {
                return Err(unexpected());
            }
            match kind {
                APPLICATION_DATA if record.is_empty() => {
                    self.empty += 1;
                    if self.empty > EMPTY_MAX {
                        return Err(unexpected());
                    }
                }
                APPLICATION_DATA => {
                    self.empty = 0;
                    self.budget = BUDGET_MAX.min(self.budget + len);
                    return Ok(Some(record.freeze()));
                }
                ALERT => self.recv_alert(&record)?,
                HANDSHAKE => self.recv_handshake(&record, owed)?,
                _ => return Err(unexpected()),
            }
        }
        Ok(None)
    }

    /// §6: in TLS 1.3 the level says nothing, but that nobody should give another.
    fn recv_alert(&mut self, content: &[u8]) -> Result<(), Fault> {
        let (level, alert) = match *content {
            [level @ (WARNING | FATAL), alert] => (level, AlertDescription::from(alert)),
            [] => return Err(unexpected()),
            [_, _] => return Err(Fault::Local(AlertDescription::IllegalParameter)),
            _ => return Err(Fault::Local(AlertDescription::DecodeError)),
        };
        match alert {
            AlertDescription::CloseNotify => self.receiving = Receiving::Ended,
            AlertDescription::UserCanceled if level == WARNING => {
                self.warnings += 1;
                if self.warnings > WARNINGS_MAX {
                    return Err(unexpected());
                }
            }
            _ => return Err(Fault::Remote(alert)),
        }
        Ok(())
    }

    /// Messages may share records and straddle them (§5.1).
    fn recv_handshake(&mut self, content: &[u8], owed: &mut Vec<u8>) -> Result<(), Fault> {
        if content.is_empty() {
            return Err(unexpected());
        }
        self.message.extend_from_slice(content);
        while let Some((kind, end)) = self.next_message()? {
            self.budget = self.budget.checked_sub(MESSAGE_COST).ok_or_else(unexpected)?;
            // Keys change where a record ends (§5.1).
            if kind == KEY_UPDATE && self.message.len() != end {
                return Err(unexpected());
            }
            match (kind, self.message.get(MESSAGE_HEADER_LEN..end)) {
                (KEY_UPDATE, Some(&[request])) => self.recv_key_update(request, owed)?,
                (NEW_SESSION_TICKET, Some(body)) => self.kernel.recv_ticket(body)?,
                _ => return Err(unexpected()),
            }
            self.message.drain(..end);
        }
        if self.message.is_empty() {
            // The next one is far away.
            self.message = Vec::new();
        }
        Ok(())
    }

    /// The kind of the first message and its end, when it is complete. What it must not be is
    /// seen before it is gathered.
    fn next_message(&self) -> Result<Option<(u8, usize)>, Fault> {
        let len_max = match (self.message.first(), &self.kernel) {
            (None, _) => return Ok(None),
            (Some(&KEY_UPDATE), _) => KEY_UPDATE_LEN,
            (Some(&NEW_SESSION_TICKET), Kernel::Client(_)) => TICKET_MAX,
            (Some(_), _) => return Err(unexpected()),
        };
        let Some(&[kind, high, middle, low]) = self.message.first_chunk::<MESSAGE_HEADER_LEN>()
        else {
            return Ok(None);
        };
        let len = u32::from_be_bytes([0, high, middle, low]) as usize;
        if len > len_max || (kind == KEY_UPDATE && len != KEY_UPDATE_LEN) {
            return Err(Fault::Local(AlertDescription::DecodeError));
        }
        let end = MESSAGE_HEADER_LEN + len;
        Ok((end <= self.message.len()).then_some((kind, end)))
    }

    /// The peer seals by new keys from now on; when it asks us to, so do we (§4.6.3).
    fn recv_key_update(&mut self, request: u8, owed: &mut Vec<u8>) -> Result<(), Fault> {
        let asked = match request {
            UPDATE_NOT_REQUESTED => false,
            UPDATE_REQUESTED => true,
            _ => return Err(Fault::Local(AlertDescription::IllegalParameter)),
        };
        self.opener = self.kernel.next_opener()?;
        // The peer may wait for an answer to its last request, even while we have no data; one
        // that is not yet sent is still to come, and enough for all.
        if asked && !self.answering && self.sending == Sending::Open {
            self.answering = true;
            self.update_sealer(UPDATE_NOT_REQUESTED, owed)?;
        }
        Ok(())
    }
}

impl Kernel {
    fn next_sealer(&mut self) -> Result<Cipher, Fault> {
        let secrets = match self {
            Self::Client(kernel) => kernel.update_tx_secret(),
            Self::Server(kernel) => kernel.update_tx_secret(),
        };
        Cipher::new(secrets.map_err(blame)?)
    }

    fn next_opener(&mut self) -> Result<Cipher, Fault> {
        let secrets = match self {
            Self::Client(kernel) => kernel.update_rx_secret(),
            Self::Server(kernel) => kernel.update_rx_secret(),
        };
        Cipher::new(secrets.map_err(blame)?)
    }

    /// rustls judges its form, and keeps it or not, as it is configured.
    fn recv_ticket(&mut self, body: &[u8]) -> Result<(), Fault> {
        match self {
            Self::Client(kernel) => kernel.handle_new_session_ticket(body).map_err(blame),
            Self::Server(_) => Err(unexpected()),
        }
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sending, receiving, .. } = self;
        f.debug_struct("Records")
            .field("sending", sending)
            .field("receiving", receiving)
            .finish_non_exhaustive()
    }
}

fn unexpected() -> Fault {
    Fault::Local(AlertDescription::UnexpectedMessage)
}

/// The alert that rustls would send.
fn blame(error: Error) -> Fault {
    Fault::Local(match error {
        Error::InvalidMessage(message) => message.into(),
        Error::PeerMisbehaved(_) => AlertDescription::IllegalParameter,
        _ => AlertDescription::InternalError,
    })
}

#[cfg(test)]
mod tests;
