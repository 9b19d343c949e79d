//! What a Configuration and the environment say of traces (`spec.tracing`, `OTEL_*`).
//!
//! 1. The Configuration's endpoint counts before the environment's; headers of both go out.
//! 2. What cannot work is refused at the start, in daprd's words where it has some.
//!
//! Sources: Dapr's `pkg/config/configuration.go` (`SetTracingSpecFromEnv`),
//! `pkg/diagnostics/utils/trace_utils.go`, `setupTracing` in `pkg/runtime/runtime.go`; the
//! OpenTelemetry specification's "OTLP Exporter", "Batch Span Processor" and "Resource" variables.

use super::access::{list, text};
use super::yaml::at;
use super::{Environment, Tracing, go};
use serde_json::Value;
use std::time::Duration;

mod url;

pub use url::Url;

/// The share of calls that is traced when nothing is said.
pub const SAMPLING_RATE_DEFAULT: f64 = 1e-4;

const OTLP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const OTLP_PATH: &str = "/v1/traces";

/// As it was written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TracingSpec {
    /// As text: empty, when nothing is said.
    pub sampling_rate: String,
    stdout: bool,
    zipkin_endpoint: String,
    otel: OtelSpec,
}

#[derive(Clone, Debug, PartialEq)]
struct OtelSpec {
    endpoint: String,
    protocol: String,
    secure: bool,
    /// `name=value`.
    headers: Vec<String>,
    timeout: Option<Duration>,
    /// Of OTLP over HTTP.
    path: String,
}

impl Default for OtelSpec {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            protocol: String::new(),
            secure: true,
            headers: Vec::new(),
            timeout: None,
            path: OTLP_PATH.to_owned(),
        }
    }
}

/// Who is told of spans, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exporters {
    pub stdout: bool,
    pub zipkin: Option<Url>,
    pub otlp: Option<Otlp>,
    pub batching: Batching,
    /// Who tells of them: `service.name`, and what else the environment says.
    pub resource: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    pub protocol: OtlpProtocol,
    pub url: Url,
    pub headers: Vec<(String, String)>,
    /// Of one request, with what is repeated of it.
    pub timeout: Duration,
    pub tls: TlsFiles,
    /// Requests are compressed.
    pub gzip: bool,
}

/// PEM files for connections with TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The roots that count in place of the system's.
    pub roots: Option<String>,
    pub client: Option<ClientFiles>,
}

/// What is shown to a collector that asks who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    pub certificate: String,
    pub key: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    Grpc,
    /// With protobuf.
    Http,
}

/// What waits for an exporter, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    pub queue_max: usize,
    pub batch_max: usize,
    pub delay: Duration,
    pub timeout: Duration,
}

impl Default for Batching {
    fn default() -> Self {
        Self {
            queue_max: 2048,
            batch_max: 512,
            delay: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
        }
    }
}

impl Exporters {
    pub fn is_empty(&self) -> bool {
        !self.stdout && self.zipkin.is_none() && self.otlp.is_none()
    }
}

impl TracingSpec {
    pub(super) fn new(merged: &Value) -> Result<Self, String> {
        let text = |field: &str| text(merged, &format!("spec.tracing.{field}"));
        let bool = |field: &str| at(merged, &format!("spec.tracing.{field}"))?.as_bool();
        let timeout = text("otel.timeout");
        let timeout = match timeout.as_str() {
            "" => None,
            given => go::parse_duration(given)
                .map_err(|error| format!("spec.tracing.otel.timeout: {error}"))?
                .positive(),
        };
        let headers = list(merged, "spec.tracing.otel.headers").filter_map(Value::as_str);
        Ok(Self {
            sampling_rate: text("samplingRate"),
            stdout: bool("stdout").unwrap_or(false),
            zipkin_endpoint: text("zipkin.endpointAddress"),
            otel: OtelSpec {
                endpoint: text("otel.endpointAddress"),
                protocol: text("otel.protocol"),
                secure: bool("otel.isSecure").unwrap_or(true),
                headers: headers.map(str::to_owned).collect(),
                timeout,
                ..OtelSpec::default()
            },
        })
    }

    /// `SetTracingSpecFromEnv`, and what OpenTelemetry's exporters read themselves.
    pub fn set_from_env(&mut self, env: &Environment) -> Result<(), String> {
        if self.otel.endpoint.is_empty() {
            self.take_endpoint(env);
        }
        if otlp(env, "INSECURE").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            self.otel.secure = false;
        }
        if let Some(text) = otlp(env, "HEADERS") {
            for pair in text.split(',') {
                self.otel.headers.push(header(pair)?);
            }
        }
        if let Some(text) = otlp(env, "TIMEOUT")
            && let Ok(millis @ 1..) = u64::try_from(go::atoi(text)?)
        {
            self.otel.timeout = Some(Duration::from_millis(millis));
        }
        Ok(())
    }

    fn take_endpoint(&mut self, env: &Environment) {
        let own = env.filled("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let Some(endpoint) = own.or(env.filled("OTEL_EXPORTER_OTLP_ENDPOINT")) else { return };
        let (bare, secure) = without_scheme(endpoint);
        let (host, path) = bare.split_at(bare.find('/').unwrap_or(bare.len()));
        // One that is for traces alone says the whole path, another one where paths begin.
        self.otel.path = match own {
            Some(_) if path.is_empty() => "/".to_owned(),
            Some(_) => path.to_owned(),
            None => format!("{}{OTLP_PATH}", path.trim_end_matches('/')),
        };
        self.otel.endpoint = host.to_owned();
        self.otel.secure &= secure;
        if self.sampling_rate.is_empty() {
            self.sampling_rate = "1".to_owned();
        }
        let http = otlp(env, "PROTOCOL").is_some_and(|text| text.starts_with("http"));
        self.otel.protocol = if http { "http" } else { "grpc" }.to_owned();
    }

    /// What is not a number counts as not given (`GetTraceSamplingRate`).
    pub fn rate(&self) -> f64 {
        let rate = self.sampling_rate.parse().ok().filter(|rate: &f64| rate.is_finite());
        rate.unwrap_or(SAMPLING_RATE_DEFAULT)
    }

    fn has_exporter(&self) -> bool {
        let otel = !self.otel.endpoint.is_empty() && !self.otel.protocol.is_empty();
        self.stdout || !self.zipkin_endpoint.is_empty() || otel
    }

    /// Without an exporter, a rate must be asked for before daprd makes spans of its own.
    pub fn tracing(&self) -> Tracing {
        let exported = self.has_exporter();
        match self.rate() {
            0.0 => Tracing::Off,
            rate if exported || !self.sampling_rate.is_empty() => {
                Tracing::Sampled { rate, exported }
            }
            _ => Tracing::Passed,
        }
    }

    pub fn exporters(&self, app_id: &str, env: &Environment) -> Result<Exporters, String> {
        if self.tracing() == Tracing::Off {
            return Ok(Exporters::default());
        }
        let zipkin = match self.zipkin_endpoint.as_str() {
            "" => None,
            text => Some(Url::parse(text)?),
        };
        Ok(Exporters {
            stdout: self.stdout,
            zipkin,
            otlp: self.otlp(env)?,
            batching: batching(env),
            resource: resource(app_id, env),
        })
    }

    fn otlp(&self, env: &Environment) -> Result<Option<Otlp>, String> {
        let OtelSpec { endpoint, protocol, secure, headers, timeout, path } = &self.otel;
        if endpoint.is_empty() || protocol.is_empty() {
            return Ok(None);
        }
        let protocol = match protocol.as_str() {
            "grpc" => OtlpProtocol::Grpc,
            "http" => OtlpProtocol::Http,
            other => return Err(format!("invalid protocol {other} provided for Otel endpoint")),
        };
        let scheme = if *secure { "https" } else { "http" };
        let url = Url::parse(&format!("{scheme}://{}{path}", without_scheme(endpoint).0))?;
        // Without a `=` it is no header, and daprd says nothing of it.
        let headers = headers.iter().filter_map(|text| text.split_once('='));
        Ok(Some(Otlp {
            protocol,
            url,
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            timeout: timeout.unwrap_or(OTLP_TIMEOUT_DEFAULT),
            tls: TlsFiles {
                roots: otlp(env, "CERTIFICATE").map(str::to_owned),
                client: client_files(env),
            },
            gzip: otlp(env, "COMPRESSION") == Some("gzip"),
        }))
    }
}

/// A certificate counts with its own key alone: those for traces, else those for all signals.
fn client_files(env: &Environment) -> Option<ClientFiles> {
    ["TRACES_", ""].into_iter().find_map(|signal| {
        let file = |name| env.filled(&format!("OTEL_EXPORTER_OTLP_{signal}CLIENT_{name}"));
        let (certificate, key) = (file("CERTIFICATE")?.to_owned(), file("KEY")?.to_owned());
        Some(ClientFiles { certificate, key })
    })
}

/// The variable for traces, else the one for all signals.
fn otlp<'a>(env: &'a Environment, name: &str) -> Option<&'a str> {
    let own = env.filled(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"));
    own.or_else(|| env.filled(&format!("OTEL_EXPORTER_OTLP_{name}")))
}

/// The scheme says whether there is TLS; without one there is.
fn without_scheme(endpoint: &str) -> (&str, bool) {
    match endpoint.strip_prefix("http://") {
        Some(bare) => (bare, false),
        None => (endpoint.strip_prefix("https://").unwrap_or(endpoint), true),
    }
}

/// One of `OTEL_EXPORTER_OTLP_HEADERS`, its value decoded (`StringToHeader`).
fn header(pair: &str) -> Result<String, String> {
    let Some((name, value)) = pair.split_once('=') else {
        return Err(format!("missing '=' parse headers input{pair}"));
    };
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let name = name.trim();
    if name.is_empty() || !name.bytes().all(token) {
        return Err(format!("invalid header key{name}"));
    }
    let value = unescaped(value).ok_or_else(|| format!("escape header value{value}"))?;
    Ok(format!("{name}={}", value.trim()))
}

/// Go's `url.PathUnescape`.
fn unescaped(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        rest = more;
        if *first != b'%' {
            octets.push(*first);
            continue;
        }
        let ([high, low], more) = more.split_first_chunk()?;
        let digit = |octet: u8| char::from(octet).to_digit(16);
        octets.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        rest = more;
    }
    String::from_utf8(octets).ok()
}

fn batching(env: &Environment) -> Batching {
    const QUEUE_LIMIT: u64 = 1 << 16;
    let number = |name: &str| env.filled(name)?.parse::<u64>().ok().filter(|number| *number > 0);
    let size = |name: &str, default: usize| {
        number(name).map_or(default, |given| given.min(QUEUE_LIMIT) as usize)
    };
    let time = |name: &str, default| number(name).map_or(default, Duration::from_millis);
    let Batching { queue_max, batch_max, delay, timeout } = Batching::default();
    let queue_max = size("OTEL_BSP_MAX_QUEUE_SIZE", queue_max);
    Batching {
        queue_max,
        batch_max: size("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", batch_max).min(queue_max),
        delay: time("OTEL_BSP_SCHEDULE_DELAY", delay),
        timeout: time("OTEL_BSP_EXPORT_TIMEOUT", timeout),
    }
}

/// The app ID, unless the environment knows a better name.
fn resource(app_id: &str, env: &Environment) -> Vec<(String, String)> {
    const NAME: &str = "service.name";
    let mut resource = vec![(NAME.to_owned(), app_id.to_owned())];
    let mut set = |name: &str, value: String| match resource.iter_mut().find(|(n, _)| n == name) {
        Some((_, old)) => *old = value,
        None => resource.push((name.to_owned(), value)),
    };
    for pair in env.filled("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default().split(',') {
        if let Some((name, value)) = pair.split_once('=') {
            let value = value.trim();
            set(name.trim(), unescaped(value).unwrap_or_else(|| value.to_owned()));
        }
    }
    if let Some(name) = env.filled("OTEL_SERVICE_NAME") {
        set(NAME, name.to_owned());
    }
    resource
}

#[cfg(test)]
mod tests;
