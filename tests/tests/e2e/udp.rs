//! UDP through the kernel. No manifest describes a UDP listener yet, so the test writes the kernel's entry for one itself.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use fleetgate_tests::e2e::{Gateway, VIP, manifests::WEB};
use gateway_user::{
    dataplane::{
        pins::Pins,
        tables::{Tables, service_key},
    },
    plan::{ServiceAddr, Transport},
};
use xtask::{
    lab::topology::{self, CLIENT, HTTP_PORT},
    netns,
};

/// Each pod answers a datagram with its name, the sender as it sees it, and the payload.
fn echo(pod: &topology::Pod, over: &AtomicBool, socket: &UdpSocket) {
    let mut datagram = [0; 2048];
    while !over.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut datagram) else {
            continue;
        };
        let mut answer = format!("{} {from} ", pod.name).into_bytes();
        answer.extend_from_slice(&datagram[..length]);
        let _ = socket.send_to(&answer, from);
    }
}

/// Ends the pods' threads, also when an assertion fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn datagram_socket(namespace: &str, address: Ipv4Addr, port: u16) -> Result<UdpSocket> {
    let socket = netns::inside(namespace, || UdpSocket::bind((address, port)))??;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    Ok(socket)
}

#[test]
fn udp_goes_both_ways_through_the_kernel_and_a_flow_stays_with_its_pod() -> Result<()> {
    let gateway = Gateway::running()?;
    let tables = &mut Tables::open(&Pins::new(gateway.pins()))?;
    let address = |transport| ServiceAddr {
        transport,
        address: SocketAddr::from((VIP, WEB)),
    };
    let entry = tables
        .services
        .get(&service_key(&address(Transport::Tcp)), 0)?;
    let key = service_key(&address(Transport::Udp));
    tables.services.insert(key, entry, 0)?;

    let over = &AtomicBool::new(false);
    let pods = topology::pods();
    let sockets = pods
        .iter()
        .map(|pod| datagram_socket(&pod.namespace, pod.address, HTTP_PORT))
        .collect::<Result<Vec<_>>>()?;
    thread::scope(|scope| {
        for (pod, socket) in pods.iter().zip(&sockets) {
            scope.spawn(move || echo(pod, over, socket));
        }
        let _over = Over(over);
        talk(&gateway)
    })
}

fn talk(gateway: &Gateway) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for port in 0..40_u16 {
        let socket = datagram_socket(CLIENT, Ipv4Addr::UNSPECIFIED, 40_000 + port)?;
        socket.connect((VIP, WEB))?;
        socket.set_read_timeout(Some(Duration::from_secs(3)))?;
        let mut first = None;
        // The last length is odd, and does not fill a word of the checksum.
        for length in [1, 64, 1_001] {
            let said = "x".repeat(length);
            socket.send(said.as_bytes())?;
            let mut answer = [0; 2048];
            let got = socket
                .recv(&mut answer)
                .context("no answer to a datagram")?;
            let answer = String::from_utf8_lossy(&answer[..got]).into_owned();
            let mut words = answer.splitn(3, ' ');
            let (pod, from, rest) = (words.next(), words.next(), words.next());
            let (pod, from) = (
                pod.context("pod")?.to_owned(),
                from.context("peer")?.to_owned(),
            );
            assert_eq!(rest, Some(said.as_str()));
            assert!(
                from.starts_with("10.211."),
                "a pod sees the gateway, not {from}"
            );
            assert_eq!(
                *first.get_or_insert((pod.clone(), from.clone())),
                (pod, from)
            );
        }
        seen.extend(first.map(|(pod, _)| pod));
    }
    assert_eq!(
        seen.len(),
        5,
        "40 flows over five pods reached only {seen:?}"
    );
    let flows = gateway.flows()?;
    let replied = flows
        .iter()
        .filter(|flow| flow.ends_with(" replied"))
        .count();
    assert_eq!(replied, 40, "{flows:#?}");
    Ok(())
}
