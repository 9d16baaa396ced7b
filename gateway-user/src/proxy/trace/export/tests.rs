use std::{
    io::{Read, Write},
    net::TcpListener,
};

use serde_json::{Value, json};

use super::*;
use crate::proxy::trace::{Ids, Parent, SpanId, TraceId};

fn finished(sampled: bool) -> Finished {
    let parent = Parent {
        trace: TraceId(0x4bf9),
        span: SpanId(0xf067),
        sampled,
    };
    Finished {
        span: Span::new(Some(parent), true, &mut Ids::new([1, 2, 3, 4])),
        start_unix_ns: 1_796_047_238_000_000_007,
        duration: Duration::from_millis(3),
        method: "GET".into(),
        scheme: "http",
        host: "shop.example.com".into(),
        path: "/cart".into(),
        status: 504,
        reason: Some("timeout"),
        client: "192.0.2.7:40000".parse().unwrap(),
        service: "shop/web:80".into(),
        cluster: "c1".into(),
        backend: Some("10.1.0.1:8080".parse().unwrap()),
    }
}

#[test]
fn a_span_is_told_as_otlp_has_it() {
    let told = document::document(&[finished(true)], "node-1");
    let scope = &told["resourceSpans"][0];
    assert_eq!(
        scope["resource"]["attributes"][2],
        json!({"key": "service.instance.id", "value": {"stringValue": "node-1"}})
    );
    let span = &scope["scopeSpans"][0]["spans"][0];
    assert_eq!(span["traceId"], "00000000000000000000000000004bf9");
    assert_eq!(span["parentSpanId"], "000000000000f067");
    assert_eq!(span["spanId"].as_str().unwrap().len(), 16);
    assert_eq!(span["startTimeUnixNano"], "1796047238000000007");
    assert_eq!(span["endTimeUnixNano"], "1796047238003000007");
    assert_eq!(
        (&span["kind"], &span["status"]["code"]),
        (&2.into(), &2.into())
    );
    let attributes = span["attributes"].as_array().unwrap();
    let of = |key: &str| attributes.iter().find(|it| it["key"] == key).unwrap()["value"].clone();
    assert_eq!(of("http.response.status_code"), json!({"intValue": "504"}));
    assert_eq!(of("url.path"), json!({"stringValue": "/cart"}));
    assert_eq!(of("error.type"), json!({"stringValue": "timeout"}));
}

/// Answers requests with these status codes, one after the other, and tells the bodies.
fn collector(answers: &'static [u16]) -> (Endpoint, thread::JoinHandle<Vec<Value>>) {
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
    (endpoint, serving)
}

/// Runs the thread's loop over what was given, to its end.
fn export(endpoint: &Endpoint, spans: Vec<Finished>) -> Counters {
    let (give, waiting) = sync_channel(spans.len());
    spans.into_iter().for_each(|it| give.send(it).unwrap());
    drop(give);
    let counters = Counters::default();
    run(&waiting, endpoint, "node-1", &counters);
    counters
}

#[test]
fn a_batch_goes_in_one_request_and_once_more_if_the_collector_is_busy() {
    let (endpoint, serving) = collector(&[503, 200]);
    let counters = export(&endpoint, vec![finished(true), finished(true)]);
    let bodies = serving.join().unwrap();
    assert_eq!((counters.sent(), counters.lost()), (2, 0));
    assert_eq!(bodies[0], bodies[1]);
    let spans = &bodies[0]["resourceSpans"][0]["scopeSpans"][0]["spans"];
    assert_eq!(spans.as_array().unwrap().len(), 2);
}

#[test]
fn what_the_collector_calls_wrong_is_not_sent_again() {
    let (endpoint, serving) = collector(&[400]);
    let counters = export(&endpoint, vec![finished(true)]);
    assert_eq!(serving.join().unwrap().len(), 1);
    assert_eq!((counters.sent(), counters.lost()), (0, 1));
}

#[test]
fn what_is_not_sampled_is_not_sent_and_what_does_not_fit_is_lost() {
    let (spans, waiting) = sync_channel(1);
    let exporter = Exporter {
        spans,
        counters: Arc::default(),
    };
    exporter.send(finished(false));
    assert!(waiting.try_recv().is_err());
    exporter.send(finished(true));
    exporter.send(finished(true));
    assert_eq!(exporter.counters().lost(), 1);
}
