//! The buffer into which one connection reads.
//!
//! 1. What was read is handed out as a slice of the buffer; nothing is copied. The allocation is
//!    used again when all its slices are gone.
//! 2. A read is offered between [`READ_OCTETS_MIN`] / 2 and [`READ_OCTETS_MAX`] octets: a waiting
//!    connection holds little. Who fills the largest room has more to say: it is read at once,
//!    into an [`Ample`] room that a worker has for all its connections.
//!
//! Knows nothing of what the bytes are.

use super::sys::Socket;
use bytes::BytesMut;
use std::io;

/// What an idle connection holds.
pub(super) const READ_OCTETS_MIN: usize = 2 << 10;

/// What a busy connection holds while it waits.
pub(super) const READ_OCTETS_MAX: usize = 16 << 10;

/// Beyond 64 KiB a larger read gains nothing measurable, and a slice keeps all of its room alive.
pub(super) const AMPLE_OCTETS: usize = 64 << 10;

/// Small reads in a row after which the buffer shrinks.
const SMALL_READS: u8 = 16;

#[derive(Debug)]
pub(super) struct ReadBuffer {
    buffer: BytesMut,
    wanted: usize,
    small_reads: u8,
}

impl ReadBuffer {
    pub(super) fn new() -> Self {
        Self { buffer: BytesMut::new(), wanted: READ_OCTETS_MIN, small_reads: 0 }
    }

    /// The spare room, for a read.
    pub(super) fn lend(&mut self) -> BytesMut {
        debug_assert!(self.buffer.is_empty());
        if self.buffer.capacity() < self.wanted / 2 {
            self.buffer.reserve(self.wanted);
        }
        std::mem::take(&mut self.buffer)
    }

    /// The last read filled the largest room: the peer has more to say.
    pub(super) fn wants_more(&self) -> bool {
        self.wanted == READ_OCTETS_MAX && self.buffer.capacity() == 0
    }

    /// The room comes back, filled: what was read.
    pub(super) fn restore(&mut self, mut buffer: BytesMut) -> BytesMut {
        let octets = buffer.len();
        let read = buffer.split();
        self.buffer = buffer;
        self.adapt(octets);
        read
    }

    fn adapt(&mut self, octets: usize) {
        if octets >= self.wanted / 2 {
            self.wanted = (self.wanted * 2).min(READ_OCTETS_MAX);
            self.small_reads = 0;
        } else if octets < self.wanted / 8 && self.wanted > READ_OCTETS_MIN {
            self.small_reads += 1;
            if self.small_reads == SMALL_READS {
                self.wanted /= 2;
                self.small_reads = 0;
                // The large room would otherwise stay until it is used up.
                self.buffer = BytesMut::new();
            }
        } else {
            self.small_reads = 0;
        }
    }
}

/// Room for what is known to be there.
#[derive(Debug, Default)]
pub(super) struct Ample(BytesMut);

impl Ample {
    /// What the socket has, without waiting, and whether that filled the room. No octets: the end.
    pub(super) fn read(&mut self, socket: &Socket) -> io::Result<(BytesMut, bool)> {
        if self.0.capacity() < AMPLE_OCTETS / 2 {
            self.0.reserve(AMPLE_OCTETS);
        }
        socket.recv(&mut self.0)?;
        let filled = self.0.len() == self.0.capacity();
        Ok((self.0.split(), filled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(buffer: &mut ReadBuffer, octets: usize) -> BytesMut {
        let mut room = buffer.lend();
        assert!(room.capacity() >= READ_OCTETS_MIN / 2);
        let octets = octets.min(room.capacity());
        room.extend_from_slice(&vec![7; octets]);
        buffer.restore(room)
    }

    #[test]
    fn grows_and_shrinks() {
        let mut buffer = ReadBuffer::new();
        for _ in 0..20 {
            read(&mut buffer, usize::MAX);
        }
        assert_eq!(buffer.wanted, READ_OCTETS_MAX);
        for _ in 0..16 * 8 {
            read(&mut buffer, 10);
        }
        assert_eq!(buffer.wanted, READ_OCTETS_MIN);
        assert!(buffer.lend().capacity() <= 2 * READ_OCTETS_MIN);
    }

    #[test]
    fn uses_the_allocation_again() {
        let mut buffer = ReadBuffer::new();
        let start = read(&mut buffer, 200).as_ptr() as usize;
        for _ in 0..100 {
            let at = read(&mut buffer, 200).as_ptr() as usize;
            assert!((start..start + READ_OCTETS_MIN).contains(&at));
        }
    }
}
