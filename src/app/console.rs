//! The admin socket's place in the file system, and what it tells of the flags.
//!
//! 1. A socket has its name only once it listens: one that nobody answers was left behind by a
//!    process that was killed.
//! 2. Mode 0600 from the beginning, in a folder that is this user's alone.
//! 3. One that was asked for by its path and cannot be had ends the start; without one that nobody
//!    asked for, everything else works.

use super::log::Log;
use super::{Plan, bound, build};
use crate::config::SOCKET_OCTETS_MAX;
use crate::config::console::{self, AdminSocket};
use crate::config::{App, Config, Environment, Flags, Tracing};
use crate::control::console::{Console, LogLevel, serve};
use crate::control::publish::Workers;
use crate::control::state::State;
use crate::observe::log::Severity;
use rustix::fs::{Access, access};
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tokio::task::spawn_local;

const BACKLOG: i32 = 16;

impl LogLevel for Log {
    fn level(&self) -> Severity {
        Self::level(self)
    }

    fn set_level(&self, level: Severity) {
        Self::set_level(self, level);
    }
}

/// Where it is to be; the bool: it was asked for.
pub fn place(flags: &Flags, env: &Environment) -> Option<(PathBuf, bool)> {
    match AdminSocket::parse(&flags.ringside.admin_socket) {
        AdminSocket::Off => None,
        AdminSocket::At(path) => Some((path, true)),
        AdminSocket::Auto => {
            let folder = console::folder(env, rustix::process::geteuid().as_raw())?;
            let name = console::file_name(&flags.app_id, std::process::id())?;
            Some((folder.join(name), false))
        }
    }
}

/// Binds it, if there is to be one, and answers.
pub(super) fn start(
    plan: &Plan,
    log: &Log,
    state: &Rc<State>,
    workers: &Rc<Workers>,
    files: &mut bound::Files,
) -> Result<Rc<Console>, String> {
    let (state, workers) = (Rc::clone(state), Rc::clone(workers));
    let console = Console::new(state, workers, Box::new(log.clone()), facts(plan));
    let Some((path, asked)) = &plan.admin_socket else { return Ok(console) };
    let shown = path.display();
    match listen(path, *asked) {
        Ok(listener) => {
            tracing::info!("admin socket: {shown}");
            files.add(path.clone());
            let served = Rc::clone(&console);
            spawn_local(async move {
                if let Err(error) = serve(listener, served).await {
                    tracing::warn!("the admin socket failed: {error}");
                }
            });
        }
        Err(error) if *asked => return Err(format!("admin socket {shown}: {error}")),
        Err(error) => tracing::info!("there is no admin socket {shown}: {error}"),
    }
    Ok(console)
}

fn listen(path: &Path, asked: bool) -> Result<UnixListener, String> {
    if asked {
        make_way(path)?;
    } else if let Some(folder) = path.parent() {
        own_folder(folder)?;
        sweep(folder, path);
    }
    let fresh = fresh(path)?;
    // Of a process with our number that was killed just here.
    let _ = fs::remove_file(&fresh);
    let listener = bind(&fresh).and_then(|listener| {
        fs::rename(&fresh, path)?;
        Ok(listener)
    });
    listener.map_err(|error| {
        let _ = fs::remove_file(&fresh);
        super::listen::plain(&error)
    })
}

/// Its name until it listens; no longer than those that we choose.
fn fresh(path: &Path) -> Result<PathBuf, String> {
    path.file_name().ok_or("it has no name")?;
    Ok(path.with_file_name(format!(".new-{}", std::process::id())))
}

/// What is at that place, or why there can be no socket. Makes nothing.
pub fn examine(path: &Path, asked: bool) -> Result<&'static str, String> {
    for path in [path, &fresh(path)?] {
        let octets = path.as_os_str().len();
        if octets > SOCKET_OCTETS_MAX {
            let shown = path.display();
            return Err(format!("{shown} has {octets} octets: {SOCKET_OCTETS_MAX} are possible"));
        }
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(".".as_ref());
    // Of those that nobody asked for, the sidecar makes the folder too.
    let (place, is_there) = match folder.is_dir() {
        false if !asked => (folder.parent().unwrap_or(folder), false),
        is_there => (folder, is_there),
    };
    access(place, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| format!("{}: {}", place.display(), super::listen::plain(&error.into())))?;
    if !asked {
        if is_there {
            judge(folder)?;
        }
        return Ok("free");
    }
    make_way(path)?;
    Ok(if path.exists() { "left behind by a process that is gone: replaced" } else { "free" })
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Nobody can connect before it listens.
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    Ok(UnixListener::from(OwnedFd::from(socket)))
}

/// At a path of the user's choice there may be a socket that was left behind, and nothing else.
fn make_way(path: &Path) -> Result<(), String> {
    match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(found) if !found.file_type().is_socket() => Err("there is another file".to_owned()),
        Ok(_) if UnixStream::connect(path).is_ok() => Err("another process has it".to_owned()),
        Ok(_) => Ok(()),
    }
}

fn own_folder(folder: &Path) -> Result<(), String> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(super::listen::plain(&error)),
    }
    judge(folder)
}

fn judge(folder: &Path) -> Result<(), String> {
    let found = fs::symlink_metadata(folder).map_err(|error| super::listen::plain(&error))?;
    let own = found.uid() == rustix::process::geteuid().as_raw();
    match found.is_dir() && own && found.mode() & 0o022 == 0 {
        true => Ok(()),
        false => Err("its folder is not this user's alone".to_owned()),
    }
}

/// Removes what killed sidecars of this app left behind.
fn sweep(folder: &Path, path: &Path) {
    let owner = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        console::owner(name).map(|(app_id, _)| app_id.to_owned())
    };
    let ours = owner(path);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let refused = || {
            let error = UnixStream::connect(&path).err();
            error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        };
        if owner(&path) == ours && refused() {
            let _ = fs::remove_file(&path);
        }
    }
}

/// What does not change while the process runs. No token: only whether there is one.
fn facts(plan: &Plan) -> Value {
    let settings = &plan.settings;
    let Config { app_id, namespace, app, mtls, .. } = &settings.config;
    let config = &settings.config;
    json!({
        "appId": app_id.as_str(),
        "namespace": namespace.as_str(),
        "build": build(),
        "pid": std::process::id(),
        "instance": plan.instance,
        "mode": plan.flags.mode,
        "app": app.as_ref().map_or_else(|| json!({}), describe),
        "ports": {
            "grpc": config.grpc_port,
            "http": config.http_port,
            "internal": config.internal_port,
            "public": settings.listen.public.as_ref().map(|(_, port)| port),
            "metrics": settings.listen.metrics.as_ref().map(|(_, port)| port),
            "forward": config.forwards.iter().map(|to| format!("{}={}", to.port, to.app_id))
                .collect::<Vec<_>>(),
        },
        "listenAddresses": settings.listen.api_addresses,
        "unixDomainSocket": settings.listen.socket_folder,
        "mtls": mtls,
        "sentryAddress": settings.security.as_ref().map(|security| &security.sentry_address),
        "apiToken": config.api_token.is_some(),
        "appToken": config.app_token.is_some(),
        "configFiles": settings.config_files,
        "resourceFolders": settings.resource_folders,
        "tracing": config.tracing != Tracing::Off,
        "log": {
            "file": plan.flags.log_file,
            "json": plan.flags.log_as_json,
            "apiLogging": config.logging.api,
            "contentsOctets": config.logging.contents,
        },
        "limits": {
            "maxBodyOctets": config.max_body_size,
            "headerListOctets": config.header_list_size,
            "appCalls": settings.app_calls_max,
            "retryPercent": settings.retry_budget,
            "drainMaxSeconds": config.drain_max.map(|max| max.as_secs_f64()),
        },
        "io": plan.flags.ringside.io,
        "workers": plan.flags.ringside.workers,
    })
}

fn describe(app: &App) -> Value {
    json!({ "address": app.authority(), "protocol": format!("{:?}", app.protocol) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("ringside-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn a_socket_is_its_users_and_replaces_what_was_left_behind() {
        let folder = folder("console");
        let path = folder.join("a-1.sock");
        let first = listen(&path, false).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let other = listen(&folder.join("b-2.sock"), false).unwrap();
        drop((first, other));
        // Of our app what nobody answers at goes; of others nothing does.
        let second = listen(&folder.join("a-3.sock"), false).unwrap();
        let mut left: Vec<String> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        left.sort();
        assert_eq!(left, ["a-3.sock", "b-2.sock"]);
        assert!(UnixStream::connect(folder.join("a-3.sock")).is_ok());
        drop(second);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_path_of_the_users_choice_is_taken_from_nobody() {
        let folder = folder("console-path");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("admin.sock");
        let first = listen(&path, true).unwrap();
        assert_eq!(listen(&path, true).unwrap_err(), "another process has it");
        drop(first);
        let second = listen(&path, true).unwrap();
        fs::write(folder.join("file"), "").unwrap();
        assert_eq!(listen(&folder.join("file"), true).unwrap_err(), "there is another file");
        assert_eq!(listen(&folder.join("no/x"), true).unwrap_err(), "no such file or directory");
        drop(second);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_folder_that_others_may_write_is_not_trusted() {
        let folder = folder("console-folder");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        let error = listen(&folder.join("a-1.sock"), false).unwrap_err();
        assert_eq!(error, "its folder is not this user's alone");
        fs::remove_dir_all(&folder).unwrap();
    }
}
