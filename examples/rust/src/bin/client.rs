//! Greets the app "server" through its own sidecar.
//!
//!     dapr run --app-id client --dapr-grpc-port 50007 -- cargo run --bin client

use greeter::HelloRequest;
use greeter::greeter_client::GreeterClient;
use std::env;
use std::time::Duration;
use tonic::Request;
use tonic::metadata::MetadataValue;

fn darth() -> Request<HelloRequest> {
    let mut request = Request::new(HelloRequest { name: "Darth Maul".into() });
    request.set_timeout(Duration::from_secs(10));
    request
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = env::var("DAPR_GRPC_PORT").unwrap_or("50007".into()); // set by dapr run
    let mut greeter = GreeterClient::connect(format!("http://127.0.0.1:{port}")).await?;

    let mut request = darth();
    request.metadata_mut().insert("dapr-app-id", MetadataValue::from_static("server"));
    let reply = greeter.say_hello(request).await?.into_inner();
    println!("Greeting: {}", reply.message);

    let mut request = darth();
    request.metadata_mut().insert("dapr-app-id", MetadataValue::from_static("server"));
    request.metadata_mut().insert("dapr-stream", MetadataValue::from_static("true"));
    let mut replies = greeter.say_hello_stream(request).await?.into_inner();
    while let Some(reply) = replies.message().await? {
        println!("Greeting: {}", reply.message);
    }
    Ok(())
}
