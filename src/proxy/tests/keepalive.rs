//! Who is asked for a sign of life, how often, and who is counted as waiting.

use super::*;
use crate::observe::cells::Gauge;

const TO_APP: [(&str, &str); 1] = [("dapr-callee-app-id", "client")];
const FAR_APP: &str = "10.0.0.7:50051";

/// What grpc-go's server makes of PINGs by default (its `internal/transport/http2_server.go`,
/// `handlePing`): a third one within five minutes of the one before ends the connection, unless
/// HEADERS or DATA were sent since; without streams, two hours instead of five minutes.
#[derive(Default)]
struct Enforcer {
    last: Option<Instant>,
    strikes: u32,
    wrote: bool,
    pings: usize,
}

impl Enforcer {
    fn on_ping(&mut self, streams: usize, now: Instant) {
        self.pings += 1;
        let least = Duration::from_secs(if streams > 0 { 300 } else { 7200 });
        if std::mem::take(&mut self.wrote) {
            self.strikes = 0;
        } else if self.last.is_some_and(|last| last + least > now) {
            self.strikes += 1;
        }
        self.last = Some(now);
        assert!(self.strikes <= 2, "too_many_pings after {} PINGs", self.pings);
    }
}

/// PINGs that an end hears are acknowledged by its engine; here they are counted, too.
fn pings_in(bytes: &[u8]) -> usize {
    let (mut at, mut pings) = (0, 0);
    while let Some(head) = bytes.get(at..at + 9) {
        let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        pings += usize::from(head[3] == 6 && head[4] & 1 == 0);
        at += 9 + len;
    }
    pings
}

/// A sidecar whose app is at `app`, with one call open that the app has not answered.
fn with_app(app: &str) -> (Bench, ConnId, ConnId) {
    let mut bench = Bench::new(config());
    let snapshot = Snapshot {
        epoch: Epoch(2),
        app: Some(endpoint(app).into()),
        ..Snapshot::new(Arc::new(config()))
    };
    bench.handle(Input::Snapshot(Arc::new(snapshot)));
    let caller = bench.accept(Listener::Internal);
    bench.call(caller, &TO_APP, Some(MESSAGE));
    assert_eq!(bench.dialed[0].1, endpoint(app).into());
    let app = bench.dial_done();
    (bench, caller, app)
}

/// Lets time pass in which the app's enforcer is asked about each PING.
fn pass(bench: &mut Bench, app: ConnId, enforcer: &mut Enforcer, time: Duration) {
    let until = bench.now + time;
    // Bounded: each turn is a second.
    while bench.now < until {
        bench.now += Duration::from_secs(1);
        bench.proxy.handle(Input::Tick, bench.now);
        let mut heard = 0;
        while let Some(output) = bench.proxy.poll_output() {
            if let Output::Dirty(conn) = output
                && conn == app
            {
                let mut out = Transmit::new();
                while bench.proxy.transmit(conn, &mut out, usize::MAX) {}
                let bytes: Vec<u8> = out.slices().flatten().copied().collect();
                heard += pings_in(&bytes);
                bench.ends.get_mut(&app).unwrap().recv(bytes.into(), bench.now);
                bench.note(app);
            } else {
                bench.obey(output);
            }
        }
        let streams = bench.ends[&app].streams();
        for _ in 0..heard {
            enforcer.on_ping(streams, bench.now);
        }
        bench.run();
    }
}

/// An hour in which the app says nothing, and one in which it says something now and then.
#[test]
fn a_far_app_never_counts_too_many_pings() {
    let (mut bench, caller, app) = with_app(FAR_APP);
    let mut enforcer = Enforcer::default();
    let hour = Duration::from_secs(3600);
    pass(&mut bench, app, &mut enforcer, hour);
    let silent = enforcer.pings;
    assert!((9..=12).contains(&silent), "{silent} PINGs in an hour");
    let mut second = None;
    for round in 0..120 {
        // Heads of new calls, each of which ends; the first one stays silent.
        if round % 3 == 0 {
            let stream = 3 + 2 * round / 3;
            bench.call(caller, &TO_APP, Some(MESSAGE));
            bench.answer(app, stream, MESSAGE);
            enforcer.wrote = true;
            second = Some(stream);
        }
        pass(&mut bench, app, &mut enforcer, Duration::from_secs(30));
    }
    assert_eq!(second, Some(3 + 2 * 39));
    // Once in each silence that followed words.
    assert_eq!(enforcer.pings - silent, 40);
    assert!(bench.closed.is_empty(), "the app answered every PING");
    assert_eq!(bench.proxy.calls(), 1);
}

/// Without calls nobody is asked: not even an app far away.
#[test]
fn a_far_app_without_calls_is_left_alone() {
    let (mut bench, _, app) = with_app(FAR_APP);
    bench.answer(app, 1, MESSAGE);
    let mut enforcer = Enforcer::default();
    pass(&mut bench, app, &mut enforcer, Duration::from_secs(170));
    assert_eq!(enforcer.pings, 0);
}

/// The network of the app's machine is gone: its calls are told after 30 s at the latest.
#[test]
fn a_far_app_that_is_gone_is_given_up() {
    let (mut bench, caller, app) = with_app(FAR_APP);
    bench.ends.remove(&app);
    let found = peer::KEEPALIVE_INTERVAL + peer::APP_PING_TIMEOUT;
    assert!(found <= Duration::from_secs(30));
    bench.wait(peer::KEEPALIVE_INTERVAL);
    bench.wait(peer::APP_PING_TIMEOUT - Duration::from_millis(1));
    assert_eq!((bench.proxy.calls(), bench.closed.len()), (1, 0));
    bench.wait(Duration::from_millis(1));
    assert_eq!(bench.closed, [app]);
    let last = bench.last(caller);
    assert!(last.contains("grpc-status=14"), "{last}");
    assert!(last.contains("keepalive ping failed to receive ACK within timeout"), "{last}");
}

/// An app beside us may stand still in a debugger; the kernel tells us when it ends.
#[test]
fn an_app_beside_us_is_never_asked() {
    let (mut bench, _, app) = with_app(APP);
    let mut enforcer = Enforcer::default();
    pass(&mut bench, app, &mut enforcer, Duration::from_secs(600));
    assert_eq!((enforcer.pings, bench.proxy.calls()), (0, 1));
}

/// The gauge is of calls that wait for a connection, and of those that wait for a stream.
#[test]
fn calls_that_wait_are_counted() {
    let mut bench = Bench::new(config());
    let caller = bench.accept(Listener::Internal);
    let waiting = |bench: &mut Bench| {
        let told = bench.proxy.hand_over_cells();
        (told.gauge(Gauge::WaitingCalls), told.gauge(Gauge::OpenCalls))
    };
    for _ in 0..3 {
        bench.call(caller, &TO_APP, Some(MESSAGE));
    }
    assert_eq!(waiting(&mut bench), (3, 3));
    let one = Limits { max_concurrent_streams: Some(1), ..Limits::default() };
    let first = bench.dial_done_with(one.clone());
    assert_eq!(waiting(&mut bench), (2, 3), "one has its stream");
    // A second connection is dialed for those who still wait, and allows one as well.
    let second = bench.dial_done_with(one);
    assert_eq!(waiting(&mut bench), (1, 3));
    bench.answer(first, 1, MESSAGE);
    assert_eq!(waiting(&mut bench), (0, 2));
    for (app, stream) in [(first, 3), (second, 1)] {
        bench.answer(app, stream, MESSAGE);
    }
    assert_eq!(waiting(&mut bench), (0, 0));
    // And one that gives up while it waits.
    let stream = bench.call(caller, &TO_APP, None);
    bench.call(caller, &TO_APP, None);
    let late = bench.call(caller, &TO_APP, None);
    assert_eq!(waiting(&mut bench), (1, 3));
    for gone in [late, stream] {
        let end = bench.ends.get_mut(&caller).unwrap();
        end.send_reset(gone, crate::http2::ErrorCode::CANCEL);
        bench.run();
    }
    assert_eq!(waiting(&mut bench).0, 0);
}
