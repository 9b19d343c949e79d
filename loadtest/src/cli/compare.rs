//! `loadtest compare`: what sidecars cost, beside each other.

use super::Ended;
use crate::compare::{self, Options, Workload, peers_folders};
use crate::interrupt;
use crate::topology::{Between, Ingredients, Kind, Program, Programs};
use clap::{Arg, ArgMatches, Command, value_parser};
use std::fs;
use std::path::{Path, PathBuf};

/// Pseudo-workloads that have no load: memory and start.
const MEMORY: &str = "w6";
const START: &str = "w7";
const START_PLAIN: &str = "w7p";

pub fn grammar() -> Command {
    Command::new("compare")
        .about("Measure ringside beside daprd, HAProxy, nginx, Envoy and plain relays")
        .long_about(
            "Starts the same two hops in front of one app with each program, runs workloads over \
             all of them in alternation, and prints Markdown: CPU per call, latencies, switches, \
             memory, start, and the ratios within rounds.\n\n\
             Programs: scripts/peers builds daprd and sentry, scripts/peers --proxies fetches \
             HAProxy, nginx and Envoy where they are not installed; what is missing is left out \
             unless --topologies names it.",
        )
        .args(shared_args())
        .arg(topologies_arg())
        .arg(
            Arg::new("workloads")
                .long("workloads")
                .value_name("W1,W2,…")
                .value_delimiter(',')
                .default_value("w1,w2r,w3s,w2,w3,w3u,w4a,w4b,w5,w5s,w6,w7,w7p")
                .help("What to send; w6 is memory, w7 the start, w7p without TLS between the hops"),
        )
}

/// The ways of `compare`, `sweep` and `hold`.
pub(super) fn topologies_arg() -> Arg {
    Arg::new("topologies").long("topologies").value_name("A,B,…").value_delimiter(',').help(
        "Ways to compare: direct, relay, haproxy-tcp, ringside, ringside-epoll, daprd, haproxy, \
         nginx, envoy",
    )
}

/// What all that measure share.
pub(super) fn shared_args() -> [Arg; 6] {
    let path = |name: &'static str| {
        Arg::new(name).long(name).value_name("PATH").value_parser(value_parser!(PathBuf))
    };
    [
        Arg::new("rounds")
            .long("rounds")
            .value_name("N")
            .value_parser(value_parser!(u16).range(1..))
            .default_value("9")
            .help("Rounds, each over everything"),
        Arg::new("seconds")
            .long("seconds")
            .value_name("S")
            .value_parser(value_parser!(f64))
            .default_value("3")
            .help("Length of one measured run"),
        path("ringside").help("The ringside to measure; else the one beside this program"),
        Arg::new("ringside-arg")
            .long("ringside-arg")
            .value_name("FLAG")
            .num_args(1)
            .action(clap::ArgAction::Append)
            .allow_hyphen_values(true)
            .help("A further flag of each ringside; may be repeated"),
        path("peers").help("Folder of daprd and sentry; else what scripts/peers --path prints"),
        path("json").help("Write every figure of every round there"),
    ]
}

pub fn run(matches: &ArgMatches) -> Ended {
    let programs = programs(matches);
    let (workloads, memory, starts) = workloads(matches)?;
    let kinds = kinds(matches, &programs)?;
    let options = Options {
        rounds: rounds(matches),
        seconds: seconds(matches)?,
        kinds,
        workloads,
        memory,
        starts,
        command: typed(),
    };
    let folder = Scratch::new()?;
    let mut ingredients = Ingredients::new(programs, folder.path());
    ingredients.ringside_args = ringside_args(matches);
    let report = compare::run(&options, &ingredients, &mut says)?;
    println!("{}", report.markdown());
    write_json(matches, &report.json())?;
    match report.failed() {
        0 => Ok(()),
        failed => Err(format!("{failed} calls failed; their runs are marked")),
    }
}

pub(super) fn says(line: &str) {
    eprintln!("loadtest: {line}");
}

pub(super) fn programs(matches: &ArgMatches) -> Programs {
    let mut folders: Vec<PathBuf> =
        matches.get_one::<PathBuf>("peers").into_iter().cloned().collect();
    folders.extend(peers_folders());
    let mut programs = Programs::find(&folders);
    if let Some(path) = matches.get_one::<PathBuf>("ringside") {
        programs.set(Program::Ringside, path);
    }
    programs
}

pub(super) fn rounds(matches: &ArgMatches) -> usize {
    matches.get_one::<u16>("rounds").copied().map_or(1, usize::from)
}

pub(super) fn seconds(matches: &ArgMatches) -> Result<f64, String> {
    let seconds = matches.get_one::<f64>("seconds").copied().unwrap_or(1.0);
    let fits = (0.05..=3600.0).contains(&seconds);
    fits.then_some(seconds).ok_or_else(|| "--seconds is between 0.05 and 3600".to_owned())
}

pub(super) fn ringside_args(matches: &ArgMatches) -> Vec<String> {
    matches.get_many::<String>("ringside-arg").into_iter().flatten().cloned().collect()
}

pub(super) fn write_json(matches: &ArgMatches, json: &str) -> Ended {
    let Some(path) = matches.get_one::<PathBuf>("json") else { return Ok(()) };
    fs::write(path, json).map_err(|e| format!("{}: {e}", path.display()))
}

/// The command as typed, with programs by their names and without options that say where files
/// are on this machine.
pub(super) fn typed() -> String {
    typed_of(std::env::args().skip(1))
}

fn typed_of(words: impl Iterator<Item = String>) -> String {
    let mut shown = vec!["loadtest".to_owned()];
    let mut words = words;
    while let Some(word) = words.next() {
        match word.split_once('=').map_or(word.as_str(), |(name, _)| name) {
            "--ringside" => {
                let path = word.split_once('=').map(|(_, path)| path.to_owned());
                let path = path.or_else(|| words.next()).unwrap_or_default();
                let name = Path::new(&path).file_name().unwrap_or_default();
                shown.push(format!("--ringside {}", name.to_string_lossy()));
            }
            "--peers" | "--json" => {
                if !word.contains('=') {
                    words.next();
                }
            }
            _ if word.contains(' ') => shown.push(format!("'{word}'")),
            _ => shown.push(word),
        }
    }
    shown.join(" ")
}

fn workloads(matches: &ArgMatches) -> Result<(Vec<Workload>, bool, Vec<Between>), String> {
    let (mut workloads, mut memory, mut starts) = (Vec::new(), false, Vec::new());
    for name in matches.get_many::<String>("workloads").into_iter().flatten() {
        match name.to_lowercase().as_str() {
            MEMORY => memory = true,
            START => starts.push(Between::Tls),
            START_PLAIN => starts.push(Between::Plain),
            name => workloads.push(workload(name)?),
        }
    }
    Ok((workloads, memory, starts))
}

pub(super) fn workload(name: &str) -> Result<Workload, String> {
    Workload::named(name).ok_or_else(|| {
        let known: Vec<&str> = Workload::ALL.iter().map(|workload| workload.name()).collect();
        format!("there is no workload {name}: {}", known.join(", "))
    })
}

/// Those asked for, or all whose programs are there.
pub(super) fn kinds(matches: &ArgMatches, programs: &Programs) -> Result<Vec<Kind>, String> {
    let Some(names) = matches.get_many::<String>("topologies") else {
        let mut found = Vec::new();
        for kind in Kind::ALL {
            match missing(kind, programs) {
                None => found.push(kind),
                Some(sentence) => says(&format!("without {}: {sentence}", kind.name())),
            }
        }
        return Ok(found);
    };
    names
        .map(|name| {
            let kind = Kind::named(name).ok_or_else(|| {
                let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
                format!("there is no topology {name}: {}", known.join(", "))
            })?;
            missing(kind, programs).map_or(Ok(kind), Err)
        })
        .collect()
}

fn missing(kind: Kind, programs: &Programs) -> Option<String> {
    let sentry = kind.is_dapr().then_some(Program::Sentry);
    let mut wanted = kind.programs().iter().copied().chain(sentry);
    wanted.find_map(|program| programs.path(program).err()).map(|error| error.to_string())
}

/// A folder that goes away with this, for configurations and logs; from then on a signal ends the
/// run by returning, so that it does.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Result<Self, String> {
        interrupt::arm().map_err(|e| format!("signals cannot be caught: {e}"))?;
        let folder = std::env::temp_dir().join(format!("loadtest-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(Self(folder))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Keys are in it; what cannot be removed is the temporary folder's.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_shows_no_paths() {
        let words = "compare --ringside /a/b --rounds 3 --json=/c --peers /d --workloads w1";
        let shown = typed_of(words.split(' ').map(str::to_owned));
        assert_eq!(shown, "loadtest compare --ringside b --rounds 3 --workloads w1");
        let shown = typed_of(["crowd", "--ringside=/a/c"].map(str::to_owned).into_iter());
        assert_eq!(shown, "loadtest crowd --ringside c");
    }
}
