//! Load for gRPC services, and the comparison of sidecars that it is for.
//!
//! ```text
//! plan      what to send: kind of call, sizes, connections, schedule
//! framing   gRPC's length prefix
//! generate  sends it from one thread, on the `h2` crate       -> outcome
//! outcome   counts, statuses and latencies of one run         -> report
//! report    as text, as JSON, as ghz's JSON
//! serve     the app under test
//! relay     a byte relay: the floor of what a hop can cost
//! interrupt SIGINT and SIGTERM end a run by returning
//! account   what processes cost: scheduler's time, memory, switches
//! topology  starts direct, relay, ringside, daprd, HAProxy, Envoy, nginx
//! ratio     medians and spreads of per-round ratios
//! compare   rounds of topologies in alternation, and their tables
//! plot      pictures of records, as SVG
//! attack    hostile peers, and who else is hurt by them
//! cli       a table of subcommands
//! ```

pub mod account;
pub mod attack;
pub mod cli;
pub mod compare;
pub mod framing;
pub mod generate;
mod interrupt;
pub mod outcome;
pub mod plan;
pub mod plot;
pub mod ratio;
pub mod relay;
pub mod report;
pub mod serve;
pub mod topology;
