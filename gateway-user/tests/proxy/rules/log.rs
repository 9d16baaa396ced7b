//! What the access log says of a request.

use std::{io::Write, path::Path, thread, time::Duration};

use gateway_user::{
    ir::{ListenerSettings, PathPattern, Redirect, Target},
    proxy::{
        ProxyConfig,
        access_log::{AccessLog, Target as To},
        trace::export::Traces,
    },
};
use http::Request;
use serde_json::Value;

use super::one;
use crate::{
    http2::{receive, with},
    support::{
        Gateway, Origin, Routed, answered, backend, closed_port, eventually, group, ok, rule,
    },
};

/// What is logged while `run` has a gateway with these rules.
pub(super) fn logged(rules: Vec<Routed>, run: impl FnOnce(&Gateway)) -> Vec<Value> {
    logged_with(rules, |_| {}, run)
}

/// The same, of a listener with other settings.
pub(crate) fn logged_with(
    rules: Vec<Routed>,
    settings: impl FnOnce(&mut ListenerSettings),
    run: impl FnOnce(&Gateway),
) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = AccessLog::start(&To::File(path.clone())).unwrap();
    let config = ProxyConfig {
        workers: 2,
        ..ProxyConfig::default()
    };
    let mut gateway = Gateway::observed(config, rules, &log, &Traces::off());
    gateway.change(|site| settings(&mut site.settings));
    run(&gateway);
    drop(gateway);
    log.finish();
    read(&path)
}

fn read(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What a field holds, for a comparison.
fn fields(line: &Value, names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| line[*name].clone()).collect()
}

fn assert_timers(line: &Value, names: &[&str]) {
    let total = line["total_us"].as_u64().unwrap();
    for name in names {
        let timer = line[*name].as_u64();
        assert!(timer.is_some_and(|it| it <= total), "{name} in {line}");
    }
}

#[test]
fn a_request_is_one_line_that_tells_where_it_went_and_how_much_passed() {
    let origin = Origin::fixed(ok("hello"));
    let request = "POST /a?b=1 HTTP/1.1\r\nHost: A.example:81\r\nUser-Agent: me\r\nContent-Length: 4\r\n\r\nbody";
    let mut answer = 0;
    let lines = logged(vec![rule(one(&origin))], |gateway| {
        let mut client = gateway.client();
        for _ in 0..2 {
            client.send(request);
            let reply = client.reply().unwrap();
            answer = reply.head.len() + 2 + reply.body.len();
        }
    });
    assert_eq!(lines.len(), 2);
    for line in &lines {
        let expected = [
            "POST",
            "A.example:81",
            "/a?b=1",
            "HTTP/1.1",
            "http",
            "demo/web:80",
            "c1",
            "demo/web",
            "me",
        ];
        let names = [
            "method",
            "host",
            "path",
            "protocol",
            "scheme",
            "service",
            "cluster",
            "rule",
            "user_agent",
        ];
        assert_eq!(fields(line, &names), expected.map(Value::from), "{line}");
        assert_eq!(line["backend"], origin.address.to_string());
        assert_eq!(line["reason"], Value::Null);
        let numbers = [
            "status",
            "rule_number",
            "attempts",
            "request_body_bytes",
            "response_body_bytes",
        ];
        assert_eq!(
            fields(line, &numbers),
            [200, 1, 1, 4, 5].map(Value::from),
            "{line}"
        );
        assert_eq!(line["received_bytes"], request.len(), "{line}");
        assert_eq!(line["sent_bytes"], answer, "{line}");
        assert_timers(line, &["first_byte_us"]);
    }
    assert_timers(&lines[0], &["pick_us", "connect_us"]);
    assert!(
        lines[1].get("connect_us").is_none(),
        "it was open already: {}",
        lines[1]
    );
}

#[test]
fn of_a_request_over_http_2_the_bytes_of_its_stream_are_told() {
    let origin = Origin::fixed(ok("hello"));
    let mut answer = 5;
    let h2c = |settings: &mut ListenerSettings| settings.h2c = true;
    let lines = logged_with(vec![rule(one(&origin))], h2c, |gateway| {
        let got = with(&gateway.proxy, |send| async move {
            let mut send = send.ready().await.unwrap();
            let request = Request::post("http://a.example/p?q=1").body(()).unwrap();
            let (response, mut stream) = send.send_request(request, false).unwrap();
            stream.send_data("body".into(), true).unwrap();
            receive(response).await.unwrap()
        });
        for (name, value) in got.head.headers() {
            answer += name.as_str().len() + value.len();
        }
    });
    assert_eq!(lines.len(), 1);
    let names = [
        "protocol",
        "request_body_bytes",
        "received_bytes",
        "response_body_bytes",
        "sent_bytes",
    ];
    let asked = "POSTa.example/p?q=1body".len();
    let told = [
        "HTTP/2".into(),
        4.into(),
        asked.into(),
        5.into(),
        answer.into(),
    ] as [Value; 5];
    assert_eq!(fields(&lines[0], &names), told);
}

#[test]
fn what_the_gateway_answers_itself_has_a_reason_unless_a_rule_asks_for_it() {
    let dead = closed_port();
    let at = |path: &str, mut routed: Routed| {
        routed.conditions.paths = vec![PathPattern::Prefix(path.into())];
        routed
    };
    let refused = rule(group("dead", vec![backend("c2", dead, 1)]));
    let rules = vec![
        at("/go", answered(Target::Redirect(Redirect::to_https()))),
        at("/none", rule(group("none", Vec::new()))),
        at("/dead", refused),
    ];
    let lines = logged(rules, |gateway| {
        let mut client = gateway.client();
        for (path, status) in [("/go", 308), ("/none", 503), ("/dead", 502), ("/", 404)] {
            assert_eq!(client.get(path).status, status);
        }
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.reply().unwrap();
    });
    let told: Vec<_> = lines
        .iter()
        .map(|it| fields(it, &["path", "status", "reason", "rule_number", "attempts"]))
        .collect();
    let null = Value::Null;
    let expected = [
        ["/go".into(), 308.into(), null.clone(), 1.into(), 0.into()],
        [
            "/none".into(),
            503.into(),
            "no-server".into(),
            2.into(),
            0.into(),
        ],
        [
            "/dead".into(),
            502.into(),
            "connect-refused".into(),
            3.into(),
            1.into(),
        ],
        [
            "/".into(),
            404.into(),
            "no-rule".into(),
            null.clone(),
            0.into(),
        ],
        ["/".into(), 404.into(), "no-rule".into(), null, 0.into()],
    ];
    assert_eq!(told, expected);
    assert_eq!(lines[2]["backend"], dead.to_string());
    assert_eq!(lines[2]["cluster"], "c2");
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_answer_is_told_apart() {
    let origin = Origin::answering(|_, stream| {
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"
        )?;
        loop {
            stream.write_all(&[b'x'; 1000])?;
            thread::sleep(Duration::from_millis(1));
        }
    });
    let lines = logged(vec![rule(one(&origin))], |gateway| {
        let mut client = gateway.client();
        client.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(client.read_some(&mut [0; 500]).unwrap() > 0);
        drop(client);
        eventually("the backend is let go", || origin.ended() == 1);
    });
    assert_eq!(lines.len(), 1);
    let line = &lines[0];
    assert_eq!(
        fields(line, &["path", "status", "reason"]),
        ["/long".into(), 200.into(), "client-gone".into()] as [Value; 3]
    );
    let bytes = line["response_body_bytes"].as_u64().unwrap();
    assert!(bytes > 0 && bytes < 100_000_000, "{line}");
    assert_timers(line, &["first_byte_us"]);
    assert_eq!(line["backend"], origin.address.to_string());
}

#[test]
fn an_answer_that_the_backend_breaks_off_is_told_apart() {
    let origin = Origin::answering(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")?;
        Err(std::io::ErrorKind::Other.into())
    });
    let lines = logged(vec![rule(one(&origin))], |gateway| {
        let mut client = gateway.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(client.reply().is_err());
    });
    let names = ["status", "reason", "response_body_bytes"];
    let told = [200.into(), "backend-closed".into(), 4.into()] as [Value; 3];
    assert_eq!(
        lines
            .iter()
            .map(|it| fields(it, &names))
            .collect::<Vec<_>>(),
        [told]
    );
}

#[test]
fn many_requests_of_many_connections_are_one_line_each() {
    let origin = Origin::fixed(ok("hello"));
    let lines = logged(vec![rule(one(&origin))], |gateway| {
        for connection in 0..20 {
            let mut client = gateway.client();
            for request in 0..25 {
                client.get(&format!("/{connection}/{request}"));
            }
        }
    });
    let mut paths: Vec<_> = lines
        .iter()
        .map(|it| it["path"].as_str().unwrap())
        .collect();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!((lines.len(), paths.len()), (500, 500));
}
