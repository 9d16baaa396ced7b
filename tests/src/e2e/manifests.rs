//! Objects as kubectl would apply them. Text in, text out.

use std::fmt::Write;

use xtask::{
    lab::topology::{self, HTTP_PORT},
    member::{self, Endpoint, Port},
};

/// Path below the manifest directory, and content.
pub type File = (String, String);

/// The listener's port of [`basic`].
pub const WEB: u16 = 8001;

/// A gateway with listener 8001, Service `web` over all pods, and an Ingress that sends everything there.
pub fn basic() -> Vec<File> {
    let mut files = vec![
        ("fleet/gateway.yaml".to_owned(), gateway(&[WEB], "")),
        ("fleet/web.yaml".to_owned(), Ingress::new("web", WEB).yaml()),
    ];
    files.extend(clusters("web", HTTP_PORT, "None", |_| true));
    files
}

/// A Service and its EndpointSlice in both clusters; `ready` tells it of each pod by name.
pub fn clusters(name: &str, port: u16, affinity: &str, ready: impl Fn(&str) -> bool) -> Vec<File> {
    ["c1", "c2"]
        .into_iter()
        .map(|cluster| {
            let pods: Vec<Endpoint> = topology::pods()
                .iter()
                .filter(|pod| pod.cluster == cluster)
                .map(|pod| pod.endpoint(ready(&pod.name)))
                .collect();
            let text = service(name, port, affinity, &pods);
            (format!("clusters/{cluster}/{name}.yaml"), text)
        })
        .collect()
}

/// AlbConfig and IngressClass with HTTP listeners; `more` is YAML below each listener, indented by four.
pub fn gateway(ports: &[u16], more: &str) -> String {
    gateway_of("c1,c2", ports, more)
}

/// The same with these member clusters.
pub fn gateway_of(clusters: &str, ports: &[u16], more: &str) -> String {
    let listeners: Vec<(u16, &str)> = ports.iter().map(|port| (*port, "HTTP")).collect();
    gateway_with(clusters, &listeners, more)
}

/// The same with listeners of these ports and protocols.
pub fn gateway_with(clusters: &str, listeners: &[(u16, &str)], more: &str) -> String {
    let mut text = format!(
        "apiVersion: alibabacloud.com/v1
kind: AlbConfig
metadata:
  name: mcg
  annotations:
    alb.ingress.kubernetes.io/remote-clusters: {clusters}
spec:
  config:
    name: mcg
  listeners:
"
    );
    for (port, protocol) in listeners {
        // Writing to a String cannot fail.
        let _ = write!(text, "  - port: {port}\n    protocol: {protocol}\n{more}");
    }
    text + "---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata:
  name: alb
spec:
  controller: ingress.k8s.alibabacloud/alb
  parameters:
    apiGroup: alibabacloud.com
    kind: AlbConfig
    name: mcg
"
}

/// An Ingress with one rule and one path.
#[derive(Clone, Debug)]
pub struct Ingress {
    name: String,
    ports: Vec<u16>,
    /// Listeners of HTTPS, and the Secret that they show.
    https: Option<(Vec<u16>, String)>,
    service: String,
    host: Option<String>,
    path: String,
    notes: Vec<(String, String)>,
}

impl Ingress {
    /// Sends everything on a listener to Service `web`.
    pub fn new(name: &str, port: u16) -> Self {
        Self {
            name: name.to_owned(),
            ports: vec![port],
            https: None,
            service: "web".to_owned(),
            host: None,
            path: "/".to_owned(),
            notes: Vec::new(),
        }
    }

    /// On these listeners.
    pub fn ports(mut self, ports: &[u16]) -> Self {
        self.ports = ports.to_vec();
        self
    }

    /// Also on these listeners of HTTPS, which show this Secret.
    pub fn https(mut self, ports: &[u16], secret: &str) -> Self {
        self.https = Some((ports.to_vec(), secret.to_owned()));
        self
    }

    /// To this Service.
    pub fn service(mut self, name: &str) -> Self {
        self.service = name.to_owned();
        self
    }

    /// Only requests for this host.
    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    /// Only requests below this path.
    pub fn path(mut self, path: &str) -> Self {
        self.path = path.to_owned();
        self
    }

    /// Another annotation.
    pub fn note(mut self, key: &str, value: &str) -> Self {
        self.notes.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Percent of requests or connections by cluster.
    pub fn weights(mut self, weights: &[(&str, u8)]) -> Self {
        for (cluster, weight) in weights {
            let key = format!("alb.ingress.kubernetes.io/cluster-weight.{cluster}");
            self = self.note(&key, &weight.to_string());
        }
        self
    }

    /// `fleetgate.io/steering`.
    pub fn steering(self, mode: &str) -> Self {
        self.note("fleetgate.io/steering", mode)
    }

    /// The object.
    pub fn yaml(&self) -> String {
        let plain = self.ports.iter().map(|port| ("HTTP", port));
        let secured = self.https.iter().flat_map(|(ports, _)| ports);
        let ports: Vec<String> = plain
            .chain(secured.map(|port| ("HTTPS", port)))
            .map(|(protocol, port)| format!("{{\"{protocol}\": {port}}}"))
            .collect();
        let mut text = format!(
            "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {}
  namespace: demo
  annotations:
    alb.ingress.kubernetes.io/listen-ports: '[{}]'
",
            self.name,
            ports.join(", ")
        );
        for (key, value) in &self.notes {
            let _ = writeln!(text, "    {key}: '{value}'");
        }
        let rule = match &self.host {
            Some(host) => format!("  - host: {host}\n    http:"),
            None => "  - http:".to_owned(),
        };
        let tls = match &self.https {
            Some((_, secret)) => format!("  tls:\n  - secretName: {secret}\n"),
            None => String::new(),
        };
        let _ = write!(
            text,
            "spec:
  ingressClassName: alb
{tls}  rules:
{rule}
      paths:
      - path: {}
        pathType: Prefix
        backend:
          service:
            name: {}
            port:
              number: 80
---
",
            self.path, self.service
        );
        text
    }
}

/// A Service whose pods listen on this port, and its EndpointSlice.
pub fn service(name: &str, target: u16, affinity: &str, pods: &[Endpoint]) -> String {
    let port = Port::tcp("http", 80);
    member::service(name, port, target, affinity) + &member::slice(name, port.at(target), pods)
}
