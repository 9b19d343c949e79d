//! What the HTTP/2 engine costs one relayed unary call: a server connection and a client
//! connection, everything between bytes in and bytes out, without a proxy's decisions.
//!
//! `cargo bench --bench http2` prints nanoseconds per call, best and median of some rounds, for
//! calls that come one by one and for a hundred at a time. For instruction counts
//! (`scripts/instructions`): the binary with `--one ROW [ROUNDS]`, which runs one row only.

#![allow(clippy::disallowed_methods)] // A benchmark may ask for the time.

mod greeting;

use bytes::Bytes;
use greeting::{REQUEST, section};
use ringside::http2::field::classify_none;
use ringside::http2::{
    Connection, Event, FieldSection, Limits, Role, SectionKind, StreamId, Transmit,
};
use std::hint::black_box;
use std::time::{Duration, Instant};

const CALLS: usize = 20_000;
const ROUNDS: usize = 11;

fn connection(role: Role) -> Connection {
    Connection::new(role, Limits::default(), classify_none, Instant::now())
}

/// Into one buffer, as one write and one read would bring it.
fn carry(from: &mut Connection, out: &mut Transmit, lent: Option<&FieldSection>) -> Bytes {
    from.poll_transmit_lent(out, usize::MAX, |_| lent);
    let mut octets = Vec::with_capacity(out.len);
    out.slices().for_each(|slice| octets.extend_from_slice(slice));
    out.clear();
    octets.into()
}

struct Chain {
    caller: Connection,
    down: Connection,
    up: Connection,
    app: Connection,
    out: Transmit,
    spent: Duration,
}

impl Chain {
    fn new() -> Self {
        let mut chain = Self {
            caller: connection(Role::Client),
            down: connection(Role::Server),
            up: connection(Role::Client),
            app: connection(Role::Server),
            out: Transmit::new(),
            spent: Duration::ZERO,
        };
        for _ in 0..3 {
            chain.turn(0, &section(REQUEST), &Bytes::new());
        }
        chain
    }

    /// The part under measurement: a request leg.
    fn relay_up(&mut self, bytes: Bytes) {
        self.down.recv(bytes, Instant::now());
        while let Some(event) = self.down.poll_event() {
            match event {
                Event::Headers { stream, fields, end_stream, .. } => {
                    let tag = u64::from(stream.0);
                    let up = self.up.open(fields, end_stream, tag).expect("a stream");
                    self.down.set_tag(stream, u64::from(up.0));
                }
                Event::Data { stream, tag, data, end_stream } => {
                    let len = data.len() as u32;
                    self.up.send_data(StreamId(tag as u32), data, end_stream);
                    self.down.release(stream, len);
                }
                _ => {}
            }
        }
    }

    /// And a response leg.
    fn relay_down(&mut self, bytes: Bytes) {
        self.up.recv(bytes, Instant::now());
        while let Some(event) = self.up.poll_event() {
            match event {
                Event::Headers { tag, fields, end_stream, .. } => {
                    self.down.send_headers(StreamId(tag as u32), fields, end_stream);
                    // One section came the other way, with the request.
                    if end_stream {
                        let spare = self.down.spare();
                        self.up.recycle(spare);
                    }
                }
                Event::Data { stream, tag, data, end_stream } => {
                    let len = data.len() as u32;
                    self.down.send_data(StreamId(tag as u32), data, end_stream);
                    self.up.release(stream, len);
                }
                _ => {}
            }
        }
    }

    fn serve(&mut self, bytes: Bytes, body: &Bytes) {
        self.app.recv(bytes, Instant::now());
        while let Some(event) = self.app.poll_event() {
            match event {
                Event::Headers { stream, kind: SectionKind::Request, .. } => {
                    let head = [(":status", "200"), ("content-type", "application/grpc")];
                    self.app.send_headers(stream, section(&head), false);
                }
                Event::Data { stream, data, .. } => {
                    self.app.release(stream, data.len() as u32);
                    self.app.send_data(stream, body.clone(), false);
                    let trailers = [("grpc-status", "0"), ("grpc-message", "")];
                    self.app.send_headers(stream, section(&trailers), true);
                }
                _ => {}
            }
        }
    }

    fn turn(&mut self, calls: usize, fields: &FieldSection, body: &Bytes) {
        for _ in 0..calls {
            let stream = self.caller.open_lent(fields, false, 0).expect("a stream");
            self.caller.send_data(stream, body.clone(), true);
        }
        let mut out = std::mem::take(&mut self.out);
        let request = carry(&mut self.caller, &mut out, Some(fields));
        let start = Instant::now();
        self.relay_up(request);
        self.up.poll_transmit(&mut out, usize::MAX);
        self.spent += start.elapsed();
        let request: Bytes = out.slices().flatten().copied().collect();
        out.clear();
        self.serve(request, body);
        let response = carry(&mut self.app, &mut out, None);
        let start = Instant::now();
        self.relay_down(response);
        self.down.poll_transmit(&mut out, usize::MAX);
        self.spent += start.elapsed();
        let response: Bytes = out.slices().flatten().copied().collect();
        out.clear();
        self.out = out;
        self.caller.recv(response, Instant::now());
        while let Some(event) = self.caller.poll_event() {
            if let Event::Data { stream, data, .. } = event {
                self.caller.release(stream, data.len() as u32);
            }
        }
        for conn in [&mut self.caller, &mut self.down, &mut self.up, &mut self.app] {
            while conn.poll_sent().is_some() {}
        }
    }
}

/// Calls at a time, octets of each message.
const ROWS: [(usize, usize); 3] = [(1, 100), (100, 100), (10, 16_000)];

/// Nanoseconds of a call.
fn round((batch, octets): (usize, usize)) -> u128 {
    let (fields, body) = (section(REQUEST), Bytes::from(vec![7; octets]));
    let mut chain = Chain::new();
    chain.spent = Duration::ZERO;
    for _ in 0..CALLS / batch {
        chain.turn(batch, &fields, &body);
    }
    assert_eq!(chain.down.streams() + chain.up.streams(), 0);
    chain.spent.as_nanos() / CALLS as u128
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--one") {
        let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<usize>().ok());
        let row = ROWS[number(at + 1).expect("which row")];
        for _ in 0..number(at + 2).unwrap_or(1) {
            black_box(round(row));
        }
        return;
    }
    for row in ROWS {
        let mut rounds: Vec<u128> = (0..ROUNDS).map(|_| round(row)).collect();
        let (batch, octets) = row;
        rounds.sort_unstable();
        let (best, median) = (rounds[0], rounds[ROUNDS / 2]);
        println!("{octets} octets, {batch} at a time: best {best} ns, median {median} ns a call");
    }
}
