//! What runs inside a guest, as root of a machine that has nothing else: namespaces for a client, a gateway and two pods,
//! the agent with each way of attaching, and real connections through it.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use super::{RESULT, Report};
use crate::{
    client::{self, Job},
    console,
    member::{self, Endpoint, Port},
    netns,
    process::{self, Known},
};

const AGENT: &str = "/fg/fleetgate";
const LOG: &str = "/tmp/agent.log";
const MANIFESTS: &str = "/tmp/manifests";
const CLIENT: &str = "fg-client";
const GATEWAY: &str = "fg-gw";
const PODS: &str = "fg-pods";
const VIP: Ipv4Addr = Ipv4Addr::new(10, 210, 0, 1);
/// Where pods listen.
const PORT: u16 = 8080;
/// Listener that the kernel steers.
const WEB: u16 = 8001;
/// Listener that the proxy steers.
const PROXIED: u16 = 8002;
/// Listener for datagrams, and where pods get them.
const ECHO: u16 = 5300;
/// Datagrams of each round, each from a port of its own.
const DATAGRAMS: u64 = 20;
/// How long the agent may take to be ready; nothing is fast without KVM.
const PATIENCE: Duration = Duration::from_secs(90);

/// Ways to attach, one after the other on the same pins: each takes over what the one before it left. Every kernel has
/// clsact; which of the two `auto` becomes is the kernel's affair.
const RUNS: [&[&str]; 4] = [
    &["--xdp", "off", "--tc", "auto"],
    &["--xdp", "off", "--tc", "clsact"],
    &["--xdp", "native", "--tc", "clsact"],
    &["--xdp", "native", "--tc", "auto"],
];

/// The same on interfaces with a large MTU.
const FRAGS: &[&str] = &["--xdp", "native", "--tc", "auto"];

/// Runs the test and prints its result for [`super::run`].
pub fn run() -> Result<()> {
    let mut report = Report::default();
    if let Err(error) = test(&mut report) {
        let log = fs::read_to_string(LOG).unwrap_or_default();
        console::note(process::last_lines(&log, 30));
        report.failure = Some(format!("{error:#}"));
    }
    console::say(format_args!("{RESULT}{}", serde_json::to_string(&report)?));
    Ok(())
}

fn test(report: &mut Report) -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    report.release = release.trim().to_owned();
    wires().context("namespaces and cables")?;
    manifests()?;
    let mut pods = Vec::new();
    for (name, address) in [("p1", "10.221.0.11"), ("p2", "10.221.0.12")] {
        let listen = format!("{address}:{PORT}");
        let mut pod = netns::command(PODS, "/fg/xtask");
        pod.args([
            "lab-pod",
            "--cluster",
            "c1",
            "--pod",
            name,
            "--listen",
            &listen,
        ]);
        pods.push(pod.stdin(Stdio::null()).spawn().context("a pod")?);
        echo(name, address)?;
    }
    for arguments in RUNS {
        let name = arguments.join(" ");
        round(report, arguments).with_context(|| name.clone())?;
    }
    // Frames in several buffers: drivers refuse the plain program at such an MTU, and such an MTU with the plain program.
    fleetgate(&["unload"])?;
    for (namespace, devices) in [
        (GATEWAY, &["cl0", "c1"][..]),
        (CLIENT, &["eth0"]),
        (PODS, &["eth0"]),
    ] {
        let lines = devices
            .iter()
            .map(|device| format!("link set {device} mtu 9000"));
        netns::ip_batch(Some(namespace), &lines.collect::<Vec<_>>())?;
    }
    round(report, FRAGS).context("MTU 9000")?;
    let frags = report
        .attached
        .last()
        .is_some_and(|(_, hooks)| hooks.contains("frags"));
    ensure!(
        frags,
        "with an MTU of 9000 not attached for frames in several buffers"
    );
    fleetgate(&["unload"])?;
    let refused = burst(WEB, 1)?;
    ensure!(refused.requests == 0, "unloaded, and it still steers");
    for mut pod in pods {
        pod.kill()?;
        pod.wait()?;
    }
    Ok(())
}

fn round(report: &mut Report, arguments: &[&str]) -> Result<()> {
    let mut agent = start(arguments)?;
    let ready = ready(&mut agent);
    let served = ready.and_then(|()| serve(report, arguments));
    if let Some(known) = Known::of(agent.id(), "agent") {
        known.signal(Signal::TERM);
    }
    agent.wait()?;
    served?;
    // The kernel steers on without an agent.
    let tally = burst(WEB, 10)?;
    ensure!(tally.requests == 10, "without an agent: {tally:?}");
    report.answered += tally.requests;
    Ok(())
}

fn serve(report: &mut Report, arguments: &[&str]) -> Result<()> {
    for (port, connections) in [(WEB, 60), (PROXIED, 10)] {
        let tally = burst(port, connections)?;
        ensure!(
            tally.requests == connections && tally.failed() == 0,
            "listener {port}: {tally:?}"
        );
        ensure!(
            tally.by_pod.len() == 2,
            "listener {port} reaches one pod: {tally:?}"
        );
        report.answered += tally.requests;
    }
    report.answered += datagrams()?;
    let status = fleetgate(&["status", "-o", "json"])?;
    let status: serde_json::Value = serde_json::from_str(&status)?;
    let hooks = &status["interfaces"][0]["hooks"];
    let hooks = hooks.as_str().context("status names no hooks")?.to_owned();
    let native = arguments.contains(&"native");
    ensure!(
        hooks.contains("xdp native") == native,
        "attached as {hooks}"
    );
    ensure!(
        !arguments.contains(&"clsact") || hooks.ends_with("clsact"),
        "attached as {hooks}"
    );
    report.attached.push((arguments.join(" "), hooks));
    let log = fs::read_to_string(LOG)?;
    report.verified = log.lines().filter_map(verified).collect();
    Ok(())
}

/// Of the agent's log: `... loaded program="fleetgate_xdp" verified_instructions=4711`.
fn verified(line: &str) -> Option<(String, u32)> {
    let (_, rest) = line.split_once("program=\"")?;
    let (name, rest) = rest.split_once('"')?;
    let (_, count) = rest.split_once("verified_instructions=")?;
    let count = count.split_whitespace().next()?.parse().ok()?;
    Some((name.trim_start_matches("fleetgate_").to_owned(), count))
}

fn start(arguments: &[&str]) -> Result<Child> {
    let log = File::create(LOG)?;
    let mut agent: Command = netns::command(GATEWAY, AGENT);
    agent
        .args([
            "run",
            "--manifests",
            MANIFESTS,
            "--interface",
            "cl0",
            "--interface",
            "c1",
        ])
        .args(["--max-flows", "4096"])
        .args(arguments)
        .env("RUST_LOG", "info,gateway_user::dataplane::load=debug")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    agent.spawn().context("the agent does not start")
}

fn ready(agent: &mut Child) -> Result<()> {
    let give_up = Instant::now() + PATIENCE;
    let admin = SocketAddr::from(([127, 0, 0, 1], 9620));
    loop {
        if let Some(status) = agent.try_wait()? {
            let log = fs::read_to_string(LOG).unwrap_or_default();
            bail!(
                "the agent ended ({status}): {}",
                process::last_lines(log.trim(), 12)
            );
        }
        let said = netns::inside(GATEWAY, || client::get(admin, "/readyz"))?;
        if matches!(said, Ok((200, _))) {
            return Ok(());
        }
        ensure!(Instant::now() < give_up, "the agent is not ready: {said:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn burst(port: u16, connections: u64) -> Result<client::Tally> {
    let job = Job {
        threads: 4,
        ..Job::connections((VIP, port).into(), connections)
    };
    netns::inside(CLIENT, || client::run(&job))
}

/// A pod answers datagrams with its name, until the guest ends.
fn echo(name: &'static str, address: &str) -> Result<()> {
    let bound = (address.parse::<Ipv4Addr>()?, ECHO);
    let socket = netns::inside(PODS, || UdpSocket::bind(bound))??;
    thread::spawn(move || {
        let mut datagram = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut datagram) {
            // The client sends again what got no answer.
            let _ = socket.send_to(name.as_bytes(), from);
        }
    });
    Ok(())
}

/// Sends datagrams through the gateway; every one must be answered, and by both pods.
fn datagrams() -> Result<u64> {
    let mut pods = BTreeSet::new();
    for _ in 0..DATAGRAMS {
        let socket = netns::inside(CLIENT, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut answer = [0; 64];
        let mut ask = || -> std::io::Result<usize> {
            socket.send_to(b"who", (VIP, ECHO))?;
            socket.recv(&mut answer)
        };
        // Nobody sends a lost datagram again but us.
        let length = ask()
            .or_else(|_| ask())
            .context("a datagram got no answer")?;
        pods.insert(answer[..length].to_vec());
    }
    ensure!(pods.len() == 2, "datagrams reach one pod");
    Ok(DATAGRAMS)
}

fn fleetgate(arguments: &[&str]) -> Result<String> {
    process::output(netns::command(GATEWAY, AGENT).args(arguments))
}

fn wires() -> Result<()> {
    let lines = |all: &[&str]| -> Vec<String> { all.iter().map(|l| (*l).to_owned()).collect() };
    let add = [CLIENT, GATEWAY, PODS].map(|name| format!("netns add {name}"));
    netns::ip_batch(None, &add)?;
    netns::inside(GATEWAY, || fs::write("/proc/sys/net/ipv4/ip_forward", "1"))??;
    netns::ip_batch(
        None,
        &[
            format!("link add cl0 netns {GATEWAY} type veth peer name eth0 netns {CLIENT}"),
            format!("link add c1 netns {GATEWAY} type veth peer name eth0 netns {PODS}"),
        ],
    )?;
    netns::ip_batch(
        Some(GATEWAY),
        &lines(&[
            "link set lo up",
            "addr add 10.210.0.1/24 dev cl0",
            "addr add 10.221.0.1/24 dev c1",
            "link set cl0 up",
            "link set c1 up",
        ]),
    )?;
    for (name, addresses) in [
        (CLIENT, &["10.210.0.2/24"][..]),
        (PODS, &["10.221.0.11/24", "10.221.0.12/24"][..]),
    ] {
        let mut all = lines(&["link set lo up", "link set eth0 up"]);
        all.extend(
            addresses
                .iter()
                .map(|one| format!("addr add {one} dev eth0")),
        );
        netns::ip_batch(Some(name), &all)?;
        // XDP on a virtual link sees frames as their sender left them: their checksums must be whole.
        let mut ethtool = netns::command(name, "ethtool");
        process::output(ethtool.args(["-K", "eth0", "tx", "off", "gro", "on"]))?;
    }
    Ok(())
}

fn manifests() -> Result<()> {
    let write = |path: &str, text: &str| -> Result<()> {
        let path = Path::new(MANIFESTS).join(path);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        Ok(fs::write(path, text)?)
    };
    write("fleet/gateway.yaml", GATEWAY_YAML)?;
    let ingress = |name: &str, port: u16, note: &str| {
        INGRESS_YAML
            .replace("NAME", name)
            .replace("PORT", &port.to_string())
            .replace("NOTE", note)
    };
    write("fleet/web.yaml", &ingress("web", WEB, "connection"))?;
    write(
        "fleet/proxied.yaml",
        &ingress("proxied", PROXIED, "request"),
    )?;
    write("fleet/echo.yaml", ECHO_YAML)?;
    let pods = [("p1", 11), ("p2", 12)].map(|(name, last)| Endpoint {
        address: [10, 221, 0, last].into(),
        name: name.to_owned(),
        ready: true,
    });
    let web = Port::tcp("http", 80);
    let echo = Port {
        name: "http",
        number: ECHO,
        protocol: "UDP",
    };
    for (name, port, target) in [("web", web, PORT), ("echo", echo, ECHO)] {
        let text = member::service(name, port, target, "None")
            + &member::slice(name, port.at(target), &pods);
        write(&format!("clusters/c1/{name}.yaml"), &text)?;
    }
    Ok(())
}

const GATEWAY_YAML: &str = "\
apiVersion: alibabacloud.com/v1
kind: AlbConfig
metadata:
  name: mcg
  annotations:
    alb.ingress.kubernetes.io/remote-clusters: c1
spec:
  config:
    name: mcg
  listeners:
  - port: 8001
    protocol: HTTP
  - port: 8002
    protocol: HTTP
  - port: 5300
    protocol: UDP
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata:
  name: alb
spec:
  controller: ingress.k8s.alibabacloud/alb
  parameters:
    apiGroup: alibabacloud.com
    kind: AlbConfig
    name: mcg
";

const INGRESS_YAML: &str = "\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: NAME
  namespace: demo
  annotations:
    alb.ingress.kubernetes.io/listen-ports: '[{\"HTTP\": PORT}]'
    fleetgate.io/steering: NOTE
spec:
  ingressClassName: alb
  rules:
  - http:
      paths:
      - path: /
        pathType: Prefix
        backend:
          service:
            name: web
            port:
              number: 80
";

const ECHO_YAML: &str = "\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: echo
  namespace: demo
  annotations:
    alb.ingress.kubernetes.io/listen-ports: '[{\"UDP\": 5300}]'
spec:
  ingressClassName: alb
  defaultBackend:
    service:
      name: echo
      port:
        number: 5300
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verified_instructions_are_read_from_the_agents_log() {
        let line = "2026-11-24T20:00:00Z DEBUG gateway_user::dataplane::load: loaded program=\"fleetgate_tc\" verified_instructions=21034";
        assert_eq!(verified(line), Some(("tc".to_owned(), 21034)));
        assert_eq!(verified("loaded program=\"fleetgate_tc\""), None);
    }
}
