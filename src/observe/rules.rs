//! Rules that rewrite label values before they are told. PURE.
//!
//! 1. A rule is for one label of one series. Values that become equal are told as one, added up.
//! 2. An empty value is no value: no rule sees it.
//!
//! Source: `CreateRulesMap` and `WithTags` of Dapr's `pkg/diagnostics/utils/metrics_utils.go`.

use super::names::Series;
use regex::Regex;
use std::collections::HashMap;

/// What replaces what: texts of a pattern, which may name its groups (`$1`).
#[derive(Debug)]
struct Rule {
    pattern: Regex,
    replacement: String,
}

/// See the file's text.
#[derive(Debug, Default)]
pub struct Rules {
    /// By the series' name as Dapr's rules know it, followed by the label's.
    by_label: HashMap<String, Vec<Rule>>,
}

impl Rules {
    /// For a label of a series, pairs of replacement and pattern; they take the place of earlier
    /// ones. The error is daprd's text.
    pub fn add<'a>(
        &mut self,
        series: &str,
        label: &str,
        pairs: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), String> {
        let key = series.replacen("dapr_", "", 1).replace('_', "/") + label;
        let rules = pairs.map(|(replacement, pattern)| {
            let failed =
                |error| format!("failed to compile regex for rule {key}/{replacement}: {error}");
            let pattern = Regex::new(pattern).map_err(failed)?;
            Ok(Rule { pattern, replacement: replacement.to_owned() })
        });
        let rules = rules.collect::<Result<Vec<Rule>, String>>()?;
        self.by_label.insert(key, rules);
        Ok(())
    }

    /// Whether a rule is for any label of this series.
    pub fn touch(&self, series: &Series) -> bool {
        !self.by_label.is_empty()
            && series.labels.iter().any(|label| self.by_label.contains_key(&key(series, label)))
    }

    /// The values that are told instead of these.
    pub fn apply(&self, series: &Series, mut values: Vec<String>) -> Vec<String> {
        for (label, value) in series.labels.iter().zip(&mut values) {
            let rules = self.by_label.get(&key(series, label));
            for Rule { pattern, replacement } in rules.into_iter().flatten() {
                if !value.is_empty() {
                    *value = pattern.replace_all(value, replacement).into_owned();
                }
            }
        }
        values
    }
}

/// A measure's name with slashes for what a rule's name has underscores for: that of gRPC's has a
/// point, which no underscore stands for.
fn key(series: &Series, label: &str) -> String {
    let name = series.name.strip_prefix("dapr_").unwrap_or(series.name).replace('_', "/");
    match name.strip_prefix("grpc/io/") {
        Some(rest) => format!("grpc.io/{rest}{label}"),
        None => name + label,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::names::{GRPC_COMPLETED, REQUESTS_SENT};

    fn values(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn rewrites_one_label_of_one_series() {
        let mut rules = Rules::default();
        let sent = "dapr_runtime_service_invocation_req_sent_total";
        rules.add(sent, "dst_app_id", [("app-$1", "^server([0-9])")].into_iter()).unwrap();
        rules
            .add(
                "dapr_grpc.io_server_completed_rpcs",
                "grpc_server_method",
                [("", "/[^/]*$")].into_iter(),
            )
            .unwrap();
        assert!(rules.touch(&REQUESTS_SENT) && rules.touch(&GRPC_COMPLETED));
        let told = rules.apply(&REQUESTS_SENT, values(&["server1", "server2x", "unary"]));
        assert_eq!(told, ["server1", "app-2x", "unary"]);
        let told = rules.apply(&GRPC_COMPLETED, values(&["a", "/p.S/Get", "OK"]));
        assert_eq!(told, ["a", "/p.S", "OK"]);
        // The name that Prometheus shows is not the one that daprd compares.
        let mut rules = Rules::default();
        rules.add(GRPC_COMPLETED.name, "grpc_server_method", [("", ".*")].into_iter()).unwrap();
        assert!(!rules.touch(&GRPC_COMPLETED));
    }

    #[test]
    fn a_pattern_that_is_none_is_an_error() {
        let error = Rules::default().add("dapr_a_b", "c", [("d", "(")].into_iter()).unwrap_err();
        assert!(error.starts_with("failed to compile regex for rule a/bc/d: "), "{error}");
    }
}
