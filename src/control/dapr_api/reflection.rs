//! gRPC server reflection: which services are served here, and their descriptors.
//!
//! 1. It tells of ringside's own services alone, as daprd does of its own: an app's reflection is
//!    reached with `dapr-app-id`.
//! 2. A file is given with all that it imports, each time.
//!
//! Source: grpc-go's `reflection` package; grpc `src/proto/grpc/reflection/v1/reflection.proto`.

use super::messages::{
    Asked, ErrorResponse, ExtensionNumbers, Files, ReflectionRequest, ReflectionResponse, Service,
    Services, Told,
};
use crate::grpc::Code;
use bytes::Bytes;
use prost::Message;
use prost_reflect::{DescriptorPool, FileDescriptor};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use std::cell::OnceCell;
use std::collections::BTreeMap;

const DAPR: &str = "dapr/proto/runtime/v1/dapr.proto";
const V1: &str = "grpc/reflection/v1/reflection.proto";
const V1ALPHA: &str = "grpc/reflection/v1alpha/reflection.proto";

/// Compiled when somebody asks first.
#[derive(Debug, Default)]
pub struct Reflection {
    pool: OnceCell<DescriptorPool>,
}

/// The files that are built in.
struct BuiltIn;

impl FileResolver for BuiltIn {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let reflection = include_str!("reflection.proto");
        match name {
            DAPR => File::from_source(name, include_str!("dapr.proto")),
            V1 => File::from_source(name, reflection),
            V1ALPHA => {
                let alpha = reflection.replace("grpc.reflection.v1", "grpc.reflection.v1alpha");
                File::from_source(name, &alpha)
            }
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

impl Reflection {
    /// A `ServerReflectionResponse` to a `ServerReflectionRequest`.
    pub fn answer(&self, question: Bytes) -> Bytes {
        let told = match ReflectionRequest::decode(question.clone()).map(|request| request.asked) {
            Ok(Some(asked)) => self.tell(&asked),
            Ok(None) => error(Code::InvalidArgument, "ringside: an unknown kind of question"),
            Err(_) => error(Code::InvalidArgument, "ringside: the question is no message"),
        };
        let response = ReflectionResponse { original_request: question, told: Some(told) };
        response.encode_to_vec().into()
    }

    fn tell(&self, asked: &Asked) -> Told {
        let pool = self.pool.get_or_init(compile);
        match asked {
            Asked::FileByFilename(name) => files(pool.get_file_by_name(name)),
            Asked::FileContainingSymbol(symbol) => files(containing(pool, symbol)),
            Asked::ExtensionNumbersOf(name) => match pool.get_message_by_name(name) {
                Some(_) => {
                    Told::ExtensionNumbers(ExtensionNumbers { base_type_name: name.clone() })
                }
                None => not_found(),
            },
            Asked::ListServices(_) => {
                let mut names: Vec<String> =
                    pool.services().map(|service| service.full_name().to_owned()).collect();
                names.sort();
                let service = names.into_iter().map(|name| Service { name }).collect();
                Told::Services(Services { service })
            }
        }
    }
}

/// Of a service, a method, a message or an enum.
fn containing(pool: &DescriptorPool, symbol: &str) -> Option<FileDescriptor> {
    let service = |name: &str| pool.get_service_by_name(name);
    let method = || {
        let (of, name) = symbol.rsplit_once('.')?;
        service(of)?.methods().find(|method| method.name() == name).map(|m| m.parent_file())
    };
    let message = || pool.get_message_by_name(symbol).map(|message| message.parent_file());
    let of_enum = || pool.get_enum_by_name(symbol).map(|found| found.parent_file());
    service(symbol)
        .map(|found| found.parent_file())
        .or_else(message)
        .or_else(method)
        .or_else(of_enum)
}

fn files(found: Option<FileDescriptor>) -> Told {
    let Some(found) = found else { return not_found() };
    // Each once; the one that was asked for comes first.
    let mut others = BTreeMap::new();
    let mut open: Vec<FileDescriptor> = found.dependencies().collect();
    while let Some(file) = open.pop() {
        open.extend(file.dependencies().filter(|next| !others.contains_key(next.name())));
        others.insert(file.name().to_owned(), file.encode_to_vec());
    }
    let all = std::iter::once(found.encode_to_vec()).chain(others.into_values());
    Told::Files(Files { file_descriptor_proto: all.collect() })
}

/// In the words of Go's `protoregistry`.
fn not_found() -> Told {
    error(Code::NotFound, "proto: not found")
}

fn error(code: Code, message: &str) -> Told {
    Told::Error(ErrorResponse { error_code: code as i32, error_message: message.to_owned() })
}

/// The files are part of the program, and a test compiles them.
fn compile() -> DescriptorPool {
    let mut resolver = ChainFileResolver::new();
    resolver.add(BuiltIn);
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true);
    match compiler.open_files([DAPR, V1, V1ALPHA]) {
        Ok(compiler) => compiler.descriptor_pool(),
        Err(error) => {
            tracing::error!("the built-in descriptors do not compile: {error}");
            DescriptorPool::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::messages::{
        ActorRuntime, AppConnectionHealthProperties, AppConnectionProperties, GetMetadataResponse,
        MetadataResiliency, MetadataWorkflows, RuntimeStatus,
    };
    use super::*;
    use prost_reflect::DynamicMessage;

    fn ask(asked: Asked) -> Told {
        let question = ReflectionRequest { asked: Some(asked) }.encode_to_vec();
        let answer = Reflection::default().answer(question.clone().into());
        let answer = ReflectionResponse::decode(answer).unwrap();
        assert_eq!(answer.original_request, question);
        answer.told.unwrap()
    }

    fn pool_of(told: Told) -> DescriptorPool {
        let Told::Files(files) = told else { panic!("{told:?}") };
        let mut set = prost_types::FileDescriptorSet::default();
        for file in files.file_descriptor_proto {
            set.file.push(Message::decode(file.as_slice()).unwrap());
        }
        DescriptorPool::from_file_descriptor_set(set).unwrap()
    }

    #[test]
    fn names_its_services() {
        let Told::Services(services) = ask(Asked::ListServices(String::new())) else { panic!() };
        let names: Vec<&str> = services.service.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "dapr.proto.runtime.v1.Dapr",
                "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection",
            ]
        );
    }

    #[test]
    fn gives_files_with_their_imports() {
        for symbol in [
            "dapr.proto.runtime.v1.Dapr",
            "dapr.proto.runtime.v1.Dapr.Shutdown",
            "dapr.proto.runtime.v1.GetMetadataResponse",
            "dapr.proto.runtime.v1.ActorRuntime.ActorRuntimeStatus",
        ] {
            let pool = pool_of(ask(Asked::FileContainingSymbol(symbol.to_owned())));
            assert!(pool.get_message_by_name("google.protobuf.Empty").is_some(), "{symbol}");
            assert!(pool.get_service_by_name("dapr.proto.runtime.v1.Dapr").is_some(), "{symbol}");
        }
        for name in [V1, V1ALPHA, "google/protobuf/empty.proto"] {
            let pool = pool_of(ask(Asked::FileByFilename(name.to_owned())));
            assert!(pool.get_file_by_name(name).is_some());
        }
    }

    #[test]
    fn knows_nothing_else() {
        let unknown = [
            Asked::FileByFilename("x.proto".to_owned()),
            Asked::FileContainingSymbol("helloworld.Greeter".to_owned()),
            Asked::FileContainingSymbol(String::new()),
            Asked::ExtensionNumbersOf("x".to_owned()),
        ];
        for asked in unknown {
            let Told::Error(error) = ask(asked) else { panic!() };
            assert_eq!((error.error_code, error.error_message.as_str()), (5, "proto: not found"));
        }
        for question in [&b""[..], b"\x2a\x00", b"\xff"] {
            let answer = Reflection::default().answer(Bytes::from_static(question));
            let Some(Told::Error(error)) = ReflectionResponse::decode(answer).unwrap().told else {
                panic!()
            };
            assert_eq!(error.error_code, Code::InvalidArgument as i32);
        }
    }

    /// What is sent is what the descriptor says: nothing is left over, nothing has another type.
    #[test]
    fn messages_are_what_their_descriptor_says() {
        let pool = Reflection::default().pool.get_or_init(compile).clone();
        let health = AppConnectionHealthProperties {
            health_check_path: "/h".to_owned(),
            health_probe_interval: "5s".to_owned(),
            health_probe_timeout: "500ms".to_owned(),
            health_threshold: 3,
        };
        let metadata = GetMetadataResponse {
            id: "a".to_owned(),
            extended_metadata: [("k".to_owned(), "v".to_owned())].into(),
            app_connection_properties: Some(AppConnectionProperties {
                port: 80,
                protocol: "http".to_owned(),
                channel_address: "localhost".to_owned(),
                max_concurrency: 7,
                health: Some(health),
            }),
            runtime_version: "1".to_owned(),
            enabled_features: vec!["F".to_owned()],
            actor_runtime: Some(ActorRuntime {
                runtime_status: RuntimeStatus::Running.into(),
                host_ready: true,
                placement: "p".to_owned(),
            }),
            workflows: Some(MetadataWorkflows { connected_workers: 2 }),
            resiliencies: vec![MetadataResiliency { name: "r".to_owned() }],
        };
        let name = "dapr.proto.runtime.v1.GetMetadataResponse";
        let descriptor = pool.get_message_by_name(name).unwrap();
        let wire = metadata.encode_to_vec();
        let read = DynamicMessage::decode(descriptor, wire.as_slice()).unwrap();
        assert_eq!(read.unknown_fields().count(), 0);
        let json = serde_json::to_value(&read).unwrap();
        let expected = serde_json::json!({
            "id": "a",
            "extended": {"k": "v"},
            "appConnectionProperties": {
                "port": 80, "protocol": "http", "channelAddress": "localhost", "maxConcurrency": 7,
                "health": {
                    "healthCheckPath": "/h", "healthProbeInterval": "5s",
                    "healthProbeTimeout": "500ms", "healthThreshold": 3
                }
            },
            "runtimeVersion": "1",
            "enabledFeatures": ["F"],
            "actorRuntime": {"runtimeStatus": "RUNNING", "hostReady": true, "placement": "p"},
            "workflows": {"connectedWorkers": 2},
            "resiliencies": [{"name": "r"}],
        });
        assert_eq!(json, expected);
    }
}
