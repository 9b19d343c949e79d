//! What all topologies of a comparison share: the app, and the description of the machine.

use super::probe;
use super::report::Header;
use crate::account::Machine;
use crate::topology::{
    self, Ingredients, Kind, PATIENCE, PROGRAMS, Process, Program, Running, raise_open_files,
};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// The name of the app where names exist.
pub const APP_ID: &str = "server";

/// One app and the ingredients of ways to it.
pub struct Site<'a> {
    pub ingredients: &'a Ingredients,
    app: Process,
    pub address: SocketAddr,
}

impl<'a> Site<'a> {
    /// Starts the app.
    pub fn open(ingredients: &'a Ingredients) -> Result<Self, String> {
        raise_open_files();
        let (app, address) = topology::app(ingredients).map_err(|e| e.to_string())?;
        Ok(Self { ingredients, app, address })
    }

    pub fn app_pid(&self) -> u32 {
        self.app.pid()
    }

    /// A way that has answered a call.
    pub fn start(&self, kind: Kind) -> Result<Running, String> {
        self.start_to(kind, self.address, APP_ID)
    }

    /// One of each. `says` hears of them.
    pub fn start_all(
        &self,
        kinds: &[Kind],
        says: &mut dyn FnMut(&str),
    ) -> Result<Vec<Running>, String> {
        let started = kinds.iter().map(|kind| {
            says(&format!("starting {}", kind.name()));
            self.start(*kind)
        });
        started.collect()
    }

    pub fn start_to(&self, kind: Kind, app: SocketAddr, id: &str) -> Result<Running, String> {
        let running = topology::start(kind, app, id, self.ingredients);
        let mut running = running.map_err(|e| e.to_string())?;
        let answered = probe::first_answer(running.entry, &running.metadata, PATIENCE);
        answered.map_err(|error| match running.check() {
            Ok(()) => format!("{} answers no call: {error}", kind.name()),
            Err(gone) => gone.to_string(),
        })?;
        Ok(running)
    }

    #[expect(clippy::disallowed_methods, reason = "a report says its date")]
    pub fn header(&self, command: &str, kinds: &[Kind]) -> Header {
        let programs = &self.ingredients.programs;
        let signed = kinds.iter().any(|kind| kind.is_dapr());
        let wanted = |program: &Program| match program {
            // It is the app in any case.
            Program::Loadtest => true,
            Program::Sentry => signed,
            _ => kinds.iter().any(|kind| kind.programs().contains(program)),
        };
        let versions: BTreeMap<String, String> = PROGRAMS
            .into_iter()
            .filter(wanted)
            .map(|program| {
                let version = match program {
                    Program::Loadtest => Some(own_version()),
                    _ => programs.version(program),
                };
                let parts = [version, programs.digest(program)].into_iter().flatten();
                (program.name().to_owned(), parts.collect::<Vec<_>>().join(", "))
            })
            .collect();
        Header {
            command: command.to_owned(),
            date: date(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)),
            machine: machine(),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            commit: commit(),
            versions,
            machine_clock: Machine::now().map_or("none", |m| m.source.meaning()).to_owned(),
            ringside_args: self.ingredients.ringside_args.clone(),
        }
    }
}

/// The commit is said by who builds, as for ringside's `--build-info`.
fn own_version() -> String {
    let build = if cfg!(debug_assertions) { "debug build" } else { "release build" };
    let commit = option_env!("RINGSIDE_COMMIT").map_or(String::new(), |c| format!(", commit {c}"));
    format!("{}, {build}{commit}", env!("CARGO_PKG_VERSION"))
}

/// Where `scripts/peers` puts programs, as far as they are there: its own folder and, beside it,
/// that of `--proxies`.
pub fn peers_folders() -> Vec<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/peers");
    let Ok(said) = Command::new(script).arg("--path").output() else { return Vec::new() };
    let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    if said.is_empty() {
        return Vec::new();
    }
    let peers = PathBuf::from(said);
    let proxies = peers.with_file_name("proxies-1");
    [peers, proxies].into_iter().filter(|folder| folder.is_dir()).collect()
}

fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |name: &str| {
        let line = cpus.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = value("model name").unwrap_or_else(|| "unknown CPU".to_owned());
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    let guest = if cpus.contains(" hypervisor") { ", virtual" } else { "" };
    format!("{count} CPUs ({model}{guest}), {} GiB", kib.unwrap_or(0) >> 20)
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

/// Of the checkout that this was built from, if it is there.
fn commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]);
    let said = git.output().ok().filter(|said| said.status.success())?;
    Some(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

/// `YYYY-MM-DD HH:MM UTC`; days to dates by counting years of 365 or 366 days from 1970.
fn date<E>(since_epoch: Result<std::time::Duration, E>) -> String {
    let Ok(seconds) = since_epoch.map(|since| since.as_secs()) else { return String::new() };
    let (mut days, rest) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (day, hour, minute) = (days + 1, rest / 3600, rest / 60 % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// As `date -u -d @N` says.
    #[test]
    fn dates_are_civil() {
        let at = |seconds| date(Ok::<_, ()>(Duration::from_secs(seconds)));
        assert_eq!(at(0), "1970-01-01 00:00 UTC");
        assert_eq!(at(951_782_399), "2000-02-28 23:59 UTC");
        assert_eq!(at(951_868_800), "2000-03-01 00:00 UTC");
        assert_eq!(at(1_795_444_200), "2026-11-23 14:30 UTC");
        assert_eq!(at(4_102_444_799), "2099-12-31 23:59 UTC");
    }

    #[test]
    fn the_machine_is_described() {
        assert!(machine().contains("CPUs (") && !machine().starts_with('0'), "{}", machine());
        assert!(!first_line("/proc/sys/kernel/osrelease").is_empty());
    }
}
