//! Two agents where there should be one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use fleetgate_tests::e2e::{
    Gateway, PATIENCE,
    manifests::{self, Ingress, WEB},
    wire::{self, Held},
};
use xtask::paths;

/// Steered by the proxy.
const SHOP: u16 = 8002;

/// Waits for an agent that cannot run: its exit code and last words.
fn refused(mut agent: Child) -> Result<(i32, String)> {
    let give_up = Instant::now() + PATIENCE;
    while Instant::now() < give_up {
        if let Some(status) = agent.try_wait()? {
            let log = fs::read_to_string(paths::lab().join("e2e-second.log"))?;
            return Ok((status.code().unwrap_or(-1), log));
        }
        thread::sleep(Duration::from_millis(20));
    }
    agent.kill()?;
    agent.wait()?;
    bail!("the second agent runs");
}

fn second(gateway: &mut Gateway, pins: &Path, admin: &str) -> Result<(i32, String)> {
    let agent = gateway.launch_another(pins, admin, "e2e-second")?;
    refused(agent)
}

fn other_pins() -> PathBuf {
    PathBuf::from(format!("/sys/fs/bpf/fg-test-{}-other", std::process::id()))
}

#[test]
fn an_agent_with_other_pins_is_refused_the_source_ports_of_the_first_however_often_it_tries()
-> Result<()> {
    let mut gateway = Gateway::running()?;
    let mut held = Held::open(WEB, 10)?;
    let pins = other_pins();
    for _ in 0..2 {
        let (code, said) = second(&mut gateway, &pins, "127.0.0.1:9621")?;
        assert_eq!(code, 1, "{said}");
        assert!(
            said.contains("--snat-ports") && !said.contains("panicked"),
            "{said}"
        );
    }
    assert!(!pins.exists(), "what was refused leaves nothing pinned");
    held.stay()?;
    assert_eq!(wire::burst(WEB, 50)?.failed(), 0);
    Ok(())
}

#[test]
fn a_second_agent_on_the_same_pins_is_refused_while_the_first_runs() -> Result<()> {
    let mut gateway = Gateway::running()?;
    let mut held = Held::open(WEB, 10)?;
    let pins = gateway.pins().to_owned();
    let (code, said) = second(&mut gateway, &pins, "127.0.0.1:9621")?;
    assert_eq!(code, 1, "{said}");
    let dir = pins.display().to_string();
    assert!(said.contains(&dir) && !said.contains("panicked"), "{said}");
    let (code, said) = second(&mut gateway, &pins, "127.0.0.1:9620")?;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("--admin"), "{said}");
    held.stay()?;
    assert_eq!(gateway.json(&["status"])?["agent"]["alive"], true);
    // Nothing of it stays once the first has ended.
    gateway.kill()?;
    gateway.start()?;
    held.stay()
}

#[test]
fn an_agent_takes_the_place_of_another_and_neither_connections_nor_requests_notice() -> Result<()> {
    let mut gateway = Gateway::new()?;
    gateway.write("fleet/gateway.yaml", &manifests::gateway(&[WEB, SHOP], ""))?;
    let both =
        Ingress::new("web", WEB).yaml() + &Ingress::new("shop", SHOP).steering("request").yaml();
    gateway.write("fleet/web.yaml", &both)?;
    gateway.start()?;
    let mut held = Held::open(WEB, 10)?;
    for _ in 0..2 {
        let tally = wire::under_load(SHOP, || {
            gateway.take_over()?;
            // Both are there: the one before ends when it is told.
            assert_eq!(wire::burst(WEB, 50)?.failed(), 0);
            assert!(gateway.see_off()?.success());
            held.stay()
        })?;
        assert_eq!(tally.failed(), 0, "{tally:?}");
    }
    Ok(())
}

#[test]
fn an_agent_whose_successor_ends_too_early_serves_until_then_and_is_started_again() -> Result<()> {
    let mut gateway = Gateway::running()?;
    let mut held = Held::open(WEB, 10)?;
    gateway.arguments.push("--take-over".to_owned());
    let pins = gateway.pins().to_owned();
    // It claims the pins, and cannot use what else it was given.
    gateway
        .arguments
        .extend(["--vip", "10.210.0.1", "--interface", "none"].map(str::to_owned));
    let (code, said) = second(&mut gateway, &pins, "127.0.0.1:9620")?;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("there is no interface none"), "{said}");
    assert!(
        gateway.crashes_or(|_| Ok(false))?,
        "the first one has let go of the pins"
    );
    assert!(
        gateway.log()?.contains("start one of them again"),
        "{}",
        gateway.words()
    );
    gateway.arguments.truncate(1);
    gateway.start()?;
    held.stay()?;
    assert_eq!(wire::burst(WEB, 50)?.failed(), 0);
    Ok(())
}
