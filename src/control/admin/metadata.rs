//! `GET /v1.0/metadata`: daprd's fields in daprd's order, encoded as Go's encoder does. No I/O.
//!
//! Sources: Dapr's `pkg/api/http/metadata.go` and `pkg/api/universal/metadata.go`.

use crate::config::AppProtocol;
use crate::control::state::{AppHealth, State, StateOptions};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    id: &'a str,
    runtime_version: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    enabled_features: Vec<String>,
    extended: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "AppConnection::is_zero")]
    app_connection_properties: AppConnection<'a>,
    actor_runtime: ActorRuntime,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resiliencies: Vec<Resiliency<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AppConnection<'a> {
    #[serde(skip_serializing_if = "is_zero")]
    pub port: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub protocol: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub channel_address: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_concurrency: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Health<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub health_check_path: &'a str,
    pub health_probe_interval: String,
    pub health_probe_timeout: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub health_threshold: i32,
}

/// There are no actors here: what daprd says without a placement service.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ActorRuntime {
    runtime_status: &'static str,
    host_ready: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    placement: &'static str,
}

impl ActorRuntime {
    /// daprd registers its hosted actors, of which there are none, when the app is well.
    fn of(state: &State) -> Self {
        let (runtime_status, placement) = match state.app_was_healthy() {
            true => ("DISABLED", "placement: disconnected"),
            false => ("INITIALIZING", ""),
        };
        Self { runtime_status, host_ready: false, placement }
    }
}

#[derive(Serialize)]
struct Resiliency<'a> {
    name: &'a str,
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

impl AppConnection<'_> {
    fn is_zero(&self) -> bool {
        self.port == 0
            && self.protocol.is_empty()
            && self.channel_address.is_empty()
            && self.max_concurrency == 0
            && self.health.is_none()
    }
}

/// The body: JSON and a newline.
pub fn render(state: &State) -> String {
    let (options, resiliency) = (&state.options, state.resiliency());
    let metadata = Metadata {
        id: options.app_id.as_str(),
        runtime_version: &options.version,
        enabled_features: state.features(),
        extended: state.extended(),
        app_connection_properties: app_connection(options),
        actor_runtime: ActorRuntime::of(state),
        resiliencies: resiliency.names.iter().map(|name| Resiliency { name }).collect(),
    };
    // Strings and numbers always serialize.
    let mut body = json(&metadata);
    body.push('\n');
    body
}

/// What is told of the app, by HTTP and by gRPC.
pub fn app_connection(options: &StateOptions) -> AppConnection<'_> {
    let app = options.app.as_ref();
    AppConnection {
        port: app.map_or(0, |app| i32::from(app.port())),
        protocol: &options.app_protocol,
        channel_address: &options.app_host,
        max_concurrency: options.app_concurrency_max,
        health: options.app_health.as_ref().map(|health| {
            let http = app.is_some_and(|app| match app.protocol {
                AppProtocol::Http | AppProtocol::Https | AppProtocol::H2c => true,
                AppProtocol::Grpc | AppProtocol::Grpcs => false,
            });
            health_of(health, http)
        }),
    }
}

fn health_of(health: &AppHealth, http: bool) -> Health<'_> {
    Health {
        health_check_path: if http { &health.path } else { "" },
        health_probe_interval: go_duration(health.probe_interval),
        health_probe_timeout: go_duration(health.probe_timeout),
        health_threshold: health.threshold,
    }
}

/// JSON as Go's `encoding/json` writes it: `<`, `>`, `&`, U+2028 and U+2029 are escaped. All of
/// them occur in strings only.
pub fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_default();
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
    out
}

/// `time.Duration.String` for whole milliseconds.
fn go_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms == 0 {
        return "0s".to_owned();
    }
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
    let (seconds, rest) = (ms / 1000 % 60, ms % 1000);
    let mut text = String::new();
    if hours > 0 {
        text.push_str(&format!("{hours}h"));
    }
    if hours > 0 || minutes > 0 {
        text.push_str(&format!("{minutes}m"));
    }
    let fraction = format!(".{rest:03}");
    let fraction = if rest == 0 { "" } else { fraction.trim_end_matches('0') };
    text.push_str(&format!("{seconds}{fraction}s"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::App;
    use crate::control::resiliency::Loaded;
    use crate::control::state::tests::options;

    #[test]
    fn is_what_daprd_1_18_1_said() {
        let state = State::new(options());
        state.app_is_healthy(true);
        let features = ["HotReload", "WorkflowsRemoteActivityReminder"];
        state.set_features(features.map(str::to_owned).to_vec());
        // Recorded from daprd 1.18.1.
        let expected = r#"{"id":"vsrv","runtimeVersion":"1.18.1","enabledFeatures":["HotReload","WorkflowsRemoteActivityReminder"],"extended":{"daprRuntimeVersion":"1.18.1"},"appConnectionProperties":{"port":61051,"protocol":"grpc","channelAddress":"127.0.0.1"},"actorRuntime":{"runtimeStatus":"DISABLED","hostReady":false,"placement":"placement: disconnected"}}"#;
        assert_eq!(render(&state), format!("{expected}\n"));
    }

    #[test]
    fn escapes_as_go_does() {
        let state = State::new(options());
        state.set_metadata("appCommand".to_owned(), "a && <b> \"c\"\n".to_owned()).unwrap();
        let body = render(&state);
        let expected =
            r#""extended":{"appCommand":"a \u0026\u0026 \u003cb\u003e \"c\"\n","daprRuntime"#;
        assert!(body.contains(expected), "{body}");
    }

    #[test]
    fn tells_health_checks() {
        let mut options = options();
        let health = AppHealth {
            path: "/healthz".to_owned(),
            probe_interval: Duration::from_secs(5),
            probe_timeout: Duration::from_millis(500),
            threshold: 3,
        };
        options.app_health = Some(health);
        options.app_concurrency_max = 7;
        let protocol = AppProtocol::Http;
        options.app = Some(App::at("127.0.0.1", 80, protocol));
        options.app_protocol = "http".to_owned();
        let state = State::new(options);
        state.set_resiliency(Loaded { names: vec!["rz".to_owned()], ..Loaded::default() });
        let body = render(&state);
        let expected = r#""appConnectionProperties":{"port":80,"protocol":"http","channelAddress":"127.0.0.1","maxConcurrency":7,"health":{"healthCheckPath":"/healthz","healthProbeInterval":"5s","healthProbeTimeout":"500ms","healthThreshold":3}}"#;
        assert!(body.contains(expected), "{body}");
        assert!(body.ends_with("\"resiliencies\":[{\"name\":\"rz\"}]}\n"), "{body}");
    }

    #[test]
    fn durations_as_go_writes_them() {
        let of = |ms| go_duration(Duration::from_millis(ms));
        assert_eq!(of(0), "0s");
        assert_eq!(of(1500), "1.5s");
        assert_eq!(of(60_000), "1m0s");
        assert_eq!(of(3_661_001), "1h1m1.001s");
    }
}
