//! The flags as given: typed where the parser types them, text where daprd looks later.
//!
//! Source: `cmd/daprd/options/options.go` of Dapr 1.18.1; the defaults are its.

use super::go::GoDuration;

/// `None` means: not given, and daprd tells that from its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flags {
    pub mode: String,
    pub app_id: String,
    pub app_port: String,
    pub app_protocol: String,
    pub app_ssl: bool,
    pub app_channel_address: String,
    pub app_max_concurrency: i64,
    pub dapr_http_port: String,
    pub dapr_grpc_port: String,
    pub dapr_internal_grpc_port: String,
    pub dapr_internal_grpc_listen_address: String,
    pub dapr_listen_addresses: String,
    pub dapr_public_port: String,
    pub dapr_public_listen_address: String,
    pub metrics_port: String,
    pub metrics_listen_address: String,
    pub enable_metrics: bool,
    pub profile_port: String,
    pub enable_profiling: bool,
    pub unix_domain_socket: String,
    pub config: Vec<String>,
    pub resources_path: Vec<String>,
    pub components_path: String,
    pub sentry_address: String,
    pub control_plane_trust_domain: Option<String>,
    pub control_plane_namespace: Option<String>,
    pub sentry_request_jwt_audiences: Vec<String>,
    pub enable_mtls: bool,
    pub allowed_origins: String,
    pub max_body_size: Option<String>,
    pub dapr_http_max_request_size: Option<i64>,
    pub read_buffer_size: Option<String>,
    pub dapr_http_read_buffer_size: Option<i64>,
    pub dapr_graceful_shutdown_seconds: i64,
    pub dapr_block_shutdown_duration: Option<GoDuration>,
    pub enable_api_logging: Option<bool>,
    pub enable_app_health_check: bool,
    pub app_health_check_path: String,
    pub app_health_probe_interval: i64,
    pub app_health_probe_timeout: i64,
    pub app_health_threshold: i64,
    pub log_level: String,
    pub log_as_json: bool,
    pub log_file: String,
    pub version: bool,
    pub build_info: bool,
    pub wait: bool,
    pub actors_disseminate_timeout: Option<GoDuration>,
    /// As given, for the error's text.
    pub actors_disseminate_timeout_text: String,
    pub disable_init_endpoints: Vec<String>,
    pub ringside: OwnFlags,
    /// Flags that were given and have no effect here, by name, in the order of the table.
    pub ignored: Vec<&'static str>,
}

/// `--ringside-*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnFlags {
    /// Empty: the app has a port, or there is none.
    pub app_socket: String,
    pub io: String,
    pub workers: String,
    pub pin: String,
    /// `off` or microseconds.
    pub busy_poll: String,
    pub forward: Vec<String>,
    pub drain_max: Option<GoDuration>,
    pub retry_budget: String,
    pub resolve_file: String,
    /// `auto`, `off` or a path.
    pub admin_socket: String,
    /// Octets of what a call carries each way that the log shows.
    pub log_contents: i64,
    /// Empty: there is no page.
    pub page_port: String,
    pub page_address: String,
    /// False: `--app-max-concurrency` is told and bounds nothing, as in daprd.
    pub app_max_concurrency_proxied: bool,
}

impl Default for OwnFlags {
    fn default() -> Self {
        Self {
            app_socket: String::new(),
            io: "auto".into(),
            workers: "auto".into(),
            pin: "auto".into(),
            busy_poll: "off".into(),
            forward: Vec::new(),
            drain_max: None,
            retry_budget: "off".into(),
            resolve_file: String::new(),
            admin_socket: "auto".into(),
            log_contents: 0,
            page_port: String::new(),
            page_address: "127.0.0.1".into(),
            app_max_concurrency_proxied: true,
        }
    }
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            mode: "standalone".into(),
            app_id: String::new(),
            app_port: String::new(),
            app_protocol: "http".into(),
            app_ssl: false,
            app_channel_address: "127.0.0.1".into(),
            app_max_concurrency: -1,
            dapr_http_port: "3500".into(),
            dapr_grpc_port: "50001".into(),
            dapr_internal_grpc_port: String::new(),
            dapr_internal_grpc_listen_address: String::new(),
            dapr_listen_addresses: String::new(),
            dapr_public_port: String::new(),
            dapr_public_listen_address: String::new(),
            metrics_port: "9090".into(),
            metrics_listen_address: "0.0.0.0".into(),
            enable_metrics: true,
            profile_port: "7777".into(),
            enable_profiling: false,
            unix_domain_socket: String::new(),
            config: Vec::new(),
            resources_path: Vec::new(),
            components_path: String::new(),
            sentry_address: String::new(),
            control_plane_trust_domain: None,
            control_plane_namespace: None,
            sentry_request_jwt_audiences: Vec::new(),
            enable_mtls: false,
            allowed_origins: String::new(),
            max_body_size: None,
            dapr_http_max_request_size: None,
            read_buffer_size: None,
            dapr_http_read_buffer_size: None,
            dapr_graceful_shutdown_seconds: 5,
            dapr_block_shutdown_duration: None,
            enable_api_logging: None,
            enable_app_health_check: false,
            app_health_check_path: "/healthz".into(),
            app_health_probe_interval: 5,
            app_health_probe_timeout: 500,
            app_health_threshold: 3,
            log_level: "info".into(),
            log_as_json: false,
            log_file: String::new(),
            version: false,
            build_info: false,
            wait: false,
            actors_disseminate_timeout: None,
            actors_disseminate_timeout_text: String::new(),
            disable_init_endpoints: Vec::new(),
            ringside: OwnFlags::default(),
            ignored: Vec::new(),
        }
    }
}
