//! Which annotations we know, and a word about those we do not.
//!
//! Law: what restricts or changes requests is never dropped without a word.

mod index;
mod near;
mod nginx;

use std::collections::BTreeMap;

pub use self::index::{Entry, Scope, State, Values, index};
pub(super) use self::near::nearest;
use super::notes::{
    ADDRESSES, ALB, BACKEND_PROXY, FLOWS, FLOWS_PER_SOURCE, Notes, PASSTHROUGH, PROXY_FROM,
    STEERING, annotation,
};
use crate::{
    ir::model::SteeringWish,
    problem::{Problem, shown},
};

/// Annotations of ours begin so.
const OWN: &str = "fleetgate.io/";

/// "NGINX aliases honoured" (contract section 17).
const ALIASES: [&str; 6] = [
    "canary",
    "canary-by-header",
    "canary-by-header-value",
    "canary-by-cookie",
    "canary-weight",
    "ssl-redirect",
];

/// Value of an ALB annotation by its key without prefix.
pub(super) fn get<'a>(annotations: &'a BTreeMap<String, String>, short: &str) -> Option<&'a str> {
    let value = annotations.get(&format!("{ALB}{short}"))?;
    Some(value.as_str())
}

/// Field and value of an ALB annotation or of its NGINX alias: "the nginx key is looked up first".
pub(super) fn aliased<'a>(
    annotations: &'a BTreeMap<String, String>,
    short: &str,
) -> Option<(String, &'a str)> {
    [nginx::NGINX, ALB].into_iter().find_map(|prefix| {
        let (key, value) = annotations.get_key_value(&format!("{prefix}{short}"))?;
        Some((annotation(key), value.as_str()))
    })
}

/// An ALB annotation says exactly `true`. [`review_ingress`] tells of other words.
pub(super) fn on(annotations: &BTreeMap<String, String>, short: &str) -> bool {
    get(annotations, short) == Some("true")
}

/// Notes every annotation of an Ingress that we do not know, and switches that are neither on nor off.
pub(super) fn review_ingress(annotations: &BTreeMap<String, String>, notes: &mut Notes) {
    for (key, value) in annotations {
        match known(key, Scope::Ingress) {
            Some(entry) if entry.values == Values::Switch => switch(key, value, notes),
            Some(_) => {}
            None => {
                nginx::review(key, value, notes);
                unknown(key, Scope::Ingress, notes);
            }
        }
    }
    nginx::disagreeing(annotations, &ALIASES, notes);
}

/// Notes every annotation of an AlbConfig that we do not know.
pub(super) fn review_gateway(annotations: &BTreeMap<String, String>, notes: &mut Notes) {
    for key in annotations.keys() {
        if known(key, Scope::AlbConfig).is_none() {
            unknown(key, Scope::AlbConfig, notes);
        }
    }
}

fn known(key: &str, scope: Scope) -> Option<&'static Entry> {
    let fits = |entry: &&Entry| entry.scope == scope && entry.covers(key);
    index().iter().find(fits)
}

fn switch(key: &str, value: &str, notes: &mut Notes) {
    if !matches!(value, "true" | "false") {
        notes.warning(
            annotation(key),
            format!("{} counts as false", shown(value)),
            "write `\"true\"` or `\"false\"`",
        );
    }
}

/// Keys of other controllers are none of our business.
fn unknown(key: &str, scope: Scope, notes: &mut Notes) {
    let Some(prefix) = [ALB, OWN]
        .into_iter()
        .find(|prefix| key.starts_with(prefix))
    else {
        return;
    };
    notes.warn_if_shown(|object| {
        Problem::warning(
            object,
            annotation(key),
            "is not a known annotation and is ignored",
            remedy(key, prefix, scope),
        )
    });
}

fn remedy(key: &str, prefix: &str, scope: Scope) -> String {
    if let Some(elsewhere) = elsewhere(key) {
        format!("it belongs on {elsewhere}")
    } else if let Some(meant) = meant(key, prefix, scope) {
        format!("write `{meant}`")
    } else if scope == Scope::AlbConfig && prefix == ALB {
        "an AlbConfig knows only remote-clusters".to_owned()
    } else if prefix == OWN {
        let known = match scope {
            Scope::AlbConfig => {
                format!("{STEERING}, {ADDRESSES}, {PROXY_FROM}, {FLOWS}, {FLOWS_PER_SOURCE}")
            }
            _ => format!("{STEERING}, {BACKEND_PROXY}, {PASSTHROUGH}"),
        };
        format!("known here: {known}")
    } else {
        "check its spelling".to_owned()
    }
}

fn elsewhere(key: &str) -> Option<&'static str> {
    match index().iter().find(|entry| entry.covers(key))?.scope {
        Scope::Ingress => Some("an Ingress"),
        Scope::AlbConfig => Some("the AlbConfig"),
        Scope::Service => Some("a Service"),
    }
}

/// The key that was meant: of a key with a name behind a dot, the part before it.
fn meant(key: &str, prefix: &str, scope: Scope) -> Option<String> {
    let short = key.strip_prefix(prefix)?;
    let here = || {
        let of_kind = |entry: &&Entry| entry.scope == scope;
        let shorts = index().iter().filter(of_kind);
        shorts.filter_map(|entry| entry.key.strip_prefix(prefix))
    };
    let plain = here().filter(|known| !known.ends_with('.'));
    if let Some(known) = nearest(short, plain) {
        return Some(format!("{prefix}{known}"));
    }
    let (head, name) = short.split_once('.')?;
    let known = nearest(head, here().filter_map(|known| known.strip_suffix('.')))?;
    let name: String = name.chars().take(60).collect();
    Some(format!("{prefix}{known}.{}", name.escape_debug()))
}

/// `fleetgate.io/steering`; a bad value counts as absent.
pub(super) fn steering(
    annotations: &BTreeMap<String, String>,
    notes: &mut Notes,
) -> Option<SteeringWish> {
    match annotations.get(STEERING)?.as_str() {
        "auto" => Some(SteeringWish::Auto),
        "connection" => Some(SteeringWish::Connection),
        "request" => Some(SteeringWish::Request),
        other => {
            notes.warning(
                annotation(STEERING),
                format!("unknown steering {} is ignored", shown(other)),
                "write auto, connection or request",
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::problem::Problem;

    fn review(key: &str, value: &str) -> Vec<Problem> {
        let mut notes = Notes::on("Ingress", "demo", "a");
        review_ingress(&[(key.to_owned(), value.to_owned())].into(), &mut notes);
        assert_eq!(notes.errors(), 0);
        notes.problems
    }

    fn remedy(key: &str) -> String {
        let problems = review(key, "x");
        assert_eq!(problems.len(), 1, "{key}: {problems:?}");
        problems[0].remedy.clone()
    }

    #[test]
    fn every_annotation_of_the_index_is_known_where_it_belongs() {
        for entry in index() {
            let key = match entry.prefix() {
                true => format!("{}svc", entry.key),
                false => entry.key.to_owned(),
            };
            let mut notes = Notes::on("Ingress", "demo", "a");
            let annotations = [(key, "true".to_owned())].into();
            match entry.scope {
                Scope::Ingress => review_ingress(&annotations, &mut notes),
                Scope::AlbConfig => review_gateway(&annotations, &mut notes),
                Scope::Service => continue,
            }
            assert_eq!(notes.problems, [], "{}", entry.key);
        }
    }

    #[test]
    fn a_misspelt_annotation_is_told_with_what_was_meant() {
        for (wrong, meant) in [
            ("ordre", "order"),
            ("ssl-redirct", "ssl-redirect"),
            ("SSL-Redirect", "ssl-redirect"),
            ("traffic-limit-qsp", "traffic-limit-qps"),
            ("condition.svc", "conditions.svc"),
            ("cluster-wieght.c1", "cluster-weight.c1"),
            ("healthcheck-pth", "healthcheck-path"),
        ] {
            assert_eq!(
                remedy(&format!("{ALB}{wrong}")),
                format!("write `{ALB}{meant}`")
            );
        }
        assert_eq!(remedy(&format!("{ALB}moon-phase")), "check its spelling");
        assert_eq!(
            remedy("fleetgate.io/stering"),
            "write `fleetgate.io/steering`"
        );
        assert_eq!(
            remedy(&format!("{ALB}remote-clusters")),
            "it belongs on the AlbConfig"
        );
        assert_eq!(
            remedy(&format!("{ALB}server-group-id")),
            "it belongs on a Service"
        );
        assert_eq!(
            remedy("fleetgate.io/addresses"),
            "it belongs on the AlbConfig"
        );
    }

    #[test]
    fn an_albconfig_knows_its_clusters_only() {
        let mut notes = Notes::on("AlbConfig", "", "a");
        let annotations = [
            (format!("{ALB}remote-clusters"), "c1".to_owned()),
            (format!("{ALB}order"), "1".to_owned()),
            (
                "kubectl.kubernetes.io/last-applied-configuration".to_owned(),
                "{}".to_owned(),
            ),
        ];
        review_gateway(&annotations.into(), &mut notes);
        assert_eq!(notes.problems.len(), 1);
        assert_eq!(notes.problems[0].remedy, "it belongs on an Ingress");
    }

    #[test]
    fn a_switch_that_is_neither_on_nor_off_is_told() {
        for key in ["ssl-redirect", "canary", "use-regex", "healthcheck-enabled"] {
            let key = format!("{ALB}{key}");
            assert_eq!(review(&key, "true"), []);
            assert_eq!(review(&key, "false"), []);
            for odd in ["True", "1", "", "yes"] {
                assert_eq!(review(&key, odd).len(), 1, "{key} {odd}");
            }
        }
    }

    #[test]
    fn annotations_of_nginx_that_change_requests_are_told_with_what_to_write() {
        let nginx = |key: &str| format!("nginx.ingress.kubernetes.io/{key}");
        for (key, instead) in [
            ("whitelist-source-range", "SourceIp"),
            ("auth-url", "nothing here"),
            ("auth-tls-secret", "caEnabled"),
            ("ssl-passthrough", "fleetgate.io/tls-passthrough"),
            ("permanent-redirect", "Redirect"),
            ("rewrite-target", "${1}"),
            ("limit-rps", "traffic-limit-qps"),
            ("server-snippet", "conditions and actions"),
            ("cors-allow-origin", "same name"),
        ] {
            assert!(remedy(&nginx(key)).contains(instead), "{key}");
        }
        assert_eq!(review(&nginx("enable-cors"), "false"), []);
        assert_eq!(review(&nginx("proxy-buffering"), "on"), []);
        assert_eq!(review("cert-manager.io/issuer", "x"), []);
    }

    #[test]
    fn the_alias_of_nginx_is_looked_up_first() {
        let mut annotations = BTreeMap::from([(format!("{ALB}canary"), "true".to_owned())]);
        let value = |annotations: &BTreeMap<_, _>| {
            let (field, value) = aliased(annotations, "canary").unwrap();
            (field.contains("nginx"), value.to_owned())
        };
        assert_eq!(value(&annotations), (false, "true".to_owned()));
        annotations.insert(
            "nginx.ingress.kubernetes.io/canary".to_owned(),
            "false".to_owned(),
        );
        assert_eq!(value(&annotations), (true, "false".to_owned()));
        let mut notes = Notes::on("Ingress", "demo", "a");
        review_ingress(&annotations, &mut notes);
        assert_eq!(notes.problems.len(), 1);
        assert!(notes.problems[0].message.contains("says something else"));
    }

    proptest! {
        #[test]
        fn no_annotation_makes_the_review_panic(key in ".{0,60}", value in ".{0,20}") {
            for prefix in [ALB, OWN, "nginx.ingress.kubernetes.io/", ""] {
                let key = format!("{prefix}{key}");
                prop_assert!(review(&key, &value).len() <= 2);
            }
        }
    }
}
