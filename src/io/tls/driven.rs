//! rustls' connections, whose buffers are ours: one step at a time.
//!
//! They shake hands for every connection, and open and seal for those that negotiated TLS 1.2.
//!
//! Refuses to know when a step is due.

use super::records::{Kernel, Records};
use bytes::BytesMut;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error};
use std::fmt;

/// A connection of either side.
pub(super) enum Driven {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Something happened; there may be more.
    Again,
    /// Nothing to do until more is read.
    Hungry,
    /// As [`Self::Hungry`], and data can be sealed.
    Ready,
    /// The peer sent close_notify; said once.
    Ended,
    /// Both did.
    Closed,
}

/// What is done with data while [`Step::Ready`].
pub(super) enum Wish<'a> {
    Nothing,
    Seal(&'a [u8]),
    Close,
}

impl Driven {
    /// Works on `incoming`: how many octets of it are done with, and what came of it. What the
    /// peer is to get is appended to `out`, what it sent to `plain`.
    pub(super) fn step(
        &mut self,
        incoming: &mut [u8],
        wish: Wish<'_>,
        out: &mut Vec<u8>,
        plain: &mut BytesMut,
    ) -> (usize, Result<Step, Error>) {
        match self {
            Self::Client(connection) => {
                settle(connection.process_tls_records(incoming), wish, out, plain)
            }
            Self::Server(connection) => {
                settle(connection.process_tls_records(incoming), wish, out, plain)
            }
        }
    }

    /// What was shaken hands for in TLS 1.3, with all that was sealed so far sent.
    pub(super) fn into_records(self) -> Result<Records, Error> {
        let (secrets, kernel) = match self {
            Self::Client(connection) => {
                let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
                (secrets, Kernel::Client(kernel))
            }
            Self::Server(connection) => {
                let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
                (secrets, Kernel::Server(kernel))
            }
        };
        Records::new(secrets, kernel).map_err(|_| Error::General("not a suite of ours".to_owned()))
    }

    pub(super) fn state(&self) -> &CommonState {
        match self {
            Self::Client(connection) => connection,
            Self::Server(connection) => connection,
        }
    }
}

impl fmt::Debug for Driven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client(_) => "Client",
            Self::Server(_) => "Server",
        })
    }
}

fn settle<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    wish: Wish<'_>,
    out: &mut Vec<u8>,
    plain: &mut BytesMut,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            append(out, |room| data.encode(room).map_err(unencoded)).map(|()| Step::Again)
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::ReadTraffic(mut data)) => loop {
            match data.next_record() {
                Some(Ok(record)) => {
                    // COPY: each octet once, out of rustls' buffer.
                    plain.extend_from_slice(record.payload);
                    discard += record.discard;
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Step::Again),
            }
        },
        Ok(ConnectionState::WriteTraffic(data)) => fulfil(data, wish, out).map(|()| Step::Ready),
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Hungry),
        Ok(ConnectionState::PeerClosed) => Ok(Step::Ended),
        Ok(ConnectionState::Closed) => Ok(Step::Closed),
        Ok(_) => Err(Error::General("not a state of ours".to_owned())),
        Err(error) => Err(error),
    };
    (discard, step)
}

fn fulfil<Data>(
    mut data: WriteTraffic<'_, Data>,
    wish: Wish<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    match wish {
        Wish::Nothing => Ok(()),
        Wish::Seal(content) => append(out, |room| data.encrypt(content, room).map_err(unencrypted)),
        Wish::Close => append(out, |room| data.queue_close_notify(room).map_err(unencrypted)),
    }
}

/// Calls `encode` for the size, then with room of that size. An error is the size, if it is known.
fn append(
    out: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> Result<(), Error> {
    let failed = || Error::General("rustls does not say how much room it needs".to_owned());
    let size = match encode(&mut []) {
        Ok(_) => return Ok(()),
        Err(size) => size.ok_or_else(failed)?,
    };
    let start = out.len();
    out.resize(start + size, 0);
    let used = encode(&mut out[start..]).map_err(|_| failed())?;
    out.truncate(start + used);
    Ok(())
}

fn unencoded(error: EncodeError) -> Option<usize> {
    match error {
        EncodeError::InsufficientSize(size) => Some(size.required_size),
        EncodeError::AlreadyEncoded => None,
    }
}

fn unencrypted(error: EncryptError) -> Option<usize> {
    match error {
        EncryptError::InsufficientSize(size) => Some(size.required_size),
        EncryptError::EncryptExhausted => None,
    }
}
