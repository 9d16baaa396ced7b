//! Every case of `golden/` compiles to its expected text. `UPDATE_GOLDEN=1` rewrites; review the difference like code.
//!
//! A folder is one case with its own manifests; a table (`golden/*.yaml`) holds many small ones, whose expected texts
//! stand beside it (`golden/*.txt`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use fleetgate_tests::{corpus, render};
use gateway_user::{
    check::{check, compile},
    ir::{
        Options,
        annotations::{Scope, index},
    },
};

/// Our own decisions where the reference leaves a gap: each is shown by some case, and each case shows one of these.
///
/// Not here, because nothing of it is compiled: retries of a request (`proxy`), and what a restart remembers of a cluster
/// that does not answer (`ir::build`).
const DECISIONS: &[&str] = &[
    // Section 2.
    "clusters-trimmed",
    "cloud-fields-ignored",
    "request-timeout-1-to-600",
    "timeout-out-of-range-rejects-the-listener",
    "denied-clients-reach-no-rule",
    // Section 4.
    "missing-listener-skipped",
    "listeners-never-mutated",
    "ssl-redirect-is-308",
    "https-elsewhere-does-not-redirect",
    // Section 5.
    "duplicate-order-tolerated",
    "star-may-be-empty",
    "use-regex-only-true",
    "regex-unanchored",
    "host-without-case-and-port",
    "host-star-is-one-label",
    "named-ports",
    "default-backend-last",
    "404-on-no-match-503-on-no-pod",
    // Section 6.
    "header-value-exact-with-wildcards",
    "header-any-line-whole-value",
    // Section 9.
    "canary-header-presence",
    "canary-hoisted",
    // Section 10.3.
    "unnamed-cluster-has-weight-0",
    "weight-0-allowed",
    "bad-weight-keeps-last-good",
    "sum-not-100-is-an-error",
    "unknown-cluster-dropped-after-the-sum",
    "all-unknown-is-replicas",
    "cross-cluster-failover",
    "no-spill-to-weight-0",
    "service-in-some-clusters",
    "target-port-by-cluster",
    "failover-before-fail-open",
    "canary-before-cluster-weight",
    "unreachable-cluster-keeps-endpoints",
    // Listeners of protocol TCP and UDP.
    "default-backend-attaches",
    "empty-l4-listener-refuses",
    "one-ingress-per-l4-listener",
    // Sections 11 to 14.
    "uch-falls-back-to-wrr",
    "sticky-reselects",
    "rate-limit-answers-503",
    "certificates-are-secret-references",
    "bad-ingress-isolated",
];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn entries() -> Vec<PathBuf> {
    let entries = fs::read_dir(golden()).expect("golden/");
    let mut entries: Vec<_> = entries.map(|it| it.expect("entry").path()).collect();
    entries.sort();
    entries
}

fn tables() -> Vec<(PathBuf, Vec<corpus::Case>)> {
    let is_table = |path: &PathBuf| path.extension().is_some_and(|it| it == "yaml");
    let tables = entries().into_iter().filter(is_table);
    tables
        .map(|path| {
            let cases = corpus::table(&path);
            (path, cases)
        })
        .collect()
}

/// Folders by the name of their case.
fn folders() -> BTreeMap<String, PathBuf> {
    let folders = entries().into_iter().filter(|path| path.is_dir());
    let named = |path: PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy();
        (name.into_owned(), path)
    };
    folders.map(named).collect()
}

fn table_cases() -> impl Iterator<Item = corpus::Case> {
    tables().into_iter().flat_map(|(_, cases)| cases)
}

/// The texts of a table by case: each follows a line `== name`.
fn expected(path: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let parts = text
        .strip_prefix("== ")
        .unwrap_or_default()
        .split("\n== ")
        .filter_map(|part| part.split_once('\n'));
    parts
        .map(|(name, text)| (name.to_owned(), text.trim_end().to_owned()))
        .collect()
}

#[test]
fn every_golden_case_compiles_to_its_expected_text() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for (name, folder) in folders() {
        let text = render::report(&check(&folder));
        let expected = folder.join("expected.txt");
        if update {
            fs::write(&expected, &text).expect("write expected.txt");
        } else if fs::read_to_string(&expected).unwrap_or_default() != text {
            wrong.push(format!("{name}:\n{text}"));
        }
    }
    for (table, cases) in tables() {
        let path = table.with_extension("txt");
        let texts = cases.iter().map(|case| (&case.name, case.run().text));
        if update {
            let parts: Vec<_> = texts
                .map(|(name, text)| format!("== {name}\n{}\n", text.trim_end()))
                .collect();
            fs::write(&path, parts.join("\n")).expect("write the texts of a table");
            continue;
        }
        let mut expected = expected(&path);
        for (name, text) in texts {
            if expected.remove(name).as_deref() != Some(text.trim_end()) {
                wrong.push(format!("{}: {name}:\n{text}", table.display()));
            }
        }
        for name in expected.keys() {
            wrong.push(format!("{}: no case is called {name}", path.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} cases differ from their expected text, now:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn the_corpus_is_large_enough_and_no_sentence_stands_twice() {
    let names: Vec<String> = table_cases()
        .map(|case| case.name)
        .chain(folders().into_keys())
        .collect();
    let distinct: BTreeSet<_> = names.iter().collect();
    assert!(
        distinct.len() >= 120,
        "{} cases are too few",
        distinct.len()
    );
    assert_eq!(distinct.len(), names.len(), "two cases have one name");
}

#[test]
fn every_annotation_of_the_index_stands_in_some_case() {
    let tables = table_cases().map(|case| case.run().snapshot);
    let folders = folders().into_values();
    let folders = folders.map(|folder| compile(&folder, Options::default()).snapshot);
    let mut seen: BTreeSet<(Scope, String)> = BTreeSet::new();
    for snapshot in tables.chain(folders) {
        let mut add = |scope, annotations: &BTreeMap<String, String>| {
            seen.extend(annotations.keys().map(|key| (scope, key.clone())));
        };
        for it in snapshot.ingresses.values() {
            add(Scope::Ingress, &it.metadata.annotations);
        }
        for it in snapshot.gateways.values() {
            add(Scope::AlbConfig, &it.metadata.annotations);
        }
        let services = snapshot
            .clusters
            .values()
            .flat_map(|it| it.services.values());
        for it in services {
            add(Scope::Service, &it.metadata.annotations);
        }
    }
    let missing: Vec<_> = index()
        .iter()
        .filter(|entry| {
            !seen
                .iter()
                .any(|(scope, key)| *scope == entry.scope && entry.covers(key))
        })
        .map(|entry| (entry.scope, entry.key))
        .collect();
    assert!(missing.is_empty(), "no case has {missing:?}");
}

#[test]
fn every_decision_of_ours_is_shown_by_some_case_and_no_other_is_claimed() {
    let shown: BTreeSet<String> = table_cases().flat_map(|case| case.covers).collect();
    let decided: BTreeSet<String> = DECISIONS.iter().map(|it| (*it).to_owned()).collect();
    assert_eq!(decided.len(), DECISIONS.len(), "a decision stands twice");
    let missing: Vec<_> = decided.difference(&shown).collect();
    assert!(missing.is_empty(), "no case shows {missing:?}");
    let unknown: Vec<_> = shown.difference(&decided).collect();
    assert!(
        unknown.is_empty(),
        "cases show {unknown:?}, which is no decision"
    );
}
