//! Requests on the HTTP API, as Dapr's series tell them. PURE.
//!
//! 1. Label sets are bounded: [`LABEL_SETS_MAX`] of paths up to [`LABEL_OCTETS_MAX`] octets; what
//!    does not fit is told with the path `_other`.
//!
//! Sources: Dapr's `pkg/diagnostics/http_monitoring.go` and `http_monitoring_legacy.go`.

use super::cells::LABEL_OCTETS_MAX;
use super::histogram::{Bounds, Histogram, SIZE_BOUNDS, Unit};
use super::paths::Paths;
use std::collections::BTreeMap;
use std::time::Duration;

/// Methods, paths and statuses that are told apart, together.
pub const LABEL_SETS_MAX: usize = 512;
/// No path of a request is without a slash.
const OTHER: &str = "_other";
const VERBS: [&str; 9] =
    ["GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE"];

/// What is told of a request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub status: u16,
    /// As its head said.
    pub request_octets: u64,
    pub response_octets: u64,
    pub took: Duration,
}

/// What the Configuration wants told of requests.
#[derive(Debug, Default)]
pub struct Wanted {
    /// All paths, not only those of a pattern.
    pub paths: bool,
    pub verbs: bool,
    pub error_codes: bool,
    pub patterns: Paths,
}

/// An error of the API by name, and under which of daprd's categories it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ErrorCode {
    pub name: &'static str,
    pub category: &'static str,
}

/// See the file's text.
#[derive(Debug)]
pub struct HttpCells {
    wanted: Wanted,
    errors: BTreeMap<ErrorCode, u64>,
    took: BTreeMap<[String; 3], Histogram>,
    pub request_octets: Histogram,
    pub response_octets: Histogram,
}

impl HttpCells {
    pub fn new(wanted: Wanted) -> Self {
        let (took, errors) = (BTreeMap::new(), BTreeMap::new());
        let (request_octets, response_octets) = (Histogram::default(), Histogram::default());
        Self { wanted, errors, took, request_octets, response_octets }
    }

    pub fn record(&mut self, request: Request<'_>, bounds: &Bounds) {
        let method = match VERBS.contains(&request.method) {
            _ if !self.wanted.verbs => "",
            true => request.method,
            false => "UNKNOWN",
        };
        let path = match self.wanted.patterns.of(request.path) {
            Some(pattern) => pattern.to_owned(),
            None if self.wanted.paths => path(request.path),
            None => String::new(),
        };
        let mut labels = [method.to_owned(), path, request.status.to_string()];
        let full = self.took.len() >= LABEL_SETS_MAX && !self.took.contains_key(&labels);
        if full || labels[1].len() > LABEL_OCTETS_MAX {
            labels[1] = OTHER.to_owned();
        }
        // Go's own clock is cut to milliseconds; sums here are fractional, as of all latencies.
        let took = self.took.entry(labels).or_default();
        took.record(request.took, Unit::Milliseconds, bounds);
        self.request_octets.record_below(request.request_octets, &SIZE_BOUNDS);
        self.response_octets.record_below(request.response_octets, &SIZE_BOUNDS);
    }

    /// A request was answered with an error.
    pub fn failed(&mut self, code: ErrorCode) {
        if self.wanted.error_codes {
            *self.errors.entry(code).or_default() += 1;
        }
    }

    pub fn errors(&self) -> impl Iterator<Item = (&ErrorCode, u64)> {
        self.errors.iter().map(|(code, count)| (code, *count))
    }

    /// Responses have a series of their own where paths are told.
    pub fn tells_paths(&self) -> bool {
        self.wanted.paths
    }

    /// Requests whose path did not fit.
    pub fn folded(&self) -> u64 {
        let other = self.took.iter().filter(|(labels, _)| labels[1] == OTHER);
        other.map(|(_, took)| took.count()).sum()
    }

    /// Method, path and status, and how long such requests took.
    pub fn took(&self) -> impl Iterator<Item = (&[String; 3], &Histogram)> {
        self.took.iter()
    }
}

/// `convertPathToMetricLabel`: names of things are left out where they would be many.
fn path(path: &str) -> String {
    let mut path = path.to_owned();
    while path.contains("//") {
        path = path.replace("//", "/");
    }
    if !path.starts_with('/') {
        path.insert(0, '/');
    }
    let mut parts: Vec<&str> = path[1..].splitn(6, '/').collect();
    let count = parts.len();
    if count < 3 {
        return path;
    }
    if parts[0] == "actors" {
        parts[2] = "{id}";
        return parts.join("/");
    }
    let first = |parts: &[&str]| format!("/{}", parts.join("/"));
    match (parts[1], count) {
        ("state" | "secrets", _) => first(&parts[..3]),
        ("actors", 5..) => {
            parts[3] = "{id}";
            first(&parts[..5])
        }
        ("workflows", 4) => {
            parts[3] = "{instanceId}";
            first(&parts)
        }
        ("workflows", 5) if parts[4].starts_with("start") => {
            format!("{}/start", first(&parts[..4]))
        }
        ("workflows", 5..) => {
            parts[3] = "{instanceId}";
            if count == 6 && parts[4] == "raiseEvent" && !parts[5].is_empty() {
                parts[5] = "{eventName}";
                return first(&parts);
            }
            first(&parts[..5])
        }
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::histogram::LATENCY_BOUNDS;

    const ALL: Wanted =
        Wanted { paths: true, verbs: true, error_codes: true, patterns: Paths::NONE };

    fn request(path: &str) -> Request<'_> {
        let took = Duration::from_millis(3);
        Request { method: "GET", path, status: 204, request_octets: 0, response_octets: 9, took }
    }

    /// What Dapr's own tests of the function expect (`http_monitoring_legacy_test.go`), and more.
    #[test]
    fn paths_leave_names_out() {
        for (given, told) in [
            ("/v1.0/healthz", "/v1.0/healthz"),
            ("v1//state//statestore/key", "/v1/state/statestore"),
            ("/v1/secrets/keyvault/name", "/v1/secrets/keyvault"),
            ("/v1/actors/DemoActor/1/timer/name", "/v1/actors/DemoActor/{id}/timer"),
            ("/v1/actors/DemoActor/1", "/v1/actors/DemoActor/1"),
            ("/actors/DemoActor/1/method/method1", "actors/DemoActor/{id}/method/method1"),
            ("/v1/workflows/w/1", "/v1/workflows/w/{instanceId}"),
            ("/v1/workflows/w/n/start", "/v1/workflows/w/n/start"),
            ("/v1/workflows/w/1/pause", "/v1/workflows/w/{instanceId}/pause"),
            (
                "/v1/workflows/w/1/raiseEvent/e",
                "/v1/workflows/w/{instanceId}/raiseEvent/{eventName}",
            ),
            ("/v1.0/metadata/a/b/c/d/e/f", "/v1.0/metadata/a/b/c/d/e/f"),
        ] {
            assert_eq!(path(given), told);
        }
    }

    #[test]
    fn label_sets_are_bounded() {
        let mut cells = HttpCells::new(ALL);
        for number in 0..2 * LABEL_SETS_MAX {
            cells.record(request(&format!("/{number}")), &LATENCY_BOUNDS);
        }
        cells.record(request(&"x".repeat(LABEL_OCTETS_MAX + 1)), &LATENCY_BOUNDS);
        assert_eq!(cells.took().count(), LABEL_SETS_MAX + 1);
        let other = cells.took().find(|(labels, _)| labels[1] == "_other").unwrap().1;
        assert_eq!(other.count(), LABEL_SETS_MAX as u64 + 1);
        assert_eq!(cells.folded(), other.count());
        assert_eq!(cells.request_octets.count(), 2 * LABEL_SETS_MAX as u64 + 1);
    }

    #[test]
    fn paths_and_verbs_may_stay_untold() {
        let mut cells = HttpCells::new(Wanted::default());
        cells.record(Request { method: "BREW", ..request("/a") }, &LATENCY_BOUNDS);
        let labels: Vec<_> = cells.took().map(|(labels, _)| labels.clone()).collect();
        assert_eq!(labels, [["".to_owned(), "".to_owned(), "204".to_owned()]]);
        let mut cells = HttpCells::new(ALL);
        cells.record(Request { method: "BREW", ..request("/a") }, &LATENCY_BOUNDS);
        assert_eq!(cells.took().next().unwrap().0[0], "UNKNOWN");
    }

    /// A pattern takes a path's place, whether or not the others are told.
    #[test]
    fn patterns_stand_for_their_paths() {
        for (paths, other) in [(true, "/b/1"), (false, "")] {
            let patterns = Paths::new(&["/a/{id}".to_owned()]).unwrap();
            let mut cells = HttpCells::new(Wanted { paths, patterns, ..Wanted::default() });
            for path in ["/a/1", "/a/2", "/b/1"] {
                cells.record(request(path), &LATENCY_BOUNDS);
            }
            let told: Vec<_> = cells.took().map(|(l, took)| (&*l[1], took.count())).collect();
            let mut expected = [("/a/{id}", 2), (other, 1)];
            expected.sort_unstable();
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn errors_are_counted_where_that_is_wanted() {
        let code = ErrorCode { name: "ERR_BODY_READ", category: "common" };
        for (wanted, count) in [(ALL, Some(2)), (Wanted::default(), None)] {
            let mut cells = HttpCells::new(wanted);
            cells.failed(code);
            cells.failed(code);
            assert_eq!(cells.errors().next(), count.map(|count| (&code, count)));
        }
    }
}
