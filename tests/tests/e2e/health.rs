//! Health checks on real connections. Each pod answers probes on a port of its own, so that it may fail them while its
//! other connections live on.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use fleetgate_tests::e2e::{
    Gateway, eventually,
    manifests::{Ingress, WEB},
    pod_named,
    wire::{self, Held},
};
use serde_json::Value;
use xtask::{
    lab::topology::{self, Pod},
    netns,
};

/// Where pods answer probes.
const PORT: u16 = 9090;
/// Two bad answers, one second apart, take a pod out; two good ones bring it back.
const THRESHOLD: Duration = Duration::from_secs(2);
/// Says nothing.
const SILENT: u16 = 0;

/// What the pods answer to probes.
struct Vitals {
    answers: BTreeMap<String, Arc<AtomicU16>>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Vitals {
    fn start() -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let mut vitals = Self {
            answers: BTreeMap::new(),
            over: Arc::clone(&over),
            threads: Vec::new(),
        };
        for Pod {
            name,
            namespace,
            address,
            ..
        } in topology::pods()
        {
            let listener = netns::inside(&namespace, || TcpListener::bind((address, PORT)))??;
            listener.set_nonblocking(true)?;
            let answer = Arc::new(AtomicU16::new(200));
            let (over, its) = (Arc::clone(&over), Arc::clone(&answer));
            vitals
                .threads
                .push(thread::spawn(move || serve(&listener, &its, &over)));
            vitals.answers.insert(name, answer);
        }
        Ok(vitals)
    }

    /// Pods whose names begin so answer with this status from now on.
    fn answer(&self, begins: &str, status: u16) {
        let pods = self.answers.iter();
        for (_, answer) in pods.filter(|(name, _)| name.starts_with(begins)) {
            answer.store(status, Relaxed);
        }
    }
}

impl Drop for Vitals {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, answer: &AtomicU16, over: &AtomicBool) {
    // Connections that get no answer are held until the probe gives up.
    let mut held: Vec<TcpStream> = Vec::new();
    while !over.load(Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        let status = answer.load(Relaxed);
        if status == SILENT {
            held.truncate(16);
            held.insert(0, stream);
            continue;
        }
        let _ = stream.set_nonblocking(false);
        let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
        let _ = stream.read(&mut [0; 512]);
        let head = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let _ = stream.write_all(head.as_bytes());
    }
}

/// Everything on the listener to all pods, which are probed every second; two answers count.
fn checked() -> Ingress {
    let alb = |key: &str| format!("alb.ingress.kubernetes.io/{key}");
    [
        ("healthcheck-enabled", "true"),
        ("healthcheck-path", "/vital"),
        ("healthcheck-connect-port", "9090"),
        ("healthcheck-interval-seconds", "1"),
        ("healthcheck-timeout-seconds", "1"),
        ("healthy-threshold-count", "2"),
        ("unhealthy-threshold-count", "2"),
    ]
    .into_iter()
    .fold(Ingress::new("web", WEB), |ingress, (key, value)| {
        ingress.note(&alb(key), value)
    })
}

/// A gateway that serves this, with pods that answer their probes.
fn running(ingress: &Ingress) -> Result<(Gateway, Vitals)> {
    let mut gateway = Gateway::new()?;
    gateway.write("fleet/web.yaml", &ingress.yaml())?;
    let vitals = Vitals::start()?;
    gateway.start()?;
    Ok((gateway, vitals))
}

/// Waits until new connections reach these pods (by the beginning of `cluster/pod`) and no others.
fn reach(what: &str, all: &[&str]) -> Result<()> {
    eventually(what, || {
        let tally = wire::burst(WEB, 60)?;
        assert_eq!(tally.failed(), 0, "{what}: {tally:?}");
        let expected = |pod: &String| all.iter().any(|begins| pod.starts_with(begins));
        let each = |begins: &&str| tally.by_pod.keys().any(|pod| pod.starts_with(*begins));
        Ok((
            tally.by_pod.keys().all(expected) && all.iter().all(each),
            tally,
        ))
    })
}

/// The backend of a pod, as `fleetgate backends` shows it.
fn backend(gateway: &Gateway, pod: &str) -> Result<Value> {
    let all = gateway.json(&["backends"])?;
    let all = all.as_array().context("an array")?;
    let found = all.iter().find(|it| it["pod"] == pod);
    found
        .cloned()
        .with_context(|| format!("no {pod} in {all:?}"))
}

const EVERY: [&str; 5] = ["c1/c1-p1", "c1/c1-p2", "c2/c2-p1", "c2/c2-p2", "c2/c2-p3"];

#[test]
fn a_pod_that_fails_its_checks_is_taken_out_keeps_its_connections_and_comes_back() -> Result<()> {
    let (mut gateway, vitals) = running(&checked())?;
    let mut held = Held::open(WEB, 60)?;
    assert!(held.0.iter().any(|(_, pod)| pod == "c1-p1"));
    let before = backend(&gateway, "c1-p1")?;
    let tally = wire::under_load(WEB, || {
        for (status, why) in [(500, "answers 500"), (SILENT, "does not answer in time")] {
            vitals.answer("c1-p1", status);
            reach("it is taken out", &EVERY[1..])?;
            // Its entry follows the ring after a grace period.
            eventually("it is quarantined", || {
                let out = backend(&gateway, "c1-p1")?;
                let told = out["why"][0].as_str().is_some_and(|it| it.contains(why));
                Ok((out["state"] == "quarantined" && told, out))
            })?;
            let ran = gateway.cli(&["backends"])?;
            assert!(ran.out.contains(why), "{ran:?}");
            held.stay()?;
            vitals.answer("c1-p1", 200);
            reach("it is back", &EVERY)?;
        }
        held.stay()
    })?;
    assert_eq!(tally.failed(), 0, "{tally:?}");
    let after = backend(&gateway, "c1-p1")?;
    assert_eq!(
        (&after["state"], &after["id"], &after["generation"]),
        (&Value::from("active"), &before["id"], &before["generation"])
    );

    // An agent that starts anew trusts no pod that failed.
    vitals.answer("c1-p1", 500);
    reach("it is taken out again", &EVERY[1..])?;
    gateway.kill()?;
    gateway.start()?;
    let tally = wire::burst(WEB, 100)?;
    assert_eq!(tally.failed(), 0, "{tally:?}");
    assert!(!tally.by_pod.contains_key("c1/c1-p1"), "{tally:?}");
    vitals.answer("c1-p1", 200);
    reach("it is back after the restart", &EVERY)?;
    held.stay()
}

#[test]
fn the_proxy_leaves_a_pod_out_that_fails_and_takes_it_back() -> Result<()> {
    let (gateway, vitals) = running(&checked().steering("request"))?;
    assert_eq!(gateway.steering(WEB)?.0, "request");
    let tally = wire::under_load(WEB, || {
        vitals.answer("c2-p3", 404);
        reach("it is taken out", &EVERY[..4])?;
        eventually("it is told why", || {
            let routes = gateway.json(&["routes"])?;
            let failing = &routes[0]["rules"][0]["failing"][0];
            let told = failing["pod"] == "c2-p3" && failing["why"] == "answers 404";
            Ok((told, routes))
        })?;
        vitals.answer("c2-p3", 200);
        reach("it is back", &EVERY)
    })?;
    assert_eq!(tally.failed(), 0, "{tally:?}");
    Ok(())
}

#[test]
fn a_cluster_that_fails_is_left_for_the_other_and_when_all_fail_all_serve() -> Result<()> {
    let (gateway, vitals) = running(&checked().weights(&[("c1", 60), ("c2", 40)]))?;
    let mut held = Held::open(WEB, 20)?;
    let open = || -> Result<String> {
        let metrics = gateway.admin("/metrics")?.1;
        let line = metrics
            .lines()
            .find(|it| it.starts_with("fleetgate_health_open{"));
        Ok(line.context("no gauge")?.to_owned())
    };
    let tally = wire::under_load(WEB, || {
        vitals.answer("c1", 503);
        reach("only the other cluster serves", &["c2/"])?;
        eventually("it is not open", || {
            open().map(|it| (it.ends_with(" 0"), it))
        })?;
        vitals.answer("c2", 503);
        reach("all serve because none passes", &EVERY)?;
        eventually("it is open", || open().map(|it| (it.ends_with(" 1"), it)))?;
        gateway.until_steering(WEB, "connection", "")?;
        let one = backend(&gateway, "c2-p1")?;
        assert_eq!(one["state"], "active", "{one}");
        assert!(
            one["why"][0]
                .as_str()
                .is_some_and(|it| it.contains("so they serve")),
            "{one}"
        );
        vitals.answer("c2-p1", 200);
        reach("the one that passes serves alone", &["c2/c2-p1"])?;
        vitals.answer("c", 200);
        reach("all serve again", &EVERY)
    })?;
    assert_eq!(tally.failed(), 0, "{tally:?}");
    held.stay()
}

#[test]
fn a_flapping_pod_resets_nothing_and_does_not_fill_the_log() -> Result<()> {
    let (gateway, vitals) = running(&checked())?;
    let mut held = Held::open(WEB, 30)?;
    let started = Instant::now();
    let tally = wire::under_load(WEB, || {
        for _ in 0..3 {
            for status in [500, 200] {
                vitals.answer("c", status);
                // Just long enough for a verdict.
                thread::sleep(THRESHOLD + Duration::from_millis(300));
                held.stay()?;
            }
        }
        Ok(())
    })?;
    assert_eq!(tally.failed(), 0, "{tally:?}");
    let log = gateway.log()?;
    let lines = log
        .lines()
        .filter(|line| line.contains("health check"))
        .count() as u64;
    assert!(lines >= 10, "it flapped: {lines}\n{log}");
    assert!(lines <= 12 * (started.elapsed().as_secs() + 1), "{lines}");
    assert_eq!(
        gateway.problems()?,
        [],
        "a pod that fails is nobody's mistake"
    );
    Ok(())
}

#[test]
fn a_pod_that_cannot_be_reached_fails_a_tcp_check() -> Result<()> {
    let ingress = checked()
        .note("alb.ingress.kubernetes.io/healthcheck-protocol", "TCP")
        .note("fleetgate.io/steering", "connection");
    let (gateway, _vitals) = running(&ingress)?;
    reach("all serve", &EVERY)?;
    let pod = pod_named("c1-p2")?;
    // The router's end: what the pod knows of its network stays.
    gateway.ip("fg-c1", &format!("link set {} down", pod.device))?;
    eventually("it is taken out", || {
        let it = backend(&gateway, "c1-p2")?;
        Ok((it["state"] == "quarantined", it))
    })?;
    let tally = wire::burst(WEB, 60)?;
    assert_eq!(tally.failed(), 0, "{tally:?}");
    gateway.ip("fg-c1", &format!("link set {} up", pod.device))?;
    let route = format!("route replace {}/32 dev {}", pod.address, pod.device);
    gateway.ip("fg-c1", &route)?;
    reach("it is back", &EVERY)
}
