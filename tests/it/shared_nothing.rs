//! No cache line is written for calls by two workers: seen from outside, in the memory of a
//! running pair of sidecars with mTLS.
//!
//! A window is some calls over one connection, and so by one worker, between two copies of all
//! memory that the process can write. It counts only if no other thread of the process ran at all
//! meanwhile, by the scheduler's own books: control has ticks each second, connections are kept
//! alive every ten. Whatever changed was then written by that worker, or for it by the kernel. The lines
//! of the one worker's windows and of the other's must have nothing in common. Windows end with
//! calls open, too, where reference counts stand higher.
//!
//! What it cannot see: a line written with what it held. What it leaves out: the allocator's
//! books of whole pages (64 KiB), which all threads share and which are written when a burst makes
//! a worker take pages, and give them back (docs/adr/0080).

use crate::peer::app::App;
use crate::peer::process::{PATIENCE, Process};
use crate::peer::sidecar::{Options, http_get, loopback};
use crate::peer::{Kind, Sidecar, World};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

const PAGE: usize = 4096;
const LINE: usize = 64;

/// Windows of each worker that count, at least, and calls in all of them.
const WINDOWS: usize = 12;
const CALLS_IN_ALL: usize = 240;
/// Calls of a window: fewer where they take so long that other threads run meanwhile.
const CALLS: usize = 60;
const CALLS_LEAST: usize = 5;
/// Calls that stay open all the time, and those that are open at the end of a window.
const HELD_CALLS: usize = 20;
const OPEN_CALLS: usize = 2;

/// Windows that did not count, at most; half of them, perhaps, on a busy machine.
const VOID_MAX: usize = 600;

/// One page for each address.
type Memory = BTreeMap<u64, Vec<u8>>;
type Lines = BTreeSet<u64>;

/// Everything that is writable and there.
fn memory(pid: u32) -> Memory {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("the maps");
    let mem = File::open(format!("/proc/{pid}/mem")).expect("the memory");
    let pagemap = File::open(format!("/proc/{pid}/pagemap")).expect("the page map");
    let mut memory = Memory::new();
    for map in maps.lines() {
        let mut columns = map.split_whitespace();
        let (range, rights) = (columns.next().unwrap(), columns.next().unwrap());
        if !rights.contains('w') {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let address = |text| u64::from_str_radix(text, 16).unwrap();
        let (start, end) = (address(start), address(end));
        let pages = usize::try_from(end - start).unwrap() / PAGE;
        let mut entries = vec![0; pages * 8];
        pagemap.read_exact_at(&mut entries, start / PAGE as u64 * 8).expect("the page map");
        for (number, entry) in entries.chunks_exact(8).enumerate() {
            // Bit 63: present, 62: swapped out. The top octet, as most are neither.
            if entry[7] >> 6 == 0 {
                continue;
            }
            let at = start + (number * PAGE) as u64;
            let mut page = vec![0; PAGE];
            if mem.read_exact_at(&mut page, at).is_ok() {
                memory.insert(at, page);
            } else {
                // Rings are mapped such that they cannot be read from outside; each is one
                // worker's, by a descriptor that no other worker has.
                assert!(map.contains("[io_uring]"), "unreadable: {map}");
            }
        }
    }
    memory
}

/// Lines that differ. A page that was not there was zero.
fn changed(before: &Memory, after: &Memory) -> Lines {
    let zero = vec![0; PAGE];
    let mut lines = Lines::new();
    for (at, page) in after {
        let old = before.get(at).unwrap_or(&zero);
        let pairs = old.chunks_exact(LINE).zip(page.chunks_exact(LINE));
        let differ = pairs.enumerate().filter(|(_, (old, new))| old != new);
        lines.extend(differ.map(|(number, _)| at + (number * LINE) as u64));
    }
    lines
}

/// How long each thread has run and how often it was put on a CPU, by its name and ID. Whoever runs
/// now is told of when he stops.
fn turns(pid: u32) -> BTreeMap<(String, String), (u64, u64)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the threads");
    let turns = tasks.map(|task| {
        let path = task.expect("a thread").path();
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default().trim().to_owned();
        let stat = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        let mut numbers = stat.split_whitespace().map(|number| number.parse().ok());
        let turns = numbers.next().flatten().zip(numbers.nth(1).flatten());
        let id = path.file_name().unwrap().to_string_lossy().into_owned();
        ((name, id), turns.expect("/proc/PID/task/TID/schedstat"))
    });
    turns.collect()
}

struct Caller {
    client: SendRequest<Bytes>,
    worker: String,
}

impl Caller {
    async fn connect(port: u16, worker: usize) -> Self {
        let stream = tokio::net::TcpStream::connect(loopback(port)).await.expect("a connection");
        let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        let mut caller = Self { client, worker: format!("worker-{worker}") };
        caller.call().await;
        caller
    }

    async fn begin(&mut self) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        std::future::poll_fn(|context| self.client.poll_ready(context)).await.expect("room");
        let request = Request::post("http://sidecar/helloworld.Greeter/SayHello")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("dapr-app-id", "server")
            .body(());
        self.client.send_request(request.expect("a request"), false).expect("a stream")
    }

    async fn call(&mut self) {
        let (response, send) = self.begin().await;
        end(response, send).await;
    }
}

/// Ends the request, and reads the response to its end.
async fn end(response: h2::client::ResponseFuture, mut send: SendStream<Bytes>) {
    // HelloRequest{name: "you"}.
    send.send_data(Bytes::from_static(b"\0\0\0\0\x05\x0a\x03you"), true).expect("a message");
    let response: Response<RecvStream> = response.await.expect("a response");
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        let data = data.expect("a message");
        body.flow_control().release_capacity(data.len()).expect("credit");
    }
    let trailers = body.trailers().await.expect("trailers").expect("trailers");
    assert_eq!(trailers.get("grpc-status").map(http::HeaderValue::as_bytes), Some(&b"0"[..]));
}

/// Whose turns are others than they were.
fn who_ran(before: &BTreeMap<(String, String), (u64, u64)>, pid: u32) -> BTreeSet<String> {
    let now = turns(pid);
    let ended = before.keys().filter(|thread| !now.contains_key(*thread));
    let ran = now.iter().filter(|(thread, turns)| before.get(*thread) != Some(turns));
    ran.map(|(thread, _)| thread).chain(ended).map(|(name, _)| name.clone()).collect()
}

/// What a window changed; `None` when another thread ran meanwhile.
async fn window(pid: u32, caller: &mut Caller, calls: usize) -> Option<Lines> {
    let turns_before = turns(pid);
    let before = memory(pid);
    for _ in 0..calls {
        caller.call().await;
    }
    let mut open = Vec::new();
    for _ in 0..OPEN_CALLS {
        open.push(caller.begin().await);
    }
    // Behind them on the same connection: they are all there when this has ended.
    caller.call().await;
    let midst = memory(pid);
    for (response, send) in open {
        end(response, send).await;
    }
    let after = memory(pid);
    let ran = who_ran(&turns_before, pid);
    if ran.iter().ne([&caller.worker]) {
        return None;
    }
    let mut lines = changed(&before, &midst);
    lines.extend(changed(&midst, &after));
    Some(lines)
}

async fn windows(process: &Process, callers: [&mut Caller; 2]) -> [Lines; 2] {
    let pid = process.pid();
    let mut lines = [Lines::new(), Lines::new()];
    let mut void = 0;
    for (caller, lines) in callers.into_iter().zip(&mut lines) {
        let (mut counted, mut called, mut calls) = (0, 0, CALLS);
        while counted < WINDOWS || called < CALLS_IN_ALL {
            match window(pid, caller, calls).await {
                Some(changed) => {
                    assert!(changed.len() > 50, "{}: calls leave traces", caller.worker);
                    lines.extend(changed);
                    (counted, called) = (counted + 1, called + calls);
                }
                None => {
                    void += 1;
                    calls = (calls / 2).max(CALLS_LEAST);
                }
            }
            assert!(void < VOID_MAX, "{}: other threads run all the time", process.name);
        }
    }
    println!(
        "{}: {} and {} lines, {void} windows void",
        process.name,
        lines[0].len(),
        lines[1].len()
    );
    lines
}

/// Where a line is, for whoever has to find out what it holds.
fn place(pid: u32, line: u64) -> String {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let holds = |map: &&str| {
        let range = map.split(' ').next().and_then(|range| range.split_once('-'));
        let number = |text| u64::from_str_radix(text, 16).ok();
        range.is_some_and(|(start, end)| {
            number(start).is_some_and(|start| start <= line)
                && number(end).is_some_and(|end| line < end)
        })
    };
    format!("{line:#x} in {}", maps.lines().find(holds).unwrap_or("no map"))
}

fn has_two_connections(port: u16) -> bool {
    let Some(metrics) = http_get(port, "/metrics") else { return false };
    let name = "ringside_worker_downstream_connections";
    (0..2).all(|worker| metrics.contains(&format!("{name}{{worker=\"{worker}\"}} 1\n")))
}

fn nothing_is_shared(name: &str, driver: &str) {
    let mut world = World::with_sentry(name);
    world.reserve(&["client", "server"]);
    let app = App::greeter(&world);
    let args = vec!["--ringside-workers", "2", "--ringside-io", driver];
    let options = Options { args: args.clone(), app_port: Some(app.port), ..Options::default() };
    let server = Sidecar::start(&world, Kind::Ringside, "server", options);
    let options = Options { args, ..Options::default() };
    let client = Sidecar::start(&world, Kind::Ringside, "client", options);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (ours, theirs) = runtime.expect("a runtime").block_on(async {
        let mut one = Caller::connect(client.ports.grpc, 0).await;
        let mut two = Caller::connect(client.ports.grpc, 1).await;
        // Each of the client's workers has its own connection to the server, on a worker each.
        assert!(has_two_connections(client.ports.metrics));
        assert!(has_two_connections(server.ports.metrics));
        let mut held = Vec::new();
        for _ in 0..HELD_CALLS {
            held.push((one.begin().await, two.begin().await));
        }
        let warm = Instant::now();
        while warm.elapsed() < Duration::from_secs(2) {
            one.call().await;
            two.call().await;
        }
        let windows = async {
            let ours = windows(&client.process, [&mut one, &mut two]).await;
            let theirs = windows(&server.process, [&mut one, &mut two]).await;
            (ours, theirs)
        };
        let lines = tokio::time::timeout(8 * PATIENCE, windows).await.expect("enough windows");
        for ((response, send), (other_response, other_send)) in held {
            end(response, send).await;
            end(other_response, other_send).await;
        }
        lines
    });
    for (sidecar, lines) in [(&client, ours), (&server, theirs)] {
        let shared: Vec<String> =
            lines[0].intersection(&lines[1]).map(|at| place(sidecar.process.pid(), *at)).collect();
        let (name, count) = (&sidecar.process.name, shared.len());
        assert!(shared.is_empty(), "{name}: {count} lines\n{}", shared.join("\n"));
    }
}

#[test]
fn workers_write_no_line_in_common_with_io_uring() {
    nothing_is_shared("shared-nothing-uring", "uring");
}

#[test]
fn workers_write_no_line_in_common_with_epoll() {
    nothing_is_shared("shared-nothing-epoll", "epoll");
}
