//! The four scenarios, as objects of the API.

use anyhow::{Context, Result};
use fleetgate_tests::{
    apiserver::Resource,
    e2e::{
        VIP, eventually,
        fleet::{Fleet, put},
        manifests::{self, Ingress},
        wire,
    },
};
use serde_json::{Value, json};
use xtask::{
    client::Job,
    lab::topology::{CLIENT, HTTP_PORT},
    netns,
};

const DEFAULT: u16 = 8001;
const WEIGHTED: u16 = 8002;
const SINGLE: u16 = 8003;
const HEADER: u16 = 8004;
const PORTS: [u16; 4] = [DEFAULT, WEIGHTED, SINGLE, HEADER];

fn objects() -> String {
    let gray = r#"[{"type":"Header","headerConfig":{"key":"stage","values":["gray"]}}]"#;
    [
        manifests::gateway(&PORTS, ""),
        Ingress::new("default", DEFAULT).yaml(),
        Ingress::new("weighted", WEIGHTED)
            .weights(&[("c1", 60), ("c2", 40)])
            .yaml(),
        Ingress::new("single", SINGLE)
            .weights(&[("c1", 100)])
            .yaml(),
        Ingress::new("gray", HEADER)
            .note("alb.ingress.kubernetes.io/order", "1")
            .note("alb.ingress.kubernetes.io/conditions.web", gray)
            .weights(&[("c2", 100)])
            .yaml(),
        Ingress::new("otherwise", HEADER)
            .note("alb.ingress.kubernetes.io/order", "2")
            .weights(&[("c1", 100)])
            .yaml(),
    ]
    .join("---\n")
}

/// Percent of the answers that come from the first member.
fn share_of_c1(port: u16, headers: &[(&str, &str)]) -> Result<f64> {
    let named = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let job = Job {
        threads: 4,
        headers: headers.iter().map(named).collect(),
        ..Job::connections((VIP, port).into(), 300)
    };
    let tally = netns::inside(CLIENT, || xtask::client::run(&job))?;
    assert_eq!((tally.requests, tally.failed()), (300, 0), "{tally:?}");
    let first = tally
        .by_pod
        .iter()
        .filter(|(pod, _)| pod.starts_with("c1/"));
    let first: u64 = first.map(|(_, count)| count).sum();
    Ok(first as f64 / 3.0)
}

/// What the first member gets of the ring of a port, in percent, as `backends` says.
fn ring_of_c1(fleet: &Fleet, port: u16) -> Result<f64> {
    let backends = fleet.gateway.json(&["backends"])?;
    let service = format!("tcp/{VIP}:{port}");
    let all = backends.as_array().context("an array")?.iter();
    let first = all.filter(|one| one["cluster"] == "c1");
    let rings = first.flat_map(|one| one["rings"].as_array().into_iter().flatten());
    let shares = rings
        .filter(|ring| ring["service"] == service.as_str())
        .filter_map(|ring| ring["share"].as_f64());
    Ok(shares.sum::<f64>() * 100.0)
}

fn gateway_status(fleet: &Fleet) -> Value {
    let gateway = fleet.fleet.get(Resource::AlbConfigs, None, "mcg");
    gateway.map_or(Value::Null, |it| it["status"]["loadBalancer"].clone())
}

#[test]
fn the_four_scenarios_serve_and_are_written_back() -> Result<()> {
    let mut fleet = Fleet::empty()?;
    fleet.apply(&objects())?;
    for (path, text) in manifests::clusters("web", HTTP_PORT, "None", |_| true) {
        let id = path.split('/').nth(1).context("a cluster's file")?;
        put(fleet.member(id), &text)?;
    }
    fleet.gateway.start()?;
    eventually("the fleet was read", || {
        let said = wire::outcome(DEFAULT);
        Ok((said.contains("-p"), said))
    })?;

    for (port, asked) in [(DEFAULT, 40.0), (WEIGHTED, 60.0), (SINGLE, 100.0)] {
        let ring = ring_of_c1(&fleet, port)?;
        assert!((ring - asked).abs() < 0.2, "{port}: {ring}");
        let served = share_of_c1(port, &[])?;
        // Four standard deviations of 300 connections are 11.3.
        assert!((served - asked).abs() < 11.4, "{port}: {served}");
        assert_eq!(fleet.gateway.steering(port)?.0, "connection");
    }
    assert!((share_of_c1(HEADER, &[])? - 100.0).abs() < 0.1);
    assert!(share_of_c1(HEADER, &[("stage", "gray")])? < 0.1);
    assert_eq!(fleet.gateway.steering(HEADER)?.0, "request");

    // Without a suffix, gateways are known by their addresses.
    eventually("the gateway's status", || {
        let shown = gateway_status(&fleet);
        let wanted = json!({"dnsname": VIP.to_string(), "id": "fleetgate-mcg", "listeners": [],
            "subClusters": ["c1", "c2"]});
        Ok((shown == wanted, shown))
    })?;
    for name in ["default", "weighted", "single", "gray", "otherwise"] {
        eventually(name, || {
            let shown = fleet.status(name);
            let reasons: Vec<String> = fleet.events(name).into_iter().map(|it| it.0).collect();
            let wanted = json!({"ingress": [{"ip": VIP.to_string()}]});
            Ok((
                shown == wanted && reasons == ["SuccessfullyReconciled"],
                (shown, reasons),
            ))
        })?;
    }
    let status = fleet.gateway.json(&["status"])?;
    assert_eq!(status["problems"], json!([]));
    assert_eq!(status["listeners"], json!({"connection": 3, "request": 1}));
    assert_eq!(status["backends"]["active"], 5);
    let routes = fleet.gateway.json(&["routes"])?;
    let rules: Vec<&str> = routes
        .as_array()
        .context("an array")?
        .iter()
        .flat_map(|route| route["rules"].as_array().into_iter().flatten())
        .filter_map(|rule| rule["ingress"].as_str())
        .collect();
    assert_eq!(
        rules,
        [
            "demo/default",
            "demo/weighted",
            "demo/single",
            "demo/gray",
            "demo/otherwise"
        ]
    );

    // With one, by their names.
    let suffix = ["--dns-suffix".to_owned(), "gw.example.com".to_owned()];
    fleet.gateway.arguments.extend(suffix);
    assert!(fleet.gateway.stop()?.success());
    fleet.gateway.start()?;
    let host = "mcg.gw.example.com";
    eventually("the names are written", || {
        let shown = (gateway_status(&fleet), fleet.status("gray"));
        let named =
            shown.0["dnsname"] == host && shown.1 == json!({"ingress": [{"hostname": host}]});
        Ok((named, shown))
    })?;
    assert_eq!(fleet.events("gray").len(), 1, "{:?}", fleet.events("gray"));
    Ok(())
}
