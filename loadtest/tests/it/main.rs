//! The generator against servers that behave in every way, and the real ghz: one binary.
#![allow(clippy::disallowed_methods)] // tests measure time and start threads

mod faults;
mod ghz;
mod kinds;
mod pace;
mod peer;
mod process;
