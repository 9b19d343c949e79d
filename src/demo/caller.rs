//! The Greeter's caller: a call of each kind over one connection.

use super::greeter::{BIDI_STREAM, CLIENT_STREAM, HelloReply, HelloRequest, SERVER_STREAM, UNARY};
use super::wire::{Reader, Writer};
use crate::control::rpc::Status;
use crate::grpc::Code;
use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use prost::Message;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// No call of the demo takes longer.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// One plaintext connection, to the app itself or to its caller's sidecar.
#[derive(Debug)]
pub struct Caller {
    send: SendRequest<Bytes>,
    /// `dapr-app-id` of each call; `None` when there is no sidecar in between.
    app_id: Option<String>,
    driver: JoinHandle<()>,
}

impl Caller {
    pub async fn connect(to: SocketAddr, app_id: Option<&str>) -> Result<Self, Status> {
        let unavailable =
            |error: String| Status::new(Code::Unavailable, format!("connecting to {to}: {error}"));
        let stream = TcpStream::connect(to).await.map_err(|e| unavailable(e.to_string()))?;
        let _ = stream.set_nodelay(true);
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(|e| unavailable(e.to_string()))?;
        let driver = tokio::spawn(async move {
            // Its end is noticed by the calls on it.
            let _ = connection.await;
        });
        Ok(Self { send, app_id: app_id.map(str::to_owned), driver })
    }

    pub async fn unary(&self, name: &str) -> Result<String, Status> {
        limited(async {
            let (mut writer, response) = self.open(UNARY).await?;
            writer.send_last(&request(name)).await?;
            let mut reader = read(response).await?;
            only(&mut reader).await
        })
        .await
    }

    pub async fn server_stream(&self, name: &str) -> Result<Vec<String>, Status> {
        limited(async {
            let (mut writer, response) = self.open(SERVER_STREAM).await?;
            writer.send_last(&request(name)).await?;
            let mut reader = read(response).await?;
            let mut greetings = Vec::new();
            while let Some(HelloReply { message }) = reader.next().await? {
                greetings.push(message);
            }
            reader.end().await?;
            Ok(greetings)
        })
        .await
    }

    pub async fn client_stream(&self, names: &[&str]) -> Result<String, Status> {
        limited(async {
            let (mut writer, response) = self.open(CLIENT_STREAM).await?;
            for name in names {
                writer.send(&request(name)).await?;
            }
            writer.half_close()?;
            let mut reader = read(response).await?;
            only(&mut reader).await
        })
        .await
    }

    /// Sends each name only after the greeting before it has come back.
    pub async fn bidi_stream(&self, names: &[&str]) -> Result<Vec<String>, Status> {
        let mut greetings = Vec::new();
        let Some((first, rest)) = names.split_first() else {
            return Ok(greetings);
        };
        let (mut conversation, greeting) = self.converse(first).await?;
        greetings.push(greeting);
        for name in rest {
            greetings.push(conversation.say(name).await?);
        }
        conversation.end().await?;
        Ok(greetings)
    }

    /// Opens a bidirectional stream that lasts as long as its owner wants.
    pub async fn converse(&self, name: &str) -> Result<(Conversation, String), Status> {
        limited(async {
            let (mut writer, response) = self.open(BIDI_STREAM).await?;
            writer.send(&request(name)).await?;
            let mut reader = read(response).await?;
            let greeting = one(&mut reader).await?;
            Ok((Conversation { reader, writer }, greeting))
        })
        .await
    }

    async fn open(&self, path: &str) -> Result<(Writer, h2::client::ResponseFuture), Status> {
        let broken = |error: h2::Error| Status::of_broken(&error);
        let mut request = Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(app_id) = &self.app_id {
            request = request.header("dapr-app-id", app_id);
            if path != UNARY {
                request = request.header("dapr-stream", "true");
            }
        }
        let request =
            request.body(()).map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        let mut send = self.send.clone().ready().await.map_err(broken)?;
        let (response, stream) = send.send_request(request, false).map_err(broken)?;
        Ok((Writer::new(stream), response))
    }
}

/// A bidirectional stream, a name and a greeting at a time.
#[derive(Debug)]
pub struct Conversation {
    reader: Reader,
    writer: Writer,
}

impl Conversation {
    pub async fn say(&mut self, name: &str) -> Result<String, Status> {
        limited(async {
            self.writer.send(&request(name)).await?;
            one(&mut self.reader).await
        })
        .await
    }

    pub async fn end(self) -> Result<(), Status> {
        let Self { mut reader, writer } = self;
        limited(async {
            writer.half_close()?;
            finish(&mut reader).await
        })
        .await
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn limited<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(CALL_LIMIT, call).await.unwrap_or_else(|_| {
        Err(Status::new(Code::DeadlineExceeded, format!("no answer within {CALL_LIMIT:?}")))
    })
}

async fn read(response: h2::client::ResponseFuture) -> Result<Reader, Status> {
    let response = response.await.map_err(|error| Status::of_broken(&error))?;
    match Status::of_fields(response.headers()) {
        // Trailers-Only.
        Some(status) => Err(status),
        None => Ok(Reader::new(response.into_body())),
    }
}

async fn one(reader: &mut Reader) -> Result<String, Status> {
    match reader.next().await? {
        Some(HelloReply { message }) => Ok(message),
        None => {
            reader.end().await?;
            Err(Status::new(Code::Internal, "the stream ended before its time"))
        }
    }
}

async fn only(reader: &mut Reader) -> Result<String, Status> {
    let greeting = one(reader).await?;
    finish(reader).await?;
    Ok(greeting)
}

async fn finish(reader: &mut Reader) -> Result<(), Status> {
    if reader.next::<HelloReply>().await?.is_some() {
        return Err(Status::new(Code::Internal, "one message too many"));
    }
    reader.end().await
}

fn request(name: &str) -> impl Message + use<> {
    HelloRequest { name: name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::greeter::{Greeter, REPLIES};
    use super::*;
    use std::sync::Arc;

    #[test]
    fn greets_in_every_kind_of_call() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (address, server) = Arc::new(Greeter::default()).bind().await.unwrap();
            let calls = async {
                let caller = Caller::connect(address, None).await.unwrap();
                assert_eq!(caller.unary("world").await.unwrap(), "Hello world");
                let many = caller.server_stream("world").await.unwrap();
                assert_eq!(many.len(), REPLIES);
                assert_eq!(many.last().map(String::as_str), Some("Hello world 10"));
                let all = caller.client_stream(&["a", "b", "c"]).await.unwrap();
                assert_eq!(all, "Hello a, b, c");
                let each = caller.bidi_stream(&["a", "b"]).await.unwrap();
                assert_eq!(each, ["Hello a", "Hello b"]);
                let long = "x".repeat(1 << 20);
                assert_eq!(caller.unary(&long).await.unwrap().len(), (1 << 20) + 6);
            };
            tokio::select! { () = calls => {}, () = server => unreachable!() }
        });
    }
}
