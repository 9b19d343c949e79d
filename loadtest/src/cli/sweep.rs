//! `loadtest sweep`: more and more load.

use super::compare::{self, Scratch};
use super::{Ended, value};
use crate::compare::sweep::{self, Options};
use crate::topology::Ingredients;
use clap::{Arg, ArgMatches, Command, value_parser};

pub fn grammar() -> Command {
    let counts = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("N,M,…")
            .value_delimiter(',')
            .value_parser(value_parser!(u16).range(1..))
            .default_value(default)
            .help(help)
    };
    Command::new("sweep")
        .about("Measure small unary calls under more and more load, up to the knee")
        .long_about(
            "Sends unary calls of 100 octets over all ways in alternation: with --rates in open \
             loops, each way until it no longer keeps up; else in closed loops of every number of \
             connections with every number of calls in flight.",
        )
        .args(compare::shared_args())
        .arg(compare::topologies_arg())
        .arg(counts("client-connections", "1,2,4,16", "Numbers of connections"))
        .arg(counts("streams", "1,4,16,64", "Calls in flight on each, at most"))
        .arg(
            Arg::new("rates")
                .long("rates")
                .value_name("R,S,…")
                .value_delimiter(',')
                .value_parser(value::rate)
                .help("Calls per second of open loops, rising"),
        )
}

pub fn run(matches: &ArgMatches) -> Ended {
    let counts = |name: &str| -> Vec<usize> {
        matches.get_many::<u16>(name).into_iter().flatten().copied().map(usize::from).collect()
    };
    let rates: Vec<f64> = matches.get_many::<f64>("rates").into_iter().flatten().copied().collect();
    if !rates.is_sorted() || rates.contains(&0.0) {
        return Err("--rates rise, and are above 0".to_owned());
    }
    let programs = compare::programs(matches);
    let options = Options {
        kinds: compare::kinds(matches, &programs)?,
        connections: counts("client-connections"),
        streams: counts("streams"),
        rates,
        rounds: compare::rounds(matches),
        seconds: compare::seconds(matches)?,
        command: compare::typed(),
    };
    let folder = Scratch::new()?;
    let mut ingredients = Ingredients::new(programs, folder.path());
    ingredients.ringside_args = compare::ringside_args(matches);
    let report = sweep::run(&options, &ingredients, &mut compare::says)?;
    println!("{}", report.markdown());
    compare::write_json(matches, &report.json())?;
    // Past the knee of an open loop calls may be refused for want of room: that is what is asked.
    match report.failed() {
        0 => Ok(()),
        failed if options.rates.is_empty() => Err(format!("{failed} calls failed")),
        failed => {
            compare::says(&format!("{failed} calls failed past the knee"));
            Ok(())
        }
    }
}
