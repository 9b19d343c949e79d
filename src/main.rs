//! argv to exit code; the allocator.

use ringside::app;
use ringside::cli::{self, Command};
use ringside::config::{DAPR_VERSION, Environment, Flags};
use std::path::Path;
use std::process::ExitCode;

// AddressSanitizer watches the system's allocator only (`scripts/asan`).
#[cfg(not(ringside_asan))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As daprd: a command line that is none.
const USAGE: u8 = 2;
const PROGRAM: &str = "daprd";

fn main() -> ExitCode {
    // Where the host gives them to who did not ask, too (docs/adr/0091-no-huge-pages.md); a kernel
    // that has none refuses, and it is as well.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let args = std::env::args_os().skip(1);
    let parsed = cli::command(args.map(|arg| arg.to_string_lossy().into_owned()).collect());
    for warning in &parsed.warnings {
        eprintln!("{warning}");
    }
    match parsed.command {
        Ok(Command::Help) => {
            eprint!("{}", cli::table::usage(PROGRAM));
            if !is_called_as(PROGRAM) {
                eprint!("{}", cli::table::COMMANDS);
            }
            ExitCode::SUCCESS
        }
        Ok(Command::Demo(args)) => cli::demo::run(&args),
        Ok(Command::Bench(args)) => cli::bench::run(&args),
        Ok(Command::Acl(args)) => cli::acl::run(&args, &environment()),
        Ok(Command::Admin(args)) => cli::admin::run(&args, &environment()),
        Ok(Command::Doctor(args)) => cli::doctor::run(&args, &environment()),
        Ok(Command::Tap(args)) => cli::tap::run(&args, &environment()),
        Ok(Command::Sidecar(flags)) => sidecar(*flags),
        Err(error) => {
            eprint!("{}", cli::complaint(&error, PROGRAM));
            ExitCode::from(USAGE)
        }
    }
}

/// Whoever has installed it in daprd's place is to find daprd.
fn is_called_as(name: &str) -> bool {
    let called = std::env::args_os().next().unwrap_or_default();
    Path::new(&called).file_name().is_some_and(|called| called == name)
}

fn sidecar(flags: Flags) -> ExitCode {
    if flags.version {
        println!("{DAPR_VERSION}");
    } else if flags.build_info {
        println!("Version: {DAPR_VERSION}");
        println!("Git Commit: {}", option_env!("RINGSIDE_COMMIT").unwrap_or("unknown"));
        println!("Git Version: {}", app::build());
    } else if flags.wait {
        app::wait_until_outbound_ready(&flags.dapr_http_port);
    } else {
        return app::run(flags, environment());
    }
    ExitCode::SUCCESS
}

fn environment() -> Environment {
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    variables.collect()
}
