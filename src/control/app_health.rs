//! The app's health: probed, judged, told.
//!
//! 1. An app is unhealthy until a probe succeeds, and again after `threshold` probes in a row that
//!    did not (daprd counts those between two successes, too: docs/parity.md).
//! 2. One probe at a time: at once, then one each interval; none takes longer than its timeout.
//! 3. Calls are never refused for it: as daprd's, they are the app's to answer.
//!
//! Source: Dapr's `pkg/apphealth/health.go`, whose lines of log these are.

mod probe;

use super::app_channel::link::Links;
use super::publish::Workers;
use super::state::State;
use crate::config::App;
use crate::config::settings::AppHealth;
use crate::snapshot::Way;
use probe::{Outcome, Probe};
use std::rc::Rc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

const SCOPE: &str = "dapr.apphealth";

/// What probes have made of the app.
#[derive(Debug)]
struct Health {
    threshold: u32,
    /// Probes that failed in a row; begins at the threshold.
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Healthy,
    Unhealthy,
}

impl Health {
    fn new(threshold: u32) -> Self {
        Self { threshold, failures: threshold }
    }

    fn succeeded(&mut self) -> Option<Change> {
        let before = std::mem::replace(&mut self.failures, 0);
        (before >= self.threshold).then_some(Change::Healthy)
    }

    fn failed(&mut self) -> Option<Change> {
        self.failures = self.failures.saturating_add(1);
        (self.failures == self.threshold).then_some(Change::Unhealthy)
    }
}

/// Probes for as long as we run.
pub async fn watch(app: &App, config: &AppHealth, workers: &Workers, state: &Rc<State>) {
    tracing::info!(scope = SCOPE, "App health probes starting");
    let links = Links::for_probes(app);
    let mut probe = Probe::new(app, &config.path);
    let mut health = Health::new(config.threshold);
    let mut ticks = interval(config.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        tracing::debug!(scope = SCOPE, "Probing app health");
        let Some(way) = workers.snapshot().app.clone() else { continue };
        let begun = Instant::now();
        let asking = probe.ask(&links, &way, config.timeout);
        let outcome = timeout(config.timeout, asking).await.unwrap_or_else(|_| probe.too_late());
        if let Some(label) = &outcome.label {
            state.probes.borrow_mut().record(
                probe.kind(),
                label,
                begun.elapsed(),
                &state.options.metrics.latency_bounds,
            );
        }
        judge(&mut health, outcome, state);
    }
}

/// One probe, for somebody who asks; the error says why the app is not well.
pub async fn ask_once(app: &App, config: &AppHealth, way: &Way) -> Result<(), String> {
    let mut probe = Probe::new(app, &config.path);
    let links = Links::for_probes(app);
    let asking = probe.ask(&links, way, config.timeout);
    let outcome = timeout(config.timeout, asking).await.unwrap_or_else(|_| probe.too_late());
    outcome.failure.map_or(Ok(()), Err)
}

fn judge(health: &mut Health, outcome: Outcome, state: &State) {
    let Outcome { failure, is_error, .. } = outcome;
    let Some(reason) = failure else {
        if health.succeeded() == Some(Change::Healthy) {
            tracing::info!(scope = SCOPE, "App entered healthy status");
            state.app_is_healthy(true);
        }
        return;
    };
    let error = is_error.then(|| reason.clone());
    let reason = if is_error { format!("Probe error: {reason}") } else { reason };
    if health.failed() == Some(Change::Unhealthy) {
        tracing::warn!(scope = SCOPE, "App entered un-healthy status: {reason}");
        state.app_is_healthy(false);
    }
    if let Some(error) = error {
        tracing::error!(scope = SCOPE, "App health probe could not complete with error: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Begins unhealthy; successes and failures as `s` and `f`, changes as `H` and `U`.
    fn changes(threshold: u32, probes: &str) -> String {
        let mut health = Health::new(threshold);
        let mut change = |probe| match probe {
            's' => health.succeeded(),
            _ => health.failed(),
        };
        let letter = |change| match change {
            None => '-',
            Some(Change::Healthy) => 'H',
            Some(Change::Unhealthy) => 'U',
        };
        probes.chars().map(|probe| letter(change(probe))).collect()
    }

    #[test]
    fn changes_are_told_once() {
        for (threshold, probes, told) in [
            (3, "sss", "H--"),
            (3, "ffffs", "----H"),
            (3, "sfffff", "H--U--"),
            (3, "sffsfff", "H-----U"),
            (1, "sfsf", "HUHU"),
            (2, "sffs", "H-UH"),
        ] {
            assert_eq!(changes(threshold, probes), told, "{threshold} {probes}");
        }
    }

    #[test]
    fn failures_are_counted_without_end() {
        let mut health = Health { threshold: 3, failures: u32::MAX };
        assert_eq!(health.failed(), None);
        assert_eq!(health.succeeded(), Some(Change::Healthy));
    }
}
