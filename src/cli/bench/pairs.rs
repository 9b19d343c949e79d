//! Two sidecars of a kind around the user's service: ringside's pair and daprd's.
//!
//! 1. Both get their identities from the same development authority, and the same flags but for
//!    those that say where apps are.
//! 2. A pair is given back once a call through it could be made: identities, names and the
//!    service are there.

use super::BenchError;
use super::options::Resolver;
use super::tether;
use crate::demo::folder::Folder;
use crate::demo::sidecar::{Common, Ports, Sidecar, WITHOUT_ADMIN_SOCKET};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The caller's app ID.
const CALLER: &str = "ringside-bench";
const ATTEMPTS: usize = 3;

/// Whose pair.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    Ringside,
    Daprd(&'a Path, Resolver),
}

/// What both kinds are told.
#[derive(Clone, Debug)]
pub struct Ground {
    /// This very program.
    pub own: PathBuf,
    pub sentry: SocketAddr,
    pub anchors: String,
    pub service: SocketAddr,
    /// The service's app ID.
    pub app: String,
}

/// Two sidecars, and where calls go in.
#[derive(Debug)]
pub struct Pair {
    pub resolver: &'static str,
    caller: Sidecar,
    callee: Sidecar,
}

impl Pair {
    /// Another process may take a port between our choice and the sidecar's bind; then once more.
    pub async fn start(kind: Kind<'_>, ground: &Ground, at: &Folder) -> Result<Self, BenchError> {
        let mut attempt = 1;
        loop {
            let folder = at.folder(&format!("{}-{attempt}", kind.resolver().replace(" ", "-")))?;
            match start(kind, ground, &folder).await {
                Err(error) if attempt < ATTEMPTS && error.is_port_clash() => attempt += 1,
                ended => return ended,
            }
        }
    }

    /// Where the caller's sidecar takes calls.
    pub fn address(&self) -> SocketAddr {
        self.caller.grpc()
    }

    pub fn pids(&self) -> [u32; 2] {
        [self.caller.pid(), self.callee.pid()]
    }

    pub fn log_tails(&self) -> String {
        let (caller, callee) = (self.caller.log_tail(), self.callee.log_tail());
        format!("the caller's sidecar:\n{caller}the service's:\n{callee}")
    }
}

async fn start(kind: Kind<'_>, ground: &Ground, folder: &Path) -> Result<Pair, BenchError> {
    let [for_caller, for_callee] = Ports::pick()?;
    let config = folder.join("config.yaml");
    std::fs::write(&config, kind.configuration(for_callee.internal, folder))?;
    let mut more: Vec<OsString> =
        vec!["--config".into(), config.into(), "--log-level".into(), "warn".into()];
    if let Kind::Ringside = kind {
        let hosts = folder.join("hosts.yaml");
        let internal = for_callee.internal;
        std::fs::write(&hosts, format!("{}: [\"127.0.0.1:{internal}\"]\n", ground.app))?;
        more.extend(["--ringside-resolve-file".into(), hosts.into()]);
        more.extend(WITHOUT_ADMIN_SOCKET.map(OsString::from));
    }
    let resources = folder.join("resources");
    std::fs::create_dir(&resources)?;
    let program = match kind {
        Kind::Ringside => &ground.own,
        Kind::Daprd(program, _) => program,
    };
    let Ground { sentry, anchors, .. } = ground.clone();
    let common =
        Common { launch: tether::launch(&ground.own, program), more, sentry, anchors, resources };
    let mut callee =
        Sidecar::start(&ground.app, Some(ground.service), for_callee, &common, folder)?;
    let mut caller = Sidecar::start(CALLER, None, for_caller, &common, folder)?;
    callee.ready().await?;
    caller.ready().await?;
    Ok(Pair { resolver: kind.resolver(), caller, callee })
}

impl Kind<'_> {
    fn resolver(self) -> &'static str {
        match self {
            Self::Ringside => "static file",
            Self::Daprd(_, resolver) => resolver.component(),
        }
    }

    /// What both say: an unset sampling rate is Dapr's default, which costs daprd a sixth of its
    /// CPU. And how daprd learns where the app is.
    fn configuration(self, port: u16, folder: &Path) -> String {
        let common = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\n\
                      metadata: {name: bench}\nspec:\n  tracing: {samplingRate: \"0\"}\n";
        let Self::Daprd(_, resolver) = self else { return common.to_owned() };
        let settings = match resolver {
            // gRPC's passthrough ignores the authority, where the app ID that the format must
            // hold does no harm; daprd dials the rest, and looks nothing up.
            Resolver::Format => {
                format!("{{format: \"passthrough://{{appid}}/127.0.0.1:{port}\"}}")
            }
            Resolver::Sqlite => format!("{{connectionString: {:?}}}", folder.join("names.db")),
            Resolver::Mdns => "{}".to_owned(),
        };
        let component = resolver.component();
        format!(
            "{common}  nameResolution:\n    component: {component}\n    \
             configuration: {settings}\n"
        )
    }
}

/// A daprd that can be run, and the version that it says it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    pub program: PathBuf,
    pub version: String,
}

/// Where daprd is: at `given`, on `PATH`, or where the Dapr CLI puts it. The error says where it
/// was looked for.
pub fn find_daprd(given: Option<&Path>) -> Result<Installed, String> {
    if let Some(path) = given {
        let version = version(path).map_err(|error| format!("--daprd {}: {error}", path.display()));
        return Ok(Installed { program: path.to_owned(), version: version? });
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&folders).collect();
    if let Some(home) = std::env::var_os("HOME") {
        places.push(Path::new(&home).join(".dapr/bin"));
    }
    let mut ours = None;
    for program in places.iter().map(|folder| folder.join("daprd")).filter(|path| path.is_file()) {
        match version(&program) {
            Ok(version) => return Ok(Installed { program, version }),
            Err(error) => ours = Some(format!("{} {error}", program.display())),
        }
    }
    Err(ours.unwrap_or_else(|| "there is none on PATH or in ~/.dapr/bin".to_owned()))
}

fn version(program: &Path) -> Result<String, String> {
    let say = |flag: &str| {
        let asked = Command::new(program).arg(flag).stdin(Stdio::null()).output();
        let asked = asked.map_err(|error| format!("cannot be run: {error}"))?;
        if !asked.status.success() {
            return Err(format!("is no daprd: {flag} ended with {}", asked.status));
        }
        Ok(String::from_utf8_lossy(&asked.stdout).into_owned())
    };
    // ringside installed in daprd's place would be compared with itself.
    if say("--build-info")?.contains("ringside") {
        return Err("is ringside itself; name a real one with --daprd".to_owned());
    }
    Ok(say("--version")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn script(folder: &Folder, text: &str) -> PathBuf {
        let path = folder.file("daprd", &format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Else the comparison would charge daprd for spans that ringside does not make.
    #[test]
    fn both_are_told_the_same_of_tracing() {
        let program = Path::new("daprd");
        let resolvers = [Resolver::Format, Resolver::Sqlite, Resolver::Mdns];
        let kinds = resolvers.map(|resolver| Kind::Daprd(program, resolver));
        for kind in kinds.into_iter().chain([Kind::Ringside]) {
            let text = kind.configuration(50002, Path::new("/tmp"));
            assert!(text.contains("  tracing: {samplingRate: \"0\"}\n"), "{text}");
        }
    }

    #[test]
    fn tells_what_is_no_daprd() {
        let folder = Folder::new().unwrap();
        let real = script(&folder, "echo 1.18.1");
        assert_eq!(find_daprd(Some(&real)).unwrap().version, "1.18.1");
        let said = |path: &Path| find_daprd(Some(path)).expect_err("a refusal");
        assert!(said(&script(&folder, "exit 3")).contains("is no daprd"));
        assert!(said(&script(&folder, "echo ringside-0.1.0")).contains("is ringside itself"));
        assert!(
            said(Path::new("/nowhere/daprd")).contains("--daprd /nowhere/daprd: cannot be run")
        );
    }
}
