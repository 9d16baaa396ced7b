//! The index equals the walk over all rules.

use std::cell::Cell;

use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::ir::{
    matching::PlainRequest,
    model::{
        GroupName, HeaderMatch, Listener, ListenerName, ListenerProtocol, Regex, Steering,
        SteeringMode,
    },
};

fn listener(rules: Vec<Arc<Rule>>) -> Listener {
    Listener {
        name: ListenerName {
            gateway: "a".into(),
            port: 80,
            protocol: ListenerProtocol::Http,
        },
        addresses: Vec::new(),
        settings: Arc::default(),
        refused: None,
        rules,
        passthrough: Vec::new(),
        steering: Steering {
            mode: SteeringMode::Request,
            reason: String::new(),
        },
    }
}

fn rule(conditions: Conditions) -> Rule {
    Rule {
        conditions,
        ..Rule::forwarding(GroupName::default(), "")
    }
}

fn asking(host: HostPattern, path: PathPattern) -> Arc<Rule> {
    Arc::new(rule(Conditions {
        hosts: vec![host],
        paths: vec![path],
        ..Conditions::default()
    }))
}

fn host_patterns() -> impl Strategy<Value = HostPattern> {
    prop_oneof![
        4 => "[ab](\\.[ab]){0,2}".prop_map(HostPattern::Exact),
        1 => "[aAB]\\.[aA]".prop_map(HostPattern::Exact),
        3 => "(\\.[ab]){1,4}|[ab]|".prop_map(HostPattern::OneLabel),
        3 => "[a*?]{0,2}(\\.[a*?]{1,2}){0,2}(\\.[ab]){0,4}".prop_map(HostPattern::Glob),
        1 => "(\\^)?[ab](\\.b)?".prop_map(|it| HostPattern::Regex(Regex::new(&it, true).unwrap())),
        1 => (250..260_usize).prop_map(|len| HostPattern::Exact("a".repeat(len))),
        1 => (250..260_usize).prop_map(|len| HostPattern::OneLabel(format!(".{}", "a".repeat(len - 1)))),
        1 => (250..260_usize).prop_map(|len| HostPattern::Glob(format!("*.{}", "a".repeat(len - 1)))),
    ]
}

fn path_patterns() -> impl Strategy<Value = PathPattern> {
    prop_oneof![
        3 => "(/[ab]{0,2}){1,3}".prop_map(PathPattern::Exact),
        5 => "(/a){0,9}|(/[ab]{0,2}){0,3}|a".prop_map(PathPattern::Prefix),
        3 => "(/[ab]{0,1}){0,4}/?[ab*?/]{0,3}|a\\*".prop_map(PathPattern::Glob),
        1 => "/?[ab]/?".prop_map(|it| PathPattern::Regex(Regex::new(&it, false).unwrap())),
        1 => (60..70_usize).prop_map(|len| PathPattern::Prefix(format!("/{}", "a".repeat(len - 1)))),
    ]
}

prop_compose! {
    fn rules()(
        hosts in prop_oneof![1 => Just(Vec::new()), 3 => vec(host_patterns(), 1..4)],
        paths in prop_oneof![1 => Just(Vec::new()), 3 => vec(path_patterns(), 1..4)],
        methods in vec("GET|PUT", 0..2),
        header in option::weighted(0.3, "[ab*?]{1,2}"),
        direction in prop_oneof![4 => Just(Direction::Request), 1 => Just(Direction::Response)],
        refused in option::of(Just(String::new())),
    ) -> Arc<Rule> {
        let headers = header.map(|value| HeaderMatch { name: "x".into(), values: vec![value] });
        let headers = headers.into_iter().collect();
        let conditions = Conditions { hosts, paths, methods, headers, ..Conditions::default() };
        Arc::new(Rule { direction, refused, ..rule(conditions) })
    }
}

fn hosts() -> impl Strategy<Value = Option<String>> {
    option::weighted(
        0.95,
        prop_oneof![
            6 => "[abA](\\.[abA]){0,3}(:80|\\.)?",
            2 => "[abA]?(\\.[aA]?){0,5}",
            1 => "(x{2}\\.)?[aA]{250,260}",
            1 => "[xX]{300}(\\.[ab]){1,3}",
            1 => "\\PC{0,6}",
        ],
    )
}

fn paths() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "(/[ab]{0,2}){1,3}",
        3 => "(/a){1,10}/?",
        1 => "/a{60,70}(/b)?",
        1 => "/{0,12}",
        1 => "\\PC{0,6}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_index_equals_the_walk_over_all_rules(
        rules in vec(rules(), 0..24),
        requests in vec((hosts(), paths(), "GET|PUT", option::of("[ab]{1,2}")), 8),
    ) {
        let listener = listener(rules);
        let rules = &listener.rules;
        let index = RuleIndex::build(rules);
        for (host, path, method, header) in &requests {
            let headers: Vec<_> = header.iter().map(|value| ("x".to_owned(), value.clone())).collect();
            let request = PlainRequest { host: host.as_deref(), path, method, headers: &headers, ..PlainRequest::default() };
            prop_assert_eq!(index.first_match(rules, &request), listener.first_match(&request), "{:?}", request);
            let refused = index.refused_response(rules, &request).map(|at| &*rules[at]);
            prop_assert_eq!(refused, listener.refused_response(&request), "{:?}", request);
        }
        let is_response = |at: &usize| rules[*at].direction == Direction::Response;
        let responses: Vec<_> = (0..rules.len()).filter(is_response).collect();
        prop_assert_eq!(index.responses(), responses);
    }

    #[test]
    fn the_lowest_number_that_holds_wins(
        mut lists in vec(vec(0..64_usize, 0..6), 0..40),
        holding in vec(0..64_usize, 0..6),
    ) {
        lists.iter_mut().for_each(|list| list.sort_unstable());
        let mut race = Race::new(|number| holding.contains(&number));
        lists.iter().for_each(|list| race.enter(Some(list)));
        let wanted = lists.iter().flatten().filter(|number| holding.contains(number)).min();
        prop_assert_eq!(race.first(), wanted.copied());
    }
}

/// `many` tenants with three paths each, then a rule for all.
fn fleet(many: usize) -> Listener {
    let tenant = |at: usize| {
        let host = match (at / 3) % 3 {
            0 => HostPattern::Exact(format!("shop-{}.example.com", at / 3)),
            1 => HostPattern::OneLabel(format!(".shop-{}.example.com", at / 3)),
            _ => HostPattern::Glob(format!("*.shop-{}.example.com", at / 3)),
        };
        let path = match at % 3 {
            0 => PathPattern::Exact("/api/v1/health".to_owned()),
            1 => PathPattern::Glob("/api/v1/*".to_owned()),
            _ => PathPattern::Prefix("/static".to_owned()),
        };
        asking(host, path)
    };
    let mut rules: Vec<_> = (1..many).map(tenant).collect();
    rules.push(Arc::new(rule(Conditions::default())));
    listener(rules)
}

#[test]
fn a_request_asks_few_of_many_rules() {
    let listener = fleet(3_000);
    // The one before the last has a host; the last takes all.
    for (host, path) in [
        ("shop-999.example.com", "/api/v1/health"),
        ("www.shop-998.example.com", "/static/a"),
        ("www.shop-997.EXAMPLE.com:80", "/api/v1/carts/1"),
        ("other.example.org", "/static"),
    ] {
        let plain = PlainRequest {
            host: Some(host),
            path,
            method: "GET",
            ..PlainRequest::default()
        };
        let index = RuleIndex::build(&listener.rules);
        let asked = Cell::new(0);
        let found = {
            let mut race = Race::new(|at| {
                asked.set(asked.get() + 1);
                meets(&listener.rules, at, &plain)
            });
            index.enter(&plain, &mut race);
            race.first()
        };
        assert_eq!(found, listener.first_match(&plain), "{host}{path}");
        assert!(asked.get() <= 2, "{host}{path}: {}", asked.get());
    }
}
