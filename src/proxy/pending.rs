//! What a call holds while it waits for a connection: its request.
//!
//! 1. Pieces stay in order, and large ones are kept by reference: the stream's window bounds them.
//! 2. Small ones are put together: each would keep a read buffer alive in which others' octets
//!    came, many times its size, for as long as the call waits.

use crate::http2::FieldSection;
use bytes::Bytes;

/// A smaller piece is copied.
const COPIED_BELOW: usize = 2 << 10;
/// What small pieces are put together into.
const GATHERED_MAX: usize = 16 << 10;

/// What a call holds while it waits.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) fields: FieldSection,
    /// What they took out of `PARKED_OCTETS_MAX`.
    pub(super) octets: usize,
    /// Request DATA; bounded by the stream's window.
    pub(super) pending: Pending,
}

/// Request DATA; see the file's text.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pieces: Vec<Bytes>,
    /// Small pieces, behind all others.
    small: Vec<u8>,
}

impl Pending {
    pub(super) fn push(&mut self, data: Bytes) {
        if data.len() >= COPIED_BELOW {
            self.seal();
            return self.pieces.push(data);
        }
        if data.is_empty() && self.pieces.is_empty() && self.small.is_empty() {
            // The end of a request without messages is said apart from its head, and so it goes.
            return self.pieces.push(data);
        }
        if self.small.len() + data.len() > GATHERED_MAX {
            self.seal();
        }
        // COPY: below `COPIED_BELOW`, once.
        self.small.extend_from_slice(&data);
    }

    pub(super) fn into_pieces(mut self) -> Vec<Bytes> {
        self.seal();
        self.pieces
    }

    fn seal(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push(std::mem::take(&mut self.small).into());
        }
    }
}

/// What is sent again, and has been put together before.
impl From<Vec<Bytes>> for Pending {
    fn from(pieces: Vec<Bytes>) -> Self {
        Self { pieces, small: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_stay_in_order_and_are_few() {
        let small: Vec<u8> = (0..=255).collect();
        let large = Bytes::from(vec![7; COPIED_BELOW]);
        let (mut pending, mut all) = (Pending::default(), Vec::new());
        for n in 0..1000 {
            let piece = if n % 100 == 99 { large.clone() } else { Bytes::from(small.clone()) };
            all.extend_from_slice(&piece);
            pending.push(piece);
        }
        let pieces = pending.into_pieces();
        assert_eq!(pieces.concat(), all);
        assert!(pieces.len() <= 10 * (1 + 99 * 256 / (GATHERED_MAX - 256) + 1), "{}", pieces.len());
        assert!(pieces.iter().any(|piece| piece.as_ptr() == large.as_ptr()));
    }

    #[test]
    fn an_end_without_octets_is_a_piece_of_its_own_if_there_is_no_other() {
        let mut alone = Pending::default();
        alone.push(Bytes::new());
        assert_eq!(alone.into_pieces(), [Bytes::new()]);
        let mut behind = Pending::default();
        behind.push(Bytes::from_static(b"x"));
        behind.push(Bytes::new());
        assert_eq!(behind.into_pieces(), [Bytes::from_static(b"x")]);
    }
}
