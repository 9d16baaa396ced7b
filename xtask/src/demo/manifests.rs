//! The demo's objects, as kubectl would apply them. Pure: text in, text out.

use super::scenario::{Mode, Rules};
use crate::{
    lab::topology::{self, HTTP_PORT, IPERF_PORT},
    member::{self, Endpoint, Port},
};

/// Port of the listener whose scenarios are measured.
pub const WEB_LISTENER: u16 = 8001;
/// Port of the listener in front of `iperf3 -s`.
pub const IPERF_LISTENER: u16 = 5201;

/// Path below the manifest directory, and content.
pub type File = (String, String);

/// Everything but the Ingress that the scenarios change.
pub fn base() -> Vec<File> {
    let mut files = vec![
        ("fleet/gateway.yaml".into(), gateway()),
        ("fleet/iperf.yaml".into(), iperf_ingress()),
    ];
    for (cluster, _) in topology::CLUSTERS {
        let cluster = format!("c{cluster}");
        let pods: Vec<Endpoint> = topology::pods()
            .into_iter()
            .filter(|pod| pod.cluster == cluster)
            .map(|pod| pod.endpoint(true))
            .collect();
        // The member clusters need not agree on how a Service names its target port.
        let target = if cluster == "c1" {
            HTTP_PORT.to_string()
        } else {
            "http".into()
        };
        let port = Port::tcp("http", 80);
        let web = member::service("web", port, target, "None")
            + &member::slice("web", port.at(HTTP_PORT), &pods);
        let port = Port::tcp("iperf", IPERF_PORT);
        let iperf = member::service("iperf", port, IPERF_PORT, "ClientIP")
            + &member::slice("iperf", port, &pods);
        files.push((format!("clusters/{cluster}/web.yaml"), web));
        files.push((format!("clusters/{cluster}/iperf.yaml"), iperf));
    }
    files
}

/// The Ingresses of one scenario. Their names tell the scenario, so that `fleetgate routes` shows which one is in force.
pub fn ingress(name: &str, mode: Mode, rules: &Rules) -> File {
    let text = match rules {
        Rules::Weights(weights) => {
            let mut notes = weights
                .iter()
                .map(|(id, weight)| weight_note(id, *weight))
                .collect::<String>();
            if mode == Mode::Request {
                notes.push_str("    fleetgate.io/steering: request\n");
            }
            one_ingress(name, &notes)
        }
        Rules::Header {
            name: header,
            value,
            to,
            otherwise,
        } => {
            let condition = format!(
                "    alb.ingress.kubernetes.io/order: \"1\"\n    alb.ingress.kubernetes.io/conditions.web: |\n      \
                 [{{\"type\":\"Header\",\"headerConfig\":{{\"key\":\"{header}\",\"values\":[\"{value}\"]}}}}]\n"
            );
            let matched = condition + &weight_note(to, 100);
            let rest = "    alb.ingress.kubernetes.io/order: \"2\"\n".to_owned()
                + &weight_note(otherwise, 100);
            one_ingress(name, &matched) + &one_ingress(&format!("{name}-otherwise"), &rest)
        }
    };
    ("fleet/web.yaml".into(), text)
}

fn weight_note(cluster: &str, weight: u8) -> String {
    format!("    alb.ingress.kubernetes.io/cluster-weight.{cluster}: \"{weight}\"\n")
}

fn one_ingress(name: &str, annotations: &str) -> String {
    rule(name, "web", WEB_LISTENER, 80, annotations)
}

fn iperf_ingress() -> String {
    rule("iperf", "iperf", IPERF_LISTENER, IPERF_PORT, "")
}

fn rule(name: &str, service: &str, listener: u16, port: u16, annotations: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {name}
  namespace: demo
  annotations:
    alb.ingress.kubernetes.io/listen-ports: '[{{\"HTTP\": {listener}}}]'
{annotations}spec:
  ingressClassName: alb
  rules:
  - http:
      paths:
      - path: /
        pathType: Prefix
        backend:
          service:
            name: {service}
            port:
              number: {port}
---
"
    )
}

fn gateway() -> String {
    format!(
        "apiVersion: alibabacloud.com/v1
kind: AlbConfig
metadata:
  name: mcg
  annotations:
    alb.ingress.kubernetes.io/remote-clusters: c1,c2
spec:
  config:
    name: mcg
    addressType: Intranet
  listeners:
  - port: {WEB_LISTENER}
    protocol: HTTP
  - port: {IPERF_LISTENER}
    protocol: HTTP
---
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
    )
}
