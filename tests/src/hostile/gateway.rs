//! The proxy under attack: one worker, one rule, timeouts short enough to be seen at work.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use gateway_user::{
    ir::{
        Affinity, Backend, ClusterId, Group, GroupName, HostPattern, Ir, Listener, ListenerName,
        ListenerProtocol, ListenerSettings, Rule, ServiceName, Split, Steering, SteeringMode,
        Touched,
    },
    proxy::{Proxy, ProxyConfig, Router},
};
use serde::{Deserialize, Serialize};

use super::part;

/// Every timeout of the proxy but that of a stall: an attack is measured for seconds only.
pub const TIMEOUT: Duration = Duration::from_secs(3);
/// An answer that does not move is given up after this long.
pub const STALL: Duration = Duration::from_secs(5);

/// What the proxy counts.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Counts {
    /// Client connections open now.
    pub active: u64,
    /// Requests so far.
    pub requests: u64,
    /// Connections to backends so far.
    pub upstream_opened: u64,
    /// Its own answers so far, by reason.
    pub reasons: Vec<(String, u64)>,
}

/// Serves `origin` until standard input ends.
pub fn run(origin: SocketAddr) -> Result<()> {
    let proxy = Proxy::start(ProxyConfig {
        workers: 1,
        head_timeout: TIMEOUT,
        stall_timeout: STALL,
        ..ProxyConfig::default()
    })?;
    let ir = site(proxy.local_addr().port(), origin);
    let mut touched = Touched::default();
    touched.listeners.extend(ir.listeners.keys().cloned());
    touched.groups.extend(ir.groups.keys().cloned());
    let vips = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
    proxy.update(Router::default().update(
        &ir,
        &touched,
        &vips,
        &gateway_user::tls::Servers::default(),
    ));
    let stats = proxy.stats();
    part::serve(proxy.local_addr(), || {
        let now = stats.snapshot();
        let reasons = now.reasons.iter().filter(|(_, count)| *count > 0);
        let counts = Counts {
            active: now.active_connections,
            requests: now.requests,
            upstream_opened: now.upstream_opened,
            reasons: reasons.map(|(it, count)| ((*it).into(), *count)).collect(),
        };
        serde_json::to_string(&counts).unwrap_or_default()
    })
}

fn site(port: u16, origin: SocketAddr) -> Ir {
    let name = ListenerName {
        gateway: "demo".into(),
        port,
        protocol: ListenerProtocol::Http,
    };
    let group = GroupName {
        namespace: "demo".into(),
        ingress: "web".into(),
        service: "web".into(),
        port: "80".into(),
    };
    let backend = Backend {
        cluster: ClusterId("c1".into()),
        address: origin,
        pod: "web-0".into(),
        weight: 1,
    };
    let settings = ListenerSettings {
        idle_timeout: TIMEOUT,
        request_timeout: TIMEOUT,
        h2c: true,
        ..ListenerSettings::default()
    };
    // Other hosts get the proxy's own 404.
    let mut rule = Rule::forwarding(group.clone(), "spec.rules[0]");
    rule.conditions.hosts = vec![HostPattern::Exact("demo".into())];
    let listener = Listener {
        name: name.clone(),
        addresses: Vec::new(),
        settings: Arc::new(settings),
        refused: None,
        passthrough: Vec::new(),
        rules: vec![Arc::new(rule)],
        steering: Steering {
            mode: SteeringMode::Request,
            reason: "hostile clients".into(),
        },
    };
    let served = Group {
        name: group.clone(),
        service: ServiceName {
            namespace: "demo".into(),
            name: "web".into(),
            port: "80".into(),
        },
        policy: Arc::default(),
        split: Split::Replicas,
        affinity: Affinity::None,
        affinity_seconds: 0,
        backends: vec![backend],
        idle: Vec::new(),
        failing: Vec::new(),
    };
    Ir {
        listeners: [(name, Arc::new(listener))].into(),
        groups: [(group, Arc::new(served))].into(),
    }
}
