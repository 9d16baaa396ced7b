//! What a member cluster says of a Service: the object and its EndpointSlice, as kubectl would apply them.

use std::{
    fmt::{Display, Write},
    net::IpAddr,
};

/// A port of a Service, or of its pods.
#[derive(Clone, Copy, Debug)]
pub struct Port<'a> {
    /// Its name, the same in Service and EndpointSlice.
    pub name: &'a str,
    /// Its number.
    pub number: u16,
    /// `TCP` or `UDP`.
    pub protocol: &'a str,
}

impl<'a> Port<'a> {
    /// A TCP port.
    pub const fn tcp(name: &'a str, number: u16) -> Self {
        Self {
            name,
            number,
            protocol: "TCP",
        }
    }

    /// The same port under another number: that of the pods.
    pub const fn at(self, number: u16) -> Self {
        Self { number, ..self }
    }
}

/// A pod in an EndpointSlice.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Address.
    pub address: IpAddr,
    /// Name.
    pub name: String,
    /// Whether it is listed as ready.
    pub ready: bool,
}

/// A Service in namespace `demo`; `target` is the port of its pods, by number or by name.
pub fn service(name: &str, port: Port<'_>, target: impl Display, affinity: &str) -> String {
    let Port {
        name: port_name,
        number,
        protocol,
    } = port;
    format!(
        "apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: demo
spec:
  selector:
    app: {name}
  sessionAffinity: {affinity}
  ports:
  - name: {port_name}
    port: {number}
    protocol: {protocol}
    targetPort: {target}
---
"
    )
}

/// The EndpointSlice of a Service in namespace `demo`, with pods of the family of the first one: `<service>-4`, or `-6`.
/// Without pods it is one of IPv4.
pub fn slice(service: &str, port: Port<'_>, pods: &[Endpoint]) -> String {
    let family = match pods.first().map(|pod| pod.address) {
        Some(IpAddr::V6(_)) => 6,
        _ => 4,
    };
    let Port {
        name,
        number,
        protocol,
    } = port;
    let none = if pods.is_empty() { " []" } else { "" };
    let mut text = format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {service}-{family}
  namespace: demo
  labels:
    kubernetes.io/service-name: {service}
addressType: IPv{family}
ports:
- name: {name}
  port: {number}
  protocol: {protocol}
endpoints:{none}
"
    );
    for Endpoint {
        address,
        name,
        ready,
    } in pods
    {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "- addresses: [\"{address}\"]
  conditions:
    ready: {ready}
  targetRef:
    kind: Pod
    namespace: demo
    name: {name}
"
        );
    }
    text
}
