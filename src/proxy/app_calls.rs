//! `--app-max-concurrency`: how many calls this worker lets be with the app at the same time.
//!
//! 1. A call takes its place when its stream to the app opens and gives it back when that ends,
//!    however it ends; a stream keeps its place for all of its life.
//! 2. Who finds no place waits where all wait (`waiting`): in turns, bounded, with its deadline.
//! 3. Without a bound nothing is counted.

/// See the file's text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AppCalls {
    /// This worker's share.
    most: Option<usize>,
    with_app: usize,
}

impl AppCalls {
    pub(super) fn of_at_most(most: usize) -> Self {
        Self { most: Some(most), with_app: 0 }
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.most.is_some_and(|most| self.with_app >= most)
    }

    /// A stream opened, to the app or to somebody else.
    #[inline]
    pub(super) fn opened(&mut self, to_app: bool) {
        if self.most.is_some() && to_app {
            debug_assert!(!self.is_full(), "a place was looked for first");
            self.with_app += 1;
        }
    }

    /// One ended.
    #[inline]
    pub(super) fn ended(&mut self, to_app: bool) {
        if self.most.is_some() && to_app {
            debug_assert!(self.with_app > 0, "each place is given back once");
            self.with_app = self.with_app.saturating_sub(1);
        }
    }

    pub(super) fn check_invariants(&self, with_app: usize) {
        if let Some(most) = self.most {
            assert_eq!(self.with_app, with_app);
            assert!(self.with_app <= most, "{} of {most}", self.with_app);
        }
    }
}
