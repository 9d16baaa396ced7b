//! The agent under demonstration: start, ask, end.

use std::{
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde::Deserialize;

use super::manifests::WEB_LISTENER;
use crate::{
    client,
    lab::{Lab, topology},
    netns, paths, process,
    process::Known,
};

/// Where the demo's agent pins its maps and programs.
pub const PIN_DIR: &str = "/sys/fs/bpf/fg-demo";
/// The agent's admin address, inside the gateway's namespace.
const ADMIN: &str = "127.0.0.1:9620";

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    log: PathBuf,
}

/// A line of `fleetgate routes -o json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Route {
    /// Address and port.
    pub listener: String,
    /// `connection` or `request`.
    pub steering: String,
    /// Why.
    pub reason: String,
    /// The rules, in whatever form the CLI gives them; the names of their Ingresses are in there.
    #[serde(default)]
    pub rules: serde_json::Value,
}

impl Route {
    /// Whether a rule of this Ingress is in force here.
    pub fn serves(&self, ingress: &str) -> bool {
        fn within(value: &serde_json::Value, wanted: &str) -> bool {
            match value {
                serde_json::Value::String(text) => text
                    .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
                    .any(|word| word == wanted),
                serde_json::Value::Array(all) => all.iter().any(|one| within(one, wanted)),
                serde_json::Value::Object(all) => all.values().any(|one| within(one, wanted)),
                _ => false,
            }
        }
        within(&self.rules, ingress)
    }
}

/// An entry of `fleetgate flows -o json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Flow {
    /// Client address and port.
    pub client: SocketAddr,
    /// Listener address and port.
    pub service: SocketAddr,
    /// Address and port that the pod sees.
    pub source: SocketAddr,
    /// Pod address and port.
    pub backend: SocketAddr,
    /// Member cluster.
    pub cluster: String,
    /// Pod.
    pub pod: String,
    /// Both directions are known.
    pub complete: bool,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            source,
            backend,
            cluster,
            pod,
            ..
        } = self;
        write!(f, "{cluster}/{pod} ({source} -> {backend})")
    }
}

/// The proxy's counters.
#[derive(Clone, Copy, Debug)]
pub struct ProxyCounters {
    /// Client connections accepted so far.
    pub connections: u64,
    /// Bytes received from clients so far.
    pub received_bytes: u64,
}

impl Agent {
    /// Starts the agent in the gateway's namespace and waits until its plan is in the kernel.
    pub fn start(lab: &mut Lab, manifests: &Path, log: &str, further: &[&str]) -> Result<Self> {
        let mut command = Command::new(paths::agent());
        command.arg("run").arg("--manifests").arg(manifests);
        for device in ["cl0", "c1", "c2"] {
            command.args(["--interface", device]);
        }
        command
            .args(["--pin-dir", PIN_DIR, "--admin", ADMIN])
            .args(further);
        let child = lab.spawn(topology::GATEWAY, log, &command)?;
        let mut agent = Self {
            child,
            log: paths::lab().join(log).with_extension("log"),
        };
        agent
            .wait_ready()
            .with_context(|| format!("the agent's last words:\n{}", agent.tail()))?;
        Ok(agent)
    }

    /// Ends it without a chance to do anything about it.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().context("cannot kill the agent")?;
        self.child.wait().context("the agent did not end")?;
        Ok(())
    }

    /// Asks it to end, as systemd and the kubelet do.
    pub fn stop(mut self) -> Result<()> {
        if let Some(known) = Known::of(self.child.id(), "agent") {
            known.signal(Signal::TERM);
        }
        let give_up = Instant::now() + Duration::from_secs(10);
        while self.child.try_wait()?.is_none() {
            if Instant::now() > give_up {
                bail!("the agent did not end within 10 s of SIGTERM");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The end of its log.
    pub fn tail(&self) -> String {
        process::last_lines(&fs::read_to_string(&self.log).unwrap_or_default(), 25)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let give_up = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent ended while starting ({status})");
            }
            let said = match get("/readyz")? {
                Ok((200, _)) => return Ok(()),
                Ok((status, body)) => format!("{status} {}", body.trim()),
                Err(error) => error.to_string(),
            };
            if Instant::now() > give_up {
                bail!("the agent was not ready within 10 s; /readyz says: {said}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The listener of the scenarios, as the agent sees it now.
pub fn web_route() -> Result<Route> {
    routes()?
        .into_iter()
        .find(|route| route.listener.ends_with(&format!(":{WEB_LISTENER}")))
        .with_context(|| format!("fleetgate routes shows no listener on port {WEB_LISTENER}"))
}

/// Waits until a rule of this Ingress is in force on the scenarios' listener.
pub fn wait_serves(ingress: &str) -> Result<Route> {
    let give_up = Instant::now() + Duration::from_secs(5);
    loop {
        let now = web_route();
        match &now {
            Ok(route) if route.serves(ingress) => return now,
            _ if Instant::now() > give_up => {
                let seen = now.map_or_else(
                    |error| format!("{error:#}"),
                    |route| route.rules.to_string(),
                );
                bail!(
                    "5 s after Ingress demo/{ingress} was saved it is not in force; the listener has: {seen}"
                );
            }
            _ => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// `fleetgate routes -o json`.
pub fn routes() -> Result<Vec<Route>> {
    serde_json::from_str(&ask("routes")?).context("fleetgate routes -o json is not what was agreed")
}

/// `fleetgate flows -o json`: every flow in the table.
pub fn flows() -> Result<Vec<Flow>> {
    #[derive(Deserialize)]
    struct Shown {
        flows: Vec<Flow>,
    }
    let shown: Shown = serde_json::from_str(&ask("flows")?)
        .context("fleetgate flows -o json is not what was agreed")?;
    Ok(shown.flows)
}

/// `fleetgate unload`.
pub fn unload() -> Result<()> {
    cli(&["unload", "--pin-dir", PIN_DIR]).map(drop)
}

/// The proxy's counters now.
pub fn proxy_counters() -> Result<ProxyCounters> {
    let (status, text) = get("/metrics")?.context("the agent's /metrics cannot be read")?;
    if status != 200 {
        bail!("the agent's /metrics answers {status}");
    }
    let sum = |name: &str| {
        total(&text, name).with_context(|| {
            format!("/metrics has no {name}; without it nothing shows who steered")
        })
    };
    Ok(ProxyCounters {
        connections: sum("fleetgate_proxy_connections_total")?,
        received_bytes: sum("fleetgate_proxy_received_bytes_total")?,
    })
}

/// Sum over all label sets of a counter; `None` when the metric is not there.
fn total(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let rest = if rest.starts_with('{') {
                rest.rsplit_once('}')?.1
            } else {
                rest
            };
            rest.strip_prefix(' ')?
                .split(' ')
                .next()?
                .parse::<f64>()
                .ok()
        })
        .reduce(|sum, one| sum + one)
        .map(|sum| sum as u64)
}

fn ask(what: &str) -> Result<String> {
    cli(&[what, "-o", "json", "--pin-dir", PIN_DIR])
}

fn cli(arguments: &[&str]) -> Result<String> {
    process::output(netns::command(topology::GATEWAY, paths::agent()).args(arguments))
}

fn get(path: &str) -> Result<std::io::Result<(u16, String)>> {
    let admin: SocketAddr = ADMIN.parse()?;
    netns::inside(topology::GATEWAY, || client::get(admin, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_their_labels_and_by_whole_name() {
        let text = "# HELP a_total x\na_total{l=\"1 {\"} 3\na_total{l=\"2\"} 4\na_total_more 9\nb_total 7\n";
        assert_eq!(total(text, "a_total"), Some(7));
        assert_eq!(total(text, "b_total"), Some(7));
        assert_eq!(total(text, "c_total"), None);
    }

    #[test]
    fn a_route_serves_an_ingress_by_its_whole_name() {
        let route = Route {
            listener: String::new(),
            steering: String::new(),
            reason: String::new(),
            rules: serde_json::json!([{ "ingress": "demo/web-weighted-request", "n": 1 }]),
        };
        assert!(route.serves("web-weighted-request"));
        assert!(!route.serves("web-weighted"));
    }
}
