//! `loadtest plot`: pictures of records.

use super::Ended;
use crate::plot;
use clap::{Arg, ArgMatches, Command, value_parser};
use std::fs;
use std::path::PathBuf;

pub fn grammar() -> Command {
    Command::new("plot")
        .about("Draw SVG pictures of what compare, sweep and hold wrote with --json")
        .arg(
            Arg::new("files")
                .value_name("FILE")
                .num_args(1..)
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("JSON of compare, sweep or hold"),
        )
        .arg(
            Arg::new("out")
                .long("out")
                .value_name("FOLDER")
                .default_value(".")
                .value_parser(value_parser!(PathBuf))
                .help("Where pictures go; they are named after what they show"),
        )
}

pub fn run(matches: &ArgMatches) -> Ended {
    let files = matches.get_many::<PathBuf>("files").into_iter().flatten();
    let out = matches.get_one::<PathBuf>("out").cloned().unwrap_or_default();
    fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    for file in files {
        let in_file = |e: &dyn std::fmt::Display| format!("{}: {e}", file.display());
        let json = fs::read_to_string(file).map_err(|e| in_file(&e))?;
        for picture in plot::pictures(&json).map_err(|e| in_file(&e))? {
            let path = out.join(format!("{}.svg", picture.name));
            fs::write(&path, picture.svg).map_err(|e| format!("{}: {e}", path.display()))?;
            println!("{}", path.display());
        }
    }
    Ok(())
}
