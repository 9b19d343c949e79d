//! A whole sidecar without its sockets: callers, apps and other sidecars that say anything, frames
//! that make sense among octets that do not, dials and lookups that succeed or fail, snapshots,
//! time, drain, ends at any moment. What must hold: no panic, the invariants after each step, that
//! what is said on each connection is HTTP/2, and that no call is left when all are gone.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringside::config::{App, AppProtocol, Config, Forward, IoDriver, Tracing};
use ringside::identity::{AppId, Namespace, Target};
use ringside::proxy::{
    Arrival, CloseReason, ConnId, Endpoint, Input, Listener, Output, Proxy, Resolution, Transmit,
};
use ringside::snapshot::{Epoch, Snapshot};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;

/// What requests carry beside what every call does.
const REQUESTS: [&[(&str, &str)]; 8] = [
    &[("dapr-app-id", "server")],
    &[("dapr-app-id", "client")],
    &[("dapr-callee-app-id", "client"), ("grpc-timeout", "20m")],
    &[("dapr-app-id", "other.prod"), ("dapr-stream", "true"), ("grpc-timeout", "1S")],
    &[("dapr-app-id", "a.b.c")],
    &[],
    &[("dapr-app-id", "server"), ("dapr-api-token", "token"), ("traceparent", "00-1-2-01")],
    &[("dapr-callee-app-id", "server"), ("x-bin", "AAEC"), ("x-bin", "AwQ"), ("te", "trailers")],
];

const ANSWERS: [&[(&str, &str)]; 8] = [
    &[(":status", "200"), ("content-type", "application/grpc")],
    &[(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "5")],
    &[("grpc-status", "0")],
    &[("grpc-status", "13"), ("grpc-message", "no"), ("grpc-status-details-bin", "CAU")],
    &[(":status", "103")],
    &[(":status", "503"), ("content-type", "text/html")],
    &[("x-no", "status")],
    &[(":status", "200"), ("content-type", "application/grpc"), ("content-length", "3")],
];

/// The beginnings of gRPC messages: empty, short, larger than allowed, of a flag nobody knows.
const MESSAGES: [&[u8]; 6] = [
    &[0, 0, 0, 0, 0],
    &[0, 0, 0, 0, 2, b'h', b'i'],
    &[0, 0, 0, 1, 0],
    &[1, 0, 1, 0, 0, 9],
    &[7, 0, 0, 0, 1, 1],
    &[0, 0, 0],
];

/// Past this an answer is taken for lost.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

const TEXTS: [&str; 3] = ["a.B", "connection refused", "EOF"];

struct Stream<'a>(&'a [u8]);

impl<'a> Stream<'a> {
    fn octet(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn octets(&mut self, len: u8) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(usize::from(len).min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// What was said on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Head,
    End,
}

/// What the proxy says on a connection, read plainly (RFC 9113 §3.4, §4.1, §5.1, §8.1).
#[derive(Default)]
struct Grammar {
    client: bool,
    greeted: bool,
    begun: bool,
    octets: Vec<u8>,
    /// The stream whose field block goes on.
    block: Option<u32>,
    streams: HashMap<u32, Said>,
}

impl Grammar {
    fn hear(&mut self, out: &Transmit) {
        self.octets.extend(out.slices().flatten());
        let octets = std::mem::take(&mut self.octets);
        let mut rest = &octets[..];
        if self.client && !self.greeted {
            let len = rest.len().min(PREFACE.len());
            assert_eq!(rest[..len], PREFACE[..len], "a client's first words");
            self.greeted = len == PREFACE.len();
            rest = if self.greeted { &rest[len..] } else { rest };
        }
        // What is cut in the middle of a frame goes on with the next piece.
        while let Some((head, after)) = rest.split_at_checked(9)
            && (self.greeted || !self.client)
        {
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let Some(next) = after.get(len..) else { break };
            self.frame(head[3], head[4], stream);
            rest = next;
        }
        self.octets = rest.to_vec();
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32) {
        assert!(self.begun || (kind == SETTINGS && flags == 0), "SETTINGS come first");
        self.begun = true;
        assert_eq!(self.block.is_some(), kind == 9, "a field block is not interrupted");
        let said = self.streams.get(&stream).copied();
        let end = flags & 1 != 0;
        match kind {
            0 | 1 => {
                assert_eq!(stream % 2, 1);
                match (kind, said) {
                    (1, None) | (0, Some(Said::Head)) => {}
                    (1, Some(Said::Head)) => assert!(end, "trailers end their stream"),
                    _ => panic!("frame {kind} on stream {stream} after {said:?}"),
                }
                self.streams.insert(stream, if end { Said::End } else { Said::Head });
                self.block = (kind == 1 && flags & 4 == 0).then_some(stream);
            }
            3 => drop(self.streams.insert(stream, Said::End)),
            4 | 6 | 7 => assert_eq!(stream, 0),
            8 => {}
            9 => {
                assert_eq!(self.block, Some(stream));
                self.block = self.block.filter(|_| flags & 4 == 0);
            }
            _ => panic!("a frame of type {kind}"),
        }
    }
}

struct Bench {
    proxy: Proxy,
    now: Instant,
    config: Config,
    epoch: u64,
    conns: Vec<ConnId>,
    said: HashMap<ConnId, Grammar>,
    dialing: Vec<ConnId>,
    resolving: Vec<Target>,
    /// Since when the proxy waits for an answer.
    asked: HashMap<Target, Instant>,
    dirty: Vec<ConnId>,
}

fn config() -> Config {
    Config {
        app_id: AppId::new("client").expect("a good one"),
        namespace: Namespace::new("default"),
        app: Some(App::at("127.0.0.1", 50051, AppProtocol::Grpc)),
        mtls: false,
        api_token: None,
        app_token: Some("app-token".into()),
        max_body_size: 200,
        header_list_size: 2000,
        tracing: Tracing::Sampled { rate: 0.5, exported: true },
        drain_max: Some(Duration::from_secs(5)),
        dapr_listen_addresses: Vec::new(),
        grpc_port: 50001,
        http_port: 3500,
        internal_port: 50002,
        forwards: vec![Forward { port: 50003, app_id: "server".into() }],
        io: IoDriver::Auto,
        logging: Default::default(),
    }
}

fn endpoint(number: u8) -> Endpoint {
    Endpoint(([10, 0, 0, number & 3], 50002).into())
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Literals without indexing (RFC 7541 §6.2.2): nothing depends on what came before.
fn block(out: &mut Vec<u8>, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        for (text, lead) in [(name, &[0][..]), (value, &[])] {
            out.extend_from_slice(lead);
            out.push(text.len() as u8); // below 127, all of them
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// Streams that a client may open, mostly.
fn stream(control: u8) -> u32 {
    let number = u32::from(control & 15);
    if control & 0xe0 == 0xe0 { number } else { number * 2 + 1 }
}

impl Bench {
    fn new() -> Self {
        #[allow(clippy::disallowed_methods)] // an arbitrary instant to count from
        let now = Instant::now();
        let config = config();
        Self {
            proxy: Proxy::new(Arc::new(snapshot(&config, 1, 1)), now),
            now,
            config,
            epoch: 1,
            conns: Vec::new(),
            said: HashMap::new(),
            dialing: Vec::new(),
            resolving: Vec::new(),
            asked: HashMap::new(),
            dirty: Vec::new(),
        }
    }

    fn conn(&self, control: u8) -> Option<ConnId> {
        let count = self.conns.len().max(1);
        self.conns.get(usize::from(control) % count).copied()
    }

    fn receive(&mut self, conn: ConnId, octets: Vec<u8>) {
        self.proxy.handle(Input::Received { conn, bytes: octets.into() }, self.now);
        self.obey();
    }

    fn accept(&mut self, control: u8) {
        let listener = match control & 3 {
            0 | 1 => Listener::Api,
            2 => Listener::Internal,
            _ => Listener::Forward(usize::from(control >> 7)),
        };
        let conn = self.proxy.accept(Arrival { listener, peer: None, spiffe_id: None }, self.now);
        self.conns.push(conn);
        self.said.insert(conn, Grammar::default());
        if control & 4 == 0 {
            let settings = [&0x3_u16.to_be_bytes()[..], &u32::MAX.to_be_bytes()].concat();
            let hello = frame(SETTINGS, 0, 0, if control & 8 == 0 { &[] } else { &settings });
            self.receive(conn, [PREFACE, &hello, &frame(SETTINGS, 1, 0, &[])].concat());
        }
    }

    /// HEADERS from a caller.
    fn request(&mut self, control: u8, argument: u8, shape: u8) {
        let Some(conn) = self.conn(control) else { return };
        let mut payload = vec![0x83, 0x86]; // POST, http
        block(&mut payload, &[(":path", if shape & 0x80 == 0 { "/a.B/C" } else { "/a.B/D" })]);
        block(&mut payload, &[("content-type", "application/grpc")]);
        block(&mut payload, REQUESTS[usize::from(shape & 7)]);
        self.receive(conn, frame(HEADERS, 4 | (shape >> 6 & 1), stream(argument), &payload));
    }

    /// HEADERS from an app or another sidecar.
    fn answer(&mut self, control: u8, argument: u8, shape: u8) {
        let Some(conn) = self.conn(control) else { return };
        let mut payload = Vec::new();
        block(&mut payload, ANSWERS[usize::from(shape & 7)]);
        self.receive(conn, frame(HEADERS, 4 | (shape >> 6 & 1), stream(argument), &payload));
    }

    fn data(&mut self, control: u8, argument: u8, shape: u8) {
        let Some(conn) = self.conn(control) else { return };
        let message = MESSAGES[usize::from(shape & 15) % MESSAGES.len()];
        let payload = message.repeat(usize::from(shape >> 5) + 1);
        self.receive(conn, frame(0, shape >> 4 & 1, stream(argument), &payload));
    }

    fn dialed(&mut self, control: u8) {
        if self.dialing.is_empty() {
            return;
        }
        let conn = self.dialing.remove(usize::from(control) % self.dialing.len());
        if control & 0xc0 == 0xc0 {
            let error = TEXTS[usize::from(control & 1)].to_owned();
            self.proxy.handle(Input::DialFailed { conn, error }, self.now);
        } else {
            self.proxy.handle(Input::Dialed { conn }, self.now);
            self.conns.push(conn);
            self.said.insert(conn, Grammar { client: true, ..Grammar::default() });
            if control & 0x20 == 0 {
                let one = [&0x3_u16.to_be_bytes()[..], &1_u32.to_be_bytes()].concat();
                let few = if control & 0x10 == 0 { &[] } else { &one[..] };
                let hello = [frame(SETTINGS, 0, 0, few), frame(SETTINGS, 1, 0, &[])].concat();
                self.receive(conn, hello);
            }
        }
    }

    fn resolved(&mut self, control: u8) {
        if self.resolving.is_empty() {
            return;
        }
        let at = usize::from(control) % self.resolving.len();
        let target = self.resolving.remove(at);
        // An answer that comes late is one to whatever was asked since.
        self.asked.retain(|other, _| *other != target);
        let result = match control >> 5 {
            7 => Err(TEXTS[0].into()),
            6 => Ok([].into()),
            5 => Ok([endpoint(0), endpoint(1), endpoint(2)].into()),
            _ => Ok([endpoint(control)].into()),
        };
        self.proxy.handle(Input::Resolved(Resolution { target, result }), self.now);
    }

    fn close(&mut self, control: u8) {
        if let Some(conn) = self.conn(control) {
            let reason = match control & 0x80 {
                0 => CloseReason::Eof,
                _ => CloseReason::Error(TEXTS[2]),
            };
            self.gone(conn);
            self.proxy.handle(Input::Closed { conn, reason }, self.now);
        }
    }

    fn gone(&mut self, conn: ConnId) {
        for list in [&mut self.conns, &mut self.dialing, &mut self.dirty] {
            list.retain(|other| *other != conn);
        }
    }

    fn transmit(&mut self, control: u8, octets_max: usize) {
        let Some(conn) = self.dirty.get(usize::from(control)).copied() else { return };
        let mut out = Transmit::new();
        let more = self.proxy.transmit(conn, &mut out, octets_max);
        assert_eq!(out.slices().map(<[u8]>::len).sum::<usize>(), out.len);
        if let Some(said) = self.said.get_mut(&conn).filter(|_| !out.is_empty()) {
            said.hear(&out);
        }
        if !more {
            self.dirty.retain(|other| *other != conn);
        }
        self.obey();
    }

    fn wait(&mut self, control: u8) {
        self.now += Duration::from_millis(match control >> 6 {
            0 | 1 => u64::from(control),
            2 => u64::from(control) * 50,
            _ => u64::from(control) * 1000,
        });
        if self.proxy.poll_timeout().is_some_and(|at| at <= self.now) {
            self.proxy.handle(Input::Tick, self.now);
        }
    }

    fn publish(&mut self, control: u8) {
        self.epoch += u64::from(control & 1);
        self.config.api_token = (control & 2 != 0).then(|| "token".into());
        let snapshot = Arc::new(snapshot(&self.config, self.epoch, control >> 2));
        self.proxy.handle(Input::Snapshot(snapshot), self.now);
    }

    /// What the proxy wishes.
    fn obey(&mut self) {
        while let Some(output) = self.proxy.poll_output() {
            match output {
                Output::Dirty(conn) => {
                    assert!(!self.dirty.contains(&conn), "dirty is said once");
                    self.dirty.push(conn);
                }
                Output::Dial { conn, .. } => self.dialing.push(conn),
                Output::Resolve(target) => {
                    let before = self.asked.insert(target.clone(), self.now);
                    let lost = before.is_none_or(|since| self.now >= since + LOOKUP_TIMEOUT);
                    assert!(lost, "one lookup at a time");
                    self.resolving.push(target);
                }
                Output::Close(conn) => self.gone(conn),
                Output::Log(_)
                | Output::Heard(_)
                | Output::Control(_)
                | Output::Spans(_)
                | Output::Drained => {}
            }
        }
    }

    fn step(&mut self, input: &mut Stream<'_>) {
        let (what, control) = (input.octet(), input.octet());
        match what & 15 {
            0 => self.accept(control),
            1 | 2 => {
                let (argument, shape) = (input.octet(), input.octet());
                self.request(control, argument, shape);
            }
            3 | 4 => {
                let (argument, shape) = (input.octet(), input.octet());
                self.answer(control, argument, shape);
            }
            5 | 6 => {
                let (argument, shape) = (input.octet(), input.octet());
                self.data(control, argument, shape);
            }
            7 => {
                let (kind, flags, argument) = (input.octet(), input.octet(), input.octet());
                let payload = input.octets(what >> 3);
                let id = if matches!(kind & 15, 4 | 6 | 7) { 0 } else { stream(argument) };
                if let Some(conn) = self.conn(control) {
                    self.receive(conn, frame(kind & 15, flags, id, payload));
                }
            }
            8 => {
                let octets = input.octets(what >> 3).to_vec();
                if let Some(conn) = self.conn(control) {
                    self.receive(conn, octets);
                }
            }
            9 => self.resolved(control),
            10 => self.dialed(control),
            11 => self.transmit(control >> 4, 1 << (control & 15)),
            12 => self.transmit(control & 3, usize::MAX),
            13 => self.close(control),
            14 => self.wait(control),
            _ if control > 250 => self.proxy.handle(Input::Drain, self.now),
            _ => self.publish(control),
        }
        self.obey();
        self.proxy.check_invariants();
    }

    /// Everybody leaves.
    fn finish(&mut self) {
        while let Some(conn) = self.dialing.pop() {
            let error = TEXTS[1].to_owned();
            self.proxy.handle(Input::DialFailed { conn, error }, self.now);
            self.obey();
        }
        while let Some(conn) = self.conns.pop() {
            self.gone(conn);
            self.proxy.handle(Input::Closed { conn, reason: CloseReason::Eof }, self.now);
            self.obey();
        }
        self.proxy.check_invariants();
        assert_eq!(self.proxy.calls(), 0);
    }
}

fn snapshot(config: &Config, epoch: u64, app: u8) -> Snapshot {
    let app = (app & 3 != 0).then(|| endpoint(app).into());
    let first = Snapshot::new(Arc::new(config.clone()));
    Snapshot { epoch: Epoch(epoch), app, ..first }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Stream(data);
    let mut bench = Bench::new();
    while !input.0.is_empty() {
        bench.step(&mut input);
    }
    bench.finish();
});
