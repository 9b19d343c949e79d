//! Restarts of the app and of either sidecar under constant load, with a real Sentry: a call that
//! the app has seen does not fail, and what does fail says so at once and may be made again.

use crate::peer::probe::{Call, ProbeApp, outcome};
use crate::peer::process::until;
use crate::peer::sidecar::{Options, Ports};
use crate::peer::tagged::{
    self, App, Checker, End, Load, Outcome, Wish, connect, message, open, runtime, send,
};
use crate::peer::{Kind, Sidecar, World};
use h2::RecvStream;
use rustix::process::Signal;
use std::fs;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const CALLERS: u64 = 8;
const UNAVAILABLE: u64 = 14;

/// No call that is told of a loss is told late.
const AT_ONCE: Duration = Duration::from_secs(5);

fn world(name: &str) -> World {
    let mut world = World::with_sentry(&format!("restarts-{name}"));
    world.reserve(&["server", "client"]);
    world
}

fn callee(world: &World, app: u16, ports: Option<Ports>, args: &[&'static str]) -> Sidecar {
    let options = Options { app_port: Some(app), ports, args: args.to_vec(), ..Options::default() };
    Sidecar::start(world, Kind::Ringside, "server", options)
}

fn count(outcomes: &[Outcome], which: impl Fn(&End) -> bool) -> usize {
    outcomes.iter().filter(|outcome| which(&outcome.end)).count()
}

/// Every call that the app has seen came back; all others were told UNAVAILABLE, or that their
/// connection is gone, without delay. How many failed.
fn judge(app: &App, outcomes: &[Outcome]) -> usize {
    let mut failed = 0;
    for Outcome { tag, end, took, .. } in outcomes {
        let seen = app.book.has_seen(*tag);
        match end {
            End::Ok => assert!(seen, "call {tag} was answered by somebody else"),
            End::Status(UNAVAILABLE, _) | End::Lost(_) => {
                assert!(!seen, "call {tag} was accepted, and failed: {end:?}");
                assert!(*took < AT_ONCE, "call {tag} was told after {took:?}: {end:?}");
                failed += 1;
            }
            End::Status(..) => panic!("call {tag}: {end:?}"),
        }
    }
    let broken = app.book.broken();
    assert!(broken.is_empty(), "the app complains: {broken:?}");
    failed
}

/// Every call that was begun after `since`, of which there are some, came back.
fn assert_served(outcomes: &[Outcome], since: Instant) {
    let late: Vec<_> = outcomes.iter().filter(|outcome| outcome.begun > since).collect();
    let failed: Vec<_> = late.iter().filter(|outcome| outcome.end != End::Ok).collect();
    assert!(failed.is_empty(), "{} of {} failed: {:?}", failed.len(), late.len(), failed[0]);
    assert!(late.len() > 50, "{} calls", late.len());
}

/// Two instances behind one app id are restarted in turn: nobody notices at all.
#[test]
fn two_callees_restart_in_turn() {
    let mut world = world("two");
    let second = world.replicate("server");
    let app = App::start();
    let args = ["--dapr-block-shutdown-duration", "200ms"];
    let mut instances = [None, Some(second)].map(|ports| callee(&world, app.port, ports, &args));
    let caller = Sidecar::caller(&world, Kind::Ringside, "client");
    let begun = Instant::now();
    let load = Load::start(caller.ports.grpc, "server", CALLERS, 1);
    load.wait_for(200);
    for _ in 0..2 {
        for (instance, ports) in instances.iter_mut().zip([None, Some(second)]) {
            assert_eq!(instance.process.terminate().code(), Some(0), "{}", instance.process.tail());
            load.wait_for(200);
            *instance = callee(&world, app.port, ports, &args);
            load.wait_for(200);
        }
    }
    let outcomes = load.stop();
    assert_served(&outcomes, begun);
    assert_eq!(judge(&app, &outcomes), 0);
}

/// There is nobody else: calls fail while it is away, none that it had taken.
#[test]
fn the_only_callee_restarts() {
    let world = world("callee");
    let app = App::start();
    let mut only = callee(&world, app.port, None, &[]);
    let caller = Sidecar::caller(&world, Kind::Ringside, "client");
    let load = Load::start(caller.ports.grpc, "server", CALLERS, 1);
    for _ in 0..3 {
        load.wait_for(300);
        assert_eq!(only.process.terminate().code(), Some(0), "{}", only.process.tail());
        // Refused, and not for ever: each of these is told.
        load.wait_for(50);
        only = callee(&world, app.port, None, &[]);
    }
    let back = Instant::now();
    load.wait_for(300);
    let outcomes = load.stop();
    let failed = judge(&app, &outcomes);
    assert!(failed >= 3 * 50 / 2, "{failed} calls met nobody");
    let refused = |end: &End| match end {
        End::Status(_, text) => text.contains("refused") || text.contains("reading server preface"),
        End::Ok | End::Lost(_) => false,
    };
    assert_eq!(count(&outcomes, refused), failed, "every failure tells that nobody was there");
    assert_served(&outcomes, back);
}

/// Its callers are told by GOAWAY and connect again: nothing that was accepted is lost, neither by
/// SIGTERM and a new process, nor by SIGHUP, which stays the same one.
#[test]
fn the_callers_sidecar_restarts() {
    let world = world("caller");
    let app = App::start();
    let _callee = callee(&world, app.port, None, &[]);
    let mut caller = Sidecar::caller(&world, Kind::Ringside, "client");
    let load = Load::start(caller.ports.grpc, "server", CALLERS, 1);
    load.wait_for(300);
    let config = world.folder("client-ringside").join("config.yaml");
    for _ in 0..2 {
        assert_eq!(caller.process.terminate().code(), Some(0), "{}", caller.process.tail());
        caller = Sidecar::caller(&world, Kind::Ringside, "client");
        load.wait_for(300);
        let starts = |sidecar: &Sidecar| {
            sidecar.process.log().matches("dapr initialized. Status: Running").count()
        };
        // Something that holds from a start on.
        let text = fs::read_to_string(&config).expect("the Configuration");
        fs::write(&config, format!("{text}  tracing: {{samplingRate: '1'}}\n")).expect("the same");
        caller.process.signal(Signal::HUP);
        let again = until(|| (starts(&caller) == 2).then_some(()));
        assert!(again.is_some(), "{}", caller.process.tail());
        load.wait_for(300);
    }
    let outcomes = load.stop();
    judge(&app, &outcomes);
    assert_eq!(count(&outcomes, |end| matches!(end, End::Status(..))), 0, "no call is refused");
    assert!(count(&outcomes, |end| *end == End::Ok) > 1000);
}

/// An app that ends as it should and comes back: GOAWAY, the last answers, a closed port, a new
/// life.
#[test]
fn the_app_restarts() {
    let world = world("app");
    let mut app = App::start();
    let _callee = callee(&world, app.port, None, &[]);
    let caller = Sidecar::caller(&world, Kind::Ringside, "client");
    let load = Load::start(caller.ports.grpc, "server", CALLERS, 1);
    for _ in 0..5 {
        load.wait_for(200);
        app.stop();
        load.wait_for(20);
        app.begin_again();
    }
    let back = Instant::now();
    load.wait_for(200);
    let outcomes = load.stop();
    let failed = judge(&app, &outcomes);
    assert!(failed >= 5 * 20 / 2, "{failed} calls met nobody");
    assert_eq!(count(&outcomes, |end| matches!(end, End::Lost(_))), 0);
    assert_served(&outcomes, back);
}

/// An app that is late: who calls before it listens is told, and served as soon as it does.
#[test]
fn the_app_starts_slowly() {
    let world = world("slow");
    let mut app = App::start();
    app.stop();
    let options = Options { app_port: Some(app.port), await_app: false, ..Options::default() };
    let _callee = Sidecar::start(&world, Kind::Ringside, "server", options);
    let caller = Sidecar::caller(&world, Kind::Ringside, "client");
    let load = Load::start(caller.ports.grpc, "server", CALLERS, 1);
    load.wait_for(200);
    app.begin_again();
    let back = Instant::now();
    load.wait_for(400);
    let outcomes = load.stop();
    let failed = judge(&app, &outcomes);
    assert!(failed >= 200, "{failed} calls came early");
    assert_served(&outcomes, back);
}

/// Echoes one message after the other until the stream ends; how it ended, and after how many.
async fn talk(port: u16, tag: u64, echoed: Arc<AtomicUsize>) -> Result<(End, usize), h2::Error> {
    let client = connect(port).await.expect("a connection");
    let (response, mut out) = open(&client, "server", tag, Wish::default()).await?;
    send(&mut out, message(tag, 0, 100)).await?;
    let (head, mut body) = response.await?.into_parts();
    if let Some(end) = tagged::status(&head.headers) {
        return Ok((end, 0));
    }
    let mut checker = Checker::new(tag);
    for count in 0.. {
        match echo(&mut body, &mut checker).await? {
            true => echoed.fetch_add(1, Ordering::Relaxed),
            false => {
                let trailers = body.trailers().await?.expect("trailers");
                return Ok((tagged::status(&trailers).expect("a status"), count));
            }
        };
        tokio::time::sleep(Duration::from_millis(5)).await;
        // When this fails the status is on its way.
        let _ = send(&mut out, message(tag, count as u64 + 1, 100)).await;
    }
    unreachable!("no stream ends without a status")
}

/// Reads one message; false at the end of the stream.
async fn echo(body: &mut RecvStream, checker: &mut Checker) -> Result<bool, h2::Error> {
    let before = checker.messages;
    while checker.messages == before {
        let Some(data) = body.data().await else { return Ok(false) };
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        checker.feed(&data).expect("its own octets");
    }
    Ok(true)
}

/// Streams that do not end by themselves hold a drain until `--ringside-drain-max`; then they end
/// UNAVAILABLE, which tells a client to open them again. So does the sudden end of a process.
#[test]
fn streams_are_told_to_open_again() {
    const STREAMS: u64 = 10;
    let world = world("streams");
    let app = App::start();
    let args = ["--ringside-drain-max", "500ms"];
    let mut only = callee(&world, app.port, None, &args);
    let caller = Sidecar::caller(&world, Kind::Ringside, "client");
    let port = caller.ports.grpc;
    for round in 0..3 {
        let echoed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&echoed);
        let streams = std::thread::spawn(move || {
            runtime().block_on(async {
                let mut all = JoinSet::new();
                for stream in 0..STREAMS {
                    all.spawn(talk(port, round << 8 | stream, Arc::clone(&count)));
                }
                all.join_all().await
            })
        });
        let busy = until(|| (echoed.load(Ordering::Relaxed) > 200).then_some(()));
        assert!(busy.is_some(), "the streams flow");
        if round == 1 {
            only.process.signal(Signal::KILL);
            only.process.wait_for_end();
        } else {
            assert_eq!(only.process.terminate().code(), Some(0), "{}", only.process.tail());
        }
        for ended in streams.join().expect("streams that end") {
            let (end, count) = ended.expect("a status, not a reset");
            let End::Status(UNAVAILABLE, text) = &end else { panic!("{end:?}") };
            let told = ["--ringside-drain-max", "error reading from server: "];
            assert!(text.contains(told[usize::from(round == 1)]), "{text}");
            assert!(count > 0);
        }
        only = callee(&world, app.port, None, &args);
    }
}

/// Everything of a pod gets SIGTERM at once, and the app is the first to go: daprd goes on taking
/// calls for it until its time is over; ringside says goodbye.
#[test]
fn an_app_that_ends_first_takes_its_sidecar_along() {
    let world = world("first");
    let app = ProbeApp::start(&world);
    let args = ["--dapr-block-shutdown-duration", "10m"];
    let mut sidecar = callee(&world, app.port, None, &args);
    let caller = Sidecar::caller(&world, Kind::Ringside, "client");
    let call = Call::to(&caller.address()).app("server").metadata("probe-flush", "1");
    let mut call = call.metadata("probe-sleep-ms", "60000").start(&world, "in-flight");
    until(|| (app.seen().len() == 1).then_some(())).expect("the call at the app");
    sidecar.process.signal(Signal::TERM);
    sidecar.process.wait_for_line("Blocking graceful shutdown for 10m0s or until app reports");
    let served = Call::to(&caller.address()).app("server").run(&world, "meanwhile");
    assert_eq!(served.status(), ("OK", ""), "all goes on as long as there is an app");
    let begun = Instant::now();
    app.process.signal(Signal::KILL);
    call.wait_for_end();
    let lost = outcome(&call);
    assert_eq!(lost.code, "Unavailable", "{}", lost.message);
    assert_eq!(sidecar.process.wait_for_end().code(), Some(0), "{}", sidecar.process.tail());
    assert!(begun.elapsed() < 2 * AT_ONCE, "it ended after {:?}", begun.elapsed());
    let log = sidecar.process.log();
    assert!(log.contains("App reported unhealthy, entering shutdown..."), "{log}");
    let call = Call::to(&caller.address()).app("server").run(&world, "late");
    assert_eq!(call.code, "Unavailable", "{}", call.message);
    assert!(call.elapsed_ms < 5000, "told after {} ms", call.elapsed_ms);
}

/// An app that is killed: what it had taken is told at once, what comes later too, and nothing of
/// either when it is back.
#[test]
fn an_app_that_is_killed_hangs_nobody() {
    let world = world("killed");
    let mut app = ProbeApp::start(&world);
    let port = app.port;
    let sidecar = callee(&world, port, None, &[]);
    let caller = Sidecar::caller(&world, Kind::Ringside, "client");
    for round in 0..3 {
        let in_flight: Vec<_> = (0..4)
            .map(|n| {
                let call = Call::to(&caller.address()).app("server").metadata("probe-flush", "1");
                let call = call.metadata("probe-sleep-ms", "60000");
                call.start(&world, &format!("in-flight-{round}-{n}"))
            })
            .collect();
        until(|| (app.seen().len() >= 4).then_some(())).expect("the calls at the app");
        app.process.signal(Signal::KILL);
        for mut call in in_flight {
            call.wait_for_end();
            assert_eq!(outcome(&call).code, "Unavailable");
        }
        until(|| TcpStream::connect(("127.0.0.1", port)).err()).expect("a closed port");
        let late = Call::to(&caller.address()).app("server").run(&world, &format!("late-{round}"));
        assert_eq!(late.code, "Unavailable", "{}", late.message);
        assert!(late.elapsed_ms < 5000, "told after {} ms", late.elapsed_ms);
        app = ProbeApp::start_at(&world, &format!("app-{round}"), port, None);
        let back = Call::to(&caller.address()).app("server").run(&world, &format!("back-{round}"));
        assert_eq!(back.status(), ("OK", ""));
    }
    drop(sidecar);
}

/// 16 clients are gone at once with 160 streams, again and again: an app that counts resets, as
/// those on the `h2` crate, keeps its connection, and no other caller notices.
#[test]
fn clients_that_vanish_are_not_noticed() {
    const CLIENTS: u64 = 16;
    const EACH: u64 = 10;
    const ROUNDS: u64 = 10;
    let world = world("vanish");
    let app = App::start();
    let _callee = callee(&world, app.port, None, &[]);
    let caller = Sidecar::caller(&world, Kind::Ringside, "client");
    let port = caller.ports.grpc;
    let load = Load::start(port, "server", CALLERS, 1);
    load.wait_for(100);
    let before = app.book.connections.load(Ordering::Relaxed);
    let book = Arc::clone(&app.book);
    let over = Arc::new(AtomicBool::new(false));
    let storm = {
        let over = Arc::clone(&over);
        std::thread::spawn(move || {
            for round in 0..ROUNDS {
                let tag = |n: u64| (1 << 48) + round * CLIENTS * EACH + n;
                // The runtime goes with its connections, in the middle of everything.
                runtime().block_on(async {
                    let mut streams = Vec::new();
                    for client in 0..CLIENTS {
                        let connection = connect(port).await.expect("a connection");
                        for n in 0..EACH {
                            let tag = tag(client * EACH + n);
                            streams.push(
                                open(&connection, "server", tag, Wish::default())
                                    .await
                                    .expect("a stream"),
                            );
                        }
                    }
                    let all = || (0..CLIENTS * EACH).all(|n| book.has_seen(tag(n)));
                    while !all() {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                });
            }
            over.store(true, Ordering::Relaxed);
        })
    };
    until(|| over.load(Ordering::Relaxed).then_some(())).expect("the storms pass");
    storm.join().expect("the storms pass");
    load.wait_for(200);
    let outcomes = load.stop();
    assert_eq!(judge(&app, &outcomes), 0);
    let after = app.book.connections.load(Ordering::Relaxed);
    assert_eq!(before, after, "the app's connections were made anew");
    let slowest = outcomes.iter().map(|outcome| outcome.took).max().expect("calls");
    assert!(slowest < AT_ONCE, "somebody waited {slowest:?}");
}
