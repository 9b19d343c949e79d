//! Every flag: daprd 1.18.1's by its names, types and defaults, and our own.
//!
//! Source: `cmd/daprd/options/options.go` of Dapr; three flags of later versions are taken too,
//! so that a newer `dapr` command can start us.

/// What a flag's value is; the name is what the usage shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    String,
    Strings,
    Int,
    Uint,
    Duration,
}

/// What becomes of a flag that is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Used,
    /// Belongs to a feature that ringside does not serve: taken, named in the log.
    Ignored,
    /// Works; the text goes to stderr, as pflag prints it.
    Deprecated(&'static str),
    /// Both of the former.
    IgnoredDeprecated(&'static str),
}

#[derive(Clone, Copy, Debug)]
pub struct Flag {
    pub name: &'static str,
    pub kind: Kind,
    /// As the usage shows it; "" when there is none.
    pub default: &'static str,
    pub fate: Fate,
    pub help: &'static str,
}

const fn used(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag { name, kind, default, fate: Fate::Used, help }
}

const fn ignored(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag { name, kind, default, fate: Fate::Ignored, help }
}

const fn deprecated(name: &'static str, kind: Kind, hint: &'static str) -> Flag {
    Flag { name, kind, default: "", fate: Fate::Deprecated(hint), help: "" }
}

const fn old(name: &'static str, hint: &'static str) -> Flag {
    Flag { name, kind: String, default: "", fate: Fate::IgnoredDeprecated(hint), help: "" }
}

use Kind::{Bool, Duration, Int, String, Strings, Uint};

/// Sorted by name, ours last.
#[rustfmt::skip]
pub const FLAGS: &[Flag] = &[
    ignored("actors-disseminate-timeout", Duration, "30s", "Not served: actors"),
    old("actors-service", "use --placement-host-address"),
    used("allowed-origins", String, "", "Origins that browsers may call the HTTP API from"),
    ignored("app-binding-options-timeout", Duration, "3s", "Not served: bindings"),
    used("app-channel-address", String, "127.0.0.1", "Host that the app listens on"),
    used("app-health-check-path", String, "/healthz", "Path of health probes of HTTP apps"),
    used("app-health-probe-interval", Int, "5", "Seconds between health probes of the app"),
    used("app-health-probe-timeout", Int, "500", "Milliseconds that a health probe may take"),
    used("app-health-threshold", Int, "3", "Failed probes in a row that make the app unhealthy"),
    used("app-id", String, "", "ID of the app, by which others call it"),
    used("app-max-concurrency", Int, "-1", "Calls that the app gets at the same time; others wait"),
    used("app-port", String, "", "Port that the app listens on"),
    used("app-protocol", String, "http", "Protocol of the app: grpc, grpcs, http, https, h2c"),
    deprecated("app-ssl", Bool, "use '--app-protocol https|grpcs'"),
    used("build-info", Bool, "", "Print what this was built from, and end"),
    deprecated("components-path", String, "use --resources-path"),
    used("config", Strings, "", "Configuration file; later ones overlay earlier ones"),
    ignored("control-plane-address", String, "", "Not served yet: Kubernetes mode"),
    used("control-plane-namespace", String, "default", "Namespace of the control plane"),
    used("control-plane-trust-domain", String, "localhost", "Trust domain of the control plane"),
    used("dapr-block-shutdown-duration", Duration, "", "How long all goes on after a signal"),
    used("dapr-graceful-shutdown-seconds", Int, "5", "Seconds to end in, after the calls; 0: any"),
    used("dapr-grpc-port", String, "50001", "Port of the gRPC API"),
    deprecated("dapr-http-max-request-size", Int, "use '--max-body-size 4Mi'"),
    used("dapr-http-port", String, "3500", "Port of the HTTP API"),
    deprecated("dapr-http-read-buffer-size", Int, "use '--read-buffer-size 4Ki'"),
    used("dapr-internal-grpc-listen-address", String, "", "Address of the port between sidecars"),
    used("dapr-internal-grpc-port", String, "", "Port between sidecars"),
    used("dapr-listen-addresses", String, "", "Addresses of the APIs, separated by commas"),
    used("dapr-public-listen-address", String, "", "Address of the public port"),
    used("dapr-public-port", String, "", "Port for health and metadata only"),
    ignored("disable-builtin-k8s-secret-store", Bool, "", "Not served: secret stores"),
    ignored("disable-init-endpoints", Strings, "", "Not served: calls to the app at start"),
    used("enable-api-logging", Bool, "", "Log calls of Dapr's API"),
    used("enable-app-health-check", Bool, "", "Probe the app's health"),
    used("enable-metrics", Bool, "true", "Serve metrics"),
    used("enable-mtls", Bool, "", "mTLS between sidecars"),
    ignored("enable-profiling", Bool, "", "Not served: Go's profiler"),
    ignored("hot-reload-reconcile-interval", Duration, "", "Not served: reconciling of resources"),
    used("log-as-json", Bool, "", "Log in JSON"),
    used("log-file", String, "", "File that log lines are appended to, instead of stdout"),
    used("log-level", String, "info", "debug, info, warn, error or fatal"),
    used("max-body-size", String, "4Mi", "Largest message, as a quantity"),
    used("metrics-listen-address", String, "0.0.0.0", "Address of the metrics port"),
    used("metrics-port", String, "9090", "Port of the metrics"),
    used("mode", String, "standalone", "standalone; kubernetes is not served yet"),
    ignored("placement-host-address", String, "", "Not served: actors"),
    used("profile-port", String, "7777", "Checked only: there is no Go profiler here"),
    used("read-buffer-size", String, "4Ki", "Largest header block, as a quantity"),
    old("reminders-service", "use --scheduler-host-address"),
    used("resources-path", Strings, "", "Folder of resources"),
    ignored("scheduler-host-address", Strings, "", "Not served: jobs and reminders"),
    ignored("scheduler-job-streams", Uint, "3", "Not served: jobs and reminders"),
    used("sentry-address", String, "", "Address of Sentry, the certificate authority"),
    ignored("sentry-request-jwt-audiences", Strings, "", "Not served: JWTs of Sentry"),
    used("unix-domain-socket", String, "", "Folder for sockets in place of the APIs' ports"),
    used("version", Bool, "", "Print the version of Dapr that this follows, and end"),
    used("wait", Bool, "", "Wait for the sidecar on --dapr-http-port, and end"),
    used("ringside-admin-socket", String, "auto", "Socket for ringside admin and tap: a path, off"),
    used("ringside-app-max-concurrency-proxied", Bool, "true", "False: no bound, as in daprd"),
    used("ringside-app-socket", String, "", "Unix socket that the app listens on, not a port"),
    used("ringside-busy-poll", String, "off", "Microseconds to look for work before sleeping"),
    used("ringside-drain-max", Duration, "", "Most time that calls get when shutting down"),
    used("ringside-forward", Strings, "", "PORT=APP[.NAMESPACE]: calls all go to that app"),
    used("ringside-io", String, "auto", "auto, uring or epoll"),
    used("ringside-log-contents", Int, "0", "Octets of each call's messages shown in the log"),
    used("ringside-page-address", String, "127.0.0.1", "Address of the web page"),
    used("ringside-page-port", String, "", "Port of a web page that shows what happens"),
    used("ringside-pin", String, "auto", "Each worker on a CPU of its own: auto, on or off"),
    used("ringside-resolve-file", String, "", "YAML of app ids and endpoints, not mDNS"),
    used("ringside-retry-budget", String, "off", "Retries in percent of the calls, or off"),
    used("ringside-workers", String, "auto", "Threads that carry calls; auto: by the CPUs"),
];

/// Our own words, for whoever calls the program by our name.
pub const COMMANDS: &str = "
Commands of ringside's own, as the first word; each has a --help:
  demo     an app, its caller, two sidecars and mTLS between them, in this terminal
  bench    what sidecars cost on a service of yours
  doctor   would a sidecar with these flags work here?
  acl      what access control says of a call
  admin    what a running sidecar says of itself
  tap      the calls of a running sidecar, as they end
";

/// The usage, laid out as pflag lays it out: sorted, deprecated flags left out.
pub fn usage(program: &str) -> std::string::String {
    let shown: Vec<(std::string::String, &Flag)> =
        FLAGS.iter().filter(|flag| !flag.help.is_empty()).map(|flag| (head(flag), flag)).collect();
    let width = shown.iter().map(|(head, _)| head.len()).max().unwrap_or_default();
    let mut text = format!("Usage of {program}:\n");
    for (head, flag) in shown {
        text.push_str(&format!("{head:width$}   {}", flag.help));
        match (flag.default, flag.kind) {
            ("", _) => {}
            (default, String) => text.push_str(&format!(" (default {default:?})")),
            (default, _) => text.push_str(&format!(" (default {default})")),
        }
        text.push('\n');
    }
    text
}

fn head(flag: &Flag) -> std::string::String {
    let kind = match flag.kind {
        Bool => "",
        String => " string",
        Strings => " strings",
        Int => " int",
        Uint => " uint",
        Duration => " duration",
    };
    format!("      --{}{kind}", flag.name)
}
