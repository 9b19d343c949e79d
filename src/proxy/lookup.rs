//! From a pool's target to its endpoints: asked once, answered or given up.
//!
//! 1. One question per pool is out at a time, for all who wait.
//! 2. An answer that does not come is an answer too: nobody waits for ever, whatever control
//!    lost on the way.

use super::contract::Output;
use super::failure::Failure;
use super::guard::Cause;
use super::{PoolKey, Proxy, Reminder};
use crate::grpc::Code;
use crate::resolve::{Endpoint, Resolution};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Control's own lookups take a second or two; past this the answer is lost.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

impl Proxy {
    /// Asks control where the pool's target listens.
    pub(super) fn ask(&mut self, key: PoolKey, now: Instant) {
        let Some(pool) = self.pools.pools.get_mut(key) else { return };
        let Some(target) = pool.target.clone() else { return };
        pool.asked = Some(now);
        self.outputs.push_back(Output::Resolve(target));
        self.remind(now + LOOKUP_TIMEOUT, Reminder::Lookup(key));
    }

    pub(super) fn resolved(&mut self, resolution: Resolution, now: Instant) {
        let Resolution { target, result } = resolution;
        let Some(key) = self.pools.by_target.get(&target).copied() else { return };
        match result {
            Ok(endpoints) if endpoints.is_empty() => {
                let text = format!(
                    "resolver returned empty address for app id {}/{}",
                    target.namespace, target.app_id
                );
                self.lookup_failed(key, &text, now);
            }
            Ok(endpoints) => self.lookup_done(key, endpoints, now),
            Err(text) => self.lookup_failed(key, &text, now),
        }
    }

    fn lookup_done(&mut self, key: PoolKey, endpoints: Arc<[Endpoint]>, now: Instant) {
        let Some(pool) = self.pools.pools.get_mut(key) else { return };
        // Also when it was not asked for, as an answer that came after its time: whoever waits now
        // need not ask again.
        pool.asked = None;
        pool.fresh = pool.parked.has_alive();
        pool.failed = 0;
        pool.resolved = true;
        pool.places.replace(&endpoints);
        self.retire_missing(key, |way| way.endpoint().is_some_and(|at| endpoints.contains(&at)));
        self.pump(key, now);
        self.spread(key, now);
    }

    /// A refresh that fails, which nobody asked for, changes nothing: the last endpoints stay.
    fn lookup_failed(&mut self, key: PoolKey, text: &str, now: Instant) {
        let Some(pool) = self.pools.pools.get_mut(key) else { return };
        if pool.asked.take().is_some() {
            pool.places.forget_tries();
            let failure = Failure::new(Code::Unknown, text.to_owned());
            self.fail_parked(key, &failure, Cause::Unresolved, now);
            self.pools.drop_if_idle(key);
        }
    }

    /// The reminder that [`Self::ask`] set.
    pub(super) fn lookup_overdue(&mut self, key: PoolKey, now: Instant) {
        let Some(pool) = self.pools.pools.get(key) else { return };
        let overdue = pool.asked.is_some_and(|since| now >= since + LOOKUP_TIMEOUT);
        if let (true, Some(target)) = (overdue, &pool.target) {
            let text = format!("timeout waiting for address for app id {}", target.app_id);
            self.lookup_failed(key, &text, now);
        }
    }
}
