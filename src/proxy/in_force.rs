//! The limits that this worker keeps, by the names under which they are counted, and what of each
//! is used. For somebody who asks.

use super::peer::{Peer, Side};
use super::{
    End, Listener, Proxy, bounds, limits, local, pool, replay, resets, stalled, told, waiting,
};
use crate::http2::{Allowance, Limit};
use crate::observe::report::{Bound, Unit};
use crate::policy::budget;

const CONNECTION: &str = "connection";
const CALLER: &str = "caller's connection";
const SIDECAR: &str = "sidecar's connection";
const WORKER: &str = "worker";

impl Proxy {
    /// A row for each, all that there are; those of `io` are not among them.
    pub(super) fn in_force(&self) -> Vec<Bound> {
        let mut bounds: Vec<Bound> = Limit::ALL.into_iter().map(|it| self.of_engine(it)).collect();
        bounds.extend(self.of_connections());
        bounds.extend(self.of_worker());
        bounds.extend(self.budgets.percent().map(|percent| Bound {
            per_second: Some(budget::RESERVE_PER_SECOND),
            ..bound("retry_budget", "target", percent, Unit::Percent, None)
        }));
        bounds
    }

    /// As callers have it; sidecars may send sections that are larger by what they add.
    fn of_engine(&self, limit: Limit) -> Bound {
        let name = limit.name();
        match limits(&self.snapshot.config, End::Caller).allowance(limit) {
            Allowance::Streams(most) => {
                let used = self.most(|peer| is_downstream(peer).then_some(peer.calls.len()));
                bound(name, CONNECTION, most, Unit::Number, Some(used))
            }
            Allowance::Frames(most) => bound(name, "field block", most, Unit::Number, None),
            Allowance::SectionOctets(most) => {
                bound(name, "field section", most, Unit::Octets, None)
            }
            Allowance::WaitingOctets(most) => bound(name, CONNECTION, most, Unit::Octets, None),
            Allowance::Burst(most, more) => Bound {
                per_second: Some(more),
                ..bound(name, CONNECTION, most, Unit::Number, None)
            },
            Allowance::Time(most) => {
                let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
                bound(name, CONNECTION, most, Unit::Milliseconds, None)
            }
        }
    }

    fn of_connections(&self) -> Vec<Bound> {
        let unread = |listeners: fn(&Listener) -> bool| {
            self.most(|peer| match &peer.side {
                Side::Downstream { listener, .. } => {
                    listeners(listener).then(|| peer.h2.queued_in_all())
                }
                Side::Upstream { .. } => None,
            })
        };
        let held = self.most(|peer| {
            let own = matches!(&peer.side, Side::Downstream { listener, .. }
                if *listener != Listener::Internal);
            (!own).then(|| peer.h2.held_in_all())
        });
        let of_callers = unread(|listener| *listener != Listener::Internal);
        let of_sidecars = unread(|listener| *listener == Listener::Internal);
        let all = of_callers.max(of_sidecars);
        let paced = bound("paced_resets", "upstream connection", resets::BURST, Unit::Number, None);
        let octets = Unit::Octets;
        vec![
            bound("unread_responses", CALLER, bounds::UNREAD_MAX, octets, Some(of_callers)),
            bound(
                "unread_responses",
                SIDECAR,
                bounds::UNREAD_SHARED_MAX,
                octets,
                Some(of_sidecars),
            ),
            bound("unread_connection", CONNECTION, self.bounds.unread, octets, Some(all)),
            bound("stalled_streams", "shared connection", stalled::HELD_SHARE, octets, Some(held)),
            Bound { per_second: Some(resets::PER_SECOND), ..paced },
        ]
    }

    fn of_worker(&self) -> Vec<Bound> {
        let (octets, number) = (Unit::Octets, Unit::Number);
        let (local_octets, local_calls) = self.locals.used();
        let parked = self.pools.pools.values().map(|pool| pool.parked.alive()).max();
        let used = |count: usize| Some(amount(count));
        let max = self.snapshot.config.max_body_size;
        let message = bound("message_size", "message", max, octets, None);
        let lines = bound("log_lines", WORKER, told::LOG_LINES_MAX, number, None);
        vec![
            Bound { most: Some(max).filter(|max| *max > 0), ..message },
            bound("calls", WORKER, self.bounds.calls, number, used(self.calls.len())),
            bound("parked", "target", waiting::WAITING_MAX, number, used(parked.unwrap_or(0))),
            bound(
                "parked_octets",
                WORKER,
                pool::PARKED_OCTETS_MAX,
                octets,
                used(self.parked_octets),
            ),
            bound("replay", WORKER, replay::WORKER_OCTETS_MAX, octets, used(self.keeper.charge())),
            bound("local_octets", WORKER, local::OCTETS_MAX, octets, used(local_octets)),
            bound("local_calls", WORKER, local::ASKED_MAX, number, used(local_calls)),
            Bound { per_second: Some(told::LOG_LINES_MAX), ..lines },
        ]
    }

    /// What the peer has that has most of it.
    fn most<N: Ord + TryInto<u64>>(&self, of: impl Fn(&Peer) -> Option<N>) -> u64 {
        self.peers.values().filter_map(of).max().map_or(0, amount)
    }
}

fn is_downstream(peer: &Peer) -> bool {
    matches!(peer.side, Side::Downstream { .. })
}

fn amount(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}

fn bound(
    limit: &'static str,
    of: &'static str,
    most: impl TryInto<u64>,
    unit: Unit,
    used: Option<u64>,
) -> Bound {
    Bound { limit, of, most: Some(amount(most)), unit, per_second: None, used }
}
