//! Probes and metrics.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use fleetgate_tests::e2e::{
    Gateway, PATIENCE,
    manifests::{self, Ingress, WEB},
    wire,
};
use xtask::{client, lab::topology::GATEWAY, netns};

#[test]
fn readyz_is_503_until_the_plan_is_in_the_kernel() -> Result<()> {
    let mut gateway = Gateway::new()?;
    gateway.launch()?;
    let admin = SocketAddr::from(([127, 0, 0, 1], 9620));
    let statuses = netns::inside(GATEWAY, || {
        let give_up = Instant::now() + PATIENCE;
        let mut statuses = Vec::new();
        while Instant::now() < give_up {
            match client::get(admin, "/readyz") {
                Ok((status, _)) => statuses.push(status),
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
            if statuses.last() == Some(&200) {
                break;
            }
        }
        statuses
    })?;
    // The moment it is ready, it steers.
    let tally = wire::burst(WEB, 50)?;
    assert_eq!((tally.requests, tally.failed()), (50, 0), "{tally:?}");
    assert_eq!(statuses.first(), Some(&503), "{statuses:?}");
    assert_eq!(statuses.last(), Some(&200), "{statuses:?}");
    assert_eq!(gateway.admin("/healthz")?.0, 200);
    Ok(())
}

/// Prometheus text format: samples by name and labels. Everything must parse, and every sample must have a type.
fn samples(text: &str) -> Result<BTreeMap<String, f64>> {
    let mut types = BTreeMap::new();
    let mut samples = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').with_context(|| line.to_owned())?;
            types.insert(name.to_owned(), kind.to_owned());
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
        let value: f64 = value.parse().with_context(|| line.to_owned())?;
        let name = series.split('{').next().unwrap_or(series);
        let suffixes = ["", "_total", "_bucket", "_sum", "_count"];
        let known = suffixes.iter().any(|suffix| {
            let name = name.strip_suffix(suffix);
            name.is_some_and(|name| types.contains_key(name))
        });
        if !known
            || !name.starts_with("fleetgate_")
            || series.contains('{') != series.ends_with('}')
        {
            bail!("not a sample of a known metric: {line}");
        }
        if samples.insert(series.to_owned(), value).is_some() {
            bail!("twice: {series}");
        }
    }
    Ok(samples)
}

#[test]
fn metrics_parse_and_count_what_happened() -> Result<()> {
    let mut gateway = Gateway::new()?;
    gateway.write("fleet/gateway.yaml", &manifests::gateway(&[WEB, 8002], ""))?;
    let by_path = Ingress::new("shop", 8002).path("/shop");
    gateway.write("fleet/shop.yaml", &by_path.yaml())?;
    gateway.start()?;
    let scrape = || -> Result<BTreeMap<String, f64>> {
        let (status, text) = gateway.admin("/metrics")?;
        assert_eq!(status, 200, "{text}");
        samples(&text)
    };
    let before = scrape()?;
    assert_eq!(wire::burst(WEB, 100)?.failed(), 0);
    for _ in 0..7 {
        assert_eq!(wire::get(8002, "/shop", "")?.status, 200);
    }
    for _ in 0..3 {
        assert_eq!(wire::get(8002, "/", "")?.status, 404);
    }
    let after = scrape()?;
    // Sum of the growth over the series of a metric whose labels hold this text.
    let grown = |name: &str, label: &str| -> f64 {
        after
            .iter()
            .filter(|(series, _)| series.split('{').next() == Some(name) && series.contains(label))
            .map(|(series, now)| now - before.get(series).copied().unwrap_or_default())
            .sum()
    };
    for (name, label, wanted) in [
        ("fleetgate_service_flows_opened_total", ":8001\"", 100.0),
        ("fleetgate_backend_flows_opened_total", "", 100.0),
        ("fleetgate_proxy_requests_total", "", 10.0),
        ("fleetgate_proxy_responses_total", "2xx", 7.0),
        ("fleetgate_proxy_responses_total", "4xx", 3.0),
        ("fleetgate_proxy_failures_total", "no-rule", 3.0),
        ("fleetgate_proxy_connections_total", "", 10.0),
        ("fleetgate_dropped_packets_total", "", 0.0),
    ] {
        assert_eq!(grown(name, label), wanted, "{name} {label}: {after:#?}");
    }
    for direction in ["\"in\"", "\"out\""] {
        // A connection of one request is at least SYN, ACK, request and FIN, and as much the other way.
        assert!(
            grown("fleetgate_service_packets_total", direction) >= 400.0,
            "{after:#?}"
        );
        assert!(
            grown("fleetgate_backend_bytes_total", direction) >= 20_000.0,
            "{after:#?}"
        );
    }
    assert!(
        grown("fleetgate_passed_packets_total", "proxy") >= 40.0,
        "{after:#?}"
    );
    for (series, was) in &before {
        if series
            .split('{')
            .next()
            .is_some_and(|name| name.ends_with("_total"))
        {
            assert!(
                after.get(series).is_some_and(|now| now >= was),
                "{series} went back"
            );
        }
    }
    Ok(())
}
