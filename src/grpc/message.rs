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
    /// Octets of `prefix` that are in.
    have: u8,
}

const PREFIX: usize = 5;

impl MessageScanner {
    /// Walks a piece; the error is the length of the first message larger than `max`.
    pub fn scan(&mut self, mut piece: &[u8], max: u64) -> Result<(), u32> {
        while !piece.is_empty() {
            if self.left > 0 {
                let step = piece.len().min(self.left as usize);
                self.left -= step as u32;
                piece = &piece[step..];
                continue;
            }
            let have = usize::from(self.have);
            let step = piece.len().min(PREFIX - have);
            self.prefix[have..have + step].copy_from_slice(&piece[..step]);
            self.have += step as u8;
            piece = &piece[step..];
            if usize::from(self.have) == PREFIX {
                let [_, a, b, c, d] = self.prefix;
                self.have = 0;
                self.left = u32::from_be_bytes([a, b, c, d]);
                if u64::from(self.left) > max {
                    return Err(self.left);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_messages_cut_anywhere() {
        let stream = [&[0, 0, 0, 0, 3][..], b"abc", &[0, 0, 0, 0, 0], &[1, 0, 0, 0, 4], b"wxyz"];
        let stream = stream.concat();
        for size in 1..stream.len() {
            let mut scanner = MessageScanner::default();
            for piece in stream.chunks(size) {
                assert_eq!(scanner.scan(piece, 4), Ok(()));
            }
            let mut scanner = MessageScanner::default();
            let refused = stream.chunks(size).find_map(|piece| scanner.scan(piece, 3).err());
            assert_eq!(refused, Some(4));
        }
    }
}
