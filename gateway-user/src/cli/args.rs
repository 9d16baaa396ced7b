//! The command line of `fleetgate`.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use gateway_common::verdict::Reason;

use super::{
    output::Format,
    values::{Endpoint, RequestLine},
};
use crate::{ir::Network, plan::Transport};

mod run;

pub use run::{RunArgs, SteeringArg, TcArg, XdpArg};

/// Where the admin server is unless told otherwise.
pub const ADMIN: &str = "127.0.0.1:9620";
/// Where pins live unless told otherwise.
pub const PIN_DIR: &str = "/sys/fs/bpf/fleetgate";

const EXIT_CODES: &str = "\
Exit codes: 0 fine; 1 problems found, or the answer is no; 2 wrong usage; 3 the pinned maps cannot be read.";

const CHECK_HELP: &str = "\
Examples:
  fleetgate check ./manifests
  fleetgate check rendered.yaml        (what helm template printed)

Exit codes: 0 fine; 1 problems found, or the answer is no; 2 wrong usage; 3 the pinned maps cannot be read.";

const MONITOR_HELP: &str = "\
Examples:
  fleetgate monitor --drops
  fleetgate monitor --src 198.51.100.0/24 --dport 443 --count 20
  fleetgate monitor --every 1000 --json

Exit codes: 0 fine; 2 wrong usage; 3 the pinned maps cannot be read.";

const TOP_HELP: &str = "\
Examples:
  fleetgate top
  fleetgate top --once --interval 10
  fleetgate top --json | jq -c '.listeners[] | {listener, requests_per_second, p99_us}'

Exit codes: 0 fine; 1 no agent answers; 2 wrong usage.";

const ROOT_HELP: &str = "\
Examples:
  fleetgate check ./manifests
  fleetgate run --manifests ./manifests --interface eth0
  fleetgate status
  fleetgate trace --from 198.51.100.7 --to 10.0.0.1:80

Exit codes: 0 fine; 1 problems found, or the answer is no; 2 wrong usage; 3 the pinned maps cannot be read.";

/// A gateway node for north-south traffic to pods in several Kubernetes clusters: connections are
/// steered in the kernel, and by a proxy where a rule must read the request.
#[derive(Debug, Parser)]
#[command(name = "fleetgate", version, after_help = ROOT_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent: follow manifests or a fleet, program the kernel, serve the proxy.
    ///
    /// SIGTERM leaves the kernel steering as it is; `fleetgate unload` ends it.
    #[command(after_help = "\
Examples:
  fleetgate run --manifests ./manifests --interface eth0
  fleetgate run --fleet in-cluster --cluster-secrets fleetgate-system --leader-elect --interface eth0
  fleetgate run --manifests /etc/fleetgate --interface eth0 --interface eth1 \\
      --vip 203.0.113.10 --snat 10.9.0.0/28 --steering request")]
    Run(RunArgs),
    /// Validate manifests offline: every problem with its object, field and remedy.
    ///
    /// A directory with `fleet/` and `clusters/<id>/` is read as `run --manifests` reads it. Any other directory, or a file,
    /// is read as one bundle: all YAML and JSON in it, lists and many documents in a file included; kinds that the gateway
    /// does not use are skipped. Its members are the clusters that `remote-clusters` names, else those with a
    /// `cluster-weight`, else one called `local`; Services and EndpointSlices count in the first.
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Show what would be programmed from manifests, read as `check` reads them, without touching the kernel.
    #[command(after_help = "\
Examples:
  fleetgate plan ./manifests --vip 203.0.113.10
  fleetgate plan ./manifests -o json | jq '.services[].members'

Without --vip, 0.0.0.0 stands for the node's own addresses.")]
    Plan(PlanArgs),
    /// Show whether the gateway works: agent, hooks, counts, problems. Exits 1 if an object is in error.
    #[command(after_help = EXIT_CODES)]
    Status(Inspect),
    /// Show every listener, who steers it and why, and its rules in order of evaluation.
    #[command(after_help = EXIT_CODES)]
    Routes(Inspect),
    /// Show the listeners as the kernel knows them, with their traffic.
    #[command(after_help = EXIT_CODES)]
    Services(Inspect),
    /// Show the pods as the kernel knows them: state, next hop, share of each ring, traffic.
    #[command(after_help = EXIT_CODES)]
    Backends(Inspect),
    /// List live connections that the kernel steers.
    #[command(after_help = "\
Examples:
  fleetgate flows --client 198.51.100.7
  fleetgate flows --service 10.0.0.1:80 --backend c2
  fleetgate flows -o json --limit 1000")]
    Flows(FlowsArgs),
    /// Show counters: packets by reason, traffic by listener and pod.
    #[command(after_help = EXIT_CODES)]
    Stats(Inspect),
    /// Show what the proxy does right now: requests, errors, times, connections and bytes each second.
    ///
    /// Asked of the running agent's admin server. On a terminal the picture is redrawn until Ctrl-C.
    #[command(after_help = TOP_HELP)]
    Top(TopArgs),
    /// Ask where a packet or request would go, and why.
    ///
    /// A connection-steered listener is answered by the packet pipeline itself, run on the pinned
    /// maps; a request-steered one by the rules, which need --request.
    #[command(after_help = "\
Examples:
  fleetgate trace --from 198.51.100.7:40000 --to 10.0.0.1:80
  fleetgate trace --from 198.51.100.7 --to 10.0.0.1:80        (spread over all source ports)
  fleetgate trace --from 198.51.100.7 --to 10.0.0.1:8080 --request 'GET /shop/cart' \\
      --header 'Host: shop.example.com' --header 'stage: gray'

Exits 1 if nothing would answer.")]
    Trace(TraceArgs),
    /// Show packets as the kernel decides on them: sampled verdicts, with the reason of each drop.
    ///
    /// Filters and rate are applied in the kernel. Nothing is sampled once the command has ended, however it ended.
    #[command(after_help = MONITOR_HELP)]
    Monitor(MonitorArgs),
    /// Check the node and say what to change: kernel, interfaces, settings, the ways to pods.
    ///
    /// Works before the first start, with the agent up, and with it down. Exits 1 if a check fails; warnings do not count.
    #[command(after_help = "\
Examples:
  fleetgate doctor
  fleetgate doctor --interface eth0 --interface eth1          (before the first start)
  fleetgate doctor --json | jq '.checks[] | select(.verdict == \"fail\")'")]
    Doctor(DoctorArgs),
    /// Remove programs, pins and reserved ports: the kernel stops steering at once.
    #[command(after_help = EXIT_CODES)]
    Unload(UnloadArgs),
}

/// Where the pinned maps are.
#[derive(Args, Clone, Debug)]
pub struct PinDir {
    /// Folder on a BPF file system that holds the pinned maps, programs and links.
    #[arg(long, value_name = "DIR", default_value = PIN_DIR)]
    pub pin_dir: PathBuf,
}

/// How to print.
#[derive(Args, Clone, Copy, Debug)]
pub struct Output {
    /// Output: aligned columns, or JSON with raw numbers.
    #[arg(
        short = 'o',
        long = "output",
        value_enum,
        value_name = "FORMAT",
        default_value = "table"
    )]
    pub format: Format,
}

/// Arguments of plain inspection.
#[derive(Args, Clone, Debug)]
pub struct Inspect {
    /// Where the pinned maps are.
    #[command(flatten)]
    pub pins: PinDir,
    /// How to print.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `fleetgate check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Manifest directory (`fleet/` and `clusters/<id>/`), or any directory or file of YAML.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// How to print.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `fleetgate plan`.
#[derive(Args, Clone, Debug)]
pub struct PlanArgs {
    /// Manifest directory (`fleet/` and `clusters/<id>/`), or any directory or file of YAML.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Address of listeners that name none; repeat for more.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0")]
    pub vip: Vec<IpAddr>,
    /// Who steers listeners whose objects do not say.
    #[arg(long, value_enum, default_value = "auto")]
    pub steering: SteeringArg,
    /// Seed of the rings, as given to `run`.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub ring_secret: String,
    /// How to print.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `fleetgate flows`.
#[derive(Args, Clone, Debug)]
pub struct FlowsArgs {
    /// Where the pinned maps are, and how to print.
    #[command(flatten)]
    pub inspect: Inspect,
    /// Only flows of this client.
    #[arg(long, value_name = "IP[:PORT]")]
    pub client: Option<Endpoint>,
    /// Only flows to this listener address.
    #[arg(long, value_name = "IP[:PORT]")]
    pub service: Option<Endpoint>,
    /// Only flows to this pod: its id, cluster, cluster/pod, pod name, IP or IP:PORT.
    #[arg(long, value_name = "BACKEND")]
    pub backend: Option<String>,
    /// Show at most this many [default: 50 in a table, all in JSON].
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// Transport protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum ProtoArg {
    /// TCP: a SYN is traced.
    Tcp,
    /// UDP.
    Udp,
}

impl From<ProtoArg> for Transport {
    fn from(arg: ProtoArg) -> Self {
        match arg {
            ProtoArg::Tcp => Self::Tcp,
            ProtoArg::Udp => Self::Udp,
        }
    }
}

/// Arguments of `fleetgate trace`.
#[derive(Args, Clone, Debug)]
pub struct TraceArgs {
    /// Where the pinned maps are, and how to print.
    #[command(flatten)]
    pub inspect: Inspect,
    /// Client; without a port, the spread over all ports is shown.
    #[arg(long, value_name = "IP[:PORT]")]
    pub from: Endpoint,
    /// Listener.
    #[arg(long, value_name = "IP:PORT")]
    pub to: SocketAddr,
    /// Transport protocol.
    #[arg(long, value_enum, default_value = "tcp")]
    pub proto: ProtoArg,
    /// Request line, for listeners that the proxy steers.
    #[arg(long, value_name = "METHOD PATH")]
    pub request: Option<RequestLine>,
    /// Request header; repeat for more. Host defaults to the listener's address.
    #[arg(long, value_name = "NAME: VALUE", value_parser = super::values::header)]
    pub header: Vec<(String, String)>,
}

/// Arguments of `fleetgate top`.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// Admin server of the agent.
    #[arg(long, value_name = "ADDR:PORT", default_value = ADMIN)]
    pub admin: SocketAddr,
    /// Seconds that each picture is about.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub interval: u64,
    /// One picture, then end.
    #[arg(long)]
    pub once: bool,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `fleetgate monitor`.
#[derive(Args, Clone, Debug)]
pub struct MonitorArgs {
    /// Where the pinned maps are.
    #[command(flatten)]
    pub pins: PinDir,
    /// Show one packet in N of those that match, at random.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub every: u32,
    /// Only packets from this address or network.
    #[arg(long, value_name = "IP[/PREFIX]", value_parser = network)]
    pub src: Option<Network>,
    /// Only packets to this address or network, as they came in.
    #[arg(long, value_name = "IP[/PREFIX]", value_parser = network)]
    pub dst: Option<Network>,
    /// Only packets from this port.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub sport: Option<u16>,
    /// Only packets to this port.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub dport: Option<u16>,
    /// Only packets of this protocol.
    #[arg(long, value_enum)]
    pub proto: Option<ProtoArg>,
    /// Only packets that went no further: dropped, or answered by an ICMP error.
    #[arg(long)]
    pub drops: bool,
    /// Only packets with this reason, named as in `fleetgate stats`.
    #[arg(long, value_name = "NAME", value_parser = reason)]
    pub reason: Option<Reason>,
    /// Also packets that met nothing of the gateway.
    #[arg(long)]
    pub all: bool,
    /// End after this many packets.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after this many seconds.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: Option<u64>,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `fleetgate doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// Where the pinned maps are, and how to print.
    #[command(flatten)]
    pub inspect: Inspect,
    /// Interface to look at; repeat for more [default: those of the gateway, else all that have an address].
    #[arg(long, value_name = "IF")]
    pub interface: Vec<String>,
    /// The same as -o json.
    #[arg(long)]
    pub json: bool,
}

fn network(text: &str) -> Result<Network, String> {
    text.parse::<Network>().map_err(|error| error.to_string())
}

fn reason(text: &str) -> Result<Reason, String> {
    let found = Reason::ALL.into_iter().find(|it| it.name() == text);
    found.ok_or_else(|| {
        let names: Vec<&str> = Reason::ALL.into_iter().map(Reason::name).collect();
        format!("known reasons: {}", names.join(", "))
    })
}

/// Arguments of `fleetgate unload`.
#[derive(Args, Clone, Debug)]
pub struct UnloadArgs {
    /// Where the pins are, and how to print.
    #[command(flatten)]
    pub inspect: Inspect,
    /// Unload although the agent that wrote the pins is alive; it will fail to program anything.
    #[arg(long)]
    pub force: bool,
}

#[cfg(test)]
mod tests;
