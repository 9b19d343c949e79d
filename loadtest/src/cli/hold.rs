//! `loadtest hold`: memory by what is held open.

use super::Ended;
use super::compare::{self, Scratch};
use crate::compare::hold::{self, Options};
use crate::topology::Ingredients;
use clap::{Arg, ArgMatches, Command, value_parser};

pub fn grammar() -> Command {
    let counts = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("N,M,…")
            .value_delimiter(',')
            .value_parser(value_parser!(u32).range(..=200_000))
            .default_value("0,100,1000,10000")
            .help(help)
    };
    Command::new("hold")
        .about("Measure what both hops hold in memory by idle connections and idle streams")
        .args(compare::shared_args())
        .arg(compare::topologies_arg())
        .arg(counts("connections-held", "Idle connections, rising"))
        .arg(counts("streams-held", "Idle streams, rising, 100 on each connection"))
}

pub fn run(matches: &ArgMatches) -> Ended {
    let counts = |name: &str| -> Result<Vec<usize>, String> {
        let counts = matches.get_many::<u32>(name).into_iter().flatten();
        let counts: Vec<usize> = counts.map(|count| *count as usize).collect();
        counts.is_sorted().then_some(counts).ok_or_else(|| format!("--{name} rises"))
    };
    let programs = compare::programs(matches);
    let options = Options {
        kinds: compare::kinds(matches, &programs)?,
        connections: counts("connections-held")?,
        streams: counts("streams-held")?,
        rounds: compare::rounds(matches),
        command: compare::typed(),
    };
    let folder = Scratch::new()?;
    let mut ingredients = Ingredients::new(programs, folder.path());
    ingredients.ringside_args = compare::ringside_args(matches);
    let report = hold::run(&options, &ingredients, &mut compare::says)?;
    println!("{}", report.markdown());
    compare::write_json(matches, &report.json())
}
