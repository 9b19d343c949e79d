//! What a Configuration says of traces (`spec.tracing`).
//!
//! Sources: Dapr's `pkg/config/configuration.go`, `pkg/diagnostics/utils/trace_utils.go`, and
//! `setupTracing` in `pkg/runtime/runtime.go`.

use super::Tracing;
use super::access::text;
use super::yaml::at;
use serde_json::Value;

/// The share of calls that is traced when nothing is said.
pub const SAMPLING_RATE_DEFAULT: f64 = 1e-4;

/// See the file's text.
#[derive(Clone, Debug, PartialEq)]
pub struct TracingSpec {
    /// As text: empty, when nothing is said.
    pub sampling_rate: String,
    pub stdout: bool,
    pub zipkin_endpoint: String,
    pub otel_endpoint: String,
    pub otel_protocol: String,
}

impl TracingSpec {
    pub(super) fn new(merged: &Value) -> Self {
        let text = |field: &str| text(merged, &format!("spec.tracing.{field}"));
        let stdout = at(merged, "spec.tracing.stdout").and_then(Value::as_bool);
        Self {
            sampling_rate: text("samplingRate"),
            stdout: stdout.unwrap_or(false),
            zipkin_endpoint: text("zipkin.endpointAddress"),
            otel_endpoint: text("otel.endpointAddress"),
            otel_protocol: text("otel.protocol"),
        }
    }

    /// What is not a number counts as not given (`GetTraceSamplingRate`).
    pub fn rate(&self) -> f64 {
        let rate = self.sampling_rate.parse().ok().filter(|rate: &f64| rate.is_finite());
        rate.unwrap_or(SAMPLING_RATE_DEFAULT)
    }

    fn has_exporter(&self) -> bool {
        let otel = !self.otel_endpoint.is_empty() && !self.otel_protocol.is_empty();
        self.stdout || !self.zipkin_endpoint.is_empty() || otel
    }

    /// Without an exporter, a rate must be asked for before daprd makes spans of its own.
    pub fn tracing(&self) -> Tracing {
        match self.rate() {
            0.0 => Tracing::Off,
            rate if self.has_exporter() || !self.sampling_rate.is_empty() => {
                Tracing::Sampled { rate }
            }
            _ => Tracing::Passed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(tracing: &Value) -> TracingSpec {
        TracingSpec::new(&json!({"spec": {"tracing": tracing}}))
    }

    /// Spec 10 §10.2, row by row.
    #[test]
    fn what_makes_spans() {
        let zipkin = json!({"endpointAddress": "http://localhost:9411/api/v2/spans"});
        for (tracing, expected) in [
            (json!({"samplingRate": "0"}), Tracing::Off),
            (json!({"samplingRate": "0.0", "zipkin": zipkin}), Tracing::Off),
            (json!({}), Tracing::Passed),
            (json!({"samplingRate": "0.5"}), Tracing::Sampled { rate: 0.5 }),
            (json!({"samplingRate": "often"}), Tracing::Sampled { rate: 1e-4 }),
            (json!({"zipkin": zipkin}), Tracing::Sampled { rate: 1e-4 }),
            (json!({"stdout": true, "samplingRate": "1"}), Tracing::Sampled { rate: 1.0 }),
            (json!({"otel": {"endpointAddress": "c:4317"}}), Tracing::Passed),
            (
                json!({"otel": {"endpointAddress": "c:4317", "protocol": "grpc"}}),
                Tracing::Sampled { rate: 1e-4 },
            ),
        ] {
            assert_eq!(spec(&tracing).tracing(), expected, "{tracing}");
        }
    }
}
