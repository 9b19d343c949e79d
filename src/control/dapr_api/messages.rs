//! The messages of Dapr's own methods, as far as they are told here (spec 13).

use prost::Message;
use std::collections::BTreeMap;

#[derive(Clone, PartialEq, Message)]
pub struct GetMetadataResponse {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(btree_map = "string, string", tag = "4")]
    pub extended_metadata: BTreeMap<String, String>,
    #[prost(message, optional, tag = "7")]
    pub app_connection_properties: Option<AppConnectionProperties>,
    #[prost(string, tag = "8")]
    pub runtime_version: String,
    #[prost(string, repeated, tag = "9")]
    pub enabled_features: Vec<String>,
    #[prost(message, optional, tag = "10")]
    pub actor_runtime: Option<ActorRuntime>,
    #[prost(message, optional, tag = "12")]
    pub workflows: Option<MetadataWorkflows>,
    #[prost(message, repeated, tag = "15")]
    pub resiliencies: Vec<MetadataResiliency>,
}

#[derive(Clone, PartialEq, Message)]
pub struct AppConnectionProperties {
    #[prost(int32, tag = "1")]
    pub port: i32,
    #[prost(string, tag = "2")]
    pub protocol: String,
    #[prost(string, tag = "3")]
    pub channel_address: String,
    #[prost(int32, tag = "4")]
    pub max_concurrency: i32,
    #[prost(message, optional, tag = "5")]
    pub health: Option<AppConnectionHealthProperties>,
}

#[derive(Clone, PartialEq, Message)]
pub struct AppConnectionHealthProperties {
    #[prost(string, tag = "1")]
    pub health_check_path: String,
    #[prost(string, tag = "2")]
    pub health_probe_interval: String,
    #[prost(string, tag = "3")]
    pub health_probe_timeout: String,
    #[prost(int32, tag = "4")]
    pub health_threshold: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct ActorRuntime {
    #[prost(enumeration = "RuntimeStatus", tag = "1")]
    pub runtime_status: i32,
    #[prost(bool, tag = "3")]
    pub host_ready: bool,
    #[prost(string, tag = "4")]
    pub placement: String,
}

/// `ActorRuntime.ActorRuntimeStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum RuntimeStatus {
    Initializing = 0,
    Disabled = 1,
    Running = 2,
}

#[derive(Clone, PartialEq, Message)]
pub struct MetadataWorkflows {
    #[prost(int32, tag = "1")]
    pub connected_workers: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct MetadataResiliency {
    #[prost(string, tag = "1")]
    pub name: String,
}

/// `grpc.reflection.v1.ServerReflectionRequest`; its `host` is of no use here.
#[derive(Clone, PartialEq, Message)]
pub struct ReflectionRequest {
    #[prost(oneof = "Asked", tags = "3, 4, 6, 7")]
    pub asked: Option<Asked>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Asked {
    #[prost(string, tag = "3")]
    FileByFilename(String),
    #[prost(string, tag = "4")]
    FileContainingSymbol(String),
    #[prost(string, tag = "6")]
    ExtensionNumbersOf(String),
    #[prost(string, tag = "7")]
    ListServices(String),
}

/// `ServerReflectionResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct ReflectionResponse {
    /// The request, as it came.
    #[prost(bytes = "bytes", tag = "2")]
    pub original_request: bytes::Bytes,
    #[prost(oneof = "Told", tags = "4, 5, 6, 7")]
    pub told: Option<Told>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Told {
    #[prost(message, tag = "4")]
    Files(Files),
    #[prost(message, tag = "5")]
    ExtensionNumbers(ExtensionNumbers),
    #[prost(message, tag = "6")]
    Services(Services),
    #[prost(message, tag = "7")]
    Error(ErrorResponse),
}

#[derive(Clone, PartialEq, Message)]
pub struct Files {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub file_descriptor_proto: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ExtensionNumbers {
    #[prost(string, tag = "1")]
    pub base_type_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Services {
    #[prost(message, repeated, tag = "1")]
    pub service: Vec<Service>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Service {
    #[prost(string, tag = "1")]
    pub name: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct ErrorResponse {
    #[prost(int32, tag = "1")]
    pub error_code: i32,
    #[prost(string, tag = "2")]
    pub error_message: String,
}
