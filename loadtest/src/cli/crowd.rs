//! `loadtest crowd`: several pairs of sidecars at once.

use super::compare::{self, Scratch};
use super::{Ended, value};
use crate::compare::crowd::{self, Options};
use crate::topology::{Ingredients, Kind};
use clap::{Arg, ArgMatches, Command, value_parser};

pub fn grammar() -> Command {
    Command::new("crowd")
        .about("Measure several pairs of sidecars at once beside one pair")
        .args(compare::shared_args())
        .arg(
            Arg::new("pairs")
                .long("pairs")
                .value_name("N")
                .value_parser(value_parser!(u16))
                .default_value("8")
                .help("Pairs, each with an app and a client thread of its own"),
        )
        .arg(
            Arg::new("workload")
                .long("workload")
                .value_name("W")
                .default_value("w2")
                .help("What each pair gets"),
        )
        .arg(
            Arg::new("rate")
                .long("rate")
                .value_name("CALLS")
                .value_parser(value::rate)
                .help("Calls per second of each pair, as an open loop; some CPU should stay idle"),
        )
        .arg(
            Arg::new("topology")
                .long("topology")
                .value_name("NAME")
                .default_value("ringside")
                .help("Of what the pairs are"),
        )
}

pub fn run(matches: &ArgMatches) -> Ended {
    let rate = matches.get_one::<f64>("rate").copied();
    if rate == Some(0.0) {
        return Err("--rate is above 0".to_owned());
    }
    let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let kind = Kind::named(&text("topology"));
    let options = Options {
        pairs: matches.get_one::<u16>("pairs").copied().map_or(2, usize::from),
        kind: kind.ok_or_else(|| format!("there is no topology {}", text("topology")))?,
        workload: compare::workload(&text("workload"))?,
        rate,
        rounds: compare::rounds(matches),
        seconds: compare::seconds(matches)?,
        command: compare::typed(),
    };
    let folder = Scratch::new()?;
    let mut ingredients = Ingredients::new(compare::programs(matches), folder.path());
    ingredients.ringside_args = compare::ringside_args(matches);
    let report = crowd::run(&options, &ingredients, &mut compare::says)?;
    println!("{}", report.markdown());
    compare::write_json(matches, &report.json())?;
    match report.failed() {
        0 => Ok(()),
        failed => Err(format!("{failed} calls failed")),
    }
}
