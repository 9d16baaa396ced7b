//! Spans as an `ExportTraceServiceRequest` in JSON.
//!
//! Source: OpenTelemetry Protocol specification, "JSON Protobuf Encoding": ids are hexadecimal, 64-bit numbers are strings,
//! enums are numbers. Attributes: OpenTelemetry semantic conventions 1.23 for HTTP server spans; what they have no name for
//! begins with `fleetgate.`.

use serde_json::{Value, json};

use super::Finished;

/// `SPAN_KIND_SERVER`.
const SERVER: u8 = 2;
/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;
/// `SpanFlags`: whether the parent is remote is known, and it is.
const REMOTE_PARENT: u32 = 0x100 | 0x200;
/// `SpanFlags`: the W3C flag for what is sampled.
const SAMPLED: u32 = 1;
/// Methods that span names and `http.request.method` may have (RFC 9110 section 9, RFC 5789).
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

/// The request for a batch, from the gateway `node` of this `service`.
pub(super) fn document(batch: &[Finished], service: &str, node: &str) -> Value {
    let resource = [
        text("service.name", service),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("service.instance.id", node),
    ];
    let scope = json!({ "name": "fleetgate", "version": env!("CARGO_PKG_VERSION") });
    let spans: Vec<Value> = batch.iter().map(span).collect();
    json!({ "resourceSpans": [{
        "resource": { "attributes": resource },
        "scopeSpans": [{ "scope": scope, "spans": spans }],
    }] })
}

fn span(it: &Finished) -> Value {
    let took = u64::try_from(it.duration.as_nanos()).unwrap_or(u64::MAX);
    let known = METHODS.contains(&&*it.method);
    let mut value = json!({
        "traceId": it.span.trace.to_string(),
        "spanId": it.span.id.to_string(),
        // "{method}", or "HTTP" where that is none of those known: names are to be few.
        "name": if known { &*it.method } else { "HTTP" },
        "kind": SERVER,
        "flags": SAMPLED,
        "startTimeUnixNano": it.start_unix_ns.to_string(),
        "endTimeUnixNano": it.start_unix_ns.saturating_add(took).to_string(),
        "attributes": attributes(it, known),
    });
    if let Some(parent) = it.span.parent {
        value["parentSpanId"] = parent.to_string().into();
        value["flags"] = (SAMPLED | REMOTE_PARENT).into();
    }
    // Of a server's span only its own failures are errors, and no whole answer at all.
    if is_error(it) {
        value["status"] = json!({ "code": ERROR });
    }
    value
}

fn is_error(it: &Finished) -> bool {
    it.aborted || it.status == 0 || it.status >= 500
}

fn attributes(it: &Finished, known: bool) -> Vec<Value> {
    let mut all = vec![
        text(
            "http.request.method",
            if known { &it.method } else { "_OTHER" },
        ),
        text("url.scheme", it.scheme),
        text("url.path", &it.path),
        text("network.protocol.version", it.version),
        text("client.address", &it.client.ip().to_canonical().to_string()),
        text(
            "network.peer.address",
            &it.peer.ip().to_canonical().to_string(),
        ),
        number("network.peer.port", it.peer.port().into()),
        number("server.port", it.port.into()),
    ];
    if it.status != 0 {
        all.push(number("http.response.status_code", it.status.into()));
    }
    if it.client.port() != 0 {
        all.push(number("client.port", it.client.port().into()));
    }
    if let Some((_, rule)) = &it.rule {
        all.push(number("fleetgate.rule_number", *rule));
    }
    if it.attempts > 0 {
        all.push(number("fleetgate.attempts", it.attempts));
    }
    let (reason, status) = (it.reason.unwrap_or_default(), it.status.to_string());
    let error = match (is_error(it), reason) {
        (false, _) => "",
        // "SHOULD be set to the status code number (represented as a string)".
        (true, "") => &status,
        (true, reason) => reason,
    };
    let backend = it.backend.map(|it| it.to_string()).unwrap_or_default();
    let rule = it.rule.as_ref().map_or("", |(ingress, _)| ingress);
    let method = if known { "" } else { &it.method };
    let named = [
        ("http.request.method_original", method),
        ("server.address", &it.host),
        ("user_agent.original", &it.user_agent),
        ("error.type", error),
        ("fleetgate.reason", reason),
        ("fleetgate.listener", &it.listener),
        ("fleetgate.rule", rule),
        ("fleetgate.service", &it.service),
        ("fleetgate.cluster", &it.cluster),
        ("fleetgate.backend", &backend),
    ];
    let there = named.iter().filter(|(_, value)| !value.is_empty());
    all.extend(there.map(|(key, value)| text(key, value)));
    all
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn number(key: &str, value: u32) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}
