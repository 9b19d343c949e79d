//! What differs between two Configurations, by the names of fields.

use super::spec::Configuration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Fields that a running sidecar takes over at once.
    pub carried: Vec<&'static str>,
    /// Fields that hold for as long as a process runs.
    pub beyond: Vec<&'static str>,
}

impl Change {
    pub fn between(old: &Configuration, new: &Configuration) -> Self {
        // Named one by one, so that nobody adds a field without saying what a change of it does.
        let Configuration {
            tracing,
            metrics,
            name_resolution,
            features,
            api_logging,
            access_control,
            api,
            // About files, not about calls.
            silent: _,
            unknown: _,
            idle_rules: _,
        } = old;
        let named = |fields: &[(&'static str, bool)]| {
            fields.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect()
        };
        Self {
            carried: named(&[
                ("spec.accessControl", *access_control != new.access_control),
                ("spec.api", *api != new.api),
                ("spec.features", *features != new.features),
            ]),
            beyond: named(&[
                ("spec.tracing", *tracing != new.tracing),
                ("spec.metrics", *metrics != new.metrics),
                ("spec.nameResolution", *name_resolution != new.name_resolution),
                ("spec.logging", *api_logging != new.api_logging),
            ]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::spec::File;

    fn load(text: &str) -> Configuration {
        let file = File { name: "a.yaml".to_owned(), text: format!("spec: {{ {text} }}") };
        Configuration::load(&[file]).unwrap()
    }

    #[test]
    fn names_what_differs() {
        let old = load("metric: {enabled: true}");
        for (text, carried, beyond) in [
            ("metrics: {enabled: true}, other: 1", None, None),
            ("accessControl: {defaultAction: deny}", Some("spec.accessControl"), None),
            ("accessControl: ", Some("spec.accessControl"), None),
            ("api: {denied: [{name: state, version: v1, protocol: grpc}]}", Some("spec.api"), None),
            ("features: [{name: HotReload, enabled: false}]", Some("spec.features"), None),
            ("tracing: {samplingRate: '1'}", None, Some("spec.tracing")),
            ("metric: {latencyDistributionBuckets: [1]}", None, Some("spec.metrics")),
            ("nameResolution: {component: mdns}", None, Some("spec.nameResolution")),
            ("logging: {apiLogging: {enabled: true}}", None, Some("spec.logging")),
        ] {
            let expected = Change {
                carried: carried.into_iter().collect(),
                beyond: beyond.into_iter().collect(),
            };
            assert_eq!(Change::between(&old, &load(text)), expected, "{text}");
            assert_eq!(Change::between(&load(text), &old), expected, "{text}, taken back");
        }
    }
}
