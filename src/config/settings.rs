//! Flags and environment, judged whole: what the composition root and `control` go by.
//!
//! 1. What daprd refuses at start is refused here, with its texts (`pkg/runtime/config.go`,
//!    `pkg/validation`, `pkg/security` of Dapr).
//! 2. Each step may be asked for alone, in daprd's order of complaints.

use super::cpus::{Pin, WorkerCount};
use super::page::Page;
use super::spec::Configuration;
use super::{
    App, AppPlace, AppProtocol, CallLogging, Config, Environment, Flags, Forward, IoDriver,
    SocketPath, Tracing, busy_poll, go, quantity, share,
};
use crate::identity::{AppId, Namespace, Target};
use std::fmt;
use std::time::Duration;

/// Below this no gRPC call would fit: `--read-buffer-size 0` must not refuse everything.
const HEADER_LIST_SIZE_MIN: u32 = 8 << 10;

/// Octets of a field section that are taken at most, whatever the flags say.
pub const HEADER_LIST_SIZE_MAX: u32 = 1 << 20;

const BODY_SIZE_DEFAULT: i64 = 4 << 20;
const READ_BUFFER_DEFAULT: i64 = 4 << 10;
const GRACE_SECONDS_DEFAULT: u64 = 5;
const WORKERS_MAX: usize = 1024;
/// Octets of messages that a line may show each way.
const CONTENTS_MAX: u32 = 16 << 10;

/// Why the process does not start; the text is daprd's where daprd has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError(pub String);

/// Everything but the Configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its `internal_port` is 0 until the port is bound; `tracing` follows the Configuration.
    pub config: Config,
    pub listen: Listen,
    /// Present iff `config.mtls`.
    pub security: Option<Security>,
    pub app_health: Option<AppHealth>,
    /// Of all workers together.
    pub app_calls_max: Option<usize>,
    /// Retries in percent of the calls to a target; `None`: no bound.
    pub retry_budget: Option<u32>,
    pub shutdown: Shutdown,
    /// Lines to log at WARN before anything else of this.
    pub warnings: Vec<String>,
    /// `--enable-api-logging`; `None`: as the Configuration says.
    pub api_logging: Option<bool>,
    /// `--ringside-resolve-file`.
    pub resolve_file: Option<String>,
    /// `DAPR_HOST_IP`.
    pub host_ip: Option<String>,
    pub config_files: Vec<String>,
    pub resource_folders: Vec<String>,
    pub allowed_origins: String,
    /// Octets of an HTTP request's headers.
    pub http_header_bytes: u64,
    /// `DAPR_HTTP_DISABLE_H2C`.
    pub http_without_h2c: bool,
    pub workers: WorkerCount,
    pub pin: Pin,
    pub busy_poll: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// As given; an empty one is every address.
    pub api_addresses: Vec<String>,
    /// `--unix-domain-socket`: then the two APIs listen there only.
    pub socket_folder: Option<String>,
    pub internal_address: String,
    /// `None`: the port that [`super::port`] chooses.
    pub internal_port: Option<u16>,
    pub public: Option<(String, u16)>,
    pub metrics: Option<(String, u16)>,
    pub page: Option<Page>,
}

/// Where our identity comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Security {
    pub sentry_address: String,
    /// `DAPR_TRUST_ANCHORS`: PEM.
    pub trust_anchors: String,
    pub trust_domain: String,
    pub namespace: String,
    pub jwt_audiences: Vec<String>,
    /// `DAPR_SENTRY_TOKEN_FILE`.
    pub token_file: Option<String>,
    /// `SENTRY_LOCAL_IDENTITY`, else the app ID.
    pub request_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppHealth {
    pub path: String,
    pub interval: Duration,
    pub timeout: Duration,
    pub threshold: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// `None`: no limit.
    pub grace: Option<Duration>,
    pub block: Option<Duration>,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SettingsError {}

fn refuse<T>(text: impl Into<String>) -> Result<T, SettingsError> {
    Err(SettingsError(text.into()))
}

/// What daprd finds wrong before it logs anything else: `Failed to parse flags: ...`.
pub fn check_flags(flags: &Flags) -> Result<(), SettingsError> {
    body_size(flags)?;
    read_buffer(flags)?;
    if let Some(timeout) = flags.actors_disseminate_timeout
        && timeout.positive().is_none()
    {
        let given = &flags.actors_disseminate_timeout_text;
        return refuse(format!(
            "invalid value for 'actors-disseminate-timeout' option: must be positive, got {given}"
        ));
    }
    Ok(())
}

fn body_size(flags: &Flags) -> Result<i64, SettingsError> {
    match (&flags.max_body_size, flags.dapr_http_max_request_size) {
        (Some(text), _) => sized("max-body-size", text),
        (None, Some(megabytes)) if megabytes > 0 => Ok(megabytes.saturating_mul(1 << 20)),
        (None, Some(octets)) => Ok(octets),
        (None, None) => Ok(BODY_SIZE_DEFAULT),
    }
}

fn read_buffer(flags: &Flags) -> Result<i64, SettingsError> {
    match (&flags.read_buffer_size, flags.dapr_http_read_buffer_size) {
        (Some(text), _) => sized("read-buffer-size", text),
        (None, Some(kilobytes)) if kilobytes > 0 => Ok(kilobytes.saturating_mul(1 << 10)),
        (None, Some(octets)) => Ok(octets),
        (None, None) => Ok(READ_BUFFER_DEFAULT),
    }
}

fn sized(flag: &str, text: &str) -> Result<i64, SettingsError> {
    quantity::parse(text)
        .or_else(|error| refuse(format!("invalid value for '{flag}' option: {error}")))
}

/// What identity needs; `None` without `--enable-mtls`.
pub fn security(flags: &Flags, env: &Environment) -> Result<Option<Security>, SettingsError> {
    if !flags.enable_mtls {
        return Ok(None);
    }
    let Some(trust_anchors) = env.filled("DAPR_TRUST_ANCHORS") else {
        return refuse("trust anchors are required");
    };
    if flags.sentry_address.is_empty() {
        return refuse("sentry address is required: --enable-mtls needs --sentry-address");
    }
    let either = |flag: &Option<String>, name: &str, default: &str| {
        let given = flag.as_deref().or_else(|| env.filled(name));
        given.unwrap_or(default).to_owned()
    };
    let trust_domain =
        either(&flags.control_plane_trust_domain, "DAPR_CONTROLPLANE_TRUST_DOMAIN", "localhost");
    let namespace =
        either(&flags.control_plane_namespace, "DAPR_CONTROLPLANE_NAMESPACE", "default");
    let token_file = env.var("DAPR_SENTRY_TOKEN_FILE").map(str::to_owned);
    if token_file.as_deref() == Some("") {
        return refuse("environment variable DAPR_SENTRY_TOKEN_FILE is set with an empty value");
    }
    Ok(Some(Security {
        sentry_address: flags.sentry_address.clone(),
        trust_anchors: trust_anchors.to_owned(),
        trust_domain,
        namespace,
        jwt_audiences: flags.sentry_request_jwt_audiences.clone(),
        token_file,
        request_id: env.filled("SENTRY_LOCAL_IDENTITY").unwrap_or(&flags.app_id).to_owned(),
    }))
}

impl Settings {
    /// Security apart, in daprd's order of complaints.
    pub fn new(flags: &Flags, env: &Environment) -> Result<Self, SettingsError> {
        let app_id = app_id(flags)?;
        let http_port = port("dapr-http-port flag", &flags.dapr_http_port)?;
        let grpc_port = port("dapr-grpc-port flag", &flags.dapr_grpc_port)?;
        // Nothing listens there, so any number will do: `dapr run` passes -1.
        number("profile-port flag", &flags.profile_port)?;
        let internal_port =
            optional_port("dapr-internal-grpc-port", &flags.dapr_internal_grpc_port)?;
        let public_port = optional_port("dapr-public-port", &flags.dapr_public_port)?;
        let mut warnings = Vec::new();
        let app = app(flags, http_port, grpc_port, &mut warnings)?;
        let app_health = app_health(flags)?;
        init_endpoints(&flags.disable_init_endpoints)?;
        let metrics = || port("metrics-port flag", &flags.metrics_port);
        let metrics = flags.enable_metrics.then(metrics).transpose()?;
        let namespace = Namespace::new(env.var("NAMESPACE").unwrap_or("default"));
        let forwards = forwards(&flags.ringside.forward, &namespace)?;
        let api_addresses: Vec<String> =
            flags.dapr_listen_addresses.split(',').map(|text| text.trim().to_owned()).collect();
        let config = Config {
            app_id,
            app,
            mtls: flags.enable_mtls,
            api_token: env.filled("DAPR_API_TOKEN").map(str::to_owned),
            app_token: env.filled("APP_API_TOKEN").map(str::to_owned),
            max_body_size: whole(body_size(flags)?, BODY_SIZE_DEFAULT),
            header_list_size: header_list_size(read_buffer(flags)?),
            tracing: Tracing::Passed,
            drain_max: flags.ringside.drain_max.and_then(go::GoDuration::positive),
            dapr_listen_addresses: api_addresses.iter().filter_map(|a| ip(a)).collect(),
            grpc_port,
            http_port,
            internal_port: 0,
            forwards,
            io: driver(&flags.ringside.io)?,
            logging: CallLogging { api: false, contents: contents(flags.ringside.log_contents)? },
            namespace,
        };
        let filled = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Ok(Self {
            config,
            listen: Listen {
                api_addresses,
                socket_folder: filled(&flags.unix_domain_socket),
                internal_address: flags.dapr_internal_grpc_listen_address.clone(),
                internal_port,
                public: public_port.map(|port| (flags.dapr_public_listen_address.clone(), port)),
                metrics: metrics.map(|port| (flags.metrics_listen_address.clone(), port)),
                page: Page::new(&flags.ringside, env).or_else(refuse)?,
            },
            security: security(flags, env)?,
            app_health,
            app_calls_max: app_calls_max(flags),
            retry_budget: share::parse("ringside-retry-budget", &flags.ringside.retry_budget)?,
            shutdown: shutdown(flags, &mut warnings),
            warnings,
            api_logging: flags.enable_api_logging,
            resolve_file: filled(&flags.ringside.resolve_file),
            host_ip: env.filled("DAPR_HOST_IP").map(str::to_owned),
            config_files: flags.config.iter().filter(|name| !name.is_empty()).cloned().collect(),
            resource_folders: resource_folders(flags),
            allowed_origins: flags.allowed_origins.clone(),
            http_header_bytes: whole(read_buffer(flags)?, READ_BUFFER_DEFAULT),
            http_without_h2c: env.var("DAPR_HTTP_DISABLE_H2C").is_some_and(go::truthy),
            workers: workers(&flags.ringside.workers)?,
            pin: pin(&flags.ringside.pin)?,
            busy_poll: busy_poll::parse(&flags.ringside.busy_poll)?,
        })
    }

    /// Lets the Configuration change what it may.
    pub fn apply(&mut self, configuration: &Configuration) {
        self.config.tracing = configuration.tracing.tracing();
        self.config.logging.api = self.api_logging.unwrap_or(configuration.api_logging.enabled);
    }
}

fn app_id(flags: &Flags) -> Result<AppId, SettingsError> {
    if flags.app_id.is_empty() {
        return refuse("parameter app-id cannot be empty");
    }
    AppId::new(&flags.app_id).or_else(|_| refuse("parameter app-id cannot contain dots"))
}

fn number(what: &str, text: &str) -> Result<i64, SettingsError> {
    go::atoi(text).or_else(|error| refuse(format!("error parsing {what}: {error}")))
}

fn port(what: &str, text: &str) -> Result<u16, SettingsError> {
    let value = number(what, text)?;
    let unfit = |_| refuse(format!("error parsing {what}: {value} is no port"));
    u16::try_from(value).or_else(unfit)
}

/// Empty and 0 are none.
fn optional_port(what: &str, text: &str) -> Result<Option<u16>, SettingsError> {
    if text.is_empty() {
        return Ok(None);
    }
    Ok(Some(port(what, text)?).filter(|port| *port != 0))
}

fn app(
    flags: &Flags,
    http_port: u16,
    grpc_port: u16,
    warnings: &mut Vec<String>,
) -> Result<Option<App>, SettingsError> {
    // Only a port above 0 makes an app channel.
    let negative = go::atoi(&flags.app_port).is_ok_and(|value| value <= 0);
    let port = if negative { None } else { optional_port("app-port", &flags.app_port)? };
    for (name, other) in [("dapr-http-port", http_port), ("dapr-grpc-port", grpc_port)] {
        if port == Some(other) {
            return refuse(format!(
                "the '{name}' argument value {other} conflicts with 'app-port'"
            ));
        }
    }
    let mut protocol = match flags.app_protocol.to_ascii_lowercase().as_str() {
        "" | "http" => AppProtocol::Http,
        "https" => AppProtocol::Https,
        "h2c" => AppProtocol::H2c,
        "grpc" => AppProtocol::Grpc,
        "grpcs" => AppProtocol::Grpcs,
        _ => return refuse(format!("invalid value for 'app-protocol': {}", flags.app_protocol)),
    };
    if flags.app_ssl {
        let secured = match protocol {
            AppProtocol::Grpc | AppProtocol::Grpcs => (AppProtocol::Grpcs, "grpcs"),
            AppProtocol::Http | AppProtocol::Https => (AppProtocol::Https, "https"),
            AppProtocol::H2c => (AppProtocol::H2c, "https"),
        };
        protocol = secured.0;
        warnings.push(format!(
            "The 'app-ssl' flag is deprecated; use 'app-protocol={}' instead",
            secured.1
        ));
    }
    let place = app_place(flags, port)?;
    Ok(place.map(|place| App { place, protocol }))
}

fn app_place(flags: &Flags, port: Option<u16>) -> Result<Option<AppPlace>, SettingsError> {
    let (socket, host) = (flags.ringside.app_socket.as_str(), flags.app_channel_address.clone());
    match (socket, port) {
        ("", port) => Ok(port.map(|port| AppPlace::Port { host, port })),
        (socket, None) => match SocketPath::parse(socket) {
            Ok(path) => Ok(Some(AppPlace::Socket(path))),
            Err(error) => refuse(format!("invalid value for 'ringside-app-socket': {error}")),
        },
        (_, Some(port)) => refuse(format!(
            "'ringside-app-socket' and 'app-port' name two places of one app, {socket} and port \
             {port}: give one of them"
        )),
    }
}

fn app_health(flags: &Flags) -> Result<Option<AppHealth>, SettingsError> {
    if !flags.enable_app_health_check {
        return Ok(None);
    }
    let positive =
        |value: i64, default: u64| u64::try_from(value).ok().filter(|v| *v > 0).unwrap_or(default);
    let interval = Duration::from_secs(positive(flags.app_health_probe_interval, 5));
    let timeout = Duration::from_millis(positive(flags.app_health_probe_timeout, 500));
    if timeout > interval {
        return refuse(
            "value for 'health-probe-timeout' must be smaller than 'health-probe-interval'",
        );
    }
    let threshold = i32::try_from(flags.app_health_threshold).ok().filter(|value| *value >= 1);
    let threshold = threshold.map_or(3, i32::unsigned_abs);
    let path = flags.app_health_check_path.clone();
    Ok(Some(AppHealth { path, interval, timeout, threshold }))
}

fn app_calls_max(flags: &Flags) -> Option<usize> {
    let given = usize::try_from(flags.app_max_concurrency).ok().filter(|most| *most > 0);
    given.filter(|_| flags.ringside.app_max_concurrency_proxied)
}

fn init_endpoints(names: &[String]) -> Result<(), SettingsError> {
    for name in names {
        match name.trim().to_lowercase().as_str() {
            "config" | "subscribe" => {}
            _ => return refuse(format!("invalid value for 'disable-init-endpoints': {name}")),
        }
    }
    Ok(())
}

fn shutdown(flags: &Flags, warnings: &mut Vec<String>) -> Shutdown {
    let seconds = flags.dapr_graceful_shutdown_seconds;
    let grace = match u64::try_from(seconds).unwrap_or(GRACE_SECONDS_DEFAULT) {
        0 => {
            warnings.push(
                "Graceful shutdown timeout is infinite, will wait indefinitely to shutdown."
                    .to_owned(),
            );
            None
        }
        seconds => Some(Duration::from_secs(seconds)),
    };
    let block = flags.dapr_block_shutdown_duration.and_then(go::GoDuration::positive);
    Shutdown { grace, block }
}

fn resource_folders(flags: &Flags) -> Vec<String> {
    let given = flags.resources_path.iter().filter(|path| !path.is_empty());
    let folders: Vec<String> = given.cloned().collect();
    match folders.is_empty() && !flags.components_path.is_empty() {
        true => vec![flags.components_path.clone()],
        false => folders,
    }
}

fn forwards(given: &[String], own: &Namespace) -> Result<Vec<Forward>, SettingsError> {
    let parse = |text: &String| {
        let (port, target) = text.split_once('=')?;
        let port = port.trim().parse().ok().filter(|port: &u16| *port != 0)?;
        let app_id = target.trim().to_owned();
        Target::parse(&app_id, own).is_ok().then_some(Forward { port, app_id })
    };
    let mut forwards = Vec::new();
    for text in given {
        match parse(text) {
            Some(forward) => forwards.push(forward),
            None => {
                return refuse(format!(
                    "invalid value for 'ringside-forward': {text:?} is not PORT=APP[.NAMESPACE]"
                ));
            }
        }
    }
    Ok(forwards)
}

fn driver(text: &str) -> Result<IoDriver, SettingsError> {
    match text {
        "auto" => Ok(IoDriver::Auto),
        "uring" => Ok(IoDriver::Uring),
        "epoll" => Ok(IoDriver::Epoll),
        _ => refuse(format!(
            "invalid value for 'ringside-io': {text:?} is none of auto, uring, epoll"
        )),
    }
}

fn workers(text: &str) -> Result<WorkerCount, SettingsError> {
    if text == "auto" {
        return Ok(WorkerCount::Auto);
    }
    match text.parse() {
        Ok(count) if (1..=WORKERS_MAX).contains(&count) => Ok(WorkerCount::Given(count)),
        Ok(_) | Err(_) => refuse(format!(
            "invalid value for 'ringside-workers': {text:?} is neither auto nor 1 to {WORKERS_MAX}"
        )),
    }
}

fn contents(octets: i64) -> Result<u32, SettingsError> {
    let fits = u32::try_from(octets).ok().filter(|octets| *octets <= CONTENTS_MAX);
    fits.map_or_else(
        || {
            refuse(format!(
                "invalid value for 'ringside-log-contents': {octets} is not 0 to {CONTENTS_MAX}"
            ))
        },
        Ok,
    )
}

fn pin(text: &str) -> Result<Pin, SettingsError> {
    match text {
        "auto" => Ok(Pin::Auto),
        "on" => Ok(Pin::On),
        "off" => Ok(Pin::Off),
        _ => refuse(format!("invalid value for 'ringside-pin': {text:?} is none of auto, on, off")),
    }
}

/// Negative sizes mean the default.
fn whole(size: i64, default: i64) -> u64 {
    u64::try_from(size).unwrap_or(default.unsigned_abs())
}

fn header_list_size(read_buffer: i64) -> u32 {
    let octets = whole(read_buffer, READ_BUFFER_DEFAULT).saturating_mul(1 << 10);
    u32::try_from(octets).unwrap_or(u32::MAX).clamp(HEADER_LIST_SIZE_MIN, HEADER_LIST_SIZE_MAX)
}

fn ip(text: &str) -> Option<std::net::IpAddr> {
    text.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests;
