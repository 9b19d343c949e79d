//! `ringside bench`: what sidecars cost on the user's own service.
//!
//! 1. Nothing is needed but this program and the service: descriptors are compiled or asked for
//!    here, identities come from an authority of the measurement's own.
//! 2. Whatever happens, the sidecars end and the folder goes.
//! 3. What cannot be measured is said, with what to do; a missing daprd is not fatal.

mod data;
mod options;
mod pairs;
mod read;
mod reflection;
mod report;
mod rounds;
mod schema;
mod story;
mod tether;

use options::{Options, Output, Task};
use report::Report;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// As ghz and daprd: a command line that is none.
const USAGE: u8 = 2;
/// What a shell says of a process that SIGINT ended.
const INTERRUPTED: u8 = 130;

/// The measurement failed; the text is a sentence for the user.
#[derive(Debug)]
pub struct BenchError(String);

/// `args` is what follows `bench`.
pub fn run(args: &[String]) -> ExitCode {
    if let Some((first, rest)) = args.split_first()
        && first == tether::FLAG
    {
        return tether::exec(rest);
    }
    let ended = match options::parse(args) {
        Err(text) => {
            eprintln!("{}", text.trim_end());
            return ExitCode::from(USAGE);
        }
        Ok(Task::Help(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Ok(Task::Read(first, second)) => read::compare(&first, &second).map(Some),
        Ok(Task::Measure(options)) => measure(&options),
    };
    match ended {
        Ok(Some(text)) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            // The reader of the pipe is gone.
            Err(_) => ExitCode::FAILURE,
        },
        Ok(None) => ExitCode::from(INTERRUPTED),
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is to be printed; `None` when it was interrupted.
fn measure(options: &Options) -> Result<Option<String>, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        // Dropping the story at any point ends its processes and removes its folder.
        tokio::select! {
            told = story::tell(options) => told.map(Some),
            _ = interrupt.recv() => Ok(None),
            _ = terminate.recv() => Ok(None),
        }
    });
    // A run that was left alone still has its thread, which ends with the process.
    runtime.shutdown_background();
    report?.map(|report| finish(&report, options)).transpose()
}

/// Writes what goes into files, and returns what goes to stdout.
fn finish(report: &Report, options: &Options) -> Result<String, BenchError> {
    let (text, path) = match &options.output {
        Output::Text(path) => (report.text(), path),
        Output::Json(path) => (report.json()?, path),
        Output::Ghz(folder) => {
            let written = report.write_ghz(folder)?;
            return Ok(format!("{}{written}", report.text()));
        }
    };
    match path {
        None => Ok(text),
        Some(path) => {
            std::fs::write(path, text)
                .map_err(|error| BenchError::new(format!("writing {}: {error}", path.display())))?;
            Ok(String::new())
        }
    }
}

impl BenchError {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Of a sidecar whose port somebody else has.
    fn is_port_clash(&self) -> bool {
        self.0.to_lowercase().contains("address already in use")
    }
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BenchError {}

macro_rules! from {
    ($($error:ty),*) => {
        $(impl From<$error> for BenchError {
            fn from(error: $error) -> Self {
                Self(error.to_string())
            }
        })*
    };
}

from!(io::Error, crate::demo::DemoError, crate::demo::authority::AuthorityError);
