//! How the programs are attached: tcx or clsact, XDP for frames in several buffers, and replies that come in elsewhere.

use std::{collections::BTreeSet, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use fleetgate_tests::e2e::{
    Gateway, VIP, ip,
    manifests::WEB,
    wire::{self, Conn, Held},
};
use xtask::{
    demo::iperf,
    lab::topology::{self, CLIENT, GATEWAY},
    netns,
};

/// The devices of the lab's gateway.
const DEVICES: [&str; 3] = ["cl0", "c1", "c2"];

/// Filters on the ingress of a device, one line each.
fn filters(gateway: &Gateway, device: &str) -> Result<Vec<String>> {
    let words = format!("filter show dev {device} ingress");
    let said = gateway.tool(GATEWAY, "tc", &words)?;
    let lines = said.lines().filter(|line| line.contains("fleetgate_tc"));
    Ok(lines.map(str::to_owned).collect())
}

fn hooks(gateway: &Gateway) -> Result<BTreeSet<String>> {
    let status = gateway.json(&["status"])?;
    let interfaces = status["interfaces"].as_array().context("interfaces")?;
    Ok(interfaces
        .iter()
        .map(|one| format!("{}: {}", one["hooks"], one["reason"]))
        .collect())
}

fn hooked_by(gateway: &Gateway, kind: &str) -> Result<()> {
    let hooks = hooks(gateway)?;
    let begin = format!("\"{kind}\": ");
    ensure!(
        hooks.len() == 1 && hooks.iter().all(|one| one.starts_with(&begin)),
        "{hooks:?}"
    );
    Ok(())
}

/// Restarts the agent while connections talk without a pause: a packet that meets no program is answered by the stack
/// with a reset, and the connection is lost.
fn restart_under_load(gateway: &mut Gateway, held: &mut Held) -> Result<()> {
    thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let talk = scope.spawn(move || -> Result<u32> {
            let mut rounds = 0;
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                held.stay()?;
                rounds += 1;
            }
            Ok(rounds)
        });
        let restarted = (|| {
            gateway.kill()?;
            gateway.start()?;
            thread::sleep(Duration::from_millis(200));
            Ok::<_, anyhow::Error>(())
        })();
        drop(stop);
        let rounds = talk.join().ok().context("the talk panicked")??;
        ensure!(rounds > 3, "only {rounds} rounds of requests");
        restarted
    })
}

#[test]
fn clsact_filters_are_replaced_in_place_and_unloaded_and_give_way_to_links() -> Result<()> {
    let mut gateway = Gateway::new()?;
    // Somebody else's qdisc, which was there before.
    gateway.tool(GATEWAY, "tc", "qdisc add dev c1 clsact")?;
    gateway.arguments = vec!["--tc".into(), "clsact".into()];
    gateway.start()?;
    hooked_by(&gateway, "clsact")?;
    assert_eq!(gateway.links()?.len(), 1, "the socket lookup alone");
    let mut held = Held::open(WEB, 10)?;
    let tally = wire::burst(WEB, 200)?;
    assert_eq!((tally.failed(), tally.by_pod.len()), (0, 5), "{tally:?}");

    let before: Vec<_> = DEVICES
        .iter()
        .map(|device| filters(&gateway, device))
        .collect::<Result<_>>()?;
    for _ in 0..3 {
        restart_under_load(&mut gateway, &mut held)?;
    }
    for (device, before) in DEVICES.iter().zip(&before) {
        let after = filters(&gateway, device)?;
        assert_eq!((before.len(), after.len()), (1, 1), "{device}: {after:?}");
        assert_ne!(&after, before, "{device} runs the new program");
        let place = |line: &str| line.split(" direct-action").next().map(str::to_owned);
        assert_eq!(place(&after[0]), place(&before[0]));
    }

    // A filter somebody removed is made again.
    gateway.stop()?;
    gateway.tool(GATEWAY, "tc", "qdisc del dev c2 clsact")?;
    gateway.start()?;
    assert_eq!(filters(&gateway, "c2")?.len(), 1);
    held.stay()?;

    // The better way from the next start on, and back.
    for (choice, kind, filters_each, links) in [("auto", "tcx", 0, 4), ("clsact", "clsact", 1, 1)] {
        gateway.arguments = vec!["--tc".into(), choice.into()];
        restart_under_load(&mut gateway, &mut held)?;
        hooked_by(&gateway, kind)?;
        assert_eq!(gateway.links()?.len(), links);
        for device in DEVICES {
            assert_eq!(filters(&gateway, device)?.len(), filters_each, "{device}");
        }
    }

    gateway.stop()?;
    let unloaded = gateway.cli(&["unload"])?;
    assert_eq!(unloaded.code, 0, "{unloaded:?}");
    assert!(unloaded.out.contains("clsact-c1"), "{unloaded:?}");
    for device in DEVICES {
        assert_eq!(filters(&gateway, device)?.len(), 0, "{device}");
    }
    assert_eq!(wire::outcome(WEB), "ConnectionRefused");
    Ok(())
}

#[test]
fn links_are_updated_in_place_by_the_next_agent() -> Result<()> {
    let mut gateway = Gateway::running()?;
    hooked_by(&gateway, "tcx")?;
    let mut held = Held::open(WEB, 10)?;
    // The socket lookup is attached anew before the old link goes; all others keep their link.
    let before: BTreeSet<(u32, u32)> = gateway.links()?.into_iter().collect();
    restart_under_load(&mut gateway, &mut held)?;
    let after: BTreeSet<(u32, u32)> = gateway.links()?.into_iter().collect();
    let ids = |links: &BTreeSet<(u32, u32)>| links.iter().map(|l| l.0).collect::<BTreeSet<_>>();
    assert_eq!(ids(&before).intersection(&ids(&after)).count(), 3);
    assert!(
        before.is_disjoint(&after),
        "each runs the new program: {before:?} {after:?}"
    );
    Ok(())
}

/// Frames that this namespace's `eth0` has sent (proc(5): the tenth number of a line).
fn sent_segments() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("eth0:"));
    let frames = line.and_then(|line| line.split_whitespace().nth(9)?.parse().ok());
    frames.context("no eth0")
}

#[test]
fn xdp_takes_interfaces_with_a_large_mtu_and_leaves_frames_of_several_buffers_to_tc() -> Result<()>
{
    let mut gateway = Gateway::new()?;
    iperf::prepare_for_xdp()?;
    for (namespace, device) in [(GATEWAY, "cl0"), (CLIENT, "eth0")] {
        ip(namespace, &[&format!("link set {device} mtu 9000")])?;
    }
    for cluster in ["c1", "c2"] {
        let router = format!("fg-{cluster}");
        ip(GATEWAY, &[&format!("link set {cluster} mtu 9000")])?;
        ip(&router, &["link set up0 mtu 9000"])?;
    }
    for pod in topology::pods() {
        let router = format!("fg-{}", pod.cluster);
        ip(&router, &[&format!("link set {} mtu 9000", pod.device)])?;
        ip(&pod.namespace, &["link set eth0 mtu 9000"])?;
    }
    gateway.arguments = vec!["--xdp".into(), "native".into()];
    gateway.start()?;
    hooked_by(&gateway, "xdp native frags + tcx")?;
    let mut held = Held::open(WEB, 10)?;
    let tally = wire::burst(WEB, 200)?;
    assert_eq!((tally.failed(), tally.by_pod.len()), (0, 5), "{tally:?}");
    // Segments of 8960 bytes, which XDP leaves to TC.
    let body = "b".repeat(300_000);
    let request = format!(
        "POST / HTTP/1.1\r\nHost: lab\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let segments = || netns::inside(CLIENT, sent_segments);
    let before = segments()??;
    assert_eq!(Conn::open((VIP, WEB))?.send(&request)?.status, 200);
    let sent = segments()?? - before;
    assert!(sent < 150, "{sent} segments for 300 kB are no jumbo frames");
    // Links with the one program are taken over as they are.
    let before: BTreeSet<u32> = gateway.links()?.into_iter().map(|link| link.0).collect();
    restart_under_load(&mut gateway, &mut held)?;
    hooked_by(&gateway, "xdp native frags + tcx")?;
    let after: BTreeSet<u32> = gateway.links()?.into_iter().map(|link| link.0).collect();
    assert_eq!(before.intersection(&after).count(), 6);
    held.stay()
}

#[test]
fn replies_may_come_in_on_another_interface_than_requests_left_by() -> Result<()> {
    let mut gateway = Gateway::new()?;
    // A second cable to the first cluster, which the cluster's router prefers for what goes back.
    netns::ip_batch(
        None,
        &["link add back netns fg-gw type veth peer name up1 netns fg-c1".into()],
    )?;
    ip(
        GATEWAY,
        &["addr add 10.211.3.1/24 dev back", "link set back up"],
    )?;
    ip(
        "fg-c1",
        &[
            "addr add 10.211.3.2/24 dev up1",
            "link set up1 up",
            "route add 10.211.1.1/32 via 10.211.3.1",
        ],
    )?;
    gateway.arguments = vec!["--interface".into(), "back".into()];
    gateway.start()?;
    let bytes = || netns::device_bytes(GATEWAY, "back");
    let before = bytes()?;
    let tally = wire::burst(WEB, 300)?;
    assert_eq!((tally.failed(), tally.by_pod.len()), (0, 5), "{tally:?}");
    let mut conn = Conn::open((VIP, WEB))?;
    conn.get("/", "")?;
    let after = bytes()?;
    let (received, sent) = (after.0 - before.0, after.1 - before.1);
    // Two of five pods: some 120 answers of more than 100 bytes, and neighbour discovery the other way.
    assert!(received > 20_000, "{received} bytes came in there");
    assert!(sent < received / 10, "{sent} bytes went out there");
    assert_eq!(gateway.json(&["status"])?["dropped"]["packets"], 0);
    Ok(())
}
