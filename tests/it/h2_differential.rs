//! Our HTTP/2 engine against the `h2` crate, in both roles, over a pipe in memory: every call
//! must come back as it went, under all windows, frame sizes and fragmentations tried.

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, Request, Response};
use ringside::http2::field::classify_none;
use ringside::http2::{
    Connection, ErrorCode, Event, FieldSection, Limits, OpenError, Role, SectionKind, StreamId,
    Transmit,
};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Bounds a test that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What differs from run to run.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// Octets that the pipe holds: the largest piece that a read gets.
    pipe: usize,
    our_window: u32,
    their_window: u32,
    their_frame: u32,
    their_table: u32,
    calls: usize,
    body: usize,
}

const CASES: [Case; 6] = [
    Case {
        pipe: 64 << 10,
        our_window: 256 << 10,
        their_window: 65_535,
        their_frame: 16_384,
        their_table: 4096,
        calls: 100,
        body: 10,
    },
    Case {
        pipe: 61,
        our_window: 65_535,
        their_window: 1000,
        their_frame: 16_384,
        their_table: 0,
        calls: 8,
        body: 20_000,
    },
    Case {
        pipe: 4096,
        our_window: 900,
        their_window: 65_535,
        their_frame: 16_384,
        their_table: 200,
        calls: 10,
        body: 30_000,
    },
    Case {
        pipe: 1 << 20,
        our_window: 256 << 10,
        their_window: 1 << 20,
        their_frame: 1 << 20,
        their_table: 65_536,
        calls: 5,
        body: 700_000,
    },
    Case {
        pipe: 1,
        our_window: 1,
        their_window: 1,
        their_frame: 16_384,
        their_table: 4096,
        calls: 3,
        body: 40,
    },
    Case {
        pipe: 10_000,
        our_window: 65_535,
        their_window: 65_535,
        their_frame: 16_384,
        their_table: 4096,
        calls: 40,
        body: 0,
    },
];

fn limits(case: Case) -> Limits {
    Limits { stream_window: case.our_window, ..Limits::default() }
}

fn body_of(number: usize, len: usize) -> Bytes {
    (0..len).map(|at| (at * 7 + number) as u8).collect()
}

fn section(fields: &[(&str, &str)]) -> FieldSection {
    let mut section = FieldSection::new();
    for (name, value) in fields {
        section.push(name.as_bytes(), value.as_bytes());
    }
    section
}

fn text(fields: &FieldSection, name: &str) -> String {
    let value = fields.value(name.as_bytes()).unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, test).await.expect("the exchange hangs");
    });
}

/// Our engine at one end of the pipe.
struct Ours {
    conn: Connection,
    pipe: DuplexStream,
    /// What the pipe has not taken yet.
    pending: Vec<u8>,
}

impl Ours {
    fn new(role: Role, case: Case, pipe: DuplexStream) -> Self {
        let conn = Connection::new(role, limits(case), classify_none, Instant::now());
        Self { conn, pipe, pending: Vec::new() }
    }

    /// Takes out what may be written; `sent` hears of each stream's octets.
    fn transmit(&mut self, mut sent: impl FnMut(&mut Connection, StreamId, u32)) {
        let mut out = Transmit::new();
        while self.conn.wants_transmit() && self.pending.len() < 256 << 10 {
            self.conn.poll_transmit(&mut out, 64 << 10);
            self.conn.check_invariants();
            self.pending.extend(out.slices().flatten());
            out.clear();
            while let Some(one) = self.conn.poll_sent() {
                sent(&mut self.conn, one.stream, one.octets);
            }
        }
    }

    /// Reads or writes once, whatever is possible; false at the end.
    async fn turn(&mut self) -> bool {
        let mut buffer = vec![0; 64 << 10];
        let (mut reader, mut writer) = tokio::io::split(&mut self.pipe);
        let read = tokio::select! {
            read = reader.read(&mut buffer) => read,
            wrote = writer.write(&self.pending), if !self.pending.is_empty() => {
                self.pending.drain(..wrote.unwrap_or(self.pending.len()));
                return true;
            }
        };
        match read {
            Ok(0) | Err(_) => false,
            Ok(len) => {
                buffer.truncate(len);
                self.conn.recv(buffer.into(), Instant::now());
                true
            }
        }
    }

    /// Writes to the end what there is, as long as the peer reads.
    async fn flush(&mut self) {
        self.transmit(|_, _, _| {});
        let _closed = self.pipe.write_all(&self.pending).await;
    }
}

/// Echoes bodies; answers `x-number`; ends with trailers. Returns the codes of resets.
async fn our_echo_server(mut ours: Ours) -> Vec<ErrorCode> {
    let mut resets = Vec::new();
    loop {
        while let Some(event) = ours.conn.poll_event() {
            ours.conn.check_invariants();
            match event {
                Event::Headers {
                    stream, kind: SectionKind::Request, fields, end_stream, ..
                } => {
                    let number = text(&fields, "x-number");
                    ours.conn.recycle(fields);
                    let head = section(&[(":status", "200"), ("x-number", &number)]);
                    ours.conn.send_headers(stream, head, false);
                    if end_stream {
                        ours.conn.send_headers(stream, section(&[("grpc-status", "0")]), true);
                    }
                }
                Event::Headers { stream, fields, .. } => {
                    let sum = text(&fields, "x-sum");
                    let trailers = section(&[("grpc-status", "0"), ("x-sum", &sum)]);
                    ours.conn.send_headers(stream, trailers, true);
                }
                Event::Data { stream, data, end_stream, .. } => {
                    ours.conn.send_data(stream, data, false);
                    if end_stream {
                        ours.conn.send_headers(stream, section(&[("grpc-status", "0")]), true);
                    }
                }
                Event::Reset { code, .. } => resets.push(code),
                Event::Settings | Event::Goaway { .. } | Event::Pong { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        let echoed = |conn: &mut Connection, stream, octets| conn.release(stream, octets);
        ours.transmit(echoed);
        if !ours.turn().await {
            return resets;
        }
    }
}

fn h2_client(case: Case) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(case.their_window)
        .initial_connection_window_size(case.their_window.max(65_535) * 2)
        .max_frame_size(case.their_frame)
        .header_table_size(case.their_table);
    builder
}

async fn collect(mut body: RecvStream) -> (Vec<u8>, HeaderMap) {
    let mut octets = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.unwrap();
        octets.extend_from_slice(&chunk);
        body.flow_control().release_capacity(chunk.len()).unwrap();
    }
    (octets, body.trailers().await.unwrap().unwrap_or_default())
}

async fn h2_call(send: h2::client::SendRequest<Bytes>, number: usize, body: Bytes) {
    let mut send = send.ready().await.unwrap();
    let request = Request::post("http://test/a.B/C")
        .header("x-number", number.to_string())
        .header("x-same", "the same in each")
        .body(())
        .unwrap();
    let bare = body.is_empty() && number.is_multiple_of(2);
    let (response, mut stream) = send.send_request(request, bare).unwrap();
    let sum: u64 = body.iter().map(|octet| u64::from(*octet)).sum();
    if !bare {
        for piece in body.chunks(5000) {
            stream.send_data(body.slice_ref(piece), false).unwrap();
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", sum.into());
        stream.send_trailers(trailers).unwrap();
    }
    let response = response.await.unwrap();
    assert_eq!(response.headers()["x-number"], number.to_string());
    let (octets, trailers) = collect(response.into_body()).await;
    assert!(octets == body, "call {number}");
    assert_eq!(trailers["grpc-status"], "0");
    if !bare {
        assert_eq!(trailers["x-sum"], sum.to_string());
    }
}

#[test]
fn h2_calls_us() {
    for case in CASES {
        println!("{case:?}");
        run(async {
            let (ours, theirs) = tokio::io::duplex(case.pipe);
            let server = tokio::spawn(our_echo_server(Ours::new(Role::Server, case, ours)));
            let (send, conn) = h2_client(case).handshake(theirs).await.unwrap();
            let conn = tokio::spawn(conn);
            let calls: Vec<_> = (0..case.calls)
                .map(|n| tokio::spawn(h2_call(send.clone(), n, body_of(n, case.body))))
                .collect();
            for call in calls {
                call.await.unwrap();
            }
            drop(send);
            conn.await.unwrap().unwrap();
            assert_eq!(server.await.unwrap(), []);
        });
    }
}

#[test]
fn h2_cancels_us() {
    let case = CASES[0];
    run(async {
        let (ours, theirs) = tokio::io::duplex(case.pipe);
        let server = tokio::spawn(our_echo_server(Ours::new(Role::Server, case, ours)));
        let (send, conn) = h2_client(case).handshake(theirs).await.unwrap();
        let conn = tokio::spawn(conn);
        for number in 0..50 {
            let mut ready = send.clone().ready().await.unwrap();
            let request = Request::post("http://test/a.B/C").body(()).unwrap();
            let (response, mut stream) = ready.send_request(request, false).unwrap();
            stream.send_data(body_of(number, 3000), false).unwrap();
            response.await.unwrap();
            stream.send_reset(h2::Reason::CANCEL);
            h2_call(send.clone(), number, body_of(number, 100)).await;
        }
        drop(send);
        conn.await.unwrap().unwrap();
        assert_eq!(server.await.unwrap(), [ErrorCode::CANCEL; 50]);
    });
}

async fn h2_echo(request: Request<RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let number = request.headers()["x-number"].clone();
    let response = Response::builder().header("x-number", number).body(()).unwrap();
    let mut send = respond.send_response(response, false).unwrap();
    let mut body = request.into_body();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.unwrap();
        body.flow_control().release_capacity(chunk.len()).unwrap();
        send.send_data(chunk, false).unwrap();
    }
    let mut trailers = body.trailers().await.unwrap().unwrap_or_default();
    trailers.insert("grpc-status", 0.into());
    send.send_trailers(trailers).unwrap();
}

async fn h2_echo_server(case: Case, pipe: DuplexStream) {
    let mut conn = h2::server::Builder::new()
        .initial_window_size(case.their_window)
        .initial_connection_window_size(case.their_window.max(65_535))
        .max_frame_size(case.their_frame)
        .header_table_size(case.their_table)
        .max_concurrent_streams(7)
        .handshake::<_, Bytes>(pipe)
        .await
        .unwrap();
    while let Some(accepted) = conn.accept().await {
        let Ok((request, respond)) = accepted else { return };
        tokio::spawn(h2_echo(request, respond));
    }
}

#[derive(Default)]
struct Call {
    number: usize,
    received: Vec<u8>,
    complete: bool,
}

/// Our client's side of all calls of a case.
struct Caller {
    case: Case,
    opened: usize,
    calls: BTreeMap<StreamId, Call>,
}

impl Caller {
    fn open(&mut self, conn: &mut Connection) {
        while self.opened < self.case.calls && conn.can_open() > 0 {
            let number = self.opened;
            let fields = section(&[
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/a.B/C"),
                (":authority", "test"),
                ("x-number", &number.to_string()),
                ("x-same", "the same in each"),
            ]);
            let body = body_of(number, self.case.body);
            let bare = body.is_empty() && number.is_multiple_of(2);
            let stream = match conn.open(fields, bare, number as u64) {
                Ok(stream) => stream,
                Err(error @ (OpenError::Full | OpenError::Retired)) => panic!("{error:?}"),
            };
            self.opened += 1;
            self.calls.insert(stream, Call { number, ..Call::default() });
            let with_trailers = number.is_multiple_of(3);
            if !bare {
                conn.send_data(stream, body, !with_trailers);
            }
            if !bare && with_trailers {
                conn.send_headers(stream, section(&[("x-sum", "1")]), true);
            }
        }
    }

    fn on_event(&mut self, conn: &mut Connection, event: Event) {
        match event {
            Event::Headers { stream, tag, kind, fields, end_stream, .. } => {
                let call = self.calls.get_mut(&stream).unwrap();
                assert_eq!(tag, call.number as u64);
                match kind {
                    SectionKind::Response => {
                        assert_eq!(text(&fields, "x-number"), call.number.to_string());
                    }
                    SectionKind::Trailers => assert_eq!(text(&fields, "grpc-status"), "0"),
                    SectionKind::Request | SectionKind::Informational => panic!("{kind:?}"),
                }
                call.complete |= end_stream;
                conn.recycle(fields);
            }
            Event::Data { stream, data, end_stream, .. } => {
                let call = self.calls.get_mut(&stream).unwrap();
                call.received.extend_from_slice(&data);
                call.complete |= end_stream;
                conn.release(stream, data.len() as u32);
            }
            Event::Settings => {}
            other => panic!("{other:?}"),
        }
    }

    fn is_done(&self) -> bool {
        self.opened == self.case.calls && self.calls.values().all(|call| call.complete)
    }
}

#[test]
fn we_call_h2() {
    for case in CASES {
        println!("{case:?}");
        run(async {
            let (ours, theirs) = tokio::io::duplex(case.pipe);
            let server = tokio::spawn(h2_echo_server(case, theirs));
            let mut ours = Ours::new(Role::Client, case, ours);
            let mut caller = Caller { case, opened: 0, calls: BTreeMap::new() };
            while !caller.is_done() {
                while let Some(event) = ours.conn.poll_event() {
                    ours.conn.check_invariants();
                    caller.on_event(&mut ours.conn, event);
                }
                // The server's limit is only known after its SETTINGS.
                if ours.conn.is_settled() {
                    caller.open(&mut ours.conn);
                }
                ours.transmit(|_, _, _| {});
                assert!(caller.is_done() || ours.turn().await, "closed before the end");
            }
            assert_eq!(ours.conn.streams(), 0);
            for call in caller.calls.values() {
                assert!(call.received == body_of(call.number, case.body), "{}", call.number);
            }
            ours.conn.goaway(ErrorCode::NO_ERROR, "");
            ours.flush().await;
            drop(ours);
            server.await.unwrap();
        });
    }
}
