//! What was read of a TLS 1.3 connection, cut into records.
//!
//! 1. A record that was read as a whole is lent where it lies.
//! 2. COPY: a record that straddles reads is gathered, its octets once, in a buffer of its size:
//!    an idle connection holds less than one record and no read buffer.
//! 3. A header is judged as soon as it is there, before any memory is taken for what it announces.

use super::Fault;
use super::cipher::{HEADER_LEN, record_len};
use bytes::{Buf, BytesMut};

#[derive(Debug, Default)]
pub(super) struct Input {
    /// The beginning of a record, when the rest was not there.
    partial: BytesMut,
    /// Read, not yet cut.
    fresh: BytesMut,
}

impl Input {
    pub(super) fn push(&mut self, octets: BytesMut) {
        if self.fresh.is_empty() {
            self.fresh = octets;
        } else {
            // Who opens all that he pushed does not come here.
            self.fresh.unsplit(octets);
        }
    }

    /// The next record, when it is complete.
    pub(super) fn next_record(&mut self) -> Result<Option<BytesMut>, Fault> {
        if !self.partial.is_empty() {
            return self.complete();
        }
        match record_len(&self.fresh)? {
            // The last one takes the read buffer along, so that it is free when that is.
            Some(len) if len == self.fresh.len() => Ok(Some(std::mem::take(&mut self.fresh))),
            Some(len) if len < self.fresh.len() => Ok(Some(self.fresh.split_to(len))),
            len => {
                if !self.fresh.is_empty() {
                    self.partial.reserve(len.unwrap_or(HEADER_LEN));
                    self.gather(usize::MAX);
                }
                Ok(None)
            }
        }
    }

    fn complete(&mut self) -> Result<Option<BytesMut>, Fault> {
        self.gather(HEADER_LEN);
        let Some(len) = record_len(&self.partial)? else {
            return Ok(None);
        };
        self.partial.reserve(len.saturating_sub(self.partial.len()));
        self.gather(len);
        Ok((self.partial.len() == len).then(|| std::mem::take(&mut self.partial)))
    }

    /// Moves octets until `partial` has as many, or there are no more.
    fn gather(&mut self, len: usize) {
        let missing = len.saturating_sub(self.partial.len()).min(self.fresh.len());
        self.partial.extend_from_slice(&self.fresh[..missing]);
        self.fresh.advance(missing);
        if self.fresh.is_empty() {
            self.fresh = BytesMut::new();
        }
    }
}
