//! All that is in a run: callers, two sidecars, apps, and the connections between them; how
//! octets and facts move. Nothing here decides what happens when: `run` does.

use super::ends::{AppStage, Call};
use super::pipe::{Fragments, Link, Place, Read, Way, Who};
use super::script::{self, Script};
use super::seed::Seed;
use bytes::Bytes;
use ringside::config::{App, AppProtocol, Config, IoDriver};
use ringside::http2::field::classify_none;
use ringside::http2::{Connection, Event, Limits, Role, SectionKind};
use ringside::identity::{AppId, Namespace, Target};
use ringside::observe::cells::Gauge;
use ringside::proxy::{
    Arrival, CloseReason, ConnId, Endpoint, Input, Level, Listener, Output, Proxy, Resolution,
    Security, Transmit,
};
use ringside::snapshot::{Epoch, Snapshot};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

pub struct Sidecar {
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
}

pub struct World {
    pub plan: Plan,
    pub seed: Seed,
    pub now: Instant,
    pub start: Instant,
    pub step: u64,
    pub sidecars: [Sidecar; 2],
    pub callers: Vec<Caller>,
    pub apps: Vec<AppConn>,
    pub links: Vec<Link>,
    pub calls: Vec<Call>,
    pub marks: Vec<(u64, Mark)>,
    pub app_down: [bool; 2],
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

fn config(who: Who, plan: &Plan) -> Config {
    let id = ["alpha", "beta"][who as usize];
    let port = APP_PORTS[who as usize];
    Config {
        app_id: AppId::new(id).unwrap(),
        namespace: Namespace::new("default"),
        app: Some(App { host: "127.0.0.1".into(), port, protocol: AppProtocol::Grpc }),
        mtls: false,
        api_token: None,
        app_token: None,
        max_body_size: plan.max_body_size,
        header_list_size: 64 << 10,
        tracing: true,
        drain_max: plan.drain_max,
        dapr_listen_addresses: Vec::new(),
        grpc_port: 50001,
        http_port: 3500,
        internal_port: 50002,
        forwards: Vec::new(),
        io: IoDriver::Auto,
    }
}

impl Sidecar {
    fn new(who: Who, plan: &Plan, now: Instant) -> Self {
        let config = Arc::new(config(who, plan));
        let app_port = Some(APP_PORTS[who as usize]);
        let snapshot = Snapshot {
            epoch: Epoch(1),
            config: Arc::clone(&config),
            identity: None,
            app_endpoint: app_port.map(endpoint),
        };
        Self {
            proxy: Proxy::new(Arc::new(snapshot), now),
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
        }
    }

    /// It has drained and everything is closed: its process is gone.
    pub fn is_down(&self) -> bool {
        self.drained && self.conns.is_empty()
    }
}

impl World {
    pub fn new(number: u64, plan: Plan, now: Instant) -> Self {
        let sidecars = [Who::Caller, Who::Callee].map(|who| Sidecar::new(who, &plan, now));
        Self {
            plan,
            seed: Seed::new(number),
            now,
            start: now,
            step: 0,
            sidecars,
            callers: Vec::new(),
            apps: Vec::new(),
            links: Vec::new(),
            calls: Vec::new(),
            marks: Vec::new(),
            app_down: [false; 2],
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

    /// A caller connects to its sidecar.
    pub fn connect(&mut self) {
        if self.sidecars[0].drained {
            return;
        }
        let arrival = Arrival { listener: Listener::Api, peer: None, spiffe_id: None };
        let conn = self.sidecars[0].proxy.accept(arrival, self.now);
        let limits = self.plan.caller_limits.clone();
        let h2 = Connection::new(Role::Client, limits, classify_none, self.now);
        self.callers.push(Caller { h2, alive: true });
        let left = Place::Client(self.callers.len() - 1);
        self.join(left, Place::Proxy(Who::Caller, conn));
        self.obey(Who::Caller);
    }

    fn join(&mut self, left: Place, right: Place) {
        let link = self.links.len();
        for place in [left, right] {
            if let Place::Proxy(who, conn) = place {
                self.sidecars[who as usize].conns.insert(conn, link);
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
        self.sidecars[who as usize].proxy.handle(input, self.now);
        self.obey(who);
        self.check(Place::Proxy(who, NOBODY));
    }

    /// After each step, on whoever took part in it.
    fn check(&self, place: Place) {
        match place {
            Place::Gone => {}
            Place::Client(caller) => self.callers[caller].h2.check_invariants(),
            Place::App(app) => self.apps[app].h2.check_invariants(),
            Place::Proxy(who, _) => self.sidecars[who as usize].proxy.check_invariants(),
        }
    }

    /// Does what a sidecar wants, and checks that it holds to its contract.
    pub fn obey(&mut self, who: Who) {
        let w = who as usize;
        while let Some(output) = self.sidecars[w].proxy.poll_output() {
            match output {
                Output::Dirty(conn) => {
                    assert!(self.sidecars[w].conns.contains_key(&conn), "Dirty of a stranger");
                    assert!(!self.sidecars[w].dirty.contains(&conn), "Dirty twice");
                    self.sidecars[w].dirty.push(conn);
                }
                Output::Dial { conn, endpoint, security } => {
                    assert_eq!(security, Security::Plaintext);
                    let at = self.now + self.seed.ms(1 + self.plan.latency_ms);
                    self.note(|| format!("{who:?} dials {endpoint:?}"));
                    self.sidecars[w].dialing.push(Dialing { conn, at, endpoint });
                }
                Output::Resolve(target) => {
                    let at = self.now + self.seed.ms(1 + self.plan.latency_ms);
                    // A lookup that a leap of the clock overtook was given up; another may follow.
                    let leapt = self.marks.iter().any(|(_, mark)| *mark == Mark::Leap);
                    let asked = &mut self.sidecars[w].resolving;
                    let known = asked.iter().any(|(known, _)| *known == target);
                    assert!(leapt || !known, "Resolve twice");
                    asked.push((target, at));
                }
                Output::Close(conn) => self.close_proxy_end(who, conn),
                Output::Log(line) => {
                    let excused = self.marks.iter().any(|(_, mark)| *mark == Mark::Leap);
                    let calm = line.level == Level::Debug || line.level == Level::Info;
                    assert!(calm || excused, "{who:?} complains: {}", line.message);
                }
                Output::Control(request) => panic!("nobody asked for {request:?}"),
                Output::Drained => {
                    assert_eq!(self.sidecars[w].proxy.calls(), 0);
                    // Which also compares every gauge with what there is.
                    let told = self.sidecars[w].proxy.hand_over_cells();
                    assert_eq!(told.gauge(Gauge::Streams), 0);
                    assert!(self.sidecars[w].draining && !self.sidecars[w].drained);
                    self.note(|| format!("{who:?} is drained"));
                    self.sidecars[w].drained = true;
                }
            }
        }
    }

    fn close_proxy_end(&mut self, who: Who, conn: ConnId) {
        let sidecar = &mut self.sidecars[who as usize];
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
                    self.calls[sent.tag as usize].left_app += sent.octets as usize;
                }
            }
            Place::Proxy(who, conn) => {
                let sidecar = &mut self.sidecars[who as usize];
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
            self.sidecars[who as usize].octets_out += out.len;
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
                let sidecar = &mut self.sidecars[who as usize];
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
                let known = self.sidecars[who as usize].conns.contains_key(&conn);
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
                for call in self.calls.iter_mut().filter(|call| call.app.conn == app) {
                    call.app.stage = AppStage::Over;
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
                    let own = self.apps[app].who == Who::Caller;
                    let call = &mut self.calls[id];
                    call.on_app_head(fields, app, own, *end_stream);
                    call.app.stream = *stream;
                    self.apps[app].h2.set_tag(*stream, id as u64);
                }
                Event::Headers { tag, .. } | Event::Data { tag, .. } | Event::Reset { tag, .. } => {
                    let tag = *tag as usize;
                    self.note(|| format!("app hears of call {tag}: {}", brief(&event)));
                    self.calls[tag].on_app_event(&event, self.now);
                }
                Event::StreamFailed { tag, error, .. } => {
                    panic!("the sidecar broke HTTP/2 towards an app, call {tag}: {error:?}");
                }
                Event::Failed(error) => panic!("the sidecar broke HTTP/2: {error:?}"),
                Event::Refused { .. } => panic!("an app opens no streams"),
                Event::Goaway { .. } | Event::Pong { .. } | Event::Settings => {}
            }
        }
    }

    /// A dial comes to its end.
    pub fn finish_dial(&mut self, who: Who, index: usize, fails: bool) {
        let Dialing { conn, endpoint, .. } = self.sidecars[who as usize].dialing.remove(index);
        let port = endpoint.0.port();
        let dead = port == DEAD_PORT;
        let internal = INTERNAL_PORTS.contains(&port);
        let down = match internal {
            true => self.sidecars[1].drained,
            false => self.app_down[who as usize],
        };
        if fails || down || dead {
            if !dead {
                self.mark(Mark::DialFailed);
            }
            let error = "connection error: desc = \"transport: Error while dialing: dial tcp: \
                         connect: connection refused\"";
            return self.tell(who, Input::DialFailed { conn, error: error.to_owned() });
        }
        if internal {
            assert_eq!(who, Who::Caller, "only the caller's sidecar has another one to call");
            let arrival = Arrival { listener: Listener::Internal, peer: None, spiffe_id: None };
            let other = self.sidecars[1].proxy.accept(arrival, self.now);
            self.join(Place::Proxy(who, conn), Place::Proxy(Who::Callee, other));
            self.obey(Who::Callee);
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
        let (target, _) = self.sidecars[who as usize].resolving.remove(index);
        let known = target.app_id.as_str() == "beta";
        let result = match (known, fails) {
            (true, false) => {
                let mut all = vec![endpoint(self.seed.pick(&INTERNAL_PORTS))];
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
        let sidecar = &mut self.sidecars[who as usize];
        sidecar.epoch += 1;
        sidecar.app_port = app_port;
        let snapshot = Snapshot {
            epoch: Epoch(sidecar.epoch),
            config: Arc::clone(&sidecar.config),
            identity: None,
            app_endpoint: app_port.map(endpoint),
        };
        if app_port.is_none() {
            self.mark(Mark::NoApp);
        }
        self.tell(who, Input::Snapshot(Arc::new(snapshot)));
    }

    pub fn drain(&mut self, who: Who) {
        if !self.sidecars[who as usize].draining {
            self.mark(Mark::Goaway);
            self.sidecars[who as usize].draining = true;
            self.tell(who, Input::Drain);
        }
    }

    /// A sidecar whose process ended starts anew.
    pub fn restart(&mut self, who: Who) {
        let sidecar = &self.sidecars[who as usize];
        if sidecar.is_down() {
            assert!(sidecar.dialing.is_empty() && sidecar.dirty.is_empty());
            self.note(|| format!("{who:?} restarts"));
            self.sidecars[who as usize] = Sidecar::new(who, &self.plan, self.now);
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

    pub fn tick(&mut self, who: Who) -> bool {
        let due = self.sidecars[who as usize].proxy.poll_timeout();
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
