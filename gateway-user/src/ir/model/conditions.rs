//! What a request or response must be for a rule to apply.

mod expression;
#[cfg(test)]
mod tests;

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::expression::Regex;

/// Conditions of a rule: blocks hold together (AND), alternatives inside a block suffice (OR). An empty block asks for
/// nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// Alternatives; empty matches any host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostPattern>,
    /// Alternatives; empty matches any path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathPattern>,
    /// Alternatives, upper case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Alternatives: networks of the client's address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Network>,
    /// Each must match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
    /// Each block must match; of a block one pair suffices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub queries: Vec<Vec<PairMatch>>,
    /// Each block must match; of a block one pair suffices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cookies: Vec<Vec<PairMatch>>,
    /// Response direction: each must match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response_headers: Vec<HeaderMatch>,
    /// Response direction: alternatives.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response_statuses: Vec<u16>,
}

impl Conditions {
    /// What they read of a request first, for people; `None` when nothing but every path.
    pub fn first_read(&self) -> Option<String> {
        let everything = |path: &PathPattern| *path == PathPattern::Prefix(String::new());
        if let Some(header) = self.headers.first() {
            Some(format!("the header {:?}", header.name))
        } else if let Some(host) = self.hosts.first() {
            Some(format!("the host {host}"))
        } else if !self.methods.is_empty() {
            Some("the method".to_owned())
        } else if let Some(network) = self.sources.first() {
            Some(format!("the client's address ({network})"))
        } else if let Some(pair) = self.queries.first().and_then(|block| block.first()) {
            Some(format!("the query parameter {:?}", pair.key))
        } else if let Some(pair) = self.cookies.first().and_then(|block| block.first()) {
            Some(format!("the cookie {:?}", pair.key))
        } else if !self.response_headers.is_empty() || !self.response_statuses.is_empty() {
            Some("the response".to_owned())
        } else if self.paths.iter().any(everything) {
            None
        } else {
            self.paths.first().map(|path| format!("the path {path}"))
        }
    }
}

/// Host pattern, lower case, without port.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostPattern {
    /// The whole host, compared without regard to case.
    Exact(String),
    /// `*.example.com` of `spec.rules[].host`: exactly one label before this suffix (kept with its dot: `.example.com`).
    OneLabel(String),
    /// `*` any run (dots too), `?` one character.
    Glob(String),
    /// Searched in the host, without regard to case.
    Regex(Regex),
}

/// Path pattern; case-sensitive, query excluded.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathPattern {
    /// The whole path.
    Exact(String),
    /// Element-wise prefix without trailing slash: `/foo` matches `/foo` and `/foo/...`, never `/foobar`. Empty matches all.
    Prefix(String),
    /// `*` any run (slashes too), `?` one character.
    Glob(String),
    /// Searched in the path.
    Regex(Regex),
}

impl fmt::Display for HostPattern {
    /// As an Ingress writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) | Self::Glob(host) => f.write_str(host),
            Self::OneLabel(suffix) => write!(f, "*{suffix}"),
            Self::Regex(regex) => regex.fmt(f),
        }
    }
}

impl PathPattern {
    /// The word for its kind: `exact`, `prefix`, `glob` or `regex`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Exact(_) => "exact",
            Self::Prefix(_) => "prefix",
            Self::Glob(_) => "glob",
            Self::Regex(_) => "regex",
        }
    }
}

impl fmt::Display for PathPattern {
    /// As an Ingress writes it; a prefix without its trailing slash, but `/` for all paths.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(all) if all.is_empty() => f.write_str("/"),
            Self::Exact(path) | Self::Prefix(path) | Self::Glob(path) => f.write_str(path),
            Self::Regex(regex) => regex.fmt(f),
        }
    }
}

/// A header that must be present.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct HeaderMatch {
    /// Lower-case field name.
    pub name: String,
    /// Alternatives: one field line's whole value matches one of these, case-sensitive, `*` any run and `?` one character.
    pub values: Vec<String>,
}

/// A query parameter or cookie that must be there: name and value, case-sensitive, with `*` and `?` as wildcards.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct PairMatch {
    /// Name.
    pub key: String,
    /// Value.
    pub value: String,
}

/// An IP network, e.g. `10.0.0.0/8`. Bits behind the prefix are zero.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// `None` when the prefix is longer than the address. IPv4 addresses mapped into IPv6 become IPv4.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(v4) if prefix <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::from((u32::from(v4) & mask).to_be_bytes())
            }
            IpAddr::V6(v6) if prefix <= 128 => match v6.to_ipv4_mapped() {
                Some(v4) if prefix >= 96 => return Self::new(v4.into(), prefix - 96),
                _ => {
                    let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                    IpAddr::from((u128::from(v6) & mask).to_be_bytes())
                }
            },
            _ => return None,
        };
        Some(Self { address, prefix })
    }

    /// Whether the address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::new(address.to_canonical(), self.prefix).is_some_and(|it| it.address == self.address)
    }

    /// First address of the network.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Bits of the prefix.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The text is neither an address nor a network.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotANetwork;

impl fmt::Display for NotANetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("neither an IP address nor a network such as 10.0.0.0/8")
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    /// `10.0.0.0/8`, or an address alone for all of its bits.
    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let prefix = match prefix {
            Some(text) if text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().map_err(|_| NotANetwork)?
            }
            Some(_) => return Err(NotANetwork),
            None if address.is_ipv4() => 32,
            None => 128,
        };
        Self::new(address, prefix).ok_or(NotANetwork)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
