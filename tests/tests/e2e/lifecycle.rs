//! The agent comes and goes; the kernel steers on.

use std::fs;

use anyhow::{Context, Result};
use aya::programs::{loaded_links, loaded_programs};
use fleetgate_tests::e2e::{
    Gateway, eventually,
    manifests::{self, Ingress, WEB},
    wire::{self, Held},
};
use xtask::{lab::topology::GATEWAY, netns};

/// The flows of open connections: `client -> listener -> source -> pod state`.
fn established(gateway: &Gateway) -> Result<Vec<String>> {
    let mut flows = gateway.flows()?;
    flows.retain(|flow| flow.ends_with("established"));
    Ok(flows)
}

fn reserved_ports() -> Result<String> {
    let path = "/proc/sys/net/ipv4/ip_local_reserved_ports";
    Ok(netns::inside(GATEWAY, || fs::read_to_string(path))??)
}

#[test]
fn sigterm_and_sigkill_leave_the_kernel_steering_and_a_restart_finds_the_same_flows() -> Result<()>
{
    let mut gateway = Gateway::running()?;
    let mut held = Held::open(WEB, 30)?;
    let before = established(&gateway)?;
    assert_eq!(before.len(), 30);
    for end in ["SIGTERM", "SIGKILL"] {
        if end == "SIGTERM" {
            let status = gateway.stop()?;
            assert!(status.success(), "{end}: {status}");
        } else {
            gateway.kill()?;
        }
        held.stay().context(end)?;
        let tally = wire::burst(WEB, 100)?;
        assert_eq!(
            (tally.requests, tally.failed()),
            (100, 0),
            "{end}: {tally:?}"
        );
        assert_eq!(tally.by_pod.len(), 5, "{end}: {tally:?}");
        gateway.start()?;
        assert_eq!(established(&gateway)?, before, "{end}");
        held.stay().context(end)?;
        let tally = wire::burst(WEB, 100)?;
        assert_eq!(
            (tally.requests, tally.failed()),
            (100, 0),
            "{end}: {tally:?}"
        );
    }
    Ok(())
}

#[test]
fn a_restart_with_changed_manifests_converges_and_keeps_open_connections() -> Result<()> {
    let mut gateway = Gateway::running()?;
    let mut held = Held::open(WEB, 20)?;
    gateway.stop()?;
    let only = Ingress::new("web", WEB).weights(&[("c1", 100)]);
    gateway.write("fleet/web.yaml", &only.yaml())?;
    gateway.start()?;
    let tally = wire::burst(WEB, 100)?;
    assert_eq!((tally.requests, tally.failed()), (100, 0), "{tally:?}");
    assert!(
        tally.by_pod.keys().all(|pod| pod.starts_with("c1/")),
        "{tally:?}"
    );
    held.stay()?;

    // A listener that went away while nobody looked is gone, too.
    gateway.stop()?;
    let other = Ingress::new("web", WEB + 1);
    gateway.write("fleet/web.yaml", &other.yaml())?;
    gateway.write("fleet/gateway.yaml", &manifests::gateway(&[WEB + 1], ""))?;
    gateway.start()?;
    assert_eq!(wire::outcome(WEB), "ConnectionRefused");
    assert_eq!(wire::burst(WEB + 1, 50)?.failed(), 0);
    held.stay()
}

#[test]
fn unload_removes_programs_links_pins_and_reserved_ports() -> Result<()> {
    let mut gateway = Gateway::new()?;
    // Somebody else's reservation must survive ours.
    gateway.tool(
        GATEWAY,
        "sysctl",
        "-qw net.ipv4.ip_local_reserved_ports=8080,31000-31010",
    )?;
    let ports = reserved_ports()?;
    gateway.start()?;
    assert_ne!(reserved_ports()?, ports);
    assert_eq!(wire::burst(WEB, 20)?.failed(), 0);

    let refused = gateway.cli(&["unload"])?;
    assert_eq!(refused.code, 1, "an agent runs: {refused:?}");
    assert_eq!(wire::burst(WEB, 20)?.failed(), 0);

    gateway.stop()?;
    let ours = gateway.links()?;
    assert_eq!(
        ours.len(),
        4,
        "TC on three devices and the socket lookup: {ours:?}"
    );
    let unloaded = gateway.cli(&["unload"])?;
    assert_eq!(unloaded.code, 0, "{unloaded:?}");
    assert!(!gateway.pins().exists());
    assert_eq!(reserved_ports()?, ports);
    eventually("the kernel lets go of the programs", || {
        let links: Vec<u32> = loaded_links().flatten().map(|link| link.id()).collect();
        let programs: Vec<u32> = loaded_programs().flatten().map(|one| one.id()).collect();
        let left =
            |(link, program): &&(u32, u32)| links.contains(link) || programs.contains(program);
        let left: Vec<_> = ours.iter().filter(left).collect();
        Ok((left.is_empty(), format!("{left:?}")))
    })?;
    // The node's own stack answers now, and refuses.
    assert_eq!(wire::outcome(WEB), "ConnectionRefused");
    Ok(())
}
