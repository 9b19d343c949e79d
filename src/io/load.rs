//! What each worker tells about its load, in a cell of its own, and which of them has the least.
//!
//! 1. A cell has one writer, its worker, which stores and never swaps; whoever places a
//!    connection reads it then, and nobody reads it otherwise: the line stays with its worker.
//! 2. No two cells share a cache line, nor a pair of lines that are fetched together.
//! 3. A connection counts from the moment it is sent to a worker (`arrived` tells which were
//!    taken), so that limits hold whatever is under way.
//!
//! Refuses to know sockets. The only file of the room that names atomics.

use super::sys;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Busy time counts half after this long.
const HALF_LIFE: Duration = Duration::from_secs(1);

/// Busy time is measured this often at most: the thread's clock costs a system call.
const BUSY_INTERVAL: Duration = Duration::from_millis(5);

/// Shares of few calls or connections say little: they are taken of so many at least.
const FEW: u64 = 8;

/// Where each worker tells its load.
#[derive(Debug)]
pub struct Loads {
    began: Instant,
    cells: Box<[LoadCell]>,
}

/// Two lines of 64 octets: processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct LoadCell {
    connections: AtomicU64,
    handshakes: AtomicU64,
    arrived: AtomicU64,
    calls: AtomicU64,
    /// CPU time, decayed, and when it was told: nanoseconds, and since `began`.
    busy: AtomicU64,
    busy_at: AtomicU64,
}

/// What a cell tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Of both sides, those that are closing too.
    pub(super) connections: u64,
    pub(super) handshakes: u64,
    /// Calls in flight.
    pub(super) calls: u64,
    /// Thousandths of a CPU, lately.
    pub(super) busy: u64,
}

impl Loads {
    /// Of so many workers that do nothing yet.
    #[allow(clippy::disallowed_methods)] // This is one of the rooms that may ask for the time.
    pub fn new(workers: usize) -> Arc<Self> {
        let cells = (0..workers).map(|_| LoadCell::default()).collect();
        Arc::new(Self { began: Instant::now(), cells })
    }

    pub(super) fn workers(&self) -> usize {
        self.cells.len()
    }

    /// How many connections a worker took that were sent to it. To be asked before its load:
    /// what arrived by then is in that.
    pub(super) fn arrived(&self, worker: usize) -> u64 {
        self.cells.get(worker).map_or(0, |cell| cell.arrived.load(Ordering::Acquire))
    }

    pub(super) fn load(&self, worker: usize, now: Instant) -> Load {
        let Some(cell) = self.cells.get(worker) else { return Load::default() };
        let told = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let at = Duration::from_nanos(told(&cell.busy_at));
        let age = now.duration_since(self.began).saturating_sub(at);
        Load {
            connections: told(&cell.connections),
            handshakes: told(&cell.handshakes),
            calls: told(&cell.calls),
            busy: share(decay(told(&cell.busy), age)),
        }
    }
}

/// A worker's own cell.
#[derive(Debug)]
pub(super) struct OwnLoad {
    loads: Arc<Loads>,
    worker: usize,
    clock: std::cell::Cell<Clock>,
}

/// When the thread's CPU time was last looked at, and what it was.
#[derive(Clone, Copy, Debug)]
struct Clock {
    at: Instant,
    /// Until then it is not asked again.
    next: Instant,
    cpu: Duration,
}

/// One of a cell's numbers that rise and fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Connections,
    Handshakes,
}

impl OwnLoad {
    pub(super) fn new(loads: Arc<Loads>, worker: usize, now: Instant) -> Self {
        let clock = std::cell::Cell::new(Clock {
            at: now,
            next: now + BUSY_INTERVAL,
            cpu: sys::thread_time(),
        });
        Self { loads, worker, clock }
    }

    pub(super) fn count(&self, number: Number) -> usize {
        let number = self.number(number).map_or(0, |number| number.load(Ordering::Relaxed));
        usize::try_from(number).unwrap_or(usize::MAX)
    }

    pub(super) fn rise(&self, number: Number) {
        if let Some(number) = self.number(number) {
            add(number, 1);
        }
    }

    pub(super) fn fall(&self, number: Number) {
        if let Some(number) = self.number(number) {
            let now = number.load(Ordering::Relaxed);
            debug_assert!(now > 0, "falls no more often than it rose");
            number.store(now.saturating_sub(1), Ordering::Relaxed);
        }
    }

    /// A connection came that another worker accepted; it is among the connections already.
    pub(super) fn has_arrived(&self) {
        if let Some(cell) = self.cell() {
            let arrived = cell.arrived.load(Ordering::Relaxed) + 1;
            cell.arrived.store(arrived, Ordering::Release);
        }
    }

    pub(super) fn tell_calls(&self, calls: usize) {
        if let Some(cell) = self.cell() {
            cell.calls.store(calls as u64, Ordering::Relaxed);
        }
    }

    /// Once per turn of the loop.
    pub(super) fn tell_busy(&self, now: Instant) {
        let Some(cell) = self.cell() else { return };
        let Clock { at, next, cpu } = self.clock.get();
        if now < next {
            return;
        }
        let passed = now.saturating_duration_since(at);
        let used = sys::thread_time();
        self.clock.set(Clock { at: now, next: now + BUSY_INTERVAL, cpu: used });
        let more = nanos(used.saturating_sub(cpu));
        let busy = decay(cell.busy.load(Ordering::Relaxed), passed).saturating_add(more);
        cell.busy.store(busy, Ordering::Relaxed);
        cell.busy_at.store(nanos(now.duration_since(self.loads.began)), Ordering::Relaxed);
    }

    fn cell(&self) -> Option<&LoadCell> {
        self.loads.cells.get(self.worker)
    }

    fn number(&self, number: Number) -> Option<&AtomicU64> {
        let cell = self.cell()?;
        Some(match number {
            Number::Connections => &cell.connections,
            Number::Handshakes => &cell.handshakes,
        })
    }
}

/// There is one writer, so no locked instruction is needed.
fn add(number: &AtomicU64, more: u64) {
    number.store(number.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What is left of `busy` after `age`.
fn decay(busy: u64, age: Duration) -> u64 {
    (busy as f64 * (-age.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2()) as u64
}

/// Decayed CPU time in thousandths: a thread that never sleeps has 1000.
fn share(busy: u64) -> u64 {
    let full = HALF_LIFE.as_secs_f64() * 1e9 / std::f64::consts::LN_2;
    (busy as f64 * 1e3 / full) as u64
}

/// The workers, the one with the least to do first; of equals, the first one.
///
/// Three shares are added up: of a CPU that was busy lately, of all open calls, of all
/// connections. An idle connection may get busy like the others, so connections alone decide
/// where nothing is known yet; but they are worth less the more of them there are. Of a worker
/// without a call the CPU tells what was, and perhaps the connections are gone that it was for:
/// that is worth less than one connection of few.
pub(super) fn by_load(loads: &[Load]) -> Vec<usize> {
    let calls = loads.iter().map(|load| load.calls).sum::<u64>().max(FEW);
    let connections = loads.iter().map(|load| load.connections).sum::<u64>().max(FEW);
    let score = |load: &Load| {
        let busy = if load.calls == 0 { load.busy.min(1000 / FEW - 1) } else { load.busy };
        busy + load.calls * 1000 / calls + load.connections * 1000 / connections
    };
    let mut order: Vec<usize> = (0..loads.len()).collect();
    order.sort_by_key(|&worker| loads.get(worker).map(score));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Load = Load { connections: 0, handshakes: 0, calls: 0, busy: 0 };

    /// Where `count` connections go, one after the other, that stay idle.
    fn placed(mut loads: Vec<Load>, count: usize) -> Vec<u64> {
        for _ in 0..count {
            let worker = by_load(&loads)[0];
            loads[worker].connections += 1;
        }
        loads.iter().map(|load| load.connections).collect()
    }

    #[test]
    fn idle_connections_are_spread_evenly() {
        assert_eq!(placed(vec![IDLE; 2], 2), [1, 1]);
        assert_eq!(placed(vec![IDLE; 2], 5), [3, 2]);
        assert_eq!(placed(vec![IDLE; 4], 1000), [250; 4]);
        // Noise of the start and of handshakes does not send two to one worker.
        let noisy = Load { busy: 100, ..IDLE };
        assert_eq!(placed(vec![noisy, IDLE], 2), [1, 1]);
        assert_eq!(placed(vec![IDLE, noisy], 2), [1, 1]);
    }

    #[test]
    fn a_busy_worker_gets_fewer() {
        let busy = Load { connections: 1, calls: 50, busy: 900, ..IDLE };
        assert_eq!(placed(vec![busy, IDLE], 15), [1, 15]);
        let half = Load { connections: 1, calls: 1, busy: 400, ..IDLE };
        let placed = placed(vec![half, IDLE], 15);
        assert!((3..=5).contains(&placed[0]), "{placed:?}");
    }

    /// Who was busy for connections that are gone is as good as the others.
    #[test]
    fn what_was_does_not_keep_connections_away() {
        let was_busy = Load { busy: 900, ..IDLE };
        assert_eq!(placed(vec![was_busy, IDLE], 2), [1, 1]);
        assert_eq!(placed(vec![IDLE, was_busy], 4), [2, 2]);
        // One call that is still there says that it goes on.
        let is_busy = Load { calls: 1, ..was_busy };
        assert_eq!(placed(vec![is_busy, IDLE], 2), [0, 2]);
    }

    #[test]
    fn many_idle_connections_do_not_outweigh_work() {
        let busy = Load { connections: 990, calls: 8, busy: 800, ..IDLE };
        let full_of_idle = Load { connections: 1000, ..IDLE };
        assert_eq!(by_load(&[busy, full_of_idle]), [1, 0]);
        let streams = Load { calls: 100, connections: 1, ..IDLE };
        let few = Load { calls: 10, connections: 2, ..IDLE };
        assert_eq!(by_load(&[streams, few]), [1, 0]);
    }

    #[test]
    fn busy_time_fades() {
        let (second, full) = (Duration::from_secs(1), 1_442_695_040);
        assert_eq!(share(full), 999);
        assert_eq!(share(decay(full, second)), 499);
        assert_eq!(share(decay(full, 60 * second)), 0);
    }

    /// A thread that does nothing but work comes near 1000, and tells it.
    #[test]
    #[allow(clippy::disallowed_methods)]
    fn a_worker_tells_what_it_does() {
        let loads = Loads::new(2);
        let own = OwnLoad::new(Arc::clone(&loads), 1, Instant::now());
        own.rise(Number::Connections);
        own.rise(Number::Handshakes);
        own.rise(Number::Connections);
        own.fall(Number::Handshakes);
        own.has_arrived();
        let (began, cpu) = (Instant::now(), sys::thread_time());
        while sys::thread_time() - cpu < Duration::from_millis(40) {
            own.tell_busy(Instant::now());
        }
        own.tell_calls(3);
        let load = loads.load(1, Instant::now());
        assert_eq!((load.connections, load.handshakes, load.calls), (2, 0, 3));
        assert_eq!(loads.arrived(1), 1);
        // At least 30 of the 40 ms were told, of which little has faded unless others held us up.
        assert!(load.busy >= 10 || began.elapsed() > Duration::from_secs(1), "{load:?}");
        assert_eq!(loads.load(0, Instant::now()), IDLE);
    }

    #[test]
    fn cells_are_apart() {
        assert_eq!(size_of::<LoadCell>(), 128);
        let loads = Loads::new(2);
        assert_eq!(std::ptr::from_ref(&loads.cells[1]) as usize % 128, 0);
    }
}
