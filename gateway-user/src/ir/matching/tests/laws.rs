//! Matching equals its definition, written out with lists and recursion.

use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::ir::model::{Network, Regex};

fn naive_glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=text.len()).any(|taken| naive_glob(rest, &text[taken..])),
        (Some((b'?', rest)), Some((_, text))) => naive_glob(rest, text),
        (Some((wanted, rest)), Some((byte, text))) => wanted == byte && naive_glob(rest, text),
        _ => false,
    }
}

/// `*` and `?` as an expression; the text must hold nothing else that an expression reads.
fn expression(pattern: &str) -> Regex {
    let text = pattern
        .replace('.', "[.]")
        .replace('*', ".*")
        .replace('?', ".");
    Regex::new(&format!("^{text}$"), true).unwrap()
}

fn naive_decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let escape = text
            .get(at + 1..at + 3)
            .filter(|it| it.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match (bytes[at], escape) {
            (b'%', Some(hex)) => {
                out.push(u8::from_str_radix(hex, 16).unwrap());
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

fn naive_host(pattern: &HostPattern, host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let host = host.split(':').next().unwrap();
    match pattern {
        HostPattern::Exact(it) => it == host,
        HostPattern::OneLabel(suffix) => {
            let labels: Vec<_> = host.split('.').collect();
            let rest = labels[1..].join(".");
            !labels[0].is_empty() && labels.len() > 1 && format!(".{rest}") == *suffix
        }
        HostPattern::Glob(it) => naive_glob(it.as_bytes(), host.as_bytes()),
        HostPattern::Regex(it) => {
            let pattern = it.text.trim_start_matches('^').trim_end_matches('$');
            let pattern = pattern.replace(".*", "*").replace("[.]", "\n");
            let pattern = pattern.replace('.', "?").replace('\n', ".");
            naive_glob(pattern.as_bytes(), host.as_bytes())
        }
    }
}

fn naive_path(pattern: &PathPattern, path: &str) -> bool {
    let elements = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    match pattern {
        PathPattern::Exact(it) => it == path,
        PathPattern::Prefix(it) => it.is_empty() || elements(path).starts_with(&elements(it)),
        PathPattern::Glob(it) => naive_glob(it.as_bytes(), path.as_bytes()),
        PathPattern::Regex(it) => path.contains(&it.text),
    }
}

fn pairs_of(text: &str, between: char) -> Vec<(String, String)> {
    let pairs = text.split(between).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

fn naive_pairs(blocks: &[Vec<PairMatch>], there: &[(Vec<u8>, Vec<u8>)]) -> bool {
    blocks.iter().all(|block| {
        let found = |wanted: &PairMatch| {
            there.iter().any(|(key, value)| {
                naive_glob(wanted.key.as_bytes(), key) && naive_glob(wanted.value.as_bytes(), value)
            })
        };
        block.is_empty() || block.iter().any(found)
    })
}

fn naive(conditions: &Conditions, request: &Sample) -> bool {
    let lines = |name: &str| -> Vec<&str> {
        let of_name = request.headers.iter().filter(|line| line.0 == name);
        of_name.map(|line| line.1.as_str()).collect()
    };
    let query: Vec<_> = pairs_of(request.query.as_deref().unwrap_or_default(), '&')
        .iter()
        .map(|(key, value)| (naive_decoded(key), naive_decoded(value)))
        .collect();
    let cookies: Vec<_> = lines("cookie")
        .iter()
        .flat_map(|line| line.split(';'))
        .filter(|pair| pair.contains('='))
        .flat_map(|pair| pairs_of(pair, ';'))
        .map(|(key, value)| (key.trim().into(), value.trim().into()))
        .collect();
    let mut blocks = vec![
        naive_pairs(&conditions.queries, &query),
        naive_pairs(&conditions.cookies, &cookies),
    ];
    if !conditions.hosts.is_empty() {
        let host = request.host.as_ref();
        blocks.push(host.is_some_and(|it| conditions.hosts.iter().any(|p| naive_host(p, it))));
    }
    if !conditions.paths.is_empty() {
        blocks.push(
            conditions
                .paths
                .iter()
                .any(|p| naive_path(p, &request.path)),
        );
    }
    if !conditions.methods.is_empty() {
        blocks.push(conditions.methods.contains(&request.method));
    }
    if !conditions.sources.is_empty() {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(it) => format!("4{:032b}", u32::from(it)),
            IpAddr::V6(it) => format!("6{:0128b}", u128::from(it)),
        };
        let within = |net: &Network, source: IpAddr| {
            let length = 1 + usize::from(net.prefix());
            bits(net.address())[..length] == bits(source.to_canonical())[..length]
        };
        let source = request.source;
        blocks.push(source.is_some_and(|it| conditions.sources.iter().any(|n| within(n, it))));
    }
    for wanted in &conditions.headers {
        blocks.push(lines(&wanted.name).iter().any(|line| {
            let mut values = wanted.values.iter();
            values.any(|value| naive_glob(value.as_bytes(), line.as_bytes()))
        }));
    }
    !blocks.contains(&false)
}

fn host_patterns() -> impl Strategy<Value = HostPattern> {
    prop_oneof![
        "[ab]{1,2}\\.[ab]".prop_map(HostPattern::Exact),
        "\\.[ab]\\.?[ab]?".prop_map(HostPattern::OneLabel),
        "[ab*?]{1,3}\\.[ab*]".prop_map(HostPattern::Glob),
        "[ab*?]{1,3}\\.[ab*]".prop_map(|it| HostPattern::Regex(expression(&it))),
    ]
}

fn path_patterns() -> impl Strategy<Value = PathPattern> {
    prop_oneof![
        "/[ab]{0,2}".prop_map(PathPattern::Exact),
        "(/[ab]){0,2}".prop_map(PathPattern::Prefix),
        "/[ab*?/]{0,3}".prop_map(PathPattern::Glob),
        "/?[ab]".prop_map(|it| PathPattern::Regex(Regex::new(&it, false).unwrap())),
    ]
}

fn pair_blocks() -> impl Strategy<Value = Vec<Vec<PairMatch>>> {
    let pairs = ("[ab*?]{1,2}", "[ab*?]{1,2}").prop_map(|(key, value)| PairMatch { key, value });
    vec(vec(pairs, 0..3), 0..2)
}

prop_compose! {
    fn all_conditions()(
        hosts in vec(host_patterns(), 0..3),
        paths in vec(path_patterns(), 0..3),
        methods in vec("GET|PUT", 0..2),
        sources in vec((any::<u32>(), 0..4_u8).prop_map(|(it, p)| Network::new(it.to_be_bytes().into(), p).unwrap()), 0..3),
        headers in vec(("x|y", vec("[ab*?]{1,2}", 1..3)), 0..2),
        queries in pair_blocks(),
        cookies in pair_blocks(),
    ) -> Conditions {
        let headers = headers.into_iter().map(|(name, values)| HeaderMatch { name, values }).collect();
        Conditions { hosts, paths, methods, sources, headers, queries, cookies, ..Conditions::default() }
    }
}

prop_compose! {
    fn requests()(
        host in option::weighted(0.9, "[abAB]{0,2}(\\.[abAB]){0,2}(:80)?"),
        method in "GET|PUT|get",
        path in "(/[ab]{0,2}){1,3}",
        query in option::weighted(0.9, "([ab]|%6[12]|%|=|&){0,6}"),
        source in option::weighted(0.9, prop_oneof![
            any::<u32>().prop_map(|it| IpAddr::from(it.to_be_bytes())),
            any::<u32>().prop_map(|it| IpAddr::from(std::net::Ipv4Addr::from(it).to_ipv6_mapped())),
            any::<u128>().prop_map(|it| IpAddr::from(it.to_be_bytes())),
        ]),
        headers in vec(prop_oneof![("x|y", "[ab]{0,2}"), ("cookie", "([ab=; ]|a=b){0,6}")], 0..4),
    ) -> Sample {
        Sample { host, method, path, query, source, headers }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn glob_equals_its_definition(pattern in "[ab*?]{0,8}", text in "[abc]{0,10}") {
        prop_assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), naive_glob(pattern.as_bytes(), text.as_bytes()));
    }

    #[test]
    fn conditions_equal_their_definition(all in all_conditions(), request in requests()) {
        prop_assert_eq!(all.matches(&request), naive(&all, &request));
        // Few requests meet all blocks; each block alone tells more.
        let none = Conditions::default();
        for one in [
            Conditions { hosts: all.hosts.clone(), ..none.clone() },
            Conditions { paths: all.paths.clone(), ..none.clone() },
            Conditions { methods: all.methods.clone(), ..none.clone() },
            Conditions { sources: all.sources.clone(), ..none.clone() },
            Conditions { headers: all.headers.clone(), ..none.clone() },
            Conditions { queries: all.queries.clone(), ..none.clone() },
            Conditions { cookies: all.cookies.clone(), ..none.clone() },
        ] {
            prop_assert_eq!(one.matches(&request), naive(&one, &request), "{:?}", one);
            prop_assert!(one.matches(&request) || !one.covers_everything());
        }
    }

    #[test]
    fn what_covers_everything_is_met_by_every_request(all in all_conditions(), request in requests()) {
        let paths_only = Conditions { paths: all.paths.clone(), ..Conditions::default() };
        let root = PathPattern::Prefix(String::new());
        prop_assert_eq!(paths_only.covers_everything(), all.paths.is_empty() || all.paths.contains(&root));
        prop_assert!(!all.covers_everything() || all.matches(&request));
    }

    #[test]
    fn any_request_is_read_without_panic(
        all in all_conditions(),
        host in option::of(".{0,20}"), path in ".{0,20}", query in option::of(".{0,40}"), cookie in ".{0,40}",
    ) {
        let headers = vec![("cookie".to_owned(), cookie)];
        let request = Sample { host, path, query, headers, ..Sample::default() };
        all.matches(&request);
    }
}
