//! Readers that stall, and those who share a connection with them.

use super::*;
use crate::http2::ErrorCode;
use crate::proxy::stalled::HELD_SHARE;

const TO_SELF: [(&str, &str); 1] = [("dapr-callee-app-id", "client")];
const HEAD: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/grpc")];
/// As much as a stream's window lets come.
const WINDOW: usize = 256 << 10;
const LOOK: Duration = Duration::from_millis(125);

/// A caller with many calls, each of which is answered with more than it reads; another one.
struct Crowd {
    bench: Bench,
    staller: ConnId,
    other: ConnId,
    app: ConnId,
    calls: u32,
    /// As the app's end numbers them.
    asked: u32,
}

impl Crowd {
    fn new(calls: u32, window: u32) -> Self {
        Self::at(Listener::Internal, calls, window)
    }

    fn at(door: Listener, calls: u32, window: u32) -> Self {
        let mut bench = Bench::new(config());
        let (staller, other) = (bench.accept(door), bench.accept(Listener::Internal));
        let limits = Limits { stream_window: window, ..Limits::default() };
        let h2 = Connection::new(Role::Client, limits, head::classify, bench.now);
        bench.ends.insert(staller, h2);
        bench.stalled = true;
        bench.run();
        bench.calls(staller, &[], calls as usize);
        let app = bench.dial_done();
        for n in 0..calls {
            let end = bench.ends.get_mut(&app).unwrap();
            let mut fields = FieldSection::new();
            fields.push(b":status", b"200");
            fields.push(b"content-type", b"application/grpc");
            end.send_headers(StreamId(1 + 2 * n), fields, false);
            // Messages without an octet, so that their limit of size does not matter.
            end.send_data(StreamId(1 + 2 * n), Bytes::from(vec![0; 2 * WINDOW]), false);
        }
        bench.run();
        Self { bench, staller, other, app, calls, asked: calls }
    }

    /// A call of the other caller's, of which the answer takes some room.
    fn others_call(&mut self) -> bool {
        let before = self.bench.count(self.other, "grpc-status=0 END");
        self.bench.call(self.other, &TO_SELF, Some(MESSAGE));
        let stream = 1 + 2 * self.asked;
        self.asked += 1;
        self.bench.answer(self.app, stream, &[0; 5000]);
        self.bench.count(self.other, "grpc-status=0 END") > before
    }

    fn ended(&self) -> usize {
        self.bench.count(self.staller, "RESET ENHANCE_YOUR_CALM")
    }

    fn held(&self) -> u64 {
        self.bench.proxy.peers[ConnKey::from(self.app)].h2.held_in_all()
    }
}

/// Eighty streams of 256 KiB are 20 MiB: more than the share, less than what closes the window.
#[test]
fn stalled_readers_hold_up_nobody_and_end_in_time() {
    let mut crowd = Crowd::new(80, 1);
    assert!(crowd.held() > HELD_SHARE, "{}", crowd.held());
    assert!(crowd.others_call());
    for _ in 0..9 {
        crowd.bench.wait(Duration::from_secs(1));
        assert_eq!(crowd.ended(), 0, "whoever pauses has time");
    }
    for _ in 0..3 {
        crowd.bench.wait(Duration::from_secs(1));
    }
    assert!(crowd.held() <= HELD_SHARE, "{}", crowd.held());
    let ended = crowd.ended();
    assert!((16..20).contains(&ended), "{ended}: no more than it takes");
    let limits = crowd.bench.proxy.cells.limits();
    assert!(limits.contains(&("stalled_streams", ended as u64)), "{limits:?}");
    assert_eq!(crowd.bench.proxy.calls(), 80 - ended);
    assert!(crowd.others_call());
    // Below the share nobody is looked at, for ever.
    crowd.bench.wait(Duration::from_secs(4));
    crowd.bench.wait(Duration::from_secs(4));
    assert_eq!(crowd.ended(), ended);
}

/// As many as close the connection's window, where one second is a long time.
#[test]
fn a_crowd_of_stalled_readers_makes_way_at_once() {
    let mut crowd = Crowd::new(300, 1);
    for _ in 0..4 {
        crowd.bench.wait(LOOK);
    }
    // Of those that are left, some got room to stall in.
    assert!(crowd.held() < 2 * HELD_SHARE, "{}", crowd.held());
    assert!(crowd.ended() > 100, "{}", crowd.ended());
    assert!(crowd.others_call());
}

/// Whoever takes anything is not stalled, even in a crowd: he reads as fast as he can.
#[test]
fn slow_readers_are_not_stalled() {
    let mut crowd = Crowd::new(230, 65_535);
    assert!(crowd.held() > 48 << 20, "{}", crowd.held());
    for _ in 0..24 {
        crowd.bench.wait(LOOK);
        let end = crowd.bench.ends.get_mut(&crowd.staller).unwrap();
        for n in 0..crowd.calls {
            end.release(StreamId(1 + 2 * n), 9000);
        }
        crowd.bench.run();
    }
    assert_eq!(crowd.ended(), 0);
    assert_eq!(crowd.bench.proxy.calls(), crowd.calls as usize);
}

/// What a call holds whose reset has to wait goes back at once: the pace spares the app, and
/// nobody else pays for it.
#[test]
fn a_cancelled_call_holds_nothing_while_its_reset_waits() {
    let mut crowd = Crowd::new(60, 1);
    let end = crowd.bench.ends.get_mut(&crowd.staller).unwrap();
    for n in 0..crowd.calls {
        end.send_reset(StreamId(1 + 2 * n), ErrorCode::CANCEL);
    }
    crowd.bench.run();
    let resets = crowd.bench.count(crowd.app, "RESET CANCEL");
    assert!(resets < 60, "{resets}: they are paced");
    assert_eq!((crowd.bench.proxy.calls(), crowd.held()), (0, 0));
}

/// Whole responses have left their upstream, whose windows no longer bound them: who does not read
/// them gets no new calls. Behind another sidecar there are others, who do.
#[test]
fn a_caller_that_does_not_read_gets_no_new_calls() {
    for (door, refused) in [(Listener::Api, 1), (Listener::Internal, 0)] {
        let mut crowd = Crowd::at(door, 140, 1);
        // Half of each has come, and its stream is reset: now none of it is upstream's any more.
        for n in 0..crowd.calls {
            let end = crowd.bench.ends.get_mut(&crowd.app).unwrap();
            end.send_reset(StreamId(1 + 2 * n), ErrorCode::INTERNAL_ERROR);
        }
        crowd.bench.run();
        assert_eq!((crowd.held(), crowd.bench.proxy.calls()), (0, 0));
        crowd.bench.call(crowd.staller, &TO_SELF, Some(MESSAGE));
        let seen = crowd.bench.seen[&crowd.staller].iter();
        let told = seen.filter(|seen| seen.contains("grpc-status=8 ")).count();
        assert_eq!(told, refused, "{door:?}: {}", crowd.bench.last(crowd.staller));
        assert_eq!(crowd.bench.proxy.calls(), 1 - refused);
        let limits = crowd.bench.proxy.cells.limits();
        assert_eq!(limits.contains(&("unread_responses", 1)), refused == 1, "{limits:?}");
    }
}

/// Nor does its sender go on beyond the window that it has: what comes is thrown away.
#[test]
fn nobody_is_asked_for_more_of_a_cancelled_call() {
    const CALLS: u32 = 30;
    const MUCH: usize = 8 * WINDOW;
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    bench.calls(caller, &[], CALLS as usize);
    let app = bench.dial_done();
    for n in 0..CALLS {
        bench.say(app, 1 + 2 * n, &HEAD, false);
        bench.ends.get_mut(&caller).unwrap().send_reset(StreamId(1 + 2 * n), ErrorCode::CANCEL);
    }
    bench.run();
    let waiting: Vec<u32> = (0..CALLS)
        .map(|n| 1 + 2 * n)
        .filter(|n| !bench.seen[&app].contains(&format!("{n} RESET CANCEL")))
        .collect();
    assert!(!waiting.is_empty(), "resets are paced");
    for stream in &waiting {
        bench.send(app, StreamId(*stream), &vec![0; MUCH], false);
        let left = bench.ends[&app].queued(StreamId(*stream));
        assert!(left >= MUCH - WINDOW, "{} octets came for nobody", MUCH - left);
    }
    assert_eq!(bench.proxy.peers[ConnKey::from(app)].h2.held_in_all(), 0);
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.count(app, "RESET CANCEL"), CALLS as usize);
}

/// An app that answers at length before it has read: its caller takes the answer at his leisure,
/// and nobody waits for the rest of the request any more.
#[test]
fn a_request_that_nobody_needs_is_not_held() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    let limits = Limits { stream_window: 1, ..Limits::default() };
    let h2 = Connection::new(Role::Client, limits, head::classify, bench.now);
    bench.ends.insert(caller, h2);
    bench.stalled = true;
    bench.call(caller, &TO_SELF, Some(&[0; WINDOW]));
    let app = bench.dial_done_with(Limits { stream_window: 100_000, ..Limits::default() });
    let held = |bench: &Bench| bench.proxy.peers[ConnKey::from(caller)].h2.held_in_all();
    assert_eq!(held(&bench), WINDOW as u64 - 100_000);
    bench.answer(app, 1, &[0; WINDOW]);
    assert_eq!(bench.proxy.calls(), 0);
    assert_eq!((bench.proxy.connection(caller).unwrap().streams(), held(&bench)), (1, 0));
}

/// So do trailers that wait behind what he does not read.
#[test]
fn trailers_that_nobody_reads_are_counted() {
    const CALLS: u32 = 600;
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Api);
    let limits = Limits { stream_window: 1, ..Limits::default() };
    let h2 = Connection::new(Role::Client, limits, head::classify, bench.now);
    bench.ends.insert(caller, h2);
    bench.stalled = true;
    bench.run();
    bench.calls(caller, &[], CALLS as usize);
    let app = bench.dial_done();
    let large = "v".repeat(60 << 10);
    for n in 0..CALLS {
        let end = bench.ends.get_mut(&app).unwrap();
        end.send_headers(StreamId(1 + 2 * n), section(&HEAD), false);
        end.send_data(StreamId(1 + 2 * n), Bytes::from_static(&[0; 5]), false);
        let trailers = section(&[("grpc-status", "0"), ("x-large", &large)]);
        end.send_headers(StreamId(1 + 2 * n), trailers, true);
    }
    bench.run();
    assert_eq!(bench.proxy.calls(), 0, "{}", bench.last(caller));
    assert!(bench.proxy.connection(caller).unwrap().queued_in_all() > CALLS as usize * large.len());
    bench.call(caller, &TO_SELF, Some(MESSAGE));
    assert_eq!(bench.count(caller, "grpc-status=8 "), 1, "{}", bench.last(caller));
    // Once he reads, they are gone.
    bench.stalled = false;
    for n in 0..CALLS {
        bench.ends.get_mut(&caller).unwrap().release(StreamId(1 + 2 * n), 1);
    }
    bench.run();
    assert_eq!(bench.proxy.connection(caller).unwrap().queued_in_all(), 0);
}

/// The bound is one of responses, whatever they are made of. What the app says in one piece is
/// judged before any of it is written.
#[test]
fn heads_and_trailers_that_nobody_reads_close_a_connection_too() {
    const CALLS: u32 = 4;
    let large = "v".repeat(60 << 10);
    for in_trailers in [false, true] {
        let mut bench = Bench::new(config());
        bench.proxy.bounds.unread = 100 << 10;
        let caller = bench.accept(Listener::Internal);
        bench.run();
        bench.calls(caller, &[], CALLS as usize);
        let app = bench.dial_done();
        let end = bench.ends.get_mut(&app).unwrap();
        for stream in (0..CALLS).map(|n| StreamId(1 + 2 * n)) {
            if in_trailers {
                end.send_headers(stream, section(&HEAD), false);
                end.send_headers(stream, section(&[("grpc-status", "0"), ("x", &large)]), true);
            } else {
                end.send_headers(stream, section(&[HEAD[0], HEAD[1], ("x", &large)]), false);
            }
        }
        bench.run();
        assert_eq!(bench.closed, [caller], "in trailers: {in_trailers}");
        assert_eq!(bench.proxy.calls(), 0);
    }
}

/// Those who share nothing with him do not notice when he goes.
#[test]
fn a_caller_that_reads_nothing_of_far_too_much_is_closed() {
    let mut bench = Bench::new(config());
    bench.proxy.bounds.unread = 1 << 20;
    let (staller, other) = (bench.accept(Listener::Internal), bench.accept(Listener::Internal));
    let limits = Limits { stream_window: 1, ..Limits::default() };
    let h2 = Connection::new(Role::Client, limits, head::classify, bench.now);
    bench.ends.insert(staller, h2);
    bench.stalled = true;
    bench.run();
    bench.calls(staller, &[], 8);
    let app = bench.dial_done();
    let fields = [(":status", "200"), ("content-type", "application/grpc")];
    for n in 0..8 {
        assert!(!bench.closed.contains(&staller), "after {n} windows");
        bench.say(app, 1 + 2 * n, &fields, false);
        bench.send(app, StreamId(1 + 2 * n), &vec![0; WINDOW], false);
        if bench.closed.contains(&staller) {
            assert_eq!(n, 4, "four windows are the bound, five are above it");
            break;
        }
    }
    assert_eq!((bench.closed.as_slice(), bench.proxy.calls()), (&[staller][..], 0));
    let hits = bench.proxy.cells.limits().iter().find(|(name, _)| *name == "unread_connection");
    assert_eq!(hits, Some(&("unread_connection", 1)));
    let line = "Limit unread_connection reached by unix socket: closed: responses are not read";
    assert_eq!((bench.lines, bench.last_line.as_str()), (1, line));
    bench.ends.remove(&staller);
    bench.call(other, &TO_SELF, Some(MESSAGE));
    bench.answer(app, 17, MESSAGE);
    assert!(bench.last(other).ends_with("grpc-status=0 END"), "{}", bench.last(other));
}
