//! What the control thread knows and the HTTP ports tell: readiness, metadata, counters, scrapes.
//!
//! 1. Lives on the control thread alone (`Rc`); no borrow spans an `await`.
//! 2. Every map has a limit: [`METADATA_KEYS_MAX`], [`METADATA_OCTETS_MAX`].
//! 3. A scrape waits [`SCRAPE_TIME_MAX`] at most; a worker that was late is told by what it said
//!    before, and marked; what it says late counts in the next scrape, once.
//!
//! Refuses to know HTTP, sockets, DNS. Sources: Dapr's `pkg/healthz/healthz.go`,
//! `pkg/api/universal/metadata.go`, `pkg/api/universal/shutdown.go`.

use super::console::names::Names;
pub use super::counters::{Counters, count, seconds};
use super::metric::MetricOptions;
use super::reload::record::Record;
use super::resiliency::Loaded;
use crate::config::App;
use crate::config::page::Page;
use crate::config::spec::ApiLogging;
use crate::identity::{AppId, Identity, Namespace};
use crate::mailbox::{Sender, ToWorker};
use crate::observe::cells::{Cells, Gauge, Increment};
use crate::observe::exposition::WorkerFigures;
use crate::observe::http::HttpCells;
use crate::observe::probes::Probes;
use crate::observe::turns::Pace;
use crate::policy::Policies;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Keys that `PUT /v1.0/metadata/{key}` may add.
pub const METADATA_KEYS_MAX: usize = 256;
/// Octets of all keys and values together.
pub const METADATA_OCTETS_MAX: usize = 16 << 20;
/// How long a scrape waits for the workers.
pub const SCRAPE_TIME_MAX: Duration = Duration::from_secs(1);

/// `appConnectionProperties.health`, present with `--enable-app-health-check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppHealth {
    pub path: String,
    pub probe_interval: Duration,
    pub probe_timeout: Duration,
    pub threshold: i32,
}

/// What does not change while the process runs.
#[derive(Debug)]
pub struct StateOptions {
    pub app_id: AppId,
    pub namespace: Namespace,
    /// As `--version` prints it.
    pub version: String,
    pub app: Option<App>,
    /// `--app-channel-address`, told even without an app.
    pub app_host: String,
    /// `--app-protocol`, told even without an app.
    pub app_protocol: String,
    /// 0: unlimited.
    pub app_concurrency_max: i32,
    pub app_health: Option<AppHealth>,
    pub metrics: MetricOptions,
    /// Of the HTTP API's calls.
    pub api_logging: ApiLogging,
    /// `DAPR_API_TOKEN`.
    pub api_token: Option<String>,
    /// `--allowed-origins`; empty: no CORS.
    pub allowed_origins: String,
    /// `--max-body-size`; 0: daprd has no limit, and [`METADATA_OCTETS_MAX`] holds.
    pub body_octets_max: u64,
    /// `--read-buffer-size`.
    pub head_octets_max: usize,
    /// False with a truthy `DAPR_HTTP_DISABLE_H2C`.
    pub h2c: bool,
    pub workers: Vec<Sender<ToWorker>>,
    /// `--ringside-page-port`.
    pub page: Option<Page>,
}

/// `POST /v1.0/shutdown` or `Dapr/Shutdown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Exit 1 after 100 ms instead of draining.
    pub force: bool,
}

/// Why a metadata value was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataError {
    TooManyKeys,
    TooLarge,
}

#[derive(Debug)]
pub struct State {
    pub options: StateOptions,
    pub started: SystemTime,
    pub counters: Counters,
    targets: RefCell<Targets>,
    outbound_ready: Cell<bool>,
    metadata: RefCell<Metadata>,
    /// Of the app's health.
    pub probes: RefCell<Probes>,
    /// Of the HTTP API.
    pub http: RefCell<HttpCells>,
    app: Cell<AppStatus>,
    app_changed: Notify,
    /// Rung when the metadata changed: control publishes it to the workers.
    pub metadata_changed: Notify,
    shutdown: Cell<Option<Shutdown>>,
    shutdown_asked: Notify,
    scrape: RefCell<Scrape>,
    scraped: Notify,
    http_closed: Cell<bool>,
    http_closing: Notify,
    policies: RefCell<Arc<Policies>>,
    features: RefCell<Vec<String>>,
    identity: RefCell<Option<Arc<Identity>>>,
    resiliency: RefCell<Rc<Loaded>>,
    /// Of files that changed while we run.
    pub reloads: RefCell<Record>,
    /// What the workers were told of names.
    pub names: Names,
}

/// What is known of the app's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AppStatus {
    /// It was never well yet: it counts as unhealthy, and daprd's actors as initializing.
    Unknown,
    Healthy,
    Unhealthy,
}

/// Health targets: ready only when there is one and none is missing.
#[derive(Debug, Default)]
struct Targets {
    any: bool,
    missing: BTreeSet<&'static str>,
}

#[derive(Debug, Default)]
struct Metadata {
    extended: BTreeMap<String, String>,
    octets: usize,
}

#[derive(Debug)]
struct Scrape {
    workers: Vec<Told>,
    /// Of all of them, as of the last scrape.
    sum: Cells,
    /// Workers were asked, and are waited for until then.
    ends: Option<Instant>,
}

/// What one worker has told in all.
#[derive(Debug, Default)]
struct Told {
    cells: Cells,
    pace: Pace,
    /// That of its last increment, to be given back.
    room: Box<Increment>,
    /// It was asked and did not answer yet.
    waiting: bool,
    /// It answered when it was asked last.
    answered: bool,
}

impl State {
    #[allow(clippy::disallowed_methods, reason = "operators ask since when")]
    pub fn new(options: StateOptions) -> Rc<Self> {
        let now = SystemTime::now();
        let workers = options.workers.len();
        let http = options.metrics.http();
        Rc::new(Self {
            options,
            started: now,
            counters: Counters::default(),
            targets: RefCell::default(),
            outbound_ready: Cell::new(false),
            metadata: RefCell::default(),
            probes: RefCell::default(),
            http: RefCell::new(http),
            app: Cell::new(AppStatus::Unknown),
            app_changed: Notify::new(),
            metadata_changed: Notify::new(),
            shutdown: Cell::new(None),
            shutdown_asked: Notify::new(),
            scrape: RefCell::new(Scrape {
                workers: (0..workers).map(|_| Told::default()).collect(),
                sum: Cells::default(),
                ends: None,
            }),
            scraped: Notify::new(),
            http_closed: Cell::new(false),
            http_closing: Notify::new(),
            policies: RefCell::default(),
            features: RefCell::default(),
            identity: RefCell::default(),
            resiliency: RefCell::default(),
            reloads: RefCell::new(Record::new(now)),
            names: Names::default(),
        })
    }

    pub fn policies(&self) -> Arc<Policies> {
        Arc::clone(&self.policies.borrow())
    }

    pub fn set_policies(&self, policies: Arc<Policies>) {
        self.policies.replace(policies);
    }

    /// Features of daprd and of the Configuration that are enabled.
    pub fn features(&self) -> Vec<String> {
        self.features.borrow().clone()
    }

    pub fn set_features(&self, features: Vec<String>) {
        self.features.replace(features);
    }

    /// The one in use; `None` in plaintext.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.borrow().clone()
    }

    pub fn set_identity(&self, identity: Arc<Identity>) {
        self.identity.replace(Some(identity));
    }

    /// Of Resiliency resources.
    pub fn resiliency(&self) -> Rc<Loaded> {
        Rc::clone(&self.resiliency.borrow())
    }

    pub fn set_resiliency(&self, loaded: Loaded) {
        self.resiliency.replace(Rc::new(loaded));
    }

    /// `/v1.0/healthz` stays 500 until [`Self::ready`] is called for this name.
    pub fn require(&self, target: &'static str) {
        let mut targets = self.targets.borrow_mut();
        targets.any = true;
        targets.missing.insert(target);
    }

    pub fn ready(&self, target: &'static str) {
        self.targets.borrow_mut().missing.remove(target);
    }

    /// What is not ready yet, sorted; `None` when everything is.
    pub fn missing(&self) -> Option<Vec<&'static str>> {
        let targets = self.targets.borrow();
        let ready = targets.any && targets.missing.is_empty();
        (!ready).then(|| targets.missing.iter().copied().collect())
    }

    pub fn outbound_ready(&self) -> bool {
        self.outbound_ready.get()
    }

    pub fn set_outbound_ready(&self, ready: bool) {
        self.outbound_ready.set(ready);
    }

    /// `PUT /v1.0/metadata/{key}` and `Dapr/SetMetadata`; an empty key changes nothing.
    pub fn set_metadata(&self, key: String, value: String) -> Result<(), MetadataError> {
        if key.is_empty() {
            return Ok(());
        }
        let mut metadata = self.metadata.borrow_mut();
        let before = metadata.extended.get(&key).map(|old| key.len() + old.len());
        if before.is_none() && metadata.extended.len() >= METADATA_KEYS_MAX {
            return Err(MetadataError::TooManyKeys);
        }
        let octets = metadata.octets - before.unwrap_or(0) + key.len() + value.len();
        if octets > METADATA_OCTETS_MAX {
            return Err(MetadataError::TooLarge);
        }
        metadata.octets = octets;
        metadata.extended.insert(key, value);
        drop(metadata);
        self.metadata_changed.notify_one();
        Ok(())
    }

    /// A change of the app's health; without probes it is well when it is found.
    pub fn app_is_healthy(&self, healthy: bool) {
        self.app.set(if healthy { AppStatus::Healthy } else { AppStatus::Unhealthy });
        self.app_changed.notify_waiters();
    }

    pub fn app_is_well(&self) -> bool {
        self.app.get() == AppStatus::Healthy
    }

    /// The app was well at some time.
    pub fn app_was_healthy(&self) -> bool {
        self.app.get() != AppStatus::Unknown
    }

    /// Returns as soon as the app is not well.
    pub async fn app_unhealthy(&self) {
        loop {
            let changed = self.app_changed.notified();
            if self.app.get() != AppStatus::Healthy {
                return;
            }
            changed.await;
        }
    }

    /// `extended` of the metadata, with `daprRuntimeVersion` how reloads went; sorted by key
    /// as Go's JSON is.
    pub fn extended(&self) -> BTreeMap<String, String> {
        let mut extended = self.metadata.borrow().extended.clone();
        extended.insert("daprRuntimeVersion".to_owned(), self.options.version.clone());
        self.reloads.borrow().tell(&mut extended);
        extended
    }

    /// `POST /v1.0/shutdown` and `Dapr/Shutdown`.
    pub fn shut_down_by_api(&self, force: bool) {
        if force {
            tracing::warn!(
                target: "dapr.api",
                "Force shutdown requested, exiting immediately without graceful shutdown"
            );
        } else {
            tracing::info!(target: "dapr.api", "Shutdown requested via API");
        }
        self.request_shutdown(Shutdown { force });
    }

    /// The first request wins, but a forced one may follow a graceful one.
    pub fn request_shutdown(&self, shutdown: Shutdown) {
        let forced = self.shutdown.get().is_some_and(|asked| asked.force);
        if !forced {
            self.shutdown.set(Some(shutdown));
            self.shutdown_asked.notify_one();
        }
    }

    /// Returns when someone asked; once per request, for one listener.
    pub async fn shutdown_requested(&self) -> Shutdown {
        loop {
            self.shutdown_asked.notified().await;
            if let Some(shutdown) = self.shutdown.get() {
                return shutdown;
            }
        }
    }

    /// The HTTP ports stop taking connections and finish what they began.
    pub fn close_http(&self) {
        self.http_closed.set(true);
        self.http_closing.notify_waiters();
    }

    /// Returns once [`Self::close_http`] was called.
    pub async fn http_closed(&self) {
        let notified = self.http_closing.notified();
        if !self.http_closed.get() {
            notified.await;
        }
    }

    /// A worker's answer to [`ToWorker::Scrape`].
    pub fn cells_arrived(&self, worker: usize, mut increment: Box<Increment>, pace: Pace) {
        let mut scrape = self.scrape.borrow_mut();
        if let Some(told) = scrape.workers.get_mut(worker) {
            told.cells.add(&increment);
            increment.clear();
            told.room = increment;
            told.pace = pace;
            told.waiting = false;
            told.answered = true;
        }
        if !scrape.workers.iter().any(|told| told.waiting) {
            scrape.ends = None;
        }
        drop(scrape);
        self.scraped.notify_waiters();
    }

    /// Asks every worker, waits, merges. Who comes while workers are waited for asks nobody and
    /// gets the same answers.
    pub async fn scrape(&self) -> (Cells, Vec<WorkerFigures>) {
        let ends = self.ask_workers();
        let all = async {
            loop {
                // Registered before the look, so that no answer falls between the two.
                let notified = self.scraped.notified();
                if self.scrape.borrow().ends != Some(ends) {
                    break;
                }
                notified.await;
            }
        };
        if tokio::time::timeout_at(ends, all).await.is_err() {
            let mut scrape = self.scrape.borrow_mut();
            if scrape.ends == Some(ends) {
                count(&self.counters.scrapes_incomplete);
                // A late answer will be taken, and the next scrape asks again.
                scrape.workers.iter_mut().for_each(|told| told.waiting = false);
                scrape.ends = None;
            }
        }
        let Scrape { workers, sum, .. } = &mut *self.scrape.borrow_mut();
        sum.sum_up(workers.iter().map(|told| &told.cells));
        (sum.clone(), workers.iter().map(Told::figures).collect())
    }

    /// Until when to wait for their answers.
    fn ask_workers(&self) -> Instant {
        let now = Instant::now();
        let mut scrape = self.scrape.borrow_mut();
        if let Some(ends) = scrape.ends
            && ends > now
        {
            return ends;
        }
        for (told, sender) in scrape.workers.iter_mut().zip(&self.options.workers) {
            if !told.waiting {
                // A full mailbox: this worker is told by its last cells.
                let room = std::mem::take(&mut told.room);
                told.waiting = sender.send(ToWorker::Scrape(room)).is_ok();
                told.answered = false;
            }
        }
        let ends = now + SCRAPE_TIME_MAX;
        scrape.ends = scrape.workers.iter().any(|told| told.waiting).then_some(ends);
        ends
    }
}

impl Told {
    fn figures(&self) -> WorkerFigures {
        WorkerFigures {
            answered: self.answered,
            downstream_connections: self.cells.gauge(Gauge::DownstreamConnections),
            streams: self.cells.gauge(Gauge::Streams),
            busy_seconds: self.pace.busy.as_secs_f64(),
            turns: self.pace.turns,
            flushes: self.pace.flushes,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::AppProtocol;
    use crate::config::metric::Metrics;
    use crate::mailbox::mailbox;
    use crate::observe::cells::Hop;

    pub(crate) fn options() -> StateOptions {
        StateOptions {
            app_id: AppId::new("vsrv").unwrap(),
            namespace: Namespace::new("default"),
            version: "1.18.1".to_owned(),
            app: Some(App::at("127.0.0.1", 61051, AppProtocol::Grpc)),
            app_host: "127.0.0.1".to_owned(),
            app_protocol: "grpc".to_owned(),
            app_concurrency_max: 0,
            app_health: None,
            metrics: MetricOptions::new(&Metrics::default()),
            api_logging: ApiLogging::default(),
            api_token: None,
            allowed_origins: String::new(),
            body_octets_max: 4 << 20,
            head_octets_max: 4096,
            h2c: true,
            workers: Vec::new(),
            page: None,
        }
    }

    #[test]
    fn ready_when_every_target_is() {
        let state = State::new(options());
        assert_eq!(state.missing(), Some(vec![]), "no target: not ready, as daprd");
        state.require("runtime");
        state.require("grpc-api-server");
        state.ready("runtime");
        assert_eq!(state.missing(), Some(vec!["grpc-api-server"]));
        state.ready("grpc-api-server");
        assert_eq!(state.missing(), None);
        state.require("grpc-api-server");
        assert_eq!(state.missing(), Some(vec!["grpc-api-server"]), "not ready again in a drain");
    }

    #[test]
    fn metadata_is_bounded() {
        let state = State::new(options());
        for n in 0..METADATA_KEYS_MAX {
            state.set_metadata(format!("k{n}"), String::new()).unwrap();
        }
        let full = state.set_metadata("more".to_owned(), String::new());
        assert_eq!(full, Err(MetadataError::TooManyKeys));
        state.set_metadata("k0".to_owned(), "v".to_owned()).unwrap();
        let huge = "x".repeat(METADATA_OCTETS_MAX);
        assert_eq!(state.set_metadata("k0".to_owned(), huge), Err(MetadataError::TooLarge));
        assert_eq!(state.extended().get("k0").map(String::as_str), Some("v"));
        state.set_metadata(String::new(), "ignored".to_owned()).unwrap();
        assert!(!state.extended().contains_key(""));
    }

    fn increment(worker: &mut Cells, calls: usize) -> Box<Increment> {
        (0..calls).for_each(|_| worker.ended(Hop::Inbound, 0, Duration::ZERO));
        Box::new(worker.hand_over())
    }

    /// The stuck worker's calls are missing until it tells them, and then counted once.
    #[tokio::test(start_paused = true)]
    async fn a_silent_worker_does_not_hold_a_scrape() {
        let (one, mail_of_one) = mailbox(4).unwrap();
        let (two, mail_of_two) = mailbox(4).unwrap();
        let state = State::new(StateOptions { workers: vec![one, two], ..options() });
        let (mut quick, mut stuck) = (Cells::default(), Cells::default());
        let second = Pace { busy: Duration::from_secs(1), ..Pace::default() };
        let answer = async { state.cells_arrived(0, increment(&mut quick, 3), second) };
        let began = Instant::now();
        let ((cells, workers), ()) = tokio::join!(state.scrape(), answer);
        assert_eq!(began.elapsed(), SCRAPE_TIME_MAX);
        assert_eq!(cells.hop(Hop::Inbound).calls[0], 3);
        assert_eq!(workers.iter().map(|w| w.answered).collect::<Vec<_>>(), [true, false]);
        assert_eq!(workers[0].busy_seconds, 1.0);
        assert_eq!(state.counters.scrapes_incomplete.get(), 1);
        for mail in [&mail_of_one, &mail_of_two] {
            assert!(matches!(mail.try_recv(), Some(ToWorker::Scrape(_))));
        }
        // Late, and then twice in a row: each scrape asked.
        state.cells_arrived(1, increment(&mut stuck, 2), second);
        let answers = async {
            state.cells_arrived(0, increment(&mut quick, 10), second);
            state.cells_arrived(1, increment(&mut stuck, 20), second);
            state.cells_arrived(1, increment(&mut stuck, 0), second);
        };
        let ((cells, workers), ()) = tokio::join!(state.scrape(), answers);
        assert_eq!(cells.hop(Hop::Inbound).calls[0], 35);
        assert!(workers.iter().all(|worker| worker.answered));
        assert_eq!(state.counters.scrapes_incomplete.get(), 1);
    }

    /// Scrapes at the same time ask once.
    #[tokio::test(start_paused = true)]
    async fn scrapes_share_answers() {
        let (worker, mail) = mailbox(4).unwrap();
        let state = State::new(StateOptions { workers: vec![worker], ..options() });
        let mut cells = Cells::default();
        let answer = async { state.cells_arrived(0, increment(&mut cells, 1), Pace::default()) };
        let ((one, _), (two, _), ()) = tokio::join!(state.scrape(), state.scrape(), answer);
        for cells in [one, two] {
            assert_eq!(cells.hop(Hop::Inbound).calls[0], 1);
        }
        assert!(mail.try_recv().is_some() && mail.try_recv().is_none());
    }

    /// Who comes when one worker has answered and another has not disturbs neither.
    #[tokio::test(start_paused = true)]
    async fn a_scrape_joins_the_one_under_way() {
        let (one, mail_of_one) = mailbox(4).unwrap();
        let (two, mail_of_two) = mailbox(4).unwrap();
        let state = State::new(StateOptions { workers: vec![one, two], ..options() });
        let (mut quick, mut slow) = (Cells::default(), Cells::default());
        let second = SCRAPE_TIME_MAX / 2;
        let later = async {
            tokio::time::sleep(second).await;
            state.cells_arrived(0, increment(&mut quick, 1), Pace::default());
            state.scrape().await
        };
        let answer = async {
            tokio::time::sleep(second + second / 2).await;
            state.cells_arrived(1, increment(&mut slow, 1), Pace::default());
        };
        let ((_, first), (_, joined), ()) = tokio::join!(state.scrape(), later, answer);
        for workers in [first, joined] {
            assert!(workers.iter().all(|worker| worker.answered));
        }
        for mail in [mail_of_one, mail_of_two] {
            assert!(mail.try_recv().is_some() && mail.try_recv().is_none());
        }
        assert_eq!(state.counters.scrapes_incomplete.get(), 0);
    }

    #[tokio::test]
    async fn shutdown_is_told_and_force_may_follow() {
        let state = State::new(options());
        state.request_shutdown(Shutdown { force: false });
        assert_eq!(state.shutdown_requested().await, Shutdown { force: false });
        state.request_shutdown(Shutdown { force: true });
        assert_eq!(state.shutdown_requested().await, Shutdown { force: true });
    }
}
