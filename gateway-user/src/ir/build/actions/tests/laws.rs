//! Any text is actions or errors, soon.

use super::*;

fn values() -> impl Strategy<Value = Value> {
    let words = proptest::sample::select(vec![
        "a",
        "web",
        "80",
        "0",
        "404",
        "301",
        "10",
        "UserDefined",
        "SystemDefined",
        "SLBId",
        "host",
        "x-a",
        "text/html",
        "${host}",
        "/${path}",
        "${",
        "/a",
        "HTTPS",
        "ForwardGroupMirror",
        "",
        " ",
        "a\r\nb",
        "\u{fc}",
    ]);
    let leaf = prop_oneof![
        4 => words.prop_map(|it| Value::String(it.into())),
        1 => ".{0,9}".prop_map(Value::String),
        1 => (0..200_i64).prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    let keys = proptest::sample::select(vec![
        "key",
        "value",
        "valueType",
        "coverEnabled",
        "host",
        "path",
        "port",
        "query",
        "protocol",
        "httpCode",
        "content",
        "contentType",
        "QPS",
        "QPSPerIp",
        "ServerGroups",
        "ServiceName",
        "ServicePort",
        "Weight",
        "ServerGroupStickySession",
        "Enabled",
        "Timeout",
        "TargetType",
        "MirrorGroupConfig",
        "ServerGroupTuples",
    ]);
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            1 => vec(inner.clone(), 0..6).prop_map(Value::from),
            2 => vec((keys.clone(), inner), 0..6).prop_map(|pairs| {
                Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
            }),
        ]
    })
}

fn annotations() -> impl Strategy<Value = String> {
    let kinds = proptest::sample::select(vec![
        "Forward",
        "Redirect",
        "FixedResponse",
        "insertheader",
        "RemoveHeader",
        "Rewrite",
        "TrafficLimit",
        "TrafficMirror",
        "Cors",
        "X",
    ]);
    let entry = (kinds, values()).prop_map(|(kind, config)| {
        let name = if kind == "Forward" {
            "ForwardGroup"
        } else {
            kind
        };
        json!({"type": name, format!("{kind}Config"): config})
    });
    prop_oneof![
        1 => ".{0,60}",
        1 => values().prop_map(|it| it.to_string()),
        4 => vec(entry, 0..7).prop_map(|it| Value::from(it).to_string()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_annotation_is_read_quickly_and_nothing_it_yields_splits_a_header(
        text in annotations(), response in any::<bool>(),
    ) {
        let started = Instant::now();
        let mut notes = Notes::on("Ingress", "demo", "a");
        let direction = if response { Direction::Response } else { Direction::Request };
        let actions = parse("svc", &text, direction, &mut notes);
        prop_assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
        prop_assert!(notes.problems.len() <= super::super::super::notes::MOST);
        for problem in &notes.problems {
            prop_assert!(problem.to_string().len() < 800, "{}", problem);
        }
        prop_assert!(actions.filters.len() <= MOST);
        let Actions { filters, target } = &actions;
        let mut values: Vec<&str> = Vec::new();
        for filter in filters {
            match filter {
                Filter::InsertHeader(InsertHeader { name, value: InsertedValue::Literal(value), .. }) => {
                    values.extend([name.as_str(), value]);
                }
                Filter::InsertHeader(header) => values.push(&header.name),
                Filter::RemoveHeader(name) => values.push(name),
                Filter::Rewrite(it) => values.extend([it.host.as_str(), &it.path, &it.query]),
                _ => {}
            }
        }
        if let Some(DraftTarget::Redirect(it)) = target {
            values.extend([it.protocol.as_str(), &it.host, &it.port, &it.path, &it.query]);
        }
        for value in values {
            prop_assert!(value.bytes().all(|byte| (32..=126).contains(&byte)), "{:?}", value);
        }
        let later = filters.iter().skip(1).any(|it| matches!(it, Filter::TrafficLimit(_)));
        prop_assert!(!later || notes.errors() > 0);
    }
}
