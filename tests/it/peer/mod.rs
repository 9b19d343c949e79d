//! Real processes as fixtures.
//!
//! 1. A process started here ends with its fixture, and with the test run if that is killed.
//! 2. Every wait is bounded, and one that fails shows the log of the process it waited for.
//! 3. Ports are claimed, never fixed; what needs fixed ports or mDNS runs in [`isolated!`].

pub mod app;
pub mod bare;
pub mod chromium;
pub mod dns;
pub mod frames;
pub mod netns;
pub mod ports;
pub mod probe;
pub mod process;
pub mod shim;
pub mod sidecar;
pub mod tagged;
pub mod world;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub use sidecar::{Kind, Sentry, Sidecar, workers};
pub use world::World;

/// The path of one of the programs that `scripts/peers` builds.
pub fn program(name: &str) -> PathBuf {
    let path = folder().join(name);
    assert!(path.exists(), "scripts/peers builds no {name}: see tests/peers/README.md");
    path
}

fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| folder_of(&[]))
}

/// The path of one of nghttp2's programs, which `scripts/peers --nghttp2` fetches.
pub fn nghttp2(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| folder_of(&["--nghttp2"])).join(name)
}

/// The path of one of the programs that look on, which `scripts/peers --observers` fetches.
pub fn observer(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| folder_of(&["--observers"])).join(name)
}

fn folder_of(set: &[&str]) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/peers");
    let asked = Command::new(&script).arg("--path").args(set).output().expect("scripts/peers runs");
    let what = ["scripts/peers"].iter().chain(set).copied().collect::<Vec<_>>().join(" ");
    assert!(
        asked.status.success(),
        "the real peers are missing: run {what} once, then the tests again ({})",
        String::from_utf8_lossy(&asked.stderr).trim(),
    );
    PathBuf::from(String::from_utf8_lossy(&asked.stdout).trim())
}

/// The sidecar under test, as cargo built it.
pub fn ringside() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_ringside"))
}
