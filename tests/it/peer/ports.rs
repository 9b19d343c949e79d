//! Ports for processes that must be told theirs.
//!
//! 1. A port is claimed by a locked file for as long as this process lives, so test runs side by
//!    side never choose the same one.
//! 2. They lie below the range from which the kernel picks source ports, so that no connection
//!    sits on one between the claim and the peer's bind.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

const FIRST: u16 = 12_000;
const LAST: u16 = 32_000;

/// Locked files of the claimed ports, and where to look next.
static CLAIMS: Mutex<(Vec<File>, u16)> = Mutex::new((Vec::new(), 0));

/// A port that nobody listens on and no other test will choose.
pub fn claim() -> u16 {
    let folder = std::env::temp_dir().join("ringside-test-ports");
    fs::create_dir_all(&folder).expect("a folder for port claims");
    let mut claims = CLAIMS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let span = LAST - FIRST;
    if claims.1 == 0 {
        claims.1 = u16::try_from(std::process::id() * 97 % u32::from(span)).unwrap_or(1);
    }
    for _ in 0..span {
        claims.1 = (claims.1 + 1) % span;
        let port = FIRST + claims.1;
        let file = File::create(folder.join(port.to_string())).expect("a port claim's file");
        let free = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
        if free && file.try_lock().is_ok() {
            claims.0.push(file);
            return port;
        }
    }
    panic!("no free port between {FIRST} and {LAST}");
}
