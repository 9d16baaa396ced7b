//! The agent ends at the worst moments.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use fleetgate_tests::e2e::{
    Gateway, PATIENCE, VIP, eventually,
    manifests::{self, Ingress, WEB},
    wire::{self, Held},
};
use gateway_user::{
    dataplane::{
        pins::Pins,
        record::{Record, Recorder},
        tables::{Tables, service_key},
    },
    plan::{Plan, Replaced, ServiceAddr, Transport},
};
use xtask::lab::topology::HTTP_PORT;

/// Listeners whose rings change at every edit, so that an apply takes a while.
const LISTENERS: u16 = 24;

/// Saves weights that differ for each listener and each `round`, and in odd rounds takes a pod away.
fn edit(gateway: &Gateway, round: u16) -> Result<()> {
    let text: String = (0..LISTENERS)
        .map(|at| {
            let weight = u8::try_from((at * 4 + round * 7) % 99 + 1).unwrap_or(50);
            Ingress::new(&format!("web-{at}"), WEB + at)
                .weights(&[("c1", weight), ("c2", 100 - weight)])
                .yaml()
        })
        .collect();
    gateway.write("fleet/web.yaml", &text)?;
    let away = ["c1-p1", "c2-p2", "c2-p3"][usize::from(round % 3)];
    for (path, text) in manifests::clusters("web", HTTP_PORT, "None", |pod| {
        round.is_multiple_of(2) || pod != away
    }) {
        gateway.write(&path, &text)?;
    }
    Ok(())
}

/// A random wait: another one at each run.
fn chance(below: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) % 1_000;
    below.mul_f64(random as f64 / 1_000.0)
}

#[test]
fn an_agent_killed_in_the_middle_of_a_change_leaves_a_working_gateway() -> Result<()> {
    let mut gateway = Gateway::new()?;
    let ports: Vec<u16> = (WEB..WEB + LISTENERS).collect();
    gateway.write("fleet/gateway.yaml", &manifests::gateway(&ports, ""))?;
    edit(&gateway, 0)?;
    gateway.start()?;
    let mut held = Held::open(WEB, 20)?;
    let mut interrupted = 0;
    for crash in 1..=60_u16 {
        // Twenty crashes, and as many more as it takes to have met some changes in the middle.
        if crash > 20 && interrupted >= 3 {
            break;
        }
        let story = format!("crash {crash}");
        if crash.is_multiple_of(4) {
            // In the middle of starting, on pins that the last crash left.
            gateway.kill()?;
            gateway.launch()?;
            thread::sleep(chance(Duration::from_millis(400)));
        } else {
            // The source waits 100 ms for silence, then the change is carried out.
            let until =
                Instant::now() + Duration::from_millis(90) + chance(Duration::from_millis(160));
            edit(&gateway, crash)?;
            thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        gateway.kill()?;
        interrupted += u32::from(record(&gateway)?.applying.is_some());
        held.stay().with_context(|| story.clone())?;
        for at in [0, crash % LISTENERS, LISTENERS - 1] {
            let tally = wire::burst(WEB + at, 20)?;
            assert_eq!(
                (tally.requests, tally.failed()),
                (20, 0),
                "{story}: {tally:?}"
            );
        }
        gateway.start().with_context(|| story.clone())?;
        held.stay().with_context(|| story.clone())?;
    }
    assert!(
        interrupted >= 3,
        "only {interrupted} of 60 crashes met a change in the middle"
    );
    converges(&gateway)?;
    held.stay()
}

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

/// The maps are what the manifests say: every pod, every listener, and nothing left over.
fn converges(gateway: &Gateway) -> Result<()> {
    edit(gateway, 100)?;
    let weight = |at: u16| f64::from((at * 4 + 700) % 99 + 1) / 100.0;
    eventually("the last edit is in force", || {
        let status = gateway.json(&["status"])?;
        let services = gateway.json(&["services"])?;
        let services = services.as_array().context("an array")?;
        let agree = services
            .iter()
            .all(|one| one["agrees"] == true && one["mode"] == "connection");
        let backends = gateway.json(&["backends"])?;
        let backends = backends.as_array().context("an array")?;
        let mut right = 0;
        for backend in backends {
            for ring in backend["rings"].as_array().context("rings")? {
                let at = ring["service"]
                    .as_str()
                    .and_then(|name| name.rsplit_once(':'));
                let port: Option<u16> = at.and_then(|(_, port)| port.parse().ok());
                let share = ring["share"].as_f64().context("a share")?;
                let Some(at) = port.map(|port| port - WEB) else {
                    continue;
                };
                let asked = if backend["cluster"] == "c1" {
                    weight(at) / 2.0
                } else {
                    (1.0 - weight(at)) / 3.0
                };
                right += usize::from((share - asked).abs() < 0.005);
            }
        }
        let wanted = usize::from(LISTENERS) * 5;
        let done = agree
            && services.len() == usize::from(LISTENERS)
            && backends.len() == 5
            && right == wanted
            && status["config"]["applying"] == false;
        Ok((
            done,
            format!(
                "{right} of {wanted} shares, {} backends: {backends:?}",
                backends.len()
            ),
        ))
    })?;
    for at in 0..LISTENERS {
        let tally = wire::burst(WEB + at, 10)?;
        assert_eq!((tally.requests, tally.failed()), (10, 0), "{at}: {tally:?}");
    }
    Ok(())
}
