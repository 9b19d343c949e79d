//! Files that decide about calls, followed while calls are served: a change holds for the next
//! call, without a restart.
//!
//! ```text
//! look, each half second ─▶ changed, at rest ─▶ read, compile ─▶ good: publish, whole
//! SIGHUP ─────────────────────────────────────▶      │             └▶ what no snapshot carries:
//!                                                    │                told; SIGHUP restarts
//!                                                    └▶ bad: told, nothing changes
//! ```
//!
//! 1. What is read is taken whole or not at all; calls that run end under what they began with.
//! 2. A Configuration that would end a start is told with an ERROR, once, and changes nothing; nor
//!    does one that held something and holds nothing now: whoever empties a file is about to write
//!    it. Of Resiliency resources, each file counts for itself (`control::resiliency`).
//! 3. Files are looked at and read by the helper thread. Only those that are read are looked at;
//!    how many there are, and how large, is bounded where they are read (`control::files`).
//! 4. Without the feature `HotReload` nothing is looked at; SIGHUP is followed all the same.
//!
//! Why polling: ADR 170; when a SIGHUP restarts: ADR 171. Compare Dapr's `pkg/runtime/hotreload`.

pub mod record;
pub mod source;
pub mod watch;

use super::files::Text;
use super::publish::Workers;
use super::resiliency::{self, Shelf};
use super::state::State;
use crate::config::change::Change;
use crate::config::spec::Configuration;
use record::Outcome;
use source::{Loaded, Source};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Notify;
use watch::{Look, Stamps, Watch};

const LOOK_INTERVAL: Duration = Duration::from_millis(500);

const SCOPE: &str = "dapr.runtime.hotreload";
const ENABLED: &str = "Hot reloading enabled. Daprd will reload 'Configuration' and 'Resiliency' \
                       resources when they are added, updated or deleted.";
const SIGNALS: &str = "dapr.signals";

pub struct Reloader {
    source: Arc<Source>,
    state: Rc<State>,
    workers: Rc<Workers>,
    asked: Notify,
    restart: Notify,
}

/// What was read at the start.
#[derive(Debug)]
pub struct First {
    pub configuration: Configuration,
    pub shelf: Shelf,
    /// How Configurations looked, and how resources.
    pub stamps: [Option<Stamps>; 2],
}

/// What there is to compare with.
struct Held {
    started: Configuration,
    in_force: Configuration,
    /// What differs of the two, and holds only for a whole run.
    pending: Vec<&'static str>,
    /// Why what the Configurations say now is not in force.
    refused: Option<String>,
}

/// What the helper thread works with. Neither sort of files waits for the other to rest.
struct Files {
    source: Arc<Source>,
    configurations: Watch,
    resources: Watch,
    shelf: Shelf,
    /// Why a folder could not be listed, when it was tried last.
    unlisted: Option<String>,
}

/// What it found; `None`: nothing was read.
#[derive(Default)]
struct Reading {
    configuration: Option<Result<Loaded, String>>,
    resiliency: Option<resiliency::Change>,
    /// Places that change all the time, now for long.
    restless: Vec<String>,
    /// Some resource is wrong.
    wrong: bool,
}

impl Reloader {
    pub fn new(source: Arc<Source>, state: Rc<State>, workers: Rc<Workers>) -> Rc<Self> {
        let (asked, restart) = (Notify::new(), Notify::new());
        Rc::new(Self { source, state, workers, asked, restart })
    }

    /// SIGHUP: the files are read at once, however they look.
    pub fn ask(&self) {
        self.asked.notify_one();
    }

    /// Returns when a SIGHUP found a change that only a restart can bring.
    pub async fn restart_wanted(&self) {
        self.restart.notified().await;
    }

    /// For as long as we run.
    pub async fn run(&self, First { configuration: first, shelf, stamps }: First) {
        let (started, in_force) = (first.clone(), first);
        let mut held = Held { started, in_force, pending: Vec::new(), refused: None };
        let [configurations, resources] = stamps.map(Watch::new);
        let source = Arc::clone(&self.source);
        let mut files = Files { source, configurations, resources, shelf, unlisted: None };
        if held.in_force.reloads() {
            tracing::info!(scope = SCOPE, "{ENABLED}");
        }
        loop {
            let hot = held.in_force.reloads() && !self.source.is_empty();
            let asked = tokio::select! {
                () = self.asked.notified() => true,
                () = tokio::time::sleep(LOOK_INTERVAL), if hot => false,
            };
            let looked = tokio::task::spawn_blocking(move || {
                let reading = files.look(asked);
                (files, reading)
            });
            let Ok((back, reading)) = looked.await else { return self.gives_up() };
            files = back;
            for places in &reading.restless {
                tracing::warn!(
                    scope = SCOPE,
                    "{places}: something changes there all the time, and is read once it rests"
                );
            }
            if reading.configuration.is_some() || reading.resiliency.is_some() {
                self.take(reading, asked, &mut held);
            }
        }
    }

    /// The helper thread is gone, as at the end of the process, or it panicked.
    fn gives_up(&self) {
        tracing::error!(
            scope = SCOPE,
            "reading {} failed for good; what is in force stays until the next start",
            self.source.places()
        );
        self.record(Outcome { changed: false, failed: true, refused: true }, false);
    }

    fn take(&self, reading: Reading, asked: bool, held: &mut Held) {
        let resiliency = reading.resiliency.unwrap_or_default();
        let resiliency::Change { loaded: resiliency, names, failed } = resiliency;
        let loaded = reading.configuration.map(|configuration| {
            configuration.and_then(|loaded| not_emptied(loaded, &held.in_force))
        });
        let good = loaded.as_ref().and_then(|loaded| loaded.as_ref().ok());
        let carried = good.map(|good| Change::between(&held.in_force, &good.configuration).carried);
        let carried = carried.unwrap_or_default();
        let changed = resiliency.is_some() || !carried.is_empty();
        if changed {
            self.publish(good.filter(|_| !carried.is_empty()), resiliency);
        }
        let (mut failed, taken) = (failed, good.is_some());
        if !names.is_empty() {
            let names = names.join(", ");
            tracing::info!(scope = SCOPE, "Resiliency reloaded: {names} changed, and in force now");
        }
        match loaded {
            Some(Ok(loaded)) => self.tell(loaded, &carried, asked, held),
            Some(Err(error)) => failed |= self.refuse(error, asked, held),
            None => {}
        }
        let refused = held.refused.is_some() || reading.wrong;
        let pending = !held.pending.is_empty();
        // A failure of the system is read again at each look, and is no news each time.
        let repeated = refused && !self.state.reloads.borrow().last_was_good();
        if asked || changed || failed || taken || !repeated {
            self.record(Outcome { changed, failed, refused }, pending);
        }
        if asked && pending && held.refused.is_none() {
            self.restart.notify_one();
        } else if asked && !changed && !refused {
            tracing::info!(scope = SIGNALS, "nothing has changed that would need a restart");
        }
    }

    /// What a snapshot carries, at once.
    fn publish(&self, loaded: Option<&Loaded>, resiliency: Option<resiliency::Loaded>) {
        let policies = loaded.map(|loaded| Arc::clone(&loaded.policies));
        let targets = resiliency.as_ref().map(|resiliency| resiliency.targets.clone());
        if let Some(Loaded { configuration, policies, .. }) = loaded {
            self.state.set_features(configuration.features.clone());
            self.state.set_policies(Arc::clone(policies));
        }
        if let Some(resiliency) = resiliency {
            self.state.set_resiliency(resiliency);
        }
        self.workers.publish(|snapshot| {
            if let Some(policies) = policies {
                snapshot.policies = policies;
            }
            if let Some(targets) = targets {
                snapshot.resiliency = targets;
            }
        });
    }

    /// Says why what Configurations say is not taken, unless it was said; whether it was now.
    fn refuse(&self, error: String, asked: bool, held: &mut Held) -> bool {
        let news = asked || held.refused.as_ref() != Some(&error);
        if news {
            let what = self.source.what(&error);
            tracing::error!(
                scope = SCOPE,
                "cannot reload {what}: {error}; what was in force stays in force"
            );
        }
        held.refused = Some(error);
        news
    }

    /// Says what a Configuration changed, and remembers it.
    fn tell(&self, loaded: Loaded, carried: &[&str], asked: bool, held: &mut Held) {
        let Loaded { configuration, warning, .. } = loaded;
        let files = self.source.names();
        if !carried.is_empty() {
            if let Some(warning) = warning {
                tracing::warn!(scope = "dapr.acl", "{warning}");
            }
            let fields = carried.join(", ");
            tracing::info!(scope = SCOPE, "{files} reloaded: {fields} changed, and in force now");
        }
        tell_fields(&configuration, &held.in_force);
        let beyond = Change::between(&held.started, &configuration).beyond;
        if beyond != held.pending && !beyond.is_empty() && !asked {
            let fields = beyond.join(", ");
            tracing::warn!(
                scope = SCOPE,
                "{files}: {fields} changed, which holds from the next start on: SIGHUP restarts \
                 for it"
            );
        }
        held.pending = beyond;
        held.in_force = configuration;
        held.refused = None;
    }

    #[allow(clippy::disallowed_methods, reason = "operators ask since when")]
    fn record(&self, outcome: Outcome, pending: bool) {
        let mut record = self.state.reloads.borrow_mut();
        record.count(outcome, SystemTime::now());
        record.restart_pending = pending;
    }
}

impl Files {
    /// On the helper thread.
    fn look(&mut self, asked: bool) -> Reading {
        let mut reading = Reading::default();
        let source = Arc::clone(&self.source);
        match self.configurations.look(source.configuration_stamps(), asked) {
            Look::Changed => {
                let gathered = source.gather_configurations();
                self.configurations.was_read(gathered.stamps);
                let loaded = gathered.held.and_then(|files| source.compile(&files));
                reading.configuration = Some(loaded);
            }
            Look::Moving { long: true } => reading.restless.push(source.names()),
            Look::Moving { long: false } | Look::Same => {}
        }
        match source.resource_stamps() {
            Ok(stamps) => {
                // Read again, whatever it looks like, once it can be listed again.
                let asked = asked || self.unlisted.take().is_some();
                match self.resources.look(stamps, asked) {
                    Look::Changed => reading.resiliency = self.read_resources(asked),
                    Look::Moving { long: true } => reading.restless.push(source.folders.join(", ")),
                    Look::Moving { long: false } | Look::Same => {}
                }
            }
            Err(error) => reading.resiliency = self.cannot_list(error),
        }
        reading.wrong = self.shelf.is_wrong() || self.unlisted.is_some();
        reading
    }

    /// A folder that is gone holds nothing; one that cannot be listed, nobody knows.
    fn cannot_list(&mut self, error: String) -> Option<resiliency::Change> {
        if self.unlisted.as_ref() == Some(&error) {
            return None;
        }
        tracing::error!(scope = SCOPE, "{error}; what its resources said stays in force");
        self.unlisted = Some(error);
        Some(resiliency::Change { failed: true, ..resiliency::Change::default() })
    }

    #[allow(clippy::disallowed_methods, reason = "breakers begin with their policies")]
    fn read_resources(&mut self, asked: bool) -> Option<resiliency::Change> {
        let gathered = self.source.gather_resources();
        // Half of a file is not for taking: there will be another look.
        let rested = gathered.stamps.is_some();
        let failed = |text: &Text| text.content.as_ref().is_err_and(|failure| failure.passes);
        let passes = gathered.held.iter().any(failed);
        self.resources.was_read(gathered.stamps.filter(|_| !passes));
        rested.then(|| self.shelf.take(&gathered.held, asked, Instant::now()))
    }
}

fn not_emptied(loaded: Loaded, before: &Configuration) -> Result<Loaded, String> {
    let mut silent = loaded.configuration.silent.iter();
    match silent.find(|name| !before.silent.contains(name)) {
        Some(name) => Err(format!("{name} holds nothing any more")),
        None => Ok(loaded),
    }
}

/// Logs a line for each field and rule that has no effect, unless `told` has it too.
pub fn tell_fields(configuration: &Configuration, told: &Configuration) {
    for (field, file) in configuration.unknown.iter().filter(|it| !told.unknown.contains(it)) {
        tracing::warn!("{file}: no Configuration has a field {field}: without effect");
    }
    let idle = configuration.idle_rules.iter();
    for (rule, file) in idle.filter(|it| !told.idle_rules.contains(it)) {
        tracing::warn!("{file}: {rule} restricts nothing: its protocol is neither http nor grpc");
    }
}
