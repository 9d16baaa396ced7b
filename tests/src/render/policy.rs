//! How the pods of a group are treated; nothing is said of what is as it is by default.

use gateway_user::ir::{BackendProtocol, HealthCheck, Policy, Scheduler, Sticky};

pub(super) fn text(policy: &Policy) -> Vec<String> {
    let mut parts = Vec::new();
    match policy.protocol {
        BackendProtocol::Http => {}
        other => parts.push(format!("spoken to in {other:?}").to_lowercase()),
    }
    match &policy.scheduler {
        Scheduler::RoundRobin => {}
        Scheduler::QueryHash(name) => parts.push(format!("hash of query parameter {name}")),
        Scheduler::SourceHash => parts.push("hash of the client's address".to_owned()),
        Scheduler::LeastConnections => parts.push("least connections".to_owned()),
    }
    match policy.keepalive {
        None => {}
        Some(true) => parts.push("connections kept".to_owned()),
        Some(false) => parts.push("connections not kept".to_owned()),
    }
    match &policy.sticky {
        None => {}
        Some(Sticky::Insert(time)) => {
            parts.push(format!("sticky by an own cookie, {} s", time.as_secs()));
        }
        Some(Sticky::Server(name)) => parts.push(format!("sticky by cookie {name}")),
    }
    if let Some(time) = policy.slow_start {
        parts.push(format!("slow start {} s", time.as_secs()));
    }
    if let Some(time) = policy.drain {
        parts.push(format!("drain {} s", time.as_secs()));
    }
    parts.extend(policy.health.as_deref().map(health));
    parts
}

fn health(health: &HealthCheck) -> String {
    let HealthCheck {
        protocol,
        port,
        path,
        method,
        http10,
        codes,
        timeout,
        interval,
        rise,
        fall,
    } = health;
    let port = port.map_or_else(|| "own port".to_owned(), |port| format!("port {port}"));
    let version = if *http10 { "1.0" } else { "1.1" };
    format!(
        "probed by {protocol:?} {version} {method} {path} on {port}, good {codes:?}, timeout {} s, every {} s, \
         rise {rise}, fall {fall}",
        timeout.as_secs(),
        interval.as_secs()
    )
}
