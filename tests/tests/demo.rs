//! The demo's manifests mean what the demo measures: checked on the routing model, without a kernel.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use gateway_user::{
    check,
    ir::model::{Affinity, Group, Ir, Listener, Rule, SteeringMode},
};
use xtask::demo::{
    self, manifests,
    scenario::{self, Mode, Scenario},
};

fn model(scenario: &Scenario) -> Result<Ir> {
    let dir = tempfile::tempdir()?;
    for file in manifests::base() {
        demo::write(dir.path(), &file)?;
    }
    let ingress = manifests::ingress(&scenario.ingress, scenario.mode, &scenario.rules);
    demo::write(dir.path(), &ingress)?;
    let report = check::check(dir.path());
    assert!(report.clean(), "{}: {report}", scenario.ingress);
    Ok(report.ir)
}

fn listener(ir: &Ir, port: u16) -> Result<&Listener> {
    let found = ir.listeners.values().find(|one| one.name.port == port);
    let found = found.map(|one| &**one);
    found.with_context(|| format!("no listener on {port}"))
}

/// The one group that a rule sends everything to.
fn group<'a>(ir: &'a Ir, rule: &Rule) -> Result<&'a Group> {
    let name = rule.only_group().context("not one group")?;
    Ok(ir.groups.get(name).context("no such group")?)
}

/// Percent of a group's weight, by cluster.
fn shares(group: &Group) -> BTreeMap<String, f64> {
    let total: f64 = group.backends.iter().map(|one| f64::from(one.weight)).sum();
    let mut shares = BTreeMap::from([("c1".to_owned(), 0.0), ("c2".to_owned(), 0.0)]);
    for backend in &group.backends {
        *shares.entry(backend.cluster.to_string()).or_default() +=
            f64::from(backend.weight) * 100.0 / total;
    }
    shares
}

#[test]
fn every_scenario_is_steered_as_the_demo_expects_and_nothing_in_it_is_wrong() -> Result<()> {
    for scenario in scenario::all() {
        let ir = model(&scenario)?;
        let steering = &listener(&ir, manifests::WEB_LISTENER)?.steering;
        let expected = match scenario.mode {
            Mode::Connection => SteeringMode::Connection,
            Mode::Request => SteeringMode::Request,
        };
        assert_eq!(
            steering.mode, expected,
            "{}: {}",
            scenario.ingress, steering.reason
        );
    }
    Ok(())
}

#[test]
fn every_scenario_asks_for_the_shares_it_is_measured_against() -> Result<()> {
    for scenario in scenario::all() {
        let ir = model(&scenario)?;
        let listener = listener(&ir, manifests::WEB_LISTENER)?;
        // The first rule is the gray one; a request without the header falls through to the next.
        let without_header = scenario.header.is_none();
        let rule = listener
            .rules
            .iter()
            .find(|rule| !without_header || rule.conditions.headers.is_empty());
        let found = shares(group(&ir, rule.context("no rule")?)?);
        for (cluster, asked) in &scenario.requested {
            assert!(
                (found[cluster] - asked).abs() < 0.01,
                "{}: {cluster} {found:?}",
                scenario.ingress
            );
        }
    }
    Ok(())
}

#[test]
fn iperf_is_steered_by_the_kernel_and_stays_with_its_client() -> Result<()> {
    let ir = model(&scenario::all()[0])?;
    let listener = listener(&ir, manifests::IPERF_LISTENER)?;
    assert_eq!(listener.steering.mode, SteeringMode::Connection);
    let rule = listener.rules.first().context("no rule")?;
    let group = group(&ir, rule)?;
    assert_eq!(group.affinity, Affinity::ClientIp);
    assert_eq!(group.backends.len(), 5);
    Ok(())
}
