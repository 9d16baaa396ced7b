//! The whole program on real connections: every test runs the agent as a process in the lab.

mod broken;
mod inspection;
mod lifecycle;
mod udp;
