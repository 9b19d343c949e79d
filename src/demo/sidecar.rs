//! Two sidecars as processes: of this very program, or of one that takes daprd's flags.
//!
//! 1. A sidecar ends with its [`Sidecar`], at the latest when that is dropped.
//! 2. Its log is kept in a file of the demo's folder, for the case that it fails.

use super::DemoError;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const READY_LIMIT: Duration = Duration::from_secs(10);
const END_LIMIT: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(10);
const LOG_LINES: usize = 15;
/// Longest answer to a health probe that is read.
const ANSWER_MAX: usize = 512;

/// The ports of one sidecar, free when they were picked.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub grpc: u16,
    pub http: u16,
    pub internal: u16,
    pub metrics: u16,
}

/// What both sidecars are told.
#[derive(Clone, Debug)]
pub struct Common {
    /// The program, and what comes before the sidecar's own arguments.
    pub launch: Vec<OsString>,
    /// Arguments of this program's own: where apps are, what is logged.
    pub more: Vec<OsString>,
    pub sentry: SocketAddr,
    pub anchors: String,
    /// An empty folder: nothing of the user's own resources gets in.
    pub resources: PathBuf,
}

/// For a sidecar of this program that lives as long as what starts it: whoever asks for the user's
/// sidecars by `ringside admin` means others, and one that is killed leaves nothing behind.
pub const WITHOUT_ADMIN_SOCKET: [&str; 2] = ["--ringside-admin-socket", "off"];

#[derive(Debug)]
pub struct Sidecar {
    pub app_id: String,
    pub ports: Ports,
    child: Child,
    log: PathBuf,
}

impl Ports {
    /// Picks ports for two sidecars, all different.
    pub fn pick() -> io::Result<[Self; 2]> {
        let mut held = Vec::new();
        let mut pick = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let port = listener.local_addr()?.port();
            held.push(listener);
            io::Result::Ok(port)
        };
        let mut ports = || {
            let (grpc, http, internal, metrics) = (pick()?, pick()?, pick()?, pick()?);
            io::Result::Ok(Self { grpc, http, internal, metrics })
        };
        Ok([ports()?, ports()?])
    }
}

impl Sidecar {
    pub fn start(
        app_id: &str,
        app: Option<SocketAddr>,
        ports: Ports,
        common: &Common,
        folder: &Path,
    ) -> Result<Self, DemoError> {
        let log = folder.join(format!("{app_id}.log"));
        let out = File::create(&log)?;
        let (program, before) = common
            .launch
            .split_first()
            .ok_or_else(|| DemoError::new("a sidecar needs a program".to_owned()))?;
        let mut command = Command::new(program);
        command.args(before).args(["--app-id", app_id]);
        for (flag, port) in [
            ("--dapr-grpc-port", ports.grpc),
            ("--dapr-http-port", ports.http),
            ("--dapr-internal-grpc-port", ports.internal),
            ("--metrics-port", ports.metrics),
        ] {
            command.args([flag, &port.to_string()]);
        }
        for flag in [
            "--dapr-listen-addresses",
            "--dapr-internal-grpc-listen-address",
            "--metrics-listen-address",
        ] {
            command.args([flag, "127.0.0.1"]);
        }
        if let Some(app) = app {
            command.args(["--app-port", &app.port().to_string(), "--app-protocol", "grpc"]);
            command.args(["--app-channel-address", &app.ip().to_string()]);
        }
        command.args(["--enable-mtls", "--sentry-address", &common.sentry.to_string()]);
        command.args(["--control-plane-trust-domain", super::TRUST_DOMAIN]);
        command.args(["--control-plane-namespace", super::NAMESPACE]);
        command.args(&common.more).arg("--resources-path").arg(&common.resources);
        // The user's own Dapr environment stays outside: tokens, ports, another Sentry.
        command.env_clear().env("DAPR_TRUST_ANCHORS", &common.anchors);
        command.env("NAMESPACE", super::NAMESPACE).env("DAPR_HOST_IP", "127.0.0.1");
        command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
        let child = command
            .spawn()
            .map_err(|error| DemoError::new(format!("starting {}: {error}", program.display())))?;
        Ok(Self { app_id: app_id.to_owned(), ports, child, log })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn grpc(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.grpc).into()
    }

    pub fn internal(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.internal).into()
    }

    /// Until its health says 204.
    pub async fn ready(&mut self) -> Result<(), DemoError> {
        let probing = async {
            loop {
                if let Ok(Some(status)) = self.child.try_wait() {
                    return Err(format!("ended ({status}) before it was ready"));
                }
                if healthy(self.ports.http).await.unwrap_or(false) {
                    return Ok(());
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let result = tokio::time::timeout(READY_LIMIT, probing).await;
        let result = result.unwrap_or_else(|_| Err(format!("was not ready in {READY_LIMIT:?}")));
        result.map_err(|cause| {
            DemoError::new(format!("{}'s sidecar {cause}\n{}", self.app_id, self.log_tail()))
        })
    }

    /// The resident set in KiB, where the kernel tells it.
    pub fn resident_kib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    }

    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let skipped = lines.len().saturating_sub(LOG_LINES);
        lines.iter().skip(skipped).map(|line| format!("  {line}\n")).collect()
    }

    /// SIGTERM, its drain, its end; SIGKILL when that takes too long.
    pub async fn end(mut self) -> Result<(), DemoError> {
        // One that has ended already needs no signal.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let ending = async {
            loop {
                if let Ok(Some(status)) = self.child.try_wait() {
                    return status;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        match tokio::time::timeout(END_LIMIT, ending).await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(DemoError::new(format!(
                "{}'s sidecar ended with {status}\n{}",
                self.app_id,
                self.log_tail()
            ))),
            Err(_) => Err(DemoError::new(format!(
                "{}'s sidecar did not end in {END_LIMIT:?}\n{}",
                self.app_id,
                self.log_tail()
            ))),
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

async fn healthy(port: u16) -> io::Result<bool> {
    let probe = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream
            .write_all(b"GET /v1.0/healthz HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")
            .await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX as u64).read_to_end(&mut answer).await?;
        Ok(answer.starts_with(b"HTTP/1.1 204"))
    };
    tokio::time::timeout(Duration::from_secs(1), probe).await?
}
