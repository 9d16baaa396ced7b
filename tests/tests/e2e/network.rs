//! What the node's network does to the gateway, and the gateway to it.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, SocketAddrV4},
};

use anyhow::{Context, Result, bail};
use fleetgate_tests::{
    e2e::{
        Gateway, VIP, eventually,
        frames::{Segments, Wire},
        ip,
        manifests::WEB,
        wire::{self, Conn, Held},
    },
    packets::{self, flags},
};
use xtask::{
    demo::iperf,
    lab::topology::{CLIENT, CLIENT_ADDRESS, GATEWAY},
    netns, process,
};

#[test]
fn pods_see_addresses_of_the_pool() -> Result<()> {
    let mut gateway = Gateway::new()?;
    for (router, near) in [("fg-c1", "10.211.1.1"), ("fg-c2", "10.211.2.1")] {
        ip(router, &[&format!("route add 10.9.0.0/30 via {near}")])?;
    }
    gateway.arguments = vec!["--snat".into(), "10.9.0.0/30".into()];
    gateway.start()?;
    let mut seen = BTreeSet::new();
    let mut open = Vec::new();
    for _ in 0..40 {
        let mut conn = Conn::open((VIP, WEB))?;
        let peer = conn.get("/headers", "")?.json()?["peer"]
            .as_str()
            .context("peer")?
            .to_owned();
        seen.insert(peer.parse::<SocketAddr>()?.ip().to_string());
        open.push(conn);
    }
    // The network's own and the broadcast address are nobody's.
    assert_eq!(
        seen.into_iter().collect::<Vec<_>>(),
        ["10.9.0.1", "10.9.0.2"]
    );
    // A pool needs no ports of the node's own.
    let path = "/proc/sys/net/ipv4/ip_local_reserved_ports";
    assert_eq!(
        netns::inside(GATEWAY, || std::fs::read_to_string(path))??.trim(),
        ""
    );
    let tally = wire::burst(WEB, 300)?;
    assert_eq!(
        (tally.requests, tally.failed(), tally.by_pod.len()),
        (300, 0, 5),
        "{tally:?}"
    );
    Ok(())
}

/// The client's end of a connection of single frames.
fn end(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(CLIENT_ADDRESS, port)
}

#[test]
fn a_tagged_frame_belongs_to_its_vlan_and_is_not_steered_by_the_device_below() -> Result<()> {
    let gateway = Gateway::running()?;
    let wire = Wire::open(&gateway)?;
    let mut segments = Segments::listen()?;
    let listener = SocketAddrV4::new(VIP, WEB);
    // The same SYN without a tag opens a flow, so it is the tag that matters below.
    wire.send(&packets::tcp(end(45_000), listener, flags::SYN))?;
    let answer = segments
        .answer(end(45_000))?
        .context("no answer to a plain SYN")?;
    assert_eq!(answer.flags, flags::SYN | flags::ACK);
    let before = gateway.json(&["stats"])?["forwarded"]["flows_opened"].clone();
    assert_eq!(before, 1);

    for vlan in [1, 7, 4094] {
        let from = end(45_000 + vlan);
        wire.send(&packets::tcp(from, listener, flags::SYN).vlan(vlan))?;
        assert_eq!(segments.answer(from)?, None, "VLAN {vlan}");
    }
    assert_eq!(
        gateway.json(&["stats"])?["forwarded"]["flows_opened"],
        before
    );
    // Nor is a tagged segment taken for one of the untagged flow.
    let packets_in = gateway.json(&["stats"])?["forwarded"]["in_packets"].clone();
    wire.send(&packets::tcp(end(45_000), listener, flags::ACK).vlan(7))?;
    assert_eq!(
        segments
            .answer(end(45_000))?
            .filter(|one| one.flags & flags::RST != 0),
        None
    );
    assert_eq!(
        gateway.json(&["stats"])?["forwarded"]["in_packets"],
        packets_in
    );
    Ok(())
}

#[test]
fn a_segment_of_no_connection_is_answered_by_a_reset_at_once() -> Result<()> {
    let gateway = Gateway::running()?;
    let wire = Wire::open(&gateway)?;
    let mut segments = Segments::listen()?;
    let listener = SocketAddrV4::new(VIP, WEB);
    let before = gateway.counted("no_flow")?;
    let kinds = [
        flags::ACK,
        flags::ACK | flags::PSH,
        flags::ACK | flags::FIN,
        flags::SYN | flags::ACK,
    ];
    for (port, kind) in (46_000..).zip(kinds) {
        wire.send(&packets::tcp(end(port), listener, kind).payload(b"garbage"))?;
        let answer = segments.answer(end(port))?;
        let answer = answer.with_context(|| format!("no answer to flags {kind:#x}"))?;
        assert_eq!(
            (answer.from, answer.flags & flags::RST),
            (WEB, flags::RST),
            "{kind:#x}"
        );
    }
    assert_eq!(gateway.counted("no_flow")? - before, kinds.len() as u64);
    assert_eq!(gateway.flows()?, Vec::<String>::new());
    // Garbage into a connection of its own: the pod's stack sorts it out, and the connection lives.
    let mut held = Held::open(WEB, 1)?;
    let SocketAddr::V4(local) = held.0[0].0.local()? else {
        bail!("the lab is IPv4");
    };
    for kind in kinds {
        wire.send(&packets::tcp(local, listener, kind).payload(b"garbage"))?;
    }
    held.stay()
}

#[test]
fn an_interface_that_is_made_again_is_attached_again() -> Result<()> {
    let gateway = Gateway::running()?;
    let only_c2 = |open: Held| {
        Held(
            open.0
                .into_iter()
                .filter(|one| one.1.starts_with("c2"))
                .collect(),
        )
    };
    let mut held = only_c2(Held::open(WEB, 20)?);
    ip(GATEWAY, &["link del c1"])?;
    held.stay().context("the other cluster's connections")?;
    netns::ip_batch(
        None,
        &["link add c1 netns fg-gw type veth peer name up0 netns fg-c1".into()],
    )?;
    ip(
        "fg-c1",
        &["addr add 10.211.1.2/24 dev up0", "link set up0 up"],
    )?;
    ip("fg-c1", &["route add default via 10.211.1.1"])?;
    ip(
        GATEWAY,
        &["addr add 10.211.1.1/24 dev c1", "link set c1 up"],
    )?;
    ip(GATEWAY, &["route add 10.221.1.0/24 via 10.211.1.2"])?;
    everyone_answers()?;
    held.stay()?;

    // The clients' side, with the VIP on it.
    ip(GATEWAY, &["link del cl0"])?;
    let cable = "link add cl0 netns fg-gw type veth peer name eth0 netns fg-client";
    netns::ip_batch(None, &[cable.into()])?;
    ip(
        CLIENT,
        &["addr add 10.210.0.2/24 dev eth0", "link set eth0 up"],
    )?;
    ip(CLIENT, &["route add default via 10.210.0.1"])?;
    ip(
        GATEWAY,
        &["addr add 10.210.0.1/24 dev cl0", "link set cl0 up"],
    )?;
    everyone_answers()?;
    let services = gateway.json(&["services"])?;
    assert_eq!(services[0]["mode"], "connection", "{services}");
    Ok(())
}

/// Waits until connections reach all five pods, and then none fails.
fn everyone_answers() -> Result<()> {
    eventually("all pods answer", || {
        // One at a time: while the way is not there, each costs its whole patience.
        let first = wire::outcome(WEB);
        if first.contains("Timed") || first.contains("Refused") || first.contains("Unreachable") {
            return Ok((false, first));
        }
        let tally = wire::burst(WEB, 40)?;
        Ok((
            tally.failed() == 0 && tally.by_pod.len() == 5,
            format!("{tally:?}"),
        ))
    })?;
    let tally = wire::burst(WEB, 200)?;
    assert_eq!(
        (tally.requests, tally.failed(), tally.by_pod.len()),
        (200, 0, 5),
        "{tally:?}"
    );
    Ok(())
}

/// A request with a body of many segments, which arrives whole or not at all.
fn upload() -> Result<()> {
    let body = "b".repeat(300_000);
    let mut conn = Conn::open((VIP, WEB))?;
    let length = body.len();
    for _ in 0..3 {
        let request =
            format!("POST / HTTP/1.1\r\nHost: lab\r\nContent-Length: {length}\r\n\r\n{body}");
        assert_eq!(conn.send(&request)?.status, 200);
    }
    Ok(())
}

#[test]
fn frames_with_real_checksums_pass_through_tc() -> Result<()> {
    let gateway = Gateway::running()?;
    iperf::prepare_for_xdp()?;
    for device in ["cl0", "c1", "c2"] {
        process::output(netns::command(GATEWAY, "ethtool").args(["-K", device, "tx", "off"]))?;
    }
    let tally = wire::burst(WEB, 200)?;
    assert_eq!(
        (tally.requests, tally.failed(), tally.by_pod.len()),
        (200, 0, 5),
        "{tally:?}"
    );
    upload()?;
    // And whole again, from one to the other in the middle of a connection.
    let mut held = Held::open(WEB, 10)?;
    process::output(netns::command(CLIENT, "ethtool").args(["-K", "eth0", "tx", "on"]))?;
    held.stay()?;
    upload()?;
    assert_eq!(gateway.json(&["status"])?["dropped"]["packets"], 0);
    Ok(())
}

#[test]
fn xdp_in_native_mode_steers_frames_with_real_checksums() -> Result<()> {
    let mut gateway = Gateway::new()?;
    iperf::prepare_for_xdp()?;
    gateway.arguments = vec!["--xdp".into(), "native".into()];
    gateway.start()?;
    let status = gateway.json(&["status"])?;
    for interface in status["interfaces"].as_array().context("interfaces")? {
        assert_eq!(interface["hooks"], "xdp native + tcx", "{status}");
    }
    let tally = wire::burst(WEB, 300)?;
    assert_eq!(
        (tally.requests, tally.failed(), tally.by_pod.len()),
        (300, 0, 5),
        "{tally:?}"
    );
    upload()?;
    // A restart takes the XDP links over, and one that wants none gives them up; connections stay.
    let mut held = Held::open(WEB, 10)?;
    gateway.kill()?;
    gateway.start()?;
    held.stay()?;
    gateway.stop()?;
    gateway.arguments = vec!["--xdp".into(), "off".into()];
    gateway.start()?;
    assert_eq!(gateway.json(&["status"])?["interfaces"][0]["hooks"], "tcx");
    held.stay()?;
    assert_eq!(gateway.links()?.len(), 4);
    upload()
}
