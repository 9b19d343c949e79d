//! Which programs there are, where, in which version, and how to get those that are missing.

use super::StartError;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    Loadtest,
    Ringside,
    Daprd,
    Sentry,
    Haproxy,
    Nginx,
    Envoy,
}

pub const PROGRAMS: [Program; 7] = [
    Program::Loadtest,
    Program::Ringside,
    Program::Daprd,
    Program::Sentry,
    Program::Haproxy,
    Program::Nginx,
    Program::Envoy,
];

impl Program {
    pub fn name(self) -> &'static str {
        match self {
            Self::Loadtest => "loadtest",
            Self::Ringside => "ringside",
            Self::Daprd => "daprd",
            Self::Sentry => "sentry",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Loadtest => "cargo build --release -p loadtest makes it",
            Self::Ringside => "cargo build --release makes it; --ringside says where it is",
            Self::Daprd | Self::Sentry => "scripts/peers builds it (Go 1.26, about five minutes)",
            Self::Haproxy | Self::Nginx | Self::Envoy => {
                "scripts/peers --proxies fetches it beside the peers, or install it into PATH"
            }
        }
    }

    fn version_flag(self) -> &'static str {
        match self {
            Self::Loadtest | Self::Daprd | Self::Sentry | Self::Envoy => "--version",
            Self::Ringside => "--build-info",
            Self::Haproxy | Self::Nginx => "-v",
        }
    }
}

/// Enough to tell builds apart.
const DIGEST_DIGITS: usize = 12;

/// Paths of programs; none is there by default.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    paths: BTreeMap<Program, PathBuf>,
    /// Where foreign libraries lie that are not installed.
    libraries: Option<PathBuf>,
}

impl Programs {
    /// Looks beside this very program (loadtest, ringside), then in each of `folders` (what
    /// `scripts/peers` prints, with and without `--proxies`), then in `PATH`.
    pub fn find(folders: &[PathBuf]) -> Self {
        let own = std::env::current_exe().ok();
        let beside: Vec<PathBuf> = own
            .iter()
            .flat_map(|own| own.ancestors().skip(1).take(2))
            .map(Path::to_owned)
            .collect();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let installed: Vec<PathBuf> = std::env::split_paths(&path).collect();
        let sbin = ["/usr/local/sbin", "/usr/sbin"].map(PathBuf::from);
        let mut programs = Self::default();
        for program in PROGRAMS {
            let near: &[PathBuf] = match program {
                Program::Loadtest | Program::Ringside => &beside,
                Program::Daprd
                | Program::Sentry
                | Program::Haproxy
                | Program::Nginx
                | Program::Envoy => &[],
            };
            let all = near.iter().chain(folders).chain(&installed).chain(&sbin);
            let mut found = all.map(|folder| folder.join(program.name()));
            if let Some(path) = found.find(|path| path.is_file()) {
                programs.paths.insert(program, path);
            }
        }
        programs.libraries = folders.iter().map(|folder| folder.join("lib")).find(|l| l.is_dir());
        programs
    }

    pub fn set(&mut self, program: Program, path: &Path) {
        // Children run in folders of their own.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        self.paths.insert(program, path);
    }

    pub fn path(&self, program: Program) -> Result<&Path, StartError> {
        self.paths.get(&program).map(PathBuf::as_path).ok_or_else(|| {
            StartError::new(format!("{} is missing: {}", program.name(), program.remedy()))
        })
    }

    /// A command that dies with this thread.
    pub fn command(&self, program: Program) -> Result<Command, StartError> {
        let path = self.path(program)?;
        let mut command = super::process::command(path);
        self.add_libraries(path, &mut command);
        Ok(command)
    }

    /// For what lies beside them: a program that is not installed.
    fn add_libraries(&self, path: &Path, command: &mut Command) {
        if let Some(libraries) = &self.libraries
            && libraries.parent() == path.parent()
        {
            command.env("LD_LIBRARY_PATH", libraries);
        }
    }

    /// The first digits of the file's SHA-256, by coreutils.
    pub fn digest(&self, program: Program) -> Option<String> {
        let said = Command::new("sha256sum").arg(self.path(program).ok()?).output().ok()?;
        let hex = said.stdout.get(..DIGEST_DIGITS).filter(|_| said.status.success())?;
        Some(format!("SHA-256 {}", String::from_utf8_lossy(hex)))
    }

    /// The first line of what it says of its version, if it knows how to (sentry does not).
    pub fn version(&self, program: Program) -> Option<String> {
        let path = self.path(program).ok()?;
        let mut command = Command::new(path);
        self.add_libraries(path, &mut command);
        command.arg(program.version_flag()).stdin(Stdio::null());
        let said = command.output().ok().filter(|said| said.status.success())?;
        let text = [said.stdout, said.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        if program == Program::Ringside {
            return ringside_version(&text);
        }
        let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
        // Envoy says its own path first, HAProxy ends with its address.
        let line = line.rsplit("version: ").next()?.split(" - ").next()?;
        Some(line.to_owned())
    }
}

/// Its version is that of the Dapr that it follows; its own is the last of these lines, and its
/// commit is there when it was built with one.
fn ringside_version(build_info: &str) -> Option<String> {
    let own = build_info.lines().last()?.rsplit(": ").next()?.trim();
    let commit = build_info.lines().find_map(|line| line.strip_prefix("Git Commit: "));
    let commit = commit.filter(|commit| *commit != "unknown");
    Some(commit.map_or(own.to_owned(), |commit| format!("{own}, commit {commit}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ringside_says_its_commit_if_it_can() {
        let say = |commit: &str| {
            format!("Version: 1.18.1\nGit Commit: {commit}\nGit Version: ringside-0.1.0\n")
        };
        assert_eq!(ringside_version(&say("unknown")).unwrap(), "ringside-0.1.0");
        assert_eq!(ringside_version(&say("1a2b")).unwrap(), "ringside-0.1.0, commit 1a2b");
        assert_eq!(ringside_version(""), None);
    }

    #[test]
    fn a_program_is_known_by_its_hash() {
        let file = std::env::temp_dir().join(format!("loadtest-digest-{}", std::process::id()));
        std::fs::write(&file, "abc").unwrap();
        let mut programs = Programs::default();
        programs.set(Program::Envoy, &file);
        let digest = programs.digest(Program::Envoy);
        std::fs::remove_file(&file).unwrap();
        // FIPS 180-2, appendix B.1.
        assert_eq!(digest.as_deref(), Some("SHA-256 ba7816bf8f01"));
    }

    #[test]
    fn folders_come_before_the_installed() {
        let folder = std::env::temp_dir().join(format!("loadtest-programs-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("lib")).unwrap();
        let haproxy = folder.join("haproxy");
        std::fs::write(&haproxy, "").unwrap();
        let programs = Programs::find(std::slice::from_ref(&folder));
        assert_eq!(programs.path(Program::Haproxy).unwrap(), haproxy);
        assert_eq!(programs.libraries, Some(folder.join("lib")));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_missing_program_has_a_remedy() {
        for program in PROGRAMS {
            let error = Programs::default().path(program).unwrap_err().to_string();
            assert!(error.starts_with(program.name()), "{error}");
        }
    }
}
