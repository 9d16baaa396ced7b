//! Actions that send to server groups: ForwardGroup and TrafficMirror.

use std::time::Duration;

use serde_json::Value;

use super::{
    super::{json::Node, notes::Notes},
    DraftTarget,
};
use crate::{
    ir::model::{GroupName, WeightedGroup},
    problem::shown,
};

/// "<= 5 groups".
const MOST_GROUPS: usize = 5;
const EXAMPLE: &str =
    r#"write `"ServerGroups": [{"ServiceName": "web", "ServicePort": 80, "Weight": 100}]`"#;
const MIRROR_EXAMPLE: &str = r#"write `{"TargetType": "ForwardGroupMirror", "MirrorGroupConfig": {"ServerGroupTuples": [{"ServiceName": "web", "ServicePort": 80}]}}`"#;

/// `ForwardConfig: {ServerGroups: [...], ServerGroupStickySession: {Enabled, Timeout}}`
pub(super) fn forward(entry: &Node<'_>, notes: &mut Notes) -> Option<DraftTarget> {
    let config = entry.explained(EXAMPLE).object("ForwardConfig", notes)?;
    Some(DraftTarget::Forward {
        groups: groups(&config, "ServerGroups", notes)?,
        sticky: sticky(&config, notes)?,
    })
}

/// `TrafficMirrorConfig: {TargetType: "ForwardGroupMirror", MirrorGroupConfig: {ServerGroupTuples: [...]}}`
pub(super) fn mirror(entry: &Node<'_>, notes: &mut Notes) -> Option<Vec<WeightedGroup>> {
    let config = entry
        .explained(MIRROR_EXAMPLE)
        .object("TrafficMirrorConfig", notes)?;
    let kind = config.string("TargetType", notes)?;
    if !kind.eq_ignore_ascii_case("ForwardGroupMirror") {
        config.wrong(
            "TargetType",
            kind,
            "is not a target of mirrored requests",
            "write `ForwardGroupMirror`",
            notes,
        );
        return None;
    }
    let config = config.object("MirrorGroupConfig", notes)?;
    let groups = groups(&config, "ServerGroupTuples", notes)?;
    let named = |(service, port, weight)| WeightedGroup {
        group: GroupName {
            namespace: notes.object.namespace.clone(),
            ingress: notes.object.name.clone(),
            service,
            port,
        },
        weight,
    };
    Some(groups.into_iter().map(named).collect())
}

/// Service, port and weight of each; "Weight 0-100, required if more than one group, default 100 if single".
fn groups(config: &Node<'_>, key: &str, notes: &mut Notes) -> Option<Vec<(String, String, u32)>> {
    let values = config.array(key, MOST_GROUPS, notes)?;
    let mut groups = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let field = format!("{}[{index}]", config.at(key));
        let Value::Object(group) = value else {
            notes.error(field, "is not a JSON object", config.example);
            return None;
        };
        let group = Node::new(group, field, config.example);
        if group.value("ServerGroupID").is_some() {
            notes.error(
                group.at("ServerGroupID"),
                "names a server group of the cloud, which there is not here",
                "write ServiceName and ServicePort instead",
            );
            return None;
        }
        let service = group.string("ServiceName", notes)?;
        if !dns_label(service, 63) {
            group.wrong(
                "ServiceName",
                service,
                "is not the name of a Service",
                "write the name of a Service of the Ingress's namespace",
                notes,
            );
            return None;
        }
        let port = port(&group, notes)?;
        let weight = match group.number("Weight", 0..=100, notes)? {
            Some(weight) => weight,
            None if values.len() == 1 => 100,
            None => {
                notes.error(
                    group.at("Weight"),
                    "is missing, with more than one group",
                    "write an integer from 0 to 100; weights are relative",
                );
                return None;
            }
        };
        groups.push((service.to_owned(), port, weight));
    }
    Some(groups)
}

/// A number, as the contract says; a name too, as in `spec.rules`.
fn port(group: &Node<'_>, notes: &mut Notes) -> Option<String> {
    let named =
        |name: &str| dns_label(name, 15) && name.contains(|it: char| it.is_ascii_lowercase());
    match group.value("ServicePort") {
        Some(Value::Number(number))
            if number.as_u64().is_some_and(|it| (1..=65535).contains(&it)) =>
        {
            Some(number.to_string())
        }
        Some(Value::String(name)) if named(name) => Some(name.clone()),
        other => {
            let text = other.map_or("nothing".to_owned(), |it| shown(&it.to_string()));
            notes.error(
                group.at("ServicePort"),
                format!("{text} is not a port of a Service"),
                "write a number from 1 to 65535 without quotation marks, or the name of a port",
            );
            None
        }
    }
}

fn dns_label(text: &str, most: usize) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=most).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// "`ServerGroupStickySession {Enabled, Timeout 1-86400, default 1000}`", in seconds.
fn sticky(config: &Node<'_>, notes: &mut Notes) -> Option<Option<Duration>> {
    if config.value("ServerGroupStickySession").is_none() {
        return Some(None);
    }
    let config = config.object("ServerGroupStickySession", notes)?;
    let enabled = config.flag("Enabled", notes)?;
    let seconds = config.number("Timeout", 1..=86_400, notes)?.unwrap_or(1000);
    Some(enabled.then(|| Duration::from_secs(seconds.into())))
}
