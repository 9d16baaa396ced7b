//! How the pods of a group are treated: annotations of an Ingress that hold for all of its groups (contract section 11).

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

/// Treatment of a group's pods.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// What pods speak.
    pub protocol: BackendProtocol,
    /// How a pod is chosen.
    pub scheduler: Scheduler,
    /// Connections to pods are kept for further requests. `None`: not written.
    pub keepalive: Option<bool>,
    /// Requests of a session stay with a pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
    /// A new pod gets its full share only after this long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Duration>,
    /// A pod that goes keeps its connections for this long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<Duration>,
    /// Probes; `None`: readiness of the pods decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Arc<HealthCheck>>,
}

/// What pods speak.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendProtocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/1.1 over TLS.
    Https,
    /// gRPC over HTTP/2.
    Grpc,
}

/// How a pod is chosen.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheduler {
    /// `wrr`: in turn, by weight.
    #[default]
    RoundRobin,
    /// `wlc`: fewest connections for its weight.
    LeastConnections,
    /// `sch`: hash of the client's address.
    SourceHash,
    /// `uch`: hash of this query parameter; in turn where it is missing.
    QueryHash(String),
}

/// Session stickiness.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sticky {
    /// The gateway sets a cookie that is valid for this long.
    Insert(Duration),
    /// The gateway rewrites this cookie of the application.
    Server(String),
}

/// Probes of pods (contract section 11.4).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What the probe speaks.
    pub protocol: HealthProtocol,
    /// Port probed; `None`: that of the pod.
    pub port: Option<u16>,
    /// HTTP and gRPC: the path.
    pub path: String,
    /// HTTP: `HEAD`, `GET` or `POST`.
    pub method: String,
    /// HTTP/1.0 instead of 1.1.
    pub http10: bool,
    /// Accepted answers: HTTP status classes (2 to 5), or gRPC codes.
    pub codes: Vec<u16>,
    /// Wait for an answer, 1 to 300 s.
    pub timeout: Duration,
    /// Between two probes, 1 to 50 s.
    pub interval: Duration,
    /// Good answers in a row that make a pod healthy, 2 to 10.
    pub rise: u8,
    /// Bad answers in a row that make a pod unhealthy, 2 to 10.
    pub fall: u8,
}

/// What a probe speaks.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthProtocol {
    /// HTTP.
    Http,
    /// HTTP over TLS.
    Https,
    /// A TCP connection.
    Tcp,
    /// gRPC.
    Grpc,
}

impl HealthCheck {
    /// Whether this gateway can carry it out.
    pub const fn executed(&self) -> bool {
        matches!(self.protocol, HealthProtocol::Http | HealthProtocol::Tcp)
    }
}

/// One thing that is probed: an address, in one way. Groups that agree on both share the probe.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Probe {
    /// Where the probe goes: the pod, at its port or at that of the check.
    pub address: SocketAddr,
    /// How it is probed.
    pub check: Arc<HealthCheck>,
}

impl Probe {
    /// The target of a pod.
    pub fn of(mut pod: SocketAddr, check: &Arc<HealthCheck>) -> Self {
        pod.set_port(check.port.unwrap_or(pod.port()));
        Self {
            address: pod,
            check: Arc::clone(check),
        }
    }
}

/// Why a probe failed.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeFailure {
    /// Nobody listens.
    Refused,
    /// No answer in time.
    Timeout,
    /// No way there.
    Unreachable,
    /// The connection ended before an answer.
    Closed,
    /// What came is no HTTP response.
    NotHttp,
    /// A status of another class than asked for.
    Status(u16),
}

impl fmt::Display for ProbeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("refuses connections"),
            Self::Timeout => f.write_str("does not answer in time"),
            Self::Unreachable => f.write_str("cannot be reached"),
            Self::Closed => f.write_str("closes the connection before it answers"),
            Self::NotHttp => f.write_str("answers with something that is not HTTP"),
            Self::Status(status) => write!(f, "answers {status}"),
        }
    }
}
