//! One Ingress on its own: everything that can be said without looking at other objects.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    annotations,
    canary::{self, Canary},
    drafting::Drafting,
    l4::{self, Attachment},
    notes::{ALB, Notes, alb},
    passthrough, policy,
    ports::{self, Ports},
};
use crate::{
    ir::model::{Policy, Rule},
    manifest::{ClusterId, Ingress},
    problem::shown,
};

/// Paths of one Ingress, over all its rules; a cloud has 200 rules for a whole gateway.
const MOST_PATHS: usize = 1000;
/// Secrets of one Ingress.
const MOST_SECRETS: usize = 1000;

/// An Ingress that is understood.
#[derive(Clone, Debug)]
pub(super) struct Understood {
    pub(super) ports: Ports,
    /// 1 to 1000; smaller is tried earlier.
    pub(super) order: u16,
    /// The annotation is there.
    pub(super) order_given: bool,
    /// As written, summing up to 100; empty means none were written.
    pub(super) weights: Arc<BTreeMap<ClusterId, u8>>,
    pub(super) policy: Arc<Policy>,
    /// `ssl-redirect`: rules on ports other than 443 answer with a redirect.
    pub(super) ssl_redirect: bool,
    /// It only takes a share of rules of other Ingresses.
    pub(super) canary: Option<Canary>,
    /// Secrets of `spec.tls`, with their position and hosts.
    pub(super) secrets: Vec<TlsSecret>,
    pub(super) rules: Vec<Draft>,
    pub(super) default: Option<Draft>,
    /// On listeners of protocol TCP and UDP.
    pub(super) attached: Vec<Attachment>,
}

/// A certificate that an Ingress names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct TlsSecret {
    pub(super) place: String,
    pub(super) name: String,
    pub(super) hosts: Vec<String>,
}

/// A rule, and on which listeners it stands.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) rule: Arc<Rule>,
    /// What stands for it where `ssl-redirect` asks for HTTPS.
    pub(super) redirected: Option<Arc<Rule>>,
    /// Host and path as written: a canary belongs to the rule with the same.
    pub(super) key: (String, String),
    /// It stands on listeners of HTTP (contract section 4.3).
    pub(super) plain: bool,
    /// It stands on listeners of HTTPS and QUIC.
    pub(super) secured: bool,
    /// On those of HTTPS its connections go on to pods as they are.
    pub(super) passthrough: bool,
}

/// `None` when a note is an error.
pub(super) fn understand(ingress: &Ingress, notes: &mut Notes) -> Option<Understood> {
    let annotations = &ingress.metadata.annotations;
    let errors = notes.errors();
    too_many(ingress, notes);
    if notes.errors() > errors {
        return None;
    }
    annotations::review_ingress(annotations, notes);
    let (order, order_given) = order(annotations, notes);
    let ports = ports::parse(ingress, notes);
    let has_tls = !ingress.spec.tls.is_empty();
    let understood = Understood {
        policy: Arc::new(policy::parse(annotations, &ports, has_tls, notes)),
        order,
        order_given,
        weights: Arc::new(weights(annotations, notes)),
        ssl_redirect: ports::ssl_redirect(annotations),
        canary: canary::parse(annotations, notes),
        secrets: secrets(ingress),
        rules: Vec::new(),
        default: None,
        attached: Vec::new(),
        ports,
    };
    let mut drafting = Drafting::new(ingress, &understood, notes);
    let mut rules = Vec::new();
    for (index, rule) in ingress.spec.rules.iter().enumerate() {
        drafting.rule(rule, &format!("spec.rules[{index}]"), &mut rules);
    }
    let default = ingress
        .spec
        .default_backend
        .as_ref()
        .and_then(|backend| drafting.default(backend));
    if passthrough::asked(annotations) {
        passthrough::check(ingress, &understood, &rules, notes);
    }
    let attached = l4::attach(
        ingress,
        &understood.ports,
        understood.canary.is_some(),
        understood.ssl_redirect,
        default.as_ref(),
        notes,
    );
    let reads = understood.ports.read_requests();
    if reads && ingress.spec.rules.is_empty() && ingress.spec.default_backend.is_none() {
        notes.warning(
            "spec.rules",
            "is empty, so this Ingress serves nothing",
            "add a rule with a path and a backend",
        );
    }
    (notes.errors() == errors).then_some(Understood {
        rules,
        default,
        attached,
        ..understood
    })
}

/// Before anything is read: an Ingress must not keep the others waiting.
fn too_many(ingress: &Ingress, notes: &mut Notes) {
    let spec = &ingress.spec;
    let paths: usize = spec.rules.iter().map(|rule| rule.http.paths.len()).sum();
    for (field, many, most, what) in [
        (
            "spec.rules",
            paths.max(spec.rules.len()),
            MOST_PATHS,
            "paths",
        ),
        ("spec.tls", spec.tls.len(), MOST_SECRETS, "entries"),
    ] {
        if many > most {
            notes.error(
                field,
                format!("has {many} {what}, more than the {most} of one Ingress"),
                "spread them over several Ingresses",
            );
        }
    }
}

fn secrets(ingress: &Ingress) -> Vec<TlsSecret> {
    let secret = |(index, tls): (usize, &crate::manifest::IngressTls)| {
        let name = tls.secret_name.clone().filter(|name| !name.is_empty())?;
        Some(TlsSecret {
            place: format!("spec.tls[{index}].secretName"),
            name,
            hosts: tls.hosts.clone(),
        })
    };
    let tls = ingress.spec.tls.iter().enumerate();
    tls.filter_map(secret).collect()
}

/// "integer 1-1000, default 10, smaller = evaluated earlier"; legacy `albconfig.order` wins.
fn order(annotations: &BTreeMap<String, String>, notes: &mut Notes) -> (u16, bool) {
    let given = ["albconfig.order", "order"].into_iter().find_map(|key| {
        annotations
            .get(&format!("{ALB}{key}"))
            .map(|value| (key, value))
    });
    let Some((key, text)) = given else {
        return (10, false);
    };
    match text.parse::<u16>() {
        Ok(order) if (1..=1000).contains(&order) => (order, true),
        _ => {
            notes.error(
                alb(key),
                format!("{} is not an order", shown(text)),
                "write an integer from 1 to 1000",
            );
            (10, true)
        }
    }
}

/// `cluster-weight.<id>`; "sum of all must equal 100", never re-scaled.
fn weights(annotations: &BTreeMap<String, String>, notes: &mut Notes) -> BTreeMap<ClusterId, u8> {
    let prefix = format!("{ALB}cluster-weight.");
    let mut weights = BTreeMap::new();
    let mut valid = true;
    for (key, text) in annotations {
        let Some(id) = key.strip_prefix(&prefix) else {
            continue;
        };
        let field = alb(&format!("cluster-weight.{id}"));
        match text.parse::<u8>() {
            _ if id.is_empty() => {
                notes.error(
                    field,
                    "names no cluster",
                    "write the cluster ID after `cluster-weight.`",
                );
                valid = false;
            }
            Ok(weight) if weight <= 100 => {
                weights.insert(ClusterId(id.into()), weight);
            }
            _ => {
                notes.error(
                    field,
                    format!("{} is not a weight", shown(text)),
                    "write an integer from 0 to 100; the weights of one Ingress must sum up to 100",
                );
                valid = false;
            }
        }
    }
    let sum: u32 = weights.values().map(|weight| u32::from(*weight)).sum();
    if valid && !weights.is_empty() && sum != 100 {
        let list: Vec<_> = weights
            .iter()
            .take(8)
            .map(|(id, weight)| format!("{id}={weight}"))
            .collect();
        notes.error(
            alb("cluster-weight.*"),
            format!("the weights {} sum up to {sum}, not 100", list.join(", ")),
            "change them so that they sum up to 100",
        );
    }
    weights
}
