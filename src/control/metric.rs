//! How metrics are told: what the Configuration's `metric` came to.

use crate::config::metric::{MetricRule, Metrics};
use crate::observe::http::HttpCells;
use crate::observe::rules::Rules;

/// `metric` of the Configuration.
#[derive(Debug)]
pub struct MetricOptions {
    pub enabled: bool,
    /// Of Dapr's latencies, in milliseconds.
    pub latency_bounds: Vec<u64>,
    pub rules: Rules,
    tells_paths: bool,
    tells_verbs: bool,
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
            latency_bounds: metrics.latency_bounds(),
            rules,
            tells_paths: metrics.tells_paths(),
            tells_verbs: !metrics.http_exclude_verbs,
        }
    }

    pub fn http(&self) -> HttpCells {
        HttpCells::new(self.tells_paths, self.tells_verbs)
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
