//! The Greeter of Dapr's how-to.
//!
//!     dapr run --app-id server --app-port 50051 -- cargo run --bin server

use greeter::greeter_server::{Greeter, GreeterServer};
use greeter::{HelloReply, HelloRequest};
use std::env;
use tokio_stream::Iter;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

struct App;

#[tonic::async_trait]
impl Greeter for App {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let name = request.into_inner().name;
        println!("Received: {name}");
        Ok(Response::new(HelloReply { message: format!("Hello {name}") }))
    }

    type SayHelloStreamStream = Iter<std::vec::IntoIter<Result<HelloReply, Status>>>;

    async fn say_hello_stream(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<Self::SayHelloStreamStream>, Status> {
        let name = request.into_inner().name;
        println!("Received: {name}");
        let replies: Vec<_> = (1..=3)
            .map(|i| Ok(HelloReply { message: format!("Hello {name}, {i} of 3") }))
            .collect();
        Ok(Response::new(tokio_stream::iter(replies)))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = env::var("APP_PORT").unwrap_or("50051".into()); // set by dapr run
    println!("server listening at {port}");
    Server::builder()
        .add_service(GreeterServer::new(App))
        .serve(format!("127.0.0.1:{port}").parse()?)
        .await?;
    Ok(())
}
