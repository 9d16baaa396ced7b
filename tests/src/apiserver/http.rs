//! From an HTTP request to what it asks for, and back.

use std::{convert::Infallible, sync::Arc, time::Instant};

use http_body_util::{BodyExt as _, Limited};
use hyper::{Method, Request, body::Incoming, header};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::{
    Shared,
    answer::{Answer, json_answer, plain, refuse, stream_answer},
    discovery,
    journal::{self, Verb},
    query::Query,
    rbac::{self, Ask},
    read::{self, Shape},
    refusal::Refusal,
    resource::Target,
    selector::Selector,
    store::Key,
    watch::{self, Watch},
    write::{self, Deleted, Options, PatchKind},
};

/// Largest body of a request, as the real server has it.
const BODY_MAX: usize = 3 * 1024 * 1024;

/// Answers one request; never fails, as a refusal is an answer.
pub(super) async fn answer(
    shared: Arc<Shared>,
    certificate: Option<CertificateDer<'static>>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let text = |name| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let user = shared
        .access()
        .user(text(header::AUTHORIZATION), certificate.as_ref());
    let Some(user) = user else {
        return Ok(refuse(&Refusal::unauthorized()));
    };
    let path = request.uri().path().to_owned();
    if matches!(path.as_str(), "/healthz" | "/livez" | "/readyz") {
        return Ok(plain(200, "text/plain", "ok".into()));
    }
    if let Some(found) = discovery::answer(&path) {
        return Ok(json_answer(200, found.to_string().into()));
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let Some(target) = Target::parse(&path) else {
        return Ok(refuse(&Refusal::no_such_path()));
    };
    let Some(verb) = verb(request.method(), &target, &query) else {
        return Ok(refuse(&Refusal::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )));
    };
    shared.journal().count(verb, target.resource);
    let uri = request.uri().to_string();
    let ask = Ask {
        user: &user,
        target: &target,
        query: &query,
    };
    let checked = check(&shared, &ask, verb);
    let done = match checked {
        Ok(()) => carry_out(&shared, verb, &ask, request).await,
        Err(refusal) => Err(refusal),
    };
    let answer = done.unwrap_or_else(|refusal| refuse(&refusal));
    shared.journal().note(journal::Request {
        at: Instant::now(),
        verb,
        resource: target.resource,
        uri,
        user,
        code: answer.status().as_u16(),
    });
    Ok(answer)
}

fn verb(method: &Method, target: &Target, query: &Query) -> Option<Verb> {
    Some(match (method.as_str(), target.name.is_some()) {
        ("GET", true) => Verb::Get,
        ("GET", false) if query.flag("watch") => Verb::Watch,
        ("GET", false) => Verb::List,
        ("POST", false) => Verb::Create,
        ("PUT", true) => Verb::Update,
        ("PATCH", true) => Verb::Patch,
        ("DELETE", true) if !target.status => Verb::Delete,
        ("DELETE", false) => Verb::DeleteCollection,
        _ => return None,
    })
}

/// Failures that were ordered, and who may do what.
fn check(shared: &Shared, ask: &Ask<'_>, verb: Verb) -> Result<(), Refusal> {
    let mut faults = shared.faults();
    if let Some(refusal) = faults.strike(verb, ask.target.resource) {
        return Err(refusal);
    }
    rbac::authorise(&faults, ask, verb)
}

async fn carry_out(
    shared: &Arc<Shared>,
    verb: Verb,
    ask: &Ask<'_>,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let (target, query) = (ask.target, ask.query);
    let text = |name| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let (accept, content_type, agent) = (
        text(header::ACCEPT),
        text(header::CONTENT_TYPE),
        text(header::USER_AGENT),
    );
    let shape = Shape::of_accept(&accept);
    match verb {
        Verb::Get => {
            let object = read::get(&shared.store(), target, query, shape)?;
            return Ok(json_answer(200, object));
        }
        Verb::List => {
            let stale = shared.faults().stale;
            let listing = read::list(&shared.store(), target, query, stale)?;
            return Ok(json_answer(200, listing.text(shape)));
        }
        Verb::Watch => {
            let watch = Watch::open(shared, target, query, shape)?;
            let (parts, body) = mpsc::channel(watch::AHEAD);
            tokio::spawn(watch.run(Arc::clone(shared), parts));
            return Ok(stream_answer(body));
        }
        _ => {}
    }
    let body = Limited::new(request.into_body(), BODY_MAX).collect().await;
    let body = body
        .map_err(|_| Refusal::new(413, "RequestEntityTooLarge", "limit is 3145728"))?
        .to_bytes();
    let body: Value = match body.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&body).map_err(|cause| {
            Refusal::bad_request(format!(
                "the object provided is unrecognized (must be JSON): {cause}"
            ))
        })?,
    };
    let options = options(verb, query, &agent, &content_type)?;
    let written = match verb {
        Verb::Create => write::create(&mut shared.store(), target, body, &options)?,
        Verb::Update => {
            may_create(shared, ask)?;
            write::update(&mut shared.store(), target, body, &options)?
        }
        Verb::Patch => {
            let kind = patch_kind(&content_type)?;
            if kind == PatchKind::Apply {
                may_create(shared, ask)?;
            }
            write::patch(&mut shared.store(), target, kind, body, &options)?
        }
        _ => return delete(shared, target, query, &body, &options),
    };
    let code = if written.created { 201 } else { 200 };
    let text = match shape {
        Shape::Whole => written.object.to_string(),
        Shape::Metadata => json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": written.object["metadata"],
        }).to_string(),
    };
    Ok(json_answer(code, text.into()))
}

fn delete(
    shared: &Shared,
    target: &Target,
    query: &Query,
    body: &Value,
    options: &Options,
) -> Result<Answer, Refusal> {
    let resource = target.resource;
    let mut store = shared.store();
    if let Some(name) = &target.name {
        let key = Key::new(target.namespace.as_deref(), name);
        let text = match write::delete(&mut store, resource, &key, body, options)? {
            Deleted::Waits(object) => object.to_string().into(),
            Deleted::Gone(object) => json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "details": {
                    "name": name, "group": resource.traits().group, "kind": resource.plural(),
                    "uid": object["metadata"]["uid"],
                },
            })
            .to_string()
            .into(),
        };
        return Ok(json_answer(200, text));
    }
    let selector = Selector::parse(resource, query)?;
    let now = store.revision();
    for object in read::matching(&store, target, &selector, now)? {
        write::delete(&mut store, resource, &object.key, &Value::Null, options)?;
    }
    let list = json!({
        "kind": format!("{}List", resource.kind()), "apiVersion": resource.api_version(),
        "metadata": {"resourceVersion": store.revision().to_string()}, "items": [],
    });
    Ok(json_answer(200, list.to_string().into()))
}

/// A write that may create what is not there needs the right to do so.
fn may_create(shared: &Shared, ask: &Ask<'_>) -> Result<(), Refusal> {
    let name = ask.target.name.as_deref().unwrap_or_default();
    let key = Key::new(ask.target.namespace.as_deref(), name);
    let there = shared.store().find(ask.target.resource, &key).is_some();
    if there || ask.target.status {
        return Ok(());
    }
    rbac::authorise(&shared.faults(), ask, Verb::Create)
}

fn options(verb: Verb, query: &Query, agent: &str, content_type: &str) -> Result<Options, Refusal> {
    let apply = content_type.starts_with("application/apply-patch");
    let force = query.flag("force");
    let wrong = |field: &str, what: &str| {
        let cause = (field.to_owned(), what.to_owned());
        Refusal::invalid("PatchOptions.meta.k8s.io", "", &[cause])
    };
    if verb == Verb::Patch && force && !apply {
        return Err(wrong(
            "force",
            "Forbidden: may not be specified for non-apply patch",
        ));
    }
    let manager = match query.text("fieldManager") {
        Some(manager) if manager.len() > 128 => {
            return Err(wrong(
                "fieldManager",
                "Too long: may not be more than 128 bytes",
            ));
        }
        Some(manager) => manager.to_owned(),
        None if apply => {
            return Err(wrong(
                "fieldManager",
                "Required value: is required for apply patch",
            ));
        }
        // The real server takes the first word of the user agent.
        None => match agent.split('/').next().unwrap_or_default() {
            "" => "unknown".to_owned(),
            agent => agent.to_owned(),
        },
    };
    Ok(Options {
        manager,
        dry_run: query.text("dryRun") == Some("All"),
        force,
        now: now(),
    })
}

/// The time as `metadata` writes it.
pub(super) fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn patch_kind(content_type: &str) -> Result<PatchKind, Refusal> {
    match content_type.split(';').next().unwrap_or_default().trim() {
        // Lists of the kinds here are replaced as a whole either way.
        "application/merge-patch+json" | "application/strategic-merge-patch+json" => {
            Ok(PatchKind::Merge)
        }
        "application/json-patch+json" => Ok(PatchKind::Json),
        "application/apply-patch+yaml" => Ok(PatchKind::Apply),
        other => Err(Refusal::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml; got {other}"
            ),
        )),
    }
}
