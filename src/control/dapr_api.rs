//! Dapr's own gRPC methods, answered: messages in, messages out. No I/O.
//!
//! 1. What they tell and change is what their HTTP twins tell and change (`admin`).
//! 2. Messages are encoded by hand-written structs (ADR 22); their descriptors, for reflection,
//!    come from `dapr.proto`, and a test holds the two against each other.
//!
//! Sources: Dapr's `pkg/api/universal/{metadata,shutdown}.go`; spec 13.

mod messages;
mod reflection;

pub use reflection::Reflection;

use super::admin::metadata::app_connection;
use super::state::{MetadataError, State};
use bytes::Bytes;
use messages::{
    ActorRuntime, AppConnectionHealthProperties, AppConnectionProperties, GetMetadataResponse,
    MetadataResiliency, MetadataWorkflows, RuntimeStatus,
};
use prost::Message;

/// A `GetMetadataResponse`.
pub fn metadata(state: &State) -> Bytes {
    let options = &state.options;
    let app = app_connection(options);
    let health = app.health.map(|health| AppConnectionHealthProperties {
        health_check_path: health.health_check_path.to_owned(),
        health_probe_interval: health.health_probe_interval,
        health_probe_timeout: health.health_probe_timeout,
        health_threshold: health.health_threshold,
    });
    let response = GetMetadataResponse {
        id: options.app_id.as_str().to_owned(),
        extended_metadata: state.extended(),
        app_connection_properties: Some(AppConnectionProperties {
            port: app.port,
            protocol: app.protocol.to_owned(),
            channel_address: app.channel_address.to_owned(),
            max_concurrency: app.max_concurrency,
            health,
        }),
        runtime_version: options.version.clone(),
        enabled_features: state.features(),
        // There are no actors and no workflows here: what daprd says without a placement service.
        actor_runtime: Some(match state.app_was_healthy() {
            true => ActorRuntime {
                runtime_status: RuntimeStatus::Disabled.into(),
                host_ready: false,
                placement: "placement: disconnected".to_owned(),
            },
            false => ActorRuntime::default(),
        }),
        workflows: Some(MetadataWorkflows { connected_workers: 0 }),
        resiliencies: state
            .resiliency()
            .names
            .iter()
            .map(|name| MetadataResiliency { name: name.clone() })
            .collect(),
    };
    response.encode_to_vec().into()
}

/// A `google.protobuf.Empty`, or why the value was not taken.
pub fn set_metadata(state: &State, key: String, value: String) -> Result<Bytes, &'static str> {
    match state.set_metadata(key, value) {
        Ok(()) => Ok(Bytes::new()),
        Err(MetadataError::TooManyKeys) => Err("ringside: too many metadata keys"),
        Err(MetadataError::TooLarge) => Err("ringside: metadata too large"),
    }
}
