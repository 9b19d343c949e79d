//! The busy-poll window: how long a worker looks for something to do before it sleeps.
//!
//! 1. Without one, as by default, a wait begins at once, and nothing is looked at.
//! 2. A window ends: a worker that nothing happens to sleeps.
//!
//! Knows nothing of what is looked for (docs/adr/0215-a-busy-poll-window.md).

use super::clock::now;
use std::time::Duration;

/// For each wait anew.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window(Option<Duration>);

impl Window {
    pub(super) fn new(window: Option<Duration>) -> Self {
        Self(window)
    }

    pub(super) fn is_open(self) -> bool {
        self.0.is_some()
    }

    /// Looks until something has come, or the window is over.
    pub(super) fn look<E>(self, mut came: impl FnMut() -> Result<bool, E>) -> Result<(), E> {
        let Some(window) = self.0 else { return Ok(()) };
        let end = now() + window;
        while !came()? && now() < end {
            std::hint::spin_loop();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// How often it looked when something came with the `nth` look, and whether it took as long
    /// as the window.
    fn looked(window: Option<Duration>, nth: usize) -> (usize, bool) {
        let (began, mut looks) = (now(), 0);
        let Ok(()) = Window::new(window).look(|| {
            looks += 1;
            Ok::<_, Infallible>(looks == nth)
        });
        (looks, window.is_none_or(|window| began.elapsed() >= window))
    }

    #[test]
    fn looks_until_something_came_or_it_is_over() {
        assert_eq!(looked(None, 1), (0, true));
        let long = Some(Duration::from_secs(3600));
        assert_eq!((looked(long, 1), looked(long, 9)), ((1, false), (9, false)));
        let (looks, all) = looked(Some(Duration::from_millis(2)), usize::MAX);
        assert!(looks > 0 && all, "{looks}");
    }

    #[test]
    fn what_is_wrong_ends_it() {
        let window = Window::new(Some(Duration::from_secs(3600)));
        assert_eq!(window.look(|| Err(7)), Err(7));
    }
}
