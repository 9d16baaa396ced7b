//! `fleetgate doctor` names what is broken, and only that.

use anyhow::{Context, Result, ensure};
use fleetgate_tests::e2e::{Gateway, ip};
use serde_json::Value;
use xtask::lab::topology::GATEWAY;

/// What `doctor --json` says: exit code, and the checks.
fn doctor(gateway: &Gateway, more: &[&str]) -> Result<(i32, Vec<Value>)> {
    let ran = gateway.cli(&[&["doctor", "--json"], more].concat())?;
    let said: Value = serde_json::from_str(&ran.out).with_context(|| format!("{ran:?}"))?;
    let checks = said["checks"].as_array().context("checks")?.clone();
    ensure!(checks.len() > 10, "{said}");
    Ok((ran.code, checks))
}

/// Checks with a verdict, as `check: read`.
fn with(checks: &[Value], verdict: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let checks = checks.iter().filter(|one| one["verdict"] == verdict);
    checks
        .map(|one| format!("{}: {}", text(&one["check"]), text(&one["read"])))
        .collect()
}

#[test]
fn a_broken_setting_is_named_with_what_to_do() -> Result<()> {
    let mut gateway = Gateway::new()?;
    // Before the first start, with the interfaces it would get.
    let (code, checks) = doctor(&gateway, &["--interface", "cl0", "--interface", "c1"])?;
    assert_eq!(code, 0, "{checks:?}");
    assert!(
        with(&checks, "ok").contains(&"rp_filter c1: 0 (0 off, 2 loose)".to_owned()),
        "{checks:?}"
    );
    let (code, checks) = doctor(&gateway, &["--interface", "nowhere"])?;
    assert_eq!((code, with(&checks, "fail").len()), (1, 1), "{checks:?}");

    gateway.start()?;
    let (code, checks) = doctor(&gateway, &[])?;
    assert_eq!((code, with(&checks, "fail")), (0, vec![]), "{checks:?}");
    let fine = with(&checks, "ok").join("\n");
    for found in [
        "a route to each of 5 pods",
        "next hops of 5 pods",
        "10000-29999 are reserved",
    ] {
        assert!(fine.contains(found), "{fine}");
    }

    gateway.tool(GATEWAY, "sysctl", "-qw net.ipv4.conf.cl0.rp_filter=1")?;
    let (code, checks) = doctor(&gateway, &[])?;
    assert_eq!(code, 0, "a warning is no failure: {checks:?}");
    let warned = with(&checks, "warn").join("\n");
    assert!(warned.contains("rp_filter cl0: strict"), "{warned}");
    let text = gateway.cli(&["doctor"])?;
    assert!(
        text.out.contains("net.ipv4.conf.cl0.rp_filter=2"),
        "{text:?}"
    );
    gateway.tool(GATEWAY, "sysctl", "-qw net.ipv4.conf.cl0.rp_filter=0")?;

    // Pods of the second cluster without a way, and the first cluster's router silent.
    ip(GATEWAY, &["route del 10.221.2.0/24"])?;
    ip("fg-c1", &["addr del 10.211.1.2/24 dev up0"])?;
    ip(GATEWAY, &["neigh flush dev c1"])?;
    gateway.tool(GATEWAY, "sysctl", "-qw net.ipv4.ip_local_reserved_ports=")?;
    let (code, checks) = doctor(&gateway, &[])?;
    let failed = with(&checks, "fail");
    assert_eq!((code, failed.len()), (1, 3), "{failed:?}");
    let failed = failed.join("\n");
    for found in [
        "routes: no route to 3 pods: c2/c2-p1 (10.221.2.11)",
        "neighbours: no answer from 10.211.1.2 on c1",
        "ports: 10000-29999 are not reserved any more",
    ] {
        assert!(failed.contains(found), "{failed}");
    }
    Ok(())
}

#[test]
fn links_that_somebody_removed_are_missed_also_with_the_agent_down() -> Result<()> {
    let mut gateway = Gateway::running()?;
    gateway.stop()?;
    std::fs::remove_file(gateway.pins().join("links").join("tc-c1"))?;
    let (code, checks) = doctor(&gateway, &[])?;
    assert_eq!(code, 1);
    assert_eq!(with(&checks, "fail"), ["links: not pinned: tc-c1"]);
    let warned = with(&checks, "warn").join("\n");
    assert!(warned.contains("gateway: no agent runs"), "{warned}");
    gateway.start()?;
    assert_eq!(doctor(&gateway, &[])?.0, 0);
    Ok(())
}
