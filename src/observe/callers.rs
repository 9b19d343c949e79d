//! Callers by name, and how access control ruled on their calls.
//!
//! 1. A caller is interned once for a connection; a ruling moves one number.
//! 2. Names are bounded: [`CALLERS_MAX`] of at most [`LABEL_OCTETS_MAX`] octets a label; whoever
//!    does not fit is [`CallerId::OTHER`].
//!
//! Source: Dapr's `pkg/acl/acl.go`, `emitACLMetrics`: under the caller's app ID, all labels empty
//! for one without an identity.

use super::cells::LABEL_OCTETS_MAX;
use std::sync::Arc;

/// Callers that one worker tells apart.
pub const CALLERS_MAX: usize = 512;

/// An interned caller of this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallerId(u32);

impl CallerId {
    /// It showed no identity.
    pub const NOBODY: Self = Self(0);
    /// It did not fit.
    pub const OTHER: Self = Self(1);
}

/// What access control said of a call, and on whose behalf: of the caller's policy, or of the
/// global default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    AllowedByApp,
    BlockedByApp,
    AllowedByGlobal,
    BlockedByGlobal,
}

/// Calls of a caller to our app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    pub begun: u64,
    pub failed: u64,
}

/// Everything under one caller.
#[derive(Clone, Copy, Debug, Default)]
struct CallerCells {
    rulings: [u64; RULINGS],
    calls: Calls,
}

const RULINGS: usize = Ruling::BlockedByGlobal as usize + 1;

/// App ID, namespace, trust domain.
pub type Names = [Arc<str>; 3];

/// See the file's text.
#[derive(Clone, Debug)]
pub struct Callers {
    names: Vec<Names>,
    /// Interned since the last [`Self::hand_over`].
    fresh: Vec<Names>,
    /// By caller; shorter than the names when the last ones counted nothing.
    counts: Vec<CallerCells>,
}

/// What was counted since the last time.
#[derive(Debug, Default)]
pub struct Increment {
    fresh: Vec<Names>,
    counts: Vec<CallerCells>,
}

impl Default for Callers {
    fn default() -> Self {
        let all = |label: &str| [label; 3].map(Arc::from);
        Self { names: vec![all(""), all("_other")], fresh: Vec::new(), counts: Vec::new() }
    }
}

impl Callers {
    pub fn intern(&mut self, app_id: &str, namespace: &str, trust_domain: &str) -> CallerId {
        let labels = [app_id, namespace, trust_domain];
        let is_it = |names: &Names| names.iter().map(|name| &**name).eq(labels);
        if let Some(index) = self.names.iter().position(is_it) {
            return CallerId(index as u32);
        }
        let long = labels.iter().any(|label| label.len() > LABEL_OCTETS_MAX);
        if long || self.names.len() >= CALLERS_MAX {
            return CallerId::OTHER;
        }
        let names = labels.map(Arc::from);
        self.fresh.push(names.clone());
        self.names.push(names);
        CallerId(self.names.len() as u32 - 1)
    }

    #[inline]
    pub fn ruled(&mut self, caller: CallerId, ruling: Ruling) {
        self.of(caller).rulings[ruling as usize] += 1;
    }

    /// A call to our app began.
    #[inline]
    pub fn called(&mut self, caller: CallerId) {
        self.of(caller).calls.begun += 1;
    }

    /// A call to our app did not end well.
    pub fn failed(&mut self, caller: CallerId) {
        self.of(caller).calls.failed += 1;
    }

    /// Costs the same however much was counted.
    pub fn hand_over(&mut self) -> Increment {
        let (fresh, counts) = (std::mem::take(&mut self.fresh), std::mem::take(&mut self.counts));
        Increment { fresh, counts }
    }

    /// Every increment must come, in order: IDs are then the worker's.
    pub fn add(&mut self, increment: &Increment) {
        for [app_id, namespace, trust_domain] in &increment.fresh {
            self.intern(app_id, namespace, trust_domain);
        }
        self.fresh.clear();
        for (index, more) in (0..).zip(&increment.counts) {
            self.of(CallerId(index)).add(more);
        }
    }

    /// Names stay.
    pub(super) fn clear(&mut self) {
        self.counts.clear();
    }

    /// Adds another worker's, whose IDs may differ.
    pub(super) fn merge(&mut self, other: &Self) {
        for ([app_id, namespace, trust_domain], more) in other.names.iter().zip(&other.counts) {
            let id = self.intern(app_id, namespace, trust_domain);
            self.of(id).add(more);
        }
        self.fresh.clear();
    }

    /// Whoever was ruled on so, and how often.
    pub fn of_ruling(&self, ruling: Ruling) -> impl Iterator<Item = (&Names, u64)> {
        let counted = self.names.iter().zip(&self.counts);
        let counted = counted.map(move |(names, counts)| (names, counts.rulings[ruling as usize]));
        counted.filter(|(_, count)| *count > 0)
    }

    /// Whoever called our app, and how it went.
    pub fn calls(&self) -> impl Iterator<Item = (&Names, Calls)> {
        let counted = self.names.iter().zip(&self.counts);
        let counted = counted.map(|(names, counts)| (names, counts.calls));
        counted.filter(|(_, calls)| *calls != Calls::default())
    }

    /// Calls of those who did not fit.
    pub fn folded(&self) -> u64 {
        self.counts.get(CallerId::OTHER.0 as usize).map_or(0, |other| other.calls.begun)
    }

    fn of(&mut self, CallerId(index): CallerId) -> &mut CallerCells {
        let index = if (index as usize) < self.names.len() { index } else { CallerId::OTHER.0 };
        let index = index as usize;
        if index >= self.counts.len() {
            self.counts.resize(index + 1, CallerCells::default());
        }
        &mut self.counts[index]
    }
}

impl CallerCells {
    fn add(&mut self, more: &Self) {
        for (count, more) in self.rulings.iter_mut().zip(more.rulings) {
            *count += more;
        }
        self.calls.begun += more.calls.begun;
        self.calls.failed += more.calls.failed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(callers: &Callers, ruling: Ruling) -> Vec<(String, u64)> {
        let names = |names: &Names| names.join("|");
        callers.of_ruling(ruling).map(|(of, count)| (names(of), count)).collect()
    }

    #[test]
    fn increments_add_up_by_name() {
        let (mut worker, mut control) = (Callers::default(), Callers::default());
        worker.ruled(CallerId::NOBODY, Ruling::AllowedByGlobal);
        let first = worker.intern("a", "default", "public");
        worker.ruled(first, Ruling::BlockedByApp);
        control.add(&worker.hand_over());
        let second = worker.intern("b", "default", "public");
        assert_eq!(worker.intern("a", "default", "public"), first);
        worker.ruled(second, Ruling::AllowedByApp);
        worker.ruled(first, Ruling::BlockedByApp);
        control.add(&worker.hand_over());
        let mut other = Callers::default();
        let there = other.intern("b", "default", "public");
        other.ruled(there, Ruling::AllowedByApp);
        control.merge(&other);
        assert_eq!(told(&control, Ruling::AllowedByGlobal), [("||".to_owned(), 1)]);
        assert_eq!(told(&control, Ruling::BlockedByApp), [("a|default|public".to_owned(), 2)]);
        assert_eq!(told(&control, Ruling::AllowedByApp), [("b|default|public".to_owned(), 2)]);
        assert_eq!(told(&control, Ruling::BlockedByGlobal), []);
    }

    #[test]
    fn who_does_not_fit_is_other() {
        let mut callers = Callers::default();
        let long = "x".repeat(LABEL_OCTETS_MAX + 1);
        assert_eq!(callers.intern(&long, "", ""), CallerId::OTHER);
        for n in 2..CALLERS_MAX {
            assert_ne!(callers.intern(&n.to_string(), "", ""), CallerId::OTHER);
        }
        for n in 0..2 * CALLERS_MAX {
            let late = callers.intern(&format!("late{n}"), "", "");
            assert_eq!(late, CallerId::OTHER);
            callers.called(late);
        }
        assert_eq!((callers.folded(), callers.names.len()), (2 * CALLERS_MAX as u64, CALLERS_MAX));
        assert_eq!(callers.intern("", "", ""), CallerId::NOBODY);
        callers.ruled(CallerId::OTHER, Ruling::AllowedByApp);
        let other = ("_other|_other|_other".to_owned(), 1);
        assert_eq!(told(&callers, Ruling::AllowedByApp), [other]);
    }
}
