//! Directed runs: what must hold is said by number.

use super::ends::{AppStage, Outcome};
use super::oracle;
use super::pipe::{Fragments, Place};
use super::run::{calm, pass};
use super::script::Script;
use super::world::{Plan, World};
use ringside::http2::Limits;
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
fn kept(world: &World, sidecar: usize) -> usize {
    let sidecar = &world.sidecars[sidecar];
    sidecar.octets_in.saturating_sub(sidecar.octets_out)
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
    for sidecar in [0, 1] {
        let kept = kept(&world, sidecar);
        assert!(kept < 300 << 10, "sidecar {sidecar} holds {kept} octets");
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
    let kept = kept(&world, 0);
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
