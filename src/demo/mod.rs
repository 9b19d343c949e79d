//! `ringside demo`: everything that the main job needs, in one process and two sidecars.
//!
//! Its parts (a Greeter with its caller, a development certificate authority that speaks Sentry's
//! API) are there for tests as well.

pub mod authority;
pub mod caller;
pub mod greeter;
pub mod serve;
pub mod wire;
