//! ringside: a Dapr sidecar for gRPC service invocation, io_uring and thread per core.

pub mod app;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod grpc;
pub mod http2;
pub mod identity;
pub mod io;
pub mod mailbox;
pub mod observe;
pub mod policy;
pub mod proxy;
pub mod resolve;
pub mod snapshot;
