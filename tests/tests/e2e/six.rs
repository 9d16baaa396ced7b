//! IPv6 in the lab: one more address for client, gateway and the pods of one cluster.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use fleetgate_tests::e2e::{Gateway, PATIENCE, VIP, eventually, manifests::WEB, wire::Conn};
use serde_json::Value;
use xtask::{
    lab::topology::{self, CLIENT, GATEWAY, HTTP_PORT, PREFIX, Pod},
    member::{self, Port},
    netns,
};

const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x210, 0, 0, 0, 0, 0, 1);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x210, 0, 0, 0, 0, 0, 2);
/// Of the node, towards the pods: what they see.
const NODE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x211, 0, 0, 0, 0, 0, 1);
/// A pod of `c1` that listens on an IPv6 address, too.
struct Six {
    pod: Pod,
    address: SocketAddr,
    listener: TcpListener,
}

/// Furnishes the lab with IPv6 and has the pods listen. Linux asks for a neighbour of a packet that it forwards by a
/// link-local address, so routers have those.
fn furnish(gateway: &Gateway) -> Result<Vec<Six>> {
    let router = format!("{PREFIX}c1");
    for namespace in [GATEWAY, &router] {
        gateway.tool(namespace, "sysctl", "-q -w net.ipv6.conf.all.forwarding=1")?;
    }
    for (namespace, line) in [
        (CLIENT, format!("addr add {CLIENT6}/64 dev eth0 nodad")),
        (CLIENT, format!("route add default via {VIP6}")),
        (GATEWAY, format!("addr add {VIP6}/64 dev cl0 nodad")),
        (GATEWAY, format!("addr add {NODE6}/64 dev c1 nodad")),
        (GATEWAY, "addr add fe80::1/64 dev cl0 nodad".into()),
        (GATEWAY, "addr add fe80::1/64 dev c1 nodad".into()),
        (&router, "addr add fe80::2/64 dev up0 nodad".into()),
        (GATEWAY, "route add fd00:221::/64 via fd00:211::2".into()),
        (&router, "addr add fd00:211::2/64 dev up0 nodad".into()),
        (&router, format!("route add default via {NODE6}")),
    ] {
        gateway.ip(namespace, &line)?;
    }
    let pods = topology::pods().into_iter().filter(|it| it.cluster == "c1");
    let six = |(last, pod): (u16, Pod)| {
        let [ip, router6] =
            [1, 2].map(|which| Ipv6Addr::new(0xfd00, 0x221, 0, 0, 0, 0, which, last));
        for (namespace, line) in [
            (
                &router,
                format!("addr add fe80::1/64 dev {} nodad", pod.device),
            ),
            (
                &router,
                format!("addr add {router6}/128 dev {} nodad", pod.device),
            ),
            (&router, format!("route add {ip}/128 dev {}", pod.device)),
            (&pod.namespace, format!("addr add {ip}/128 dev eth0 nodad")),
            (&pod.namespace, format!("route add {router6}/128 dev eth0")),
            (&pod.namespace, format!("route add default via {router6}")),
        ] {
            gateway.ip(namespace, &line)?;
        }
        let address = SocketAddr::from((ip, HTTP_PORT));
        let listener = netns::inside(&pod.namespace, || TcpListener::bind(address))??;
        listener.set_nonblocking(true)?;
        Ok(Six {
            pod,
            address,
            listener,
        })
    };
    (1..).zip(pods).map(six).collect()
}

/// The pod that the next connection reaches, its end of it, and whom it sees.
fn accepted(pods: &[Six]) -> Result<(&Six, TcpStream, SocketAddr)> {
    let give_up = Instant::now() + PATIENCE;
    while Instant::now() < give_up {
        for pod in pods {
            match pod.listener.accept() {
                Ok((held, peer)) => return Ok((pod, held, peer)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
    bail!("no pod was reached");
}

#[test]
fn trace_names_the_pod_that_an_ipv6_connection_from_that_port_then_reaches() -> Result<()> {
    let mut gateway = Gateway::new()?;
    let pods = furnish(&gateway)?;
    let endpoints: Vec<_> = pods
        .iter()
        .map(|it| member::Endpoint {
            address: it.address.ip(),
            ..it.pod.endpoint(true)
        })
        .collect();
    let slice = member::slice("web", Port::tcp("http", HTTP_PORT), &endpoints);
    gateway.write("clusters/c1/web6.yaml", &slice)?;
    for vip in [VIP.to_string(), VIP6.to_string()] {
        gateway.arguments.extend(["--vip".to_owned(), vip]);
    }
    gateway.start()?;

    let to = SocketAddr::from((VIP6, WEB));
    let trace = |port: u16| {
        let from = SocketAddr::from((CLIENT6, port)).to_string();
        gateway.json(&["trace", "--from", &from, "--to", &to.to_string()])
    };
    let shares = gateway.json(&[
        "trace",
        "--from",
        &CLIENT6.to_string(),
        "--to",
        &to.to_string(),
    ])?;
    ensure!(
        shares["pods"].as_array().map(Vec::len) == Some(pods.len()),
        "{shares}"
    );
    eventually("the IPv6 route to a pod", || {
        let mut conn = Conn::within(CLIENT, None, to);
        Ok((conn.as_mut().is_ok() && accepted(&pods).is_ok(), conn.err()))
    })?;
    let mut seen = BTreeSet::new();
    for port in 42_000..42_012 {
        let before = trace(port)?;
        ensure!(
            before["answer"] == "forwarded" && before["kernel"]["opened"] == true,
            "{before}"
        );
        let from = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let _conn = Conn::within(CLIENT, Some(from), to)?;
        let (six, _held, peer) = accepted(&pods)?;
        let reached = &before["kernel"]["backend"];
        assert_eq!(reached["pod"], six.pod.name.as_str(), "from port {port}");
        assert_eq!(reached["address"], six.address.to_string());
        let after = trace(port)?;
        assert_eq!(after["kernel"]["opened"], false, "{after}");
        assert_eq!(after["kernel"]["backend"]["pod"], six.pod.name.as_str());
        assert_eq!(after["kernel"]["source"], Value::from(peer.to_string()));
        seen.insert(&six.pod.name);
    }
    assert_eq!(seen.len(), pods.len(), "12 ports reached only {seen:?}");

    let stranger = SocketAddr::from((CLIENT6, 1)).to_string();
    let other = gateway.json(&["trace", "--from", &stranger, "--to", "[fd00:210::99]:80"]);
    let other = other.context("a trace to nobody")?;
    assert_eq!(other["answer"], "passed", "{other}");
    let ran = gateway.cli(&[
        "trace",
        "--from",
        &stranger,
        "--to",
        &format!("{VIP}:{WEB}"),
    ])?;
    ensure!(
        ran.code == 2 && ran.err.contains("of one family"),
        "{ran:?}"
    );
    Ok(())
}
