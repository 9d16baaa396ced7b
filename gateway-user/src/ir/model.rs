//! The values of the routing model.

use std::{collections::BTreeMap, fmt, net::IpAddr, net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

mod actions;
mod conditions;
mod policy;
mod tls;

pub use actions::*;
pub use conditions::*;
pub use policy::*;
pub use tls::*;

pub use crate::manifest::ClusterId;

/// All that is routed, over every AlbConfig. Listeners are sorted by name; equal input gives equal output.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Ir {
    /// Every listener, also those without a rule (they answer 404).
    pub listeners: Vec<Listener>,
}

/// Identity of a listener: changing any part makes another listener.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct ListenerName {
    /// Name of the AlbConfig.
    pub gateway: String,
    /// TCP port, 1 to 65535.
    pub port: u16,
    /// What is spoken on it.
    pub protocol: ListenerProtocol,
}

impl fmt::Display for ListenerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.gateway, self.port, self.protocol)
    }
}

/// Protocol of a listener. HTTPS and QUIC may share a port number; HTTP and HTTPS may not.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ListenerProtocol {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
    /// HTTP/3.
    Quic,
}

impl fmt::Display for ListenerProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http => f.write_str("HTTP"),
            Self::Https => f.write_str("HTTPS"),
            Self::Quic => f.write_str("QUIC"),
        }
    }
}

/// One (address, port, protocol) that clients connect to, and its ordered rules.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    /// Identity.
    pub name: ListenerName,
    /// From `fleetgate.io/addresses`; empty means every VIP of the node.
    pub addresses: Vec<IpAddr>,
    /// An idle client connection is closed after this long (1 to 60 s, default 15 s).
    pub idle_timeout: Duration,
    /// A backend that has not answered after this long yields 504 (1 to 600 s, default 60 s).
    pub request_timeout: Duration,
    /// What happens to `X-Forwarded-For`.
    pub forwarded_for: ForwardedFor,
    /// Further headers this listener was explicitly told to send to backends.
    pub forwarded: ForwardedHeaders,
    /// Tried in this order; the first whose conditions all hold decides. No match is a 404.
    pub rules: Vec<Rule>,
    /// Who steers, and why.
    pub steering: Steering,
}

impl Listener {
    /// The group that serves every connection; `None` where the proxy steers.
    ///
    /// Connection steering needs that all rules up to the one that covers everything lead to equal groups, so that of
    /// the first rule is the group of all.
    pub fn kernel_group(&self) -> Option<&Arc<Group>> {
        match self.steering.mode {
            SteeringMode::Connection => self.rules.first().map(|rule| &rule.group),
            SteeringMode::Request => None,
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

/// One rule: all conditions hold (AND) -> the group.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// `namespace/name` of the Ingress it came from.
    pub ingress: String,
    /// Where in that Ingress, e.g. `spec.rules[0].http.paths[1]`.
    pub place: String,
    /// 1, 2, 3 ... in the order of evaluation, per listener.
    pub priority: u32,
    /// Alternatives; empty matches any host.
    pub hosts: Vec<HostPattern>,
    /// Alternatives; empty matches any path.
    pub paths: Vec<PathPattern>,
    /// All must match.
    pub headers: Vec<HeaderMatch>,
    /// `fleetgate.io/steering` of the Ingress, if it has one.
    pub steering: Option<SteeringWish>,
    /// Where matching traffic goes.
    pub group: Arc<Group>,
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
    /// The Service.
    pub service: ServiceName,
    /// How clusters share.
    pub split: Split,
    /// Whether connections of one client stay together.
    pub affinity: Affinity,
    /// Ready pods with a weight above zero, sorted by (cluster, address). Empty: 503.
    pub backends: Vec<Backend>,
    /// Pods that exist but get nothing new: of clusters with weight 0, not ready, or terminating.
    /// Their flows are left alone; weight is 0 here.
    pub idle: Vec<Backend>,
}

/// A Service port, the same in every cluster.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct ServiceName {
    /// Namespace.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// As the Ingress wrote it: number or name.
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
