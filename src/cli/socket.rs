//! Finding a sidecar's admin socket, and asking it.

use crate::config::{Environment, console};
use serde_json::Value;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// A sidecar answers a question in much less.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Of an answer's line.
const LINE_OCTETS_MAX: u64 = 64 << 20;

/// Exit codes: no answer; not understood.
const NONE: u8 = 1;
const USAGE_ERROR: u8 = 2;

/// A command that asks a sidecar: its help, its options, and how it ends.
pub fn command<O>(
    args: &[String],
    usage: &str,
    options: impl FnOnce(&[String]) -> Result<O, String>,
    act: impl FnOnce(&O) -> Result<(), String>,
) -> ExitCode {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{usage}");
        return ExitCode::SUCCESS;
    }
    let options = match options(args) {
        Ok(options) => options,
        Err(error) => {
            eprint!("{error}\n{usage}");
            return ExitCode::from(USAGE_ERROR);
        }
    };
    match act(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(NONE)
        }
    }
}

/// Which sidecar is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whom {
    pub socket: Option<PathBuf>,
    pub app_id: Option<String>,
}

/// Those that listen in the folder: app ID, process, path.
fn listening(folder: &Path) -> Vec<(String, u32, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(String, u32, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (app_id, pid) = console::owner(&name)?;
            // What nobody listens at was left behind.
            UnixStream::connect(entry.path()).ok()?;
            Some((app_id.to_owned(), pid, entry.path()))
        })
        .collect();
    found.sort();
    found
}

/// The socket that is meant; the error says what to do.
pub fn find(whom: &Whom, env: &Environment) -> Result<PathBuf, String> {
    if let Some(path) = &whom.socket {
        return Ok(path.clone());
    }
    let uid = rustix::process::geteuid().as_raw();
    let folder = console::folder(env, uid).ok_or(
        "where sidecars of this user have their sockets is not known (XDG_RUNTIME_DIR is not \
         set): say --socket PATH, as the sidecar's --ringside-admin-socket",
    )?;
    let mut found = listening(&folder);
    if let Some(app_id) = &whom.app_id {
        found.retain(|(known, ..)| known == app_id);
    }
    let shown = folder.display();
    let all: Vec<String> = found.iter().map(|(_, _, path)| path.display().to_string()).collect();
    match (found.pop(), found.is_empty(), &whom.app_id) {
        (Some((.., path)), true, _) => Ok(path),
        (None, ..) => match &whom.app_id {
            Some(app_id) => Err(format!("no sidecar of {app_id} listens in {shown}")),
            None => Err(format!("no sidecar listens in {shown}: is one running, as this user?")),
        },
        (Some(_), false, _) => {
            Err(format!("there are several, say --app-id or --socket:\n  {}", all.join("\n  ")))
        }
    }
}

/// Asks; what comes is read line by line. Questions have an answer soon, taps may wait.
pub fn ask(path: &Path, question: &str, soon: bool) -> Result<BufReader<UnixStream>, String> {
    let failed = |what: &str, error: io::Error| format!("{what} {}: {error}", path.display());
    let mut stream =
        UnixStream::connect(path).map_err(|error| failed("cannot connect to", error))?;
    if soon {
        stream
            .set_read_timeout(Some(ANSWER_TIME_MAX))
            .map_err(|error| failed("cannot set up", error))?;
    }
    stream
        .write_all(format!("{question}\n").as_bytes())
        .map_err(|error| failed("cannot ask", error))?;
    Ok(BufReader::new(stream))
}

/// The next line; `None` at the end.
pub fn next(answer: &mut BufReader<UnixStream>) -> Result<Option<Value>, String> {
    let mut line = String::new();
    io::Read::take(answer, LINE_OCTETS_MAX)
        .read_line(&mut line)
        .map_err(|error| format!("no answer: {error}"))?;
    if line.is_empty() {
        return Ok(None);
    }
    let value: Value =
        serde_json::from_str(&line).map_err(|error| format!("not understood: {error}"))?;
    match value.get("error") {
        Some(Value::String(error)) => Err(error.clone()),
        Some(_) | None => Ok(Some(value)),
    }
}
