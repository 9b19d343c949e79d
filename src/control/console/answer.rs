//! Questions to answers: what the control thread knows, and what workers say of themselves.

use super::question::Question;
use super::{Console, limits};
use crate::control::breakers;
use crate::identity::Identity;
use crate::observe::log::timestamp;
use serde_json::{Value, json};
use std::time::SystemTime;
use tokio::time::Instant;

impl Console {
    pub(super) async fn answer(&self, question: Question) -> Value {
        match question {
            Question::Config => self.config(),
            Question::Names => self.state.names.told(),
            Question::Pools => self.pools().await,
            Question::Limits => self.limits().await,
            Question::Breakers => self.breakers().await,
            Question::SetLevel(level) => {
                self.log.set_level(level);
                self.level()
            }
            Question::Level => self.level(),
            Question::Tap(_) => json!({ "error": "a tap is no single answer" }),
        }
    }

    fn level(&self) -> Value {
        json!({ "level": self.log.level().flag() })
    }

    /// What holds now: flags and files as they were understood, and what was found since.
    fn config(&self) -> Value {
        let snapshot = self.workers.snapshot();
        let mut config = self.facts.clone();
        config["log"]["level"] = self.log.level().flag().into();
        config["epoch"] = snapshot.epoch.0.into();
        config["app"]["endpoint"] = snapshot.app.as_ref().map(ToString::to_string).into();
        config["app"]["healthy"] = self.state.app_is_well().into();
        config["features"] = self.state.features().into();
        config["accessControl"] = snapshot.policies.access_summary().into();
        config["resiliency"] = snapshot.resiliency.is_some().into();
        config["identity"] = snapshot.identity.as_deref().map(|id| identity(id, now())).into();
        config["notReady"] = self.state.missing().unwrap_or_default().into();
        config
    }

    async fn pools(&self) -> Value {
        let reports = self.reports().await;
        let workers = reports.into_iter().enumerate().map(|(worker, report)| match report {
            Some(report) => json!({ "worker": worker, "report": *report }),
            None => json!({ "worker": worker, "error": "it did not answer in time" }),
        });
        workers.collect()
    }

    /// What each limit is, what of it is used, and how often it was reached since the start.
    async fn limits(&self) -> Value {
        let reports = self.reports().await;
        let (cells, _) = self.state.scrape().await;
        let told = reports.iter().flatten().flat_map(|report| &report.limits);
        limits::told(told, cells.limits())
    }

    async fn breakers(&self) -> Value {
        let (cells, _) = self.state.scrape().await;
        let targets = self.state.resiliency().targets.clone();
        breakers::told(targets.as_deref(), &cells, Instant::now().into_std())
    }
}

fn identity(identity: &Identity, now: SystemTime) -> Value {
    let left = identity.not_after.duration_since(now).unwrap_or_default();
    json!({
        "spiffeId": identity.spiffe_id.as_str(),
        "notBefore": timestamp(identity.not_before),
        "notAfter": timestamp(identity.not_after),
        "secondsLeft": left.as_secs(),
    })
}

#[allow(clippy::disallowed_methods, reason = "certificates know real time")]
fn now() -> SystemTime {
    SystemTime::now()
}
