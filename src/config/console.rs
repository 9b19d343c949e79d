//! Where a sidecar's admin socket is: for the sidecar, and for those who look for it.
//!
//! A socket's name tells app ID and process, so that two sidecars of an app on one machine have one
//! each.

use super::Environment;
use std::path::{Path, PathBuf};

/// `--ringside-admin-socket`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminSocket {
    /// `auto`: in [`folder`], where there is one.
    Auto,
    Off,
    At(PathBuf),
}

impl AdminSocket {
    pub fn parse(text: &str) -> Self {
        match text {
            "auto" => Self::Auto,
            "off" | "" => Self::Off,
            path => Self::At(path.into()),
        }
    }
}

/// The folder of a user's sockets. `None`: there is no place that is surely his own.
pub fn folder(env: &Environment, uid: u32) -> Option<PathBuf> {
    let own = env.filled("XDG_RUNTIME_DIR").map(Path::new).filter(|path| path.is_absolute());
    match own {
        Some(path) => Some(path.join("ringside")),
        None if uid == 0 => Some("/run/ringside".into()),
        None => None,
    }
}

/// `None`: such an app ID makes no name of a file.
pub fn file_name(app_id: &str, pid: u32) -> Option<String> {
    let plain = !app_id.contains(['/', '\0']) && !app_id.starts_with('.');
    plain.then(|| format!("{app_id}-{pid}.sock"))
}

/// App ID and process of a socket's name.
pub fn owner(name: &str) -> Option<(&str, u32)> {
    let (app_id, pid) = name.strip_suffix(".sock")?.rsplit_once('-')?;
    Some((app_id, pid.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_the_users_own() {
        let env = |value: &str| Environment::from_iter([("XDG_RUNTIME_DIR", value)]);
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(folder(&env("/run/user/7"), 7), path("/run/user/7/ringside"));
        assert_eq!(folder(&env("relative"), 0), path("/run/ringside"));
        assert_eq!(folder(&Environment::default(), 0), path("/run/ringside"));
        assert_eq!(folder(&Environment::default(), 7), None);
    }

    #[test]
    fn names_tell_app_and_process() {
        let name = file_name("my-app", 42).unwrap();
        assert_eq!(owner(&name), Some(("my-app", 42)));
        for bad in ["a/b", ".hidden", "a\0b"] {
            assert_eq!(file_name(bad, 1), None, "{bad:?}");
        }
        for other in ["a-42", "a.sock", "a-x.sock", ".new-a-42"] {
            assert_eq!(owner(other), None, "{other}");
        }
    }

    #[test]
    fn switches() {
        assert_eq!(AdminSocket::parse("auto"), AdminSocket::Auto);
        assert_eq!(AdminSocket::parse("off"), AdminSocket::Off);
        assert_eq!(AdminSocket::parse("/a/b"), AdminSocket::At("/a/b".into()));
    }
}
