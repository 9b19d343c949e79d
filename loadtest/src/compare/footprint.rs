//! W6, what a pair of sidecars holds, and W7, how soon it is of use (W7P: without TLS between the
//! hops): each on a pair of its own.

use super::probe::{self, Held};
use super::site::{APP_ID, Site};
use crate::account::{Memory, Usage};
use crate::topology::{self, Between, Kind, PATIENCE, Running, until};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Held open at once.
const CONNECTIONS: usize = 1000;
/// Held before these and used once, so that what a program has for all connections together (code,
/// pools) is in memory before what each of them costs is read.
const CONNECTIONS_BEFORE: usize = 100;
/// Let pass before memory is read: some tidy up after their start, and after calls.
const REST: Duration = Duration::from_secs(2);
/// Memory counts as settled when so many looks in a row saw no growth.
const STEADY_LOOKS: u32 = 25;
const SETTLING_MAX: Duration = Duration::from_secs(2);

/// W6: octets of both sidecars together.
#[derive(Clone, Debug, Serialize)]
pub struct Footprint {
    pub round: usize,
    pub topology: &'static str,
    /// After the start, one call and two seconds of rest.
    pub idle_resident: u64,
    pub idle_anonymous: u64,
    pub idle_proportional: u64,
    pub connections: usize,
    /// Growth for each connection that has exchanged settings and no call.
    pub octets_per_idle_connection: f64,
    /// The same, after one call on each; both, and what they are compared with, after a rest.
    pub octets_per_used_connection: f64,
}

/// W7: from before the first exec to the first call answered through the chain.
#[derive(Clone, Debug, Serialize)]
pub struct Start {
    pub round: usize,
    pub topology: &'static str,
    /// mTLS or plaintext.
    pub between: &'static str,
    pub wall_ms: f64,
    /// Both sidecars.
    pub cpu_ms: f64,
}

pub fn memory(site: &Site<'_>, kind: Kind) -> Result<Footprint, String> {
    let in_context = |error: String| format!("w6 through {}: {error}", kind.name());
    let way = rested(site, kind)?;
    let idle = settled(&way).map_err(in_context)?;
    let mut held = Held::none(way.entry).map_err(in_context)?;
    held.grow(CONNECTIONS_BEFORE, 0, &way.metadata).map_err(in_context)?;
    held.call_each(&way.metadata).map_err(in_context)?;
    rest();
    let base = settled(&way).map_err(in_context)?;
    held.grow(CONNECTIONS_BEFORE + CONNECTIONS, 0, &way.metadata).map_err(in_context)?;
    rest();
    let opened = settled(&way).map_err(in_context)?;
    held.call_each(&way.metadata).map_err(in_context)?;
    rest();
    let used = settled(&way).map_err(in_context)?;
    let growth = |now: Memory| (now.resident as f64 - base.resident as f64) / CONNECTIONS as f64;
    Ok(Footprint {
        round: 0,
        topology: way.name,
        idle_resident: idle.resident,
        idle_anonymous: idle.anonymous,
        idle_proportional: idle.proportional,
        connections: CONNECTIONS,
        octets_per_idle_connection: growth(opened),
        octets_per_used_connection: growth(used),
    })
}

/// A pair that has answered one call and then had nothing to do for a while.
pub fn rested(site: &Site<'_>, kind: Kind) -> Result<Running, String> {
    let way = site.start(kind)?;
    rest();
    Ok(way)
}

/// Lets time pass, unless somebody interrupts. Less than a peer's patience with a PING: a client
/// stands still meanwhile.
pub fn rest() {
    let _ = until(REST, || None::<()>);
}

/// Memory once it has stopped to change.
pub fn settled(way: &Running) -> Result<Memory, String> {
    let mut last = Memory::default();
    let mut looks = 0;
    let steady = until(SETTLING_MAX, || {
        let memory = match Memory::of(&way.sidecars) {
            Ok(memory) => memory,
            Err(error) => return Some(Err(format!("cannot read its memory: {error}"))),
        };
        looks = if memory.resident == last.resident { looks + 1 } else { 0 };
        last = memory;
        (looks >= STEADY_LOOKS).then_some(Ok(memory))
    });
    // Some never settle (garbage collectors): the last look then.
    steady.unwrap_or(Ok(last))
}

#[expect(clippy::disallowed_methods, reason = "a start is timed")]
pub fn start(site: &Site<'_>, kind: Kind, between: Between) -> Result<Start, String> {
    // What is shared by all pairs is there before the clock starts.
    site.ingredients.prepare(kind, between).map_err(|e| e.to_string())?;
    let begin = Instant::now();
    let way = topology::launch(kind, between, site.address, APP_ID, site.ingredients);
    let mut way = way.map_err(|e| e.to_string())?;
    let answered = probe::first_answer(way.entry, &way.metadata, PATIENCE);
    let wall = begin.elapsed();
    answered.map_err(|error| match way.check() {
        Ok(()) => format!("start of {}, {}: {error}", kind.name(), between.name()),
        Err(gone) => gone.to_string(),
    })?;
    let usage = Usage::of(&way.sidecars).map_err(|e| format!("cannot read its CPU time: {e}"))?;
    Ok(Start {
        round: 0,
        topology: way.name,
        between: between.name(),
        wall_ms: wall.as_secs_f64() * 1e3,
        cpu_ms: usage.cpu_ns as f64 / 1e6,
    })
}
