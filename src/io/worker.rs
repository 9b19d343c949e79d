//! One worker: a thread with a driver, a `Proxy`, and what carries out what that asks.
//!
//! 1. Facts go to the proxy by [`Worker::tell`], and all that it then asks is carried out
//!    before anything else happens.
//! 2. The proxy is borrowed in one place at a time and never across an `await`.
//! 3. Control is never waited for: what its queue refuses is answered, or tried again later.
//! 4. Nothing ends the worker but the end of its mailbox.
//!
//! Refuses to decide: the proxy does.

use super::bounds::Bounds;
use super::clock;
use super::conn::{self, Conn};
use super::dial::{self, Dialing};
use super::driver::{Driver, Runtime};
use super::heard::Taps;
use super::listener::{self, Acceptor, ListenSocket};
use super::load::{Loads, Number, OwnLoad};
use super::local::{Notify, Place, either};
use super::placement::Placement;
use super::tls::Contexts;
use super::turn::Listed;
use super::window::Window;
use super::{SCOPE, post, sys};
use crate::config::IoDriver;
use crate::mailbox::{Mailbox, Sender, ToControl, ToWorker};
use crate::observe::turns::Pace;
use crate::proxy::Resolution;
use crate::proxy::Transmit;
use crate::proxy::{
    Arrival, CloseReason, ConnId, ControlRequest, Input, Level, Listener, LogLine, Output, Proxy,
    Question, Security,
};
use crate::snapshot::{Snapshot, Way};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two ticks.
const TICK_MIN: Duration = Duration::from_millis(1);

/// Descriptors that are not connections: listeners, rings, mailboxes, files.
const DESCRIPTORS_KEPT: u64 = 128;

#[derive(Debug)]
pub struct WorkerOptions {
    pub index: usize,
    pub driver: IoDriver,
    /// How long to look for something to do before sleeping; `None`: not at all.
    pub busy_poll: Option<Duration>,
    /// The CPU to run on; `None`: wherever the kernel likes.
    pub cpu: Option<usize>,
    /// What the process listens for: each worker knows them all.
    pub listeners: Vec<Listener>,
    /// The listening sockets, in the same order, for the one worker that accepts; none for others.
    pub sockets: Vec<ListenSocket>,
    /// For the worker that accepts: every other one's mailbox, by index.
    pub others: Vec<Option<Sender<ToWorker>>>,
    /// One for all workers.
    pub loads: Arc<Loads>,
    pub snapshot: Arc<Snapshot>,
    /// Calls that this worker may give to the app at the same time.
    pub app_calls_max: Option<usize>,
    /// Retries in percent of the calls to a target.
    pub retry_budget: Option<u32>,
    pub mailbox: Mailbox<ToWorker>,
    pub control: Sender<ToControl>,
}

/// Why a worker could not start.
#[derive(Debug)]
pub enum WorkerError {
    Driver(io::Error),
    Listener(io::Error),
    Mailbox(io::Error),
    Tls(String),
}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver(error) => error.fmt(f),
            Self::Listener(error) => write!(f, "cannot take over a listening socket: {error}"),
            Self::Mailbox(error) => write!(f, "cannot read the mailbox: {error}"),
            Self::Tls(error) => write!(f, "cannot set up TLS: {error}"),
        }
    }
}

impl std::error::Error for WorkerError {}

/// Runs a worker on this thread until its mailbox ends.
pub fn run(options: WorkerOptions) -> Result<(), WorkerError> {
    if let Some(id) = options.cpu
        && !core_affinity::set_for_current(core_affinity::CoreId { id })
    {
        tracing::warn!(scope = SCOPE, "worker {}: cannot run on CPU {id} alone", options.index);
    }
    let descriptors = sys::raise_descriptor_limit();
    let window = Window::new(options.busy_poll);
    let mut driver = Driver::build(options.driver, window).map_err(WorkerError::Driver)?;
    let room = descriptors - DESCRIPTORS_KEPT.min(descriptors / 2);
    let room = room / options.loads.workers().max(1) as u64;
    let bounds = Bounds::with_descriptors(room);
    tracing::info!(
        scope = SCOPE,
        "worker {}: {driver}, at most {} connections",
        options.index,
        bounds.connections
    );
    work(options, &mut driver, bounds)
}

fn work(
    mut options: WorkerOptions,
    driver: &mut Driver,
    bounds: Bounds,
) -> Result<(), WorkerError> {
    let sockets = std::mem::take(&mut options.sockets);
    let identity = options.snapshot.identity.as_ref();
    let contexts = Contexts::new(identity).map_err(|error| WorkerError::Tls(error.to_string()))?;
    let runtime = Rc::clone(driver.runtime());
    let (worker, mailbox) = Worker::new(options, runtime, bounds, contexts);
    let worker = Rc::new(worker);
    for (index, (socket, listener)) in sockets.into_iter().zip(&worker.listeners).enumerate() {
        let acceptor = Acceptor::new(&worker, socket, index, *listener);
        let acceptor = acceptor.map_err(WorkerError::Listener)?;
        worker.stoppers.borrow_mut().push(acceptor.stopper());
        worker.runtime.spawn(listener::run(Rc::clone(&worker), acceptor));
    }
    worker.runtime.spawn(tick(Rc::clone(&worker)));
    worker.carry_out(&mut worker.core.borrow_mut());
    worker.runtime.spawn(read_mail(Rc::clone(&worker), mailbox));
    let ran = driver.run(&worker);
    worker.placement.close();
    ran.map_err(WorkerError::Driver)?;
    worker.served.take().unwrap_or(Ok(())).map_err(WorkerError::Mailbox)
}

/// The worker ends with its mailbox.
async fn read_mail(worker: Rc<Worker>, mailbox: Mailbox<ToWorker>) {
    let served = post::serve(&worker, &mailbox).await;
    worker.served.replace(Some(served));
}

/// See the file's text.
pub(super) struct Worker {
    pub(super) index: usize,
    pub(super) bounds: Bounds,
    pub(super) runtime: Rc<Runtime>,
    pub(super) core: RefCell<Core>,
    pub(super) listed: Listed,
    /// How the mailbox ended, when it has.
    pub(super) served: RefCell<Option<io::Result<()>>>,
    /// The proxy's next time moved forward.
    earlier: Notify,
    /// What this worker tells the one that accepts.
    pub(super) load: Rc<OwnLoad>,
    pub(super) listeners: Vec<Listener>,
    /// What the worker that accepts knows of all.
    pub(super) placement: Placement,
    pub(super) draining: Cell<bool>,
    pub(super) mtls: Cell<bool>,
    pub(super) contexts: RefCell<Rc<Contexts>>,
    pub(super) stoppers: RefCell<Vec<Rc<OwnedFd>>>,
    pub(super) control: Sender<ToControl>,
    pub(super) unsent: RefCell<VecDeque<ToControl>>,
    /// Spans that control had no room for, and does not know of.
    pub(super) spans_lost: Cell<usize>,
    pub(super) taps: RefCell<Taps>,
}

/// What is borrowed while the proxy works.
pub(super) struct Core {
    pub(super) proxy: Proxy,
    /// By the index of the connection's ID.
    slots: Vec<Slot>,
    pub(super) dirty: Vec<Rc<Conn>>,
    pub(super) spare: Vec<Rc<Conn>>,
    pub(super) transmit: Transmit,
    /// Where what is sent is put together.
    pub(super) room: Vec<u8>,
    /// When the timer task will look next.
    armed: Option<Instant>,
    /// When the proxy was last told something: the turn's time, for what follows from it.
    pub(super) told: Instant,
    pub(super) pace: Pace,
}

enum Slot {
    Free,
    Dialing(u32, Rc<Dialing>),
    Open(u32, Rc<Conn>),
}

impl Core {
    /// Into the flusher's queue, once.
    pub(super) fn mark_dirty(&mut self, conn: &Rc<Conn>) {
        if !conn.queued.replace(true) {
            self.dirty.push(Rc::clone(conn));
        }
    }

    fn put(&mut self, id: ConnId, slot: Slot) {
        let index = id.index as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || Slot::Free);
        }
        self.slots[index] = slot;
    }

    fn conn(&self, id: ConnId) -> Option<&Rc<Conn>> {
        match self.slots.get(id.index as usize)? {
            Slot::Open(generation, conn) if *generation == id.generation => Some(conn),
            Slot::Open(..) | Slot::Dialing(..) | Slot::Free => None,
        }
    }

    /// Frees the slot, if it is still that connection's.
    fn take(&mut self, id: ConnId) -> Slot {
        match self.slots.get_mut(id.index as usize) {
            Some(slot @ (Slot::Open(..) | Slot::Dialing(..))) if slot.is(id) => {
                std::mem::replace(slot, Slot::Free)
            }
            Some(_) | None => Slot::Free,
        }
    }
}

impl Slot {
    fn is(&self, id: ConnId) -> bool {
        match self {
            Self::Open(generation, _) | Self::Dialing(generation, _) => {
                *generation == id.generation
            }
            Self::Free => false,
        }
    }
}

impl Worker {
    pub(super) fn new(
        options: WorkerOptions,
        runtime: Rc<Runtime>,
        bounds: Bounds,
        contexts: Contexts,
    ) -> (Self, Mailbox<ToWorker>) {
        let (app_calls_max, retry_budget) = (options.app_calls_max, options.retry_budget);
        let WorkerOptions { index, listeners, others, loads, snapshot, mailbox, control, .. } =
            options;
        let mtls = snapshot.config.mtls;
        let now = clock::now();
        let mut proxy = Proxy::new(snapshot, now);
        // Random keys are made of the kernel's octets; no two workers choose alike.
        let random = RandomState::new();
        proxy.seed([0, 1, 2].map(|number| random.hash_one((index, number))));
        if let Some(most) = app_calls_max {
            proxy.bound_app_calls(most);
        }
        if let Some(percent) = retry_budget {
            proxy.budget_retries(percent);
        }
        let core = Core {
            proxy,
            slots: Vec::new(),
            dirty: Vec::new(),
            spare: Vec::new(),
            transmit: Transmit::new(),
            room: Vec::new(),
            armed: None,
            told: now,
            pace: Pace::default(),
        };
        let worker = Self {
            index,
            bounds,
            runtime,
            core: RefCell::new(core),
            listed: Listed::default(),
            served: RefCell::default(),
            earlier: Notify::default(),
            load: Rc::new(OwnLoad::new(Arc::clone(&loads), index, now)),
            listeners,
            placement: Placement::new(loads, index, bounds, others),
            draining: Cell::new(false),
            mtls: Cell::new(mtls),
            contexts: RefCell::new(Rc::new(contexts)),
            stoppers: RefCell::default(),
            control,
            unsent: RefCell::default(),
            spans_lost: Cell::new(0),
            taps: RefCell::default(),
        };
        (worker, mailbox)
    }

    pub(super) fn now(&self) -> Instant {
        clock::now()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    pub(super) fn wants_mtls(&self) -> bool {
        self.mtls.get()
    }

    pub(super) fn contexts(&self) -> Rc<Contexts> {
        Rc::clone(&self.contexts.borrow())
    }

    pub(super) fn mark_dirty(&self, conn: &Rc<Conn>) {
        self.core.borrow_mut().mark_dirty(conn);
    }

    /// A downstream connection is ready for HTTP/2.
    pub(super) fn arrived(self: &Rc<Self>, conn: &Rc<Conn>, arrival: Arrival) {
        let mut core = self.core.borrow_mut();
        let now = clock::now();
        core.told = now;
        let id = core.proxy.accept(arrival, now);
        conn.name(id);
        core.put(id, Slot::Open(id.generation, Rc::clone(conn)));
        self.carry_out(&mut core);
    }

    pub(super) fn received(self: &Rc<Self>, conn: &Conn, bytes: Bytes) {
        if let Some(conn) = conn.id() {
            self.tell(Input::Received { conn, bytes });
        }
    }

    pub(super) fn closed(self: &Rc<Self>, conn: &Conn, reason: CloseReason) {
        if let Some(conn) = conn.id() {
            self.tell(Input::Closed { conn, reason });
        }
    }

    /// Tells the proxy a fact and does what it asks.
    pub(super) fn tell(self: &Rc<Self>, input: Input) {
        let mut core = self.core.borrow_mut();
        let now = clock::now();
        core.told = now;
        core.proxy.handle(input, now);
        self.carry_out(&mut core);
    }

    /// Everything that the proxy asks for. Ends, as each output answers an input.
    pub(super) fn carry_out(self: &Rc<Self>, core: &mut Core) {
        while let Some(output) = core.proxy.poll_output() {
            match output {
                Output::Dirty(id) => {
                    if let Some(conn) = core.conn(id).cloned() {
                        core.mark_dirty(&conn);
                    }
                }
                Output::Dial { conn, way, security } => {
                    self.begin_dial(core, conn, way, security);
                }
                Output::Resolve(target) => {
                    if let Err(ToControl::Resolve(target)) =
                        self.control.send(ToControl::Resolve(target))
                    {
                        let result = Err(Arc::from("too many name resolutions are waiting"));
                        let refusal = Resolution { target, result };
                        core.proxy.handle(Input::Resolved(refusal), core.told);
                    }
                }
                Output::Close(id) => close(core, id),
                Output::Log(line) => log(&line),
                Output::Heard(account) => self.heard(account),
                Output::Control(ControlRequest { call, question }) => {
                    let question = to_control(self.index, call, question);
                    if self.control.send(question).is_err() {
                        let answer = Err("ringside: control does not keep up; try again");
                        core.proxy.handle(Input::Answered { call, answer }, core.told);
                    }
                }
                Output::Spans(spans) => self.export(spans),
                Output::Drained => self.post(ToControl::Drained { worker: self.index }),
            }
        }
        self.load.tell_calls(core.proxy.calls());
        self.arm(core);
    }

    fn begin_dial(self: &Rc<Self>, core: &mut Core, id: ConnId, way: Way, security: Security) {
        let dialing = Rc::new(Dialing::default());
        core.put(id, Slot::Dialing(id.generation, Rc::clone(&dialing)));
        self.runtime.spawn(serve_dial(Rc::clone(self), id, way, security, dialing));
    }

    /// The timer task looks again when the proxy wants to be told sooner.
    fn arm(&self, core: &mut Core) {
        let Some(next) = core.proxy.poll_timeout() else {
            return;
        };
        if core.armed.is_none_or(|armed| next < armed) {
            core.armed = Some(next);
            self.earlier.notify();
        }
    }
}

fn to_control(worker: usize, call: u64, question: Question) -> ToControl {
    match question {
        Question::Metadata => ToControl::Metadata { worker, call },
        Question::SetMetadata { key, value } => ToControl::SetMetadata { worker, call, key, value },
        Question::Shutdown { force } => ToControl::Shutdown { worker, call, force },
        Question::Reflection(question) => ToControl::Reflection { worker, call, question },
    }
}

fn close(core: &mut Core, id: ConnId) {
    match core.take(id) {
        Slot::Open(_, conn) => {
            conn.begin_close();
            core.mark_dirty(&conn);
        }
        Slot::Dialing(_, dialing) => dialing.cancel(),
        Slot::Free => {}
    }
}

/// An upstream connection until it is ready for HTTP/2, or is not to be.
async fn serve_dial(
    worker: Rc<Worker>,
    id: ConnId,
    way: Way,
    security: Security,
    dialing: Rc<Dialing>,
) {
    let place = Place::take(&worker.load, Number::Connections);
    let contexts = worker.contexts();
    let outcome = { dial::dial(&way, &security, &contexts, &dialing, &worker.runtime).await };
    if dialing.is_cancelled() {
        return;
    }
    match outcome {
        Ok(dialed) => {
            let conn = Rc::new(Conn::new(dialed.socket, dialed.session, &worker.runtime, place));
            conn.name(id);
            worker.core.borrow_mut().put(id, Slot::Open(id.generation, Rc::clone(&conn)));
            worker.tell(Input::Dialed { conn: id });
            conn::start(&worker, &conn);
        }
        Err(error) => {
            worker.core.borrow_mut().take(id);
            worker.tell(Input::DialFailed { conn: id, error });
        }
    }
}

/// Ticks when the proxy wants it. One task, one timer.
async fn tick(worker: Rc<Worker>) {
    loop {
        let next = worker.core.borrow().proxy.poll_timeout();
        worker.core.borrow_mut().armed = next;
        match next {
            None => worker.earlier.wait().await,
            Some(at) if at <= clock::now() => {
                worker.tell(Input::Tick);
                // Never more than one in a millisecond, whatever the proxy says.
                worker.runtime.clock.sleep(TICK_MIN).await;
            }
            Some(at) => {
                either(worker.runtime.clock.sleep_until(at), worker.earlier.wait()).await;
            }
        }
    }
}

/// One of the proxy's lines, under daprd's logger name.
fn log(line: &LogLine) {
    let LogLine { level, scope, message } = line;
    match level {
        Level::Debug => tracing::debug!(scope = *scope, "{message}"),
        Level::Info => tracing::info!(scope = *scope, "{message}"),
        Level::Warn => tracing::warn!(scope = *scope, "{message}"),
        Level::Error => tracing::error!(scope = *scope, "{message}"),
    }
}
