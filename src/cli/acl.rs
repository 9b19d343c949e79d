//! `ringside acl explain`: what access control would say of one call, and why.

use crate::config::Environment;
use crate::config::spec::Configuration;
use crate::control::files;
use crate::identity::SpiffeId;
use crate::policy::{Policies, acl, method};
use std::process::ExitCode;

const USAGE: &str = "\
Usage: ringside acl explain --config FILE [--config FILE] --method /pkg.Service/Method
                            [--caller spiffe://DOMAIN/ns/NAMESPACE/APP]
                            [--app-protocol grpc|http]

Says whether a sidecar with these Configurations would let the caller call the method of its app,
and which rule decides. Without --caller: somebody without a certificate, as every caller is without
mTLS, and the app itself. Variables in the files are those of this shell.

Exit code: 0 allowed, 1 denied, 2 no decision.
";

const DENIED: u8 = 1;
const UNDECIDED: u8 = 2;

#[derive(Debug, Default)]
struct Options {
    configs: Vec<String>,
    caller: Option<String>,
    method: Option<String>,
    http: bool,
}

/// `args` is what follows `acl`.
pub fn run(args: &[String], env: &Environment) -> ExitCode {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let answer = match options(args) {
        Ok(options) => explain(&options, env),
        Err(error) => Err(format!("{error}\n{USAGE}")),
    };
    match answer {
        Ok((allowed, text)) => {
            println!("{text}");
            if allowed { ExitCode::SUCCESS } else { ExitCode::from(DENIED) }
        }
        Err(error) => {
            eprintln!("{}", error.trim_end());
            ExitCode::from(UNDECIDED)
        }
    }
}

fn options(args: &[String]) -> Result<Options, String> {
    let mut args = args.iter();
    match args.next().map(String::as_str) {
        Some("explain") => {}
        Some(other) => return Err(format!("unknown argument: {other}")),
        None => return Err("what is to be done is missing: explain".to_owned()),
    }
    let mut options = Options::default();
    while let Some(arg) = args.next() {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (arg.as_str(), args.next().cloned()),
        };
        let value = value.ok_or_else(|| format!("{name} needs a value"))?;
        match name {
            "--config" => options.configs.push(value),
            "--caller" => options.caller = Some(value),
            "--method" => options.method = Some(value),
            "--app-protocol" => options.http = !value.to_ascii_lowercase().starts_with("grpc"),
            other => return Err(format!("unknown argument: {other}")),
        }
    }
    Ok(options)
}

/// Allowed or not, and the lines that say so.
fn explain(options: &Options, env: &Environment) -> Result<(bool, String), String> {
    let path = options.method.as_deref().ok_or_else(|| format!("--method is missing\n{USAGE}"))?;
    let caller = match &options.caller {
        None => None,
        Some(text) => {
            Some(SpiffeId::parse(text).map_err(|error| format!("--caller {text}: {error}"))?)
        }
    };
    let files = files::configurations(&options.configs, env).map_err(|failure| failure.text)?;
    let configuration = Configuration::load(&files).map_err(|error| error.to_string())?;
    let (policies, warning) =
        Policies::compile(&configuration, options.http).map_err(|error| error.to_string())?;
    for (field, file) in &configuration.unknown {
        eprintln!("warning: {file}: no Configuration has a field {field}");
    }
    if let Some(warning) = warning {
        eprintln!("warning: {warning}");
    }
    let octets = path.as_bytes();
    let judged = method::check_shape(octets)
        .and_then(|()| method::check_characters(octets))
        .and_then(|()| method::check_clean(octets));
    if let Err(error) = judged {
        let why = method::error_message(octets, error);
        return Ok((false, format!("denied\nrule: before any policy\ntext: {why}")));
    }
    let Some(access) = &policies.access else {
        return Ok((true, "allowed\nrule: there is no accessControl".to_owned()));
    };
    let standing = policies.standing(caller.as_ref());
    let decision = access.decide(standing, octets);
    let rule = access.explain(&decision);
    let text = match decision.allowed {
        true => format!("allowed\nrule: {rule}"),
        false => {
            let text = acl::denial(caller.as_ref(), standing, octets);
            format!("denied\nrule: {rule}\ntext: {text}")
        }
    };
    Ok((decision.allowed, text))
}
