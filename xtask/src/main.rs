//! Fleetgate's development commands.
fn main() {}
