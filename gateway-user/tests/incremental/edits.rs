//! Random edits of a random fleet.

use std::{collections::BTreeMap, sync::OnceLock};

use gateway_user::{
    ir::ProbeFailure,
    manifest::{self, ClusterId, Edit, Key, Limits, Object, Origin, Reach},
    problem::{ObjectRef, Problem},
};
use proptest::{prelude::*, sample::select};

/// Kinds of edits, for counting.
pub(crate) type Kind = &'static str;

/// One edit, or what else happens to an agent.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Edit(Kind, Yaml),
    Gone(Kind, Key),
    Cluster(u8, Reach),
    Leave(u8),
    Unreadable(bool),
    /// Backends whose id, modulo 7, is none of these have no flows any more.
    Sweep(Vec<u32>),
    /// One in so many of what is probed fails, or does not any more.
    Judge(u8, Option<ProbeFailure>),
    /// The apply of the next change stops half way.
    Crash,
}

/// An object as text, and the cluster it lives in.
#[derive(Clone)]
pub(crate) struct Yaml(Option<u8>, String);

impl std::fmt::Debug for Yaml {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {}", self.0, self.1)
    }
}

pub(crate) fn cluster(number: u8) -> ClusterId {
    ClusterId(format!("c{number}").into())
}

impl Yaml {
    pub(crate) fn edit(&self) -> Edit {
        let cluster = self.0.map(cluster);
        let origin = Origin {
            file: "a.yaml".into(),
            cluster: cluster.clone(),
        };
        let parsed = manifest::parse(&origin, self.1.as_bytes(), Limits::default());
        assert_eq!(parsed.problems, [], "{}", self.1);
        let [object]: [Object; 1] = parsed.objects.try_into().expect("one object");
        let key = Key::of(&object, cluster.as_ref()).expect("a key");
        Edit::Put(key, object)
    }
}

impl Event {
    /// What it is, and the edit of the source; none for what happens to the agent.
    pub(crate) fn edit(&self) -> (Kind, Option<Edit>) {
        match self {
            Self::Edit(kind, yaml) => (kind, Some(yaml.edit())),
            Self::Gone(kind, key) => (kind, Some(Edit::Remove(key.clone()))),
            Self::Cluster(id, reach) => ("cluster", Some(Edit::Cluster(cluster(*id), *reach))),
            Self::Leave(id) => ("leave", Some(Edit::RemoveCluster(cluster(*id)))),
            Self::Unreadable(is) => {
                let file = ObjectRef {
                    kind: "File".into(),
                    name: "x.yaml".into(),
                    ..ObjectRef::default()
                };
                let problem = Problem::error(&file, "", "cannot be read", "mend it");
                let problems = is.then_some(problem).into_iter().collect();
                ("unreadable", Some(Edit::Problems(file, problems)))
            }
            Self::Sweep(_) => ("sweep", None),
            Self::Judge(..) => ("judge", None),
            Self::Crash => ("crash", None),
        }
    }
}

const ALB: &str = "alb.ingress.kubernetes.io/";

/// Few names of each kind, so that edits meet.
const GATEWAYS: std::ops::Range<u8> = 0..3;
const INGRESSES: std::ops::Range<u8> = 0..12;
const SERVICES: std::ops::Range<u8> = 0..2;
const CLUSTERS: std::ops::Range<u8> = 0..4;
const NAMESPACES: [&str; 2] = ["a", "b"];
/// Pods of one cluster.
const PODS: std::ops::Range<u8> = 0..10;

fn namespace() -> impl Strategy<Value = &'static str> {
    select(&NAMESPACES[..])
}

fn key(namespace: &str, name: String) -> manifest::NamespacedName {
    manifest::NamespacedName {
        namespace: namespace.to_owned(),
        name,
    }
}

prop_compose! {
    fn gateway()(
        name in GATEWAYS,
        addresses in select(&["", "192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.1,192.0.2.2", "192.0.2.1,2001:db8::1", "nowhere"][..]),
        clusters in select(&["", "", "", "", "c0,c1", "c1,c2,c3", "c1,c2,c3,c9", "c2,c9", " "][..]),
        steering in select(&["", "", "", "", "", "", "", "", "", "auto", "connection", "request", "maybe"][..]),
        listeners in prop::collection::vec((
            select(&[80, 8001, 8001, 8002][..]),
            select(&[
                "", "", "", "", "", "", "", "", "", "", ", protocol: HTTP", ", idleTimeout: 30", ", idleTimeout: 61",
                ", protocol: HTTPS", ", protocol: HTTPS, certificates: [{CertificateId: a/t}]",
                ", protocol: HTTPS, certificates: [{CertificateId: a/t}], caEnabled: true, caCertificates: [{CertificateId: a/t}]",
                ", protocol: TCP", ", protocol: TCP", ", protocol: UDP", ", aclConfig: {aclType: White, aclEntries: [10.0.0.0/8]}",
                ", xForwardedForConfig: {XForwardedForProtoEnabled: true}",
                ", xForwardedForConfig: {XForwardedForProcessingMode: x}",
            ][..]),
        ), 1..4),
    ) -> Event {
        let annotations: BTreeMap<String, &str> = [
            ("fleetgate.io/addresses".to_owned(), addresses),
            ("fleetgate.io/steering".to_owned(), steering),
            (format!("{ALB}remote-clusters"), clusters),
        ].into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let listeners: Vec<String> = listeners.iter().map(|(port, more)| format!("{{port: {port}{more}}}")).collect();
        Event::Edit("gateway", Yaml(None, format!(
            "apiVersion: alibabacloud.com/v1\nkind: AlbConfig\n\
             metadata: {{name: g{name}, annotations: {annotations:?}}}\n\
             spec: {{listeners: [{}]}}\n", listeners.join(", "))))
    }
}

prop_compose! {
    fn class()(name in GATEWAYS, variant in 0..16_u8, to in GATEWAYS) -> Event {
        let spec = match variant {
            0 => "controller: k8s.io/ingress-nginx".to_owned(),
            1 => "controller: ingress.k8s.alibabacloud/alb".to_owned(),
            2 => format!("controller: ingress.k8s.alibabacloud/alb, parameters: {{kind: AlbConfig, name: g{to}}}"),
            _ => format!("controller: ingress.k8s.alibabacloud/alb, parameters: {{kind: AlbConfig, name: g{name}}}"),
        };
        Event::Edit("class", Yaml(None, format!(
            "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {{name: k{name}}}\nspec: {{{spec}}}\n")))
    }
}

/// Annotations of an Ingress, right and wrong.
fn annotation() -> impl Strategy<Value = Vec<(String, String)>> {
    let alb = |pairs: &[(&str, &str)]| {
        let pair = |(key, value): &(&str, &str)| (format!("{ALB}{key}"), (*value).to_owned());
        pairs.iter().map(pair).collect::<Vec<_>>()
    };
    let header = r#"[{"type": "Header", "headerConfig": {"key": "stage", "values": ["gray"]}}]"#;
    prop_oneof![
        20 => Just(Vec::new()),
        6 => (0..8_u8).prop_map(move |order| alb(&[("order", &order.to_string())])),
        4 => (0..=100_u8, CLUSTERS, CLUSTERS).prop_map(move |(weight, one, other)| alb(&[
            (&format!("cluster-weight.c{one}"), &weight.to_string()),
            (&format!("cluster-weight.c{other}"), &(100 - weight).to_string()),
        ])),
        1 => Just(alb(&[("cluster-weight.c1", "99")])),
        3 => SERVICES.prop_map(move |service| alb(&[(&format!("conditions.s{service}"), header)])),
        1 => Just(alb(&[("conditions.s0", "[")])),
        8 => select(&["", "", "9000"][..]).prop_map(move |port| alb(&[
            ("healthcheck-enabled", "true"),
            ("healthcheck-protocol", "TCP"),
            ("healthcheck-connect-port", port),
        ])),
        1 => Just(alb(&[("healthcheck-enabled", "true"), ("healthcheck-protocol", "GRPC")])),
        1 => Just(alb(&[("traffic-limit-qps", "5")])),
        1 => Just(alb(&[("unknown-thing", "x")])),
        2 => GATEWAYS.prop_map(move |gateway| alb(&[("albconfig.name", &format!("g{gateway}"))])),
        2 => select(&["auto", "connection", "connection", "request"][..])
            .prop_map(|wish| vec![("fleetgate.io/steering".to_owned(), wish.to_owned())]),
    ]
}

prop_compose! {
    fn ingress()(
        namespace in namespace(),
        name in INGRESSES,
        class in prop::option::weighted(0.95, GATEWAYS),
        annotations in prop::collection::vec(annotation(), 2),
        ports in select(&[
            "", r#"[{"HTTP": 8001}]"#, r#"[{"HTTP": 8001}]"#, r#"[{"HTTP": 80}, {"HTTP": 8001}]"#,
            r#"[{"HTTP": 80}, {"HTTP": 8002}]"#, r#"[{"HTTP": 8002}]"#, r#"[{"HTTP": 8002}]"#, r#"[{"TCP": 8001}]"#, r#"[{"UDP": 8001}, {"TCP": 80}]"#, "80",
        ][..]),
        paths in prop::collection::vec((
            prop::option::weighted(0.1, select(&["a.com", "*.b.com"][..])),
            select(&["/", "/", "/", "/", "/", "/", "/x", "/y/z"][..]),
            SERVICES,
            select(&[
                "number: 80", "number: 80", "number: 80", "number: 80", "number: 80", "number: 80", "number: 80",
                "number: 80", "number: 80", "number: 80", "name: http", "name: http", "number: 0",
            ][..]),
        ), 0..4),
        default in prop::option::weighted(0.2, SERVICES),
    ) -> Event {
        let mut all: BTreeMap<String, String> = annotations.into_iter().flatten().collect();
        if !ports.is_empty() {
            all.insert(format!("{ALB}listen-ports"), ports.to_owned());
        }
        let rules: Vec<String> = paths.iter().map(|(host, path, service, port)| {
            let host = host.map(|host| format!("host: '{host}', ")).unwrap_or_default();
            format!("{{{host}http: {{paths: [{{path: {path}, pathType: Prefix, \
                     backend: {{service: {{name: s{service}, port: {{{port}}}}}}}}}]}}}}")
        }).collect();
        let class = class.map(|class| format!("ingressClassName: k{class}, ")).unwrap_or_default();
        let default = default
            .map(|service| format!(", defaultBackend: {{service: {{name: s{service}, port: {{number: 80}}}}}}"))
            .unwrap_or_default();
        Event::Edit("ingress", Yaml(None, format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\n\
             metadata: {{name: i{name}, namespace: {namespace}, annotations: {all:?}}}\n\
             spec: {{{class}rules: [{}]{default}}}\n", rules.join(", "))))
    }
}

prop_compose! {
    fn service()(
        namespace in namespace(),
        cluster in CLUSTERS,
        name in SERVICES,
        spec in select(&[
            "ports: [{port: 80}]", "ports: [{port: 80}]", "ports: [{port: 80}]", "ports: [{port: 80}]",
            "ports: [{port: 80}]", "ports: [{port: 80}]", "ports: [{port: 80, name: http}]",
            "sessionAffinity: ClientIP, ports: [{port: 80}]", "ports: [{port: 81}]",
            "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}, ports: [{port: 80}]", "type: ExternalName",
            "ports: [{port: 80}, {port: 80, name: http, protocol: UDP}]",
        ][..]),
    ) -> Event {
        Event::Edit("service", Yaml(Some(cluster), format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s{name}, namespace: {namespace}}}\nspec: {{{spec}}}\n")))
    }
}

prop_compose! {
    fn slice()(
        namespace in namespace(),
        cluster in CLUSTERS,
        name in SERVICES,
        part in 0..2_u8,
        // Now and then the slice of another Service.
        of in prop::option::weighted(0.1, SERVICES),
        port in select(&["port: 8080", "port: 8080", "port: 8080", "port: 8080", "port: 8080", "port: 8080, name: http", "port: 8080, name: http, protocol: UDP", "port: 9090"][..]),
        family in select(&["IPv4", "IPv4", "IPv4", "IPv4", "IPv4", "IPv4", "IPv4", "IPv4", "IPv4", "IPv6"][..]),
        pods in prop::collection::btree_map(PODS, select(&["", "", "", ", conditions: {ready: false}", ", conditions: {terminating: true}",
            ", conditions: {ready: false, serving: true, terminating: true}"][..]), 0..5),
    ) -> Event {
        let of = of.unwrap_or(name);
        let address = |pod: u8| match family {
            "IPv6" => format!("'2001:db8:{cluster}::{pod}'"),
            _ => format!("10.{cluster}.0.{pod}"),
        };
        let pods: Vec<String> = pods.iter().map(|(pod, more)| (address(*pod), pod, more)).map(|(address, pod, more)| format!(
            "{{addresses: [{address}], targetRef: {{kind: Pod, name: pod-{cluster}-{pod}}}{more}}}")).collect();
        Event::Edit("slice", Yaml(Some(cluster), format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: s{name}-{part}, namespace: {namespace}, labels: {{kubernetes.io/service-name: s{of}}}}}\n\
             addressType: {family}\nports: [{{{port}}}]\nendpoints: [{}]\n", pods.join(", "))))
    }
}

fn secret() -> impl Strategy<Value = Event> {
    (namespace(), 0..5_u8).prop_map(|(namespace, what)| {
        let (certificate, key) = match what {
            0 => Default::default(),
            1 => ("x".to_owned(), "y".to_owned()),
            2 => (pairs()[0].0.clone(), pairs()[1].1.clone()),
            which => pairs()[usize::from(which - 3)].clone(),
        };
        let data =
            serde_json::json!({"tls.crt": certificate, "tls.key": key, "ca.crt": certificate});
        let text = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: t, namespace: {namespace}}}\n\
             type: kubernetes.io/tls\nstringData: {data}\n"
        );
        Event::Edit("secret", Yaml(None, text))
    })
}

/// Two certificates with their keys.
fn pairs() -> &'static [(String, String); 2] {
    static PAIRS: OnceLock<[(String, String); 2]> = OnceLock::new();
    PAIRS.get_or_init(|| {
        [(); 2].map(|()| {
            let made = rcgen::generate_simple_self_signed(vec!["a.example.com".to_owned()]);
            let made = made.expect("a certificate");
            (made.cert.pem(), made.signing_key.serialize_pem())
        })
    })
}

fn gone() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => GATEWAYS.prop_map(|name| Event::Gone("gateway gone", Key::AlbConfig(format!("g{name}")))),
        1 => GATEWAYS.prop_map(|name| Event::Gone("class gone", Key::IngressClass(format!("k{name}")))),
        4 => (namespace(), INGRESSES).prop_map(|(namespace, name)| {
            Event::Gone("ingress gone", Key::Ingress(key(namespace, format!("i{name}"))))
        }),
        3 => (namespace(), CLUSTERS, SERVICES).prop_map(|(namespace, id, name)| {
            Event::Gone("service gone", Key::Service(cluster(id), key(namespace, format!("s{name}"))))
        }),
        4 => (namespace(), CLUSTERS, SERVICES, 0..2_u8).prop_map(|(namespace, id, name, part)| {
            let key = key(namespace, format!("s{name}-{part}"));
            Event::Gone("slice gone", Key::EndpointSlice(cluster(id), key))
        }),
        1 => namespace().prop_map(|namespace| {
            Event::Gone("secret gone", Key::Secret(key(namespace, "t".into())))
        }),
    ]
}

fn failure() -> impl Strategy<Value = ProbeFailure> {
    select(
        &[
            ProbeFailure::Timeout,
            ProbeFailure::Status(500),
            ProbeFailure::NotServing,
        ][..],
    )
}

/// Events as they come in a fleet that lives.
pub(crate) fn event() -> impl Strategy<Value = Event> {
    let reach = select(
        &[
            Reach::Connected,
            Reach::Connected,
            Reach::Connected,
            Reach::Connected,
            Reach::Lost,
            Reach::Unknown,
        ][..],
    );
    prop_oneof![
        8 => gateway(),
        5 => class(),
        24 => ingress(),
        16 => service(),
        30 => slice(),
        1 => secret(),
        8 => gone(),
        8 => (CLUSTERS, reach).prop_map(|(id, reach)| Event::Cluster(id, reach)),
        1 => CLUSTERS.prop_map(Event::Leave),
        2 => any::<bool>().prop_map(Event::Unreadable),
        6 => prop::collection::vec(0..7_u32, 0..4).prop_map(Event::Sweep),
        8 => (1..5_u8, prop::option::weighted(0.6, failure())).prop_map(|(which, why)| Event::Judge(which, why)),
        2 => Just(Event::Crash),
    ]
}
