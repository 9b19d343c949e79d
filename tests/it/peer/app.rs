//! Apps behind a sidecar, and their callers.

use super::ports::claim;
use super::process::{Process, command};
use super::program;
use super::world::World;

/// An app and the port that it listens on.
#[derive(Debug)]
pub struct App {
    pub process: Process,
    pub port: u16,
}

impl App {
    /// The Greeter of the how-to.
    pub fn greeter(world: &World) -> Self {
        Self::start(world, "greeter_server", "server listening")
    }

    /// grpc-go's interop server.
    pub fn interop(world: &World) -> Self {
        Self::start(world, "interop_server", "interop server listening")
    }

    fn start(world: &World, name: &str, ready: &str) -> Self {
        let port = claim();
        let mut server = command(program(name));
        server.args(["-port", &port.to_string()]).env("GRPC_GO_LOG_SEVERITY_LEVEL", "info");
        let mut process = Process::start(&world.folder("apps"), name, server);
        process.wait_for_line(ready);
        Self { process, port }
    }
}

/// The how-to's client against `address`, asking for app `id`: its log.
pub fn greet(world: &World, address: &str, id: &str) -> String {
    let mut client = command(program("greeter_client"));
    client.args(["-address", address, "-app", id]);
    let mut process = Process::start(&world.folder("callers"), "greeter_client", client);
    process.wait_for_end();
    process.log()
}

/// One case of grpc-go's interop client; `Err` is its log.
pub fn interop_case(world: &World, port: u16, id: &str, case: &str) -> Result<(), String> {
    let mut client = command(program("interop_client"));
    client.args(["-server_host", "127.0.0.1", "-server_port", &port.to_string()]);
    client.args(["-test_case", case]);
    client.args(["-additional_metadata", &format!("dapr-app-id:{id};dapr-stream:true")]);
    let mut process = Process::start(&world.folder("callers"), case, client);
    if process.wait_for_end().success() { Ok(()) } else { Err(process.tail()) }
}
