use std::{
    io::{Read, Write},
    net::TcpListener,
};

use serde_json::{Value, json};

use super::*;
use crate::proxy::trace::{Ids, Parent, SpanId, TraceId};

fn finished() -> Finished {
    let parent = Parent {
        trace: TraceId(0x4bf9),
        span: SpanId(0xf067),
        sampled: true,
    };
    Finished {
        span: Span::new(
            Some(parent),
            Sample::share(0.0),
            &mut Ids::new([1, 2, 3, 4]),
        ),
        start_unix_ns: 1_796_047_238_000_000_007,
        duration: Duration::from_millis(3),
        method: "GET".into(),
        scheme: "http",
        version: "1.1",
        host: "shop.example.com".into(),
        port: 80,
        path: "/cart".into(),
        user_agent: "curl/8.5.0".into(),
        status: 504,
        reason: Some("timeout"),
        aborted: false,
        client: "192.0.2.7:0".parse().unwrap(),
        peer: "198.51.100.7:40000".parse().unwrap(),
        listener: "demo:80/HTTP".into(),
        rule: Some(("shop/web".into(), 3)),
        service: "shop/web:80".into(),
        cluster: "c1".into(),
        backend: Some("10.1.0.1:8080".parse().unwrap()),
        attempts: 2,
    }
}

/// The one span of a document, and what an attribute of it holds.
fn told(span: Finished) -> (Value, impl Fn(&str) -> Value) {
    let document = document::document(&[span], "edge", "node-1");
    let span = document["resourceSpans"][0]["scopeSpans"][0]["spans"][0].clone();
    let attributes = span["attributes"].as_array().unwrap().clone();
    let of = move |key: &str| {
        let found = attributes.iter().find(|it| it["key"] == key);
        found.map_or(Value::Null, |it| it["value"].clone())
    };
    (span, of)
}

#[test]
fn a_span_is_told_as_otlp_has_it() {
    let document = document::document(&[finished()], "edge", "node-1");
    let resource = &document["resourceSpans"][0]["resource"]["attributes"];
    let name = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    assert_eq!(resource[0], name("service.name", "edge"));
    assert_eq!(resource[2], name("service.instance.id", "node-1"));
    let (span, of) = told(finished());
    assert_eq!(span["traceId"], "00000000000000000000000000004bf9");
    assert_eq!(span["parentSpanId"], "000000000000f067");
    assert_eq!(span["spanId"].as_str().unwrap().len(), 16);
    assert_eq!(span["startTimeUnixNano"], "1796047238000000007");
    assert_eq!(span["endTimeUnixNano"], "1796047238003000007");
    assert_eq!(
        (&span["kind"], &span["status"]["code"], &span["name"]),
        (&2.into(), &2.into(), &"GET".into())
    );
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.path", "/cart"),
        ("server.address", "shop.example.com"),
        ("network.protocol.version", "1.1"),
        ("client.address", "192.0.2.7"),
        ("network.peer.address", "198.51.100.7"),
        ("user_agent.original", "curl/8.5.0"),
        ("error.type", "timeout"),
        ("fleetgate.reason", "timeout"),
        ("fleetgate.rule", "shop/web"),
        ("fleetgate.cluster", "c1"),
        ("fleetgate.backend", "10.1.0.1:8080"),
    ] {
        assert_eq!(of(key), json!({ "stringValue": value }), "{key}");
    }
    for (key, value) in [
        ("http.response.status_code", "504"),
        ("server.port", "80"),
        ("fleetgate.rule_number", "3"),
    ] {
        assert_eq!(of(key), json!({ "intValue": value }), "{key}");
    }
    assert_eq!(of("client.port"), Value::Null, "it is not known");
}

#[test]
fn only_what_failed_here_is_an_error() {
    let with = |status, reason, aborted| {
        let (span, of) = told(Finished {
            status,
            reason,
            aborted,
            ..finished()
        });
        let kind = of("error.type")["stringValue"].clone();
        (span["status"]["code"] == 2, kind)
    };
    let null = Value::Null;
    assert_eq!(with(200, None, false), (false, null.clone()));
    assert_eq!(with(404, Some("no-rule"), false), (false, null));
    assert_eq!(with(500, None, false), (true, "500".into()));
    assert_eq!(
        with(200, Some("client-gone"), true),
        (true, "client-gone".into())
    );
    assert_eq!(
        with(0, Some("client-gone"), true),
        (true, "client-gone".into())
    );
}

#[test]
fn methods_that_nobody_knows_do_not_become_names() {
    let (span, of) = told(Finished {
        method: "BREW".into(),
        ..finished()
    });
    assert_eq!(span["name"], "HTTP");
    assert_eq!(of("http.request.method")["stringValue"], "_OTHER");
    assert_eq!(of("http.request.method_original")["stringValue"], "BREW");
}

/// Answers requests with these status codes, one after the other, and tells the bodies.
fn collector(answers: &'static [u16]) -> (Collector, thread::JoinHandle<Vec<Value>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let serving = thread::spawn(move || {
        let mut bodies = Vec::new();
        for status in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let body = loop {
                let mut piece = [0; 4096];
                let read = stream.read(&mut piece).unwrap();
                assert!(read > 0, "the request ended early");
                request.extend_from_slice(&piece[..read]);
                let head = request.windows(4).position(|it| it == b"\r\n\r\n");
                let read = head.and_then(|at| serde_json::from_slice(&request[at + 4..]).ok());
                if let Some(body) = read {
                    break body;
                }
            };
            assert!(request.starts_with(b"POST /v1/traces HTTP/1.1\r\n"));
            bodies.push(body);
            write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
        bodies
    });
    let collector = Collector {
        endpoint,
        service: "edge".to_owned(),
        node: "node-1".to_owned(),
        sample: Sample::share(1.0),
    };
    (collector, serving)
}

/// Gives spans to a collector and waits for its last words; how many were sent, and lost.
fn export(collector: &Collector, count: usize) -> (u64, u64) {
    let traces = Traces::start(Some(collector)).unwrap();
    let counters = traces.counters();
    let exporter = traces.running.as_ref().unwrap().exporter.clone();
    (0..count).for_each(|_| exporter.send(finished()));
    drop(exporter);
    traces.finish();
    (counters.sent(), counters.lost())
}

#[test]
fn a_batch_goes_in_one_request_and_once_more_if_the_collector_is_busy() {
    let (collector, serving) = collector(&[503, 200]);
    assert_eq!(export(&collector, 2), (2, 0));
    let bodies = serving.join().unwrap();
    assert_eq!(bodies[0], bodies[1]);
    let spans = &bodies[0]["resourceSpans"][0]["scopeSpans"][0]["spans"];
    assert_eq!(spans.as_array().unwrap().len(), 2);
}

#[test]
fn what_the_collector_calls_wrong_is_not_sent_again() {
    let (collector, serving) = collector(&[400]);
    assert_eq!(export(&collector, 1), (0, 1));
    assert_eq!(serving.join().unwrap().len(), 1);
}

#[test]
fn what_does_not_fit_is_lost_and_nobody_waits() {
    let (spans, _waiting) = sync_channel(1);
    let exporter = Exporter {
        spans,
        counters: Arc::default(),
    };
    exporter.send(finished());
    exporter.send(finished());
    assert_eq!(exporter.counters.lost(), 1);
}

#[test]
fn text_from_outside_is_bounded() {
    let long = [b"a".repeat(TEXT_BYTES - 1), "é".into(), b"b".repeat(9)].concat();
    let kept = text(&long);
    assert!(kept.len() < TEXT_BYTES + 3 && kept.starts_with("aaa"));
}
