//! What a pair of sidecars holds while more and more connections, or streams, stay open and idle.
//!
//! 1. Each way is started anew for connections and again for streams: what one has left behind is
//!    not the other's.
//! 2. A stream that is held has carried a message each way.
//! 3. A way that does not hold so many holds no more: the report says why.

use super::footprint::{rest, rested, settled};
use super::order;
use super::probe::Held;
use super::report::{self, Header};
use super::site::Site;
use crate::account::Memory;
use crate::interrupt;
use crate::ratio::Spread;
use crate::topology::{Ingredients, Kind};
use serde::Serialize;
use std::fmt::Write as _;

#[derive(Clone, Debug)]
pub struct Options {
    pub kinds: Vec<Kind>,
    /// Rising numbers of idle connections.
    pub connections: Vec<usize>,
    /// Rising numbers of idle streams.
    pub streams: Vec<usize>,
    pub rounds: usize,
    pub command: String,
}

/// Memory of both hops, octets.
#[derive(Clone, Debug, Serialize)]
pub struct Look {
    pub round: usize,
    pub topology: &'static str,
    pub connections: usize,
    pub streams: usize,
    pub resident: u64,
    pub anonymous: u64,
    pub proportional: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    kind: &'static str,
    pub header: Header,
    pub topologies: Vec<&'static str>,
    pub rounds: usize,
    pub looks: Vec<Look>,
    /// Who held less than was asked, and why.
    pub refusals: Vec<String>,
}

/// As many as servers usually allow.
const STREAMS_OF_CONNECTION: usize = 100;

pub fn run(
    options: &Options,
    ingredients: &Ingredients,
    says: &mut dyn FnMut(&str),
) -> Result<Report, String> {
    let site = Site::open(ingredients)?;
    let (mut looks, mut refusals) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        for at in order(options.kinds.len(), round) {
            let kind = options.kinds[at];
            says(&format!("round {} of {}: {}", round + 1, options.rounds, kind.name()));
            let idle = options.connections.iter().map(|count| (*count, 0));
            refusals.extend(one_way(&site, kind, round, idle, &mut looks)?);
            let busy =
                options.streams.iter().map(|count| (count.div_ceil(STREAMS_OF_CONNECTION), *count));
            let busy = busy.filter(|(_, streams)| *streams > 0);
            refusals.extend(one_way(&site, kind, round, busy, &mut looks)?);
        }
    }
    Ok(Report {
        kind: "hold",
        header: site.header(&options.command, &options.kinds),
        topologies: options.kinds.iter().map(|kind| kind.name()).collect(),
        rounds: options.rounds,
        looks,
        refusals,
    })
}

/// `wanted`: rising numbers of connections, and of streams on all of them. Says why it ended early.
fn one_way(
    site: &Site<'_>,
    kind: Kind,
    round: usize,
    wanted: impl Iterator<Item = (usize, usize)>,
    looks: &mut Vec<Look>,
) -> Result<Option<String>, String> {
    let mut way = rested(site, kind)?;
    let mut held = Held::none(way.entry)?;
    for (connections, streams) in wanted {
        if let Err(error) = held.grow(connections, streams, &way.metadata) {
            // Where the program is gone, that is no limit of it.
            way.check().map_err(|gone| gone.to_string())?;
            if interrupt::came() {
                return Err(error);
            }
            let asked = match streams {
                0 => format!("{connections} connections"),
                _ => format!("{streams} streams"),
            };
            return Ok(Some(format!("{}, {asked}: {error}", kind.name())));
        }
        rest();
        let Memory { resident, anonymous, proportional } = settled(&way)?;
        let topology = kind.name();
        let look =
            Look { round, topology, connections, streams, resident, anonymous, proportional };
        looks.push(look);
    }
    Ok(None)
}

impl Report {
    pub fn json(&self) -> String {
        report::json(self)
    }

    pub fn markdown(&self) -> String {
        let mut out = format!(
            "{}; {} rounds.\n{}\n\n| Held, idle | {} |\n|---|{}\n",
            self.header.opening(),
            self.rounds,
            self.header.programs(),
            self.topologies.join(" | "),
            "---|".repeat(self.topologies.len()),
        );
        let mut seen = Vec::new();
        for look in &self.looks {
            let held = (look.connections, look.streams);
            if seen.contains(&held) {
                continue;
            }
            seen.push(held);
            let name = match held {
                (connections, 0) => format!("{connections} connections"),
                (connections, streams) => format!("{streams} streams on {connections}"),
            };
            let cells = self.topologies.iter().map(|way| self.cell(way, held));
            let _ = writeln!(out, "| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
        }
        for refusal in &self.refusals {
            let _ = writeln!(out, "\n⚠ {refusal}");
        }
        out.push_str("\nMiB, resident, both hops; medians over the rounds, lowest and highest.\n");
        out
    }

    fn cell(&self, way: &str, held: (usize, usize)) -> String {
        let is_of = |look: &&Look| look.topology == way && (look.connections, look.streams) == held;
        let of_way = self.looks.iter().filter(is_of);
        let spread = Spread::of(of_way.map(|look| look.resident as f64 / 1_048_576.0));
        spread.map_or("–".to_owned(), |spread| spread.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_what_is_held() {
        let look = |connections, streams, mib: u64| Look {
            round: 0,
            topology: "ringside",
            connections,
            streams,
            resident: mib << 20,
            anonymous: 1,
            proportional: 1,
        };
        let report = Report {
            kind: "hold",
            header: crate::compare::markdown::tests::header(),
            topologies: vec!["relay", "ringside"],
            rounds: 1,
            looks: vec![look(0, 0, 20), look(1000, 0, 30), look(10, 1000, 40)],
            refusals: vec!["relay held no more".to_owned()],
        };
        let text = report.markdown();
        assert!(text.contains("| Held, idle | relay | ringside |\n|---|---|---|\n"), "{text}");
        assert!(text.contains("| 1000 connections | – | 30.0 (30.0–30.0) |"), "{text}");
        assert!(text.contains("| 1000 streams on 10 | – | 40.0 (40.0–40.0) |"), "{text}");
        assert!(text.contains("\n⚠ relay held no more\n"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!((&json["kind"], &json["looks"][2]["streams"]), (&"hold".into(), &1000.into()));
    }
}
