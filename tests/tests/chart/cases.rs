//! Value sets that the tests render, and what they are compared by.

use std::{fmt::Write, path::Path, sync::LazyLock};

use serde_json::Value;
use xtask::chart::{self, Rendered, Values};

/// One rendering.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) chart: &'static str,
    pub(crate) values: &'static str,
}

const fn main(name: &'static str, values: &'static str) -> Case {
    Case {
        name,
        chart: "fleetgate",
        values,
    }
}

const fn member(name: &'static str, values: &'static str) -> Case {
    Case {
        name,
        chart: "fleetgate-member",
        values,
    }
}

/// The first is what the others of its chart are compared with.
pub(crate) const CASES: &[Case] = &[
    main("defaults", ""),
    main(
        "pool",
        "node: {snat: [10.9.0.0/28], vips: [203.0.113.10], maxFlows: 2000000}",
    ),
    main(
        "nodes",
        "node: {snat: [10.9.0.0/28]}\n\
         nodes: {gw-2: {snat: [], interfaces: [eth0, eth1], extraArgs: ['--sample-every=7']}}",
    ),
    main(
        "cluster_secrets",
        "members: {secrets: {namespace: fleetgate-clusters}}",
    ),
    main(
        "cluster_files",
        "members: {secrets: {enabled: false}, kubeconfigs: {C_1: {secretName: c1}, c2: {secretName: c2, key: value}}}\n\
         fleet: {leaderElect: false, dnsSuffix: gw.example.com}",
    ),
    main(
        "remote_fleet",
        "fleet: {kubeconfigSecret: fleet}\nringSecret: {name: ring}",
    ),
    main(
        "metrics",
        "metrics: {enabled: true, podMonitor: {enabled: true, labels: {release: prometheus}}}\nadmin: {port: 9621}",
    ),
    main("tls_secrets", "rbac: {tlsSecrets: {enabled: true}}"),
    main(
        "no_rbac",
        "rbac: {create: false}\nserviceAccount: {create: false, name: mine}",
    ),
    main(
        "gateway",
        "gateway: {create: true, remoteClusters: [c1, c2]}\nnamespace: {create: true}\ningressClass: {default: true}",
    ),
    main(
        "manifests_of_the_node",
        "manifests: {enabled: true, hostPath: /etc/fleetgate/manifests}",
    ),
    main(
        "manifests",
        "manifests:\n  enabled: true\n  fleet: {a.yaml: '# nothing'}\n  clusters: {c1: {b.yaml: '# nothing', c.json: '{}'}}",
    ),
    member("member", ""),
    member(
        "member_without_token",
        "name: gateway\ntoken: {create: false}",
    ),
];

/// One document of a rendering.
#[derive(Clone)]
pub(crate) struct Object {
    /// Without comments and blank lines.
    pub(crate) text: String,
    pub(crate) value: Value,
}

impl Object {
    pub(crate) fn is(&self, kind: &str) -> bool {
        self.value["kind"] == kind
    }

    fn key(&self) -> String {
        let text = |pointer: &str| {
            let text = self.value.pointer(pointer).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        format!(
            "{} {} {}",
            text("/kind"),
            text("/metadata/namespace"),
            text("/metadata/name")
        )
    }
}

pub(crate) fn by_name(name: &str) -> &'static Case {
    let case = CASES.iter().find(|case| case.name == name);
    case.expect("a case of that name")
}

/// Renders one value set; an inner error is Helm's refusal.
pub(crate) fn render(chart: &str, values: &str) -> Result<Rendered, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/chart");
    let values = Values {
        files: vec![values.to_owned()],
        set: Vec::new(),
    };
    // Not to be had is a failure of the test, never a reason to skip it.
    let mut cases = chart::render(&path.join(chart), &[values]).unwrap_or_else(|error| {
        panic!("the charts cannot be tested without Helm: {error:#}");
    });
    cases.pop().expect("one answer")
}

/// Every case, rendered once for all tests.
static RENDERED: LazyLock<Vec<Rendered>> = LazyLock::new(|| {
    let case = |case: &Case| {
        render(case.chart, case.values).unwrap_or_else(|why| panic!("{}: {why}", case.name))
    };
    CASES.iter().map(case).collect()
});

impl Case {
    pub(crate) fn render(&self) -> &'static Rendered {
        let at = CASES.iter().position(|case| case.name == self.name);
        &RENDERED[at.expect("one of the cases")]
    }

    /// Every object, the CRD too.
    pub(crate) fn objects(&self) -> Vec<Object> {
        let rendered = self.render();
        rendered
            .manifests()
            .flat_map(|(path, text)| documents(path, text))
            .collect()
    }

    pub(crate) fn one(&self, kind: &str) -> Value {
        let mut of_kind = self.objects().into_iter().filter(|it| it.is(kind));
        let one = of_kind
            .next()
            .unwrap_or_else(|| panic!("no {kind} in {}", self.name));
        assert!(of_kind.next().is_none(), "two {kind} in {}", self.name);
        one.value
    }
}

fn documents(path: &str, text: &str) -> Vec<Object> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        if line == "---" {
            documents.push(String::new());
        } else if let Some(document) = documents.last_mut()
            && !line.trim().is_empty()
            && !line.trim_start().starts_with('#')
        {
            // Says only that something else differs.
            let line = match line.split_once("checksum/arguments: ") {
                Some((indent, _)) => &format!("{indent}checksum/arguments: \"\""),
                None => line,
            };
            document.push_str(line);
            document.push('\n');
        }
    }
    let documents = documents.into_iter().filter(|text| !text.is_empty());
    let object = |text: String| Object {
        value: serde_saphyr::from_str(&text).unwrap_or_else(|why| panic!("{path}: {why}\n{text}")),
        text,
    };
    documents.map(object).collect()
}

/// A case as text to review: its values, and what differs from the first case of its chart. The CRD is a file of its own.
pub(crate) fn golden(case: &Case) -> String {
    let mut text: String = case.values.lines().map(|it| format!("# {it}\n")).collect();
    let first = CASES.iter().find(|it| it.chart == case.chart).expect("one");
    let objects = |case: &Case| -> Vec<Object> {
        let objects = case.objects().into_iter();
        objects
            .filter(|it| !it.is("CustomResourceDefinition"))
            .collect()
    };
    let usual = if first.name == case.name {
        Vec::new()
    } else {
        objects(first)
    };
    let here = objects(case);
    for object in &usual {
        if !here.iter().any(|it| it.key() == object.key()) {
            let _ = writeln!(text, "# without {}", object.key());
        }
    }
    for object in &here {
        if !usual.iter().any(|it| it.text == object.text) {
            let _ = write!(text, "---\n{}", object.text);
        }
    }
    text
}
