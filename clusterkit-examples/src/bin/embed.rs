//! The `embed` example.
fn main() {}
