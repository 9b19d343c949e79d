//! Thousands of connections at once, ten streams on each, and every kind of misfortune: calls keep
//! their octets to themselves, and when all are gone nothing of them is left.
//!
//! As part of all tests it is a tenth of its size and two rounds long; with RINGSIDE_SOAK_SECONDS it
//! is 5,000 connections with 50,000 streams a round, for so many seconds (`scripts/test` says 60).

use crate::peer::process::{PATIENCE, QUARANTINE_KIB, until};
use crate::peer::sidecar::{Options, http_get, loopback};
use crate::peer::tagged::{
    self, App, Checker, End, Wish, connect, h2_text, handshake, message, open, runtime, send, unary,
};
use crate::peer::{Kind, Sidecar, World};
use bytes::Bytes;
use h2::client::SendRequest;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const STREAMS: u64 = 10;
const FULL: u64 = 5_000;
/// Of all tests, in each setting.
const SMALL: u64 = 500;
/// Of a call that the app does not answer: by then the app has seen it, however busy it is.
const DEADLINE_MS: u64 = 15_000;
/// What a round may take: resets toward an app are paced, 200 a second on a connection.
const ROUND_MAX: Duration = Duration::from_secs(240);
/// How far resident memory may be above what it was after the first round: 5 %.
const RSS_SLACK: usize = 20;
/// A tenth of the load leaves little to compare: this much is the allocator's.
const RSS_SLACK_KIB: usize = 4 << 10;
/// More than the windows of a connection: if octets of one were lost, this would stand still.
const LAST_MESSAGE: usize = 3 << 20;
const LAST_MESSAGES: u64 = 16;

/// What becomes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Finish,
    /// The caller resets it after so many messages.
    Cancel(u64),
    /// The app does.
    Reset(u64),
    /// Its deadline is over before the app says anything.
    Late,
    /// Its connection is gone, suddenly.
    Vanish,
}

/// xorshift64*, one for each stream and connection.
struct Seed(u64);

impl Seed {
    fn new(number: u64) -> Self {
        let mixed = (number ^ 0x5eed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self((mixed ^ (mixed >> 29)) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}

/// What one round is made of.
#[derive(Clone, Debug, Default)]
struct Count {
    finished: u64,
    cancelled: u64,
    reset: u64,
    late: u64,
    vanished: u64,
    strangers: u64,
    /// Calls that ended otherwise than they should.
    wrong: Vec<String>,
}

impl Count {
    fn add(&mut self, fate: Fate) {
        *match fate {
            Fate::Finish => &mut self.finished,
            Fate::Cancel(_) => &mut self.cancelled,
            Fate::Reset(_) => &mut self.reset,
            Fate::Late => &mut self.late,
            Fate::Vanish => &mut self.vanished,
        } += 1;
    }

    fn merge(&mut self, other: Self) {
        self.finished += other.finished;
        self.cancelled += other.cancelled;
        self.reset += other.reset;
        self.late += other.late;
        self.vanished += other.vanished;
        self.strangers += other.strangers;
        self.wrong.extend(other.wrong);
    }
}

#[derive(Clone)]
struct Round {
    port: u16,
    /// Of each connection's caller: a round's ports are not free again for a minute.
    source: [u8; 4],
    number: u64,
    gate: Arc<Gate>,
    /// For those who are not connected yet.
    door: Arc<Semaphore>,
}

/// So many connect at once: sidecars give a new connection ten seconds to say something.
const AT_THE_DOOR: usize = 100;
/// So many streams go on at once: this process must answer PINGs within five seconds, too.
const TURNS: usize = 1_000;

/// Every stream is open before any goes on.
struct Gate {
    left: AtomicU64,
    turns: Semaphore,
    open: watch::Sender<bool>,
}

impl Gate {
    fn new(streams: u64) -> Self {
        let turns = Semaphore::new(TURNS);
        Self { left: AtomicU64::new(streams), turns, open: watch::Sender::new(false) }
    }

    fn arrive(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.open.send_replace(true);
        }
    }

    async fn wait(&self) {
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }
}

impl Round {
    async fn stream(&self, port: u16) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((self.source, 0).into()).expect("a port of this source");
        socket.connect(loopback(port).into()).await.expect("the sidecar accepts")
    }

    /// One connection with its streams.
    async fn connection(self, number: u64) -> Count {
        let mut count = Count::default();
        let mut seed = Seed::new(self.number << 40 | number << 8);
        if seed.below(20) == 0 {
            // Somebody else, who says something or nothing, and goes.
            let mut stranger = self.stream(self.port).await;
            let nonsense = seed.below(u64::MAX).to_le_bytes();
            let _ = stranger.write_all(&nonsense[..seed.below(8) as usize]).await;
            count.strangers += 1;
        }
        let permit = self.door.acquire().await.expect("an open door");
        let stream = self.stream(self.port).await;
        let vanishes = seed.below(25) == 0;
        if vanishes {
            // With a reset instead of an end.
            let linger = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            linger.expect("a socket option");
        }
        let (client, connection) = handshake(stream).await.expect("HTTP/2");
        let driver = tokio::spawn(connection);
        let ready = Arc::new(Gate::new(STREAMS));
        let mut streams = JoinSet::new();
        for n in 0..STREAMS {
            let tag = self.number << 40 | number << 8 | n;
            let fate = if vanishes { Fate::Vanish } else { fate(&mut seed) };
            count.add(fate);
            streams.spawn(live(
                client.clone(),
                tag,
                fate,
                [Arc::clone(&ready), Arc::clone(&self.gate)],
            ));
        }
        drop(client);
        ready.wait().await;
        drop(permit);
        if vanishes {
            self.gate.wait().await;
            sleep(Duration::from_millis(seed.below(300))).await;
            driver.abort();
        }
        count.wrong = streams.join_all().await.into_iter().filter_map(Result::err).collect();
        count
    }
}

fn fate(seed: &mut Seed) -> Fate {
    match seed.below(100) {
        0..4 => Fate::Cancel(seed.below(4)),
        4..6 => Fate::Reset(1 + seed.below(4)),
        6..8 => Fate::Late,
        _ => Fate::Finish,
    }
}

fn size(seed: &mut Seed) -> usize {
    let max = if seed.below(40) == 0 { 60_000 } else { 1_500 };
    8 + seed.below(max) as usize
}

/// One stream, until its end is what its fate says.
async fn live(
    client: SendRequest<Bytes>,
    tag: u64,
    fate: Fate,
    gates: [Arc<Gate>; 2],
) -> Result<(), String> {
    let Ok(ended) = timeout(ROUND_MAX, go(client, tag, fate, &gates)).await else {
        return Err(format!("call {tag}, {fate:?}: hangs"));
    };
    let internal = |error: &h2::Error| error.reason() == Some(h2::Reason::INTERNAL_ERROR);
    match (fate, &ended) {
        (Fate::Finish, Ok(Some(End::Ok))) | (Fate::Cancel(_), Ok(None)) => Ok(()),
        // gRPC's mapping of INTERNAL_ERROR.
        (Fate::Reset(_), Ok(Some(End::Status(13, _)))) => Ok(()),
        (Fate::Late, Ok(Some(End::Status(4, _)))) => Ok(()),
        (Fate::Vanish, Ok(Some(End::Ok)) | Err(_)) => Ok(()),
        (Fate::Reset(_), Err(error)) if internal(error) => Ok(()),
        (_, Err(error)) => Err(format!("call {tag}, {fate:?}: {}", h2_text(error))),
        (_, Ok(end)) => Err(format!("call {tag}, {fate:?}: {end:?}")),
    }
}

/// `None`: the caller has reset it.
async fn go(
    client: SendRequest<Bytes>,
    tag: u64,
    fate: Fate,
    gates: &[Arc<Gate>; 2],
) -> Result<Option<End>, h2::Error> {
    let mut seed = Seed::new(tag);
    let wish = match fate {
        Fate::Late => Wish { pause_ms: 60_000, deadline_ms: Some(DEADLINE_MS), ..Wish::default() },
        Fate::Reset(after) => Wish { reset_after: Some(after), ..Wish::default() },
        Fate::Finish | Fate::Cancel(_) | Fate::Vanish => Wish::default(),
    };
    let first = message(tag, 0, size(&mut seed));
    let begun = async {
        let (response, mut out) = open(&client, "server", tag, wish).await?;
        send(&mut out, first).await?;
        Ok::<_, h2::Error>((response.await?.into_parts(), out))
    };
    let begun = begun.await;
    for gate in gates {
        gate.arrive();
    }
    gates[1].wait().await;
    let _turn = gates[1].turns.acquire().await.expect("turns without end");
    drop(client);
    let ((head, mut body), mut out) = begun?;
    if let Some(end) = tagged::status(&head.headers) {
        return Ok(Some(end));
    }
    let mut checker = Checker::new(tag);
    // More than any fate waits for.
    let messages = 5 + seed.below(4);
    let mut sent = 1;
    loop {
        if let Fate::Cancel(at) = fate
            && checker.messages >= at
        {
            out.send_reset(h2::Reason::CANCEL);
            return Ok(None);
        }
        if sent < messages {
            // Echoes are read later, sometimes.
            for _ in 0..=seed.below(3.min(messages - sent)) {
                if send(&mut out, message(tag, sent, size(&mut seed))).await.is_err() {
                    // How it ended is what the reader hears.
                    break;
                }
                sent += 1;
            }
        } else if sent == messages {
            sent += 1;
            let _ = out.send_data(Bytes::new(), true);
        }
        // Nothing else is to be sent before an echo is here.
        let Some(data) = body.data().await else { break };
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        checker.feed(&data).expect("its own octets");
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    let end = tagged::status(&trailers).unwrap_or_else(|| panic!("{tag}: no status: {trailers:?}"));
    if end == End::Ok {
        assert!(checker.is_between(), "call {tag} is cut short");
        assert_eq!(checker.messages, messages, "call {tag}");
    }
    Ok(Some(end))
}

fn round(port: u16, number: u64, connections: u64) -> Count {
    let gate = Arc::new(Gate::new(connections * STREAMS));
    let source = [127, 0, 0, 2 + (number % 200) as u8];
    let door = Arc::new(Semaphore::new(AT_THE_DOOR));
    let round = Round { port, source, number, gate, door };
    runtime().block_on(async {
        let mut all = JoinSet::new();
        for connection in 0..connections {
            all.spawn(round.clone().connection(connection));
        }
        let mut count = Count::default();
        for one in timeout(ROUND_MAX, all.join_all()).await.expect("the round ends") {
            count.merge(one);
        }
        count
    })
}

/// A gauge of a sidecar, as its scrape tells it.
fn gauge(sidecar: &Sidecar, name: &str) -> Option<i64> {
    let scrape = http_get(sidecar.ports.metrics, "/metrics")?;
    let line = scrape.lines().find(|line| line.split(' ').next() == Some(name))?;
    line.split(' ').nth(1)?.trim().parse::<f64>().ok().map(|value| value as i64)
}

/// Open descriptors that are no gRPC connection: those that are kept come and go by the pools' rules.
fn own_fds(sidecar: &Sidecar) -> Option<i64> {
    let path = format!("/proc/{}/fd", sidecar.process.pid());
    let all = std::fs::read_dir(path).ok()?.count() as i64;
    let down = gauge(sidecar, "ringside_downstream_connections")?;
    Some(all - down - gauge(sidecar, "ringside_upstream_connections")?)
}

/// Waits until nothing is open for anybody but the connections between the sidecars, which are kept
/// for the next call.
fn settle(caller: &Sidecar, callee: &Sidecar) {
    let names = ["ringside_open_calls", "ringside_waiting_calls", "ringside_streams"];
    let connections = "ringside_downstream_connections";
    let left = || {
        let kept = gauge(caller, "ringside_upstream_connections")?;
        let busy = [caller, callee].map(|sidecar| names.map(|name| gauge(sidecar, name)));
        let strange = [gauge(caller, connections)?, gauge(callee, connections)? - kept];
        Some((busy, strange))
    };
    let begun = Instant::now();
    // By more than patience: the last resets toward an app leave in pace.
    while left() != Some(([[Some(0); 3]; 2], [0; 2])) {
        assert!(begun.elapsed() < ROUND_MAX, "left in both: {:?}", left());
        sleep_a_little();
    }
}

fn sleep_a_little() {
    std::thread::sleep(Duration::from_millis(50));
}

/// What a sidecar has when it has nothing to do.
#[derive(Clone, Copy, Debug)]
struct Level {
    fds: i64,
    rss_kib: usize,
}

fn level(sidecar: &Sidecar) -> Level {
    let fds = until(|| own_fds(sidecar)).expect("a scrape");
    Level { fds, rss_kib: sidecar.process.rss_kib() }
}

/// Not more than after the first round; the allocator may take its time to give pages back.
fn assert_level(sidecar: &Sidecar, first: Level) -> Level {
    let slack = (first.rss_kib / RSS_SLACK).max(RSS_SLACK_KIB);
    let most = first.rss_kib + slack + QUARANTINE_KIB;
    let back = until(|| {
        let now = level(sidecar);
        (now.fds <= first.fds && now.rss_kib <= most).then_some(now)
    });
    let name = &sidecar.process.name;
    back.unwrap_or_else(|| panic!("{name}: first {first:?}, now {:?}", level(sidecar)))
}

/// Many times a connection's window, both ways, on each worker's connections.
fn windows_are_whole(port: u16) {
    runtime().block_on(async {
        let mut all = JoinSet::new();
        for caller in 0..8 {
            all.spawn(async move {
                let client = connect(port).await.expect("a connection");
                let tag = 1 << 60 | caller;
                let (response, mut out) =
                    open(&client, "server", tag, Wish::default()).await.expect("a stream");
                let sender = tokio::spawn(async move {
                    for n in 0..LAST_MESSAGES {
                        send(&mut out, message(tag, n, LAST_MESSAGE)).await.expect("it goes");
                    }
                    out.send_data(Bytes::new(), true).expect("the end goes");
                });
                let mut body = response.await.expect("a head").into_body();
                let mut checker = Checker::new(tag);
                while let Some(data) = body.data().await {
                    let data = data.expect("data");
                    body.flow_control().release_capacity(data.len()).expect("a window");
                    checker.feed(&data).expect("its own octets");
                }
                sender.await.expect("a sender");
                assert_eq!(checker.messages, LAST_MESSAGES);
            });
        }
        timeout(4 * PATIENCE, all.join_all()).await.expect("nothing stands still");
    });
}

fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    setrlimit(Resource::Nofile, raised).expect("the soft limit becomes the hard one");
    let most = limit.maximum.unwrap_or(u64::MAX);
    assert!(most >= 2 * FULL, "{most} descriptors are too few: ulimit -Hn");
}

#[test]
fn nothing_is_left() {
    let seconds = std::env::var("RINGSIDE_SOAK_SECONDS").ok();
    let time = seconds.map(|text| Duration::from_secs(text.parse().expect("seconds")));
    let connections = if time.is_some() { FULL } else { SMALL };
    raise_descriptors();
    let mut world = World::with_sentry("soak");
    world.reserve(&["server", "client"]);
    let app = App::start();
    let served = Options { app_port: Some(app.port), ..Options::default() };
    let callee = Sidecar::start(&world, Kind::Ringside, "server", served);
    let caller = Sidecar::caller(&world, Kind::Ringside, "client");
    let port = caller.ports.grpc;
    let mut first: Option<[Level; 2]> = None;
    let begun = Instant::now();
    let mut rounds = 0;
    let mut all = Count::default();
    while rounds < 2 || time.is_some_and(|time| begun.elapsed() < time) {
        let count = round(port, rounds, connections);
        let wrong = &count.wrong;
        assert!(wrong.is_empty(), "{} calls, the first: {:?}", wrong.len(), &wrong[..1]);
        assert_eq!(app.book.broken(), Vec::<String>::new());
        settle(&caller, &callee);
        rounds += 1;
        let now = match first {
            None => *first.insert([&caller, &callee].map(level)),
            Some([of_caller, of_callee]) => {
                [assert_level(&caller, of_caller), assert_level(&callee, of_callee)]
            }
        };
        eprintln!("round {rounds} after {:?}: {count:?} {now:?}", begun.elapsed());
        all.merge(count);
    }
    let streams = all.finished + all.cancelled + all.reset + all.late + all.vanished;
    assert_eq!(streams, rounds * connections * STREAMS);
    for some in [all.finished, all.cancelled, all.reset, all.late, all.vanished, all.strangers] {
        assert!(some > 0, "{all:?}");
    }
    windows_are_whole(port);
    let end = runtime().block_on(async {
        let client = connect(port).await.expect("a connection");
        unary(&client, "server", 1 << 61, 0).await
    });
    assert_eq!(end, End::Ok);
    assert_eq!(app.book.broken(), Vec::<String>::new());
}
