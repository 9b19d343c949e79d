//! One worker's counters: plain numbers behind interned labels, handed over on scrape.
//!
//! 1. Only the owning worker writes; nothing is shared, nothing is atomic.
//! 2. Handing over moves what was counted since the last time, however much that is: control adds
//!    it up, and gives the room back. What is interned stays, and so do its IDs.
//! 3. Label sets are bounded: [`METHODS_MAX`] pairs of at most [`LABEL_OCTETS_MAX`] octets; what
//!    does not fit is counted under [`MethodId::OTHER`].
//! 4. Finding a pair that was seen costs one hash of its bytes and no allocation.
//!
//! Who records what (spec of Dapr's `pkg/api/grpc/proxy/handler.go` and
//! `pkg/diagnostics/{service,grpc}_monitoring.go`): only calls that carry `dapr-app-id` on the
//! API port, under that raw value, whatever `dapr-callee-app-id` says.

mod calls;

use crate::observe::callers::{self, Callers};
pub use crate::observe::goodbye::Goodbye;
use crate::observe::histogram::{Bounds, LATENCY_BOUNDS, MICROS_BOUNDS, SIZE_BOUNDS, Unit};
use crate::observe::policies::{PolicyCells, TargetCells};
pub use calls::{HopCells, MethodCells, Outcomes};
use calls::{entry, known};
use std::sync::Arc;
use std::time::Duration;

/// Pairs of app ID and path that one worker tells apart.
pub const METHODS_MAX: usize = 512;
/// Longest app ID or path that is kept.
pub const LABEL_OCTETS_MAX: usize = 256;
/// Names of limits that were hit.
const LIMITS_MAX: usize = 64;
/// A power of two, so full to a quarter at most: probing stays short.
const SLOTS: usize = 2048;
const _: () = assert!(SLOTS.is_power_of_two() && SLOTS >= 4 * METHODS_MAX);

/// An interned (`dapr-app-id`, method path) pair of this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MethodId(pub u32);

impl MethodId {
    /// What did not fit.
    pub const OTHER: Self = Self(0);
}

/// Which port a call came in by: the API port (and forward ports), or the internal port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    Outbound,
    Inbound,
}

/// The `type` label of Dapr's service invocation series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallKind {
    Unary,
    Streaming,
}

/// A number that rises and falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gauge {
    DownstreamConnections,
    UpstreamConnections,
    /// Streams of both sides: a proxied call has two.
    Streams,
    OpenCalls,
    /// Of those, the ones without a stream to their callee.
    WaitingCalls,
}

const GAUGES: usize = Gauge::WaitingCalls as usize + 1;

/// An interned pair.
#[derive(Clone, Debug)]
struct Pair {
    hash: u64,
    /// Written once, before anyone else knows of it.
    dst_app_id: Arc<[u8]>,
    path: Arc<[u8]>,
}

/// What connections of one side carried: octets of HTTP/2, as TLS opened them or has yet to seal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Octets {
    pub read: u64,
    pub written: u64,
}

/// What was counted.
#[derive(Clone, Debug, Default)]
struct Counts {
    /// By the pair's index; shorter than the list of pairs when the last ones counted nothing.
    methods: Vec<MethodCells>,
    hops: [HopCells; 2],
    limits: Vec<(&'static str, u64)>,
    replays: u64,
    goodbyes: Vec<(Goodbye, u64)>,
    octets: [Octets; 2],
}

/// See the file's text.
#[derive(Clone, Debug)]
pub struct Cells {
    pairs: Vec<Pair>,
    /// Open addressing, linear probing; 0 is free, else an index into `pairs`.
    slots: Box<[u32]>,
    /// Pairs that were interned since the last [`Self::hand_over`].
    fresh: Vec<Pair>,
    counts: Counts,
    /// Nothing: room for what is counted once this is handed over.
    spare: Counts,
    policies: PolicyCells,
    gauges: [i64; GAUGES],
    pub callers: Callers,
    /// Of Dapr's latencies, in milliseconds.
    latency_bounds: Bounds,
}

/// What a worker counted since it was last asked, and how things stand.
#[derive(Debug, Default)]
pub struct Increment {
    fresh: Vec<Pair>,
    counts: Counts,
    policies: PolicyCells,
    gauges: [i64; GAUGES],
    callers: callers::Increment,
}

impl Default for Cells {
    fn default() -> Self {
        Self::new(LATENCY_BOUNDS.values())
    }
}

impl Cells {
    pub fn new(latency_bounds: &[u64]) -> Self {
        // The first entry is OTHER; Dapr's label values are app IDs, so `_other` cannot collide
        // with anything but an app that asks for it.
        let name: Arc<[u8]> = b"_other".as_slice().into();
        let other = Pair { hash: 0, dst_app_id: Arc::clone(&name), path: name };
        Self {
            pairs: vec![other],
            slots: vec![0; SLOTS].into(),
            fresh: Vec::new(),
            counts: Counts::default(),
            spare: Counts::default(),
            policies: PolicyCells::default(),
            gauges: [0; GAUGES],
            callers: Callers::default(),
            latency_bounds: Bounds::new(latency_bounds),
        }
    }

    /// Interns; cheap when seen before.
    pub fn method(&mut self, dst_app_id: &[u8], path: &[u8]) -> MethodId {
        let hash = hash(dst_app_id, path);
        let mut slot = hash as usize % SLOTS;
        // Bounded: a quarter of the slots at most is taken.
        while let Some(&index) = self.slots.get(slot) {
            if index == 0 {
                return self.intern(slot, hash, dst_app_id, path);
            }
            if self.pairs.get(index as usize).is_some_and(|m| m.is(hash, dst_app_id, path)) {
                return MethodId(index);
            }
            slot = (slot + 1) % SLOTS;
        }
        MethodId::OTHER
    }

    fn intern(&mut self, slot: usize, hash: u64, dst_app_id: &[u8], path: &[u8]) -> MethodId {
        let long = dst_app_id.len().max(path.len()) > LABEL_OCTETS_MAX;
        if long || self.pairs.len() >= METHODS_MAX {
            return MethodId::OTHER;
        }
        let index = self.pairs.len() as u32;
        let pair = Pair { hash, dst_app_id: dst_app_id.into(), path: path.into() };
        self.pairs.push(pair.clone());
        self.fresh.push(pair);
        self.slots[slot] = index;
        MethodId(index)
    }

    /// An attempt was sent to a target.
    pub fn sent(&mut self, hop: Hop, method: MethodId, kind: CallKind) {
        if hop == Hop::Outbound {
            self.of(method).0.sent[kind as usize] += 1;
        }
    }

    /// An attempt that was sent ended: every unary one, and a streaming one whose stream never
    /// stood (dial or handshake failure). Others are not told to Dapr's series.
    pub fn received(
        &mut self,
        hop: Hop,
        method: MethodId,
        kind: CallKind,
        status: u8,
        latency: Duration,
    ) {
        if hop != Hop::Outbound {
            return;
        }
        let status = known(status);
        let (cells, bounds) = self.of(method);
        match kind {
            CallKind::Unary => {
                entry(&mut cells.received, status).record(latency, bounds);
            }
            CallKind::Streaming => *entry(&mut cells.handshakes_failed, status) += 1,
        }
    }

    /// A call ended with a gRPC status code.
    pub fn completed(
        &mut self,
        hop: Hop,
        method: MethodId,
        _kind: CallKind,
        status: u8,
        latency: Duration,
    ) {
        self.ended(hop, status, latency);
        if hop == Hop::Outbound {
            // Dapr truncates to whole milliseconds and takes bounds as exclusive, which fills the
            // same buckets.
            let (cells, bounds) = self.of(method);
            entry(&mut cells.completed, known(status)).record(latency, bounds);
        }
    }

    /// One of Dapr's own unary methods was answered.
    pub fn sized(&mut self, method: MethodId, request: usize, response: usize) {
        let sizes = self.of(method).0.sizes.get_or_insert_default();
        sizes.requests.record_below(request as u64, &SIZE_BOUNDS);
        sizes.responses.record_below(response as u64, &SIZE_BOUNDS);
    }

    /// A call without `dapr-app-id` ended: no series of Dapr's tells it, ours do.
    pub fn ended(&mut self, hop: Hop, status: u8, latency: Duration) {
        let cells = &mut self.counts.hops[hop as usize];
        if let Some(calls) = cells.calls.get_mut(usize::from(known(status))) {
            *calls += 1;
        }
        cells.latency_us.record(latency, Unit::Microseconds, &MICROS_BOUNDS);
    }

    pub fn rise(&mut self, gauge: Gauge) {
        self.gauges[gauge as usize] += 1;
    }

    pub fn fall(&mut self, gauge: Gauge) {
        self.gauges[gauge as usize] -= 1;
    }

    pub fn set(&mut self, gauge: Gauge, value: i64) {
        self.gauges[gauge as usize] = value;
    }

    /// A call was made again unseen.
    pub fn replayed(&mut self) {
        self.counts.replays += 1;
    }

    pub fn goodbye(&mut self, goodbye: Goodbye, times: u32) {
        *entry(&mut self.counts.goodbyes, goodbye) += u64::from(times);
    }

    /// Once per read.
    #[inline]
    pub fn read(&mut self, downstream: bool, octets: usize) {
        self.counts.octets[usize::from(downstream)].read += octets as u64;
    }

    /// Once per write.
    #[inline]
    pub fn written(&mut self, downstream: bool, octets: usize) {
        self.counts.octets[usize::from(downstream)].written += octets as u64;
    }

    /// What Resiliency policies do.
    pub fn policies(&mut self) -> &mut PolicyCells {
        &mut self.policies
    }

    /// What they did, by target.
    pub fn targets(&self) -> impl Iterator<Item = (&[u8], &TargetCells)> {
        self.policies.targets()
    }

    /// See [`PolicyCells::folded`].
    pub fn targets_folded(&self) -> u64 {
        self.policies.folded()
    }

    /// A named limit was hit.
    pub fn limit_hit(&mut self, limit: &'static str) {
        let limits = &mut self.counts.limits;
        if limits.len() < LIMITS_MAX || limits.iter().any(|(name, _)| *name == limit) {
            *entry(limits, limit) += 1;
        }
    }

    /// Everything counted since the last time. Costs the same however much that is.
    pub fn hand_over(&mut self) -> Increment {
        Increment {
            fresh: std::mem::take(&mut self.fresh),
            counts: std::mem::replace(&mut self.counts, std::mem::take(&mut self.spare)),
            policies: self.policies.hand_over(),
            gauges: self.gauges,
            callers: self.callers.hand_over(),
        }
    }

    /// Takes the room of an earlier increment for the next one, or what is counted after a scrape
    /// would be in new memory, a piece at a time.
    pub fn reuse(&mut self, cleared: Increment) {
        self.spare = cleared.counts;
    }

    /// Adds what the worker handed over of which these cells tell. Every increment must come, in
    /// order: the IDs of its pairs are then those of these.
    pub fn add(&mut self, increment: &Increment) {
        for pair in &increment.fresh {
            self.method(&pair.dst_app_id, &pair.path);
        }
        self.fresh.clear();
        self.gauges = increment.gauges;
        self.callers.add(&increment.callers);
        for (index, from) in (0_u32..).zip(&increment.counts.methods) {
            self.of(MethodId(index)).0.merge(from);
        }
        self.counts.merge(&increment.counts);
        self.policies.add(&increment.policies);
    }

    /// These are the sum of those, and of nothing else. What was told once goes on being told: one
    /// worker's new labels take no place that another's have.
    pub fn sum_up<'a>(&mut self, workers: impl Iterator<Item = &'a Self>) {
        self.counts.clear();
        self.policies.clear();
        self.gauges = [0; GAUGES];
        self.callers.clear();
        workers.for_each(|worker| self.merge(worker));
    }

    /// Adds another worker's cells to these.
    fn merge(&mut self, other: &Self) {
        for (index, (pair, from)) in other.pairs.iter().zip(&other.counts.methods).enumerate() {
            let id = match index {
                0 => MethodId::OTHER,
                _ => self.method(&pair.dst_app_id, &pair.path),
            };
            self.of(id).0.merge(from);
        }
        self.fresh.clear();
        for (gauge, more) in self.gauges.iter_mut().zip(other.gauges) {
            *gauge += more;
        }
        self.callers.merge(&other.callers);
        self.counts.merge(&other.counts);
        self.policies.merge(&other.policies);
    }

    /// Calls whose pair did not fit.
    pub fn folded(&self) -> u64 {
        let other = self.counts.methods.first();
        let completed = other.into_iter().flat_map(|other| &other.completed);
        completed.map(|(_, outcomes)| outcomes.count).sum()
    }

    /// The pairs that counted something: app ID, path and what it was.
    pub fn methods(&self) -> impl Iterator<Item = (&[u8], &[u8], &MethodCells)> {
        let labelled = self.pairs.iter().zip(&self.counts.methods);
        labelled.map(|(pair, cells)| (&*pair.dst_app_id, &*pair.path, cells))
    }

    /// App IDs and paths that are told apart, counted or not.
    pub fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.pairs.iter().map(|pair| (&*pair.dst_app_id, &*pair.path))
    }

    pub fn hop(&self, hop: Hop) -> &HopCells {
        &self.counts.hops[hop as usize]
    }

    pub fn gauge(&self, gauge: Gauge) -> i64 {
        self.gauges[gauge as usize]
    }

    /// Calls that were made again unseen.
    pub fn replays(&self) -> u64 {
        self.counts.replays
    }

    /// Of connections of those who call us, or else of those whom we call.
    pub fn octets(&self, downstream: bool) -> Octets {
        self.counts.octets[usize::from(downstream)]
    }

    /// How often peers and we said goodbye, and how.
    pub fn goodbyes(&self) -> &[(Goodbye, u64)] {
        &self.counts.goodbyes
    }

    pub fn limits(&self) -> &[(&'static str, u64)] {
        &self.counts.limits
    }

    /// With the bounds of its latencies.
    fn of(&mut self, method: MethodId) -> (&mut MethodCells, &Bounds) {
        // An ID of another worker's cells would be a mistake of ours: counted as OTHER.
        let index = method.0 as usize;
        let index = if index < self.pairs.len() { index } else { 0 };
        let methods = &mut self.counts.methods;
        if index >= methods.len() {
            methods.resize_with(index + 1, MethodCells::default);
        }
        (&mut methods[index], &self.latency_bounds)
    }
}

impl Increment {
    /// Nothing is left of it but its room, for [`Cells::reuse`].
    pub fn clear(&mut self) {
        self.counts.clear();
    }

    pub fn gauge(&self, gauge: Gauge) -> i64 {
        self.gauges[gauge as usize]
    }

    /// Pairs that counted something, then or before.
    pub fn methods(&self) -> usize {
        self.counts.methods.len()
    }
}

impl Counts {
    /// Their memory stays.
    fn clear(&mut self) {
        let Self { methods, hops, limits, replays, goodbyes, octets } = self;
        methods.iter_mut().for_each(MethodCells::clear);
        hops.iter_mut().for_each(HopCells::clear);
        limits.iter_mut().for_each(|(_, hits)| *hits = 0);
        *replays = 0;
        goodbyes.iter_mut().for_each(|(_, count)| *count = 0);
        *octets = Default::default();
    }

    /// All but the methods, whose IDs may differ.
    fn merge(&mut self, other: &Self) {
        for (hop, from) in self.hops.iter_mut().zip(&other.hops) {
            hop.merge(from);
        }
        for &(limit, hits) in &other.limits {
            *entry(&mut self.limits, limit) += hits;
        }
        self.replays += other.replays;
        for &(goodbye, count) in &other.goodbyes {
            *entry(&mut self.goodbyes, goodbye) += count;
        }
        for (octets, more) in self.octets.iter_mut().zip(other.octets) {
            octets.read += more.read;
            octets.written += more.written;
        }
    }
}

impl Pair {
    fn is(&self, hash: u64, dst_app_id: &[u8], path: &[u8]) -> bool {
        self.hash == hash && *self.dst_app_id == *dst_app_id && *self.path == *path
    }
}

/// FNV-1a with a final mix. Collisions that a caller makes on purpose cost it probes over
/// [`METHODS_MAX`] entries, each a comparison of hashes.
fn hash(dst_app_id: &[u8], path: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for &octet in dst_app_id.iter().chain(&[0]).chain(path) {
        hash = (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::callers::CALLERS_MAX;
    use crate::observe::policies::{Applied, TARGETS_MAX};

    #[test]
    fn interns_each_pair_once() {
        let mut cells = Cells::default();
        let a = cells.method(b"server", b"/p.S/M");
        assert_ne!(a, MethodId::OTHER);
        assert_eq!(cells.method(b"server", b"/p.S/M"), a);
        assert_ne!(cells.method(b"server/", b"p.S/M"), a);
        assert_ne!(cells.method(b"server", b"/p.S/N"), a);
    }

    #[test]
    fn what_does_not_fit_is_other() {
        let mut cells = Cells::default();
        for n in 1..METHODS_MAX {
            let path = format!("/p.S/M{n}");
            assert_ne!(cells.method(b"a", path.as_bytes()), MethodId::OTHER);
        }
        for n in 0..2 * METHODS_MAX {
            let id = cells.method(b"a", format!("/p.S/more{n}").as_bytes());
            assert_eq!(id, MethodId::OTHER);
            cells.completed(Hop::Outbound, id, CallKind::Unary, (n % 3) as u8, Duration::ZERO);
        }
        let seen = cells.method(b"a", b"/p.S/M7");
        assert_ne!(seen, MethodId::OTHER);
        cells.completed(Hop::Outbound, seen, CallKind::Unary, 0, Duration::ZERO);
        assert_eq!(cells.pairs.len(), METHODS_MAX);
        assert_eq!(cells.folded(), 2 * METHODS_MAX as u64);
        let (_, path, other) = cells.methods().next().unwrap();
        assert_eq!((path, other.completed.len()), (b"_other".as_slice(), 3));
        let long = vec![b'x'; LABEL_OCTETS_MAX + 1];
        assert_eq!(Cells::default().method(&long, b"/"), MethodId::OTHER);
    }

    #[test]
    fn merges_by_label_not_by_id() {
        let second = Duration::from_secs(1);
        let mut one = Cells::default();
        one.method(b"x", b"/first/here");
        let a = one.method(b"a", b"/p.S/M");
        one.sent(Hop::Outbound, a, CallKind::Unary);
        one.completed(Hop::Outbound, a, CallKind::Unary, 0, second);
        let mut two = Cells::default();
        let a = two.method(b"a", b"/p.S/M");
        two.sent(Hop::Outbound, a, CallKind::Unary);
        two.completed(Hop::Outbound, a, CallKind::Unary, 99, second);
        two.rise(Gauge::OpenCalls);
        two.limit_hit("streams");
        one.merge(&two);
        let id = one.method(b"a", b"/p.S/M");
        let (_, _, cells) = one.methods().nth(id.0 as usize).unwrap();
        assert_eq!(cells.sent, [2, 0]);
        let counts: Vec<_> = cells.completed.iter().map(|(s, o)| (*s, o.count)).collect();
        assert_eq!(counts, [(0, 1), (2, 1)], "a code that does not exist is Unknown");
        assert_eq!(one.gauge(Gauge::OpenCalls), 1);
        assert_eq!(one.limits(), [("streams", 1)]);
    }

    /// The first worker has its methods later than the second, and they are too many together.
    #[test]
    fn who_is_told_stays_told() {
        let mut workers = [Cells::default(), Cells::default()];
        let mut sum = Cells::default();
        let call = |worker: &mut Cells, path: String| {
            let id = worker.method(b"a", path.as_bytes());
            worker.completed(Hop::Outbound, id, CallKind::Unary, 0, Duration::ZERO);
            let caller = worker.callers.intern(&path, "", "");
            worker.callers.called(caller);
            let target = worker.policies().target(path.as_bytes());
            worker.policies().applied(target, Applied::Retry);
        };
        (0..500).for_each(|n| call(&mut workers[1], format!("/late/{n}")));
        for _ in 0..2 {
            sum.sum_up(workers.iter());
            let told = |path: &[u8]| sum.methods().any(|(_, p, m)| p == path && counted(m) == 1);
            assert!((0..500).all(|n| told(format!("/late/{n}").as_bytes())));
            assert!(sum.targets().any(|(name, t)| name == b"/late/499" && t.applied == [0, 1]));
            let late = sum.callers.calls().filter(|(names, _)| names[0].starts_with("/late/"));
            assert!(late.count() == 500);
            (0..500).for_each(|n| call(&mut workers[0], format!("/early/{n}")));
        }
        // Those of `_other` are the first one's.
        assert_eq!(sum.folded(), 1000 - (METHODS_MAX as u64 - 1));
        assert_eq!(sum.callers.folded(), 1000 - (CALLERS_MAX as u64 - 2));
        assert_eq!(sum.targets_folded(), 1000 - (TARGETS_MAX as u64 - 1));
    }

    fn counted(cells: &MethodCells) -> u64 {
        cells.completed.iter().map(|(_, outcomes)| outcomes.count).sum()
    }

    /// As many pairs as there may be, each with unary outcomes of several codes.
    fn count_everything(cells: &mut Cells) {
        for n in 1..METHODS_MAX {
            let path = format!("/package.Service/Method{n}");
            let id = cells.method(b"callee", path.as_bytes());
            for status in 0..8 {
                let took = Duration::from_millis(n as u64);
                cells.sent(Hop::Outbound, id, CallKind::Unary);
                cells.received(Hop::Outbound, id, CallKind::Unary, status, took);
                cells.completed(Hop::Outbound, id, CallKind::Unary, status, took);
            }
        }
    }

    #[test]
    fn increments_add_up_to_what_was_counted() {
        let (mut worker, mut whole, mut control) =
            (Cells::default(), Cells::default(), Cells::default());
        for round in 0..3 {
            count_everything(&mut worker);
            count_everything(&mut whole);
            worker.rise(Gauge::OpenCalls);
            whole.rise(Gauge::OpenCalls);
            whole.method(b"late", &[b'0' + round]);
            let late = worker.method(b"late", &[b'0' + round]);
            assert_eq!(late, MethodId::OTHER, "all pairs are taken");
            worker.ended(Hop::Inbound, 0, Duration::ZERO);
            whole.ended(Hop::Inbound, 0, Duration::ZERO);
            worker.limit_hit("calls");
            whole.limit_hit("calls");
            control.add(&worker.hand_over());
        }
        control.add(&worker.hand_over());
        assert_eq!(format!("{:?}", control.counts), format!("{:?}", whole.counts));
        assert_eq!((control.gauges, control.slots), (whole.gauges, whole.slots));
    }

    /// What is counted is in one of two places, by turns, once they are there.
    #[test]
    fn room_is_used_again() {
        let (mut worker, mut whole, mut control) =
            (Cells::default(), Cells::default(), Cells::default());
        let mut rooms = Vec::new();
        for _ in 0..6 {
            for cells in [&mut worker, &mut whole] {
                count_everything(cells);
                cells.sized(MethodId(1), 5, 7);
                cells.ended(Hop::Inbound, 0, Duration::ZERO);
                cells.limit_hit("calls");
                cells.replayed();
                cells.read(true, 9);
                let (sent, of_connection) = (true, false);
                let goodbye = Goodbye { sent, of_connection, downstream: true, code: "CANCEL" };
                cells.goodbye(goodbye, 3);
            }
            let methods = &worker.counts.methods;
            rooms.push((methods.as_ptr() as usize, methods[7].completed.as_ptr() as usize));
            let mut increment = worker.hand_over();
            control.add(&increment);
            increment.clear();
            worker.reuse(increment);
        }
        assert_eq!(format!("{:?}", control.counts), format!("{:?}", whole.counts));
        assert_eq!((rooms[4], rooms[5]), (rooms[2], rooms[3]), "{rooms:?}");
    }

    /// IDs that calls in flight hold stay what they were.
    #[test]
    fn an_id_outlives_a_scrape() {
        let (mut worker, mut control) = (Cells::default(), Cells::default());
        worker.method(b"a", b"/first");
        let id = worker.method(b"a", b"/second");
        control.add(&worker.hand_over());
        worker.completed(Hop::Outbound, id, CallKind::Unary, 0, Duration::ZERO);
        control.add(&worker.hand_over());
        let told: Vec<_> =
            control.methods().map(|(_, path, m)| (path, m.completed.len())).collect();
        assert_eq!(told, [(b"_other".as_slice(), 0), (b"/first", 0), (b"/second", 1)]);
    }

    /// A scrape may cost a worker 50 µs. What is handed over is moved: the same storage, and in a
    /// time that does not grow with it.
    #[test]
    #[allow(clippy::disallowed_methods)]
    fn handing_over_copies_nothing_that_grows() {
        let mut cells = Cells::default();
        let mut least = Duration::MAX;
        for _ in 0..20 {
            count_everything(&mut cells);
            let (methods, outcomes) =
                (cells.counts.methods.as_ptr(), cells.counts.methods[7].completed.as_ptr());
            let begun = std::time::Instant::now();
            let increment = cells.hand_over();
            least = least.min(begun.elapsed());
            assert_eq!(increment.counts.methods.as_ptr(), methods);
            assert_eq!(increment.counts.methods[7].completed.as_ptr(), outcomes);
            assert_eq!(increment.methods(), METHODS_MAX);
        }
        println!("{METHODS_MAX} methods handed over in {least:?}");
        assert!(least < Duration::from_micros(50), "{least:?}");
        assert!(size_of::<Increment>() < 2048, "what does not grow is small");
    }

    #[test]
    fn the_internal_port_touches_no_series_of_daprs() {
        let mut cells = Cells::default();
        let id = cells.method(b"a", b"/p.S/M");
        cells.sent(Hop::Inbound, id, CallKind::Unary);
        cells.received(Hop::Inbound, id, CallKind::Unary, 0, Duration::ZERO);
        cells.completed(Hop::Inbound, id, CallKind::Unary, 0, Duration::ZERO);
        assert_eq!(id, MethodId(1));
        assert_eq!(cells.methods().count(), 0);
        assert_eq!(cells.hop(Hop::Inbound).calls[0], 1);
    }
}
