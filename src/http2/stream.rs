//! One stream (RFC 9113 §5.1): its two halves, its windows, its place in the outbox.
//!
//! A stream here is client-initiated and never idle or closed: those have no [`Stream`]. What is
//! left of the RFC's diagram is the product of two halves:
//!
//! ```text
//!             recv not ended          recv ended
//! send not ended   open          half-closed (remote)
//! send ended    half-closed (local)     closed
//! ```
//!
//! 1. A half only moves forward: `Head`, `Body`, ended.
//! 2. `Discarded` is how the owner takes leave while its own last words are still queued, or its
//!    reset has to wait: RST follows them (§8.1), unless the peer ends first.
//! 3. Send octets are queued only in `Body` and in the `..Queued` states.
//!
//! Refuses to know frames, the table and other streams.

use super::error::{ErrorCode, StreamError};
use super::field::FieldSection;
use super::outbox::{Link, Queue};
use super::window::{SendWindow, StreamWindow};
use super::{NO_TAG, StreamId, Tag};

/// What we expect from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvHalf {
    /// Client role: the final response head has not come.
    Head,
    /// DATA or trailers.
    Body,
    Ended,
    /// Nobody listens any more; RST_STREAM with this code when the send half has ended, or sooner
    /// when the owner says so.
    Discarded(ErrorCode),
}

/// What the owner has said.
#[derive(Debug)]
pub enum SendHalf {
    /// Server role: the final response head is still to be sent.
    Head,
    Body,
    /// DATA is queued and END_STREAM goes with the last of it.
    EndQueued,
    /// DATA is queued and these go behind it, with END_STREAM.
    TrailersQueued(FieldSection),
    Ended,
}

/// What `content-length` leaves to come (RFC 9113 §8.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentLeft {
    Unsaid,
    Octets(u64),
    /// Client role: the request was HEAD, so that the response's length means nothing.
    Ignored,
}

/// See the file's text.
#[derive(Debug)]
pub struct Stream {
    pub id: StreamId,
    pub tag: Tag,
    /// The read that brought it, as [`super::connection`] counts them.
    pub born: u32,
    pub recv: RecvHalf,
    pub send: SendHalf,
    pub send_window: SendWindow,
    pub recv_window: StreamWindow,
    pub content_left: ContentLeft,
    pub queue: Queue,
    pub link: Option<Link>,
}

impl Stream {
    #[inline]
    pub fn new(
        id: StreamId,
        recv: RecvHalf,
        send: SendHalf,
        send_window: u32,
        recv_window: u32,
    ) -> Self {
        Self {
            id,
            tag: NO_TAG,
            born: 0,
            recv,
            send,
            send_window: SendWindow::new(send_window),
            recv_window: StreamWindow::new(recv_window),
            content_left: ContentLeft::Unsaid,
            queue: Queue::default(),
            link: None,
        }
    }

    /// The peer may still send, to somebody who listens.
    pub fn is_receiving(&self) -> bool {
        match self.recv {
            RecvHalf::Head | RecvHalf::Body => true,
            RecvHalf::Ended | RecvHalf::Discarded(_) => false,
        }
    }

    /// The owner has taken leave.
    pub fn is_discarded(&self) -> bool {
        matches!(self.recv, RecvHalf::Discarded(_))
    }

    /// The owner has said its last.
    pub fn is_end_queued(&self) -> bool {
        match self.send {
            SendHalf::EndQueued | SendHalf::TrailersQueued(_) => true,
            SendHalf::Head | SendHalf::Body | SendHalf::Ended => false,
        }
    }

    /// What trailers hold that wait behind DATA.
    pub fn trailers_octets(&self) -> usize {
        match &self.send {
            SendHalf::TrailersQueued(fields) => fields.octets(),
            SendHalf::Head | SendHalf::Body | SendHalf::EndQueued | SendHalf::Ended => 0,
        }
    }

    pub fn is_closed(&self) -> bool {
        matches!((self.recv, &self.send), (RecvHalf::Ended, SendHalf::Ended))
    }

    /// There is something that its window lets go.
    pub fn is_sendable(&self) -> bool {
        !self.queue.is_empty() && self.send_window.available() > 0
    }

    /// Data octets of one DATA frame.
    pub fn count_content(&mut self, octets: u32) -> Result<(), StreamError> {
        match &mut self.content_left {
            ContentLeft::Unsaid | ContentLeft::Ignored => Ok(()),
            ContentLeft::Octets(left) => {
                *left = left
                    .checked_sub(u64::from(octets))
                    .ok_or(StreamError::protocol("more DATA than content-length"))?;
                Ok(())
            }
        }
    }

    /// END_STREAM came.
    pub fn recv_end(&mut self) -> Result<(), StreamError> {
        debug_assert_ne!(self.recv, RecvHalf::Ended);
        let listens = self.is_receiving();
        self.recv = RecvHalf::Ended;
        match self.content_left {
            ContentLeft::Octets(1..) if listens => {
                Err(StreamError::protocol("less DATA than content-length"))
            }
            ContentLeft::Octets(_) | ContentLeft::Unsaid | ContentLeft::Ignored => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(recv: RecvHalf, send: SendHalf) -> Stream {
        Stream::new(StreamId(1), recv, send, 10, 10)
    }

    #[test]
    fn closes_when_both_halves_have_ended() {
        let mut stream = stream(RecvHalf::Body, SendHalf::Head);
        assert!(stream.is_receiving() && !stream.is_closed());
        stream.recv_end().unwrap();
        assert!(!stream.is_receiving() && !stream.is_closed());
        stream.send = SendHalf::EndQueued;
        assert!(stream.is_end_queued() && !stream.is_closed());
        stream.send = SendHalf::Ended;
        assert!(stream.is_closed());
    }

    #[test]
    fn content_length_must_be_met_exactly() {
        let mut short = stream(RecvHalf::Body, SendHalf::Head);
        short.content_left = ContentLeft::Octets(5);
        short.count_content(4).unwrap();
        assert_eq!(short.recv_end().unwrap_err().code, ErrorCode::PROTOCOL_ERROR);
        let mut long = stream(RecvHalf::Body, SendHalf::Head);
        long.content_left = ContentLeft::Octets(5);
        long.count_content(5).unwrap();
        assert!(long.count_content(1).is_err());
        let mut head = stream(RecvHalf::Body, SendHalf::Ended);
        head.content_left = ContentLeft::Ignored;
        assert!(head.recv_end().is_ok());
    }

    #[test]
    fn small() {
        assert!(size_of::<Stream>() <= 192, "{}", size_of::<Stream>());
    }
}
