//! The internal port of a sidecar that was given none: the same at each start.
//!
//! Source: Dapr's `pkg/ports/ports.go`. Whether the port is free is asked outside.

use std::fmt::Write as _;

const FIRST: u32 = 47_300;
const LAST: u32 = 65_535;

/// What the port depends on; the fields in their order, joined by `|`.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    pub app_id: &'a str,
    pub folder: &'a str,
    pub uid: u32,
    pub hostname: &'a str,
}

/// The text whose SHA-256 chooses.
pub fn seed(site: Site<'_>) -> String {
    let mut text = String::new();
    let _ = write!(text, "{}|{}|{}|{}", site.app_id, site.folder, site.uid, site.hostname);
    text
}

/// From the digest's first two octets.
pub fn from_digest(digest: &[u8]) -> u16 {
    let octet = |at: usize| u32::from(digest.get(at).copied().unwrap_or_default());
    let port = FIRST + (octet(0) + 256 * octet(1)) % (LAST - FIRST);
    u16::try_from(port).unwrap_or(u16::MAX)
}

const _: () = assert!(LAST <= u16::MAX as u32);

#[cfg(test)]
mod tests {
    use super::*;

    /// daprd 1.18.1, run as root in /tmp/clix on a host named "vm", took this port for app "m".
    #[test]
    fn same_as_daprd() {
        let text = seed(Site { app_id: "m", folder: "/tmp/clix", uid: 0, hostname: "vm" });
        assert_eq!(text, "m|/tmp/clix|0|vm");
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        assert_eq!(from_digest(digest.as_ref()), 61_903);
    }
}
