//! Listeners that the proxy steers.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use fleetgate_tests::e2e::{
    Gateway, VIP, ip,
    manifests::{self, Ingress},
    wire::{self, Conn},
};
use xtask::{
    lab::topology::{self, CLIENT_ADDRESS, GATEWAY},
    netns,
};

const SECOND_VIP: Ipv4Addr = Ipv4Addr::new(10, 210, 0, 3);

#[test]
fn request_steered_listeners_serve_on_every_vip_and_port_without_binding_any() -> Result<()> {
    let mut gateway = Gateway::new()?;
    ip(GATEWAY, &[&format!("addr add {SECOND_VIP}/32 dev cl0")])?;
    for vip in [VIP, SECOND_VIP] {
        gateway
            .arguments
            .extend(["--vip".to_owned(), vip.to_string()]);
    }
    let ports = [8002, 8003, 9443];
    gateway.write("fleet/gateway.yaml", &manifests::gateway(&ports, ""))?;
    let all = Ingress::new("web", 8002).ports(&ports).steering("request");
    gateway.write("fleet/web.yaml", &all.yaml())?;
    gateway.start()?;
    for vip in [VIP, SECOND_VIP] {
        for port in ports {
            let mut conn = Conn::open((vip, port)).with_context(|| format!("{vip}:{port}"))?;
            let mut pods = Vec::new();
            for _ in 0..10 {
                let answer = conn.get("/headers", "")?;
                assert_eq!(answer.status, 200, "{vip}:{port} {answer:?}");
                let body = answer.json()?;
                let headers = body["headers"].as_array().context("headers")?;
                let forwarded: Vec<&str> = headers
                    .iter()
                    .filter(|pair| {
                        pair[0]
                            .as_str()
                            .is_some_and(|n| n.eq_ignore_ascii_case("x-forwarded-for"))
                    })
                    .filter_map(|pair| pair[1].as_str())
                    .collect();
                assert_eq!(forwarded, [CLIENT_ADDRESS.to_string()], "{body}");
                pods.push(answer.pod()?);
            }
            pods.sort();
            pods.dedup();
            assert_eq!(
                pods.len(),
                5,
                "ten requests of one connection reached only {pods:?}"
            );
        }
    }
    // Only the proxy's own sockets and the admin's, all on loopback.
    let listening = gateway.tool(GATEWAY, "ss", "-ltnH")?;
    assert!(!listening.trim().is_empty());
    for line in listening.lines() {
        let local = line
            .split_ascii_whitespace()
            .nth(3)
            .context("ss names the local address")?;
        let loopback = local.starts_with("127.0.0.1:") || local.starts_with("[::1]:");
        assert!(loopback, "{listening}");
    }
    // Neither a port without listener nor an address that is no VIP is the proxy's.
    assert_eq!(wire::outcome(8004), "ConnectionRefused");
    let other = Conn::open((Ipv4Addr::new(10, 211, 1, 1), 8002))
        .err()
        .map(|e| e.kind());
    assert_eq!(other, Some(std::io::ErrorKind::ConnectionRefused));
    Ok(())
}

#[test]
fn the_proxy_says_404_502_and_504_where_no_pod_can_answer() -> Result<()> {
    let mut gateway = Gateway::new()?;
    gateway.write(
        "fleet/gateway.yaml",
        &manifests::gateway(&[8002], "    requestTimeout: 1\n"),
    )?;
    gateway.remove("fleet/web.yaml")?;
    let rules = [
        Ingress::new("shop", 8002)
            .host("shop.example.com")
            .path("/shop"),
        Ingress::new("dead", 8002)
            .host("dead.example.com")
            .service("dead"),
        Ingress::new("mute", 8002)
            .host("mute.example.com")
            .service("mute"),
    ];
    let text: String = rules.iter().map(Ingress::yaml).collect();
    gateway.write("fleet/rules.yaml", &text)?;
    let files = [manifests::clusters("dead", 8081, "None", |_| true), {
        manifests::clusters("mute", 8082, "None", |_| true)
    }];
    for (path, text) in files.iter().flatten() {
        gateway.write(path, text)?;
    }
    // They take connections, and never answer.
    let mute = topology::pods()
        .iter()
        .map(|pod| {
            netns::inside(&pod.namespace, || TcpListener::bind((pod.address, 8082)))?
                .context("bind")
        })
        .collect::<Result<Vec<_>>>()?;
    gateway.start()?;

    let mut conn = Conn::open(SocketAddr::from((VIP, 8002)))?;
    let mut ask = |host: &str, path: &str| -> Result<(u16, String)> {
        let answer = conn.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))?;
        let reason = answer.headers.get("x-fleetgate-reason").cloned();
        Ok((answer.status, reason.unwrap_or_default()))
    };
    // All over one connection: an error of one request is not the next one's.
    assert_eq!(ask("shop.example.com", "/shop/1")?, (200, String::new()));
    assert_eq!(
        ask("shop.example.com", "/shopping")?,
        (404, "no-rule".into())
    );
    assert_eq!(ask("www.example.com", "/shop")?, (404, "no-rule".into()));
    assert_eq!(
        ask("dead.example.com", "/")?,
        (502, "connect-refused".into())
    );
    let asked = Instant::now();
    assert_eq!(ask("mute.example.com", "/")?, (504, "timeout".into()));
    let waited = asked.elapsed();
    assert!(
        (Duration::from_millis(900)..Duration::from_secs(3)).contains(&waited),
        "requestTimeout is 1 s, the answer took {waited:?}"
    );
    assert_eq!(ask("shop.example.com", "/shop")?, (200, String::new()));
    drop(mute);
    Ok(())
}

#[test]
fn session_affinity_keeps_a_client_at_one_pod_in_both_modes() -> Result<()> {
    let mut gateway = Gateway::new()?;
    ip(
        topology::CLIENT,
        &[
            "addr add 10.210.0.7/24 dev eth0",
            "addr add 10.210.0.8/24 dev eth0",
        ],
    )?;
    for (path, text) in manifests::clusters("web", topology::HTTP_PORT, "ClientIP", |_| true) {
        gateway.write(&path, &text)?;
    }
    gateway.write("fleet/gateway.yaml", &manifests::gateway(&[8001, 8002], ""))?;
    let both = Ingress::new("a", 8001).yaml() + &Ingress::new("b", 8002).steering("request").yaml();
    gateway.write("fleet/web.yaml", &both)?;
    gateway.start()?;
    assert_eq!(gateway.steering(8001)?.0, "connection");
    assert_eq!(gateway.steering(8002)?.0, "request");
    for port in [8001, 8002] {
        let mut reached = Vec::new();
        for client in [
            CLIENT_ADDRESS,
            Ipv4Addr::new(10, 210, 0, 7),
            Ipv4Addr::new(10, 210, 0, 8),
        ] {
            let mut pods = std::collections::BTreeSet::new();
            for _ in 0..25 {
                let from = Some(SocketAddr::from((client, 0)));
                let mut conn = Conn::within(topology::CLIENT, from, (VIP, port).into())?;
                pods.insert(conn.pod()?);
            }
            assert_eq!(pods.len(), 1, "{client} to {port} reached {pods:?}");
            reached.extend(pods);
        }
        assert_eq!(reached.len(), 3, "{reached:?}");
    }
    Ok(())
}
