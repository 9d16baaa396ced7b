//! Those who carry TCP: the programs of each, and the servers behind them.

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use xtask::{lab, netns};

use crate::{
    Options,
    network::{CLIENT, Contender, PODS},
    stage::{PINS, SCRATCH},
};

/// Who is compared.
pub(crate) const ALL: [Contender; 4] = [
    Contender::Agent,
    Contender::Routed,
    Contender::Nftables,
    Contender::Haproxy,
];

/// Port of short connections; pods serve them on [`SERVED`].
pub(crate) const WEB: u16 = 80;
/// See [`WEB`].
pub(crate) const SERVED: u16 = 8080;
/// Port of `iperf3 -s` everywhere.
pub(crate) const IPERF: u16 = 5201;
/// Port of bulk data that is thrown away.
pub(crate) const STREAM: u16 = 5202;

/// What a pod says.
pub(crate) const GREETING: &[u8; 4] = b"here";

/// Where the client finds short connections answered.
pub(crate) fn web(who: Contender) -> SocketAddr {
    let port = if who == Contender::Routed {
        SERVED
    } else {
        WEB
    };
    (who.target(), port).into()
}

/// Starts servers, HAProxy and the agent. All end with this process.
pub(crate) fn start(options: &Options) -> Result<()> {
    let scratch = Path::new(SCRATCH);
    netns::inside(PODS, || -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, SERVED))?;
        for _ in 0..8 {
            let listener = listener.try_clone()?;
            thread::spawn(move || serve(&listener));
        }
        Ok(())
    })??;
    let mut iperf = netns::command(PODS, "iperf3");
    iperf.args(["--server", "--port", &IPERF.to_string()]);
    spawn(iperf, &scratch.join("iperf.log"))?;

    let config = scratch.join("haproxy.cfg");
    fs::write(&config, haproxy(Contender::Haproxy))?;
    let mut haproxy = netns::command(&Contender::Haproxy.namespace(), "haproxy");
    haproxy.args(["-db", "-f"]).arg(&config);
    spawn(haproxy, &scratch.join("haproxy.log"))?;

    let manifests = scratch.join("manifests");
    for (path, text) in manifest(Contender::Agent) {
        let path = manifests.join(path);
        fs::create_dir_all(path.parent().context("a path without a folder")?)?;
        fs::write(path, text)?;
    }
    let mut agent = netns::command(&Contender::Agent.namespace(), &options.agent);
    agent.arg("run").arg("--manifests").arg(&manifests);
    agent.args(["--interface", "cl0", "--interface", "up0"]);
    agent.args([
        "--snat",
        &format!("10.47.{}.0/29", Contender::Agent.number()),
    ]);
    agent.args([
        "--steering",
        "connection",
        "--pin-dir",
        &format!("{PINS}/agent"),
    ]);
    spawn(agent, &scratch.join("agent.log"))?;

    lab::wait_listening(PODS, IPERF)?;
    for who in ALL {
        // Not iperf's port: its server takes a connection for the start of a test.
        let target = web(who);
        reachable(target).with_context(|| {
            let log = match who {
                Contender::Haproxy => "haproxy.log",
                _ => "agent.log",
            };
            let log = fs::read_to_string(scratch.join(log)).unwrap_or_default();
            format!("{}, {target}; the log says: {log}", who.name())
        })?;
    }
    Ok(())
}

/// Waits until a connection is accepted, up to ten seconds.
fn reachable(target: SocketAddr) -> Result<()> {
    let give_up = Instant::now() + Duration::from_secs(10);
    loop {
        let tried = netns::inside(CLIENT, || {
            TcpStream::connect_timeout(&target, Duration::from_millis(500))
        })?;
        match tried {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > give_up => bail!("not reachable: {error}"),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn spawn(mut command: Command, log: &Path) -> Result<()> {
    let file = fs::File::create(log)?;
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .map(drop)
        .with_context(|| format!("cannot start {:?}", command.get_program()))
}

/// Greets on each connection and closes it: the least a server can do that proves it was reached.
fn serve(listener: &TcpListener) {
    for connection in listener.incoming() {
        let Ok(mut connection) = connection else {
            continue;
        };
        let _ = connection.write_all(GREETING);
    }
}

/// HAProxy as its manual has it for TCP: a thread for each CPU, nothing logged.
fn haproxy(who: Contender) -> String {
    format!(
        "global
  maxconn 4000
  nbthread {threads}
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen web
  bind {vip}:{WEB}
  server pod {pod}:{SERVED}
listen iperf
  bind {vip}:{IPERF}
  server pod {pod}:{IPERF}
listen stream
  bind {vip}:{STREAM}
  server pod {pod}:{STREAM}
",
        threads = thread::available_parallelism().map_or(1, std::num::NonZero::get),
        vip = who.vip(),
        pod = who.pod(),
    )
}

/// The same as objects: one gateway, three Services of one pod.
fn manifest(who: Contender) -> Vec<(String, String)> {
    let mut fleet = format!(
        "apiVersion: alibabacloud.com/v1
kind: AlbConfig
metadata:
  name: bench
  annotations: {{ alb.ingress.kubernetes.io/remote-clusters: c1 }}
spec:
  config: {{ name: bench, addressType: Intranet }}
  listeners:
  - {{ port: {WEB}, protocol: HTTP }}
  - {{ port: {IPERF}, protocol: HTTP }}
  - {{ port: {STREAM}, protocol: HTTP }}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {{ name: alb }}
spec:
  controller: ingress.k8s.alibabacloud/alb
  parameters: {{ apiGroup: alibabacloud.com, kind: AlbConfig, name: bench }}
"
    );
    let mut member = String::new();
    for (name, port, served) in [
        ("web", WEB, SERVED),
        ("iperf", IPERF, IPERF),
        ("stream", STREAM, STREAM),
    ] {
        fleet += &format!(
            "---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {name}
  namespace: bench
  annotations:
    alb.ingress.kubernetes.io/listen-ports: '[{{\"HTTP\": {port}}}]'
spec:
  ingressClassName: alb
  rules:
  - http:
      paths:
      - {{ path: /, pathType: Prefix, backend: {{ service: {{ name: {name}, port: {{ number: {port} }} }} }} }}
"
        );
        member += &format!(
            "---
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: bench }}
spec:
  selector: {{ app: {name} }}
  ports:
  - {{ name: {name}, port: {port}, protocol: TCP, targetPort: {served} }}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  namespace: bench
  labels: {{ kubernetes.io/service-name: {name} }}
addressType: IPv4
ports:
- {{ name: {name}, port: {served}, protocol: TCP }}
endpoints:
- addresses: [\"{pod}\"]
  conditions: {{ ready: true }}
",
            pod = who.pod()
        );
    }
    vec![
        ("fleet/bench.yaml".into(), fleet),
        ("clusters/c1/bench.yaml".into(), member),
    ]
}
