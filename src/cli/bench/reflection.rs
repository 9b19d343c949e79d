//! gRPC server reflection: asks a service for its descriptors.
//!
//! 1. `grpc.reflection.v1` first, `v1alpha` where that is not served; their messages are the same.
//! 2. At most [`FILES_MAX`] files, and the whole conversation ends within [`LIMIT`].
//!
//! Source: grpc `src/proto/grpc/reflection/v1/reflection.proto`.

use super::BenchError;
use super::schema::unknown_service;
use crate::control::rpc::Status;
use crate::demo::wire::{Reader, Writer};
use crate::grpc::Code;
use bytes::Bytes;
use data_encoding::BASE64_NOPAD;
use h2::client::SendRequest;
use http::{HeaderName, HeaderValue, Request};
use prost::{Message, Oneof};
use prost_reflect::DescriptorPool;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

const METHODS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
const FILES_MAX: usize = 1000;
const LIMIT: Duration = Duration::from_secs(10);
/// In an error response: the code of `NOT_FOUND`.
const NOT_FOUND: i32 = 5;

#[derive(Clone, PartialEq, Message)]
struct ReflectionRequest {
    #[prost(string, tag = "1")]
    host: String,
    #[prost(oneof = "Question", tags = "3, 4, 7")]
    question: Option<Question>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Question {
    #[prost(string, tag = "3")]
    FileByFilename(String),
    #[prost(string, tag = "4")]
    FileContainingSymbol(String),
    #[prost(string, tag = "7")]
    ListServices(String),
}

#[derive(Clone, PartialEq, Message)]
struct ReflectionResponse {
    #[prost(oneof = "Answer", tags = "4, 6, 7")]
    answer: Option<Answer>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Answer {
    #[prost(message, tag = "4")]
    Files(Files),
    #[prost(message, tag = "6")]
    Services(Services),
    #[prost(message, tag = "7")]
    Error(ErrorResponse),
}

#[derive(Clone, PartialEq, Message)]
struct Files {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    file_descriptor_proto: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct Services {
    #[prost(message, repeated, tag = "1")]
    service: Vec<Service>,
}

#[derive(Clone, PartialEq, Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct ErrorResponse {
    #[prost(int32, tag = "1")]
    error_code: i32,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// Everything that `service` needs, from the server at `address`.
pub async fn ask(
    address: SocketAddr,
    service: &str,
    metadata: &[(String, Vec<u8>)],
) -> Result<DescriptorPool, BenchError> {
    let asking = async {
        for path in METHODS {
            match converse(address, path, service, metadata).await {
                Err(Failure::Status(status)) if status.is(Code::Unimplemented) => {}
                Err(Failure::Status(status)) => {
                    return Err(BenchError::new(format!(
                        "asking {address} by reflection: {status}"
                    )));
                }
                Err(Failure::Answer(text)) => return Err(BenchError::new(text)),
                Ok(pool) => return Ok(pool),
            }
        }
        Err(BenchError::new(format!(
            "the service at {address} does not serve gRPC reflection: pass --proto FILE"
        )))
    };
    let late = || BenchError::new(format!("{address} did not answer by reflection in {LIMIT:?}"));
    tokio::time::timeout(LIMIT, asking).await.unwrap_or_else(|_| Err(late()))
}

enum Failure {
    Status(Status),
    Answer(String),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// One stream of questions and answers.
struct Conversation {
    reader: Option<Reader>,
    response: Option<h2::client::ResponseFuture>,
    writer: Writer,
}

impl Conversation {
    async fn ask(&mut self, question: Question) -> Result<Answer, Status> {
        let request = ReflectionRequest { host: String::new(), question: Some(question) };
        // A server that refuses the stream says why in the response.
        let sent = self.writer.send(&request).await;
        if let Some(response) = self.response.take() {
            let response = response.await.map_err(|error| Status::of_broken(&error))?;
            if let Some(status) = Status::of_fields(response.headers()) {
                return Err(status);
            }
            if !response.status().is_success() {
                let text = format!("it answered with HTTP status {}", response.status());
                return Err(Status::new(Code::Unknown, text));
            }
            self.reader = Some(Reader::new(response.into_body()));
        }
        let Some(reader) = self.reader.as_mut() else {
            return Err(Status::new(Code::Internal, "the stream is over"));
        };
        match reader.next::<ReflectionResponse>().await? {
            Some(ReflectionResponse { answer: Some(answer) }) => sent.map(|()| answer),
            Some(ReflectionResponse { answer: None }) => {
                Err(Status::new(Code::Internal, "an answer to another question"))
            }
            None => {
                reader.end().await?;
                Err(Status::new(Code::Internal, "the stream ended without an answer"))
            }
        }
    }
}

async fn converse(
    address: SocketAddr,
    path: &str,
    service: &str,
    metadata: &[(String, Vec<u8>)],
) -> Result<DescriptorPool, Failure> {
    let unavailable = |error: String| Status::new(Code::Unavailable, error);
    let stream =
        TcpStream::connect(address).await.map_err(|error| unavailable(error.to_string()))?;
    let _ = stream.set_nodelay(true);
    let (send, connection) =
        h2::client::handshake(stream).await.map_err(|error| unavailable(error.to_string()))?;
    let driver = tokio::spawn(async move {
        // Its end is noticed by the stream on it.
        let _ = connection.await;
    });
    let result = match open(send, address, path, metadata).await {
        Ok(mut conversation) => gather(&mut conversation, service).await,
        Err(status) => Err(status.into()),
    };
    driver.abort();
    result
}

async fn open(
    send: SendRequest<Bytes>,
    address: SocketAddr,
    path: &str,
    metadata: &[(String, Vec<u8>)],
) -> Result<Conversation, Status> {
    let internal = |text: String| Status::new(Code::Internal, text);
    let mut request = Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(|error| internal(error.to_string()))?;
    for (name, value) in metadata {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| internal(e.to_string()))?;
        let text = match name.as_str().ends_with("-bin") {
            true => BASE64_NOPAD.encode(value).into_bytes(),
            false => value.clone(),
        };
        let value = HeaderValue::from_bytes(&text).map_err(|e| internal(e.to_string()))?;
        request.headers_mut().append(name, value);
    }
    let mut send = send.ready().await.map_err(|error| Status::of_broken(&error))?;
    let (response, stream) =
        send.send_request(request, false).map_err(|error| Status::of_broken(&error))?;
    Ok(Conversation { reader: None, response: Some(response), writer: Writer::new(stream) })
}

/// The file of the service, and then every file that another one imports.
async fn gather(conversation: &mut Conversation, service: &str) -> Result<DescriptorPool, Failure> {
    let mut files: BTreeMap<String, FileDescriptorProto> = BTreeMap::new();
    let mut wanted: BTreeSet<String> = BTreeSet::new();
    let mut question = Question::FileContainingSymbol(service.to_owned());
    while files.len() < FILES_MAX {
        match conversation.ask(question.clone()).await? {
            Answer::Files(answer) => keep(&answer, &mut files, &mut wanted)?,
            Answer::Error(error) => return Err(refused(conversation, service, error).await),
            Answer::Services(_) => {
                return Err(Failure::Answer("reflection: services instead of files".to_owned()));
            }
        }
        wanted.retain(|name| !files.contains_key(name));
        match wanted.pop_first() {
            Some(name) => question = Question::FileByFilename(name),
            None => return pool(files),
        }
    }
    Err(Failure::Answer(format!("reflection: {service} needs more than {FILES_MAX} files")))
}

fn keep(
    answer: &Files,
    files: &mut BTreeMap<String, FileDescriptorProto>,
    wanted: &mut BTreeSet<String>,
) -> Result<(), Failure> {
    let before = files.len();
    for octets in &answer.file_descriptor_proto {
        let file = FileDescriptorProto::decode(octets.as_ref())
            .map_err(|error| Failure::Answer(format!("reflection: a bad descriptor: {error}")))?;
        wanted.extend(file.dependency.iter().cloned());
        files.insert(file.name().to_owned(), file);
    }
    if files.len() == before {
        // A server that answers with what we have would be asked for ever.
        return Err(Failure::Answer("reflection: an answer without the file asked for".to_owned()));
    }
    Ok(())
}

async fn refused(conversation: &mut Conversation, service: &str, error: ErrorResponse) -> Failure {
    if error.error_code != NOT_FOUND {
        return Failure::Answer(format!("reflection: {}", error.error_message));
    }
    match conversation.ask(Question::ListServices(String::new())).await {
        Ok(Answer::Services(services)) => {
            let names = services.service.into_iter().map(|service| service.name);
            Failure::Answer(unknown_service(service, names))
        }
        Ok(_) | Err(_) => Failure::Answer(format!("reflection: {}", error.error_message)),
    }
}

fn pool(files: BTreeMap<String, FileDescriptorProto>) -> Result<DescriptorPool, Failure> {
    let set = FileDescriptorSet { file: files.into_values().collect() };
    DescriptorPool::from_file_descriptor_set(set)
        .map_err(|error| Failure::Answer(format!("reflection: descriptors do not fit: {error}")))
}
