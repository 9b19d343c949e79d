//! ringside: a Dapr sidecar for gRPC service invocation, io_uring and thread per core.

pub mod http2;
