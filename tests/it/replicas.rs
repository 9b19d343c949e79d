//! Several instances of one app, as real processes: the load moves away from those that are slow,
//! refuse or are killed, and comes back to them.

use crate::peer::process::until;
use crate::peer::sidecar::{Naming, Options, Ports, workers};
use crate::peer::tagged::{App, End, Load};
use crate::peer::{Kind, Sidecar, World};
use std::sync::atomic::Ordering;

const CALLERS: u64 = 8;

/// An app and the sidecar in front of it.
struct Replica {
    app: App,
    sidecar: Sidecar,
    ports: Option<Ports>,
}

impl Replica {
    fn start(world: &World, kind: Kind, ports: Option<Ports>, naming: Naming) -> Self {
        let app = App::start();
        let sidecar = sidecar(world, kind, app.port, ports, naming);
        Self { app, sidecar, ports }
    }

    fn calls(&self) -> usize {
        self.app.book.count()
    }
}

fn sidecar(world: &World, kind: Kind, app: u16, ports: Option<Ports>, naming: Naming) -> Sidecar {
    let options = Options { app_port: Some(app), ports, naming, ..Options::default() };
    Sidecar::start(world, kind, "server", options)
}

/// The share of each in what was called since: parts of a hundred.
fn shares(replicas: &[Replica], load: &Load, calls: u64) -> Vec<usize> {
    let before: Vec<usize> = replicas.iter().map(Replica::calls).collect();
    load.wait_for(calls);
    let got: Vec<usize> = replicas.iter().zip(before).map(|(r, b)| r.calls() - b).collect();
    let all: usize = got.iter().sum::<usize>().max(1);
    got.into_iter().map(|calls| calls * 100 / all).collect()
}

fn is_back(replicas: &[Replica], index: usize, caller: &Sidecar) {
    let before = replicas[index].calls();
    let back = until(|| (replicas[index].calls() > before + 50).then_some(()));
    assert!(back.is_some(), "{}", caller.process.tail());
}

#[test]
fn the_load_moves_away_and_comes_back() {
    let mut world = World::with_sentry("replicas-three");
    world.reserve(&["server", "client"]);
    let ports = [None, Some(world.replicate("server")), Some(world.replicate("server"))];
    let mut replicas =
        ports.map(|ports| Replica::start(&world, Kind::Ringside, ports, Naming::Table));
    let caller = Sidecar::caller(&world, Kind::Ringside, "client");
    let load = Load::start(caller.ports.grpc, "server", CALLERS, 1);
    load.wait_for(100);
    let even = shares(&replicas, &load, 600);
    assert!(even.iter().all(|share| *share > 15), "{even:?}");
    // One is slow: it has its few calls, and no more.
    replicas[1].app.book.slow_ms.store(1000, Ordering::Relaxed);
    load.wait_for(50);
    let slow = shares(&replicas, &load, 600);
    assert!(slow[1] < 15, "{slow:?}");
    replicas[1].app.book.slow_ms.store(0, Ordering::Relaxed);
    is_back(&replicas, 1, &caller);
    // One flaps: its app goes and comes, its sidecar says UNAVAILABLE meanwhile, at once.
    for _ in 0..3 {
        replicas[2].app.stop();
        load.wait_for(400);
        replicas[2].app.begin_again();
        is_back(&replicas, 2, &caller);
    }
    // And a whole one is killed, and started anew at its place.
    replicas[0].sidecar.process.signal(rustix::process::Signal::KILL);
    replicas[0].sidecar.process.wait_for_end();
    let without = shares(&replicas, &load, 400);
    assert_eq!(without[0], 0, "{without:?}");
    let (app, ports) = (replicas[0].app.port, replicas[0].ports);
    replicas[0].sidecar = sidecar(&world, Kind::Ringside, app, ports, Naming::Table);
    is_back(&replicas, 0, &caller);
    let outcomes = load.stop();
    let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.end != End::Ok).collect();
    let refused = |end: &End| matches!(end, End::Status(14, _));
    assert!(failed.iter().all(|outcome| refused(&outcome.end)), "{failed:?}");
    // Each time five in a row in each worker, those on their way, and a few that asked; without
    // rests it would be most of 1,200.
    let most = 3 * (20 + 20 * workers().unwrap_or(1)) + CALLERS as usize;
    assert!(failed.len() <= most, "{} of {}", failed.len(), outcomes.len());
    for replica in &replicas {
        let mut broken = replica.app.book.broken();
        // What the one that was killed had left unread.
        broken.retain(|what| what != "connection reset");
        assert!(broken.is_empty(), "{broken:?}");
    }
}

/// mDNS finds them one after the other; daprds, too.
#[test]
fn those_that_mdns_finds_share_the_load() {
    crate::isolated!("those_that_mdns_finds_share_the_load", {
        let mut world = World::new("replicas-mdns");
        world.reserve(&["server", "client"]);
        let second = Some(world.replicate("server"));
        let first = Replica::start(&world, Kind::Daprd, None, Naming::Mdns);
        let options = Options { naming: Naming::Mdns, ..Options::default() };
        let caller = Sidecar::start(&world, Kind::Ringside, "client", options);
        let load = Load::start(caller.ports.grpc, "server", CALLERS, 1);
        load.wait_for(50);
        let mut replicas = [first, Replica::start(&world, Kind::Ringside, second, Naming::Mdns)];
        is_back(&replicas, 1, &caller);
        let even = shares(&replicas, &load, 400);
        assert!(even.iter().all(|share| *share > 20), "{even:?}");
        replicas[0].sidecar.process.terminate();
        let without = shares(&replicas, &load, 200);
        assert_eq!(without, [0, 100]);
        let outcomes = load.stop();
        let failed = outcomes.iter().filter(|outcome| outcome.end != End::Ok).count();
        assert_eq!(failed, 0, "a goodbye loses no call");
    });
}
