//! The slow half of the world: one thread, a tokio current-thread runtime.
//!
//! Owns what is not on the datapath: identity, name resolution, the HTTP surfaces, publishing
//! snapshots to the workers.
//!
//! 1. No step of its loop takes longer than 10 ms; what blocks goes to the one blocking thread.
//! 2. A snapshot is published whole or not at all.

pub mod admin;
pub mod app_channel;
pub mod app_health;
pub mod breakers;
pub mod console;
mod counters;
pub mod dapr_api;
pub mod desk;
pub mod files;
pub mod metric;
pub mod page;
pub mod publish;
pub mod reload;
pub mod resiliency;
pub mod resolver;
pub mod rpc;
pub mod sentry;
pub mod spans;
pub mod stamp;
pub mod state;
