//! ghz's JSON report (ghz v0.121.0, `runner/reporter.go`), written and read.
//!
//! Refuses to know our own form.

use crate::outcome::Outcome;
use crate::plan::Plan;
use std::time::SystemTime;

pub fn write(_plan: &Plan, _outcome: &Outcome, _date: SystemTime) -> String {
    String::new()
}
