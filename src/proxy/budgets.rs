//! `--ringside-retry-budget`: a budget for each target that policies concern, in this worker.
//!
//! 1. Without the flag there is none, and every retry that a policy grants is made.
//! 2. Bounded: as many as there are labels for targets; those beyond share the last one's.

use super::Proxy;
use super::endpoint::Endpoint;
use crate::observe::policies::TargetId;
use crate::policy::budget::Budget;
use std::time::Instant;

/// See the file's text.
#[derive(Debug, Default)]
pub(super) struct Budgets {
    percent: Option<u32>,
    /// By the target's number.
    targets: Vec<Budget>,
}

impl Budgets {
    pub(super) fn of_percent(percent: u32) -> Self {
        Self { percent: Some(percent), targets: Vec::new() }
    }

    pub(super) fn percent(&self) -> Option<u32> {
        self.percent
    }

    fn of(&mut self, target: TargetId, now: Instant) -> Option<&mut Budget> {
        let percent = self.percent?;
        let index = target.index();
        if index >= self.targets.len() {
            self.targets.resize(index + 1, Budget::new(percent, now));
        }
        self.targets.get_mut(index)
    }

    /// A call begins that may be tried again.
    pub(super) fn pay_in(&mut self, target: TargetId, now: Instant) {
        if let Some(budget) = self.of(target, now) {
            budget.pay_in();
        }
    }

    fn take(&mut self, target: TargetId, now: Instant) -> bool {
        self.of(target, now).is_none_or(|budget| budget.take(now))
    }
}

impl Proxy {
    /// A retry that its policy grants: is there anything left for it?
    pub(super) fn may_retry(&mut self, endpoint: &Endpoint, now: Instant) -> bool {
        let granted = self.budgets.take(endpoint.told, now);
        if !granted {
            let what = "retries are refused: too many of its calls fail";
            self.tell_limit("retry_budget", what, "dapr.runtime", endpoint.app(), now);
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::policies::PolicyCells;

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn each_target_has_its_own() {
        let now = Instant::now();
        let mut cells = PolicyCells::default();
        let [one, two] = [cells.target(b"one"), cells.target(b"two")];
        let mut budgets = Budgets::of_percent(100);
        let granted =
            |budgets: &mut Budgets, target| (0..99).filter(|_| budgets.take(target, now)).count();
        assert_eq!(granted(&mut budgets, two), 10);
        (0..5).for_each(|_| budgets.pay_in(one, now));
        assert_eq!((granted(&mut budgets, two), granted(&mut budgets, one)), (0, 15));
        assert_eq!(granted(&mut Budgets::default(), one), 99);
    }
}
