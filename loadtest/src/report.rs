//! What a run saw, as text, as JSON, and as ghz's JSON.
//!
//! 1. Latencies are of calls that ended OK, in all forms.
//!
//! Refuses to know how load is sent.

mod document;
pub mod ghz;
mod text;

pub use document::{Document, json};
pub use text::text;

use std::time::SystemTime;

/// When a report was made, for the forms that say so.
#[allow(clippy::disallowed_methods)] // a report's date is the wall clock's
pub fn now() -> SystemTime {
    SystemTime::now()
}
