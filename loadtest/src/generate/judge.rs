//! Checks one response's messages against what the plan expects, as they come in.
//!
//! 1. Nothing is kept or copied; the first fault ends it.
//!
//! Refuses to know HTTP/2 and statuses.

use crate::framing::{Deframer, Piece};
use crate::plan::{Expect, Plan, Shape};

pub(super) struct Judge<'a> {
    plan: &'a Plan,
    deframer: Deframer,
    /// Into the message under way.
    offset: usize,
    pub(super) messages: u64,
    /// Of messages, without prefixes.
    pub(super) octets: u64,
}

impl<'a> Judge<'a> {
    pub(super) fn new(plan: &'a Plan) -> Self {
        Self { plan, deframer: Deframer::default(), offset: 0, messages: 0, octets: 0 }
    }

    pub(super) fn plan(&self) -> &'a Plan {
        self.plan
    }

    pub(super) fn feed(&mut self, mut data: &[u8]) -> Result<(), String> {
        loop {
            match self.deframer.next(&mut data).map_err(|fault| format!("received {fault}"))? {
                None => return Ok(()),
                Some(Piece::Begins(octets)) => self.begin(octets)?,
                Some(Piece::Body(body)) => self.body(body)?,
                Some(Piece::Ends) => self.messages += 1,
            }
        }
    }

    /// The response has ended with status OK.
    pub(super) fn end(&self, messages_sent: u64) -> Result<(), String> {
        if !self.deframer.at_boundary() {
            return Err("the response ends amid a message".to_owned());
        }
        let expected = match (self.plan.shape, &self.plan.expect) {
            (_, Expect::Messages { count, .. }) => *count,
            (Shape::Unary | Shape::ClientStream { .. }, _) => 1,
            (Shape::PingPong { .. }, _) => messages_sent,
            (Shape::ServerStream, _) => return Ok(()),
        };
        if self.messages != expected {
            let messages = self.messages;
            return Err(format!("the response has {messages} messages in place of {expected}"));
        }
        Ok(())
    }

    fn body_expected(&self) -> Option<&'a [u8]> {
        match &self.plan.expect {
            Expect::Echo => Some(&self.plan.request),
            Expect::Each(message) => Some(message),
            Expect::Anything | Expect::Messages { .. } => None,
        }
    }

    fn begin(&mut self, octets: usize) -> Result<(), String> {
        self.offset = 0;
        self.octets += octets as u64;
        let expected = match &self.plan.expect {
            Expect::Messages { octets, .. } => Some(*octets),
            Expect::Anything | Expect::Echo | Expect::Each(_) => {
                self.body_expected().map(<[u8]>::len)
            }
        };
        match expected {
            Some(expected) if expected != octets => {
                Err(format!("received a message of {octets} octets in place of {expected}"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn body(&mut self, body: &[u8]) -> Result<(), String> {
        let end = self.offset + body.len();
        if let Some(expected) = self.body_expected() {
            // The length was right, so the range is there; a wrong one is a fault all the same.
            if expected.get(self.offset..end) != Some(body) {
                return Err("received a message with other octets than expected".to_owned());
            }
        }
        self.offset = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::frame;
    use crate::generate::slot::tests::plan;
    use bytes::Bytes;

    fn judged(shape: Shape, expect: Expect, wire: &[u8], sent: u64) -> Result<(), String> {
        let plan = Plan { shape, expect, request: Bytes::from_static(b"hello"), ..plan() };
        for cut in 0..=wire.len() {
            let mut whole = Judge::new(&plan);
            let (a, b) = wire.split_at(cut);
            let verdict = whole.feed(a).and_then(|()| whole.feed(b)).and_then(|()| whole.end(sent));
            if cut == wire.len() || verdict.is_err() {
                return verdict;
            }
        }
        Ok(())
    }

    #[test]
    fn an_echo_is_the_request() {
        let ok = judged(Shape::Unary, Expect::Echo, &frame(b"hello"), 1);
        assert_eq!(ok, Ok(()));
        let wrong = judged(Shape::Unary, Expect::Echo, &frame(b"hellO"), 1);
        assert_eq!(wrong.unwrap_err(), "received a message with other octets than expected");
        let short = judged(Shape::Unary, Expect::Echo, &frame(b"hell"), 1);
        assert_eq!(short.unwrap_err(), "received a message of 4 octets in place of 5");
    }

    #[test]
    fn counts_are_checked() {
        let two = [frame(b"hello"), frame(b"hello")].concat();
        let error = "the response has 2 messages in place of 1";
        assert_eq!(judged(Shape::Unary, Expect::Echo, &two, 1).unwrap_err(), error);
        assert_eq!(judged(Shape::PingPong { round_trips: 9 }, Expect::Echo, &two, 2), Ok(()));
        let none = judged(Shape::Unary, Expect::Anything, b"", 1).unwrap_err();
        assert_eq!(none, "the response has 0 messages in place of 1");
        let streamed = Expect::Messages { count: 2, octets: 5 };
        assert_eq!(judged(Shape::ServerStream, streamed, &two, 1), Ok(()));
        let streamed = Expect::Messages { count: 3, octets: 5 };
        let error = "the response has 2 messages in place of 3";
        assert_eq!(judged(Shape::ServerStream, streamed, &two, 1).unwrap_err(), error);
    }

    #[test]
    fn faults_of_framing_are_faults() {
        let cut = judged(Shape::Unary, Expect::Anything, b"\0\0\0\0\x05he", 1);
        assert_eq!(cut.unwrap_err(), "the response ends amid a message");
        let compressed = judged(Shape::Unary, Expect::Anything, b"\x01\0\0\0\0", 1);
        assert_eq!(compressed.unwrap_err(), "received a compressed message");
    }
}
