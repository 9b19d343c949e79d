//! One interop case on tonic; the arguments are those of grpc's own interop clients.

use interop::test_service_client::TestServiceClient;
use interop::unimplemented_service_client::UnimplementedServiceClient;
use interop::{
    ECHO_INITIAL, ECHO_TRAILING, EchoStatus, Empty, Payload, ResponseParameters, SimpleRequest,
    StreamingInputCallRequest, StreamingOutputCallRequest, StreamingOutputCallResponse, argument,
};
use std::fmt::Debug;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{AsciiMetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

const LARGE_REQUEST: usize = 271_828;
const LARGE_RESPONSE: i32 = 314_159;
const REQUEST_SIZES: [usize; 4] = [27_182, 8, 1_828, 45_904];
const RESPONSE_SIZES: [i32; 4] = [31_415, 9, 2_653, 58_979];
const INITIAL_VALUE: &str = "test_initial_metadata_value";
const TRAILING_VALUE: &[u8] = &[10, 11, 10, 11, 10, 11];
const SPECIAL: &str = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";

type Stub = TestServiceClient<Channel>;

/// With the metadata of the command line and a generous deadline.
fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(20));
    for field in argument("additional_metadata").split(';').filter(|field| !field.is_empty()) {
        let (name, value) = field.split_once(':').expect("name:value");
        let name: AsciiMetadataKey = name.parse().expect("a name");
        request.metadata_mut().insert(name, value.parse().expect("a value"));
    }
    request
}

fn output(size: usize, sizes: &[i32]) -> StreamingOutputCallRequest {
    let parameters = sizes.iter().map(|&size| ResponseParameters { size, interval_us: 0 });
    StreamingOutputCallRequest {
        payload: Some(Payload::zeros(size)),
        response_parameters: parameters.collect(),
        ..Default::default()
    }
}

fn inputs() -> impl Iterator<Item = StreamingInputCallRequest> + Send {
    REQUEST_SIZES
        .into_iter()
        .map(|size| StreamingInputCallRequest { payload: Some(Payload::zeros(size)) })
}

fn check(payload: Option<Payload>, size: i32) {
    assert_eq!(payload, Some(Payload::zeros(usize::try_from(size).expect("a size"))));
}

fn check_initial(metadata: &MetadataMap) {
    let values: Vec<_> = metadata.get_all(ECHO_INITIAL).iter().collect();
    assert_eq!(values, [INITIAL_VALUE]);
}

fn check_trailing(metadata: &MetadataMap) {
    let values: Vec<_> = metadata.get_all_bin(ECHO_TRAILING).iter().collect();
    assert_eq!(values.len(), 1);
    assert_eq!(values[0].to_bytes().expect("base64"), TRAILING_VALUE);
}

fn check_echo<T: Debug>(outcome: Result<T, Status>, asked: &EchoStatus) {
    let status = outcome.expect_err("a status");
    assert_eq!((status.code(), status.message()), (Code::Unknown, asked.message.as_str()));
}

/// A duplex call that is open, and the way to send on it.
async fn duplex(
    stub: &mut Stub,
    first: StreamingOutputCallRequest,
) -> (mpsc::Sender<StreamingOutputCallRequest>, Streaming<StreamingOutputCallResponse>) {
    let (requests, sent) = mpsc::channel(1);
    // tonic gives the stream only once the response has begun, and some servers begin it late.
    requests.send(first).await.expect("room");
    let call = stub.full_duplex_call(request(ReceiverStream::new(sent)));
    (requests, call.await.expect("a stream").into_inner())
}

async fn empty_unary(mut stub: Stub) {
    assert_eq!(stub.empty_call(request(Empty {})).await.expect("OK").into_inner(), Empty {});
}

async fn large_unary(mut stub: Stub) {
    let large = SimpleRequest {
        response_size: LARGE_RESPONSE,
        payload: Some(Payload::zeros(LARGE_REQUEST)),
        ..Default::default()
    };
    let reply = stub.unary_call(request(large)).await.expect("OK").into_inner();
    check(reply.payload, LARGE_RESPONSE);
}

async fn client_streaming(mut stub: Stub) {
    let call = stub.streaming_input_call(request(tokio_stream::iter(inputs())));
    let total = call.await.expect("OK").into_inner().aggregated_payload_size;
    assert_eq!(usize::try_from(total), Ok(REQUEST_SIZES.iter().sum()));
}

async fn server_streaming(mut stub: Stub) {
    let call = stub.streaming_output_call(request(output(0, &RESPONSE_SIZES)));
    let mut replies = call.await.expect("a stream").into_inner();
    for size in RESPONSE_SIZES {
        check(replies.message().await.expect("OK").expect("a reply").payload, size);
    }
    assert_eq!(replies.message().await.expect("OK"), None);
}

async fn ping_pong(mut stub: Stub) {
    let mut pairs = REQUEST_SIZES.into_iter().zip(RESPONSE_SIZES);
    let (size, mut wanted) = pairs.next().expect("a first");
    let (requests, mut replies) = duplex(&mut stub, output(size, &[wanted])).await;
    loop {
        check(replies.message().await.expect("OK").expect("a reply").payload, wanted);
        let Some((size, next)) = pairs.next() else { break };
        wanted = next;
        requests.send(output(size, &[wanted])).await.expect("an open stream");
    }
    drop(requests);
    assert_eq!(replies.message().await.expect("OK"), None);
}

async fn empty_stream(mut stub: Stub) {
    let call = stub.full_duplex_call(request(tokio_stream::empty()));
    assert_eq!(call.await.expect("a stream").into_inner().message().await.expect("OK"), None);
}

async fn custom_metadata(mut stub: Stub) {
    let asked =
        SimpleRequest { response_size: 1, payload: Some(Payload::zeros(1)), ..Default::default() };
    let mut unary = request(asked);
    ask_for_echo(unary.metadata_mut());
    let reply = stub.unary_call(unary).await.expect("OK");
    // Of a unary call tonic gives initial and trailing metadata together.
    check_initial(reply.metadata());
    check_trailing(reply.metadata());
    check(reply.into_inner().payload, 1);

    let mut streaming = request(tokio_stream::once(output(1, &[1])));
    ask_for_echo(streaming.metadata_mut());
    let reply = stub.full_duplex_call(streaming).await.expect("a stream");
    check_initial(reply.metadata());
    let mut replies = reply.into_inner();
    check(replies.message().await.expect("OK").expect("a reply").payload, 1);
    assert_eq!(replies.message().await.expect("OK"), None);
    check_trailing(&replies.trailers().await.expect("OK").expect("trailers"));
}

fn ask_for_echo(metadata: &mut MetadataMap) {
    metadata.insert(ECHO_INITIAL, MetadataValue::from_static(INITIAL_VALUE));
    metadata.insert_bin(ECHO_TRAILING, MetadataValue::from_bytes(TRAILING_VALUE));
}

async fn unary_echo(stub: &mut Stub, asked: &EchoStatus) {
    let message = SimpleRequest { response_status: Some(asked.clone()), ..Default::default() };
    check_echo(stub.unary_call(request(message)).await, asked);
}

async fn status_code_and_message(mut stub: Stub) {
    let asked = EchoStatus { code: 2, message: "test status message".into() };
    unary_echo(&mut stub, &asked).await;
    let message =
        StreamingOutputCallRequest { response_status: Some(asked.clone()), ..Default::default() };
    // The status comes with the response's beginning or after it, as the server likes.
    let outcome = match stub.full_duplex_call(request(tokio_stream::once(message))).await {
        Ok(reply) => reply.into_inner().message().await.map(|_| ()),
        Err(status) => Err(status),
    };
    check_echo(outcome, &asked);
}

async fn special_status_message(mut stub: Stub) {
    unary_echo(&mut stub, &EchoStatus { code: 2, message: SPECIAL.into() }).await;
}

async fn unimplemented_method(mut stub: Stub) {
    let status = stub.unimplemented_call(request(Empty {})).await.expect_err("a status");
    assert_eq!(status.code(), Code::Unimplemented);
}

async fn unimplemented_service(channel: Channel) {
    let mut stub = UnimplementedServiceClient::new(channel);
    let status = stub.unimplemented_call(request(Empty {})).await.expect_err("a status");
    assert_eq!(status.code(), Code::Unimplemented);
}

/// To cancel is to drop, in tonic: what can be seen is that the next call works.
async fn cancel_after_begin(mut stub: Stub) {
    let (_requests, sent) = mpsc::channel::<StreamingInputCallRequest>(1);
    let call = stub.streaming_input_call(request(ReceiverStream::new(sent)));
    let outcome = tokio::time::timeout(Duration::from_millis(100), call).await;
    assert!(outcome.is_err(), "the call ended by itself: {outcome:?}");
    empty_unary(stub).await;
}

async fn cancel_after_first_response(mut stub: Stub) {
    let first = output(REQUEST_SIZES[0], &RESPONSE_SIZES[..1]);
    let (requests, mut replies) = duplex(&mut stub, first).await;
    check(replies.message().await.expect("OK").expect("a reply").payload, RESPONSE_SIZES[0]);
    drop(replies);
    // The stream is reset and nobody reads what is sent any more.
    requests.closed().await;
    empty_unary(stub).await;
}

/// Until the response begins tonic watches the time itself, and says CANCELLED; so one reply is
/// read first, and what ends the call comes from the sidecar. (grpc-go alone resets the stream.)
async fn timeout_on_sleeping_server(mut stub: Stub) {
    let (requests, sent) = mpsc::channel(1);
    requests.send(output(27_182, &[1])).await.expect("room");
    let mut call = request(ReceiverStream::new(sent));
    call.set_timeout(Duration::from_secs(1));
    let mut replies = stub.full_duplex_call(call).await.expect("a stream").into_inner();
    check(replies.message().await.expect("OK").expect("a reply").payload, 1);
    let status = replies.message().await.expect_err("a status");
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = format!("http://{}:{}", argument("server_host"), argument("server_port"));
    let channel = Endpoint::from_shared(address)?.connect().await?;
    let stub = TestServiceClient::new(channel.clone());
    let case = argument("test_case");
    match case.as_str() {
        "empty_unary" => empty_unary(stub).await,
        "large_unary" => large_unary(stub).await,
        "client_streaming" => client_streaming(stub).await,
        "server_streaming" => server_streaming(stub).await,
        "ping_pong" => ping_pong(stub).await,
        "empty_stream" => empty_stream(stub).await,
        "custom_metadata" => custom_metadata(stub).await,
        "status_code_and_message" => status_code_and_message(stub).await,
        "special_status_message" => special_status_message(stub).await,
        "unimplemented_method" => unimplemented_method(stub).await,
        "unimplemented_service" => unimplemented_service(channel).await,
        "cancel_after_begin" => cancel_after_begin(stub).await,
        "cancel_after_first_response" => cancel_after_first_response(stub).await,
        "timeout_on_sleeping_server" => timeout_on_sleeping_server(stub).await,
        unknown => return Err(format!("no case {unknown:?}").into()),
    }
    println!("{case} passed");
    Ok(())
}
