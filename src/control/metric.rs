//! How metrics are told: what the Configuration's `metric` came to.

use crate::config::metric::{MetricRule, Metrics};
use crate::observe::histogram::Bounds;
use crate::observe::http::{HttpCells, Wanted};
use crate::observe::paths::Paths;
use crate::observe::rules::Rules;
use std::cell::RefCell;

/// `metric` of the Configuration.
#[derive(Debug)]
pub struct MetricOptions {
    pub enabled: bool,
    /// Of Dapr's latencies, in milliseconds.
    pub latency_bounds: Bounds,
    pub rules: Rules,
    /// Taken by the first who asks.
    http: RefCell<Wanted>,
}

impl MetricOptions {
    /// With a rule that is none there are no rules, as in daprd, and an ERROR.
    pub fn new(metrics: &Metrics) -> Self {
        let rules = rules(&metrics.rules).unwrap_or_else(|error| {
            tracing::error!("failed to initialize metrics: {error}");
            Rules::default()
        });
        Self {
            enabled: metrics.enabled,
            latency_bounds: Bounds::new(&metrics.latency_bounds()),
            rules,
            http: RefCell::new(wanted(metrics)),
        }
    }

    pub fn http(&self) -> HttpCells {
        HttpCells::new(self.http.take())
    }
}

/// With patterns that are wrong there are none, and an ERROR: daprd would end.
fn wanted(metrics: &Metrics) -> Wanted {
    let patterns = Paths::new(&metrics.http_path_patterns).unwrap_or_else(|error| {
        tracing::error!("spec.metric.http.pathMatching is left out: {error}");
        Paths::NONE
    });
    Wanted {
        paths: metrics.tells_paths(),
        verbs: !metrics.http_exclude_verbs,
        error_codes: metrics.record_error_codes,
        patterns,
    }
}

fn rules(given: &[MetricRule]) -> Result<Rules, String> {
    let mut rules = Rules::default();
    for MetricRule { name, label, regex } in given {
        let pairs = regex.iter().map(|(with, pattern)| (with.as_str(), pattern.as_str()));
        rules.add(name, label, pairs)?;
    }
    Ok(rules)
}
