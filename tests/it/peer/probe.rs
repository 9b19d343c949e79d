//! Our own raw gRPC app and caller (`tests/peers/grpc/probe`).

use super::ports::claim;
use super::process::{Process, command};
use super::program;
use super::world::World;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

pub type Fields = BTreeMap<String, Vec<String>>;

/// An app that reports every call and answers as the call's metadata asks.
#[derive(Debug)]
pub struct ProbeApp {
    pub process: Process,
    pub port: u16,
}

/// What the app saw of one call.
#[derive(Debug)]
pub struct Seen {
    pub method: String,
    pub metadata: Fields,
    pub deadline_ms: Option<i64>,
}

/// What the app saw of a call's end.
#[derive(Debug)]
pub struct End {
    pub messages: u64,
    pub bytes: u64,
    pub context: String,
}

impl ProbeApp {
    pub fn start(world: &World) -> Self {
        let port = claim();
        Self::start_at(world, &format!("probe-app-{port}"), port, None)
    }

    /// One that tells each connection to go away after `max_age`, as gRPC servers behind load
    /// balancers do.
    pub fn restless(world: &World, max_age: &str) -> Self {
        let port = claim();
        Self::launch(world, "restless-app", port, None, &["-max-age", max_age])
    }

    /// One that lets a connection have so many calls at once.
    pub fn narrow(world: &World, streams: usize) -> Self {
        let port = claim();
        Self::launch(world, "narrow-app", port, None, &["-max-streams", &streams.to_string()])
    }

    /// On a Unix socket.
    pub fn on_socket(world: &World, name: &str, socket: &str, svid: Option<&Path>) -> Self {
        Self::launch(world, name, 0, svid, &["-address", &format!("unix:{socket}")])
    }

    /// On another address than loopback's.
    pub fn start_on(world: &World, host: &str) -> Self {
        let port = claim();
        Self::launch(world, "far-app", port, None, &["-address", &format!("{host}:{port}")])
    }

    /// With an SVID (a folder from [`mint`]) it stands in for a sidecar's internal port.
    pub fn start_at(world: &World, name: &str, port: u16, svid: Option<&Path>) -> Self {
        Self::launch(world, name, port, svid, &[])
    }

    fn launch(world: &World, name: &str, port: u16, svid: Option<&Path>, more: &[&str]) -> Self {
        let mut app = command(program("probe"));
        app.args(["app", "-address", &format!("127.0.0.1:{port}")]).args(more);
        present(&mut app, svid);
        let mut process = Process::start(&world.folder("apps"), name, app);
        process.wait_for_line("\"listening\"");
        Self { process, port }
    }

    pub fn seen(&self) -> Vec<Seen> {
        let calls = self.events("call");
        calls
            .iter()
            .map(|call| Seen {
                method: text(&call["method"]),
                metadata: fields(&call["metadata"]),
                deadline_ms: call["deadline_ms"].as_i64(),
            })
            .collect()
    }

    /// How many calls each connection to the app had at once, at most.
    pub fn most_at_once(&self) -> Vec<usize> {
        let log = self.process.log();
        let mut open: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        let mut peers = BTreeMap::new();
        for event in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let call = event["call"].as_i64();
            match event["event"].as_str() {
                Some("call") => {
                    let peer = text(&event["peer"]);
                    let (now, most) = open.entry(peer.clone()).or_default();
                    *now += 1;
                    *most = (*most).max(*now);
                    peers.insert(call, peer);
                }
                Some("end") => {
                    let peer = peers.get(&call).expect("an end is of a call");
                    open.get_mut(peer).expect("its connection").0 -= 1;
                }
                Some(_) | None => {}
            }
        }
        open.into_values().map(|(_, most)| most).collect()
    }

    /// Waits until `count` calls have ended at the app.
    pub fn ends(&mut self, count: usize) -> Vec<End> {
        self.process.wait(&format!("end of {count} calls"), |process| {
            (events(process, "end").len() >= count).then_some(())
        });
        let ends = self.events("end");
        ends.iter()
            .map(|end| End {
                messages: end["messages"].as_u64().unwrap_or_default(),
                bytes: end["bytes"].as_u64().unwrap_or_default(),
                context: text(&end["context"]),
            })
            .collect()
    }

    fn events(&self, kind: &str) -> Vec<Value> {
        events(&self.process, kind)
    }
}

fn events(process: &Process, kind: &str) -> Vec<Value> {
    let log = process.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|event| event["event"] == kind).collect()
}

/// What the caller got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub code: String,
    pub message: String,
    pub details: Vec<String>,
    pub header: Fields,
    pub trailer: Fields,
    pub messages: u64,
    pub bytes: u64,
    /// A message came back other than it went.
    pub mismatch: bool,
    pub elapsed_ms: u64,
    pub header_ms: i64,
}

impl Outcome {
    /// Code and message, as an assertion shows them.
    pub fn status(&self) -> (&str, &str) {
        (&self.code, &self.message)
    }
}

/// One call, built up flag by flag.
#[derive(Debug)]
pub struct Call {
    command: Command,
}

impl Call {
    pub fn to(address: &str) -> Self {
        let mut command = command(program("probe"));
        command.args(["call", "-address", address]);
        Self { command }
    }

    pub fn to_unix(socket: &Path) -> Self {
        let mut command = command(program("probe"));
        command.arg("call").arg("-address").arg(format!("unix:{}", socket.display()));
        Self { command }
    }

    pub fn app(self, id: &str) -> Self {
        self.metadata("dapr-app-id", id)
    }

    pub fn metadata(mut self, name: &str, value: &str) -> Self {
        self.command.args(["-H", &format!("{name}:{value}")]);
        self
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    /// Over TLS, with this SVID.
    pub fn svid(mut self, folder: &Path) -> Self {
        present(&mut self.command, Some(folder));
        self
    }

    /// Starts it; for calls that are to be in flight while something happens.
    pub fn start(self, world: &World, name: &str) -> Process {
        Process::start(&world.folder("callers"), name, self.command)
    }

    pub fn run(self, world: &World, name: &str) -> Outcome {
        let mut process = self.start(world, name);
        process.wait_for_end();
        outcome(&process)
    }
}

/// The result of a call that has ended.
pub fn outcome(process: &Process) -> Outcome {
    let Some(outcome) = outcomes(process).pop() else {
        panic!("{} told no outcome\n{}", process.name, process.tail());
    };
    outcome
}

/// The results of all calls of one caller so far.
pub fn outcomes(process: &Process) -> Vec<Outcome> {
    events(process, "outcome").iter().map(read_outcome).collect()
}

fn read_outcome(outcome: &Value) -> Outcome {
    let details = outcome["details"].as_array().into_iter().flatten();
    Outcome {
        code: text(&outcome["code_name"]),
        message: text(&outcome["message"]),
        details: details.map(text).collect(),
        header: fields(&outcome["header"]),
        trailer: fields(&outcome["trailer"]),
        messages: outcome["messages"].as_u64().unwrap_or_default(),
        bytes: outcome["bytes"].as_u64().unwrap_or_default(),
        mismatch: outcome["mismatch"].as_bool().unwrap_or_default(),
        elapsed_ms: outcome["elapsed_ms"].as_u64().unwrap_or_default(),
        header_ms: outcome["header_ms"].as_i64().unwrap_or_default(),
    }
}

/// Signs an SVID with the issuer in `issuer` (made as a foreign root when it does not exist);
/// `validity` are probe's -from and -until.
pub fn mint(world: &World, issuer: &Path, id: &str, validity: &[&str]) -> PathBuf {
    let out = world.folder(&format!("svid-{}", claim()));
    let mut mint = command(program("probe"));
    mint.args(["mint", "-id", id]).args(validity);
    mint.arg("-issuer").arg(issuer).arg("-out").arg(&out);
    let mut process = Process::start(&out, "mint", mint);
    assert!(process.wait_for_end().success(), "{}", process.tail());
    out
}

fn present(command: &mut Command, svid: Option<&Path>) {
    if let Some(folder) = svid {
        command.arg("-cert").arg(folder.join("tls.crt"));
        command.arg("-key").arg(folder.join("tls.key"));
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn fields(value: &Value) -> Fields {
    let map = value.as_object().into_iter().flatten();
    map.map(|(name, values)| {
        (name.clone(), values.as_array().into_iter().flatten().map(text).collect())
    })
    .collect()
}
