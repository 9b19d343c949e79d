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
mod endings;
mod in_force;
mod keepalive;
mod late_apps;
mod limits;
mod local;
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

#[test]
fn a_call_to_another_app_goes_out_and_comes_back() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &[("dapr-app-id", "server.prod")], Some(MESSAGE));
    assert_eq!(bench.resolves[0].to_string(), "server.prod");
    bench.resolve();
    assert_eq!(bench.dialed[0].1, endpoint(REMOTE).into());
    assert_eq!(bench.dialed[0].2, Security::Plaintext);
    let callee = bench.dial_done();
    let seen = bench.seen[&callee].join("\n");
    assert!(seen.contains(":authority=10.0.0.9:50002"), "{seen}");
    assert!(seen.contains("dapr-callee-app-id=server"), "{seen}");
    assert!(!seen.contains("dapr-app-id=server.prod"), "{seen}");
    assert!(seen.ends_with("DATA 7 END"), "{seen}");
    bench.answer(callee, 1, MESSAGE);
    let seen = &bench.seen[&caller];
    assert_eq!(seen[0], "1 HEADERS :status=200 content-type=application/grpc");
    assert_eq!(seen[1..], ["1 DATA 7", "1 HEADERS grpc-status=0 END"]);
    assert_eq!(bench.proxy.calls(), 0);
    // The second call finds the connection.
    bench.call(caller, &[("dapr-app-id", "server.prod")], Some(MESSAGE));
    assert_eq!((bench.dialed.len(), bench.resolves.len()), (1, 1));
}

#[test]
fn namespaces_do_not_share_connections() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &[("dapr-app-id", "server.one")], Some(MESSAGE));
    bench.resolve();
    bench.dial_done();
    bench.call(caller, &[("dapr-app-id", "server.two")], Some(MESSAGE));
    bench.resolve();
    assert_eq!(bench.dialed.len(), 2);
}

#[test]
fn an_app_that_is_down_is_unavailable_at_once() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &[("dapr-callee-app-id", "client")], Some(MESSAGE));
    let (conn, at, _) = bench.dialed[0].clone();
    assert_eq!(at, endpoint(APP).into());
    let error = "connection error: desc = \"transport: Error while dialing\"".to_owned();
    bench.handle(Input::DialFailed { conn, error });
    let last = bench.last(caller);
    assert!(last.contains("grpc-status=14") && last.contains("Error while dialing"), "{last}");
    assert!(last.ends_with("END"));
}

/// It is dialled by its path, called as grpc-go calls such an app, and blamed by its path.
#[test]
fn an_app_may_be_on_a_socket() {
    let path = SocketPath::parse("/run/app.sock").unwrap();
    let app = App { place: AppPlace::Socket(path.clone()), protocol: AppProtocol::Grpc };
    let config = Arc::new(Config { app: Some(app), ..config() });
    let mut bench = Bench::new(Config::clone(&config));
    let way = Way::Unix(path);
    let told = Snapshot { epoch: Epoch(2), app: Some(way.clone()), ..Snapshot::new(config) };
    bench.handle(Input::Snapshot(Arc::new(told)));
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &[("dapr-callee-app-id", "client")], Some(MESSAGE));
    assert_eq!(bench.dialed[0].1, way);
    let callee = bench.dial_done();
    assert!(bench.seen[&callee].join("\n").contains(":authority=localhost"));
    bench.handle(Input::Closed { conn: callee, reason: CloseReason::Eof });
    let last = bench.last(caller);
    assert!(last.contains("(the app at /run/app.sock, seen by the sidecar of client)"), "{last}");
}

#[test]
fn an_unknown_app_leaves_nothing_behind() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &[("dapr-app-id", "nope")], Some(MESSAGE));
    let target = bench.resolves[0].clone();
    let result = Err("couldn't find service: nope".into());
    bench.handle(Input::Resolved(Resolution { target, result }));
    let last = bench.last(caller);
    assert!(last.contains("grpc-status=2"), "{last}");
    assert!(last.contains("grpc-message=couldn't find service: nope"), "{last}");
    bench.call(caller, &[("dapr-app-id", "nope")], Some(MESSAGE));
    assert_eq!(bench.resolves.len(), 2, "asked anew");
}

#[test]
fn a_deadline_ends_a_call_on_both_legs() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &[("dapr-callee-app-id", "client"), ("grpc-timeout", "50m")], None);
    let app = bench.dial_done();
    bench.wait(Duration::from_millis(50));
    let seen = bench.seen[&caller].join("\n");
    assert!(seen.contains("grpc-status=4 grpc-message=context deadline exceeded END"), "{seen}");
    assert!(seen.ends_with("RESET NO_ERROR"), "{seen}");
    assert_eq!(bench.last(app), "1 RESET CANCEL");
}

/// The app's side may reset at the deadline before our own timer has rung.
#[test]
fn a_cancel_past_the_deadline_is_the_deadline() {
    for (passed, status) in [(10, "grpc-status=1 "), (50, "grpc-status=4 ")] {
        let mut bench = Bench::new(config());
        let caller = bench.accept(Listener::Internal);
        bench.call(caller, &[("dapr-callee-app-id", "client"), ("grpc-timeout", "50m")], None);
        let app = bench.dial_done();
        bench.now += Duration::from_millis(passed);
        let end = bench.ends.get_mut(&app).unwrap();
        end.send_reset(StreamId(1), crate::http2::ErrorCode::CANCEL);
        bench.run();
        let seen = bench.seen[&caller].join("\n");
        assert!(seen.contains(status), "{seen}");
    }
}

#[test]
fn a_callers_reset_reaches_the_app() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    let stream = bench.call(caller, &[("dapr-callee-app-id", "client")], None);
    let app = bench.dial_done();
    bench.ends.get_mut(&caller).unwrap().send_reset(stream, crate::http2::ErrorCode::CANCEL);
    bench.run();
    assert_eq!(bench.last(app), "1 RESET CANCEL");
    assert_eq!(bench.proxy.calls(), 0);
}

#[test]
fn a_message_over_the_limit_is_refused_in_both_directions() {
    let mut bench = Bench::new(Config { max_body_size: 4, ..config() });
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &[("dapr-callee-app-id", "client")], Some(&[0, 0, 0, 0, 5, 1, 2, 3, 4, 5]));
    let text = "grpc-status=8 grpc-message=grpc: received message larger than max (5 vs. 4)";
    assert!(bench.last(caller).contains(text), "{}", bench.last(caller));
    bench.call(caller, &[("dapr-callee-app-id", "client")], Some(MESSAGE));
    let app = bench.dial_done();
    bench.answer(app, 1, &[0, 0, 0, 0, 5, 1, 2, 3, 4, 5]);
    let seen = bench.seen[&caller].join("\n");
    assert!(seen.contains("grpc-message=grpc: received message larger than max"), "{seen}");
}

#[test]
fn a_drain_finishes_calls_and_says_goodbye_twice() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &[("dapr-callee-app-id", "client")], Some(MESSAGE));
    let app = bench.dial_done();
    bench.handle(Input::Drain);
    let seen = bench.seen[&caller].join("\n");
    assert!(seen.contains("GOAWAY 2147483647 NO_ERROR\nGOAWAY 1 NO_ERROR"), "{seen}");
    assert!(!bench.drained);
    bench.answer(app, 1, MESSAGE);
    assert!(bench.drained);
    assert!(bench.last(caller).ends_with("grpc-status=0 END"));
    assert_eq!(bench.closed.len(), 2);
}

#[test]
fn an_upstream_that_dies_fails_its_calls_and_only_those() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &[("dapr-callee-app-id", "client")], Some(MESSAGE));
    let app = bench.dial_done();
    bench.ends.remove(&app);
    bench.handle(Input::Closed { conn: app, reason: CloseReason::Eof });
    let last = bench.last(caller);
    assert!(last.contains("grpc-status=14") && last.contains("reading from server: EOF"), "{last}");
    bench.call(caller, &[("dapr-callee-app-id", "client")], Some(MESSAGE));
    let app = bench.dial_done();
    bench.answer(app, 1, MESSAGE);
    assert!(bench.last(caller).ends_with("grpc-status=0 END"));
}

#[test]
fn a_peer_that_hangs_up_before_its_preface_is_named_so() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &[("dapr-callee-app-id", "client")], Some(MESSAGE));
    let (conn, ..) = bench.dialed[0];
    bench.handle(Input::Dialed { conn });
    bench.handle(Input::Closed { conn, reason: CloseReason::Eof });
    let last = bench.last(caller);
    assert!(last.contains("error reading server preface: EOF"), "{last}");
}

#[test]
fn silence_is_answered_with_a_ping_and_then_the_door() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    bench.run();
    bench.wait(peer::KEEPALIVE_INTERVAL);
    assert!(bench.closed.is_empty(), "the PING was answered");
    bench.ends.remove(&caller);
    bench.wait(peer::KEEPALIVE_INTERVAL);
    bench.wait(peer::KEEPALIVE_TIMEOUT);
    assert_eq!(bench.closed, [caller]);
    let line = "Gave up the connection with unix socket: keepalive ping failed to receive ACK \
                within timeout";
    assert_eq!((bench.lines, bench.last_line.as_str()), (1, line));
}

/// A storm of them is told of in a few lines.
#[test]
fn silent_peers_in_great_number_are_told_of_in_few_lines() {
    let mut bench = Bench::new(config());
    let callers: Vec<_> = (0..100).map(|_| bench.accept(Listener::Api)).collect();
    bench.run();
    bench.ends.clear();
    bench.wait(peer::KEEPALIVE_INTERVAL);
    bench.wait(peer::KEEPALIVE_TIMEOUT);
    assert_eq!((bench.closed.len(), bench.lines), (callers.len(), 20));
}

/// The farewell of an idle connection waits for an answer; meanwhile its idle time stays over.
#[test]
fn an_idle_connection_is_told_once_and_the_tick_ends() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &[("dapr-app-id", "server")], Some(MESSAGE));
    bench.resolve();
    let callee = bench.dial_done();
    bench.answer(callee, 1, MESSAGE);
    // All at once: nobody answers between the PING and the idle time.
    bench.wait(peer::IDLE_TIMEOUT);
    assert_eq!(bench.closed.len(), 2);
    assert!(bench.seen[&callee].iter().any(|seen| seen.starts_with("GOAWAY 0")));
}

/// Resets toward an app are paced, so a place may become free long after its call has ended.
#[test]
fn a_place_that_becomes_free_late_goes_to_who_waits() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    let to_app = [("dapr-callee-app-id", "client")];
    let first = bench.call(caller, &to_app, None);
    let app =
        bench.dial_done_with(Limits { max_concurrent_streams: Some(20), ..Limits::default() });
    let mut streams = vec![first];
    streams.extend((1..20).map(|_| bench.call(caller, &to_app, None)));
    // The app has accepted them all, so that only the pace of resets counts.
    bench.say(app, 39, &[(":status", "200"), ("content-type", "application/grpc")], false);
    for stream in streams {
        let end = bench.ends.get_mut(&caller).unwrap();
        end.send_reset(stream, crate::http2::ErrorCode::CANCEL);
    }
    bench.run();
    let opened = |bench: &Bench| {
        let seen = bench.seen[&app].iter();
        seen.filter(|seen| seen.contains("HEADERS")).count()
    };
    for _ in 0..17 {
        bench.call(caller, &to_app, None);
    }
    assert_eq!((opened(&bench), bench.dialed.len()), (20 + 16, 2), "the last one waits");
    bench.wait(Duration::from_millis(50));
    assert_eq!(opened(&bench), 20 + 17);
}

/// The peer has its time for the preface from when it is connected, however long that took.
#[test]
fn a_slow_dial_leaves_time_for_the_preface() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &[("dapr-callee-app-id", "client")], Some(MESSAGE));
    bench.wait(Duration::from_secs(12));
    let (conn, ..) = bench.dialed[0];
    bench.handle(Input::Dialed { conn });
    bench.wait(Duration::from_millis(1));
    assert!(bench.closed.is_empty() && bench.proxy.calls() == 1);
}

/// Thousands wait for a connection that comes when their deadlines are over: each is told, one
/// after the other and not one inside the other (the stack has an end).
#[test]
fn a_crowd_that_waited_too_long_is_told() {
    const CROWD: usize = 10_000;
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.run();
    let mut fields = FieldSection::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/a.B/C"),
        ("content-type", "application/grpc"),
        ("dapr-callee-app-id", "client"),
        ("grpc-timeout", "1S"),
    ] {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    let end = bench.ends.get_mut(&caller).unwrap();
    for _ in 0..CROWD {
        end.open(fields.clone(), true, 0).unwrap();
    }
    bench.run();
    assert_eq!(bench.proxy.calls(), CROWD);
    bench.now += Duration::from_secs(2);
    bench.dial_done();
    assert_eq!(bench.proxy.calls(), 0);
    let told = |seen: &&String| seen.contains("grpc-status=4");
    assert_eq!(bench.seen[&caller].iter().filter(told).count(), CROWD);
}

#[test]
fn a_field_section_within_the_limit_fits_in_its_frames() {
    let limits = limits(&Config { header_list_size: 1 << 20, ..config() }, End::Caller);
    assert!(limits.continuations_max * limits.max_frame_size > limits.header_list_size);
    assert_eq!(super::limits(&config(), End::Caller).continuations_max, 8);
}

#[test]
fn a_ping_is_answered_without_company() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    bench.run();
    bench.ends.get_mut(&caller).unwrap().ping(*b"question");
    bench.run();
    assert_eq!(bench.pongs, 0, "it waits for company");
    let due = bench.proxy.poll_timeout().expect("a reminder");
    assert_eq!(due, bench.now + 3 * PING_ACK_DELAY);
    bench.wait(3 * PING_ACK_DELAY);
    assert_eq!(bench.pongs, 1);
}

/// More calls than a stack has room for, if one ended inside the other.
const MANY: usize = 3000;

#[test]
fn calls_of_an_app_that_dies_while_resets_wait_end_one_by_one() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.calls(caller, &[], MANY);
    let app = bench.dial_done();
    assert_eq!(bench.count(app, "HEADERS"), MANY);
    for index in 0..100 {
        let end = bench.ends.get_mut(&caller).unwrap();
        end.send_reset(StreamId(1 + 2 * index), crate::http2::ErrorCode::CANCEL);
    }
    bench.run();
    assert!(bench.count(app, "RESET") < 100, "resets are paced");
    bench.handle(Input::Closed { conn: app, reason: CloseReason::Eof });
    assert_eq!(bench.count(caller, "grpc-status=14"), MANY - 100);
    assert_eq!((bench.proxy.calls(), bench.closed.as_slice()), (0, &[app][..]));
}

#[test]
fn targets_that_nobody_uses_make_way() {
    let mut pools = Pools::new();
    let own = Namespace::new("default");
    for index in 0..10_000 {
        assert!(pools.remote(&format!("server.made-up-{index}"), &own).is_ok());
    }
    pools.check_invariants(|_| true);
}

#[test]
fn heads_of_those_who_wait_take_bounded_memory() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    let value = "v".repeat(60 << 10);
    let fit = pool::PARKED_OCTETS_MAX / value.len();
    bench.calls(caller, &[("large", &value)], fit + 20);
    let refused = bench.count(caller, "grpc-status=8");
    assert!(refused >= 20 && bench.proxy.calls() > fit / 3, "{refused} refused");
    let (conn, ..) = bench.dialed[0];
    bench.handle(Input::DialFailed { conn, error: "nobody there".to_owned() });
    assert_eq!((bench.proxy.calls(), bench.proxy.parked_octets), (0, 0));
}

#[test]
fn a_lookup_that_is_never_answered_ends() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &[("dapr-app-id", "lost")], Some(MESSAGE));
    assert_eq!(bench.resolves.len(), 1);
    bench.wait(lookup::LOOKUP_TIMEOUT);
    let last = bench.last(caller);
    assert!(last.contains("timeout waiting for address for app id lost"), "{last}");
    bench.call(caller, &[("dapr-app-id", "lost")], Some(MESSAGE));
    let target = bench.resolves[1].clone();
    bench.handle(Input::Resolved(Resolution { target, result: Ok([].into()) }));
    let last = bench.last(caller);
    assert!(last.contains("resolver returned empty address for app id default/lost"), "{last}");
}

/// The first answer comes when it was given up and asked for again; both are answers.
#[test]
fn a_lookup_that_is_answered_late_is_not_asked_a_third_time() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &[("dapr-app-id", "server")], Some(MESSAGE));
    bench.wait(lookup::LOOKUP_TIMEOUT);
    bench.call(caller, &[("dapr-app-id", "server")], Some(MESSAGE));
    assert_eq!(bench.resolves.len(), 2);
    bench.resolve();
    bench.resolve();
    let (conn, ..) = bench.dialed[0];
    bench.handle(Input::DialFailed { conn, error: "nobody there".to_owned() });
    assert_eq!((bench.resolves.len(), bench.proxy.calls()), (2, 0));
    assert!(bench.last(caller).contains("grpc-status=14"), "{}", bench.last(caller));
    // Who comes later has endpoints that may be old by then, and they are asked for anew.
    bench.call(caller, &[("dapr-app-id", "server")], Some(MESSAGE));
    assert_eq!(bench.resolves.len(), 3);
}

/// What nobody waited for is no fresher for the next one who comes.
#[test]
fn endpoints_that_came_unasked_are_asked_for_when_they_fail() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    let stream = bench.call(caller, &[("dapr-app-id", "server")], None);
    bench.reset(caller, stream.0, crate::http2::ErrorCode::CANCEL.0);
    bench.resolve();
    bench.call(caller, &[("dapr-app-id", "server")], Some(MESSAGE));
    let (conn, ..) = bench.dialed[0];
    bench.handle(Input::DialFailed { conn, error: "nobody there".to_owned() });
    assert_eq!((bench.resolves.len(), bench.proxy.calls()), (2, 1));
}

#[test]
fn calls_that_wait_share_one_lookup_and_one_dial() {
    const CALLS: usize = 50;
    let mut bench = Bench::new(config());
    let callers = [bench.accept(Listener::Api), bench.accept(Listener::Api)];
    for n in 0..CALLS {
        bench.call(callers[n % 2], &[("dapr-app-id", "server")], Some(MESSAGE));
    }
    assert_eq!((bench.resolves.len(), bench.dialed.len()), (1, 0));
    bench.resolve();
    bench.call(callers[0], &[("dapr-app-id", "server")], Some(MESSAGE));
    assert_eq!((bench.resolves.len(), bench.dialed.len()), (1, 1));
    let callee = bench.dial_done();
    assert_eq!((bench.resolves.len(), bench.dialed.len()), (1, 1));
    let opened = bench.seen[&callee].iter().filter(|seen| seen.contains("HEADERS")).count();
    assert_eq!(opened, CALLS + 1);
    for n in 0..=CALLS {
        bench.answer(callee, u32::try_from(2 * n + 1).unwrap(), MESSAGE);
    }
    let done =
        |conn| bench.seen[conn].iter().filter(|seen| seen.ends_with("grpc-status=0 END")).count();
    assert_eq!(callers.iter().map(done).sum::<usize>(), CALLS + 1);
}

/// A caller that may open more than we take still knows better (docs/adr/0004).
#[test]
fn the_limit_of_streams_is_announced() {
    let mut bench = Bench::new(config());
    for listener in [Listener::Api, Listener::Internal, Listener::Forward(0)] {
        let caller = bench.accept(listener);
        let any = Limits { streams_max: u32::MAX, ..Limits::default() };
        let greedy = Connection::new(Role::Client, any, head::classify, bench.now);
        bench.ends.insert(caller, greedy);
        bench.run();
        assert_eq!(bench.ends[&caller].can_open(), 16_384);
    }
}
