//! Roles: what may be asked for, when only what roles allow may be.

use serde_json::{Value, json};

use super::{faults::Faults, journal::Verb, query::Query, refusal::Refusal, resource::Target};

/// Who asks about what.
pub(super) struct Ask<'a> {
    pub(super) user: &'a str,
    pub(super) target: &'a Target,
    pub(super) query: &'a Query,
}

impl Ask<'_> {
    /// The one object that the request is about, by its path or by a field selector.
    fn named(&self) -> Option<&str> {
        let selected = || {
            self.query
                .text("fieldSelector")?
                .strip_prefix("metadata.name=")
        };
        self.target.name.as_deref().or_else(selected)
    }
}

/// 403 if a verb on this resource is forbidden, or not allowed by the roles if there are any.
pub(super) fn authorise(faults: &Faults, ask: &Ask<'_>, verb: Verb) -> Result<(), Refusal> {
    let resource = ask.target.resource;
    let allowed = faults
        .rules
        .as_ref()
        .is_none_or(|rules| rules.allow(ask, verb));
    if allowed && !faults.forbidden.contains(&(verb, resource)) {
        return Ok(());
    }
    let place = match &ask.target.namespace {
        Some(namespace) => format!("in the namespace \"{namespace}\""),
        None => "at the cluster scope".to_owned(),
    };
    let name = match &ask.target.name {
        Some(name) => format!(" \"{name}\""),
        None => String::new(),
    };
    let sub = if ask.target.status { "/status" } else { "" };
    let mut refusal = Refusal::new(
        403,
        "Forbidden",
        format!(
            "{}{name} is forbidden: User \"{}\" cannot {} resource \"{}{sub}\" in API group \"{}\" {place}",
            resource.qualified(),
            ask.user,
            verb.name(),
            resource.plural(),
            resource.traits().group
        ),
    );
    // Absent, not null, when a collection was asked for: clients do not read a null here.
    refusal.details = json!({"group": resource.traits().group, "kind": resource.plural()});
    if let Some(name) = &ask.target.name {
        refusal.details["name"] = json!(name);
    }
    Err(refusal)
}

/// The rules of some Roles and ClusterRoles, bound to everybody.
///
/// Source: <https://kubernetes.io/docs/reference/access-authn-authz/rbac/>.
#[derive(Debug)]
pub(super) struct Rules(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    /// Of the Role; none for a ClusterRole.
    namespace: Option<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
    /// Empty for all.
    names: Vec<String>,
}

impl Rules {
    /// The rules in these objects; those that are not roles have none.
    pub(super) fn of(objects: &[Value]) -> Self {
        let mut rules = Vec::new();
        for object in objects {
            let namespace = match object["kind"].as_str() {
                Some("ClusterRole") => None,
                Some("Role") => object["metadata"]["namespace"].as_str().map(str::to_owned),
                _ => continue,
            };
            for rule in object["rules"].as_array().into_iter().flatten() {
                rules.push(Rule {
                    namespace: namespace.clone(),
                    groups: words(&rule["apiGroups"]),
                    resources: words(&rule["resources"]),
                    verbs: words(&rule["verbs"]),
                    names: words(&rule["resourceNames"]),
                });
            }
        }
        Self(rules)
    }

    fn allow(&self, ask: &Ask<'_>, verb: Verb) -> bool {
        let (target, named) = (ask.target, ask.named());
        let traits = target.resource.traits();
        let resource = match target.status {
            true => format!("{}/status", traits.plural),
            false => traits.plural.to_owned(),
        };
        self.0.iter().any(|rule| {
            has(&rule.verbs, verb.name())
                && has(&rule.groups, traits.group)
                && has(&rule.resources, &resource)
                && (rule.namespace.is_none() || rule.namespace == target.namespace)
                && (rule.names.is_empty()
                    || named.is_some_and(|name| rule.names.iter().any(|have| have == name)))
        })
    }
}

fn words(list: &Value) -> Vec<String> {
    let texts = list
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

fn has(words: &[String], word: &str) -> bool {
    words.iter().any(|have| have == word || have == "*")
}
