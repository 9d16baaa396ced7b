//! What a rule does on the way to its target, and to what comes back (contract sections 7 and 8).

use std::net::IpAddr;

use super::{
    cors::{self, Marked},
    fields::{Fields, Name},
    message::{Request, Response},
    reason::Refusal,
    variables::{self, Asked},
};
use crate::ir::{
    Cors, Direction, Filter, FixedResponse, InsertHeader, InsertedValue, Listener, Redirect,
    Rewrite, Rule, SystemValue, matching::RequestParts,
};

/// What filters know of a request besides itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) listener: &'a Listener,
    /// The client of the request.
    pub(super) client: IpAddr,
    /// Port at the other end of the connection.
    pub(super) client_port: u16,
    /// The client spoke TLS.
    pub(super) tls: bool,
}

impl Surroundings<'_> {
    pub(super) fn protocol(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}

/// An answer made here: its body; the head was written into a response.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Local(pub(super) Vec<u8>);

/// What the filters of a rule leave to be done.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The request is answered with this.
    pub(super) answer: Option<Local>,
    /// How the answer is marked for browsers.
    pub(super) cors: Option<Marked>,
}

/// Carries out the filters of a rule for requests, in their order. Traffic limits and mirrors are for others.
pub(super) fn request(
    rule: &Rule,
    request: &mut Request,
    response: &mut Response,
    around: Surroundings<'_>,
) -> Result<Outcome, Refusal> {
    let mut outcome = Outcome::default();
    for filter in &rule.filters {
        match filter {
            Filter::InsertHeader(insert) => {
                let value = value(&insert.value, &request.fields, around);
                put(&mut request.fields, insert, value);
            }
            Filter::RemoveHeader(name) => drop(request.fields.remove_named(name.as_bytes())),
            Filter::Rewrite(rewrite) => self::rewrite(rewrite, request, around)?,
            Filter::Cors(cors) => {
                if let Some(local) = self::cors(cors, request, response, &mut outcome) {
                    outcome.answer = Some(local);
                    return Ok(outcome);
                }
            }
            Filter::TrafficLimit(_) | Filter::Mirror(_) => {}
        }
    }
    Ok(outcome)
}

fn cors(
    cors: &Cors,
    request: &Request,
    response: &mut Response,
    outcome: &mut Outcome,
) -> Option<Local> {
    if let Some(marked) = cors::preflight(cors, request) {
        response.clear();
        response.status = 204;
        marked.mark(response);
        return Some(Local::default());
    }
    outcome.cors = cors::actual(cors, request);
    None
}

/// Carries out the rules for responses whose conditions on the request were met: the first that meets the response too
/// decides. `None`: the (changed) response goes to the client.
pub(super) fn response(
    rules: &[usize],
    request: &Request,
    response: &mut Response,
    around: Surroundings<'_>,
) -> Option<Local> {
    let all = &around.listener.rules;
    let rule = rules
        .iter()
        .filter_map(|index| all.get(*index))
        .find(|rule| {
            rule.conditions.matches_response(response.status, |name| {
                response.fields.named(name.as_bytes()).collect::<Vec<_>>()
            })
        })?;
    for filter in &rule.filters {
        match filter {
            Filter::InsertHeader(insert) => {
                let value = value(&insert.value, &request.fields, around);
                put(&mut response.fields, insert, value);
            }
            Filter::RemoveHeader(name) => drop(response.fields.remove_named(name.as_bytes())),
            _ => {}
        }
    }
    match &rule.target {
        crate::ir::Target::Respond(fixed) => Some(fixed_response(fixed, response)),
        _ => None,
    }
}

/// The rules for responses whose conditions on the request are met.
pub(super) fn responses(
    listener: &Listener,
    asked: &impl RequestParts,
    known: &[usize],
) -> Vec<usize> {
    let meets = |index: &&usize| {
        let rule = listener.rules.get(**index);
        rule.is_some_and(|it| it.direction == Direction::Response && it.conditions.matches(asked))
    };
    known.iter().filter(meets).copied().collect()
}

/// Answers with another address.
pub(super) fn redirect(
    redirect: &Redirect,
    request: &Request,
    response: &mut Response,
    around: Surroundings<'_>,
) -> Local {
    let location = variables::location(redirect, &asked(request, around));
    response.clear();
    response.status = redirect.code;
    response.fields.push_known(Name::Location, &location);
    Local::default()
}

/// Answers as written.
pub(super) fn fixed_response(fixed: &FixedResponse, response: &mut Response) -> Local {
    response.clear();
    response.status = fixed.code;
    response
        .fields
        .push_known(Name::ContentType, fixed.content_type.as_bytes());
    Local(fixed.content.clone().into_bytes())
}

fn asked<'a>(request: &'a Request, around: Surroundings<'a>) -> Asked<'a> {
    let host = super::headers::host_of(request.authority());
    Asked {
        protocol: around.protocol(),
        host: host.unwrap_or_default(),
        port: around.listener.name.port,
        path: request.path(),
        query: request.query(),
    }
}

fn rewrite(
    rewrite: &Rewrite,
    request: &mut Request,
    around: Surroundings<'_>,
) -> Result<(), Refusal> {
    let to = variables::rewrite(rewrite, &asked(request, around))?;
    let fields = &mut request.fields;
    request.path = fields.keep(&to.path);
    request.query = to.query.map(|query| fields.keep(&query));
    if let Some(authority) = to.authority {
        fields.set(Name::Host, &authority);
        request.authority = fields.keep(&authority);
    }
    Ok(())
}

/// What is to be inserted; nothing where it names a header that is not there.
fn value(value: &InsertedValue, asked: &Fields, around: Surroundings<'_>) -> Option<Vec<u8>> {
    let text = match value {
        InsertedValue::Literal(text) => text.clone(),
        InsertedValue::Header(name) => {
            return asked.named(name.as_bytes()).next().map(<[u8]>::to_vec);
        }
        InsertedValue::System(SystemValue::ClientPort) => around.client_port.to_string(),
        InsertedValue::System(SystemValue::ClientAddress) => {
            around.client.to_canonical().to_string()
        }
        InsertedValue::System(SystemValue::Protocol) => around.protocol().to_owned(),
        InsertedValue::System(SystemValue::GatewayId) => around.listener.name.gateway.clone(),
        InsertedValue::System(SystemValue::ListenerPort) => around.listener.name.port.to_string(),
    };
    Some(text.into_bytes())
}

fn put(fields: &mut Fields, insert: &InsertHeader, value: Option<Vec<u8>>) {
    let name = insert.name.as_bytes();
    let Some(value) = value else { return };
    if insert.overwrite {
        fields.remove_named(name);
    } else if fields.named(name).next().is_some() {
        return;
    }
    fields.push(name, &value);
}
