//! How the pods of a group are treated: annotations of an Ingress that hold for all of its groups (contract section 11).

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{ServiceName, Transport};

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
    /// Every connection to a pod begins with a PROXY header (version 2) that names its client, and serves no other.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub proxy_header: bool,
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

impl Policy {
    /// What of it only the proxy carries out, for people; `None` where the kernel may steer connections.
    pub fn proxied(&self) -> Option<&'static str> {
        match (self.protocol, &self.scheduler) {
            (BackendProtocol::Https, _) => Some("speaks HTTPS to pods"),
            (BackendProtocol::Grpc, _) => Some("speaks gRPC to pods"),
            _ if self.sticky.is_some() => Some("keeps sessions by cookie"),
            (_, Scheduler::LeastConnections) => Some("picks the pod with the fewest requests"),
            (_, Scheduler::SourceHash) => Some("picks pods by a hash of the client's address"),
            (_, Scheduler::QueryHash(_)) => Some("picks pods by a hash of a query parameter"),
            _ if self.proxy_header => Some("names clients to pods in PROXY headers"),
            _ if self.slow_start.is_some() => Some("lets new pods start slowly"),
            (BackendProtocol::Http, Scheduler::RoundRobin) => None,
        }
    }
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
    /// HTTP: the path. gRPC: the method, `/service/method`; `/` is `grpc.health.v1.Health/Check`.
    pub path: String,
    /// HTTP: `HEAD`, `GET` or `POST`; gRPC: `POST` or `GET`.
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
    /// HTTP/1 over TLS, whose certificate is not verified.
    Https,
    /// A TCP connection.
    Tcp,
    /// gRPC over HTTP/2 without TLS.
    Grpc,
}

impl HealthCheck {
    /// Whether this gateway can carry it out on the pods of a service. A port for datagrams answers no probe, so there the
    /// check must name another.
    pub fn executed(&self, service: &ServiceName) -> bool {
        service.port().1 == Transport::Tcp || self.port.is_some()
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
    /// A status of another class than asked for; of a gRPC probe, any but 200 of a server that names no gRPC status.
    Status(u16),
    // Records hold these names: variants are added, never renamed.
    /// TLS failed.
    Tls,
    /// What came is no gRPC response.
    NotGrpc,
    /// A gRPC status that is not accepted.
    GrpcStatus(u16),
    /// The pod itself says that it does not serve.
    NotServing,
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
            Self::Tls => f.write_str("fails the TLS handshake"),
            Self::NotGrpc => f.write_str("answers with something that is not gRPC"),
            Self::GrpcStatus(status) => write!(f, "answers with gRPC status {status}"),
            Self::NotServing => f.write_str("says that it is not serving"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_the_name_that_records_have_of_it() {
        use ProbeFailure::*;
        for (why, recorded) in [
            (Refused, r#""refused""#),
            (Timeout, r#""timeout""#),
            (Unreachable, r#""unreachable""#),
            (Closed, r#""closed""#),
            (NotHttp, r#""nothttp""#),
            (Status(503), r#"{"status":503}"#),
            (Tls, r#""tls""#),
            (NotGrpc, r#""notgrpc""#),
            (GrpcStatus(12), r#"{"grpcstatus":12}"#),
            (NotServing, r#""notserving""#),
        ] {
            assert_eq!(serde_json::to_string(&why).unwrap(), recorded);
            assert_eq!(serde_json::from_str::<ProbeFailure>(recorded).unwrap(), why);
        }
    }

    #[test]
    fn a_port_for_datagrams_is_probed_only_at_another_one() {
        let service = |port: &str| ServiceName {
            namespace: "demo".to_owned(),
            name: "web".to_owned(),
            port: port.to_owned(),
        };
        let check = |protocol, port| HealthCheck {
            protocol,
            port,
            path: "/".to_owned(),
            method: "POST".to_owned(),
            http10: false,
            codes: vec![0],
            timeout: Duration::from_secs(5),
            interval: Duration::from_secs(2),
            rise: 3,
            fall: 3,
        };
        use HealthProtocol::*;
        for protocol in [Http, Https, Tcp, Grpc] {
            assert!(check(protocol, None).executed(&service("80")));
            assert!(check(protocol, Some(81)).executed(&service("53/UDP")));
            assert!(!check(protocol, None).executed(&service("53/UDP")));
        }
    }
}
