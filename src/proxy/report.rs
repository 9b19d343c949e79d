//! What this worker looks like from inside, for somebody who asks.

use super::peer::{Farewell, Peer, Side, Stage};
use super::{Listener, Proxy};
use crate::observe::cells::Gauge;
use crate::observe::report::{Downstream, Pool, ROWS_MAX, Upstream, WorkerReport};
use std::time::Instant;

impl Proxy {
    /// Takes time with connections and pools, up to the limit; changes nothing.
    pub fn report(&self, now: Instant) -> WorkerReport {
        let mut report = WorkerReport {
            calls: self.calls.len(),
            waiting: usize::try_from(self.cells.gauge(Gauge::WaitingCalls)).unwrap_or_default(),
            limits: self.in_force(),
            ..WorkerReport::default()
        };
        let mut rows = 0;
        for peer in self.peers.values() {
            if let Some(downstream) = downstream(peer, now) {
                rows += 1;
                match rows <= ROWS_MAX {
                    true => report.downstream.push(downstream),
                    false => report.left_out += 1,
                }
            }
        }
        for pool in self.pools.pools.values() {
            let app = match &pool.target {
                Some(target) => target.to_string(),
                None => self.snapshot.config.app_id.to_string(),
            };
            let mut row = Pool {
                app,
                waiting: pool.parked.iter().filter(|call| self.calls.contains_key(*call)).count(),
                connections: Vec::new(),
            };
            let known = pool.conns.iter().chain(&pool.dialing).chain(&pool.places.probing);
            for peer in known.filter_map(|key| self.peers.get(*key)) {
                rows += 1;
                match upstream(peer, now).filter(|_| rows <= ROWS_MAX) {
                    Some(upstream) => row.connections.push(upstream),
                    None => report.left_out += 1,
                }
            }
            if !row.connections.is_empty() || row.waiting > 0 {
                report.pools.push(row);
            }
        }
        report
    }
}

fn downstream(peer: &Peer, now: Instant) -> Option<Downstream> {
    let Side::Downstream { listener, peer: address, caller } = &peer.side else { return None };
    Some(Downstream {
        port: match listener {
            Listener::Api => "api",
            Listener::Internal => "internal",
            Listener::Forward(_) => "forward",
        },
        peer: address.map_or_else(|| "unix".to_owned(), |address| address.to_string()),
        spiffe_id: caller.name().map(str::to_owned),
        state: match peer.farewell {
            Farewell::None => "open",
            Farewell::Noticed { .. } | Farewell::Final | Farewell::Overdue { .. } => "leaving",
        },
        streams: peer.calls.len(),
        idle_ms: idle_ms(peer, now),
    })
}

fn upstream(peer: &Peer, now: Instant) -> Option<Upstream> {
    let Side::Upstream { stage, .. } = &peer.side else { return None };
    Some(Upstream {
        endpoint: peer.named().1,
        state: match stage {
            Stage::Dialing => "dialing",
            Stage::Greeting { .. } => "greeting",
            Stage::Ready => "ready",
            Stage::Retired => "retired",
        },
        streams: peer.calls.len(),
        idle_ms: idle_ms(peer, now),
    })
}

fn idle_ms(peer: &Peer, now: Instant) -> Option<u64> {
    let idle = now.saturating_duration_since(peer.idle_since);
    peer.calls.is_empty().then(|| u64::try_from(idle.as_millis()).unwrap_or(u64::MAX))
}
