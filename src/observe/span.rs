//! A span that is over, as exporters are told of it.
//!
//! 1. What one span holds is bounded: [`ATTRIBUTES_MAX`], [`OCTETS_MAX`].

use super::trace::Context;
use std::time::Instant;

/// OpenTelemetry's own limit.
pub const ATTRIBUTES_MAX: usize = 128;
/// Of names and values of one span; what goes beyond is left out.
pub const OCTETS_MAX: usize = 8 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    Client,
    Server,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub context: Context,
    /// `None`: the trace begins here.
    pub parent: Option<[u8; 8]>,
    pub kind: SpanKind,
    pub name: String,
    pub begun: Instant,
    pub ended: Instant,
    /// What vendors say of the trace, if it goes on.
    pub state: Option<String>,
    /// Why it failed, if it did.
    pub error: Option<String>,
    pub attributes: Vec<(String, String)>,
    octets: usize,
}

impl Span {
    pub fn new(
        context: Context,
        parent: Option<[u8; 8]>,
        kind: SpanKind,
        name: &[u8],
        begun: Instant,
    ) -> Self {
        let mut span = Self {
            context,
            parent,
            kind,
            name: String::new(),
            begun,
            ended: begun,
            state: None,
            error: None,
            attributes: Vec::new(),
            octets: 0,
        };
        span.name = span.charged(name);
        span
    }

    /// An empty value says nothing.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        if value.is_empty() || self.attributes.len() >= ATTRIBUTES_MAX {
            return;
        }
        if self.octets + name.len() + value.len() <= OCTETS_MAX {
            let attribute = (self.charged(name), self.charged(value));
            self.attributes.push(attribute);
        }
    }

    /// What it is called is known late.
    pub fn rename(&mut self, name: &str) {
        self.octets -= self.name.len();
        self.name = self.charged(name.as_bytes());
    }

    /// Whole, or not at all.
    pub fn carry(&mut self, state: &str) {
        if self.octets + state.len() <= OCTETS_MAX {
            self.state = Some(self.charged(state.as_bytes()));
        }
    }

    pub fn fail(&mut self, message: &str) {
        self.error = Some(self.charged(message.as_bytes()));
    }

    /// What it takes of a queue's limit.
    pub fn charge(&self) -> usize {
        self.octets + size_of::<Self>() + self.attributes.len() * size_of::<(String, String)>()
    }

    /// As text, as much of it as there is room for.
    fn charged(&mut self, octets: &[u8]) -> String {
        let room = OCTETS_MAX.saturating_sub(self.octets);
        let octets = octets.get(..room).unwrap_or(octets);
        self.octets += octets.len();
        String::from_utf8_lossy(octets).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an arbitrary instant to count from")]
    fn is_bounded() {
        let new = |name: &[u8]| {
            Span::new(Context::default(), None, SpanKind::Client, name, Instant::now())
        };
        let mut span = new(b"/a.B/C");
        span.push(b"dapr-empty", b"");
        (0..1000).for_each(|_| span.push(b"dapr-a", b"1"));
        assert_eq!((span.name.as_str(), span.attributes.len()), ("/a.B/C", ATTRIBUTES_MAX));
        let mut span = new(b"/a.B/C");
        let value = [b'v'; 3000];
        (0..10).for_each(|_| span.push(b"dapr-a", &value));
        assert_eq!(span.attributes.len(), 2, "whole, or not at all");
        span.fail(&"e".repeat(1 << 20));
        assert_eq!(span.octets, OCTETS_MAX);
        assert!(span.charge() < OCTETS_MAX + 512, "{}", span.charge());
        assert_eq!(new(&[b'n'; 1 << 20]).name.len(), OCTETS_MAX);
    }
}
