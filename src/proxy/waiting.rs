//! Calls that wait for one target: in turns, so that nobody waits behind all of another's.
//!
//! 1. Each caller's connection has a line of its own, first come, first served; the lines take
//!    turns.
//! 2. A caller may have as many places as are left free: one alone gets half of them, two get a
//!    third each, and there is always a place for one who comes anew.
//! 3. Calls that end while they wait are passed over when their turn comes; a line keeps no more
//!    of them than of the others for long.
//!
//! Refuses to know why a call waits.

use super::{CallKey, ConnKey};
use std::collections::{HashMap, VecDeque};

/// Calls that wait for one target.
pub(super) const WAITING_MAX: usize = 64 << 10;

#[derive(Debug, Default)]
struct Line {
    calls: VecDeque<CallKey>,
    /// How many of them have ended meanwhile.
    dead: usize,
}

impl Line {
    fn alive(&self) -> usize {
        self.calls.len().saturating_sub(self.dead)
    }
}

/// See the file's text.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    lines: HashMap<ConnKey, Line>,
    /// Each line once.
    turns: VecDeque<ConnKey>,
    /// Calls that have not ended, in all lines.
    alive: usize,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// How many wait that have not ended.
    pub(super) fn alive(&self) -> usize {
        self.alive
    }

    /// Does a call wait that has not ended?
    pub(super) fn has_alive(&self) -> bool {
        self.alive > 0
    }

    /// Is there a place for one more of this caller's?
    pub(super) fn admits(&self, caller: ConnKey) -> bool {
        let own = self.lines.get(&caller).map_or(0, Line::alive);
        own < WAITING_MAX.saturating_sub(self.alive)
    }

    /// `lives`: has this call not ended?
    pub(super) fn push(&mut self, caller: ConnKey, call: CallKey, lives: impl Fn(CallKey) -> bool) {
        let line = self.lines.entry(caller).or_insert_with(|| {
            self.turns.push_back(caller);
            Line::default()
        });
        if line.dead > line.calls.len() / 2 {
            line.calls.retain(|call| lives(*call));
            line.dead = 0;
        }
        line.calls.push_back(call);
        self.alive += 1;
    }

    /// A call of this caller's has ended in its place.
    pub(super) fn one_died(&mut self, caller: ConnKey) {
        if let Some(line) = self.lines.get_mut(&caller) {
            line.dead += 1;
            self.alive = self.alive.saturating_sub(1);
        }
    }

    /// A call leaves its place and lives on. It is looked for from the front, where those are that
    /// have waited longest.
    pub(super) fn remove(&mut self, caller: ConnKey, call: CallKey) {
        let Some(line) = self.lines.get_mut(&caller) else { return };
        if let Some(place) = line.calls.iter().position(|waiting| *waiting == call) {
            line.calls.remove(place);
            self.alive = self.alive.saturating_sub(1);
        }
    }

    /// Whose turn it is. Those that have ended are gone then.
    pub(super) fn first(&mut self, lives: impl Fn(CallKey) -> bool) -> Option<CallKey> {
        while let Some(caller) = self.turns.front().copied() {
            let Some(line) = self.lines.get_mut(&caller) else {
                self.turns.pop_front();
                continue;
            };
            match line.calls.front().copied() {
                Some(call) if lives(call) => return Some(call),
                Some(_) => {
                    line.calls.pop_front();
                    line.dead = line.dead.saturating_sub(1);
                }
                None => {
                    self.lines.remove(&caller);
                    self.turns.pop_front();
                }
            }
        }
        None
    }

    /// Takes the call that [`Self::first`] gave; the next line has its turn.
    pub(super) fn take_first(&mut self) {
        let Some(caller) = self.turns.pop_front() else { return };
        let Some(line) = self.lines.get_mut(&caller) else { return };
        if line.calls.pop_front().is_some() {
            self.alive = self.alive.saturating_sub(1);
        }
        match line.calls.is_empty() {
            true => drop(self.lines.remove(&caller)),
            false => self.turns.push_back(caller),
        }
    }

    /// All that wait, those included that have ended.
    pub(super) fn iter(&self) -> impl Iterator<Item = CallKey> {
        self.turns
            .iter()
            .filter_map(|caller| self.lines.get(caller))
            .flat_map(|line| line.calls.iter().copied())
    }

    pub(super) fn check_invariants(&self, lives: impl Fn(CallKey) -> bool) {
        assert_eq!(self.lines.len(), self.turns.len());
        assert!(self.turns.iter().all(|caller| self.lines.contains_key(caller)));
        let alive = self.iter().filter(|call| lives(*call)).count();
        assert_eq!(alive, self.alive);
        assert!(self.alive <= WAITING_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::SlotMap;

    /// Keys that are there, and none.
    fn callers<const N: usize>() -> [ConnKey; N] {
        let mut map: SlotMap<ConnKey, ()> = SlotMap::with_key();
        std::array::from_fn(|_| map.insert(()))
    }

    #[test]
    fn lines_take_turns() {
        let [one, two] = callers();
        let mut map: SlotMap<CallKey, char> = SlotMap::with_key();
        let mut waiting = Waiting::default();
        for (caller, name) in [(one, 'a'), (one, 'b'), (one, 'c'), (two, 'x'), (two, 'y')] {
            let call = map.insert(name);
            waiting.push(caller, call, |_| true);
        }
        let gone = waiting.iter().nth(1).unwrap();
        map.remove(gone);
        waiting.one_died(one);
        waiting.check_invariants(|call| map.contains_key(call));
        let mut order = String::new();
        while let Some(call) = waiting.first(|call| map.contains_key(call)) {
            waiting.take_first();
            order.push(map[call]);
            waiting.check_invariants(|call| map.contains_key(call) && !order.contains(map[call]));
        }
        assert_eq!(order, "axcy");
        assert!(waiting.is_empty());
    }

    #[test]
    fn nobody_takes_all_places() {
        let [greedy, second, third] = callers();
        let mut map: SlotMap<CallKey, ()> = SlotMap::with_key();
        let mut waiting = Waiting::default();
        let mut fill = |waiting: &mut Waiting, caller| {
            let mut places = 0;
            while waiting.admits(caller) {
                waiting.push(caller, map.insert(()), |_| true);
                places += 1;
            }
            places
        };
        assert_eq!(fill(&mut waiting, greedy), WAITING_MAX / 2);
        assert_eq!(fill(&mut waiting, second), WAITING_MAX / 4);
        assert!(waiting.admits(third) && !waiting.admits(greedy));
    }

    /// The limit is one of calls that wait, not of calls that ever waited.
    #[test]
    fn those_who_end_leave_their_place_and_no_memory() {
        let [caller] = callers();
        let mut map: SlotMap<CallKey, ()> = SlotMap::with_key();
        let mut waiting = Waiting::default();
        for _ in 0..3 * WAITING_MAX {
            assert!(waiting.admits(caller));
            let call = map.insert(());
            waiting.push(caller, call, |call| map.contains_key(call));
            map.remove(call);
            waiting.one_died(caller);
        }
        assert!(waiting.lines[&caller].calls.len() < 10);
        assert_eq!(waiting.first(|call| map.contains_key(call)), None);
        assert!(waiting.is_empty() && waiting.lines.is_empty());
    }
}
