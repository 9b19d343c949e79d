//! The command line: daprd's flags, names, defaults and manners, and our own.
//!
//! 1. What daprd accepts is accepted; what it refuses is refused with its text and exit code.
//! 2. A subcommand of ours is one only as the very first argument, spelled exactly; anything
//!    else there is a positional argument, which daprd ignores, and so do we.
//!
//! Refuses to know what the flags mean: that is `config`'s.

pub mod acl;
pub mod admin;
pub mod bench;
pub mod demo;
pub mod doctor;
mod parse;
mod socket;
pub mod table;
pub mod tap;

pub use parse::{complaint, parse};

use crate::config::Flags;

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    Sidecar(Box<Flags>),
    /// `ringside demo`, with what follows it.
    Demo(Vec<String>),
    /// `ringside bench`, with what follows it.
    Bench(Vec<String>),
    /// `ringside acl`, with what follows it.
    Acl(Vec<String>),
    /// `ringside admin`, with what follows it.
    Admin(Vec<String>),
    /// `ringside doctor`, with what follows it.
    Doctor(Vec<String>),
    /// `ringside tap`, with what follows it.
    Tap(Vec<String>),
    Help,
}

/// A command line that is none: the process prints it with the usage and exits 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(pub String);

/// A command, and what goes to stderr first: the lines about deprecated flags.
#[derive(Debug)]
pub struct Parsed {
    pub command: Result<Command, UsageError>,
    pub warnings: Vec<String>,
}

/// `args` without the program's name.
pub fn command(args: Vec<String>) -> Parsed {
    match args.split_first() {
        Some((first, rest)) if first == "demo" => ours(Command::Demo(rest.to_vec())),
        Some((first, rest)) if first == "bench" => ours(Command::Bench(rest.to_vec())),
        Some((first, rest)) if first == "acl" => ours(Command::Acl(rest.to_vec())),
        Some((first, rest)) if first == "admin" => ours(Command::Admin(rest.to_vec())),
        Some((first, rest)) if first == "doctor" => ours(Command::Doctor(rest.to_vec())),
        Some((first, rest)) if first == "tap" => ours(Command::Tap(rest.to_vec())),
        Some(_) | None => parse(args),
    }
}

fn ours(command: Command) -> Parsed {
    Parsed { command: Ok(command), warnings: Vec::new() }
}
