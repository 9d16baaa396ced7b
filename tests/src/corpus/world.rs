//! A world in short, and the manifests that it stands for.

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

const ALB: &str = "alb.ingress.kubernetes.io/";

/// Everything that one case is about. What is left out is as in [`World::default`].
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct World {
    /// AlbConfig `mcg`; `null`: none.
    gateway: Option<Gateway>,
    /// IngressClass `alb` of it.
    class: bool,
    /// By name, in namespace `demo` where none stands before a slash.
    ingresses: BTreeMap<String, Ingress>,
    /// Secrets with a certificate made for these names, by name, in namespace `demo` where none stands before a slash.
    certificates: BTreeMap<String, Vec<String>>,
    /// Further objects of the fleet, as they are.
    objects: Vec<Value>,
    /// By cluster, Service (port 80 `http`, pods on 8080) and pod address; `not-ready` may follow an address.
    members: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    /// Further objects of members, as they are.
    member_objects: BTreeMap<String, Vec<Value>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Gateway {
    /// Keys without a slash are of ALB.
    annotations: BTreeMap<String, Value>,
    config: Value,
    listeners: Vec<Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Ingress {
    /// Keys without a slash are of ALB.
    annotations: BTreeMap<String, Value>,
    #[serde(deserialize_with = "present")]
    class: Option<String>,
    /// `host/path Type -> service:port`; Prefix where no type stands.
    rules: Vec<String>,
    /// `service:port` of `defaultBackend`.
    default: Option<String>,
    tls: Vec<Value>,
}

/// `null` is none, and what is left out is the default.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(deserializer)
}

impl Default for World {
    fn default() -> Self {
        let pods = |addresses: &[&str]| addresses.iter().map(|it| (*it).to_owned()).collect();
        let services = |web: &[&str], shop: &[&str]| {
            BTreeMap::from([
                ("web".to_owned(), pods(web)),
                ("shop".to_owned(), pods(shop)),
            ])
        };
        Self {
            gateway: Some(Gateway::default()),
            class: true,
            ingresses: BTreeMap::from([("a".to_owned(), Ingress::default())]),
            certificates: BTreeMap::new(),
            objects: Vec::new(),
            members: BTreeMap::from([
                (
                    "c1".to_owned(),
                    services(&["10.1.0.1", "10.1.0.2"], &["10.1.0.11"]),
                ),
                (
                    "c2".to_owned(),
                    services(&["10.2.0.1", "10.2.0.2", "10.2.0.3"], &["10.2.0.11"]),
                ),
            ]),
            member_objects: BTreeMap::new(),
        }
    }
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            annotations: BTreeMap::from([("remote-clusters".to_owned(), json!("c1,c2"))]),
            config: json!({}),
            listeners: vec![json!({"port": 80, "protocol": "HTTP"})],
        }
    }
}

impl Default for Ingress {
    fn default() -> Self {
        Self {
            annotations: BTreeMap::new(),
            class: Some("alb".to_owned()),
            rules: vec!["/ -> web:80".to_owned()],
            default: None,
            tls: Vec::new(),
        }
    }
}

impl World {
    /// Writes `fleet/` and `clusters/<id>/` below `root`.
    pub fn write(&self, root: &Path) {
        let mut fleet = Vec::new();
        fleet.extend(self.gateway.as_ref().map(gateway));
        if self.class {
            fleet.push(class("alb", "mcg"));
        }
        fleet.extend(self.ingresses.iter().map(|(name, it)| ingress(name, it)));
        let certificates = self.certificates.iter();
        fleet.extend(certificates.map(|(name, hosts)| certificate(name, hosts)));
        fleet.extend(self.objects.iter().cloned());
        write(&root.join("fleet"), &fleet);
        for (id, services) in &self.members {
            let mut objects = Vec::new();
            for (name, pods) in services {
                objects.extend(service(id, name, pods));
            }
            objects.extend(self.member_objects.get(id).into_iter().flatten().cloned());
            write(&root.join("clusters").join(id), &objects);
        }
    }
}

/// YAML is a superset of JSON.
fn write(folder: &Path, objects: &[Value]) {
    fs::create_dir_all(folder).expect("mkdir");
    let documents: Vec<String> = objects.iter().map(ToString::to_string).collect();
    fs::write(folder.join("objects.yaml"), documents.join("\n---\n")).expect("write");
}

fn annotations(written: &BTreeMap<String, Value>) -> Value {
    let whole = |key: &String| match key.contains('/') {
        true => key.clone(),
        false => format!("{ALB}{key}"),
    };
    let pairs = written.iter();
    Value::Object(pairs.map(|(key, it)| (whole(key), it.clone())).collect())
}

fn gateway(gateway: &Gateway) -> Value {
    json!({
        "apiVersion": "alibabacloud.com/v1",
        "kind": "AlbConfig",
        "metadata": {"name": "mcg", "annotations": annotations(&gateway.annotations)},
        "spec": {"config": gateway.config, "listeners": gateway.listeners},
    })
}

fn class(name: &str, gateway: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": name},
        "spec": {
            "controller": "ingress.k8s.alibabacloud/alb",
            "parameters": {"apiGroup": "alibabacloud.com", "kind": "AlbConfig", "name": gateway},
        },
    })
}

fn ingress(name: &str, ingress: &Ingress) -> Value {
    let (namespace, name) = name.split_once('/').unwrap_or(("demo", name));
    let rules: Vec<Value> = ingress.rules.iter().map(|it| rule(it)).collect();
    let mut spec = json!({"rules": rules, "tls": ingress.tls});
    if let Some(class) = &ingress.class {
        spec["ingressClassName"] = json!(class);
    }
    if let Some(default) = &ingress.default {
        spec["defaultBackend"] = backend(default);
    }
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations(&ingress.annotations)},
        "spec": spec,
    })
}

/// What it holds differs each time, and shows nowhere.
fn certificate(name: &str, hosts: &[String]) -> Value {
    let (namespace, name) = name.split_once('/').unwrap_or(("demo", name));
    let made = rcgen::generate_simple_self_signed(hosts).expect("a certificate");
    let pem = made.cert.pem();
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": {"tls.crt": pem, "tls.key": made.signing_key.serialize_pem(), "ca.crt": pem},
    })
}

fn rule(text: &str) -> Value {
    let (from, to) = text.split_once(" -> ").expect("a rule has an arrow");
    let (from, kind) = from.split_once(' ').unwrap_or((from, "Prefix"));
    // A regular expression or a path of its own may stand without a slash in front: `host~*/x` is never meant.
    let at = from.find(['/', '~']).unwrap_or(from.len());
    let (host, path) = from.split_at(at);
    let path = json!({"path": path, "pathType": kind, "backend": backend(to)});
    let mut rule = json!({"http": {"paths": [path]}});
    if !host.is_empty() {
        rule["host"] = json!(host);
    }
    rule
}

fn backend(text: &str) -> Value {
    let (service, port) = text.split_once(':').expect("a backend has a port");
    let port = match port.parse::<u64>() {
        Ok(number) => json!({"number": number}),
        Err(_) => json!({"name": port}),
    };
    json!({"service": {"name": service, "port": port}})
}

fn service(cluster: &str, name: &str, pods: &[String]) -> [Value; 2] {
    let endpoints = pods.iter().enumerate().map(|(index, pod)| {
        let (address, ready) = match pod.split_once(' ') {
            Some((address, "not-ready")) => (address, false),
            Some(_) => panic!("{pod} is no pod"),
            None => (pod.as_str(), true),
        };
        json!({
            "addresses": [address],
            "conditions": {"ready": ready},
            "targetRef": {"kind": "Pod", "name": format!("{name}{}", index + 1), "namespace": "demo"},
        })
    });
    let endpoints: Vec<Value> = endpoints.collect();
    let meta = json!({"name": name, "namespace": "demo"});
    [
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{name}-{cluster}"),
                "namespace": "demo",
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": endpoints,
        }),
    ]
}
