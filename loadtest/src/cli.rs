//! The command line: a table of subcommands, and how they fail.
//!
//! 1. A subcommand is one file below `cli/` and one line of [`SUBCOMMANDS`].
//! 2. Exit code 0: done as asked; 1: it failed, and stderr has one sentence that says why;
//!    2: the arguments are none.
//!
//! Refuses to know what a subcommand does.

mod attack;
mod compare;
mod crowd;
mod hold;
mod plot;
mod relay;
mod run;
mod serve;
mod spread;
mod sweep;
pub mod value;

use crate::interrupt;
use clap::{ArgMatches, Command};
use std::ffi::OsString;
use std::process::ExitCode;

/// What a subcommand answers; the text is a sentence for stderr.
pub type Ended = Result<(), String>;

struct Subcommand {
    /// Its name, its help and its arguments.
    grammar: fn() -> Command,
    run: fn(&ArgMatches) -> Ended,
}

/// One line each.
const SUBCOMMANDS: &[Subcommand] = &[
    Subcommand { grammar: attack::grammar, run: attack::run },
    Subcommand { grammar: compare::grammar, run: compare::run },
    Subcommand { grammar: crowd::grammar, run: crowd::run },
    Subcommand { grammar: hold::grammar, run: hold::run },
    Subcommand { grammar: plot::grammar, run: plot::run },
    Subcommand { grammar: relay::grammar, run: relay::run },
    Subcommand { grammar: run::grammar, run: run::run },
    Subcommand { grammar: serve::grammar, run: serve::run },
    Subcommand { grammar: spread::grammar, run: spread::run },
    Subcommand { grammar: sweep::grammar, run: sweep::run },
];

const USAGE: u8 = 2;

/// `args` with the program's name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match grammar().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            // Help goes to stdout, complaints to stderr; the reader of either may be gone.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let Some((name, matches)) = matches.subcommand() else { return ExitCode::from(USAGE) };
    let found = SUBCOMMANDS.iter().find(|subcommand| (subcommand.grammar)().get_name() == name);
    let Some(subcommand) = found else { return ExitCode::from(USAGE) };
    match (subcommand.run)(matches) {
        Ok(()) => ExitCode::SUCCESS,
        // Whatever failed then failed because of that.
        Err(_) if interrupt::came() => {
            eprintln!("loadtest {name}: interrupted; what it started has ended");
            ExitCode::FAILURE
        }
        Err(sentence) => {
            eprintln!("loadtest {name}: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn grammar() -> Command {
    Command::new("loadtest")
        .about("Load for gRPC services, and the comparison of sidecars")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(SUBCOMMANDS.iter().map(|subcommand| (subcommand.grammar)()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_grammar_is_sound() {
        grammar().debug_assert();
    }
}
