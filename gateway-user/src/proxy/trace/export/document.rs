//! Spans as an `ExportTraceServiceRequest` in JSON.
//!
//! Source: OpenTelemetry Protocol specification, "JSON Protobuf Encoding": ids are hexadecimal, 64-bit numbers are strings,
//! enums are numbers. Attributes: OpenTelemetry semantic conventions for HTTP server spans.

use serde_json::{Value, json};

use super::Finished;

/// `SPAN_KIND_SERVER`.
const SERVER: u8 = 2;
/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;
/// Bytes shown of a text.
const TEXT_BYTES: usize = 1024;

/// The request for a batch, from the gateway node of this name.
pub(super) fn document(batch: &[Finished], node: &str) -> Value {
    let resource = [
        text("service.name", "fleetgate"),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("service.instance.id", node),
    ];
    let spans: Vec<Value> = batch.iter().map(span).collect();
    json!({ "resourceSpans": [{
        "resource": { "attributes": resource },
        "scopeSpans": [{ "scope": { "name": "fleetgate" }, "spans": spans }],
    }] })
}

fn span(it: &Finished) -> Value {
    let mut attributes = vec![
        text("http.request.method", &it.method),
        text("url.scheme", it.scheme),
        text("url.path", &it.path),
        text("server.address", &it.host),
        text("client.address", &it.client.ip().to_canonical().to_string()),
    ];
    if it.status != 0 {
        attributes.push(number("http.response.status_code", it.status.into()));
    }
    let named = [
        ("error.type", it.reason.unwrap_or_default()),
        ("fleetgate.service", &it.service),
        ("fleetgate.cluster", &it.cluster),
    ];
    attributes.extend(
        named
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| text(key, value)),
    );
    if let Some(backend) = it.backend {
        attributes.push(text("network.peer.address", &backend.ip().to_string()));
        attributes.push(number("network.peer.port", backend.port().into()));
    }
    let took = u64::try_from(it.duration.as_nanos()).unwrap_or(u64::MAX);
    let mut value = json!({
        "traceId": it.span.trace.to_string(),
        "spanId": it.span.id.to_string(),
        "name": cut(&it.method),
        "kind": SERVER,
        "startTimeUnixNano": it.start_unix_ns.to_string(),
        "endTimeUnixNano": it.start_unix_ns.saturating_add(took).to_string(),
        "attributes": attributes,
    });
    if let Some(parent) = it.span.parent {
        value["parentSpanId"] = parent.to_string().into();
    }
    // Of a server's span only its own failures are errors, and no answer at all.
    if it.status == 0 || it.status >= 500 {
        value["status"] = json!({ "code": ERROR });
    }
    value
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES)]
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": cut(value) } })
}

fn number(key: &str, value: u32) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}
