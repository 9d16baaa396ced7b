//! Who steers a listener: the kernel once per connection, or the proxy once per request.

use std::sync::Arc;

use super::model::{GroupName, Rule, Steering, SteeringMode, SteeringWish, Target};

/// Who wished for a steering mode.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wisher {
    /// `namespace/name` of an Ingress with the annotation.
    Ingress(String),
    /// The AlbConfig with the annotation.
    Gateway,
    /// The program's default.
    Default,
}

/// The decision for one listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Decision {
    /// Mode and reason.
    pub steering: Steering,
    /// `connection` was asked for by this one and cannot be had; the reason says why.
    pub refused: Option<Wisher>,
}

/// What the decision becomes while no backend is ready: the proxy answers 503, where the kernel could only drop.
pub fn while_empty(group: &GroupName) -> Steering {
    let GroupName {
        namespace,
        service,
        port,
        ..
    } = group;
    Steering {
        mode: SteeringMode::Request,
        reason: format!(
            "no ready backend of {namespace}/{service}:{port}: the proxy answers 503 until there is one"
        ),
    }
}

/// Decides for a listener with these rules; `same` tells whether two groups serve the same pods in the same way, and
/// `proxied` what a group asks for that only the proxy does, such as `keeps sessions by cookie`.
///
/// `each` is what the listener itself does to every request, such as `ends TLS`. Connection steering needs that every
/// request goes to one and the same weighted set of backends whatever it says: some rule covers everything, and it and
/// all rules before it lead to equal groups, with nothing done on the way. Rules after it can never be reached.
pub fn decide(
    rules: &[Arc<Rule>],
    same: impl Fn(&GroupName, &GroupName) -> bool,
    proxied: impl Fn(&GroupName) -> Option<&'static str>,
    each: Option<&str>,
    gateway: Option<SteeringWish>,
    default: SteeringWish,
) -> Decision {
    let (wish, wisher) = wish(rules, gateway, default);
    let by = match &wisher {
        Wisher::Ingress(name) => format!("asked for by Ingress {name}"),
        Wisher::Gateway => "asked for by the AlbConfig".to_owned(),
        Wisher::Default => "asked for by the default of this gateway node".to_owned(),
    };
    let request = |reason: String| Steering {
        mode: SteeringMode::Request,
        reason,
    };
    if rules.is_empty() {
        return Decision {
            steering: request("no rule: the proxy answers 404".to_owned()),
            refused: None,
        };
    }
    if wish == SteeringWish::Request {
        return Decision {
            steering: request(format!("request steering {by}")),
            refused: None,
        };
    }
    match covering(rules, same, proxied, each) {
        Err(reason) => Decision {
            steering: request(reason),
            refused: (wish == SteeringWish::Connection).then_some(wisher),
        },
        Ok((index, group)) => {
            let reason = format!(
                "rule {} ({}) sends every request to {}/{}:{}",
                index + 1,
                rules[index].ingress,
                group.namespace,
                group.service,
                group.port
            );
            Decision {
                steering: Steering {
                    mode: SteeringMode::Connection,
                    reason,
                },
                refused: None,
            }
        }
    }
}

/// An Ingress's wish beats the AlbConfig's, that one the default; among Ingresses `request` beats `connection`.
fn wish(
    rules: &[Arc<Rule>],
    gateway: Option<SteeringWish>,
    default: SteeringWish,
) -> (SteeringWish, Wisher) {
    for wanted in [
        SteeringWish::Request,
        SteeringWish::Connection,
        SteeringWish::Auto,
    ] {
        if let Some(rule) = rules.iter().find(|rule| rule.steering == Some(wanted)) {
            return (wanted, Wisher::Ingress(rule.ingress.to_string()));
        }
    }
    match gateway {
        Some(wanted) => (wanted, Wisher::Gateway),
        None => (default, Wisher::Default),
    }
}

/// The rule that takes every request, and its group; or why the kernel cannot steer, as one sentence.
fn covering<'a>(
    rules: &'a [Arc<Rule>],
    same: impl Fn(&GroupName, &GroupName) -> bool,
    proxied: impl Fn(&GroupName) -> Option<&'static str>,
    each: Option<&str>,
) -> Result<(usize, &'a GroupName), String> {
    if let Some(each) = each {
        return Err(format!("the listener {each}"));
    }
    let mut first: Option<&GroupName> = None;
    for (index, rule) in rules.iter().enumerate() {
        let Some(group) = rule.only_group() else {
            return Err(does(index, rule));
        };
        if first.is_some_and(|first| !same(first, group)) {
            break;
        }
        if let Some(what) = proxied(group) {
            return Err(format!("rule {} ({}) {what}", index + 1, rule.ingress));
        }
        first.get_or_insert(group);
        if rule.conditions.covers_everything() {
            return Ok((index, group));
        }
    }
    Err(reads(0, &rules[0]))
}

fn does(index: usize, rule: &Rule) -> String {
    let what = match (&rule.refused, &rule.target, rule.filters.first()) {
        (Some(refused), ..) => {
            return format!(
                "rule {} ({}) is refused: {refused}",
                index + 1,
                rule.ingress
            );
        }
        (_, Target::Redirect(_), _) => "answers with a redirect",
        (_, Target::Respond(_), _) => "answers by itself",
        (_, Target::Pass, _) => "changes responses",
        (_, Target::Forward(_), Some(_)) => "changes or limits requests",
        (_, Target::Forward(_), None) => "shares requests between Services",
    };
    format!("rule {} ({}) {what}", index + 1, rule.ingress)
}

fn reads(index: usize, rule: &Rule) -> String {
    let what = rule
        .conditions
        .first_read()
        .unwrap_or_else(|| "every request".to_owned());
    format!("rule {} ({}) reads {what}", index + 1, rule.ingress)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::model::{
        Conditions, Direction, Forward, HeaderMatch, PathPattern, WeightedGroup,
    };

    fn group(service: &str) -> GroupName {
        GroupName {
            namespace: "demo".into(),
            ingress: "a".into(),
            service: service.into(),
            port: "80".into(),
        }
    }

    fn rule(path: &str, service: &str) -> Rule {
        Rule {
            ingress: "demo/a".into(),
            place: String::new(),
            direction: Direction::Request,
            conditions: Conditions {
                paths: vec![PathPattern::Prefix(path.into())],
                ..Conditions::default()
            },
            filters: vec![],
            target: Target::Forward(Forward {
                groups: vec![WeightedGroup {
                    group: group(service),
                    weight: 100,
                }],
                sticky: None,
            }),
            steering: None,
            refused: None,
        }
    }

    fn decide(
        rules: &[Rule],
        each: Option<&str>,
        gateway: Option<SteeringWish>,
        default: SteeringWish,
    ) -> Decision {
        let rules: Vec<Arc<Rule>> = rules.iter().cloned().map(Arc::new).collect();
        let cookies = |group: &GroupName| (group.service == "sticky").then_some("keeps sessions");
        super::decide(
            &rules,
            |one, other| one == other,
            cookies,
            each,
            gateway,
            default,
        )
    }

    fn mode(rules: &[Rule]) -> (SteeringMode, String) {
        let decision = decide(rules, None, None, SteeringWish::Auto);
        (decision.steering.mode, decision.steering.reason)
    }

    #[test]
    fn a_listener_without_ready_backends_is_the_proxys_until_there_is_one() {
        let decided = decide(&[rule("", "a")], None, None, SteeringWish::Auto).steering;
        assert_eq!(decided.mode, SteeringMode::Connection);
        let served = while_empty(&group("a"));
        assert_eq!(served.mode, SteeringMode::Request);
        assert!(
            served.reason.contains("no ready backend"),
            "{}",
            served.reason
        );
    }

    #[test]
    fn one_rule_for_everything_is_steered_by_the_kernel() {
        assert_eq!(
            mode(&[rule("", "one"), rule("/late", "two")]),
            (
                SteeringMode::Connection,
                "rule 1 (demo/a) sends every request to demo/one:80".into()
            )
        );
    }

    #[test]
    fn paths_that_lead_to_one_group_do_not_need_the_proxy() {
        assert_eq!(
            mode(&[rule("/api", "one"), rule("", "one")]).0,
            SteeringMode::Connection
        );
        assert_eq!(
            mode(&[rule("/api", "one"), rule("/b", "one")]).0,
            SteeringMode::Request
        );
        assert_eq!(
            mode(&[rule("/api", "one"), rule("", "two")]),
            (
                SteeringMode::Request,
                "rule 1 (demo/a) reads the path /api".into()
            )
        );
    }

    #[test]
    fn a_condition_needs_the_proxy_and_a_refused_wish_names_its_owner() {
        let gray = Rule {
            conditions: Conditions {
                headers: vec![HeaderMatch {
                    name: "stage".into(),
                    values: vec!["gray".into()],
                }],
                ..rule("", "one").conditions
            },
            steering: Some(SteeringWish::Connection),
            ..rule("", "one")
        };
        let decision = decide(
            &[gray, rule("", "two")],
            None,
            Some(SteeringWish::Request),
            SteeringWish::Auto,
        );
        assert_eq!(decision.steering.mode, SteeringMode::Request);
        assert_eq!(
            decision.steering.reason,
            r#"rule 1 (demo/a) reads the header "stage""#
        );
        assert_eq!(decision.refused, Some(Wisher::Ingress("demo/a".into())));
    }

    #[test]
    fn request_beats_connection_among_ingresses_and_any_ingress_beats_the_gateway() {
        let wishing = |wish| Rule {
            steering: Some(wish),
            ..rule("", "one")
        };
        let both = [
            wishing(SteeringWish::Connection),
            wishing(SteeringWish::Request),
        ];
        assert_eq!(mode(&both).0, SteeringMode::Request);
        let auto = decide(
            &[wishing(SteeringWish::Auto)],
            None,
            Some(SteeringWish::Request),
            SteeringWish::Request,
        );
        assert_eq!(auto.steering.mode, SteeringMode::Connection);
    }

    #[test]
    fn what_only_the_proxy_does_for_a_group_needs_the_proxy() {
        let (mode, reason) = mode(&[rule("", "sticky")]);
        assert_eq!(mode, SteeringMode::Request);
        assert_eq!(reason, "rule 1 (demo/a) keeps sessions");
    }

    #[test]
    fn written_headers_and_missing_rules_need_the_proxy() {
        let decision = decide(
            &[rule("", "one")],
            Some("is told to write the header X-Forwarded-Proto of each request"),
            None,
            SteeringWish::Connection,
        );
        assert_eq!(decision.steering.mode, SteeringMode::Request);
        assert_eq!(decision.refused, Some(Wisher::Default));
        assert_eq!(
            mode(&[]),
            (
                SteeringMode::Request,
                "no rule: the proxy answers 404".into()
            )
        );
    }
}
