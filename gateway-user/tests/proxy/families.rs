//! Clients of each family get pods of that family.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use gateway_user::{
    ir::{
        Ir, Listener, ListenerName, ListenerProtocol, ListenerSettings, Rule, Steering,
        SteeringMode,
    },
    proxy::{Proxy, ProxyConfig, RouteTable},
};

use super::support::{backend, group, ok};

/// A pod that answers one request of each connection with its own address.
fn pod(address: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap();
    let own = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(&ok(&own.to_string()));
        }
    });
    own
}

fn ask(at: SocketAddr) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut reply = String::new();
    let _ = stream.read_to_string(&mut reply);
    reply
}

#[test]
fn a_client_gets_pods_of_its_own_family_and_503_where_there_is_none() {
    let v4 = pod((Ipv4Addr::LOCALHOST, 0).into());
    let v6 = pod((Ipv6Addr::LOCALHOST, 0).into());
    let config = ProxyConfig {
        workers: 2,
        ..ProxyConfig::default()
    };
    let proxy = Proxy::start(config).unwrap();
    let at_v4 = proxy.local_addr();
    let at_v6 = proxy.local_addr_v6().expect("the node has IPv6");
    let serve = |pods: &[SocketAddr]| {
        let pods = pods.iter().map(|pod| backend("c1", *pod, 1)).collect();
        let group = group("web", pods);
        let mut ir = Ir::default();
        for at in [at_v4, at_v6] {
            let name = ListenerName {
                gateway: at.ip().to_string(),
                port: at.port(),
                protocol: ListenerProtocol::Http,
            };
            let listener = Listener {
                name: name.clone(),
                addresses: vec![at.ip()],
                settings: ListenerSettings::default().into(),
                refused: None,
                rules: vec![Rule::forwarding(group.name.clone(), "").into()],
                passthrough: Vec::new(),
                steering: Steering {
                    mode: SteeringMode::Request,
                    reason: String::new(),
                },
            };
            ir.listeners.insert(name, listener.into());
        }
        ir.groups = BTreeMap::from([(group.name.clone(), group)]);
        proxy.update(RouteTable::build(&ir, &[]));
    };
    serve(&[v4, v6]);
    for _ in 0..8 {
        for (at, pod) in [(at_v4, v4), (at_v6, v6)] {
            let reply = ask(at);
            assert!(reply.ends_with(&pod.to_string()), "{at}: {reply}");
        }
    }
    serve(&[v4]);
    assert!(ask(at_v4).ends_with(&v4.to_string()));
    let reply = ask(at_v6);
    assert!(
        reply.starts_with("HTTP/1.1 503") && reply.contains("no-server"),
        "{reply}"
    );
}
