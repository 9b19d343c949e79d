//! What a scrape of 10,000 series costs: a worker, which hands over what it counted, and control, which
//! adds it up and tells it.
//!
//! `cargo bench --bench scrape` prints CPU time, best and median of some scrapes, and fails when the
//! median is beyond what is promised: 20 ms for all of it, of which a worker's share is 50 µs.
//!
//! A worker pays twice: when it hands over, and when it counts again in what it was left with. The
//! second is the difference between the first call of each method after a scrape and one more of each.

use ringside::observe::cells::{CallKind, Cells, Hop, Increment, MethodId};
use ringside::observe::exposition::{Exposition, WorkerFigures, render};
use ringside::observe::histogram::LATENCY_BOUNDS;
use ringside::observe::http::{HttpCells, Wanted};
use ringside::observe::probes::Probes;
use ringside::observe::rules::Rules;
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::time::Duration;

const SERIES: usize = 10_000;
const SCRAPES: usize = 201;
const WORKERS: usize = 2;
const SCRAPE_MAX: Duration = Duration::from_millis(20);
const WORKER_MAX: Duration = Duration::from_micros(50);

/// Of this thread: others may run meanwhile.
fn cpu() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("a time")
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let begun = cpu();
    let done = work();
    (cpu() - begun, done)
}

struct Worker {
    cells: Cells,
    methods: Vec<MethodId>,
    /// What control gives back.
    room: Box<Increment>,
}

impl Worker {
    fn new(methods: usize) -> Self {
        let mut cells = Cells::default();
        let names = (0..methods).map(|n| format!("/package.Service{}/Method{n}", n / 16));
        let methods = names.map(|name| cells.method(b"callee", name.as_bytes())).collect();
        Self { cells, methods, room: Box::default() }
    }

    /// A call of each method, as the proxy counts one.
    fn calls(&mut self) {
        for (n, &method) in self.methods.iter().enumerate() {
            let (hop, kind) = (Hop::Outbound, CallKind::Unary);
            let took = Duration::from_micros(170 * n as u64);
            self.cells.sent(hop, method, kind);
            self.cells.received(hop, method, kind, 0, took);
            self.cells.completed(hop, method, kind, 0, took);
        }
    }
}

/// The sum is control's, who keeps it from one scrape to the next.
fn tell(workers: &[Cells], sum: &mut Cells) -> String {
    sum.sum_up(workers.iter());
    render(&Exposition {
        app_id: "caller",
        tells_daprs: true,
        latency_bounds: &LATENCY_BOUNDS,
        rules: &Rules::default(),
        cells: sum,
        resiliency_loaded: &[],
        resiliency_label: &(String::new(), String::new()),
        workers: &[WorkerFigures::default(); WORKERS],
        rotation_failures: &BTreeMap::new(),
        resolver_failure: None,
        probes: &Probes::default(),
        http: &HttpCells::new(Wanted::default()),
        numbers: &[],
        process: None,
    })
}

fn series(text: &str) -> usize {
    text.lines().filter(|line| !line.starts_with('#')).count()
}

/// How many methods make so many series.
fn methods() -> usize {
    let of = |methods| {
        let mut worker = Worker::new(methods);
        worker.calls();
        series(&tell(&[worker.cells], &mut Cells::default()))
    };
    let (few, more) = (of(1), of(2));
    2 + (SERIES - more).div_ceil(more - few)
}

struct Figures {
    name: &'static str,
    took: Vec<Duration>,
}

impl Figures {
    fn new(name: &'static str) -> Self {
        Self { name, took: Vec::new() }
    }

    fn median(&mut self) -> Duration {
        self.took.sort_unstable();
        let median = self.took[self.took.len() / 2];
        println!("{:<44} {:>9.1?} (best {:.1?})", self.name, median, self.took[0]);
        median
    }
}

fn main() {
    let methods = methods();
    let mut workers: Vec<Worker> = (0..WORKERS).map(|_| Worker::new(methods)).collect();
    let mut told: Vec<Cells> = (0..WORKERS).map(|_| Cells::default()).collect();
    let mut sum = Cells::default();
    let mut handed = Figures::new("a worker hands over");
    let mut refilled = Figures::new("and pays when it counts again");
    let mut of_worker = Figures::new("a worker, in all");
    let mut of_control = Figures::new("control adds up and tells");
    let mut whole = Figures::new("a scrape, in all");
    let mut lines = 0;
    for _ in 0..SCRAPES {
        let mut spent = Duration::ZERO;
        let mut increments = Vec::new();
        for worker in &mut workers {
            let (first, ()) = timed(|| worker.calls());
            let (again, ()) = timed(|| worker.calls());
            let room = std::mem::take(&mut worker.room);
            let (handing, increment) = timed(|| {
                worker.cells.reuse(*room);
                Box::new(worker.cells.hand_over())
            });
            increments.push(increment);
            let refilling = first.saturating_sub(again);
            handed.took.push(handing);
            refilled.took.push(refilling);
            of_worker.took.push(handing + refilling);
            spent += handing + refilling;
        }
        let (telling, text) = timed(|| {
            for ((cells, worker), mut increment) in
                told.iter_mut().zip(&mut workers).zip(increments)
            {
                cells.add(&increment);
                increment.clear();
                worker.room = increment;
            }
            tell(&told, &mut sum)
        });
        lines = series(&text);
        of_control.took.push(telling);
        whole.took.push(spent + telling);
    }
    assert!(lines >= SERIES, "{lines} series");
    println!("{lines} series of {methods} methods, {WORKERS} workers that served each of them:");
    handed.median();
    refilled.median();
    let worker = of_worker.median();
    of_control.median();
    let scrape = whole.median();
    assert!(worker <= WORKER_MAX, "a worker's share is {worker:?}");
    assert!(scrape <= SCRAPE_MAX, "a scrape takes {scrape:?}");
}
