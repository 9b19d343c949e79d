//! argv to exit code; the allocator.

use std::process::ExitCode;

/// As ringside's own: `h2` allocates for every call, and the generator must not be what is
/// measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    loadtest::cli::main(std::env::args_os())
}
