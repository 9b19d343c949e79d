//! All that is in a run: callers, two sidecars, apps, and the connections between them; how
//! octets and facts move. Nothing here decides what happens when: `run` does.

use super::ends::{AppStage, Call};
use super::pipe::{Fragments, Link, Place, Read, Side, Way, Who};
use super::policy::{BreakerLog, Policy};
use super::script::{self, Script};
use super::seed::Seed;
use bytes::Bytes;
use ringside::config::{App, AppProtocol, Config, IoDriver, Tracing};
use ringside::http2::field::classify_none;
use ringside::http2::{Connection, Event, Limits, Role, SectionKind};
use ringside::identity::{AppId, Identity, Namespace, SpiffeId, Target, TrustAnchors};
use ringside::observe::cells::Gauge;
use ringside::policy::resiliency::Targets;
use ringside::proxy::{
    Arrival, CloseReason, ConnId, Endpoint, Input, Level, Listener, Output, Proxy, Resolution,
    Security, Transmit,
};
use ringside::snapshot::{Epoch, Snapshot};
use rustls_pki_types::PrivatePkcs8KeyDer;
use std::collections::HashMap;
use std::ops::{Index, IndexMut};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

/// What can happen to a run that may fail a call that is not to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A sidecar hears that a connection is gone.
    LinkLost,
    DialFailed,
    ResolveFailed,
    /// The app of a sidecar has no address.
    NoApp,
    /// From here on: an app, or a sidecar, is going away.
    Goaway,
    /// From here on: the clock made a leap, so keepalives and idle times may be over.
    Leap,
}

/// What differs from run to run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub fragments: Fragments,
    pub latency_ms: u64,
    pub capacity: usize,
    /// Octets that one turn of a flusher asks for.
    pub batch: usize,
    pub caller_limits: Limits,
    pub app_limits: Limits,
    pub max_body_size: u64,
    pub drain_max: Option<Duration>,
    /// Of each sidecar.
    pub workers: usize,
    /// Between the sidecars.
    pub mtls: bool,
    /// The callee's sidecar has two endpoints, and calls are spread over them.
    pub spread: bool,
    /// Of calls to the callee; `None`: there are no policies.
    pub policy: Option<Policy>,
}

pub struct Caller {
    pub h2: Connection,
    pub alive: bool,
}

pub struct AppConn {
    pub h2: Connection,
    pub who: Who,
    pub alive: bool,
}

pub struct Dialing {
    pub conn: ConnId,
    pub at: Instant,
    pub endpoint: Endpoint,
}

/// One worker of a sidecar. It shares nothing with those beside it but what it is told.
pub struct Worker {
    pub proxy: Proxy,
    pub config: Arc<Config>,
    pub epoch: u64,
    pub app_port: Option<u16>,
    /// Which link a connection is.
    pub conns: HashMap<ConnId, usize>,
    pub dirty: Vec<ConnId>,
    pub dialing: Vec<Dialing>,
    pub resolving: Vec<(Target, Instant)>,
    pub draining: bool,
    pub drained: bool,
    pub octets_in: usize,
    pub octets_out: usize,
    /// For the log.
    lines: usize,
}

/// More lines in a second are not written.
const LINES_MAX: usize = 20;

/// All workers of both sidecars.
pub struct Workers {
    all: Vec<Worker>,
    each: usize,
}

impl Workers {
    pub fn iter(&self) -> impl Iterator<Item = &Worker> {
        self.all.iter()
    }

    pub fn names(&self) -> Vec<Who> {
        let of = |side| (0..self.each).map(move |worker| Who { side, worker });
        of(Side::Caller).chain(of(Side::Callee)).collect()
    }

    pub fn of(&self, side: Side) -> &[Worker] {
        let from = side as usize * self.each;
        &self.all[from..from + self.each]
    }
}

impl Index<Who> for Workers {
    type Output = Worker;

    fn index(&self, Who { side, worker }: Who) -> &Worker {
        &self.all[side as usize * self.each + worker]
    }
}

impl IndexMut<Who> for Workers {
    fn index_mut(&mut self, Who { side, worker }: Who) -> &mut Worker {
        &mut self.all[side as usize * self.each + worker]
    }
}

pub struct World {
    pub plan: Plan,
    pub seed: Seed,
    pub now: Instant,
    pub start: Instant,
    pub step: u64,
    pub workers: Workers,
    pub callers: Vec<Caller>,
    pub apps: Vec<AppConn>,
    pub links: Vec<Link>,
    pub calls: Vec<Call>,
    pub marks: Vec<(u64, Mark)>,
    pub app_down: [bool; 2],
    /// The policies that are published now, and what is known of their breaker.
    targets: Option<Arc<Targets>>,
    breaker: Option<BreakerLog>,
    pub trace: bool,
}

/// For places where the connection does not matter.
const NOBODY: ConnId = ConnId { index: 0, generation: 0 };
const APP_PORTS: [u16; 2] = [5000, 6000];
pub const INTERNAL_PORTS: [u16; 2] = [7000, 7001];
/// Nobody listens here.
pub const DEAD_PORT: u16 = 9;

pub fn endpoint(port: u16) -> Endpoint {
    Endpoint(([127, 0, 0, 1], port).into())
}

/// A sidecar's identity after so many rotations. Keys and certificates are for TLS, which is not
/// here: an identity is only what tells one from the next.
fn identity(side: Side, rotation: u64) -> Arc<Identity> {
    static ANCHORS: OnceLock<Arc<TrustAnchors>> = OnceLock::new();
    let anchors = ANCHORS.get_or_init(|| {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().der().clone();
        Arc::new(TrustAnchors::from_der(vec![root]).unwrap())
    });
    Arc::new(Identity {
        spiffe_id: spiffe_id(side),
        chain: Vec::new(),
        key: PrivatePkcs8KeyDer::from(rotation.to_be_bytes().to_vec()),
        trust_anchors: Arc::clone(anchors),
        not_before: SystemTime::UNIX_EPOCH,
        not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(rotation),
    })
}

fn spiffe_id(side: Side) -> SpiffeId {
    let id = ["alpha", "beta"][side as usize];
    SpiffeId::parse(&format!("spiffe://public/ns/default/{id}")).unwrap()
}

fn config(side: Side, plan: &Plan) -> Config {
    let id = ["alpha", "beta"][side as usize];
    let port = APP_PORTS[side as usize];
    Config {
        app_id: AppId::new(id).unwrap(),
        namespace: Namespace::new("default"),
        app: Some(App::at("127.0.0.1", port, AppProtocol::Grpc)),
        mtls: plan.mtls,
        api_token: None,
        app_token: None,
        max_body_size: plan.max_body_size,
        header_list_size: 64 << 10,
        tracing: Tracing::Passed,
        drain_max: plan.drain_max,
        dapr_listen_addresses: Vec::new(),
        grpc_port: 50001,
        http_port: 3500,
        internal_port: 50002,
        forwards: Vec::new(),
        io: IoDriver::Auto,
        logging: Default::default(),
    }
}

impl Worker {
    fn new(side: Side, plan: &Plan, targets: Option<&Arc<Targets>>, now: Instant) -> Self {
        let config = Arc::new(config(side, plan));
        let app_port = Some(APP_PORTS[side as usize]);
        let snapshot = Snapshot {
            identity: plan.mtls.then(|| identity(side, 1)),
            app: app_port.map(|port| endpoint(port).into()),
            resiliency: targets.filter(|_| side == Side::Caller).cloned(),
            ..Snapshot::new(Arc::clone(&config))
        };
        let mut proxy = Proxy::new(Arc::new(snapshot), now);
        if let Some(percent) = plan.policy.as_ref().and_then(|policy| policy.budget) {
            proxy.budget_retries(percent);
        }
        Self {
            proxy,
            config,
            epoch: 1,
            app_port,
            conns: HashMap::new(),
            dirty: Vec::new(),
            dialing: Vec::new(),
            resolving: Vec::new(),
            draining: false,
            drained: false,
            octets_in: 0,
            octets_out: 0,
            lines: 0,
        }
    }

    /// It has drained and everything is closed: its process is gone.
    pub fn is_down(&self) -> bool {
        self.drained && self.conns.is_empty()
    }
}

impl World {
    pub fn new(number: u64, plan: Plan, now: Instant) -> Self {
        let each = plan.workers;
        let of = |side| (0..each).map(move |_| side);
        let sides = of(Side::Caller).chain(of(Side::Callee));
        let targets = plan.policy.as_ref().map(|policy| policy.build(each, now));
        let breaker = plan.policy.as_ref().and_then(|policy| policy.breaker);
        let all = sides.map(|side| Worker::new(side, &plan, targets.as_ref(), now)).collect();
        Self {
            plan,
            seed: Seed::new(number),
            now,
            start: now,
            step: 0,
            workers: Workers { all, each },
            callers: Vec::new(),
            apps: Vec::new(),
            links: Vec::new(),
            calls: Vec::new(),
            marks: Vec::new(),
            app_down: [false; 2],
            targets,
            breaker: breaker.map(|breaker| BreakerLog::new(breaker, now)),
            trace: false,
        }
    }

    pub fn note(&self, text: impl FnOnce() -> String) {
        if self.trace {
            let at = self.now.duration_since(self.start).as_micros();
            eprintln!("{:>6} {:>10}us {}", self.step, at, text());
        }
    }

    pub fn mark(&mut self, mark: Mark) {
        self.note(|| format!("mark {mark:?}"));
        self.marks.push((self.step, mark));
    }

    /// Who takes a new connection of this sidecar; `None` when nobody listens any more.
    fn acceptor(&mut self, side: Side) -> Option<Who> {
        let all = self.workers.of(side);
        let open: Vec<usize> = (0..all.len()).filter(|worker| !all[*worker].drained).collect();
        (!open.is_empty()).then(|| Who { side, worker: self.seed.pick(&open) })
    }

    /// A caller connects to its sidecar.
    pub fn connect(&mut self) {
        let Some(who) = self.acceptor(Side::Caller) else { return };
        let arrival = Arrival { listener: Listener::Api, peer: None, spiffe_id: None };
        let conn = self.workers[who].proxy.accept(arrival, self.now);
        let limits = self.plan.caller_limits.clone();
        let h2 = Connection::new(Role::Client, limits, classify_none, self.now);
        self.callers.push(Caller { h2, alive: true });
        let left = Place::Client(self.callers.len() - 1);
        self.join(left, Place::Proxy(who, conn));
        self.obey(who);
    }

    fn join(&mut self, left: Place, right: Place) {
        let link = self.links.len();
        for place in [left, right] {
            if let Place::Proxy(who, conn) = place {
                self.workers[who].conns.insert(conn, link);
            }
        }
        self.note(|| format!("link {link}: {left:?} to {right:?}"));
        self.links.push(Link::new(left, right, self.plan.capacity));
    }

    /// A caller begins a call, if its connection takes one.
    pub fn begin(&mut self, caller: usize, script: Script) -> bool {
        assert_eq!(script.id as usize, self.calls.len());
        let h2 = &mut self.callers[caller].h2;
        let text = format!("call {} by {caller}: {:?}", script.id, script.whom);
        let Some(call) = Call::begin(script, caller, h2, self.now, self.step) else {
            return false;
        };
        self.note(|| text);
        self.calls.push(call);
        true
    }

    pub fn tell(&mut self, who: Who, input: Input) {
        self.workers[who].proxy.handle(input, self.now);
        self.obey(who);
        self.check(Place::Proxy(who, NOBODY));
    }

    /// After each step, on whoever took part in it.
    fn check(&self, place: Place) {
        match place {
            Place::Gone => {}
            Place::Client(caller) => self.callers[caller].h2.check_invariants(),
            Place::App(app) => self.apps[app].h2.check_invariants(),
            Place::Proxy(who, _) => self.workers[who].proxy.check_invariants(),
        }
    }

    /// Does what a sidecar wants, and checks that it holds to its contract.
    pub fn obey(&mut self, who: Who) {
        while let Some(output) = self.workers[who].proxy.poll_output() {
            match output {
                Output::Dirty(conn) => {
                    assert!(self.workers[who].conns.contains_key(&conn), "Dirty of a stranger");
                    assert!(!self.workers[who].dirty.contains(&conn), "Dirty twice");
                    self.workers[who].dirty.push(conn);
                }
                Output::Dial { conn, way, security } => {
                    let endpoint = way.endpoint().expect("every app has a port");
                    let internal = INTERNAL_PORTS.contains(&endpoint.0.port());
                    let to_sidecar = internal || endpoint.0.port() == DEAD_PORT;
                    match security {
                        Security::Plaintext => assert!(!self.plan.mtls || !to_sidecar),
                        Security::Mtls(target) => {
                            assert!(self.plan.mtls && to_sidecar);
                            assert_eq!(target.app_id.as_str(), "beta");
                        }
                        Security::Unverified { host } => panic!("nobody trusts {host}"),
                    }
                    let at = self.now + self.seed.ms(1 + self.plan.latency_ms);
                    self.note(|| format!("{who:?} dials {endpoint:?}"));
                    self.workers[who].dialing.push(Dialing { conn, at, endpoint });
                }
                Output::Resolve(target) => {
                    let at = self.now + self.seed.ms(1 + self.plan.latency_ms);
                    // A lookup that a leap of the clock overtook was given up; another may follow.
                    let leapt = self.marks.iter().any(|(_, mark)| *mark == Mark::Leap);
                    let asked = &mut self.workers[who].resolving;
                    let known = asked.iter().any(|(known, _)| *known == target);
                    assert!(leapt || !known, "Resolve twice");
                    asked.push((target, at));
                }
                Output::Close(conn) => self.close_proxy_end(who, conn),
                Output::Log(line) => {
                    let excused = self.marks.iter().any(|(_, mark)| *mark == Mark::Leap);
                    let calm = line.level == Level::Debug || line.level == Level::Info;
                    // Where callers do not read on purpose, that is told.
                    let told = line.message.starts_with("Limit unread_responses ");
                    let told = told || self.tells_of_policies(who, &line.message);
                    assert!(calm || excused || told, "{who:?} complains: {}", line.message);
                }
                Output::Heard(account) => panic!("nobody listens to {account:?}"),
                Output::Control(request) => panic!("nobody asked for {request:?}"),
                Output::Spans(spans) => panic!("nobody wants {spans:?}"),
                Output::Drained => {
                    assert_eq!(self.workers[who].proxy.calls(), 0);
                    // Which also compares every gauge with what there is.
                    let told = self.workers[who].proxy.hand_over_cells();
                    assert_eq!(told.gauge(Gauge::Streams), 0);
                    assert!(self.workers[who].draining && !self.workers[who].drained);
                    self.note(|| format!("{who:?} is drained"));
                    self.workers[who].drained = true;
                }
            }
        }
    }

    /// A line for the log: is it what policies write?
    fn tells_of_policies(&mut self, who: Who, line: &str) -> bool {
        self.workers[who].lines += 1;
        if self.workers[who].lines >= LINES_MAX {
            // From now on some may be missing.
            self.breaker = None;
        }
        if let Some(breaker) = &mut self.breaker {
            breaker.hear(line, self.now);
        }
        let policies = ["Error processing operation endpoint[", "Limit retry_budget reached by"];
        self.plan.policy.is_some() && policies.iter().any(|text| line.starts_with(text))
    }

    /// The policies' files were written anew: breakers know nothing any more.
    pub fn reload(&mut self) {
        let each = self.workers.each;
        self.targets = self.plan.policy.as_ref().map(|policy| policy.build(each, self.now));
        self.breaker = None;
    }

    fn close_proxy_end(&mut self, who: Who, conn: ConnId) {
        let sidecar = &mut self.workers[who];
        sidecar.dirty.retain(|dirty| *dirty != conn);
        if let Some(at) = sidecar.dialing.iter().position(|dialing| dialing.conn == conn) {
            sidecar.dialing.remove(at);
            return;
        }
        let link = sidecar.conns.remove(&conn).expect("Close of a stranger");
        self.links[link].close(Place::Proxy(who, conn));
        self.note(|| format!("{who:?} closes link {link}"));
    }

    /// Writes what the writer of a direction has; true if there was something.
    pub fn flush(&mut self, link: usize, way: Way) -> bool {
        let writer = self.links[link].writer(way);
        if !self.links[link].pipe(way).has_room() {
            return false;
        }
        let batch = self.plan.batch;
        let mut out = Transmit::new();
        match writer {
            Place::Gone => return false,
            Place::Client(caller) => {
                let h2 = &mut self.callers[caller].h2;
                h2.poll_transmit(&mut out, batch);
                while let Some(sent) = h2.poll_sent() {
                    self.calls[sent.tag as usize].left_caller += sent.octets as usize;
                }
            }
            Place::App(app) => {
                let h2 = &mut self.apps[app].h2;
                h2.poll_transmit(&mut out, batch);
                while let Some(sent) = h2.poll_sent() {
                    let call = &mut self.calls[sent.tag as u32 as usize];
                    if sent.tag == call.tag() {
                        call.left_app += sent.octets as usize;
                    }
                }
            }
            Place::Proxy(who, conn) => {
                let sidecar = &mut self.workers[who];
                let Some(at) = sidecar.dirty.iter().position(|dirty| *dirty == conn) else {
                    return false;
                };
                if !sidecar.proxy.transmit(conn, &mut out, batch) {
                    sidecar.dirty.swap_remove(at);
                }
            }
        }
        let octets = out.slices().collect::<Vec<_>>().concat();
        assert_eq!(octets.len(), out.len);
        let moved = !octets.is_empty();
        let at = self.now + self.seed.ms(1 + self.plan.latency_ms);
        self.links[link].pipe(way).push(at, octets);
        if let Place::Proxy(who, _) = writer {
            self.workers[who].octets_out += out.len;
            self.obey(who);
        }
        if moved {
            self.check(writer);
        }
        moved
    }

    /// Reads once; true if there was something.
    pub fn deliver(&mut self, link: usize, way: Way) -> bool {
        let (now, fragments) = (self.now, self.plan.fragments);
        let reader = self.links[link].reader(way);
        let pipe = match way {
            Way::Right => &mut self.links[link].to_right,
            Way::Left => &mut self.links[link].to_left,
        };
        if reader == Place::Gone {
            pipe.discard();
            return false;
        }
        match pipe.read(now, fragments, &mut self.seed) {
            Read::Nothing => false,
            Read::End(reason) => {
                self.hang_up(link, reader, reason);
                true
            }
            Read::Some(pieces) => {
                for bytes in pieces {
                    self.hand_over(reader, bytes);
                }
                self.check(reader);
                true
            }
        }
    }

    fn hand_over(&mut self, reader: Place, bytes: Bytes) {
        match reader {
            Place::Gone => {}
            Place::Client(caller) => {
                self.callers[caller].h2.recv(bytes, self.now);
                self.hear_caller(caller);
            }
            Place::App(app) => {
                self.apps[app].h2.recv(bytes, self.now);
                self.hear_app(app);
            }
            Place::Proxy(who, conn) => {
                let sidecar = &mut self.workers[who];
                if sidecar.conns.contains_key(&conn) {
                    sidecar.octets_in += bytes.len();
                    sidecar.proxy.handle(Input::Received { conn, bytes }, self.now);
                    self.obey(who);
                }
            }
        }
    }

    /// An end reads the end of its connection.
    fn hang_up(&mut self, link: usize, reader: Place, reason: CloseReason) {
        match reader {
            Place::Gone => {}
            Place::Proxy(who, conn) => {
                if self.links[link].broken {
                    self.mark(Mark::LinkLost);
                }
                self.tell(who, Input::Closed { conn, reason });
                let known = self.workers[who].conns.contains_key(&conn);
                assert!(!known, "a connection that is gone is closed");
            }
            Place::Client(caller) => {
                self.callers[caller].alive = false;
                for call in self.calls.iter_mut().filter(|call| call.caller == caller) {
                    call.lose(self.now);
                }
                self.links[link].close(reader);
            }
            Place::App(app) => {
                self.apps[app].alive = false;
                for call in &mut self.calls {
                    let sides = call.earlier.iter_mut().chain([&mut call.app]);
                    sides.filter(|side| side.conn == app).for_each(|side| {
                        side.stage = AppStage::Over;
                    });
                }
                self.links[link].close(reader);
            }
        }
    }

    fn hear_caller(&mut self, caller: usize) {
        while let Some(event) = self.callers[caller].h2.poll_event() {
            match &event {
                Event::Headers { tag, .. }
                | Event::Data { tag, .. }
                | Event::Reset { tag, .. }
                | Event::Refused { tag, .. } => {
                    let tag = *tag as usize;
                    self.note(|| format!("caller hears of call {tag}: {}", brief(&event)));
                    self.calls[tag].on_caller_event(&event, self.now);
                }
                Event::StreamFailed { tag, error, .. } => {
                    panic!("the sidecar broke HTTP/2 towards call {tag}: {error:?}");
                }
                Event::Failed(error) => panic!("the sidecar broke HTTP/2: {error:?}"),
                Event::Goaway { .. } | Event::Pong { .. } | Event::Settings => {}
                Event::Limited(limit) => panic!("the sidecar had too much of: {limit:?}"),
            }
        }
    }

    fn hear_app(&mut self, app: usize) {
        while let Some(event) = self.apps[app].h2.poll_event() {
            match &event {
                Event::Headers {
                    stream, kind: SectionKind::Request, fields, end_stream, ..
                } => {
                    let all = script::owned(fields);
                    let id = script::value(&all, "x-sim-call").and_then(|text| text.parse().ok());
                    let id: usize = id.unwrap_or_else(|| panic!("untagged: {all:?}"));
                    self.note(|| format!("app {app} sees call {id}"));
                    let own = self.apps[app].who.side == Side::Caller;
                    let call = &mut self.calls[id];
                    let none = Policy::default();
                    let policy = self.plan.policy.as_ref().unwrap_or(&none);
                    call.on_app_head(fields, (app, own), *end_stream, policy, self.now);
                    call.app.stream = *stream;
                    self.apps[app].h2.set_tag(*stream, call.tag());
                }
                Event::Headers { tag, .. } | Event::Data { tag, .. } | Event::Reset { tag, .. } => {
                    let (id, attempt) = (*tag as u32 as usize, (*tag >> 32) as usize);
                    self.note(|| format!("app hears of call {id}: {}", brief(&event)));
                    self.calls[id].on_app_event(attempt, &event, self.now);
                }
                Event::StreamFailed { tag, error, .. } => {
                    panic!("the sidecar broke HTTP/2 towards an app, call {tag}: {error:?}");
                }
                Event::Failed(error) => panic!("the sidecar broke HTTP/2: {error:?}"),
                Event::Refused { .. } => panic!("an app opens no streams"),
                Event::Goaway { .. } | Event::Pong { .. } | Event::Settings => {}
                Event::Limited(limit) => panic!("the sidecar had too much of: {limit:?}"),
            }
        }
    }

    /// A dial comes to its end.
    pub fn finish_dial(&mut self, who: Who, index: usize, fails: bool) {
        let Dialing { conn, endpoint, .. } = self.workers[who].dialing.remove(index);
        let port = endpoint.0.port();
        let dead = port == DEAD_PORT;
        let internal = INTERNAL_PORTS.contains(&port);
        let answers = match internal {
            true => self.acceptor(Side::Callee),
            false => (!self.app_down[who.side as usize]).then_some(who),
        };
        let down = answers.is_none();
        if fails || down || dead {
            if !dead {
                self.mark(Mark::DialFailed);
            }
            let error = "connection error: desc = \"transport: Error while dialing: dial tcp: \
                         connect: connection refused\"";
            return self.tell(who, Input::DialFailed { conn, error: error.to_owned() });
        }
        if let (true, Some(taker)) = (internal, answers) {
            assert_eq!(who.side, Side::Caller, "only the caller's sidecar has another to call");
            let spiffe_id = self.plan.mtls.then(|| spiffe_id(Side::Caller));
            let arrival = Arrival { listener: Listener::Internal, peer: None, spiffe_id };
            let other = self.workers[taker].proxy.accept(arrival, self.now);
            self.join(Place::Proxy(who, conn), Place::Proxy(taker, other));
            self.obey(taker);
        } else {
            let limits = self.plan.app_limits.clone();
            let h2 = Connection::new(Role::Server, limits, classify_none, self.now);
            self.apps.push(AppConn { h2, who, alive: true });
            self.join(Place::Proxy(who, conn), Place::App(self.apps.len() - 1));
        }
        self.tell(who, Input::Dialed { conn });
    }

    /// A resolver answers.
    pub fn finish_resolve(&mut self, who: Who, index: usize, fails: bool) {
        let (target, _) = self.workers[who].resolving.remove(index);
        let known = target.app_id.as_str() == "beta";
        let result = match (known, fails) {
            (true, false) => {
                let mut all = vec![endpoint(self.seed.pick(&INTERNAL_PORTS))];
                if self.plan.spread {
                    all = INTERNAL_PORTS.map(endpoint).to_vec();
                }
                if self.seed.one_in(6) {
                    all.insert(0, endpoint(DEAD_PORT));
                }
                Ok(all.into())
            }
            (true, true) => {
                self.mark(Mark::ResolveFailed);
                Err("couldn't find service: beta".into())
            }
            (false, _) => Err(format!("couldn't find service: {}", target.app_id.as_str()).into()),
        };
        self.tell(who, Input::Resolved(Resolution { target, result }));
    }

    /// A new snapshot, with the app at `app_port`.
    pub fn publish(&mut self, who: Who, app_port: Option<u16>) {
        let sidecar = &mut self.workers[who];
        sidecar.epoch += 1;
        sidecar.app_port = app_port;
        let snapshot = Snapshot {
            epoch: Epoch(sidecar.epoch),
            identity: self.plan.mtls.then(|| identity(who.side, sidecar.epoch)),
            app: app_port.map(|port| endpoint(port).into()),
            resiliency: self.targets.clone().filter(|_| who.side == Side::Caller),
            ..Snapshot::new(Arc::clone(&sidecar.config))
        };
        if app_port.is_none() {
            self.mark(Mark::NoApp);
        }
        self.tell(who, Input::Snapshot(Arc::new(snapshot)));
    }

    pub fn drain(&mut self, who: Who) {
        if !self.workers[who].draining {
            self.mark(Mark::Goaway);
            self.workers[who].draining = true;
            self.tell(who, Input::Drain);
        }
    }

    /// The identity is renewed, and nothing else is new.
    pub fn rotate(&mut self, who: Who) {
        self.note(|| format!("{who:?} has a new identity"));
        self.publish(who, self.workers[who].app_port);
    }

    /// A sidecar whose process ended starts anew: all of its workers.
    pub fn restart(&mut self, side: Side) {
        if !self.workers.of(side).iter().all(Worker::is_down) {
            return;
        }
        self.note(|| format!("{side:?} restarts"));
        for who in self.workers.names().into_iter().filter(|who| who.side == side) {
            let worker = &self.workers[who];
            assert!(worker.dialing.is_empty() && worker.dirty.is_empty());
            self.workers[who] = Worker::new(side, &self.plan, self.targets.as_ref(), self.now);
        }
    }

    /// A drain is for all workers of a sidecar, sooner or later.
    pub fn finish_drains(&mut self) {
        for who in self.workers.names() {
            if self.workers.of(who.side).iter().any(|worker| worker.draining) {
                self.drain(who);
            }
        }
    }

    /// The network breaks a connection.
    pub fn cut(&mut self, link: usize) {
        if !self.links[link].is_gone() && !self.links[link].broken {
            self.note(|| format!("link {link} breaks"));
            let seed = &mut self.seed;
            self.links[link].cut(seed);
        }
    }

    /// One end writes no more (a TCP half-close), and waits for what the other has to say.
    pub fn half_close(&mut self, link: usize, way: Way) {
        if !self.links[link].is_gone() && !self.links[link].broken {
            self.note(|| format!("link {link} is half closed to the {way:?}"));
            self.links[link].half_close(way);
        }
    }

    /// The HTTP/2 state of one end, if there is one.
    pub fn h2(&self, place: Place) -> Option<&Connection> {
        match place {
            Place::Gone => None,
            Place::Client(caller) => Some(&self.callers[caller].h2),
            Place::App(app) => Some(&self.apps[app].h2),
            Place::Proxy(who, conn) => self.workers[who].proxy.connection(conn),
        }
    }

    pub fn tick(&mut self, who: Who) -> bool {
        let due = self.workers[who].proxy.poll_timeout();
        let due = due.is_some_and(|at| at <= self.now);
        if due {
            self.tell(who, Input::Tick);
        }
        due
    }
}

fn brief(event: &Event) -> String {
    match event {
        Event::Data { data, end_stream, .. } => format!("DATA {} end {end_stream}", data.len()),
        Event::Headers { fields, .. } => format!("{:?}", script::owned(fields)),
        other => format!("{other:?}"),
    }
}
