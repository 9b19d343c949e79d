//! Targets that a resolver must be asked for again and again: who was asked for, what is known,
//! when to look next. PURE: `now` is an argument.
//!
//! ```text
//!             ask                   found                   due, or asked for again
//! (unknown) ──────▶ looked up ─────────────▶ known, idle ────────────────────────▶ looked up …
//!                       │ absent or failed, for the first time: told, forgotten
//! ```
//! 1. One lookup per target at a time, for all who ask.
//! 2. The last known endpoints outlive a resolver that fails; only its word that nobody is there
//!    ends them. Either way it is asked again, less and less often: workers go on with what they
//!    were told, and must hear when it changes.
//! 3. Who asks for what is known has trouble with it, or is new: then a lookup comes first, and
//!    what is known is told when it takes longer than [`ANSWER_WITHIN`].
//! 4. Bounded: [`TARGETS_MAX`] targets, of which the one longest not asked for makes way;
//!    [`LOOKUPS_MAX`] lookups; [`ENDPOINTS_MAX`] endpoints of each.

use crate::identity::Target;
use crate::resolve::{Endpoint, Resolution};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const TARGETS_MAX: usize = 4096;
pub const LOOKUPS_MAX: usize = 64;
pub const ENDPOINTS_MAX: usize = 256;
/// A lookup that was made this recently is not made again for who asks.
pub const FRESH_FOR: Duration = Duration::from_secs(1);
pub const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// After a failure, and after each further one twice as long.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What a lookup came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    Found {
        endpoints: Vec<Endpoint>,
        /// When to look again.
        again_in: Duration,
    },
    /// The resolver answered: nobody is there. The text is for callers.
    Absent(String),
    /// The resolver did not answer, or not as it should.
    Failed(String),
}

/// What is worth a line of log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Lookups of what is known have begun to fail.
    Stale { endpoints: usize, error: String },
    /// They work again.
    Fresh,
}

#[derive(Debug, Default)]
pub struct Book {
    entries: HashMap<Target, Entry>,
    looking: usize,
}

#[derive(Debug)]
struct Entry {
    known: Option<Arc<[Endpoint]>>,
    /// Something was known once.
    proven: bool,
    stage: Stage,
    /// Since when somebody waits for an answer.
    waits: Option<Instant>,
    /// When it was last asked for.
    asked: Instant,
    /// Lookups that failed in a row.
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The next lookup is due then.
    Due(Instant),
    /// A lookup is out.
    Looking,
    /// It was made then, and the next one is due then.
    Made { at: Instant, next: Instant },
}

impl Entry {
    fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Due(at) | Stage::Made { next: at, .. } => Some(at),
            Stage::Looking => None,
        }
    }

    /// True if that is not what was known.
    fn learn(&mut self, mut endpoints: Vec<Endpoint>) -> bool {
        endpoints.sort();
        endpoints.dedup();
        endpoints.truncate(ENDPOINTS_MAX);
        self.proven = true;
        let changed = self.known.as_deref() != Some(&endpoints[..]);
        if changed {
            self.known = Some(endpoints.into());
        }
        changed
    }

    fn retry_later(&mut self, now: Instant) {
        let pause = RETRY_FIRST.saturating_mul(1 << self.failures.min(16)).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.stage = Stage::Made { at: now, next: now + pause };
    }

    fn overdue(&self) -> Option<Instant> {
        self.known.as_ref().and(self.waits).map(|since| since + ANSWER_WITHIN)
    }
}

impl Book {
    /// A worker asks. The answer, if it can be given at once.
    pub fn ask(&mut self, target: &Target, now: Instant) -> Option<Resolution> {
        if !self.entries.contains_key(target) {
            self.make_room();
            let stage = Stage::Due(now);
            let entry = Entry {
                known: None,
                proven: false,
                stage,
                waits: Some(now),
                asked: now,
                failures: 0,
            };
            self.entries.insert(target.clone(), entry);
            return None;
        }
        let entry = self.entries.get_mut(target)?;
        entry.asked = now;
        let just_made = match entry.stage {
            Stage::Made { at, .. } => now.saturating_duration_since(at) < FRESH_FOR,
            Stage::Due(_) | Stage::Looking => false,
        };
        if let (Some(known), true) = (&entry.known, just_made) {
            return Some(Resolution { target: target.clone(), result: Ok(Arc::clone(known)) });
        }
        entry.waits.get_or_insert(now);
        if entry.stage != Stage::Looking {
            entry.stage = Stage::Due(now);
        }
        None
    }

    /// The next target to look up, until `None`.
    pub fn poll_lookup(&mut self, now: Instant) -> Option<Target> {
        if self.looking >= LOOKUPS_MAX {
            return None;
        }
        let due = |entry: &Entry| entry.due().is_some_and(|at| at <= now);
        // Those who wait go first.
        let ready = self.entries.iter().filter(|(_, entry)| due(entry));
        let first = ready.min_by_key(|(_, entry)| (entry.waits.is_none(), entry.due()));
        let target = first.map(|(target, _)| target.clone())?;
        let entry = self.entries.get_mut(&target)?;
        entry.stage = Stage::Looking;
        self.looking += 1;
        Some(target)
    }

    /// A lookup is over: what to tell, and what to log.
    pub fn looked(
        &mut self,
        target: &Target,
        looked: Looked,
        now: Instant,
    ) -> (Option<Resolution>, Option<News>) {
        self.looking = self.looking.saturating_sub(1);
        let Some(entry) = self.entries.get_mut(target) else { return (None, None) };
        let waits = entry.waits.take().is_some();
        let resolution = |result| Some(Resolution { target: target.clone(), result });
        match looked {
            Looked::Found { endpoints, again_in } if !endpoints.is_empty() => {
                entry.stage = Stage::Made { at: now, next: now + again_in };
                let recovered = std::mem::take(&mut entry.failures) > 0;
                let changed = entry.learn(endpoints);
                let told = if waits || changed { entry.known.clone().map(Ok) } else { None };
                (told.and_then(resolution), recovered.then_some(News::Fresh))
            }
            Looked::Found { .. } => (self.nobody(target, Ok([].into()), waits, now), None),
            Looked::Absent(text) => (self.nobody(target, Err(text.into()), waits, now), None),
            Looked::Failed(text) => {
                let Some(known) = entry.known.clone() else {
                    return (self.nobody(target, Err(text.into()), waits, now), None);
                };
                entry.retry_later(now);
                let stale = News::Stale { endpoints: known.len(), error: text };
                let told = if waits { resolution(Ok(known)) } else { None };
                (told, (entry.failures == 1).then_some(stale))
            }
        }
    }

    /// There are no endpoints. What to tell: each who waits, and once all who thought otherwise.
    fn nobody(
        &mut self,
        target: &Target,
        result: Result<Arc<[Endpoint]>, Arc<str>>,
        waits: bool,
        now: Instant,
    ) -> Option<Resolution> {
        let entry = self.entries.get_mut(target)?;
        let lost = entry.known.take().is_some();
        entry.retry_later(now);
        if !entry.proven {
            self.entries.remove(target);
        }
        (waits || lost).then(|| Resolution { target: target.clone(), result })
    }

    /// Whoever has waited long enough gets what is known; until `None`.
    pub fn poll_overdue(&mut self, now: Instant) -> Option<Resolution> {
        let overdue = |entry: &Entry| entry.overdue().is_some_and(|at| at <= now);
        let (target, entry) = self.entries.iter_mut().find(|(_, entry)| overdue(entry))?;
        entry.waits = None;
        let known = entry.known.clone()?;
        Some(Resolution { target: target.clone(), result: Ok(known) })
    }

    /// When there is something to do without being asked.
    pub fn next_wake(&self) -> Option<Instant> {
        let full = self.looking >= LOOKUPS_MAX;
        let due = |entry: &Entry| if full { None } else { entry.due() };
        let each = |entry: &Entry| [due(entry), entry.overdue()].into_iter().flatten().min();
        self.entries.values().filter_map(each).min()
    }

    fn make_room(&mut self) {
        if self.entries.len() < TARGETS_MAX {
            return;
        }
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.asked);
        if let Some(target) = oldest.map(|(target, _)| target.clone()) {
            self.entries.remove(&target);
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use crate::identity::Namespace;

    const AGAIN: Duration = Duration::from_secs(5);

    fn target(text: &str) -> Target {
        Target::parse(text, &Namespace::new("default")).unwrap()
    }

    fn found(ports: &[u16]) -> Looked {
        let endpoints = ports.iter().map(|port| Endpoint(([10, 0, 0, 1], *port).into())).collect();
        Looked::Found { endpoints, again_in: AGAIN }
    }

    fn said(resolution: Option<Resolution>) -> String {
        match resolution.map(|resolution| resolution.result) {
            None => "nothing".to_owned(),
            Some(Ok(all)) => {
                all.iter().map(|e| e.0.port().to_string()).collect::<Vec<_>>().join(" ")
            }
            Some(Err(error)) => error.to_string(),
        }
    }

    /// Asks, and answers the lookup that follows.
    fn learn(book: &mut Book, looked: Looked, now: Instant) -> String {
        let a = target("a");
        assert!(book.ask(&a, now).is_none());
        assert_eq!(book.poll_lookup(now), Some(a.clone()));
        said(book.looked(&a, looked, now).0)
    }

    #[test]
    fn one_lookup_for_all_who_ask_and_then_again() {
        let (mut book, now, a) = (Book::default(), Instant::now(), target("a"));
        assert!(book.ask(&a, now).is_none() && book.ask(&a, now).is_none());
        assert_eq!(book.poll_lookup(now), Some(a.clone()));
        assert_eq!(book.poll_lookup(now), None);
        let (told, news) = book.looked(&a, found(&[2, 1, 2]), now);
        assert_eq!((said(told).as_str(), news), ("1 2", None));
        assert_eq!(said(book.ask(&a, now)), "1 2", "at once");
        assert_eq!(book.next_wake(), Some(now + AGAIN));
        let later = now + AGAIN;
        assert_eq!(book.poll_lookup(later), Some(a.clone()));
        assert_eq!(said(book.looked(&a, found(&[1, 2]), later).0), "nothing", "no news");
        assert_eq!(book.poll_lookup(later + AGAIN), Some(a.clone()));
        assert_eq!(said(book.looked(&a, found(&[3]), later + AGAIN).0), "3");
    }

    #[test]
    fn the_last_known_good_outlives_the_resolver() {
        let (mut book, begun, a) = (Book::default(), Instant::now(), target("a"));
        assert_eq!(learn(&mut book, found(&[1]), begun), "1");
        let mut now = begun + AGAIN;
        for failures in 0..10 {
            assert_eq!(book.poll_lookup(now), Some(a.clone()));
            let (told, news) = book.looked(&a, Looked::Failed("down".into()), now);
            assert_eq!(said(told), "nothing");
            let stale = News::Stale { endpoints: 1, error: "down".into() };
            assert_eq!(news, (failures == 0).then_some(stale), "told once");
            assert_eq!(said(book.ask(&a, now)), "1", "just looked");
            now = book.next_wake().unwrap();
        }
        assert!(now - begun < Duration::from_secs(200), "asked again soon enough");
        // Who asks meanwhile waits a little, not for ever.
        assert_eq!(book.poll_lookup(now), Some(a.clone()));
        assert!(book.ask(&a, now).is_none() && book.poll_overdue(now).is_none());
        assert_eq!(book.next_wake(), Some(now + ANSWER_WITHIN));
        assert_eq!(said(book.poll_overdue(now + ANSWER_WITHIN)), "1");
        assert!(book.poll_overdue(now + ANSWER_WITHIN).is_none());
        let (told, news) = book.looked(&a, found(&[1]), now);
        assert_eq!((said(told).as_str(), news), ("nothing", Some(News::Fresh)));
    }

    #[test]
    fn who_has_trouble_gets_a_new_lookup() {
        let (mut book, begun, a) = (Book::default(), Instant::now(), target("a"));
        learn(&mut book, found(&[1]), begun);
        let later = begun + FRESH_FOR;
        assert_eq!(learn(&mut book, found(&[2]), later), "2");
        assert_eq!(learn(&mut book, Looked::Failed("down".into()), later + FRESH_FOR), "2");
        let last = later + 2 * FRESH_FOR;
        assert_eq!(learn(&mut book, Looked::Absent("gone".into()), last), "gone");
        assert_eq!(learn(&mut book, Looked::Failed("down".into()), last), "down", "nothing known");
        // Workers may still use what they were told: they must hear of it when there is more.
        let back = book.next_wake().unwrap();
        assert_eq!(book.poll_lookup(back), Some(a.clone()));
        let (told, news) = book.looked(&a, found(&[3]), back);
        assert_eq!((said(told).as_str(), news), ("3", Some(News::Fresh)));
        let gone = back + AGAIN;
        assert_eq!(book.poll_lookup(gone), Some(a.clone()));
        assert_eq!(said(book.looked(&a, found(&[]), gone).0), "", "an empty list");
        let again = book.next_wake().unwrap();
        assert_eq!(book.poll_lookup(again), Some(a.clone()));
        assert_eq!(said(book.looked(&a, found(&[]), again).0), "nothing", "told once");
    }

    #[test]
    fn what_was_never_there_is_forgotten() {
        let (mut book, now) = (Book::default(), Instant::now());
        for looked in [Looked::Absent("no".into()), Looked::Failed("no".into())] {
            assert_eq!(learn(&mut book, looked, now), "no");
            assert!(book.entries.is_empty() && book.next_wake().is_none());
        }
    }

    #[test]
    fn is_bounded() {
        let (mut book, now) = (Book::default(), Instant::now());
        let moment = Duration::from_millis(1);
        for n in 0..TARGETS_MAX as u32 + 7 {
            assert!(book.ask(&target(&format!("t{n}")), now + n * moment).is_none());
        }
        assert_eq!(book.entries.len(), TARGETS_MAX);
        assert!(
            !book.entries.contains_key(&target("t6")) && book.entries.contains_key(&target("t7"))
        );
        let much_later = now + TARGETS_MAX as u32 * 2 * moment;
        let looking: Vec<Target> = std::iter::from_fn(|| book.poll_lookup(much_later)).collect();
        assert_eq!(looking.len(), LOOKUPS_MAX);
        assert_eq!(looking[0], target("t7"), "who waits longest goes first");
        assert_eq!(book.next_wake(), None, "somebody must come back first");
        for target in &looking {
            book.looked(target, Looked::Absent("gone".into()), much_later);
        }
        assert!(book.poll_lookup(much_later).is_some());
    }
}
