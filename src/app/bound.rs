//! Every listening socket of a sidecar, bound and announced.
//!
//! 1. The internal port is bound before anything else: name resolution announces it.
//! 2. An address of the API that cannot be bound is told and skipped; none at all is an error.
//! 3. Sockets in the file system are removed when this is dropped.

use super::Plan;
use super::listen;
use crate::config::page::Page;
use crate::config::port::Site;
use crate::control::admin::{HttpListener, Surface};
use crate::io::ListenSocket;
use crate::proxy::Listener;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

const API_GRPC: &str = "dapr.runtime.grpc.api";
const INTERNAL_GRPC: &str = "dapr.runtime.grpc.internal";
const HTTP: &str = "dapr.runtime.http";

/// What is bound.
pub struct Bound {
    pub calls: Vec<(ListenSocket, Listener)>,
    pub http: Vec<(HttpListener, Surface)>,
    /// As the log's lines on closing name them.
    pub http_addresses: Vec<String>,
    pub files: Files,
}

/// Socket files, removed when dropped.
#[derive(Default)]
pub struct Files(Vec<PathBuf>);

impl Files {
    pub fn add(&mut self, path: PathBuf) {
        self.0.push(path);
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in &self.0 {
            if let Err(error) = std::fs::remove_file(path) {
                tracing::debug!("cannot remove socket {}: {error}", path.display());
            }
        }
    }
}

/// The internal port, which the rest of the start needs to know.
pub async fn internal(plan: &Plan) -> Result<TcpListener, String> {
    let folder = std::env::current_dir().unwrap_or_default().to_string_lossy().into_owned();
    let site = Site {
        app_id: plan.settings.config.app_id.as_str(),
        folder: &folder,
        uid: rustix::process::getuid().as_raw(),
        hostname: &plan.instance,
    };
    let asked = &plan.settings.listen;
    let host = &asked.internal_address;
    listen::internal(host, asked.internal_port, site)
        .await
        .map_err(|error| format!("failed to start internal gRPC server: {error}"))
}

/// Everything else.
pub async fn everything(plan: &Plan, internal: TcpListener) -> Result<Bound, String> {
    let mut bound = Bound {
        calls: Vec::new(),
        http: Vec::new(),
        http_addresses: Vec::new(),
        files: Files::default(),
    };
    grpc_api(plan, &mut bound).await?;
    public(plan, &mut bound).await?;
    http_api(plan, &mut bound).await?;
    metrics(plan, &mut bound).await?;
    page(plan, &mut bound).await?;
    let port = plan.settings.config.internal_port;
    let host = &plan.settings.listen.internal_address;
    tracing::info!(scope = INTERNAL_GRPC, "gRPC server listening on TCP address: {host}:{port}");
    middleware(INTERNAL_GRPC);
    tracing::info!("Internal gRPC server is running on {host}:{port}");
    bound.calls.push((ListenSocket::Tcp(internal), Listener::Internal));
    forwards(plan, &mut bound).await?;
    Ok(bound)
}

async fn grpc_api(plan: &Plan, bound: &mut Bound) -> Result<(), String> {
    const FAILED: &str = "failed to start API gRPC server";
    let (settings, port) = (&plan.settings, plan.settings.config.grpc_port);
    if settings.listen.socket_folder.is_some() {
        let (socket, path) =
            unix(plan, "grpc", bound).map_err(|error| format!("{FAILED}: {error}"))?;
        tracing::info!(scope = API_GRPC, "gRPC server listening on UNIX socket: {path}");
        bound.calls.push((ListenSocket::Unix(socket), Listener::Api));
    } else {
        for host in &settings.listen.api_addresses {
            match listen::tcp(host, port).await {
                Ok(socket) => {
                    tracing::info!(
                        scope = API_GRPC,
                        "gRPC server listening on TCP address: {host}:{port}"
                    );
                    bound.calls.push((ListenSocket::Tcp(socket), Listener::Api));
                }
                Err(error) => tracing::error!(
                    scope = API_GRPC,
                    "Failed to listen for gRPC server on TCP address {host}:{port} with error: \
                     {error}"
                ),
            }
        }
        if bound.calls.is_empty() {
            return Err(format!("{FAILED}: could not listen on any endpoint"));
        }
    }
    if settings.config.api_token.is_some() {
        tracing::info!(scope = API_GRPC, "Enabled token authentication on gRPC server");
    }
    middleware(API_GRPC);
    match settings.listen.socket_folder {
        Some(_) => tracing::info!("API gRPC server is running on a Unix Domain Socket"),
        None => tracing::info!("API gRPC server is running on port {port}"),
    }
    Ok(())
}

fn middleware(scope: &'static str) {
    tracing::info!(scope, "Enabled gRPC tracing middleware");
    tracing::info!(scope, "Enabled gRPC metrics middleware");
}

async fn http_api(plan: &Plan, bound: &mut Bound) -> Result<(), String> {
    const FAILED: &str = "failed to start HTTP server";
    let (settings, port) = (&plan.settings, plan.settings.config.http_port);
    if settings.config.api_token.is_some() {
        tracing::info!(scope = HTTP, "Enabled token authentication on HTTP server");
    }
    if settings.listen.socket_folder.is_some() {
        let (socket, path) =
            unix(plan, "http", bound).map_err(|error| format!("{FAILED}: {error}"))?;
        tracing::info!(scope = HTTP, "HTTP server listening on UNIX socket: {path}");
        bound.http.push((HttpListener::Unix(socket), Surface::Api));
        bound.http_addresses.push(path);
        tracing::info!("HTTP server is running on a Unix Domain Socket");
    } else {
        let mut any = false;
        for host in &settings.listen.api_addresses {
            match listen::tcp(host, port).await {
                Ok(socket) => {
                    any = true;
                    tracing::info!(
                        scope = HTTP,
                        "HTTP server listening on TCP address: {host}:{port}"
                    );
                    bound.http.push((HttpListener::Tcp(socket), Surface::Api));
                    bound.http_addresses.push(format!("{host}:{port}"));
                }
                Err(error) => tracing::error!(
                    scope = HTTP,
                    "Failed to listen for HTTP server on TCP address {host}:{port} with error: \
                     {error}"
                ),
            }
        }
        if !any {
            return Err(format!("{FAILED}: could not listen on any endpoint"));
        }
        tracing::info!("HTTP server is running on port {port}");
    }
    let octets = settings.config.max_body_size;
    tracing::info!("The request body size parameter is: {octets} bytes");
    Ok(())
}

async fn public(plan: &Plan, bound: &mut Bound) -> Result<(), String> {
    let Some((host, port)) = &plan.settings.listen.public else { return Ok(()) };
    let socket = listen::tcp(host, *port)
        .await
        .map_err(|error| format!("failed to start HTTP server: {error}"))?;
    bound.http.push((HttpListener::Tcp(socket), Surface::Public));
    bound.http_addresses.push(format!("{host}:{port}"));
    Ok(())
}

async fn metrics(plan: &Plan, bound: &mut Bound) -> Result<(), String> {
    let Some((host, port)) = &plan.settings.listen.metrics else { return Ok(()) };
    let socket = listen::tcp(host, *port)
        .await
        .map_err(|error| format!("failed to start metrics server: {error}"))?;
    bound.http.push((HttpListener::Tcp(socket), Surface::Metrics));
    tracing::info!("metrics server started on {host}:{port}/");
    Ok(())
}

async fn page(plan: &Plan, bound: &mut Bound) -> Result<(), String> {
    let Some(Page { address, port, .. }) = &plan.settings.listen.page else { return Ok(()) };
    let socket = listen::tcp(&address.to_string(), *port)
        .await
        .map_err(|error| format!("--ringside-page-port {port}: {error}"))?;
    bound.http.push((HttpListener::Tcp(socket), Surface::Page));
    tracing::info!("the page of this sidecar is at http://{}/", SocketAddr::new(*address, *port));
    Ok(())
}

/// A forward port is like the API port, and listens where that does.
async fn forwards(plan: &Plan, bound: &mut Bound) -> Result<(), String> {
    for (index, forward) in plan.settings.config.forwards.iter().enumerate() {
        for host in &plan.settings.listen.api_addresses {
            let port = forward.port;
            let socket = listen::tcp(host, port)
                .await
                .map_err(|error| format!("--ringside-forward {port}: {error}"))?;
            tracing::info!("calls to {host}:{port} go to app {}", forward.app_id);
            bound.calls.push((ListenSocket::Tcp(socket), Listener::Forward(index)));
        }
    }
    Ok(())
}

fn unix(plan: &Plan, api: &str, bound: &mut Bound) -> Result<(UnixListener, String), String> {
    let folder = plan.settings.listen.socket_folder.as_deref().unwrap_or_default();
    let name = format!("dapr-{}-{api}.socket", plan.settings.config.app_id);
    let path = PathBuf::from(folder).join(name);
    let socket = listen::unix(&path)?;
    let shown = path.display().to_string();
    bound.files.add(path);
    Ok((socket, shown))
}
