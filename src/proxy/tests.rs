//! The proxy between two hand-driven HTTP/2 ends: no socket, a clock that stands.

use super::*;
use crate::config::{App, AppPlace, AppProtocol, IoDriver, SocketPath, Tracing};
use crate::http2::field::judge;
use crate::http2::{Field, FieldSection};
use crate::identity::{AppId, Namespace, Target};
use crate::observe::account::Account;
use crate::observe::cells::Octets;
use crate::observe::span::Span;
use crate::resolve::{Endpoint, Resolution};
use crate::snapshot::{Epoch, Way};
use std::collections::HashMap;
use std::time::Duration;

mod access;
mod app_calls;
mod attempts;
mod baggage;
mod balance;
mod calls;
mod connections;
mod crowds;
mod endings;
mod in_force;
mod keepalive;
mod late_apps;
mod limits;
mod local;
mod lookups;
mod repeated;
mod replays;
mod resiliency;
mod stalled;
mod statuses;
mod traces;
mod undelivered;
mod witness;

/// The sidecar of `client`, whose app listens on 127.0.0.1:50051.
pub(crate) fn config() -> Config {
    Config {
        app_id: AppId::new("client").unwrap(),
        namespace: Namespace::new("default"),
        app: Some(App::at("127.0.0.1", 50051, AppProtocol::Grpc)),
        mtls: false,
        api_token: None,
        app_token: None,
        max_body_size: 4 << 20,
        header_list_size: 64 << 10,
        tracing: Tracing::Passed,
        drain_max: None,
        dapr_listen_addresses: Vec::new(),
        grpc_port: 50001,
        http_port: 3500,
        internal_port: 50002,
        forwards: Vec::new(),
        io: IoDriver::Auto,
        logging: Default::default(),
    }
}

/// As a decoder would have made it.
pub(super) fn section(fields: &[(&str, &str)]) -> FieldSection {
    let mut section = FieldSection::new();
    for (name, value) in fields {
        let (name, value) = (name.as_bytes(), value.as_bytes());
        let (class, flags) = (head::classify(name), judge(name, value));
        section.push_field(Field { name, value, class, flags, sensitive: false });
    }
    section
}

/// One proxy, the `client` sidecar, with hand-driven ends around it.
struct Bench {
    proxy: Proxy,
    now: Instant,
    ends: HashMap<ConnId, Connection>,
    /// What was said to those that have no end here.
    raw: HashMap<ConnId, Vec<u8>>,
    /// What each end saw, as words.
    seen: HashMap<ConnId, Vec<String>>,
    /// What came of each stream's DATA.
    bodies: HashMap<(ConnId, u32), Vec<u8>>,
    dialed: Vec<(ConnId, Way, Security)>,
    resolves: Vec<Target>,
    asked: Vec<ControlRequest>,
    spans: Vec<Span>,
    closed: Vec<ConnId>,
    drained: bool,
    pongs: usize,
    /// By connection, as the proxy read and wrote.
    carried: HashMap<ConnId, Octets>,
    /// The ends give no window back.
    stalled: bool,
    /// Lines for the log, and the last of them.
    lines: usize,
    last_line: String,
    heard: Vec<Account>,
}

const APP: &str = "127.0.0.1:50051";
const REMOTE: &str = "10.0.0.9:50002";

fn endpoint(text: &str) -> Endpoint {
    Endpoint(text.parse().unwrap())
}

impl Bench {
    #[allow(clippy::disallowed_methods)]
    fn new(config: Config) -> Self {
        let app = Some(endpoint(APP).into());
        let snapshot = Snapshot { app, ..Snapshot::new(Arc::new(config)) };
        let now = Instant::now();
        Self {
            proxy: Proxy::new(Arc::new(snapshot), now),
            now,
            ends: HashMap::new(),
            raw: HashMap::new(),
            seen: HashMap::new(),
            bodies: HashMap::new(),
            dialed: Vec::new(),
            resolves: Vec::new(),
            asked: Vec::new(),
            spans: Vec::new(),
            closed: Vec::new(),
            drained: false,
            pongs: 0,
            carried: HashMap::new(),
            stalled: false,
            lines: 0,
            last_line: String::new(),
            heard: Vec::new(),
        }
    }

    fn accept(&mut self, listener: Listener) -> ConnId {
        let conn = self.proxy.accept(Arrival { listener, peer: None, spiffe_id: None }, self.now);
        let h2 = Connection::new(Role::Client, Limits::default(), head::classify, self.now);
        self.ends.insert(conn, h2);
        conn
    }

    fn handle(&mut self, input: Input) {
        self.proxy.handle(input, self.now);
        self.run();
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.handle(Input::Tick);
    }

    /// Moves bytes until nobody has anything to say.
    fn run(&mut self) {
        for _ in 0..1000 {
            let mut moved = false;
            while let Some(output) = self.proxy.poll_output() {
                moved = true;
                self.obey(output);
            }
            let conns: Vec<ConnId> = self.ends.keys().copied().collect();
            for conn in conns {
                moved |= self.pull(conn);
            }
            self.proxy.check_invariants();
            if !moved {
                return;
            }
        }
        panic!("the ends never fall silent");
    }

    fn obey(&mut self, output: Output) {
        match output {
            Output::Dirty(conn) => {
                let mut out = Transmit::new();
                while self.proxy.transmit(conn, &mut out, usize::MAX) {}
                let bytes: Vec<u8> = out.slices().flatten().copied().collect();
                self.carried.entry(conn).or_default().written += bytes.len() as u64;
                match self.ends.get_mut(&conn) {
                    Some(end) => end.recv(bytes.into(), self.now),
                    None => self.raw.entry(conn).or_default().extend(bytes),
                }
                self.note(conn);
            }
            Output::Dial { conn, way, security } => {
                self.dialed.push((conn, way, security));
            }
            Output::Resolve(target) => self.resolves.push(target),
            Output::Close(conn) => self.closed.push(conn),
            Output::Drained => self.drained = true,
            Output::Log(line) => {
                self.lines += 1;
                self.last_line = line.message;
            }
            Output::Heard(account) => self.heard.push(*account),
            Output::Control(request) => self.asked.push(request),
            Output::Spans(spans) => self.spans.extend(spans),
        }
    }

    fn pull(&mut self, conn: ConnId) -> bool {
        let Some(end) = self.ends.get_mut(&conn) else { return false };
        let mut out = Transmit::new();
        end.poll_transmit(&mut out, 1 << 18);
        if out.is_empty() {
            return false;
        }
        let bytes: Vec<u8> = out.slices().flatten().copied().collect();
        self.carried.entry(conn).or_default().read += bytes.len() as u64;
        self.proxy.handle(Input::Received { conn, bytes: bytes.into() }, self.now);
        true
    }

    fn note(&mut self, conn: ConnId) {
        let Some(end) = self.ends.get_mut(&conn) else { return };
        let seen = self.seen.entry(conn).or_default();
        while let Some(event) = end.poll_event() {
            match event {
                Event::Headers { stream, fields, end_stream, .. } => {
                    let text: Vec<String> = fields
                        .iter()
                        .map(|f| {
                            let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
                            format!("{}={}", text(f.name), text(f.value))
                        })
                        .collect();
                    let end = if end_stream { " END" } else { "" };
                    seen.push(format!("{} HEADERS {}{end}", stream.0, text.join(" ")));
                }
                Event::Data { stream, data, end_stream, .. } => {
                    if !self.stalled {
                        end.release(stream, data.len() as u32);
                    }
                    self.bodies.entry((conn, stream.0)).or_default().extend_from_slice(&data);
                    let end = if end_stream { " END" } else { "" };
                    seen.push(format!("{} DATA {}{end}", stream.0, data.len()));
                }
                Event::Reset { stream, code, .. } => {
                    seen.push(format!("{} RESET {}", stream.0, code.name()));
                }
                Event::Goaway { last, code, .. } => {
                    seen.push(format!("GOAWAY {} {}", last.0, code.name()));
                }
                Event::StreamFailed { stream, error, .. } => {
                    seen.push(format!("{} BROKEN {}", stream.0, error.reason));
                }
                Event::Refused { stream, .. } => seen.push(format!("{} REFUSED", stream.0)),
                Event::Pong { .. } => self.pongs += 1,
                Event::Settings => {}
                Event::Limited(limit) => seen.push(format!("LIMITED {}", limit.name())),
                Event::Failed(error) => seen.push(format!("FAILED {}", error.reason)),
            }
        }
    }

    fn dial_done(&mut self) -> ConnId {
        self.dial_done_with(Limits::default())
    }

    fn dial_done_with(&mut self, limits: Limits) -> ConnId {
        let (conn, ..) = *self.dialed.last().expect("a dial");
        let h2 = Connection::new(Role::Server, limits, head::classify, self.now);
        self.ends.insert(conn, h2);
        self.handle(Input::Dialed { conn });
        conn
    }

    fn call(&mut self, conn: ConnId, more: &[(&str, &str)], body: Option<&[u8]>) -> StreamId {
        let stream = self.call_quietly(conn, more);
        if let Some(body) = body {
            let end = self.ends.get_mut(&conn).unwrap();
            end.send_data(stream, Bytes::copy_from_slice(body), true);
        }
        self.run();
        stream
    }

    /// A head, without looking what comes of it.
    fn call_quietly(&mut self, conn: ConnId, more: &[(&str, &str)]) -> StreamId {
        let mut fields = FieldSection::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/a.B/C"),
            (":authority", "x"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ] {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        for (name, value) in more {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        let end = self.ends.get_mut(&conn).unwrap();
        end.open(fields, false, 0).unwrap()
    }

    /// Many calls, told to the proxy at once; the fields come after those of `call`.
    fn calls(&mut self, conn: ConnId, more: &[(&str, &str)], count: usize) {
        let mut fields = FieldSection::new();
        let fixed = [(":method", "POST"), (":scheme", "http"), (":path", "/a.B/C")];
        let grpc = [("content-type", "application/grpc"), ("dapr-callee-app-id", "client")];
        for (name, value) in fixed.iter().chain(&grpc).chain(more) {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        for _ in 0..count {
            let end = self.ends.get_mut(&conn).unwrap();
            if end.can_open() == 0 {
                self.run();
            }
            self.ends.get_mut(&conn).unwrap().open(fields.clone(), false, 0).unwrap();
        }
        self.run();
    }

    fn count(&self, conn: ConnId, text: &str) -> usize {
        self.seen.get(&conn).map_or(0, |seen| seen.iter().filter(|s| s.contains(text)).count())
    }

    fn answer(&mut self, conn: ConnId, stream: u32, body: &[u8]) {
        let end = self.ends.get_mut(&conn).unwrap();
        let mut fields = FieldSection::new();
        fields.push(b":status", b"200");
        fields.push(b"content-type", b"application/grpc+proto");
        end.send_headers(StreamId(stream), fields, false);
        end.send_data(StreamId(stream), Bytes::copy_from_slice(body), false);
        let mut fields = FieldSection::new();
        fields.push(b"grpc-status", b"0");
        end.send_headers(StreamId(stream), fields, true);
        self.run();
    }

    /// A response head or trailers.
    fn say(&mut self, conn: ConnId, stream: u32, fields: &[(&str, &str)], end_stream: bool) {
        let mut section = FieldSection::new();
        fields.iter().for_each(|(name, value)| section.push(name.as_bytes(), value.as_bytes()));
        let end = self.ends.get_mut(&conn).unwrap();
        end.send_headers(StreamId(stream), section, end_stream);
        self.run();
    }

    fn reset(&mut self, conn: ConnId, stream: u32, code: u32) {
        let end = self.ends.get_mut(&conn).unwrap();
        end.send_reset(StreamId(stream), crate::http2::ErrorCode(code));
        self.run();
    }

    fn send(&mut self, conn: ConnId, stream: StreamId, data: &[u8], end_stream: bool) {
        let end = self.ends.get_mut(&conn).unwrap();
        end.send_data(stream, Bytes::copy_from_slice(data), end_stream);
        self.run();
    }

    fn last(&self, conn: ConnId) -> &str {
        self.seen.get(&conn).and_then(|seen| seen.last()).map_or("", String::as_str)
    }

    fn resolve(&mut self) {
        let target = self.resolves.last().expect("a resolve").clone();
        let result = Ok([endpoint(REMOTE)].into());
        self.handle(Input::Resolved(Resolution { target, result }));
    }
}

/// What the proxy has counted since the last time.
fn counted(bench: &mut Bench) -> Cells {
    let mut cells = Cells::default();
    cells.add(&bench.proxy.hand_over_cells());
    cells
}

const MESSAGE: &[u8] = &[0, 0, 0, 0, 2, b'h', b'i'];
