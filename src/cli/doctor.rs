//! `ringside doctor`: would a sidecar with these flags work here? What is wrong, and what to do.

mod files;
mod finding;
mod machine;
mod names;
mod network;
mod sentry;
mod socket;

use super::{Command, parse};
use crate::config::settings::check_flags;
use crate::config::{Environment, Flags, Settings};
use finding::{Finding, Verdict};
use std::process::ExitCode;

const USAGE: &str = "\
Usage: ringside doctor [--json] [--resolve APP] FLAGS OF THE SIDECAR

Put `ringside doctor` before the line that starts a sidecar, in the same place, with the same
variables: it looks at the kernel and the limits, reads the files, tries the ports and the place of
the admin socket, looks for the app, asks Sentry for a certificate and whoever knows names for a
name, and says for each what was found and what to do. It starts nothing and changes nothing; ports
are taken for a moment.
  --resolve APP  find that app, and see whether its sidecar is there; without it, only whether
                 names can be asked for
  --json         the findings as JSON

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
    let Own { json, resolve, rest } = match Own::of(args) {
        Ok(own) => own,
        Err(error) => {
            eprint!("{error}\n{USAGE}");
            return ExitCode::from(USAGE_ERROR);
        }
    };
    let flags = match parse(rest).command {
        Ok(Command::Sidecar(flags)) => *flags,
        Ok(_) => Flags::default(),
        Err(error) => {
            eprint!("{}\n{USAGE}", error.0);
            return ExitCode::from(USAGE_ERROR);
        }
    };
    let findings = examine(&flags, env, resolve.as_deref());
    match json {
        true => println!("{:#}", finding::as_json(&findings)),
        false => print!("{}", finding::as_text(&findings)),
    }
    match findings.iter().any(|finding| finding.verdict == Verdict::Fail) {
        true => ExitCode::from(FAILED),
        false => ExitCode::SUCCESS,
    }
}

/// What is ours of a command line, and what is the sidecar's.
#[derive(Debug, Default)]
struct Own {
    json: bool,
    resolve: Option<String>,
    rest: Vec<String>,
}

impl Own {
    fn of(args: &[String]) -> Result<Self, String> {
        let mut own = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match (arg.as_str(), arg.strip_prefix("--resolve=")) {
                ("--json", _) => own.json = true,
                ("--resolve", _) => {
                    own.resolve = Some(args.next().ok_or("--resolve needs an app ID")?.clone());
                }
                (_, Some(app)) => own.resolve = Some(app.to_owned()),
                (_, None) => own.rest.push(arg.clone()),
            }
        }
        Ok(own)
    }
}

fn examine(flags: &Flags, env: &Environment, resolve: Option<&str>) -> Vec<Finding> {
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
    let (configuration, found) = files::configurations(&settings, flags, env);
    findings.extend(found);
    findings.extend(files::resources(&settings));
    findings.extend(network::ports(&settings));
    findings.push(socket::place(flags, env));
    findings.push(network::host(&settings));
    findings.extend(network::app(&settings));
    if let Some(configuration) = configuration {
        findings.extend(names::resolver(&settings, &configuration, resolve));
    }
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
