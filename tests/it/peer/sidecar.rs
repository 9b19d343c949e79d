//! daprd and ringside behind one face, and Sentry.

use super::ports::claim;
use super::process::{Process, command};
use super::world::World;
use super::{program, ringside};
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Daprd,
    Ringside,
}

impl Kind {
    pub fn program(self) -> PathBuf {
        match self {
            Self::Daprd => program("daprd"),
            Self::Ringside => ringside(),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Daprd => "daprd",
            Self::Ringside => "ringside",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub grpc: u16,
    pub http: u16,
    pub internal: u16,
    pub metrics: u16,
}

impl Ports {
    pub fn claim() -> Self {
        Self { grpc: claim(), http: claim(), internal: claim(), metrics: claim() }
    }

    /// As a sidecar's flags.
    pub fn tell(&self, sidecar: &mut Command) {
        for (flag, port) in [
            ("--dapr-grpc-port", self.grpc),
            ("--dapr-http-port", self.http),
            ("--dapr-internal-grpc-port", self.internal),
            ("--metrics-port", self.metrics),
        ] {
            sidecar.args([flag, &port.to_string()]);
        }
    }
}

/// A real Sentry, standalone, with a root of its own.
#[derive(Debug)]
pub struct Sentry {
    _process: Process,
    pub port: u16,
    /// Holds ca.crt, issuer.crt and issuer.key.
    pub credentials: PathBuf,
    pub anchors: String,
}

impl Sentry {
    pub fn start(folder: &Path) -> Self {
        Self::start_with(folder, "mtls: {enabled: true}")
    }

    /// `spec` is the Configuration's.
    pub fn start_with(folder: &Path, spec: &str) -> Self {
        Self::start_at(folder, spec, claim())
    }

    /// With the root that is in `folder` already, if one is.
    pub fn start_at(folder: &Path, spec: &str, port: u16) -> Self {
        let config = folder.join("daprsystem.yaml");
        fs::write(&config, configuration(spec)).expect("Sentry's Configuration");
        let credentials = folder.join("credentials");
        fs::create_dir_all(&credentials).expect("Sentry's credentials folder");
        let (health, metrics) = (claim(), claim());
        let mut sentry = command(program("sentry"));
        sentry.args(["--mode", "standalone", "--trust-domain", "localhost"]);
        sentry.arg("--config").arg(&config).arg("--issuer-credentials").arg(&credentials);
        sentry.args(["--port", &port.to_string(), "--healthz-port", &health.to_string()]);
        sentry.args(["--metrics-port", &metrics.to_string(), "--listen-address", "127.0.0.1"]);
        sentry.env("NAMESPACE", "default");
        let mut process = Process::start(folder, "sentry", sentry);
        process.wait("healthz", |_| (http_status(health, "/healthz")? == 200).then_some(()));
        let anchors = fs::read_to_string(credentials.join("ca.crt")).expect("Sentry's ca.crt");
        Self { _process: process, port, credentials, anchors }
    }
}

/// How sidecars of a test find each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// A fixed table of what [`World`] has reserved.
    Table,
    /// Each kind's default. Only in a network of the test's own.
    Mdns,
    /// As [`Options::spec`] says.
    Spec,
}

#[derive(Clone, Debug)]
pub struct Options<'a> {
    pub app_port: Option<u16>,
    /// Of a further instance; the first one's are reserved.
    pub ports: Option<Ports>,
    pub naming: Naming,
    pub args: Vec<&'a str>,
    pub env: Vec<(&'a str, &'a str)>,
    /// Further lines of the Configuration's spec.
    pub spec: &'a str,
    /// Where its standard output goes, if not to the log that tests read.
    pub stdout: Option<&'a Path>,
    /// A system call that the kernel refuses to it.
    pub denied: Option<&'a str>,
    /// Wait for healthz 204, which needs the app to listen; without, for the API port only.
    pub await_app: bool,
    /// Wait at all; without, the API may not be on its port.
    pub await_api: bool,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            app_port: None,
            ports: None,
            naming: Naming::Table,
            args: Vec::new(),
            env: Vec::new(),
            spec: "",
            stdout: None,
            denied: None,
            await_app: true,
            await_api: true,
        }
    }
}

#[derive(Debug)]
pub struct Sidecar {
    pub process: Process,
    pub ports: Ports,
}

impl Sidecar {
    /// A sidecar without an app: a caller's.
    pub fn caller(world: &World, kind: Kind, app_id: &str) -> Self {
        Self::start(world, kind, app_id, Options::default())
    }

    /// A sidecar in front of an app.
    pub fn callee(world: &World, kind: Kind, app_id: &str, app_port: u16) -> Self {
        let options = Options { app_port: Some(app_port), ..Options::default() };
        Self::start(world, kind, app_id, options)
    }

    pub fn start(world: &World, kind: Kind, app_id: &str, options: Options<'_>) -> Self {
        let mut name = format!("{app_id}-{}", kind.name());
        if let Some(ports) = options.ports {
            let _ = write!(name, "-{}", ports.internal);
        }
        let folder = world.folder(&name);
        let ports = options.ports.unwrap_or_else(|| world.ports(app_id));
        let mut sidecar = match (options.denied, options.stdout) {
            (None, None) => command(kind.program()),
            (None, Some(path)) => {
                let mut redirected = command("sh");
                redirected.args(["-c", "out=$1; shift; exec \"$@\" >\"$out\"", "sh"]);
                redirected.arg(path).arg(kind.program());
                redirected
            }
            (Some(call), _) => {
                let mut without = command(program("probe"));
                without.args(["without", call, "--"]).arg(kind.program());
                without
            }
        };
        sidecar.args(["--app-id", app_id]).args(setting(kind));
        ports.tell(&mut sidecar);
        sidecar.args(["--dapr-listen-addresses", "127.0.0.1"]);
        if let Some(port) = options.app_port {
            sidecar.args(["--app-port", &port.to_string(), "--app-protocol", "grpc"]);
        }
        if let Some(sentry) = &world.sentry {
            let address = format!("localhost:{}", sentry.port);
            sidecar.args(["--enable-mtls", "--sentry-address", &address]);
            sidecar.env("DAPR_TRUST_ANCHORS", &sentry.anchors).env("NAMESPACE", "default");
        }
        let config = folder.join("config.yaml");
        let mut spec = options.spec.to_owned();
        if options.naming == Naming::Table {
            let _ = write!(spec, "\n{}", naming(world, kind, &folder));
        }
        fs::write(&config, configuration(&spec)).expect("a Configuration");
        sidecar.arg("--config").arg(&config).arg("--resources-path").arg(world.folder("resources"));
        sidecar.args(&options.args).envs(options.env.iter().copied());
        let mut process = Process::start(&folder, &name, sidecar);
        if !options.await_api {
            return Self { process, ports };
        }
        if options.await_app {
            process.wait("healthz", |_| {
                (http_status(ports.http, "/v1.0/healthz")? == 204).then_some(())
            });
        } else {
            process.wait("API port", |_| TcpStream::connect(loopback(ports.grpc)).ok());
        }
        Self { process, ports }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.grpc)
    }

    pub fn internal_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.internal)
    }
}

/// `scripts/test` runs everything on each driver, with 1, 2 and 4 workers.
fn setting(kind: Kind) -> Vec<String> {
    if kind == Kind::Daprd {
        return Vec::new();
    }
    let driver = std::env::var("RINGSIDE_TEST_IO").ok().map(|io| format!("--ringside-io={io}"));
    let workers = workers().map(|count| format!("--ringside-workers={count}"));
    driver.into_iter().chain(workers).collect()
}

/// How many workers every sidecar has in this run of the tests; `None`: as many as by default.
pub fn workers() -> Option<usize> {
    let count = std::env::var("RINGSIDE_TEST_WORKERS").ok()?;
    Some(count.parse().expect("RINGSIDE_TEST_WORKERS is a number"))
}

fn configuration(spec: &str) -> String {
    let mut yaml = String::from("apiVersion: dapr.io/v1alpha1\nkind: Configuration\n");
    yaml.push_str("metadata: {name: it}\nspec:\n");
    for line in spec.lines() {
        let _ = writeln!(yaml, "  {line}");
    }
    yaml
}

/// The lines of `spec` that name this world's hosts, each kind in its own way.
fn naming(world: &World, kind: Kind, folder: &Path) -> String {
    match kind {
        Kind::Daprd => {
            let first = world.hosts().filter_map(|(id, ports)| Some((id, ports.first()?)));
            let hosts: Vec<String> =
                first.map(|(id, port)| format!("{id}: \"127.0.0.1:{port}\"")).collect();
            let hosts = hosts.join(", ");
            format!(
                "nameResolution:\n  component: table\n  configuration: {{hosts: {{{hosts}}}}}\n"
            )
        }
        Kind::Ringside => {
            let file = write_hosts(world, folder);
            let file = file.display();
            format!("nameResolution:\n  component: static\n  configuration: {{file: \"{file}\"}}\n")
        }
    }
}

/// The table that ringside's `static` resolver reads, put in place at once.
pub fn write_hosts(world: &World, folder: &Path) -> PathBuf {
    let mut table = String::new();
    for (id, ports) in world.hosts() {
        let all: Vec<String> = ports.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
        let _ = writeln!(table, "{id}: [{}]", all.join(", "));
    }
    let (file, new) = (folder.join("hosts.yaml"), folder.join("hosts.yaml.new"));
    fs::write(&new, table).expect("a table of hosts");
    fs::rename(&new, &file).expect("the table in its place");
    file
}

pub fn loopback(port: u16) -> (Ipv4Addr, u16) {
    (Ipv4Addr::LOCALHOST, port)
}

/// The status of `GET path`, if somebody answers HTTP there.
pub fn http_status(port: u16, path: &str) -> Option<u16> {
    let answer = http_get(port, path)?;
    answer.split(' ').nth(1)?.parse().ok()
}

/// The body of an answer, whose chunks may end anywhere (RFC 9112 §7.1).
pub fn unchunked(answer: &str) -> String {
    let (head, mut rest) = answer.split_once("\r\n\r\n").expect("a head");
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return rest.to_owned();
    }
    let mut body = String::new();
    while let Some((size, chunk)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        let (chunk, after) = chunk.split_at(size);
        body.push_str(chunk);
        rest = after.strip_prefix("\r\n").unwrap_or_default();
    }
    body
}

/// The whole answer to `GET path`.
pub fn http_get(port: u16, path: &str) -> Option<String> {
    http_request(port, "GET", path, "", "")
}

/// The whole answer to a request; `header` is whole lines.
pub fn http_request(
    port: u16,
    method: &str,
    path: &str,
    header: &str,
    body: &str,
) -> Option<String> {
    let mut stream = TcpStream::connect(loopback(port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Length: {}\r\n{header}\r\n{body}",
        body.len(),
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}
