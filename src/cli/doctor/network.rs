//! Ports that must be free, an app that should listen, an address to be known by.

use super::finding::Finding;
use crate::app::listen::plain;
use crate::config::settings::AppHealth;
use crate::config::{App, AppPlace, AppProtocol, Settings};
use crate::control::app_health::ask_once;
use crate::control::resolver::host_address;
use crate::resolve::Endpoint;
use crate::snapshot::Way;
use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;
use std::time::Duration;

const DIAL_TIME_MAX: Duration = Duration::from_millis(500);

/// One finding for each port that is taken, or one for all.
pub fn ports(settings: &Settings) -> Vec<Finding> {
    let listen = &settings.listen;
    let mut wanted: Vec<(String, u16, &str)> = Vec::new();
    if listen.socket_folder.is_none() {
        for host in &listen.api_addresses {
            wanted.push((host.clone(), settings.config.grpc_port, "--dapr-grpc-port"));
            wanted.push((host.clone(), settings.config.http_port, "--dapr-http-port"));
        }
    }
    for forward in &settings.config.forwards {
        for host in &listen.api_addresses {
            wanted.push((host.clone(), forward.port, "--ringside-forward"));
        }
    }
    // Without a port of its own it takes any that is free.
    if let Some(port) = listen.internal_port {
        wanted.push((listen.internal_address.clone(), port, "--dapr-internal-grpc-port"));
    }
    if let Some(page) = &listen.page {
        wanted.push((page.address.to_string(), page.port, "--ringside-page-port"));
    }
    let others = [(&listen.public, "--dapr-public-port"), (&listen.metrics, "--metrics-port")];
    for (place, flag) in others {
        if let Some((host, port)) = place {
            wanted.push((host.clone(), *port, flag));
        }
    }
    let mut findings: Vec<Finding> =
        wanted.iter().filter_map(|(host, port, flag)| taken(host, *port, flag)).collect();
    if let Some(folder) = &listen.socket_folder
        && !Path::new(folder).is_dir()
    {
        let found = format!("{folder} is no folder");
        findings.push(Finding::fail("ports", found, "make it, or correct --unix-domain-socket"));
    }
    if findings.is_empty() {
        let ports: Vec<String> = wanted.iter().map(|(_, port, _)| port.to_string()).collect();
        findings.push(Finding::ok("ports", format!("free: {}", ports.join(", "))));
    }
    findings
}

fn taken(host: &str, port: u16, flag: &str) -> Option<Finding> {
    let error = bind(host, port).err()?;
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "end what listens there (ss -ltnp 'sport = :{port}' names it), or say {flag} with \
             another port"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("say {flag} with a port above 1023, or give CAP_NET_BIND_SERVICE")
        }
        _ => format!("is {host} an address of this machine? See {flag} and the listen addresses"),
    };
    Some(Finding::fail("ports", format!("{host}:{port}: {}", plain(&error)), advice))
}

fn bind(host: &str, port: u16) -> io::Result<()> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        // Both families by one socket where there is IPv6.
        return TcpListener::bind(("::", port)).map(drop).or_else(|error| match error.kind() {
            io::ErrorKind::AddrInUse => Err(error),
            _ => TcpListener::bind(("0.0.0.0", port)).map(drop),
        });
    }
    TcpListener::bind((host, port)).map(drop)
}

/// What other sidecars are told.
pub fn host(settings: &Settings) -> Finding {
    const WHAT: &str = "host address";
    match host_address(settings.host_ip.as_deref()) {
        Ok(address) => Finding::ok(WHAT, address.to_string()),
        Err(error) => Finding::fail(WHAT, error, "set DAPR_HOST_IP to an address of this machine"),
    }
}

/// Whether it listens, and then, where its health is to be asked for, what it answers.
pub fn app(settings: &Settings) -> Vec<Finding> {
    const WHAT: &str = "app";
    let Some(app) = &settings.config.app else { return Vec::new() };
    let place = app.authority();
    let way = match heard(&app.place) {
        Ok(way) => way,
        Err(error) => {
            let advice = "start the app: until it listens there, the sidecar waits and its health \
                          is 500";
            return vec![Finding::warn(WHAT, format!("{place}: {}", plain(&error)), advice)];
        }
    };
    let mut findings = vec![Finding::ok(WHAT, format!("listens at {place}"))];
    findings.extend(settings.app_health.as_ref().map(|health| is_well(app, health, &way)));
    findings
}

/// Which of its ways leads to somebody who listens.
fn heard(place: &AppPlace) -> io::Result<Way> {
    match place {
        AppPlace::Port { host, port } => {
            let mut last = io::Error::other("no such host");
            for address in (host.as_str(), *port).to_socket_addrs()? {
                match connect(address) {
                    Ok(()) => return Ok(Way::Tcp(Endpoint(address))),
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
        AppPlace::Socket(path) => {
            let connected = match path.abstract_name() {
                Some(name) => SocketAddr::from_abstract_name(name)
                    .and_then(|address| UnixStream::connect_addr(&address)),
                None => UnixStream::connect(path.as_str()),
            };
            connected.map(|_| Way::Unix(path.clone()))
        }
    }
}

pub fn connect(address: std::net::SocketAddr) -> io::Result<()> {
    TcpStream::connect_timeout(&address, DIAL_TIME_MAX).map(drop)
}

fn is_well(app: &App, health: &AppHealth, way: &Way) -> Finding {
    const WHAT: &str = "app health";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = match runtime {
        Ok(runtime) => runtime.block_on(ask_once(app, health, way)),
        Err(error) => Err(error.to_string()),
    };
    let advice = match app.protocol {
        AppProtocol::Grpc | AppProtocol::Grpcs => {
            "let the app serve dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck, or leave \
             --enable-app-health-check out: until it answers well, it is told as unhealthy"
        }
        AppProtocol::Http | AppProtocol::Https | AppProtocol::H2c => {
            "let the app answer that path with a 2xx, or say --app-health-check-path: until it \
             answers well, it is told as unhealthy"
        }
    };
    let path = match app.protocol {
        AppProtocol::Grpc | AppProtocol::Grpcs => String::new(),
        _ => format!("{}: ", health.path),
    };
    match asked {
        Ok(()) => Finding::ok(WHAT, format!("{path}it says that it is well")),
        Err(error) => Finding::warn(WHAT, format!("{path}{error}"), advice),
    }
}
