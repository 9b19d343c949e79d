//! Directed runs: what must hold is said by number.

use super::ends::{AppStage, Outcome};
use super::oracle;
use super::pipe::{BOTH, Fragments, Place, Side};
use super::policy::{Breaker, Fate, Policy, Retry};
use super::run::{calm, farewell, pass, turn, wait};
use super::script::Script;
use super::world::{Mark, Plan, World};
use ringside::http2::{ErrorCode, Limits};
use ringside::observe::cells::Cells;
use std::time::{Duration, Instant};

const MOMENT: Duration = Duration::from_secs(5);

fn plan() -> Plan {
    Plan {
        fragments: Fragments::Whole,
        latency_ms: 1,
        capacity: 64 << 10,
        batch: 64 << 10,
        caller_limits: Limits::default(),
        app_limits: Limits::default(),
        max_body_size: 4 << 20,
        drain_max: None,
        workers: 1,
        mtls: false,
        spread: false,
        policy: None,
    }
}

fn world(plan: Plan, callers: usize) -> World {
    let mut world = World::new(1, plan, Instant::now());
    for _ in 0..callers {
        world.connect();
    }
    world
}

/// Begins a call and lets nothing happen yet.
fn begin(world: &mut World, caller: usize, requests: &[usize], responses: &[usize]) -> usize {
    let id = world.calls.len();
    let script = Script::plain(id as u32, requests, responses);
    assert!(world.begin(caller, script), "the connection takes call {id}");
    id
}

fn is_fine(world: &World, call: usize) -> bool {
    let fine = Outcome::Status { code: 0, message: String::new(), by_app: true };
    world.calls[call].outcome == Some(fine)
}

/// Octets that a sidecar has read and not written.
fn kept(world: &World, side: Side) -> usize {
    let all = world.workers.of(side).iter();
    all.map(|worker| worker.octets_in.saturating_sub(worker.octets_out)).sum()
}

/// One of 100 calls of one connection is not read: it stops, and it alone.
fn one_stalled_of_100(to_app: bool) {
    const LONG: [usize; 40] = [100_000; 40];
    const SHORT: [usize; 4] = [100_000; 4];
    let mut world = world(plan(), 1);
    let pair = |sizes: &'static [usize]| if to_app { (sizes, &[][..]) } else { (&[][..], sizes) };
    let (requests, responses) = pair(&LONG);
    let stalled = begin(&mut world, 0, requests, responses);
    world.calls[stalled].stalled = !to_app;
    world.calls[stalled].app.stalled = to_app;
    for _ in 1..100 {
        let (requests, responses) = pair(&SHORT);
        begin(&mut world, 0, requests, responses);
    }
    pass(&mut world, MOMENT, |_| false);
    assert!((1..100).all(|call| is_fine(&world, call)));
    let call = &world.calls[stalled];
    assert!(call.is_open());
    let sent = call.left_caller.max(call.left_app);
    let most = oracle::octets_under_way_max(&world, 256 << 10);
    assert!(sent <= most && sent < 4_000_000, "{sent} octets went to nobody");
    for side in [Side::Caller, Side::Callee] {
        let kept = kept(&world, side);
        assert!(kept < 300 << 10, "sidecar {side:?} holds {kept} octets");
    }
    world.calls[stalled].stalled = false;
    world.calls[stalled].app.stalled = false;
    pass(&mut world, MOMENT, |_| false);
    assert!(is_fine(&world, stalled));
    oracle::judge(&world);
}

#[test]
fn a_stalled_app_stops_one_of_100_callers() {
    one_stalled_of_100(true);
}

#[test]
fn a_stalled_caller_stops_one_of_100_apps() {
    one_stalled_of_100(false);
}

/// 16 callers vanish with `each` open calls.
fn reset_storm(app_limits: Limits, each: usize) {
    let mut world = world(Plan { app_limits, ..plan() }, 16);
    pass(&mut world, MOMENT, |_| false);
    for caller in 0..16 {
        for _ in 0..each {
            let id = begin(&mut world, caller, &[10], &[10]);
            // The app never ends it.
            world.calls[id].script.response_end = super::script::ResponseEnd::TrailersOnly;
            world.calls[id].script.request_end = super::script::RequestEnd::Apart;
            world.calls[id].sent_end = true;
        }
        pass(&mut world, MOMENT, |_| false);
    }
    let open = world.calls.iter().filter(|call| call.app.stage == AppStage::Open).count();
    assert!(open > 100, "{open}");
    for link in 0..world.links.len() {
        if matches!(world.links[link].left, Place::Client(_)) {
            world.cut(link);
        }
    }
    let vanished = world.now;
    world.connect();
    for _ in 0..8 {
        begin(&mut world, 16, &[100], &[100]);
    }
    calm(&mut world);
    oracle::judge(&world);
    let late = 16 * each;
    assert!((late..late + 8).all(|call| is_fine(&world, call)));
    let mut heard: Vec<Instant> = world.calls.iter().filter_map(|c| c.app.reset_at).collect();
    heard.sort();
    // Places that become free may go to calls whose own reset is still on its way.
    assert!(heard.len() >= open, "each open stream is reset");
    // Some milliseconds of latency may press two batches together.
    for (count, at) in heard.iter().enumerate() {
        let time = at.duration_since(vanished) + Duration::from_millis(20);
        let most = 2 * 16 + (time.as_millis() / 5) as usize;
        assert!(count <= most, "{count} resets within {time:?}");
    }
}

#[test]
fn a_storm_of_vanished_callers_reaches_the_app_in_pace() {
    reset_storm(Limits::default(), 10);
}

/// More calls than the app takes: those that wait must get the places that become free.
#[test]
fn a_storm_frees_places_for_those_who_wait() {
    let limits = Limits { max_concurrent_streams: Some(2), ..Limits::default() };
    reset_storm(limits, 10);
}

/// The other sidecar and the app count resets, as servers do since CVE-2023-44487.
#[test]
fn a_large_storm_keeps_connections() {
    reset_storm(Limits::default(), 100);
}

/// A caller that does not read its socket: whole responses wait in its sidecar, until that takes no
/// more calls from it.
#[test]
fn unread_responses_are_bounded() {
    let mut world = world(plan(), 1);
    pass(&mut world, MOMENT, |_| false);
    let stalled = world.now + Duration::from_secs(8);
    world.links[0].to_left.stalled_until = Some(stalled);
    for _ in 0..300 {
        begin(&mut world, 0, &[10], &[200_000]);
        pass(&mut world, Duration::from_millis(20), |_| false);
    }
    let kept = kept(&world, Side::Caller);
    assert!(kept < 34 << 20, "the sidecar holds {kept} octets");
    calm(&mut world);
    let fine = (0..300).filter(|call| is_fine(&world, *call)).count();
    let refused = |call: &usize| {
        let outcome = &world.calls[*call].outcome;
        matches!(outcome, Some(Outcome::Status { code: 8, by_app: false, .. }))
    };
    assert!(fine > 150, "{fine}");
    assert_eq!(fine + (0..300).filter(refused).count(), 300);
}

/// Turns that a run of `at_every_turn` may take.
const TURNS_MAX: usize = 500;

/// The same run again and again, disturbed at another turn each time until it is over before that;
/// then all must end, and whoever is left must be as at the start.
fn at_every_turn(disturb: impl Fn(&mut World), check: impl Fn(&World)) {
    at_every_turn_of(plan(), disturb, check);
}

fn at_every_turn_of(plan: Plan, disturb: impl Fn(&mut World), check: impl Fn(&World)) {
    for workers in [1, 3] {
        let mut at = 0;
        loop {
            let plan = Plan { workers, mtls: true, ..plan.clone() };
            let mut world = world(plan, 3);
            for call in 0..9 {
                begin(&mut world, call % 3, &[10, 30_000, 8], &[20_000, 0, 7]);
            }
            let until = world.now + MOMENT;
            for _ in 0..at {
                if !turn(&mut world) {
                    wait(&mut world, until);
                }
            }
            let over = world.calls.iter().all(|call| !call.is_open());
            world.note(|| format!("{workers} workers, disturbed at turn {at}"));
            disturb(&mut world);
            calm(&mut world);
            oracle::judge(&world);
            check(&world);
            farewell(&mut world);
            if over {
                break;
            }
            at += 1;
            assert!(at < TURNS_MAX, "the run does not end");
        }
        assert!(at > 10, "{at} turns are no test");
    }
}

fn all_fine(world: &World) {
    assert!(oracle::check_windows(world) >= 3, "connections live on");
    assert!((0..world.calls.len()).all(|call| is_fine(world, call)));
}

/// What an app has seen is answered; what it has not is refused, or told that nobody is there.
fn accepted_are_fine(world: &World) {
    for (id, call) in world.calls.iter().enumerate() {
        let unseen = call.app.stage == AppStage::Unseen;
        let told = match &call.outcome {
            Some(Outcome::Refused) => true,
            Some(Outcome::Status { code, by_app, .. }) => *code == 14 && !by_app,
            Some(Outcome::Lost | Outcome::Cancelled | Outcome::Bare) | None => false,
        };
        assert!(is_fine(world, id) || (unseen && told), "call {id}: {:?}", call.outcome);
    }
}

fn drain(world: &mut World, side: Side) {
    for who in world.workers.names().into_iter().filter(|who| who.side == side) {
        world.drain(who);
    }
}

#[test]
fn a_drain_of_the_callee_at_any_step_loses_nothing() {
    at_every_turn(|world| drain(world, Side::Callee), accepted_are_fine);
}

#[test]
fn a_drain_of_the_caller_at_any_step_loses_nothing() {
    at_every_turn(|world| drain(world, Side::Caller), accepted_are_fine);
}

/// One worker hears of it long before the others.
#[test]
fn a_drain_that_workers_hear_of_one_by_one_loses_nothing() {
    let disturb = |world: &mut World| {
        for who in world.workers.names() {
            world.drain(who);
            pass(world, Duration::from_millis(7), |_| false);
        }
    };
    at_every_turn(disturb, accepted_are_fine);
}

#[test]
fn a_rotation_at_any_step_is_not_noticed() {
    let disturb = |world: &mut World| {
        for who in world.workers.names() {
            world.rotate(who);
        }
    };
    at_every_turn(disturb, all_fine);
}

/// The app moves: those that are with it stay, new ones find it.
#[test]
fn a_snapshot_at_any_step_is_not_noticed() {
    let disturb = |world: &mut World| {
        for who in world.workers.names() {
            world.publish(who, Some([5001, 6001][who.side as usize]));
        }
        for _ in 0..3 {
            begin(world, 0, &[100], &[100]);
        }
    };
    at_every_turn(disturb, all_fine);
}

/// An hour goes by at one go: whatever waited for a time is over, and nothing else is amiss.
#[test]
fn a_leap_of_the_clock_at_any_step_ends_in_order() {
    let disturb = |world: &mut World| {
        world.mark(Mark::Leap);
        world.now += Duration::from_secs(3600);
    };
    at_every_turn(disturb, |_| {});
}

/// Each way of each connection there is, at each turn.
#[test]
fn a_half_closed_connection_at_any_step_ends_in_order() {
    for way in BOTH {
        let disturb = |world: &mut World| {
            for link in 0..world.links.len() {
                world.half_close(link, way);
            }
        };
        at_every_turn(disturb, |_| {});
    }
}

/// The same with two connections between the sidecars, of which each call has one.
#[test]
fn a_drain_of_the_callee_at_any_step_of_calls_on_two_endpoints_loses_nothing() {
    let plan = Plan { spread: true, ..plan() };
    at_every_turn_of(plan, |world| drain(world, Side::Callee), accepted_are_fine);
}

/// Apps that say goodbye without notice, again and again, while calls are on their way to them:
/// each call is answered, and those that were left out were made again.
#[test]
fn goodbyes_without_notice_lose_no_call() {
    const CALLERS: usize = 4;
    let mut world = world(Plan { latency_ms: 8, ..plan() }, CALLERS);
    pass(&mut world, MOMENT, |_| false);
    for round in 0..200 {
        begin(&mut world, round % CALLERS, &[500, 3000], &[700]);
        turn(&mut world);
        world.now += Duration::from_millis(2);
        let young = (0..world.apps.len()).rfind(|app| world.apps[*app].alive);
        if let (Some(app), 0) = (young, round % 25) {
            world.apps[app].h2.goaway(ErrorCode::NO_ERROR, "without notice");
        }
    }
    calm(&mut world);
    oracle::judge(&world);
    let lost: Vec<usize> = (0..200).filter(|call| !is_fine(&world, *call)).collect();
    assert!(lost.is_empty(), "calls {lost:?}");
    let mut told = Cells::default();
    for who in world.workers.names() {
        told.add(&world.workers[who].proxy.hand_over_cells());
    }
    assert!(told.replays() >= 7, "{} were made again", told.replays());
}

/// Policies that are read anew while calls are under the old ones, whose breakers are gone.
#[test]
fn new_policies_at_any_step_are_not_noticed() {
    let breaker = Breaker { failures: 1, timeout: MOMENT, trials: 1 };
    let policy = Policy { timeout: Some(MOMENT), breaker: Some(breaker), ..Policy::default() };
    let disturb = |world: &mut World| {
        world.reload();
        for who in world.workers.names() {
            world.rotate(who);
        }
        for _ in 0..3 {
            begin(world, 0, &[100], &[100]);
        }
    };
    at_every_turn_of(Plan { policy: Some(policy), ..plan() }, disturb, all_fine);
}

/// An app that fails whatever it is asked: retries are what the budget has, and all of that.
#[test]
fn a_budget_bounds_retries() {
    const CALLS: usize = 60;
    let wait = Duration::from_millis(1);
    let retry = Retry { wait, exponential: false, most: 5, codes: &[] };
    let policy = Policy { retry: Some(retry), budget: Some(20), ..Policy::default() };
    let mut world = world(Plan { policy: Some(policy), ..plan() }, 1);
    for _ in 0..CALLS {
        let id = begin(&mut world, 0, &[10], &[10]);
        let failed = Fate::Status { code: 14, apart: false, pushback: None };
        world.calls[id].script.fates = vec![failed; 6];
    }
    calm(&mut world);
    oracle::judge(&world);
    oracle::check_budget(&world);
    let attempts: usize = world.calls.iter().map(|call| call.sides().count()).sum();
    assert!(attempts >= CALLS + CALLS / 5 + 10, "{attempts}");
}
