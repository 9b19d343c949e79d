//! Who may call what, and how often we try. PURE.

pub mod method;
pub mod token;
