//! What `fleetgate run` takes.

use std::{
    io::{self, IsTerminal},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, ValueEnum};
use gateway_common::maps;

use super::{ADMIN, PinDir};
use crate::{
    agent::{Fleet, Options, Source},
    cli::values::{Cidr, PortRange},
    dataplane::attach::{TcChoice, XdpChoice},
    ir::{ClusterId, SteeringWish},
    proxy::{
        access_log,
        trace::{
            Sample,
            export::{Collector, Endpoint},
        },
    },
    source::kubernetes::{self, Access},
};

/// Who steers listeners whose objects do not say.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum SteeringArg {
    /// The kernel where the rules allow it, else the proxy.
    #[default]
    Auto,
    /// The kernel; where the rules do not allow it, the proxy and a warning.
    Connection,
    /// The proxy.
    Request,
}

impl From<SteeringArg> for SteeringWish {
    fn from(arg: SteeringArg) -> Self {
        match arg {
            SteeringArg::Auto => Self::Auto,
            SteeringArg::Connection => Self::Connection,
            SteeringArg::Request => Self::Request,
        }
    }
}

/// Which XDP mode interfaces get beside TC.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum XdpArg {
    /// Native where the driver has it and it pays, else TC alone.
    #[default]
    Auto,
    /// Native, or fail.
    Native,
    /// Generic: for trying out only, it is slower than TC.
    Generic,
    /// TC alone.
    Off,
}

/// How the TC program is attached.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum TcArg {
    /// A tcx link where the kernel has them (Linux 6.6), else a filter of the clsact qdisc.
    #[default]
    Auto,
    /// A tcx link, or fail.
    Tcx,
    /// A filter of the clsact qdisc.
    Clsact,
}

impl From<TcArg> for TcChoice {
    fn from(arg: TcArg) -> Self {
        match arg {
            TcArg::Auto => Self::Auto,
            TcArg::Tcx => Self::Tcx,
            TcArg::Clsact => Self::Clsact,
        }
    }
}

/// Where requests are logged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AccessLogArg {
    /// Standard output, unless it is a terminal.
    Auto,
    /// As it says.
    To(access_log::Target),
}

impl AccessLogArg {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "" => return Err("expected auto, off, stdout or a path".to_owned()),
            "auto" => Self::Auto,
            "off" => Self::To(access_log::Target::Off),
            "stdout" => Self::To(access_log::Target::Stdout),
            path => Self::To(access_log::Target::File(path.into())),
        })
    }

    /// `terminal`: somebody looks at standard output, where a line for each request would bury everything else.
    fn target(self, terminal: bool) -> access_log::Target {
        match self {
            Self::To(target) => target,
            Self::Auto if terminal => access_log::Target::Off,
            Self::Auto => access_log::Target::Stdout,
        }
    }
}

/// Who gets spans of requests.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CollectorArg(Option<Endpoint>);

impl CollectorArg {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(match text {
            // A variable of OpenTelemetry that is empty counts as not set.
            "" | "off" => None,
            url => Some(Endpoint::parse(url)?),
        }))
    }
}

/// A number from 0 to 1.
fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|it| (0.0..=1.0).contains(it));
    share.ok_or_else(|| "expected a number from 0 to 1, e.g. 0.01".to_owned())
}

/// Arguments of `fleetgate run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Directory of Kubernetes YAML, followed live: `fleet/` and `clusters/<id>/`.
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with = "fleet",
        required_unless_present = "fleet"
    )]
    pub manifests: Option<PathBuf>,
    /// API server of the fleet, in place of --manifests: a kubeconfig (FILE or FILE#CONTEXT), or `in-cluster`.
    #[arg(long, value_name = "KUBECONFIG", value_parser = fleet)]
    pub fleet: Option<Access>,
    /// API server of a member cluster; repeat for more.
    #[arg(long, value_name = "ID=KUBECONFIG", requires = "fleet", value_parser = cluster)]
    pub cluster: Vec<(ClusterId, Access)>,
    /// Namespace of the fleet whose Secrets labelled `fleetgate.io/cluster` hold kubeconfigs of further members.
    #[arg(long, value_name = "NAMESPACE", requires = "fleet")]
    pub cluster_secrets: Option<String>,
    /// Gateways are called <AlbConfig>.<SUFFIX> in their status [default: by their addresses].
    #[arg(long, value_name = "SUFFIX", requires = "fleet", value_parser = suffix)]
    pub dns_suffix: Option<String>,
    /// Write status only while holding the Lease `fleetgate-status`: for more than one gateway node.
    #[arg(long, requires = "fleet")]
    pub leader_elect: bool,
    /// Interface that clients or pods are behind; repeat for more.
    #[arg(long, value_name = "IF", required = true)]
    pub interface: Vec<String>,
    /// Address of listeners that name none; repeat for more [default: the addresses of the first interface].
    #[arg(long, value_name = "ADDR")]
    pub vip: Vec<IpAddr>,
    /// Dedicated source addresses that pods see; repeat for more [default: the node's own address towards each pod].
    #[arg(long, value_name = "CIDR")]
    pub snat: Vec<Cidr>,
    /// Who steers listeners whose objects do not say.
    #[arg(long, value_enum, default_value = "auto")]
    pub steering: SteeringArg,
    /// XDP mode; TC is always attached.
    #[arg(long, value_enum, default_value = "auto")]
    pub xdp: XdpArg,
    /// How TC is attached.
    #[arg(long, value_enum, default_value = "auto")]
    pub tc: TcArg,
    /// Where to pin, so that the kernel steers on without the agent.
    #[command(flatten)]
    pub pins: PinDir,
    /// Take the place of an agent that runs on the same pins: it goes on serving requests until this one does.
    #[arg(long)]
    pub take_over: bool,
    /// Address of /metrics, /healthz, /readyz, /problems, /routes and /proxy.
    #[arg(long, value_name = "ADDR:PORT", default_value = ADMIN)]
    pub admin: SocketAddr,
    /// Where requests of the proxy are logged, a JSON object each: off, stdout, a file, or auto: stdout unless that is a terminal.
    ///
    /// A file is opened anew when it was moved away, and on SIGHUP.
    #[arg(long, value_name = "auto|off|stdout|PATH", default_value = "auto", value_parser = AccessLogArg::parse)]
    pub access_log: AccessLogArg,
    /// Collector that gets spans of requests, over OTLP/HTTP: http://HOST[:4318][/PATH], or off.
    ///
    /// A request goes on with the trace that its traceparent names, or begins one, and pods are told. What the collector
    /// does not take in time is lost, and counted.
    #[arg(long, value_name = "URL|off", default_value = "off", env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_parser = CollectorArg::parse)]
    pub otlp_endpoint: CollectorArg,
    /// What the gateway is called among traces.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "fleetgate",
        env = "OTEL_SERVICE_NAME"
    )]
    pub otlp_service_name: String,
    /// Share of the traces that begin here that is recorded; of others the caller decides.
    #[arg(long, value_name = "RATIO", default_value = "0.01", value_parser = share)]
    pub trace_sample: f64,
    /// Log one drop in N of the kernel's, with its reason; 0 logs none.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub sample_every: u32,
    /// Entries of the flow table, two for each connection [default: the size built in; kept while pinned].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1024..=1 << 26))]
    pub max_flows: Option<u32>,
    /// Seed of the rings and key of session cookies: nodes with the same text and pods send a connection or session to
    /// the same pod. Without one, who guesses a pod's address can recognise it in a cookie.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub ring_secret: String,
    /// Source ports of the node's own addresses that are reserved for the gateway.
    #[arg(long, value_name = "FIRST-LAST", default_value = "10000-29999")]
    pub snat_ports: PortRange,
    /// Threads of the proxy [default: one for each CPU].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub proxy_workers: Option<u16>,
    /// Seconds that requests, streams and tunnels of the proxy get to end when the agent stops or their listener goes.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u16).range(0..=3600))]
    pub drain_timeout: u16,
}

fn fleet(text: &str) -> Result<Access, String> {
    Access::parse(text).map_err(|error| error.to_string())
}

fn cluster(text: &str) -> Result<(ClusterId, Access), String> {
    kubernetes::parse_cluster(text).map_err(|error| error.to_string())
}

/// A DNS domain, without a leading or trailing dot.
fn suffix(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 200 && text.split('.').all(label) {
        return Ok(text.to_ascii_lowercase());
    }
    Err("expected a DNS domain, e.g. gw.example.com".to_owned())
}

/// Name of this node: that of the pod's node, else the host's.
fn node() -> String {
    let host = || {
        rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned()
    };
    std::env::var("NODE_NAME")
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(host)
}

impl From<RunArgs> for Options {
    fn from(args: RunArgs) -> Self {
        let source = match (args.fleet, args.manifests) {
            (Some(fleet), _) => Source::Kubernetes(Box::new(Fleet {
                servers: kubernetes::Options {
                    fleet,
                    clusters: args.cluster.into_iter().collect(),
                    cluster_secrets: args.cluster_secrets,
                    timing: kubernetes::Timing::default(),
                },
                dns_suffix: args.dns_suffix,
                leader_elect: args.leader_elect,
                node: node(),
            })),
            (None, manifests) => Source::Manifests(manifests.unwrap_or_default()),
        };
        Self {
            source,
            interfaces: args.interface,
            vips: args.vip,
            snat: args.snat.into_iter().flat_map(Cidr::addresses).collect(),
            snat_ports: (args.snat_ports.first, args.snat_ports.last),
            steering: args.steering.into(),
            xdp: match args.xdp {
                XdpArg::Auto => XdpChoice::Auto,
                XdpArg::Native => XdpChoice::Native,
                XdpArg::Generic => XdpChoice::Generic,
                XdpArg::Off => XdpChoice::Off,
            },
            tc: args.tc.into(),
            pin_dir: args.pins.pin_dir,
            max_flows: args.max_flows.unwrap_or(maps::FLOWS.1),
            sample_every: args.sample_every,
            access_log: args.access_log.target(io::stdout().is_terminal()),
            collector: args.otlp_endpoint.0.map(|endpoint| Collector {
                endpoint,
                service: args.otlp_service_name,
                node: node(),
                sample: Sample::share(args.trace_sample),
            }),
            ring_secret: args.ring_secret,
            proxy_workers: args.proxy_workers.map_or(0, usize::from),
            drain_timeout: Duration::from_secs(args.drain_timeout.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_logged_to_standard_output_unless_somebody_looks_at_it() {
        let target = |text, terminal| AccessLogArg::parse(text).unwrap().target(terminal);
        assert_eq!(target("auto", false), access_log::Target::Stdout);
        assert_eq!(target("auto", true), access_log::Target::Off);
        assert_eq!(target("stdout", true), access_log::Target::Stdout);
        assert_eq!(target("off", false), access_log::Target::Off);
        let file = access_log::Target::File("/var/log/access".into());
        assert_eq!(target("/var/log/access", true), file);
        assert!(AccessLogArg::parse("").is_err());
    }

    #[test]
    fn spans_go_nowhere_unless_a_collector_is_named() {
        let endpoint = |text| CollectorArg::parse(text).unwrap().0;
        assert_eq!((endpoint("off"), endpoint("")), (None, None));
        let collector = endpoint("http://otel:4318").unwrap();
        assert_eq!(collector.to_string(), "http://otel:4318/v1/traces");
        assert!(CollectorArg::parse("https://otel:4318").is_err());
        assert_eq!((share("0"), share("1")), (Ok(0.0), Ok(1.0)));
        for bad in ["", "-0.1", "1.1", "NaN", "all"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }
}
