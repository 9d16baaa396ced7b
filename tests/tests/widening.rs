//! No rule may ever serve more traffic than its Ingress says: random mixes of annotations, good and bad, against a naive
//! reading of the same Ingress.

use std::collections::BTreeMap;

use gateway_user::{
    ir::{self, Built, LastGood, Listener, Options, matching::PlainRequest},
    manifest::{Changes, ClusterId, Edit, Key, Reach, Snapshot, object_of},
};
use proptest::prelude::*;
use serde_json::{Value, json};

const ALB: &str = "alb.ingress.kubernetes.io/";

/// Restrictions of an Ingress, and what a naive reader makes of them: the condition on a request, `None` where nobody
/// could tell what is meant, so that nothing may be served.
type Restriction = (&'static str, &'static str, fn(&Asked) -> Option<bool>);

#[derive(Clone, Debug)]
struct Asked {
    host: &'static str,
    path: &'static str,
    method: &'static str,
    stage: Option<&'static str>,
    query: Option<&'static str>,
}

const RESTRICTIONS: &[Restriction] = &[
    (
        "conditions.web",
        r#"[{"type": "Header", "headerConfig": {"key": "Stage", "values": ["gray"]}}]"#,
        |it| Some(it.stage == Some("gray")),
    ),
    (
        "conditions.web",
        r#"[{"type": "Method", "methodConfig": {"values": ["GET"]}}, {"type": "QueryString", "queryStringConfig": {"values": [{"key": "a", "value": "1"}]}}]"#,
        |it| Some(it.method == "GET" && it.query == Some("a=1")),
    ),
    ("conditions.web", r#"[{"type": "Moon"}]"#, |_| None),
    ("conditions.web", r#"[{"type": "Header"}]"#, |_| None),
    ("conditions.web", "[", |_| None),
    ("conditions.other", "[", |_| Some(true)),
    ("actions.web", "{", |_| None),
    ("actions.web", r#"[{"type": "Teleport"}]"#, |_| None),
    (
        "actions.web",
        r#"[{"type": "RemoveHeader", "RemoveHeaderConfig": {"key": "x"}}]"#,
        |_| Some(true),
    ),
    ("traffic-limit-qps", "5", |_| Some(true)),
    ("traffic-limit-qps", "many", |_| None),
    ("sticky-session", "true", |_| Some(true)),
    ("backend-protocol", "https", |_| Some(true)),
    ("enable-cors", "true", |_| Some(true)),
    ("rule-direction.web", "Response", |_| None),
    ("order", "zero", |_| None),
    ("order", "7", |_| Some(true)),
    ("cluster-weight.c1", "99", |_| None),
    ("cluster-weight.c1", "100", |_| Some(true)),
    ("canary", "true", |_| None),
    ("listen-ports", r#"[{"HTTP": 81}]"#, |_| None),
    ("ssl-redirect", "true", |_| None),
    ("healthcheck-enabled", "true", |_| Some(true)),
    ("backend-scheduler", "sch", |_| Some(true)),
    ("nonsense", "x", |_| Some(true)),
];

/// Whether a host or path meets what was written.
type Meets = fn(&str) -> bool;

/// Path, type, and who meets it.
const PATHS: &[(&str, &str, Meets)] = &[
    ("/", "Prefix", |_| true),
    ("/a", "Prefix", |it| it == "/a" || it.starts_with("/a/")),
    ("/a", "Exact", |it| it == "/a"),
    ("/a*", "ImplementationSpecific", |it| it.starts_with("/a")),
    ("/a*", "Prefix", |_| false),
    ("a", "Exact", |_| false),
    ("/a", "Regex", |_| false),
];

/// Host, and who meets it.
const HOSTS: &[(&str, Meets)] = &[
    ("", |_| true),
    ("x.example.com", |it| it == "x.example.com"),
    ("*.example.com", |it| it == "x.example.com"),
    ("localhost", |_| false),
];

fn put(snapshot: &mut Snapshot, kind: &str, value: Value) {
    let cluster = matches!(kind, "Service" | "EndpointSlice").then(|| ClusterId("c1".into()));
    let object = object_of(kind, cluster.as_ref(), value).expect("an object");
    let key = Key::of(&object, cluster.as_ref()).expect("a key");
    snapshot.apply(Edit::Put(key, object), &mut Changes::default());
}

fn world(annotations: &BTreeMap<String, String>, host: &str, path: (&str, &str)) -> Built {
    let mut snapshot = Snapshot::default();
    let cluster = Edit::Cluster(ClusterId("c1".into()), Reach::Connected);
    snapshot.apply(cluster, &mut Changes::default());
    put(
        &mut snapshot,
        "AlbConfig",
        json!({"metadata": {"name": "mcg"}, "spec": {"config": {}, "listeners": [{"port": 80}]}}),
    );
    put(
        &mut snapshot,
        "IngressClass",
        json!({"metadata": {"name": "alb"}, "spec": {
            "controller": "ingress.k8s.alibabacloud/alb",
            "parameters": {"apiGroup": "alibabacloud.com", "kind": "AlbConfig", "name": "mcg"},
        }}),
    );
    put(
        &mut snapshot,
        "Service",
        json!({"metadata": {"name": "web", "namespace": "demo"}, "spec": {"ports": [{"port": 80}]}}),
    );
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    put(
        &mut snapshot,
        "Ingress",
        json!({
            "metadata": {"name": "a", "namespace": "demo", "annotations": annotations},
            "spec": {"ingressClassName": "alb", "rules": [{
                "host": host,
                "http": {"paths": [{"path": path.0, "pathType": path.1, "backend": backend}]},
            }]},
        }),
    );
    ir::build(&snapshot, &LastGood::default(), &Options::default())
}

/// Some rule forwards it to pods.
fn forwards(listener: &Listener, asked: &Asked) -> bool {
    let headers: Vec<(String, String)> = asked
        .stage
        .iter()
        .map(|it| ("stage".to_owned(), (*it).to_owned()))
        .collect();
    let request = PlainRequest {
        host: Some(asked.host),
        method: asked.method,
        path: asked.path,
        query: asked.query,
        source: None,
        headers: &headers,
    };
    let rule = listener.first_match(&request).map(|at| &listener.rules[at]);
    listener.refused.is_none()
        && listener.refused_response(&request).is_none()
        && rule.is_some_and(|rule| rule.refused.is_none() && rule.groups().next().is_some())
}

fn asked() -> impl Strategy<Value = Asked> {
    (
        prop::sample::select(vec!["x.example.com", "y.x.example.com", "other.org"]),
        prop::sample::select(vec!["/", "/a", "/a/b", "/ab", "/A"]),
        prop::sample::select(vec!["GET", "POST"]),
        prop::sample::select(vec![None, Some("gray"), Some("Gray")]),
        prop::sample::select(vec![None, Some("a=1"), Some("a=2")]),
    )
        .prop_map(|(host, path, method, stage, query)| Asked {
            host,
            path,
            method,
            stage,
            query,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_mix_of_annotations_serves_more_than_a_naive_reading_allows(
        picks in prop::collection::vec(0..RESTRICTIONS.len(), 0..4),
        path in prop::sample::select(PATHS.to_vec()),
        host in prop::sample::select(HOSTS.to_vec()),
        requests in prop::collection::vec(asked(), 12),
    ) {
        // Of two with one key the later one stands.
        let chosen: BTreeMap<&str, &Restriction> =
            picks.iter().map(|at| (RESTRICTIONS[*at].0, &RESTRICTIONS[*at])).collect();
        let annotations = chosen
            .values()
            .map(|(key, value, _)| (format!("{ALB}{key}"), (*value).to_owned()))
            .collect();
        let built = world(&annotations, host.0, (path.0, path.1));
        let listeners: Vec<_> = built.ir.listeners.values().collect();
        prop_assert_eq!(listeners.len(), 1);
        for request in &requests {
            let restricted = chosen.values().try_fold(true, |all, (_, _, allows)| {
                Some(all && allows(request)?)
            });
            let allowed = restricted == Some(true) && path.2(request.path) && host.1(request.host);
            let served = forwards(listeners[0], request);
            prop_assert!(!served || allowed, "serves {request:?} with {annotations:?}");
            // And it is no law of serving nothing.
            let valid = !matches!(path, ("/a*", "Prefix", _) | ("a" , ..) | (_, "Regex", _)) && host.0 != "localhost";
            if valid && allowed {
                prop_assert!(served, "does not serve {request:?} with {annotations:?}: {:?}", built.problems);
            }
        }
    }

    #[test]
    fn no_text_in_any_annotation_makes_the_compiler_panic(
        texts in prop::collection::vec((0..ir::annotations::index().len(), ".{0,60}"), 0..8),
    ) {
        let key = |at: usize| {
            let entry = &ir::annotations::index()[at];
            let name = if entry.prefix() { "web" } else { "" };
            format!("{}{name}", entry.key)
        };
        let annotations = texts.iter().map(|(at, text)| (key(*at), text.clone())).collect();
        let built = world(&annotations, "", ("/", "Prefix"));
        prop_assert_eq!(built.ir.listeners.len(), 1);
    }
}
