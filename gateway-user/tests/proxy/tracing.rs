//! Spans of requests, as a collector gets them, and what pods are told of the trace.

use std::{
    io::{BufReader, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
};

use gateway_user::proxy::{
    ProxyConfig,
    access_log::{AccessLog, Target},
    trace::{
        Sample,
        export::{Collector, Endpoint, Traces},
    },
};
use serde_json::Value;

use crate::{
    http2::{get, with},
    support::{Gateway, Origin, Seen, backend, closed_port, group, ok, read_body, read_head, rule},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A socket that speaks OTLP/HTTP, and the spans that it took.
fn collector(sample: f64) -> (Collector, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let taken = Arc::new(Mutex::new(Vec::new()));
    let spans = Arc::clone(&taken);
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut request = Seen {
                head: read_head(&mut reader).unwrap(),
                ..Seen::default()
            };
            read_body(&mut reader, &mut request).unwrap();
            assert_eq!(request.line(), "POST /v1/traces HTTP/1.1");
            assert_eq!(request.header("content-type"), ["application/json"]);
            let document: Value = serde_json::from_slice(&request.body).unwrap();
            let own = document["resourceSpans"][0]["scopeSpans"][0]["spans"].clone();
            spans
                .lock()
                .unwrap()
                .extend(own.as_array().unwrap().clone());
            stream.write_all(&ok("{}")).unwrap();
        }
    });
    let collector = Collector {
        endpoint: Endpoint::parse(&endpoint).unwrap(),
        service: "edge".to_owned(),
        node: "node-1".to_owned(),
        sample: Sample::share(sample),
    };
    (collector, taken)
}

/// What a collector got and what was logged while `run` had a gateway that leads to `origin`, in the order of their starts.
fn traced(sample: f64, origin: &Origin, run: impl FnOnce(&Gateway)) -> (Vec<Value>, Vec<Value>) {
    let (collector, spans) = collector(sample);
    let traces = Traces::start(Some(&collector)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let log = AccessLog::start(&Target::File(path.clone())).unwrap();
    let config = ProxyConfig {
        workers: 1,
        ..ProxyConfig::default()
    };
    let rules = vec![rule(group("web", vec![backend("c1", origin.address, 1)]))];
    let mut gateway = Gateway::observed(config, rules, &log, &traces);
    gateway.change(|site| site.settings.h2c = true);
    run(&gateway);
    drop(gateway);
    log.finish();
    let counters = traces.counters();
    traces.finish();
    let mut spans = std::mem::take(&mut *spans.lock().unwrap());
    assert_eq!((counters.sent(), counters.lost()), (spans.len() as u64, 0));
    spans.sort_by_key(|it| it["startTimeUnixNano"].as_str().unwrap().to_owned());
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|it| serde_json::from_str(it).unwrap());
    (spans, lines.collect())
}

fn attribute(span: &Value, key: &str) -> Option<String> {
    let all = span["attributes"].as_array().unwrap();
    let value = &all.iter().find(|it| it["key"] == key)?["value"];
    let text = value.get("stringValue").or(value.get("intValue")).unwrap();
    text.as_str().map(str::to_owned)
}

fn assert_attributes(span: &Value, expected: &[(&str, &str)]) {
    for (key, value) in expected {
        assert_eq!(
            attribute(span, key).as_deref(),
            Some(*value),
            "{key} in {span}"
        );
    }
}

/// Trace, span and flags that a pod was told.
fn told(seen: &Seen) -> Vec<String> {
    let [only] = &seen.header("traceparent")[..] else {
        panic!("{}", seen.head)
    };
    only.split('-').skip(1).map(str::to_owned).collect()
}

#[test]
fn a_request_is_a_span_between_its_caller_and_the_pod() {
    let origin = Origin::fixed(ok("hello"));
    let (spans, lines) = traced(0.0, &origin, |gateway| {
        let caller = format!("Traceparent: 00-{TRACE}-{CALLER}-01\r\nTracestate: a=1\r\n");
        let agent = format!("{caller}User-Agent: me\r\n");
        gateway.client().get_with("/cart?secret=1", &agent);
    });
    assert_eq!(spans.len(), 1);
    let span = &spans[0];
    let id = span["spanId"].as_str().unwrap();
    assert_eq!(
        (&span["traceId"], &span["parentSpanId"]),
        (&TRACE.into(), &CALLER.into())
    );
    assert_eq!((&span["kind"], &span["name"]), (&2.into(), &"GET".into()));
    assert!(span.get("status").is_none() && id != CALLER);
    let pod = origin.address.to_string();
    assert_attributes(
        span,
        &[
            ("http.request.method", "GET"),
            ("url.scheme", "http"),
            ("url.path", "/cart"),
            ("server.address", "demo"),
            ("http.response.status_code", "200"),
            ("network.protocol.version", "1.1"),
            ("client.address", "127.0.0.1"),
            ("user_agent.original", "me"),
            ("fleetgate.rule", "demo/web"),
            ("fleetgate.rule_number", "1"),
            ("fleetgate.service", "demo/web:80"),
            ("fleetgate.cluster", "c1"),
            ("fleetgate.backend", &pod),
        ],
    );
    assert_eq!(attribute(span, "fleetgate.reason"), None);
    let seen = origin.seen().remove(0);
    assert_eq!(told(&seen), [TRACE, id, "01"]);
    assert_eq!(seen.header("tracestate"), ["a=1"]);
    assert_eq!(
        (&lines[0]["trace_id"], &lines[0]["span_id"]),
        (&TRACE.into(), &id.into())
    );
}

#[test]
fn without_a_caller_a_trace_begins_here_for_every_request_of_either_version() {
    let origin = Origin::fixed(ok("hello"));
    let (spans, lines) = traced(1.0, &origin, |gateway| {
        gateway.client().get_with("/1", "Tracestate: a=1\r\n");
        gateway.client().get_with("/2", "Traceparent: what\r\n");
        with(&gateway.proxy, |send| async move {
            for path in ["/3", "/4"] {
                assert_eq!(get(&send, path).await.unwrap().body, b"hello");
            }
        });
    });
    let paths: Vec<_> = spans
        .iter()
        .map(|it| attribute(it, "url.path").unwrap())
        .collect();
    assert_eq!(paths, ["/1", "/2", "/3", "/4"]);
    let mut traces = Vec::new();
    for ((span, seen), line) in spans.iter().zip(origin.seen()).zip(&lines) {
        let (trace, id) = (
            span["traceId"].as_str().unwrap(),
            span["spanId"].as_str().unwrap(),
        );
        assert!(span.get("parentSpanId").is_none(), "{span}");
        assert_eq!(told(&seen), [trace, id, "01"]);
        assert!(seen.header("tracestate").is_empty(), "of no trace");
        assert_eq!(
            (&line["trace_id"], &line["span_id"]),
            (&trace.into(), &id.into())
        );
        traces.push(trace);
    }
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), 4);
    assert_attributes(&spans[2], &[("network.protocol.version", "2")]);
}

#[test]
fn what_is_not_sampled_is_told_to_the_pod_and_to_nobody_else() {
    let origin = Origin::fixed(ok("hello"));
    let (spans, lines) = traced(0.0, &origin, |gateway| {
        gateway.client().get("/");
        let unsampled = format!("Traceparent: 00-{TRACE}-{CALLER}-00\r\n");
        gateway.client().get_with("/", &unsampled);
    });
    assert!(spans.is_empty(), "{spans:?}");
    for (seen, line) in origin.seen().iter().zip(&lines) {
        let told = told(seen);
        assert_eq!(
            (&line["trace_id"], &line["span_id"]),
            (&told[0].clone().into(), &told[1].clone().into())
        );
        assert_eq!(told[2], "00");
    }
    assert_eq!(told(&origin.seen()[1])[0], TRACE);
}

#[test]
fn failures_and_answers_that_break_off_are_errors_and_a_wrong_path_is_none() {
    let origin = Origin::answering(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")?;
        Err(std::io::ErrorKind::Other.into())
    });
    let (collector, spans) = collector(1.0);
    let traces = Traces::start(Some(&collector)).unwrap();
    let to = |name: &str, path: &str, address| {
        let mut routed = rule(group(name, vec![backend("c1", address, 1)]));
        routed.conditions.paths = vec![gateway_user::ir::PathPattern::Prefix(path.into())];
        routed
    };
    let rules = vec![
        to("half", "/half", origin.address),
        to("dead", "/dead", closed_port()),
    ];
    let config = ProxyConfig {
        workers: 1,
        ..ProxyConfig::default()
    };
    let gateway = Gateway::observed(config, rules, &AccessLog::off(), &traces);
    for path in ["/half", "/dead", "/nowhere"] {
        let mut client = gateway.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: demo\r\n\r\n"));
        let _ = client.reply();
    }
    drop(gateway);
    traces.finish();
    let mut spans = spans.lock().unwrap().clone();
    spans.sort_by_key(|it| it["startTimeUnixNano"].as_str().unwrap().to_owned());
    let all: Vec<_> = spans
        .iter()
        .map(|it| {
            (
                it["status"]["code"] == 2,
                attribute(it, "http.response.status_code").unwrap(),
                attribute(it, "fleetgate.reason").unwrap(),
            )
        })
        .collect();
    let expected = [
        (true, "200", "backend-closed"),
        (true, "502", "connect-refused"),
        (false, "404", "no-rule"),
    ];
    let expected =
        expected.map(|(error, status, reason)| (error, status.to_owned(), reason.to_owned()));
    assert_eq!(all, expected);
}

#[test]
fn without_a_collector_the_context_passes_as_it_came_and_the_log_finds_the_trace() {
    let origin = Origin::fixed(ok("hello"));
    let caller = format!("00-{TRACE}-{CALLER}-01");
    let lines = crate::rules::log::logged_with(
        vec![rule(group("web", vec![backend("c1", origin.address, 1)]))],
        |_| {},
        |gateway| {
            let fields = format!("Traceparent: {caller}\r\nTracestate: a=1,, what\r\n");
            gateway.client().get_with("/", &fields);
            gateway.client().get("/none");
        },
    );
    let seen = &origin.seen()[0];
    assert_eq!(seen.header("traceparent"), [caller]);
    assert_eq!(seen.header("tracestate"), ["a=1,, what"]);
    assert!(origin.seen()[1].header("traceparent").is_empty());
    let line = |path: &str| lines.iter().find(|it| it["path"] == path).unwrap();
    assert_eq!(line("/")["trace_id"], TRACE);
    assert!(line("/").get("span_id").is_none());
    assert!(line("/none").get("trace_id").is_none());
}
