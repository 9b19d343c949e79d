//! Sessions of TLS 1.2, which rustls opens and seals: apps and sidecars that know no better.
//!
//! Refuses to be fast.

use super::Fault;
use super::cipher::CONTENT_MAX;
use super::driven::{Driven, Step, Wish};
use bytes::{Bytes, BytesMut};
use rustls::Error;

#[derive(Debug)]
pub(super) struct Legacy {
    driven: Driven,
    /// Read and not done with: less than a record, and a handshake message that it continues.
    incoming: Vec<u8>,
    /// How much of it is done with, until that is removed, at one go.
    done: usize,
    plain: BytesMut,
    ended: bool,
    failed: bool,
    /// Why it failed, until that is said.
    fault: Option<Fault>,
    closed: bool,
}

impl Legacy {
    pub(super) fn new(driven: Driven) -> Self {
        Self {
            driven,
            incoming: Vec::new(),
            done: 0,
            plain: BytesMut::new(),
            ended: false,
            failed: false,
            fault: None,
            closed: false,
        }
    }

    pub(super) fn push(&mut self, octets: &[u8]) {
        if !self.ended && !self.failed {
            self.incoming.extend_from_slice(octets);
        }
    }

    /// The plaintext of all that was pushed, once. What came before a fault counts: the fault is
    /// said at the next call.
    pub(super) fn open(&mut self, owed: &mut Vec<u8>) -> Result<Option<Bytes>, Fault> {
        while !self.ended && !self.failed {
            match self.step(Wish::Nothing, owed) {
                Ok(Step::Again | Step::Ended) => {}
                Ok(Step::Hungry | Step::Ready | Step::Closed) => break,
                Err(error) => {
                    (self.failed, self.fault) = (true, Some(Fault::Rustls(error)));
                    // The alert, if one is due; nothing else is ever looked at again.
                    while self.driven.state().wants_write()
                        && self.step(Wish::Nothing, owed).is_ok()
                    {}
                }
            }
        }
        self.incoming.drain(..self.done);
        self.done = 0;
        if !self.plain.is_empty() {
            return Ok(Some(self.plain.split().freeze()));
        }
        self.fault.take().map_or(Ok(None), Err)
    }

    pub(super) fn is_closed_by_peer(&self) -> bool {
        self.ended
    }

    /// COPY: each octet once for the record, once more by rustls.
    pub(super) fn seal<'a>(
        &mut self,
        slices: impl Iterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let mut content = Vec::new();
        for mut slice in slices {
            while !slice.is_empty() {
                let room = CONTENT_MAX - content.len();
                let (now, later) = slice.split_at(slice.len().min(room));
                content.extend_from_slice(now);
                slice = later;
                if content.len() == CONTENT_MAX {
                    self.fulfil(Some(&content), out)?;
                    content.clear();
                }
            }
        }
        if content.is_empty() { Ok(()) } else { self.fulfil(Some(&content), out) }
    }

    pub(super) fn close(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        self.fulfil(None, out)?;
        self.closed = true;
        Ok(())
    }

    /// Seals content, or close_notify.
    fn fulfil(&mut self, content: Option<&[u8]>, out: &mut Vec<u8>) -> Result<(), Fault> {
        while !self.failed && !self.closed {
            let wish = content.map_or(Wish::Close, Wish::Seal);
            match self.step(wish, out).map_err(Fault::Rustls)? {
                Step::Again | Step::Ended => {}
                Step::Ready | Step::Closed => break,
                Step::Hungry => {
                    let error = Error::General("nothing can be sealed".to_owned());
                    return Err(Fault::Rustls(error));
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, wish: Wish<'_>, out: &mut Vec<u8>) -> Result<Step, Error> {
        let incoming = self.incoming.get_mut(self.done..).unwrap_or_default();
        let (done, step) = self.driven.step(incoming, wish, out, &mut self.plain);
        self.done = self.incoming.len().min(self.done + done);
        if let Ok(Step::Ended) = step {
            self.ended = true;
            (self.incoming, self.done) = (Vec::new(), 0);
        }
        step
    }
}
