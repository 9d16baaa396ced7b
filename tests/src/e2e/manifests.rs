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
    let listeners: String = ports
        .iter()
        .map(|port| format!("  - port: {port}\n    protocol: HTTP\n{more}"))
        .collect();
    let clusters = ("alb.ingress.kubernetes.io/remote-clusters", clusters);
    gateway_with(&[clusters], &listeners)
}

/// AlbConfig with these annotations, and IngressClass; `listeners` is YAML of a list, indented by two.
pub fn gateway_with(annotations: &[(&str, &str)], listeners: &str) -> String {
    let annotations: String = annotations
        .iter()
        .map(|(key, value)| format!("    {key}: '{value}'\n"))
        .collect();
    format!(
        "apiVersion: alibabacloud.com/v1
kind: AlbConfig
metadata:
  name: mcg
  annotations:
{annotations}spec:
  config:
    name: mcg
  listeners:
{listeners}---
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
---
"
    )
}

/// An Ingress with one rule and one path.
#[derive(Clone, Debug)]
pub struct Ingress {
    name: String,
    ports: Vec<(&'static str, u16)>,
    service: String,
    host: Option<String>,
    path: String,
    notes: Vec<(String, String)>,
    secret: Option<String>,
}

impl Ingress {
    /// Sends everything on a listener to Service `web`.
    pub fn new(name: &str, port: u16) -> Self {
        Self {
            name: name.to_owned(),
            ports: vec![("HTTP", port)],
            service: "web".to_owned(),
            host: None,
            path: "/".to_owned(),
            notes: Vec::new(),
            secret: None,
        }
    }

    /// The same of a listener of HTTPS.
    pub fn encrypted(name: &str, port: u16) -> Self {
        Self {
            ports: vec![("HTTPS", port)],
            ..Self::new(name, port)
        }
    }

    /// On these listeners.
    pub fn ports(mut self, ports: &[u16]) -> Self {
        self.ports = ports.iter().map(|port| ("HTTP", *port)).collect();
        self
    }

    /// On this listener of HTTPS, too.
    pub fn https(mut self, port: u16) -> Self {
        self.ports.push(("HTTPS", port));
        self
    }

    /// With a certificate for its host.
    pub fn secret(mut self, name: &str) -> Self {
        self.secret = Some(name.to_owned());
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
        let ports: Vec<String> = self
            .ports
            .iter()
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
        text.push_str("spec:\n  ingressClassName: alb\n");
        if let (Some(secret), Some(host)) = (&self.secret, &self.host) {
            let _ = writeln!(
                text,
                "  tls:\n  - hosts: ['{host}']\n    secretName: {secret}"
            );
        }
        let rule = match &self.host {
            Some(host) => format!("  - host: '{host}'\n    http:"),
            None => "  - http:".to_owned(),
        };
        let _ = write!(
            text,
            "  rules:
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
