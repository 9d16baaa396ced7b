//! The whole program on real connections: every test runs the agent as a process in the lab.

mod admin;
mod affinity;
mod attach;
mod broken;
mod chaos;
mod crash;
mod doctor;
mod fleet;
mod guard;
mod health;
mod inspection;
mod l4;
mod lifecycle;
mod live;
mod mixed;
mod monitor;
mod network;
mod prefix;
mod proxy;
mod same;
mod six;
mod traces;
mod two;
mod udp;
mod upgrade;
mod vips;
