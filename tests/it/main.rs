//! Integration tests against real peers: one binary.
