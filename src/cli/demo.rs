//! `ringside demo`: its arguments and its exit codes.

use crate::demo::screen::Screen;
use crate::demo::{self, Ended};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

const USAGE: &str = "\
Usage: ringside demo [--plain]

Runs an app, its caller, a certificate authority and two sidecars with mTLS between them on free
ports of this machine, calls the app in every way, measures, and leaves nothing behind.

      --plain   No colours, even on a terminal
";

/// What a shell says of a process that SIGINT ended.
const INTERRUPTED: u8 = 130;

/// `args` is what follows `demo`.
pub fn run(args: &[String]) -> ExitCode {
    let mut plain = false;
    for arg in args {
        match arg.as_str() {
            "--plain" => plain = true,
            "--help" | "-h" => {
                print!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            other => {
                eprint!("unknown argument: {other}\n{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            eprintln!("the demo cannot find its own program: {error}");
            return ExitCode::FAILURE;
        }
    };
    let out = std::io::stdout();
    let mut screen = Screen::new(&out, out.is_terminal() && !plain);
    match demo::run(program, &mut screen) {
        Ok(Ended::Complete) => ExitCode::SUCCESS,
        Ok(Ended::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(error) => {
            // The reader of the pipe may be gone, then stderr is what is left.
            if screen.bad(&format!("The demo failed: {error}")).is_err() {
                let _ = writeln!(std::io::stderr(), "The demo failed: {error}");
            }
            ExitCode::FAILURE
        }
    }
}
