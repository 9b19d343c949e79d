//! The Configuration resource: what of it ringside follows.
//!
//! Source: `pkg/config/configuration.go` of Dapr.
//!
//! 1. Files overlay each other in their order: scalars override, maps merge, lists are replaced.
//! 2. **Never fail open**: a field that restricts access, and that this version does not
//!    enforce, makes the whole Configuration an error.
//! 3. Unknown fields are ignored, as in daprd, and told; a known one of the wrong kind is an
//!    error.

use super::access::{AccessControl, ApiRules, check_secrets, list, text};
use super::fields::CONFIGURATION;
use super::metric::Metrics;
use super::shape::{Document, Shape, Shaped};
use super::traces::TracingSpec;
use super::yaml::{at, first_document};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// Features that daprd enables when they are not listed.
const FEATURES_DEFAULT: [&str; 2] = ["HotReload", "WorkflowsRemoteActivityReminder"];

/// A file's text, its variables already expanded.
#[derive(Clone, Debug)]
pub struct File {
    pub name: String,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    pub tracing: TracingSpec,
    pub metrics: Metrics,
    pub name_resolution: Option<NameResolution>,
    /// Names of the enabled ones, sorted.
    pub features: Vec<String>,
    pub api_logging: ApiLogging,
    /// `None`: unset by a file, which daprd takes for none at all.
    pub access_control: Option<AccessControl>,
    pub api: ApiRules,
    /// Files that hold no document, or none that says anything.
    pub silent: Vec<String>,
    /// Fields that daprd does not know either: field, file.
    pub unknown: Vec<(String, String)>,
    /// Rules of APIs that restrict nothing, as in daprd, whatever their author meant: rule, file.
    pub idle_rules: Vec<(String, String)>,
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
    /// The text says where in the file, and what.
    Malformed { file: String, error: String },
    /// All files together say what cannot be.
    Invalid(String),
    /// Restricts access, and would not be enforced.
    NotEnforced { file: String, field: &'static str },
}

impl Default for Configuration {
    fn default() -> Self {
        let tree = Tree::default();
        Self {
            tracing: TracingSpec::default(),
            metrics: Metrics::default(),
            name_resolution: None,
            features: tree.features(),
            api_logging: ApiLogging::default(),
            access_control: tree.access_control(),
            api: ApiRules::default(),
            silent: Vec::new(),
            unknown: Vec::new(),
            idle_rules: Vec::new(),
        }
    }
}

impl Shaped for Configuration {
    const SHAPE: &'static Shape = &CONFIGURATION;
}

impl Configuration {
    pub fn load(files: &[File]) -> Result<Self, ConfigurationError> {
        let mut tree = Tree::default();
        let (mut unknown, mut silent) = (Vec::new(), Vec::new());
        for file in files {
            let document = first_document::<Document<Self>>(&file.text).map_err(|error| {
                ConfigurationError::Malformed { file: file.name.clone(), error }
            })?;
            let Some(Document { value: Some(value), unknown: more, .. }) = document else {
                silent.push(file.name.clone());
                continue;
            };
            unknown.extend(more.into_iter().map(|field| (field, file.name.clone())));
            tree.files.push((file.name.clone(), value.clone()));
            Self::SHAPE.overlay(&mut tree.merged, value);
        }
        tree.refuse_what_restricts()?;
        check_secrets(&tree.merged).map_err(ConfigurationError::Invalid)?;
        let api = at(&tree.merged, "spec.api").map(ApiRules::new).unwrap_or_default();
        let idle = api.idle().map(|(list, at)| (format!("{list}[{at}]"), tree.file_of(list)));
        Ok(Self {
            idle_rules: idle.collect(),
            tracing: TracingSpec::new(&tree.merged).map_err(ConfigurationError::Invalid)?,
            metrics: Metrics::new(&tree.merged).map_err(ConfigurationError::Invalid)?,
            name_resolution: tree.name_resolution(),
            features: tree.features(),
            api_logging: ApiLogging {
                enabled: tree.is_set("spec.logging.apiLogging.enabled"),
                obfuscate_urls: tree.is_set("spec.logging.apiLogging.obfuscateURLs"),
                omit_health_checks: tree.is_set("spec.logging.apiLogging.omitHealthChecks"),
            },
            access_control: tree.access_control(),
            api,
            silent,
            unknown,
        })
    }

    /// Files are followed while calls are served.
    pub fn reloads(&self) -> bool {
        self.features.iter().any(|feature| feature == "HotReload")
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

/// What all files say, over what holds when they say nothing.
struct Tree {
    merged: Value,
    files: Vec<(String, Value)>,
}

impl Default for Tree {
    fn default() -> Self {
        let access_control = json!({"defaultAction": "allow", "trustDomain": "public"});
        Self { merged: json!({"spec": {"accessControl": access_control}}), files: Vec::new() }
    }
}

impl Tree {
    /// The last file that sets a field: the one to name.
    fn file_of(&self, field: &str) -> String {
        let mut setting = self.files.iter().rev().filter(|(_, tree)| at(tree, field).is_some());
        setting.next().map(|(name, _)| name.clone()).unwrap_or_default()
    }

    fn bool(&self, field: &str) -> Option<bool> {
        at(&self.merged, field).and_then(Value::as_bool)
    }

    fn is_set(&self, field: &str) -> bool {
        self.bool(field).unwrap_or(false)
    }

    fn refuse_what_restricts(&self) -> Result<(), ConfigurationError> {
        let refuse =
            |field| Err(ConfigurationError::NotEnforced { file: self.file_of(field), field });
        // Handlers may be authentication; none of them runs here.
        let field = "spec.httpPipeline.handlers";
        if list(&self.merged, field).next().is_some() {
            return refuse(field);
        }
        Ok(())
    }

    fn access_control(&self) -> Option<AccessControl> {
        at(&self.merged, "spec.accessControl").map(AccessControl::new)
    }

    fn name_resolution(&self) -> Option<NameResolution> {
        let component = text(&self.merged, "spec.nameResolution.component");
        if component.is_empty() {
            return None;
        }
        let version = text(&self.merged, "spec.nameResolution.version");
        let configuration = at(&self.merged, "spec.nameResolution.configuration");
        Some(NameResolution {
            component,
            version: if version.is_empty() { "v1".to_owned() } else { version },
            configuration: configuration.cloned().unwrap_or_default(),
        })
    }

    fn features(&self) -> Vec<String> {
        let mut features: BTreeMap<String, bool> =
            FEATURES_DEFAULT.iter().map(|name| ((*name).to_owned(), true)).collect();
        for feature in list(&self.merged, "spec.features") {
            let enabled = at(feature, "enabled").and_then(Value::as_bool).unwrap_or(false);
            features.insert(text(feature, "name"), enabled);
        }
        let on = features.into_iter().filter(|(name, on)| *on && !name.is_empty());
        on.map(|(name, _)| name).collect()
    }
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { file, error } => {
                write!(f, "error loading configuration: {file}: {error}")
            }
            Self::Invalid(error) => write!(f, "error loading configuration: {error}"),
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
        let silent = vec!["0.yaml".to_owned()];
        for text in ["", "# nothing\n", "~", "---\n---\nspec: {metric: {enabled: false}}\n"] {
            let nothing = Configuration { silent: silent.clone(), ..Configuration::default() };
            assert_eq!(load(&[text]).unwrap(), nothing, "{text}");
        }
        assert_eq!(load(&["kind: Configuration\nspec:\n"]).unwrap(), Configuration::default());
        let features = ["HotReload", "WorkflowsRemoteActivityReminder"];
        assert_eq!(Configuration::default().features, features);
        assert_eq!(Configuration::default().metric_spec(), r#"{"enabled":true}"#);
    }

    /// Never fail open: this would be enforced by daprd.
    #[test]
    fn what_restricts_is_refused_by_name() {
        let field = "spec.httpPipeline.handlers";
        let text = "spec: {httpPipeline: {handlers: [{name: a, type: b}]}}";
        let error = load(&["spec: {}", text, "spec:\n"]).unwrap_err();
        let file = "1.yaml".to_owned();
        assert_eq!(error, ConfigurationError::NotEnforced { file, field });
        let shown = error.to_string();
        assert!(shown.contains("1.yaml") && shown.contains(field), "{shown}");
    }

    /// The file, the line, the reason.
    #[test]
    fn what_is_malformed_is_told_with_its_line() {
        for (text, line) in [
            ("spec:\n  accessControl: deny\n", 2),
            ("spec:\n  accessControl: [x]\n", 2),
            ("spec:\n  accessControl:\n    defaultAction: {allow: true}\n", 3),
            ("spec:\n  accessControl:\n    policies:\n    - caller\n", 4),
            ("spec:\n  api: []\n", 2),
            ("spec:\n  api:\n    allowed: state\n", 3),
            ("spec:\n  metric: {enabled: maybe}\n", 2),
            ("spec:\n  metric: {latencyDistributionBuckets: [x]}\n", 2),
            ("[]", 1),
            ("spec: 1", 1),
            ("spec: {", 1),
            ("spec:\n\tapi: {}\n", 2),
            ("spec:\n  api: {}\n  api: {}\n", 3),
        ] {
            let error = load(&["spec: {}", text, "spec:\n"]).unwrap_err().to_string();
            let begin = "error loading configuration: 1.yaml: yaml: ";
            assert!(error.starts_with(begin), "{text}: {error}");
            assert!(error.contains(&format!("line {line}")), "{text}: {error}");
        }
    }

    /// Small texts that want much: refused in bounded time and memory.
    #[test]
    fn hostile_files_are_refused() {
        let list = |of: &str| format!("[{}]", [of; 10].join(","));
        let mut bomb = format!("a0: &a0 {}\n", list("x"));
        for depth in 1..12 {
            bomb += &format!("a{depth}: &a{depth} {}\n", list(&format!("*a{}", depth - 1)));
        }
        let ladder = |under: &str| {
            let keys = (0..20_000).map(|depth| format!("{}a:\n", " ".repeat(depth + 1)));
            format!("{under}:\n{}", keys.collect::<String>())
        };
        let billion = format!("{bomb}spec: {{accessControl: {{policies: *a11}}}}\n");
        let brackets = format!("spec: {{features: {}", "[".repeat(20_000));
        for (name, text) in [
            ("bomb", billion.clone()),
            ("bomb beside", bomb),
            ("brackets", brackets),
            ("ladder", ladder("spec")),
            ("ladder beside", ladder("other")),
            ("items", format!("spec: {{features: [{}]}}", "{},".repeat(1 << 20))),
        ] {
            assert!(load(&[&text]).is_err(), "{name}");
        }
    }

    #[test]
    fn unknown_fields_are_named_with_their_file() {
        let known = "kind: Configuration\napiVersion: dapr.io/v1alpha1\nmetadata: {name: a}\n\
                     spec: {mtls: {enabled: true}, secrets: {scopes: [{storeName: a}]}}\n";
        let unknown = "spec: {accesscontrol: {defaultAction: deny}, features: [{nam: a}]}\nx: 1\n";
        let configuration = load(&[known, unknown]).unwrap();
        let file = |field: &str| (field.to_owned(), "1.yaml".to_owned());
        let fields = [file("spec.accesscontrol"), file("spec.features[0].nam"), file("x")];
        assert_eq!(configuration.unknown, fields);
    }

    /// daprd says nothing, and lets everything through.
    #[test]
    fn rules_of_no_protocol_are_named_with_their_file() {
        let good = "{name: state, version: v1, protocol: GRPC}";
        let denied =
            format!("spec: {{api: {{denied: [{good}, {{name: shutdown, version: v1}}]}}}}");
        let allowed = "spec: {api: {allowed: [{name: state, version: v1, protocol: gprc}]}}";
        let rules = load(&[&denied, allowed]).unwrap().idle_rules;
        let rule = |rule: &str, file: &str| (rule.to_owned(), file.to_owned());
        let named = [rule("spec.api.allowed[0]", "1.yaml"), rule("spec.api.denied[1]", "0.yaml")];
        assert_eq!(rules, named);
        let many = format!("spec: {{api: {{denied: [{}]}}}}", "{name: a},".repeat(99));
        assert_eq!(load(&[&many]).unwrap().idle_rules.len(), 16);
    }

    /// Texts of daprd's own checks.
    #[test]
    fn scopes_of_secrets_are_checked() {
        let error = |scopes| {
            load(&[&format!("spec: {{secrets: {{scopes: [{scopes}]}}}}")]).unwrap_err().to_string()
        };
        assert_eq!(
            error("{storeName: a}, {storeName: b}, {storeName: a}"),
            "error loading configuration: a storeName is repeated in secrets configuration"
        );
        assert_eq!(
            error("{storeName: a, defaultAccess: Deny}, {storeName: b, defaultAccess: no}"),
            "error loading configuration: defaultAccess no can be either allow or deny"
        );
    }

    /// Lists are replaced, maps merge, a null unsets (daprd's `multipleconfigs` suite, yaml.v3).
    #[test]
    fn access_control_of_several_files() {
        let first = "spec: {accessControl: {defaultAction: deny, policies: [{appId: a, \
                     namespace: b, trustDomain: c, operations: [{name: /x, action: deny}]}]}}";
        let of = |texts: &[&str]| {
            let mut tree = Tree::default();
            for text in texts {
                let document: Document<Configuration> = first_document(text).unwrap().unwrap();
                Configuration::SHAPE.overlay(&mut tree.merged, document.value.unwrap());
            }
            tree.access_control()
        };
        let allow = AccessControl {
            default_action: "allow".into(),
            trust_domain: "public".into(),
            policies: Vec::new(),
        };
        assert_eq!(of(&[]), Some(allow.clone()));
        let denied = of(&[first]).unwrap();
        assert_eq!((denied.default_action.as_str(), denied.policies.len()), ("deny", 1));
        assert_eq!(denied.policies[0].operations[0].name, "/x");
        assert_eq!(of(&[first, "spec: {accessControl: {defaultAction: }}"]), Some(denied));
        let over = "spec: {accessControl: {defaultAction: allow, policies: }}";
        assert_eq!(of(&[first, over]), Some(allow));
        let unset = of(&[first, "spec: {accessControl: }"]);
        assert_eq!(unset, None);
        let anew = of(&[first, "spec: {accessControl: }", "spec: {accessControl: {policies: []}}"]);
        assert_eq!(anew, Some(AccessControl::default()));
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
             features: [{name: A, enabled: true}], \
             metric: {enabled: false, recordErrorCodes: true}, \
             logging: {apiLogging: {enabled: true}}}",
            "spec: {tracing: {samplingRate: 0.5}, features: [{name: HotReload, enabled: false}], \
             logging: {apiLogging: {omitHealthChecks: true}}}",
        ])
        .unwrap();
        assert_eq!(configuration.tracing.rate(), 0.5);
        assert_eq!(configuration.features, ["WorkflowsRemoteActivityReminder"]);
        assert!(!configuration.metrics.enabled);
        assert!(configuration.api_logging.enabled && configuration.api_logging.omit_health_checks);
        assert!(configuration.metrics.record_error_codes);
    }

    #[test]
    fn sampling_rates() {
        for (text, rate) in
            [("\"0\"", 0.0), ("0", 0.0), ("\"x\"", 1e-4), ("\"\"", 1e-4), ("1", 1.0)]
        {
            let text = format!("spec: {{tracing: {{samplingRate: {text}}}}}");
            assert_eq!(load(&[&text]).unwrap().tracing.rate(), rate, "{text}");
        }
    }

    #[test]
    fn metrics_over_metric() {
        let text = "spec: {metric: {enabled: true, latencyDistributionBuckets: [1, 2]}, \
                    metrics: {enabled: false}}";
        let configuration = load(&[text]).unwrap();
        let text = r#"{"enabled":false,"latencyDistributionBuckets":[1,2]}"#;
        assert_eq!(configuration.metric_spec(), text);
        let text = "spec: {metric: {latencyDistributionBuckets: [1, 2]}, \
                    metrics: {latencyDistributionBuckets: []}}";
        assert_eq!(load(&[text]).unwrap().metrics.latency_buckets, None);
        assert!(load(&["spec: {metric: {latencyDistributionBuckets: [-1]}}"]).is_err());
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
