//! Integration tests against real peers: one binary.
//!
//! The peers (daprd, sentry, the dapr CLI, grpc-go's interop pair, h2spec, ...) are built by
//! `scripts/peers`; a test that needs one fails, never skips, when it is missing.
#![allow(
    clippy::disallowed_methods,
    reason = "tests drive real processes by wall clock; every wait is bounded in peer/"
)]

mod peer;

mod acl;
mod admin;
mod admin_socket;
mod app_concurrency;
mod app_health;
mod app_socket;
mod bad_input;
mod bench;
mod calls;
mod cli;
mod dapr_api;
mod dapr_run;
mod demo;
mod doctor;
mod few_streams;
mod golden;
mod greeter;
mod h2_differential;
mod h2spec;
mod heads;
mod impostor;
mod interop;
mod interop_languages;
mod keepalive;
mod lifecycle;
mod load;
mod logs;
mod mdns;
mod metrics;
mod namespaces;
mod naming;
mod nghttp2;
mod observability;
mod page;
mod reload;
mod replicas;
mod resiliency;
mod resolvers;
mod restarts;
mod rotation;
mod sentry;
mod shared_nothing;
mod sim;
mod soak;
mod statuses;
mod tap;
mod targets;
mod tracing;
mod web_page;
mod worker;
