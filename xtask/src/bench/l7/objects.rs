//! What Fleetgate is told: one gateway, one Service with one pod, and Ingresses.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::{
    cases::{self, Front, RULES},
    contender::Contender,
    network::{POD, POD_PORT},
};
use crate::{bench::stage::SCRATCH, process};

/// Ingresses over which the rules are spread.
const INGRESSES: u16 = 10;

/// Path below the contender's folder, and content.
pub(super) fn manifests() -> Result<Vec<(String, String)>> {
    let base64 = |name: &str| {
        let file = Path::new(SCRATCH).join(name);
        let text = process::output(
            Command::new("openssl")
                .args(["base64", "-A", "-in"])
                .arg(file),
        )?;
        anyhow::Ok(text.trim().to_owned())
    };
    let fleet = gateway() + &secret(&base64("cert.pem")?, &base64("key.pem")?) + &ingresses();
    Ok(vec![
        ("manifests/fleet/bench.yaml".into(), fleet),
        ("manifests/clusters/c1/bench.yaml".into(), member()),
    ])
}

fn port(front: Front) -> u16 {
    Contender::Fleetgate.port(front)
}

fn gateway() -> String {
    format!(
        "apiVersion: alibabacloud.com/v1
kind: AlbConfig
metadata:
  name: bench
  annotations: {{ alb.ingress.kubernetes.io/remote-clusters: c1 }}
spec:
  config: {{ name: bench, addressType: Intranet }}
  listeners:
  - {{ port: {plain}, protocol: HTTP, idleTimeout: 60 }}
  - {{ port: {rules}, protocol: HTTP, idleTimeout: 60 }}
  - port: {tls}
    protocol: HTTPS
    idleTimeout: 60
    certificates:
    - {{ CertificateId: bench/tls, IsDefault: true }}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {{ name: alb }}
spec:
  controller: ingress.k8s.alibabacloud/alb
  parameters: {{ apiGroup: alibabacloud.com, kind: AlbConfig, name: bench }}
",
        plain = port(Front::Plain),
        rules = port(Front::Rules),
        tls = port(Front::Tls),
    )
}

fn secret(certificate: &str, key: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Secret
metadata: {{ name: tls, namespace: bench }}
type: kubernetes.io/tls
data: {{ tls.crt: {certificate}, tls.key: {key} }}
"
    )
}

fn ingresses() -> String {
    let http = |front| format!("[{{\"HTTP\": {}}}]", port(front));
    let tls = format!("[{{\"HTTPS\": {}}}]", port(Front::Tls));
    let all = ["/".to_owned()];
    let mut text = ingress("plain", &http(Front::Plain), &all) + &ingress("tls", &tls, &all);
    let rules: Vec<String> = (1..=RULES)
        .map(|number| format!("/{}/", cases::rule(number)))
        .collect();
    for (number, some) in rules.chunks(usize::from(RULES / INGRESSES)).enumerate() {
        text += &ingress(&format!("rules-{number}"), &http(Front::Rules), some);
    }
    text
}

fn ingress(name: &str, listeners: &str, paths: &[String]) -> String {
    let path = |path: &String| {
        format!(
            "      - {{ path: {path}, pathType: Prefix, backend: {{ service: {{ name: web, port: {{ number: 80 }} }} }} }}\n"
        )
    };
    let paths: String = paths.iter().map(path).collect();
    format!(
        "---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {name}
  namespace: bench
  annotations:
    alb.ingress.kubernetes.io/listen-ports: '{listeners}'
spec:
  ingressClassName: alb
  rules:
  - http:
      paths:
{paths}"
    )
}

fn member() -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: web, namespace: bench }}
spec:
  selector: {{ app: web }}
  ports:
  - {{ name: http, port: 80, protocol: TCP, targetPort: {POD_PORT} }}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-1
  namespace: bench
  labels: {{ kubernetes.io/service-name: web }}
addressType: IPv4
ports:
- {{ name: http, port: {POD_PORT}, protocol: TCP }}
endpoints:
- addresses: [\"{POD}\"]
  conditions: {{ ready: true }}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_in_an_ingress_of_the_same_size() {
        let text = ingresses();
        assert_eq!(text.matches("path: /r").count(), usize::from(RULES));
        assert_eq!(text.matches("name: rules-").count(), usize::from(INGRESSES));
    }
}
