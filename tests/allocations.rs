//! What the HTTP/2 engine allocates: nothing per DATA frame, nothing per call once it is warm,
//! and little while it is idle; and what a trace that is not sampled adds to a call: nothing. Its own
//! binary, since it counts with its own allocator.

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use ringside::config::traces::SAMPLING_RATE_DEFAULT;
use ringside::config::{Config, Environment, Flags, Settings, Tracing};
use ringside::http2::field::classify_none;
use ringside::http2::{
    Connection, ErrorCode, Event, FieldSection, Limits, Role, SectionKind, StreamId, Transmit,
};
use ringside::proxy::{Arrival, ConnId, Endpoint, Input, Listener, Output, Proxy};
use ringside::snapshot::Snapshot;
use std::sync::Arc;
use std::time::Instant;

#[path = "allocations/held.rs"]
mod held;
#[path = "allocations/sockets.rs"]
mod sockets;

/// Calls or frames to get warm, and then to count.
const WARM: usize = 300;
const COUNTED: usize = 300;

#[expect(clippy::disallowed_methods, reason = "an arbitrary instant to count from")]
fn connection(role: Role) -> Connection {
    Connection::new(role, Limits::default(), classify_none, Instant::now())
}

#[expect(clippy::disallowed_methods, reason = "an arbitrary instant to count from")]
fn receive(conn: &mut Connection, bytes: &Bytes) {
    conn.recv(bytes.clone(), Instant::now());
}

/// What `conn` has to say, as one read would bring it; made such that slicing it is free.
fn said(conn: &mut Connection) -> Bytes {
    let mut out = Transmit::new();
    conn.poll_transmit(&mut out, usize::MAX);
    while conn.poll_sent().is_some() {}
    let bytes: Bytes = out.slices().flatten().copied().collect();
    drop(bytes.clone());
    bytes
}

fn section(fields: &[(&str, &str)]) -> FieldSection {
    let mut section = FieldSection::new();
    fill(&mut section, fields);
    section
}

fn fill(section: &mut FieldSection, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        section.push(name.as_bytes(), value.as_bytes());
    }
}

const REQUEST: &[(&str, &str)] = &[
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/helloworld.Greeter/SayHello"),
    (":authority", "127.0.0.1:50007"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
    ("dapr-app-id", "server"),
];

/// A server whose client has been heard, and that client.
fn pair() -> (Connection, Connection) {
    let (mut client, mut server) = (connection(Role::Client), connection(Role::Server));
    for _ in 0..2 {
        let bytes = said(&mut client);
        receive(&mut server, &bytes);
        while server.poll_event().is_some() {}
        let bytes = said(&mut server);
        receive(&mut client, &bytes);
        while client.poll_event().is_some() {}
    }
    (client, server)
}

/// One call after the other, as the client says them.
fn calls(client: &mut Connection, count: usize) -> Vec<Bytes> {
    let fields = section(REQUEST);
    let body = Bytes::from(vec![1; 100]);
    let say = |_| {
        let stream = client.open(fields.clone(), false, 0).expect("a stream");
        client.send_data(stream, body.clone(), true);
        let bytes = said(client);
        // The call is over as far as the client is concerned; only its octets matter.
        client.send_reset(stream, ErrorCode::CANCEL);
        drop(said(client));
        bytes
    };
    (0..count).map(say).collect()
}

/// The server's part of one unary call.
fn serve(server: &mut Connection, bytes: &Bytes, body: &Bytes, out: &mut Transmit) {
    receive(server, bytes);
    while let Some(event) = server.poll_event() {
        match event {
            Event::Headers { stream, kind: SectionKind::Request, fields, .. } => {
                server.recycle(fields);
                let mut head = server.spare();
                fill(&mut head, &[(":status", "200"), ("content-type", "application/grpc")]);
                server.send_headers(stream, head, false);
            }
            Event::Data { stream, data, .. } => {
                server.release(stream, data.len() as u32);
                server.send_data(stream, body.clone(), false);
                let mut trailers = server.spare();
                fill(&mut trailers, &[("grpc-status", "0"), ("grpc-message", "")]);
                server.send_headers(stream, trailers, true);
            }
            other => panic!("{other:?}"),
        }
    }
    server.poll_transmit(out, usize::MAX);
    out.clear();
    while server.poll_sent().is_some() {}
}

#[test]
fn a_call_allocates_nothing_once_warm() {
    let (mut client, mut server) = pair();
    let calls = calls(&mut client, WARM + COUNTED);
    let body = Bytes::from(vec![2; 1000]);
    drop(body.clone());
    let mut out = Transmit::new();
    for call in &calls[..WARM] {
        serve(&mut server, call, &body, &mut out);
    }
    let counted = measure(|| {
        for call in &calls[WARM..] {
            serve(&mut server, call, &body, &mut out);
        }
    });
    assert_eq!(server.streams(), 0);
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

/// The head of a request is lent, as by a proxy that may make the call again.
#[test]
fn a_request_allocates_nothing_once_warm() {
    let mut client = pair().0;
    let fields = section(REQUEST);
    let body = Bytes::from(vec![1; 100]);
    drop(body.clone());
    let mut out = Transmit::new();
    let mut ask = || {
        for cancelled in [false, true] {
            let stream = client.open_lent(&fields, false, 7).expect("a stream");
            client.send_data(stream, body.clone(), true);
            if cancelled {
                client.send_reset(stream, ErrorCode::CANCEL);
            }
            client.poll_transmit_lent(&mut out, usize::MAX, |_| Some(&fields));
            assert_eq!(out.is_empty(), cancelled);
            out.clear();
            while client.poll_sent().is_some() {}
            // The call is over as far as the client is concerned.
            client.send_reset(stream, ErrorCode::CANCEL);
            client.poll_transmit(&mut out, usize::MAX);
            out.clear();
            assert!(client.poll_event().is_none());
        }
    };
    (0..WARM).for_each(|_| ask());
    let counted = measure(|| (0..COUNTED).for_each(|_| ask()));
    assert_eq!(client.streams(), 0);
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

/// Their trailers wait for their DATA, each in a section of its own.
#[test]
fn calls_at_once_allocate_nothing_once_warm() {
    const AT_ONCE: usize = 100;
    let (mut client, mut server) = pair();
    // A stream that stays keeps the server from giving its memory back in between.
    let fields = section(REQUEST);
    client.open(fields.clone(), false, 0).expect("a stream");
    let stays = said(&mut client);
    receive(&mut server, &stays);
    while server.poll_event().is_some() {}
    let calls = calls(&mut client, 4 * AT_ONCE);
    let turns: Vec<Bytes> = calls.chunks(AT_ONCE).map(|calls| calls.concat().into()).collect();
    turns.iter().for_each(|turn| drop(turn.clone()));
    let body = Bytes::from(vec![2; 1000]);
    drop(body.clone());
    let mut out = Transmit::new();
    let (warm, counted) = turns.split_at(2);
    warm.iter().for_each(|turn| serve(&mut server, turn, &body, &mut out));
    let counted = measure(|| {
        counted.iter().for_each(|turn| serve(&mut server, turn, &body, &mut out));
    });
    assert_eq!(server.streams(), 1);
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[test]
fn a_data_frame_allocates_nothing() {
    let (mut client, mut server) = pair();
    let stream = client.open(section(REQUEST), false, 0).expect("a stream");
    let bytes = said(&mut client);
    receive(&mut server, &bytes);
    while server.poll_event().is_some() {}
    server.send_headers(stream, section(&[(":status", "200")]), false);
    drop(said(&mut server));
    let piece = Bytes::from(vec![3; 100]);
    let frames: Vec<Bytes> = (0..WARM + COUNTED)
        .map(|_| {
            client.send_data(stream, piece.clone(), false);
            said(&mut client)
        })
        .collect();
    let mut out = Transmit::new();
    let relay = |server: &mut Connection, out: &mut Transmit, frame: &Bytes| {
        receive(server, frame);
        while let Some(event) = server.poll_event() {
            let Event::Data { data, .. } = event else { panic!("{event:?}") };
            server.release(stream, data.len() as u32);
            server.send_data(stream, data, false);
        }
        server.poll_transmit(out, usize::MAX);
        out.clear();
        while server.poll_sent().is_some() {}
    };
    for frame in &frames[..WARM] {
        relay(&mut server, &mut out, frame);
    }
    let counted = measure(|| {
        for frame in &frames[WARM..] {
            relay(&mut server, &mut out, frame);
        }
    });
    assert_eq!(counted.count_total, 0, "{counted:?}");
    assert_eq!(server.queued(StreamId(1)), 0);
}

fn kept_by(make: impl FnOnce() -> Connection) -> (AllocationInfo, Connection) {
    let mut conn = None;
    let info = measure(|| conn = Some(make()));
    (info, conn.expect("made"))
}

#[test]
fn an_idle_connection_is_small() {
    let (fresh, conn) = kept_by(|| {
        let mut conn = connection(Role::Server);
        let mut out = Transmit::new();
        conn.poll_transmit(&mut out, usize::MAX);
        while conn.poll_event().is_some() {}
        conn
    });
    drop(conn);
    let mut client = pair().0;
    let calls = calls(&mut client, WARM);
    let body = Bytes::from(vec![2; 100]);
    let (used, conn) = kept_by(|| {
        let mut conn = connection(Role::Server);
        receive(&mut conn, &Bytes::from_static(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
        receive(&mut conn, &Bytes::from_static(&[0, 0, 0, 4, 0, 0, 0, 0, 0]));
        while conn.poll_event().is_some() {}
        let mut out = Transmit::new();
        for call in &calls {
            serve(&mut conn, call, &body, &mut out);
        }
        while conn.poll_event().is_some() {}
        conn
    });
    assert_eq!(conn.streams(), 0);
    let inline = size_of::<Connection>();
    println!(
        "inline {inline}, fresh heap {}, used heap {}",
        fresh.bytes_current, used.bytes_current
    );
    assert!(inline <= 1448, "{inline}");
    assert!(fresh.bytes_current <= 1 << 10, "{fresh:?}");
    assert!(used.bytes_current <= 16 << 10, "{used:?}");
}

/// Caller, sidecar and app, in memory.
struct Relay {
    caller: Connection,
    proxy: Proxy,
    app: Connection,
    conns: Vec<ConnId>,
    dirty: Vec<ConnId>,
    answered: usize,
}

impl Relay {
    #[expect(clippy::disallowed_methods, reason = "an arbitrary instant to count from")]
    fn new(tracing: Tracing) -> Self {
        let flags = Flags { app_id: "a".into(), app_port: "5000".into(), ..Flags::default() };
        let settings = Settings::new(&flags, &Environment::default()).expect("settings");
        let config = Config { tracing, ..settings.config };
        let app = Some(Endpoint(([127, 0, 0, 1], 5000).into()).into());
        let snapshot = Snapshot { app, ..Snapshot::new(Arc::new(config)) };
        let mut proxy = Proxy::new(Arc::new(snapshot), Instant::now());
        let arrival = Arrival { listener: Listener::Internal, peer: None, spiffe_id: None };
        let down = proxy.accept(arrival, Instant::now());
        let (caller, app) = (connection(Role::Client), connection(Role::Server));
        Self { caller, proxy, app, conns: vec![down], dirty: Vec::new(), answered: 0 }
    }

    #[expect(clippy::disallowed_methods, reason = "an arbitrary instant to count from")]
    fn obey(&mut self) {
        while let Some(output) = self.proxy.poll_output() {
            match output {
                Output::Dirty(conn) => self.dirty.push(conn),
                Output::Dial { conn, .. } => {
                    self.conns.push(conn);
                    self.proxy.handle(Input::Dialed { conn }, Instant::now());
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// One call; what only the sidecar allocates for it is added to `counted`.
    #[expect(clippy::disallowed_methods, reason = "an arbitrary instant to count from")]
    fn call(&mut self, fields: &[(&str, &str)], counted: &mut u64) {
        let stream = self.caller.open(section(fields), true, 0).expect("a stream");
        let goal = self.answered + 1;
        for _ in 0..20 {
            let (to_proxy, from_app) = (
                said(&mut self.caller),
                match self.conns.len() {
                    1 => Bytes::new(),
                    _ => said(&mut self.app),
                },
            );
            let mut out = [Transmit::new(), Transmit::new()];
            let mut spent = measure(|| {
                for (at, bytes) in [to_proxy, from_app].into_iter().enumerate() {
                    if let (Some(conn), false) = (self.conns.get(at).copied(), bytes.is_empty()) {
                        self.proxy.handle(Input::Received { conn, bytes }, Instant::now());
                    }
                    self.obey();
                }
            });
            for conn in std::mem::take(&mut self.dirty) {
                let at = self.conns.iter().position(|known| *known == conn).expect("known");
                spent += measure(|| while self.proxy.transmit(conn, &mut out[at], 1 << 20) {});
            }
            *counted += spent.count_total;
            let [down, up] = out.map(|out| out.slices().flatten().copied().collect::<Bytes>());
            receive(&mut self.caller, &down);
            receive(&mut self.app, &up);
            self.serve();
            if self.answered == goal {
                return;
            }
        }
        panic!("no answer on {stream:?}");
    }

    fn serve(&mut self) {
        while let Some(event) = self.app.poll_event() {
            if let Event::Headers { stream, fields, .. } = event {
                self.app.recycle(fields);
                let end = [(":status", "200"), ("content-type", "application/grpc")];
                let end = [&end[..], &[("grpc-status", "0")]].concat();
                self.app.send_headers(stream, section(&end), true);
            }
        }
        while let Some(event) = self.caller.poll_event() {
            self.answered += usize::from(matches!(event, Event::Headers { end_stream: true, .. }));
        }
    }
}

/// A trace that is not sampled costs no allocation, whoever began it.
#[test]
fn an_unsampled_call_allocates_nothing_for_its_trace() {
    let parent = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
    let request = |more: &[(&'static str, &'static str)]| {
        let to = [("dapr-callee-app-id", "a")];
        [REQUEST, &to, more].concat()
    };
    for fields in [request(&[]), request(&[parent])] {
        let count = |tracing| {
            let (mut relay, mut warming, mut counted) = (Relay::new(tracing), 0, 0);
            (0..WARM).for_each(|_| relay.call(&fields, &mut warming));
            (0..COUNTED).for_each(|_| relay.call(&fields, &mut counted));
            counted
        };
        let off = count(Tracing::Off);
        assert_eq!(count(Tracing::Passed), off, "{fields:?}");
        // Of so few traces that begin here none is sampled at that rate, by these seeds.
        for rate in [0.0, SAMPLING_RATE_DEFAULT] {
            let unsampled = count(Tracing::Sampled { rate, exported: true });
            assert_eq!(unsampled, off, "{rate}, {fields:?}");
        }
    }
}

/// Deadlines are another one each time, and what an app calls is in no order.
#[test]
fn what_differs_from_call_to_call_allocates_nothing() {
    let paths = ["/a.B/One", "/a.B/Two", "/a.B/Three", "/a.B/Four", "/a.B/Five", "/a.B/Six"];
    let count = |timed: bool, paths: &[&str]| {
        let (mut relay, mut warming, mut counted) = (Relay::new(Tracing::Passed), 0, 0);
        for call in 0..WARM + COUNTED {
            let timeout = format!("{}u", 4_999_000 - call);
            let mut fields = [REQUEST, &[("dapr-callee-app-id", "a")]].concat();
            fields[2].1 = paths[call * call % 31 % paths.len()];
            if timed {
                fields.insert(5, ("grpc-timeout", &timeout));
            }
            relay.call(&fields, if call < WARM { &mut warming } else { &mut counted });
        }
        counted
    };
    let usual = count(false, &paths[..1]);
    // A list that grows, now and then.
    let slack = COUNTED as u64 / 20;
    for (timed, paths) in [(true, &paths[..1]), (false, &paths), (true, &paths)] {
        let others = count(timed, paths);
        println!("{usual}, {others} with deadlines: {timed}, of {}", paths.len());
        assert!(others <= usual + slack, "{others} for {usual}");
    }
}
