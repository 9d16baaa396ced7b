//! The command line, with the agent down and with nothing pinned.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use fleetgate_tests::e2e::{
    Gateway, VIP,
    manifests::{self, Ingress, WEB},
    wire::{self, Conn, Held},
};
use gateway_user::dataplane::{pins::Pins, record::Record, tables::Tables};
use serde_json::Value;
use xtask::lab::topology;

const COMMANDS: [&str; 6] = ["status", "routes", "services", "backends", "flows", "stats"];

#[test]
fn inspection_with_the_agent_down_says_what_is_true() -> Result<()> {
    let mut gateway = Gateway::new()?;
    let weighted = Ingress::new("web", WEB).weights(&[("c1", 60), ("c2", 40)]);
    let by_path = Ingress::new("shop", 8002).path("/shop");
    gateway.write("fleet/gateway.yaml", &manifests::gateway(&[WEB, 8002], ""))?;
    gateway.write("fleet/web.yaml", &(weighted.yaml() + &by_path.yaml()))?;
    gateway.start()?;
    gateway.kill()?;
    let open = Held::open(WEB, 12)?.0;

    for command in COMMANDS {
        let table = gateway.cli(&[command])?;
        assert_eq!(
            (table.code, table.err.as_str()),
            (0, ""),
            "{command}: {table:?}"
        );
        assert!(table.out.lines().count() > 1, "{command}: {table:?}");
        let json = gateway.cli(&[command, "-o", "json"])?;
        assert_eq!(
            (json.code, json.err.as_str()),
            (0, ""),
            "{command}: {json:?}"
        );
        let _: Value = serde_json::from_str(&json.out).context(command)?;
    }

    let status = gateway.json(&["status"])?;
    assert_eq!(status["agent"]["alive"], false);
    assert_eq!(status["listeners"]["connection"], 1);
    assert_eq!(status["listeners"]["request"], 1);
    assert_eq!(status["backends"]["active"], 5, "{}", status["backends"]);
    assert_eq!(status["flows"]["flows"], 12);
    assert_eq!(status["problems"], serde_json::json!([]));
    assert_eq!(status["dropped"]["packets"], 0);

    assert_eq!(gateway.steering(WEB)?.0, "connection");
    assert_eq!(gateway.steering(8002)?.0, "request");

    let services = gateway.json(&["services"])?;
    let services = services.as_array().context("an array")?;
    assert_eq!(services.len(), 2);
    for service in services {
        assert_eq!(service["agrees"], true, "{service}");
        let kernel = service["address"] == format!("tcp/{VIP}:{WEB}");
        assert_eq!(
            service["mode"],
            if kernel { "connection" } else { "request" }
        );
        if kernel {
            assert_eq!(service["traffic"]["flows_opened"], 12, "{service}");
        }
    }

    let flows = gateway.json(&["flows"])?;
    assert_eq!(flows["total"], 12);
    for (conn, pod) in &open {
        let local = conn.local()?.to_string();
        let flows = flows["flows"].as_array().context("an array")?;
        let flow = flows.iter().find(|flow| flow["client"] == local);
        let flow = flow.with_context(|| format!("no flow of {local}"))?;
        assert_eq!(flow["pod"], pod.as_str());
        assert_eq!(flow["state"], "established");
        assert_eq!(flow["complete"], true);
    }

    let backends = gateway.json(&["backends"])?;
    for backend in backends.as_array().context("an array")? {
        let pod = backend["pod"].as_str().context("a name")?;
        let live = open.iter().filter(|(_, name)| name == pod).count();
        assert_eq!(backend["live_flows"], live, "{backend}");
        let asked = if backend["cluster"] == "c1" {
            0.60 / 2.0
        } else {
            0.40 / 3.0
        };
        let share = backend["rings"][0]["share"].as_f64().context("a share")?;
        assert!((share - asked).abs() < 0.002, "{backend}");
    }
    assert_eq!(
        backends.as_array().map(Vec::len),
        Some(topology::pods().len())
    );

    let stats = gateway.json(&["stats"])?;
    assert_eq!(stats["forwarded"]["flows_opened"], 12);
    Ok(())
}

#[test]
fn without_pins_inspection_says_so_and_exits_with_3() -> Result<()> {
    let gateway = Gateway::new()?;
    let trace = [
        "trace",
        "--from",
        "10.210.0.2:4000",
        "--to",
        "10.210.0.1:8001",
    ];
    for command in COMMANDS
        .iter()
        .map(std::slice::from_ref)
        .chain([&trace[..]])
    {
        let ran = gateway.cli(command)?;
        assert_eq!(
            (ran.code, ran.out.as_str()),
            (3, ""),
            "{command:?}: {ran:?}"
        );
        let pins = gateway.pins().display().to_string();
        assert!(ran.err.contains(&pins), "{command:?}: {ran:?}");
    }
    Ok(())
}

#[test]
fn trace_names_the_pod_that_a_connection_from_that_port_then_reaches() -> Result<()> {
    let mut gateway = Gateway::new()?;
    let by_path = Ingress::new("shop", 8002)
        .path("/shop")
        .weights(&[("c2", 100)]);
    let gray = Ingress::new("gray", 8002)
        .note("alb.ingress.kubernetes.io/order", "1")
        .note(
            "alb.ingress.kubernetes.io/conditions.web",
            r#"[{"type": "Header", "headerConfig": {"key": "stage", "values": ["gray"]}}]"#,
        )
        .weights(&[("c1", 100)]);
    gateway.write("fleet/gateway.yaml", &manifests::gateway(&[WEB, 8002], ""))?;
    gateway.write("fleet/shop.yaml", &(by_path.yaml() + &gray.yaml()))?;
    gateway.start()?;

    let mut seen = std::collections::BTreeSet::new();
    for port in 41_000..41_020 {
        let from = format!("{}:{port}", topology::CLIENT_ADDRESS);
        let to = format!("{VIP}:{WEB}");
        let before = gateway.json(&["trace", "--from", &from, "--to", &to])?;
        assert_eq!(before["answer"], "forwarded", "{before}");
        assert_eq!(before["kernel"]["opened"], true, "{before}");
        let mut conn = Conn::from_port(port, (VIP, WEB))?;
        let answer = conn.get("/headers", "")?;
        let pod = answer.pod()?;
        assert_eq!(
            before["kernel"]["backend"]["pod"],
            pod.as_str(),
            "from port {port}"
        );
        let after = gateway.json(&["trace", "--from", &from, "--to", &to])?;
        assert_eq!(after["kernel"]["opened"], false, "{after}");
        assert_eq!(after["kernel"]["backend"]["pod"], pod.as_str());
        assert_eq!(
            after["kernel"]["source"],
            answer.json()?["peer"],
            "from port {port}"
        );
        seen.insert(pod);
    }
    assert!(seen.len() > 2, "20 ports reached only {seen:?}");

    for (path, header, cluster, ingress) in [
        ("/shop/cart", None, Some("c2"), "shop"),
        ("/anything", Some("stage: gray"), Some("c1"), "gray"),
        ("/anything", None, None, ""),
    ] {
        let line = format!("GET {path}");
        let to = format!("{VIP}:8002");
        let mut arguments = vec![
            "trace",
            "--from",
            "10.210.0.2",
            "--to",
            &to,
            "--request",
            &line,
        ];
        arguments.extend(header.iter().flat_map(|header| ["--header", *header]));
        let said = gateway.json(&arguments)?;
        assert_eq!(said["steering"], "request", "{said}");
        let field = header.map_or_else(String::new, |header| format!("{header}\r\n"));
        let answer = wire::get(8002, path, &field)?;
        let Some(cluster) = cluster else {
            assert_eq!(
                (&said["answer"], answer.status),
                (&Value::from("refused"), 404),
                "{said}"
            );
            continue;
        };
        assert_eq!(said["answer"], "proxied", "{said}");
        let tried = said["request"]["tried"].as_array().context("tried rules")?;
        let matched = tried
            .iter()
            .find(|rule| rule["matched"] == true)
            .context("a rule")?;
        assert_eq!(matched["ingress"], format!("demo/{ingress}"));
        let backends = said["request"]["backends"].as_array().context("backends")?;
        assert!(
            backends.iter().all(|one| one["cluster"] == cluster),
            "{said}"
        );
        assert_eq!(answer.json()?["cluster"], cluster, "{path} {header:?}");
    }
    Ok(())
}

#[test]
fn the_record_can_be_read_at_every_moment_while_the_agent_writes_it() -> Result<()> {
    let gateway = Gateway::running()?;
    let tables = Tables::open(&Pins::new(gateway.pins()))?;
    let over = AtomicBool::new(false);
    let reads = thread::scope(|scope| {
        let reader = scope.spawn(|| -> Result<u32> {
            let mut reads = 0;
            while !over.load(Ordering::Relaxed) {
                Record::load(&tables)?.context("no record")?;
                reads += 1;
            }
            Ok(reads)
        });
        for round in 0..10_u8 {
            // Records of other lengths, so that half of one with half of another is no JSON.
            let name = "w".repeat(usize::from(round) * 5 + 1);
            let weighted =
                Ingress::new(&name, WEB).weights(&[("c1", 30 + round), ("c2", 70 - round)]);
            let written = gateway.write("fleet/web.yaml", &weighted.yaml());
            assert!(written.is_ok(), "{written:?}");
            thread::sleep(Duration::from_millis(150));
        }
        over.store(true, Ordering::Relaxed);
        reader.join().ok().context("the reader panicked")?
    })?;
    assert!(reads > 100, "{reads}");
    Ok(())
}
