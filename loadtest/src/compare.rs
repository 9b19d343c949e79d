//! Rounds of topologies in alternation, and what each costs.
//!
//! 1. All topologies are up during all runs, and are warm before the first.
//! 2. A round runs each workload over every topology before the next workload; the order is rotated
//!    by one from round to round and reversed in every other, so that nobody always follows whom.
//! 3. CPU time is read when the measured part begins and when its last call has ended: it belongs
//!    to the calls that are counted.
//! 4. A run with an error keeps its figures and is marked wherever they appear.
//!
//! ```text
//! workload    what is sent: W1 to W5s
//! site        the app, the topologies, the machine's description
//! measure     one run
//! footprint   W6 memory, W7 start
//! probe       single calls and held connections, for footprint
//! report      every figure of every round: the JSON
//! markdown    medians, ratios
//! goals       what is wanted of ringside
//! verdict     whether it is there
//! crowd       several pairs at once
//! groups      CPU groups for threads that get a quota
//! spread      client connections over worker threads
//! sweep       rising rates, more connections and streams
//! hold        memory by what stays open
//! ```

pub mod crowd;
mod footprint;
mod goals;
mod groups;
pub mod hold;
mod markdown;
mod measure;
pub(crate) mod probe;
mod report;
mod site;
pub mod spread;
pub mod sweep;
mod verdict;
mod workload;

pub use footprint::{Footprint, Start};
pub use measure::Run;
pub use report::{Header, Report};
pub use site::{Site, peers_folders};
pub use workload::{Unit, Workload};

#[cfg(test)]
pub(crate) use markdown::tests::report as sample;

use crate::topology::{Between, Ingredients, Kind, Running};
use std::time::Duration;

/// Before each measured part: connections, code and branch predictors are warm.
const WARMUP: Duration = Duration::from_millis(300);
/// Once for each topology and workload, before the first round.
const FIRST_WARMUP: Duration = Duration::from_millis(700);

#[derive(Clone, Debug)]
pub struct Options {
    pub rounds: usize,
    pub seconds: f64,
    pub kinds: Vec<Kind>,
    pub workloads: Vec<Workload>,
    /// W6.
    pub memory: bool,
    /// W7, W7P: what the hops speak with each other.
    pub starts: Vec<Between>,
    /// As typed, for the report.
    pub command: String,
}

impl Options {
    fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// `says` hears what is going on, a line at a time.
pub fn run(
    options: &Options,
    ingredients: &Ingredients,
    says: &mut dyn FnMut(&str),
) -> Result<Report, String> {
    let site = Site::open(ingredients)?;
    let header = site.header(&options.command, &options.kinds);
    let mut ways = site.start_all(&options.kinds, says)?;
    let mut report = Report::new(header, options);
    for workload in &options.workloads {
        for way in &mut ways {
            let length = FIRST_WARMUP.min(options.length());
            measure::run(&site, way, *workload, length, Duration::ZERO).map_err(|e| {
                format!("{} through {}, warming up: {e}", workload.name(), way.name)
            })?;
        }
    }
    for round in 0..options.rounds {
        says(&format!("round {} of {}", round + 1, options.rounds));
        one_round(round, options, &site, &mut ways, &mut report)?;
        for way in &mut ways {
            way.check().map_err(|e| e.to_string())?;
        }
    }
    Ok(report)
}

fn one_round(
    round: usize,
    options: &Options,
    site: &Site<'_>,
    ways: &mut [Running],
    report: &mut Report,
) -> Result<(), String> {
    let length = options.length();
    let warmup = WARMUP.min(length);
    let turns = order(ways.len(), round);
    for workload in &options.workloads {
        for at in &turns {
            let way = &mut ways[*at];
            let run = measure::run(site, way, *workload, length, warmup).map_err(|e| {
                format!("{} through {}, round {}: {e}", workload.name(), way.name, round + 1)
            })?;
            report.runs.push(Run { round, ..run });
        }
    }
    for at in &turns {
        let kind = ways[*at].kind;
        if options.memory && kind != Kind::Direct {
            report.footprints.push(Footprint { round, ..footprint::memory(site, kind)? });
        }
        for between in options.starts.iter().filter(|_| kind != Kind::Direct) {
            report.starts.push(Start { round, ..footprint::start(site, kind, *between)? });
        }
    }
    Ok(())
}

/// Who comes when: rotated by one each round, reversed in every other.
fn order(count: usize, round: usize) -> Vec<usize> {
    let rotated = (0..count).map(|at| (at + round) % count);
    if round.is_multiple_of(2) { rotated.collect() } else { rotated.rev().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_rotated_and_reversed() {
        assert_eq!(order(3, 0), [0, 1, 2]);
        assert_eq!(order(3, 1), [0, 2, 1]);
        assert_eq!(order(3, 2), [2, 0, 1]);
        assert_eq!(order(3, 3), [2, 1, 0]);
        assert!(order(0, 5).is_empty());
        // Nobody always follows the same one.
        let before = |round: usize| {
            let order = order(4, round);
            let at = order.iter().position(|who| *who == 0).unwrap();
            order[(at + 3) % 4]
        };
        assert_ne!(before(0), before(1));
    }
}
