//! What a peer may not have too much of, counted and told; and what only looks like too much.

use super::*;
use crate::config::Forward;
use crate::grpc::Code;
use crate::http2::ErrorCode;

const TO_SELF: [(&str, &str); 1] = [("dapr-callee-app-id", "client")];

impl Bench {
    /// What the end of `conn` would say now.
    fn said(&mut self, conn: ConnId) -> Vec<u8> {
        let mut out = Transmit::new();
        self.ends.get_mut(&conn).unwrap().poll_transmit(&mut out, usize::MAX);
        out.slices().collect::<Vec<_>>().concat()
    }

    fn hits(&self, limit: &str) -> u64 {
        let limits = self.proxy.cells.limits().iter();
        limits.filter(|(name, _)| *name == limit).map(|(_, count)| *count).sum()
    }

    /// To our own app, which is there.
    fn with_app(config: Config) -> (Self, ConnId, ConnId) {
        let mut bench = Self::new(config);
        let caller = bench.accept(Listener::Internal);
        bench.call(caller, &TO_SELF, Some(MESSAGE));
        let app = bench.dial_done();
        bench.answer(app, 1, MESSAGE);
        (bench, caller, app)
    }
}

/// Rapid reset: what is cancelled in the octets that asked for it never reaches the callee, and no
/// reset of ours does.
#[test]
fn calls_cancelled_before_they_left_never_leave() {
    let (mut bench, caller, app) = Bench::with_app(config());
    let seen = bench.seen[&app].len();
    let mut storm = Vec::new();
    for _ in 0..400 {
        let stream = bench.call_quietly(caller, &TO_SELF);
        storm.extend(bench.said(caller));
        bench.ends.get_mut(&caller).unwrap().send_reset(stream, ErrorCode::CANCEL);
        storm.extend(bench.said(caller));
    }
    bench.handle(Input::Received { conn: caller, bytes: storm.into() });
    assert_eq!(bench.seen[&app].len(), seen, "{}", bench.last(app));
    assert_eq!((bench.proxy.calls(), bench.hits("paced_resets")), (0, 0));
    bench.call(caller, &TO_SELF, Some(MESSAGE));
    assert!(bench.last(app).ends_with("DATA 7 END"), "{}", bench.last(app));
}

/// Ten thousand calls that wait for their answers, and whose caller does not want them any more.
#[test]
fn a_caller_may_cancel_all_of_its_calls() {
    const CALLS: usize = 10_000;
    let (mut bench, caller, app) = Bench::with_app(config());
    let other = bench.accept(Listener::Internal);
    bench.calls(caller, &[], CALLS);
    assert_eq!((bench.proxy.calls(), bench.count(app, "HEADERS")), (CALLS, CALLS + 1));
    for n in 0..CALLS as u32 {
        let end = bench.ends.get_mut(&caller).unwrap();
        end.send_reset(StreamId(3 + 2 * n), ErrorCode::CANCEL);
    }
    bench.run();
    assert_eq!((bench.proxy.calls(), bench.count(caller, "GOAWAY")), (0, 0));
    bench.call(other, &TO_SELF, Some(MESSAGE));
    assert!(bench.last(app).ends_with("DATA 7 END"), "{}", bench.last(app));
    let resets = bench.count(app, "RESET CANCEL");
    assert!((1..100).contains(&resets), "{resets}: the app is spared a storm");
    assert_eq!(bench.hits("paced_resets"), (CALLS - resets) as u64);
}

#[test]
fn what_ends_a_connection_is_counted_and_told() {
    let mut bench = Bench::new(config());
    for (limit, frame) in
        [("pings", &b"\0\0\x08\x06\0\0\0\0\0"[..]), ("settings", b"\0\0\0\x04\0\0\0\0\0")]
    {
        let caller = bench.accept(Listener::Api);
        bench.run();
        let frame = [frame, &[0; 8][..frame[2] as usize]].concat();
        let lines = bench.lines;
        bench.handle(Input::Received { conn: caller, bytes: frame.repeat(1100).into() });
        assert_eq!((bench.hits(limit), bench.lines - lines), (1, 1), "{limit}");
        assert!(bench.closed.contains(&caller), "{limit}");
    }
}

/// What a connection outlives is counted each time, and told now and then.
#[test]
fn what_a_connection_outlives_is_counted_and_told_once_a_while() {
    let (mut bench, _, app) = Bench::with_app(config());
    let caller = bench.accept(Listener::Api);
    let large = "~".repeat(70 << 10);
    let (heads, lines) = (bench.count(app, "HEADERS"), bench.lines);
    for _ in 0..3 {
        bench.call(caller, &[TO_SELF[0], ("x-large", &large)], None);
        assert!(bench.last(caller).ends_with("RESET FRAME_SIZE_ERROR"), "{}", bench.last(caller));
    }
    assert_eq!((bench.hits("field_section"), bench.lines - lines), (3, 1));
    bench.now += told::LIMIT_LINE_PERIOD;
    bench.call(caller, &[TO_SELF[0], ("x-large", &large)], None);
    assert_eq!((bench.hits("field_section"), bench.lines - lines), (4, 2));
    assert_eq!(bench.count(app, "HEADERS"), heads);
}

/// What came before a message that is too large is whole, and the caller's, as through daprd, which
/// takes one message after the other.
#[test]
fn messages_before_one_too_large_arrive() {
    let (mut bench, caller, app) = Bench::with_app(Config { max_body_size: 4, ..config() });
    bench.call(caller, &TO_SELF, Some(MESSAGE));
    bench.answer(app, 3, &[MESSAGE, MESSAGE, &[0, 0, 0, 0, 5, 1, 2, 3, 4, 5]].concat());
    assert_eq!(bench.bodies[&(caller, 3)], [MESSAGE, MESSAGE].concat());
    let text = "grpc-status=8 grpc-message=grpc: received message larger than max (5 vs. 4)";
    assert!(bench.last(caller).contains(text), "{}", bench.last(caller));
}

/// Peers that probe the bandwidth with PINGs: each has its answer soon, and their reminders neither
/// pile up nor are looked through by each call.
#[test]
fn reminders_of_connections_do_not_pile_up() {
    let mut bench = Bench::new(config());
    let callers: Vec<ConnId> = (0..40).map(|_| bench.accept(Listener::Api)).collect();
    bench.run();
    for _ in 0..200 {
        for caller in &callers {
            bench.ends.get_mut(caller).unwrap().ping(*b"question");
        }
        bench.run();
        bench.wait(3 * PING_ACK_DELAY);
    }
    assert_eq!(bench.pongs, 200 * callers.len());
    assert!(bench.proxy.timers.len() < 2000, "{}", bench.proxy.timers.len());
}

#[test]
fn calls_of_a_worker_are_bounded() {
    const CALLS: usize = 20;
    let (mut bench, caller, app) = Bench::with_app(config());
    let other = bench.accept(Listener::Internal);
    bench.proxy.bounds.calls = CALLS;
    let lines = bench.lines;
    bench.calls(caller, &[], CALLS + 3);
    assert_eq!((bench.proxy.calls(), bench.count(app, "HEADERS")), (CALLS, CALLS + 1));
    let text = "grpc-status=8 grpc-message=ringside: too many calls in flight in this worker; \
                try again";
    assert_eq!(bench.count(caller, text), 3);
    bench.call(other, &TO_SELF, Some(MESSAGE));
    assert!(bench.last(other).contains(text), "{}", bench.last(other));
    assert_eq!((bench.hits("calls"), bench.lines - lines), (4, 1));
    assert_eq!(bench.last_line, "Limit calls reached by unix socket: too many calls in flight");
    // One ends, one may come.
    bench.answer(app, 3, MESSAGE);
    bench.call(other, &TO_SELF, Some(MESSAGE));
    assert_eq!((bench.proxy.calls(), bench.hits("calls")), (CALLS, 4));
}

#[test]
fn handshakes_that_take_too_long_are_counted_and_told_once_a_while() {
    let mut bench = Bench::new(config());
    let peer = Some("192.0.2.7:4711".parse().unwrap());
    for _ in 0..3 {
        bench.handle(Input::HandshakeOverdue { listener: Listener::Internal, peer });
    }
    assert_eq!((bench.hits("slow_handshake"), bench.lines), (3, 1));
    let line = "Limit slow_handshake reached by 192.0.2.7:4711: closed: its TLS handshake takes \
                too long";
    assert_eq!(bench.last_line, line);
}

/// A forward port takes what is no gRPC, of which no octets are the size of a message.
#[test]
fn only_messages_are_counted_as_messages() {
    const BODY: &[u8] = b"{\"name\": \"no message of gRPC's\"}";
    let forwards = vec![Forward { port: 5001, app_id: "client".into() }];
    let mut bench = Bench::new(Config { forwards, max_body_size: 4, ..config() });
    let caller = bench.accept(Listener::Forward(0));
    bench.call(caller, &[], Some(MESSAGE));
    let app = bench.dial_done();
    let json = request_with("content-type", "application/json", &[]);
    let untold = json.iter().copied().filter(|(name, _)| *name != "content-type").collect();
    for fields in [json, untold] {
        let mut section = FieldSection::new();
        fields.iter().for_each(|(name, value)| section.push(name.as_bytes(), value.as_bytes()));
        let end = bench.ends.get_mut(&caller).unwrap();
        let stream = end.open(section, false, 0).unwrap();
        bench.send(caller, stream, BODY, true);
        let whole = format!("DATA {} END", BODY.len());
        assert!(bench.last(app).ends_with(&whole), "{fields:?}: {}", bench.last(app));
    }
    assert_eq!(bench.hits("message_size"), 0);
    bench.call(caller, &[], Some(BODY));
    assert!(bench.heads(caller).contains("grpc-status=8 "), "{}", bench.heads(caller));
    assert_eq!(bench.hits("message_size"), 1);
}

/// Paths that two readers may take for two paths, at each port, before anybody is asked for.
#[test]
fn what_smells_goes_nowhere() {
    let forwards = vec![Forward { port: 5001, app_id: "server".into() }];
    let doors = [Listener::Api, Listener::Internal, Listener::Forward(0)];
    let paths = [
        ("a.B/C", Code::Unimplemented),
        ("*", Code::Unimplemented),
        ("/a.B//C", Code::InvalidArgument),
        ("//a.B/C", Code::InvalidArgument),
        ("/a.B/C/", Code::InvalidArgument),
        ("/x/../a.B/C", Code::InvalidArgument),
        ("/./a.B/C", Code::InvalidArgument),
        ("/a.B/%2e%2e/C", Code::InvalidArgument),
        ("/a.B\\C/d", Code::InvalidArgument),
        ("/a.B/C HTTP/1.1", Code::InvalidArgument),
        ("/a.B/C?d=e", Code::InvalidArgument),
        ("/a.B/C#d", Code::InvalidArgument),
        ("/a.B/\tC", Code::InvalidArgument),
    ];
    for door in doors {
        // Nobody has a token, so that a later judge would say something else.
        let mut bench = Bench::new(Config {
            forwards: forwards.clone(),
            api_token: Some("s3cret".into()),
            ..config()
        });
        let caller = bench.accept(door);
        for (path, code) in paths {
            bench.ask(caller, &request_with(":path", path, &TO_SELF));
            let code = format!("grpc-status={} ", code as u8);
            assert!(
                bench.heads(caller).contains(&code),
                "{door:?} {path}: {}",
                bench.heads(caller)
            );
        }
        assert_eq!((bench.dialed.len(), bench.resolves.len(), bench.proxy.calls()), (0, 0, 0));
    }
}

/// Field sections that readers read differently: RFC 9113 §8.2 and §8.3, at each port.
#[test]
fn what_is_malformed_goes_nowhere() {
    let forwards = vec![Forward { port: 5001, app_id: "server".into() }];
    let more: [(&str, &str); 17] = [
        (":path", "/other/Method"),
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "two"),
        (":status", "200"),
        (":other", "x"),
        ("X-Upper", "1"),
        ("x one", "1"),
        ("x-nul", "a\0b"),
        ("x-line", "a\r\nb: c"),
        ("connection", "x-one"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("keep-alive", "1"),
        ("proxy-connection", "1"),
        ("te", "gzip"),
        ("content-length", "+7"),
    ];
    for door in [Listener::Api, Listener::Internal, Listener::Forward(0)] {
        let mut bench = Bench::new(Config { forwards: forwards.clone(), ..config() });
        let caller = bench.accept(door);
        for field in more {
            bench.ask(caller, &request_with(":path", "/a.B/C", &[TO_SELF[0], field]));
            let last = bench.last(caller);
            assert!(last.ends_with("RESET PROTOCOL_ERROR"), "{door:?} {field:?}: {last}");
        }
        for path in ["/a.B/\0C", "/a.B/\x01C", "/a.B/\x7fC", "/a.B/C\r\nx: y", ""] {
            bench.ask(caller, &request_with(":path", path, &TO_SELF));
            let last = bench.last(caller);
            assert!(last.ends_with("RESET PROTOCOL_ERROR"), "{door:?} {path:?}: {last}");
        }
        assert_eq!((bench.dialed.len(), bench.resolves.len(), bench.proxy.calls()), (0, 0, 0));
    }
}

/// A length that turns out wrong: the call ends, and its callee hears that it did.
#[test]
fn a_content_length_that_lies_ends_the_call() {
    for length in ["3", "3000"] {
        let (mut bench, caller, app) = Bench::with_app(config());
        let stream = bench.call(caller, &[TO_SELF[0], ("content-length", length)], Some(MESSAGE));
        let reset = format!("{} RESET PROTOCOL_ERROR", stream.0);
        assert!(bench.seen[&caller].contains(&reset), "{}", bench.last(caller));
        assert!(bench.count(app, " END") < 2, "never ended as if it were whole");
        assert_eq!(bench.proxy.calls(), 0);
    }
}

fn request_with<'a>(
    name: &'a str,
    value: &'a str,
    more: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![(":method", "POST"), (":scheme", "http"), (":path", "/a.B/C")];
    fields.push((":authority", "x"));
    fields.push(("content-type", "application/grpc"));
    for field in &mut fields {
        if field.0 == name {
            field.1 = value;
        }
    }
    // Pseudo-fields come first, or it would be their place that is wrong.
    let (pseudo, rest): (Vec<_>, Vec<_>) = more.iter().partition(|field| field.0.starts_with(':'));
    fields.splice(4..4, pseudo);
    fields.extend(rest);
    fields
}

impl Bench {
    /// These very fields, and the end.
    fn ask(&mut self, conn: ConnId, fields: &[(&str, &str)]) {
        let mut section = FieldSection::new();
        for (name, value) in fields {
            section.push(name.as_bytes(), value.as_bytes());
        }
        self.ends.get_mut(&conn).unwrap().open(section, true, 0).unwrap();
        self.run();
    }

    /// The last head that the end of `conn` saw.
    fn heads(&self, conn: ConnId) -> &str {
        let heads = self.seen[&conn].iter().rev().find(|seen| seen.contains("HEADERS"));
        heads.map_or("", String::as_str)
    }
}
