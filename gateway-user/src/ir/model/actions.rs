//! What a rule does with what it matches: filters in order, then one target.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Regex;

/// A server group: the pods of one Service port, as one Ingress splits and treats them.
///
/// Written `namespace/ingress/service:port`. Contract section 11: one group for each (Ingress, Service, port).
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct GroupName {
    /// Namespace of Ingress and Service.
    pub namespace: String,
    /// Name of the Ingress.
    pub ingress: String,
    /// Name of the Service.
    pub service: String,
    /// Port of the Service, number or name; `/UDP` behind it where datagrams are meant.
    pub port: String,
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            namespace,
            ingress,
            service,
            port,
        } = self;
        write!(f, "{namespace}/{ingress}/{service}:{port}")
    }
}

impl Serialize for GroupName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GroupName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parts = || {
            let (namespace, rest) = text.split_once('/')?;
            let (ingress, rest) = rest.split_once('/')?;
            let (service, port) = rest.rsplit_once(':')?;
            Some(Self {
                namespace: namespace.to_owned(),
                ingress: ingress.to_owned(),
                service: service.to_owned(),
                port: port.to_owned(),
            })
        };
        parts().ok_or_else(|| serde::de::Error::custom(format!("no group name: {text}")))
    }
}

/// One of the groups that share a rule's traffic.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct WeightedGroup {
    /// The group.
    pub group: GroupName,
    /// Relative, 0 to 100; 0 gets nothing.
    pub weight: u32,
}

/// Which way a rule acts (`rule-direction.<svc>`).
#[derive(
    Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// On requests, on their way to a target.
    #[default]
    Request,
    /// On responses of backends, on their way to the client.
    Response,
}

/// What happens to a request that meets all conditions.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// It is sent to a pod.
    Forward(Forward),
    /// It is answered with another address.
    Redirect(Redirect),
    /// It is answered as written.
    Respond(FixedResponse),
    /// Response direction: the (changed) response goes to the client.
    Pass,
}

/// Groups that share by weight.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Forward {
    /// At least one; all weights 0 answers 503.
    pub groups: Vec<WeightedGroup>,
    /// `ServerGroupStickySession`: a client stays with its group for this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Duration>,
}

/// `RedirectConfig`. Parts may hold `${host}`, `${path}`, `${port}`, `${protocol}` and `${query}` of the request.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Redirect {
    /// `http`, `https` or `${protocol}`.
    pub protocol: String,
    /// Host.
    pub host: String,
    /// Number or `${port}`.
    pub port: String,
    /// Path.
    pub path: String,
    /// Query without its `?`.
    pub query: String,
    /// 301, 302, 303, 307 or 308.
    pub code: u16,
}

impl Redirect {
    /// What `ssl-redirect` asks for (contract section 4.4): the same address by HTTPS on port 443, with 308.
    pub fn to_https() -> Self {
        Self {
            protocol: "https".to_owned(),
            port: "443".to_owned(),
            code: 308,
            ..Self::default()
        }
    }
}

impl Default for Redirect {
    /// Every part as the request has it, with 301.
    fn default() -> Self {
        Self {
            protocol: "${protocol}".to_owned(),
            host: "${host}".to_owned(),
            port: "${port}".to_owned(),
            path: "${path}".to_owned(),
            query: "${query}".to_owned(),
            code: 301,
        }
    }
}

/// `FixedResponseConfig`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct FixedResponse {
    /// 2xx, 4xx or 5xx.
    pub code: u16,
    /// Media type, e.g. `text/plain`.
    pub content_type: String,
    /// ASCII, at most 1 KiB.
    pub content: String,
}

/// One change on the way to the target, carried out in the order of [`Rule::filters`](super::Rule::filters).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// More is answered 503.
    TrafficLimit(TrafficLimit),
    /// Adds a header.
    InsertHeader(InsertHeader),
    /// Removes a header, named in lower case.
    RemoveHeader(String),
    /// Changes host, path or query.
    Rewrite(Rewrite),
    /// Answers preflight requests and marks responses for browsers.
    Cors(Cors),
    /// Copies each request; answers to the copy are dropped.
    Mirror(Vec<WeightedGroup>),
}

/// `TrafficLimitConfig` and the annotations `traffic-limit-*`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct TrafficLimit {
    /// Requests per second of the whole rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<u32>,
    /// Requests per second of one client address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_client: Option<u32>,
}

/// `InsertHeaderConfig`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct InsertHeader {
    /// Lower-case field name.
    pub name: String,
    /// Where the value comes from.
    pub value: InsertedValue,
    /// Replaces what is there; otherwise that stays.
    pub overwrite: bool,
}

/// Value of an inserted header.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InsertedValue {
    /// As written.
    Literal(String),
    /// That of this header of the request, in lower case.
    Header(String),
    /// `ClientSrcPort`, `ClientSrcIp`, `Protocol`, `SLBId` or `SLBPort`.
    System(SystemValue),
}

/// What the gateway knows of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SystemValue {
    /// The client's port.
    ClientPort,
    /// The client's address.
    ClientAddress,
    /// The listener's protocol.
    Protocol,
    /// The gateway's id.
    GatewayId,
    /// The listener's port.
    ListenerPort,
}

/// `RewriteConfig` and `rewrite-target`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Rewrite {
    /// Host with variables, as in [`Redirect`].
    pub host: String,
    /// Path with variables.
    pub path: String,
    /// Query with variables.
    pub query: String,
    /// `rewrite-target`: `${1}` to `${3}` of the path are the groups of this expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captures: Option<Regex>,
}

/// The annotations `cors-*`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Cors {
    /// `*`, or origins such as `https://*.example.com:8443`.
    pub origins: Vec<String>,
    /// Methods, upper case.
    pub methods: Vec<String>,
    /// Header names.
    pub headers: Vec<String>,
    /// Header names.
    pub expose: Vec<String>,
    /// `Access-Control-Allow-Credentials: true`.
    pub credentials: bool,
    /// Seconds, -1 to 172 800.
    pub max_age_seconds: i32,
}
