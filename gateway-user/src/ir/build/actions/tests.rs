use std::time::Instant;

use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use super::*;
use crate::ir::model::{
    GroupName, InsertHeader, InsertedValue, Rewrite, SystemValue, WeightedGroup,
};

mod laws;

fn read_as(direction: Direction, text: &str) -> (Actions, Vec<String>) {
    let mut notes = Notes::on("Ingress", "demo", "a");
    let actions = parse("svc", text, direction, &mut notes);
    let problems = notes.problems.iter().map(ToString::to_string).collect();
    (actions, problems)
}

fn good(actions: &Value) -> Actions {
    let (read, problems) = read_as(Direction::Request, &actions.to_string());
    assert_eq!(problems, [""; 0], "{actions}");
    read
}

/// One action of the type, with its configuration.
fn action(kind: &str, config: &Value) -> Value {
    json!({"type": kind, format!("{kind}Config"): config})
}

fn forward(groups: &Value) -> Value {
    json!({"type": "ForwardGroup", "ForwardConfig": {"ServerGroups": groups}})
}

#[test]
fn a_forward_names_groups_by_relative_weight() {
    let one = json!([{"ServiceName": "web", "ServicePort": 80}]);
    let wanted = |groups, sticky| Some(DraftTarget::Forward { groups, sticky });
    let group = |name: &str, port: &str, weight| (name.to_owned(), port.to_owned(), weight);
    let read = good(&json!([forward(&one)])).target;
    assert_eq!(read, wanted(vec![group("web", "80", 100)], None));
    let two = json!([
        {"servicename": "a", "SERVICEPORT": 80, "weight": 100},
        {"ServiceName": "b", "ServicePort": "http", "Weight": 80, "more": 1},
    ]);
    let both = vec![group("a", "80", 100), group("b", "http", 80)];
    assert_eq!(good(&json!([forward(&two)])).target, wanted(both, None));
    for (session, seconds) in [
        (json!({"Enabled": true}), Some(1000)),
        (json!({"Enabled": true, "Timeout": 86400}), Some(86_400)),
        (json!({"Enabled": false, "Timeout": 5}), None),
        (json!(null), None),
    ] {
        let config = json!({"ServerGroups": one, "ServerGroupStickySession": session});
        let read = good(&json!([{"type": "forwardgroup", "forwardconfig": config}])).target;
        let sticky = seconds.map(Duration::from_secs);
        assert_eq!(read, wanted(vec![group("web", "80", 100)], sticky));
    }
}

#[test]
fn a_redirect_keeps_what_is_left_out() {
    let config =
        json!({"protocol": "HTTPS", "httpCode": "308", "path": "/new${path}", "query": ""});
    let wanted = Redirect {
        protocol: "https".into(),
        path: "/new${path}".into(),
        code: 308,
        ..Redirect::default()
    };
    let read = good(&json!([action("Redirect", &config)])).target;
    assert_eq!(read, Some(DraftTarget::Redirect(wanted)));
    for config in [
        json!({"host": "www.example.com"}),
        json!({"port": "8443"}),
        json!({"query": "from=${host}&${query}"}),
        json!({"path": "${path}/${port}-${protocol}-${host}"}),
        json!({"path": "/", "httpCode": "303"}),
    ] {
        good(&json!([action("Redirect", &config)]));
    }
}

#[test]
fn a_fixed_response_is_plain_text_unless_told_otherwise() {
    let read = |config: &Value| match good(&json!([action("FixedResponse", config)])).target {
        Some(DraftTarget::Respond(response)) => response,
        other => panic!("{other:?}"),
    };
    let response = read(&json!({"httpCode": "503", "content": "later\r\n"}));
    assert_eq!(
        (response.code, response.content_type.as_str()),
        (503, "text/plain")
    );
    assert_eq!(response.content, "later\r\n");
    for kind in [
        "text/css",
        "text/html",
        "application/javascript",
        "application/json",
    ] {
        let response = read(&json!({"httpCode": "200", "contentType": kind}));
        assert_eq!(
            (response.content_type.as_str(), response.content.as_str()),
            (kind, "")
        );
    }
    read(&json!({"httpCode": "499", "content": "a".repeat(1024)}));
}

#[test]
fn filters_keep_their_order_behind_the_traffic_limit() {
    let read = good(&json!([
        action("RemoveHeader", &json!({"key": "X-Debug"})),
        action(
            "InsertHeader",
            &json!({"key": "A", "value": "b c", "coverEnabled": true})
        ),
        action(
            "InsertHeader",
            &json!({"key": "d", "value": "E", "valueType": "ReferenceHeader"})
        ),
        action("Rewrite", &json!({"Path": "/x"})),
        action("TrafficLimit", &json!({"QPS": "10", "QPSPerIp": "9"})),
    ]));
    let insert = |name: &str, value, overwrite| {
        Filter::InsertHeader(InsertHeader {
            name: name.into(),
            value,
            overwrite,
        })
    };
    let wanted = [
        Filter::TrafficLimit(TrafficLimit {
            per_second: Some(10),
            per_client: Some(9),
        }),
        Filter::RemoveHeader("x-debug".into()),
        insert("a", InsertedValue::Literal("b c".into()), true),
        insert("d", InsertedValue::Header("e".into()), false),
        Filter::Rewrite(Rewrite {
            host: "${host}".into(),
            path: "/x".into(),
            query: "${query}".into(),
            captures: None,
        }),
    ];
    assert_eq!((read.filters.as_slice(), read.target), (&wanted[..], None));
}

#[test]
fn the_gateway_can_insert_what_it_knows() {
    for (text, value) in [
        ("ClientSrcPort", SystemValue::ClientPort),
        ("ClientSrcIp", SystemValue::ClientAddress),
        ("protocol", SystemValue::Protocol),
        ("SLBId", SystemValue::GatewayId),
        ("SLBPort", SystemValue::ListenerPort),
    ] {
        let config = json!({"key": "a", "value": text, "valueType": "SystemDefined"});
        let read = good(&json!([action("InsertHeader", &config)])).filters;
        let [Filter::InsertHeader(header)] = &read[..] else {
            panic!("{read:?}")
        };
        assert_eq!(header.value, InsertedValue::System(value));
    }
}

#[test]
fn a_mirror_names_groups_of_its_ingress() {
    let tuples = json!([{"ServiceName": "copy", "ServicePort": 80}]);
    let config = json!({"TargetType": "ForwardGroupMirror", "MirrorGroupConfig": {"ServerGroupTuples": tuples}});
    let read = good(&json!([action("TrafficMirror", &config)])).filters;
    let group = GroupName {
        namespace: "demo".into(),
        ingress: "a".into(),
        service: "copy".into(),
        port: "80".into(),
    };
    let weight = 100;
    assert_eq!(
        read,
        [Filter::Mirror(vec![WeightedGroup { group, weight }])]
    );
}

#[test]
fn a_mistake_is_one_error_that_names_its_place() {
    let group = json!({"ServiceName": "web", "ServicePort": 80});
    let heavy = |weight: i64| json!([{"ServiceName": "web", "ServicePort": 80, "Weight": weight}]);
    let limit = |config: &Value| action("TrafficLimit", config);
    let redirect = |config: &Value| action("Redirect", config);
    let insert = |key: &str, value: &str, kind: &str| {
        action(
            "InsertHeader",
            &json!({"key": key, "value": value, "valueType": kind}),
        )
    };
    let fixed = |config: &Value| action("FixedResponse", config);
    let remove = |key: &str| action("RemoveHeader", &json!({"key": key}));
    let mirror = |config: &Value| action("TrafficMirror", config);
    let rewrite = action("Rewrite", &json!({"Path": "/x"}));
    let last = fixed(&json!({"httpCode": "404"}));
    let rows = [
        (json!({}), ""),
        (json!([1]), "[0]"),
        (json!([{}]), "[0].type"),
        (json!([{"type": "Moon"}]), "[0].type"),
        (json!([{"type": "Cors"}]), "[0].type"),
        (json!(vec![remove("a"); 6]), ""),
        (json!([last, forward(&json!([group]))]), ""),
        (json!([last, rewrite]), ""),
        (json!([rewrite, rewrite]), ""),
        (
            json!([limit(&json!({"QPS": "1"})), limit(&json!({"QPS": "2"}))]),
            "",
        ),
        (json!([insert("a", "b", ""), insert("A", "c", "")]), ""),
        (json!([{"type": "ForwardGroup"}]), "[0].ForwardConfig"),
        (
            json!([forward(&json!([]))]),
            "[0].ForwardConfig.ServerGroups",
        ),
        (
            json!([forward(&json!(vec![group.clone(); 6]))]),
            "[0].ForwardConfig.ServerGroups",
        ),
        (
            json!([forward(&json!([group, group]))]),
            "[0].ForwardConfig.ServerGroups[0].Weight",
        ),
        (
            json!([forward(&json!([1]))]),
            "[0].ForwardConfig.ServerGroups[0]",
        ),
        (
            json!([forward(&heavy(101))]),
            "[0].ForwardConfig.ServerGroups[0].Weight",
        ),
        (
            json!([forward(&heavy(-1))]),
            "[0].ForwardConfig.ServerGroups[0].Weight",
        ),
        (
            json!([forward(&json!([{"ServerGroupID": "sgp-1"}]))]),
            "[0].ForwardConfig.ServerGroups[0].ServerGroupID",
        ),
        (
            json!([forward(&json!([{"ServicePort": 80}]))]),
            "[0].ForwardConfig.ServerGroups[0].ServiceName",
        ),
        (
            json!([forward(&json!([{"ServiceName": "A/b", "ServicePort": 80}]))]),
            "[0].ForwardConfig.ServerGroups[0].ServiceName",
        ),
        (
            json!([forward(&json!([{"ServiceName": "a", "ServicePort": "80"}]))]),
            "[0].ForwardConfig.ServerGroups[0].ServicePort",
        ),
        (
            json!([forward(&json!([{"ServiceName": "a", "ServicePort": 0}]))]),
            "[0].ForwardConfig.ServerGroups[0].ServicePort",
        ),
        (
            json!([forward(&json!([{"ServiceName": "a"}]))]),
            "[0].ForwardConfig.ServerGroups[0].ServicePort",
        ),
        (
            json!([{"type": "ForwardGroup", "ForwardConfig": {"ServerGroups": [group], "ServerGroupStickySession": {"Enabled": true, "Timeout": 86401}}}]),
            "[0].ForwardConfig.ServerGroupStickySession.Timeout",
        ),
        (
            json!([{"type": "ForwardGroup", "ForwardConfig": {"ServerGroups": [group], "ServerGroupStickySession": {"Enabled": "true"}}}]),
            "[0].ForwardConfig.ServerGroupStickySession.Enabled",
        ),
        (json!([redirect(&json!({}))]), "[0].RedirectConfig"),
        (
            json!([redirect(&json!({"httpCode": "302", "path": "${path}"}))]),
            "[0].RedirectConfig",
        ),
        (
            json!([redirect(&json!({"protocol": "ftp"}))]),
            "[0].RedirectConfig.protocol",
        ),
        (
            json!([redirect(&json!({"httpCode": "304", "path": "/a"}))]),
            "[0].RedirectConfig.httpCode",
        ),
        (
            json!([redirect(&json!({"httpCode": 301, "path": "/a"}))]),
            "[0].RedirectConfig.httpCode",
        ),
        (
            json!([redirect(&json!({"port": "+80"}))]),
            "[0].RedirectConfig.port",
        ),
        (
            json!([redirect(&json!({"port": "0"}))]),
            "[0].RedirectConfig.port",
        ),
        (
            json!([redirect(&json!({"port": 443}))]),
            "[0].RedirectConfig.port",
        ),
        (
            json!([redirect(&json!({"host": "a.com:80"}))]),
            "[0].RedirectConfig.host",
        ),
        (
            json!([redirect(&json!({"host": "a.com\r\nx: y"}))]),
            "[0].RedirectConfig.host",
        ),
        (
            json!([redirect(&json!({"path": "a"}))]),
            "[0].RedirectConfig.path",
        ),
        (
            json!([redirect(&json!({"path": "/a b"}))]),
            "[0].RedirectConfig.path",
        ),
        (
            json!([redirect(&json!({"path": "/${query}"}))]),
            "[0].RedirectConfig.path",
        ),
        (
            json!([redirect(&json!({"path": "/${path}${path}"}))]),
            "[0].RedirectConfig.path",
        ),
        (
            json!([redirect(&json!({"path": "/${po${host}rt}"}))]),
            "[0].RedirectConfig.path",
        ),
        (
            json!([redirect(&json!({"query": "a#b"}))]),
            "[0].RedirectConfig.query",
        ),
        (
            json!([redirect(&json!({"query": "?a=b"}))]),
            "[0].RedirectConfig.query",
        ),
        (
            json!([redirect(&json!({"query": "\n"}))]),
            "[0].RedirectConfig.query",
        ),
        (
            json!([fixed(&json!({}))]),
            "[0].FixedResponseConfig.httpCode",
        ),
        (
            json!([fixed(&json!({"httpCode": "302"}))]),
            "[0].FixedResponseConfig.httpCode",
        ),
        (
            json!([fixed(&json!({"httpCode": "2000"}))]),
            "[0].FixedResponseConfig.httpCode",
        ),
        (
            json!([fixed(&json!({"httpCode": 404}))]),
            "[0].FixedResponseConfig.httpCode",
        ),
        (
            json!([fixed(
                &json!({"httpCode": "404", "contentType": "image/png"})
            )]),
            "[0].FixedResponseConfig.contentType",
        ),
        (
            json!([fixed(&json!({"httpCode": "404", "content": "\u{fc}"}))]),
            "[0].FixedResponseConfig.content",
        ),
        (
            json!([fixed(
                &json!({"httpCode": "404", "content": "a".repeat(1025)})
            )]),
            "[0].FixedResponseConfig.content",
        ),
        (
            json!([insert("a\n", "b", "UserDefined")]),
            "[0].InsertHeaderConfig.key",
        ),
        (
            json!([insert("X-Forwarded-For", "b", "UserDefined")]),
            "[0].InsertHeaderConfig.key",
        ),
        (
            json!([insert("a", "b\r\nc: d", "UserDefined")]),
            "[0].InsertHeaderConfig.value",
        ),
        (
            json!([insert("a", " b", "")]),
            "[0].InsertHeaderConfig.value",
        ),
        (json!([insert("a", "", "")]), "[0].InsertHeaderConfig.value"),
        (
            json!([insert("a", &"b".repeat(129), "")]),
            "[0].InsertHeaderConfig.value",
        ),
        (
            json!([insert("a", "b c", "ReferenceHeader")]),
            "[0].InsertHeaderConfig.value",
        ),
        (
            json!([insert("a", "Moon", "SystemDefined")]),
            "[0].InsertHeaderConfig.value",
        ),
        (
            json!([insert("a", "b", "Moon")]),
            "[0].InsertHeaderConfig.valueType",
        ),
        (json!([remove("Host")]), "[0].RemoveHeaderConfig.key"),
        (
            json!([action("Rewrite", &json!({"Path": "x"}))]),
            "[0].RewriteConfig.path",
        ),
        (json!([limit(&json!({}))]), "[0].TrafficLimitConfig"),
        (
            json!([limit(&json!({"QPS": 5}))]),
            "[0].TrafficLimitConfig.QPS",
        ),
        (
            json!([limit(&json!({"QPS": "0"}))]),
            "[0].TrafficLimitConfig.QPS",
        ),
        (
            json!([limit(&json!({"QPS": "1000001"}))]),
            "[0].TrafficLimitConfig.QPS",
        ),
        (
            json!([limit(&json!({"QPS": "5", "QPSPerIp": "5"}))]),
            "[0].TrafficLimitConfig.QPSPerIp",
        ),
        (
            json!([mirror(&json!({"TargetType": "Moon"}))]),
            "[0].TrafficMirrorConfig.TargetType",
        ),
        (
            json!([mirror(&json!({"TargetType": "ForwardGroupMirror"}))]),
            "[0].TrafficMirrorConfig.MirrorGroupConfig",
        ),
    ];
    for (actions, place) in rows {
        let text = actions.to_string();
        let (_, problems) = read_as(Direction::Request, &text);
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        let key = "metadata.annotations[alb.ingress.kubernetes.io/actions.svc]";
        let start = format!("Ingress demo/a: {key}{place}: ");
        assert!(problems[0].starts_with(&start), "{text}: {problems:?}");
        assert!(problems[0].len() < 500, "{}", problems[0]);
    }
}

#[test]
fn every_forbidden_header_is_refused_in_either_case() {
    for name in [
        "slb-id",
        "slb-ip",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-eip",
        "x-forwarded-port",
        "x-forwarded-client-srcport",
        "x-forwarded-host",
        "connection",
        "upgrade",
        "content-length",
        "transfer-encoding",
        "keep-alive",
        "te",
        "host",
        "cookie",
        "remoteip",
        "authority",
    ] {
        let of_response = [
            "connection",
            "upgrade",
            "content-length",
            "transfer-encoding",
        ]
        .contains(&name);
        for key in [name.to_owned(), name.to_ascii_uppercase()] {
            for text in [
                json!([action("RemoveHeader", &json!({"key": key}))]).to_string(),
                json!([action("InsertHeader", &json!({"key": key, "value": "a"}))]).to_string(),
            ] {
                assert_eq!(read_as(Direction::Request, &text).1.len(), 1, "{text}");
                assert_eq!(
                    read_as(Direction::Response, &text).1.len(),
                    usize::from(of_response),
                    "{text}"
                );
            }
        }
    }
}

#[test]
fn only_headers_and_answers_act_on_responses() {
    for (kind, config, allowed) in [
        ("InsertHeader", json!({"key": "a", "value": "b"}), true),
        ("RemoveHeader", json!({"key": "server"}), true),
        ("FixedResponse", json!({"httpCode": "503"}), true),
        ("Redirect", json!({"path": "/a"}), false),
        ("Rewrite", json!({"path": "/a"}), false),
        ("TrafficLimit", json!({"QPS": "1"}), false),
        ("TrafficMirror", json!({}), false),
        ("ForwardGroup", json!({}), false),
    ] {
        let text = json!([action(kind, &config)]).to_string();
        assert_eq!(
            read_as(Direction::Response, &text).1.is_empty(),
            allowed,
            "{text}"
        );
    }
}

#[test]
fn only_an_unknown_type_restricts() {
    for (text, restricts) in [
        (r#"[{"type":"Moon"}]"#, true),
        (r#"[{"type":"Cors"}]"#, false),
        ("[", false),
    ] {
        let mut notes = Notes::on("Ingress", "demo", "a");
        parse("svc", text, Direction::Request, &mut notes);
        assert_eq!(notes.restricts(), restricts, "{text}");
    }
}

#[test]
fn a_rewrite_of_nothing_is_a_warning() {
    let text = json!([action("Rewrite", &json!({"Host": "${host}"}))]).to_string();
    let mut notes = Notes::on("Ingress", "demo", "a");
    assert_eq!(
        parse("svc", &text, Direction::Request, &mut notes)
            .filters
            .len(),
        1
    );
    assert_eq!((notes.errors(), notes.problems.len()), (0, 1));
}

#[test]
fn a_direction_is_spelled_exactly() {
    let of = |value: Option<&str>| {
        let mut notes = Notes::on("Ingress", "demo", "a");
        let key = format!("{ALB}rule-direction.svc");
        let annotations = value.map(|it| (key, it.to_owned())).into_iter().collect();
        (direction("svc", &annotations, &mut notes), notes.errors())
    };
    assert_eq!(of(None), (Direction::Request, 0));
    assert_eq!(of(Some("Request")), (Direction::Request, 0));
    assert_eq!(of(Some("Response")), (Direction::Response, 0));
    for wrong in ["response", "", "REQUEST", " Response"] {
        assert_eq!(of(Some(wrong)), (Direction::Request, 1), "{wrong}");
    }
}
