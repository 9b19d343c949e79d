//! Directed runs.
