//! TCP or UDP: of listeners, of Service ports, and of the kernel's services.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{GroupName, ListenerProtocol, ServiceName};

/// Transport protocol of a listener.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Behind the port of a Service whose datagrams are meant. No port has a slash in its name.
const DATAGRAMS: &str = "/UDP";

impl Transport {
    /// IANA protocol number.
    pub const fn number(self) -> u32 {
        match self {
            Self::Tcp => gateway_common::flow::TCP,
            Self::Udp => gateway_common::flow::UDP,
        }
    }

    /// A port of a Service, number or name, as groups and Services are told apart by it.
    pub(crate) fn of_port(self, port: &str) -> String {
        match self {
            Self::Tcp => port.to_owned(),
            Self::Udp => format!("{port}{DATAGRAMS}"),
        }
    }
}

impl fmt::Display for Transport {
    /// As Kubernetes writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

impl ListenerProtocol {
    /// What its packets are. HTTP/3 is UDP.
    pub const fn transport(self) -> Transport {
        match self {
            Self::Http | Self::Https | Self::Tcp => Transport::Tcp,
            Self::Quic | Self::Udp => Transport::Udp,
        }
    }

    /// Connections or datagrams whose content nobody reads: the kernel steers them, and the proxy never gets one.
    pub const fn is_l4(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }
}

impl ServiceName {
    /// The port as the Ingress wrote it, and which of the Service's ports of that number or name is meant.
    pub fn port(&self) -> (&str, Transport) {
        match self.port.strip_suffix(DATAGRAMS) {
            Some(port) => (port, Transport::Udp),
            None => (&self.port, Transport::Tcp),
        }
    }
}

impl GroupName {
    /// The same Service port for connections or datagrams.
    pub(crate) fn over(&self, transport: Transport) -> Self {
        Self {
            port: transport.of_port(&self.port),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_datagrams_of_a_port_are_another_group_and_survive_the_record() {
        let tcp = GroupName {
            namespace: "demo".into(),
            ingress: "dns".into(),
            service: "dns".into(),
            port: "53".into(),
        };
        let udp = tcp.over(Transport::Udp);
        assert_eq!(udp.to_string(), "demo/dns/dns:53/UDP");
        assert_eq!(tcp.over(Transport::Tcp), tcp);
        let text = serde_json::to_string(&udp).expect("text");
        assert_eq!(
            serde_json::from_str::<GroupName>(&text).expect("a name"),
            udp
        );
        let service = ServiceName {
            namespace: udp.namespace,
            name: udp.service,
            port: udp.port,
        };
        assert_eq!(service.port(), ("53", Transport::Udp));
    }
}
