//! Octets on their way: one direction of a connection, with latency, fragments and stalls.

use super::seed::Seed;
use bytes::Bytes;
use ringside::proxy::{CloseReason, ConnId};
use std::collections::VecDeque;
use std::time::Instant;

/// How reads cut what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragments {
    Octets,
    Random,
    Whole,
}

/// Octets delivered one by one in one go, or a run takes for ever.
const OCTETS_AT_ONCE: usize = 48;

/// Which sidecar: the caller's, the callee's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Caller,
    Callee,
}

/// One worker of a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    pub side: Side,
    pub worker: usize,
}

/// Who holds an end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Client(usize),
    Proxy(Who, ConnId),
    App(usize),
    /// Closed.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Right,
    Left,
}

pub const BOTH: [Way; 2] = [Way::Right, Way::Left];

#[derive(Debug)]
pub struct Pipe {
    chunks: VecDeque<(Instant, Bytes)>,
    pub len: usize,
    pub capacity: usize,
    pub stalled_until: Option<Instant>,
    /// No more is written; what the reader hears at the end.
    pub end: Option<CloseReason>,
    last_at: Option<Instant>,
}

/// What a read gives.
#[derive(Debug)]
pub enum Read {
    Nothing,
    Some(Vec<Bytes>),
    End(CloseReason),
}

impl Pipe {
    fn new(capacity: usize) -> Self {
        Self {
            chunks: VecDeque::new(),
            len: 0,
            capacity,
            stalled_until: None,
            end: None,
            last_at: None,
        }
    }

    pub fn has_room(&self) -> bool {
        self.len < self.capacity || self.end.is_some()
    }

    /// Order is kept whatever the latencies are.
    pub fn push(&mut self, at: Instant, octets: Vec<u8>) {
        if octets.is_empty() || self.end.is_some() {
            return;
        }
        let at = self.last_at.map_or(at, |last| last.max(at));
        self.last_at = Some(at);
        self.len += octets.len();
        self.chunks.push_back((at, octets.into()));
    }

    /// The connection breaks: what is on its way is lost from a random point.
    pub fn cut(&mut self, reason: CloseReason, seed: &mut Seed) {
        let keep = seed.below(self.chunks.len() + 1);
        self.chunks.truncate(keep);
        self.len = self.chunks.iter().map(|(_, bytes)| bytes.len()).sum();
        self.end = Some(reason);
    }

    pub fn discard(&mut self) {
        self.chunks.clear();
        self.len = 0;
    }

    /// When there will be something to read.
    pub fn next_at(&self, now: Instant) -> Option<Instant> {
        let at = match (self.chunks.front(), self.end) {
            (Some((at, _)), _) => *at,
            (None, Some(_)) => now,
            (None, None) => return None,
        };
        Some(self.stalled_until.map_or(at, |stalled| stalled.max(at)))
    }

    pub fn read(&mut self, now: Instant, fragments: Fragments, seed: &mut Seed) -> Read {
        if self.stalled_until.is_some_and(|until| until > now) {
            return Read::Nothing;
        }
        self.stalled_until = None;
        let Some((at, front)) = self.chunks.front_mut() else {
            return self.end.map_or(Read::Nothing, Read::End);
        };
        if *at > now {
            return Read::Nothing;
        }
        let len = match fragments {
            Fragments::Octets => OCTETS_AT_ONCE.min(front.len()),
            Fragments::Random if front.len() > 1 => 1 + seed.below(front.len()),
            Fragments::Random => front.len(),
            Fragments::Whole => return Read::Some(vec![self.read_whole(now)]),
        };
        let mut taken = front.split_to(len);
        if front.is_empty() {
            self.chunks.pop_front();
        }
        self.len -= len;
        if fragments == Fragments::Octets {
            return Read::Some((0..len).map(|_| taken.split_to(1)).collect());
        }
        Read::Some(vec![taken])
    }

    fn read_whole(&mut self, now: Instant) -> Bytes {
        let mut all = Vec::new();
        while let Some((at, bytes)) = self.chunks.pop_front() {
            if at > now {
                self.chunks.push_front((at, bytes));
                break;
            }
            all.extend_from_slice(&bytes);
        }
        self.len -= all.len();
        all.into()
    }
}

/// A connection: the left end dialed.
#[derive(Debug)]
pub struct Link {
    pub left: Place,
    pub right: Place,
    pub to_right: Pipe,
    pub to_left: Pipe,
    pub broken: bool,
}

impl Link {
    pub fn new(left: Place, right: Place, capacity: usize) -> Self {
        let (to_right, to_left) = (Pipe::new(capacity), Pipe::new(capacity));
        Self { left, right, to_right, to_left, broken: false }
    }

    pub fn is_gone(&self) -> bool {
        self.left == Place::Gone && self.right == Place::Gone
    }

    /// Whole, and nothing is on its way.
    pub fn is_still(&self) -> bool {
        let empty = |pipe: &Pipe| pipe.len == 0 && pipe.end.is_none();
        !self.broken && empty(&self.to_right) && empty(&self.to_left)
    }

    pub fn pipe(&mut self, way: Way) -> &mut Pipe {
        match way {
            Way::Right => &mut self.to_right,
            Way::Left => &mut self.to_left,
        }
    }

    pub fn writer(&self, way: Way) -> Place {
        match way {
            Way::Right => self.left,
            Way::Left => self.right,
        }
    }

    pub fn reader(&self, way: Way) -> Place {
        match way {
            Way::Right => self.right,
            Way::Left => self.left,
        }
    }

    /// One end closes: the other reads what was written, then the end.
    pub fn close(&mut self, place: Place) {
        let way = if self.left == place { Way::Right } else { Way::Left };
        match way {
            Way::Right => self.left = Place::Gone,
            Way::Left => self.right = Place::Gone,
        }
        self.pipe(way).end.get_or_insert(CloseReason::Eof);
        let other = match way {
            Way::Right => Way::Left,
            Way::Left => Way::Right,
        };
        self.pipe(other).discard();
        self.pipe(other).end.get_or_insert(CloseReason::Eof);
    }

    /// Its writer says that it will write no more, and still reads.
    pub fn half_close(&mut self, way: Way) {
        self.broken = true;
        self.pipe(way).end.get_or_insert(CloseReason::Eof);
    }

    /// The network breaks it.
    pub fn cut(&mut self, seed: &mut Seed) {
        self.broken = true;
        for way in BOTH {
            let reset = CloseReason::Error("connection reset by peer");
            let reason = if seed.one_in(2) { CloseReason::Eof } else { reset };
            self.pipe(way).cut(reason, seed);
        }
    }
}
