//! Laws of the configuration, on generated input: nothing panics, order does not matter, one object harms no other,
//! and the matcher equals its definition.

use gateway_user::{
    ir::matching::PlainRequest,
    ir::{
        self, Conditions, GroupName, HeaderMatch, HostPattern, LastGood, Options, PathPattern, Rule,
    },
    manifest::{self, File, Limits, Origin},
};
use proptest::prelude::*;

/// Every YAML file of the golden cases, as seeds to mutate.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)
            .expect("golden/")
            .map(|entry| entry.expect("entry").path())
        {
            match entry.extension().and_then(|extension| extension.to_str()) {
                None => folders.push(entry),
                Some("yaml" | "yml" | "json") => {
                    let place = if entry
                        .components()
                        .any(|part| part.as_os_str() == "clusters")
                    {
                        "clusters/c1/a.yaml"
                    } else {
                        "fleet/a.yaml"
                    };
                    seeds.push((place.to_owned(), std::fs::read(&entry).expect("seed")));
                }
                Some(_) => {}
            }
        }
    }
    seeds.sort();
    assert!(seeds.len() > 50);
    seeds
}

fn compile(files: Vec<File>, before: &LastGood) -> ir::Built {
    let (snapshot, _) = manifest::snapshot([], files, Limits::default());
    ir::build(&snapshot, before, &Options::default())
}

fn file(path: &str, bytes: &[u8]) -> File {
    File {
        path: path.to_owned(),
        content: Ok(bytes.into()),
    }
}

const BASE: &str = r#"
apiVersion: alibabacloud.com/v1
kind: AlbConfig
metadata: {name: mcg}
spec: {listeners: [{port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: alb}
spec: {controller: ingress.k8s.alibabacloud/alb, parameters: {kind: AlbConfig, name: mcg}}
"#;

fn ingress(index: usize, annotation: &str) -> File {
    let text = format!(
        r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: i{index}, annotations: {{{annotation}}}}}
spec:
  ingressClassName: alb
  rules: [{{http: {{paths: [{{path: /p{index}, pathType: Prefix, backend: {{service: {{name: svc, port: {{number: 80}}}}}}}}]}}}}]
"#
    );
    file(&format!("fleet/i{index}.yaml"), text.as_bytes())
}

fn members() -> Vec<File> {
    let member = |id: &str, net: u8| {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: svc}}\nspec: {{ports: [{{port: 80}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: s, labels: {{kubernetes.io/service-name: svc}}}}\naddressType: IPv4\nports: [{{port: 80}}]\n\
             endpoints: [{{addresses: [10.{net}.0.1]}}, {{addresses: [10.{net}.0.2]}}]\n"
        );
        file(&format!("clusters/{id}/s.yaml"), text.as_bytes())
    };
    vec![
        member("c1", 1),
        member("c2", 2),
        file("fleet/base.yaml", BASE.as_bytes()),
    ]
}

/// One annotation each that makes an Ingress unfit to be served.
const BAD: [&str; 8] = [
    r#"alb.ingress.kubernetes.io/cluster-weight.c1: "99""#,
    r#"alb.ingress.kubernetes.io/cluster-weight.c1: x"#,
    r#"alb.ingress.kubernetes.io/order: "0""#,
    r#"alb.ingress.kubernetes.io/conditions.svc: "{}""#,
    r#"alb.ingress.kubernetes.io/listen-ports: "[]""#,
    r#"alb.ingress.kubernetes.io/canary: "true""#,
    r#"alb.ingress.kubernetes.io/order: 5"#,
    r#"alb.ingress.kubernetes.io/actions.svc: "{}""#,
];

const GOOD: [&str; 5] = [
    "",
    r#"alb.ingress.kubernetes.io/order: "1""#,
    r#"alb.ingress.kubernetes.io/cluster-weight.c1: "100""#,
    r#"alb.ingress.kubernetes.io/cluster-weight.c1: "60", alb.ingress.kubernetes.io/cluster-weight.c2: "40""#,
    r#"alb.ingress.kubernetes.io/conditions.svc: '[{"type": "Header", "headerConfig": {"key": "a", "values": ["b*"]}}]'"#,
];

fn naive_glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=text.len()).any(|taken| naive_glob(rest, &text[taken..])),
        (Some((b'?', rest)), Some((_, text))) => naive_glob(rest, text),
        (Some((wanted, rest)), Some((byte, text))) => wanted == byte && naive_glob(rest, text),
        _ => false,
    }
}

/// The contract, said as simply as possible.
fn naive_match(rule: &Rule, host: Option<&str>, path: &str, headers: &[(String, String)]) -> bool {
    let host = host.map(|host| host.split(':').next().unwrap_or_default().to_lowercase());
    let host_holds = rule.conditions.hosts.is_empty()
        || rule
            .conditions
            .hosts
            .iter()
            .any(|pattern| match (pattern, &host) {
                (_, None) => false,
                (HostPattern::Exact(wanted), Some(host)) => wanted == host,
                (HostPattern::OneLabel(suffix), Some(host)) => {
                    let wanted: Vec<_> = suffix.split('.').skip(1).collect();
                    let labels: Vec<_> = host.split('.').collect();
                    labels.len() == wanted.len() + 1
                        && !labels[0].is_empty()
                        && labels[1..] == wanted[..]
                }
                (HostPattern::Glob(pattern), Some(host)) => {
                    naive_glob(pattern.as_bytes(), host.as_bytes())
                }
                (HostPattern::Regex(_), Some(_)) => unreachable!("these worlds hold none"),
            });
    let elements = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
    let path_holds = rule.conditions.paths.is_empty()
        || rule.conditions.paths.iter().any(|pattern| match pattern {
            PathPattern::Exact(wanted) => wanted == path,
            PathPattern::Prefix(prefix) => elements(path).starts_with(&elements(prefix)),
            PathPattern::Glob(pattern) => naive_glob(pattern.as_bytes(), path.as_bytes()),
            PathPattern::Regex(_) => unreachable!("these worlds hold none"),
        });
    let header_holds = |wanted: &HeaderMatch| {
        headers.iter().any(|(name, value)| {
            *name == wanted.name
                && wanted
                    .values
                    .iter()
                    .any(|pattern| naive_glob(pattern.as_bytes(), value.as_bytes()))
        })
    };
    host_holds && path_holds && rule.conditions.headers.iter().all(header_holds)
}

prop_compose! {
    fn any_rule()(
        hosts in prop::collection::vec(prop_oneof![
            "[ab]\\.(c|d\\.c)".prop_map(HostPattern::Exact),
            "\\.(c|b\\.c)".prop_map(HostPattern::OneLabel),
        ], 0..3),
        paths in prop::collection::vec(prop_oneof![
            "(/[ab]{1,2}){1,2}/?".prop_map(PathPattern::Exact),
            "(/[ab]{1,2}){0,2}".prop_map(PathPattern::Prefix),
        ], 0..3),
        headers in prop::collection::vec(("[xy]", prop::collection::vec("[ab*?]{1,4}", 1..3)), 0..3),
    ) -> Rule {
        let headers = headers.into_iter().map(|(name, values)| HeaderMatch { name, values }).collect();
        Rule {
            conditions: Conditions { hosts, paths, headers, ..Conditions::default() },
            ..Rule::forwarding(GroupName::default(), "")
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let origin = Origin { file: "a.yaml".into(), cluster: None };
        manifest::parse(&origin, &bytes, Limits::default());
    }

    #[test]
    fn arbitrary_yaml_like_text_never_panics(text in "[a:\\-\\[\\]{}&*!|>'\"#% \n\t0?,.~]{0,200}") {
        let origin = Origin { file: "a.yaml".into(), cluster: None };
        manifest::parse(&origin, text.as_bytes(), Limits::default());
    }

    #[test]
    fn the_first_match_is_that_of_the_definition(
        rules in prop::collection::vec(any_rule(), 0..6),
        host in prop::option::of("[aAb]?\\.?[bB]?\\.?[cC](:80)?"),
        path in "(/[ab]{0,2}){1,3}",
        headers in prop::collection::vec(("[xyz]".prop_map(String::from), "[ab]{0,4}".prop_map(String::from)), 0..4),
    ) {
        let wanted = rules.iter().position(|rule| naive_match(rule, host.as_deref(), &path, &headers));
        let request = PlainRequest {
            host: host.as_deref(),
            method: "GET",
            path: &path,
            headers: &headers,
            ..PlainRequest::default()
        };
        let found = rules.iter().position(|rule| rule.conditions.matches(&request));
        prop_assert_eq!(found, wanted);
    }

    #[test]
    fn the_order_of_files_does_not_matter(
        kinds in prop::collection::vec((0..GOOD.len() + BAD.len(), 0usize..3), 1..6),
        shuffled in Just((0..9).collect::<Vec<usize>>()).prop_shuffle(),
    ) {
        let mut files = members();
        for (index, (kind, name)) in kinds.iter().enumerate() {
            // Few names, so that some objects are written twice and the file must decide which one serves.
            let path = format!("fleet/file{index}.yaml");
            files.push(File { path, ..ingress(*name, [&GOOD[..], &BAD[..]].concat()[*kind]) });
        }
        let other = shuffled.iter().filter_map(|index| files.get(*index).cloned()).collect();
        prop_assert_eq!(compile(files, &LastGood::default()), compile(other, &LastGood::default()));
    }

    #[test]
    fn a_bad_ingress_leaves_the_rules_of_the_others(
        good in prop::collection::vec(0..GOOD.len(), 1..5),
        bad in 0..BAD.len(),
        at in 0usize..9,
    ) {
        let mut files = members();
        // Odd numbers, so that the bad one can sort before, between and after them.
        files.extend(good.iter().enumerate().map(|(index, kind)| ingress(2 * index + 1, GOOD[*kind])));
        let without = compile(files.clone(), &LastGood::default());
        files.push(ingress(2 * (at / 2), BAD[bad]));
        let with = compile(files, &LastGood::default());
        prop_assert_eq!(&with.ir, &without.ir);
        prop_assert!(!without.ir.listeners.values().next().is_none_or(|it| it.rules.is_empty()));
    }
}

#[test]
fn mutated_manifests_never_panic() {
    let seeds = seeds();
    let strategy = (
        0..seeds.len(),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..6),
    );
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 1_000,
        ..ProptestConfig::default()
    });
    let result = runner.run(&strategy, |(seed, edits)| {
        let (place, mut bytes) = seeds[seed].clone();
        for (at, byte, edit) in edits {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match edit {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, b"\n:-{}[]\"'*&!| 0#"[usize::from(byte) % 15]),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
        }
        let mut files = members();
        files.push(file(&place, &bytes));
        let built = compile(files, &LastGood::default());
        prop_assert!(
            built
                .problems
                .iter()
                .all(|problem| problem.to_string().len() < 4_000)
        );
        Ok(())
    });
    assert!(result.is_ok(), "{result:?}");
}
