//! The name of a Unix socket that an app listens on.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

/// What fits into a `sockaddr_un` with the octet of zero that ends a path, and begins an abstract
/// name (unix(7)).
pub const SOCKET_OCTETS_MAX: usize = 107;

/// A path, or behind an `@` an abstract name: one that is in no file system.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SocketPath(Arc<str>);

impl SocketPath {
    /// The error says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let name = text.strip_prefix('@').unwrap_or(text);
        if name.is_empty() {
            return Err(format!("{text:?} is no path of a socket"));
        }
        if name.len() > SOCKET_OCTETS_MAX {
            let octets = name.len();
            return Err(format!(
                "the path of a socket has at most {SOCKET_OCTETS_MAX} octets, and {text:?} has \
                 {octets}"
            ));
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of one that is in no file system.
    pub fn abstract_name(&self) -> Option<&str> {
        self.0.strip_prefix('@')
    }

    /// As the kernel is told it: an abstract name begins with an octet of zero.
    pub fn for_kernel(&self) -> OsString {
        match self.abstract_name() {
            Some(name) => OsString::from_vec([b"\0", name.as_bytes()].concat()),
            None => self.as_str().into(),
        }
    }

    /// As gRPC's targets name it.
    pub fn target(&self) -> String {
        match self.abstract_name() {
            Some(name) => format!("unix-abstract:{name}"),
            None => format!("unix:{}", self.0),
        }
    }
}

impl fmt::Display for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    #[test]
    fn paths_and_abstract_names() {
        let path = SocketPath::parse("run/app.sock").unwrap();
        assert_eq!((path.target().as_str(), path.abstract_name()), ("unix:run/app.sock", None));
        assert_eq!(path.for_kernel(), "run/app.sock");
        let name = SocketPath::parse("@app").unwrap();
        assert_eq!(
            (name.target().as_str(), name.abstract_name()),
            ("unix-abstract:app", Some("app"))
        );
        assert_eq!(name.for_kernel(), "\0app");
        assert!(SocketPath::parse("@").unwrap_err().contains("\"@\" is no path"));
    }

    /// The limit is the kernel's: what is taken can be named to it, what is one longer cannot.
    #[test]
    fn as_long_as_the_kernel_takes() {
        for length in [SOCKET_OCTETS_MAX, SOCKET_OCTETS_MAX + 1] {
            let text = "x".repeat(length);
            let fits = SocketAddr::from_pathname(&text).is_ok();
            assert_eq!(SocketPath::parse(&text).is_ok(), fits, "{length}");
            let text = format!("@{text}");
            let fits = SocketAddr::from_abstract_name(&text[1..]).is_ok();
            assert_eq!(SocketPath::parse(&text).is_ok(), fits, "{length}");
        }
    }
}
