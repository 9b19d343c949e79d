//! One seed's run: a random phase with faults, then calm until everything must have ended.

use super::ends::{AppStage, Call, Outcome};
use super::oracle;
use super::pipe::{BOTH, Fragments, Place, Side, Who};
use super::policy::Policy;
use super::script::{Script, Taste};
use super::seed::Seed;
use super::world::{INTERNAL_PORTS, Mark, Plan, World, endpoint};
use ringside::http2::{ErrorCode, Limits};
use ringside::identity::{Namespace, Target};
use ringside::proxy::{Input, Resolution};
use std::time::{Duration, Instant};

const SIDES: [Side; 2] = [Side::Caller, Side::Callee];

/// Virtual time in which calm must bring every call to its end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Turns of the calm phase without an end: something moves for ever.
const TURNS_MAX: usize = 400_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Stall,
    Cut,
    CutCaller,
    Goaway,
    /// An app's port refuses for a while; dials fail now and then.
    Down,
    /// The resolver has news, or none; resolutions fail now and then.
    Refresh,
    Snapshot,
    Drain,
    Leap,
    /// A caller or an app stops reading one call.
    Lazy,
    /// A connection on which nothing moves any more, though nobody says so.
    Dead,
    SlowDial,
    /// An end writes no more and still reads.
    HalfClose,
}

const FAULTS: [Fault; 13] = [
    Fault::Stall,
    Fault::Cut,
    Fault::CutCaller,
    Fault::Goaway,
    Fault::Down,
    Fault::Refresh,
    Fault::Snapshot,
    Fault::Drain,
    Fault::Leap,
    Fault::Lazy,
    Fault::Dead,
    Fault::SlowDial,
    Fault::HalfClose,
];

pub struct Run {
    pub world: World,
    faults: Vec<Fault>,
    taste: Taste,
    callers_max: usize,
    calls_max: usize,
}

fn limits(seed: &mut Seed, octets: usize) -> Limits {
    // A window of one octet takes a round trip for each.
    let stream_window = match octets {
        0..=20 => seed.pick(&[1, 10, 65_535]),
        21..=500 => seed.pick(&[100, 1000, 65_535]),
        _ => seed.pick(&[30_000, 65_535, 256 << 10, 1 << 20]),
    };
    Limits {
        stream_window,
        connection_window: seed.pick(&[65_535, 100_000, 4 << 20]),
        held_bytes_max: seed.pick(&[0, 1000, 16 << 20]),
        header_table_size: seed.pick(&[0, 100, 4096, 16_384]),
        encoder_table_size_max: seed.pick(&[0, 200, 4096]),
        max_frame_size: seed.pick(&[16_384, 100_000]),
        header_list_size: 1 << 20,
        ..Limits::default()
    }
}

impl Run {
    pub fn new(number: u64, start: Instant) -> Self {
        let mut seed = Seed::new(number ^ 0x51b);
        let fragments = seed.pick(&[Fragments::Octets, Fragments::Random, Fragments::Whole]);
        let octets = match fragments {
            Fragments::Octets => seed.pick(&[20, 500]),
            Fragments::Random | Fragments::Whole => {
                seed.pick(&[200, 2000, 2000, 20_000, 20_000, 100_000, 700_000])
            }
        };
        let mut app_limits = limits(&mut seed, octets);
        app_limits.max_concurrent_streams = seed.pick(&[None, None, Some(1), Some(3)]);
        let plan = Plan {
            fragments,
            latency_ms: seed.pick(&[0, 1, 20]),
            capacity: seed.pick(&[1, 1000, 65_536, 1 << 20]),
            batch: seed.pick(&[40, 1000, 65_536]).max(octets / 400),
            caller_limits: limits(&mut seed, octets),
            app_limits,
            max_body_size: if seed.one_in(8) { 1000 } else { 4 << 20 },
            drain_max: seed.one_in(3).then_some(Duration::from_millis(500)),
            workers: seed.pick(&[1, 1, 2, 3, 4]),
            mtls: seed.one_in(2),
            spread: seed.one_in(3),
            policy: None,
        };
        let mut flag = |n| seed.one_in(n);
        // A third of the runs has no fault at all: there every call must come back as scripted.
        let quiet = flag(3);
        let mut faulty = |n| !quiet && flag(n);
        let faults = FAULTS.into_iter().filter(|_| faulty(3)).collect();
        let taste = Taste {
            octets,
            cancels: faulty(2),
            resets: faulty(2),
            deadlines: faulty(2),
            strays: faulty(2),
            odd_ends: faulty(2),
            fates: 0,
            timeouts: false,
        };
        let policy = seed.one_in(2).then(|| Policy::random(quiet, &mut seed));
        let taste = Taste {
            fates: if policy.is_some() { 4 } else { 0 },
            timeouts: policy.as_ref().is_some_and(|policy| policy.timeout.is_some()),
            ..taste
        };
        let plan = Plan { policy, ..plan };
        let callers_max = 1 + seed.below(3);
        let calls_max = match octets {
            0..500 => seed.pick(&[5, 20, 60]),
            500..20_000 => 4 + seed.below(20),
            _ => 8,
        };
        let world = World::new(number, plan, start);
        Self { world, faults, taste, callers_max, calls_max }
    }

    pub fn all(mut self) {
        let plan = &self.world.plan;
        self.world.note(|| format!("{:?} {:?} {plan:?}", self.faults, self.taste));
        for _ in 0..self.callers_max {
            self.world.connect();
        }
        // Bounded: random steps until all calls are begun and some more.
        for _ in 0..4000 {
            self.step();
            if self.world.calls.len() >= self.calls_max && self.world.seed.one_in(300) {
                break;
            }
        }
        calm(&mut self.world);
        oracle::judge(&self.world);
        oracle::check_budget(&self.world);
        probe(&mut self.world);
        farewell(&mut self.world);
    }

    fn step(&mut self) {
        let world = &mut self.world;
        world.step += 1;
        match world.seed.below(40) {
            0..=2 => self.begin(),
            3..=7 => speak(world),
            8..=12 => act(world),
            13..=19 => flush(world),
            20..=28 => deliver(world),
            29..=31 => {
                let latency = world.plan.latency_ms;
                world.now += world.seed.ms(1 + latency);
            }
            32 => {
                for who in world.workers.names() {
                    world.tick(who);
                }
            }
            33..=36 => {
                let [dials, resolves] = [Fault::Down, Fault::Refresh];
                finish(world, self.faults.contains(&dials), self.faults.contains(&resolves));
            }
            37 => self.reconnect(),
            _ => self.fault(),
        }
        oracle::check_bounds(&self.world);
    }

    fn begin(&mut self) {
        let world = &mut self.world;
        if world.calls.len() >= self.calls_max {
            return;
        }
        let alive = |caller: &usize| {
            let caller = &world.callers[*caller];
            caller.alive && caller.h2.can_open() > 0
        };
        let open: Vec<usize> = (0..world.callers.len()).filter(alive).collect();
        if open.is_empty() {
            return;
        }
        let caller = world.seed.pick(&open);
        let id = world.calls.len() as u32;
        let script = Script::random(id, self.taste, &mut world.seed);
        world.begin(caller, script);
    }

    fn reconnect(&mut self) {
        let world = &mut self.world;
        let alive = world.callers.iter().filter(|caller| caller.alive);
        let usable = alive.filter(|caller| !caller.h2.is_retired()).count();
        if usable < self.callers_max && world.callers.len() < 12 {
            world.connect();
        }
        for side in SIDES {
            world.restart(side);
        }
    }

    fn fault(&mut self) {
        let world = &mut self.world;
        let who = anybody(world);
        // No fault: it disturbs nobody, whenever it comes.
        if world.plan.mtls && world.seed.one_in(4) {
            world.rotate(who);
        }
        if world.plan.policy.is_some() && world.seed.one_in(8) {
            if world.seed.one_in(3) {
                world.reload();
            }
            world.rotate(who);
        }
        if self.faults.is_empty() {
            return;
        }
        match world.seed.pick(&self.faults) {
            Fault::Stall => stall(world),
            Fault::Cut if world.seed.one_in(3) => cut(world, false),
            Fault::CutCaller if world.seed.one_in(5) => cut(world, true),
            Fault::Goaway if world.seed.one_in(4) => goaway(world),
            Fault::Down => {
                let down = world.seed.one_in(3);
                world.app_down[who.side as usize] = down;
            }
            Fault::Refresh => refresh(world),
            Fault::Snapshot => {
                let port = world.seed.pick(&[5000, 5001, 6000]);
                let port = (!world.seed.one_in(6)).then_some(port);
                world.publish(who, port);
            }
            Fault::Drain if world.seed.one_in(8) => world.drain(who),
            Fault::Dead if world.seed.one_in(10) => dead(world),
            Fault::SlowDial => slow_dial(world),
            Fault::HalfClose if world.seed.one_in(5) => half_close(world),
            Fault::Leap if world.seed.one_in(5) => {
                world.mark(Mark::Leap);
                world.now += world.seed.pick(&[
                    Duration::from_secs(1),
                    Duration::from_secs(11),
                    Duration::from_secs(200),
                ]);
            }
            Fault::Lazy => {
                let lazy = world.seed.one_in(2);
                if !world.calls.is_empty() {
                    let call = world.seed.below(world.calls.len());
                    world.calls[call].stalled = lazy;
                    world.calls[call].app.stalled = lazy;
                }
            }
            Fault::Cut
            | Fault::CutCaller
            | Fault::Goaway
            | Fault::Drain
            | Fault::Dead
            | Fault::HalfClose
            | Fault::Leap => {}
        }
    }
}

fn anybody(world: &mut World) -> Who {
    let all = world.workers.names();
    world.seed.pick(&all)
}

fn any_link(world: &mut World) -> Option<usize> {
    // Those that are gone stay in the list: the young ones matter.
    let alive: Vec<usize> = (0..world.links.len()).filter(|l| !world.links[*l].is_gone()).collect();
    (!alive.is_empty()).then(|| world.seed.pick(&alive))
}

fn flush(world: &mut World) {
    let Some(link) = any_link(world) else { return };
    let way = world.seed.pick(&BOTH);
    world.flush(link, way);
}

fn deliver(world: &mut World) {
    let Some(link) = any_link(world) else { return };
    let way = world.seed.pick(&BOTH);
    world.deliver(link, way);
}

fn speak(world: &mut World) {
    let open: Vec<usize> =
        (0..world.calls.len()).filter(|call| world.calls[*call].is_open()).collect();
    if !open.is_empty() {
        let call = world.seed.pick(&open);
        speak_one(world, call, false);
    }
}

fn speak_one(world: &mut World, call: usize, hurry: bool) {
    let call = &mut world.calls[call];
    let caller = &mut world.callers[call.caller];
    if caller.alive {
        call.speak(&mut caller.h2, &mut world.seed, hurry, world.now);
    }
}

fn is_with_app(stage: AppStage) -> bool {
    match stage {
        AppStage::Open | AppStage::Said => true,
        AppStage::Unseen | AppStage::Over => false,
    }
}

fn act(world: &mut World) {
    let open: Vec<usize> =
        (0..world.calls.len()).filter(|call| is_with_apps(&world.calls[*call])).collect();
    if !open.is_empty() {
        let call = world.seed.pick(&open);
        act_one(world, call, false);
    }
}

fn is_with_apps(call: &Call) -> bool {
    call.sides().any(|side| is_with_app(side.stage))
}

/// An app does not know which of its attempts are over for others.
fn act_one(world: &mut World, call: usize, hurry: bool) {
    let call = &mut world.calls[call];
    for attempt in 0..=call.earlier.len() {
        let side = call.side(attempt);
        if is_with_app(side.stage) && world.apps[side.conn].alive {
            let h2 = &mut world.apps[side.conn].h2;
            call.act(attempt, h2, &mut world.seed, hurry, world.now);
        }
    }
}

/// Dials and resolutions whose time has come.
fn finish(world: &mut World, dials_fail: bool, resolves_fail: bool) -> bool {
    let mut moved = false;
    for who in world.workers.names() {
        let now = world.now;
        let due = world.workers[who].dialing.iter().position(|dial| dial.at <= now);
        if let Some(index) = due {
            let fails = dials_fail && world.seed.one_in(3);
            world.finish_dial(who, index, fails);
            moved = true;
        }
        let due = world.workers[who].resolving.iter().position(|(_, at)| *at <= now);
        if let Some(index) = due {
            let fails = resolves_fail && world.seed.one_in(3);
            world.finish_resolve(who, index, fails);
            moved = true;
        }
    }
    moved
}

fn stall(world: &mut World) {
    let Some(link) = any_link(world) else { return };
    let way = world.seed.pick(&BOTH);
    let below_ms = world.seed.pick(&[20, 800]);
    let until = world.now + world.seed.ms(below_ms);
    world.links[link].pipe(way).stalled_until = Some(until);
}

/// For longer than a keepalive waits: whoever has one gives the connection up.
fn dead(world: &mut World) {
    let Some(link) = any_link(world) else { return };
    // An app's connection has no keepalive, and a call may wait there as long as it likes.
    if matches!(world.links[link].right, Place::Proxy(..)) {
        world.mark(Mark::Leap);
        let until = world.now + Duration::from_secs(40);
        for way in BOTH {
            world.links[link].pipe(way).stalled_until = Some(until);
        }
    }
}

fn slow_dial(world: &mut World) {
    let slow = Duration::from_secs(world.seed.pick(&[1, 9, 15]));
    let who = anybody(world);
    if let Some(dial) = world.workers[who].dialing.last_mut() {
        dial.at = world.now + slow;
    }
}

fn cut(world: &mut World, of_callers: bool) {
    let Some(link) = any_link(world) else { return };
    let is_callers = matches!(world.links[link].left, Place::Client(_));
    if is_callers == of_callers {
        world.cut(link);
    }
}

fn half_close(world: &mut World) {
    let Some(link) = any_link(world) else { return };
    let way = world.seed.pick(&BOTH);
    world.half_close(link, way);
}

/// An app goes away politely, or refuses what is new.
fn goaway(world: &mut World) {
    let alive: Vec<usize> = (0..world.apps.len()).filter(|app| world.apps[*app].alive).collect();
    if alive.is_empty() {
        return;
    }
    let app = world.seed.pick(&alive);
    world.mark(Mark::Goaway);
    match world.seed.one_in(3) {
        true => world.apps[app].h2.goaway_notice(),
        false => world.apps[app].h2.goaway(ErrorCode::NO_ERROR, "simulated"),
    }
}

/// The resolver has news without being asked.
fn refresh(world: &mut World) {
    let target = Target::parse("beta", &Namespace::new("default")).unwrap();
    let port = world.seed.pick(&INTERNAL_PORTS);
    let result = match world.seed.one_in(3) {
        true => Err("couldn't find service: beta".into()),
        false => Ok([endpoint(port)].into()),
    };
    let callers = world.workers.of(Side::Caller).len();
    let who = Who { side: Side::Caller, worker: world.seed.below(callers) };
    let asked = world.workers[who].resolving.iter().any(|(known, _)| *known == target);
    if asked {
        // It would count as the answer.
        return;
    }
    world.tell(who, Input::Resolved(Resolution { target, result }));
}

/// One turn without faults: everybody does what can be done; false when nothing could.
pub fn turn(world: &mut World) -> bool {
    world.step += 1;
    let mut moved = false;
    for call in 0..world.calls.len() {
        if world.calls[call].is_open() {
            speak_one(world, call, true);
        }
        if is_with_apps(&world.calls[call]) {
            act_one(world, call, true);
        }
    }
    for link in 0..world.links.len() {
        for way in BOTH {
            if world.links[link].is_gone() {
                continue;
            }
            moved |= world.flush(link, way);
            moved |= world.deliver(link, way);
        }
    }
    moved |= finish(world, false, false);
    for who in world.workers.names() {
        moved |= world.tick(who);
    }
    oracle::check_bounds(world);
    moved
}

/// The clock goes to where something happens next, `until` at most; false when it is there.
pub fn wait(world: &mut World, until: Instant) -> bool {
    let now = world.now;
    let mut next = until;
    for link in &world.links {
        for (pipe, reader) in [(&link.to_right, link.right), (&link.to_left, link.left)] {
            if let (Some(at), true) = (pipe.next_at(now), reader != Place::Gone) {
                next = next.min(at);
            }
        }
    }
    for worker in world.workers.iter() {
        let dials = worker.dialing.iter().map(|dial| dial.at);
        let resolves = worker.resolving.iter().map(|(_, at)| *at);
        let all = dials.chain(resolves).chain(worker.proxy.poll_timeout());
        next = all.fold(next, Instant::min);
    }
    world.now = next.max(now);
    world.now < until
}

/// Lets time pass without faults, `time` of it.
pub fn pass(world: &mut World, time: Duration, mut done: impl FnMut(&World) -> bool) {
    let until = world.now + time;
    for _ in 0..TURNS_MAX {
        if turn(world) {
            continue;
        }
        if done(world) || !wait(world, until) {
            return;
        }
    }
    panic!("something moves for ever");
}

/// No more faults: every call must end, everywhere.
pub fn calm(world: &mut World) {
    world.note(|| "calm".to_owned());
    world.app_down = [false; 2];
    for call in &mut world.calls {
        call.stalled = false;
        (0..=call.earlier.len()).for_each(|attempt| call.side(attempt).stalled = false);
    }
    for who in world.workers.names() {
        if world.workers[who].app_port.is_none() {
            world.publish(who, Some([5000, 6000][who.side as usize]));
        }
    }
    world.finish_drains();
    pass(world, PATIENCE, is_still);
    oracle::check_windows(world);
}

/// Whatever came before, a breaker lets a call through when its time is over, as many as it takes to
/// be closed: each permit has been given back.
fn probe(world: &mut World) {
    let policy = world.plan.policy.clone().unwrap_or_default();
    let Some(breaker) = policy.breaker else { return };
    if world.workers.iter().any(|worker| worker.draining) {
        return;
    }
    world.note(|| "probe".to_owned());
    world.mark(Mark::Leap);
    world.connect();
    let caller = world.callers.len() - 1;
    // Its connection may have to shake hands.
    pass(world, Duration::from_secs(1), |_| false);
    for _ in 0..=breaker.trials {
        pass(world, breaker.timeout + Duration::from_millis(2), |_| false);
        let id = world.calls.len();
        assert!(world.begin(caller, Script::plain(id as u32, &[10], &[10])), "a place for a probe");
        pass(world, Duration::from_secs(20), is_still);
        let outcome = &world.calls[id].outcome;
        let fine = match outcome {
            Some(Outcome::Status { code, by_app: true, .. }) => *code == 0,
            // An attempt's time may be too short for where the run takes place: then the trial
            // failed, but it was made.
            Some(Outcome::Status { message, .. }) => {
                policy.timeout.is_some() && message != "too many requests"
            }
            Some(_) | None => false,
        };
        assert!(fine, "probe {id}: {outcome:?}");
    }
}

fn is_still(world: &World) -> bool {
    world.calls.iter().all(|call| !call.is_open())
        && world.workers.iter().all(|worker| worker.proxy.calls() == 0)
        && world.callers.iter().all(|caller| !caller.alive || caller.h2.streams() == 0)
        && world.apps.iter().all(|app| !app.alive || app.h2.streams() == 0)
        && world.links.iter().all(|link| link.is_gone() || link.is_still() || link.broken)
}

/// Idle connections go, then the sidecars.
pub fn farewell(world: &mut World) {
    world.note(|| "farewell".to_owned());
    world.mark(Mark::Leap);
    pass(world, Duration::from_secs(400), |_| false);
    for (index, caller) in world.callers.iter().enumerate() {
        assert!(!caller.alive, "caller {index} is idle and still connected");
    }
    for who in world.workers.names() {
        world.drain(who);
    }
    pass(world, Duration::from_secs(30), |world| {
        world.workers.iter().all(|worker| worker.is_down())
    });
    for (worker, who) in world.workers.iter().zip(world.workers.names()) {
        assert!(worker.drained, "{who:?} does not end its drain");
        assert!(worker.conns.is_empty(), "{who:?} leaves connections: {:?}", worker.conns);
        assert_eq!(worker.proxy.calls(), 0);
    }
    let refused = |outcome: &Option<Outcome>| *outcome == Some(Outcome::Refused);
    let count = world.calls.iter().filter(|call| refused(&call.outcome)).count();
    world.note(|| format!("{} calls, {count} refused", world.calls.len()));
}
