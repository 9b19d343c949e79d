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
//! 2. What would end a start is told with an ERROR, once, and changes nothing; nor does a file that
//!    held something and holds nothing now: whoever empties a file is about to write it.
//! 3. Files are looked at and read by the helper thread. Only those that are read are looked at;
//!    how many there are, and how large, is bounded where they are read (`control::files`).
//! 4. Without the feature `HotReload` nothing is looked at; SIGHUP is followed all the same.
//!
//! Why polling: ADR 170; when a SIGHUP restarts: ADR 171. Compare Dapr's `pkg/runtime/hotreload`.

pub mod record;
pub mod source;
pub mod watch;

use super::publish::Workers;
use super::state::State;
use crate::config::change::Change;
use crate::config::spec::Configuration;
use record::Outcome;
use source::{Loaded, Reading, Source};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use watch::{Look, Stamps, Watch};

const LOOK_INTERVAL: Duration = Duration::from_millis(500);

const SCOPE: &str = "dapr.runtime.hotreload";
const SIGNALS: &str = "dapr.signals";

pub struct Reloader {
    source: Arc<Source>,
    state: Rc<State>,
    workers: Rc<Workers>,
    asked: Notify,
    restart: Notify,
}

/// What there is to compare with.
struct Held {
    started: Configuration,
    in_force: Configuration,
    /// What differs of the two, and holds only for a whole run.
    pending: Vec<&'static str>,
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

    /// For as long as we run; `first` is what was read at the start.
    pub async fn run(&self, first: Configuration, stamps: Option<Stamps>) {
        let mut watch = Watch::new(stamps);
        let mut held = Held { started: first.clone(), in_force: first, pending: Vec::new() };
        loop {
            let hot = held.in_force.reloads() && !self.source.is_empty();
            let asked = tokio::select! {
                () = self.asked.notified() => true,
                () = tokio::time::sleep(LOOK_INTERVAL), if hot => false,
            };
            let source = Arc::clone(&self.source);
            let looked = tokio::task::spawn_blocking(move || look(watch, &source, asked));
            // The helper thread is gone: this is the end.
            let Ok((after, look, reading)) = looked.await else { return };
            watch = after;
            if look == (Look::Moving { long: true }) {
                let files = self.source.names();
                tracing::warn!(scope = SCOPE, "{files}: changing all the time; read once at rest");
            }
            if let Some(Reading { loaded, .. }) = reading {
                self.take(loaded, asked, &mut held);
            }
        }
    }

    fn take(&self, loaded: Result<Loaded, String>, asked: bool, held: &mut Held) {
        let outcome = match loaded.and_then(|loaded| not_emptied(loaded, &held.in_force)) {
            Err(error) => {
                let what = self.source.what(&error);
                tracing::error!(
                    scope = SCOPE,
                    "cannot reload {what}: {error}; what was in force stays in force"
                );
                Outcome::Refused
            }
            Ok(loaded) => self.apply(loaded, asked, held),
        };
        #[allow(clippy::disallowed_methods, reason = "operators ask since when")]
        let now = SystemTime::now();
        let mut record = self.state.reloads.borrow_mut();
        record.count(outcome, now);
        record.restart_pending = !held.pending.is_empty();
        drop(record);
        if outcome == Outcome::Unchanged && asked && held.pending.is_empty() {
            tracing::info!(scope = SIGNALS, "nothing has changed that would need a restart");
        }
        if outcome != Outcome::Refused && asked && !held.pending.is_empty() {
            self.restart.notify_one();
        }
    }

    /// Publishes what a snapshot carries, and tells of the rest.
    fn apply(&self, loaded: Loaded, asked: bool, held: &mut Held) -> Outcome {
        let Loaded { configuration, policies, warning } = loaded;
        let carried = Change::between(&held.in_force, &configuration).carried;
        let beyond = Change::between(&held.started, &configuration).beyond;
        if !carried.is_empty() {
            self.state.set_features(configuration.features.clone());
            self.state.set_policies(Arc::clone(&policies));
            self.workers.publish(|snapshot| snapshot.policies = policies);
            tell_fields(&configuration, &held.in_force);
            if let Some(warning) = warning {
                tracing::warn!(scope = "dapr.acl", "{warning}");
            }
            let (files, fields) = (self.source.names(), carried.join(", "));
            tracing::info!(scope = SCOPE, "{files} reloaded: {fields} changed, and in force now");
        }
        if beyond != held.pending && !beyond.is_empty() && !asked {
            let (files, fields) = (self.source.names(), beyond.join(", "));
            tracing::warn!(
                scope = SCOPE,
                "{files}: {fields} changed, which holds from the next start on: SIGHUP restarts \
                 for it"
            );
        }
        held.pending = beyond;
        held.in_force = configuration;
        match carried.is_empty() {
            true => Outcome::Unchanged,
            false => Outcome::Changed,
        }
    }
}

/// On the helper thread.
fn look(mut watch: Watch, source: &Source, asked: bool) -> (Watch, Look, Option<Reading>) {
    let look = if asked { Look::Changed } else { watch.look(source.stamps()) };
    let reading = (look == Look::Changed).then(|| source.read());
    if let Some(reading) = &reading {
        watch.was_read(reading.stamps.clone());
    }
    (watch, look, reading)
}

fn not_emptied(loaded: Loaded, before: &Configuration) -> Result<Loaded, String> {
    let mut silent = loaded.configuration.silent.iter();
    match silent.find(|name| !before.silent.contains(name)) {
        Some(name) => Err(format!("{name} holds nothing any more")),
        None => Ok(loaded),
    }
}

/// Logs a line for each field that has no effect, unless `told` has it too.
pub fn tell_fields(configuration: &Configuration, told: &Configuration) {
    for (field, file) in configuration.unused.iter().filter(|it| !told.unused.contains(it)) {
        tracing::warn!("{file}: {field} has no effect yet in this version of ringside");
    }
    for (field, file) in configuration.unknown.iter().filter(|it| !told.unknown.contains(it)) {
        tracing::warn!("{file}: no Configuration has a field {field}: without effect");
    }
}
