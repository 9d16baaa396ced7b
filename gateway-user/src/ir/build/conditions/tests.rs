use std::time::{Duration, Instant};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::ir::model::{HeaderMatch, PairMatch, Regex};

fn read(text: &str) -> (Conditions, Vec<String>) {
    let mut notes = Notes::on("Ingress", "demo", "a");
    let conditions = parse("svc", text, &mut notes);
    let problems = notes.problems.iter().map(ToString::to_string).collect();
    (conditions, problems)
}

fn good(text: &str) -> Conditions {
    let (conditions, problems) = read(text);
    assert_eq!(problems, [""; 0], "{text}");
    conditions
}

fn pair(key: &str, value: &str) -> PairMatch {
    PairMatch {
        key: key.into(),
        value: value.into(),
    }
}

#[test]
fn every_type_is_read() {
    let read = good(
        r#"[
        {"type":"Host","hostConfig":{"values":["a.com","*.B.com"]}},
        {"type":"Path","pathConfig":{"values":["/a","~*/b"]}},
        {"type":"Method","methodConfig":{"values":["GET"]}},
        {"type":"SourceIp","sourceIpConfig":{"values":["10.0.0.0/8"]}},
        {"type":"Header","headerConfig":{"key":"Stage","values":["gray"]}},
        {"type":"QueryString","queryStringConfig":{"values":[{"key":"a","value":"b*"}]}},
        {"type":"Cookie","cookieConfig":{"values":[{"key":"c","value":"d"}]}}
        ]"#,
    );
    let wanted = Conditions {
        hosts: vec![
            HostPattern::Exact("a.com".into()),
            HostPattern::Glob("*.b.com".into()),
        ],
        paths: vec![
            PathPattern::Exact("/a".into()),
            PathPattern::Regex(Regex::new("/b", true).unwrap()),
        ],
        methods: vec!["GET".into()],
        sources: vec!["10.0.0.0/8".parse().unwrap()],
        headers: vec![HeaderMatch {
            name: "stage".into(),
            values: vec!["gray".into()],
        }],
        queries: vec![vec![pair("a", "b*")]],
        cookies: vec![vec![pair("c", "d")]],
        ..Conditions::default()
    };
    assert_eq!(read, wanted);
    let read = good(
        r#"[{"type":"ResponseHeader","responseHeaderConfig":{"key":"Server","values":["x"]}},
            {"type":"ResponseStatusCode","responseStatusCodeConfig":{"values":["400","503"]}}]"#,
    );
    assert_eq!(read.response_headers[0].name, "server");
    assert_eq!(read.response_statuses, [400, 503]);
}

#[test]
fn keys_and_types_are_read_without_regard_to_case_and_unknown_keys_are_ignored() {
    let read = good(
        r#"[{"TYPE":"hEADER","more":{},"HeaderCONFIG":{"Key":"Stage","VALUES":["gray","g*"],"x":1}}]"#,
    );
    assert_eq!(read.headers[0].values, ["gray", "g*"]);
}

#[test]
fn blocks_of_one_type_are_merged_or_stay_separate_as_the_contract_says() {
    let read = good(
        r#"[{"type":"Method","methodConfig":{"values":["GET"]}},
            {"type":"Cookie","cookieConfig":{"values":[{"key":"a","value":"1"},{"key":"a","value":"2"}]}},
            {"type":"Header","headerConfig":{"key":"a","values":["1"]}},
            {"type":"Method","methodConfig":{"values":["PUT"]}},
            {"type":"Cookie","cookieConfig":{"values":[{"key":"b","value":"1"}]}},
            {"type":"Header","headerConfig":{"key":"a","values":["2"]}}]"#,
    );
    assert_eq!(read.methods, ["GET", "PUT"]);
    assert_eq!((read.cookies.len(), read.cookies[0].len()), (2, 2));
    assert_eq!(read.headers.len(), 2);
}

#[test]
fn what_is_not_understood_is_one_error_that_names_its_place() {
    let eleven = r#"["1","2","3","4","5","6","7","8","9","10","11"]"#;
    let six = r#"["1.1.1.1","1.1.1.2","1.1.1.3","1.1.1.4","1.1.1.5","1.1.1.6"]"#;
    let header = |key: &str, values: &str| {
        format!(r#"[{{"type":"Header","headerConfig":{{"key":"{key}","values":{values}}}}}]"#)
    };
    let of = |kind: &str, values: &str| {
        let config = format!("{}{}Config", kind[..1].to_lowercase(), &kind[1..]);
        format!(r#"[{{"type":"{kind}","{config}":{{"values":[{values}]}}}}]"#)
    };
    let pair = |key: &str, value: &str| format!(r#"{{"key":"{key}","value":"{value}"}}"#);
    let long = "a".repeat(129);
    let spread = format!(
        "[{0},{0},{0}]",
        of("Method", r#""GET","PUT","POST","PATCH""#).trim_matches(['[', ']'])
    );
    let rows = [
        ("{}".to_owned(), ""),
        ("[1]".into(), "[0]"),
        ("[{}]".into(), "[0].type"),
        (r#"[{"type":null}]"#.into(), "[0].type"),
        ("nonsense".into(), ""),
        ("[".repeat(1000), ""),
        (format!("[{}1]", "1,".repeat(10)), ""),
        (format!("[{}]", " ".repeat(64 * 1024)), ""),
        (r#"[{"type":"Moon"}]"#.into(), "[0].type"),
        (r#"[{"type":"Header"}]"#.into(), "[0].headerConfig"),
        (header("Cookie", r#"["a"]"#), "[0].headerConfig.key"),
        (header("HOST", r#"["a"]"#), "[0].headerConfig.key"),
        (header("a b", r#"["a"]"#), "[0].headerConfig.key"),
        (header("", r#"["a"]"#), "[0].headerConfig.key"),
        (header(&long[..41], r#"["a"]"#), "[0].headerConfig.key"),
        (header("a", "[]"), "[0].headerConfig.values"),
        (header("a", r#""b""#), "[0].headerConfig.values"),
        (header("a", r#"["b",1]"#), "[0].headerConfig.values[1]"),
        (header("a", r#"[" a"]"#), "[0].headerConfig.values[0]"),
        (header("a", r#"["\n"]"#), "[0].headerConfig.values[0]"),
        (
            header("a", &format!("[{long:?}]")),
            "[0].headerConfig.values[0]",
        ),
        (header("a", eleven), "[0].headerConfig.values"),
        (spread, ""),
        (of("Host", r#""localhost""#), "[0].hostConfig.values[0]"),
        (of("Host", r#""~(""#), "[0].hostConfig.values[0]"),
        (of("Path", r#""/a","b""#), "[0].pathConfig.values[1]"),
        (of("Path", r#""/a/../b""#), "[0].pathConfig.values[0]"),
        (of("Method", r#""get""#), "[0].methodConfig.values[0]"),
        (of("Method", r#""TRACE""#), "[0].methodConfig.values[0]"),
        (
            of("SourceIp", r#""10.0.0.0/33""#),
            "[0].sourceIpConfig.values[0]",
        ),
        (of("SourceIp", six.trim_matches(['[', ']'])), ""),
        (
            of("QueryString", r#""a=b""#),
            "[0].queryStringConfig.values[0]",
        ),
        (
            of("QueryString", &pair("A", "b")),
            "[0].queryStringConfig.values[0].key",
        ),
        (
            of("QueryString", &pair("a", "b c")),
            "[0].queryStringConfig.values[0].value",
        ),
        (
            of("QueryString", &pair("a", "b&c")),
            "[0].queryStringConfig.values[0].value",
        ),
        (
            of("QueryString", &pair(&long[..101], "b")),
            "[0].queryStringConfig.values[0].key",
        ),
        (
            of("QueryString", &pair("a", &long)),
            "[0].queryStringConfig.values[0].value",
        ),
        (
            of("QueryString", r#"{"key":"a"}"#),
            "[0].queryStringConfig.values[0].value",
        ),
        (
            of("Cookie", &pair("a", "b;c")),
            "[0].cookieConfig.values[0].value",
        ),
        (
            of("Cookie", &pair("a", "")),
            "[0].cookieConfig.values[0].value",
        ),
        (
            of("Cookie", &pair("a", &long[..101])),
            "[0].cookieConfig.values[0].value",
        ),
        (
            of("ResponseStatusCode", "404"),
            "[0].responseStatusCodeConfig.values[0]",
        ),
        (
            of("ResponseStatusCode", r#""4xx""#),
            "[0].responseStatusCodeConfig.values[0]",
        ),
        (
            of("ResponseStatusCode", r#""+40""#),
            "[0].responseStatusCodeConfig.values[0]",
        ),
        (
            of("ResponseStatusCode", r#""600""#),
            "[0].responseStatusCodeConfig.values[0]",
        ),
    ];
    for (text, place) in rows {
        let (_, problems) = read(&text);
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        let key = "metadata.annotations[alb.ingress.kubernetes.io/conditions.svc]";
        let start = format!("Ingress demo/a: {key}{place}: ");
        assert!(problems[0].starts_with(&start), "{text}: {problems:?}");
        assert!(problems[0].len() < 500, "{}", problems[0]);
    }
}

#[test]
fn a_query_may_hold_what_a_cookie_may_not() {
    let value =
        r#"[{"type":"QueryString","queryStringConfig":{"values":[{"key":"a","value":"b;c"}]}}]"#;
    assert_eq!(good(value).queries, [[pair("a", "b;c")]]);
}

#[test]
fn only_an_unknown_type_restricts() {
    for (text, restricts) in [
        (r#"[{"type":"Moon"}]"#, true),
        ("[", false),
        ("[{}]", false),
    ] {
        let mut notes = Notes::on("Ingress", "demo", "a");
        parse("svc", text, &mut notes);
        assert_eq!(notes.restricts(), restricts, "{text}");
    }
}

#[test]
fn an_empty_annotation_is_no_condition() {
    assert!(good("").covers_everything() && good("[]").covers_everything());
}

#[test]
fn a_rules_own_host_and_path_widen_the_blocks_and_no_host_leaves_the_block_alone() {
    let host = |name: &str| HostPattern::Exact(name.into());
    let path = |text: &str| PathPattern::Exact(text.into());
    let text = r#"[{"type":"Host","hostConfig":{"values":["a.com"]}},{"type":"Path","pathConfig":{"values":["/a"]}}]"#;
    let widened = |text: &str, own: Option<HostPattern>| {
        let mut conditions = good(text);
        widen(&mut conditions, own, path("/own"));
        (conditions.hosts, conditions.paths)
    };
    let paths = vec![path("/own"), path("/a")];
    let both = vec![host("own.com"), host("a.com")];
    assert_eq!(widened(text, Some(host("own.com"))), (both, paths.clone()));
    assert_eq!(
        widened(text, Some(host("a.com"))),
        (vec![host("a.com")], paths.clone())
    );
    assert_eq!(widened(text, None), (vec![host("a.com")], paths));
    assert_eq!(widened("", None), (vec![], vec![path("/own")]));
    assert_eq!(widened("", Some(host("b.com"))).0, [host("b.com")]);
}

#[test]
fn conditions_on_responses_need_the_response_direction() {
    let status = r#"[{"type":"ResponseStatusCode","responseStatusCodeConfig":{"values":["400"]}}]"#;
    let header = r#"[{"type":"ResponseHeader","responseHeaderConfig":{"key":"a","values":["b"]}}]"#;
    let method = r#"[{"type":"Method","methodConfig":{"values":["GET"]}}]"#;
    for (text, request, response) in [(status, 1, 0), (header, 1, 0), (method, 0, 0)] {
        for (direction, errors) in [
            (Direction::Request, request),
            (Direction::Response, response),
        ] {
            let mut notes = Notes::on("Ingress", "demo", "a");
            check_direction("svc", &good(text), direction, &mut notes);
            assert_eq!(notes.errors(), errors, "{text} {direction:?}");
        }
    }
}

/// A value out of what conditions are made of, right or wrong.
fn values() -> impl Strategy<Value = Value> {
    let words = proptest::sample::select(vec![
        "Host",
        "Path",
        "Method",
        "GET",
        "get",
        "SourceIp",
        "Header",
        "QueryString",
        "Cookie",
        "ResponseHeader",
        "ResponseStatusCode",
        "a.com",
        "~*.{9}",
        "~(a*)*b",
        "~(",
        "/a*",
        "10.0.0.0/8",
        "::1",
        "404",
        "",
        " ",
        "a;b",
        "\n",
    ]);
    let leaf = prop_oneof![
        4 => words.prop_map(|it| Value::String(it.into())),
        1 => ".{0,9}".prop_map(Value::String),
        1 => any::<i64>().prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    let keys = proptest::sample::select(vec!["key", "value", "Values", "values", "type", "x"]);
    leaf.prop_recursive(3, 24, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((keys.clone(), inner), 0..4).prop_map(|pairs| {
                Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
            }),
        ]
    })
}

fn annotations() -> impl Strategy<Value = String> {
    let kinds = proptest::sample::select(vec![
        "Host",
        "path",
        "Method",
        "SourceIp",
        "header",
        "QueryString",
        "Cookie",
        "ResponseHeader",
        "ResponseStatusCode",
        "X",
    ]);
    let block = (kinds, values(), proptest::option::of(values())).prop_map(|(kind, key, list)| {
        let config = serde_json::json!({"key": key, "values": list});
        serde_json::json!({"type": kind, format!("{kind}Config"): config})
    });
    prop_oneof![
        ".{0,60}",
        values().prop_map(|it| it.to_string()),
        vec(block, 0..13).prop_map(|it| Value::from(it).to_string()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_annotation_is_read_quickly_and_is_conditions_or_an_error(text in annotations()) {
        let started = Instant::now();
        let mut notes = Notes::on("Ingress", "demo", "a");
        let conditions = parse("svc", &text, &mut notes);
        prop_assert!(started.elapsed() < Duration::from_millis(200), "{:?}", started.elapsed());
        prop_assert!(notes.problems.len() <= super::super::notes::MOST);
        for problem in &notes.problems {
            prop_assert!(problem.to_string().len() < 800, "{}", problem);
        }
        let understood = serde_json::from_str::<Vec<Value>>(&text).is_ok_and(|it| !it.is_empty());
        if understood && notes.errors() == 0 {
            prop_assert!(values_within_limits(&conditions) && conditions != Conditions::default());
        }
    }
}

fn values_within_limits(conditions: &Conditions) -> bool {
    super::values(conditions) <= 10 && conditions.sources.len() <= 5
}
