//! The rules of one Ingress: conditions, actions and targets of each path.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    actions::{self, Actions, DraftTarget},
    annotations,
    canary::Canary,
    conditions,
    ingress::{Draft, Understood},
    notes::{ALB, BACKEND_PROXY, Notes, alb, annotation},
    passthrough, patterns,
    ports::{self, Ports},
    traffic,
};
use crate::{
    ir::model::{
        Conditions, Cors, Direction, Filter, Forward, GroupName, HeaderMatch, HostPattern,
        ListenerProtocol, PairMatch, PathPattern, Redirect, Rule, SteeringWish, Target,
        TrafficLimit, WeightedGroup,
    },
    manifest::{HttpPath, Ingress, IngressBackend, IngressRule},
    problem::shown,
};

/// Backend port that leaves the target to the annotation `actions.<svc>`.
const USE_ANNOTATION: &str = "use-annotation";

/// What is known of an Ingress while its rules are read.
pub(super) struct Drafting<'a> {
    ingress: &'a Ingress,
    notes: &'a mut Notes,
    steering: Option<SteeringWish>,
    ports: Ports,
    ssl_redirect: bool,
    canary: Option<Canary>,
    limit: Option<TrafficLimit>,
    cors: Option<Cors>,
    rewrite: Option<traffic::RewriteTarget>,
    use_regex: bool,
    passthrough: bool,
    proxy_header: bool,
    /// By Service, so that a bad annotation is told once.
    known: BTreeMap<String, Known>,
}

#[derive(Clone, Default)]
struct Known {
    direction: Direction,
    conditions: Conditions,
    actions: Actions,
}

/// Where a backend leads.
enum Backend {
    Group(GroupName),
    /// To what the actions of this name say.
    Annotation,
}

impl<'a> Drafting<'a> {
    pub(super) fn new(ingress: &'a Ingress, understood: &Understood, notes: &'a mut Notes) -> Self {
        let annotations = &ingress.metadata.annotations;
        Self {
            steering: annotations::steering(annotations, notes),
            ports: understood.ports.clone(),
            ssl_redirect: understood.ssl_redirect,
            canary: understood.canary.clone(),
            limit: traffic::limit(annotations, notes),
            cors: traffic::cors(annotations, notes),
            rewrite: traffic::rewrite_target(annotations, notes),
            use_regex: traffic::use_regex(annotations),
            passthrough: passthrough::asked(annotations),
            proxy_header: understood.policy.proxy_header,
            known: BTreeMap::new(),
            ingress,
            notes,
        }
    }

    pub(super) fn rule(&mut self, rule: &IngressRule, place: &str, into: &mut Vec<Draft>) {
        let host = patterns::host(&rule.host, &format!("{place}.host"), self.notes);
        if rule.http.paths.is_empty() {
            self.notes.warning(
                format!("{place}.http.paths"),
                "is empty, so this rule serves nothing",
                "add a path with a backend, or delete the rule",
            );
        }
        for (index, path) in rule.http.paths.iter().enumerate() {
            let place = format!("{place}.http.paths[{index}]");
            if let Some(draft) = self.path(path, place, &rule.host, host.clone().flatten()) {
                into.push(draft);
            }
        }
    }

    fn path(
        &mut self,
        path: &HttpPath,
        place: String,
        written_host: &str,
        host: Option<HostPattern>,
    ) -> Option<Draft> {
        // A target with a mistake counts, too: the path is not mistaken for one with wildcards.
        let written = annotations::get(&self.ingress.metadata.annotations, "rewrite-target");
        let is_regex = self.use_regex
            || match &self.rewrite {
                Some(target) => target.makes_regex(&path.path),
                None => written.is_some(),
            };
        let pattern = patterns::path(
            &path.path,
            path.path_type.as_deref(),
            is_regex,
            &place,
            self.notes,
        );
        let known = self.known(&path.backend);
        let backend = self.backend(&path.backend, &format!("{place}.backend"))?;
        let pattern = pattern?;
        let mut conditions = known.conditions.clone();
        conditions::widen(&mut conditions, host, pattern.clone());
        let key = (written_host.to_owned(), path.path.clone());
        self.draft(place, key, known, conditions, Some(&pattern), backend)
    }

    pub(super) fn default(&mut self, backend: &IngressBackend) -> Option<Draft> {
        let place = "spec.defaultBackend".to_owned();
        let known = self.known(backend);
        let backend = self.backend(backend, &place)?;
        let mut conditions = known.conditions.clone();
        let pattern = PathPattern::Prefix(String::new());
        conditions::widen(&mut conditions, None, pattern.clone());
        let key = (String::new(), String::new());
        self.draft(place, key, known, conditions, Some(&pattern), backend)
    }

    fn draft(
        &mut self,
        place: String,
        key: (String, String),
        known: Known,
        mut conditions: Conditions,
        path: Option<&PathPattern>,
        backend: Backend,
    ) -> Option<Draft> {
        let target = self.target(&known, backend, &place)?;
        if let Some(canary) = &self.canary {
            narrow(canary, &mut conditions);
        }
        let mut filters = Vec::new();
        if known.direction == Direction::Request {
            self.annotated(&mut filters);
        }
        filters.extend(known.actions.filters.iter().cloned());
        let copies = |filter: &Filter| matches!(filter, Filter::Mirror(_));
        if self.proxy_header && filters.iter().any(copies) {
            self.notes.error(
                annotation(BACKEND_PROXY),
                "names the client of a connection, and the action TrafficMirror sends copies that have none",
                "remove one of them",
            );
        }
        // "TrafficLimit first", whatever asked for it.
        filters.sort_by_key(|filter| !matches!(filter, Filter::TrafficLimit(_)));
        if let (Some(rewrite), Some(path)) = (self.rewrite.clone(), path)
            && known.direction == Direction::Request
            && matches!(target, Target::Forward(_))
        {
            filters.push(rewrite.filter(path, self.notes)?);
        }
        let meta = &self.ingress.metadata;
        let rule = Rule {
            ingress: format!("{}/{}", meta.namespace, meta.name).into(),
            place,
            direction: known.direction,
            conditions,
            filters,
            target,
            steering: self.steering,
            refused: None,
        };
        let redirected = (self.ssl_redirect && rule.direction == Direction::Request)
            .then(|| Arc::new(to_https(&rule)));
        let explicit = self.ports.explicit;
        let serves =
            |protocol| ports::serves(&key.0, self.ingress, protocol, explicit, self.ssl_redirect);
        Some(Draft {
            plain: self.passthrough || serves(ListenerProtocol::Http),
            secured: self.passthrough || serves(ListenerProtocol::Https),
            passthrough: self.passthrough,
            rule: Arc::new(rule),
            redirected,
            key,
        })
    }

    /// Filters that annotations of the whole Ingress ask for, in the order of execution: limit, CORS.
    fn annotated(&self, filters: &mut Vec<Filter>) {
        if let Some(limit) = self.limit {
            filters.push(Filter::TrafficLimit(limit));
        }
        if let Some(cors) = &self.cors {
            filters.push(Filter::Cors(cors.clone()));
        }
    }

    fn target(&mut self, known: &Known, backend: Backend, place: &str) -> Option<Target> {
        let field = format!("{place}.backend.service.port");
        let meta = &self.ingress.metadata;
        let group = |(service, port, weight): &(String, String, u32)| WeightedGroup {
            group: GroupName {
                namespace: meta.namespace.clone(),
                ingress: meta.name.clone(),
                service: service.clone(),
                port: port.clone(),
            },
            weight: *weight,
        };
        let written = known.actions.target.as_ref();
        match (written, backend) {
            (Some(_), Backend::Group(_)) => {
                self.notes.error(
                    field,
                    "names a backend, and `actions` has a final action: a rule has one",
                    "write `name: use-annotation` as the port, or take the final action out",
                );
                None
            }
            (None, Backend::Group(group)) if known.direction == Direction::Response => {
                self.notes.error(
                    field,
                    format!(
                        "a rule for responses forwards nothing, but names {}",
                        shown(&group.service)
                    ),
                    "write `name: use-annotation` as the port",
                );
                None
            }
            (None, Backend::Group(group)) => Some(Target::Forward(Forward {
                groups: vec![WeightedGroup { group, weight: 100 }],
                sticky: None,
            })),
            (None, Backend::Annotation) if known.direction == Direction::Response => {
                Some(Target::Pass)
            }
            (None, Backend::Annotation) => {
                self.notes.error(
                    field,
                    "is use-annotation, but `actions` has no final action",
                    "add ForwardGroup, Redirect or FixedResponse, or write a port of the Service",
                );
                None
            }
            (Some(DraftTarget::Forward { groups, sticky }), Backend::Annotation) => {
                if self.canary.as_ref().is_some_and(|it| it.weight.is_some()) {
                    self.notes.error(
                        field,
                        "canary-weight and the action ForwardGroup both share traffic",
                        "keep one of them",
                    );
                    return None;
                }
                Some(Target::Forward(Forward {
                    groups: groups.iter().map(group).collect(),
                    sticky: *sticky,
                }))
            }
            (Some(DraftTarget::Redirect(redirect)), Backend::Annotation) => {
                Some(Target::Redirect(redirect.clone()))
            }
            (Some(DraftTarget::Respond(response)), Backend::Annotation) => {
                Some(Target::Respond(response.clone()))
            }
        }
    }

    /// What annotations say of a Service. Read before the backend is understood: a mistake there must not hide that the
    /// rule was restricted.
    fn known(&mut self, backend: &IngressBackend) -> Known {
        let Some(service) = &backend.service else {
            return Known::default();
        };
        let service = service.name.as_str();
        if let Some(known) = self.known.get(service) {
            return known.clone();
        }
        let annotations = &self.ingress.metadata.annotations;
        let text = |kind: &str| annotations.get(&format!("{ALB}{kind}.{service}"));
        let direction = actions::direction(service, annotations, self.notes);
        let conditions = text("conditions")
            .map(|text| conditions::parse(service, text, self.notes))
            .unwrap_or_default();
        conditions::check_direction(service, &conditions, direction, self.notes);
        let actions = text("actions")
            .map(|text| actions::parse(service, text, direction, self.notes))
            .unwrap_or_default();
        let limits = |filter: &Filter| matches!(filter, Filter::TrafficLimit(_));
        if self.limit.is_some() && actions.filters.iter().any(limits) {
            self.notes.error(
                alb(&format!("actions.{service}")),
                "limits requests, and so does the annotation traffic-limit-qps or traffic-limit-ip-qps",
                "keep one of them",
            );
        }
        let known = Known {
            direction,
            conditions,
            actions,
        };
        self.known.insert(service.to_owned(), known.clone());
        known
    }

    fn backend(&mut self, backend: &IngressBackend, place: &str) -> Option<Backend> {
        let valid = |name: &str| {
            (1..=63).contains(&name.len())
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let Some(service) = backend.service.as_ref().filter(|it| !it.name.is_empty()) else {
            self.notes.error(
                format!("{place}.service.name"),
                "names no Service; other backends are not supported",
                "write the name of a Service of this namespace",
            );
            return None;
        };
        let field = format!("{place}.service.port");
        let port = match (&service.port.name, service.port.number) {
            (Some(name), None) if name == USE_ANNOTATION => {
                return Some(Backend::Annotation);
            }
            (Some(_), Some(_)) => {
                self.notes
                    .error(field, "has both a number and a name", "keep one of them");
                return None;
            }
            (None, Some(number @ 1..=65535)) => number.to_string(),
            (Some(name), None) if valid(name) => name.clone(),
            (None, None) => {
                self.notes.error(
                    field,
                    "is missing",
                    "write `number:` or `name:` of a port of the Service",
                );
                return None;
            }
            (name, number) => {
                let number = number.map(|number| number.to_string());
                let text = name.clone().or(number).unwrap_or_default();
                self.notes.error(
                    field,
                    format!("{} is not a port", shown(&text)),
                    "write a number from 1 to 65535, or the name of a port of the Service",
                );
                return None;
            }
        };
        if !valid(&service.name) {
            self.notes.error(
                format!("{place}.service.name"),
                format!("{} cannot be a Service", shown(&service.name)),
                "write the name of a Service of this namespace",
            );
            return None;
        }
        let meta = &self.ingress.metadata;
        Some(Backend::Group(GroupName {
            namespace: meta.namespace.clone(),
            ingress: meta.name.clone(),
            service: service.name.clone(),
            port,
        }))
    }
}

/// "Header/cookie canaries make their own rule with an extra condition." A header without a value: that it is there.
fn narrow(canary: &Canary, conditions: &mut Conditions) {
    if let Some((name, value)) = &canary.header {
        conditions.headers.push(HeaderMatch {
            name: name.clone(),
            values: vec![value.clone().unwrap_or_else(|| "*".to_owned())],
        });
    }
    if let Some(cookie) = &canary.cookie {
        conditions.cookies.push(vec![PairMatch {
            key: cookie.clone(),
            value: "always".to_owned(),
        }]);
    }
}

/// "InsertHeader / RemoveHeader / TrafficLimit / Cors actions (kept), then Redirect."
fn to_https(rule: &Rule) -> Rule {
    let kept = |filter: &&Filter| !matches!(filter, Filter::Rewrite(_) | Filter::Mirror(_));
    let filters: Vec<Filter> = rule.filters.iter().filter(kept).cloned().collect();
    let target = Target::Redirect(Redirect::to_https());
    Rule {
        filters,
        target,
        ..rule.clone()
    }
}
