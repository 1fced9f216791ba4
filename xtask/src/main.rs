//! The only command a developer needs.
fn main() {}
