//! The composition root: from flags to a running sidecar, and to its exit code.
//!
//! Threads: this one (control, a tokio current-thread runtime), one per worker, one that writes
//! the log, one that helps control with what blocks.
//!
//! 1. Whatever ends the process is the last line of the log, and the log is written before the
//!    process ends.
//! 2. Exit codes are daprd's: 0 after a clean end, 1 otherwise (2, a command line that is none,
//!    is `main`'s).

mod announce;
mod bound;
pub mod console;
mod cpus;
pub mod listen;
pub mod log;
pub mod names;
mod rest;
mod sidecar;
mod signals;
mod start;
mod wait;

pub use wait::wait_until_outbound_ready;

use crate::config::settings::{SettingsError, check_flags, security};
use crate::config::spec::Configuration;
use crate::config::traces::Exporters;
use crate::config::{DAPR_VERSION, Environment, Flags, Settings};
use crate::control::files::Text;
use crate::control::reload::source::{Gathered, Loaded, Source};
use crate::control::reload::watch::Stamps;
use crate::io::FilePages;
use crate::policy::Policies;
use log::Log;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;

/// What a sidecar's run came to.
enum Ending {
    Clean,
    /// The text is logged as `Fatal error from runtime`.
    Failed(String),
    /// The text is logged as it is.
    AtOnce(String),
    /// SIGHUP: again from the start, in the same process.
    Restart,
}

/// Everything that is known before anything is opened.
struct Plan {
    settings: Settings,
    configuration: Configuration,
    policies: Arc<Policies>,
    /// Where these two were read, and may be read again.
    source: Arc<Source>,
    /// How Configurations looked, and how resources.
    stamps: [Option<Stamps>; 2],
    /// Of resources; taken by the start.
    resources: Vec<Text>,
    exporters: Exporters,
    flags: Flags,
    instance: String,
    /// And whether it was asked for.
    admin_socket: Option<(PathBuf, bool)>,
}

/// Which build this is; shown where daprd shows its commit.
pub fn build() -> String {
    format!("ringside-{}", env!("CARGO_PKG_VERSION"))
}

/// Runs a sidecar until it is told to end.
pub fn run(flags: Flags, mut env: Environment) -> ExitCode {
    let pages = FilePages::mapped_now();
    signals::hold();
    let instance = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let log = match Log::start(&flags, instance.clone()) {
        Ok(log) => log,
        Err((log, error)) => return end(&log, Ending::AtOnce(error)),
    };
    if let Err(error) = check_flags(&flags) {
        return end(&log, Ending::AtOnce(format!("Failed to parse flags: {error}")));
    }
    tracing::info!("Starting Dapr Runtime -- version {DAPR_VERSION} -- commit {}", build());
    tracing::info!("Log level set to: {}", flags.log_level);
    let ending = match plan(flags, &mut env, instance) {
        Ok(plan) => sidecar::run(plan, pages, &log),
        Err(error) => Ending::Failed(error.0),
    };
    end(&log, ending)
}

fn end(log: &Log, ending: Ending) -> ExitCode {
    let code = match ending {
        Ending::Clean => {
            tracing::info!("Daprd shutdown gracefully");
            ExitCode::SUCCESS
        }
        Ending::Failed(error) => {
            log.fatal(&format!("Fatal error from runtime: {error}"));
            ExitCode::FAILURE
        }
        Ending::AtOnce(text) => {
            log.fatal(&text);
            ExitCode::FAILURE
        }
        Ending::Restart => {
            log.flush();
            let error = again();
            log.fatal(&format!("Fatal error from runtime: cannot restart: {error}"));
            ExitCode::FAILURE
        }
    };
    log.flush();
    code
}

/// The same program with the same arguments, in place of this one: every descriptor closes.
fn again() -> std::io::Error {
    let program = match std::env::current_exe() {
        Ok(program) => in_its_place(program),
        Err(error) => return error,
    };
    let mut args = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    signals::hold();
    command.args(args).exec()
}

/// Linux says so of a program that another file has taken the place of.
fn in_its_place(program: PathBuf) -> PathBuf {
    let name = program.as_os_str().as_bytes().strip_suffix(b" (deleted)");
    match name.map(OsStr::from_bytes).map(PathBuf::from) {
        Some(place) if !program.exists() => place,
        Some(_) | None => program,
    }
}

/// Complaints come in daprd's order: security, flags, Configuration.
fn plan(flags: Flags, env: &mut Environment, instance: String) -> Result<Plan, SettingsError> {
    if flags.mode == "kubernetes" {
        return Err(SettingsError(
            "mode kubernetes is not supported by this version of ringside: it cannot read the \
             operator's Configurations, and would not enforce them"
                .to_owned(),
        ));
    }
    if security(&flags, env)?.is_none() {
        tracing::warn!(
            scope = "dapr.runtime.security",
            "mTLS is disabled. Skipping certificate request and tls validation"
        );
    }
    let mut settings = Settings::new(&flags, env)?;
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    if flags.mode != "standalone" {
        return Err(SettingsError(format!("invalid mode: {}", flags.mode)));
    }
    export(&flags, &settings, env);
    let grpc = ["grpc", "grpcs"].iter().any(|name| flags.app_protocol.eq_ignore_ascii_case(name));
    let source = Arc::new(Source {
        configurations: settings.config_files.clone(),
        env: env.clone(),
        folders: settings.resource_folders.clone(),
        http: !grpc,
    });
    let Gathered { stamps: of_resources, held: resources } = source.gather_resources();
    let Gathered { stamps, held: configurations } = source.gather_configurations();
    let loaded = configurations.and_then(|files| source.compile(&files));
    let Loaded { configuration, policies, warning } = loaded.map_err(SettingsError)?;
    settings.apply(&configuration);
    if let Some(warning) = warning {
        tracing::warn!(scope = "dapr.acl", "{warning}");
    }
    let tracing = &configuration.tracing;
    let exporters = tracing
        .exporters(settings.config.app_id.as_str(), env)
        .map_err(|error| SettingsError(format!("failed to setup tracing: {error}")))?;
    let admin_socket = console::place(&flags, env);
    Ok(Plan {
        settings,
        configuration,
        policies,
        source,
        stamps: [stamps, of_resources],
        resources,
        exporters,
        flags,
        instance,
        admin_socket,
    })
}

/// What daprd puts into its environment, for the Configuration's variables (spec: its own
/// process alone sees it).
fn export(flags: &Flags, settings: &Settings, env: &mut Environment) {
    let config = &settings.config;
    env.set("APP_ID", config.app_id.as_str());
    env.set("APP_PORT", config.app.as_ref().map_or(0, |app| app.port()).to_string());
    env.set("DAPR_GRPC_PORT", config.grpc_port.to_string());
    env.set("DAPR_HTTP_PORT", config.http_port.to_string());
    env.set("DAPR_METRICS_PORT", flags.metrics_port.clone());
    env.set("DAPR_PROFILE_PORT", flags.profile_port.clone());
    if let Some(port) = settings.listen.internal_port {
        env.set("DAPR_PORT", port.to_string());
    }
    if let Some(address) = &settings.host_ip {
        env.set("HOST_ADDRESS", address.clone());
    }
}
