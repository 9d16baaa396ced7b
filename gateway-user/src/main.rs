//! The `fleetgate` binary.
fn main() {}
