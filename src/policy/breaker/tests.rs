//! One state machine on many workers beside gobreaker's as it is written.

#![allow(clippy::disallowed_methods)]

use super::*;
use crate::policy::trip::Counts;

/// gobreaker v0.5.0, step by step, with the time of whoever calls.
struct Reference {
    state: State,
    generation: u64,
    counts: Counts,
    expiry: Option<Duration>,
    max_requests: u32,
    interval: Duration,
    timeout: Duration,
    trip: fn(&Counts) -> bool,
}

impl Reference {
    fn new_generation(&mut self, now: Duration) {
        self.generation += 1;
        self.counts = Counts::default();
        self.expiry = match self.state {
            State::Closed if self.interval.is_zero() => None,
            State::Closed => Some(now + self.interval),
            State::Open => Some(now + self.timeout),
            State::HalfOpen => None,
        };
    }

    fn set_state(&mut self, state: State, now: Duration) {
        if self.state != state {
            self.state = state;
            self.new_generation(now);
        }
    }

    fn current(&mut self, now: Duration) {
        let over = self.expiry.is_some_and(|expiry| expiry < now);
        match self.state {
            State::Closed if over => self.new_generation(now),
            State::Open if over => self.set_state(State::HalfOpen, now),
            State::Closed | State::Open | State::HalfOpen => {}
        }
    }

    fn begin(&mut self, now: Duration) -> Result<u64, Refusal> {
        self.current(now);
        match self.state {
            State::Open => return Err(Refusal::Open),
            State::HalfOpen if self.counts.requests >= self.max_requests => {
                return Err(Refusal::TooMany);
            }
            State::HalfOpen | State::Closed => {}
        }
        self.counts.requests += 1;
        Ok(self.generation)
    }

    fn end(&mut self, generation: u64, success: bool, now: Duration) {
        self.current(now);
        if generation != self.generation {
            return;
        }
        let counts = &mut self.counts;
        if success {
            counts.total_successes += 1;
            counts.consecutive_successes += 1;
            counts.consecutive_failures = 0;
            if self.state == State::HalfOpen && counts.consecutive_successes >= self.max_requests {
                self.set_state(State::Closed, now);
            }
            return;
        }
        counts.total_failures += 1;
        counts.consecutive_failures += 1;
        counts.consecutive_successes = 0;
        let trips = self.state == State::Closed && (self.trip)(&self.counts);
        if trips || self.state == State::HalfOpen {
            self.set_state(State::Open, now);
        }
    }
}

fn breakers(spec: &BreakerSpec, cache_size: usize, workers: usize, epoch: Instant) -> Breakers {
    let trip = Trip::compile(spec.trip.as_deref()).unwrap();
    Breakers::new(Rules::new(spec, Arc::new(trip)), cache_size, workers, epoch)
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % sides
    }
}

type Judge = fn(&Counts) -> bool;

const TRIPS: [(&str, Judge); 3] = [
    ("consecutiveFailures > 2", |counts| counts.consecutive_failures > 2),
    ("requests >= 8 && totalFailures * 2 >= requests", |counts| {
        counts.requests >= 8 && counts.total_failures * 2 >= counts.requests
    }),
    ("totalFailures > totalSuccesses + 3", |counts| {
        counts.total_failures > counts.total_successes + 3
    }),
];

fn run(seed: u64, workers: usize) {
    let mut dice = Dice(seed);
    let (text, trip) = TRIPS[dice.throw(3) as usize];
    let spec = BreakerSpec {
        max_requests: dice.throw(4) as u32,
        interval: [None, Some(Duration::from_millis(40))][dice.throw(2) as usize],
        timeout: Some(Duration::from_millis(30)),
        trip: Some(text.to_owned()),
    };
    let epoch = Instant::now();
    let breakers = breakers(&spec, 4, workers, epoch);
    let mut reference = Reference {
        state: State::Closed,
        generation: 0,
        counts: Counts::default(),
        expiry: None,
        max_requests: spec.max_requests.max(1),
        interval: spec.interval.unwrap_or_default(),
        timeout: Duration::from_millis(30),
        trip,
    };
    reference.new_generation(Duration::ZERO);
    let seat = breakers.seat(b"/p.S/M", 0, epoch);
    let mut now = Duration::ZERO;
    let mut out = Vec::new();
    let fails = 1 + dice.throw(9);
    for step in 0..2000 {
        now += Duration::from_millis([0, 0, 1, 3, 31][dice.throw(5) as usize]);
        let worker = dice.throw(workers as u64) as usize;
        let place = format!("seed {seed}, {workers} workers, step {step}");
        if out.is_empty() || dice.throw(2) == 0 {
            let (granted, _) = breakers.begin(seat, worker, epoch + now).expect("seated");
            match (granted, reference.begin(now)) {
                (Ok(permit), Ok(generation)) => out.push((worker, permit, generation)),
                (Err(ours), Err(theirs)) => assert_eq!(ours, theirs, "{place}"),
                (ours, theirs) => panic!("{ours:?} {theirs:?} {place}"),
            }
        } else {
            let (worker, permit, generation) =
                out.swap_remove(dice.throw(out.len() as u64) as usize);
            let success = dice.throw(10) >= fails;
            let ended = breakers.end(worker, permit, success, epoch + now);
            reference.end(generation, success, now);
            assert_eq!(ended.expect("seated").0, reference.state, "{place}");
        }
    }
}

/// Invariant 3: with one worker and with several.
#[test]
fn is_gobreaker_on_any_number_of_workers() {
    for seed in 0..200 {
        run(seed, 1);
        run(seed, 4);
    }
}

fn fail(breakers: &Breakers, seat: Seat, now: Instant) -> Option<Change> {
    let (permit, _) = breakers.begin(seat, 0, now).expect("seated");
    breakers.end(0, permit.expect("a permit"), false, now).expect("seated").1
}

#[test]
fn tells_each_change_once() {
    let epoch = Instant::now();
    let spec = BreakerSpec { trip: Some("consecutiveFailures > 1".into()), ..Default::default() };
    let breakers = breakers(&spec, 4, 2, epoch);
    let seat = breakers.seat(b"/p.S/M", 0, epoch);
    assert_eq!(fail(&breakers, seat, epoch), None);
    let opened = Change { from: State::Closed, to: State::Open };
    assert_eq!(fail(&breakers, seat, epoch), Some(opened));
    let (refused, _) = breakers.begin(seat, 1, epoch).unwrap();
    assert_eq!(refused.unwrap_err().text(), "circuit breaker is open");
    // gobreaker's 60 s must be over, not just up.
    let minute = epoch + Duration::from_secs(60);
    assert_eq!(breakers.begin(seat, 1, minute).unwrap().0.unwrap_err(), Refusal::Open);
    let later = minute + Duration::from_millis(1);
    let (trial, change) = breakers.begin(seat, 1, later).unwrap();
    assert_eq!(change, Some(Change { from: State::Open, to: State::HalfOpen }));
    let (refused, change) = breakers.begin(seat, 0, later).unwrap();
    assert_eq!((refused.unwrap_err().text(), change), ("too many requests", None));
    let ended = breakers.end(1, trial.unwrap(), true, later).unwrap();
    let closed = Change { from: State::HalfOpen, to: State::Closed };
    assert_eq!(ended, (State::Closed, Some(closed)));
}

/// A trial that was not made after all leaves its place to another one.
#[test]
fn what_is_withdrawn_was_never_there() {
    let epoch = Instant::now();
    let spec = BreakerSpec { trip: Some("requests > 1".into()), ..Default::default() };
    let breakers = breakers(&spec, 4, 1, epoch);
    let seat = breakers.seat(b"/p.S/M", 0, epoch);
    let (permit, _) = breakers.begin(seat, 0, epoch).unwrap();
    breakers.withdraw(0, permit.unwrap());
    assert_eq!(fail(&breakers, seat, epoch), None);
    assert!(fail(&breakers, seat, epoch).is_some());
    let later = epoch + Duration::from_secs(61);
    let (trial, _) = breakers.begin(seat, 0, later).unwrap();
    breakers.withdraw(0, trial.unwrap());
    let (trial, _) = breakers.begin(seat, 0, later).unwrap();
    let ended = breakers.end(0, trial.unwrap(), true, later).unwrap();
    assert_eq!(ended.0, State::Closed);
}

/// Each method has a breaker of its own, as many as the cache holds; who was used last stays.
#[test]
fn the_least_recently_used_makes_way() {
    let epoch = Instant::now();
    let spec = BreakerSpec { trip: Some("true".into()), ..BreakerSpec::default() };
    let breakers = breakers(&spec, 3, 2, epoch);
    let seat = |name: &str| breakers.seat(name.as_bytes(), 0, epoch);
    let open = |name: &str| assert!(fail(&breakers, seat(name), epoch).is_some(), "{name}");
    let is_open = |name: &str| {
        let (granted, _) = breakers.begin(seat(name), 0, epoch).expect("seated");
        granted.is_err()
    };
    ["/a", "/b", "/c"].into_iter().for_each(open);
    let old = seat("/b");
    assert!(is_open("/a") && is_open("/c"));
    assert!(!is_open("/d"), "a new one is closed");
    assert!(breakers.begin(old, 0, epoch).is_none(), "another method sits there");
    assert!(is_open("/a") && is_open("/c"));
    assert!(!is_open("/b"), "it has forgotten");
    assert!(is_open("/c") && is_open("/a"), "/d made way");
}

/// A method that lost its breaker and has another one: what was begun under the old one counts
/// nowhere, though the new one has come as far.
#[test]
fn a_permit_counts_where_it_was_given() {
    let epoch = Instant::now();
    let spec = BreakerSpec { trip: Some("true".into()), ..BreakerSpec::default() };
    let breakers = breakers(&spec, 2, 1, epoch);
    let seat = |name: &str, now| breakers.seat(name.as_bytes(), 0, now);
    let (a, b) = (seat("/a", epoch), seat("/b", epoch));
    for seat in [a, b] {
        assert!(fail(&breakers, seat, epoch).is_some());
    }
    let later = epoch + Duration::from_secs(61);
    let (trial, _) = breakers.begin(a, 0, later).unwrap();
    assert_eq!(breakers.end(0, trial.unwrap(), true, later).unwrap().0, State::Closed);
    let (permit, _) = breakers.begin(a, 0, later).unwrap();
    let (trial, _) = breakers.begin(b, 0, later).unwrap();
    assert_eq!(trial.unwrap().state, State::HalfOpen);
    // One takes the breaker of /a, which then takes that of /b.
    seat("/c", later);
    let again = seat("/a", later);
    assert!(breakers.is_seated(again) && !breakers.is_seated(a) && !breakers.is_seated(b));
    assert_eq!(breakers.end(0, permit.unwrap(), false, later), None);
    let (permit, _) = breakers.begin(again, 0, later).unwrap();
    assert_eq!(permit.unwrap().state, State::Closed);
}

/// Workers at once: nothing is lost that matters, and the states are gobreaker's.
#[test]
fn workers_count_together() {
    const WORKERS: usize = 4;
    const EACH: usize = 2000;
    let epoch = Instant::now();
    let spec = BreakerSpec {
        trip: Some(format!("totalFailures >= {}", WORKERS * EACH)),
        ..BreakerSpec::default()
    };
    let breakers = breakers(&spec, 4, WORKERS, epoch);
    let opened = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (breakers, opened) = (&breakers, &opened);
            scope.spawn(move || {
                let seat = breakers.seat(b"/p.S/M", worker, epoch);
                for _ in 0..EACH {
                    let (permit, _) = breakers.begin(seat, worker, epoch).expect("seated");
                    let permit = permit.expect("closed until the last one");
                    let ended = breakers.end(worker, permit, false, epoch).expect("seated");
                    opened.fetch_add(usize::from(ended.1.is_some()), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(opened.into_inner(), 1, "the very last failure opened it, once");
    let seat = breakers.seat(b"/p.S/M", 0, epoch);
    assert_eq!(breakers.begin(seat, 0, epoch).unwrap().0.unwrap_err(), Refusal::Open);
}
