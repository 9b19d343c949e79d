//! Ports for programs that must be told theirs.
//!
//! 1. They lie below the range from which the kernel picks source ports, so no connection sits on
//!    one between the claim and the program's bind.
//! 2. A port is claimed by a locked file for as long as this process lives, so runs side by side
//!    choose different ones; the test suite of ringside uses the same files.

use super::StartError;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Mutex;

const FIRST: u16 = 12_000;
const LAST: u16 = 32_000;
const FOLDER: &str = "ringside-test-ports";

/// Locked files of the claimed ports, and where to look next.
static CLAIMS: Mutex<(Vec<File>, u16)> = Mutex::new((Vec::new(), 0));

/// An address on loopback that nobody listens on and no other run will choose.
pub fn claim() -> Result<SocketAddr, StartError> {
    let folder = std::env::temp_dir().join(FOLDER);
    fs::create_dir_all(&folder).map_err(|e| StartError::file(&folder, &e))?;
    let mut claims = CLAIMS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let span = LAST - FIRST;
    if claims.1 == 0 {
        claims.1 = u16::try_from(std::process::id() * 89 % u32::from(span)).unwrap_or(1);
    }
    for _ in 0..span {
        claims.1 = (claims.1 + 1) % span;
        let port = FIRST + claims.1;
        let path = folder.join(port.to_string());
        let file = File::create(&path).map_err(|e| StartError::file(&path, &e))?;
        let free = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
        if free && file.try_lock().is_ok() {
            claims.0.push(file);
            return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        }
    }
    Err(StartError::new(format!("no port between {FIRST} and {LAST} is free")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_differ_and_are_free() {
        let ports = [claim().unwrap(), claim().unwrap(), claim().unwrap()];
        assert!(ports[0] != ports[1] && ports[1] != ports[2] && ports[0] != ports[2]);
        let listeners = ports.map(|port| TcpListener::bind(port).unwrap());
        assert_eq!(listeners.map(|l| l.local_addr().unwrap()), ports);
    }
}
