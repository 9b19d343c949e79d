//! `loadtest spread`: client connections over the worker threads of a pair of ringsides.

use super::Ended;
use super::compare::{self, Scratch};
use crate::compare::spread::{self, Options};
use crate::topology::Ingredients;
use clap::{Arg, ArgMatches, Command, value_parser};

pub fn grammar() -> Command {
    Command::new("spread")
        .about("Measure how 1, 2, 4 … client connections spread over ringside's workers")
        .long_about(
            "Measures how client connections spread over the workers of a pair of ringsides, and \
             what more connections bring. So that the workers are what is scarce, each worker \
             thread gets a CPU group of its own with a quota (cgroup v1, root); they are removed \
             at the end.",
        )
        .args(compare::shared_args())
        .arg(
            Arg::new("client-connections")
                .long("client-connections")
                .value_name("N,M,…")
                .value_delimiter(',')
                .value_parser(value_parser!(u16).range(1..))
                .default_value("1,2,4")
                .help("Numbers of connections to compare"),
        )
        .arg(
            Arg::new("streams")
                .long("streams")
                .value_name("N")
                .value_parser(value_parser!(u16).range(1..))
                .default_value("50")
                .help("Calls in flight on each connection"),
        )
        .arg(
            Arg::new("workers")
                .long("workers")
                .value_name("N")
                .value_parser(value_parser!(u16).range(1..))
                .default_value("2")
                .help("Workers of each ringside"),
        )
        .arg(
            Arg::new("quota")
                .long("quota")
                .value_name("PERCENT")
                .value_parser(value_parser!(u32).range(..=100))
                .default_value("3")
                .help("Percent of a CPU for each worker, 2 or more; 0: no limit"),
        )
}

pub fn run(matches: &ArgMatches) -> Ended {
    let number = |name: &str| matches.get_one::<u16>(name).copied().map_or(1, usize::from);
    let connections = matches.get_many::<u16>("client-connections").into_iter().flatten();
    let quota = matches.get_one::<u32>("quota").copied().filter(|percent| *percent > 0);
    let options = Options {
        connections: connections.copied().map(usize::from).collect(),
        streams: number("streams"),
        quota,
        rounds: compare::rounds(matches),
        seconds: compare::seconds(matches)?,
        command: compare::typed(),
    };
    let folder = Scratch::new()?;
    let mut ingredients = Ingredients::new(compare::programs(matches), folder.path());
    ingredients.ringside_args = compare::ringside_args(matches);
    ingredients.ringside_args.push(format!("--ringside-workers={}", number("workers")));
    let report = spread::run(&options, &ingredients, &mut compare::says)?;
    println!("{}", report.markdown());
    compare::write_json(matches, &report.json())?;
    match report.failed() {
        0 => Ok(()),
        failed => Err(format!("{failed} calls failed")),
    }
}
