//! What the control thread counts. Plain numbers: one thread.
//!
//! Each one saturates; what is kept by name is bounded, since the names are ours.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// See the file's text.
#[derive(Debug, Default)]
pub struct Counters {
    /// `dapr_runtime_mtls_workload_cert_rotated_fail_total`, by reason.
    rotation_failures: RefCell<BTreeMap<&'static str, u64>>,
    /// A name resolver that did not start, and why: there is one at most, and it is asked once.
    resolver_failure: RefCell<Option<(String, &'static str)>>,
    /// Connections to the HTTP ports that were refused at the limit, or cut by time.
    pub http_connections_refused: Cell<u64>,
    pub http_connections_cut: Cell<u64>,
    pub http_connections: Cell<u64>,
    pub http_requests: Cell<u64>,
    /// Log lines that the bounded queue refused; the logging thread's handle writes it.
    pub log_drops: Cell<u64>,
    /// Spans that an exporter delivered, and that it did not.
    pub spans_exported: Cell<u64>,
    pub spans_dropped: Cell<u64>,
    pub scrapes_incomplete: Cell<u64>,
    pub lookups: Cell<u64>,
    pub lookups_failed: Cell<u64>,
    /// Seconds since the epoch of the last one that found something.
    pub lookup_succeeded: Cell<u64>,
}

impl Counters {
    /// A name was resolved, or nothing was found.
    #[allow(clippy::disallowed_methods, reason = "operators ask since when")]
    pub fn looked_up(&self, found: bool) {
        match found {
            true => self.lookup_succeeded.set(seconds(SystemTime::now())),
            false => count(&self.lookups_failed),
        }
    }

    pub fn rotation_failed(&self, reason: &'static str) {
        *self.rotation_failures.borrow_mut().entry(reason).or_default() += 1;
    }

    pub fn resolver_failed(&self, name: &str, reason: &'static str) {
        self.resolver_failure.replace(Some((name.to_owned(), reason)));
    }

    pub fn resolver_failure(&self) -> Option<(String, &'static str)> {
        self.resolver_failure.borrow().clone()
    }

    pub fn rotation_failures(&self) -> BTreeMap<&'static str, u64> {
        self.rotation_failures.borrow().clone()
    }
}

/// Since the epoch.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// One more.
pub fn count(counter: &Cell<u64>) {
    counter.set(counter.get().saturating_add(1));
}
