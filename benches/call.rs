//! What both proxies cost one relayed unary call, from bytes in to bytes out: heads judged, routed,
//! rewritten and encoded again, DATA by reference, both hops, no sockets and no TLS.
//!
//! `cargo bench --bench call` prints nanoseconds per call, best and median of some rounds, for
//! calls that come one by one and many at a time. Only the proxies' share is timed.
//! `cargo bench --bench call -- ROUNDS` for fewer rounds, as under an instruction counter. Words
//! behind it put something in force: `traced`, each hop is a span of a trace that is sampled at
//! daprd's default rate; `policies`, 100 policies of access control in front of the app, of which
//! the last is the caller's, a retry policy and a circuit breaker for the target; `tapped`,
//! somebody looks on who wants to see all calls, `tapped-app` those of an app that nobody calls,
//! `tapped-status` those that end as none does.

#![allow(clippy::disallowed_methods)] // A benchmark may ask for the time.

mod greeting;

use bytes::Bytes;
use greeting::{REQUEST, section};
use ringside::config::access::{AccessControl as List, AppPolicy, Operation};
use ringside::config::resiliency::Document;
use ringside::config::{App, AppProtocol, Config, IoDriver, Tracing};
use ringside::http2::field::classify_none;
use ringside::http2::{Connection, Event, FieldSection, Limits, Role, SectionKind, StreamId};
use ringside::identity::{AppId, Namespace, SpiffeId};
use ringside::mailbox::{Mailbox, Sender, Tapped, mailbox};
use ringside::observe::account::{Account, Filter};
use ringside::policy::acl::AccessControl;
use ringside::policy::resiliency::{Builder, Targets};
use ringside::policy::{Policies, apis::Apis};
use ringside::proxy::{
    Arrival, ConnId, Endpoint, Input, Listener, Output, Proxy, Resolution, Transmit,
};
use ringside::snapshot::Snapshot;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Of one round.
const CALLS: usize = 2_000;
const ROUNDS: usize = 101;
/// What one read brings at most.
const READ_OCTETS: usize = 64 << 10;

/// Without what not every client sends.
fn request() -> &'static [(&'static str, &'static str)] {
    &REQUEST[..REQUEST.len() - 1]
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint(([127, 0, 0, 1], port).into())
}

/// What users may have in force; it lets each call pass.
#[derive(Clone)]
struct InForce {
    policies: Arc<Policies>,
    resiliency: Option<Arc<Targets>>,
    caller: Option<SpiffeId>,
    tracing: Tracing,
    tap: Option<Arc<Filter>>,
}

impl InForce {
    /// What the words ask for.
    fn new(now: Instant) -> Self {
        let asked = |word| std::env::args().any(|argument| argument == word);
        let tracing = match asked("traced") {
            true => Tracing::Sampled { rate: 1e-4, exported: true },
            false => Tracing::Passed,
        };
        let filters = [
            ("tapped", Filter::default()),
            ("tapped-app", Filter { app: Some("nobody".to_owned()), ..Filter::default() }),
            ("tapped-status", Filter { status: Some(14), ..Filter::default() }),
        ];
        let tap = filters.into_iter().find(|(word, _)| asked(word));
        let tap = tap.map(|(_, filter)| Arc::new(filter));
        match asked("policies") {
            true => Self { tracing, tap, ..Self::policies(now) },
            false => {
                Self { policies: Arc::default(), resiliency: None, caller: None, tracing, tap }
            }
        }
    }

    fn policies(now: Instant) -> Self {
        let policy = |n| AppPolicy {
            app_id: if n == 99 { "client".to_owned() } else { format!("app-{n}") },
            namespace: "default".to_owned(),
            trust_domain: "public".to_owned(),
            default_action: "deny".to_owned(),
            operations: vec![Operation {
                name: "/helloworld.Greeter/*".to_owned(),
                action: "allow".to_owned(),
            }],
        };
        let list = List {
            default_action: "deny".to_owned(),
            trust_domain: "public".to_owned(),
            policies: (0..100).map(policy).collect(),
        };
        let compiled = AccessControl::compile(&list, false).expect("a list that is right");
        let access = compiled.map(|(access, _)| access);
        let text = "{kind: Resiliency, spec: {policies: {retries: {r: {maxRetries: 3}}, \
                    circuitBreakers: {c: {trip: consecutiveFailures > 5}}}, \
                    targets: {apps: {server: {retry: r, circuitBreaker: c}}}}}";
        let document = Document::read(text).expect("YAML").expect("a resource");
        let mut builder = Builder::default();
        builder.add(document.decode().expect("a resource that is right")).expect("policies");
        Self {
            policies: Arc::new(Policies { access, apis: Apis::default() }),
            resiliency: Some(Arc::new(builder.build(1, now))),
            caller: SpiffeId::parse("spiffe://public/ns/default/client").ok(),
            tracing: Tracing::Passed,
            tap: None,
        }
    }
}

fn sidecar(id: &str, in_force: &InForce, now: Instant) -> Proxy {
    let config = Config {
        app_id: AppId::new(id).expect("an app ID"),
        namespace: Namespace::new("default"),
        app: Some(App::at("127.0.0.1", 5000, AppProtocol::Grpc)),
        mtls: false,
        api_token: None,
        app_token: None,
        max_body_size: 4 << 20,
        header_list_size: 64 << 10,
        tracing: in_force.tracing,
        drain_max: None,
        dapr_listen_addresses: Vec::new(),
        grpc_port: 50001,
        http_port: 3500,
        internal_port: 50002,
        forwards: Vec::new(),
        io: IoDriver::Auto,
        logging: Default::default(),
    };
    let snapshot = Snapshot {
        app: Some(endpoint(5000).into()),
        policies: Arc::clone(&in_force.policies),
        resiliency: in_force.resiliency.clone(),
        ..Snapshot::new(Arc::new(config))
    };
    Proxy::new(Arc::new(snapshot), now)
}

/// Whoever looks on, as `io` tells him.
struct Tap {
    filter: Arc<Filter>,
    sender: Sender<Tapped>,
    inbox: Mailbox<Tapped>,
}

impl Tap {
    fn new(filter: Arc<Filter>) -> Self {
        let (sender, inbox) = mailbox(1024).expect("a mailbox");
        Self { filter, sender, inbox }
    }

    fn hear(&self, account: &Account) {
        if self.filter.fits(account) {
            let account = Box::new(account.clone());
            assert!(self.sender.send(Tapped { worker: 0, account }).is_ok(), "it is read");
        }
    }

    /// Control's share of it.
    fn read(&self) {
        while self.inbox.try_recv().is_some() {}
    }
}

/// A sidecar with the one connection on either side of it.
struct Hop {
    proxy: Proxy,
    tap: Option<Tap>,
    down: ConnId,
    up: Option<ConnId>,
    down_dirty: bool,
    up_dirty: bool,
}

impl Hop {
    fn new(id: &str, listener: Listener, in_force: &InForce, now: Instant) -> Self {
        let mut proxy = sidecar(id, in_force, now);
        let spiffe_id = in_force.caller.clone().filter(|_| matches!(listener, Listener::Internal));
        let down = proxy.accept(Arrival { listener, peer: None, spiffe_id }, now);
        let tap = in_force.tap.clone().map(Tap::new);
        proxy.set_taps(in_force.tap.iter().cloned().collect());
        let mut hop = Self { proxy, tap, down, up: None, down_dirty: false, up_dirty: false };
        hop.carry_out(now);
        hop
    }

    fn carry_out(&mut self, now: Instant) {
        while let Some(output) = self.proxy.poll_output() {
            match output {
                Output::Dirty(conn) if conn == self.down => self.down_dirty = true,
                Output::Dirty(_) => self.up_dirty = true,
                Output::Dial { conn, .. } => {
                    assert!(self.up.replace(conn).is_none(), "one upstream is enough");
                    self.proxy.handle(Input::Dialed { conn }, now);
                }
                Output::Resolve(target) => {
                    let result = Ok(vec![endpoint(7000)].into());
                    self.proxy.handle(Input::Resolved(Resolution { target, result }), now);
                }
                Output::Spans(_) => {}
                Output::Heard(account) => {
                    self.tap.as_ref().expect("somebody who listens").hear(&account);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn receive(&mut self, conn: ConnId, bytes: Bytes, now: Instant) {
        self.proxy.handle(Input::Received { conn, bytes }, now);
        self.carry_out(now);
    }

    fn transmit(&mut self, conn: ConnId, out: &mut Transmit) {
        while self.proxy.transmit(conn, out, READ_OCTETS) {}
    }
}

/// Caller, two sidecars, app.
struct Chain {
    caller: Connection,
    hops: [Hop; 2],
    app: Connection,
    out: Transmit,
    spent: Duration,
    answered: usize,
}

impl Chain {
    fn new(in_force: &InForce, now: Instant) -> Self {
        let limits = Limits { connection_window: 64 << 20, ..Limits::default() };
        let end = |role| Connection::new(role, limits.clone(), classify_none, now);
        let mut chain = Self {
            caller: end(Role::Client),
            hops: [
                Hop::new("client", Listener::Api, in_force, now),
                Hop::new("server", Listener::Internal, in_force, now),
            ],
            app: end(Role::Server),
            out: Transmit::new(),
            spent: Duration::ZERO,
            answered: 0,
        };
        let fields = section(request());
        for _ in 0..3 {
            chain.calls(1, &fields, &Bytes::new());
        }
        chain
    }

    fn calls(&mut self, calls: usize, fields: &FieldSection, body: &Bytes) {
        for _ in 0..calls {
            let stream = self.caller.open_lent(fields, false, 0).expect("a stream");
            self.caller.send_data(stream, body.clone(), true);
        }
        let goal = self.answered + calls;
        for _ in 0..100 {
            self.turn(fields, body);
            if self.answered >= goal {
                return;
            }
        }
        panic!("calls are not answered");
    }

    /// Bytes go once around.
    fn turn(&mut self, fields: &FieldSection, body: &Bytes) {
        let mut out = std::mem::take(&mut self.out);
        let begin = Instant::now();
        let mut foreign = Duration::ZERO;
        // Both ways through both sidecars; what is not theirs is taken off the clock.
        let mut bytes = off(&mut foreign, || {
            self.caller.poll_transmit_lent(&mut out, usize::MAX, |_| Some(fields));
            gather(&mut out)
        });
        for hop in &mut self.hops {
            pass(hop, hop.down, bytes, begin);
            if let (true, Some(up)) = (std::mem::take(&mut hop.up_dirty), hop.up) {
                hop.transmit(up, &mut out);
            }
            hop.carry_out(begin);
            bytes = off(&mut foreign, || gather(&mut out));
        }
        let mut bytes = off(&mut foreign, || {
            serve(&mut self.app, bytes, body);
            // Before anybody has connected there is nobody to greet.
            if self.hops[1].up.is_some() {
                self.app.poll_transmit(&mut out, usize::MAX);
            }
            gather(&mut out)
        });
        for hop in self.hops.iter_mut().rev() {
            if let Some(up) = hop.up {
                pass(hop, up, bytes, begin);
            }
            if std::mem::take(&mut hop.down_dirty) {
                hop.transmit(hop.down, &mut out);
            }
            hop.carry_out(begin);
            bytes = off(&mut foreign, || gather(&mut out));
        }
        self.spent += begin.elapsed() - foreign;
        self.hops.iter().filter_map(|hop| hop.tap.as_ref()).for_each(Tap::read);
        self.take_answers(bytes);
        self.out = out;
    }

    fn take_answers(&mut self, bytes: Bytes) {
        self.caller.recv(bytes, Instant::now());
        while let Some(event) = self.caller.poll_event() {
            match event {
                Event::Headers { fields, end_stream, .. } => {
                    self.answered += usize::from(end_stream);
                    self.caller.recycle(fields);
                }
                Event::Data { stream, data, .. } => self.caller.release(stream, data.len() as u32),
                Event::Settings => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn pass(hop: &mut Hop, conn: ConnId, bytes: Bytes, now: Instant) {
    let mut bytes = bytes;
    while !bytes.is_empty() {
        let piece = bytes.split_to(bytes.len().min(READ_OCTETS));
        hop.receive(conn, piece, now);
    }
}

fn off<T>(foreign: &mut Duration, work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let done = work();
    *foreign += begin.elapsed();
    done
}

/// Into one buffer, as a write and a read would bring it.
fn gather(out: &mut Transmit) -> Bytes {
    let mut octets = Vec::with_capacity(out.len);
    out.slices().for_each(|slice| octets.extend_from_slice(slice));
    out.clear();
    octets.into()
}

fn answer(app: &mut Connection, stream: StreamId, body: &Bytes) {
    app.send_data(stream, body.clone(), false);
    let mut trailers = app.spare();
    trailers.push(b"grpc-status", b"0");
    trailers.push(b"grpc-message", b"");
    app.send_headers(stream, trailers, true);
}

fn serve(app: &mut Connection, bytes: Bytes, body: &Bytes) {
    app.recv(bytes, Instant::now());
    while let Some(event) = app.poll_event() {
        match event {
            Event::Headers { stream, kind: SectionKind::Request, fields, end_stream, .. } => {
                app.recycle(fields);
                let mut head = app.spare();
                head.push(b":status", b"200");
                head.push(b"content-type", b"application/grpc");
                app.send_headers(stream, head, false);
                // An end without a message may come with the head.
                if end_stream {
                    answer(app, stream, body);
                }
            }
            Event::Data { stream, data, end_stream, .. } => {
                app.release(stream, data.len() as u32);
                if end_stream {
                    answer(app, stream, body);
                }
            }
            _ => {}
        }
    }
}

fn main() {
    let given = std::env::args().find_map(|argument| argument.parse().ok());
    let count: usize = given.unwrap_or(ROUNDS).max(1);
    let body = Bytes::from([&[0, 0, 0, 0, 95][..], &[7; 95]].concat());
    let fields = section(request());
    let now = Instant::now();
    let in_force = InForce::new(now);
    for batch in [1, 10, 100] {
        let mut rounds = Vec::new();
        let mut chain = Chain::new(&in_force, now);
        for _ in 0..count {
            chain.spent = Duration::ZERO;
            for _ in 0..CALLS / batch {
                chain.calls(batch, &fields, &body);
            }
            rounds.push(chain.spent.as_nanos() as usize / CALLS);
        }
        rounds.sort_unstable();
        let (best, median) = (rounds[0], rounds[count / 2]);
        println!("{batch:>4} calls at a time: {median} ns per call, both hops (best {best})");
    }
}
