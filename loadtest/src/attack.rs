//! Attacks on a sidecar, and how it, and whoever else calls through it, fares.
//!
//! 1. Each attack has a pair of sidecars of its own, just started, each with an app; it ends after
//!    a few seconds, a GiB, or 20,000 connections, whichever is first. All of it is on loopback.
//! 2. Figures are of both sidecars together: resident memory before, the most during, and after;
//!    CPU as a share of one. Before, during and after, an honest caller calls by a connection of
//!    his own, and new connections before and after.
//! 3. The same octets go to every product; what it costs the attacker's own CPU, of which the
//!    sidecars have that much less, is not told.
//!
//! ```text
//! catalogue    the table
//! strike       what an attack has in hand
//! line         one connection of it, either side       wire       octets of HTTP/2 and HPACK
//! identity     a certificate for the internal port     app        the attack's own app
//! resets headers control data connections tls shapes hostile: the attacks
//! honest       the honest caller                       gauge      memory, CPU, limits
//! report       every figure                            markdown   the table
//! ```
#![allow(clippy::disallowed_methods)] // attackers have clocks and paces of their own

mod app;
mod catalogue;
mod connections;
mod control;
mod data;
mod gauge;
mod headers;
mod honest;
mod hostile;
mod identity;
mod line;
mod markdown;
mod report;
mod resets;
mod shapes;
mod strike;
mod tls;
mod wire;

pub use catalogue::{ATTACKS, Attack, named};
pub use report::{Report, Row};

use crate::compare::{Site, probe};
use crate::topology::{Ingredients, Kind, Neighbours, PATIENCE};
use app::State;
use catalogue::Way;
use gauge::Stopwatch;
use honest::{Calls, Honest};
use identity::Identity;
use report::Phase;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use strike::Strike;

/// The apps' ids; the first sidecar is the one whose ports are attacked.
const FIRST: &str = "near";
const SECOND: &str = "far";
/// Of the honest caller's stretches before and after.
const ASIDE: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub struct Options {
    pub seconds: f64,
    pub kinds: Vec<Kind>,
    pub attacks: Vec<&'static Attack>,
    /// As typed, for the report.
    pub command: String,
}

/// `says` hears what is going on, a line at a time.
pub fn run(
    options: &Options,
    ingredients: &Ingredients,
    says: &mut dyn FnMut(&str),
) -> Result<Report, String> {
    let site = Site::open(ingredients)?;
    let authority = ingredients.authority().map_err(|e| e.to_string())?;
    let identity = Identity::of(authority)?;
    let mut report = Report::new(site.header(&options.command, &options.kinds), options.seconds);
    for (number, attack) in options.attacks.iter().enumerate() {
        says(&format!("{} of {}: {}", number + 1, options.attacks.len(), attack.name));
        for kind in &options.kinds {
            let row = one(attack, *kind, options.seconds, &site, &identity)
                .map_err(|error| format!("{} on {}: {error}", attack.name, kind.name()))?;
            report.rows.push(row);
        }
    }
    Ok(report)
}

fn one(
    attack: &'static Attack,
    kind: Kind,
    seconds: f64,
    site: &Site<'_>,
    identity: &Identity,
) -> Result<Row, String> {
    let state = State::default();
    let own = match attack.way.act() {
        Some(act) => Some((act, app::listen().map_err(|e| format!("no app: {e}"))?)),
        None => None,
    };
    thread::scope(|scope| {
        let mut second = site.address;
        if let Some((act, (listener, at))) = own {
            second = at;
            let state = &state;
            scope.spawn(move || app::serve(listener, act, state, scope));
        }
        let row = Scene::open(attack, kind, site, second)
            .map(|mut scene| scene.play(seconds, identity, &state));
        state.stop();
        row
    })
}

const EXCERPT_LINES: usize = 4;
const EXCERPT_COLUMNS: usize = 300;

/// The first and the last lines.
fn excerpt(lines: &[&str]) -> Vec<String> {
    let last = lines.len().saturating_sub(EXCERPT_LINES).max(EXCERPT_LINES);
    let ends = lines.iter().take(EXCERPT_LINES).chain(lines.iter().skip(last));
    ends.map(|line| line.chars().take(EXCERPT_COLUMNS).collect()).collect()
}

/// One attack's sidecars, and the honest caller beside it.
struct Scene {
    attack: &'static Attack,
    kind: Kind,
    neighbours: Neighbours,
    honest: Honest,
}

impl Scene {
    fn open(
        attack: &'static Attack,
        kind: Kind,
        site: &Site<'_>,
        second: SocketAddr,
    ) -> Result<Self, String> {
        let apps = [(FIRST, site.address), (SECOND, second)];
        let neighbours = Neighbours::start(kind, apps, site.ingredients);
        let neighbours = neighbours.map_err(|e| e.to_string())?;
        let honest = match attack.way {
            Way::Caller(_) => Honest::new(neighbours.first.api, SECOND),
            // By the attacked internal port, or past the attack's own app.
            Way::Counted(_) | Way::Mesh(_) | Way::App(..) | Way::Shapes => {
                Honest::new(neighbours.second.api, FIRST)
            }
        };
        probe::first_answer(honest.entry, &honest.metadata, PATIENCE)?;
        Ok(Self { attack, kind, neighbours, honest })
    }

    fn play(&mut self, seconds: f64, on: &Identity, app: &State) -> Row {
        let scene = self;
        let pids = scene.neighbours.pids();
        let said: Vec<usize> = scene.neighbours.logs().iter().map(String::len).collect();
        let before = scene.aside(&pids);
        let length = Duration::from_secs_f64(seconds);
        let (requests, octets) = (app.requests(), app.octets());
        let (during, sent, elapsed, passed) = scene.under_attack(&pids, length, on, app);
        let after = scene.aside(&pids);
        let gone = scene.neighbours.check().err().map(|gone| gone.to_string());
        let logs = scene.neighbours.logs();
        let new = logs.iter().zip(said).map(|(log, said)| log.get(said..).unwrap_or_default());
        let logged: Vec<&str> = new.flat_map(str::lines).collect();
        Row {
            attack: scene.attack.name,
            sends: scene.attack.sends,
            unit: scene.attack.unit,
            product: scene.kind.name(),
            elapsed_s: elapsed.as_secs_f64(),
            sent,
            requests: scene.attack.way.act().map(|_| app.requests() - requests),
            request_octets: app.octets() - octets,
            before,
            during,
            after,
            limits: gauge::limits([&scene.neighbours.first, &scene.neighbours.second]),
            log_lines: logged.len() as u64,
            log: excerpt(&logged),
            passed,
            gone,
        }
    }

    /// The honest caller alone.
    fn aside(&self, pids: &[u32]) -> Phase {
        let watch = Stopwatch::start(pids);
        let calls = self.honest.calls(ASIDE, || ());
        Phase::new(calls, watch.read(), gauge::resident(pids))
    }

    fn under_attack(
        &self,
        pids: &[u32],
        length: Duration,
        identity: &Identity,
        app: &State,
    ) -> (Phase, line::Tally, Duration, BTreeSet<&'static str>) {
        let (gate, over) = (Barrier::new(2), AtomicBool::new(false));
        thread::scope(|scope| {
            let honest = scope.spawn(|| {
                self.honest.calls(length, || {
                    gate.wait();
                })
            });
            let gauge = scope.spawn(|| gauge::most_resident(pids, &over));
            gate.wait();
            let watch = Stopwatch::start(pids);
            let first = self.neighbours.first;
            let doors = (first.api, first.internal);
            let until = line::now() + length;
            let mut on = Strike::new(doors, (SECOND, FIRST), identity, until);
            app.arm(true);
            let mut passed = BTreeSet::new();
            match self.attack.way {
                Way::Caller(send) | Way::Counted(send) | Way::Mesh(send) | Way::App(_, send) => {
                    send(&mut on);
                }
                Way::Shapes => passed = shapes::send(&mut on, app),
            }
            let spent = watch.read();
            app.arm(false);
            let calls = honest.join().unwrap_or_else(|_| Calls::default());
            over.store(true, Ordering::Relaxed);
            let most = gauge.join().unwrap_or_default();
            let tally = on.tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            (Phase::new(calls, spent, most), tally, spent.1, passed)
        })
    }
}
