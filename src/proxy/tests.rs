//! The proxy between two hand-driven HTTP/2 ends: no socket, a clock that stands.

use super::*;
use crate::config::{App, AppProtocol, IoDriver};
use crate::http2::FieldSection;
use crate::identity::{AppId, Namespace};
use crate::resolve::{Endpoint, Resolution};
use crate::snapshot::Epoch;
use std::collections::HashMap;

/// The sidecar of `client`, whose app listens on 127.0.0.1:50051.
pub(super) fn config() -> Config {
    Config {
        app_id: AppId::new("client").unwrap(),
        namespace: Namespace::new("default"),
        app: Some(App { host: "127.0.0.1".into(), port: 50051, protocol: AppProtocol::Grpc }),
        mtls: false,
        api_token: None,
        app_token: None,
        max_body_size: 4 << 20,
        header_list_size: 64 << 10,
        tracing: true,
        drain_max: None,
        dapr_listen_addresses: Vec::new(),
        grpc_port: 50001,
        http_port: 3500,
        internal_port: 50002,
        forwards: Vec::new(),
        io: IoDriver::Auto,
        workers: 1,
    }
}
