//! What the manifests say at the moment, and which pods may answer for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use anyhow::Result;
use xtask::{lab::topology, member::Endpoint};

use super::pods::{GRPC_PORT, WEB_PORT};
use crate::e2e::{
    Gateway,
    manifests::{self, Ingress},
};

/// The listener in plain.
pub(super) const HTTP: u16 = 8002;
/// The listener that ends TLS.
pub(super) const HTTPS: u16 = 9443;
/// The host of all rules.
pub(super) const HOST: &str = "mixed.example";
/// Requests with this header are the canary's, while there is one.
pub(super) const CANARY: &str = "x-canary";
/// A listener that comes and goes, and nobody asks.
const THIRD: u16 = 8003;
const CLUSTERS: [&str; 2] = ["c1", "c2"];

/// Where requests of one kind go.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Route {
    /// Requests without more.
    Web,
    /// Those with the canary's header.
    Canary,
    /// Calls.
    Grpc,
}

/// Where a pod may be: each namespace of the lab has two addresses for pods, so that one can come before the other goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Seat {
    /// `c1` or `c2`.
    pub(super) cluster: String,
    /// The namespace.
    pub(super) namespace: String,
    /// The pod's address.
    pub(super) address: Ipv4Addr,
}

impl Seat {
    /// All of them, with the `ip` lines that make their addresses: namespace and line.
    pub(super) fn all() -> (Vec<Self>, Vec<(String, String)>) {
        let mut lines = Vec::new();
        let mut seats = Vec::new();
        for pod in topology::pods() {
            let [a, b, c, d] = pod.address.octets();
            let second = Ipv4Addr::new(a, b, c, d + 100);
            let router = format!("{}{}", topology::PREFIX, pod.cluster);
            lines.push((
                pod.namespace.clone(),
                format!("addr add {second}/32 dev eth0"),
            ));
            lines.push((router, format!("route add {second}/32 dev {}", pod.device)));
            seats.extend([pod.address, second].map(|address| Self {
                cluster: pod.cluster.clone(),
                namespace: pod.namespace.clone(),
                address,
            }));
        }
        (seats, lines)
    }
}

/// A pod as its cluster lists it.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    /// Another one for each pod there ever was.
    pub(super) name: String,
    /// Where it is.
    pub(super) seat: Seat,
    /// Listed as ready.
    pub(super) ready: bool,
}

impl Pod {
    /// As it names itself.
    pub(super) fn full_name(&self) -> String {
        format!("{}/{}", self.seat.cluster, self.name)
    }
}

/// The wanted configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    /// All that are listed.
    pub(super) pods: Vec<Pod>,
    /// Percent for `c1`; the rest is for `c2`. None: by number of pods. Of the Ingress `web` and of `grpc`.
    pub(super) weights: [Option<u8>; 2],
    /// Whether there is a canary, whose pods are those of `c2`.
    pub(super) canary: bool,
    /// Rules that nobody asks for: their numbers.
    pub(super) extra: BTreeSet<u32>,
    /// Further annotations of Ingress `web`.
    pub(super) notes: BTreeMap<&'static str, String>,
    /// Whether there is a third listener.
    pub(super) third: bool,
    /// `requestTimeout` and `idleTimeout` of both listeners, in seconds.
    pub(super) timeouts: (u16, u16),
    /// Certificate and key, PEM.
    pub(super) certificate: (String, String),
}

impl World {
    /// Pods that may answer.
    pub(super) fn allowed(&self, route: Route, pod: &str) -> bool {
        let share = match route {
            Route::Web => self.weights[0],
            Route::Grpc => self.weights[1],
            Route::Canary if self.canary => Some(0),
            Route::Canary => self.weights[0],
        };
        let found = self.pods.iter().find(|it| it.full_name() == pod);
        found.is_some_and(|it| {
            let weight = match (it.seat.cluster.as_str(), share) {
                (_, None) => 1,
                ("c1", Some(first)) => first,
                (_, Some(first)) => 100 - first,
            };
            it.ready && weight > 0
        })
    }

    /// Every manifest by its path.
    pub(super) fn files(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        let (request, idle) = self.timeouts;
        let timeouts = format!("    requestTimeout: {request}\n    idleTimeout: {idle}\n");
        let mut ports = vec![HTTP];
        if self.third {
            ports.push(THIRD);
        }
        let plain = ports.iter().map(|port| (*port, "HTTP"));
        let listeners: String = plain
            .chain([(HTTPS, "HTTPS")])
            .map(|(port, protocol)| {
                format!("  - port: {port}\n    protocol: {protocol}\n{timeouts}")
            })
            .collect();
        let clusters = CLUSTERS.join(",");
        let clusters = ("alb.ingress.kubernetes.io/remote-clusters", &*clusters);
        let text = manifests::gateway_with(&[clusters], &listeners);
        files.insert("fleet/gateway.yaml".into(), text);
        files.insert("fleet/secret.yaml".into(), self.secret());
        let ingress = |name: &str, service: &str| {
            Ingress::new(name, HTTP)
                .ports(&ports)
                .https(HTTPS)
                .secret("mixed")
                .host(HOST)
                .service(service)
        };
        let weighted = |ingress: Ingress, share: Option<u8>| match share {
            Some(first) => ingress.weights(&[("c1", first), ("c2", 100 - first)]),
            None => ingress,
        };
        let mut web = weighted(ingress("web", "web"), self.weights[0]).steering("request");
        for (key, value) in &self.notes {
            web = web.note(&format!("alb.ingress.kubernetes.io/{key}"), value);
        }
        let order = |ingress: Ingress, order: u16| {
            ingress.note("alb.ingress.kubernetes.io/order", &order.to_string())
        };
        let mut text = order(web, 100).yaml();
        // Calls need HTTP/2, which plain listeners do not offer.
        let grpc = ingress("grpc", "grpc")
            .ports(&[])
            .https(HTTPS)
            .path("/mixed.Echo")
            .note("alb.ingress.kubernetes.io/backend-protocol", "grpc");
        text += &order(weighted(grpc, self.weights[1]), 50).yaml();
        if self.canary {
            let canary = ingress("canary", "canary")
                .note("alb.ingress.kubernetes.io/canary", "true")
                .note("alb.ingress.kubernetes.io/canary-by-header", CANARY);
            text += &canary.yaml();
        }
        for number in &self.extra {
            let extra =
                ingress(&format!("extra-{number}"), "web").path(&format!("/extra/{number}"));
            text += &order(extra, 10 + u16::try_from(*number % 40).unwrap_or(0)).yaml();
        }
        files.insert("fleet/rules.yaml".into(), text);
        for cluster in CLUSTERS {
            let pods = self.pods.iter().filter(|it| it.seat.cluster == cluster);
            let pods: Vec<Endpoint> = pods
                .map(|it| Endpoint {
                    address: it.seat.address.into(),
                    name: it.name.clone(),
                    ready: it.ready,
                })
                .collect();
            let canary = if cluster == "c2" { &pods[..] } else { &[] };
            let text = manifests::service("web", WEB_PORT, "None", &pods)
                + "---\n"
                + &manifests::service("canary", WEB_PORT, "None", canary)
                + "---\n"
                + &manifests::service("grpc", GRPC_PORT, "None", &pods);
            files.insert(format!("clusters/{cluster}/pods.yaml"), text);
        }
        files
    }

    fn secret(&self) -> String {
        let indented = |pem: &str| pem.trim_end().replace('\n', "\n    ");
        let (certificate, key) = &self.certificate;
        format!(
            "apiVersion: v1
kind: Secret
type: kubernetes.io/tls
metadata: {{name: mixed, namespace: demo}}
stringData:
  tls.crt: |
    {}
  tls.key: |
    {}
",
            indented(certificate),
            indented(key)
        )
    }

    /// Writes those manifests that are others than `before`.
    pub(super) fn write(
        &self,
        gateway: &Gateway,
        before: &mut BTreeMap<String, String>,
    ) -> Result<()> {
        let files = self.files();
        for (path, text) in &files {
            if before.get(path) != Some(text) {
                gateway.write(path, text)?;
            }
        }
        *before = files;
        Ok(())
    }
}
