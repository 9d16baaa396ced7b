//! A large fleet, made by formula: what a benchmark of the control plane is run on.

use gateway_user::{
    manifest::{ClusterId, Edit, Key, Object, Reach, object_of},
    problem::Problem,
};
use serde_json::{Value, json};

/// How large a fleet is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Member clusters; each has every Service.
    pub clusters: usize,
    /// Services.
    pub services: usize,
    /// Pods of a Service in each cluster.
    pub pods: usize,
    /// Rules over all Ingresses, at least one for each Service.
    pub rules: usize,
    /// Services that have a listener of their own, steered by the kernel.
    pub steered: usize,
}

/// First port of the listeners that the kernel steers.
pub const FIRST_PORT: u16 = 9000;
const NAMESPACE: &str = "bench";

impl Size {
    /// Pods over all clusters.
    pub fn endpoints(&self) -> usize {
        self.clusters * self.services * self.pods
    }

    /// IDs of the clusters.
    pub fn cluster_ids(&self) -> impl Iterator<Item = String> + use<> {
        (0..self.clusters).map(|cluster| format!("c{cluster}"))
    }

    /// AlbConfigs, the class, Ingresses: kind and object.
    pub fn fleet(&self) -> Vec<(&'static str, Value)> {
        let steered = 0..self.steered;
        let ports: Vec<Value> = steered
            .map(|at| json!({"port": FIRST_PORT as usize + at, "protocol": "HTTP"}))
            .collect();
        let mut objects = vec![
            (
                "AlbConfig",
                gateway("edge", vec![json!({"port": 80, "protocol": "HTTP"})]),
            ),
            ("AlbConfig", gateway("kernel", ports)),
            ("IngressClass", class("edge")),
            ("IngressClass", class("kernel")),
        ];
        objects.extend((0..self.steered).map(|service| self.fleet_ingress(service)));
        let rest = self.services - self.steered;
        let rules = self.rules - self.steered;
        for at in 0..rest {
            // The first ones have one rule more.
            let count = rules / rest + usize::from(at < rules % rest);
            let service = self.steered + at;
            let paths: Vec<Value> = (0..count)
                .map(|path| {
                    json!({"path": format!("/p{path}"), "pathType": "Prefix", "backend": backend(service)})
                })
                .collect();
            let host = format!("s{service}.bench.example");
            let rules = json!([{"host": host, "http": {"paths": paths}}]);
            let listen = json!([{"HTTP": 80}]).to_string();
            objects.push(("Ingress", ingress(service, "edge", &listen, rules)));
        }
        objects
    }

    /// The Ingress of a Service that the kernel steers.
    pub fn fleet_ingress(&self, service: usize) -> (&'static str, Value) {
        let port = FIRST_PORT as usize + service;
        let path = json!({"path": "/", "pathType": "Prefix", "backend": backend(service)});
        let rules = json!([{"http": {"paths": [path]}}]);
        let listen = json!([{"HTTP": port}]).to_string();
        ("Ingress", ingress(service, "kernel", &listen, rules))
    }

    /// Services and EndpointSlices of one cluster.
    pub fn member(&self, cluster: usize) -> Vec<(&'static str, Value)> {
        let mut objects = Vec::with_capacity(2 * self.services);
        for service in 0..self.services {
            objects.push((
                "Service",
                json!({
                    "apiVersion": "v1", "kind": "Service",
                    "metadata": {"name": name(service), "namespace": NAMESPACE},
                    "spec": {"ports": [{"port": 80, "targetPort": 8080}]},
                }),
            ));
            objects.push(("EndpointSlice", self.slice(cluster, service, self.pods)));
        }
        objects
    }

    /// The slice of a Service in a cluster, with this many ready pods of all.
    pub fn slice(&self, cluster: usize, service: usize, ready: usize) -> Value {
        let endpoint = |pod: usize| {
            let at = (service * self.pods + pod) as u32;
            let [_, a, b, c] = (at + 1).to_be_bytes();
            // 16 clusters of 2^20 addresses each fit into 10.0.0.0/8.
            let address = format!("10.{}.{b}.{c}", cluster * 16 + usize::from(a));
            json!({
                "addresses": [address],
                "conditions": {"ready": pod < ready, "serving": pod < ready, "terminating": false},
                "nodeName": format!("node-{}", pod % 7),
                "targetRef": {"kind": "Pod", "name": format!("{}-{pod}", name(service)), "namespace": NAMESPACE},
            })
        };
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-slice", name(service)), "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": name(service)},
            },
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
            "endpoints": (0..self.pods).map(endpoint).collect::<Vec<_>>(),
        })
    }

    /// The whole fleet as edits of a source.
    pub fn edits(&self) -> Vec<Edit> {
        let mut edits: Vec<Edit> = self.fleet().into_iter().map(|it| edit(None, it)).collect();
        for (at, id) in self.cluster_ids().enumerate() {
            let id = ClusterId(id.into());
            edits.push(Edit::Cluster(id.clone(), Reach::Connected));
            edits.extend(self.member(at).into_iter().map(|it| edit(Some(&id), it)));
        }
        edits.push(Edit::Whole(true));
        edits
    }
}

/// An object as a source hands it over.
pub fn edit(cluster: Option<&ClusterId>, (kind, value): (&str, Value)) -> Edit {
    let object: Result<Object, Box<Problem>> = object_of(kind, cluster, value);
    let object = object.expect("objects made by formula can be read");
    let key = Key::of(&object, cluster).expect("objects of members name their cluster");
    Edit::Put(key, object)
}

/// Name of a Service.
pub fn name(service: usize) -> String {
    format!("s{service}")
}

/// Namespace of all of them.
pub fn namespace() -> &'static str {
    NAMESPACE
}

fn gateway(name: &str, listeners: Vec<Value>) -> Value {
    json!({
        "apiVersion": "alibabacloud.com/v1", "kind": "AlbConfig", "metadata": {"name": name},
        "spec": {"config": {"name": name}, "listeners": listeners},
    })
}

fn class(name: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": name},
        "spec": {
            "controller": "ingress.k8s.alibabacloud/alb",
            "parameters": {"apiGroup": "alibabacloud.com", "kind": "AlbConfig", "name": name},
        },
    })
}

fn backend(service: usize) -> Value {
    json!({"service": {"name": name(service), "port": {"number": 80}}})
}

fn ingress(service: usize, class: &str, listen: &str, rules: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {
            "name": name(service), "namespace": NAMESPACE,
            "annotations": {"alb.ingress.kubernetes.io/listen-ports": listen},
        },
        "spec": {"ingressClassName": class, "rules": rules},
    })
}
