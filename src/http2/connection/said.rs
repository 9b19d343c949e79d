//! What we ended and why: RST_STREAM and GOAWAY frames that were queued, by error code.
//!
//! Bounded, and nothing as long as nothing was ended.

use super::Connection;
use crate::http2::StreamId;
use crate::http2::error::ErrorCode;
use crate::http2::frame;

/// Those of RFC 9113 §7, and one for all others.
const CODES: usize = ErrorCode::HTTP_1_1_REQUIRED.0 as usize + 2;

/// How often each was said.
#[derive(Debug, Default)]
pub struct Said {
    resets: [u32; CODES],
    goaways: [u32; CODES],
}

impl Said {
    /// Whether it was a GOAWAY, its code, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (bool, ErrorCode, u32)> + '_ {
        let all = [(false, &self.resets), (true, &self.goaways)];
        let all = all.into_iter().flat_map(|(of_connection, counts)| {
            (0..).zip(counts).map(move |(code, &count)| (of_connection, ErrorCode(code), count))
        });
        all.filter(|(_, _, count)| *count > 0)
    }
}

fn count(counts: &mut [u32; CODES], code: ErrorCode) {
    let place = (code.0 as usize).min(CODES - 1);
    counts[place] = counts[place].saturating_add(1);
}

impl Connection {
    /// What was ended since this was last asked, if anything was.
    #[inline]
    pub fn take_said(&mut self) -> Option<Box<Said>> {
        self.said.take()
    }

    pub(super) fn say_reset(&mut self, id: StreamId, code: ErrorCode) {
        frame::write_rst_stream(self.outbox.control(), id, code);
        count(&mut self.said.get_or_insert_default().resets, code);
    }

    pub(super) fn say_goaway(&mut self, last: StreamId, code: ErrorCode, debug: &'static str) {
        frame::write_goaway(self.outbox.control(), last, code, debug);
        count(&mut self.said.get_or_insert_default().goaways, code);
    }
}
