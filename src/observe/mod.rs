//! What is counted and how it is told: names, per-worker cells, text exposition, log layout, trace
//! context. PURE.

pub mod account;
pub mod callers;
pub mod cells;
pub mod exposition;
pub mod goodbye;
pub mod histogram;
pub mod http;
pub mod log;
pub mod names;
pub mod paths;
pub mod policies;
pub mod probes;
pub mod report;
pub mod rules;
pub mod span;
pub mod trace;
pub mod tracestate;
pub mod turns;
