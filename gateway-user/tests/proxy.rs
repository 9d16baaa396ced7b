//! The proxy with real sockets on loopback: what clients get and what backends see.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

#[path = "proxy/ambiguity.rs"]
mod ambiguity;
#[path = "proxy/balancing.rs"]
mod balancing;
#[path = "proxy/clients.rs"]
mod clients;
#[path = "proxy/ending.rs"]
mod ending;
#[path = "proxy/families.rs"]
mod families;
#[path = "proxy/forwarding.rs"]
mod forwarding;
#[path = "proxy/h2frames.rs"]
mod h2frames;
#[path = "proxy/h2rows.rs"]
mod h2rows;
#[path = "proxy/h2run.rs"]
mod h2run;
#[path = "proxy/http2.rs"]
mod http2;
#[path = "proxy/passthrough.rs"]
mod passthrough;
#[path = "proxy/proxy_protocol.rs"]
mod proxy_protocol;
#[path = "proxy/rules.rs"]
mod rules;
#[path = "proxy/slow_clients.rs"]
mod slow_clients;
#[path = "proxy/strictness.rs"]
mod strictness;
#[path = "proxy/support.rs"]
mod support;
#[path = "proxy/tls.rs"]
mod tls;
#[path = "proxy/tracing.rs"]
mod tracing;
#[path = "proxy/trouble.rs"]
mod trouble;
#[path = "proxy/violations.rs"]
mod violations;
#[path = "proxy/websocket.rs"]
mod websocket;
