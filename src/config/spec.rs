//! The Configuration resource: what of it ringside follows.
//!
//! Source: `pkg/config/configuration.go` of Dapr.
//!
//! 1. Files overlay each other in their order: scalars override, maps merge, lists are replaced.
//! 2. **Never fail open**: a field that restricts access, and that this version does not
//!    enforce, makes the whole Configuration an error.
//! 3. Unknown fields are ignored, as in daprd; a known one of the wrong type is an error.

use super::yaml::{at, first_document, overlay};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// The share of calls that is traced when nothing is said.
const SAMPLING_RATE_DEFAULT: f64 = 1e-4;

/// Features that daprd enables when they are not listed.
const FEATURES_DEFAULT: [&str; 2] = ["HotReload", "WorkflowsRemoteActivityReminder"];

/// Bounds in milliseconds (`diagnostics/metrics.go`).
pub const LATENCY_BUCKETS_DEFAULT: &[u64] = &[
    1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 30, 40, 50, 65, 80, 100, 130, 160, 200, 250, 300, 400,
    500, 650, 800, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000,
];

/// A file's text, its variables already expanded.
#[derive(Clone, Debug)]
pub struct File {
    pub name: String,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    pub tracing: Tracing,
    pub metrics: Metrics,
    pub name_resolution: Option<NameResolution>,
    /// Names of the enabled ones, sorted.
    pub features: Vec<String>,
    pub api_logging: ApiLogging,
    /// Fields that were set, restrict nothing, and have no effect yet: field, file.
    pub unused: Vec<(&'static str, String)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    pub sampling_rate: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    pub enabled: bool,
    /// Milliseconds; `None`: [`LATENCY_BUCKETS_DEFAULT`].
    pub latency_buckets: Option<Vec<u64>>,
    pub http_increased_cardinality: Option<bool>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NameResolution {
    pub component: String,
    pub version: String,
    pub configuration: Value,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApiLogging {
    pub enabled: bool,
    pub obfuscate_urls: bool,
    pub omit_health_checks: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigurationError {
    Syntax {
        file: String,
        error: String,
    },
    Type {
        file: String,
        field: &'static str,
        wanted: &'static str,
    },
    /// Restricts access, and would not be enforced.
    NotEnforced {
        file: String,
        field: &'static str,
    },
}

impl Default for Configuration {
    fn default() -> Self {
        let tree = Tree { merged: Value::Null, files: Vec::new() };
        Self {
            tracing: Tracing { sampling_rate: SAMPLING_RATE_DEFAULT },
            metrics: Metrics {
                enabled: true,
                latency_buckets: None,
                http_increased_cardinality: None,
            },
            name_resolution: None,
            features: tree.features().unwrap_or_default(),
            api_logging: ApiLogging::default(),
            unused: Vec::new(),
        }
    }
}

impl Configuration {
    pub fn load(files: &[File]) -> Result<Self, ConfigurationError> {
        let mut tree = Tree { merged: Value::Null, files: Vec::new() };
        for file in files {
            let document = first_document(&file.text)
                .map_err(|error| ConfigurationError::Syntax { file: file.name.clone(), error })?;
            tree.files.push((file.name.clone(), document.clone()));
            overlay(&mut tree.merged, document);
        }
        tree.refuse_what_restricts()?;
        Ok(Self {
            tracing: Tracing { sampling_rate: tree.sampling_rate()? },
            metrics: tree.metrics()?,
            name_resolution: tree.name_resolution()?,
            features: tree.features()?,
            api_logging: ApiLogging {
                enabled: tree.bool("spec.logging.apiLogging.enabled")?.unwrap_or(false),
                obfuscate_urls: tree
                    .bool("spec.logging.apiLogging.obfuscateURLs")?
                    .unwrap_or(false),
                omit_health_checks: tree
                    .bool("spec.logging.apiLogging.omitHealthChecks")?
                    .unwrap_or(false),
            },
            unused: tree.unused(),
        })
    }

    /// The line that daprd logs of the metrics it was asked for.
    pub fn metric_spec(&self) -> String {
        let mut text = format!("{{\"enabled\":{}", self.metrics.enabled);
        if let Some(buckets) = &self.metrics.latency_buckets {
            let buckets: Vec<String> = buckets.iter().map(u64::to_string).collect();
            text.push_str(&format!(",\"latencyDistributionBuckets\":[{}]", buckets.join(",")));
        }
        text.push('}');
        text
    }
}

struct Tree {
    merged: Value,
    files: Vec<(String, Value)>,
}

impl Tree {
    /// The last file that sets a field: the one to name.
    fn file_of(&self, field: &str) -> String {
        let mut setting = self.files.iter().rev().filter(|(_, tree)| at(tree, field).is_some());
        setting.next().map(|(name, _)| name.clone()).unwrap_or_default()
    }

    fn wrong(&self, field: &'static str, wanted: &'static str) -> ConfigurationError {
        ConfigurationError::Type { file: self.file_of(field), field, wanted }
    }

    fn not_enforced(&self, field: &'static str) -> ConfigurationError {
        ConfigurationError::NotEnforced { file: self.file_of(field), field }
    }

    fn bool(&self, field: &'static str) -> Result<Option<bool>, ConfigurationError> {
        match at(&self.merged, field) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(self.wrong(field, "true or false")),
        }
    }

    /// Any scalar is a text to Go's decoder.
    fn text(&self, field: &'static str) -> Result<Option<String>, ConfigurationError> {
        match at(&self.merged, field) {
            None => Ok(None),
            Some(Value::String(value)) => Ok(Some(value.clone())),
            Some(Value::Number(value)) => Ok(Some(value.to_string())),
            Some(Value::Bool(value)) => Ok(Some(value.to_string())),
            Some(_) => Err(self.wrong(field, "a text")),
        }
    }

    fn list(&self, field: &'static str) -> Result<&[Value], ConfigurationError> {
        match at(&self.merged, field) {
            None => Ok(&[]),
            Some(Value::Array(values)) => Ok(values),
            Some(_) => Err(self.wrong(field, "a list")),
        }
    }

    fn map(&self, field: &'static str) -> Result<(), ConfigurationError> {
        match at(&self.merged, field) {
            None | Some(Value::Object(_)) => Ok(()),
            Some(_) => Err(self.wrong(field, "a map")),
        }
    }

    fn refuse_what_restricts(&self) -> Result<(), ConfigurationError> {
        if !self.merged.is_null() && !self.merged.is_object() {
            let file = self.files.last().map(|(name, _)| name.clone()).unwrap_or_default();
            return Err(ConfigurationError::Type { file, field: "the document", wanted: "a map" });
        }
        for field in ["spec", "spec.accessControl", "spec.api", "spec.httpPipeline"] {
            self.map(field)?;
        }
        let action = self.text("spec.accessControl.defaultAction")?.unwrap_or_default();
        if !action.is_empty() && !action.eq_ignore_ascii_case("allow") {
            return Err(self.not_enforced("spec.accessControl.defaultAction"));
        }
        for field in [
            "spec.accessControl.policies",
            "spec.api.allowed",
            "spec.api.denied",
            // Handlers may be authentication; none of them runs here.
            "spec.httpPipeline.handlers",
        ] {
            if !self.list(field)?.is_empty() {
                return Err(self.not_enforced(field));
            }
        }
        Ok(())
    }

    /// What is not a number counts as not given (`diag_utils.GetTraceSamplingRate`).
    fn sampling_rate(&self) -> Result<f64, ConfigurationError> {
        let text = self.text("spec.tracing.samplingRate")?.unwrap_or_default();
        let rate = text.parse().ok().filter(|rate: &f64| rate.is_finite());
        Ok(rate.unwrap_or(SAMPLING_RATE_DEFAULT))
    }

    /// `metrics` overrides `metric` field by field.
    fn metrics(&self) -> Result<Metrics, ConfigurationError> {
        let enabled = match self.bool("spec.metrics.enabled")? {
            Some(enabled) => Some(enabled),
            None => self.bool("spec.metric.enabled")?,
        };
        let mut buckets = self.buckets("spec.metrics.latencyDistributionBuckets")?;
        if buckets.is_none() {
            buckets = self.buckets("spec.metric.latencyDistributionBuckets")?;
        }
        let cardinality = match self.bool("spec.metrics.http.increasedCardinality")? {
            Some(increased) => Some(increased),
            None => self.bool("spec.metric.http.increasedCardinality")?,
        };
        Ok(Metrics {
            enabled: enabled.unwrap_or(true),
            latency_buckets: buckets,
            http_increased_cardinality: cardinality,
        })
    }

    fn buckets(&self, field: &'static str) -> Result<Option<Vec<u64>>, ConfigurationError> {
        let values = self.list(field)?;
        if values.is_empty() {
            return Ok(None);
        }
        let bounds: Option<Vec<u64>> = values.iter().map(Value::as_u64).collect();
        bounds.map(Some).ok_or_else(|| self.wrong(field, "a list of whole numbers"))
    }

    fn name_resolution(&self) -> Result<Option<NameResolution>, ConfigurationError> {
        let Some(component) = self.text("spec.nameResolution.component")? else {
            return Ok(None);
        };
        if component.is_empty() {
            return Ok(None);
        }
        let version = self.text("spec.nameResolution.version")?.filter(|text| !text.is_empty());
        let configuration = at(&self.merged, "spec.nameResolution.configuration");
        Ok(Some(NameResolution {
            component,
            version: version.unwrap_or_else(|| "v1".to_owned()),
            configuration: configuration.cloned().unwrap_or_default(),
        }))
    }

    fn features(&self) -> Result<Vec<String>, ConfigurationError> {
        let field = "spec.features";
        let mut features: BTreeMap<String, bool> =
            FEATURES_DEFAULT.iter().map(|name| ((*name).to_owned(), true)).collect();
        for feature in self.list(field)? {
            let name = at(feature, "name").and_then(Value::as_str);
            let name = name.ok_or_else(|| self.wrong(field, "a list of names"))?;
            let enabled = at(feature, "enabled").and_then(Value::as_bool).unwrap_or(false);
            features.insert(name.to_owned(), enabled);
        }
        Ok(features.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect())
    }

    fn unused(&self) -> Vec<(&'static str, String)> {
        let mut unused = Vec::new();
        for field in [
            "spec.tracing.stdout",
            "spec.tracing.zipkin.endpointAddress",
            "spec.tracing.otel.endpointAddress",
            "spec.metric.rules",
            "spec.metrics.rules",
            "spec.metric.latencyDistributionBuckets",
            "spec.metrics.latencyDistributionBuckets",
            "spec.metric.enabled",
            "spec.metrics.enabled",
        ] {
            let set = match at(&self.merged, field) {
                None => false,
                Some(Value::Bool(value)) => *value != field.ends_with(".enabled"),
                Some(Value::String(text)) => !text.is_empty(),
                Some(Value::Array(values)) => !values.is_empty(),
                Some(_) => true,
            };
            if set {
                unused.push((field, self.file_of(field)));
            }
        }
        unused
    }
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { file, error } => {
                write!(f, "error loading configuration: {file}: {error}")
            }
            Self::Type { file, field, wanted } => {
                write!(f, "error loading configuration: {file}: {field} is not {wanted}")
            }
            Self::NotEnforced { file, field } => write!(
                f,
                "{file}: {field} restricts access, and this version of ringside does not enforce \
                 it yet; remove it, or run daprd"
            ),
        }
    }
}

impl std::error::Error for ConfigurationError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(texts: &[&str]) -> Result<Configuration, ConfigurationError> {
        let files: Vec<File> = texts
            .iter()
            .enumerate()
            .map(|(at, text)| File { name: format!("{at}.yaml"), text: (*text).to_owned() })
            .collect();
        Configuration::load(&files)
    }

    #[test]
    fn nothing_given() {
        assert_eq!(load(&[]).unwrap(), Configuration::default());
        assert_eq!(load(&[""]).unwrap(), Configuration::default());
        assert_eq!(load(&["kind: Configuration\nspec:\n"]).unwrap(), Configuration::default());
        let features = ["HotReload", "WorkflowsRemoteActivityReminder"];
        assert_eq!(Configuration::default().features, features);
        assert_eq!(Configuration::default().metric_spec(), r#"{"enabled":true}"#);
    }

    /// Never fail open: each of these would be enforced by daprd.
    #[test]
    fn what_restricts_is_refused_by_name() {
        for (text, field) in [
            ("accessControl: {defaultAction: deny}", "spec.accessControl.defaultAction"),
            ("accessControl: {defaultAction: DENY}", "spec.accessControl.defaultAction"),
            ("accessControl: {defaultAction: alow}", "spec.accessControl.defaultAction"),
            (
                "accessControl: {defaultAction: allow, policies: [{appId: a, namespace: b, \
                 trustDomain: c, defaultAction: allow}]}",
                "spec.accessControl.policies",
            ),
            ("accessControl: {<<: {policies: [{appId: a}]}}", "spec.accessControl.policies"),
            ("api: {allowed: [{name: state}]}", "spec.api.allowed"),
            ("api: {denied: [{name: state}]}", "spec.api.denied"),
            ("httpPipeline: {handlers: [{name: a, type: b}]}", "spec.httpPipeline.handlers"),
        ] {
            let error = load(&["spec: {}", &format!("spec: {{ {text} }}"), "spec:\n"]).unwrap_err();
            let file = "1.yaml".to_owned();
            assert_eq!(error, ConfigurationError::NotEnforced { file, field }, "{text}");
            let shown = error.to_string();
            assert!(shown.contains("1.yaml") && shown.contains(field), "{shown}");
        }
        for text in
            ["accessControl: deny", "api: []", "api: {allowed: state}", "accessControl: [x]"]
        {
            assert!(load(&[&format!("spec: {{ {text} }}")]).is_err(), "{text}");
        }
        assert!(load(&["[]"]).is_err());
        assert!(load(&["spec: 1"]).is_err());
    }

    #[test]
    fn allow_all_passes() {
        for text in [
            "accessControl: {defaultAction: allow, trustDomain: public}",
            "accessControl: {defaultAction: Allow, policies: []}",
            "accessControl: {defaultAction: \"\"}",
            "accessControl:",
            "api: {allowed: [], denied: }",
            "mtls: {enabled: true, workloadCertTTL: 24h}",
            "secrets: {scopes: [{storeName: x}]}",
            "unknown: {a: [1]}",
        ] {
            load(&[&format!("spec: {{ {text} }}")]).unwrap();
        }
    }

    #[test]
    fn files_overlay() {
        let configuration = load(&[
            "spec: {tracing: {samplingRate: \"1\", zipkin: {endpointAddress: http://z}}, \
             features: [{name: A, enabled: true}], metric: {enabled: false}, \
             logging: {apiLogging: {enabled: true}}}",
            "spec: {tracing: {samplingRate: 0.5}, features: [{name: HotReload, enabled: false}], \
             logging: {apiLogging: {omitHealthChecks: true}}}",
        ])
        .unwrap();
        assert_eq!(configuration.tracing.sampling_rate, 0.5);
        assert_eq!(configuration.features, ["WorkflowsRemoteActivityReminder"]);
        assert!(!configuration.metrics.enabled);
        assert!(configuration.api_logging.enabled && configuration.api_logging.omit_health_checks);
        let unused = [
            ("spec.tracing.zipkin.endpointAddress", "0.yaml".to_owned()),
            ("spec.metric.enabled", "0.yaml".to_owned()),
        ];
        assert_eq!(configuration.unused, unused);
    }

    #[test]
    fn sampling_rates() {
        for (text, rate) in
            [("\"0\"", 0.0), ("0", 0.0), ("\"x\"", 1e-4), ("\"\"", 1e-4), ("1", 1.0)]
        {
            let text = format!("spec: {{tracing: {{samplingRate: {text}}}}}");
            assert_eq!(load(&[&text]).unwrap().tracing.sampling_rate, rate, "{text}");
        }
    }

    #[test]
    fn metrics_over_metric() {
        let text = "spec: {metric: {enabled: true, latencyDistributionBuckets: [1, 2]}, \
                    metrics: {enabled: false}}";
        let configuration = load(&[text]).unwrap();
        let text = r#"{"enabled":false,"latencyDistributionBuckets":[1,2]}"#;
        assert_eq!(configuration.metric_spec(), text);
        assert!(load(&["spec: {metric: {latencyDistributionBuckets: [x]}}"]).is_err());
        assert!(load(&["spec: {metric: {enabled: maybe}}"]).is_err());
    }

    #[test]
    fn name_resolution() {
        let text = "spec: {nameResolution: {component: static, configuration: {file: /x}}}";
        let resolution = load(&[text]).unwrap().name_resolution.unwrap();
        assert_eq!((resolution.component.as_str(), resolution.version.as_str()), ("static", "v1"));
        assert_eq!(resolution.configuration["file"], "/x");
        assert_eq!(
            load(&["spec: {nameResolution: {component: \"\"}}"]).unwrap().name_resolution,
            None
        );
    }
}
