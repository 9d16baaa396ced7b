//! The agent ends at the worst moments.

use std::{net::SocketAddr, time::Instant};

use anyhow::{Context, Result, ensure};
use fleetgate_tests::e2e::{Gateway, PATIENCE, VIP, eventually, manifests::WEB, wire};
use gateway_user::{
    dataplane::{
        pins::Pins,
        record::{Record, Recorder},
        tables::{Tables, service_key},
    },
    plan::{Plan, Replaced, ServiceAddr, Transport},
};

fn record(gateway: &Gateway) -> Result<Record> {
    let tables = Tables::open(&Pins::new(gateway.pins()))?;
    Record::load(&tables)?.context("no record")
}

#[test]
fn an_interrupted_change_is_not_forgotten_by_an_agent_that_is_killed_while_starting() -> Result<()>
{
    let mut gateway = Gateway::running()?;
    let address = ServiceAddr {
        transport: Transport::Tcp,
        address: SocketAddr::from((VIP, WEB)),
    };
    gateway.kill()?;
    for _ in 0..5 {
        // As a crash leaves it: the record tells of a change whose steps were not all carried out.
        let mut tables = Tables::open(&Pins::new(gateway.pins()))?;
        let mut left = record(&gateway)?;
        left.applying = Some(Replaced::default());
        Recorder::open(&mut tables)?.save_all(&mut tables, &left)?;
        let _ = tables.services.remove(&service_key(&address));
        // The next agent is killed as soon as it has written anything.
        gateway.launch()?;
        let give_up = Instant::now() + PATIENCE;
        while record(&gateway)?.pid == left.pid {
            ensure!(Instant::now() < give_up, "{}", gateway.words());
        }
        gateway.kill()?;
        let there = tables.services.get(&service_key(&address), 0).is_ok();
        assert!(
            there || record(&gateway)?.applying.is_some(),
            "the kernel lacks a listener, and nobody knows"
        );
    }
    gateway.start()?;
    assert_eq!(wire::burst(WEB, 20)?.failed(), 0);
    assert!(record(&gateway)?.applying.is_none());

    // Also if there is nothing to write: what the kernel has beyond the plan goes.
    gateway.kill()?;
    let mut tables = Tables::open(&Pins::new(gateway.pins()))?;
    let mut left = record(&gateway)?;
    left.applying = Some(Replaced::default());
    left.plan = Plan::default();
    Recorder::open(&mut tables)?.save_all(&mut tables, &left)?;
    // The Ingress stays: a start that finds nothing at all would keep what the last agent served.
    gateway.remove("fleet/gateway.yaml")?;
    gateway.start()?;
    eventually("the kernel has no listener", || {
        let record = record(&gateway)?;
        let there = tables.services.get(&service_key(&address), 0).is_ok();
        Ok((
            !there && record.applying.is_none(),
            (there, record.applying),
        ))
    })?;
    assert_eq!(wire::outcome(WEB), "ConnectionRefused");
    Ok(())
}

#[test]
fn an_interrupted_change_is_completed_also_by_an_agent_that_finds_no_manifests() -> Result<()> {
    let mut gateway = Gateway::running()?;
    gateway.kill()?;
    let address = ServiceAddr {
        transport: Transport::Tcp,
        address: SocketAddr::from((VIP, WEB)),
    };
    let mut tables = Tables::open(&Pins::new(gateway.pins()))?;
    let mut left = record(&gateway)?;
    left.applying = Some(Replaced::default());
    Recorder::open(&mut tables)?.save_all(&mut tables, &left)?;
    tables.services.remove(&service_key(&address))?;
    let aside = gateway.manifests().with_extension("aside");
    std::fs::rename(gateway.manifests(), &aside)?;
    let started = gateway.start();
    std::fs::rename(&aside, gateway.manifests())?;
    // Ready means that the plan is in the kernel.
    started?;
    assert!(record(&gateway)?.applying.is_none());
    assert_eq!(wire::burst(WEB, 20)?.failed(), 0);
    Ok(())
}
