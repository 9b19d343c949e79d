//! `ringside doctor`: would a sidecar with these flags work here? What is wrong, and what to do.

mod files;
mod finding;
mod machine;
mod network;
mod sentry;

use super::{Command, parse};
use crate::config::settings::check_flags;
use crate::config::{Environment, Flags, Settings};
use finding::{Finding, Verdict};
use std::process::ExitCode;

const USAGE: &str = "\
Usage: ringside doctor [--json] FLAGS OF THE SIDECAR

Put `ringside doctor` before the line that starts a sidecar, in the same place, with the same
variables: it looks at the kernel and the limits, reads the files, tries the ports, asks Sentry for
a certificate, and says for each what was found and what to do. It starts nothing and changes
nothing; ports are taken for a moment.

Exit code: 0 a sidecar would work (warnings or not), 1 it would not, 2 no such command line.
";

const FAILED: u8 = 1;
const USAGE_ERROR: u8 = 2;

/// `args` is what follows `doctor`.
pub fn run(args: &[String], env: &Environment) -> ExitCode {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let json = args.iter().any(|arg| arg == "--json");
    let rest = args.iter().filter(|arg| *arg != "--json").cloned().collect();
    let flags = match parse(rest).command {
        Ok(Command::Sidecar(flags)) => *flags,
        Ok(_) => Flags::default(),
        Err(error) => {
            eprint!("{}\n{USAGE}", error.0);
            return ExitCode::from(USAGE_ERROR);
        }
    };
    let findings = examine(&flags, env);
    match json {
        true => println!("{:#}", finding::as_json(&findings)),
        false => print!("{}", finding::as_text(&findings)),
    }
    match findings.iter().any(|finding| finding.verdict == Verdict::Fail) {
        true => ExitCode::from(FAILED),
        false => ExitCode::SUCCESS,
    }
}

fn examine(flags: &Flags, env: &Environment) -> Vec<Finding> {
    let mut findings = vec![machine::kernel(), machine::memory(), machine::descriptors()];
    let settings = check_flags(flags).and_then(|()| Settings::new(flags, env));
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => {
            let advice = "correct the flag or the variable that it names, then ask again";
            findings.push(Finding::fail("flags", error.0, advice));
            return findings;
        }
    };
    findings.push(flags_found(flags, &settings));
    findings.push(machine::driver(settings.config.io));
    findings.extend(files::configurations(&settings, flags, env));
    findings.extend(files::resources(&settings));
    findings.extend(network::ports(&settings));
    findings.push(network::host(&settings));
    findings.extend(network::app(&settings));
    findings.extend(sentry::identity(&settings));
    findings
}

fn flags_found(flags: &Flags, settings: &Settings) -> Finding {
    let (id, namespace) = (&settings.config.app_id, settings.config.namespace.as_str());
    let found = format!("app id {id}, namespace {namespace:?}, mode {}", flags.mode);
    if flags.mode != "standalone" {
        let advice = "say --mode standalone: this version of ringside serves no other";
        return Finding::fail("flags", found, advice);
    }
    match settings.warnings.is_empty() {
        true => Finding::ok("flags", found),
        false => Finding::warn("flags", settings.warnings.join("; "), "say it the newer way"),
    }
}
