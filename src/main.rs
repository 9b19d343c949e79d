//! argv to exit code; the allocator.

fn main() {}
