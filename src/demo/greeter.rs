//! The Greeter: gRPC's hello world, with a method of each kind.
//!
//! `SayHello`, `SayHelloStreamReply` and `SayHelloBidiStream` are those of grpc's
//! `examples/protos/helloworld.proto`; the client-streaming one is ours.

use super::serve::{Call, Service, serve};
use super::wire::{Reader, Writer};
use crate::control::rpc::Status;
use prost::Message;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

pub const UNARY: &str = "/helloworld.Greeter/SayHello";
pub const SERVER_STREAM: &str = "/helloworld.Greeter/SayHelloStreamReply";
pub const CLIENT_STREAM: &str = "/helloworld.Greeter/SayHelloToAll";
pub const BIDI_STREAM: &str = "/helloworld.Greeter/SayHelloBidiStream";
/// Replies of the server-streaming method, as in grpc's examples.
pub const REPLIES: usize = 10;

#[derive(Clone, PartialEq, Message)]
pub struct HelloRequest {
    #[prost(string, tag = "1")]
    pub name: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct HelloReply {
    #[prost(string, tag = "1")]
    pub message: String,
}

/// It remembers who called last, to show what the sidecars tell an app.
#[derive(Debug, Default)]
pub struct Greeter {
    caller: Mutex<Option<String>>,
}

impl Greeter {
    /// The app ID in the last call's `dapr-caller-app-id`.
    pub fn last_caller(&self) -> Option<String> {
        self.caller.lock().ok()?.clone()
    }

    /// Listens on a free port of the loopback; serve by polling what comes back.
    pub async fn bind(self: Arc<Self>) -> io::Result<(SocketAddr, impl Future<Output = ()>)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        Ok((listener.local_addr()?, serve(listener, None, self)))
    }

    fn note(&self, call: &Call) {
        let caller = call.fields.get("dapr-caller-app-id").and_then(|id| id.to_str().ok());
        if let Ok(mut last) = self.caller.lock() {
            *last = caller.map(str::to_owned);
        }
    }
}

impl Service for Greeter {
    async fn call(self: Arc<Self>, mut call: Call) {
        self.note(&call);
        let (reader, writer) = (&mut call.reader, &mut call.writer);
        let result = match call.path.as_str() {
            UNARY => unary(reader, writer).await,
            SERVER_STREAM => server_stream(reader, writer).await,
            CLIENT_STREAM => client_stream(reader, writer).await,
            BIDI_STREAM => bidi_stream(reader, writer).await,
            _ => return call.unimplemented(),
        };
        call.writer.end(result);
    }
}

async fn unary(reader: &mut Reader, writer: &mut Writer) -> Result<(), Status> {
    let request: HelloRequest = reader.only().await?;
    writer.send(&hello(&request.name)).await
}

async fn server_stream(reader: &mut Reader, writer: &mut Writer) -> Result<(), Status> {
    let request: HelloRequest = reader.only().await?;
    for number in 1..=REPLIES {
        writer.send(&hello(&format!("{} {number}", request.name))).await?;
    }
    Ok(())
}

async fn client_stream(reader: &mut Reader, writer: &mut Writer) -> Result<(), Status> {
    const NAMES_MAX: usize = 100;
    let (mut names, mut others) = (Vec::new(), 0);
    while let Some(HelloRequest { name }) = reader.next().await? {
        if names.len() < NAMES_MAX {
            names.push(name);
        } else {
            others += 1;
        }
    }
    if others > 0 {
        names.push(format!("{others} others"));
    }
    writer.send(&hello(&names.join(", "))).await
}

async fn bidi_stream(reader: &mut Reader, writer: &mut Writer) -> Result<(), Status> {
    while let Some(HelloRequest { name }) = reader.next().await? {
        writer.send(&hello(&name)).await?;
    }
    Ok(())
}

fn hello(name: &str) -> HelloReply {
    HelloReply { message: format!("Hello {name}") }
}
