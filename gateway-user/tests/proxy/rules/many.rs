//! A listener with many rules.

use gateway_user::ir::{FixedResponse, HostPattern, PathPattern, Target};

use crate::support::{Gateway, Routed, answered};

/// A rule that says its own number.
fn numbered(number: usize, host: HostPattern, path: PathPattern) -> Routed {
    let mut rule = answered(Target::Respond(FixedResponse {
        code: 200,
        content_type: "text/plain".to_owned(),
        content: number.to_string(),
    }));
    rule.conditions.hosts = vec![host];
    rule.conditions.paths = vec![path];
    rule
}

#[test]
fn of_a_thousand_rules_the_right_one_answers() {
    let rules = (0..1000).map(|number| {
        let host = match number % 4 {
            0 | 1 => HostPattern::Exact(format!("h{}.example.com", number / 8)),
            2 => HostPattern::OneLabel(format!(".w{}.example.com", number / 8)),
            _ => HostPattern::Glob(format!("g{}.*", number / 8)),
        };
        let path = match number % 8 {
            0 => PathPattern::Exact("/only".to_owned()),
            1 => PathPattern::Prefix("/below".to_owned()),
            4 | 5 => PathPattern::Prefix(String::new()),
            _ if number % 8 < 4 => PathPattern::Glob("/a*z".to_owned()),
            _ => PathPattern::Prefix("/p".to_owned()),
        };
        numbered(number, host, path)
    });
    let gateway = Gateway::start(rules.collect());
    let mut client = gateway.client();
    for base in [0, 8, 16, 400, 504, 984, 992] {
        let eighth = base / 8;
        for (host, path, expected) in [
            (format!("h{eighth}.example.com"), "/only", Some(0)),
            (format!("H{eighth}.EXAMPLE.com:99"), "/below/it?x", Some(1)),
            (format!("h{eighth}.example.com"), "/belowit", Some(4)),
            (format!("h{eighth}.example.com"), "/", Some(4)),
            (format!("x.w{eighth}.example.com"), "/a/b/z", Some(2)),
            (format!("x.w{eighth}.example.com"), "/p/q", Some(6)),
            (format!("x.y.w{eighth}.example.com"), "/p/q", None),
            (format!("g{eighth}.org"), "/az", Some(3)),
            (format!("g{eighth}.org"), "/p", Some(7)),
            (format!("g{eighth}.org"), "/q", None),
            (format!("h{eighth}.example.org"), "/only", None),
        ] {
            client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            let reply = client.reply().unwrap();
            match expected {
                Some(number) => {
                    assert_eq!(reply.text(), (base + number).to_string(), "{host}{path}")
                }
                None => assert_eq!(reply.reason(), "no-rule", "{host}{path}"),
            }
        }
    }
}
