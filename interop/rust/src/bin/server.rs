//! The interop test service on tonic.

use http_body::Frame;
use http_body_util::BodyExt;
use interop::test_service_server::{TestService, TestServiceServer};
use interop::{
    ECHO_INITIAL, ECHO_TRAILING, EchoStatus, Empty, Payload, SimpleRequest, SimpleResponse,
    StreamingInputCallRequest, StreamingInputCallResponse, StreamingOutputCallRequest,
    StreamingOutputCallResponse, argument,
};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming};

struct Service;

type Outputs = mpsc::Sender<Result<StreamingOutputCallResponse, Status>>;

fn status(asked: EchoStatus) -> Status {
    Status::new(Code::from(asked.code), asked.message)
}

/// `None` once the caller is gone.
async fn write_outputs(request: &StreamingOutputCallRequest, outputs: &Outputs) -> Option<()> {
    for parameters in &request.response_parameters {
        let pause = u64::try_from(parameters.interval_us).unwrap_or(0);
        if pause > 0 {
            tokio::time::sleep(Duration::from_micros(pause)).await;
        }
        let size = usize::try_from(parameters.size).unwrap_or(0);
        let payload = Some(Payload::zeros(size));
        outputs.send(Ok(StreamingOutputCallResponse { payload })).await.ok()?;
    }
    Some(())
}

#[tonic::async_trait]
impl TestService for Service {
    async fn empty_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Ok(Response::new(Empty {}))
    }

    async fn unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let request = request.into_inner();
        if let Some(asked) = request.response_status {
            return Err(status(asked));
        }
        let size = usize::try_from(request.response_size).unwrap_or(0);
        Ok(Response::new(SimpleResponse { payload: Some(Payload::zeros(size)) }))
    }

    type StreamingOutputCallStream = ReceiverStream<Result<StreamingOutputCallResponse, Status>>;

    async fn streaming_output_call(
        &self,
        request: Request<StreamingOutputCallRequest>,
    ) -> Result<Response<Self::StreamingOutputCallStream>, Status> {
        let (outputs, replies) = mpsc::channel(1);
        tokio::spawn(async move { write_outputs(request.get_ref(), &outputs).await });
        Ok(Response::new(ReceiverStream::new(replies)))
    }

    async fn streaming_input_call(
        &self,
        request: Request<Streaming<StreamingInputCallRequest>>,
    ) -> Result<Response<StreamingInputCallResponse>, Status> {
        let mut requests = request.into_inner();
        let mut total = 0;
        while let Some(request) = requests.message().await? {
            total += request.payload.map_or(0, |payload| payload.body.len());
        }
        let aggregated_payload_size = i32::try_from(total).unwrap_or(i32::MAX);
        Ok(Response::new(StreamingInputCallResponse { aggregated_payload_size }))
    }

    type FullDuplexCallStream = ReceiverStream<Result<StreamingOutputCallResponse, Status>>;

    async fn full_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<Self::FullDuplexCallStream>, Status> {
        let (outputs, replies) = mpsc::channel(1);
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                if let Some(asked) = request.response_status {
                    let _ = outputs.send(Err(status(asked))).await;
                    return;
                }
                if write_outputs(&request, &outputs).await.is_none() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(replies)))
    }

    async fn unimplemented_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Sends back the metadata that the caller wants back; around the service, because tonic lets no
/// handler of a unary call add trailing metadata to OK.
#[derive(Clone)]
struct Echo<S>(S);

impl<S> tower_service::Service<http::Request<Body>> for Echo<S>
where
    S: tower_service::Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let initial = request.headers().get(ECHO_INITIAL).cloned();
        let trailing = request.headers().get(ECHO_TRAILING).cloned();
        let answer = self.0.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            if let Some(value) = initial {
                response.headers_mut().insert(ECHO_INITIAL, value);
            }
            let Some(value) = trailing else { return Ok(response) };
            Ok(response.map(|body| {
                Body::new(body.map_frame(move |frame| match frame.into_trailers() {
                    Ok(mut trailers) => {
                        trailers.insert(ECHO_TRAILING, value.clone());
                        Frame::trailers(trailers)
                    }
                    Err(frame) => frame,
                }))
            }))
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = argument("port");
    println!("interop server listening at {port}");
    Server::builder()
        .layer(tower_layer::layer_fn(Echo))
        .add_service(TestServiceServer::new(Service))
        .serve(format!("127.0.0.1:{port}").parse()?)
        .await?;
    Ok(())
}
