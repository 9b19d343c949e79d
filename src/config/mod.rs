//! What the user asked for, parsed once into types that cannot be wrong.
//!
//! PURE: flags, environment and file contents come in as values. Nobody else reads them.

pub mod access;
pub mod busy_poll;
pub mod change;
pub mod console;
pub mod cpus;
pub mod env;
mod fields;
pub mod flags;
pub mod go;
pub mod metric;
pub mod naming;
pub mod page;
pub mod port;
pub mod quantity;
pub mod resiliency;
pub mod resource;
pub mod settings;
pub mod shape;
pub mod share;
mod socket;
pub mod spec;
pub mod traces;
pub mod yaml;

pub use env::Environment;
pub use flags::{Flags, OwnFlags};
pub use settings::Settings;
pub use socket::{SOCKET_OCTETS_MAX, SocketPath};

use crate::identity::{AppId, Namespace};
use std::net::IpAddr;
use std::time::Duration;

/// The Dapr version that we follow: in every log line, in `--version` and in the metadata.
pub const DAPR_VERSION: &str = "1.18.1";

/// Who is behind a Unix socket, where a name is asked for.
const LOCALHOST: &str = "localhost";

/// How the app is spoken to (`--app-protocol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppProtocol {
    Http,
    Https,
    H2c,
    Grpc,
    Grpcs,
}

/// The app channel; absent without `--app-port` and `--ringside-app-socket`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    pub place: AppPlace,
    pub protocol: AppProtocol,
}

/// Where the app listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppPlace {
    /// `--app-channel-address`, a name or an address, and `--app-port`.
    Port { host: String, port: u16 },
    /// `--ringside-app-socket`.
    Socket(SocketPath),
}

impl App {
    pub fn at(host: &str, port: u16, protocol: AppProtocol) -> Self {
        Self { place: AppPlace::Port { host: host.to_owned(), port }, protocol }
    }

    /// `:authority` of what is sent to it; of a socket's what grpc-go says.
    pub fn authority(&self) -> String {
        match &self.place {
            AppPlace::Port { host, port } => format!("{host}:{port}"),
            AppPlace::Socket(_) => LOCALHOST.to_owned(),
        }
    }

    /// By what name TLS calls it.
    pub fn host(&self) -> &str {
        match &self.place {
            AppPlace::Port { host, .. } => host,
            AppPlace::Socket(_) => LOCALHOST,
        }
    }

    /// 0: it has none.
    pub fn port(&self) -> u16 {
        match self.place {
            AppPlace::Port { port, .. } => port,
            AppPlace::Socket(_) => 0,
        }
    }
}

/// Which driver a worker's runtime uses (`--ringside-io`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoDriver {
    Auto,
    Uring,
    Epoll,
}

/// `--ringside-forward PORT=APP[.NAMESPACE]`: a listener whose calls all go to one app ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    pub port: u16,
    /// As given: what the calls carry as `dapr-app-id`.
    pub app_id: String,
}

/// What becomes of callers' trace contexts (spec 10 §10.2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tracing {
    /// The Configuration says samplingRate "0".
    Off,
    /// They pass, and none is made.
    Passed,
    /// Each call is a span; of traces that begin here this share is sampled.
    Sampled {
        rate: f64,
        /// Somebody is told of them.
        exported: bool,
    },
}

/// What the log is told of single calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallLogging {
    /// A line for each call of the API.
    pub api: bool,
    /// Octets of what a call carries each way that the log shows; 0: none
    /// (`--ringside-log-contents`).
    pub contents: u32,
}

/// Everything that the datapath needs to know; the rest of the flags stay with `control` and `app`.
#[derive(Clone, Debug)]
pub struct Config {
    pub app_id: AppId,
    pub namespace: Namespace,
    pub app: Option<App>,
    pub mtls: bool,
    /// `DAPR_API_TOKEN`; `None` when unset or empty.
    pub api_token: Option<String>,
    /// `APP_API_TOKEN`.
    pub app_token: Option<String>,
    /// Octets in one message; 0 keeps daprd's meaning (spec 03 §3.7).
    pub max_body_size: u64,
    /// Octets in one field section: `--read-buffer-size` × 1024, capped (see docs/parity.md).
    pub header_list_size: u32,
    pub tracing: Tracing,
    /// Hard cap on the drain (`--ringside-drain-max`); `None`: as long as calls run, as daprd.
    pub drain_max: Option<Duration>,
    pub dapr_listen_addresses: Vec<IpAddr>,
    pub grpc_port: u16,
    pub http_port: u16,
    pub internal_port: u16,
    pub forwards: Vec<Forward>,
    pub io: IoDriver,
    pub logging: CallLogging,
}
