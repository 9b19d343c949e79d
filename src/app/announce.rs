//! Log lines of the start that say what was asked for.

use super::Plan;
use crate::config::metric::LATENCY_BUCKETS_DEFAULT;
use crate::config::spec::Configuration;
use crate::control::reload::tell_fields;

const DIAGNOSTICS: &str = "dapr.runtime.diagnostics";

/// What the flags and the Configuration came to, as daprd tells it.
pub fn configuration(plan: &Plan) {
    let configuration = &plan.configuration;
    if plan.settings.config_files.is_empty() {
        tracing::info!("loading default configuration");
    }
    tracing::info!("Enabled features: {}", configuration.features.join(" "));
    if configuration.metrics.enabled {
        metrics(configuration);
    }
    let (grpc, http) = plan.policies.apis.restricts();
    if grpc {
        tracing::info!(scope = "dapr.runtime.grpc.api", "Enabled API access list on gRPC server");
    }
    if http {
        tracing::info!(scope = "dapr.runtime.http", "Enabled API access list on HTTP server");
    }
    tell_fields(configuration, &Configuration::default());
    if !plan.flags.ignored.is_empty() {
        let names: Vec<String> =
            plan.flags.ignored.iter().map(|name| format!("--{name}")).collect();
        tracing::info!(
            "ringside carries gRPC service invocation only; without effect: {}",
            names.join(" ")
        );
    }
    let octets = plan.settings.config.logging.contents;
    if octets > 0 {
        tracing::warn!(
            "--ringside-log-contents: the log shows the first {octets} octets of what calls carry \
             each way, whatever that is"
        );
    }
}

fn metrics(configuration: &Configuration) {
    tracing::info!(scope = DIAGNOSTICS, "metric spec: {}", configuration.metric_spec());
    let (kind, bounds) = match &configuration.metrics.latency_buckets {
        None => ("default", LATENCY_BUCKETS_DEFAULT),
        Some(bounds) => ("custom", bounds.as_slice()),
    };
    let bounds: Vec<String> = bounds.iter().map(u64::to_string).collect();
    tracing::info!(
        scope = DIAGNOSTICS,
        "Using {kind} latency distribution buckets: [{}]",
        bounds.join(" ")
    );
}

/// The mode, the app id, the sampler.
pub fn sampler(plan: &Plan) {
    tracing::info!("{} mode configured", plan.flags.mode);
    tracing::info!("app id: {}", plan.settings.config.app_id);
    tracing::info!(
        "Dapr trace sampler initialized: ParentBased{{root:TraceIDRatioBased{{{}}},\
         remoteParentSampled:AlwaysOnSampler,remoteParentNotSampled:AlwaysOffSampler,\
         localParentSampled:AlwaysOnSampler,localParentNotSampled:AlwaysOffSampler}}",
        go_float(plan.configuration.tracing.rate().clamp(0.0, 1.0))
    );
}

/// That there is no app.
pub fn channel(plan: &Plan) {
    if plan.settings.config.app.is_none() {
        tracing::warn!(
            scope = "dapr.runtime.channels",
            "App channel is not initialized. Did you configure an app-port?"
        );
    }
}

/// Descriptors: every connection takes one.
pub fn descriptors() {
    const ENOUGH: u64 = 4096;
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let raised = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    if raised.is_some_and(|count| count < ENOUGH) {
        let count = raised.unwrap_or_default();
        tracing::warn!(
            "at most {count} files and connections can be open at once: raise the hard limit \
             (ulimit -Hn)"
        );
    }
}

/// Go's `%g`: an exponent below 1e-4, of two digits.
fn go_float(value: f64) -> String {
    if value == 0.0 || value.abs() >= 1e-4 {
        return value.to_string();
    }
    let text = format!("{value:e}");
    match text.split_once("e-") {
        Some((mantissa, exponent)) => format!("{mantissa}e-{exponent:0>2}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_as_go_prints_them() {
        assert_eq!(go_float(1.0), "1");
        assert_eq!(go_float(0.0001), "0.0001");
        assert_eq!(go_float(0.00001), "1e-05");
        assert_eq!(go_float(0.0), "0");
        assert_eq!(go_float(0.25), "0.25");
    }
}
