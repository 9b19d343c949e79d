//! HAProxy, nginx and Envoy as two hops with the features of a sidecar pair.
//!
//! Between the hops: TLS 1.3, P-256, AES-128-GCM, both sides verified by name, HTTP/2. One thread
//! or process each, no access log, metrics on. Windows and buffers are each program's defaults but
//! for HAProxy's window; Envoy adds no request ids and no headers of its own, as nobody else does;
//! what would end long-lived connections or refuse streams is raised.

use super::certificates::{Certificates, INBOUND, Leaf, OUTBOUND};
use super::process::Process;
use super::programs::Program;
use super::{Between, Hop, Ingredients, Kind, Ready, Running, StartError, ports};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// Which of the two hops a configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// Plaintext in, TLS out.
    Outbound,
    /// TLS in, plaintext out.
    Inbound,
}

/// Where a hop listens, what is next, and where its metrics are.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: SocketAddr,
    to: SocketAddr,
    metrics: SocketAddr,
}

/// Without certificates the hops speak plaintext with each other, too.
type Writer = fn(Side, Place, Option<&Certificates>) -> String;
type Starter = fn(&Path, &str, Command) -> Result<Process, StartError>;

pub(super) fn haproxy(
    between: Between,
    app: SocketAddr,
    ingredients: &Ingredients,
) -> Result<Running, StartError> {
    let how = (haproxy_config as Writer, haproxy_process as Starter);
    pair((Kind::Haproxy, Program::Haproxy), between, app, ingredients, how)
}

pub(super) fn nginx(
    between: Between,
    app: SocketAddr,
    ingredients: &Ingredients,
) -> Result<Running, StartError> {
    let how = (nginx_config as Writer, nginx_process as Starter);
    pair((Kind::Nginx, Program::Nginx), between, app, ingredients, how)
}

pub(super) fn envoy(
    between: Between,
    app: SocketAddr,
    ingredients: &Ingredients,
) -> Result<Running, StartError> {
    let how = (envoy_config as Writer, envoy_process as Starter);
    pair((Kind::Envoy, Program::Envoy), between, app, ingredients, how)
}

fn pair(
    (kind, program): (Kind, Program),
    between: Between,
    app: SocketAddr,
    ingredients: &Ingredients,
    (config, process): (Writer, Starter),
) -> Result<Running, StartError> {
    ingredients.programs.path(program)?;
    let certificates = match between {
        Between::Tls => Some(ingredients.certificates()?),
        Between::Plain => None,
    };
    let hop = |side: Side, to: SocketAddr| {
        let place = Place { at: ports::claim()?, to, metrics: ports::claim()? };
        let command = ingredients.programs.command(program)?;
        let name = format!("{}-{side:?}", kind.name()).to_lowercase();
        let folder = ingredients.folder(&name)?;
        let process = process(&folder, &config(side, place, certificates), command)?;
        Ok((place.at, Hop { process, ready: Ready::Listens(place.at) }))
    };
    let (middle, inbound) = hop(Side::Inbound, app)?;
    let (entry, outbound) = hop(Side::Outbound, middle)?;
    Ok(Running::new(kind, entry, vec![outbound, inbound]))
}

fn write(folder: &Path, name: &str, text: &str) -> Result<std::path::PathBuf, StartError> {
    let path = folder.join(name);
    fs::write(&path, text).map_err(|e| StartError::file(&path, &e))?;
    Ok(path)
}

pub(super) fn haproxy_process(
    folder: &Path,
    config: &str,
    mut command: Command,
) -> Result<Process, StartError> {
    // -db: one process in the foreground.
    command.arg("-db").arg("-f").arg(write(folder, "haproxy.cfg", config)?);
    Process::spawn(folder, "haproxy", command)
}

fn nginx_process(folder: &Path, config: &str, mut command: Command) -> Result<Process, StartError> {
    let config = write(folder, "nginx.conf", config)?;
    command.arg("-p").arg(folder).arg("-e").arg(folder.join("error.log")).arg("-c").arg(config);
    Process::spawn(folder, "nginx", command)
}

fn envoy_process(folder: &Path, config: &str, mut command: Command) -> Result<Process, StartError> {
    command.args(["--concurrency", "1", "--log-level", "warn", "--disable-hot-restart"]);
    command.arg("-c").arg(write(folder, "envoy.yaml", config)?);
    Process::spawn(folder, "envoy", command)
}

/// Its window is raised: with 64 KiB, HAProxy 2.6 now and then ends a connection with
/// INTERNAL_ERROR under 1 MiB messages, and every message costs it more.
fn haproxy_config(side: Side, place: Place, certificates: Option<&Certificates>) -> String {
    let Place { at, to, metrics } = place;
    let tls = "ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256";
    let plain = |at: SocketAddr| format!("{at} proto h2");
    // The name in the caller's certificate is asked for as the others ask for it.
    let (bind, server, verified) = match (side, certificates) {
        (_, None) => (plain(at), plain(to), String::new()),
        (Side::Outbound, Some(Certificates { authority, outbound, .. })) => (
            plain(at),
            format!(
                "{to} ssl {tls} alpn h2 verify required ca-file {} crt {} sni str({INBOUND}) \
                 verifyhost {INBOUND}",
                authority.display(),
                outbound.both.display(),
            ),
            String::new(),
        ),
        (Side::Inbound, Some(Certificates { authority, inbound, .. })) => (
            format!(
                "{at} ssl {tls} curves P-256 alpn h2 verify required ca-file {} crt {}",
                authority.display(),
                inbound.both.display(),
            ),
            plain(to),
            format!("  http-request deny unless {{ ssl_c_s_dn(cn) -m str {OUTBOUND} }}\n"),
        ),
    };
    format!(
        "global\n  nbthread 1\n  maxconn 8000\n  tune.h2.max-concurrent-streams 1000\n  \
         tune.h2.initial-window-size 1048576\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n  \
         http-reuse always\n\
         frontend metrics\n  bind {metrics}\n  \
         http-request use-service prometheus-exporter if {{ path /metrics }}\n\
         frontend in\n  bind {bind}\n{verified}  default_backend out\n\
         backend out\n  server next {server}\n"
    )
}

/// `master_process off`: one process, so that its costs are one process's; less than users pay.
fn nginx_config(side: Side, place: Place, certificates: Option<&Certificates>) -> String {
    let Place { at, to, metrics } = place;
    let leaf = |prefix: &str, leaf: &Leaf| {
        format!(
            "    {prefix}ssl_protocols TLSv1.3;\n    \
             {prefix}ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;\n    \
             {prefix}ssl_conf_command Groups P-256;\n    \
             {prefix}ssl_certificate {};\n    {prefix}ssl_certificate_key {};\n",
            leaf.certificate.display(),
            leaf.key.display(),
        )
    };
    let (listen, tls, pass) = match (side, certificates) {
        (_, None) => (format!("{at} http2"), String::new(), "grpc"),
        (Side::Outbound, Some(Certificates { authority, outbound, .. })) => (
            format!("{at} http2"),
            leaf("grpc_", outbound)
                + &format!(
                    "    grpc_ssl_verify on;\n    grpc_ssl_trusted_certificate {};\n    \
                     grpc_ssl_name {INBOUND};\n    grpc_ssl_server_name on;\n",
                    authority.display()
                ),
            "grpcs",
        ),
        (Side::Inbound, Some(Certificates { authority, inbound, .. })) => (
            format!("{at} ssl http2"),
            leaf("", inbound)
                + &format!(
                    "    ssl_verify_client on;\n    ssl_client_certificate {};\n    \
                     if ($ssl_client_s_dn !~ \"CN={OUTBOUND}\") {{ return 403; }}\n",
                    authority.display()
                ),
            "grpc",
        ),
    };
    format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid nginx.pid;\n\
         error_log error.log warn;\n\
         events {{ worker_connections 8000; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  keepalive_timeout 1h;\n  \
         http2_max_concurrent_streams 1000;\n  client_max_body_size 0;\n  \
         client_body_temp_path body;\n  proxy_temp_path proxy;\n  fastcgi_temp_path fastcgi;\n  \
         uwsgi_temp_path uwsgi;\n  scgi_temp_path scgi;\n  \
         upstream next {{ server {to}; keepalive 1000; keepalive_requests 1000000000; \
         keepalive_timeout 1h; }}\n  \
         server {{ listen {metrics}; location = /metrics {{ stub_status; }} }}\n  \
         server {{\n    listen {listen};\n{tls}    \
         location / {{ grpc_pass {pass}://next; grpc_read_timeout 1h; grpc_send_timeout 1h; \
         grpc_socket_keepalive on; }}\n  }}\n}}\n"
    )
}

fn envoy_config(side: Side, place: Place, certificates: Option<&Certificates>) -> String {
    let Place { at, to, metrics } = place;
    let (down, up) = match (side, certificates) {
        (_, None) => (String::new(), String::new()),
        (Side::Outbound, Some(known)) => {
            let more = format!("sni: {INBOUND}");
            let leaf = &known.outbound;
            (String::new(), envoy_socket("UpstreamTlsContext", &more, known, leaf, INBOUND))
        }
        (Side::Inbound, Some(known)) => {
            let more = "require_client_certificate: true";
            let leaf = &known.inbound;
            (envoy_socket("DownstreamTlsContext", more, known, leaf, OUTBOUND), String::new())
        }
    };
    let line = |indent: &str, socket: &str| {
        if socket.is_empty() {
            String::new()
        } else {
            format!("{indent}transport_socket: {socket}\n")
        }
    };
    let (down, up) = (line("      ", &down), line("    ", &up));
    let address = |at: SocketAddr| {
        format!("{{socket_address: {{address: {}, port_value: {}}}}}", at.ip(), at.port())
    };
    let (at, to, admin) = (address(at), address(to), address(metrics));
    ENVOY
        .replace("@ADMIN", &admin)
        .replace("@LISTEN", &at)
        .replace("@NEXT", &to)
        .replace("@TYPE", TYPE)
        .replace("@DOWN_TLS\n", &down)
        .replace("@UP_TLS\n", &up)
}

/// One side's TLS: its own certificate, and the name that the peer's must have.
fn envoy_socket(
    context: &str,
    more: &str,
    certificates: &Certificates,
    leaf: &Leaf,
    peer: &str,
) -> String {
    let common = format!(
        "{{alpn_protocols: [h2], \
         tls_params: {{tls_minimum_protocol_version: TLSv1_3, \
         tls_maximum_protocol_version: TLSv1_3, ecdh_curves: [P-256]}}, \
         tls_certificates: [{{certificate_chain: {{filename: \"{}\"}}, \
         private_key: {{filename: \"{}\"}}}}], \
         validation_context: {{trusted_ca: {{filename: \"{}\"}}, \
         match_typed_subject_alt_names: [{{san_type: DNS, matcher: {{exact: {peer}}}}}]}}}}",
        leaf.certificate.display(),
        leaf.key.display(),
        certificates.authority.display(),
    );
    let tls = format!("{TYPE}.transport_sockets.tls.v3");
    format!(
        "{{name: tls, typed_config: {{\"@type\": {tls}.{context}, {more}, \
         common_tls_context: {common}}}}}"
    )
}

const TYPE: &str = "type.googleapis.com/envoy.extensions";

const ENVOY: &str = r#"admin: {address: @ADMIN}
static_resources:
  listeners:
  - name: in
    address: @LISTEN
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": @TYPE.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          codec_type: HTTP2
          http2_protocol_options: {max_concurrent_streams: 1000}
          stream_idle_timeout: 0s
          generate_request_id: false
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{match: {prefix: "/"}, route: {cluster: next, timeout: 0s}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": @TYPE.filters.http.router.v3.Router
              suppress_envoy_headers: true
@DOWN_TLS
  clusters:
  - name: next
    type: STATIC
    connect_timeout: 5s
    circuit_breakers:
      thresholds: [{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}]
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": @TYPE.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {max_concurrent_streams: 1000}}
    load_assignment:
      cluster_name: next
      endpoints: [{lb_endpoints: [{endpoint: {address: @NEXT}}]}]
@UP_TLS
"#;

#[cfg(test)]
mod tests;
