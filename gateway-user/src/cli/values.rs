//! Values of flags, validated where they are typed.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// Network of source addresses, IPv4 or IPv6. At most 4096 of them, the size of the kernel's table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// Networks with more bits of hosts do not fit the table of source addresses.
const HOST_BITS: u8 = 12;

const fn width(network: IpAddr) -> u8 {
    match network {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The address of this number in the family of `like`.
fn address(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(number as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

impl Cidr {
    /// Usable addresses: without the network and the broadcast address, except in /31 and /32
    /// (RFC 3021); of IPv6 without the routers' anycast address (RFC 4291 section 2.6.1), except in /127 and /128
    /// (RFC 6164).
    pub fn addresses(self) -> impl Iterator<Item = IpAddr> {
        let size = 1_u128 << (width(self.network) - self.prefix);
        let first = u128::from(size > 2);
        let last = u128::from(size > 2 && self.network.is_ipv4());
        let Self { network, .. } = self;
        (first..size - last).map(move |at| address(number(network) + at, network))
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (network, prefix) = match text.split_once('/') {
            Some((network, prefix)) => (network, Some(prefix)),
            None => (text, None),
        };
        let network: IpAddr = network
            .parse()
            .map_err(|_| "expected a network such as 10.9.0.0/28 or 2001:db8::/124".to_owned())?;
        let width = width(network);
        let widest = width - HOST_BITS;
        let prefix = prefix.map_or(Some(width), |prefix| prefix.parse().ok());
        let prefix: u8 = prefix.filter(|prefix| *prefix <= width).ok_or(format!(
            "the prefix length is a number from {widest} to {width}"
        ))?;
        if prefix < widest {
            return Err(format!(
                "at most 4096 source addresses: /{widest} or longer"
            ));
        }
        let host_bits = (1_u128 << (width - prefix)) - 1;
        if number(network) & host_bits != 0 {
            return Err(format!(
                "{network} is not the first address of a /{prefix}; did you mean {}/{prefix}?",
                address(number(network) & !host_bits, network)
            ));
        }
        Ok(Self { network, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PortRange {
    /// First port, at least 1024.
    pub first: u16,
    /// Last port, not below the first.
    pub last: u16,
}

impl PortRange {
    /// How many ports.
    pub const fn count(self) -> u16 {
        self.last - self.first + 1
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let range = text.split_once('-').and_then(|(first, last)| {
            Some(Self {
                first: first.trim().parse().ok()?,
                last: last.trim().parse().ok()?,
            })
        });
        match range {
            Some(range) if range.first >= 1024 && range.last >= range.first => Ok(range),
            _ => Err("expected FIRST-LAST with 1024 <= FIRST <= LAST <= 65535".to_owned()),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// An address, with or without a port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// Address.
    pub ip: IpAddr,
    /// Port, if one was given.
    pub port: Option<u16>,
}

impl Endpoint {
    /// Whether an address is the one meant; without a port, any port is.
    pub fn covers(self, address: SocketAddr) -> bool {
        self.ip == address.ip() && self.port.is_none_or(|port| port == address.port())
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse() {
            return Ok(Self { ip, port: None });
        }
        let address: SocketAddr = text
            .parse()
            .map_err(|_| "expected IP or IP:PORT, e.g. 198.51.100.7:40000".to_owned())?;
        Ok(Self {
            ip: address.ip(),
            port: Some(address.port()),
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

/// `GET /path?query HTTP/1.1`; method and version may be left out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RequestLine {
    /// Method; `GET` if none was given.
    pub method: String,
    /// Path, without query.
    pub path: String,
    /// Query, without its `?`.
    pub query: Option<String>,
    /// Authority of an absolute target (RFC 9112 section 3.2.2): it replaces the Host header.
    pub authority: Option<String>,
}

impl FromStr for RequestLine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let (method, target) = match words[..] {
            [target] => ("GET", target),
            [method, target] => (method, target),
            [method, target, version] if version.starts_with("HTTP/") => (method, target),
            _ => return Err("expected 'METHOD PATH', e.g. 'GET /shop'".to_owned()),
        };
        let (authority, path) = match target.strip_prefix("http://") {
            Some(rest) => {
                let at = rest.find(['/', '?']).unwrap_or(rest.len());
                (Some(rest[..at].to_owned()), &rest[at..])
            }
            None => (None, target),
        };
        let path = path.split('#').next().unwrap_or_default();
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (path, None),
        };
        let path = match path {
            "" if authority.is_some() => "/",
            path if path.starts_with('/') || path == "*" => path,
            _ => return Err(format!("the path {path:?} does not start with /")),
        };
        Ok(Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query,
            authority,
        })
    }
}

/// `Name: value`; the name becomes lower case.
pub fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or("expected 'Name: value', e.g. 'stage: gray'")?;
    let name = name.trim();
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err("a header name is one word".to_owned());
    }
    Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_yields_its_usable_addresses() {
        let addresses = |text: &str| -> Vec<String> {
            let cidr: Cidr = text.parse().unwrap();
            cidr.addresses().map(|ip| ip.to_string()).collect()
        };
        assert_eq!(addresses("10.9.0.4/30"), ["10.9.0.5", "10.9.0.6"]);
        assert_eq!(addresses("10.9.0.4/31"), ["10.9.0.4", "10.9.0.5"]);
        assert_eq!(addresses("255.255.255.255"), ["255.255.255.255"]);
        assert_eq!(addresses("2001:db8::4/127"), ["2001:db8::4", "2001:db8::5"]);
        assert_eq!(
            addresses("2001:db8::4/126"),
            ["2001:db8::5", "2001:db8::6", "2001:db8::7"]
        );
        assert_eq!(addresses("2001:db8::9"), ["2001:db8::9"]);
        assert_eq!(
            "10.9.0.0/20".parse::<Cidr>().unwrap().addresses().count(),
            4094
        );
    }

    #[test]
    fn a_network_with_host_bits_is_refused_with_the_one_that_was_meant() {
        let error = "10.9.0.5/28".parse::<Cidr>().unwrap_err();
        assert!(error.contains("10.9.0.0/28"), "{error}");
        for text in [
            "10.0.0.0/8",
            "10.0.0.0/33",
            "2001:db8::/64",
            "2001:db8::1/124",
            "ten/24",
            "0.0.0.0/0",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_endpoint_without_port_covers_every_port() {
        let address = "10.0.0.1:80".parse().unwrap();
        for (text, covers) in [
            ("10.0.0.1", true),
            ("10.0.0.1:80", true),
            ("10.0.0.1:81", false),
            ("10.0.0.2", false),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().covers(address), covers);
        }
    }

    #[test]
    fn a_request_line_is_read_like_the_proxy_reads_it() {
        let path = |text: &str| text.parse::<RequestLine>().map(|r| (r.method, r.path));
        let is = |method: &str, path: &str| Ok((method.to_owned(), path.to_owned()));
        assert_eq!(path("/a/b?c=/d"), is("GET", "/a/b"));
        assert_eq!(path("POST /x HTTP/1.1"), is("POST", "/x"));
        assert_eq!(path("GET http://h:1?q"), is("GET", "/"));
        assert!(path("GET shop").is_err() && path("").is_err() && path("a b c").is_err());
        let absolute: RequestLine = "GET http://shop.example/cart".parse().unwrap();
        assert_eq!(absolute.authority.as_deref(), Some("shop.example"));
        assert_eq!(absolute.path, "/cart");
    }

    #[test]
    fn a_header_name_is_lower_case_and_its_value_trimmed() {
        assert_eq!(
            header("Stage:  gray: x "),
            Ok(("stage".to_owned(), "gray: x".to_owned()))
        );
        assert!(header("stage").is_err() && header(": x").is_err() && header("a b: x").is_err());
    }
}
