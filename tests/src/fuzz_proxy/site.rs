//! What the proxy is told to serve.

use std::{net::SocketAddr, sync::Arc};

use gateway_user::ir::{
    Affinity, Backend, ClusterId, Group, GroupName, Ir, Listener, ListenerName, ListenerProtocol,
    ListenerSettings, Rule, ServiceName, Split, Steering, SteeringMode,
};

/// A listener on this port whose only rule has one backend.
pub fn everything_to(origin: SocketAddr, port: u16) -> Ir {
    let service = ServiceName {
        namespace: "fuzz".into(),
        name: "web".into(),
        port: "80".into(),
    };
    let group = GroupName {
        namespace: "fuzz".into(),
        ingress: "web".into(),
        service: "web".into(),
        port: "80".into(),
    };
    let name = ListenerName {
        gateway: "fuzz".into(),
        port,
        protocol: ListenerProtocol::Http,
    };
    let listener = Listener {
        name: name.clone(),
        addresses: Vec::new(),
        settings: Arc::new(ListenerSettings::default()),
        refused: None,
        passthrough: Vec::new(),
        rules: vec![Arc::new(Rule::forwarding(group.clone(), "spec.rules[0]"))],
        steering: Steering {
            mode: SteeringMode::Request,
            reason: "fuzz".into(),
        },
    };
    let backend = Backend {
        cluster: ClusterId("c1".into()),
        address: origin,
        pod: "origin".into(),
        weight: 1,
    };
    let members = Group {
        name: group.clone(),
        service,
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
        groups: [(group, Arc::new(members))].into(),
    }
}
