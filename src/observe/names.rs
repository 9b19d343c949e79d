//! Names and help texts of the series, Dapr's byte for byte, and our own.
//!
//! Sources: Dapr's `pkg/diagnostics/{service,grpc}_monitoring.go`; `/` and `.` of a measure
//! become `_`, and every name starts with `dapr_`.

/// How a series is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One series: all of its labels are always present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
    /// In the order in which they are told.
    pub labels: &'static [&'static str],
}

const fn counter(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
) -> Series {
    Series { name, help, kind: Kind::Counter, labels }
}

const fn gauge(name: &'static str, help: &'static str) -> Series {
    Series { name, help, kind: Kind::Gauge, labels: &[] }
}

const fn gauge_by(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
) -> Series {
    Series { name, help, kind: Kind::Gauge, labels }
}

const fn histogram(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
) -> Series {
    Series { name, help, kind: Kind::Histogram, labels }
}

pub const REQUESTS_SENT: Series = counter(
    "dapr_runtime_service_invocation_req_sent_total",
    "The number of requests sent via service invocation.",
    &["app_id", "dst_app_id", "type"],
);
pub const RESPONSES_RECEIVED: Series = counter(
    "dapr_runtime_service_invocation_res_recv_total",
    "The number of responses received via service invocation.",
    &["app_id", "src_app_id", "status", "type"],
);
pub const RESPONSE_LATENCY: Series = histogram(
    "dapr_runtime_service_invocation_res_recv_latency_ms",
    "The latency of service invocation response.",
    &["app_id", "src_app_id", "status"],
);
pub const GRPC_COMPLETED: Series = counter(
    "dapr_grpc_io_server_completed_rpcs",
    "Distribution of bytes sent per RPC, by method.",
    &["app_id", "grpc_server_method", "grpc_server_status"],
);
pub const GRPC_LATENCY: Series = histogram(
    "dapr_grpc_io_server_server_latency",
    "Time between first byte of request received to last byte of response sent, or terminal error.",
    &["app_id", "grpc_server_method", "grpc_server_status"],
);
pub const GRPC_RECEIVED: Series = histogram(
    "dapr_grpc_io_server_received_bytes_per_rpc",
    "Total bytes received across all messages per RPC.",
    &["app_id", "grpc_server_method"],
);
pub const GRPC_SENT: Series = histogram(
    "dapr_grpc_io_server_sent_bytes_per_rpc",
    "Total bytes sent in across all response messages per RPC.",
    &["app_id", "grpc_server_method"],
);
pub const HTTP_SERVER_REQUESTS: Series = counter(
    "dapr_http_server_request_count",
    "Count of HTTP requests processed by the server.",
    HTTP_SERVER,
);
pub const HTTP_SERVER_RESPONSES: Series =
    counter("dapr_http_server_response_count", "The number of HTTP responses", HTTP_SERVER);
pub const HTTP_SERVER_LATENCY: Series = histogram(
    "dapr_http_server_latency",
    "HTTP request end-to-end latency in server.",
    HTTP_SERVER,
);
pub const HTTP_SERVER_RECEIVED: Series = histogram(
    "dapr_http_server_request_bytes",
    "HTTP request body size if set as ContentLength (uncompressed) in server.",
    &["app_id"],
);
pub const HTTP_SERVER_SENT: Series = histogram(
    "dapr_http_server_response_bytes",
    "HTTP response body size (uncompressed) in server.",
    &["app_id"],
);
pub const ERROR_CODES: Series = counter(
    "dapr_error_code_total",
    "Total number of times an error with a specific error code was encountered.",
    &["app_id", "category", "error_code"],
);
const HTTP_SERVER: &[&str] = &["app_id", "method", "path", "status"];

pub const GRPC_PROBES: Series = counter(
    "dapr_grpc_io_healthprobes_completed_count",
    "Count of completed health probes",
    &["app_id", "grpc_client_status"],
);
pub const GRPC_PROBE_LATENCY: Series = histogram(
    "dapr_grpc_io_healthprobes_roundtrip_latency",
    "Time between first byte of health probes sent to last byte of response received, or terminal \
     error",
    &["app_id", "grpc_client_status"],
);
pub const HTTP_PROBES: Series = counter(
    "dapr_http_healthprobes_completed_count",
    "Count of completed health probes",
    &["app_id", "status"],
);
pub const HTTP_PROBE_LATENCY: Series = histogram(
    "dapr_http_healthprobes_roundtrip_latency",
    "Time between first byte of health probes headers sent to last byte of response received, or \
     terminal error",
    &["app_id", "status"],
);
pub const ROTATION_FAILURES: Series = counter(
    "dapr_runtime_mtls_workload_cert_rotated_fail_total",
    "The number of the failed workload certificate rotations.",
    &["app_id", "reason"],
);
pub const COMPONENT_FAILURES: Series = counter(
    "dapr_runtime_component_init_fail_total",
    "The number of component initialization failures.",
    &["app_id", "component", "componentName", "reason"],
);
const CALLER: &[&str] = &["app_id", "namespace", "trustDomain"];

pub const ALLOWED_BY_APP: Series = counter(
    "dapr_runtime_acl_app_policy_action_allowed_total",
    "The number of requests allowed by the app specific action specified in the access control \
     policy.",
    CALLER,
);
pub const BLOCKED_BY_APP: Series = counter(
    "dapr_runtime_acl_app_policy_action_blocked_total",
    "The number of requests blocked by the app specific action specified in the access control \
     policy.",
    CALLER,
);
pub const ALLOWED_BY_GLOBAL: Series = counter(
    "dapr_runtime_acl_global_policy_action_allowed_total",
    "The number of requests allowed by the global action specified in the access control policy.",
    CALLER,
);
pub const BLOCKED_BY_GLOBAL: Series = counter(
    "dapr_runtime_acl_global_policy_action_blocked_total",
    "The number of requests blocked by the global action specified in the access control policy.",
    CALLER,
);

pub const RESILIENCY_LOADED: Series = counter(
    "dapr_resiliency_loaded",
    "Number of resiliency policies loaded.",
    &["app_id", "name", "namespace"],
);
pub const RESILIENCY_COUNT: Series = counter(
    "dapr_resiliency_count",
    "Number of times a resiliency policyKey has been applied to a building block.",
    &["app_id", "flow_direction", "name", "namespace", "policy", "status", "target"],
);
pub const RESILIENCY_ACTIVATIONS: Series = counter(
    "dapr_resiliency_activations_total",
    "Number of times a resiliency policyKey has been activated in a building block after a failure \
     or after a state change.",
    &["app_id", "flow_direction", "name", "namespace", "policy", "status", "target"],
);
pub const RESILIENCY_BREAKER_STATE: Series = gauge_by(
    "dapr_resiliency_cb_state",
    "A resiliency policy's current CircuitBreakerState state. 0 is closed, 1 is half-open, 2 is \
     open, and -1 is unknown.",
    &["app_id", "flow_direction", "name", "namespace", "policy", "status", "target"],
);

pub const CALLS: Series = counter(
    "ringside_calls_total",
    "Calls that ended, by direction and gRPC status, with or without dapr-app-id.",
    &["hop", "status"],
);
pub const CALL_LATENCY: Series = histogram(
    "ringside_call_latency_us",
    "From a call's first byte to its end, in microseconds.",
    &["hop"],
);
pub const REPLAYS: Series = counter(
    "ringside_calls_replayed_total",
    "Calls that an upstream left out and that were made again unseen.",
    &[],
);
pub const LIMITS_HIT: Series =
    counter("ringside_limits_hit_total", "How often a named limit refused something.", &["limit"]);
pub const FOLDED: Series = counter(
    "ringside_label_sets_folded_total",
    "What is told as _other, as its label set was one too many, or too long: calls by method and \
     by caller, policies applied by target, HTTP requests by path, probes by result.",
    &["of"],
);
pub const DOWNSTREAM_CONNECTIONS: Series =
    gauge("ringside_downstream_connections", "Open connections on the gRPC ports.");
pub const UPSTREAM_CONNECTIONS: Series =
    gauge("ringside_upstream_connections", "Open connections to remote sidecars and the app.");
pub const STREAMS: Series = gauge("ringside_streams", "Open HTTP/2 streams of both sides.");
pub const OPEN_CALLS: Series = gauge("ringside_open_calls", "Calls in flight.");
pub const WAITING_CALLS: Series = gauge(
    "ringside_waiting_calls",
    "Calls that wait for a connection to their callee, or for a stream that its limit allows.",
);
pub const WORKER_ANSWERED: Series = gauge_by(
    "ringside_worker_answered",
    "1 if the worker told its figures for this scrape, 0 if they are of an earlier one.",
    &["worker"],
);
pub const WORKER_CONNECTIONS: Series = gauge_by(
    "ringside_worker_downstream_connections",
    "Open connections on the gRPC ports, by the worker that serves them.",
    &["worker"],
);
pub const WORKER_STREAMS: Series = gauge_by(
    "ringside_worker_streams",
    "Open HTTP/2 streams of both sides, by worker.",
    &["worker"],
);
pub const WORKER_BUSY: Series =
    counter("ringside_worker_busy_seconds_total", "CPU time of a worker's thread.", &["worker"]);
pub const WORKER_TURNS: Series = histogram(
    "ringside_worker_turn_events",
    "What a turn of a worker's loop brought: reads, and sockets that may be written again.",
    &["worker"],
);
pub const WORKER_FLUSHES: Series = histogram(
    "ringside_worker_flush_connections",
    "Connections that had something to send, whenever a worker wrote.",
    &["worker"],
);
pub const LOG_DROPS: Series =
    counter("ringside_log_drops_total", "Log lines that the bounded queue refused.", &[]);
pub const SPANS_EXPORTED: Series =
    counter("ringside_spans_exported_total", "Spans that a collector took.", &[]);
pub const SPANS_DROPPED: Series = counter(
    "ringside_spans_dropped_total",
    "Spans that a queue had no room for, or that a collector did not take.",
    &[],
);
pub const HTTP_CONNECTIONS: Series =
    gauge("ringside_http_connections", "Open connections on the HTTP ports.");
pub const HTTP_REFUSED: Series = counter(
    "ringside_http_connections_refused_total",
    "Connections to the HTTP ports closed at the limit.",
    &[],
);
pub const HTTP_CUT: Series = counter(
    "ringside_http_connections_cut_total",
    "Connections to the HTTP ports closed because they took too long.",
    &[],
);
pub const HTTP_REQUESTS: Series =
    counter("ringside_http_requests_total", "Requests on the HTTP ports.", &[]);
pub const SCRAPES_INCOMPLETE: Series = counter(
    "ringside_scrapes_incomplete_total",
    "Scrapes that a worker did not answer in time.",
    &[],
);
pub const LOOKUPS: Series =
    counter("ringside_name_lookups_total", "Name resolutions that were asked for.", &[]);
pub const LOOKUPS_FAILED: Series =
    counter("ringside_name_lookups_failed_total", "Name resolutions that found nothing.", &[]);
pub const RELOADS: Series = counter(
    "ringside_config_reloads_total",
    "How often Configuration and resource files were read again: as they changed, or at SIGHUP.",
    &[],
);
pub const RELOADS_FAILED: Series = counter(
    "ringside_config_reload_failures_total",
    "Of those, how many found something wrong: what was in force stayed in force.",
    &[],
);
pub const RELOAD_GOOD: Series = gauge(
    "ringside_config_last_reload_successful",
    "1 if what the files say now is in force, 0 if some of it was refused.",
);
pub const RELOAD_GOOD_AT: Series = gauge(
    "ringside_config_last_reload_success_timestamp_seconds",
    "When all files were right the last time they were read, the start included.",
);
pub const RESTART_PENDING: Series = gauge(
    "ringside_config_restart_pending",
    "1 if a Configuration changed in fields that hold from the next start on.",
);

pub const LOOKUP_SUCCEEDED: Series = gauge(
    "ringside_name_lookup_success_timestamp_seconds",
    "When a name was last resolved, since unix epoch in seconds; 0: never.",
);
pub const CERTIFICATE_EXPIRY: Series = gauge(
    "ringside_certificate_expiry_timestamp_seconds",
    "When our identity's certificate expires, since unix epoch in seconds.",
);
pub const RESETS_RECEIVED: Series = counter(
    "ringside_resets_received_total",
    "RST_STREAM frames about a call, by who sent them (callers are downstream) and error code.",
    &["side", "code"],
);
pub const GOAWAYS_RECEIVED: Series = counter(
    "ringside_goaways_received_total",
    "GOAWAY frames, by who sent them (callers are downstream) and error code.",
    &["side", "code"],
);
pub const RESETS_SENT: Series = counter(
    "ringside_resets_sent_total",
    "RST_STREAM frames of ours, by to whom (callers are downstream) and error code.",
    &["side", "code"],
);
pub const GOAWAYS_SENT: Series = counter(
    "ringside_goaways_sent_total",
    "GOAWAY frames of ours, by to whom (callers are downstream) and error code.",
    &["side", "code"],
);
pub const BYTES_READ: Series = counter(
    "ringside_read_bytes_total",
    "HTTP/2 that was read, by side (callers are downstream); TLS, where it is used, adds to it.",
    &["side"],
);
pub const BYTES_WRITTEN: Series = counter(
    "ringside_written_bytes_total",
    "HTTP/2 that was written, by side (callers are downstream); TLS, where it is used, adds to it.",
    &["side"],
);

pub const PROCESS_CPU: Series =
    counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", &[]);
pub const PROCESS_RSS: Series =
    gauge("process_resident_memory_bytes", "Resident memory size in bytes.");
pub const PROCESS_VSZ: Series =
    gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.");
pub const PROCESS_FDS: Series = gauge("process_open_fds", "Number of open file descriptors.");
pub const PROCESS_FDS_MAX: Series =
    gauge("process_max_fds", "Maximum number of open file descriptors.");
pub const PROCESS_THREADS: Series = gauge("process_threads", "Number of threads.");
pub const PROCESS_START: Series =
    gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.");

/// gRPC code names as grpc-go's `codes.Code.String` spells them.
pub const STATUS_NAMES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
