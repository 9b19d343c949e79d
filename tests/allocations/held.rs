//! What a sidecar keeps for connections and streams on which nothing happens.

use super::{REQUEST, connection, receive, said, section};
use allocation_counter::measure;
use bytes::Bytes;
use ringside::config::{Environment, Flags, Settings};
use ringside::http2::{Connection, Event, Role};
use ringside::proxy::{Arrival, ConnId, Endpoint, Input, Listener, Output, Proxy, Transmit};
use ringside::snapshot::Snapshot;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Octets of the heap for a connection without a call, with a call a moment ago, and with one a
/// while ago; for a call that is held. Loosen with thought.
const IDLE_MAX: i64 = 2000;
const BUSY_MAX: i64 = 5200;
const USED_MAX: i64 = 3000;
const CALL_MAX: i64 = 1200;
/// Long enough that a connection gives back what it does not need, and not for PINGs.
const REST: Duration = Duration::from_secs(3);

/// A sidecar of an app, its callers, and that app, which answers when it is asked to.
struct Crowd {
    proxy: Proxy,
    now: Instant,
    callers: Vec<(ConnId, Connection)>,
    apps: HashMap<ConnId, Connection>,
    answering: bool,
    /// Octets on the heap, the proxy's own.
    held: i64,
}

impl Crowd {
    #[expect(clippy::disallowed_methods, reason = "an arbitrary instant to count from")]
    fn new(answering: bool) -> Self {
        let flags = Flags { app_id: "a".into(), app_port: "5000".into(), ..Flags::default() };
        let settings = Settings::new(&flags, &Environment::default()).expect("settings");
        let app = Some(Endpoint(([127, 0, 0, 1], 5000).into()).into());
        let snapshot = Snapshot { app, ..Snapshot::new(Arc::new(settings.config)) };
        let now = Instant::now();
        let (callers, apps) = (Vec::new(), HashMap::new());
        let proxy = Proxy::new(Arc::new(snapshot), now);
        Self { proxy, now, callers, apps, answering, held: 0 }
    }

    /// Does something with the proxy; what it keeps of it counts.
    fn counting<T>(&mut self, work: impl FnOnce(&mut Proxy, Instant) -> T) -> T {
        let mut done = None;
        let info = measure(|| done = Some(work(&mut self.proxy, self.now)));
        self.held += info.bytes_current;
        done.expect("done")
    }

    fn accept(&mut self) {
        let arrival = Arrival { listener: Listener::Internal, peer: None, spiffe_id: None };
        let conn = self.counting(|proxy, now| proxy.accept(arrival, now));
        self.callers.push((conn, connection(Role::Client)));
        self.settle();
    }

    /// A call on each of the callers' connections.
    fn call_each(&mut self) {
        for at in 0..self.callers.len() {
            let fields = [REQUEST, &[("dapr-callee-app-id", "a")]].concat();
            let opened = self.callers[at].1.open(section(&fields), self.answering, 0);
            opened.expect("a stream");
            self.pass_from(at);
            self.settle();
        }
    }

    fn pass_from(&mut self, at: usize) {
        let (conn, caller) = &mut self.callers[at];
        let (conn, bytes) = (*conn, said(caller));
        self.receive(conn, bytes);
    }

    fn receive(&mut self, conn: ConnId, bytes: Bytes) {
        if !bytes.is_empty() {
            self.counting(|proxy, now| proxy.handle(Input::Received { conn, bytes }, now));
        }
    }

    /// Until nobody has anything to say.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let Some(output) = self.counting(|proxy, _| proxy.poll_output()) else { return };
            match output {
                Output::Dirty(conn) => self.talk(conn),
                Output::Dial { conn, .. } => {
                    self.apps.insert(conn, connection(Role::Server));
                    self.counting(|proxy, now| proxy.handle(Input::Dialed { conn }, now));
                    let greeting = self.apps.get_mut(&conn).map(said).unwrap_or_default();
                    self.receive(conn, greeting);
                }
                other => panic!("{other:?}"),
            }
        }
        panic!("there is no end to it");
    }

    fn talk(&mut self, conn: ConnId) {
        // What io gives each connection in turn is its own.
        let mut out = Transmit::new();
        self.counting(|proxy, _| while proxy.transmit(conn, &mut out, 1 << 20) {});
        let bytes: Bytes = out.slices().flatten().copied().collect();
        self.counting(|_, _| drop(out));
        if let Some(app) = self.apps.get_mut(&conn) {
            receive(app, &bytes);
            while let Some(event) = app.poll_event() {
                if let (Event::Headers { stream, .. }, true) = (event, self.answering) {
                    let end = [(":status", "200"), ("grpc-status", "0")];
                    app.send_headers(stream, section(&end), true);
                }
            }
            let answer = said(app);
            return self.receive(conn, answer);
        }
        let at = self.callers.iter().position(|(known, _)| *known == conn).expect("a caller's");
        let caller = &mut self.callers[at].1;
        receive(caller, &bytes);
        while caller.poll_event().is_some() {}
        self.pass_from(at);
    }

    /// Time passes and nothing comes.
    fn rest(&mut self) {
        let end = self.now + REST;
        while let Some(due) = self.counting(|proxy, _| proxy.poll_timeout()) {
            if due > end {
                break;
            }
            self.now = self.now.max(due);
            self.counting(|proxy, now| proxy.handle(Input::Tick, now));
            self.settle();
        }
        self.now = end;
    }

    fn held_for_each(&self, before: i64, count: usize) -> i64 {
        (self.held - before) / count as i64
    }
}

/// Of the HTTP/2 and the proxy, without a socket and what io keeps for it.
#[test]
fn connections_that_are_held_take_little() {
    const COUNT: usize = 500;
    let mut crowd = Crowd::new(true);
    (0..10).for_each(|_| crowd.accept());
    crowd.call_each();
    crowd.rest();
    let before = crowd.held;
    (0..COUNT).for_each(|_| crowd.accept());
    crowd.rest();
    let idle = crowd.held_for_each(before, COUNT);
    crowd.call_each();
    let busy = crowd.held_for_each(before, COUNT);
    crowd.rest();
    let used = crowd.held_for_each(before, COUNT);
    println!("{idle} octets for an idle connection, {used} for one that was used, {busy} before");
    assert!(idle <= IDLE_MAX, "{idle}");
    assert!(busy <= BUSY_MAX, "{busy}");
    assert!(used <= USED_MAX, "{used}");
}

/// Both streams of a call that is answered later, or never, and the call.
#[test]
fn streams_that_are_held_take_little() {
    const COUNT: usize = 10;
    const ROUNDS: usize = 100;
    let mut crowd = Crowd::new(false);
    (0..COUNT).for_each(|_| crowd.accept());
    (0..ROUNDS).for_each(|_| crowd.call_each());
    let before = crowd.held;
    (0..ROUNDS).for_each(|_| crowd.call_each());
    let each = crowd.held_for_each(before, COUNT * ROUNDS);
    println!("{each} octets for a call that is held");
    assert!(each <= CALL_MAX, "{each}");
}
