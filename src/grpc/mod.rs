//! gRPC over HTTP/2, as far as a proxy must know it: status, deadline, message prefix. PURE.
//!
//! Source: gRPC's `doc/PROTOCOL-HTTP2.md` and `doc/http-grpc-status-mapping.md`.

pub mod message;
pub mod status;
pub mod timeout;

pub use message::{MessageScanner, TooLarge};
pub use status::Code;
