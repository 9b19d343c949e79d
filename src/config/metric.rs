//! `metric` and `metrics` of a Configuration: what the metrics port tells, and how.
//!
//! Source: `MetricSpec` of Dapr's `pkg/config/configuration.go`.

use super::access::{list, text};
use super::yaml::at;
use serde_json::Value;

/// Bounds of latency histograms in milliseconds (`GetLatencyDistribution`).
pub const LATENCY_BUCKETS_DEFAULT: &[u64] = &[
    1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 30, 40, 50, 65, 80, 100, 130, 160, 200, 250, 300, 400,
    500, 650, 800, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000,
];
/// Bounds that a histogram may have.
pub const LATENCY_BUCKETS_MAX: usize = 256;

#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    pub enabled: bool,
    /// As given; `None`: [`LATENCY_BUCKETS_DEFAULT`].
    pub latency_buckets: Option<Vec<u64>>,
    pub http_increased_cardinality: Option<bool>,
    pub http_exclude_verbs: bool,
    pub http_path_patterns: Vec<String>,
    pub record_error_codes: bool,
    pub rules: Vec<MetricRule>,
}

/// How the values of one label of one series are rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricRule {
    /// The series, as given.
    pub name: String,
    pub label: String,
    /// Replacement and pattern.
    pub regex: Vec<(String, String)>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            enabled: true,
            latency_buckets: None,
            http_increased_cardinality: None,
            http_exclude_verbs: false,
            http_path_patterns: Vec::new(),
            record_error_codes: false,
            rules: Vec::new(),
        }
    }
}

impl Metrics {
    /// `metrics` overrides `metric` field by field.
    pub fn new(tree: &Value) -> Result<Self, String> {
        let chosen = |field: &str| {
            let over = at(tree, &format!("spec.metrics.{field}"));
            over.or_else(|| at(tree, &format!("spec.metric.{field}")))
        };
        let http = |field: &str| chosen("http").and_then(|http| at(http, field));
        let patterns = http("pathMatching").and_then(Value::as_array);
        let pattern = |value: &Value| value.as_str().map(str::to_owned);
        let rules = chosen("rules").and_then(Value::as_array);
        Ok(Self {
            enabled: chosen("enabled").and_then(Value::as_bool).unwrap_or(true),
            latency_buckets: buckets(chosen("latencyDistributionBuckets"))?,
            http_increased_cardinality: http("increasedCardinality").and_then(Value::as_bool),
            http_exclude_verbs: http("excludeVerbs").and_then(Value::as_bool).unwrap_or(false),
            http_path_patterns: patterns.into_iter().flatten().filter_map(pattern).collect(),
            record_error_codes: chosen("recordErrorCodes")
                .and_then(Value::as_bool)
                .unwrap_or(false),
            rules: rules.into_iter().flatten().flat_map(rules_of).collect(),
        })
    }

    /// The bounds of latency histograms, as they are told: rising, none of them 0.
    pub fn latency_bounds(&self) -> Vec<u64> {
        let given = self.latency_buckets.as_deref().unwrap_or(LATENCY_BUCKETS_DEFAULT);
        let mut bounds: Vec<u64> = given.iter().copied().filter(|bound| *bound > 0).collect();
        bounds.sort_unstable();
        bounds.dedup();
        bounds
    }

    /// Whether paths are told (`GetHTTPIncreasedCardinality`).
    pub fn tells_paths(&self) -> bool {
        self.http_increased_cardinality.unwrap_or(true)
    }
}

fn buckets(given: Option<&Value>) -> Result<Option<Vec<u64>>, String> {
    const FIELD: &str = "spec.metric.latencyDistributionBuckets";
    let given = given.and_then(Value::as_array).filter(|values| !values.is_empty());
    let Some(values) = given else { return Ok(None) };
    if values.len() > LATENCY_BUCKETS_MAX {
        return Err(format!("{FIELD} has more than {LATENCY_BUCKETS_MAX} bounds"));
    }
    let bounds = values.iter().map(Value::as_u64).collect::<Option<Vec<u64>>>();
    bounds.map(Some).ok_or_else(|| format!("{FIELD} has a bound below 0"))
}

fn rules_of(rule: &Value) -> impl Iterator<Item = MetricRule> + '_ {
    list(rule, "labels").map(|label| MetricRule {
        name: text(rule, "name"),
        label: text(label, "name"),
        regex: at(label, "regex").and_then(Value::as_object).map_or_else(Vec::new, |regex| {
            let pattern = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            regex.iter().map(|(with, value)| (with.clone(), pattern(value))).collect()
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metrics(metric: Value) -> Result<Metrics, String> {
        Metrics::new(&json!({ "spec": { "metric": metric } }))
    }

    /// As OpenCensus puts bounds in order (`View.canonicalize`).
    #[test]
    fn what_is_given_is_put_in_order() {
        let given = metrics(json!({"latencyDistributionBuckets": [500, 5, 0, 50, 5]})).unwrap();
        assert_eq!(given.latency_buckets, Some(vec![500, 5, 0, 50, 5]));
        assert_eq!(given.latency_bounds(), [5, 50, 500]);
        assert_eq!(metrics(json!({})).unwrap().latency_bounds(), LATENCY_BUCKETS_DEFAULT);
        let many: Vec<usize> = (0..=LATENCY_BUCKETS_MAX).collect();
        let error = metrics(json!({ "latencyDistributionBuckets": many })).unwrap_err();
        assert!(error.contains("more than 256 bounds"), "{error}");
    }

    #[test]
    fn the_http_apis_own_are_read() {
        let http = json!({"pathMatching": ["/a/{id}", ""], "excludeVerbs": true});
        let given = metrics(json!({"http": http, "recordErrorCodes": true})).unwrap();
        assert_eq!(given.http_path_patterns, ["/a/{id}", ""]);
        assert!(given.http_exclude_verbs && given.record_error_codes && given.tells_paths());
    }

    #[test]
    fn rules_are_read_label_by_label() {
        let rules = json!([{"name": "a", "labels": [
            {"name": "b", "regex": {"x": "y+"}}, {"name": "c"}]}]);
        let given = metrics(json!({ "rules": rules })).unwrap().rules;
        let rule = |label: &str, regex: &[(&str, &str)]| MetricRule {
            name: "a".to_owned(),
            label: label.to_owned(),
            regex: regex.iter().map(|(w, p)| ((*w).to_owned(), (*p).to_owned())).collect(),
        };
        assert_eq!(given, [rule("b", &[("x", "y+")]), rule("c", &[])]);
    }
}
