//! What the status room is told of the gateway: names and addresses, nothing of how traffic is steered.

use std::net::IpAddr;

use crate::problem::Problem;

/// One look at everything that is written back to the fleet.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The fleet has been read whole. Before that nothing is released: what is not known yet may well be ours.
    pub whole: bool,
    /// Prefix of the IDs of gateways, `fleetgate` where nobody chose another; the same on every node.
    pub instance: &'a str,
    /// `--dns-suffix`: gateways are named `<AlbConfig>.<suffix>`; their addresses are shown where it is absent.
    pub dns_suffix: Option<&'a str>,
    /// Every AlbConfig.
    pub gateways: &'a [GatewayView],
    /// Every Ingress of our classes.
    pub ingresses: &'a [IngressView],
    /// What is wrong with anybody's objects.
    pub problems: &'a [Problem],
}

/// One AlbConfig.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct GatewayView {
    /// Name of the AlbConfig.
    pub name: String,
    /// `metadata.uid` where the source knows it; tells an object from its successor of the same name.
    pub uid: Option<String>,
    /// Changes when the object does, e.g. `metadata.generation`; 0 where the source does not know.
    pub revision: u64,
    /// Its listeners, in the order of the AlbConfig.
    pub listeners: Vec<ListenerView>,
    /// Member clusters that were connected once and were not removed, whether or not they answer now.
    pub clusters: Vec<String>,
    /// Addresses it is reached at, the first one first.
    pub addresses: Vec<IpAddr>,
}

/// One listener of an AlbConfig.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ListenerView {
    /// TCP or UDP port.
    pub port: u16,
    /// `HTTP`, `HTTPS`, `QUIC` ... as in the AlbConfig.
    pub protocol: String,
    /// Whether clients that connect are answered.
    pub served: bool,
    /// What it shows to clients.
    pub certificates: Vec<CertificateView>,
}

/// One certificate of a listener.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CertificateView {
    /// The Secret that holds it, `namespace/name`, or the ID the AlbConfig gives.
    pub secret: String,
    /// Shown to clients that name no host, or one that no certificate covers.
    pub is_default: bool,
}

/// One Ingress.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct IngressView {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `metadata.uid` where the source knows it.
    pub uid: Option<String>,
    /// Changes when the object does; 0 where the source does not know.
    pub revision: u64,
    /// Name of its AlbConfig.
    pub gateway: String,
    /// Whether any rule of it, also of an earlier version, is served.
    pub served: bool,
}
