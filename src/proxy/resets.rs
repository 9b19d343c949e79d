//! Resets toward an upstream: when each of them may go.
//!
//! Servers count resets since CVE-2023-44487, each in a way of its own.
//!
//! 1. They are paced: a burst of vanished callers must not look like an attack.
//! 2. Toward an app, no more than [`UNPROVEN_MAX`] are on their way for streams that it may not
//!    have accepted yet. Proof that it has is a response's head, on the stream or on a later one,
//!    since servers accept in order; or else that it had [`ACCEPTED_AFTER`] to do so, so that none
//!    waits for ever.
//! 3. A reset that waits keeps its stream's number, and nothing of the call.
//!
//! Refuses to know connections.

use crate::http2::StreamId;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

pub(super) const BURST: u32 = 16;
pub(super) const PER_SECOND: u32 = 200;
/// And in the long run: servers built on nghttp2, and ours, take 1000 and 33 a second, and what
/// calls that ended regularly pay for. A server's count may lag behind ours, so less.
const SAVED_MAX: u32 = 800;
const SAVED_PER_SECOND: u32 = 32;
/// An app on the `h2` crate that is late to accept closes its connection when 21 streams are reset
/// that it has not accepted.
const UNPROVEN_MAX: usize = 10;
/// So many of those that wait may be of streams that are gone.
const WAITING_MIN: usize = 64;
/// Who has not accepted a stream by then is late by more than anybody waits for. A reset may wait
/// twice as long, since this is looked at once in that time.
const ACCEPTED_AFTER: Duration = Duration::from_secs(1);

/// How far an upstream has come with our streams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// The last one of which it was given anything.
    pub(super) handed_over: StreamId,
    /// The last one that it began to answer.
    pub(super) answered: StreamId,
}

/// See the file's text.
#[derive(Debug)]
pub(super) struct Resets {
    burst: Bucket,
    saved: Bucket,
    /// Those that wait for the pace. Like `unproven` bounded by the streams of the connection.
    ready: VecDeque<StreamId>,
    /// Those that wait for proof, or for a place in `blind`.
    unproven: BinaryHeap<Reverse<StreamId>>,
    /// Those that went, or go next, without proof.
    blind: Vec<StreamId>,
    /// Streams up to this one were accepted.
    accepted: StreamId,
    /// What had been handed over, and when that was.
    mark: (Instant, StreamId),
}

impl Resets {
    pub(super) fn new(to_app: bool, now: Instant) -> Self {
        Self {
            burst: Bucket::new(BURST, PER_SECOND, now),
            saved: Bucket::new(SAVED_MAX, SAVED_PER_SECOND, now),
            ready: VecDeque::new(),
            unproven: BinaryHeap::new(),
            blind: Vec::new(),
            // Sidecars count no streams that they have not accepted.
            accepted: StreamId(if to_app { 0 } else { u32::MAX }),
            mark: (now, StreamId(0)),
        }
    }

    /// May this stream be reset now? If not, [`Self::next`] gives it when it may.
    pub(super) fn ask(&mut self, stream: StreamId, progress: Progress, now: Instant) -> bool {
        self.prove(progress, now);
        if stream > self.accepted {
            if self.blind.len() >= UNPROVEN_MAX {
                self.unproven.push(Reverse(stream));
                return false;
            }
            self.blind.push(stream);
        }
        let may = self.ready.is_empty() && self.take(now);
        if !may {
            self.ready.push_back(stream);
        }
        may
    }

    /// One that waited and may go now. Those that are not `live` any more cost nothing.
    pub(super) fn next(
        &mut self,
        progress: Progress,
        now: Instant,
        live: impl Fn(StreamId) -> bool,
    ) -> Option<StreamId> {
        if self.waiting() == 0 {
            return None;
        }
        self.prove(progress, now);
        let first = self.ready.front().copied()?;
        if live(first) && !self.take(now) {
            return None;
        }
        self.ready.pop_front()
    }

    /// Streams whose reset waits may end by themselves, and then others come: they would be many.
    pub(super) fn forget_gone(&mut self, streams: usize, live: impl Fn(StreamId) -> bool) {
        if self.waiting() > WAITING_MIN + 2 * streams {
            self.ready.retain(|stream| live(*stream));
            self.unproven.retain(|stream| live(stream.0));
        }
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.ready.len() + self.unproven.len()
    }

    /// A stream ended regularly: the peer will bear one reset more.
    pub(super) fn earn(&mut self) {
        self.saved.tokens = (self.saved.tokens + 1).min(self.saved.max);
    }

    /// When [`Self::next`] may have one.
    pub(super) fn timeout(&self, progress: Progress) -> Option<Instant> {
        let proven = self.unproven.peek().is_some_and(|first| first.0 <= progress.answered);
        let pace = || self.burst.next().max(self.saved.next());
        let paced = (proven || !self.ready.is_empty()).then(pace);
        let aged = (!self.unproven.is_empty()).then(|| self.mark.0 + ACCEPTED_AFTER);
        paced.into_iter().chain(aged).min()
    }

    /// Looks for proof, and lets those go on that have it or find a place.
    fn prove(&mut self, progress: Progress, now: Instant) {
        let (since, aged) = self.mark;
        let mut accepted = self.accepted.max(progress.answered);
        if now >= since + ACCEPTED_AFTER {
            accepted = accepted.max(aged);
            self.mark = (now, progress.handed_over);
        }
        if accepted > self.accepted {
            self.accepted = accepted;
            self.blind.retain(|stream| *stream > accepted);
        }
        while let Some(Reverse(stream)) = self.unproven.peek().copied() {
            if stream > accepted {
                if self.blind.len() >= UNPROVEN_MAX {
                    break;
                }
                self.blind.push(stream);
            }
            self.unproven.pop();
            self.ready.push_back(stream);
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        self.burst.refill(now);
        self.saved.refill(now);
        let granted = self.burst.tokens > 0 && self.saved.tokens > 0;
        self.burst.tokens -= u32::from(granted);
        self.saved.tokens -= u32::from(granted);
        granted
    }
}

/// Tokens that drip in, one each `step`, up to `max`.
#[derive(Debug)]
struct Bucket {
    tokens: u32,
    max: u32,
    step: Duration,
    refilled: Instant,
}

impl Bucket {
    fn new(max: u32, per_second: u32, now: Instant) -> Self {
        let step = Duration::from_secs(1) / per_second;
        Self { tokens: max, max, step, refilled: now }
    }

    fn refill(&mut self, now: Instant) {
        let steps = now.saturating_duration_since(self.refilled).as_nanos() / self.step.as_nanos();
        let full = steps >= u128::from(self.max - self.tokens);
        self.tokens = if full { self.max } else { self.tokens + steps as u32 };
        self.refilled = if full { now } else { self.refilled + self.step * steps as u32 };
    }

    /// When there is a token.
    fn next(&self) -> Instant {
        if self.tokens > 0 { self.refilled } else { self.refilled + self.step }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn paces_a_storm() {
        let start = Instant::now();
        let mut resets = Resets::new(false, start);
        let granted = (0..1000).filter(|_| resets.take(start)).count();
        assert_eq!(granted, BURST as usize);
        let later = start + Duration::from_millis(50);
        let granted = (0..1000).filter(|_| resets.take(later)).count();
        assert_eq!(granted, 10);
    }

    /// Servers close a connection that resets 1000 streams and then more than 33 a second.
    #[test]
    #[allow(clippy::disallowed_methods)]
    fn a_long_storm_stays_below_what_servers_take() {
        let start = Instant::now();
        let mut resets = Resets::new(false, start);
        let mut granted = 0;
        for ms in 0..60_000 {
            granted += u32::from(resets.take(start + Duration::from_millis(ms)));
            assert!(u64::from(granted) <= 1000 + 33 * ms / 1000, "{granted} after {ms} ms");
        }
        assert!(granted > 2600, "{granted}");
        let end = start + Duration::from_millis(60_000);
        while resets.take(end) {}
        resets.earn();
        assert!(resets.take(end) && !resets.take(end));
    }

    fn progress(handed_over: u32, answered: u32) -> Progress {
        Progress { handed_over: StreamId(handed_over), answered: StreamId(answered) }
    }

    fn go(resets: &mut Resets, progress: Progress, now: Instant) -> usize {
        std::iter::from_fn(|| resets.next(progress, now, |_| true)).count()
    }

    /// Twenty streams, of which the first ten may be reset unseen.
    #[allow(clippy::disallowed_methods)]
    fn twenty() -> (Resets, Instant) {
        let start = Instant::now();
        let mut resets = Resets::new(true, start);
        let asked = (0..20).filter(|n| resets.ask(StreamId(1 + 2 * n), progress(39, 0), start));
        assert_eq!((asked.count(), resets.waiting()), (UNPROVEN_MAX, 20 - UNPROVEN_MAX));
        assert_eq!(resets.timeout(progress(39, 0)), Some(start + ACCEPTED_AFTER));
        (resets, start)
    }

    #[test]
    fn what_was_accepted_may_be_reset() {
        let (mut resets, start) = twenty();
        let soon = start + Duration::from_millis(500);
        assert_eq!(go(&mut resets, progress(39, 0), soon), 0);
        // The third of those that were reset was accepted: three more may go.
        assert_eq!(go(&mut resets, progress(39, 5), soon), 3);
        // An answer to the last but one.
        assert!(resets.timeout(progress(39, 37)).is_some_and(|at| at <= soon));
        assert_eq!(go(&mut resets, progress(39, 37), soon), 7);
        assert_eq!((resets.waiting(), resets.timeout(progress(39, 37))), (0, None));
    }

    #[test]
    fn a_reset_waits_for_an_answer_but_not_for_ever() {
        let (mut resets, start) = twenty();
        let (mut now, mut gone) = (start, 0);
        while let Some(at) = resets.timeout(progress(39, 0)) {
            now = now.max(at);
            assert!(now <= start + 2 * ACCEPTED_AFTER, "{} wait", resets.waiting());
            gone += go(&mut resets, progress(39, 0), now);
        }
        assert_eq!(gone, 10);
        assert!(now >= start + ACCEPTED_AFTER);
    }

    /// Those who count in other ways are not kept waiting.
    #[test]
    #[allow(clippy::disallowed_methods)]
    fn a_sidecar_needs_no_proof() {
        let start = Instant::now();
        let mut resets = Resets::new(false, start);
        let asked = (0..20).filter(|n| resets.ask(StreamId(1 + 2 * n), progress(39, 0), start));
        assert_eq!(asked.count(), BURST as usize);
    }
}
