//! The kernel and what it lets this process have.

use super::finding::Finding;
use crate::config::IoDriver;
use crate::io::probe;
use rustix::process::{Resource, getrlimit};
use std::fs;

/// Rings are charged to RLIMIT_MEMLOCK before this.
const RINGS_UNCHARGED: (u32, u32) = (5, 12);
/// What rings of some workers may take there.
const MEMLOCK_ENOUGH: u64 = 8 << 20;
/// Each connection takes one.
const DESCRIPTORS_ENOUGH: u64 = 4096;
/// The oldest kernel whose io_uring has what a worker wants (`SINGLE_ISSUER`).
const RINGS_SINGLE: (u32, u32) = (6, 0);

pub fn kernel() -> Finding {
    let release = release();
    let found = format!("Linux {release}");
    match version(&release) {
        Some(version) if version < RINGS_SINGLE => Finding::warn(
            "kernel",
            found,
            "io_uring as ringside uses it begins with 6.0: here epoll serves, at more CPU a call",
        ),
        Some(_) | None => Finding::ok("kernel", found),
    }
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// A ring is made and entered, as a worker does.
pub fn driver(wanted: IoDriver) -> Finding {
    const WHAT: &str = "event loop";
    match probe(wanted) {
        Ok(found) if found.starts_with("epoll, as") => {
            let advice = format!(
                "{}; or say --ringside-io epoll and be content: calls then take more CPU",
                how_to_allow(switched_off().as_deref())
            );
            Finding::warn(WHAT, found, advice)
        }
        Ok(found) => Finding::ok(WHAT, found),
        Err(error) => {
            let advice = how_to_allow(switched_off().as_deref());
            Finding::fail(WHAT, error.to_string(), format!("{advice}; or say --ringside-io auto"))
        }
    }
}

fn switched_off() -> Option<String> {
    let value = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    Some(value.trim().to_owned()).filter(|value| value != "0")
}

fn how_to_allow(switch: Option<&str>) -> String {
    match switch {
        Some(value) => {
            format!("kernel.io_uring_disabled is {value}: sysctl -w kernel.io_uring_disabled=0")
        }
        None => {
            "let the seccomp profile of the container allow io_uring_setup, io_uring_enter and \
                 io_uring_register"
                .to_owned()
        }
    }
}

pub fn memory() -> Finding {
    const WHAT: &str = "memlock";
    let limit = getrlimit(Resource::Memlock).current;
    let found = match limit {
        Some(octets) => format!("{} KiB may be locked", octets >> 10),
        None => "any amount may be locked".to_owned(),
    };
    let charged = version(&release()).is_some_and(|version| version < RINGS_UNCHARGED);
    match limit.is_some_and(|octets| octets < MEMLOCK_ENOUGH) && charged {
        true => Finding::warn(
            WHAT,
            found,
            "this kernel counts rings there: ulimit -l 8192, or LimitMEMLOCK=8M in the unit",
        ),
        false => Finding::ok(WHAT, found),
    }
}

pub fn descriptors() -> Finding {
    const WHAT: &str = "descriptors";
    match getrlimit(Resource::Nofile).maximum {
        Some(most) if most < DESCRIPTORS_ENOUGH => Finding::warn(
            WHAT,
            format!("at most {most} files and connections at once"),
            "raise the hard limit: ulimit -Hn 65536, or LimitNOFILE=65536 in the unit",
        ),
        Some(most) => Finding::ok(WHAT, format!("up to {most} files and connections at once")),
        None => Finding::ok(WHAT, "any number of files and connections"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(version("6.18.3-generic"), Some((6, 18)));
        assert_eq!(version("5.4"), Some((5, 4)));
        assert_eq!(version("next"), None);
    }
}
