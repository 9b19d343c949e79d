//! `loadtest attack`: what sidecars do under attack.

use super::Ended;
use super::compare::{self, Scratch};
use crate::attack::{self, ATTACKS, Attack, Options};
use crate::topology::{Ingredients, Kind};
use clap::{Arg, ArgMatches, Command, value_parser};

/// An attack is no siege.
const SECONDS_MAX: f64 = 3.0;

pub fn grammar() -> Command {
    let shared = compare::shared_args().into_iter();
    Command::new("attack")
        .about("Attack ringside and daprd, and tell how they and an honest caller fare")
        .long_about(
            "Starts two sidecars with an app each, attacks one of them by its ports or from its \
             app for a few seconds, and prints Markdown: what was sent, what the sidecars did, \
             their memory and CPU before, during and after, and how the calls of an honest caller \
             fared. Everything is on loopback and against processes that it starts itself.",
        )
        .args(shared.filter(|arg| !["rounds", "seconds"].contains(&arg.get_id().as_str())))
        .arg(
            Arg::new("seconds")
                .long("seconds")
                .value_name("S")
                .value_parser(value_parser!(f64))
                .default_value("2")
                .help("Length of one attack, 3 at most"),
        )
        .arg(
            Arg::new("attacks")
                .long("attacks")
                .value_name("A,B,…")
                .value_delimiter(',')
                .help("Which attacks; all without it. --attacks help lists them"),
        )
        .arg(
            Arg::new("topologies")
                .long("topologies")
                .value_name("A,B")
                .value_delimiter(',')
                .default_value("ringside,daprd")
                .help("Whom to attack: ringside, daprd"),
        )
}

pub fn run(matches: &ArgMatches) -> Ended {
    let names: Vec<&String> = matches.get_many("attacks").into_iter().flatten().collect();
    if names.iter().any(|name| *name == "help") {
        ATTACKS.iter().for_each(|attack| println!("{:26}{}", attack.name, attack.sends));
        return Ok(());
    }
    let seconds = compare::seconds(matches)?;
    if seconds > SECONDS_MAX {
        return Err(format!("--seconds is {SECONDS_MAX} at most"));
    }
    let kinds = matches.get_many::<String>("topologies").into_iter().flatten();
    let options = Options {
        seconds,
        kinds: kinds.map(|name| kind(name)).collect::<Result<_, _>>()?,
        attacks: attacks(&names)?,
        command: compare::typed(),
    };
    let folder = Scratch::new()?;
    let mut ingredients = Ingredients::new(compare::programs(matches), folder.path());
    ingredients.ringside_args = compare::ringside_args(matches);
    let report = attack::run(&options, &ingredients, &mut compare::says)?;
    println!("{}", report.markdown());
    compare::write_json(matches, &report.json())?;
    let hurt = report.hurt();
    if hurt.is_empty() { Ok(()) } else { Err(format!("ringside was hurt by {}", hurt.join(", "))) }
}

fn attacks(names: &[&String]) -> Result<Vec<&'static Attack>, String> {
    if names.is_empty() {
        return Ok(ATTACKS.iter().collect());
    }
    let find = |name: &&String| {
        let unknown = || format!("there is no attack {name}: --attacks help lists them");
        attack::named(name).ok_or_else(unknown)
    };
    names.iter().map(find).collect()
}

fn kind(name: &str) -> Result<Kind, String> {
    let kind = Kind::named(name).filter(|kind| matches!(kind, Kind::Ringside | Kind::Daprd));
    kind.ok_or_else(|| format!("ringside and daprd can be attacked, {name} not"))
}
