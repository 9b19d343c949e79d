//! Pairs of ringsides and of daprds: alike in every flag that both know.
//!
//! Identities come from one authority, a real Sentry; names from a static
//! table on both sides, which is the cheapest resolver of each. Tracing is sampled at zero by the
//! Configuration, metrics are on, log level warn, API logging off (as by default).

use super::process::Process;
use super::programs::Program;
use super::{Between, Hop, Ingredients, Kind, PATIENCE, Ready, Running, StartError, ports};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The outbound hop's own id; nobody calls it.
const CALLER: &str = "loadtest-caller";
const NAMESPACE: &str = "default";

/// Who signs identities, and what makes sidecars believe it.
#[derive(Debug)]
pub struct Authority {
    /// `host:port`, the host as its certificate has it.
    pub address: String,
    /// PEM, for `DAPR_TRUST_ANCHORS`.
    pub anchors: String,
    /// Where it keeps what it signs with.
    pub credentials: PathBuf,
    /// Ends with this.
    _sentry: Process,
}

impl Authority {
    /// A standalone Sentry with a new root.
    pub(super) fn sentry(ingredients: &Ingredients) -> Result<Self, StartError> {
        let mut command = ingredients.programs.command(Program::Sentry)?;
        let folder = ingredients.folder("sentry")?;
        let config = folder.join("config.yaml");
        write(&config, &configuration("mtls: {enabled: true}"))?;
        let credentials = folder.join("credentials");
        fs::create_dir_all(&credentials).map_err(|e| StartError::file(&credentials, &e))?;
        let (at, health, metrics) = (ports::claim()?, ports::claim()?, ports::claim()?);
        command.args(["--mode", "standalone", "--trust-domain", "localhost"]);
        command.args(["--listen-address", "127.0.0.1", "--log-level", "warn"]);
        command.arg("--config").arg(&config).arg("--issuer-credentials").arg(&credentials);
        command.args(["--port", &at.port().to_string()]);
        command.args(["--healthz-port", &health.port().to_string()]);
        command.args(["--metrics-port", &metrics.port().to_string()]);
        command.env("NAMESPACE", NAMESPACE);
        let mut process = Process::spawn(&folder, "sentry", command)?;
        process.await_port(at, PATIENCE)?;
        let anchors = credentials.join("ca.crt");
        let anchors = process.wait("trust anchors", PATIENCE, |_| {
            fs::read_to_string(&anchors).ok().filter(|text| text.contains("END CERTIFICATE"))
        })?;
        let address = format!("localhost:{}", at.port());
        Ok(Self { address, anchors, credentials, _sentry: process })
    }
}

/// Where one sidecar listens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    pub internal: SocketAddr,
    pub metrics: SocketAddr,
}

impl Ports {
    pub fn claim() -> Result<Self, StartError> {
        Ok(Self {
            grpc: ports::claim()?,
            http: ports::claim()?,
            internal: ports::claim()?,
            metrics: ports::claim()?,
        })
    }
}

pub(super) fn pair(
    kind: Kind,
    between: Between,
    app: SocketAddr,
    app_id: &str,
    ingredients: &Ingredients,
) -> Result<Running, StartError> {
    let (callee, caller) = (Ports::claim()?, Ports::claim()?);
    // The caller's table must hold the callee, and the callee's is the same, so that both hops have
    // the same features.
    let table = [(app_id, callee.internal)];
    let authority = match between {
        Between::Tls => Some(ingredients.authority()?),
        Between::Plain => None,
    };
    let inbound = sidecar(kind, authority, app_id, Some(app), callee, &table, ingredients)?;
    let own_id = format!("{CALLER}-{app_id}");
    let outbound = sidecar(kind, authority, &own_id, None, caller, &table, ingredients)?;
    let hops = vec![
        Hop { process: outbound, ready: Ready::Healthy(caller.http) },
        Hop { process: inbound, ready: Ready::Healthy(callee.http) },
    ];
    let mut running = Running::new(kind, caller.grpc, hops);
    running.metadata = vec![("dapr-app-id".to_owned(), app_id.as_bytes().to_vec())];
    running.metrics = vec![caller.metrics, callee.metrics];
    Ok(running)
}

/// `table` says at which internal ports the apps are; without an authority there is no mTLS.
pub(super) fn sidecar(
    kind: Kind,
    authority: Option<&Authority>,
    own_id: &str,
    app: Option<SocketAddr>,
    at: Ports,
    table: &[(&str, SocketAddr)],
    ingredients: &Ingredients,
) -> Result<Process, StartError> {
    let program = if kind.is_ringside() { Program::Ringside } else { Program::Daprd };
    let mut command = ingredients.programs.command(program)?;
    let folder = ingredients.folder(&format!("{}-{own_id}", kind.name()))?;
    let resources = folder.join("resources");
    fs::create_dir_all(&resources).map_err(|e| StartError::file(&resources, &e))?;
    let config = folder.join("config.yaml");
    let spec = match kind {
        Kind::Ringside | Kind::RingsideEpoll => {
            let file = folder.join("apps.yaml");
            let lines = table.iter().map(|(id, at)| format!("{id}: [\"{at}\"]\n"));
            write(&file, &lines.collect::<String>())?;
            spec_of_ringside(&file)
        }
        _ => spec_of_daprd(table),
    };
    write(&config, &configuration(&spec))?;
    command.args(["--app-id", own_id, "--log-level", "warn"]);
    if let Some(authority) = authority {
        command.args(["--enable-mtls", "--sentry-address", &authority.address]);
        command.env("DAPR_TRUST_ANCHORS", &authority.anchors);
    }
    command.args(["--dapr-listen-addresses", "127.0.0.1"]);
    command.args(["--dapr-internal-grpc-listen-address", "127.0.0.1"]);
    command.args(["--metrics-listen-address", "127.0.0.1"]);
    for (flag, port) in [
        ("--dapr-grpc-port", at.grpc),
        ("--dapr-http-port", at.http),
        ("--dapr-internal-grpc-port", at.internal),
        ("--metrics-port", at.metrics),
    ] {
        command.args([flag, &port.port().to_string()]);
    }
    if let Some(app) = app {
        command.args(["--app-port", &app.port().to_string(), "--app-protocol", "grpc"]);
        command.args(["--app-channel-address", &app.ip().to_string()]);
    }
    command.arg("--config").arg(&config).arg("--resources-path").arg(&resources);
    if kind.is_ringside() {
        command.args(&ingredients.ringside_args);
    }
    if kind == Kind::RingsideEpoll {
        command.arg("--ringside-io=epoll");
    }
    command.env("DAPR_HOST_IP", "127.0.0.1").env("NAMESPACE", NAMESPACE);
    Process::spawn(&folder, kind.name(), command)
}

fn spec_of_ringside(table: &Path) -> String {
    let table = table.display();
    format!("nameResolution:\n  component: static\n  configuration: {{file: \"{table}\"}}\n")
}

fn spec_of_daprd(table: &[(&str, SocketAddr)]) -> String {
    let hosts: Vec<String> = table.iter().map(|(id, at)| format!("\"{id}\": \"{at}\"")).collect();
    let hosts = hosts.join(", ");
    format!("nameResolution:\n  component: table\n  configuration: {{hosts: {{{hosts}}}}}\n")
}

fn configuration(spec: &str) -> String {
    let mut yaml = String::from(
        "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: loadtest}\nspec:\n",
    );
    for line in spec.lines() {
        yaml.push_str("  ");
        yaml.push_str(line);
        yaml.push('\n');
    }
    yaml
}

fn write(path: &Path, text: &str) -> Result<(), StartError> {
    fs::write(path, text).map_err(|e| StartError::file(path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_name_the_callee_and_nothing_else() {
        let callee = SocketAddr::from(([127, 0, 0, 1], 4));
        let daprd = configuration(&spec_of_daprd(&[("server", callee)]));
        assert!(daprd.contains("\nspec:\n  nameResolution:\n"));
        assert!(daprd.contains("    configuration: {hosts: {\"server\": \"127.0.0.1:4\"}}\n"));
        let ringside = configuration(&spec_of_ringside(Path::new("/tmp/a.yaml")));
        assert!(ringside.contains("\nspec:\n  nameResolution:\n"));
        assert!(ringside.contains("    configuration: {file: \"/tmp/a.yaml\"}\n"));
    }
}
