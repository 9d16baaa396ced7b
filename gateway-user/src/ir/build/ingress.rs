//! One Ingress on its own: everything that can be said without looking at other objects.

use std::collections::BTreeMap;

use super::{
    annotations, conditions,
    notes::{ALB, Notes, alb},
    patterns,
    ports::{self, Ports},
};
use crate::{
    ir::model::{HeaderMatch, HostPattern, PathPattern, SteeringWish},
    manifest::{ClusterId, HttpPath, Ingress, IngressBackend, IngressRule},
    problem::shown,
};

/// An Ingress that is understood.
#[derive(Clone, Debug)]
pub(super) struct Understood {
    pub(super) ports: Ports,
    /// 1 to 1000; smaller is tried earlier.
    pub(super) order: u16,
    /// The annotation is there.
    pub(super) order_given: bool,
    /// As written, summing up to 100; empty means none were written.
    pub(super) weights: BTreeMap<ClusterId, u8>,
    pub(super) steering: Option<SteeringWish>,
    pub(super) rules: Vec<Draft>,
    pub(super) default: Option<Draft>,
}

/// A rule before its backends are looked up.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) place: String,
    pub(super) hosts: Vec<HostPattern>,
    pub(super) paths: Vec<PathPattern>,
    pub(super) headers: Vec<HeaderMatch>,
    pub(super) service: String,
    pub(super) port: String,
    /// The host is in `spec.tls` and `listen-ports` is absent: HTTPS listeners only (contract section 4.3).
    pub(super) tls_only: bool,
}

/// `None` when a note is an error.
pub(super) fn understand(ingress: &Ingress, notes: &mut Notes) -> Option<Understood> {
    let annotations = &ingress.metadata.annotations;
    let errors = notes.errors();
    annotations::review_ingress(annotations, notes);
    let (order, order_given) = order(annotations, notes);
    let understood = Understood {
        ports: ports::parse(ingress, notes),
        order,
        order_given,
        weights: weights(annotations, notes),
        steering: annotations::steering(annotations, notes),
        rules: Vec::new(),
        default: None,
    };
    let mut drafting = Drafting {
        ingress,
        explicit: understood.ports.explicit,
        conditions: BTreeMap::new(),
        notes,
    };
    let mut rules = Vec::new();
    for (index, rule) in ingress.spec.rules.iter().enumerate() {
        drafting.rule(rule, &format!("spec.rules[{index}]"), &mut rules);
    }
    let default = ingress
        .spec
        .default_backend
        .as_ref()
        .and_then(|backend| drafting.default(backend));
    if ingress.spec.rules.is_empty() && ingress.spec.default_backend.is_none() {
        notes.warning(
            "spec.rules",
            "is empty, so this Ingress serves nothing",
            "add a rule with a path and a backend",
        );
    }
    (notes.errors() == errors).then_some(Understood {
        rules,
        default,
        ..understood
    })
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

struct Drafting<'a> {
    ingress: &'a Ingress,
    explicit: bool,
    /// By Service, so that a bad condition is told once.
    conditions: BTreeMap<String, Vec<HeaderMatch>>,
    notes: &'a mut Notes,
}

impl Drafting<'_> {
    fn rule(&mut self, rule: &IngressRule, place: &str, into: &mut Vec<Draft>) {
        let host = patterns::host(&rule.host, &format!("{place}.host"), self.notes);
        if rule.http.paths.is_empty() {
            self.notes.warning(
                format!("{place}.http.paths"),
                "is empty, so this rule serves nothing",
                "add a path with a backend, or delete the rule",
            );
        }
        let tls_only =
            !self.explicit && ports::tls_hosts(self.ingress).contains(rule.host.as_str());
        for (index, path) in rule.http.paths.iter().enumerate() {
            let place = format!("{place}.http.paths[{index}]");
            if let Some(draft) = self.path(path, place, host.clone().flatten(), tls_only) {
                into.push(draft);
            }
        }
    }

    fn path(
        &mut self,
        path: &HttpPath,
        place: String,
        host: Option<HostPattern>,
        tls_only: bool,
    ) -> Option<Draft> {
        let pattern = patterns::path(
            &path.path,
            path.path_type.as_deref(),
            false,
            &place,
            self.notes,
        );
        let headers = self.conditions(&path.backend);
        let (service, port) = self.backend(&path.backend, &format!("{place}.backend"))?;
        let hosts = host.into_iter().collect();
        Some(Draft {
            hosts,
            paths: vec![pattern?],
            headers,
            service,
            port,
            tls_only,
            place,
        })
    }

    fn default(&mut self, backend: &IngressBackend) -> Option<Draft> {
        let place = "spec.defaultBackend".to_owned();
        let headers = self.conditions(backend);
        let (service, port) = self.backend(backend, &place)?;
        let paths = vec![PathPattern::Prefix(String::new())];
        Some(Draft {
            hosts: Vec::new(),
            paths,
            headers,
            service,
            port,
            tls_only: false,
            place,
        })
    }

    /// Read before the backend is understood: a mistake there must not hide that the rule was restricted.
    fn conditions(&mut self, backend: &IngressBackend) -> Vec<HeaderMatch> {
        match &backend.service {
            Some(service) => self.headers(&service.name),
            None => Vec::new(),
        }
    }

    fn headers(&mut self, service: &str) -> Vec<HeaderMatch> {
        if let Some(known) = self.conditions.get(service) {
            return known.clone();
        }
        let text = self
            .ingress
            .metadata
            .annotations
            .get(&format!("{ALB}conditions.{service}"));
        let headers = text
            .map(|text| self.headers_of(service, text))
            .unwrap_or_default();
        self.conditions.insert(service.to_owned(), headers.clone());
        headers
    }

    fn headers_of(&mut self, service: &str, text: &str) -> Vec<HeaderMatch> {
        let mut conditions = conditions::parse(service, text, self.notes);
        let headers = std::mem::take(&mut conditions.headers);
        if !conditions.covers_everything() {
            self.notes.restriction(
                alb(&format!("conditions.{service}")),
                "has conditions that are not supported yet",
                "use a Header condition, or the host and path of spec.rules",
            );
        }
        headers
    }

    fn backend(&mut self, backend: &IngressBackend, place: &str) -> Option<(String, String)> {
        let Some(service) = backend
            .service
            .as_ref()
            .filter(|service| !service.name.is_empty())
        else {
            self.notes.error(
                format!("{place}.service.name"),
                "names no Service; other backends are not supported",
                "write the name of a Service of this namespace",
            );
            return None;
        };
        let field = format!("{place}.service.port");
        let port = match (&service.port.name, service.port.number) {
            (Some(name), _) if name == "use-annotation" => {
                self.notes.restriction(
                    field,
                    "use-annotation needs `actions`, which are not supported yet",
                    "write the number or the name of a port of the Service",
                );
                return None;
            }
            (None, Some(number @ 1..=65535)) => number.to_string(),
            (Some(name), None) if !name.is_empty() && name.len() <= 63 => name.clone(),
            (Some(_), Some(_)) => {
                self.notes
                    .error(field, "has both a number and a name", "keep one of them");
                return None;
            }
            (None, None) => {
                self.notes.error(
                    field,
                    "is missing",
                    "write `number:` or `name:` of a port of the Service",
                );
                return None;
            }
            (name, number) => {
                let text = name
                    .clone()
                    .or(number.map(|number| number.to_string()))
                    .unwrap_or_default();
                self.notes.error(
                    field,
                    format!("{} is not a port", shown(&text)),
                    "write a number from 1 to 65535, or the name of a port of the Service",
                );
                return None;
            }
        };
        Some((service.name.clone(), port))
    }
}
