//! A child that cannot outlive its parent, even one that is killed.
//!
//! The parent starts its own program again as `bench --exec PARENT PROGRAM ARG...`; that asks the
//! kernel for SIGKILL at its parent's death, which an exec keeps (prctl(2), PR_SET_PDEATHSIG),
//! and becomes PROGRAM. No code between fork and exec, so nothing unsafe.

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

pub const FLAG: &str = "--exec";
/// What a shell says of a program that it cannot run.
const NOT_RUN: u8 = 126;

/// How to start `program` so that it ends with this process.
pub fn launch(own: &Path, program: &Path) -> Vec<OsString> {
    let parent = std::process::id().to_string();
    vec![own.into(), "bench".into(), FLAG.into(), parent.into(), program.into()]
}

/// The other end: `args` is what follows `--exec`. Returns only when it failed.
pub fn exec(args: &[String]) -> ExitCode {
    let [parent, program, rest @ ..] = args else {
        return ExitCode::from(NOT_RUN);
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("bench: asking for a signal at the parent's death: {error}");
        return ExitCode::from(NOT_RUN);
    }
    // The parent may have died before the kernel was asked.
    let parent = parent.parse().ok().and_then(Pid::from_raw);
    if parent.is_none() || getppid() != parent {
        return ExitCode::from(NOT_RUN);
    }
    let error = Command::new(program).args(rest).exec();
    eprintln!("bench: {program}: {error}");
    ExitCode::from(NOT_RUN)
}
