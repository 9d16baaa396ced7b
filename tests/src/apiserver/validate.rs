//! Defaults that the server fills in, and objects that it does not take.
//!
//! Only what a client of this project can meet: names, Events, Leases, micro-second times.
//! Source: `pkg/apis/{core,coordination}/validation` and `pkg/apis/core/v1/defaults.go` of Kubernetes.

use serde_json::{Value, json};

use super::{base64, refusal::Refusal, resource::Resource};

/// Most bytes of an Event's note.
const NOTE_MAX: usize = 1024;
/// Most bytes of an Event's action, reason and reporting instance.
const EVENT_WORD_MAX: usize = 128;

/// Field and what is wrong with it.
type Causes = Vec<(String, String)>;

/// Fills in what a client left out.
pub(super) fn default_fields(resource: Resource, object: &mut Value) {
    let default = |object: &mut Value, name: &str, value: Value| {
        if let Some(fields) = object.as_object_mut() {
            fields.entry(name).or_insert(value);
        }
    };
    match resource {
        Resource::Secrets => {
            default(object, "type", json!("Opaque"));
            let plain = object
                .as_object_mut()
                .and_then(|fields| fields.remove("stringData"));
            for (name, text) in plain
                .as_ref()
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
            {
                let text = text.as_str().unwrap_or_default();
                object["data"][name] = json!(base64::encode(text.as_bytes()));
            }
        }
        Resource::Services => {
            let Some(spec) = object.get_mut("spec") else {
                return;
            };
            default(spec, "type", json!("ClusterIP"));
            default(spec, "sessionAffinity", json!("None"));
            for port in spec
                .get_mut("ports")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                default(port, "protocol", json!("TCP"));
                let number = port["port"].clone();
                default(port, "targetPort", number);
            }
        }
        Resource::EndpointSlices => {
            for port in object
                .get_mut("ports")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                default(port, "protocol", json!("TCP"));
                default(port, "name", json!(""));
            }
        }
        _ => {}
    }
}

/// Refuses an object as the real server would. `old` is null for a new object.
pub(super) fn check(resource: Resource, old: &Value, new: &Value) -> Result<(), Refusal> {
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    let mut causes = Causes::new();
    if !is_name(name) {
        causes.push((
            "metadata.name".to_owned(),
            format!("Invalid value: \"{name}\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"),
        ));
    }
    match resource {
        Resource::Events => {
            micro_time(new, &["/eventTime", "/series/lastObservedTime"])?;
            if old.is_null() {
                new_event(new, &mut causes);
            } else {
                changed_event(old, new, &mut causes);
            }
        }
        Resource::Leases => {
            micro_time(new, &["/spec/acquireTime", "/spec/renewTime"])?;
            lease(new, &mut causes);
        }
        _ => {}
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid(resource.kind(), name, &causes))
}

/// RFC 1123 subdomain.
fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        ends.iter().all(|end| end.is_some_and(plain))
            && bytes.iter().all(|b| plain(b) || *b == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// The server reads these with exactly six digits behind the point, and nothing else.
fn micro_time(object: &Value, fields: &[&str]) -> Result<(), Refusal> {
    for value in fields.iter().filter_map(|field| object.pointer(field)) {
        let text = value.as_str().unwrap_or_default();
        let digits = text.split_once('.').map_or(0, |(_, rest)| {
            rest.bytes().take_while(u8::is_ascii_digit).count()
        });
        let parsed = text.parse::<k8s_openapi::jiff::Timestamp>();
        if digits != 6 || parsed.is_err() {
            let kind = object["kind"].as_str().unwrap_or_default();
            return Err(Refusal::bad_request(format!(
                "{kind} in version \"v1\" cannot be handled as a {kind}: parsing time \"{text}\" as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"{text}\""
            )));
        }
    }
    Ok(())
}

fn word<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_default()
}

fn any_event(event: &Value, causes: &mut Causes) {
    let mut wrong = |field: &str, what: String| causes.push((field.to_owned(), what));
    let namespace = word(&event["metadata"], "namespace");
    // An event about an object of the whole cluster lives in one of two namespaces.
    if word(&event["regarding"], "namespace").is_empty()
        && !matches!(namespace, "default" | "kube-system")
    {
        wrong(
            "involvedObject.namespace",
            "Invalid value: \"\": does not match event.namespace".to_owned(),
        );
    }
    for field in [
        "reportingController",
        "reportingInstance",
        "action",
        "reason",
    ] {
        let value = word(event, field);
        if value.is_empty() {
            wrong(field, "Required value".to_owned());
        } else if field != "reportingController" && value.len() > EVENT_WORD_MAX {
            wrong(
                field,
                format!("Invalid value: \"{value}\": can have at most {EVENT_WORD_MAX} characters"),
            );
        }
    }
    let controller = word(event, "reportingController");
    let prefix_and_name = controller
        .rsplit_once('/')
        .map_or(("x", controller), |both| both);
    let qualified = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !is_name(prefix_and_name.0)
        || prefix_and_name.1.len() > 63
        || !prefix_and_name.1.chars().all(qualified)
    {
        wrong(
            "reportingController",
            format!(
                "Invalid value: \"{controller}\": name part must consist of alphanumeric characters, '-', '_' or '.'"
            ),
        );
    }
    if word(event, "note").len() > NOTE_MAX {
        wrong(
            "message",
            format!("Invalid value: \"\": can have at most {NOTE_MAX} characters"),
        );
    }
}

fn new_event(event: &Value, causes: &mut Causes) {
    any_event(event, causes);
    let mut wrong = |field: &str, what: String| causes.push((field.to_owned(), what));
    if word(event, "eventTime").is_empty() {
        wrong("eventTime", "Required value".to_owned());
    }
    if !matches!(word(event, "type"), "Normal" | "Warning") {
        wrong(
            "type",
            format!(
                "Invalid value: \"{}\": has invalid value",
                word(event, "type")
            ),
        );
    }
    for field in [
        "deprecatedFirstTimestamp",
        "deprecatedLastTimestamp",
        "deprecatedCount",
        "deprecatedSource",
    ] {
        if !event[field].is_null() {
            wrong(field, "Invalid value: \"\": needs to be unset".to_owned());
        }
    }
    // Stricter than the real server, which takes an event about nothing.
    if word(&event["regarding"], "kind").is_empty() {
        wrong("regarding.kind", "Required value".to_owned());
    }
    series(event, causes);
}

fn series(event: &Value, causes: &mut Causes) {
    let Some(series) = event.get("series") else {
        return;
    };
    if series["count"].as_i64().unwrap_or_default() < 2 {
        causes.push((
            "series.count".to_owned(),
            "Invalid value: should be at least 2".to_owned(),
        ));
    }
    if word(series, "lastObservedTime").is_empty() {
        causes.push((
            "series.lastObservedTime".to_owned(),
            "Required value".to_owned(),
        ));
    }
}

/// Of an Event that exists only the series may change.
fn changed_event(old: &Value, new: &Value, causes: &mut Causes) {
    let fixed = [
        "regarding",
        "related",
        "reason",
        "note",
        "type",
        "eventTime",
        "action",
        "reportingController",
        "reportingInstance",
    ];
    for field in fixed.into_iter().filter(|field| old[*field] != new[*field]) {
        causes.push((
            field.to_owned(),
            format!("Invalid value: {}: field is immutable", new[field]),
        ));
    }
    any_event(new, causes);
    if old["series"] != new["series"] {
        series(new, causes);
    }
}

fn lease(lease: &Value, causes: &mut Causes) {
    let spec = &lease["spec"];
    if spec["leaseDurationSeconds"]
        .as_i64()
        .is_some_and(|seconds| seconds <= 0)
    {
        causes.push((
            "spec.leaseDurationSeconds".to_owned(),
            "Invalid value: must be greater than 0".to_owned(),
        ));
    }
    if spec["leaseTransitions"]
        .as_i64()
        .is_some_and(|count| count < 0)
    {
        causes.push((
            "spec.leaseTransitions".to_owned(),
            "Invalid value: must be greater than or equal to 0".to_owned(),
        ));
    }
    for field in ["leaseDurationSeconds", "leaseTransitions"] {
        if !spec[field].is_null() && !spec[field].is_i64() && !spec[field].is_u64() {
            causes.push((
                format!("spec.{field}"),
                "Invalid value: must be an integer".to_owned(),
            ));
        }
    }
}
