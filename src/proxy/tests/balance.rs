//! A target with several endpoints, of which some are slow, refuse, or are gone: seeds decide who
//! is chosen, a clock that only the test moves says when.

use super::*;
use crate::proxy::balance::SPREAD_MAX;

const MS: Duration = Duration::from_millis(1);

/// A sidecar of the target's, at a port of its own.
#[derive(Default)]
struct Replica {
    delay: Duration,
    /// Calls end UNAVAILABLE, at once.
    refuses: bool,
    /// Nobody listens.
    gone: bool,
    /// Dials to it get no answer.
    hangs: bool,
    conn: Option<ConnId>,
    /// Streams that wait for their answer.
    open: Vec<(Instant, u32)>,
    /// Lines of what its connection saw that were looked at.
    looked: usize,
    calls: usize,
}

struct Fleet {
    bench: Bench,
    caller: ConnId,
    replicas: Vec<Replica>,
    dials: usize,
    looked: usize,
    answered: usize,
    refused: usize,
}

impl Fleet {
    fn new(seed: u64, replicas: usize) -> Self {
        let mut bench = Bench::new(config());
        bench.proxy.seed([seed, 0, 0]);
        let caller = bench.accept(Listener::Api);
        let replicas = (0..replicas).map(|_| Replica { delay: MS, ..Replica::default() }).collect();
        let mut fleet =
            Self { bench, caller, replicas, dials: 0, looked: 0, answered: 0, refused: 0 };
        fleet.call();
        fleet.resolve();
        fleet
    }

    /// The last question is answered: all of them.
    fn resolve(&mut self) {
        let target = self.bench.resolves.last().expect("a question").clone();
        let result = Ok((0..self.replicas.len()).map(|at| self.endpoint(at)).collect());
        self.bench.handle(Input::Resolved(Resolution { target, result }));
    }

    fn endpoint(&self, replica: usize) -> Endpoint {
        Endpoint(([10, 0, 0, 1], 1000 + replica as u16).into())
    }

    fn call(&mut self) {
        self.bench.call(self.caller, &[("dapr-app-id", "server")], Some(MESSAGE));
    }

    /// A millisecond with one call in it.
    fn step(&mut self) {
        self.call();
        self.idle();
    }

    fn idle(&mut self) {
        self.bench.wait(MS);
        self.dial();
        for at in 0..self.replicas.len() {
            self.serve(at);
        }
        let seen = self.bench.seen.entry(self.caller).or_default();
        let news = seen[self.looked..].iter();
        self.answered += news.clone().filter(|line| line.contains("grpc-status=0 ")).count();
        self.refused += news.filter(|line| line.contains("grpc-status=14 ")).count();
        self.looked = seen.len();
    }

    fn dial(&mut self) {
        while let Some((conn, way, _)) = self.bench.dialed.get(self.dials).cloned() {
            self.dials += 1;
            let at = usize::from(way.address().unwrap().port() - 1000);
            if self.replicas[at].hangs {
                continue;
            }
            if self.replicas[at].gone {
                let error = "connection refused".to_owned();
                self.bench.handle(Input::DialFailed { conn, error });
                continue;
            }
            let (now, limits) = (self.bench.now, Limits::default());
            let h2 = Connection::new(Role::Server, limits, head::classify, now);
            self.bench.ends.insert(conn, h2);
            let replica = &mut self.replicas[at];
            assert_eq!(replica.conn, None, "one connection to each");
            (replica.conn, replica.looked) = (Some(conn), 0);
            self.bench.handle(Input::Dialed { conn });
        }
    }

    fn serve(&mut self, at: usize) {
        let now = self.bench.now;
        let replica = &mut self.replicas[at];
        let Some(conn) = replica.conn else { return };
        let seen = self.bench.seen.entry(conn).or_default();
        for line in &seen[replica.looked..] {
            if let Some((stream, _)) = line.split_once(" HEADERS ") {
                replica.open.push((now + replica.delay, stream.parse().unwrap()));
                replica.calls += 1;
            }
        }
        replica.looked = seen.len();
        let refuses = replica.refuses;
        let (due, open) = replica.open.drain(..).partition(|(at, _)| refuses || *at <= now);
        replica.open = open;
        let due: Vec<(Instant, u32)> = due;
        for (_, stream) in due {
            match refuses {
                true => {
                    let fields = [(":status", "200"), ("content-type", "application/grpc")];
                    let fields = [&fields[..], &[("grpc-status", "14")]].concat();
                    self.bench.say(conn, stream, &fields, true);
                }
                false => self.bench.answer(conn, stream, MESSAGE),
            }
        }
    }

    fn hang_up(&mut self, at: usize) {
        let replica = &mut self.replicas[at];
        replica.open.clear();
        let conn = replica.conn.take().expect("a connection");
        self.bench.ends.remove(&conn);
        self.bench.handle(Input::Closed { conn, reason: CloseReason::Eof });
    }

    /// Calls that each replica got in so many milliseconds.
    fn shares(&mut self, steps: usize) -> Vec<usize> {
        self.replicas.iter_mut().for_each(|replica| replica.calls = 0);
        (0..steps).for_each(|_| self.step());
        self.replicas.iter().map(|replica| replica.calls).collect()
    }
}

#[test]
fn the_slow_get_less_and_who_refuses_nothing_until_he_is_well() {
    for seed in 0..3 {
        let mut fleet = Fleet::new(seed, 3);
        fleet.shares(20);
        assert!(fleet.replicas.iter().all(|replica| replica.conn.is_some()), "each is dialled");
        let even = fleet.shares(600);
        assert!(even.iter().all(|calls| (140..260).contains(calls)), "seed {seed}: {even:?}");
        fleet.replicas[1].delay = 60 * MS;
        let slow = fleet.shares(600);
        assert!(slow[1] > 0 && slow[1] < 60, "seed {seed}: {slow:?}");
        fleet.replicas[1].delay = MS;
        fleet.replicas[2].refuses = true;
        let before = fleet.refused;
        let refusing = fleet.shares(2500);
        // Five in a row, those that were on their way, and one each time that it is asked.
        let refused = fleet.refused - before;
        assert!((5..14).contains(&refused), "seed {seed}: {refused} of {refusing:?}");
        fleet.replicas[2].refuses = false;
        fleet.shares(4000);
        let back = fleet.shares(600);
        assert!(back.iter().all(|calls| (140..260).contains(calls)), "seed {seed}: {back:?}");
        assert_eq!(fleet.dials, 3, "seed {seed}");
    }
}

#[test]
fn who_is_gone_is_dialled_again_and_no_call_waits_for_it() {
    for seed in 0..3 {
        let mut fleet = Fleet::new(seed, 3);
        fleet.shares(20);
        fleet.replicas[0].gone = true;
        let lost = fleet.replicas[0].open.len();
        fleet.hang_up(0);
        let dials = fleet.dials;
        let gone = fleet.shares(6000);
        assert_eq!((gone[0], gone[1] + gone[2]), (0, 6000), "seed {seed}");
        // After one second, two more, four more.
        assert!((2..=4).contains(&(fleet.dials - dials)), "seed {seed}: {} dials", fleet.dials);
        assert!(fleet.refused <= lost, "seed {seed}: {} were lost", fleet.refused);
        fleet.replicas[0].gone = false;
        fleet.shares(8000);
        let back = fleet.shares(600);
        assert!(back.iter().all(|calls| (140..260).contains(calls)), "seed {seed}: {back:?}");
    }
}

/// A machine that is off the network answers nothing, for as long as a dial may take.
#[test]
fn nobody_waits_for_a_dial_that_hangs() {
    for seed in 0..5 {
        let mut fleet = Fleet::new(seed, 4);
        (1..4).for_each(|at| fleet.replicas[at].hangs = true);
        let mut waited = 0;
        while fleet.answered == 0 {
            fleet.idle();
            waited += 1;
            assert!(waited < 2000, "seed {seed}: {} dials", fleet.dials);
        }
        let all = fleet.shares(1600);
        assert_eq!(all, [1600, 0, 0, 0], "seed {seed}");
        assert_eq!(fleet.dials, 4, "seed {seed}: each is tried once");
    }
}

/// Instances restart in turn: one that was often away has a long pause before it, and takes calls
/// again when the other one leaves.
#[test]
fn who_just_came_back_serves_when_the_other_leaves() {
    for seed in 0..8 {
        let mut fleet = Fleet::new(seed, 2);
        fleet.shares(20);
        fleet.replicas[0].gone = true;
        fleet.hang_up(0);
        // Dialled in vain after one second, two more, four more.
        fleet.shares(7500);
        fleet.replicas[0].gone = false;
        fleet.replicas[1].gone = true;
        fleet.hang_up(1);
        // Those that were with it are lost; the next one has its sidecar ask who is there.
        fleet.step();
        fleet.resolve();
        let refused = fleet.refused;
        let shares = fleet.shares(100);
        assert_eq!((shares[1], fleet.refused), (0, refused), "seed {seed}");
        assert!(shares[0] >= 100, "seed {seed}: {shares:?}");
    }
}

/// Were all left alone, nobody would be there.
#[test]
fn where_all_refuse_all_are_asked() {
    let mut fleet = Fleet::new(3, 3);
    fleet.shares(20);
    fleet.replicas.iter_mut().for_each(|replica| replica.refuses = true);
    let all = fleet.shares(400);
    assert!(all.iter().all(|calls| *calls > 50), "{all:?}");
    fleet.replicas[1].refuses = false;
    fleet.shares(4000);
    let one = fleet.shares(400);
    assert!(one[1] >= 398, "{one:?}");
}

#[test]
fn a_crowd_of_endpoints_gets_a_few_connections() {
    let mut fleet = Fleet::new(1, 3 * SPREAD_MAX);
    let all = fleet.shares(400);
    assert_eq!(all.iter().filter(|calls| **calls > 0).count(), SPREAD_MAX);
    assert_eq!(fleet.dials, SPREAD_MAX);
    // One of them goes: another takes its place.
    let first = all.iter().position(|calls| *calls > 0).unwrap();
    fleet.replicas[first].gone = true;
    fleet.hang_up(first);
    let all = fleet.shares(400);
    assert_eq!(all.iter().filter(|calls| **calls > 0).count(), SPREAD_MAX);
    assert_eq!(all[first], 0);
}

/// A resolver's news: who is not in the list any more gets no new calls, who is new gets some.
#[test]
fn a_new_list_is_followed() {
    let mut fleet = Fleet::new(2, 3);
    fleet.shares(20);
    let target = fleet.bench.resolves[0].clone();
    fleet.replicas.push(Replica { delay: MS, ..Replica::default() });
    let result = Ok([1, 2, 3].map(|at| fleet.endpoint(at)).into());
    fleet.bench.handle(Input::Resolved(Resolution { target, result }));
    fleet.shares(20);
    let all = fleet.shares(600);
    assert_eq!(all[0], 0);
    assert!(all[1..].iter().all(|calls| (140..260).contains(calls)), "{all:?}");
    assert_eq!(fleet.refused, 0);
}
