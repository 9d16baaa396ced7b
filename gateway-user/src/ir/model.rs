//! The values of the routing model.

use std::{collections::BTreeMap, fmt, net::IpAddr, net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

mod actions;
mod conditions;
mod family;
mod policy;
mod tls;
mod transport;

pub use actions::*;
pub use conditions::*;
pub use family::*;
pub use policy::*;
pub use tls::*;
pub use transport::*;

use super::build::Touched;
pub use crate::manifest::ClusterId;

/// All that is routed, over every AlbConfig. Values are shared, so that a change copies what it changes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ir {
    /// Every listener, also those without a rule (they answer 404) and those that are refused.
    pub listeners: BTreeMap<ListenerName, Arc<Listener>>,
    /// Every group that a rule names.
    pub groups: BTreeMap<GroupName, Arc<Group>>,
}

impl Ir {
    /// The group that serves every connection; `None` where the proxy steers.
    ///
    /// Connection steering needs that all rules up to the one that covers everything lead to equal groups, so that of
    /// the first rule is the group of all.
    pub fn kernel_group(&self, listener: &Listener) -> Option<&Arc<Group>> {
        match listener.steering.mode {
            SteeringMode::Connection => self.groups.get(listener.rules.first()?.only_group()?),
            SteeringMode::Request => None,
        }
    }

    /// Takes over from `other` what `touched` names.
    pub fn follow(&mut self, other: &Self, touched: &Touched) {
        for name in &touched.listeners {
            match other.listeners.get(name) {
                Some(it) => drop(self.listeners.insert(name.clone(), it.clone())),
                None => drop(self.listeners.remove(name)),
            }
        }
        for name in &touched.groups {
            match other.groups.get(name) {
                Some(it) => drop(self.groups.insert(name.clone(), it.clone())),
                None => drop(self.groups.remove(name)),
            }
        }
    }

    /// Listeners that serve.
    pub fn served(&self) -> impl Iterator<Item = &Arc<Listener>> {
        let served = |listener: &&Arc<Listener>| listener.refused.is_none();
        self.listeners.values().filter(served)
    }
}

/// Identity of a listener: changing any part makes another listener. Written `gateway:port/PROTOCOL`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct ListenerName {
    /// Name of the AlbConfig.
    pub gateway: String,
    /// Port, 1 to 65535.
    pub port: u16,
    /// What is spoken on it.
    pub protocol: ListenerProtocol,
}

impl fmt::Display for ListenerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.gateway, self.port, self.protocol)
    }
}

/// Protocol of a listener.
#[derive(
    Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum ListenerProtocol {
    /// Plain HTTP.
    #[default]
    Http,
    /// HTTP over TLS.
    Https,
    /// HTTP/3.
    Quic,
    /// Any protocol over TCP.
    Tcp,
    /// Any protocol over UDP.
    Udp,
}

impl fmt::Display for ListenerProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Quic => "QUIC",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// One (address, port, protocol) that clients connect to, and its ordered rules.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    /// Identity.
    pub name: ListenerName,
    /// From `fleetgate.io/addresses`; empty means every VIP of the node.
    pub addresses: Vec<IpAddr>,
    /// What is spoken and told to backends.
    #[serde(flatten)]
    pub settings: Arc<ListenerSettings>,
    /// Why it is not served at all: it needs what this gateway cannot execute yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Tried in this order, numbered from 1; the first whose conditions all hold decides. No match is a 404.
    pub rules: Vec<Arc<Rule>>,
    /// HTTPS: rules that send connections on as they are, by the one host that each has. They are found by the name that
    /// a ClientHello asks for (SNI), before any of `rules` is; hosts are told apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passthrough: Vec<Arc<Rule>>,
    /// Who steers, and why.
    pub steering: Steering,
}

/// What an AlbConfig says of one listener, apart from its place.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ListenerSettings {
    /// An idle client connection is closed after this long (1 to 60 s, default 15 s).
    pub idle_timeout: Duration,
    /// A backend that has not answered after this long yields 504 (1 to 600 s, default 60 s).
    pub request_timeout: Duration,
    /// What happens to `X-Forwarded-For`.
    pub forwarded_for: ForwardedFor,
    /// Further headers this listener was explicitly told to send to backends.
    pub forwarded: ForwardedHeaders,
    /// Headers that tell who the client is.
    #[serde(default)]
    pub identity: IdentityHeaders,
    /// Proxies whose `X-Forwarded-For` is believed; `None`: the peer is the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted: Option<Vec<Network>>,
    /// Load balancers whose connections begin with a PROXY header, which tells the client; `None`: no peer's do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<Vec<Network>>,
    /// Responses of usual types may be compressed.
    pub gzip: bool,
    /// TLS of HTTPS and QUIC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// HTTPS: clients are told that QUIC is there, too.
    #[serde(default)]
    pub quic_upgrade: bool,
    /// HTTP: clients may begin with HTTP/2 (prior knowledge, RFC 9113 section 3.3).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub h2c: bool,
    /// Who may connect; `None`: everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessList>,
    /// How many new flows it takes.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
}

impl Default for ListenerSettings {
    /// Those of an AlbConfig that says nothing.
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(15),
            request_timeout: Duration::from_secs(60),
            forwarded_for: ForwardedFor::Append,
            forwarded: ForwardedHeaders::default(),
            identity: IdentityHeaders::default(),
            trusted: None,
            proxy_protocol: None,
            gzip: true,
            tls: None,
            quic_upgrade: false,
            h2c: false,
            access: None,
            limits: Limits::default(),
        }
    }
}

/// Treatment of `X-Forwarded-For` (`xForwardedForConfig`).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForwardedFor {
    /// The peer's address is appended (the default).
    Append,
    /// The header is deleted.
    Remove,
    /// The header passes untouched.
    Keep,
}

/// Headers added for backends, all off by default.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct ForwardedHeaders {
    /// `X-Forwarded-Proto`: the listener's protocol.
    pub proto: bool,
    /// `X-Forwarded-Port`: the listener's port.
    pub port: bool,
    /// `X-Forwarded-Host`: the host the client asked for.
    pub host: bool,
    /// `X-Forwarded-Client-srcport`: the client's port.
    pub client_port: bool,
}

/// One rule: all conditions hold (AND) -> filters in order, then the target.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// `namespace/name` of the Ingress it came from.
    pub ingress: Arc<str>,
    /// Where in that Ingress, e.g. `spec.rules[0].http.paths[1]`.
    pub place: String,
    /// What it applies to.
    pub direction: Direction,
    /// When it applies.
    pub conditions: Conditions,
    /// In the order of execution.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// Where what it applies to ends.
    pub target: Target,
    /// `fleetgate.io/steering` of the Ingress, if it has one.
    pub steering: Option<SteeringWish>,
    /// What it needs that is not executed yet: what meets its conditions is answered 503, and no later rule is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl Rule {
    /// A rule without conditions that sends everything to one group.
    pub fn forwarding(group: GroupName, place: impl Into<String>) -> Self {
        Self {
            ingress: format!("{}/{}", group.namespace, group.ingress).into(),
            place: place.into(),
            direction: Direction::Request,
            conditions: Conditions::default(),
            filters: Vec::new(),
            target: Target::Forward(Forward {
                groups: vec![WeightedGroup { group, weight: 100 }],
                sticky: None,
            }),
            steering: None,
            refused: None,
        }
    }

    /// The group that everything goes to, unchanged; `None` where there is a choice, a filter or a refusal.
    pub fn only_group(&self) -> Option<&GroupName> {
        match (&self.target, self.filters.is_empty(), &self.refused) {
            (Target::Forward(forward), true, None) if forward.sticky.is_none() => {
                match forward.groups.as_slice() {
                    [one] if one.weight > 0 => Some(&one.group),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Every group that it names, mirrors too.
    pub fn groups(&self) -> impl Iterator<Item = &WeightedGroup> {
        let forward = match &self.target {
            Target::Forward(forward) => forward.groups.as_slice(),
            _ => &[],
        };
        let mirrors = self.filters.iter().flat_map(|filter| match filter {
            Filter::Mirror(groups) => groups.as_slice(),
            _ => &[],
        });
        forward.iter().chain(mirrors)
    }
}

/// Who steers: asked for by annotation or flag.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SteeringWish {
    /// The kernel where the rules allow it.
    #[default]
    Auto,
    /// The kernel, and a Problem where it cannot.
    Connection,
    /// The proxy.
    Request,
}

/// Who steers a listener.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SteeringMode {
    /// The kernel picks a backend once per connection.
    Connection,
    /// The proxy picks a backend for each request.
    Request,
}

/// The decision and its reason, one sentence for people.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Steering {
    /// Who steers.
    pub mode: SteeringMode,
    /// Why, e.g. `rule 2 (demo/gray) reads header "stage"`.
    pub reason: String,
}

/// A weighted set of backends: one Service over all clusters, as one Ingress splits it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Identity.
    pub name: GroupName,
    /// The Service.
    pub service: ServiceName,
    /// How its pods are treated.
    #[serde(default)]
    pub policy: Arc<Policy>,
    /// How clusters share.
    pub split: Split,
    /// Whether connections of one client stay together.
    pub affinity: Affinity,
    /// Seconds for which a client keeps its pod after its last connection was opened
    /// (`sessionAffinityConfig.clientIP.timeoutSeconds`); 0 without affinity.
    #[serde(default)]
    pub affinity_seconds: u32,
    /// Pods that take traffic, with weights above zero, sorted by (cluster, address). Empty: 503.
    ///
    /// Of the clusters that have a weight: ready pods, or, where none is ready, those that terminate and still serve; of
    /// these the ones that pass their health checks, or, where none passes, all.
    pub backends: Vec<Backend>,
    /// Pods that exist but get nothing new: of clusters with weight 0, not ready, or terminating.
    /// Their flows are left alone; weight is 0 here.
    pub idle: Vec<Backend>,
    /// Pods that would serve, and fail their health checks. They are in [`Group::backends`], too, where none passes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failing: Vec<Failing>,
}

impl Group {
    /// Every pod that it knows; some more than once.
    pub fn pods(&self) -> impl Iterator<Item = &Backend> {
        let failing = self.failing.iter().map(|it| &it.backend);
        self.backends.iter().chain(&self.idle).chain(failing)
    }

    /// Every pod fails its health checks, so all of them serve ("fail open").
    pub fn is_open(&self) -> bool {
        let failing = self.failing.first();
        failing.is_some_and(|it| {
            let place = (&it.backend.cluster, it.backend.address);
            self.backends
                .iter()
                .any(|it| (&it.cluster, it.address) == place)
        })
    }

    /// What is probed: each pod that serves, or would.
    pub fn probes(&self) -> impl Iterator<Item = Probe> {
        let check = self
            .policy
            .health
            .as_ref()
            .filter(|it| it.executed(&self.service));
        check.into_iter().flat_map(|check| {
            let failing = self.failing.iter().map(|it| &it.backend);
            let pods = self.backends.iter().chain(failing);
            pods.map(|it| Probe::of(it.address, check))
        })
    }
}

/// A pod that fails its health checks.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Failing {
    /// The pod; its weight is 0 here.
    #[serde(flatten)]
    pub backend: Backend,
    /// What the probe met that made it fail.
    pub why: ProbeFailure,
}

/// A Service port, the same in every cluster.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct ServiceName {
    /// Namespace.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// As the Ingress wrote it, number or name; `/UDP` behind it where datagrams are meant.
    pub port: String,
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.name, self.port)
    }
}

/// How clusters share a group's traffic.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// No `cluster-weight`: every ready pod of every cluster is equal.
    Replicas,
    /// `cluster-weight.<id>` of known clusters, 0 to 100; relative.
    Clusters(BTreeMap<ClusterId, u8>),
}

/// Client affinity (`Service.spec.sessionAffinity`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Affinity {
    /// Each connection (or request) is picked for itself.
    #[default]
    None,
    /// All connections of one client address go to one backend.
    ClientIp,
}

/// One ready pod of one cluster.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Backend {
    /// Cluster that runs it.
    pub cluster: ClusterId,
    /// Pod address and target port.
    pub address: SocketAddr,
    /// Pod name, or the address where the slice names none.
    pub pod: Arc<str>,
    /// Relative weight in [`Group::backends`]: cluster weight x [`WEIGHT_UNIT`] / ready pods of that cluster.
    pub weight: u32,
}

/// Weight of a pod where no cluster weight is given; cluster weights are multiples of it.
pub const WEIGHT_UNIT: u32 = 1_000_000;
