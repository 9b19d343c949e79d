//! Starting a sidecar, in daprd's order (`pkg/runtime/runtime.go`).

use super::bound::{self, Bound};
use super::log::{Log, care};
use super::{Plan, announce, console, cpus, names};
use crate::config::cpus::Crew;
use crate::config::naming::{Unavailable, init_failure, naming};
use crate::config::settings::{AppHealth, Security, Settings};
use crate::config::spec::ApiLogging;
use crate::config::{App, AppPlace, Config, DAPR_VERSION};
use crate::control::dapr_api::Reflection;
use crate::control::desk::Desk;
use crate::control::metric::MetricOptions;
use crate::control::publish::Workers;
use crate::control::reload::{First, Reloader};
use crate::control::resiliency::{Loaded, Shelf};
use crate::control::resolver::{Publish, Resolver};
use crate::control::sentry::{self, SentryOptions};
use crate::control::spans::Spans;
use crate::control::state::{self, State, StateOptions};
use crate::control::{admin, app_channel, app_health, files};
use crate::identity::Identity;
use crate::io::{ListenSocket, Loads, WorkerOptions};
use crate::mailbox::{Mailbox, Sender, ToControl, ToWorker, mailbox};
use crate::policy::resiliency::Targets;
use crate::proxy::Listener;
use crate::snapshot::Snapshot;
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_local};

/// Health targets, by daprd's names.
pub const RUNTIME: &str = "runtime";
pub const SERVERS: [&str; 2] = ["grpc-api-server", "grpc-internal-server"];

/// Messages that wait for one worker, and for control.
const MAIL_MAX: usize = 1024;

/// What has started.
pub struct Sidecar {
    pub plan: Plan,
    pub state: Rc<State>,
    pub workers: Rc<Workers>,
    pub resolver: Rc<Resolver>,
    pub reloader: Rc<Reloader>,
    pub spans: Rc<Spans>,
    /// One HTTP surface each.
    pub surfaces: JoinSet<()>,
    pub http_addresses: Vec<String>,
    pub app_found: Rc<Cell<bool>>,
    /// Held until the end, which removes the socket files.
    _files: bound::Files,
}

/// Why something ended that should not.
pub type Ended = mpsc::Receiver<String>;

/// Everything up to serving calls; waiting for the app goes on in the background.
pub async fn start(mut plan: Plan, begun: Instant, log: &Log) -> Result<(Sidecar, Ended), String> {
    announce::descriptors();
    let identity = match &plan.settings.security {
        Some(security) => Some(identity(&plan, security).await?),
        None => None,
    };
    announce::configuration(&plan);
    let app_id = plan.settings.config.app_id.clone();
    files::tell_resources(&plan.settings.resource_folders, app_id.as_str());
    announce::sampler(&plan);
    let internal = bound::internal(&plan).await?;
    let port = internal.local_addr().map_err(|error| error.to_string())?.port();
    plan.settings.config.internal_port = port;
    let config = Arc::new(plan.settings.config.clone());
    let app_calls_max = plan.settings.app_calls_max.filter(|_| config.app.is_some());
    let crew = cpus::crew(plan.settings.workers, plan.settings.pin)
        .sharing(plan.settings.workers, app_calls_max);
    let mut shelf = Shelf::new(app_id.as_str(), crew.workers);
    let change = shelf.take(&std::mem::take(&mut plan.resources), false, begun);
    let loaded = change.loaded.unwrap_or_default();
    let first = identity.as_ref().map(|(_, first)| Arc::clone(first));
    let snapshot = first_snapshot(&config, &plan, first, loaded.targets.clone());
    let Mail { senders, scrapers, inboxes } = mail(crew.workers).map_err(no_mailbox)?;
    let workers = Workers::new(senders, Arc::clone(&snapshot));
    let state = first_state(&plan, &config, scrapers, loaded, &shelf);
    let spans = Spans::start(plan.exporters.clone(), &state)?;
    let resolver = resolver(&plan, &workers, &state)?;
    announce::channel(&plan);
    let Bound { calls, http, http_addresses, mut files } =
        bound::everything(&plan, internal).await?;
    SERVERS.into_iter().chain([RUNTIME]).for_each(|target| state.require(target));
    let (control, mail) = mailbox(MAIL_MAX).map_err(no_mailbox)?;
    let (end, ended) = mpsc::channel(crew.workers + 1);
    start_workers(&crew, &plan.settings, snapshot, inboxes, calls, &control, &end)?;
    let tracer = Rc::new(admin::Tracer::new(config.tracing, Rc::clone(&spans)));
    let surfaces = serve_http(http, &state, &tracer, &end);
    let reloader = follow_files(&plan, &state, &workers, shelf);
    let console = console::start(&plan, log, &state, &workers, &mut files)?;
    let app_found = Rc::new(Cell::new(false));
    let health = plan.settings.app_health.clone();
    let sidecar = Sidecar {
        plan,
        state: Rc::clone(&state),
        workers: Rc::clone(&workers),
        resolver: Rc::clone(&resolver),
        reloader,
        spans: Rc::clone(&spans),
        surfaces,
        http_addresses,
        app_found: Rc::clone(&app_found),
        _files: files,
    };
    let desk = Desk {
        state: Rc::clone(&state),
        workers: Rc::clone(&workers),
        resolver,
        console,
        reflection: Reflection::default(),
        spans,
    };
    spawn_local(read_mail(desk, mail, end));
    care::look_after(log, &state);
    if let Some((options, first)) = identity {
        spawn_local(rotate(options, first, Rc::clone(&workers), Rc::clone(&state)));
    }
    SERVERS.iter().for_each(|target| state.ready(target));
    state.set_outbound_ready(true);
    spawn_local(await_app(config, health, workers, state, app_found, begun));
    Ok((sidecar, ended))
}

fn first_snapshot(
    config: &Arc<Config>,
    plan: &Plan,
    identity: Option<Arc<Identity>>,
    resiliency: Option<Arc<Targets>>,
) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        app: config.app.as_ref().and_then(app_channel::given),
        latency_bounds: plan.configuration.metrics.latency_bounds().into(),
        policies: Arc::clone(&plan.policies),
        identity,
        resiliency,
        ..Snapshot::new(Arc::clone(config))
    })
}

fn no_mailbox(error: io::Error) -> String {
    format!("cannot make a mailbox: {error}")
}

fn first_state(
    plan: &Plan,
    config: &Config,
    workers: Vec<Sender<ToWorker>>,
    resiliency: Loaded,
    shelf: &Shelf,
) -> Rc<State> {
    let state = State::new(state_options(plan, config, workers));
    state.set_policies(Arc::clone(&plan.policies));
    state.set_features(plan.configuration.features.clone());
    state.set_resiliency(resiliency);
    if shelf.is_wrong() {
        state.reloads.borrow_mut().begins_refused();
    }
    state
}

/// The ends of every worker's mailbox.
struct Mail {
    senders: Vec<Sender<ToWorker>>,
    scrapers: Vec<Sender<ToWorker>>,
    inboxes: Inboxes,
}

/// What the workers get of it.
#[derive(Default)]
struct Inboxes {
    mailboxes: Vec<Mailbox<ToWorker>>,
    /// For the first worker, which accepts: how to reach every other one.
    others: Vec<Option<Sender<ToWorker>>>,
}

fn mail(workers: usize) -> io::Result<Mail> {
    let (senders, scrapers, inboxes) = (Vec::new(), Vec::new(), Inboxes::default());
    let mut mail = Mail { senders, scrapers, inboxes };
    for worker in 0..workers {
        let (sender, mailbox) = mailbox(MAIL_MAX)?;
        mail.scrapers.push(sender.try_clone()?);
        let other = if worker == 0 { None } else { Some(sender.try_clone()?) };
        mail.inboxes.others.push(other);
        mail.senders.push(sender);
        mail.inboxes.mailboxes.push(mailbox);
    }
    Ok(mail)
}

fn serve_http(
    listeners: Vec<(admin::HttpListener, admin::Surface)>,
    state: &Rc<State>,
    tracer: &Rc<admin::Tracer>,
    end: &mpsc::Sender<String>,
) -> JoinSet<()> {
    let mut surfaces = JoinSet::new();
    for (listener, surface) in listeners {
        let (state, tracer, end) = (Rc::clone(state), Rc::clone(tracer), end.clone());
        surfaces.spawn_local(async move {
            if let Err(error) = admin::serve(listener, surface, state, tracer).await {
                let _ = end.try_send(format!("HTTP server failed: {error}"));
            }
        });
    }
    surfaces
}

/// Ends with the last worker, which says itself why it ended.
async fn read_mail(desk: Desk, mail: Mailbox<ToControl>, end: mpsc::Sender<String>) {
    if let Err(error) = desk.serve(&mail).await {
        let _ = end.try_send(format!("control cannot read its mail: {error}"));
    }
}

fn follow_files(
    plan: &Plan,
    state: &Rc<State>,
    workers: &Rc<Workers>,
    shelf: Shelf,
) -> Rc<Reloader> {
    let source = Arc::clone(&plan.source);
    let reloader = Reloader::new(source, Rc::clone(state), Rc::clone(workers));
    let (configuration, stamps) = (plan.configuration.clone(), plan.stamps.clone());
    let follower = Rc::clone(&reloader);
    spawn_local(async move { follower.run(First { configuration, shelf, stamps }).await });
    reloader
}

/// The last step of the start, and then the app's address for as long as we run.
async fn await_app(
    config: Arc<Config>,
    health: Option<AppHealth>,
    workers: Rc<Workers>,
    state: Rc<State>,
    found: Rc<Cell<bool>>,
    begun: Instant,
) {
    if let Some(app) = &config.app {
        app_channel::discover(app, &workers).await;
        found.set(true);
    }
    let concurrency = state.options.app_concurrency_max;
    if concurrency > 0 {
        tracing::info!("app max concurrency set to {concurrency}");
    }
    match (&config.app, health) {
        (Some(app), Some(health)) => {
            let (app, workers, state) = (app.clone(), Rc::clone(&workers), Rc::clone(&state));
            spawn_local(async move { app_health::watch(&app, &health, &workers, &state).await });
        }
        (Some(_) | None, _) => state.app_is_healthy(true),
    }
    state.ready(RUNTIME);
    let elapsed = begun.elapsed().as_millis();
    tracing::info!("dapr initialized. Status: Running. Init Elapsed {elapsed}ms");
    if let Some(app) = &config.app {
        app_channel::follow(app, &workers).await;
    }
}

async fn identity(
    plan: &Plan,
    security: &Security,
) -> Result<(SentryOptions, Arc<Identity>), String> {
    let options = SentryOptions::new(security, &plan.settings.config.namespace)?;
    let first = sentry::fetch(&options).await.map_err(|error| error.to_string())?;
    Ok((options, Arc::new(first)))
}

async fn rotate(
    options: SentryOptions,
    first: Arc<Identity>,
    workers: Rc<Workers>,
    state: Rc<State>,
) {
    state.set_identity(Arc::clone(&first));
    let publish = |identity: Arc<Identity>| {
        state.set_identity(Arc::clone(&identity));
        workers.publish(|snapshot| snapshot.identity = Some(identity));
    };
    sentry::rotate(&options, first, publish, |reason| state.counters.rotation_failed(reason)).await;
}

fn resolver(plan: &Plan, workers: &Rc<Workers>, state: &Rc<State>) -> Result<Rc<Resolver>, String> {
    let (workers, state, counted) = (Rc::clone(workers), Rc::clone(state), state);
    let publish: Publish = Rc::new(move |resolution: crate::resolve::Resolution| {
        state.counters.looked_up(resolution.result.is_ok());
        state.names.heard(&resolution);
        workers.tell(|| ToWorker::Resolved(resolution.clone()));
    });
    let configured = plan.configuration.name_resolution.as_ref();
    let naming = naming(plan.settings.resolve_file.as_deref(), configured);
    let started =
        names::source(&plan.settings, &plan.instance, naming)?.and_then(|(source, component)| {
            let started = Resolver::start(source, Rc::clone(&publish));
            let started =
                started.map_err(|error| init_failure(component, "v1", &error.to_string()))?;
            tracing::info!("Initialized name resolution to {component}");
            Ok(started)
        });
    Ok(started.unwrap_or_else(|Unavailable { error, reason }| {
        tracing::error!("{error}");
        let name = configured.map_or("mdns", |configured| &configured.component);
        counted.counters.resolver_failed(name, reason);
        Resolver::unavailable(publish)
    }))
}

fn state_options(plan: &Plan, config: &Config, workers: Vec<Sender<ToWorker>>) -> StateOptions {
    let settings = &plan.settings;
    let app_health = settings.app_health.as_ref().map(|health| state::AppHealth {
        path: health.path.clone(),
        probe_interval: health.interval,
        probe_timeout: health.timeout,
        threshold: i32::try_from(health.threshold).unwrap_or(i32::MAX),
    });
    let concurrency = i32::try_from(plan.flags.app_max_concurrency).unwrap_or(i32::MAX);
    StateOptions {
        app_id: config.app_id.clone(),
        namespace: config.namespace.clone(),
        version: DAPR_VERSION.to_owned(),
        app: config.app.clone(),
        app_host: app_host(config.app.as_ref(), &plan.flags.app_channel_address),
        app_protocol: app_protocol(config.app.as_ref(), &plan.flags.app_protocol),
        app_concurrency_max: concurrency.max(0),
        app_health,
        metrics: MetricOptions::new(&plan.configuration.metrics),
        api_logging: ApiLogging { enabled: config.logging.api, ..plan.configuration.api_logging },
        api_token: config.api_token.clone(),
        allowed_origins: settings.allowed_origins.clone(),
        body_octets_max: config.max_body_size,
        head_octets_max: usize::try_from(settings.http_header_bytes).unwrap_or(usize::MAX),
        h2c: !settings.http_without_h2c,
        workers,
        page: settings.listen.page.clone(),
    }
}

/// Where the metadata says that the app is.
fn app_host(app: Option<&App>, given: &str) -> String {
    match app.map(|app| &app.place) {
        Some(AppPlace::Socket(path)) => path.target(),
        Some(AppPlace::Port { .. }) | None => given.to_owned(),
    }
}

fn app_protocol(app: Option<&App>, given: &str) -> String {
    let name = match app.map(|app| app.protocol) {
        Some(protocol) => app_channel::name(protocol),
        None if given.is_empty() => "http",
        None => given,
    };
    name.to_ascii_lowercase()
}

/// One thread each. The first one accepts, and hands on what another has less to do than it.
fn start_workers(
    Crew { cpus, app_calls, .. }: &Crew,
    settings: &Settings,
    snapshot: Arc<Snapshot>,
    Inboxes { mailboxes, mut others }: Inboxes,
    calls: Vec<(ListenSocket, Listener)>,
    control: &Sender<ToControl>,
    end: &mpsc::Sender<String>,
) -> Result<(), String> {
    let config = &snapshot.config;
    let loads = Loads::new(mailboxes.len());
    let (mut sockets, listeners): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
    for (index, mailbox) in mailboxes.into_iter().enumerate() {
        let options = WorkerOptions {
            index,
            driver: config.io,
            busy_poll: settings.busy_poll,
            cpu: cpus.get(index % cpus.len().max(1)).copied(),
            listeners: listeners.clone(),
            sockets: std::mem::take(&mut sockets),
            others: std::mem::take(&mut others),
            loads: Arc::clone(&loads),
            snapshot: Arc::clone(&snapshot),
            app_calls_max: app_calls.get(index).copied(),
            retry_budget: settings.retry_budget,
            mailbox,
            control: control.try_clone().map_err(|error| error.to_string())?,
        };
        let notice = EndNotice { end: end.clone(), index, why: None };
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || notice.run(options))
            .map_err(|error| format!("cannot start a worker: {error}"))?;
    }
    Ok(())
}

/// Tells when a worker's thread ends, a panic included.
struct EndNotice {
    end: mpsc::Sender<String>,
    index: usize,
    why: Option<String>,
}

impl EndNotice {
    fn run(mut self, options: WorkerOptions) {
        if let Err(error) = crate::io::run(options) {
            self.why = Some(error.to_string());
        }
    }
}

impl Drop for EndNotice {
    fn drop(&mut self) {
        let why = self.why.take().unwrap_or_else(|| match std::thread::panicking() {
            true => "it panicked".to_owned(),
            false => "its mailbox ended".to_owned(),
        });
        let _ = self.end.try_send(format!("worker {} ended: {why}", self.index));
    }
}
