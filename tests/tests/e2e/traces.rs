//! Spans of the agent's requests, as a collector beside it gets them.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::mpsc::{Receiver, channel},
    thread,
};

use anyhow::{Context, Result};
use fleetgate_tests::e2e::{
    Gateway, PATIENCE, eventually,
    manifests::{self, Ingress},
    wire,
};
use serde_json::Value;
use xtask::{lab::topology::GATEWAY, netns};

/// The next request's document, answered with 200.
fn take(listener: &TcpListener) -> Result<Value> {
    let (stream, _) = listener.accept()?;
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line == "\r\n" {
            break;
        }
        if let Some(told) = line.strip_prefix("content-length: ") {
            length = told.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
    reader.get_mut().write_all(answer)?;
    Ok(serde_json::from_slice(&body)?)
}

/// A collector in the gateway's namespace: where it listens, and what it takes until the receiver is gone.
fn collector() -> Result<(String, Receiver<Value>)> {
    let listener = netns::inside(GATEWAY, || TcpListener::bind("127.0.0.1:0"))??;
    let url = format!("http://{}", listener.local_addr()?);
    let (give, taken) = channel();
    thread::spawn(move || {
        while let Ok(document) = take(&listener) {
            if give.send(document).is_err() {
                return;
            }
        }
    });
    Ok((url, taken))
}

fn spans(document: &Value) -> Vec<Value> {
    let spans = &document["resourceSpans"][0]["scopeSpans"][0]["spans"];
    spans.as_array().cloned().unwrap_or_default()
}

#[test]
fn a_collector_gets_the_spans_of_the_agents_requests_and_its_last_ones_too() -> Result<()> {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut gateway = Gateway::new()?;
    gateway.write("fleet/gateway.yaml", &manifests::gateway(&[8002], ""))?;
    let all = Ingress::new("web", 8002).steering("request");
    gateway.write("fleet/web.yaml", &all.yaml())?;
    let (url, taken) = collector()?;
    let flags = ["--otlp-endpoint", &url, "--trace-sample", "1"];
    gateway.arguments.extend(flags.map(str::to_owned));
    gateway.start()?;

    let caller = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n");
    let answer = wire::get(8002, "/headers", &caller)?;
    let document = taken.recv_timeout(PATIENCE)?;
    let service = &document["resourceSpans"][0]["resource"]["attributes"][0];
    assert_eq!(service["value"]["stringValue"], "fleetgate");
    let first = spans(&document);
    assert_eq!((first.len(), &first[0]["traceId"]), (1, &TRACE.into()));
    let id = first[0]["spanId"].as_str().context("a span has an id")?;
    let told = format!("00-{TRACE}-{id}-01");
    assert!(answer.json()?.to_string().contains(&told), "{answer:?}");
    let line = "fleetgate_proxy_spans_total{outcome=\"sent\"} 1";
    eventually("the span is counted", || {
        let (_, text) = gateway.admin("/metrics")?;
        Ok((text.lines().any(|it| it == line), text))
    })?;

    assert_eq!(wire::get(8002, "/headers", "")?.status, 200);
    gateway.stop()?;
    let last = spans(&taken.recv_timeout(PATIENCE)?);
    assert_eq!(last.len(), 1);
    assert_ne!(last[0]["traceId"], TRACE);
    Ok(())
}
