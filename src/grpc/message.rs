//! Length-prefixed messages, counted as they pass and never put together.
//!
//! 1. Five octets of prefix (flag, big-endian length), then that many octets of message.
//! 2. Pieces may be cut anywhere; the scanner keeps at most the prefix.

/// Follows one direction of one call.
#[derive(Clone, Copy, Debug, Default)]
pub struct MessageScanner {
    /// Octets of the current message still to come.
    left: u32,
    prefix: [u8; PREFIX],
    /// Octets of `prefix` that are in; [`NONE`] of what holds no messages.
    have: u8,
    /// Messages that have begun.
    messages: u32,
}

const PREFIX: usize = 5;
const NONE: u8 = u8::MAX;

/// A message larger than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    pub len: u32,
    /// Octets of the piece that belong to messages before it.
    pub before: usize,
}

impl MessageScanner {
    /// Of octets that are no gRPC messages: nothing is counted.
    pub fn of_none() -> Self {
        Self { have: NONE, ..Self::default() }
    }

    /// Walks a piece; the error is the first message larger than `max`.
    pub fn scan(&mut self, mut piece: &[u8], max: u64) -> Result<(), TooLarge> {
        let octets = piece.len();
        while !piece.is_empty() {
            if self.left > 0 {
                let step = piece.len().min(self.left as usize);
                self.left -= step as u32;
                piece = &piece[step..];
                continue;
            }
            let prefix = match piece.split_first_chunk() {
                // Prefixes are seldom cut.
                Some((prefix, rest)) if self.have == 0 => {
                    piece = rest;
                    *prefix
                }
                Some(_) | None => match self.collect(&mut piece) {
                    Some(prefix) => prefix,
                    None => return Ok(()),
                },
            };
            let [_, a, b, c, d] = prefix;
            self.left = u32::from_be_bytes([a, b, c, d]);
            self.messages = self.messages.saturating_add(1);
            if u64::from(self.left) > max {
                // The prefix may have begun in an earlier piece.
                let before = (octets - piece.len()).saturating_sub(PREFIX);
                return Err(TooLarge { len: self.left, before });
            }
        }
        Ok(())
    }

    /// Messages whose prefix has come.
    pub fn messages(&self) -> u32 {
        self.messages
    }

    /// Takes what is missing of the prefix; gives it when it is whole.
    #[cold]
    fn collect(&mut self, piece: &mut &[u8]) -> Option<[u8; PREFIX]> {
        if self.have == NONE {
            *piece = &[];
            return None;
        }
        let have = usize::from(self.have);
        let (missing, rest) = piece.split_at(piece.len().min(PREFIX - have));
        self.prefix[have..have + missing.len()].copy_from_slice(missing);
        self.have += missing.len() as u8;
        *piece = rest;
        if usize::from(self.have) < PREFIX {
            return None;
        }
        self.have = 0;
        Some(self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_nothing_where_there_are_no_messages() {
        let mut scanner = MessageScanner::of_none();
        for piece in [&b"a"[..], b"text of some length", b"", &[0xff; 100]] {
            assert_eq!(scanner.scan(piece, 0), Ok(()));
        }
    }

    #[test]
    fn counts_messages_cut_anywhere() {
        let stream = [&[0, 0, 0, 0, 3][..], b"abc", &[0, 0, 0, 0, 0], &[1, 0, 0, 0, 4], b"wxyz"];
        let stream = stream.concat();
        for size in 1..stream.len() {
            let mut scanner = MessageScanner::default();
            for piece in stream.chunks(size) {
                assert_eq!(scanner.scan(piece, 4), Ok(()));
            }
            assert_eq!(scanner.messages(), 3);
            let mut scanner = MessageScanner::default();
            let refused = stream.chunks(size).find_map(|piece| scanner.scan(piece, 3).err());
            assert_eq!(refused.map(|message| message.len), Some(4));
        }
        let mut scanner = MessageScanner::default();
        assert_eq!(scanner.scan(&stream, 3), Err(TooLarge { len: 4, before: 13 }));
        let mut scanner = MessageScanner::default();
        assert_eq!(scanner.scan(&stream[..15], 3), Ok(()));
        assert_eq!(scanner.scan(&stream[15..], 3), Err(TooLarge { len: 4, before: 0 }));
    }
}
