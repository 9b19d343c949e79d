//! Several endpoints of one target: who gets the next call, who is left alone for a while.
//!
//! 1. With one endpoint nothing here takes part in a call.
//! 2. Of two connections taken at random the one with fewer calls gets the next one. So the slow
//!    get less and the fast get more, and no two workers need to agree.
//! 3. A connection whose calls end UNAVAILABLE [`FAILURES_MAX`] times in a row rests: who refuses
//!    is fast, and would get all. Then one call at a time asks how it is; the first that ends
//!    otherwise brings it back. Where all rest, none does.
//! 4. An endpoint that refuses, or whose connection breaks, is dialled again after a pause that
//!    doubles. While another one takes calls, that is nobody's waiting time. Where nobody does, the
//!    pauses count for nothing: who just came back must not be passed by for one that just left.
//! 5. As long as a target has a connection it gets one to each endpoint, one after the other, and
//!    to [`SPREAD_MAX`] of them at most. A dial that takes longer than [`PATIENCE`] is no reason to
//!    put off the next one, nor for those who wait to wait for it: [`PROBES_MAX`] may be out.
//! 6. [`PLACES_MAX`] endpoints of a target are known.

use super::contract::{Level, Output};
use super::peer::{Peer, Side};
use super::{ConnKey, Leg, PoolKey, Proxy, Reminder};
use crate::grpc::Code;
use crate::resolve::Endpoint;
use crate::snapshot::Way;
use std::time::{Duration, Instant};

/// Endpoints of a target that one worker keeps connections to.
pub(super) const SPREAD_MAX: usize = 16;
pub(super) const PLACES_MAX: usize = 256;
/// Dials of a target that nobody waits for.
const PROBES_MAX: usize = 4;
const PATIENCE: Duration = Duration::from_millis(500);
/// Calls in a row that may end UNAVAILABLE.
const FAILURES_MAX: u8 = 5;
/// The first rest, and the first pause before another dial; each further one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Between two calls that ask how a connection is.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// A connection that lived this long says that its endpoint is fine.
const PROVED: Duration = Duration::from_secs(10);
/// A connection that had no call for so long and is closed by its peer is not missed.
const UNUSED: Duration = Duration::from_secs(90);

/// What the calls of a connection tell of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Health {
    #[default]
    Well,
    /// So many calls in a row ended UNAVAILABLE.
    Failing(u8),
    /// No calls until then, and then one at a time.
    Resting {
        until: Instant,
        /// Rests in a row before this one.
        times: u32,
        /// A call is asking.
        probing: bool,
    },
}

impl Health {
    fn admits(self, now: Instant) -> bool {
        match self {
            Self::Well | Self::Failing(_) => true,
            Self::Resting { until, .. } => until <= now,
        }
    }

    fn taken(&mut self, now: Instant) {
        if let Self::Resting { until, probing, .. } = self
            && *until <= now
        {
            (*until, *probing) = (now + PROBE_INTERVAL, true);
        }
    }

    fn succeeded(&mut self) {
        *self = Self::Well;
    }

    /// For how many rests in a row it has to rest, if it has to.
    fn failed(&self) -> Result<Self, u32> {
        match *self {
            Self::Well => Ok(Self::Failing(1)),
            Self::Failing(failures) if failures + 1 < FAILURES_MAX => {
                Ok(Self::Failing(failures + 1))
            }
            Self::Failing(_) => Err(0),
            // Those that were with it before end late.
            Self::Resting { probing: false, .. } => Ok(*self),
            Self::Resting { times, .. } => Err(times.saturating_add(1)),
        }
    }
}

/// The endpoints of a pool, and what became of dials to them.
#[derive(Debug, Default)]
pub(super) struct Places {
    list: Vec<Place>,
    /// Dials that nobody waits for.
    pub(super) probing: Vec<ConnKey>,
    /// When the next look is due.
    reminded: Option<Instant>,
}

#[derive(Debug)]
struct Place {
    endpoint: Endpoint,
    /// Dials that failed, and connections that broke, in a row.
    failures: u32,
    /// Rather not before.
    not_before: Option<Instant>,
    /// Since when its last connection is there.
    up_since: Option<Instant>,
    /// Dialled for those who wait now.
    tried: bool,
}

impl Place {
    fn rests(&self, now: Instant) -> bool {
        self.not_before.is_some_and(|at| at > now)
    }
}

impl Places {
    pub(super) fn are_several(&self) -> bool {
        self.list.len() > 1
    }

    /// One that may be dialled.
    pub(super) fn has_ready(&self, now: Instant) -> bool {
        self.list.iter().any(|place| !place.rests(now))
    }

    /// One that was not dialled yet for those who wait.
    pub(super) fn has_untried(&self) -> bool {
        self.are_several() && self.list.iter().any(|place| !place.tried)
    }

    /// Those who waited were served, or told: the next ones try all again.
    pub(super) fn forget_tries(&mut self) {
        self.list.iter_mut().for_each(|place| place.tried = false);
    }

    pub(super) fn replace(&mut self, endpoints: &[Endpoint]) {
        let mut before = std::mem::take(&mut self.list);
        self.list = endpoints
            .iter()
            .take(PLACES_MAX)
            .map(|endpoint| {
                let known = before.iter().position(|place| place.endpoint == *endpoint);
                known.map(|at| before.swap_remove(at)).unwrap_or(Place {
                    endpoint: *endpoint,
                    failures: 0,
                    not_before: None,
                    up_since: None,
                    tried: false,
                })
            })
            .collect();
    }

    /// A reminder of that time is the one that counts.
    pub(super) fn heeds(&self, at: Instant) -> bool {
        self.reminded == Some(at)
    }

    fn find(&mut self, endpoint: Endpoint) -> Option<&mut Place> {
        self.list.iter_mut().find(|place| place.endpoint == endpoint)
    }

    pub(super) fn up(&mut self, endpoint: Endpoint, now: Instant) {
        if let Some(place) = self.find(endpoint) {
            (place.not_before, place.up_since) = (None, Some(now));
        }
    }

    fn down(&mut self, endpoint: Endpoint, dice: &mut Dice, now: Instant) {
        let Some(place) = self.find(endpoint) else { return };
        let proved = |since| now.saturating_duration_since(since) >= PROVED;
        if place.up_since.take().is_some_and(proved) {
            place.failures = 0;
        }
        place.not_before = Some(now + pause(place.failures, dice));
        place.failures = place.failures.saturating_add(1);
    }
}

/// Doubled each time; a quarter of it by chance, so that not all come back at once.
fn pause(times: u32, dice: &mut Dice) -> Duration {
    let whole = PAUSE_FIRST.saturating_mul(1 << times.min(16)).min(PAUSE_MAX);
    whole - whole / 4 * (dice.roll() as u32 >> 24) / 256
}

/// SplitMix64: chance enough to choose by, and the same in each run of the simulator.
#[derive(Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which is small.
    fn below(&mut self, bound: usize) -> usize {
        part_of(self.roll() >> 32, bound)
    }

    /// Two different numbers below `count`, of which there are two.
    fn two_of(&mut self, count: usize) -> (usize, usize) {
        let roll = self.roll();
        let (first, second) = (part_of(roll >> 32, count), part_of(roll & 0xffff_ffff, count - 1));
        (first, if second >= first { second + 1 } else { second })
    }
}

/// `half`, of 32 bits, scaled to what is below `bound`.
fn part_of(half: u64, bound: usize) -> usize {
    ((half * bound as u64) >> 32) as usize
}

impl Proxy {
    /// The connection that gets the next call, of a pool that has several (invariants 2, 3).
    pub(super) fn pick_of_several(&mut self, key: PoolKey, now: Instant) -> Option<ConnKey> {
        let conns = &self.pools.pools.get(key)?.conns;
        let (one, other) = self.pools.dice.two_of(conns.len());
        let (one, other) = (*conns.get(one)?, *conns.get(other)?);
        let calls = |key: ConnKey| self.peers[key].calls.len();
        let pair = if calls(other) < calls(one) { [other, one] } else { [one, other] };
        let fit = |key: &ConnKey| {
            let peer = &self.peers[*key];
            peer.can_take() && peer.health.admits(now)
        };
        let open = |key: &ConnKey| self.peers[*key].can_take();
        let least = |some: &dyn Fn(&ConnKey) -> bool| {
            conns.iter().copied().filter(some).min_by_key(|key| calls(*key))
        };
        let found = (pair.into_iter().find(fit))
            .or_else(|| least(&fit))
            .or_else(|| pair.into_iter().find(open))
            .or_else(|| least(&open))?;
        if let Some(Peer { health, .. }) = self.peers.get_mut(found)
            && *health != Health::Well
        {
            health.taken(now);
        }
        Some(found)
    }

    /// Another one than `last`, or that one if there is none.
    pub(super) fn pick_but(
        &mut self,
        pool: PoolKey,
        last: ConnKey,
        now: Instant,
    ) -> Option<ConnKey> {
        let conns = &self.pools.pools.get(pool)?.conns;
        let mut others = conns.iter().copied().filter(|key| *key != last);
        others.find(|key| self.peers[*key].can_take()).or_else(|| self.pick(pool, now))
    }

    /// A call on an upstream ended: called when that says something.
    #[cold]
    pub(super) fn judge(&mut self, leg: Leg, status: u8, now: Instant) {
        let Some(peer) = self.peers.get_mut(leg.conn) else { return };
        let Side::Upstream { pool, .. } = peer.side else { return };
        let neutral = [Code::Canceled as u8, Code::DeadlineExceeded as u8];
        if neutral.contains(&status) {
            return;
        }
        if status != Code::Unavailable as u8 {
            return peer.health.succeeded();
        }
        let times = match peer.health.failed() {
            Ok(health) => {
                peer.health = health;
                return;
            }
            Err(times) => times,
        };
        let rest = pause(times, &mut self.pools.dice);
        peer.health = Health::Resting { until: now + rest, times, probing: false };
        let several = self.pools.pools.get(pool).is_some_and(|pool| pool.conns.len() > 1);
        if several && times == 0 {
            let what = self.blame(leg.conn, "calls fail with UNAVAILABLE, others get them");
            self.log(Level::Info, "dapr.runtime.grpc", what, now);
        }
    }

    /// Those who wait have a dial: they need not wait for it alone.
    pub(super) fn hedge(&mut self, key: PoolKey, now: Instant) {
        if self.pools.pools.get(key).is_some_and(|pool| pool.places.are_several()) {
            self.look_again(key, now + PATIENCE, now);
        }
    }

    /// Where those who wait are to be connected to: not dialled for them yet, least dialled in
    /// vain, least used.
    pub(super) fn choose(&mut self, key: PoolKey, now: Instant) -> Option<Endpoint> {
        let pool = self.pools.pools.get(key)?;
        if !pool.places.are_several() {
            return pool.places.list.first().map(|place| place.endpoint);
        }
        let from = self.pools.dice.below(pool.places.list.len());
        let pool = self.pools.pools.get(key)?;
        let list = &pool.places.list;
        let probing = pool.places.probing.iter();
        let probed: Vec<Endpoint> = probing.filter_map(|conn| self.endpoint_of(*conn)).collect();
        let used = |endpoint| {
            let there = |conn: &&ConnKey| self.endpoint_of(**conn) == Some(endpoint);
            pool.conns.iter().filter(there).count()
        };
        let turned = list.iter().cycle().skip(from).take(list.len());
        let best = turned.min_by_key(|place| {
            let resting = place.not_before.filter(|_| place.rests(now));
            (place.tried, resting, probed.contains(&place.endpoint), used(place.endpoint))
        });
        let best = best.map(|place| place.endpoint)?;
        let pool = self.pools.pools.get_mut(key)?;
        pool.places.find(best)?.tried = true;
        Some(best)
    }

    /// Invariant 5.
    pub(super) fn spread(&mut self, key: PoolKey, now: Instant) {
        let Some(pool) = self.pools.pools.get(key) else { return };
        let hungry = pool.dialing.is_some() && !pool.parked.is_empty();
        let wanted = !pool.conns.is_empty() || hungry;
        if !wanted || self.draining || pool.asked.is_some() || !pool.places.are_several() {
            return;
        }
        let dials = || pool.places.probing.iter().chain(&pool.dialing);
        let begun = dials().filter_map(|conn| Some(self.peers.get(*conn)?.heard)).max();
        if let Some(at) = begun.map(|at| at + PATIENCE).filter(|at| now < *at) {
            return self.look_again(key, at, now);
        }
        if pool.places.probing.len() >= PROBES_MAX {
            return;
        }
        let used: Vec<Endpoint> =
            dials().chain(&pool.conns).filter_map(|conn| self.endpoint_of(*conn)).collect();
        let open = |place: &&Place| !used.contains(&place.endpoint);
        if pool.places.list.iter().filter(|place| !open(place)).count() >= SPREAD_MAX
            || pool.is_full()
        {
            return;
        }
        let ready = |place: &&Place| open(place) && !place.rests(now);
        let choices: Vec<Endpoint> =
            pool.places.list.iter().filter(ready).map(|place| place.endpoint).collect();
        if choices.is_empty() {
            let next = pool.places.list.iter().filter(open).filter_map(|place| place.not_before);
            if let Some(at) = next.min() {
                self.look_again(key, at, now);
            }
            return;
        }
        let endpoint = choices[self.pools.dice.below(choices.len())];
        let way = Way::Tcp(endpoint);
        let conn = self.make_upstream(key, way.clone(), now);
        let Some(pool) = self.pools.pools.get_mut(key) else { return };
        pool.places.probing.push(conn);
        let target = pool.target.clone();
        let security = self.security(target);
        self.outputs.push_back(Output::Dial { conn: conn.into(), way, security });
        self.look_again(key, now + PATIENCE, now);
    }

    /// [`Self::spread`] at that time.
    fn look_again(&mut self, key: PoolKey, at: Instant, now: Instant) {
        let Some(pool) = self.pools.pools.get_mut(key) else { return };
        let reminded = pool.places.reminded.filter(|known| *known > now);
        if reminded.is_none_or(|known| at < known) {
            pool.places.reminded = Some(at);
            self.remind(at, Reminder::Spread(key));
        }
    }

    pub(super) fn endpoint_of(&self, conn: ConnKey) -> Option<Endpoint> {
        match &self.peers.get(conn)?.side {
            Side::Upstream { way, .. } => way.endpoint(),
            Side::Downstream { .. } => None,
        }
    }

    /// A dial failed, or a connection broke or is going away.
    pub(super) fn place_down(&mut self, key: PoolKey, endpoint: Option<Endpoint>, now: Instant) {
        if let (Some(pool), Some(endpoint)) = (self.pools.pools.get_mut(key), endpoint) {
            pool.places.down(endpoint, &mut self.pools.dice, now);
        }
    }

    /// Connections that lead where nobody is any more finish their calls and take no more.
    pub(super) fn retire_missing(&mut self, key: PoolKey, is_there: impl Fn(&Way) -> bool) {
        let conns = self.pools.pools.get(key).map(|pool| pool.conns.clone()).unwrap_or_default();
        for conn in conns {
            let Some(peer) = self.peers.get_mut(conn) else { continue };
            let Side::Upstream { way, .. } = &peer.side else { continue };
            if !is_there(way) {
                self.retire_upstream(conn);
            }
        }
    }

    /// The other end of a connection says that it goes. False if nobody will miss it.
    pub(super) fn place_leaves(&mut self, conn: ConnKey, now: Instant) -> bool {
        let Some(peer) = self.peers.get(conn) else { return false };
        let Side::Upstream { pool, way, .. } = &peer.side else { return false };
        let (pool, endpoint) = (*pool, way.endpoint());
        let idle = now.saturating_duration_since(peer.idle_since) >= UNUSED;
        let used = !(peer.calls.is_empty() && idle);
        if used {
            self.place_down(pool, endpoint, now);
        }
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_of_any_number_are_two() {
        let mut dice = Dice(7);
        for count in 2..20 {
            let mut seen = vec![0; count];
            for _ in 0..1000 * count {
                let (one, other) = dice.two_of(count);
                assert!(one < count && other < count && one != other);
                seen[one] += 1;
                seen[other] += 1;
            }
            assert!(seen.iter().all(|n| (1700..2300).contains(n)), "{seen:?}");
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn rests_after_failures_in_a_row_and_is_asked_then() {
        let now = Instant::now();
        let mut health = Health::Well;
        for _ in 0..3 {
            for _ in 1..FAILURES_MAX {
                health = health.failed().unwrap();
            }
            health.succeeded();
        }
        for _ in 1..FAILURES_MAX {
            health = health.failed().unwrap();
            assert!(health.admits(now));
        }
        assert_eq!(health.failed(), Err(0));
        let until = now + PAUSE_FIRST;
        health = Health::Resting { until, times: 0, probing: false };
        assert!(!health.admits(now) && health.admits(until));
        assert_eq!(health.failed(), Ok(health), "a late one says nothing new");
        health.taken(until);
        assert!(!health.admits(until), "one at a time");
        assert_eq!(health.failed(), Err(1));
        health.succeeded();
        assert_eq!(health, Health::Well);
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn pauses_double_until_a_connection_lives() {
        let (mut dice, begun) = (Dice(1), Instant::now());
        let endpoint = Endpoint(([10, 0, 0, 1], 1).into());
        let mut places = Places::default();
        places.replace(&[endpoint]);
        let mut paused = |places: &mut Places, now| {
            places.down(endpoint, &mut dice, now);
            places.replace(&[endpoint]);
            places.list[0].not_before.unwrap() - now
        };
        for times in 0..10 {
            let whole = PAUSE_FIRST.saturating_mul(1 << times).min(PAUSE_MAX);
            let got = paused(&mut places, begun);
            assert!(got <= whole && got >= whole * 3 / 4, "{got:?} of {whole:?}");
        }
        places.up(endpoint, begun);
        assert!(paused(&mut places, begun + PROVED / 2) > PAUSE_MAX / 2, "it did not live long");
        places.up(endpoint, begun);
        assert!(paused(&mut places, begun + PROVED) <= PAUSE_FIRST);
    }
}
